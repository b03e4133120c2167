"""The measuring tools run, and their files hold what they promise; no time is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fastssl.benchmarks import bank, features, svm
from fastssl.errors import InputError
from fastssl.models import build_trunk, save_trunk
from fastssl.models.input_spec import INPUT_KEY, InputSpec
from tests.nursery import run_child

TOOLS = Path(__file__).parents[2] / "tools"


def run_tool(name, *arguments):
    return run_child(TOOLS / name, *arguments)


@pytest.mark.slow
def test_bench_ops_compares_every_row_with_its_reference(tmp_path):
    path = tmp_path / "ops.json"
    done = run_tool(
        "bench_ops.py", "--device", "cpu", "--rounds", 3, "--batch-size", 2, "--json", path
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["rows"]
    names = [row["name"].split(",")[0] for row in rows]
    assert names == [
        *["extract_patches"] * 2,
        "normalize",
        *["color_jitter"] * 2,
        *["augment_views"] * 2,
        *["split_lab"] * 2,
        *["ColorLoss and gradient"] * 5,
        "rgb_to_lab",
        *["order_ids"] * 2,
    ]
    for row in rows:
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert ("share_of_copy" in row) == (row["unit"] == "images")
    # Read once and written as float32 once: 9 patches of 64 px, 224 px views.
    assert [row.get("bytes") for row in rows[1:3]] == [2 * 5 * 9 * 64**2 * 3, 2 * 5 * 224**2 * 3]


@pytest.mark.slow
def test_bench_training_measures_all_ways_in_turn(dataset_path, tmp_path):
    path = tmp_path / "training.json"
    done = run_tool(
        "bench_training.py",
        "demo_smoke",
        *("--device", "cpu", "--data.path", dataset_path, "--data.global-batch-size", 4),
        *("--task.patch", 8, "--task.jitter", 3, "--task.crop", 36, "--task.resize-short", 36),
        *("--bench.rounds", 3, "--bench.steps", 1, "--bench.warm-steps", 1, "--json", path),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert [row["way"] for row in result["rows"]] == ["shards", "copied", "resident", "bare"]
    for row in result["rows"]:
        assert row["img_per_s"] == pytest.approx(4e3 / row["step_ms"])
        assert row["step_ms_min"] <= row["step_ms"] <= row["step_ms_max"]
        assert row["data_wait_ms"] < row["step_ms_max"]
    ratios = {"shards/copied", "shards/resident", "step_overhead", "own_share"}
    assert set(result["ratios"]) == ratios
    assert 0 < result["ratios"]["own_share"] < 1


@pytest.mark.parametrize(
    ("tool", "arguments", "match"),
    [
        (
            "bench_ops.py",
            ["--rounds", "2"],
            "error: rounds (2) must lie in 3 .. 1,000; set --rounds",
        ),
        (
            "bench_training.py",
            ["demo_smoke", "--bench.rounds", "2"],
            "error: bench.rounds (2) must lie in 3 .. 1,000; set --bench.rounds",
        ),
        ("bench_training.py", ["demo_smok"], "did you mean 'demo_smoke'?"),
    ],
)
def test_wrong_options_are_refused_in_one_line(tool, arguments, match):
    done = run_tool(tool, *arguments)
    assert done.returncode == 2
    assert match in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_bench_memory_compares_trunks_and_precisions(tmp_path):
    path = tmp_path / "memory.json"
    done = run_tool(
        "bench_memory.py",
        *("--trunks", "revnet50_patch", "revnet50_patch_plain", "--units", 2, 4),
        *("--device", "cpu", "--threads", 1, "--width", 1, "--batch-size", 16, "--side", 32),
        *("--json", path),
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    reversible, plain = content["rows"]
    assert (reversible["ratio"], reversible["saved_ratio"]) == (1, 1)
    assert plain["saved"] > 5 * reversible["saved"]
    assert plain["peak"] > reversible["peak"] > reversible["saved"]
    for row, units in zip(content["precision_rows"], (2, 4), strict=True):
        assert row["units"] == units
        assert 0 < row["inversion"] < 1e-6


@pytest.fixture
def own_threads(monkeypatch):
    """What a measurement sets for its process, put back."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "262144")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("own_threads")
def test_bench_bank_sets_the_memory_beside_the_networks(tmp_path):
    path = tmp_path / "bank.json"
    bank.main(
        [
            *("--rows", "40000", "--negatives", "64", "--width", "1", "--size", "16"),
            *("--batch-size", "2", "--rounds", "3", "--threads", "1", "--json", str(path)),
        ]
    )
    result = json.loads(path.read_text())
    assert result["row_bytes"] == 40_000 * 2 * 32 * 4
    assert result["grown_bytes"] < 1.6 * result["row_bytes"]  # the rows once, and less than again
    assert 0 < result["bank_seconds"] < result["bank_seconds_spread"][1] + 1e-9
    assert result["ratio_of_cpu_seconds"] > 0


@pytest.mark.usefixtures("own_threads")
def test_bench_svm_compares_speed_with_an_even_part_of_linear_svc(tmp_path):
    path = tmp_path / "svm.json"
    svm.main(
        [
            *("--dims", "12", "--samples", "1000", "--rounds", "1", "--classes", "2"),
            *("--costs", "3", "--threads", "1", "--json", str(path)),
        ]
    )
    result = json.loads(path.read_text())
    assert (result["fits"], result["fits_of_linear_svc"]) == (20 * 26 * 3, 6)
    part, whole = result["linear_svc_part_s"], result["linear_svc_extrapolated_s"]
    assert whole == pytest.approx(260 * part)
    assert result["ratio"] == pytest.approx(whole / result["batched_s"])
    assert result["peak_bytes"] > 0
    assert result["gram_bytes"] == 8 * 13**2


def test_bench_svm_sets_objectives_and_precisions_beside_each_other(tmp_path):
    lists = tmp_path / "Main"
    lists.mkdir()
    for split, seed in (("trainval", 0), ("test", 1)):
        signs = svm.draw_labels(200, seed)[:, [6, 14]]
        signs[::9] = 0
        for name, column in zip(("bird", "cat"), signs.T, strict=True):
            lines = [f"{i:06} {label:2}" for i, label in enumerate(column)]
            (lists / f"{name}_{split}.txt").write_text("\n".join(lines) + "\n")
    path = tmp_path / "svm.json"
    svm.main(
        [
            *("--labels", str(lists), "--dims", "300", "--measure", "agreement"),
            *("--classes", "2", "--costs", "2", "--json", str(path)),
        ]
    )
    result = json.loads(path.read_text())
    assert [row["class"] for row in result["rows"]] == [0, 0, 1, 1]
    assert -1e-9 < result["batched_objective_above"] < 1e-6
    assert result["batched_ap_points"] < 0.2


def test_bench_svm_refuses_a_folder_without_lists(tmp_path):
    with pytest.raises(InputError, match=r"must hold <class>_trainval\.txt"):
        svm.main(["--labels", str(tmp_path)])


def test_bench_features_sets_features_beside_the_forward_pass(dataset_path, tmp_path):
    trunk, path = tmp_path / "trunk.safetensors", tmp_path / "features.json"
    save_trunk(build_trunk("resnet9", 1), trunk, {INPUT_KEY: InputSpec().to_text()})
    features.main(
        [
            *("--checkpoint", str(trunk), "--data.path", str(dataset_path), "--rounds", "3"),
            *("--view-size", "16", "--end-points", "all", "--device", "cpu"),
            *("--json", str(path)),
        ]
    )
    result = json.loads(path.read_text())
    assert [row["way"] for row in result["rows"]] == ["features", "forward"]
    assert all(row["img_per_s"] > 0 for row in result["rows"])
    low, high = result["ratios"]["spread"]
    assert 0 < low <= result["ratios"]["features/forward"] <= high
    assert not (tmp_path / "features").exists()
