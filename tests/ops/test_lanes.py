"""The copies of the CPU's kernels that this machine would not choose: the same tests again."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastssl import ops
from fastssl.extension import find_binary

pytestmark = pytest.mark.skipif(not ops.build_info()["cpu"], reason="needs the extension")

ROOT = Path(__file__).parents[2]
COPIES = ["default", "avx2", "avx512"]
FILES = [f"tests/ops/test_{name}.py" for name in ("color", "losses", "jitter")]
# Tests of what torch is told, not of numbers, and those of plain Python.
OTHER = "opcheck or compiled or refuse or autocast or decoding or opencv or memory or buffers"


def find_copy() -> str:
    """Return which copy this process runs; it asks for the environment's limit once."""
    function = ctypes.CDLL(str(find_binary())).fastssl_cpu_capability
    function.restype = ctypes.c_char_p
    return function().decode()


def start(code: str, capability: str) -> subprocess.Popen[str]:
    """Start Python with these instructions at most."""
    environment = os.environ | {"FASTSSL_CPU_CAPABILITY": capability}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


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
    output = process.communicate()[0]
    assert process.returncode == 1
    assert "FASTSSL_CPU_CAPABILITY must be default, avx2 or avx512, got sse" in output
