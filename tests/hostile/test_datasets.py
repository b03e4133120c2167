"""The short form of ``datasets.py``: opened in one process, where a command would open them."""

from __future__ import annotations

import contextlib
import os

import pytest

from fastssl.errors import InputError
from fastssl.shards import BadSample, open_dataset
from fastssl.shards.beton import BetonOptions, write_beton
from fastssl.shards.derive.combine import CombineConfig, combine
from fastssl.shards.manifest import MANIFEST_NAME, parse_manifest, read_manifest
from fastssl.shards.tar import TarError, walk_tar
from tests.hostile import datasets, lies
from tests.hostile.sources import set_size


@pytest.fixture
def folder(tmp_path):
    return datasets.copy_base(tmp_path)


def list_escapes(content, where):
    """Return what a mutated manifest raises that is not one line to the user."""
    try:
        manifest = parse_manifest(content, where)
    except InputError as error:
        line = str(error)
        return [] if line.isprintable() and len(line) < 1000 else [line[:200]]
    except Exception as error:
        return [repr(error)[:200]]
    # What is taken has to be harmless: names stay in the folder.
    names = [shard.name for shard in manifest.shards]
    return [name for name in names if "/" in name or name.startswith(".")]


def test_a_mutated_manifest_is_taken_or_refused_in_a_line(folder):
    text = (folder / MANIFEST_NAME).read_text()
    found = {
        name: escapes
        for name, content in datasets.list_manifests(text)
        if (escapes := list_escapes(content, "manifest.json"))
    }
    assert found == {}


def test_a_manifest_of_70_megabytes_is_not_read(folder):
    with (folder / MANIFEST_NAME).open("r+b") as file:
        file.truncate(70 << 20)
    with pytest.raises(InputError, match=r"73,400,320 bytes, wanted at most 67,108,864"):
        read_manifest(folder)


@pytest.mark.parametrize("name", datasets.list_files())
def test_a_file_that_is_none_is_refused_when_a_dataset_is_opened(folder, name):
    datasets.list_files()[name](folder)
    with pytest.raises(InputError) as told:
        open_dataset(folder)
    assert "\n" not in str(told.value)


def test_a_link_that_stays_in_the_folder_is_followed(folder):
    shard = folder / datasets.SHARD
    shard.rename(folder / "elsewhere.tar")
    shard.symlink_to("elsewhere.tar")
    with contextlib.closing(open_dataset(folder)) as dataset:
        assert len(dataset.read_payload(dataset.shard_start(1))) > 0


@pytest.mark.parametrize("name", ["label 99", "behind 2**63", "payload kind 5"])
def test_a_row_that_lies_is_refused_where_nothing_takes_its_place(folder, tmp_path, name):
    lies.tell_row_lie(folder, 3, name)
    told = r"sample 3: index\.bin: its row says .*check-shards"
    with pytest.raises(InputError, match=told):
        combine(CombineConfig((folder,), tmp_path / "out"))
    with contextlib.closing(open_dataset(folder)) as dataset:
        with pytest.raises(InputError, match=told):
            write_beton(dataset, tmp_path / "a.beton", BetonOptions(), workers=1)
        with pytest.raises(BadSample, match="its row says"):
            dataset.read_members(3)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"[", b"1", b"\xff", b" "], ids=repr)
def test_metadata_that_is_no_object_is_a_bad_sample(folder, content):
    with contextlib.closing(open_dataset(folder)) as dataset:
        length = len(dataset.read_members(0)["json"])
        shard = folder / dataset.manifest.shards[0].name
        place = shard.read_bytes().index(b'{"')
        with shard.open("r+b") as file:
            file.seek(place)
            file.write((content * length)[:length])
        with pytest.raises(BadSample, match=r"its \.json is no object"):
            dataset.read_metadata(0)


def test_a_member_of_negative_size_is_damage(folder):
    set_size(folder / datasets.SHARD, b"-0000001000")
    descriptor = os.open(folder / datasets.SHARD, os.O_RDONLY)
    try:
        with pytest.raises(TarError, match="a size of b'-0000001000'"):
            list(walk_tar(descriptor))
    finally:
        os.close(descriptor)
