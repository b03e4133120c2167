"""tools/bench_encodings.py and bench_shards.py: a row for each encoding."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import save_photograph
from tests.nursery import run_child

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encodings")
    for number in range(20):
        save_photograph(folder / f"{number}.jpg", number)
    return folder


def run(*arguments, tool="bench_encodings.py"):
    return run_child(TOOLS / tool, *arguments)


@pytest.mark.slow
def test_every_encoding_gets_a_row(photographs, tmp_path):
    done = run(
        *(photographs, "--loader", "webdataset", "--encodings", "keep,raw", "--sides", "256"),
        *("--sampling", "420", "--views", "rrc96", "--images", "16", "--turn", "16"),
        *("--threads", "1", "--rounds", "3", "--work", tmp_path / "work"),
        *("--json", tmp_path / "rows.json"),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["encoding"] for row in rows] == ["keep", "raw"]
    assert rows[1]["kb_per_image"] == pytest.approx(256 * 192 * 3 / 1000, rel=0.01)
    assert all(row["spread"][0] <= row["img_per_s"] <= row["spread"][1] for row in rows)
    assert "| 256 | 420 | raw |" in done.stdout


@pytest.mark.slow
def test_conversions_are_timed_in_parts(photographs, tmp_path):
    options = ("--encodings", "keep,raw", "--rounds", 3, "--json", tmp_path / "rows.json")
    done = run(photographs, *options, tool="bench_shards.py")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["encoding"], row["images"]) for row in rows] == [("keep", 20), ("raw", 20)]
    for row in rows:
        assert row["spread"][0] <= row["img_per_s"] <= row["spread"][1]
        parts = [row[f"{part}_ms"] for part in ("read", "encode", "write")]
        assert 0 < min(parts) < sum(parts) < row["cpu_ms_per_image"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encodings", ","], "--encodings (',') names none; known: keep, raw, resized, tiled"),
        (["--encodings", "kept"], "--encodings ('kept') is not known; did you mean 'keep'?"),
        (["--rounds", "2"], "rounds (2) must lie in 3 .. 1,000; set --rounds"),
    ],
)
def test_bad_conversions_are_refused(photographs, arguments, message):
    done = run(photographs, *arguments, tool="bench_shards.py")
    assert done.returncode == 2
    assert message in done.stderr


def test_small_photographs_are_laid_side_by_side(photographs):
    from fastssl.benchmarks.encodings import bring_to, list_photographs

    picture = bring_to(itertools.cycle(list_photographs(photographs)), 512)
    assert picture.size == (512, 384)
    brightest = np.asarray(picture).max(axis=2).reshape(48, 8, 64, 8).max(axis=(1, 3))
    assert (brightest > 0).all()  # nothing is left black


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sides", "100"], r"--sides \('100'\) must be pixels"),
        (["--views", "rrc22"], r"--views \('rrc22'\) is not known"),
        (["--rounds", "1"], r"rounds \(1\) must lie in 3 \.\. 1,000; set --rounds"),
    ],
)
def test_bad_values_are_refused(photographs, arguments, message):
    from fastssl.benchmarks.encodings import BenchEncodings
    from fastssl.commands.frame import parse_arguments
    from fastssl.errors import InputError

    with pytest.raises(InputError, match=message):
        parse_arguments(BenchEncodings, [str(photographs), *arguments], program="x")
