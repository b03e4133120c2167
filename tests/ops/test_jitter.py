"""color_jitter: against the reference, Python's HSV written out, and on wrong input."""

from __future__ import annotations

import colorsys

import pytest
import torch

from fastssl import ops
from fastssl.ops import reference

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZE = {"mean": MEAN, "std": STD}
STANDARDIZE = {"standardize": True}


def draw(num=6, height=17, width=37, seed=0):
    """Return images, and colours of which each order, grey and mirrored ones are met."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num, height, width, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    def between(low, high):
        return low + (high - low) * torch.rand(num, generator=generator)

    order = torch.arange(num)
    colours = (between(-0.4, 0.4), between(0, 2), order % 2 == 0)
    return images, colours, {"flip_B": order % 3 == 0, "grey_B": order % 4 == 1}


def run_reference(
    images, colours, flip_B, grey_B, scaling, grey="luma", dtype=torch.float32, is_last=False
):
    options = {"mean": None, "std": None, "standardize": False} | scaling
    return reference.color_jitter(
        images, *colours, flip_B, grey_B, grey == "mean", *options.values(), dtype, is_last
    )


def exact(images, colours, flip_B, grey_B, scaling):
    """Return float64 (B, 3, H, W) by luma, one image at a time."""
    brightness, saturation, first = colours
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.float64) / 65536
    rows = []
    for b, image in enumerate(images):
        values = (image.flip(1) if flip_B[b] else image).double()
        if grey_B[b]:
            values = (values * weights).sum(-1, keepdim=True).expand_as(values)
        shift = brightness[b].double() * 255
        values = reference.saturate(values + (shift if first[b] else 0), saturation[b].double())
        values = (values + (0 if first[b] else shift)).clamp(0, 255)
        if "mean" in scaling:
            mean, std = (torch.tensor(v, dtype=torch.float64) for v in (MEAN, STD))
            values = (values / 255 - mean) / std
        else:
            values = (values - values.mean()) / values.std(correction=0)
        rows.append(values.movedim(-1, 0))
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("scaling", [NORMALIZE, STANDARDIZE])
def test_error_against_float64_is_at_most_twice_that_of_pytorch(dtype, is_last, scaling):
    images, colours, flags = draw()
    ours = ops.color_jitter(
        images, *colours, **flags, **scaling, dtype=dtype, channels_last=is_last
    )
    theirs = run_reference(images, colours, *flags.values(), scaling, dtype=dtype, is_last=is_last)
    truth = exact(images, colours, *flags.values(), scaling)
    assert ours.dtype == dtype
    assert ours.stride() == theirs.stride()
    assert (ours - truth).abs().max() <= 2 * (theirs - truth).abs().max()
    assert (theirs - truth).abs().max() <= 4 * torch.finfo(dtype).eps * truth.abs().max()


@pytest.mark.parametrize("is_first", [False, True])
def test_a_pixel_through_hsv_as_python_has_it(is_first):
    pixel, brightness, saturation = (51, 102, 204), 0.1, 1.2

    def saturate(red, green, blue):
        hue, depth, value = colorsys.rgb_to_hsv(red, green, blue)
        return colorsys.hsv_to_rgb(hue, min(1.0, depth * saturation), value)

    values = [value / 255 for value in pixel]
    if is_first:
        wanted = saturate(*(value + brightness for value in values))
    else:
        wanted = [value + brightness for value in saturate(*values)]
    images = torch.tensor(pixel, dtype=torch.uint8).expand(1, 1, 1, 3)
    colours = torch.tensor([brightness]), torch.tensor([saturation]), torch.tensor([is_first])
    found = ops.color_jitter(images, *colours, mean=(0, 0, 0), std=(1, 1, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=0, atol=1e-6)


@pytest.mark.parametrize("grey", ["luma", "mean"])
def test_grey_is_of_the_kind_asked_for_and_not_rounded(grey):
    images, _, _ = draw(2)
    colours = torch.zeros(2), torch.ones(2), torch.zeros(2).bool()
    flag = torch.tensor([True, False])
    found = ops.color_jitter(
        images, *colours, grey_B=flag, grey=grey, mean=(0, 0, 0), std=(1, 1, 1)
    )
    shares = (19595 / 65536, 38470 / 65536, 7471 / 65536) if grey == "luma" else (1 / 3,) * 3
    wanted = (images[0].double() * torch.tensor(shares, dtype=torch.float64)).sum(-1) / 255
    for channel in found[0].double():
        torch.testing.assert_close(channel, wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(found[1], images[1].movedim(-1, 0) / 255)


def test_below_zero_saturation_lifts_the_other_channels_above_the_greatest():
    images = torch.tensor([100, 60, 80], dtype=torch.uint8).expand(1, 4, 5, 3)
    colours = torch.zeros(1), torch.tensor([-0.5]), torch.tensor([False])
    out = ops.color_jitter(images, *colours, mean=(0, 0, 0), std=(1, 1, 1))
    theirs = run_reference(images, colours, None, None, {"mean": (0, 0, 0), "std": (1, 1, 1)})
    wanted = torch.tensor([100.0, 120.0, 110.0])[:, None, None].expand(1, 3, 4, 5) / 255
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(theirs, wanted)


def test_no_change_is_normalize():
    images, _, flags = draw()
    colours = torch.zeros(6), torch.ones(6), flags["grey_B"]
    ours = ops.color_jitter(images, *colours, flags["flip_B"], **NORMALIZE)
    wanted = ops.normalize(images, MEAN, STD, flags["flip_B"])
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_view_of_one_colour_is_standardized_to_zeros(value):
    images = torch.full((1, 20, 20, 3), value, dtype=torch.uint8)
    colours = torch.tensor([0.0123]), torch.tensor([1.3]), torch.tensor([False])
    assert ops.color_jitter(images, *colours, standardize=True).abs().max() < 0.01


@pytest.mark.parametrize("scaling", [NORMALIZE, STANDARDIZE])
def test_views_are_jittered_like_images(scaling):
    images, colours, flags = draw()
    views = images.unflatten(0, (3, 2))
    by_view = [value.unflatten(0, (3, 2)) for value in colours]
    flags_by_view = {name: value.unflatten(0, (3, 2)) for name, value in flags.items()}
    out = ops.color_jitter(views, *by_view, **flags_by_view, **scaling)
    assert torch.equal(out.flatten(0, 1), ops.color_jitter(images, *colours, **flags, **scaling))


@pytest.mark.parametrize("scaling", [NORMALIZE, STANDARDIZE])
def test_a_strided_view_gives_what_its_copy_gives(scaling):
    images, colours, flags = draw()
    view = images[:, 2:15, 3:30]
    copied = ops.color_jitter(view.contiguous(), *colours, **flags, **scaling)
    assert torch.equal(ops.color_jitter(view, *colours, **flags, **scaling), copied)


@pytest.mark.parametrize("shape", [(0, 8, 9), (2, 0, 9), (2, 8, 0)])
@pytest.mark.parametrize("scaling", [NORMALIZE, STANDARDIZE])
def test_empty_images_give_empty_results(shape, scaling):
    num, height, width = shape
    colours = torch.zeros(num), torch.ones(num), torch.zeros(num).bool()
    images = torch.zeros(num, height, width, 3, dtype=torch.uint8)
    assert ops.color_jitter(images, *colours, **scaling).shape == (num, 3, height, width)


def test_threads_do_not_change_the_result():
    images, colours, flags = draw()
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            results.append(ops.color_jitter(images, *colours, **flags, **STANDARDIZE))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("scale", [(MEAN, STD, False), (None, None, True)])
def test_opcheck(dtype, is_last, scale):
    images, colours, flags = draw()
    given = (images[:, 1:9, 2:9], *colours, *flags.values(), True, *scale, dtype, is_last)
    torch.library.opcheck(torch.ops.fastssl.color_jitter.default, given)


def test_a_compiled_graph_is_whole_and_gives_what_eager_gives():
    images, colours, flags = draw()

    def prepare(images, *colours):
        return ops.color_jitter(images, *colours, **flags, **STANDARDIZE, channels_last=True) * 2

    compiled = torch.compile(prepare, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images, *colours), prepare(images, *colours))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": torch.zeros(6, 8, 9, 3)}, r"images must be uint8, 0 \.\. 255"),
        ({"brightness_B": torch.zeros(5)}, r"brightness_B must have shape \(B,\) = \(6,\)"),
        ({"saturation_B": torch.zeros(6).double()}, r"saturation_B must be torch\.float32"),
        ({"brightness_first_B": torch.zeros(6)}, r"brightness_first_B must be torch\.bool"),
        ({"flip_B": torch.zeros(6)}, r"flip_B must be torch\.bool"),
        ({"grey": "green"}, "grey must be 'luma' or 'mean', got 'green'"),
        ({"mean": None}, "give mean and std together or set standardize=True"),
        ({"standardize": True}, "give mean and std together or set standardize=True"),
        ({"std": (0.2, -1, 0.2)}, "std must be above 0"),
        ({"dtype": torch.uint8}, "dtype must be float32, float16 or bfloat16"),
    ],
)
def test_wrong_input_is_refused(change, match):
    images, (brightness, saturation, first), _ = draw()
    given = {"images": images, "brightness_B": brightness, "saturation_B": saturation}
    given |= {"brightness_first_B": first, **NORMALIZE}
    with pytest.raises(ValueError, match=match):
        ops.color_jitter(**given | change)
