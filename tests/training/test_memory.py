"""What a step takes is known before it starts: the same bytes as when it runs."""

from __future__ import annotations

import dataclasses
import logging
import os

import pytest
import torch
from torch import nn

from fastssl.config import OptimConfig
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.models.memory import MemoryEstimate, count_kept_bytes
from fastssl.studies import build_recipe
from fastssl.tasks import build_task
from fastssl.training import train
from fastssl.training.memory import (
    DTYPES,
    Capacity,
    _make_batch,
    check_memory,
    count_momentums,
    count_step_bytes,
    estimate_step,
    outline_task,
    read_capacity,
)
from fastssl.training.optim import build_optimizer
from fastssl.world import World

GB = 2**30
SMALL = {  # trunk and settings that make a step quick
    "goyal19_jigsaw": ("resnet9", {"num_permutations": 10, "hidden": 8}),
    "goyal19_colorization": ("resnet50_color", {"crop": 64, "resize_short": 64, "hidden": 8}),
    "kolesnikov19_rotation": ("revnet50", {"size": 32}),
    "kolesnikov19_exemplar": ("resnet9", {"size": 32, "num_crops": 3, "group_images": 2}),
    "kolesnikov19_relative_location": ("resnet9", {"hidden": 8, "joint_hidden": 16}),
    "kolesnikov19_supervised": ("resnet50_v1", {"size": 32}),
}


def make_config(name, **changes):
    recipe = build_recipe(name)
    trunk, settings = SMALL[name]
    task = dataclasses.replace(recipe.task, **settings)
    return dataclasses.replace(recipe, task=task, trunk=trunk, width=1, **changes)


def count_of_a_real_step(task, precision, size):
    """What a step on real tensors keeps."""
    dtype = DTYPES[precision]
    inputs = task.prepare(_make_batch(task), 0, dtype)
    repeats = size // task.batch_multiple
    inputs = {name: torch.cat([value] * repeats) for name, value in inputs.items()}

    def forward():
        with torch.autocast("cpu", dtype, enabled=precision != "fp32"):
            return task(inputs)

    return count_kept_bytes(forward, inputs.values(), [*task.parameters(), *task.buffers()])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", SMALL)
def test_a_step_without_memory_keeps_what_a_real_one_keeps(name, precision):
    config = make_config(name)
    task = build_task(config.task, build_trunk(config.trunk, 1), 3)
    found = count_step_bytes(outline_task(config, 3), 4, precision)
    # Scalars, and weights that autocast has turned, may be kept as one tensor or two.
    assert found == pytest.approx(count_of_a_real_step(task, precision, 4), rel=0.01)


def test_an_outline_takes_no_memory_and_leaves_the_task_as_it_was(caplog):
    config = dataclasses.replace(build_recipe("goyal19_jigsaw"), width=64, trunk="resnet50_v2")
    task = dataclasses.replace(config.task, num_permutations=10)
    with caplog.at_level(logging.INFO):
        outline = outline_task(dataclasses.replace(config, task=task), 0)
    assert all(parameter.is_meta for parameter in outline.parameters())
    assert "jigsaw" not in caplog.text  # the task itself says it, once
    before = outline.training
    count_step_bytes(outline, 2, "fp32")
    assert outline.training == before
    assert all(parameter.is_meta for parameter in outline.parameters())


@pytest.mark.parametrize("name", ["sgd", "lars", "adam", "adamw"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentums_are_those_that_the_optimiser_keeps(name, momentum):
    network = nn.Linear(5, 3)
    config = OptimConfig(name=name, momentum=momentum)
    optimizer = build_optimizer(config, network)
    network(torch.ones(2, 5)).sum().backward()
    optimizer.step()
    kept = [
        value
        for value in optimizer.state[network.weight].values()
        if torch.is_tensor(value) and value.shape == network.weight.shape
    ]
    assert count_momentums(config) == len(kept)


def test_gradients_and_activations_meet_only_where_gradients_stay():
    estimate = MemoryEstimate(weights=1, gradients=10, optimizer=100, activations=4000)
    assert estimate.least(keeps_gradients=False) == 4101
    assert estimate.least(keeps_gradients=True) == 4111
    assert estimate.least(keeps_gradients=False, activations=3) == 111


def step_of(name, size, **changes):
    config = make_config(name, **changes)
    outline = outline_task(config, 3)
    estimate = estimate_step(outline, size, config.precision, count_momentums(config.optim))
    return config, outline, estimate


def test_a_step_is_refused_from_where_it_surely_does_not_fit(caplog):
    config, outline, estimate = step_of("kolesnikov19_exemplar", 8)
    least = estimate.least(False)
    with caplog.at_level(logging.INFO):
        check_memory(outline, config, 8, 1, Capacity(least, "the machine"))
    assert "memory of a step: at least 0." in caplog.text
    with pytest.raises(InputError, match=r"takes at least .* on 8 images at a time, the machine"):
        check_memory(outline, config, 8, 1, Capacity(least - 1, "the machine"))


def test_a_trunk_that_is_only_exported_takes_no_step():
    config, outline, _ = step_of("kolesnikov19_exemplar", 8, max_steps=0)
    check_memory(outline, config, 8, 1, Capacity(1, "the machine"))


def test_ranks_and_accumulation_keep_gradients():
    config, outline, estimate = step_of("kolesnikov19_exemplar", 8)
    capacity = Capacity(estimate.least(True) - 1, "the machine")
    check_memory(outline, config, 8, 1, capacity)
    for changes, world_size in (({"accumulation": 2}, 1), ({}, 2)):
        with pytest.raises(InputError, match="at least"):
            check_memory(outline, dataclasses.replace(config, **changes), 8, world_size, capacity)


def test_the_proposed_accumulation_fits_and_parts_the_batch():
    config, outline, estimate = step_of("kolesnikov19_exemplar", 24, accumulation=2)
    capacity = Capacity(estimate.least(True, estimate.activations // 3) * 5 // 4 + 99, "it")
    with pytest.raises(InputError, match=r"set --accumulation 6, or lower --width .*bf16"):
        check_memory(outline, config, 24, 1, capacity)
    check_memory(outline, dataclasses.replace(config, accumulation=6), 8, 1, capacity)


def test_weights_alone_that_do_not_fit_ask_for_a_smaller_network():
    config, outline, estimate = step_of("kolesnikov19_supervised", 4)
    with pytest.raises(InputError, match="; lower --width, or choose another --trunk"):
        check_memory(outline, config, 4, 1, Capacity(estimate.weights, "it"))


def test_a_compiled_step_is_held_to_its_weights_alone(caplog):
    config, outline, estimate = step_of("kolesnikov19_rotation", 64, compile=True)
    with caplog.at_level(logging.INFO):
        check_memory(outline, config, 64, 1, Capacity(estimate.least(False, 0), "it"))
    assert "torch.compile" in caplog.text
    with pytest.raises(InputError, match="at least"):
        check_memory(outline, config, 64, 1, Capacity(estimate.least(False, 0) - 1, "it"))


def test_a_run_is_refused_before_anything_is_written(dataset_path, tmp_path):
    config = make_config("goyal19_jigsaw")
    data = dataclasses.replace(
        config.data, path=dataset_path, global_batch_size=10**6, allow_repeat_in_batch=True
    )
    config = dataclasses.replace(config, data=data, output_dir=tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match=r"trunk \('resnet9'\) of width 1 takes at least .* GiB"):
        train(config)
    assert not (tmp_path / "run" / "config.json").exists()


def test_ranks_of_one_machine_share_its_memory(monkeypatch):
    world = World(0, 1, torch.device("cpu"), None)
    whole = read_capacity(world)
    assert 0 < whole.memory <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert read_capacity(world).memory == whole.memory // 4
    assert read_capacity(world).device.startswith("each of 4 ranks of the ")
