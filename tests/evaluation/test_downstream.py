"""Downstream evaluations: from options to a result, over any number of labels, and on again."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastssl.config import LogConfig
from fastssl.errors import InputError
from fastssl.evaluation.downstream import plan_downstream, run_downstream
from fastssl.evaluation.downstream_options import DOWNSTREAM
from fastssl.evaluation.evaluate import keep_result
from fastssl.evaluation.setting import EvaluationData
from fastssl.evaluation.splits import first_labels
from fastssl.models import build_trunk, digest_trunk, load_trunk, save_trunk
from fastssl.models.input_spec import INPUT_KEY, InputSpec
from fastssl.runs.result import read_result
from fastssl.training.courses import count_round, count_rounds
from fastssl.training.schedule import build_schedule
from tests.nursery import run_child
from tests.small_runs import read_lines
from tests.target_sets import NUM, SIDE, add_targets, make_set


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two datasets, to learn from and to test on."""
    root = tmp_path_factory.mktemp("sets")
    return make_set(root, "train", 1), make_set(root, "test", 2)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run directory with a trunk in it that takes the study's Lab."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text("{}")
    torch.manual_seed(0)
    metadata = {"recipe": "r", "step": "5", "dataset_digest": "d" * 64, "max_samples": "9"}
    metadata[INPUT_KEY] = InputSpec.named("newell20_lab").to_text()
    save_trunk(build_trunk("resnet9", 1), folder / "trunk.safetensors", metadata)
    return folder


@pytest.fixture
def plan(sets, pretrained, tmp_path):
    def build(task="finetune", data=None, world_size=1, **options):
        paths = {"path": sets[0], "test_path": sets[1], "num_threads": 1}
        usual = {
            "checkpoint": pretrained,
            "protocol": "newell20",
            "view_size": SIDE,
            "max_steps": 2,
            "global_batch_size": 16,
            "output_dir": tmp_path / "run",
            "device": "cpu",
        }
        data = EvaluationData(**{**paths, **(data or {})})
        config = DOWNSTREAM[task](**{**usual, **options}, data=data)
        return plan_downstream(task, config, world_size)

    return build


# ------------------------------------------------------------------ labels


def test_smaller_numbers_of_labels_are_part_of_greater_ones():
    ids = np.arange(100, 300)
    chosen = [first_labels(ids, num, seed=7) for num in (1, 10, 50, 200)]
    for fewer, more in itertools.pairwise(chosen):
        assert set(fewer) < set(more)
    assert chosen[-1].tolist() == ids.tolist()
    assert not np.array_equal(first_labels(ids, 50, seed=8), chosen[2])
    # Whether a sample comes first depends on itself alone: without others it does so too.
    rest = ids[ids % 2 == 0]
    both = set(first_labels(rest, 20, seed=7)) & set(first_labels(ids, 40, seed=7))
    assert both >= set(first_labels(ids, 20, seed=7)) & set(rest)
    with pytest.raises(InputError, match=r"num \(201\) must lie in 1 .. 200"):
        first_labels(ids, 201)


def test_labels_are_the_same_ones_for_every_seed_and_start(plan):
    few = plan(num_labels=10).divided.train_rows
    for other in (plan(num_labels=10, seed=5), plan("pose", num_labels=10)):
        assert other.divided.train_rows.tolist() == few.tolist()
    assert set(few) < set(plan(num_labels=20).divided.train_rows)
    moved = plan(num_labels=10, split_seed=1)
    assert moved.divided.train_rows.tolist() != few.tolist()
    texts = {p.divided.text for p in (plan(num_labels=10), plan(num_labels=20), plan())}
    assert texts == {"a dataset each, labels by seed 0"}


def test_more_labels_than_there_are_are_refused(plan):
    with pytest.raises(InputError, match=r"num_labels \(49\) .* the 48 images .* set --num-labels"):
        plan(num_labels=49)


def test_without_a_test_path_a_part_is_tested(plan):
    data = {"test_path": "."}
    found = plan(data=data, num_labels=10).divided
    assert found.text == "stratified 80/20 by seed 0, labels by seed 0"
    assert not set(found.train_rows) & set(found.test_rows)
    assert plan("pose", data=data).divided.text == "at random 80/20 by seed 0, labels by seed 0"


# ------------------------------------------------------------------ course


@pytest.mark.parametrize(
    ("num", "is_dense", "samples"),
    [
        (100, False, 10_000),
        (250, False, 10_000),
        (1000, False, 10_000),
        (3000, False, 12_000),
        (4000, False, 20_000),
        (20_000, False, 20_000),
        (50_000, False, 50_000),
        (200_000, False, 50_000),
        (4000, True, 10_000),
        (50_000, True, 10_000),
    ],
)
def test_a_round_repeats_few_labels(num, is_dense, samples):
    found = count_round(num, is_dense)
    assert samples <= found < samples + num
    assert is_dense or found == samples


def test_rounds_are_those_of_the_sheet():
    assert count_rounds(4000, "resnet9") == count_rounds(100, "resnet50_newell") == 200
    assert count_rounds(20_000, "resnet9_halves") == 600
    assert count_rounds(20_000, "resnet50_newell") == count_rounds(20_000, "resnet9", True) == 800


def test_the_course_is_the_studys_from_scratch_as_well(plan):
    runs = [plan(max_steps=0, global_batch_size=0).run]
    runs.append(plan(max_steps=0, global_batch_size=0, from_scratch=True).run)
    assert runs[0] == runs[1]
    run = runs[0]
    assert (run.data.global_batch_size, run.optim.name) == (512, "adam")
    schedule = build_schedule(run.schedule, run.optim, NUM, 512)
    assert schedule.total_steps == -(-200 * 10_032 // 512)  # 209 times 48
    round_samples = 10_032
    assert schedule.lr_at(0) == 0
    assert schedule.lr_at(5 * round_samples) == pytest.approx(1e-3)
    assert schedule.lr_at(200 * round_samples) == pytest.approx(1e-6)
    views = run.task
    assert (views.jitter_probability, views.flip_probability, views.cutout) == (0.8, 0.5, 0.25)


def test_length_and_rate_can_be_given(plan):
    def count(**options):
        run = plan(global_batch_size=10, **options).run
        return build_schedule(run.schedule, run.optim, NUM, 10)

    assert count(max_steps=30).total_steps == 30
    assert count(max_steps=30).lr_at(300) == pytest.approx(1e-6)
    assert count(max_steps=0, epochs=5.0).total_steps == 24
    assert count(max_steps=30, lr=0.01).peak_lr == 0.01
    with pytest.raises(InputError, match="are two lengths"):
        plan(epochs=3.0)


# ------------------------------------------------------------------ results


def test_a_result_says_what_it_is_a_figure_of(plan, pretrained, tmp_path):
    training = plan(num_labels=10, frozen_stages=2, head="mlp", seed=3)
    result = run_downstream(training)
    assert (result.task, result.protocol, result.metric) == ("finetune", "newell20", "top1")
    assert (result.seed, result.recipe, result.step) == (3, "r", 5)
    assert result.trunk_digest == digest_trunk(load_trunk(pretrained / "trunk.safetensors")[0])
    wanted = {"start": "pretrained", "num_labels": 10, "frozen_stages": 2, "head": "mlp"}
    wanted |= {"trunk": "resnet9", "width": 1, "steps": 2, "global_batch_size": 16, "lr": 1e-3}
    assert result.settings == wanted
    assert (result.details["num_train"], result.details["num_test"]) == (10, NUM)
    assert result.details["pretrain_data"] == "d" * 64
    assert result.details["pretrain_images"] == 9
    assert set(result.per_class) == {"a", "b", "c"}
    share = np.mean([result.per_class[name] for name in "abc"])
    assert result.value == pytest.approx(share)  # equally many of each
    places = keep_result(result, training.subject, tmp_path / "r.json")
    assert places[1].parent == pretrained / "results"
    assert read_result(tmp_path / "r.json") == result
    # Few labels make a batch by repetition, and nothing else does.
    assert np.load(tmp_path / "run" / "train_ids.npy").tolist() == sorted(
        training.divided.train_rows.tolist()
    )


def test_frozen_stages_stay_and_the_others_learn(plan, pretrained, tmp_path):
    run_downstream(plan(frozen_stages=2))
    before, _ = load_trunk(pretrained / "trunk.safetensors")
    after, _ = load_trunk(tmp_path / "run" / "trunk.safetensors")
    for name, value in before.state_dict().items():
        is_frozen = name.startswith(("conv1", "bn1", "block1"))
        is_same = torch.equal(value, after.state_dict()[name])
        assert is_same == is_frozen, name


def test_from_scratch_weights_are_fresh_by_the_seed(plan, tmp_path):
    scratch = plan("pose", from_scratch=True, seed=1, output_dir=tmp_path / "a")
    result = run_downstream(scratch)
    assert (result.trunk_digest, result.recipe, result.step) == ("scratch", "", 0)
    assert (result.metric, result.settings["start"]) == ("accuracy", "scratch")
    assert (result.settings["trunk"], result.settings["width"]) == ("resnet9", 1)
    assert "pretrain_data" not in result.details
    # The same by name and width, in the place of the checkpoint.
    named = {"checkpoint": Path(), "trunk": "resnet9", "width": 1}
    again = plan("pose", from_scratch=True, seed=1, output_dir=tmp_path / "c", **named)
    assert dataclasses.replace(run_downstream(again), seconds=0) == dataclasses.replace(
        result, seconds=0
    )
    other = plan("pose", from_scratch=True, seed=2, output_dir=tmp_path / "d", **named)
    run_downstream(other)
    first, second = (load_trunk(tmp_path / name / "trunk.safetensors")[0] for name in "ad")
    assert not torch.equal(first.conv1.weight, second.conv1.weight)


def test_an_interrupted_evaluation_goes_on(plan, tmp_path):
    whole = run_downstream(plan(max_steps=4, output_dir=tmp_path / "whole"))
    cut = {"max_steps": 4, "output_dir": tmp_path / "cut"}
    stopped = plan(**cut)  # behind two of its steps
    run_downstream(dataclasses.replace(stopped, run=dataclasses.replace(stopped.run, max_steps=2)))
    found = run_downstream(plan(**cut))
    assert dataclasses.replace(found, seconds=0) == dataclasses.replace(whole, seconds=0)
    states = [
        torch.load(tmp_path / name / "checkpoints" / f"{4:09d}" / "state.pt", weights_only=True)
        for name in ("whole", "cut")
    ]
    for name, value in states[0]["task"].items():
        assert torch.equal(value, states[1]["task"][name]), name


def test_two_ranks_learn_from_the_same_samples_and_give_a_result(plan, sets, pretrained, tmp_path):
    """A frozen trunk: batch norms would see half a batch each."""
    options = {"frozen-stages": 5, "head": "linear", "num-labels": 20, "seed": 3}
    words = ["--checkpoint", pretrained, "--data.path", sets[0], "--data.test-path", sets[1]]
    words += ["--view-size", SIDE, "--max-steps", 3, "--global-batch-size", 16, "--device", "cpu"]
    words += [word for name, value in options.items() for word in (f"--{name}", value)]
    words += ["--log.every-steps", 1, "--log.progress", "false", "--data.num-threads", 1]
    words += ["--output-dir", tmp_path / "two", "--json", tmp_path / "r.json"]
    run_child("-m", "fastssl", "evaluate", "pose", *words, ranks=2, check=True)
    own = {name.replace("-", "_"): value for name, value in options.items()}
    log = LogConfig(every_steps=1, progress=False)
    alone = run_downstream(plan("pose", max_steps=3, log=log, **own))
    losses = [
        [line["loss"] for line in read_lines(tmp_path / name / "metrics.jsonl")]
        for name in ("two", "run")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)  # sums in another order
    result = read_result(tmp_path / "r.json")
    left_out = {"seconds": 0.0, "command": "", "value": 0.0, "per_class": {}}
    left_out |= {"train_data": "", "test_data": ""}  # as the command line has them
    assert dataclasses.replace(result, **left_out) == dataclasses.replace(alone, **left_out)
    assert result.value == pytest.approx(alone.value, abs=1.5 / NUM)


def test_other_options_have_a_run_of_their_own_beside_the_trunk_or_the_result(plan, tmp_path):
    changes = ({}, {"seed": 1}, {"num_labels": 9}, {"lr": 1.0}, {"frozen_stages": 1})
    folders = [plan(output_dir=None, **options).folder for options in changes]
    folders.append(plan("pose", output_dir=None).folder)
    folders.append(plan(output_dir=None, from_scratch=True).folder)
    assert len(set(folders)) == 7
    assert {folder.parent.name for folder in folders} == {"downstream"}
    assert folders[0].parent.parent == plan().config.checkpoint
    own = {"from_scratch": True, "checkpoint": Path(), "trunk": "resnet9"}
    place = plan(output_dir=None, json=tmp_path / "x" / "r.json", **own).folder
    assert place.parent == tmp_path / "x" / "downstream"


def test_short_runs_write_neither_pictures_nor_curves_unless_asked(plan):
    assert not plan().run.log.tensorboard
    assert plan(max_steps=1000).run.log.tensorboard


# ------------------------------------------------------------------ dense


@pytest.mark.parametrize(
    ("task", "metric"), [("segmentation", "accuracy"), ("depth", "delta_1.25")]
)
def test_places_of_a_map_are_learnt_and_tested(plan, task, metric):
    result = run_downstream(plan(task, num_labels=20, view_size=32))
    assert (result.task, result.metric, result.layer) == (task, metric, "fc")
    assert (result.settings["grid"], result.settings["num_labels"]) == (4, 20)
    assert result.settings.get("num_classes") == (11 if task == "segmentation" else None)
    assert 0 <= result.value <= 1
    assert 0 < result.details["chance"] < 1
    assert plan(task, max_steps=0, global_batch_size=0).run.data.global_batch_size == 64
    assert plan(task, view_size=0).map.grid == 16


def test_dense_targets_that_do_not_fit_are_refused(plan, sets, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(sets[0], other)
    add_targets(other, {"segmentation": np.full((NUM, 4, 4), 30, np.uint8)})
    with pytest.raises(InputError, match=r"has class 30, wanted 0 .. 10, .* set --num-classes 31"):
        plan("segmentation", data={"path": other})
    assert plan("segmentation", data={"path": other}, num_classes=31).run.task.num_classes == 31
    add_targets(other, {"segmentation": np.zeros((NUM, 4, 6), np.uint8)})
    with pytest.raises(InputError, match=r"is uint8 of shape \(4, 6\) .* wanted uint8 of shape"):
        plan("segmentation", data={"path": other})
    with pytest.raises(InputError, match=r"trunk 'caffenet' has layers behind its last map"):
        plan("depth", from_scratch=True, checkpoint=Path(), trunk="caffenet", view_size=227)


# ------------------------------------------------------------------ photographs


def test_photographs_are_learnt_at_what_the_trunk_takes(run_folder, dataset_path):
    data = EvaluationData(path=dataset_path, num_threads=1)
    options = {"checkpoint": run_folder, "view_size": 32, "max_steps": 2, "num_labels": 20}
    config = DOWNSTREAM["finetune"](data=data, device="cpu", global_batch_size=8, **options)
    training = plan_downstream("finetune", config)
    assert training.run.task.input_spec == InputSpec()
    result = run_downstream(training)
    assert (result.protocol, result.split) == (
        "own",
        "stratified 80/20 by seed 0, labels by seed 0",
    )
    assert training.folder.parent == run_folder / "downstream"
    shutil.rmtree(run_folder / "downstream")


# ------------------------------------------------------------------ bad input


def test_what_does_not_fit_is_refused(plan, dataset_path, run_folder):
    with pytest.raises(InputError, match="--checkpoint"):
        plan_downstream("finetune", DOWNSTREAM["finetune"]())
    with pytest.raises(InputError, match=r"trunk \(none given\) must name"):
        plan(from_scratch=True, checkpoint=Path())
    with pytest.raises(InputError, match="has no target 'pose', which pose learns"):
        plan("pose", data={"path": dataset_path, "test_path": "."})
    with pytest.raises(InputError, match=r"data.label_share \(0.5\) is of labels"):
        plan("pose", data={"label_share": 0.5})
    lightness = {"scale": "patch", "checkpoint": run_folder}
    with pytest.raises(InputError, match=r"gives Lab or RGB .* set --protocol own"):
        plan(**lightness)


def test_ranks_that_cannot_share_a_batch_are_refused(plan):
    with pytest.raises(InputError, match=r"\(16\) must .* \(3 x 2\); set .* to 12 or 18"):
        plan(world_size=3, accumulation=2)


def test_a_run_in_a_folder_is_tested_on_one_set_of_images(plan, sets):
    run_downstream(plan("pose", max_steps=1))
    with pytest.raises(InputError, match="tested on other images; choose another --output-dir"):
        run_downstream(plan("pose", max_steps=1, data={"test_path": sets[0], "max_shared": 1.0}))


def test_half_networks_learn_from_scratch(plan):
    own = {"from_scratch": True, "checkpoint": Path(), "trunk": "resnet9_halves", "width": 1}
    result = run_downstream(plan("segmentation", max_steps=1, view_size=32, **own))
    assert (result.settings["trunk"], result.settings["width"]) == ("resnet9_halves", 1)


def test_a_fixed_viewpoint_has_no_poses(plan, sets, tmp_path):
    fixed = tmp_path / "fixed"
    shutil.copytree(sets[0], fixed)
    add_targets(fixed, {"pose": np.zeros(NUM, np.int64)})
    with pytest.raises(InputError, match=r"all poses of .*fixed are 0 \(up\).*viewpoint is fixed"):
        plan("pose", data={"path": fixed})
    add_targets(fixed, {"pose": np.zeros((NUM, 4), np.int64)})
    with pytest.raises(InputError, match="for sets of one object"):
        plan("pose", data={"path": fixed})
    add_targets(fixed, {"pose": np.arange(NUM)})
    with pytest.raises(InputError, match=r"has numbers 0 .. 47, wanted 0 .. 4"):
        plan("pose", data={"path": fixed})
