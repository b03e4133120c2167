"""Builds the extension ``fastssl._C`` and maps ``loaders/`` to ``fastssl.loaders``.

All metadata stands in pyproject.toml. Build switches, read from the environment:

* ``FASTSSL_BUILD_EXT`` = ``auto`` (default: build if this machine can, else say why not and install
  pure Python) | ``1`` (fail if it cannot be built) | ``0`` (pure Python);
* ``FASTSSL_CUDA`` = ``auto`` (default: CUDA kernels if torch is a CUDA build and a compiler is
  found, be there a GPU or not) | ``1`` (fail without them) | ``0``: see ``csrc/README.md``;
* ``FASTSSL_JPEG`` = ``auto`` (default: the native loader's decoder if libjpeg-turbo is found) |
  ``1`` (fail without it) | ``0``;
* ``FASTSSL_CUDA_ARCHS``, else ``TORCH_CUDA_ARCH_LIST``: compute capabilities, ``8.0;9.0+PTX``;
* ``CUDA_HOME`` (or ``CUDA_PATH``): the CUDA toolkit to use;
* ``DEBUG=1`` builds without optimisation and with symbols; ``MAX_JOBS`` limits the compilers.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

import setuptools
from setuptools import Extension, find_packages, setup

# The first that reads pyproject.toml's license; older ones answer with a hundred lines.
LEAST_SETUPTOOLS = 77
# The loop that reads Huffman codes takes about 5 % more or less time by where it happens to lie:
# any edit elsewhere moves it over a cache line, or a jump over a border that Intel's decoders
# dislike (erratum SKX102). So both have their place, whatever is linked in front of them.
ALIGNMENT = ["-falign-functions=64", "-falign-loops=32"]
if platform.machine() in ("x86_64", "AMD64"):
    ALIGNMENT.append("-Wa,-mbranches-within-32B-boundaries")
# Oldest CPython that the one binary serves: 3.11.
LIMITED_API = "0x030B0000"
LIMITED_API_TAG = "cp311"
# Ampere and Hopper; the driver compiles the PTX for what came later.
DEFAULT_ARCHS = "8.0;9.0+PTX"
# From here on the compiler's pip packages hold a whole toolkit, in nvidia/cu<major>.
FIRST_PIP_TOOLKIT = 13


def read_switch(name: str) -> str:
    """Return the environment's ``auto``, ``1`` or ``0``.

    Args:
        name: the variable.

    Raises:
        SystemExit: if it holds anything else.
    """
    value = os.environ.get(name, "auto").strip().lower() or "auto"
    if value not in ("auto", "1", "0"):
        sys.exit(f"error: {name} ({value}) must be auto, 1 or 0; unset it for auto")
    return value


def find_obstacle() -> str | None:
    """Return why the extension cannot be built here, or None if it can."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        return (
            f"torch cannot be imported ({error}); "
            "install torch first and use pip install --no-build-isolation"
        )
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler}); install one (Debian: apt-get install g++) or set CXX"
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    if not os.path.exists(header):
        return f"no Python headers ({header}); install them (Debian: apt-get install python3-dev)"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "a free-threaded Python has no stable ABI; use the standard build of Python"
    return None


# ---- CUDA ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Toolkit:
    """A CUDA compiler with its headers."""

    home: Path
    """Holds bin/nvcc and include/."""
    version: str
    """Such as 13.2."""
    origin: str
    """How it was found, for the printed block."""


class NoCudaError(Exception):
    """Why there will be no CUDA kernels."""


def read_archs() -> list[str]:
    """Return the compute capabilities to compile for, such as ``["8.0", "9.0+PTX"]``.

    Raises:
        SystemExit: if the list is not one.
    """
    for name in ("FASTSSL_CUDA_ARCHS", "TORCH_CUDA_ARCH_LIST"):
        value = os.environ.get(name, "").strip()
        if value:
            archs = [arch for arch in re.split(r"[;, ]+", value) if arch]
            break
    else:
        name, archs = "DEFAULT_ARCHS", DEFAULT_ARCHS.split(";")
    wrong = [arch for arch in archs if not re.fullmatch(r"\d{1,2}\.\d(\+PTX)?", arch)]
    if wrong or not archs:
        sys.exit(
            f"error: {name} ({value}) must be compute capabilities such as 8.0;9.0+PTX, "
            f"got {' '.join(wrong)}"
        )
    return archs


def find_version(nvcc: Path) -> str:
    """Return the version that a compiler tells."""
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    if found is None:
        raise NoCudaError(f"{nvcc} --version tells no version; is it nvcc?")
    return found[1]


def find_home(nvcc: str) -> Path:
    """Return the toolkit of a compiler on PATH, which may be a link or a script elsewhere."""
    text = subprocess.run(
        [nvcc, "--dryrun", "-c", "none.cu"], capture_output=True, text=True, check=False
    ).stderr
    found = re.search(r"^#\$ TOP=(.+)$", text, re.MULTILINE)
    home = Path(found[1]) if found else Path(nvcc).resolve().parent.parent
    return home.resolve()


def list_toolkits(major: str) -> list[tuple[Path, str]]:
    """Return where toolkits may lie, the ones to prefer first, and how each was found."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            return [(Path(os.environ[name]), name)]
    on_path = shutil.which("nvcc")
    places = [(find_home(on_path), "nvcc on PATH")] if on_path else []
    if int(major) >= FIRST_PIP_TOOLKIT:
        packages = dict.fromkeys([sysconfig.get_path("purelib"), *sys.path])
        homes = [Path(path) / "nvidia" / f"cu{major}" for path in packages if path]
        places += [(home, "pip packages") for home in homes]
    return [*places, (Path("/usr/local/cuda"), "its usual place")]


def find_toolkit(cuda: str) -> Toolkit:
    """Return the first toolkit that fits torch.

    Args:
        cuda: the version that torch was built with.

    Raises:
        NoCudaError: if there is none; tells what was found and how to install one.
    """
    major = cuda.split(".")[0]
    rejected = []
    for home, origin in list_toolkits(major):
        nvcc = home / "bin" / "nvcc"
        # torch's packages bring an include folder without a compiler.
        if not nvcc.is_file() or not (home / "include" / "cuda_runtime.h").is_file():
            if origin in ("CUDA_HOME", "CUDA_PATH"):
                rejected.append(f"{origin} ({home}) has no bin/nvcc with include/cuda_runtime.h")
            continue
        version = find_version(nvcc)
        if version.split(".")[0] == major:
            return Toolkit(home, version, origin)
        rejected.append(f"nvcc {version} ({origin}) is of another major version")
    found = (
        "; ".join(rejected)
        or "no nvcc in CUDA_HOME, on PATH, among the pip packages or in /usr/local/cuda"
    )
    raise NoCudaError(f"torch is built for CUDA {cuda}, but {found}; {name_remedy(cuda)}")


def name_remedy(cuda: str) -> str:
    """Return how to install a compiler that fits torch."""
    major = int(cuda.split(".")[0])
    if major < FIRST_PIP_TOOLKIT:
        return f"install the CUDA toolkit {cuda} and set CUDA_HOME"
    # All of one minor version: a newer nvvm does not understand an older nvcc.
    names = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-cccl")
    pins = " ".join(f'"{name}=={cuda}.*"' for name in names)
    return f"run: pip install {pins}"


def plan_cuda() -> tuple[Toolkit | None, str]:
    """Decide about the CUDA kernels.

    Returns:
        The toolkit, or None; and the line for the printed block.

    Raises:
        SystemExit: if FASTSSL_CUDA=1 asks for kernels that cannot be built.
    """
    import torch

    switch = read_switch("FASTSSL_CUDA")
    reference = "ops on a GPU run their PyTorch reference"
    if switch == "0":
        return None, f"no: FASTSSL_CUDA=0; {reference}"
    try:
        if torch.version.cuda is None:
            raise NoCudaError(f"torch {torch.__version__} is no CUDA build; install one that is")
        toolkit = find_toolkit(torch.version.cuda)
    except NoCudaError as obstacle:
        if switch == "1":
            sys.exit(f"error: FASTSSL_CUDA (1) asks for CUDA kernels: {obstacle}")
        return None, f"no: {obstacle}; {reference}"
    archs = " ".join(read_archs())
    return toolkit, f"{archs}, nvcc {toolkit.version} from {toolkit.origin} ({toolkit.home})"


def list_nvcc_flags(archs: list[str], debug: bool) -> list[str]:
    """Return the options of nvcc; every warning is an error."""
    flags = ["-std=c++17", "-Werror=all-warnings"]
    flags += ["-O0", "-g"] if debug else ["-O3"]
    flags += ["-Xcompiler", "-fvisibility=hidden,-Wall,-Wextra,-Werror"]
    for arch in archs:
        number = arch.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if arch.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


# ---- libjpeg-turbo -------------------------------------------------------------------------------


@dataclass(frozen=True)
class JpegLibrary:
    """The libjpeg-turbo to link."""

    version: str
    """Such as 2.1.5."""
    compile_flags: list[str]
    """Where its headers lie, beyond what the compiler searches by itself."""
    link_flags: list[str]
    """Such as -ljpeg."""


class NoJpegError(Exception):
    """Why there will be no decoder for the native loader."""


# Fails to compile with another libjpeg: crops are libjpeg-turbo's own.
JPEG_PROBE = """
#include <cstdio>
#include <jpeglib.h>
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
int main() {
  jpeg_decompress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&info);
  jpeg_destroy_decompress(&info);
  void (*crop)(j_decompress_ptr, JDIMENSION*, JDIMENSION*) = &jpeg_crop_scanline;
  return std::puts(TEXT(LIBJPEG_TURBO_VERSION)) < 0 || crop == nullptr;
}
"""


def ask_pkg_config(option: str) -> list[str]:
    """Return what pkg-config says of libjpeg; nothing where one of them is missing."""
    if shutil.which("pkg-config") is None:
        return []
    command = ["pkg-config", option, "libjpeg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def find_jpeg() -> JpegLibrary:
    """Compile and run a small program against libjpeg-turbo.

    Raises:
        NoJpegError: if that fails; says how to get it.
    """
    compile_flags = ask_pkg_config("--cflags")
    link_flags = ask_pkg_config("--libs") or ["-ljpeg"]
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.cpp"
        probe.write_text(JPEG_PROBE, encoding="ascii")
        program = Path(folder) / "probe"
        compiler = os.environ.get("CXX", "c++")
        command = [compiler, *compile_flags, str(probe), "-o", str(program), *link_flags]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode == 0:
            ran = subprocess.run([program], capture_output=True, text=True, check=False)
            if ran.returncode == 0:
                return JpegLibrary(ran.stdout.strip(), compile_flags, link_flags)
    raise NoJpegError(
        "no libjpeg-turbo with its header jpeglib.h; install it (Debian: apt-get install "
        "libjpeg-dev) and build again"
    )


def plan_jpeg() -> tuple[JpegLibrary | None, str]:
    """Decide about the native loader's decoder.

    Returns:
        The library, or None; and the line for the printed block.

    Raises:
        SystemExit: if FASTSSL_JPEG=1 asks for what cannot be built.
    """
    switch = read_switch("FASTSSL_JPEG")
    without = "the native loader is not available"
    if switch == "0":
        return None, f"no: FASTSSL_JPEG=0; {without}"
    try:
        library = find_jpeg()
    except NoJpegError as obstacle:
        if switch == "1":
            sys.exit(f"error: FASTSSL_JPEG (1) asks for the native loader: {obstacle}")
        return None, f"no: {obstacle}; {without}"
    return library, f"libjpeg-turbo {library.version}"


# ---- the extension -------------------------------------------------------------------------------


def build_extension(toolkit: Toolkit | None, jpeg: JpegLibrary | None) -> tuple[list, dict]:
    """Describe the extension to setuptools.

    Args:
        toolkit: compiles the CUDA kernels; None builds without them.
        jpeg: decodes for the native loader; None builds without it.

    Returns:
        The list of extensions and the command classes that build them.
    """
    if toolkit is not None:
        # torch looks for nvcc by itself, as the following import happens, and takes the folder
        # above a link or a script on PATH for the toolkit.
        os.environ["CUDA_HOME"] = str(toolkit.home)
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    debug = os.environ.get("DEBUG", "0") == "1"
    # -fopenmp only when compiling: at::parallel_for needs it, and the OpenMP symbols must come from
    # the runtime that torch has loaded. A second runtime would ignore torch.set_num_threads.
    flags = ["-fopenmp", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"]
    flags += ["-O0", "-g"] if debug else ["-O3", "-g0", *ALIGNMENT]
    compile_args = {"cxx": [*flags, f"-DPy_LIMITED_API={LIMITED_API}"]}
    folders, includes, libraries, macros = ["csrc", "csrc/cpu"], ["csrc"], [], []
    if toolkit is not None:
        archs = read_archs()
        folders.append("csrc/cuda")
        includes.append(str(toolkit.home / "include"))
        # The CUDA runtime is the one that c10_cuda brings; a second copy would know no stream of
        # torch's.
        libraries.append("c10_cuda")
        macros = [
            ("FASTSSL_CUDA_VERSION", f'"{torch.version.cuda}"'),
            ("FASTSSL_CUDA_ARCHS", f'"{",".join(archs)}"'),
        ]
        compile_args["nvcc"] = list_nvcc_flags(archs, debug)
    link_args = []
    if jpeg is not None:
        folders.append("csrc/jpeg")
        compile_args["cxx"] += jpeg.compile_flags
        link_args += jpeg.link_flags
        macros.append(("FASTSSL_JPEG", f'"libjpeg-turbo {jpeg.version}"'))
    extension = CppExtension(
        "fastssl._C",
        sorted(
            path
            for folder in folders
            for path in glob.glob(f"{folder}/*.c[pu]*")
            if path.endswith((".cpp", ".cu"))
        ),
        include_dirs=[os.path.abspath(path) for path in includes],
        depends=sorted(path for folder in folders for path in glob.glob(f"{folder}/*.*h")),
        libraries=libraries,
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        py_limited_api=True,
    )
    extensions = [extension]
    if jpeg is not None:
        extensions.append(describe_tiles(jpeg, flags))
    return extensions, {"build_ext": BuildExtension}


def describe_tiles(jpeg: JpegLibrary, flags: list[str]) -> Extension:
    """Describe what writes tiled JPEG: without torch, which a conversion need not import."""
    names = ("python/tiles", "transcode", "compare", "parse", "symbols", "scan", "entropy")
    names += ("huffman", "tables", "entry_points", "crc32")
    return Extension(
        "fastssl._C_jpeg",
        [f"csrc/jpeg/{name}.cpp" for name in names],
        include_dirs=[os.path.abspath("csrc")],
        depends=sorted(glob.glob("csrc/jpeg/*.h")),
        define_macros=[("Py_LIMITED_API", LIMITED_API)],
        extra_compile_args=[*flags, *jpeg.compile_flags],
        extra_link_args=jpeg.link_flags,
        language="c++",
        py_limited_api=True,
    )


def plan_build() -> tuple[list, dict]:
    """Decide what is built, print the block that says so, and return it."""
    switch = read_switch("FASTSSL_BUILD_EXT")
    read_switch("FASTSSL_CUDA")
    read_switch("FASTSSL_JPEG")
    obstacle = "FASTSSL_BUILD_EXT=0" if switch == "0" else find_obstacle()
    if obstacle and switch == "1":
        sys.exit(f"error: FASTSSL_BUILD_EXT (1) asks for the extension: {obstacle}")
    lines = [f"python   {sys.version.split()[0]}, binary for {LIMITED_API_TAG} and later"]
    if obstacle:
        lines += [f"_C       not built: {obstacle}", "ops      run their PyTorch reference, slower"]
        plan: tuple[list, dict] = ([], {})
    else:
        toolkit, cuda = plan_cuda()
        library, jpeg = plan_jpeg()
        plan = build_extension(toolkit, library)
        import torch

        lines += [
            f"torch    {torch.__version__}",
            f"_C       built from {len(plan[0][0].sources)} files (FASTSSL_BUILD_EXT={switch})",
            f"cuda     {cuda}",
            f"jpeg     {jpeg}",
        ]
    bar = "-" * 20
    print("\n".join([f"{bar} fastssl build {bar}", *lines, "-" * 55]), file=sys.stderr, flush=True)
    return plan


def check_setuptools() -> None:
    """Say what a build without isolation needs, before setuptools fails on what it cannot read."""
    version = setuptools.__version__
    if int(version.split(".")[0]) < LEAST_SETUPTOOLS:
        sys.exit(
            f"error: setuptools ({version}) must be {LEAST_SETUPTOOLS} or newer; "
            "--no-build-isolation builds with what is installed: run "
            f'pip install "setuptools>={LEAST_SETUPTOOLS}" torch, then the same command again'
        )


os.chdir(os.path.dirname(os.path.abspath(__file__)))
check_setuptools()
ext_modules, cmdclass = plan_build()
setup(
    # A new subpackage under loaders/ must be listed for wheels, so the list is made, not written.
    packages=[
        *find_packages(include=["fastssl", "fastssl.*"], exclude=["fastssl.loaders*"]),
        "fastssl.loaders",
        *(f"fastssl.loaders.{name}" for name in find_packages("loaders")),
    ],
    package_dir={"fastssl.loaders": "loaders"},
    package_data={"fastssl.tasks": ["prior_*.json"]},
    ext_modules=ext_modules,
    cmdclass=cmdclass,
    options={"bdist_wheel": {"py_limited_api": LIMITED_API_TAG}} if ext_modules else {},
)
