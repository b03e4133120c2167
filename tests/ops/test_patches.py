"""extract_patches: against slices written out, against the reference, and on wrong input."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from fastssl import ops
from fastssl.ops import reference

HEIGHT, WIDTH, SIZE, PATCHES = 40, 50, 16, 9
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_images(num=4, height=HEIGHT, width=WIDTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=generator)


def random_arguments(num=4, patches=PATCHES, size=SIZE, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def integers(high):
        return torch.randint(0, high, (num, patches), generator=generator)

    corners = torch.stack([integers(HEIGHT - size + 1), integers(WIDTH - size + 1)], -1).int()
    flip = torch.rand(num, generator=generator) < 0.5
    grey = torch.rand(num, patches, generator=generator) < 0.5
    order = torch.rand(num, patches, generator=generator).argsort(1)
    return corners, flip, grey, order


def test_patches_are_the_slices_at_the_corners():
    images, (corners, *_) = random_images(), random_arguments()
    patches = ops.extract_patches(images, corners, SIZE)
    assert patches.dtype == torch.uint8
    assert patches.shape == (4, PATCHES, SIZE, SIZE, 3)
    for b in range(4):
        for p in range(PATCHES):
            y, x = corners[b, p].tolist()
            assert torch.equal(patches[b, p], images[b, y : y + SIZE, x : x + SIZE])


def test_corners_are_places_in_the_mirrored_image():
    images, (corners, *_) = random_images(), random_arguments()
    flip = torch.tensor([True, False, True, False])
    patches = ops.extract_patches(images, corners, SIZE, flip_B=flip)
    mirrored = images.clone()
    mirrored[flip] = images[flip].flip(2)
    assert torch.equal(patches, ops.extract_patches(mirrored, corners, SIZE))


def test_order_puts_patch_order_i_into_slot_i():
    images, (corners, _, _, order) = random_images(), random_arguments()
    plain = ops.extract_patches(images, corners, SIZE)
    ordered = ops.extract_patches(images, corners, SIZE, order_BP=order)
    for b in range(4):
        assert torch.equal(ordered[b], plain[b][order[b]])


def test_grey_of_a_patch_moves_with_the_patch():
    images, (corners, _, grey, order) = random_images(), random_arguments()
    plain = ops.extract_patches(images, corners, SIZE, grey=grey)
    ordered = ops.extract_patches(images, corners, SIZE, grey=grey, order_BP=order)
    is_grey = (plain.amax(-1) == plain.amin(-1)).flatten(2).all(-1)
    assert torch.equal(is_grey, grey)
    assert torch.equal(ordered[0], plain[0][order[0]])


def test_grey_is_the_luma_of_pillow():
    images = random_images()
    corners = torch.zeros(4, 1, 2, dtype=torch.int32)
    patches = ops.extract_patches(images, corners, 32, grey=torch.ones(4, dtype=torch.bool))
    for b in range(4):
        luma = Image.fromarray(images[b, :32, :32].numpy()).convert("L")
        wanted = torch.frombuffer(bytearray(luma.tobytes()), dtype=torch.uint8).view(32, 32)
        assert torch.equal(patches[b, 0], wanted[..., None].expand(-1, -1, 3))


def test_uint8_output_equals_the_reference_to_the_bit():
    images, (corners, flip, grey, order) = random_images(), random_arguments()
    ours = ops.extract_patches(images, corners, SIZE, flip_B=flip, grey=grey, order_BP=order)
    theirs = reference.extract_patches(
        images, corners, SIZE, flip, grey, order, None, None, False, torch.uint8, False
    )
    assert torch.equal(ours, theirs)


def exact_patches(images, arguments, mean_and_std):
    """Return float64 patches from exact uint8 ones."""
    corners, flip, grey, order = arguments
    patches = reference.extract_patches(
        images, corners, SIZE, flip, grey, order, None, None, False, torch.uint8, False
    ).double()
    if mean_and_std:
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in mean_and_std)
        return ((patches / 255 - mean) / std).movedim(-1, 2)
    centred = patches - patches.mean((2, 3, 4), keepdim=True)
    std = centred.square().mean((2, 3, 4), keepdim=True).sqrt()
    return (centred / std.clamp(min=patches[0, 0].numel() ** -0.5)).movedim(-1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("mean_and_std", [(MEAN, STD), None], ids=["normalize", "standardize"])
def test_error_against_float64_is_at_most_twice_that_of_pytorch(dtype, channels_last, mean_and_std):
    images, arguments = random_images(), random_arguments()
    corners, flip, grey, order = arguments
    mean, std = mean_and_std or (None, None)
    standardize = mean_and_std is None
    ours = ops.extract_patches(
        images,
        corners,
        SIZE,
        flip_B=flip,
        grey=grey,
        order_BP=order,
        mean=mean,
        std=std,
        standardize=standardize,
        dtype=dtype,
        channels_last=channels_last,
    )
    theirs = reference.extract_patches(
        images, corners, SIZE, flip, grey, order, mean, std, standardize, dtype, channels_last
    )
    exact = exact_patches(images, arguments, mean_and_std)
    assert ours.dtype == dtype
    assert ours.stride() == theirs.stride()
    assert (ours - exact).abs().max() <= 2 * (theirs - exact).abs().max()
    # Both are wrong by roundings alone: the rule above would pass if they shared a real mistake.
    assert (theirs - exact).abs().max() <= 4 * torch.finfo(dtype).eps * exact.abs().max()


def test_channels_last_patches_flatten_to_channels_last_images():
    images, (corners, *_) = random_images(), random_arguments()
    patches = ops.extract_patches(images, corners, SIZE, standardize=True, channels_last=True)
    flat = patches.flatten(0, 1)
    assert flat.is_contiguous(memory_format=torch.channels_last)
    assert flat.data_ptr() == patches.data_ptr()


def test_standardized_patches_have_zero_mean_and_unit_variance():
    images, (corners, flip, grey, _) = random_images(), random_arguments()
    patches = ops.extract_patches(
        images, corners, SIZE, flip_B=flip, grey=grey, standardize=True
    ).double()
    # Float32 rounding of 768 values near one.
    torch.testing.assert_close(
        patches.mean((2, 3, 4)), torch.zeros(4, 9).double(), atol=1e-6, rtol=0
    )
    variance = patches.var((2, 3, 4), correction=0)
    torch.testing.assert_close(variance, torch.ones(4, 9).double(), atol=1e-5, rtol=0)


def test_a_flat_patch_is_standardized_to_zeros():
    images = torch.full((1, 20, 20, 3), 77, dtype=torch.uint8)
    corners = torch.zeros(1, 1, 2, dtype=torch.int32)
    assert ops.extract_patches(images, corners, 16, standardize=True).eq(0).all()


def test_a_large_patch_is_standardized_exactly():
    # 300 x 300 x 3 bytes of 255 and 254: sums of squares leave 32 bits, and the variance is small.
    images = torch.full((1, 300, 300, 3), 255, dtype=torch.uint8)
    images[:, ::2] = 254
    corners = torch.zeros(1, 1, 2, dtype=torch.int32)
    patches = ops.extract_patches(images, corners, 300, standardize=True)
    assert torch.equal(patches.unique(), torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize(
    "slice_images",
    [
        lambda big: big[:, 3:43, 5:55],
        lambda big: big[::2][:4, :HEIGHT, :WIDTH],
        lambda big: big[:4, : 2 * HEIGHT : 2, :WIDTH],
        lambda big: big.transpose(1, 2)[:4, :HEIGHT, :WIDTH],
        lambda big: big.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)[:4, :HEIGHT, :WIDTH],
    ],
    ids=["crop", "every-second-image", "every-second-row", "transposed", "planar"],
)
def test_sliced_images_give_what_their_copies_give(slice_images):
    images = slice_images(random_images(num=8, height=90, width=90))[:4]
    corners, flip, grey, order = random_arguments()
    options = {"flip_B": flip, "grey": grey, "order_BP": order}
    copied = ops.extract_patches(images.contiguous(), corners, SIZE, **options)
    assert torch.equal(ops.extract_patches(images, corners, SIZE, **options), copied)


@pytest.mark.parametrize(("num", "patches"), [(0, 9), (4, 0), (0, 0)])
@pytest.mark.parametrize("standardize", [False, True])
def test_empty_inputs_give_empty_patches(num, patches, standardize):
    corners = torch.zeros(num, patches, 2, dtype=torch.int32)
    out = ops.extract_patches(random_images(num), corners, SIZE, standardize=standardize)
    wanted = (num, patches, 3, SIZE, SIZE) if standardize else (num, patches, SIZE, SIZE, 3)
    assert out.shape == wanted


def test_one_patch_of_the_whole_image_is_the_image():
    images = random_images(height=32, width=32)
    corners = torch.zeros(4, 1, 2, dtype=torch.int32)
    assert torch.equal(ops.extract_patches(images, corners, 32)[:, 0], images)


def test_result_does_not_depend_on_the_number_of_threads():
    images, (corners, flip, grey, order) = random_images(64), random_arguments(64)
    before, results = torch.get_num_threads(), []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        try:
            results.append(
                ops.extract_patches(
                    images,
                    corners,
                    SIZE,
                    flip_B=flip,
                    grey=grey,
                    order_BP=order,
                    standardize=True,
                )
            )
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*results)


def run_kernel(images, corners, size, order=None):
    return ops.extract_patches(images, corners, size, order_BP=order)


def run_reference(images, corners, size, order=None):
    return reference.extract_patches(
        images, corners, size, None, None, order, None, None, False, torch.uint8, False
    )


@pytest.mark.parametrize("run", [run_kernel, run_reference])
@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (25, 0), (0, 35), (2**31 - 1, 0)])
def test_a_patch_across_the_border_is_refused_with_its_values(run, corner):
    corners = torch.zeros(4, 9, 2, dtype=torch.int32)
    corners[2, 5] = torch.tensor(corner)
    match = (
        rf"patch 5 of image 2 at \(y, x\) = \({corner[0]}, {corner[1]}\) with side 16 crosses the "
        r"border of the 40 x 50 image; corners must lie in 0 \.\. 24 and 0 \.\. 34"
    )
    with pytest.raises(ValueError, match=match):
        run(random_images(), corners, SIZE)


@pytest.mark.parametrize("run", [run_kernel, run_reference])
@pytest.mark.parametrize("value", [-1, 9])
def test_an_order_outside_the_patches_is_refused_with_its_value(run, value):
    corners, _, _, order = random_arguments()
    order[1, 3] = value
    with pytest.raises(ValueError, match=rf"order\[1, 3\] must lie in 0 \.\. 8, got {value}"):
        run(random_images(), corners, SIZE, order)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images_BHWC": torch.zeros(4, 40, 50, 3)}, "images must be uint8"),
        ({"images_BHWC": torch.zeros(4, 3, 40, 50, dtype=torch.uint8)}, r"must be \(B, H, W, 3\)"),
        ({"corners_BP2": torch.zeros(4, 9, 2)}, r"corners_BP2 must be torch\.int32"),
        (
            {"corners_BP2": torch.zeros(3, 9, 2).int()},
            r"\(B, P, 2\) = \(4, 9, 2\), got \(3, 9, 2\)",
        ),
        ({"corners_BP2": torch.zeros(4, 2).int()}, "corners_BP2 must have shape"),
        ({"size": 0}, "size must be at least 1 pixel, got 0"),
        ({"flip_B": torch.zeros(4)}, r"flip_B must be torch\.bool"),
        ({"flip_B": torch.zeros(4, 9).bool()}, r"flip_B must have shape \(B,\) = \(4,\)"),
        ({"grey": torch.zeros(9).bool()}, r"grey must have shape \(B,\) = \(4,\) or \(B, P\)"),
        ({"order_BP": torch.zeros(4, 9).int()}, r"order_BP must be torch\.int64"),
        ({"mean": MEAN}, "mean and std must be given together"),
        ({"mean": MEAN, "std": STD, "standardize": True}, "standardize must be False"),
        ({"mean": (0.5,), "std": (0.5,)}, "must hold 3 numbers"),
        ({"mean": MEAN, "std": (0.2, 0.0, 0.2)}, "std must be above 0"),
        ({"dtype": torch.float32}, "dtype must be uint8 where nothing normalises"),
        ({"standardize": True, "dtype": torch.float64}, "dtype must be float32, float16 or bf"),
    ],
)
def test_wrong_input_is_refused(change, match):
    arguments = {"images_BHWC": random_images(), "corners_BP2": torch.zeros(4, 9, 2).int()}
    arguments |= {"size": SIZE} | change
    with pytest.raises(ValueError, match=match):
        ops.extract_patches(**arguments)
