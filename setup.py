"""Builds the extension ``fastssl._C`` and maps ``loaders/`` to ``fastssl.loaders``.

All metadata stands in pyproject.toml. Build switches, read from the environment:

* ``FASTSSL_BUILD_EXT`` = ``auto`` (default: build if this machine can, else say why not and install
  pure Python) | ``1`` (fail if it cannot be built) | ``0`` (pure Python);
* ``FASTSSL_CUDA`` = ``auto`` (default) | ``1`` | ``0``: the CUDA kernels, see ``csrc/README.md``;
* ``DEBUG=1`` builds without optimisation and with symbols; ``MAX_JOBS`` limits the compilers.
"""

from __future__ import annotations

import glob
import os
import shutil
import sys
import sysconfig

from setuptools import find_packages, setup

# Oldest CPython that the one binary serves: 3.11.
LIMITED_API = "0x030B0000"
LIMITED_API_TAG = "cp311"


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
        import torch
        import torch.utils.cpp_extension  # noqa: F401
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


def check_cuda_switch() -> str:
    """Return the line about CUDA for the printed block.

    Raises:
        SystemExit: if CUDA kernels are demanded, for this version has none.
    """
    if read_switch("FASTSSL_CUDA") == "1":
        sys.exit(
            "error: FASTSSL_CUDA (1) asks for CUDA kernels, but this version has none under "
            "csrc/cuda; unset it: ops on a GPU run their PyTorch reference"
        )
    return "no: this version has no CUDA kernels; ops on a GPU run their PyTorch reference"


def build_extension() -> tuple[list, dict]:
    """Describe the extension to setuptools.

    Returns:
        The list of extensions and the command classes that build them.
    """
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    debug = os.environ.get("DEBUG", "0") == "1"
    # -fopenmp only when compiling: at::parallel_for needs it, and the OpenMP symbols must come from
    # the runtime that torch has loaded. A second runtime would ignore torch.set_num_threads.
    flags = ["-fopenmp", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"]
    flags += ["-O0", "-g"] if debug else ["-O3", "-g0"]
    extension = CppExtension(
        "fastssl._C",
        sorted(glob.glob("csrc/*.cpp") + glob.glob("csrc/cpu/*.cpp")),
        include_dirs=[os.path.abspath("csrc")],
        depends=sorted(glob.glob("csrc/*.h") + glob.glob("csrc/cpu/*.h")),
        extra_compile_args={"cxx": [*flags, f"-DPy_LIMITED_API={LIMITED_API}"]},
        py_limited_api=True,
    )
    return [extension], {"build_ext": BuildExtension}


def plan_build() -> tuple[list, dict]:
    """Decide what is built, print the block that says so, and return it."""
    switch = read_switch("FASTSSL_BUILD_EXT")
    cuda = check_cuda_switch()
    obstacle = "FASTSSL_BUILD_EXT=0" if switch == "0" else find_obstacle()
    if obstacle and switch == "1":
        sys.exit(f"error: FASTSSL_BUILD_EXT (1) asks for the extension: {obstacle}")
    lines = [f"python   {sys.version.split()[0]}, binary for {LIMITED_API_TAG} and later"]
    if obstacle:
        lines += [f"_C       not built: {obstacle}", "ops      run their PyTorch reference, slower"]
        plan: tuple[list, dict] = ([], {})
    else:
        import torch

        plan = build_extension()
        lines += [
            f"torch    {torch.__version__}",
            f"_C       built from {len(plan[0][0].sources)} files (FASTSSL_BUILD_EXT={switch})",
            f"cuda     {cuda}",
        ]
    bar = "-" * 20
    print("\n".join([f"{bar} fastssl build {bar}", *lines, "-" * 55]), file=sys.stderr, flush=True)
    return plan


os.chdir(os.path.dirname(os.path.abspath(__file__)))
ext_modules, cmdclass = plan_build()
setup(
    # A new subpackage under loaders/ must be listed for wheels, so the list is made, not written.
    packages=[
        *find_packages(include=["fastssl", "fastssl.*"], exclude=["fastssl.loaders*"]),
        "fastssl.loaders",
        *(f"fastssl.loaders.{name}" for name in find_packages("loaders")),
    ],
    package_dir={"fastssl.loaders": "loaders"},
    ext_modules=ext_modules,
    cmdclass=cmdclass,
    options={"bdist_wheel": {"py_limited_api": LIMITED_API_TAG}} if ext_modules else {},
)
