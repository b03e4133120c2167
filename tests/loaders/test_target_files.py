"""Targets from outside the dataset: the rows of the samples used, or they are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from fastssl.config import LoaderConfig, RunConfig, flatten
from fastssl.errors import InputError
from fastssl.loaders import build_loader
from fastssl.runs.identity import identity
from fastssl.shards import open_dataset
from fastssl.shards.target_files import open_target_file, write_target_file
from fastssl.shards.targets import TargetSpec
from fastssl.views import ViewSpec
from tests.conftest import NUM_SAMPLES
from tests.target_sets import add_targets

ROWS = np.arange(NUM_SAMPLES * 6, dtype=np.float32).reshape(NUM_SAMPLES, 3, 2)


@pytest.fixture
def file(dataset_path, tmp_path):
    path = tmp_path / "proposals.npy"
    spec = TargetSpec("proposals", "float32", ROWS.shape[1:])
    with_dataset = open_dataset(dataset_path)
    write_target_file(path, spec, with_dataset, [ROWS[:20], ROWS[20:]], {"method": "by hand"})
    return path


def build(dataset_path, *files, **settings):
    settings = {"loader": "webdataset", "num_threads": 1, "global_batch_size": 24, **settings}
    config = LoaderConfig(path=dataset_path, target_files=files, **settings)
    return build_loader(config, ViewSpec.squash(8))


def test_rows_are_those_of_the_samples_used(dataset_path, file, tmp_path):
    path = shutil.copytree(dataset_path, tmp_path / "shards")
    shard, offset, length = open_dataset(path).locate(7)
    with (path / open_dataset(path).manifest.shards[shard].name).open("r+b") as tar:
        tar.seek(offset + length // 2)
        tar.write(b"\0\0\0\0")
    loader = build(path, file)
    batches = [next(batches) for batches in [iter(loader)] for _ in range(2)]
    loader.close()
    assert sum(len(batch.substitutions) for batch in batches) >= 1
    for batch in batches:
        assert list(batch.targets) == ["proposals"]
        assert torch.equal(batch.targets["proposals"], torch.from_numpy(ROWS[batch.used_ids]))
        assert torch.equal(batch.rows(3, 5).targets["proposals"], batch.targets["proposals"][3:5])


def test_an_array_that_numpy_saved_will_do(dataset_path, file):
    np.save(file, ROWS.astype(np.int16))
    found = open_target_file(file, open_dataset(dataset_path))
    assert isinstance(found, np.memmap)
    assert found.dtype == np.int16
    assert (found == ROWS).all()


def test_its_json_says_of_what_it_is(dataset_path, file):
    said = json.loads(file.with_suffix(".json").read_text())
    assert said["dataset_digest"] == open_dataset(dataset_path).digest
    assert said["method"] == "by hand"


def spoil(path, how):
    beside = path.with_suffix(".json")
    said = json.loads(beside.read_text())
    if how == "another dataset's":
        beside.write_text(json.dumps(said | {"dataset_digest": "0" * 64}))
    elif how == "no JSON":
        beside.write_text("{")
    elif how == "a digest that is none":
        beside.write_text(json.dumps(said | {"dataset_digest": 3}))
    elif how == "no file beside it":
        beside.unlink()
    elif how == "no array":
        path.unlink()
    elif how == "too few rows":
        np.save(path, ROWS[:9])
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "objects":
        np.save(path, np.array([{}] * NUM_SAMPLES), allow_pickle=True)
    else:
        path.write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("another dataset's", r"was made of the dataset 000000000000, and .* make it of this one"),
        ("no JSON", r"proposals\.json is not what says of which dataset"),
        ("a digest that is none", r"proposals\.json is not what says of which dataset"),
        ("no file beside it", r"proposals\.json, which says what proposals\.npy is of, is missing"),
        ("no array", r"proposals\.npy: no such file"),
        ("too few rows", r"has 9 rows, .* has 47 samples"),
        ("cut", r"1,255 bytes, float32 \(47, 3, 2\) takes 1,256"),
        ("objects", r"is no target \(an \.npy of \{'descr': '\|O'"),
        ("no .npy", r"is no target \(it begins with b'nothin'\)"),
    ],
)
def test_what_does_not_fit_is_told(dataset_path, file, how, message):
    spoil(file, how)
    with pytest.raises(InputError, match=message):
        build(dataset_path, file)


def test_two_targets_of_one_name_are_refused(dataset_path, file, tmp_path):
    other = tmp_path / "other" / "proposals.npy"
    other.parent.mkdir()
    shutil.copy(file, other)
    shutil.copy(file.with_suffix(".json"), other.with_suffix(".json"))
    with pytest.raises(InputError, match="'proposals' comes twice among the targets"):
        build(dataset_path, file, other)
    path = shutil.copytree(dataset_path, tmp_path / "shards")
    add_targets(path, {"proposals": ROWS})
    with pytest.raises(InputError, match="'proposals' comes twice"):
        build(path, file, targets=("proposals",))


def test_its_content_is_the_runs_identity_and_its_place_is_not(dataset_path, file, tmp_path):
    def identity_of(path):
        data = LoaderConfig(path=dataset_path, target_files=(path,))
        config = RunConfig("demo", LoaderConfig(), data=data)
        json.dumps(flatten(config))
        return identity(config, "digest")

    first = identity_of(file)
    moved = shutil.copytree(file.parent, tmp_path.parent / f"{tmp_path.name}-moved") / file.name
    assert identity_of(moved) == first
    beside = moved.with_suffix(".json")
    beside.write_text(beside.read_text().replace("by hand", "otherwise"))
    changed = identity_of(moved)
    assert [key for key in first if first[key] != changed[key]] == ["data.target_sha256"]


def test_one_that_changes_before_the_loader_is_built_is_refused(dataset_path, file):
    config = LoaderConfig(path=dataset_path, target_files=(file,), global_batch_size=8)
    beside = file.with_suffix(".json")
    beside.write_text(beside.read_text() + "\n")
    with pytest.raises(InputError, match=r"proposals\.json has changed since the run began"):
        build_loader(dataclasses.replace(config, loader="webdataset"), ViewSpec.squash(8))
