"""The short form of ``datasets.py``: opened in one process, where a command would open them."""

from __future__ import annotations

import contextlib

import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.manifest import MANIFEST_NAME, parse_manifest, read_manifest
from tests.hostile import datasets


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
