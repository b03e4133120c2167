"""One evaluation from trunk to result: what is kept, what is used again, what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from fastssl.errors import InputError
from fastssl.evaluation.evaluate import Evaluation, keep_result
from fastssl.evaluation.measures import MEASURES
from fastssl.evaluation.setting import EvaluationData
from fastssl.runs.result import read_result
from fastssl.shards import open_dataset
from fastssl.world import World
from tests.conftest import save_photograph

ALONE = World(0, 1, torch.device("cpu"), None)


@pytest.fixture
def configure(run_folder, dataset_path, tmp_path):
    def build(task="knn", data=None, **options):
        data = EvaluationData(**{"path": dataset_path, "loader": "webdataset", **(data or {})})
        config_class, _ = MEASURES[task]
        options = {"view_size": 32, "features_dir": tmp_path / "features", **options}
        return config_class(checkpoint=run_folder, data=data, device="cpu", **options)

    return build


def evaluate(task, config):
    evaluation = Evaluation(task, config, ALONE)
    try:
        evaluation.make_features()
        return evaluation.run(), evaluation
    finally:
        evaluation.close()


def test_a_result_says_what_it_is_a_figure_of(
    configure, run_folder, dataset_path, tmp_path
) -> None:
    result, evaluation = evaluate("knn", configure(end_points="block1,pre_logits", seed=3))
    assert (result.task, result.metric, result.recipe, result.step) == ("knn", "top1", "r", 5)
    assert result.split == "stratified 80/20 by seed 3"
    assert result.trunk_digest == evaluation.subject.digest
    assert result.train_digest == result.test_digest == evaluation.train.digest
    assert [part.layer for part in result.parts] == ["block1", "pre_logits"]
    assert result.value == max(part.value for part in result.parts)
    assert set(result.per_class) <= {"a", "b", "c"}
    assert result.details["num_train"] + result.details["num_test"] == 47
    tested = open_dataset(dataset_path).index["label"][evaluation.divided.test_rows]
    assert result.details["chance"] == np.bincount(tested).max() / len(tested)
    places = keep_result(result, evaluation.subject, tmp_path / "r.json")
    assert [place.parent for place in places] == [tmp_path, run_folder / "results"]
    assert [read_result(place).to_json() for place in places] == [result.to_json()] * 2
    assert json.loads((tmp_path / "r.json").read_text())["value"] == result.value


def test_features_through_a_cache_are_those_of_the_folder(
    configure, dataset_path, tmp_path, serve
) -> None:
    pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')
    here, _ = evaluate("knn", configure(features_dir=tmp_path / "here"))
    (wanted,) = (tmp_path / "here").glob("*/features.npy")
    server = serve(dataset_path)
    data = {"path": server.address, "cache_dir": tmp_path / "kept", "num_threads": 1}
    for name in ("there", "again"):
        server.asked.clear()
        there, _ = evaluate("knn", configure(data=data, features_dir=tmp_path / name))
        (found,) = (tmp_path / name).glob("*/features.npy")
        np.testing.assert_array_equal(np.load(found), np.load(wanted))
        assert there.value == here.value
    # What the first one read the second had.
    assert not [name for name, _ in server.asked if name.startswith("shard")]


def test_tasks_share_features_and_a_finished_part_is_not_done_again(configure, monkeypatch) -> None:
    first, evaluation = evaluate("knn", configure())
    files = {path: path.stat().st_mtime_ns for path in evaluation.store.root.glob("*/features.npy")}
    monkeypatch.setattr(
        "fastssl.evaluation.evaluate.fill_store", lambda *_: pytest.fail("features made again")
    )
    evaluate("svm", configure("svm"))
    assert files == {
        path: path.stat().st_mtime_ns for path in evaluation.store.root.glob("*/features.npy")
    }
    monkeypatch.setitem(
        MEASURES, "knn", (MEASURES["knn"][0], lambda *_: pytest.fail("measured again"))
    )
    again, _ = evaluate("knn", configure())
    assert again.to_json() == first.to_json()
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        evaluate("knn", configure(k=3))


def test_a_stopped_evaluation_goes_on_behind_its_last_part(configure, monkeypatch) -> None:
    config_class, measure = MEASURES["knn"]
    calls: list[int] = []

    def stop_at_second(config, train, test, device):
        calls.append(train.features.shape[1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(config, train, test, device)

    monkeypatch.setitem(MEASURES, "knn", (config_class, stop_at_second))
    config = configure(end_points="block1,block2,block3")
    with pytest.raises(KeyboardInterrupt):
        evaluate("knn", config)
    result, _ = evaluate("knn", config)
    assert len(result.parts) == 3
    assert len(calls) == 4


def test_a_hold_out_is_tested_on_and_nothing_else(configure) -> None:
    _, evaluation = evaluate("knn", configure(data={"hold_out": 9, "hold_out_seed": 2}))
    rows = evaluation.divided
    assert len(rows.test_rows) == 9
    np.testing.assert_array_equal(
        np.sort(np.concatenate([rows.train_rows, rows.test_rows])), np.arange(47)
    )


def test_the_split_is_a_function_of_dataset_and_seed(configure) -> None:
    one, two, other = (Evaluation("knn", configure(seed=seed), ALONE).divided for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.test_rows, two.test_rows)
    assert not np.array_equal(one.test_rows, other.test_rows)


def test_what_does_not_fit_is_refused_before_it_takes_time(configure, dataset_path) -> None:
    with pytest.raises(InputError, match=r"checkpoint .none given.*; --data.path"):
        Evaluation("knn", MEASURES["knn"][0](), ALONE)
    with pytest.raises(InputError, match=r"47 of 47 test images .* are among those"):
        Evaluation("knn", configure(data={"test_path": dataset_path}), ALONE)
    allowed = configure(data={"test_path": dataset_path, "max_shared": 1.0})
    assert Evaluation("knn", allowed, ALONE).divided.text == "a dataset each"
    with pytest.raises(InputError, match="no end point 'res5'"):
        Evaluation("knn", configure(end_points="block1,res5"), ALONE)
    with pytest.raises(InputError, match="give one of them"):
        configure(data={"test_path": dataset_path, "hold_out": 3})
    with pytest.raises(InputError, match=r"data.max_samples .48. must not exceed the 47"):
        Evaluation("knn", configure(data={"max_samples": 48}), ALONE)


def test_labels_that_are_missing_are_named(configure, tmp_path) -> None:
    from fastssl.shards.making.convert import ConvertConfig, convert

    for number in range(3):
        save_photograph(tmp_path / "photos" / f"{number}.jpg", number)
    convert(ConvertConfig(tmp_path / "photos", tmp_path / "plain", workers=1))
    config = configure()
    data = dataclasses.replace(config.data, path=tmp_path / "plain")
    with pytest.raises(InputError, match="labels of 0 classes on 0 of 3 samples"):
        Evaluation("knn", dataclasses.replace(config, data=data), ALONE)
    data = dataclasses.replace(config.data, test_path=tmp_path / "plain")
    with pytest.raises(InputError, match="labels of 0 classes"):
        Evaluation("knn", dataclasses.replace(config, data=data), ALONE)


@pytest.mark.parametrize("task", ["knn", "logistic"])
def test_several_labels_an_image_are_refused_before_it_takes_time(configure, tmp_path, task):
    from fastssl.shards.making.convert import ConvertConfig, convert

    for number in range(3):
        save_photograph(tmp_path / f"{number}.jpg", number)
    whole = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(3)],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (tmp_path / "mine.json").write_text(json.dumps(whole))
    convert(ConvertConfig(tmp_path / "mine.json", tmp_path / "several", workers=1))
    config = configure(task, data={"path": tmp_path / "several"})
    with pytest.raises(InputError, match=f"{task} takes images of one label each, and those of"):
        Evaluation(task, config, ALONE)


def test_every_task_gives_figures_of_its_metric(configure) -> None:
    figures = {task: evaluate(task, configure(task))[0] for task in ("knn", "logistic", "svm")}
    assert {task: result.metric for task, result in figures.items()} == {
        "knn": "top1",
        "logistic": "top1",
        "svm": "mAP",
    }
    for result in figures.values():  # three test images of each class
        assert result.value == pytest.approx(np.mean([*result.per_class.values()]), abs=1e-12)
    assert figures["logistic"].details["has_converged"]
    assert figures["svm"].details["largest_gap"] < 1e-6
    assert figures["svm"].details["chance"] == pytest.approx(1 / 3)
    assert set(figures["svm"].per_class) == {"a", "b", "c"}


def test_low_shot_gives_each_k_by_both_selections_and_keeps_what_was_drawn(configure) -> None:
    result, evaluation = evaluate("low_shot", configure("low_shot", shots=(1, 2, 30), draws=3))
    settings = [(part.settings["k"], part.settings["selection"]) for part in result.parts]
    assert settings == [(2, "honest"), (2, "published"), (1, "honest"), (1, "published")]
    assert result.settings == {"k": 2, "selection": "honest"}
    assert all(len(part.values) == 3 for part in result.parts)
    drawn = result.details["draws"]
    ids = np.array([draw["positives"] for draw in drawn])
    assert ids.shape == (3, 3, 2)
    labels = evaluation.divided.train_rows
    assert set(ids.ravel().tolist()) <= set(labels.tolist())
    assert "30" in result.details["left_out"]


def test_a_class_with_fewer_images_than_folds_is_named(configure) -> None:
    config = configure("svm", folds=20)
    with pytest.raises(InputError, match=r"class 'a' has 1\d positives to train on"):
        evaluate("svm", config)


def test_a_share_of_the_labels_is_part_of_a_greater_one(configure) -> None:
    whole, half, third = (
        Evaluation("knn", configure(data={"label_share": share}), ALONE).divided
        for share in (1.0, 0.5, 0.3)
    )
    assert set(third.train_rows) < set(half.train_rows) < set(whole.train_rows)
    assert np.array_equal(half.test_rows, whole.test_rows)
    assert half.text == "stratified 80/20 by seed 0, 50 % of the labels"


def test_a_result_says_the_share_of_the_labels(configure) -> None:
    result, _ = evaluate("knn", configure(data={"label_share": 0.5}))
    assert result.settings["label_share"] == 0.5
    assert "label_share" not in evaluate("knn", configure())[0].settings
