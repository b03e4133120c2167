"""The augmentation of Newell and Deng 2020: what is drawn, and how often."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.models import make_inputs
from fastssl.ops import rgb_to_lab
from fastssl.randomness import Stream, draw_words, to_normal
from fastssl.tasks.newell_views import (
    NewellViewsConfig,
    augment,
    draw_augmentation,
    to_pictures,
)

PLAIN = {
    "jitter_probability": 0.0,
    "grey_probability": 0.0,
    "flip_probability": 0.0,
    "padding": 0.0,
    "cutout": 0.0,
}

GOLDEN_COLOURS = {
    "gain_BK3": [[1.0, 1.0, 1.0], [0.799674, 1.14537, 1.123615], [0.990252, 1.269255, 0.845229]],
    "shift_BK3": [[0.0, 0.0, 0.0], [0.418714, -0.348533, 0.058612], [0.099659, 0.134127, 0.367921]],
}
GOLDEN_PLACES = {
    "grey_BK": [[True], [False], [False]],
    "flip_BK": [[True], [True], [True]],
    "offset_BK2": [[5, -6], [4, 8], [-4, -4]],
    "corner_BK2": [[2, 32], [13, 40], [4, 18]],
}


def make_batch(num=4, size=16, epoch=0):
    generator = torch.Generator().manual_seed(1)
    shape = (num, 1, size, size, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    ids = torch.arange(num)
    return Batch(images, ids, torch.full_like(ids, epoch), None)


def test_shares_and_spreads_are_those_of_the_study():
    config = NewellViewsConfig()
    drawn = draw_augmentation(config, make_batch(20_000, 1), 5, 2)
    changed = (drawn.gain_BK3 != 1).any(-1)
    assert changed.float().mean() == pytest.approx(0.8, abs=0.01)
    assert drawn.grey_BK.float().mean() == pytest.approx(0.25, abs=0.01)
    assert drawn.flip_BK.float().mean() == pytest.approx(0.5, abs=0.01)
    gains, shifts = drawn.gain_BK3[changed], drawn.shift_BK3[changed]
    for normals in (gains.log2() / 0.25, shifts / 0.25):
        assert normals.mean(0).abs().max() < 0.03
        torch.testing.assert_close(normals.T.cov(), torch.eye(3), rtol=0, atol=0.03)
    assert (drawn.gain_BK3[~changed] == 1).all()
    assert (drawn.shift_BK3[~changed] == 0).all()
    # Uncropped a fifth, and by chance one of the 17 x 17 places.
    is_still = (drawn.offset_BK2 == 0).all(-1)
    assert is_still.float().mean() == pytest.approx(0.2 + 0.8 / 289, abs=0.01)
    counts = torch.bincount(drawn.offset_BK2[~is_still].flatten() + 8, minlength=17)
    assert counts.min() > 0.9 * counts.sum() / 17
    assert drawn.offset_BK2.abs().max() == 8
    corners = torch.bincount(drawn.corner_BK2.flatten(), minlength=49)
    assert corners.min() > 0.85 * corners.sum() / 49
    assert len(corners) == 49


def test_golden_augmentations_never_change():
    drawn = draw_augmentation(NewellViewsConfig(), make_batch(3), 2026, 1)
    found = {name: value.flatten(1).tolist() for name, value in vars(drawn).items()}
    for name in ("gain_BK3", "shift_BK3"):
        assert np.round(found.pop(name), 6).tolist() == GOLDEN_COLOURS[name]
    assert found == GOLDEN_PLACES


def test_normals_are_those_of_box_and_muller():
    words = draw_words(7, 0, range(50_000), Stream.AUGMENTATION, 4).reshape(-1, 2)
    normals = torch.from_numpy(to_normal(words))
    assert normals.mean() == pytest.approx(0, abs=0.01)
    assert normals.std() == pytest.approx(1, abs=0.01)
    assert (normals.abs() < 1.96).double().mean() == pytest.approx(0.95, abs=0.003)
    assert to_normal(words[3:5])[1] == to_normal(words[4])


def test_copies_are_apart_and_do_not_depend_on_their_number():
    config, batch = NewellViewsConfig(), make_batch(100)
    one, three = (draw_augmentation(config, batch, 5, copies) for copies in (1, 3))
    for name, value in vars(three).items():
        assert torch.equal(value[:, :1], getattr(one, name))
    assert not torch.equal(three.gain_BK3[:, 0], three.gain_BK3[:, 1])
    shared = draw_augmentation(config, batch, 5, 3, shares_flip=True)
    assert torch.equal(shared.flip_BK, three.flip_BK[:, :1].expand(-1, 3))
    assert torch.equal(shared.offset_BK2, three.offset_BK2)


def test_nothing_drawn_is_what_an_exported_trunk_is_fed():
    batch = make_batch()
    for space in ("lab", "rgb"):
        config = NewellViewsConfig(size=16, space=space, **PLAIN)
        drawn = draw_augmentation(config, batch, 5, 2)
        views = augment(batch.images[:, 0], drawn, config, torch.float32)
        wanted = make_inputs(batch.images[:, 0], config.input_spec)
        assert views.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        for copy in range(2):
            torch.testing.assert_close(views[:, copy], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "statistics", "mean", "std"),
    [
        ("lab", "newell20", (38.44, 3.03, 4.77), (17.42, 9.41, 11.37)),
        ("lab", "cifar10", (50.84, 0.40, 5.73), (24.26, 10.15, 16.08)),
        ("rgb", "newell20", (98.12, 89.92, 84.36), (43.95, 42.66, 44.05)),
        ("rgb", "cifar10", (125.32, 122.97, 113.89), (62.99, 62.09, 66.70)),
    ],
)
def test_numbers_are_the_published_ones(space, statistics, mean, std):
    config = NewellViewsConfig(size=16, space=space, statistics=statistics, **PLAIN)
    batch = make_batch()
    drawn = draw_augmentation(config, batch, 5, 1)
    found = augment(batch.images[:, 0], drawn, config, torch.float32)[:, 0]
    images = batch.images[:, 0]
    colours = rgb_to_lab(images) if space == "lab" else images.movedim(-1, 1).float()
    wanted = (colours - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("space", ["lab", "rgb"])
def test_pictures_are_the_pixels_again(space):
    config, batch = NewellViewsConfig(size=16, space=space, **PLAIN), make_batch()
    drawn = draw_augmentation(config, batch, 5, 2)
    values = augment(batch.images[:, 0], drawn, config, torch.float32)
    pictures = torch.from_numpy(to_pictures(values, config))
    assert pictures.shape == (4, 2, 16, 16, 3)
    # Lab's own roundings to and fro: one step of 256.
    assert (pictures.int() - batch.images.int()).abs().max() <= 1
