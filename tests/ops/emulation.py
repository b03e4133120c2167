"""Functions of csrc/ as a library of their own: what tests of them on the host share."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from ctypes import Structure, c_int64, c_void_p
from pathlib import Path

import pytest
from torch import Tensor

_ROOT = Path(__file__).parents[2]
_COMPILER = shutil.which(os.environ.get("CXX", "c++"))
# Undefined behaviour or a misaligned store ends the test.
_FLAGS = "-std=c++17 -O1 -Wall -Wextra -Werror -shared -fPIC -fsanitize=undefined".split()
_FLAGS += ["-fno-sanitize-recover=all"]


class Images(Structure):
    """``fastssl::Images`` of csrc/layout.h."""

    _fields_ = (
        ("data", c_void_p),
        *((name, c_int64) for name in ("num", "height", "width", "image_stride", "row_stride")),
    )

    @classmethod
    def of(cls, images_BHWC: Tensor) -> Images:
        return cls(images_BHWC.data_ptr(), *images_BHWC.shape[:3], *images_BHWC.stride()[:2])


def compile_kernels(name: str, folder: Path) -> ctypes.CDLL:
    """Build ``name``.cpp beside this file and load it; without a compiler the test is skipped."""
    if _COMPILER is None:
        pytest.skip("needs a C++ compiler")
    path = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.cpp")
    command = [
        _COMPILER,
        *_FLAGS,
        f"-I{_ROOT / 'csrc'}",
        f"-I{_ROOT / 'tests'}",
        str(source),
        "-o",
        str(path),
    ]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(path))


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
