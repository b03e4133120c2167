"""The arithmetic of color_jitter's CUDA kernels, thread by thread on the host.

The functions in csrc/cuda/jitter_kernels.cuh are compiled by the C++ compiler. What only a GPU
shows stands in tests/gpu.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_bool, c_double, c_int64, c_void_p

import pytest
import torch

from fastssl.ops import reference
from tests.ops.emulation import Images, compile_kernels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Jitter(Structure):
    _fields_ = (
        ("grey", c_void_p),
        ("is_mean", c_bool),
        *((name, c_void_p) for name in ("brightness", "saturation", "brightness_first")),
    )


class Call(Structure):
    _fields_ = (
        ("images", Images),
        ("flip", c_void_p),
        ("jitter", Jitter),
        ("mean_and_std", POINTER(c_double)),
        ("by_image", c_void_p),
        ("out", c_void_p),
        *((name, c_int64) for name in ("element_size", "interleaved", "is_wide")),
    )


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return compile_kernels("jitter_emulation", tmp_path_factory.mktemp("emulation"))


def draw(num, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (num, height + 2, width + 3, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    numbers = 2 * torch.rand(2, num, generator=generator)
    order = torch.arange(num)
    colours = (0.4 * (numbers[0] - 1), numbers[1].contiguous(), order % 2 == 0)
    return images[:, 1:-1, 1:-2], colours, order % 3 == 0, order % 4 == 1


def emulate(kernels, drawn, is_mean, standardize, dtype, is_last, is_wide):
    images, (brightness, saturation, first), flip, grey = drawn
    num, height, width, _ = images.shape
    shape = (num, height, width, 3) if is_last else (num, 3, height, width)
    # torch aligns memory to 64 bytes, so that images are aligned as they are on a GPU.
    out = torch.full(shape, 77, dtype=dtype)
    workspace = torch.zeros(num, 4)
    call = Call(
        Images.of(images),
        flip.data_ptr(),
        Jitter(grey.data_ptr(), is_mean, *(v.data_ptr() for v in (brightness, saturation, first))),
        None if standardize else (c_double * 6)(*MEAN, *STD),
        workspace.data_ptr() if standardize else None,
        out.data_ptr(),
        out.element_size(),
        is_last,
        is_wide,
    )
    kernels.emulate(ctypes.byref(call))
    return out.movedim(-1, 1) if is_last else out


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("is_mean", [False, True])
# Rows that stores run across, images that are no multiple of one, and more than one block.
@pytest.mark.parametrize(("height", "width"), [(12, 7), (5, 9), (64, 65)])
def test_images_are_those_of_the_reference(kernels, standardize, is_last, is_mean, height, width):
    drawn = draw(5, height, width)
    images, colours, flip, grey = drawn
    is_wide = height * width % 4 == 0
    ours = emulate(kernels, drawn, is_mean, standardize, torch.float32, is_last, is_wide)
    scale = (None, None) if standardize else (MEAN, STD)
    theirs = reference.color_jitter(
        images, *colours, flip, grey, is_mean, *scale, standardize, torch.float32, is_last
    )
    # Roundings of values up to 255, divided by deviations of some tens.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_last", [False, True])
def test_half_precision_is_that_of_float_rounded(kernels, is_last):
    drawn = draw(5, 12, 8)
    options = (False, True)
    single = emulate(kernels, drawn, *options, torch.float32, is_last, True)
    half = emulate(kernels, drawn, *options, torch.bfloat16, is_last, True)
    assert torch.equal(half, single.bfloat16())


def test_a_flat_image_is_standardized_to_zeros(kernels):
    images = torch.full((1, 20, 20, 3), 77, dtype=torch.uint8)
    colours = torch.tensor([0.0123]), torch.tensor([1.3]), torch.tensor([False])
    flags = torch.tensor([False]), torch.tensor([True])
    out = emulate(kernels, (images, colours, *flags), True, True, torch.float32, True, True)
    assert out.abs().max() < 0.01
