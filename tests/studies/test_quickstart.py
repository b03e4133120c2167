"""The first run is sized by its photographs and the device."""

from __future__ import annotations

import dataclasses

import pytest

from fastssl.studies import build_recipe, fit_recipe, is_fitted, list_smaller
from fastssl.training.schedule import build_schedule


def steps_of(config, num_samples):
    batch = config.data.global_batch_size
    return build_schedule(config.schedule, config.optim, num_samples, batch).total_steps


@pytest.mark.parametrize(
    ("num_samples", "is_gpu", "batch", "steps", "width"),
    [
        (16, False, 8, 400, 1),
        (103, False, 48, 400, 1),
        (9146, False, 64, 400, 1),
        (100_000_000, False, 64, 400, 1),
        (9146, True, 256, 4000, 4),
    ],
)
def test_it_takes_as_many_steps_of_few_photographs_as_of_many(
    num_samples, is_gpu, batch, steps, width
):
    config = fit_recipe(build_recipe("quickstart"), num_samples, is_gpu)
    assert (config.data.global_batch_size, config.width) == (batch, width)
    assert steps_of(config, num_samples) == steps
    assert config.schedule.warmup_epochs == config.schedule.epochs / 10


def test_a_batch_of_the_users_own_is_kept():
    recipe = build_recipe("quickstart")
    data = dataclasses.replace(recipe.data, global_batch_size=10)
    config = fit_recipe(dataclasses.replace(recipe, data=data), 1000, False)
    assert config.data.global_batch_size == 10
    assert steps_of(config, 1000) == 400


def test_it_alone_is_fitted():
    assert is_fitted("quickstart")
    assert not is_fitted("quickstart_smoke")
    assert not is_fitted("goyal19_jigsaw")


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("goyal19_jigsaw", ["quickstart", "goyal19_jigsaw_smoke"]),
        ("goyal19_jigsaw_resnet50_p2000_yfcc100m", ["quickstart", "goyal19_jigsaw_smoke"]),
        ("goyal19_jigsaw_alexnet", ["quickstart", "goyal19_jigsaw_alexnet_smoke"]),
        ("supervised", ["quickstart", "supervised_smoke"]),
        ("goyal19_supervised_resnet50_imagenet", ["quickstart"]),
        ("quickstart", ["quickstart_smoke"]),
        ("supervised_smoke", ["quickstart"]),
    ],
)
def test_smaller_forms_are_of_the_same_family(name, smaller):
    assert list_smaller(name) == smaller
