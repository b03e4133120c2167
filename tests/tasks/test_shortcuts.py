"""Shortcuts: low-level cues do not give a puzzle away while its defences are on.

Photographs are crops of the two that scikit-learn ships, in all eight orientations, so that their
content says nothing about places. A bad lens is added where it is the cue: dark corners, colours
shifted outwards.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch.nn import functional

from fastssl.batch import Batch
from fastssl.evaluation.shortcuts import describe_colour_shift, measure_cue
from fastssl.models import build_trunk
from fastssl.tasks import Jigsaw, JigsawConfig

NUM_IMAGES = 240
SIDE = 255
# Three standard errors of 120 test images of nine patches, or twelve pairs, that are not quite
# independent.
MARGIN_PLACES, MARGIN_PAIRS = 0.05, 0.07


def crop_photographs(darkening=0.0, dispersion=0.0):
    """Cut square crops; darken the corners and magnify red more and blue less than green.

    Args:
        darkening: share of light that is missing in the corners.
        dispersion: share by which red is larger and blue smaller.
    """
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    crops = []
    for _ in range(NUM_IMAGES):
        photograph = photographs[rng.integers(2)]
        y, x = (int(rng.integers(side - SIDE + 1)) for side in photograph.shape[:2])
        crop = np.rot90(photograph[y : y + SIDE, x : x + SIDE], rng.integers(4))
        crops.append(crop[:, ::-1] if rng.integers(2) else crop)
    images = torch.from_numpy(np.array(crops)).permute(0, 3, 1, 2).float()
    line = torch.linspace(-1, 1, SIDE)
    y, x = torch.meshgrid(line, line, indexing="ij")
    for channel, factor in ((0, 1 - dispersion), (2, 1 + dispersion)):
        places = (torch.stack([x, y], -1) * factor)[None].expand(NUM_IMAGES, -1, -1, -1)
        images[:, channel : channel + 1] = functional.grid_sample(
            images[:, channel : channel + 1], places, padding_mode="border", align_corners=True
        )
    images *= 1 - darkening * (x**2 + y**2) / 2
    pixels = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)[:, None]
    ids = torch.arange(NUM_IMAGES)
    return Batch(pixels.contiguous(), ids, torch.zeros_like(ids), None)


@pytest.fixture(scope="module")
def bad_lens():
    """Next to no light in the corners, colours a pixel apart near the border."""
    return crop_photographs(darkening=0.9, dispersion=0.01)


def measure(name, config, batch):
    task = Jigsaw(config, build_trunk("resnet9", 1))
    return measure_cue(name, task.prepare(batch, 0, torch.float32)["patches"].numpy())


def is_near_chance(cue):
    return cue.accuracy < cue.chance + (MARGIN_PAIRS if cue.chance == 0.5 else MARGIN_PLACES)


SOUND = {"num_permutations": 10, "grey_probability": 1.0, "normalize": "patch"}


@pytest.mark.parametrize("name", ["brightness", "colour_shift", "edges"])
def test_no_cue_gives_a_defended_puzzle_away(name, bad_lens):
    assert is_near_chance(measure(name, JigsawConfig(**SOUND), bad_lens))


def test_dark_corners_tell_the_place_unless_patches_are_standardised(bad_lens):
    off = measure("brightness", JigsawConfig(**SOUND | {"normalize": "imagenet"}), bad_lens)
    # A lens is round, so that 1 / 3 is all there is; what the picture shows hides most of it.
    assert not is_near_chance(off)


def test_shifted_colours_tell_the_place_unless_they_are_grey(bad_lens):
    off = measure("colour_shift", JigsawConfig(**SOUND | {"grey_probability": 0.0}), bad_lens)
    assert off.accuracy > 3 * off.chance


def test_channel_shifts_of_noroozis_form_hide_most_of_the_lens(bad_lens):
    colours = {"grey_probability": 0.0, "projection_probability": 0.0}
    off = measure("colour_shift", JigsawConfig.noroozi(**colours, channel_shift=0), bad_lens)
    on = measure("colour_shift", JigsawConfig.noroozi(**colours), bad_lens)
    assert off.accuracy > 3 * off.chance
    assert on.accuracy - on.chance < (off.accuracy - off.chance) / 2


def test_edges_tell_neighbours_where_patches_fill_their_cells(bad_lens):
    off = measure("edges", JigsawConfig(**SOUND | {"patch": 85, "jitter": 1}), bad_lens)
    assert off.accuracy > 0.75


def test_the_colour_shift_is_measured_in_pixels():
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((4, 1, 12, 12)))
    smooth = functional.interpolate(coarse, (64, 64), mode="bicubic").numpy()[:, 0]
    red, blue = np.roll(smooth, 1, axis=1), np.roll(smooth, -1, axis=2)
    patch = np.stack([red, smooth, blue], axis=1)[:, None, :, 2:-2, 2:-2].astype(np.float32)
    shifts = describe_colour_shift(patch)[:, 0]
    # From red to green one pixel up, from blue to green one pixel right.
    wanted = np.array([-1, 0, 0, 1])
    assert np.abs(np.abs(shifts) - np.abs(wanted)).max() < 0.15
