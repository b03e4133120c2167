"""Surface normals from folders of pictures to a result, and on again; angles in reports."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.commands.evaluate import _tell
from fastssl.commands.sweep_utility import UtilityConfig, plan_sweep
from fastssl.errors import InputError
from fastssl.evaluation.downstream import plan_downstream, run_downstream
from fastssl.evaluation.downstream_options import NormalsEvaluation
from fastssl.evaluation.label_curves import is_on_curve
from fastssl.evaluation.report.entries import Entry, choose_layers, spell_value
from fastssl.evaluation.setting import EvaluationData
from fastssl.runs.result import Result
from fastssl.shards.making.convert import ConvertConfig, convert

NUM, H, W = 40, 24, 32


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """Pictures of two walls and a floor: the colour of each, but for noise, tells its normal."""
    root = tmp_path_factory.mktemp("rooms")
    rng = np.random.default_rng(0)
    for folder in ("rgb", "normals"):
        (root / folder).mkdir()
    for number in range(NUM):
        units = rng.normal(size=(3, 3))
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        colours = np.round((units + 1) * 127.5).astype(np.uint8)
        parts = np.zeros((H, W), int)
        parts[:, W // 2 :] = 1
        parts[2 * H // 3 :] = 2
        normals = colours[parts]
        picture = np.clip(normals + rng.normal(scale=4, size=normals.shape), 0, 255)
        normals[:2] = 0
        name = f"{number:05d}.png"
        Image.fromarray(picture.astype(np.uint8)).save(root / "rgb" / name)
        Image.fromarray(normals).save(root / "normals" / name)
    words = (f"normals={root / 'normals'}",)
    convert(ConvertConfig(root / "rgb", root / "set", workers=1, target_folders=words))
    return root / "set"


@pytest.fixture
def plan(rooms, tmp_path):
    def build(folder="run", **options):
        usual = {"trunk": "resnet9", "width": 1, "from_scratch": True, "view_size": 32}
        usual |= {"global_batch_size": 16, "device": "cpu", "num_clusters": 12, "lr": 0.005}
        data = EvaluationData(path=rooms, num_threads=1)
        config = NormalsEvaluation(**{**usual, **options}, data=data, output_dir=tmp_path / folder)
        return plan_downstream("normals", config)

    return build


def test_normals_are_found_and_the_result_says_how_well(plan, capsys, caplog):
    caplog.set_level("INFO")
    training = plan(max_steps=20)
    result = run_downstream(training)
    assert (result.task, result.protocol, result.metric) == ("normals", "own", "median_angle")
    wanted = {"start": "scratch", "num_clusters": 12, "steps": 20, "grid": training.map.grid}
    assert wanted.items() <= result.settings.items()
    details = result.details
    assert (details["num_train"], details["num_test"]) == (32, 8)
    assert details["num_pixels"] == 8 * (H - 2) * W
    # Random directions lie 90 degrees from any one of them.
    assert details["chance"] == pytest.approx(90, abs=25)
    assert result.value < 0.75 * details["chance"]
    assert details["within_11.25"] <= details["within_22.5"] <= details["within_30"] <= 1
    assert not is_on_curve(result)
    assert f"test median angle {result.value:.2f} degrees" in caplog.text
    _tell(result, [])
    said = capsys.readouterr().out
    assert f"median_angle {result.value:.2f} degrees of 8 images (chance " in said


def test_a_run_goes_on_with_its_clusters_and_ends_alike(plan, tmp_path):
    whole = run_downstream(plan("whole", max_steps=4, view_size=16))
    stopped = plan("cut", max_steps=4, view_size=16)
    run_downstream(dataclasses.replace(stopped, run=dataclasses.replace(stopped.run, max_steps=2)))
    found = run_downstream(plan("cut", max_steps=4, view_size=16))
    assert dataclasses.replace(found, seconds=0) == dataclasses.replace(whole, seconds=0)
    clusters = [(tmp_path / name / "clusters.json").read_text() for name in ("whole", "cut")]
    assert clusters[0] == clusters[1]
    states = [
        torch.load(tmp_path / name / "checkpoints" / f"{4:09d}" / "state.pt", weights_only=True)
        for name in ("whole", "cut")
    ]
    for name, value in states[0]["task"].items():
        assert torch.equal(value, states[1]["task"][name]), name
    with pytest.raises(InputError, match=r"clusters_file .* --num-clusters 12"):
        run_downstream(plan("cut", max_steps=4, view_size=16, num_clusters=5))


def test_of_angles_the_least_is_best():
    results = [
        Result("normals", "own", "median_angle", value, layer=str(value)) for value in (9, 4)
    ]
    (best,) = choose_layers([Entry(result) for result in results])
    assert best.result.value == 4
    assert spell_value("median_angle", 13.14) == "13.1\u00b0"


def test_labels_saved_are_not_told_of_angles(rooms, tmp_path):
    config = UtilityConfig(
        task="normals", data=EvaluationData(path=rooms), output_dir=tmp_path / "s"
    )
    with pytest.raises(InputError, match="is measured by median_angle"):
        plan_sweep(config)
