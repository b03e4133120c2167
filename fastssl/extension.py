"""The compiled extension ``fastssl._C``: is it there, what was it built with, does it fit."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import mmap
import re
import warnings
from pathlib import Path

import torch

BUILD = "pip install --no-build-isolation -e ."
"""What builds it, in a checkout."""
REBUILD = f"{BUILD} (or FASTSSL_BUILD_EXT=0 for pure Python)"

_BUILD_TEXT = re.compile(rb"fastssl build: ([\x20-\x7e]*);")


@functools.cache
def load_extension() -> bool:
    """Load the extension, which registers its operators with torch.

    A binary for another torch is not loaded, for it may crash instead of failing; it is named in a
    warning, once, and everything runs as without an extension.

    Returns:
        True if it is loaded, False if it was not built, or built for another torch.

    Raises:
        ImportError: if it was built for this torch but does not load, or from older sources.
    """
    path = find_binary()
    if path is None:
        return False
    misfit = describe_misfit(read_build_text(path), str(torch.__version__), torch.version.cuda)
    if misfit is not None:
        warnings.warn(
            f"fastssl._C is not used: {misfit}; fastssl.ops run their slower PyTorch reference; "
            f"build it again: {REBUILD}",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    try:
        importlib.import_module("fastssl._C")
    except ImportError as error:
        raise ImportError(
            f"fastssl._C was built but does not load with torch {torch.__version__} ({error}); "
            f"build it again: {REBUILD}"
        ) from error
    return True


def find_binary() -> Path | None:
    """Return where the extension lies, or None if it was not built."""
    spec = importlib.util.find_spec("fastssl._C")
    return None if spec is None or spec.origin is None else Path(spec.origin)


def read_build_text(path: Path) -> dict[str, str]:
    """Return what a binary was built with, without loading it.

    Args:
        path: the extension.

    Returns:
        ``torch``, ``cuda`` (torch's CUDA version if there are CUDA kernels), ``cuda_archs``,
        ``jpeg``.

    Raises:
        ImportError: if the file does not tell, for it is no extension or an older one.
    """
    with path.open("rb") as file:
        is_empty = path.stat().st_size == 0
        content = b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = _BUILD_TEXT.search(content)
    if found is None:
        raise ImportError(
            f"fastssl._C was built from other sources or is damaged: {path} does not tell what it "
            f"was built with; build it again: {REBUILD}"
        )
    return dict(pair.split("=", 1) for pair in found[1].decode("ascii").split(";"))


def describe_misfit(build: dict[str, str], version: str, cuda: str | None) -> str | None:
    """Return why a binary must not be loaded into a torch, or None if it fits.

    Args:
        build: from ``read_build_text``.
        version: of the torch that runs, with or without a label such as ``+cpu``.
        cuda: the CUDA version of that torch; None for a build without CUDA.
    """
    if build["torch"] != version.split("+")[0]:
        return f"it was built for torch {build['torch']}, and this is torch {version}"
    # Without kernels for CUDA it links nothing of torch's CUDA half and fits every build.
    if build["cuda"] and build["cuda"] != cuda:
        here = f"a build for CUDA {cuda}" if cuda else "a build without CUDA"
        return f"it was built for a torch with CUDA {build['cuda']}, and torch {version} is {here}"
    return None


@functools.cache
def read_build() -> dict[str, str]:
    """Return what the extension was built with: see ``read_build_text``; empty if none is loaded.

    Raises:
        ImportError: as in ``load_extension``.
    """
    path = find_binary()
    return read_build_text(path) if path is not None and load_extension() else {}
