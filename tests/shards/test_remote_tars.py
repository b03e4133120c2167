"""Tars of a store as a source: what their folder gives, read by the same ranges."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile

import pytest

from fastssl.errors import InputError, RunFailed
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.sources import open_source, read_entry

pytest.importorskip("fsspec", reason='needs pip install "fastssl[scale]"')


@pytest.fixture
def tars(tmp_path, draw_photograph, encode):
    """Two tars of four photographs each, with a label and JSON; one sample has no image."""
    folder = tmp_path / "served"
    folder.mkdir()
    for t in range(2):
        with tarfile.open(folder / f"{t}.tar", "w") as archive:
            for i in range(4):
                number = 4 * t + i
                members = {
                    "jpg": encode(draw_photograph(number)),
                    "cls": b"%d" % (number % 3),
                    "json": json.dumps({"number": number}).encode(),
                }
                for extension, content in members.items():
                    info = tarfile.TarInfo(f"a/{number:04d}.{extension}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
            archive.addfile(tarfile.TarInfo("a/empty.txt"))
    return folder


@pytest.fixture
def server(serve, tars):
    return serve(tars)


def read_tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_they_become_the_dataset_that_their_folder_does(server, tars, tmp_path):
    sources = {"local": tars, "remote": f"{server.address}/{{0,1}}.tar"}
    reports = {
        name: convert(ConvertConfig(source, tmp_path / name, samples_per_shard=3, workers=2))
        for name, source in sources.items()
    }
    assert (reports["remote"].written, reports["remote"].skipped) == (8, {"non-image": 2})
    assert read_tree(tmp_path / "remote") == read_tree(tmp_path / "local")


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["503", "reset", "cut", "short"])
def test_a_store_that_fails_for_a_while_leaves_nothing_out(server, kind):
    server.troubled("1.tar", kind, times=2)
    source = open_source(f"{server.address}/{{0,1}}.tar")
    entries = [entry for entry in source.entries() if "image" in entry.members]
    found = [read_entry(source.root, entry) for entry in entries]
    assert [sample.label for sample in found] == [n % 3 for n in range(8)]
    assert [sample.metadata for sample in found] == [{"number": n} for n in range(8)]


@pytest.mark.faults
def test_a_store_that_stays_away_ends_the_conversion_and_leaves_nothing_out(server, tmp_path):
    server.troubled("1.tar", "503")
    config = ConvertConfig(f"{server.address}/{{0,1}}.tar", tmp_path / "out", workers=1)
    with pytest.raises(RunFailed, match=r"1\.tar: status 503.*go on later with --resume"):
        convert(config)


def test_a_tar_cut_off_is_named(server, tars):
    os.truncate(tars / "1.tar", 9_000)
    with pytest.raises(InputError, match=r"/1\.tar: cannot be read as a tar"):
        list(open_source(f"{server.address}/1.tar").entries())


def test_a_compressed_tar_is_named(server, tars):
    (tars / "1.tar").write_bytes(gzip.compress((tars / "1.tar").read_bytes()))
    with pytest.raises(InputError, match=r"/1\.tar: compressed by gzip"):
        list(open_source(f"{server.address}/1.tar").entries())


def test_a_missing_tar_is_named(server):
    with pytest.raises(InputError, match=r"/2\.tar: not found"):
        list(open_source(f"{server.address}/2.tar").entries())
