"""Detection from options to a result, on again after a kill, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastssl.config import LogConfig
from fastssl.errors import InputError
from fastssl.evaluation.detect import (
    DETECTIONS_NAME,
    keep_detections,
    plan_detect,
    run_detect,
)
from fastssl.evaluation.detect_options import DetectEvaluation, plan_course
from fastssl.evaluation.detect_start import START_NAME, has_fresh_norms
from fastssl.evaluation.detection_ap import Detections, measure_voc
from fastssl.evaluation.setting import EvaluationData
from fastssl.models import build_trunk, load_trunk, save_trunk
from fastssl.models.input_spec import INPUT_KEY, InputSpec
from fastssl.shards import open_dataset
from fastssl.training.schedule import build_schedule
from tests.detection_sets import HEIGHT, WIDTH, draw_set, slide_windows
from tests.nursery import Child, run_child
from tests.patience import wait_until
from tests.target_sets import add_targets

pytest.importorskip("torchvision", reason="detection stands on torchvision")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two datasets with proposals, to learn from and to test on."""
    root = tmp_path_factory.mktemp("shapes")
    paths = [
        draw_set(root / name, num, seed) for name, num, seed in (("train", 48, 1), ("test", 16, 2))
    ]
    return [(path, slide_windows(path, root / f"{path.name}-windows")) for path in paths]


@pytest.fixture
def plan(sets, tmp_path):
    def build(data=None, world_size=1, **options):
        (train, windows), (test, test_windows) = sets
        usual = {
            "from_scratch": True,
            "trunk": "resnet9",
            "width": 1,
            "frozen_stages": 0,
            "proposals": windows,
            "test_proposals": test_windows,
            "view_size": HEIGHT,
            "long_side": WIDTH,
            "regions": 16,
            "max_steps": 2,
            "output_dir": tmp_path / "run",
            "device": "cpu",
            "log": LogConfig(
                every_steps=1, pictures_every_steps=0, tensorboard=False, progress=False
            ),
        }
        paths = {"path": train, "test_path": test, "num_threads": 1}
        config = DetectEvaluation(
            **{**usual, **options}, data=EvaluationData(**{**paths, **(data or {})})
        )
        return plan_detect(config, world_size)

    return build


def read_detections(folder):
    with np.load(folder / DETECTIONS_NAME) as content:
        return dict(content)


# ------------------------------------------------------------------ the whole way


def test_shapes_are_found(plan, tmp_path, sets):
    """From fresh weights to nearly every shape of pictures that were never seen."""
    training = plan(
        max_steps=60, lr=0.005, json=tmp_path / "result.json", log=LogConfig(every_steps=10)
    )
    result = run_detect(training)
    assert (result.task, result.metric, result.layer) == ("detect", "ap50", "block2")
    assert result.value > 0.7
    assert set(result.per_class) == {"disc", "square"}
    assert [part.metric for part in result.parts] == ["ap50", "ap50_11"]
    assert result.settings["start"] == "scratch"
    assert result.details["num_test"] == 16
    # The file of detections gives the same figure.
    kept = keep_detections(training)
    assert kept == tmp_path / "result.detections.npz"
    found = read_detections(tmp_path / "run")
    objects = open_dataset(sets[1][0]).targets["objects"]
    names = ("sample_ids", "classes", "scores", "boxes")
    again = measure_voc(Detections(*(found[name] for name in names)), np.asarray(objects))
    assert again.ap50 == result.value
    assert found["tested_ids"].tolist() == list(range(16))
    assert (found["boxes"] <= (WIDTH, HEIGHT, WIDTH, HEIGHT)).all()
    metrics = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    last = json.loads(metrics[-1])
    assert last["test_ap50"] == pytest.approx(result.value)
    assert any((tmp_path / "run/tensorboard").iterdir())
    assert last["loss_class"] + last["loss_box"] == pytest.approx(last["loss"], rel=1e-4)


def command(sets, folder, steps, *more):
    (train, windows), (test, test_windows) = sets
    options = {
        "--data.path": train,
        "--data.test-path": test,
        "--data.num-threads": 1,
        "--proposals": windows,
        "--test-proposals": test_windows.parent,
        "--from-scratch": "true",
        "--trunk": "resnet9",
        "--width": 1,
        "--view-size": HEIGHT,
        "--long-side": WIDTH,
        "--regions": 8,
        "--max-proposals": 12,
        "--max-steps": steps,
        "--checkpoint-every-steps": 3,
        "--output-dir": folder,
        "--json": folder.with_suffix(".json"),
        "--log.every-steps": 1,
        "--log.progress": "false",
        "--log.tensorboard": "false",
    }
    words = [word for option in options.items() for word in option]
    return ["-m", "fastssl", "evaluate", "detect", *words, *more]


def test_a_run_killed_in_the_middle_finds_the_same_boxes(sets, tmp_path):
    run_child(*command(sets, tmp_path / "whole", 6), check=True, OMP_NUM_THREADS="1")
    words = command(sets, tmp_path / "cut", 6)
    child = Child(words, OMP_NUM_THREADS="1")
    state = tmp_path / "cut/checkpoints/000000003/manifest.json"
    wait_until(lambda: state.exists() or child.poll() is not None, "no checkpoint comes")
    child.kill()
    assert not (tmp_path / "cut" / DETECTIONS_NAME).exists()  # it was in the middle
    run_child(*words, check=True, OMP_NUM_THREADS="1")
    whole, cut = (read_detections(tmp_path / name) for name in ("whole", "cut"))
    assert len(whole["scores"]) > 50
    for name, value in whole.items():
        assert np.array_equal(value, cut[name]), name
    results = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "cut")]
    assert results[0]["value"] == results[1]["value"]
    assert (tmp_path / "cut.detections.npz").exists()


def test_two_ranks_test_every_picture_once(sets, tmp_path):
    more = ("--frozen-stages", 3)
    run_child(*command(sets, tmp_path / "one", 1, *more), check=True)
    run_child(*command(sets, tmp_path / "two", 1, *more), ranks=2, check=True)
    one, two = (read_detections(tmp_path / name) for name in ("one", "two"))
    assert one["tested_ids"].tolist() == two["tested_ids"].tolist() == list(range(16))
    assert np.array_equal(one["sample_ids"], two["sample_ids"])
    # The same gradients, summed in another order.
    np.testing.assert_allclose(one["scores"], two["scores"], atol=1e-4)


def test_a_frozen_body_stays_and_faster_rcnn_needs_no_proposals(plan, tmp_path):
    none = {"proposals": Path(), "test_proposals": Path()}
    options = {"detector": "faster_rcnn", "frozen_stages": 3, "anchor_sizes": (16, 24)}
    options |= {"max_proposals": 20}
    result = run_detect(plan(**none, **options))
    assert result.settings["detector"] == "faster_rcnn"
    assert result.details["num_detections"] > 0
    start, _ = load_trunk(tmp_path / "run" / START_NAME)
    state = torch.load(tmp_path / "run/checkpoints/000000002/state.pt", weights_only=True)["task"]
    for name, value in start.named_parameters():
        if ".bn" in name or name.startswith("bn") or "downsample.1" in name:
            continue  # fixed: no parameter of the detector
        is_frozen = name.startswith(("conv1", "block1", "block2"))
        assert torch.equal(value, state[f"trunk.{name}"]) == is_frozen, name
    assert {name for name in state if name.startswith("proposer.")}


def test_norms_that_have_seen_nothing_take_statistics_and_others_are_kept(plan, tmp_path):
    assert has_fresh_norms(build_trunk("resnet9", 1))
    assert not has_fresh_norms(build_trunk("caffenet", 1))  # it has none
    trunk = build_trunk("resnet9", 1)
    trunk(torch.randn(2, 3, 32, 32))
    assert not has_fresh_norms(trunk)
    path = tmp_path / "trunk.safetensors"
    save_trunk(trunk, path, {"recipe": "r", INPUT_KEY: InputSpec().to_text()})
    given = {"from_scratch": False, "trunk": "", "width": 0, "checkpoint": path, "max_steps": 1}
    result = run_detect(plan(**given))
    assert result.settings["start"] == "pretrained"
    assert not (tmp_path / "run" / START_NAME).exists()
    state = torch.load(tmp_path / "run/checkpoints/000000001/state.pt", weights_only=True)["task"]
    assert torch.equal(state["trunk.bn1.running_mean"], trunk.bn1.running_mean)


# ------------------------------------------------------------------ course and place


def test_the_published_course(plan):
    training = plan(protocol="voc07", max_steps=0, frozen_stages=2, view_size=0, long_side=0)
    run = training.run
    schedule = build_schedule(run.schedule, run.optim, 48, run.data.global_batch_size)
    assert schedule.total_steps == 30_000
    rates = [schedule.lr_at(4 * step) for step in (0, 250, 500, 21_999, 22_000, 29_999)]
    assert rates == pytest.approx([0.002 / 3, 0.002 * 2 / 3, 0.002, 0.002, 0.0002, 0.0002])
    assert (run.task.short, run.task.long, run.task.regions) == ((600,), 1000, 16)
    assert training.config.metric == "ap50_11"
    lengths = {
        (protocol, detector): plan_course(
            DetectEvaluation(protocol=protocol, detector=detector), 5011
        )
        for protocol in ("voc07", "voc0712")
        for detector in ("fast_rcnn", "faster_rcnn")
    }
    assert [(c.drop, c.steps) for c in lengths.values()] == [
        (22_000, 30_000),
        (38_000, 50_000),
        (66_000, 80_000),
        (65_000, 100_000),
    ]
    short = plan_course(DetectEvaluation(protocol="voc07", max_steps=300), 5011)
    assert (short.drop, short.steps) == (220, 300)
    own = plan_course(DetectEvaluation(epochs=8), 400)
    assert (own.drop, own.steps) == (600, 800)


def test_other_options_have_a_run_of_their_own_beside_the_result(plan, tmp_path):
    changes = ({}, {"seed": 1}, {"lr": 1.0}, {"frozen_stages": 1}, {"pooling": "roi_align"})
    place = {"output_dir": None, "json": tmp_path / "x/r.json"}
    folders = [plan(**place, **options).folder for options in changes]
    assert len(set(folders)) == 5
    assert {folder.parent for folder in folders} == {tmp_path / "x/detect"}
    assert plan(**place, log=LogConfig()).folder == folders[0]


# ------------------------------------------------------------------ refused


def test_what_does_not_fit_is_refused_before_anything_starts(plan, tmp_path):
    none = {"proposals": Path(), "test_proposals": Path()}
    for options, line in (
        (none, r"proposals \(none given\) .* fastssl proposals DATASET OUT"),
        ({"test_proposals": Path()}, r"test_proposals \(none given\) .* --data.test-path"),
        ({"data": {"test_path": "."}}, r"test_proposals .* are of --data.test-path \(none given\)"),
        ({"proposals": tmp_path / "boxes.npy"}, r"must be a file proposals.npy or its folder"),
        ({"detector": "faster_rcnn"}, r"is not for detector faster_rcnn"),
        ({"trunk": "vgg19_bn"}, r"'vgg19_bn' cannot be parted"),
        ({"global_batch_size": 3, "world_size": 2}, r"\(3\) .* set --global-batch-size to 2 or 4"),
        ({"max_steps": 1, "epochs": 1.0}, r"are two lengths"),
        ({"short_sides": (500,)}, r"task.short \(500\) must lie in 1 .. task.long"),
        ({"from_scratch": False, "trunk": ""}, r"--checkpoint \(none given\)"),
    ):
        with pytest.raises(InputError, match=line):
            plan(**options)
    assert not (tmp_path / "run").exists()


def test_datasets_without_objects_or_of_other_classes_are_refused(plan, tmp_path):
    plain = draw_set(tmp_path / "plain", 2, 3)
    add_targets(plain, {"depth": np.zeros((2, 4, 4), np.float16)})
    with pytest.raises(InputError, match=r"has no target 'objects', .* \(targets: depth\)"):
        plan(data={"path": plain})
    other = draw_set(tmp_path / "other", 2, 3, kinds=("disc", "square", "star"))
    with pytest.raises(InputError, match=r"3 classes, data.path .* of 2 \(train lacks star\)"):
        plan(data={"test_path": other})


def test_proposals_of_another_set_are_refused(plan, sets):
    (_, windows), (_, test_windows) = sets
    with pytest.raises(InputError, match="was made of the dataset"):
        run_detect(plan(proposals=test_windows, test_proposals=windows))


def test_a_folder_keeps_to_the_pictures_that_it_was_tested_on(plan):
    run_detect(plan(max_steps=1))
    with pytest.raises(InputError, match=r"tested on other images; choose another --output-dir"):
        run_detect(plan(max_steps=1, data={"test_path": "."}, test_proposals=Path()))
