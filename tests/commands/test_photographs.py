"""A folder of photographs does where a dataset is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastssl.commands.photographs import find_dataset
from fastssl.commands.train import choose_run
from fastssl.errors import InputError
from fastssl.shards import open_dataset
from tests.conftest import save_photograph

NUM = 20


@pytest.fixture
def photos(tmp_path):
    for number in range(NUM):
        save_photograph(tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg", number)
    return tmp_path / "photos"


def test_it_is_made_into_a_dataset_beside_it_once(photos, capsys):
    config = choose_run(
        ["quickstart", "--data.path", str(photos), "--output-dir", "run", "--device", "cpu"]
    )
    out = photos.with_name("photos-shards")
    assert {path.name for path in photos.parent.iterdir()} == {"photos", "photos-shards"}
    assert config.data.path == out
    assert open_dataset(out).num_samples == NUM
    said = capsys.readouterr().err
    assert f"{photos} is a folder of photographs: a dataset is made of it once, in {out}" in said
    assert f"{NUM} samples" in said
    # A recipe that is sized by its photographs is sized by those.
    assert config.data.global_batch_size == 8
    assert config.schedule.epochs == 400 * 8 / NUM
    made = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert find_dataset(photos) == out
    assert f"its dataset {out} is used" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == made


def test_what_the_command_line_says_comes_before_the_recipes_choice(photos):
    config = choose_run(
        [
            *("quickstart", "--data.path", str(photos), "--output-dir", "run", "--device", "cpu"),
            *("--schedule.epochs", "3", "--data.global-batch-size", "10"),
        ]
    )
    assert (config.schedule.epochs, config.data.global_batch_size) == (3.0, 10)


def test_what_is_no_folder_of_photographs_stays_as_it_is(dataset_path, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").touch()
    begun = tmp_path / "begun"
    (begun / ".building").mkdir(parents=True)
    save_photograph(begun / "0.jpg", 0)
    places = [dataset_path, tmp_path / "run", begun, tmp_path / "nowhere", "s3://bucket/set"]
    assert [find_dataset(place) for place in places] == places
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "run"]


def test_a_folder_in_a_place_that_cannot_be_written_is_named(photos, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match=r"fastssl make-shards .*photos OUT"):
        find_dataset(photos)
    assert Path(photos).parent.joinpath("photos-shards").exists() is False
