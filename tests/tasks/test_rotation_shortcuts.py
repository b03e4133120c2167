"""Rotation: resize and crop leave nothing in an image that tells how it was turned.

Photographs are crops of the two that scikit-learn ships, in all eight orientations, so that their
content says nothing about up and down; all are 96 x 64 px, as most photographs are wider than high.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from fastssl.config import LoaderConfig
from fastssl.evaluation.shortcuts import measure_turn_cue
from fastssl.loaders import build_loader
from fastssl.models import build_trunk
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.tasks import RotationConfig, build_task
from fastssl.views import ViewSpec

NUM_IMAGES = 400
HEIGHT, WIDTH, SIZE = 64, 96, 32
# Two standard errors of 200 test images whose four turns are answered alike.
MARGIN = 0.06


@pytest.fixture(scope="module")
def landscapes(tmp_path_factory):
    """A dataset of JPEGs without an up and a down."""
    root = tmp_path_factory.mktemp("landscapes")
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    (root / "photos").mkdir()
    for number in range(NUM_IMAGES):
        photograph, turn = photographs[rng.integers(2)], rng.integers(4)
        sides = (WIDTH, HEIGHT) if turn % 2 else (HEIGHT, WIDTH)
        places = zip(photograph.shape[:2], sides, strict=True)
        y, x = (int(rng.integers(whole - side + 1)) for whole, side in places)
        crop = np.rot90(photograph[y : y + sides[0], x : x + sides[1]], turn)
        crop = np.ascontiguousarray(crop[:, ::-1] if rng.integers(2) else crop)
        assert crop.shape == (HEIGHT, WIDTH, 3)
        Image.fromarray(crop).save(root / "photos" / f"{number:03d}.jpg", quality=90)
    convert(ConvertConfig(root / "photos", root / "shards", workers=1))
    return root / "shards"


def measure(path, views=None, change=None, **settings):
    """Return the cue in the images that a trunk would see."""
    task = build_task(RotationConfig(size=SIZE, **settings), build_trunk("resnet9", 1))
    loading = LoaderConfig(path=path, global_batch_size=NUM_IMAGES, num_threads=1)
    with contextlib.closing(build_loader(loading, views or task.views)) as loader:
        batch = next(iter(loader))
        if change is not None:
            change(batch.images)
        inputs = task.prepare(batch, 0, torch.float32)
    return measure_turn_cue(inputs["images"].numpy(), inputs["labels"].numpy())


STUDY = {"crop_rule": "tensorflow", "min_area": 0.1, "colour_order": "brightness_first"}


@pytest.mark.parametrize("settings", [{}, STUDY, {"max_ratio": 1.0}, {"copies": "one"}])
def test_the_tasks_own_views_leave_it_at_chance(landscapes, settings):
    cue = measure(landscapes, **settings)
    assert cue.chance == 0.25
    assert cue.accuracy < cue.chance + MARGIN


def test_squares_leave_it_at_chance(landscapes):
    cue = measure(landscapes, ViewSpec.resize_crop(36, SIZE))
    assert cue.accuracy < cue.chance + MARGIN


def test_squashing_gives_the_axis_away(landscapes):
    """Half of the answers would be right of one who knows the axis for sure."""
    assert measure(landscapes, ViewSpec.squash(SIZE)).accuracy > 0.4


def test_one_padded_row_gives_everything_away(landscapes):
    def pad(images):
        images[:, :, 0] = 0

    assert measure(landscapes, change=pad).accuracy > 0.95
