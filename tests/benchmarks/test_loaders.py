"""bench_loaders compares real loaders in processes of their own; no time is judged."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import pytest

from fastssl.shards import open_dataset
from fastssl.shards.beton import BetonOptions, write_beton
from tests.nursery import run_child

TOOLS = Path(__file__).parents[2] / "tools"
QUICK = ("--rounds", 3, "--images", 8, "--batch-size", 4, "--threads", 1)


def run_tool(name, *arguments):
    return run_child(TOOLS / name, *arguments)


@pytest.mark.slow
def test_ours_and_a_peer_are_measured_in_rounds(dataset_path, tmp_path):
    pytest.importorskip("torchvision")  # the peer's views
    path, plot = tmp_path / "loaders.json", tmp_path / "loaders.png"
    done = run_tool(
        "bench_loaders.py",
        dataset_path,
        *QUICK,
        *("--loaders", "webdataset,wds-plain", "--views", "color224", "--cold", "true"),
        *("--json", path, "--plot", plot),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert [row["loader"] for row in result["rows"]] == ["webdataset", "wds-plain"]
    for row in result["rows"]:
        assert row["views"] == "color224"
        assert row["cold"] is True
        assert row["img_per_s_per_core"] == row["img_per_s"]
        assert row["spread"][0] <= row["img_per_s"] <= row["spread"][1]
        assert row["memory_mb"] > 0
    assert set(result["ratios"]) == {"webdataset/wds-plain"}
    assert "planes" in result["notes"]["wds-plain"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "webdataset/wds-plain" in done.stdout


@pytest.mark.slow
def test_a_recommendation_names_what_to_set(dataset_path, tmp_path):
    path = tmp_path / "loaders.json"
    options = ("--loaders", "webdataset", "--recommend", "true", "--needed", 1e9)
    done = run_tool("bench_loaders.py", dataset_path, *QUICK, *options, "--json", path)
    assert done.returncode == 0, done.stderr
    advice = json.loads(path.read_text())["recommendation"]
    assert advice.startswith("set --data.loader webdataset --data.num-threads 1: ")
    assert "too few for the 1000000000" in advice
    assert "fastssl make-shards --encode resized" in advice


@pytest.mark.slow
def test_memory_is_measured_after_two_passes_and_after_all(dataset_path, tmp_path):
    path = tmp_path / "memory.json"
    options = ("--loaders", "webdataset", "--passes", 3, "--batch-size", 16, "--threads", 1)
    done = run_tool("bench_loaders.py", dataset_path, *options, "--json", path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(path.read_text())["rows"]
    assert row["mb_after_2"] > 10
    assert row["mb_after_all"] > 10
    assert statistics.fmean([row["mb_after_2"], row["mb_after_all"]]) < 10_000


@pytest.mark.slow
def test_threads_are_compared_with_a_computation(dataset_path, tmp_path):
    path = tmp_path / "scaling.json"
    options = ("--loaders", "webdataset", "--scaling", "1,2", "--json", path)
    done = run_tool("bench_loaders.py", dataset_path, *QUICK, *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["rows"]
    kinds = [(row["loader"], row["threads"]) for row in rows]
    assert kinds == [("webdataset", 1), ("webdataset", 2), ("computing", 1), ("computing", 2)]
    assert [row["scaling"] for row in rows[::2]] == [1, 1]
    for row in rows:
        assert row["spread"][0] <= row["per_s"] <= row["spread"][1]


def test_what_cannot_run_here_is_named(dataset_path, tmp_path):
    beton = ("--beton", tmp_path / "absent.beton")
    done = run_tool("bench_loaders.py", dataset_path, *QUICK, "--loaders", "ffcv", *beton)
    assert done.returncode == 2
    assert "error: --loaders: none can run here: not measured: " in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--loaders", "webdatset"), "did you mean 'webdataset'?"),
        (("--rounds", 2), "rounds (2) must lie in 3 .. 1,000; set --rounds"),
        (("--passes", 2), "--passes (2) must be at least 3"),
        (("--scaling", "1,0"), "--scaling ('0') must be numbers of threads"),
        (("--scaling", ","), "--scaling ('') must be numbers of threads"),
    ],
)
def test_wrong_options_are_refused(dataset_path, options, message):
    done = run_tool("bench_loaders.py", dataset_path, *options)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    done = run_tool("bench_loaders.py", tmp_path)
    assert done.returncode == 2
    assert "manifest.json" in done.stderr


# ---- make_beton ----------------------------------------------------------------------------------


def test_make_beton_writes_beside_the_shards_and_reports(dataset_path, tmp_path):
    shutil.copytree(dataset_path, tmp_path / "shards")
    report = tmp_path / "report.json"
    arguments = ("--encode", "smart", "--max-side", 32, "--workers", 2, "--json", report)
    done = run_tool("make_beton.py", tmp_path / "shards", *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(report.read_text())
    assert result["samples"] == result["jpg"] + result["raw"] == 47
    beton = tmp_path / "shards" / "dataset.beton"
    assert result["bytes"] == beton.stat().st_size
    assert "47 samples" in done.stdout
    # The same bytes, however many workers there are.
    dataset = open_dataset(dataset_path)
    write_beton(dataset, tmp_path / "one.beton", BetonOptions("smart", max_side=32), workers=1)
    dataset.close()
    assert (tmp_path / "one.beton").read_bytes() == beton.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--quality", 101), "quality (101) must lie in 1 .. 100"),
        (("--workers", -1), "workers (-1) must lie in 0 .. 1,024; set --workers"),
        (("--out", "/nowhere/at/all.beton"), "lies in no folder"),
    ],
)
def test_make_beton_refuses_wrong_options(dataset_path, options, message):
    done = run_tool("make_beton.py", dataset_path, *options)
    assert done.returncode == 2
    assert message in done.stderr
