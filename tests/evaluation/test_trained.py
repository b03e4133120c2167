"""Evaluations that train: from options to a result, over any split, and on again."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.evaluation.setting import EvaluationData
from fastssl.evaluation.trained import TRAINED, plan_training, run_training
from fastssl.shards import open_dataset
from tests.small_runs import read_lines


@pytest.fixture
def plan(run_folder, dataset_path):
    def build(task="linear", data=None, world_size=1, **options):
        data = EvaluationData(path=dataset_path, num_threads=1, **(data or {}))
        options = {"view_size": 32, "epochs": 1.0, "global_batch_size": 16, **options}
        config = TRAINED[task](checkpoint=run_folder, data=data, device="cpu", **options)
        return plan_training(task, config, world_size)

    return build


def test_a_result_says_what_it_is_a_figure_of(plan, run_folder) -> None:
    training = plan(data={"test_share": 0.25}, seed=3, protocol="goyal19")
    result = run_training(training)
    assert (result.task, result.protocol, result.metric) == ("linear", "goyal19", "top1")
    assert (result.recipe, result.step, result.seed) == ("r", 5, 3)
    assert result.split == "stratified 75/25 by seed 3"
    assert [part.layer for part in result.parts] == list(training.course.task.end_points)
    assert len(result.parts) > 3
    assert result.value == max(part.value for part in result.parts)
    assert set(result.per_class) == {"a", "b", "c"}
    assert result.details["num_test"] == len(training.divided.test_rows)
    assert result.settings == {"epochs": 1.0, "global_batch_size": 16}
    assert training.folder.parent == run_folder / "heads"
    # The same again is done already.
    again = run_training(plan(data={"test_share": 0.25}, seed=3, protocol="goyal19"))
    assert dataclasses.replace(again, seconds=0) == dataclasses.replace(result, seconds=0)
    assert len(read_lines(training.folder / "metrics.jsonl")) == 2  # one of them: resumed


def test_only_the_training_side_is_trained_on(plan, tmp_path, dataset_path) -> None:
    training = plan(output_dir=tmp_path / "run", end_points="pre_logits")
    run_training(training)
    rows = training.divided
    for side, ids in (("train", rows.train_rows), ("test", rows.test_rows)):
        assert np.load(tmp_path / "run" / f"{side}_ids.npy").tolist() == sorted(ids.tolist())
    assert not set(rows.train_rows) & set(rows.test_rows)
    settings = (tmp_path / "run" / "config.json").read_text()
    assert "ids_sha256" in settings
    with contextlib.closing(open_dataset(dataset_path)) as dataset:
        assert len(rows.train_rows) + len(rows.test_rows) == dataset.num_samples


def test_other_options_have_a_run_of_their_own(plan) -> None:
    folders = [
        plan(**changes).folder
        for changes in ({}, {"seed": 1}, {"epochs": 2.0}, {"data": {"test_share": 0.25}})
    ]
    folders.append(plan("mlp").folder)
    assert len(set(folders)) == 5
    assert plan().folder == folders[0]


def test_all_end_points_are_classified_unless_the_sheet_names_them(plan) -> None:
    assert plan().course.task.end_points[-1] == "pre_logits"
    assert len(plan().course.task.end_points) > 3
    assert plan().course.task.pooling == "global"
    assert plan(end_points="block1").course.task.end_points == ("block1",)
    assert plan("mlp").course.task.hidden == 1000


def test_a_batch_is_no_larger_than_the_images_of_all_ranks(plan) -> None:
    assert plan(global_batch_size=256, world_size=4).batch == 36  # of 38
    with pytest.raises(InputError, match=r"gives 38 images .* fewer than ranks x accum.* \(50\)"):
        plan(world_size=50)


def test_what_does_not_fit_is_refused(plan) -> None:
    with pytest.raises(InputError, match="has no end point 'res9'; it has stem"):
        plan(end_points="res9")
    with pytest.raises(InputError, match=r"\(goyal19\) has no task mlp"):
        plan("mlp", protocol="goyal19")
    with pytest.raises(InputError, match="--checkpoint"):
        plan_training("linear", TRAINED["linear"]())
