#!/usr/bin/env bash
# Set-up, suite and demo on several versions of torch, each in a copy of the sources with a .venv of
# its own under build/test-torch/; a table at the end. An hour or more, and 6 GB on disk at a time:
# a version's copy is removed before the next one is made. Called by `make test-torch`.
#
# Environment:
#   TORCH_VERSIONS   pip's versions, "2.6.0 2.10.* newest"; by default the oldest that pyproject.toml
#                    claims, the middle one of those that pip finds, and the newest it would install
#   PYTHONS          the Pythons to try, "python3.11 python3.13"; by default PYTHON, else python3
#   PYTEST_ARGS      for the suite, to try a part of it
#   KEEP=1           keep the copies with their environments
# and what tools/setup_environment.sh reads, but FASTSSL_TORCH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROOT=$PWD
WORK=$ROOT/build/test-torch
table=()
failed=0

say() {
    printf '[test-torch] %s\n' "$*"
}

# choose_versions PYTHON: oldest claimed, middle, newest; one a line.
choose_versions() {
    local oldest versions
    oldest=$(sed -n 's/^    "torch>=\(.*\)",$/\1/p' pyproject.toml)
    # Newest first; plain releases alone, as a label says where a build is from.
    mapfile -t versions < <("$1" -m pip index versions torch 2> /dev/null |
        sed -n 's/^Available versions: //p' | tr -d ' ' | tr ',' '\n' | grep -E '^[0-9.]+$' |
        awk -v oldest="$oldest" 'BEGIN { split(oldest, least, ".") } { split($0, v, ".") }
            v[1] + 0 > least[1] + 0 || (v[1] == least[1] && v[2] + 0 >= least[2] + 0)')
    ((${#versions[@]})) || {
        printf 'error: pip of %s finds no torch; set TORCH_VERSIONS="2.6.0 newest"\n' "$1" >&2
        exit 2
    }
    printf '%s.*\n%s\nnewest\n' "$oldest" "${versions[${#versions[@]} / 2]}"
}

# copy_sources FOLDER: what a clone would hold, with what is not committed yet.
copy_sources() {
    mkdir -p "$1"
    git ls-files --cached --others --exclude-standard -z |
        while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done |
        tar --create --null --files-from - | tar --extract --directory "$1"
}

# run_stage FOLDER TARGET: make it; leave "ok, N s" or "FAILED, N s" in $verdict.
run_stage() {
    local start=$SECONDS log=$1.$2.log
    if make -C "$1" "$2" > "$log" 2>&1 < /dev/null; then verdict=ok; else verdict=FAILED; fi
    verdict+=", $((SECONDS - start)) s"
    say "$2: $verdict ($log)"
    [[ $verdict == ok,* ]] || { failed=1 && return 1; }
}

# try_torch PYTHON VERSION: a row of the table.
try_torch() {
    local requirement=torch==$2 folder=$WORK/torch-${2//\*/x}-$(basename "$1")
    local found=- setup=- suite=- demo=- verdict
    [[ $2 != newest ]] || requirement=torch
    say "$requirement on $1 ..."
    rm -rf "$folder" "$folder".*.log
    copy_sources "$folder"
    export PYTHON=$1 FASTSSL_TORCH=$requirement
    if run_stage "$folder" setup; then
        setup=$verdict
        found=$("$folder/.venv/bin/python" -c 'import sys, torch
print(torch.__version__, "on", sys.version.split()[0])')
        # Without kernels the suite would pass by skipping. From there: `fastssl` here is another.
        (cd "$folder" && .venv/bin/python -c 'import sys
from fastssl import ops
sys.exit(not (ops.build_info()["cpu"] and ops.build_info()["jpeg"]))') || {
            setup="FAILED: no extension" failed=1
        }
        run_stage "$folder" test || true
        suite="$verdict: $(tail -n 1 "$folder.test.log" | sed 's/^=* *//; s/ *=*$//')"
        run_stage "$folder" demo || true
        demo=$verdict
    else
        setup=$verdict
    fi
    table+=("$(printf '%-14s %-22s %-18s %-14s %s' "$2" "$found" "$setup" "$demo" "$suite")")
    [[ -n ${KEEP:-} ]] || rm -rf "$folder"
}

main() {
    local python version versions
    mkdir -p "$WORK"
    for python in ${PYTHONS:-${PYTHON:-python3}}; do
        # Unquoted * must not meet file names.
        set -f
        versions=(${TORCH_VERSIONS:-$(choose_versions "$python")})
        set +f
        for version in "${versions[@]}"; do
            try_torch "$python" "$version"
        done
    done
    printf '\n%-14s %-22s %-18s %-14s %s\n' wanted torch set-up demo suite
    printf '%s\n' "${table[@]}"
    return "$failed"
}

main
