"""The copies of the CPU's kernels that this machine would not choose: the same tests again."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from fastssl import ops
from fastssl.extension import find_binary
from tests.nursery import Child
from tests.ops.emulation import compile_kernels

pytestmark = pytest.mark.skipif(not ops.build_info()["cpu"], reason="needs the extension")

COPIES = ["default", "avx2", "avx512"]
FILES = [f"tests/ops/test_{name}.py" for name in ("color", "losses", "jitter", "augmentation")]
# Tests of what torch is told, not of numbers, and those of plain Python.
OTHER = "opcheck or compiled or refuse or autocast or decoding or opencv or memory or buffers"


def find_copy() -> str:
    """Return which copy this process runs; it asks for the environment's limit once."""
    function = ctypes.CDLL(str(find_binary())).fastssl_cpu_capability
    function.restype = ctypes.c_char_p
    return function().decode()


def start(code: str, capability: str) -> Child:
    """Start Python with these instructions at most."""
    return Child(["-c", code], FASTSSL_CPU_CAPABILITY=capability)


def test_narrower_copies_pass_the_tests_of_the_operators():
    narrower = COPIES[: COPIES.index(find_copy())]
    if not narrower:
        pytest.skip("every test runs the copy for all machines here")
    arguments = ["-q", "-x", "-p", "no:cacheprovider", "-k", f"not ({OTHER})", *FILES]
    code = "import sys, pytest; from tests.ops import test_lanes; "
    code += "assert test_lanes.find_copy() == {!r}; " + f"sys.exit(pytest.main({arguments}))"
    running = [start(code.format(name), name) for name in narrower]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(narrower), "".join(outputs)


def test_another_name_is_refused():
    code = "import torch; from fastssl import ops; "
    code += "ops.rgb_to_lab(torch.zeros(1, 2, 2, 3, dtype=torch.uint8))"
    process = start(code, "sse")
    _, output = process.communicate()
    assert process.returncode == 1
    assert "FASTSSL_CPU_CAPABILITY must be default, avx2 or avx512, got sse" in output


# ---------------------------------------------------------------------- half precision


@pytest.fixture(scope="module")
def conversion(tmp_path_factory):
    """The conversions of halves alone."""
    return compile_kernels("half_conversion", tmp_path_factory.mktemp("lanes"))


def convert(function, values: np.ndarray, dtype) -> np.ndarray:
    out = np.empty(len(values), dtype)
    addresses = [ctypes.c_void_p(array.ctypes.data) for array in (values, out)]
    function(addresses[0], ctypes.c_int64(len(values)), addresses[1])
    return out


def test_every_half_becomes_its_float(conversion):
    halves = np.arange(2**16, dtype=np.uint16)
    wanted = halves.view(np.float16).astype(np.float32)
    ours = convert(conversion.widen, halves, np.float32)
    assert (ours.view(np.uint32) == wanted.view(np.uint32)).all()


def test_floats_become_the_nearest_half(conversion):
    """Floats of every size, and those on and beside every half and every tie between two."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    bits = halves[np.isfinite(halves)].astype(np.float32).view(np.uint32)
    steps = np.array([0, 1, 0xFFF, 0x1000, 0x1001, 2**32 - 1], np.uint32)
    patterns = [(bits + step) for step in steps] + [np.arange(0, 2**32, 4093).astype(np.uint32)]
    floats = np.concatenate(patterns).view(np.float32)
    ours = convert(conversion.narrow, floats, np.uint16)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = floats.astype(np.float16)
    is_number = ~np.isnan(floats)
    assert (ours[is_number] == wanted.view(np.uint16)[is_number]).all()
    assert np.isnan(ours.view(np.float16)[~is_number]).all()
