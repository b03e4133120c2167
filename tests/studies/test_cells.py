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
from fastssl.studies import build_recipe, recipe_names
from fastssl.studies.cells import DATA_SETS, count_images, count_steps
from fastssl.studies.cost import count_operations
from fastssl.studies.goyal19_cells import NUM_NEIGHBORS, NUM_PERMUTATIONS, goyal19
from fastssl.studies.kolesnikov19 import PAPER_BATCH, kolesnikov19
from fastssl.studies.newell20 import newell20
from fastssl.studies.operations import RECIPE_GIGAFLOPS
from fastssl.studies.registry import CELLS as ALL_CELLS
from fastssl.tasks import build_task
from fastssl.training.optim import build_optimizer
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
    assert (head > 0) == (config.task.name != "cmc")  # a memory stands in the place of a head
    # Strides, and where batch norms stand, are no parameters; VGG's patch form has its own row.
    form = config.trunk if config.trunk.startswith("vgg") else config.trunk.removesuffix("_patch")
    form, _, size = form.partition("_linear")
    table = read_parameter_table()
    if size:  # a Linear layer on the pre-logits
        trunk -= (512 * config.width + 1) * int(size)
    if name in CELLS and "noskip" not in form:
        assert trunk == table[form, config.width]
    else:
        assert trunk == table.get((form, config.width), trunk)


@pytest.mark.parametrize("name", recipe_names())
def test_a_row_has_a_schedule_that_warms_up_falls_and_ends(name):
    config = build_recipe(name)
    num = config.schedule.epoch_samples or config.data.max_samples or IMAGENET
    batch_size, course = config.data.global_batch_size, config.schedule
    schedule = build_schedule(course, config.optim, num, batch_size)
    assert schedule.total_steps == math.ceil(course.epochs * num / batch_size)
    falls = [m for m in course.milestones if course.kind == "step" and m < course.epochs]
    if name in CELLS and course.kind == "step":
        assert len(falls) == len(course.milestones) > 0
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
    puzzles, colours, baselines, random = 2 * 5 * 7, 2 * 8 * 7, 2 * 2, 2
    variants = [name for name in GOYAL if ALL_CELLS[name].is_variant]
    assert len(GOYAL) - len(variants) == puzzles + colours + baselines + random
    assert {name.rpartition("_")[2] for name in variants} == {"10epochs"}
    assert len(variants) == 2 * (5 + 8) * 4
    assert NUM_PERMUTATIONS == (100, 701, 2000, 5000, 10000)
    assert NUM_NEIGHBORS == (2, 5, 10, 20, 40, 80, 160, 313)
    for data in DATA_SETS:
        assert f"goyal19_jigsaw_resnet50_p10000_{data}" in GOYAL
        assert f"goyal19_colorization_alexnet_k313_{data}" in GOYAL
    for trunk in ("alexnet", "resnet50"):
        for data in ("imagenet1k", "places205"):
            assert f"goyal19_supervised_{trunk}_{data}" in GOYAL


def test_a_cell_differs_from_its_recipe_in_difficulty_and_data_alone():
    cell, recipe = build_recipe("goyal19_jigsaw_resnet50_p5000_places205"), "goyal19_jigsaw"
    assert cell.task.num_permutations == 5000
    usual = dataclasses.replace(cell.task, num_permutations=2000)
    changed = dataclasses.replace(cell, recipe=recipe, task=usual)
    wanted = build_recipe(recipe)
    assert dataclasses.replace(changed, data=wanted.data) == wanted
    assert build_recipe("goyal19_colorization_alexnet_k40_imagenet1k").task.num_neighbors == 40


@pytest.mark.parametrize(
    ("task", "trunk"),
    [("jigsaw", "alexnet"), ("jigsaw", "resnet50"), ("colorization", "alexnet")],
)
def test_subsets_of_yfcc_are_nested_and_see_as_many_samples(task, trunk):
    """Length and size are two axes: every subset has the steps of ImageNet-1k's 105 epochs."""
    whole = goyal19(task, trunk)
    sizes = []
    for data in ("yfcc1m", "yfcc10m", "yfcc50m", "yfcc100m"):
        config = goyal19(task, trunk, data=data)
        num = config.data.max_samples or config.data.nominal_samples
        schedule, usual = (
            build_schedule(c.schedule, c.optim, n, 256)
            for c, n in ((config, num), (whole, IMAGENET))
        )
        assert schedule.total_steps == usual.total_steps == count_steps(config) == 525_479
        assert count_images(config) == 105 * IMAGENET == 134_522_535
        for samples in range(0, 134_000_000, 3_000_000):
            assert schedule.lr_at(samples) == usual.lr_at(samples)
        sizes.append(config.data.max_samples)
    # The whole set takes what is there: some of its photographs are gone by now.
    assert sizes == [1_000_000, 10_000_000, 50_000_000, 0]


def test_ten_epochs_of_every_subset_are_another_form_of_its_cell():
    """The audit's figures: 39,062 steps (and a part of one) of 1 million, 3.9 million of 100."""
    for data, steps in (("yfcc1m", 39_063), ("yfcc100m", 3_906_250)):
        config = build_recipe(f"goyal19_jigsaw_resnet50_p2000_{data}_10epochs")
        assert (config.schedule.epochs, config.schedule.milestones) == (10.0, (3.0, 6.0, 9.0))
        assert (config.schedule.warmup_epochs, config.schedule.epoch_samples) == (0.0, 0)
        assert count_steps(config) == steps
    with pytest.raises(InputError, match=r"data \('places205'\) has no course of ten epochs"):
        goyal19("jigsaw", data="places205", ten_epochs=True)


@pytest.mark.parametrize("num", [100, 701, 2000, 10000])
def test_cells_with_noroozis_sizes_choose_sets_like_his_files(num):
    task = build_recipe(f"goyal19_jigsaw_resnet50_p{num}_imagenet1k").task
    wanted = ("min", False) if num < 2000 else ("mean", True)
    assert (task.selection, task.has_identity) == wanted


def test_rows_that_no_source_has_are_ours():
    """Places205 was a target of the study, and one of its supervised networks was trained on it."""
    ours = {name for name in GOYAL if ALL_CELLS[name].origin == "ours"}
    places = {name for name in GOYAL if name.endswith("_places205")}
    assert ours == places - {"goyal19_supervised_resnet50_places205"}
    assert ALL_CELLS["goyal19_colorization_alexnet_k20_yfcc1m"].origin == "remembered"
    assert ALL_CELLS["goyal19_jigsaw_alexnet_p2000_yfcc1m"].origin == "study"
    # Wider ones did not fit the memory of the study's machines.
    assert ALL_CELLS["kolesnikov19_exemplar_resnet50_v1_12x"].origin == "study"
    assert ALL_CELLS["kolesnikov19_exemplar_resnet50_v1_16x"].origin == "ours"


def list_figures(name):
    return {(figure.value, figure.protocol) for figure in ALL_CELLS[name].published}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("goyal19_supervised_alexnet_imagenet1k", {(49.54, "vissl-linear-imagenet1k")}),
        ("goyal19_jigsaw_resnet50_p100_imagenet1k", {(48.57, "vissl-linear-imagenet1k")}),
        ("goyal19_jigsaw_resnet50_p2000_yfcc1m", {(64.0, "goyal19-svm-voc07")}),
        ("goyal19_random_resnet50", {(13.7, "pirl-linear-imagenet1k")}),
        (
            "kolesnikov19_rotation_revnet50_16x",
            {
                (53.7, "kolesnikov19-lbfgs-imagenet1k"),
                (55.4, "kolesnikov19-sgd-imagenet1k"),
                (48.0, "kolesnikov19-sgd-places205"),
            },
        ),
        ("kolesnikov19_exemplar_resnet50_v1_12x", {(46.0, "kolesnikov19-sgd-imagenet1k")}),
        ("kolesnikov19_supervised_vgg19_bn_8x", {(61.5, "kolesnikov19-sgd-places205")}),
        ("kolesnikov19_random_revnet50_4x", {(8.1, "kolesnikov19-lbfgs-imagenet1k")}),
        ("kolesnikov19_random_resnet50_v1_4x", {(2.5, "kolesnikov19-lbfgs-imagenet1k")}),
        ("kolesnikov19_jigsaw_resnet50_v2_minus_8x", {(34.4, "kolesnikov19-lbfgs-imagenet1k")}),
    ],
)
def test_published_figures_stand_with_their_protocols(name, wanted):
    assert wanted <= list_figures(name)


def test_tables_of_the_study_of_trunks_are_whole():
    cells = [cell for name, cell in ALL_CELLS.items() if name in CELLS and not cell.is_variant]
    lbfgs = [c for c in cells if any("lbfgs" in f.protocol for f in c.published)]
    assert len(lbfgs) == 6 * 12  # six trunks: random, 4 rotation, 3 exemplar, 2 and 2
    assert all("table1" in cell.places for cell in lbfgs)
    assert sum("table2" in cell.places for cell in cells) == 7


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
    study = [name for name in CELLS if name.startswith("kolesnikov19_")]
    study = [name for name in study if not ALL_CELLS[name].is_variant]
    random, no_skip, representations = 6, 2, 4 * 4
    assert len(study) == 5 * 6 * 4 + random + no_skip + representations
    config = build_recipe("kolesnikov19_relative_location_revnet50_minus_12x")
    assert (config.trunk, config.width) == ("revnet50_minus_patch", 12)
    assert config.task == build_recipe("kolesnikov19_relative_location").task
    assert build_recipe("kolesnikov19_rotation_vgg19_bn_4x").trunk == "vgg19_bn"


def test_ablations_and_random_trunks_of_the_study_of_trunks():
    config = build_recipe("kolesnikov19_rotation_revnet50_linear4096_8x")
    assert (config.trunk, config.width) == ("revnet50_linear4096", 8)
    plain = build_recipe("kolesnikov19_rotation_revnet50_8x")
    assert dataclasses.replace(config, trunk=plain.trunk, recipe=plain.recipe) == plain
    assert build_recipe("kolesnikov19_rotation_resnet50_v2_noskip_4x").trunk == "resnet50_v2_noskip"
    # Exported before the first step.
    for name in ("kolesnikov19_random_vgg19_bn_4x", "goyal19_random_alexnet"):
        assert build_recipe(name).max_steps == 0


@pytest.mark.parametrize("task", PAPER_BATCH)
def test_batches_of_the_paper_are_another_form_of_a_cell(task):
    name = f"kolesnikov19_{task}_resnet50_v1_8x"
    config, usual = build_recipe(f"{name}_paperbatch"), build_recipe(name)
    batch = {"exemplar": 512}.get(task, 1024)
    assert config.data.global_batch_size == batch
    peak = build_schedule(config.schedule, config.optim, IMAGENET, batch).peak_lr
    assert peak == pytest.approx(0.1 * batch / 256)  # the sheet: 0.4, exemplar 0.2
    assert (config.trunk, config.schedule) == (usual.trunk, usual.schedule)
    if task == "jigsaw":
        assert (config.task.permutations_per_image, usual.task.permutations_per_image) == (16, 8)


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


# ---------------------------------------------------------------------- Newell and Deng 2020

NEWELL = {  # peak and final rate, decay, batch, rounds
    "cmc_resnet9": (1e-3, 1e-6, 1e-5, 256, 800),
    "cmc_resnet50": (5e-3, 1e-6, 1e-5, 384, 1600),
    "cmc_resnet50_dense": (1e-3, 1e-6, 1e-5, 64, 1600),
    "vae_resnet9": (1e-3, 1e-5, 1e-5, 512, 800),
    "vae_resnet50": (1e-3, 1e-5, 1e-5, 384, 800),
    "vae_resnet50_dense": (1e-3, 1e-5, 1e-5, 96, 1200),
    "rotation_resnet9": (5e-4, 1e-5, 1e-4, 512, 400),
    "rotation_resnet50": (5e-4, 1e-5, 1e-4, 384, 400),
    "rotation_resnet50_dense": (5e-4, 1e-5, 1e-4, 64, 900),
    "amdim_resnet9": (1e-3, 1e-6, 1e-5, 384, 800),
    "amdim_resnet50": (1e-3, 1e-6, 1e-5, 192, 1600),
    "amdim_resnet50_dense": (5e-4, 1e-6, 1e-5, 32, 1600),
    "amdim_amdim_encoder": (1e-3, 1e-6, 1e-5, 192, 1600),
}


CMC = {  # trunk, negatives, momentum, share of pictures whose colours change
    "resnet9": ("resnet9_halves", 8192, 0.2, 0.0),
    "resnet50": ("resnet50_newell_halves", 4086, 0.4, 0.0),
    "resnet50_dense": ("resnet50_newell_dense_halves", 16384, 0.4, 0.8),
}


@pytest.mark.parametrize("form", CMC)
def test_negatives_and_momentum_of_newells_study(form):
    config = build_recipe(f"newell20_cmc_{form}")
    task = config.task
    found = config.trunk, task.num_negatives, task.momentum, task.jitter_probability
    assert (found, task.temperature) == (CMC[form], 0.1)


@pytest.mark.parametrize("cell", NEWELL)
def test_courses_of_newells_study(cell):
    config = build_recipe(f"newell20_{cell}")
    peak, final, decay, batch_size, rounds = NEWELL[cell]
    size, round_images = (128, 10_000) if cell.endswith("_dense") else (64, 50_000)
    if cell.startswith("amdim"):  # the study counts both views
        round_images //= 2
    optim = config.optim
    assert (optim.name, optim.beta1, optim.beta2, optim.eps) == ("adam", 0.8, 0.999, 1e-8)
    assert (optim.weight_decay, optim.decay_norm, optim.decay_bias) == (decay, True, True)
    assert (config.data.global_batch_size, config.task.size) == (batch_size, size)
    schedule = build_schedule(config.schedule, optim, 200_000, batch_size)
    assert schedule.total_steps == math.ceil(rounds * round_images / batch_size)
    # From 0 in five rounds to the peak, and along a line to the end.
    for place, wanted in (
        (0, 0.0),
        (2.5, peak / 2),
        (5, peak),
        ((rounds + 5) / 2, (peak + final) / 2),
        (rounds, final),
    ):
        assert schedule.lr_at(round(place * round_images)) == pytest.approx(wanted)
    if cell.startswith("vae"):
        task = config.task
        assert (task.kl_batch_size, task.output, task.cutout) == (batch_size, 64, 0)
    if cell.startswith("amdim"):
        own = config.trunk == "amdim_encoder"
        assert (config.task.clip, config.task.penalty) == (30, 0.05)
        assert config.task.projection == ("residual" if own else "linear")


def test_every_parameter_decays_in_newells_study():
    config = build_recipe("newell20_vae_resnet9")
    task = build_task(config.task, build_trunk("resnet9", 1))
    optimizer = build_optimizer(config.optim, task)
    assert isinstance(optimizer, torch.optim.Adam)
    assert not isinstance(optimizer, torch.optim.AdamW)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-5}
    num = sum(len(group["params"]) for group in optimizer.param_groups)
    assert num == len(list(task.parameters()))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("rotations", "resnet9"), r"method \('rotations'\) is not of Newell.*'rotation'"),
        (
            ("rotation", "amdim_encoder"),
            r"form \('amdim_encoder'\) is not of Newell.*resnet50_dense",
        ),
        (("rotation", "vgg19_bn"), r"form \('vgg19_bn'\) is not of Newell.*resnet50_dense"),
    ],
)
def test_what_newells_study_does_not_have_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        newell20(*given)


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
        "kolesnikov19_rotation_revnet50_linear8192_4x",
        "kolesnikov19_rotation_resnet50_v1_noskip_4x",
        "newell20_amdim_resnet50",
    ],
)
def test_the_cost_of_a_cell_is_what_torch_counts(name):
    cell = ALL_CELLS[name]
    assert count_operations(cell.build()) == pytest.approx(cell.gigaflops, rel=1e-3)


@pytest.mark.parametrize("name", ["demo", "goyal19_jigsaw_alexnet_smoke"])
def test_the_cost_of_a_recipe_is_what_torch_counts(name):
    assert count_operations(build_recipe(name)) == pytest.approx(RECIPE_GIGAFLOPS[name], rel=1e-3)


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
