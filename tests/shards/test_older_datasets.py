"""Datasets of the version before, which could add images to a finished one in place."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace

import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.derive.combine import CombineConfig, combine
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.index import IndexHeader
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.slices import SliceRecord, load_record
from fastssl.shards.manifest import BUILDING_NAME, read_manifest


@pytest.fixture
def appended(photographs, make_dataset):
    """Twelve samples, the last two of which are said to have been added."""
    out, _ = make_dataset(photographs)
    addition = {
        "listing_sha256": "ab" * 32,
        "num_read": 2,
        "num_samples": 2,
        "num_shards": 1,
        "bytes_in": 100,
        "skipped": {},
    }
    manifest = replace(read_manifest(out), additions=(addition,))
    digest = manifest.begin_digest()
    index = (out / "index.bin").read_bytes()
    digest.update(index[64:])
    manifest = replace(manifest, digest=digest.hexdigest())
    header = IndexHeader(manifest.num_samples, manifest.digest)
    (out / "index.bin").write_bytes(header.pack() + index[64:])
    (out / "manifest.json").write_text(manifest.to_json())
    return out


def test_a_dataset_that_was_appended_to_opens_and_checks(appended):
    manifest = json.loads((appended / "manifest.json").read_text())
    assert manifest["format_version"] == 2
    assert len(open_dataset(appended)) == 12
    assert verify_dataset(appended, deep=True, workers=1).errors == ()


def test_a_dataset_that_was_appended_to_can_be_linked(appended, tmp_path):
    combine(CombineConfig((appended,), tmp_path / "linked"))
    linked, old = open_dataset(tmp_path / "linked"), open_dataset(appended)
    assert [linked.read_payload(i) for i in range(12)] == [old.read_payload(i) for i in range(12)]


def test_an_append_that_stopped_between_its_renames_is_finished_by_one_line(appended):
    """The new index had its name, the new manifest not yet."""
    (appended / BUILDING_NAME).mkdir()
    text = (appended / "manifest.json").read_text()
    (appended / BUILDING_NAME / "next-manifest.json").write_text(text)
    before = replace(read_manifest(appended), digest="cd" * 32)
    (appended / "manifest.json").write_text(before.to_json())
    with pytest.raises(InputError, match=r"--append of an older fastssl was stopped.* mv ") as told:
        open_dataset(appended)
    _, _, line = str(told.value).partition("finish it by: ")
    subprocess.run(line.split(), check=True)
    assert len(open_dataset(appended)) == 12


def edit_plan(out, **fields):
    path = out / BUILDING_NAME / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# What every plan of the version before had, also that of a new dataset.
OF_A_NEW_DATASET = {"first_shard": 0, "first_number": 0, "label_map": None, "base_digest": ""}


@pytest.fixture
def begun(photographs, tmp_path):
    """A conversion that stopped after its plan."""

    def stop(_done: int, _total: int) -> None:
        raise InterruptedError

    out = tmp_path / "dataset"
    with pytest.raises(InterruptedError):
        convert(ConvertConfig(photographs, out, samples_per_shard=5, workers=1), stop)
    return out


def test_a_conversion_that_was_begun_goes_on(begun, photographs, make_dataset, read_tree):
    edit_plan(begun, **OF_A_NEW_DATASET)
    make_dataset(photographs, resume=True)
    assert read_tree(begun) == read_tree(make_dataset(photographs, "undisturbed")[0])


def test_a_finished_slice_of_the_version_before_is_not_done_again(tmp_path):
    (tmp_path / BUILDING_NAME).mkdir()
    (tmp_path / BUILDING_NAME / "slice-000000.rows").touch()
    record = {**asdict(SliceRecord(bytes_in=7)), "num_recoded": 3}
    (tmp_path / BUILDING_NAME / "slice-000000.json").write_text(json.dumps(record))
    assert load_record(tmp_path, 0) == SliceRecord(bytes_in=7)


def test_an_unfinished_append_is_refused_with_what_to_do(begun, photographs, make_dataset):
    edit_plan(begun, **{**OF_A_NEW_DATASET, "base_digest": "ab" * 32})
    with pytest.raises(
        InputError, match=r"unfinished --append of .*photographs.*fastssl combine-shards"
    ):
        make_dataset(photographs, resume=True)


def test_an_unfinished_append_of_a_finished_dataset_is_kept(
    begun, photographs, make_dataset, read_tree
):
    """The dataset itself is whole; what was begun beside it is not thrown away unasked."""
    made, _ = make_dataset(photographs, "made")
    (begun / BUILDING_NAME).rename(made / BUILDING_NAME)
    edit_plan(made, **{**OF_A_NEW_DATASET, "base_digest": "ab" * 32})
    before = read_tree(made)
    with pytest.raises(InputError, match="unfinished --append"):
        make_dataset(photographs, "made", resume=True)
    assert read_tree(made) == before
    assert len(open_dataset(made)) == 12


def test_append_names_the_two_commands_that_do_it(tmp_path, photographs, run_tool):
    done = run_tool("make_shards.py", photographs, tmp_path / "out", "--append")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --append is gone")
    assert "fastssl make-shards MORE NEW" in line
    assert "combine-shards ALL OLD NEW" in line
