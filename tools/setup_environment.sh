#!/usr/bin/env bash
# Set up .venv for every make target: system packages, torch, the package and its extension.
#
# Does nothing, in a blink, when nothing has changed. What counts as a change: the choice of torch,
# the build switches, and the content of pyproject.toml, setup.py, MANIFEST.in, csrc/.
#
# Environment:
#   PYTHON               the Python that .venv is made from (python3; 3.11 or newer)
#   FASTSSL_TORCH        unset: keep the torch that is there, else install the newest
#                        cpu: a CPU build; a requirement (torch==2.13.0): that one
#   FASTSSL_TORCH_INDEX  where CPU builds are looked for besides pip's own configuration:
#                        the address of a package index, or a folder of wheels
#   FASTSSL_BUILD_EXT, FASTSSL_CUDA, FASTSSL_CUDA_ARCHS, CUDA_HOME, CXX, MAX_JOBS   read by setup.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
VENV=.venv
STAMPS=$VENV/stamps
CONSTRAINTS=$STAMPS/constraints.txt

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

say() {
    printf '[setup] %s\n' "$*"
}

# run_step NAME FUNCTION: run it and print how long it took.
run_step() {
    local name=$1 function=$2 start=$SECONDS
    say "$name ..."
    "$function"
    say "$name: $((SECONDS - start)) s"
}

pip_install() {
    local options=(--disable-pip-version-check)
    # A progress bar is for people; a log gets the errors and the summary of each step.
    [[ -t 1 ]] || options+=(--quiet)
    "$VENV/bin/python" -m pip install "${options[@]}" "$@"
}

# ---- system packages -----------------------------------------------------------------------------

# Whether the compiler finds jpeglib.h; without a compiler: whether it lies in its usual place.
has_jpeg_header() {
    local compiler
    compiler=$(command -v "${CXX:-c++}" || command -v g++ || true)
    if [[ -n $compiler ]]; then
        printf '#include <cstdio>\n#include <jpeglib.h>\n' |
            "$compiler" -x c++ -E - > /dev/null 2>&1
    else
        [[ -f /usr/include/jpeglib.h ]]
    fi
}

# Debian's packages that this version needs and this machine lacks, one a line.
list_missing_packages() {
    [[ $PYTHON != python3 ]] || command -v python3 > /dev/null ||
        printf 'python3\npython3-venv\npython3-dev\n'
    command -v "${CXX:-c++}" > /dev/null || command -v g++ > /dev/null || echo g++
    # libjpeg-turbo's header, for the native loader.
    has_jpeg_header || echo libjpeg-dev
    command -v "$PYTHON" > /dev/null || return 0
    # Another Python than Debian's own brings its venv and its headers, or apt cannot help.
    [[ $("$PYTHON" -c 'import sys; print(sys.base_prefix)') == /usr ]] || return 0
    "$PYTHON" -c 'import ensurepip, venv' 2> /dev/null || echo python3-venv
    "$PYTHON" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
        echo python3-dev
}

# What ffcv is compiled against; it has no wheels.
list_missing_ffcv_packages() {
    command -v pkg-config > /dev/null || echo pkg-config
    pkg-config --exists opencv4 2> /dev/null || echo libopencv-dev
    pkg-config --exists libturbojpeg 2> /dev/null || echo libturbojpeg0-dev
}

install_system_packages() {
    local missing
    mapfile -t missing < <(
        list_missing_packages
        list_missing_ffcv_packages
    )
    if ((${#missing[@]} == 0)); then
        say "nothing is missing"
    elif ! command -v apt-get > /dev/null; then
        say "missing, please install what your system calls: ${missing[*]}"
    elif ((EUID != 0)); then
        say "missing, and only root may install them; going on with what works. Please run:"
        say "    sudo apt-get install -y ${missing[*]}"
    else
        say "apt-get install ${missing[*]}"
        {
            apt-get update -qq < /dev/null &&
                DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                    "${missing[@]}" < /dev/null
        } || say "apt-get failed; going on with what works. Still missing: ${missing[*]}"
    fi
}

# ---- virtual environment -------------------------------------------------------------------------

make_venv() {
    local oldest
    oldest=$(sed -n 's/^requires-python = ">=\(.*\)"$/\1/p' pyproject.toml)
    command -v "$PYTHON" > /dev/null ||
        die "PYTHON ($PYTHON) is not a command; install Python 3.11 or newer (Debian:" \
            "apt-get install python3 python3-venv python3-dev) or name yours: make PYTHON=..."
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "PYTHON ($PYTHON) is $("$PYTHON" --version 2>&1), wanted 3.11 or newer;" \
            "name a newer one: make PYTHON=/path/to/python3"
    "$PYTHON" -c 'import ensurepip, venv' 2> /dev/null ||
        die "PYTHON ($PYTHON) has no venv module with pip; install it (Debian:" \
            "apt-get install python3-venv) or name another Python: make PYTHON=/path/to/python3"
    "$PYTHON" -m venv "$VENV"
    pip_install --upgrade pip setuptools wheel ninja numpy
    mkdir -p "$STAMPS"
    touch "$STAMPS/venv"
}

# ---- torch ---------------------------------------------------------------------------------------

installed_version() {
    "$VENV/bin/python" -c 'import importlib.metadata, sys
try:
    print(importlib.metadata.version(sys.argv[1]))
except importlib.metadata.PackageNotFoundError:
    pass' "$1"
}

# Whether the registry's default build for this platform brings CUDA along.
is_default_build_cuda() {
    [[ $(uname -s) == Linux ]]
}

# Extra places for pip, from FASTSSL_TORCH_INDEX.
list_index_options() {
    [[ -n ${FASTSSL_TORCH_INDEX:-} ]] || return 0
    if [[ -d $FASTSSL_TORCH_INDEX ]]; then
        printf -- '--find-links\n%s\n' "$FASTSSL_TORCH_INDEX"
    else
        printf -- '--extra-index-url\n%s\n' "$FASTSSL_TORCH_INDEX"
    fi
}

# find_cpu_build PACKAGE [REQUIREMENT]: the newest version labelled +cpu that pip can see, or nothing.
find_cpu_build() {
    local options
    mapfile -t options < <(list_index_options)
    { "$VENV/bin/python" -m pip index versions "$1" ${options[@]+"${options[@]}"} 2> /dev/null || true; } |
        sed -n 's/^Available versions: //p' | tr -d ' ' | tr ',' '\n' | grep -m 1 '+cpu$' || true
}

install_cpu_torch() {
    local version options
    mapfile -t options < <(list_index_options)
    if ! is_default_build_cuda; then
        pip_install 'torch>=2.13'
        return
    fi
    version=$(find_cpu_build torch)
    [[ -n $version ]] ||
        die "FASTSSL_TORCH (cpu): pip sees no build of torch labelled +cpu, and the default" \
            "build for this platform may bring several GB of CUDA; set FASTSSL_TORCH_INDEX to the address" \
            "of an index with CPU builds (PyTorch's 'Get started' page shows it in the row CPU)" \
            "or to a folder of wheels, or unset FASTSSL_TORCH to take the default build"
    pip_install ${options[@]+"${options[@]}"} "torch==$version"
}

install_torch() {
    local wanted=${FASTSSL_TORCH:-}
    case $wanted in
        '') [[ -n $(installed_version torch) ]] || pip_install 'torch>=2.13' ;;
        cpu) install_cpu_torch ;;
        torch | torch[!a-z0-9_-]*) pip_install "$wanted" ;;
        *) die "FASTSSL_TORCH ($wanted) must be cpu or a requirement such as torch==2.13.0;" \
            "unset it for the newest torch" ;;
    esac
    # No later step may exchange this torch for another.
    printf 'torch==%s\n' "$(installed_version torch)" > "$CONSTRAINTS"
    say "torch $(installed_version torch)"
    printf '%s\n' "$wanted" > "$STAMPS/torch"
}

# torchvision's compiled half fits only a torch from the same place: a CPU torch needs a CPU build.
install_torchvision() {
    local torch version options
    torch=$(installed_version torch)
    if [[ $torch != *+cpu ]]; then
        # timm asks for a torchvision, and takes the one that is there.
        pip_install -c "$CONSTRAINTS" torchvision timm
        return
    fi
    mapfile -t options < <(list_index_options)
    version=$(find_cpu_build torchvision)
    if [[ -z $version ]] ||
        ! pip_install -c "$CONSTRAINTS" ${options[@]+"${options[@]}"} "torchvision==$version"; then
        "$VENV/bin/python" -m pip uninstall --quiet --yes torchvision 2> /dev/null
        say "no torchvision for torch $torch: pip sees no build labelled +cpu that fits;" \
            "the tests that compare with torchvision and timm are skipped"
    else
        pip_install -c "$CONSTRAINTS" timm
    fi
}

# ---- the package ---------------------------------------------------------------------------------

# What the installation depends on, as one line.
fingerprint() {
    {
        echo "${FASTSSL_BUILD_EXT:-} ${FASTSSL_CUDA:-} ${CXX:-} ${DEBUG:-}"
        echo "${FASTSSL_CUDA_ARCHS:-} ${TORCH_CUDA_ARCH_LIST:-} ${CUDA_HOME:-} ${CUDA_PATH:-}"
        # A compiler that was missing the last time builds what could not be built.
        command -v "${CXX:-c++}" || command -v g++ || true
        command -v nvcc || true
        # Installed later, the header makes another extension.
        has_jpeg_header || echo 'no jpeglib.h'
        list_missing_ffcv_packages
        cat "$STAMPS/torch" "$CONSTRAINTS" 2> /dev/null || true
        find pyproject.toml setup.py MANIFEST.in csrc tools/setup_environment.sh -type f |
            LC_ALL=C sort | while IFS= read -r file; do cksum "$file"; done
    } | cksum
}

install_package() {
    local extras=dev,docs,synthetic log=$VENV/build.log
    # DALI is made for Linux alone.
    [[ $(uname -s) != Linux ]] || extras+=,dali
    if [[ $(uname -s) == Linux && -z $(list_missing_ffcv_packages) ]]; then
        extras+=,ffcv
    else
        say "no ffcv: it is built from source and needs $(list_missing_ffcv_packages | tr '\n' ' ');" \
            "its tests are skipped"
    fi
    # A stale extension must not outlive a build that fails or is switched off.
    rm -f "$log" fastssl/_C*.so
    install_torchvision
    local wanted="minutes for the CPU's code"
    if [[ $(installed_version torch) != *+cpu && ${FASTSSL_CUDA:-auto} != 0 ]] &&
        command -v nvcc > /dev/null; then
        wanted+=", and as many for CUDA kernels (FASTSSL_CUDA=0 or FASTSSL_TORCH=cpu spares them)"
    fi
    say "compiling fastssl/_C: $wanted; what it says goes to $log"
    # setuptools warns at length of every editable install.
    PYTHONWARNINGS=ignore pip_install -c "$CONSTRAINTS" --no-build-isolation --log "$log" -e ".[$extras]" || {
        grep -E '(^|[[:space:]])(fatal )?error:' "$log" | sed 's/^[^ ]* *//' | head -n 20 >&2 || true
        die "the package could not be installed; the whole log is $log"
    }
    # For proposals. The same module, cv2, as the opencv-python that ffcv brings: the last one stays.
    pip_install -c "$CONSTRAINTS" opencv-contrib-python-headless
    # pip hides what setup.py prints: show its block of what was built and why.
    # It runs several times: the last one counts.
    sed 's/^[^ ]* *//' "$log" | awk '
        /^-+ fastssl build -+$/ { block = ""; inside = 1 }
        inside { block = block $0 "\n" }
        inside && /^-+$/ { inside = 0 }
        END { printf "%s", block }'
    find fastssl -maxdepth 1 -name '_C*.so' > "$STAMPS/extension"
    fingerprint > "$STAMPS/package"
}

is_package_current() {
    [[ -f $STAMPS/package && $(< "$STAMPS/package") == "$(fingerprint)" ]] || return 1
    local built
    while IFS= read -r built; do
        [[ -f $built ]] || return 1
    done < "$STAMPS/extension"
}

is_torch_current() {
    [[ -f $STAMPS/torch ]] || return 1
    # Unset means: whatever is there.
    [[ -z ${FASTSSL_TORCH:-} || $(< "$STAMPS/torch") == "$FASTSSL_TORCH" ]]
}

main() {
    local start=$SECONDS
    if [[ -f $STAMPS/venv ]] && is_torch_current && is_package_current; then
        return
    fi
    mkdir -p "$VENV"
    # Two makes at once must not install into one environment.
    if command -v flock > /dev/null; then
        exec 9> "$VENV/.setup.lock"
        flock 9
    fi
    run_step 'system packages' install_system_packages
    [[ -f $STAMPS/venv ]] || run_step 'virtual environment' make_venv
    is_torch_current || run_step 'torch' install_torch
    is_package_current || run_step 'package' install_package
    say "ready after $((SECONDS - start)) s"
}

main
