"""What a trunk takes: as its task made it, written beside it, read again."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import InputSpec, build_trunk, load_trunk, save_trunk
from fastssl.models.input_spec import INPUT_KEY, LAB_SCALES, SCALES, make_inputs
from fastssl.ops import rgb_to_lab
from fastssl.studies import build_recipe, recipe_names
from fastssl.tasks import build_task

SPECS = [
    *(InputSpec("scaled", *scale) for scale in SCALES.values()),
    *(InputSpec("lab", *scale) for scale in LAB_SCALES.values()),
    InputSpec("standardized"),
    InputSpec("lightness"),
    InputSpec("lightness", eight_bit=True),
]


def make_images(num=3, side=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num, side, side, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_trunk_is_exported_with_its_input(tmp_path, spec):
    save_trunk(build_trunk("resnet9", 1), tmp_path / "t", {INPUT_KEY: spec.to_text()})
    assert InputSpec.from_metadata(load_trunk(tmp_path / "t")[1]) == spec


def test_scaled_images_follow_mean_and_deviation():
    images = make_images()
    mean, std = (0.5, 0.25, 0.125), (0.5, 0.25, 1.0)
    found = make_inputs(images, InputSpec("scaled", mean, std))
    wanted = (images.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(found.double(), wanted.movedim(-1, 1), rtol=0, atol=1e-5)


def test_standardised_images_have_no_mean_and_one_deviation():
    found = make_inputs(make_images(), InputSpec("standardized"))
    assert found.mean((1, 2, 3)).abs().max() < 1e-4
    assert (found.square().mean((1, 2, 3)) - 1).abs().max() < 1e-4


@pytest.mark.parametrize(("height", "width"), [(32, 32), (30, 20), (7, 5)])
def test_lightness_is_that_of_lab_less_50(height, width):
    images = make_images(2, 32)[:, :height, :width].contiguous()
    found = make_inputs(images, InputSpec("lightness"))
    assert found.shape == (2, 1, height, width)
    torch.testing.assert_close(found[:, 0], rgb_to_lab(images)[:, 0] - 50, rtol=0, atol=1e-4)


def test_lab_follows_mean_and_deviation_and_mirrors():
    images, flip = make_images(2), torch.tensor([False, True])
    mean, std = LAB_SCALES["newell20_lab"]
    found = make_inputs(images, InputSpec.named("newell20_lab"), flip_B=flip)
    wanted = (rgb_to_lab(images) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
        :, None, None
    ]
    wanted[1] = wanted[1].flip(-1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


def test_an_image_that_is_not_square_is_not_standardised():
    with pytest.raises(ValueError, match="must be square to be standardised, got 32 x 16"):
        make_inputs(make_images()[:, :, :16], InputSpec("standardized"))


@pytest.mark.parametrize(
    ("recipe", "trunk", "key", "changes"),
    [
        ("goyal19_colorization", "resnet50_color", "lightness", {}),
        ("kolesnikov19_supervised", "resnet9", "images", {"brightness": 0, "saturation": 0}),
        ("supervised", "resnet9", "images", {}),
        ("kolesnikov19_rotation", "resnet9", "images", {"brightness": 0, "saturation": 0}),
        ("kolesnikov19_exemplar", "resnet9", "images", {"brightness": 0, "saturation": 0}),
    ],
)
def test_inputs_are_those_that_the_task_makes(recipe, trunk, key, changes):
    """Where it mirrors nothing and leaves the colours."""
    config = build_recipe(recipe).task
    has_grey = hasattr(config, "grey_probability")
    size = {"crop": 64, "resize_short": 64} if hasattr(config, "crop") else {"size": 64}
    plain = {"flip_probability": 0.0} | ({"grey_probability": 0.0} if has_grey else {})
    config = dataclasses.replace(config, **size, **plain, **changes)
    task = build_task(config, build_trunk(trunk, 1), 3)
    num = 8 if recipe.endswith("exemplar") else 2
    images = make_images(num, 64)
    views = images[:, None].expand(-1, 8 if num == 8 else 1, -1, -1, -1).contiguous()
    zeros = torch.zeros(num, dtype=torch.int64)
    made = task.prepare(Batch(views, torch.arange(num), zeros, zeros), 0, torch.float32)[key]
    first = made[:, 0] if made.dim() == 5 else made  # the first crop, or the turn by nothing
    torch.testing.assert_close(make_inputs(images, task.input_spec), first, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["goyal19_jigsaw", "noroozi16_jigsaw", "kolesnikov19_jigsaw"])
def test_patches_are_scaled_as_whole_images_are(name):
    config = build_recipe(name).task
    spec = InputSpec.named(config.normalize)
    kind = {"imagenet": "scaled", "mean": "scaled", "patch": "standardized"}[config.normalize]
    assert spec.kind == kind
    if kind == "scaled":
        assert (spec.mean, spec.std) == SCALES[config.normalize]


def test_every_recipe_says_what_its_trunk_takes():
    for name in recipe_names(has_cells=False):
        config = build_recipe(name)
        with torch.device("meta"):
            task = build_task(config.task, build_trunk(config.trunk, config.width), 3)
        assert task.input_spec.channels == task.trunk.in_channels


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"name": "resnet9"}, r"trunk 'resnet9' does not say .* start its run again"),
        ({INPUT_KEY: "{"}, "cannot be read"),
        ({INPUT_KEY: '{"kind": "warm"}'}, "kind 'warm' is not known"),
        ({INPUT_KEY: '{"kind": "scaled", "mean": [1, 2, 3]}'}, "cannot be read .'std'"),
        ({INPUT_KEY: '["scaled"]'}, "cannot be read"),
        ({INPUT_KEY: '{"kind": "scaled", "mean": [0], "std": [1, 1, 1]}'}, "must be three finite"),
        ({INPUT_KEY: '{"kind": "scaled", "mean": [0, 0, 0], "std": [1, 0, 1]}'}, "above 0"),
    ],
)
def test_an_input_that_is_not_told_is_refused(metadata, message):
    with pytest.raises(InputError, match=message):
        InputSpec.from_metadata(metadata)
