"""Inception views: what is drawn, and what it does to the pixels."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.ops import reference
from fastssl.tasks import ExemplarConfig, RotationConfig, SupervisedConfig
from fastssl.tasks.inception_views import (
    Appearance,
    InceptionConfig,
    draw_appearance,
    paint_views,
    prepare_views,
)

GOLDEN_FLIPS = [[False, False], [False, True]]
GOLDEN_GREY = [[False, False], [True, True]]
GOLDEN_ORDER = [[True, False], [False, True]]
GOLDEN_BRIGHTNESS = [[0.05285624, 0.050021216], [0.024382036, -0.034282625]]
GOLDEN_SATURATION = [[0.7815081, 1.1405475], [0.8477811, 1.4779966]]

PLAIN = {"brightness": 0.0, "saturation": 0.0, "grey": "luma", "size": 12}


def make_batch(num=6, views=3, size=12):
    generator = torch.Generator().manual_seed(1)
    shape = (num, views, size, size, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    ids = torch.arange(num)
    return Batch(images, ids, torch.zeros_like(ids), None)


def change_saturation(pixel, factor):
    """One pixel, 0 .. 1, through HSV as Python has it."""
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    return colorsys.hsv_to_rgb(hue, min(1.0, saturation * factor), value)


def test_draws_have_their_ranges_and_shares():
    config = InceptionConfig(grey_probability=0.66)
    drawn = draw_appearance(config, make_batch(1000, 1, 1), 0, 8)
    assert drawn.flip_BV.shape == (1000, 8)
    assert float(drawn.flip_BV.float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(drawn.is_brightness_first_BV.float().mean()) == pytest.approx(0.25, abs=0.02)
    for values, low, high in (
        (drawn.brightness_BV, -32 / 255, 32 / 255),
        (drawn.saturation_BV, 0.5, 1.5),
    ):
        assert low <= float(values.min()) < low + 0.001
        assert high - 0.001 < float(values.max()) <= high
    # One coin for all views of an image.
    assert (drawn.grey_BV == drawn.grey_BV[:, :1]).all()
    assert float(drawn.grey_BV[:, 0].float().mean()) == pytest.approx(0.66, abs=0.05)


@pytest.mark.parametrize(
    "config",
    [RotationConfig.kolesnikov(), ExemplarConfig.kolesnikov(), SupervisedConfig.kolesnikov()],
)
def test_views_of_the_study_are_slims(config):
    """A tenth of the area at least by TensorFlow's rule, else the whole; brightness first."""
    (view,) = config.list_views(1)
    assert (view.kind, view.scale, view.fallback) == ("tensorflow_crop", (0.1, 1.0), "whole")
    assert (config.brightness, config.saturation) == (32 / 255, 0.5)
    drawn = draw_appearance(config, make_batch(1000, 1, 1), 0, 2)
    assert drawn.is_brightness_first_BV.all()


def test_golden_draws_never_change():
    config = InceptionConfig(grey_probability=0.5)
    batch = make_batch(2, 1, 1)
    drawn = draw_appearance(config, batch, 2026, 2)
    assert drawn.flip_BV.tolist() == GOLDEN_FLIPS
    assert drawn.grey_BV.tolist() == GOLDEN_GREY
    assert drawn.is_brightness_first_BV.tolist() == GOLDEN_ORDER
    np.testing.assert_array_equal(drawn.brightness_BV.numpy(), np.float32(GOLDEN_BRIGHTNESS))
    np.testing.assert_array_equal(drawn.saturation_BV.numpy(), np.float32(GOLDEN_SATURATION))


def test_saturation_is_that_of_hsv():
    rng = np.random.default_rng(0)
    pixels = rng.random((40, 3))
    pixels[0], pixels[1], pixels[2] = 0.0, 0.5, (1.0, 0.0, 0.0)
    for factor in (0.0, 0.5, 1.0, 1.5):
        wanted = [change_saturation(pixel, factor) for pixel in pixels.tolist()]
        found = reference.saturate(torch.from_numpy(pixels), torch.tensor(factor))
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-9)


@pytest.mark.parametrize("is_first", [True, False])
def test_brightness_and_saturation_come_in_the_order_drawn(is_first):
    flag = torch.tensor([[False]])
    appearance = Appearance(
        flag, flag, torch.tensor([[0.1]]), torch.tensor([[1.4]]), torch.tensor([[is_first]])
    )
    pixel = (0.2, 0.4, 0.6)
    image = (torch.tensor(pixel) * 255).to(torch.uint8).expand(1, 1, 2, 2, 3)
    painted = paint_views(image, appearance, InceptionConfig(size=2))[0, 0, 0, 0] / 255
    if is_first:
        wanted = change_saturation([v + 0.1 for v in pixel], 1.4)
    else:
        wanted = [v + 0.1 for v in change_saturation(pixel, 1.4)]
    np.testing.assert_allclose(painted.numpy(), wanted, atol=1e-6)


def test_colours_stay_in_range_and_flips_mirror():
    batch, config = make_batch(), InceptionConfig(size=12)
    drawn = draw_appearance(config, batch, 3, 3)
    painted = paint_views(batch.images, drawn, config)
    assert painted.min() >= 0
    assert painted.max() <= 255
    config = InceptionConfig(**PLAIN)
    drawn = draw_appearance(config, batch, 3, 3)
    plain = paint_views(batch.images, drawn, config)
    for flips, images, seen in zip(drawn.flip_BV, batch.images, plain, strict=True):
        for flip, image, view in zip(flips, images, seen, strict=True):
            assert torch.equal(view, (image.flip(1) if flip else image).float())


@pytest.mark.parametrize("normalize", ["inception", "imagenet", "image"])
def test_a_jitter_of_next_to_nothing_equals_none(normalize):
    """It takes another operator."""
    options = PLAIN | {"normalize": normalize}
    plain = InceptionConfig(**options)
    jittered = InceptionConfig(**options | {"saturation": 1e-7})
    assert plain.is_plain
    assert not jittered.is_plain
    batch = make_batch()
    drawn = draw_appearance(plain, batch, 3, 3)
    one, other = (prepare_views(batch.images, drawn, c, torch.float32) for c in (plain, jittered))
    for views in (one, other):
        assert views.shape == (6, 3, 3, 12, 12)
        assert views.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("normalize", ["inception", "image"])
def test_views_are_painted_then_scaled(normalize):
    """The network's input is what people are shown, scaled."""
    config = InceptionConfig(size=12, grey_probability=0.5, normalize=normalize)
    batch = make_batch()
    drawn = draw_appearance(config, batch, 3, 3)
    painted = paint_views(batch.images, drawn, config).double().movedim(-1, -3)
    wanted = painted / 127.5 - 1
    if normalize == "image":
        centred = painted - painted.mean((2, 3, 4), keepdim=True)
        wanted = centred / centred.square().mean((2, 3, 4), keepdim=True).sqrt()
    found = prepare_views(batch.images, drawn, config, torch.float32)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-5)


def test_grey_views_are_grey_in_both_paths():
    batch = make_batch()
    for grey in ("luma", "mean"):
        config = InceptionConfig(**PLAIN | {"grey": grey, "grey_probability": 0.5})
        drawn = draw_appearance(config, batch, 3, 3)
        views = prepare_views(batch.images, drawn, config, torch.float32)
        is_grey = (views[:, :, 0] - views[:, :, 2]).abs().amax((2, 3)) < 1e-5
        assert torch.equal(is_grey, drawn.grey_BV)
        assert 0 < int(is_grey.sum()) < is_grey.numel()


def test_an_image_may_be_of_one_colour():
    config = InceptionConfig(size=12, normalize="image")
    batch = make_batch()
    batch.images[:] = 0
    drawn = draw_appearance(config, batch, 3, 3)
    assert torch.isfinite(prepare_views(batch.images, drawn, config, torch.float32)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"saturation": 1.5}, r"task\.saturation \(1\.5\) must lie in 0 \.\. 1"),
        ({"max_ratio": 0.5}, r"task\.max_ratio \(0\.5\) must lie in 1 \.\. 100"),
        ({"min_area": 0.0}, r"task\.min_area \(0\.0\) must lie in 0 \.\. 1, 0 excluded"),
        ({"size": 0}, r"task\.size \(0\) must lie in 1 \.\. 1,024"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        InceptionConfig(**changes)
