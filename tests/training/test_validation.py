"""Runs that learn labels or targets are tested on images that they do not learn from."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil

import pytest
import torch

from fastssl.config import LoaderConfig, ValidationConfig
from fastssl.errors import InputError
from fastssl.loaders import build_loader
from fastssl.models import build_trunk, save_trunk
from fastssl.models.input_spec import INPUT_KEY, InputSpec, make_inputs
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.studies import build_recipe
from fastssl.tasks import build_task
from fastssl.training import train
from fastssl.training.validation import Validation, match_classes
from fastssl.views import ViewSpec
from fastssl.world import World
from tests.conftest import save_photograph
from tests.small_runs import assert_equal_states, load_state, read_lines
from tests.target_sets import make_set


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """20 images of two of the three classes, and two without a label."""
    root = tmp_path_factory.mktemp("held_out")
    for number in range(22):
        name = f"{'ca'[number % 2]}/{number}.jpg" if number < 20 else f"{number}.jpg"
        save_photograph(root / "photos" / name, 100 + number)
    convert(ConvertConfig(root / "photos", root / "shards", workers=1))
    return root / "shards"


def configure_supervised(dataset_path, folder, **validation):
    config = build_recipe("supervised_smoke")
    return dataclasses.replace(
        config,
        output_dir=folder,
        max_steps=6,
        data=dataclasses.replace(
            config.data, path=dataset_path, num_threads=1, global_batch_size=8
        ),
        log=dataclasses.replace(config.log, pictures_every_steps=0, progress=False),
        validation=ValidationConfig(**validation),
    )


def test_lines_hold_the_accuracy_and_the_run_is_not_touched(dataset_path, held_out, tmp_path):
    plain = configure_supervised(dataset_path, tmp_path / "plain")
    tested = configure_supervised(dataset_path, tmp_path / "tested", path=held_out, every_steps=4)
    train(plain)
    train(tested)
    assert_equal_states(load_state(plain), load_state(tested))
    lines = read_lines(tmp_path / "tested" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert ["validation_accuracy" in line for line in lines] == [False, True, True]

    # The same by hand, from the last checkpoint.
    task = build_task(tested.task, build_trunk("resnet9", 1), 3)
    task.load_state_dict(load_state(tested)["task"])
    task.eval()
    config = LoaderConfig(path=held_out, global_batch_size=22, num_threads=1)
    with contextlib.closing(build_loader(config, ViewSpec.center(37, 32))) as loader:
        (batch,) = loader.one_pass()
        with torch.no_grad():
            images = make_inputs(batch.images[:, 0], task.input_spec)
            answers = task.head(task.trunk(images)).argmax(-1)
        names = open_dataset(held_out).class_names
        right = [
            "abc"[answer] == names[label]
            for answer, label in zip(answers.tolist(), batch.labels.tolist(), strict=True)
            if label >= 0
        ]
    assert len(right) == 20
    assert lines[-1]["validation_accuracy"] == sum(right) / 20


def test_what_is_held_out_is_tested_once_an_epoch_without_being_asked(dataset_path, tmp_path):
    config = configure_supervised(dataset_path, tmp_path / "run")
    data = dataclasses.replace(config.data, hold_out=20)
    train(dataclasses.replace(config, data=data, max_steps=8))
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    # 27 samples remain: four steps of eight.
    assert ["validation_accuracy" in line for line in lines] == [False, True, False, True]
    assert (20 * lines[-1]["validation_accuracy"]).is_integer()


def test_a_test_ends_without_a_number_when_its_rank_has_to_stop(dataset_path, held_out, tmp_path):
    config = configure_supervised(dataset_path, tmp_path / "run", path=held_out)
    task = build_task(config.task, build_trunk("resnet9", 1), 3)
    task.class_names = open_dataset(dataset_path).class_names
    validation = Validation(config, World(0, 1, torch.device("cpu"), None), task, 4)
    with contextlib.closing(validation):
        answers = iter([False, True, True])
        assert validation.measure(lambda: next(answers)) == {}
        assert validation.measure().keys() == {"validation_accuracy"}


def test_classes_are_matched_by_name(dataset_path, held_out):
    task = build_task(build_recipe("supervised_smoke").task, build_trunk("resnet9", 1), 3)
    task.class_names = open_dataset(dataset_path).class_names
    assert match_classes(open_dataset(held_out), task).tolist() == [0, 2, -1]


def test_other_classes_are_refused(dataset_path, held_out, tmp_path):
    config = configure_supervised(held_out, tmp_path / "run", path=dataset_path)
    with pytest.raises(InputError, match=r"has 1 class that are not learnt \('b'\)"):
        train(config)


def test_a_set_without_classes_is_refused(dataset_path, tmp_path):
    for number in range(3):
        save_photograph(tmp_path / "photos" / f"{number}.jpg", number)
    convert(ConvertConfig(tmp_path / "photos", tmp_path / "shards", workers=1))
    config = configure_supervised(dataset_path, tmp_path / "run", path=tmp_path / "shards")
    with pytest.raises(InputError, match=r"has no classes; wanted classes of the 3 of --data"):
        train(config)


@pytest.mark.parametrize("task", ["classification", "pose"])
def test_a_downstream_recipe_starts_from_a_trunk_and_is_tested_at_its_end(
    task, dataset_path, held_out, tmp_path
):
    """By hand from the last checkpoint; classes of another number are found by their names."""
    paths = [dataset_path, held_out]
    if task == "pose":
        paths = [make_set(tmp_path, name, seed) for seed, name in enumerate(("train", "test"))]
    torch.manual_seed(3)
    metadata = {INPUT_KEY: InputSpec.named("newell20_lab").to_text()}
    save_trunk(trunk := build_trunk("resnet9", 1), tmp_path / "trunk.safetensors", metadata)
    config = build_recipe(f"newell20_{task}_smoke")
    config = dataclasses.replace(
        config,
        output_dir=tmp_path / "run",
        trunk_from=tmp_path / "trunk.safetensors",
        frozen_stages=2,
        max_steps=4,
        data=dataclasses.replace(config.data, path=paths[0], num_threads=1, global_batch_size=8),
        log=dataclasses.replace(config.log, every_steps=2, pictures_every_steps=0, progress=False),
        validation=dataclasses.replace(config.validation, path=paths[1]),
    )
    train(config)
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    name = {"classification": "test_top1", "pose": "test_accuracy"}[task]
    assert [name in line for line in lines] == [False, True]

    state = load_state(config)["task"]
    assert torch.equal(state["trunk.conv1.weight"], trunk.conv1.weight)
    assert not torch.equal(state["trunk.fc.weight"], trunk.state_dict()["fc.weight"])
    learner = build_task(config.task, build_trunk("resnet9", 1), 3)
    learner.load_state_dict(state)
    learner.eval()
    with contextlib.closing(open_dataset(paths[1])) as tested:
        data = LoaderConfig(
            path=paths[1], global_batch_size=tested.num_samples, targets=learner.targets
        )
        with contextlib.closing(build_loader(data, learner.views)) as loader, torch.no_grad():
            (batch,) = loader.one_pass()
            inputs = make_inputs(batch.images[:, 0], learner.input_spec)
            answers = learner.head(learner.trunk(inputs)).argmax(-1).tolist()
        if task == "pose":
            right = [a == p for a, p in zip(answers, batch.targets["pose"], strict=True)]
        else:
            pairs = zip(answers, batch.labels.tolist(), strict=True)
            right = ["abc"[a] == tested.class_names[c] for a, c in pairs if c >= 0]
    assert lines[-1][name] == pytest.approx(sum(right) / len(right))


def test_what_lacks_the_target_is_refused(dataset_path, tmp_path):
    config = build_recipe("newell20_pose_smoke")
    data = dataclasses.replace(config.data, path=dataset_path, num_threads=1)
    config = dataclasses.replace(config, output_dir=tmp_path / "run", data=data)
    with pytest.raises(InputError, match="has no target 'pose'"):
        train(config)
    own = dataclasses.replace(data, path=make_set(tmp_path, "set", 0))
    tested = dataclasses.replace(config.validation, path=dataset_path)
    config = dataclasses.replace(config, data=own, validation=tested)
    with pytest.raises(
        InputError, match=r"validation.path \(.*\) has no target 'pose', which pose"
    ):
        train(config)


@pytest.mark.parametrize("recipe", ["supervised_smoke", "newell20_classification_smoke"])
def test_images_of_several_labels_are_no_images_of_one(recipe, tmp_path):
    content = {"images": [{"id": 1, "file_name": "0.jpg"}, {"id": 2, "file_name": "1.jpg"}]}
    content["categories"] = [{"id": c, "name": "ab"[c]} for c in range(2)]
    content["annotations"] = [
        {"id": c, "image_id": 1, "category_id": c, "bbox": [1, 1, 9, 9], "iscrowd": 0, "area": 81}
        for c in range(2)
    ]
    for number in range(2):
        save_photograph(tmp_path / f"{number}.jpg", number)
    (tmp_path / "set.json").write_text(json.dumps(content))
    convert(ConvertConfig(tmp_path / "set.json", tmp_path / "set", workers=1))
    config = build_recipe(recipe)
    data = dataclasses.replace(
        config.data, path=tmp_path / "set", global_batch_size=2, num_threads=1
    )
    with pytest.raises(InputError, match=r"none of the 2 of .* has one \(several: fastssl eval"):
        train(dataclasses.replace(config, output_dir=tmp_path / "run", data=data))


def test_a_pretext_task_is_not_tested_so(configure, dataset_path):
    config = configure(validation=ValidationConfig(path=dataset_path))
    with pytest.raises(InputError, match=r"tasks that learn labels or targets, .* is jigsaw"):
        train(config)
    shutil.rmtree(config.output_dir)
