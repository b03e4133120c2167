"""Every row of the studies' tables: it builds, its schedule holds, its cost and figures are so."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastssl.errors import InputError
from fastssl.loaders import build_loader
from fastssl.models import build_trunk
from fastssl.studies import build_recipe, describe_recipes, goyal19_cells, recipe_names
from fastssl.studies import kolesnikov19 as kolesnikov19_cells
from fastssl.studies.cells import DATA_SETS
from fastssl.studies.cost import count_operations
from fastssl.studies.goyal19_cells import NUM_NEIGHBORS, NUM_PERMUTATIONS, goyal19
from fastssl.studies.kolesnikov19 import kolesnikov19
from fastssl.tasks import build_task
from fastssl.training.schedule import build_schedule
from fastssl.views import ViewSpec

CELLS = [name for name in recipe_names() if name not in recipe_names(has_cells=False)]
GOYAL = [name for name in CELLS if name.startswith("goyal19_")]
IMAGENET = 1_281_167
TRUNK_PAGE = Path(__file__).parents[2] / "docs" / "trunks.md"


@functools.cache
def read_parameter_table():
    """Return (trunk, width) -> parameters of the table in docs/trunks.md."""
    found = {}
    for line in TRUNK_PAGE.read_text(encoding="ascii").splitlines():
        names, *counts = [part.strip() for part in line.strip("|").split("|")]
        if len(counts) == 5 and re.fullmatch(r"[\d,]+", counts[0]):
            for name in re.findall(r"`(\w+)`", names):
                for width, count in zip((4, 8, 12, 16), counts, strict=False):
                    found[name, width] = int(count.replace(",", ""))
    return found


@functools.cache
def count_on_meta(task_config, trunk_name, width):
    """Build a task on the meta device; return the parameters of its trunk and of its head."""
    with torch.device("meta"):  # shapes alone: a wide trunk weighs a gigabyte
        trunk = build_trunk(trunk_name, width)
        task = build_task(task_config, trunk, num_classes=10)
    trunk_count = sum(p.numel() for p in trunk.parameters())
    return trunk_count, sum(p.numel() for p in task.parameters()) - trunk_count


# ---------------------------------------------------------------------- every row


@pytest.mark.parametrize("name", recipe_names())
def test_a_row_builds_its_task_on_a_trunk_of_the_listed_size(name):
    config = build_recipe(name)
    assert config.recipe == name
    trunk, head = count_on_meta(config.task, config.trunk, config.width)
    assert head > 0
    # Strides, and where batch norms stand, are no parameters; VGG's patch form has its own row.
    form = config.trunk if config.trunk.startswith("vgg") else config.trunk.removesuffix("_patch")
    table = read_parameter_table()
    if name in CELLS:
        assert trunk == table[form, config.width]
    else:
        assert trunk == table.get((form, config.width), trunk)


@pytest.mark.parametrize("name", recipe_names())
def test_a_row_has_a_schedule_that_warms_up_falls_and_ends(name):
    config = build_recipe(name)
    num = config.data.max_samples or IMAGENET
    batch_size, course = config.data.global_batch_size, config.schedule
    schedule = build_schedule(course, config.optim, num, batch_size)
    assert schedule.total_steps == math.ceil(course.epochs * num / batch_size)
    falls = [m for m in course.milestones if course.kind == "step" and m < course.epochs]
    assert name not in CELLS or len(falls) == len(course.milestones) > 0
    assert all(course.warmup_epochs < fall for fall in falls)
    steps = [schedule.total_steps * place // 400 for place in range(400)]
    rates = [schedule.lr_at(step * batch_size) for step in steps]
    num_warm = sum(step * batch_size < course.warmup_epochs * num for step in steps)
    assert all(before <= after for before, after in pairwise(rates[:num_warm]))
    assert all(before >= after for before, after in pairwise(rates[num_warm:]))
    assert max(rates) == pytest.approx(schedule.peak_lr, rel=0.01)
    if course.kind == "step":
        assert rates[-1] == pytest.approx(schedule.peak_lr * course.gamma ** len(falls))


# ---------------------------------------------------------------------- Goyal et al. 2019


def test_the_study_of_scale_has_every_difficulty_on_every_data_set():
    puzzles, colours, baselines = 2 * 5 * 7, 2 * 8 * 7, 2 * 2
    assert len(GOYAL) == puzzles + colours + baselines
    assert NUM_PERMUTATIONS == (100, 701, 2000, 5000, 10000)
    assert NUM_NEIGHBORS == (2, 5, 10, 20, 40, 80, 160, 313)
    for data in DATA_SETS:
        assert f"goyal19_jigsaw_resnet50_p10000_{data}" in GOYAL
        assert f"goyal19_colorization_alexnet_k313_{data}" in GOYAL
    for trunk in ("alexnet", "resnet50"):
        for data in ("imagenet1k", "places205"):
            assert f"goyal19_supervised_{trunk}_{data}" in GOYAL


def test_a_cell_differs_from_its_recipe_in_difficulty_and_data_alone():
    cell, recipe = build_recipe("goyal19_jigsaw_resnet50_p701_places205"), "goyal19_jigsaw"
    assert cell.task.num_permutations == 701
    usual = dataclasses.replace(cell.task, num_permutations=2000)
    changed = dataclasses.replace(cell, recipe=recipe, task=usual)
    wanted = build_recipe(recipe)
    assert dataclasses.replace(changed, data=wanted.data) == wanted
    assert build_recipe("goyal19_colorization_alexnet_k40_imagenet1k").task.num_neighbors == 40


@pytest.mark.parametrize(
    ("task", "trunk"),
    [("jigsaw", "alexnet"), ("jigsaw", "resnet50"), ("colorization", "alexnet")],
)
def test_subsets_of_yfcc_are_nested_and_short(task, trunk):
    sizes = []
    for data in ("yfcc1m", "yfcc10m", "yfcc50m", "yfcc100m"):
        config = goyal19(task, trunk, data=data)
        assert (config.schedule.epochs, config.schedule.milestones) == (10.0, (3.0, 6.0, 9.0))
        sizes.append(config.data.max_samples)
    # The whole set takes what is there: some of its photographs are gone by now.
    assert sizes == [1_000_000, 10_000_000, 50_000_000, 0]


def open_cell(name, dataset_path):
    """Build the loader of a cell on 47 samples."""
    data = dataclasses.replace(
        build_recipe(name).data, path=dataset_path, global_batch_size=4, num_threads=1
    )
    return build_loader(data, (ViewSpec.center(32, 32),))


def test_a_subset_of_yfcc_refuses_a_smaller_dataset(dataset_path):
    with pytest.raises(InputError, match=r"\(10000000\) must not exceed the dataset's 47 samples"):
        open_cell("goyal19_jigsaw_alexnet_p100_yfcc10m", dataset_path)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("goyal19_jigsaw_alexnet_p100_yfcc100m", "100,000,000"),
        ("kolesnikov19_supervised_revnet50_4x", "1,281,167"),
    ],
)
def test_a_whole_data_set_of_another_size_is_a_warning(name, wanted, dataset_path, caplog):
    open_cell(name, dataset_path).close()
    assert f"meant for {wanted} samples and this run uses 47" in caplog.text


@pytest.mark.parametrize("task", ["rotation", "exemplar", "jigsaw", "relative_location"])
def test_pretext_cells_of_the_study_of_trunks_hold_out_what_it_validates_on(task):
    """984 of 1,024 shards: 1,231,121 images to train on; no tolerance hides the others."""
    data = build_recipe(f"kolesnikov19_{task}_resnet50_v1_4x").data
    assert (data.hold_out, data.nominal_samples) == (50_046, 1_231_121)
    assert data.hold_out + data.nominal_samples == IMAGENET
    assert build_recipe(f"kolesnikov19_{task}").data.hold_out == 0  # for any data
    baseline = build_recipe("kolesnikov19_supervised_resnet50_v2_4x").data
    assert (baseline.hold_out, baseline.nominal_samples) == (0, IMAGENET)


def test_a_recipe_for_any_data_does_not_warn(dataset_path, caplog):
    open_cell("goyal19_jigsaw_yfcc", dataset_path).close()
    assert "is meant for" not in caplog.text


def test_baselines_of_the_study_of_scale():
    resnet = build_recipe("goyal19_supervised_resnet50_places205")
    assert (resnet.trunk, resnet.width, resnet.task.name) == ("resnet50", 4, "supervised")
    assert resnet.schedule == build_recipe("supervised").schedule
    alexnet = build_recipe("goyal19_supervised_alexnet_imagenet1k")
    assert (alexnet.trunk, alexnet.optim.lr) == ("caffenet", 0.01)
    steps = alexnet.schedule.epochs * IMAGENET / alexnet.data.global_batch_size
    assert steps == pytest.approx(450_000, rel=0.002)  # BVLC's solver, falls each 100,000
    assert alexnet.schedule.milestones == (20.0, 40.0, 60.0, 80.0)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (("jigsw",), r"task \('jigsw'\) is not of Goyal.*did you mean 'jigsaw'"),
        (("jigsaw", "vgg19_bn"), r"trunk \('vgg19_bn'\) of jigsaw is not of Goyal"),
        (("jigsaw", "alexnet", 3000), r"\(3000\) of jigsaw .*; set --task.num-permutations"),
        (("colorization", "alexnet", 314), r"\(314\) of colorization .*--task.num-neighbors"),
        (("supervised", "alexnet", 10), r"\(10\) of supervised is not of Goyal"),
        (("supervised", "alexnet", 0, "yfcc1m"), r"data \('yfcc1m'\) of supervised"),
        (("jigsaw", "alexnet", 0, "yfcc2m"), r"data \('yfcc2m'\).*did you mean 'yfcc"),
    ],
)
def test_a_cell_that_the_study_of_scale_does_not_have_is_refused(cell, message):
    with pytest.raises(InputError, match=message):
        goyal19(*cell)


# ---------------------------------------------------------------------- Kolesnikov et al. 2019


def test_the_study_of_trunks_has_every_task_on_every_trunk_at_every_width():
    assert len(CELLS) - len(GOYAL) == 5 * 6 * 4
    config = build_recipe("kolesnikov19_relative_location_revnet50_minus_12x")
    assert (config.trunk, config.width) == ("revnet50_minus_patch", 12)
    assert config.task == build_recipe("kolesnikov19_relative_location").task
    assert build_recipe("kolesnikov19_rotation_vgg19_bn_4x").trunk == "vgg19_bn"


@pytest.mark.parametrize(
    ("task", "trunk", "message"),
    [
        ("rotations", "", r"task \('rotations'\) is not of Kolesnikov.*did you mean 'rotation'"),
        ("rotation", "resnet9", r"trunk \('resnet9'\) is not of Kolesnikov"),
    ],
)
def test_what_the_study_of_trunks_does_not_have_is_refused(task, trunk, message):
    with pytest.raises(InputError, match=message):
        kolesnikov19(task, trunk)


# ---------------------------------------------------------------------- cost


@pytest.mark.parametrize(
    "name",
    [
        "goyal19_jigsaw_alexnet_p701_imagenet1k",
        "goyal19_colorization_resnet50_k160_yfcc1m",
        "goyal19_supervised_alexnet_imagenet1k",
        "kolesnikov19_rotation_revnet50_4x",
        "kolesnikov19_exemplar_vgg19_bn_8x",
        "kolesnikov19_jigsaw_resnet50_v2_minus_16x",
        "kolesnikov19_relative_location_revnet50_minus_12x",
    ],
)
def test_the_cost_of_a_cell_is_what_torch_counts(name):
    cell = {**goyal19_cells.list_cells(), **kolesnikov19_cells.list_cells()}[name]
    assert count_operations(cell.build()) == pytest.approx(cell.gigaflops, rel=1e-3)


def test_resnet50_costs_three_times_its_published_forward_pass():
    """4.09 x 10^9 multiplications and additions (He et al. 2016 with torchvision's strides)."""
    counted = count_operations(build_recipe("kolesnikov19_supervised_resnet50_v2_4x"))
    assert counted == pytest.approx(3 * 2 * 4.09, rel=0.01)


def test_a_trunk_that_computes_its_activations_again_costs_a_pass_more():
    config = build_recipe("kolesnikov19_rotation_revnet50_4x")
    with torch.device("meta"):
        trunk, images = build_trunk(config.trunk, config.width), torch.empty(4, 3, 224, 224)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        trunk(images)
    # Four turns of an image; the head is a thousandth of a thousandth.
    assert count_operations(config) == pytest.approx(4 * counter.get_total_flops() / 1e9, rel=1e-3)


# ---------------------------------------------------------------------- the table


def test_words_choose_rows_of_the_table():
    rows = describe_recipes(["goyal19", "resnet50", "p2000"]).splitlines()[1:]
    assert [row.split()[0] for row in rows] == [
        f"goyal19_jigsaw_resnet50_p2000_{data}" for data in DATA_SETS
    ]
    whole = next(row for row in rows if "_imagenet1k " in row)
    assert "2.45 EFLOP  on ImageNet-1k; published: 46.58 linear" in whole


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["goyal19", "p100", "yfcc1m"], "goyal19_jigsaw_{}_p100_yfcc1m"),
        (["K2", "yfcc10m"], "goyal19_colorization_{}_k2_yfcc10m"),
    ],
)
def test_a_number_is_taken_whole_and_case_does_not_matter(words, wanted):
    rows = describe_recipes(words).splitlines()[1:]
    assert [row.split()[0] for row in rows] == [wanted.format(t) for t in ("alexnet", "resnet50")]


def test_words_that_no_recipe_has_are_refused():
    with pytest.raises(InputError, match=r"--list \(goyal19 vgg\) finds no recipe"):
        describe_recipes(["goyal19", "vgg"])
