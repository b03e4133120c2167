"""sRGB to Lab: against float64 written out, published colours, OpenCV, and on wrong input."""

from __future__ import annotations

import pytest
import torch

from fastssl import ops
from fastssl.ops import reference
from fastssl.ops.color_grid import lab_of_rgb


def random_images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


def exact(images):
    return torch.from_numpy(lab_of_rgb(images.numpy())).movedim(-1, -3)


# Of D65 and sRGB's primaries, as every converter gives them to two places.
COLOURS = {
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.73, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (128, 128, 128): (53.59, 0.0, 0.0),
}


def test_published_colours():
    images = torch.tensor([list(COLOURS)], dtype=torch.uint8)[None]
    lab = ops.rgb_to_lab(images)[0, :, 0].T
    torch.testing.assert_close(lab, torch.tensor(list(COLOURS.values())), rtol=0, atol=0.011)


def test_every_red_and_green_is_within_a_thousandth_of_float64():
    side = torch.arange(256, dtype=torch.uint8)
    for blue in (0, 1, 10, 11, 128, 255):
        red, green = torch.meshgrid(side, side, indexing="ij")
        images = torch.stack([red, green, torch.full_like(red, blue)], -1)[None]
        assert (ops.rgb_to_lab(images) - exact(images)).abs().max() < 1e-3


def test_error_against_float64_is_at_most_twice_that_of_pytorch():
    images = random_images(4, 61, 67)
    ours, theirs = ops.rgb_to_lab(images), reference.rgb_to_lab(images, False)
    assert (ours - exact(images)).abs().max() <= 2 * (theirs - exact(images)).abs().max()


def test_eight_bits_are_those_of_opencv_but_for_its_roundings():
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    images = random_images(1, 200, 211)
    theirs = torch.from_numpy(cv2.cvtColor(images[0].numpy(), cv2.COLOR_RGB2LAB)).double()
    theirs = theirs.movedim(-1, 0) * torch.tensor([100 / 255, 1, 1])[:, None, None]
    theirs[1:] -= 128
    steps = torch.tensor([100 / 255, 1, 1])[:, None, None]
    ours = ops.rgb_to_lab(images, eight_bit=True)[0]
    # OpenCV computes in integers: of random colours a tenth are one step off, 2 in 10,000 are two.
    errors = ((ours - theirs).abs() / steps).round()
    assert errors.max() <= 2
    assert (errors > 0).double().mean() < 0.15
    assert (errors > 1).double().mean() < 0.001
    assert ((ours / steps) - (ours / steps).round()).abs().max() < 1e-4


def test_views_are_converted_like_images():
    images = random_images(3, 2, 8, 9)
    out = ops.rgb_to_lab(images)
    assert out.shape == (3, 2, 3, 8, 9)
    assert torch.equal(out[:, 1], ops.rgb_to_lab(images[:, 1]))


def test_lab_and_back_is_the_same_picture():
    images = random_images(2, 40, 50)
    assert torch.equal(ops.lab_to_rgb(ops.rgb_to_lab(images)), images)


def test_what_srgb_does_not_have_is_clipped():
    lab = torch.tensor([[200.0, 0, 0], [50, 200, 0], [-5, 0, 0]]).T[None, :, None]
    rgb = ops.lab_to_rgb(lab)[0, 0].tolist()
    assert rgb[0] == [255, 255, 255]
    assert rgb[1][0] == 255
    assert rgb[2] == [0, 0, 0]


# ---------------------------------------------------------------------- split


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_a_and_b_are_those_of_the_first_pixel(stride):
    images = random_images(3, 16, 24)
    lightness, ab = ops.split_lab(images, stride)
    lab = exact(images)
    torch.testing.assert_close(lightness, (lab[:, :1] - 50).float(), rtol=0, atol=1e-3)
    wanted = lab[:, 1:, ::stride, ::stride].float()
    torch.testing.assert_close(ab, wanted, rtol=0, atol=1e-3)


def test_a_and_b_may_be_means():
    images = random_images(3, 16, 24)
    wanted = torch.nn.functional.avg_pool2d(exact(images)[:, 1:], 4).float()
    ab = ops.split_lab(images, 4, mean=True)[1]
    torch.testing.assert_close(ab, wanted, rtol=0, atol=1e-3)


def test_images_are_mirrored_before_a_and_b_are_reduced():
    images, flip = random_images(3, 16, 24), torch.tensor([True, False, True])
    mirrored = torch.where(flip[:, None, None, None], images.flip(2), images)
    for ours, theirs in zip(
        ops.split_lab(images, 4, flip), ops.split_lab(mirrored, 4), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_split_does_what_its_reference_does(dtype, mean):
    images, flip = random_images(3, 16, 24), torch.tensor([True, False, True])
    ours = ops.split_lab(images, 4, flip, mean=mean, eight_bit=True, dtype=dtype)
    theirs = reference.split_lab(images, flip, 4, mean, True, dtype)
    exact_L = reference.rgb_to_lab(images, True)[:, :1] - 50
    assert ours[0].dtype == dtype
    assert ours[1].dtype == torch.float32
    step = torch.finfo(dtype).eps * 64
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=step)
    assert exact_L.abs().max() <= 50
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=1e-4)


def test_a_crop_of_an_image_gives_what_its_copy_gives():
    crop = random_images(3, 2, 20, 30)[:, 1, 2:18, 3:27]
    for ours, theirs in zip(
        ops.split_lab(crop, 4), ops.split_lab(crop.contiguous(), 4), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", [(0, 8, 8), (2, 0, 8), (2, 8, 0)])
def test_empty_images_give_empty_results(shape):
    num, height, width = shape
    lightness, ab = ops.split_lab(random_images(*shape), 4)
    assert lightness.shape == (num, 1, height, width)
    assert ab.shape == (num, 2, height // 4, width // 4)
    assert ops.rgb_to_lab(random_images(*shape)).shape == (num, 3, height, width)


def test_an_image_counts_that_has_a_colour():
    ab = torch.zeros(4, 2, 6, 6)
    ab[1, 0, 2, 3], ab[2, 1, 0, 0], ab[3, 1, 5, 5] = 5.0, -5.1, 20.0
    assert ops.has_color(ab).tolist() == [False, False, True, True]
    grey = random_images(1, 8, 8)[..., :1].expand(-1, -1, -1, 3).contiguous()
    assert not ops.has_color(ops.split_lab(grey, 1)[1]).any()


# ---------------------------------------------------------------------- as torch sees them

ARGUMENTS = {
    "rgb_to_lab": (False,),
    "split_lab": (torch.tensor([True, False]), 4, True, False, torch.bfloat16),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_opcheck(name):
    op = getattr(torch.ops.fastssl, name).default
    torch.library.opcheck(op, (random_images(2, 9, 13)[:, :8, :12], *ARGUMENTS[name]))


def test_a_compiled_graph_is_whole_and_gives_what_eager_gives():
    def prepare(images):
        lightness, ab = ops.split_lab(images, 4)
        return lightness * 2, ops.has_color(ab), ops.rgb_to_lab(images)

    images = random_images(2, 8, 12)
    compiled = torch.compile(prepare, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(compiled(images), prepare(images), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images_BHWC": torch.zeros(2, 8, 8, 3)}, "images must be uint8"),
        ({"images_BHWC": random_images(2, 2, 8, 8)}, r"must be \(B, H, W, 3\)"),
        ({"stride": 3}, r"stride \(3\) must divide the sides of images, got 8 x 8"),
        ({"stride": 0}, r"stride \(0\) must divide"),
        ({"flip_B": torch.zeros(3).bool()}, r"flip_B must have shape \(B,\) = \(2,\)"),
        ({"dtype": torch.float64}, "dtype must be float32, float16 or bfloat16"),
    ],
)
def test_wrong_input_is_refused(change, match):
    with pytest.raises(ValueError, match=match):
        ops.split_lab(**{"images_BHWC": random_images(2, 8, 8), "stride": 4} | change)


@pytest.mark.parametrize(("stride", "match"), [(3, "multiples of stride"), (0, "at least 1")])
def test_the_operator_itself_refuses_a_wrong_stride(stride, match):
    if not ops.build_info()["cpu"]:
        pytest.skip("the extension was not built")
    with pytest.raises(ValueError, match=match):
        torch.ops.fastssl.split_lab.default(
            random_images(1, 8, 8), None, stride, False, False, torch.float32
        )
