"""The arithmetic of the CUDA kernels, thread by thread on the host, against the reference.

The per-thread functions in csrc/cuda/pixels.cuh are compiled by the C++ compiler and called for
every thread of a launch. What only a GPU shows (launches, streams, the assertion) stands in
tests/gpu.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_bool, c_char_p, c_double, c_int, c_int64, c_void_p

import pytest
import torch

from fastssl.ops import reference
from tests.ops.emulation import Images, address, compile_kernels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Cut(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("corners", "order", "flip", "grey")),
        ("grey_by_patch", c_bool),
        ("num_patches", c_int64),
        ("size", c_int64),
    )


class Call(Structure):
    _fields_ = (
        ("images", Images),
        ("cut", Cut),
        *((name, c_int64) for name in ("height", "width", "num_slots")),
        ("mean_and_std", POINTER(c_double)),
        ("by_slot", c_void_p),
        ("out", c_void_p),
        *((name, c_int64) for name in ("element_size", "interleaved", "is_wide")),
    )


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    library = compile_kernels("cuda_emulation", tmp_path_factory.mktemp("emulation"))
    library.emulate.restype = library.covers_device.restype = c_bool
    return library


def emulate(
    kernels, images, dtype, channels_last, is_wide=True, scaling=None, height=0, width=0, **cut
):
    """Run the kernels' functions; returns the output as (slots, ...) and whether all was valid."""
    num, image_height, image_width, _ = images.shape
    corners = cut.get("corners")
    patches = 1 if corners is None else corners.shape[1]
    height, width = height or image_height, width or image_width
    interleaved = channels_last or dtype == torch.uint8
    shape = (height, width, 3) if interleaved else (3, height, width)
    # torch aligns memory to 64 bytes, so that slots are aligned as they are on a GPU.
    out = torch.full((num * patches, *shape), 77, dtype=dtype)
    workspace = torch.zeros(num * patches, 4) if scaling == "standardize" else None
    grey = cut.get("grey")
    call = Call(
        Images.of(images),
        Cut(
            address(corners),
            address(cut.get("order")),
            address(cut.get("flip")),
            address(grey),
            grey is not None and grey.dim() == 2,
            patches,
            height,
        ),
        height,
        width,
        num * patches,
        (c_double * 6)(*MEAN, *STD) if scaling == "normalize" else None,
        address(workspace),
        out.data_ptr(),
        out.element_size(),
        interleaved,
        is_wide,
    )
    is_valid = kernels.emulate(ctypes.byref(call))
    if interleaved and dtype != torch.uint8:
        out = out.movedim(-1, 1)
    return out, is_valid


def random_images(num, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=generator)


def random_cut(num, patches, height, width, size, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def integers(high):
        return torch.randint(0, high, (num, patches), generator=generator, dtype=torch.int32)

    corners = torch.stack([integers(height - size + 1), integers(width - size + 1)], -1)
    return {
        "corners": corners.contiguous(),
        "flip": torch.rand(num, generator=generator) < 0.5,
        "grey": torch.rand(num, patches, generator=generator) < 0.5,
        "order": torch.rand(num, patches, generator=generator).argsort(1),
    }


def run_reference(images, size, cut, scaling, dtype, channels_last):
    mean, std = (MEAN, STD) if scaling == "normalize" else (None, None)
    names = ("flip", "grey", "order")
    options = (cut.get(name) for name in names)
    standardize = scaling == "standardize"
    return reference.extract_patches(
        images, cut["corners"], size, *options, mean, std, standardize, dtype, channels_last
    ).flatten(0, 1)


# Sides whose slots are whole 16-byte stores for every type, and rows that stores run across.
SIDES = [4, 12, 20, 64]


@pytest.mark.parametrize("size", [*SIDES, 1, 7])
@pytest.mark.parametrize("has_options", [True, False])
@pytest.mark.parametrize("is_wide", [True, False])
def test_uint8_patches_equal_the_reference_to_the_bit(kernels, size, has_options, is_wide):
    if is_wide and size not in SIDES:
        is_wide = False
    images = random_images(5, 70, 81)
    cut = random_cut(5, 4, 70, 81, size)
    if not has_options:
        cut = {"corners": cut["corners"]}
    ours, is_valid = emulate(kernels, images, torch.uint8, True, is_wide, None, size, size, **cut)
    assert is_valid
    assert torch.equal(ours, run_reference(images, size, cut, None, torch.uint8, True))


@pytest.mark.parametrize("has_whole_grey", [True, False])
def test_strided_views_equal_their_copies(kernels, has_whole_grey):
    images = random_images(8, 90, 90)[::2, 3:43, 5:55]
    cut = random_cut(4, 9, 40, 50, 16)
    if has_whole_grey:
        cut["grey"] = cut["grey"][:, 0].contiguous()
    ours, _ = emulate(kernels, images, torch.uint8, True, True, None, 16, 16, **cut)
    assert torch.equal(ours, run_reference(images.contiguous(), 16, cut, None, torch.uint8, True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("is_wide", [True, False])
@pytest.mark.parametrize("scaling", ["normalize", "standardize"])
@pytest.mark.parametrize("size", [12, 64])
def test_floating_patches_err_at_most_twice_as_much_as_pytorch(
    kernels, dtype, channels_last, is_wide, scaling, size
):
    images, cut = random_images(4, 66, 73), random_cut(4, 3, 66, 73, size)
    ours, is_valid = emulate(
        kernels, images, dtype, channels_last, is_wide, scaling, size, size, **cut
    )
    theirs = run_reference(images, size, cut, scaling, dtype, channels_last)
    pixels = run_reference(images, size, cut, None, torch.uint8, True).double()
    if scaling == "normalize":
        mean, std = torch.tensor([MEAN, STD], dtype=torch.float64)
        exact = ((pixels / 255 - mean) / std).movedim(-1, 1)
    else:
        centred = pixels - pixels.mean((1, 2, 3), keepdim=True)
        exact = (centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt()).movedim(-1, 1)
    assert is_valid
    assert (ours - exact).abs().max() <= 2 * (theirs - exact).abs().max()
    assert (theirs - exact).abs().max() <= 4 * torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("is_wide", [True, False])
# Rows that are no multiple of a store: stores begin anywhere in a row and run across its end.
@pytest.mark.parametrize(("height", "width"), [(20, 44), (16, 7), (32, 23)])
def test_whole_images_of_uneven_sides_are_one_patch_each(
    kernels, channels_last, is_wide, height, width
):
    images = random_images(3, height + 3, width + 5)[:, 1 : height + 1, 2 : width + 2]
    flip, grey = torch.tensor([True, False, True]), torch.tensor([False, False, True])
    ours, _ = emulate(
        kernels, images, torch.float32, channels_last, is_wide, "normalize", flip=flip, grey=grey
    )
    theirs = reference.normalize(images, flip, grey, MEAN, STD, torch.float32, channels_last)
    # Two roundings of values below 3, on each side.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_slot_of_many_blocks_is_written_whole(kernels):
    images = random_images(2, 260, 256)
    ours, _ = emulate(kernels, images, torch.bfloat16, True, True, "normalize")
    theirs = reference.normalize(images, None, None, MEAN, STD, torch.bfloat16, True)
    assert (ours.float() - theirs.float()).abs().max() <= 2**-6  # one unit in the last place


def test_a_flat_patch_is_standardized_to_zeros(kernels):
    images = torch.full((1, 20, 20, 3), 77, dtype=torch.uint8)
    ours, _ = emulate(kernels, images, torch.float32, True, True, "standardize")
    assert ours.eq(0).all()


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (25, 0), (0, 35), (2**31 - 1, 0)])
def test_a_patch_across_the_border_is_found_and_not_read(kernels, corner):
    cut = {"corners": torch.zeros(4, 9, 2, dtype=torch.int32)}
    cut["corners"][2, 5] = torch.tensor(corner)
    images = random_images(4, 40, 50)
    ours, is_valid = emulate(kernels, images, torch.uint8, True, True, None, 16, 16, **cut)
    assert not is_valid
    untouched = ours.eq(77).flatten(1).all(1)
    assert untouched.nonzero().flatten().tolist() == [2 * 9 + 5]


@pytest.mark.parametrize("value", [-1, 9, 2**40])
def test_an_order_outside_the_patches_is_found(kernels, value):
    cut = random_cut(4, 9, 40, 50, 16)
    cut["order"][1, 3] = value
    images = random_images(4, 40, 50)
    _, is_valid = emulate(kernels, images, torch.uint8, True, True, None, 16, 16, **cut)
    assert not is_valid


@pytest.mark.parametrize(
    ("archs", "capability", "wanted"),
    [
        ("8.0,9.0+PTX", (9, 0), True),
        ("8.0,9.0+PTX", (8, 6), True),
        ("8.0,9.0+PTX", (10, 0), True),
        ("8.0,9.0+PTX", (12, 1), True),
        ("8.0,9.0+PTX", (7, 5), False),
        ("8.6", (8, 0), False),
        ("9.0", (10, 0), False),
        ("10.0,12.0", (12, 0), True),
        ("", (9, 0), False),
    ],
)
def test_code_runs_on_later_devices_of_its_generation_and_ptx_on_all_later(
    kernels, archs, capability, wanted
):
    kernels.covers_device.argtypes = [c_char_p, c_int, c_int]
    assert kernels.covers_device(archs.encode(), *capability) is wanted
