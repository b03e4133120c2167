"""Recipes: each names itself, builds what it asks for, and has a form that runs in seconds."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import build_trunk, load_trunk
from fastssl.studies import build_recipe, recipe_names, task_names
from fastssl.tasks import build_task
from fastssl.training import train
from fastssl.training.optim import build_optimizer
from fastssl.training.schedule import build_schedule
from tests.target_sets import make_set

SMOKE = [name for name in recipe_names() if name.endswith("_smoke")]


def test_every_recipe_has_a_smoke_form():
    families = {name.removesuffix("_smoke") for name in SMOKE}
    named = {name for name in recipe_names(has_cells=False) if name not in SMOKE}
    # YFCC differs from its sibling by the schedule alone.
    assert named - families == {"goyal19_jigsaw_yfcc"}
    cells = set(recipe_names()) - set(recipe_names(has_cells=False))
    for cell in cells:
        # The baselines of Goyal et al. 2019 take the path of any supervised run; random trunks that
        # of a task, up to its first step.
        family = cell.replace("goyal19_supervised", "supervised").replace("_random_", "_jigsaw_")
        assert any(family.startswith(f"{known}_") for known in families)


@pytest.fixture(scope="module")
def target_set(tmp_path_factory):
    """A dataset whose pictures have pose, segmentation and depth."""
    return make_set(tmp_path_factory.mktemp("targets"), "set", 1)


@pytest.mark.parametrize("name", SMOKE)
def test_a_smoke_form_trains_and_exports_its_trunk(name, dataset_path, target_set, tmp_path):
    config = build_recipe(name)
    if config.task.name in ("pose", "segmentation", "depth"):
        dataset_path = target_set
    config = dataclasses.replace(
        config,
        output_dir=tmp_path / "run",
        max_steps=2,
        data=dataclasses.replace(config.data, path=dataset_path, num_threads=1),
        log=dataclasses.replace(config.log, every_steps=1, pictures_every_steps=2, progress=False),
    )
    train(config)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    trunk, metadata = load_trunk(tmp_path / "run" / "trunk.safetensors")
    assert (trunk.name, trunk.width) == (config.trunk, config.width)
    assert metadata["recipe"] == name


KOLESNIKOV = {  # trunk, width, images a step, epochs, milestones
    "rotation": ("revnet50", 16, 64, 35.0, (15.0, 25.0)),
    "exemplar": ("resnet50_v1", 12, 64, 35.0, (15.0, 25.0)),
    "jigsaw": ("resnet50_v1_patch", 8, 128, 35.0, (15.0, 25.0)),
    "relative_location": ("resnet50_v1_patch", 8, 128, 35.0, (15.0, 25.0)),
    "supervised": ("resnet50_v2", 4, 256, 90.0, (30.0, 60.0, 80.0)),
}


@pytest.mark.parametrize("task", KOLESNIKOV)
def test_figures_of_kolesnikovs_recipes(task):
    config = build_recipe(f"kolesnikov19_{task}")
    schedule, batch_size = config.schedule, config.data.global_batch_size
    found = (config.trunk, config.width, batch_size, schedule.epochs, schedule.milestones)
    assert found == KOLESNIKOV[task]
    assert (schedule.kind, schedule.gamma) == ("step", 0.1)
    assert (schedule.warmup_epochs, schedule.warmup_start) == (5.0, 0.0)
    optim = config.optim
    assert (optim.name, optim.momentum, optim.nesterov) == ("sgd", 0.9, False)
    assert (optim.weight_decay, optim.decay_norm, optim.decay_bias) == (1e-4, False, False)
    # 0.1 for 256 source images, whatever is made of them.
    peak = build_schedule(schedule, optim, 1_231_121, batch_size).lr_at(10 * 1_231_121)
    assert peak == pytest.approx(0.1 * batch_size / 256)


@pytest.mark.parametrize(
    ("name", "trunk"),
    [("goyal19_colorization", "resnet50_color"), ("goyal19_colorization_alexnet", "alexnet_color")],
)
def test_figures_of_goyals_colorization(name, trunk):
    config = build_recipe(name)
    task = config.task
    assert (config.trunk, config.width) == (trunk, 4)
    assert (task.num_neighbors, task.bin_grid, task.sigma, task.eight_bit) == (10, 10, 5.0, True)
    assert (task.resize_short, task.crop, task.flip_probability) == (256, 224, 0.5)
    # Its own settings were never published: those of its jigsaw.
    jigsaw = build_recipe("goyal19_jigsaw")
    assert (config.optim, config.schedule) == (jigsaw.optim, jigsaw.schedule)
    assert config.data.global_batch_size == jigsaw.data.global_batch_size


def test_noroozis_recipe_lasts_as_many_steps_as_the_original():
    config = build_recipe("noroozi16_jigsaw")
    steps_per_epoch = 1_281_167 / config.data.global_batch_size
    assert config.schedule.epochs * steps_per_epoch == pytest.approx(350_000, rel=0.01)
    assert config.schedule.milestones[0] * steps_per_epoch == pytest.approx(100_000, rel=0.01)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("kolesnikov_jigsaw", "kolesnikov19_jigsaw"),
        ("goyal19_jigsaw_resnet50_p200_yfcc10m", "goyal19_jigsaw_resnet50_p2000_yfcc10m"),
    ],
)
def test_an_unknown_recipe_offers_the_nearest(given, nearest):
    with pytest.raises(InputError, match=f"did you mean '{nearest}'"):
        build_recipe(given)


def test_a_name_like_no_other_is_answered_with_recipes_and_not_with_hundreds_of_cells():
    with pytest.raises(InputError, match="known: demo, demo_smoke, goyal19_") as caught:
        build_recipe("xyz")
    assert len(str(caught.value)) < 1200
    assert all(task in str(caught.value) for task in task_names())


@pytest.mark.parametrize("given", ["rotation", "rotations"])
def test_a_task_is_answered_with_recipes_by_what_they_take(given):
    with pytest.raises(InputError, match="is not known; recipes of the task rotation") as caught:
        build_recipe(given)
    said = str(caught.value)
    names = ("kolesnikov19_rotation_smoke", "kolesnikov19_rotation_revnet50_4x")
    # From what a laptop does to what the study did; the largest network is no answer by itself.
    places = [said.index(name) for name in (*names, "as published kolesnikov19_rotation;")]
    assert places == sorted(places)
    assert "16x" not in said


@pytest.mark.parametrize("task", [task for task in task_names() if task != "supervised"])
def test_every_task_has_a_recipe_for_a_cpu_and_a_cell(task):
    wanted = r"on a CPU \w+.* for a GPU, \w+; as published \w+"
    with pytest.raises(InputError, match=wanted) as caught:
        build_recipe(task)
    assert len(str(caught.value)) < 500


ALEXNET = ["goyal19_jigsaw_alexnet", "noroozi16_jigsaw"]


def build_alexnet_task(name, **changes):
    """Return a recipe's task and optimiser on the narrowest trunk, and 4 photographs to puzzle."""
    config = build_recipe(name)
    torch.manual_seed(0)
    task = build_task(
        dataclasses.replace(config.task, **changes), build_trunk(config.trunk, 1), num_classes=0
    )
    rng = np.random.default_rng(0)
    crop = config.task.crop
    coarse = torch.from_numpy(rng.integers(0, 256, (4, 3, 9, 9)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(crop, crop), mode="bilinear")
    images = smooth.to(torch.uint8).movedim(1, -1)[:, None].contiguous()
    ids = torch.arange(4)
    batch = Batch(images=images, sample_ids=ids, epochs=torch.zeros_like(ids), labels=None)
    return task, build_optimizer(config.optim, task), task.prepare(batch, 0, torch.float32)


@pytest.mark.parametrize("name", ALEXNET)
def test_alexnet_begins_with_an_even_guess(name):
    # Long logits make SGD at the published rate overshoot, and the plateau that follows is longer.
    task, _, inputs = build_alexnet_task(name, num_permutations=24, hidden=256, joint_hidden=1024)
    logits = []
    task.head.register_forward_hook(lambda _module, _inputs, output: logits.append(output))
    task(inputs)
    assert logits[0].std().item() < 0.4  # seen: 0.13; He-normal layers give 1.0


@pytest.mark.parametrize("name", [f"{name}_smoke" for name in ALEXNET])
def test_alexnet_learns_one_batch_by_heart_under_its_own_sgd(name):
    task, optimizer, inputs = build_alexnet_task(name)
    losses = []
    for _ in range(80):
        result = task(inputs)
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(result["loss"].item())
    assert sum(losses[-10:]) / 10 < 0.2 * math.log(8)  # seen: 0.01 x and less
