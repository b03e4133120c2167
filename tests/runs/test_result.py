"""Result files: what is written is read, parts inherit from the whole."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from fastssl.errors import InputError
from fastssl.runs.result import Result, read_result, read_results, write_result

DRAWS = (0.25, 0.5, 0.75)
WHOLE = Result(
    "low_shot",
    "goyal19",
    "mAP",
    0.5,
    {"cat": 0.25, "dog": 0.75},
    layer="res5",
    seed=3,
    trunk_digest="abc",
    values=DRAWS,
    settings={"k": 4},
    parts=(
        Result("", "", "mAP", 0.5, {"cat": 0.25}, layer="res5", values=DRAWS, settings={"k": 4}),
        Result("", "", "mAP", 0.125, layer="res5", settings={"k": 1}),
    ),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_result(tmp_path / "r.json", WHOLE)
    read = read_result(tmp_path / "r.json")
    assert read.to_json() == WHOLE.to_json()
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["mean"] == 0.5
    assert content["std"] == statistics.pstdev(DRAWS)
    assert (content["min"], content["max"]) == (0.25, 0.75)


def test_parts_say_what_the_whole_says_of_them(tmp_path: Path) -> None:
    write_result(tmp_path / "run" / "results" / "r.json", WHOLE)
    first, second = read_results([tmp_path / "run"])
    assert (first.task, first.seed, first.trunk_digest) == ("low_shot", 3, "abc")
    assert first.values == DRAWS
    assert second.values == ()
    assert second.per_class == {}
    assert second.settings == {"k": 1}


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"task": 1}', '{"task": "a", "protocol": "b", "metric": []}']
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no result of an evaluation"):
        read_result(path)
    with pytest.raises(InputError, match="give a file"):
        read_result(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": 5},
        {"step": "9"},
        {"layer": None},
        {"value": float("nan")},
        {"values": ["1e999"]},
        {"per_class": {"cat": float("inf")}},
        {"is_published": 1},
    ],
)
def test_a_result_of_other_types_or_without_finite_numbers_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"task": "a", "protocol": "b", "metric": "c", "value": 1} | change))
    with pytest.raises(InputError, match="is no result of an evaluation"):
        read_result(path)
