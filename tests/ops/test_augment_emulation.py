"""The arithmetic of augment_views' CUDA kernel, thread by thread on the host.

The functions in csrc/cuda/augment_kernels.cuh are compiled by the C++ compiler. What only a GPU
shows stands in tests/gpu.
"""

from __future__ import annotations

import ctypes
from ctypes import Structure, c_bool, c_float, c_int64, c_void_p

import pytest
import torch

from tests.ops.emulation import Images, address, compile_kernels
from tests.ops.test_augmentation import SCALES, draw, run_reference

TENSORS = ("gain_BK3", "shift_BK3", "grey_BK", "flip_BK", "offset_BK2", "corner_BK2")


class Augmentation(Structure):
    """``fastssl::Augmentation`` of csrc/layout.h."""

    _fields_ = (
        *((name, c_void_p) for name in TENSORS),
        ("copies", c_int64),
        ("cutout", c_int64),
        ("is_lab", c_bool),
        ("centre", c_float * 3),
        ("scale", c_float * 3),
    )


class Call(Structure):
    _fields_ = (
        ("images", Images),
        ("augmentation", Augmentation),
        ("out", c_void_p),
        *((name, c_int64) for name in ("element_size", "interleaved", "is_wide")),
    )


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return compile_kernels("augment_emulation", tmp_path_factory.mktemp("emulation"))


def emulate(kernels, images, space, drawn, dtype, is_last, is_wide):
    num, height, width, _ = images.shape
    copies = 2
    shape = (num, copies, height, width, 3) if is_last else (num, copies, 3, height, width)
    # torch aligns memory to 64 bytes, so that images are aligned as they are on a GPU.
    out = torch.full(shape, 77, dtype=dtype)
    unit = 1 if space == "lab" else 255
    mean, std = SCALES[space]
    augmentation = Augmentation(
        *(address(drawn.get(name)) for name in TENSORS),
        copies,
        5 if "corner_BK2" in drawn else 0,
        space == "lab",
        (c_float * 3)(*(unit * m for m in mean)),
        (c_float * 3)(*(1 / (unit * s) for s in std)),
    )
    call = Call(
        Images.of(images),
        augmentation,
        out.data_ptr(),
        out.element_size(),
        is_last,
        is_wide,
    )
    kernels.emulate(ctypes.byref(call))
    return out.movedim(-1, 2) if is_last else out


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("space", ["lab", "rgb"])
# Rows that stores run across, images that are no multiple of one, and more than one block.
@pytest.mark.parametrize(("height", "width"), [(12, 7), (5, 9), (64, 65)])
def test_copies_are_those_of_the_reference(kernels, is_last, space, height, width):
    images, drawn = draw(height=height + 2, width=width + 3)
    images = images[:, 1:-1, 1:-2]
    is_wide = height * width % 4 == 0
    ours = emulate(kernels, images, space, drawn, torch.float32, is_last, is_wide)
    theirs = run_reference(images, space, drawn)
    # Roundings of a and b, differences of cube roots times 500, over deviations of about ten.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


def test_what_is_not_given_does_nothing(kernels):
    images, drawn = draw(height=12, width=8)
    drawn = {"flip_BK": drawn["flip_BK"]}
    ours = emulate(kernels, images, "lab", drawn, torch.float32, True, True)
    theirs = run_reference(images, "lab", drawn)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("is_last", [False, True])
def test_half_precision_is_that_of_float_rounded(kernels, is_last):
    images, drawn = draw(height=12, width=8)
    options = (is_last, True)
    single = emulate(kernels, images, "lab", drawn, torch.float32, *options)
    half = emulate(kernels, images, "lab", drawn, torch.bfloat16, *options)
    assert torch.equal(half, single.bfloat16())
