"""Fine-tuning by one label an image or several, by the protocols for photographs."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.errors import InputError
from fastssl.evaluation.downstream import plan_downstream, run_downstream
from fastssl.evaluation.downstream_options import DOWNSTREAM
from fastssl.evaluation.setting import EvaluationData
from fastssl.models import build_trunk, load_trunk, save_trunk
from fastssl.models.input_spec import INPUT_KEY, InputSpec
from fastssl.runs.result import read_result, write_result
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.training.schedule import build_schedule
from tests.target_sets import NUM, add_targets, make_set

SIDE = 16


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two datasets whose images have several labels of three classes, some of them not counted."""
    root = tmp_path_factory.mktemp("sets")
    paths = []
    for seed, name in enumerate(("train", "test")):
        paths.append(make_set(root, name, seed))
        signs = np.random.default_rng(seed).choice([-1, 0, 1], (NUM, 3), p=[0.6, 0.1, 0.3])
        add_targets(paths[-1], {"labels": signs.astype(np.int8)})
    return paths


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A dataset of one label an image."""
    return make_set(tmp_path_factory.mktemp("plain"), "set", 5)


def save(folder, trunk="resnet9", spec=None):
    """Make a run directory with a trunk in it and nothing else."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    torch.manual_seed(0)
    metadata = {"recipe": "r", "step": "5", INPUT_KEY: (spec or InputSpec()).to_text()}
    save_trunk(build_trunk(trunk, 1), folder / "trunk.safetensors", metadata)
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return save(tmp_path_factory.mktemp("trunk") / "run")


@pytest.fixture
def plan(sets, pretrained, tmp_path):
    def build(data=None, **options):
        paths = {"path": sets[0], "test_path": sets[1], "num_threads": 1}
        usual = {
            "checkpoint": pretrained,
            "view_size": SIDE,
            "max_steps": 2,
            "global_batch_size": 16,
            "output_dir": tmp_path / "run",
            "device": "cpu",
        }
        data = EvaluationData(**{**paths, **(data or {})})
        config = DOWNSTREAM["finetune"](**{**usual, **options}, data=data)
        return plan_downstream("finetune", config)

    return build


# ------------------------------------------------------------------ protocol goyal19

LIGHTNESS = InputSpec("lightness")
SHEET = {  # trunk, input, from scratch: batch, rate, its course, decay, that of norms, views
    ("alexnet", None, False): (16, 1e-3, 80_000, 1e-6, 1e-4, (227, 0.1, 0.5, 10)),
    ("caffenet", None, False): (16, 1e-3, 80_000, 1e-6, 1e-4, (227, 0.1, 0.5, 10)),
    ("alexnet_color", LIGHTNESS, False): (16, 5e-3, 80_000, 5e-4, 0.0, (227, 256, 10)),
    ("resnet50", None, False): (128, 0.01, 3_000, 1e-6, 0.0, (224, 0.08, 1.0, 1)),
    ("resnet50_color", LIGHTNESS, False): (128, 0.15, 3_000, 1e-6, 0.0, (224, 0.08, 1.0, 1)),
    ("resnet50", None, True): (128, 0.1, 12_000, 1e-6, 0.0, (224, 0.08, 1.0, 1)),
}


@pytest.mark.parametrize("column", SHEET)
def test_courses_and_crops_are_those_of_the_sheet(plan, tmp_path, column):
    trunk, spec, from_scratch = column
    batch, lr, steps, decay, norm_decay, views = SHEET[column]
    checkpoint = save(tmp_path / "trunk", trunk, spec)
    own = {"view_size": 0, "max_steps": 0, "global_batch_size": 0, "protocol": "goyal19"}
    run = plan(checkpoint=checkpoint, from_scratch=from_scratch, **own).run
    optim, task = run.optim, run.task
    assert (optim.name, optim.momentum, optim.nesterov) == ("sgd", 0.9, True)
    assert (optim.weight_decay, optim.norm_weight_decay) == (decay, norm_decay)
    assert run.data.global_batch_size == batch
    schedule = build_schedule(run.schedule, optim, NUM, batch)
    assert schedule.total_steps == steps
    rates = [schedule.lr_at(step * batch) for step in range(0, steps, 200)]
    if batch == 16:
        wanted = [lr * 0.5 ** (step // 10_000) for step in range(0, steps, 200)]
    else:
        drops = (4_000, 8_000) if from_scratch else (1_600,)
        wanted = [lr * 0.1 ** sum(step >= d for d in drops) for step in range(0, steps, 200)]
    assert rates == pytest.approx(wanted)
    if task.view == "resize_crop":
        assert (task.size, task.resize, task.test_crops) == views
    else:
        assert (task.size, task.min_area, task.max_area, task.test_crops) == views
    assert task.flip_probability == 0.5


def test_the_run_is_saved_as_often_as_is_asked(plan):
    assert plan().run.checkpoint.every_steps == 1000
    assert plan(checkpoint_every_steps=7).run.checkpoint.every_steps == 7


def test_another_length_moves_the_drops_in_proportion(plan):
    run = plan(protocol="goyal19", max_steps=300, global_batch_size=8).run
    schedule = build_schedule(run.schedule, run.optim, NUM, 8)
    assert schedule.total_steps == 300
    assert [schedule.lr_at(8 * step) for step in (159, 160)] == pytest.approx([0.01, 0.001])
    epochs = plan(protocol="goyal19", max_steps=0, epochs=30.0).run.schedule
    assert (epochs.epochs, epochs.epoch_samples, epochs.milestones) == (30.0, NUM, (16.0,))


# ------------------------------------------------------------------ several labels


@pytest.mark.parametrize("protocol", ["own", "goyal19"])
def test_several_labels_give_average_precisions(plan, tmp_path, protocol):
    training = plan(protocol=protocol, frozen_stages=2, num_labels=20, head_lr_factor=10.0)
    assert training.run.task.name == "multilabel"
    result = run_downstream(training)
    assert (result.task, result.protocol, result.metric) == ("finetune", protocol, "mAP")
    assert result.value == pytest.approx(np.mean([result.per_class[name] for name in "abc"]))
    assert (result.settings["head_lr_factor"], result.settings["num_labels"]) == (10.0, 20)
    signs = np.load(training.config.data.test_path / "targets" / "labels.npy")
    shares = [(signs[:, c] > 0).sum() / (signs[:, c] != 0).sum() for c in range(3)]
    assert result.details["chance"] == pytest.approx(np.mean(shares), rel=1e-5)
    write_result(tmp_path / "r.json", result)
    assert read_result(tmp_path / "r.json") == result
    # Another rate of the head is another run.
    assert plan(output_dir=None).folder != plan(output_dir=None, head_lr_factor=2.0).folder


def test_a_head_learns_alone_where_the_trunk_is_frozen(plan, pretrained, tmp_path):
    run_downstream(plan(frozen_stages=5))
    before, _ = load_trunk(pretrained / "trunk.safetensors")
    after, _ = load_trunk(tmp_path / "run" / "trunk.safetensors")
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_a_stopped_fine_tuning_goes_on(plan, tmp_path):
    options = {"max_steps": 4, "protocol": "goyal19", "head_lr_factor": 10.0}
    whole = run_downstream(plan(output_dir=tmp_path / "whole", **options))
    stopped = plan(output_dir=tmp_path / "cut", **options)
    run_downstream(dataclasses.replace(stopped, run=dataclasses.replace(stopped.run, max_steps=2)))
    found = run_downstream(plan(output_dir=tmp_path / "cut", **options))
    assert dataclasses.replace(found, seconds=0) == dataclasses.replace(whole, seconds=0)
    trunks = [(tmp_path / name / "trunk.safetensors").read_bytes() for name in ("whole", "cut")]
    assert trunks[0] == trunks[1]


def test_ten_crops_are_tested_whatever_the_trunk_learns(plan, tmp_path):
    """AlexNet's protocol at one label an image, on the smallest pictures that it takes."""
    own = {"checkpoint": save(tmp_path / "trunk", "alexnet"), "view_size": 0, "max_steps": 1}
    run = plan(protocol="goyal19", **own, global_batch_size=2).run
    assert run.task.test_view.count == 10
    assert dataclasses.replace(run.task.test_view, count=1) == run.task.list_views()[0]


# ------------------------------------------------------------------ bad input


def test_labels_that_cannot_be_learnt_or_tested_are_refused(plan, sets, plain, tmp_path):
    with pytest.raises(InputError, match=r"protocol newell20 takes images of one label each"):
        plan(protocol="newell20")
    with pytest.raises(InputError, match=r"one of .* has several labels a sample and the other"):
        plan(data={"test_path": plain})
    with pytest.raises(InputError, match=r"num_labels \(49\) must not exceed the 48 images"):
        plan(num_labels=49)
    other = tmp_path / "other"
    shutil.copytree(sets[1], other)
    signs = np.load(other / "targets" / "labels.npy")
    signs[:, 1] = np.minimum(signs[:, 1], 0)
    add_targets(other, {"labels": signs})
    with pytest.raises(InputError, match=r"class 'b' has no positive among the 48 images .*1 of 3"):
        plan(data={"test_path": other})


def test_images_without_labels_are_refused(plan, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(4):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")
    convert(ConvertConfig(tmp_path / "photos", tmp_path / "none", workers=1))
    with pytest.raises(InputError, match="has labels of 0 classes on 0 of 4 samples"):
        plan(data={"path": tmp_path / "none", "test_path": "."})
