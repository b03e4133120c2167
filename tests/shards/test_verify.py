from __future__ import annotations

import json
import os

import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.derive.verify import verify_dataset


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def found(folder, **options):
    report = verify_dataset(folder, workers=1, **options)
    return {(fault.shard, fault.key): fault.reason for fault in report.errors}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("encoding", ["keep", "resized", "raw"])
def test_a_good_dataset_has_no_errors(photographs, make_dataset, encoding, deep):
    options = {} if encoding == "keep" else {"resize_short": 20}
    out, _ = make_dataset(photographs, encode=encoding, **options)
    report = verify_dataset(out, deep, workers=2)
    assert report.ok
    assert report.samples == 12


def test_a_missing_shard_is_named(folder):
    (folder / "shard-000001.tar").unlink()
    assert list(found(folder)) == [("shard-000001.tar", None)]


def test_a_truncated_shard_is_named(folder):
    _, offset, _ = open_dataset(folder).locate(7)
    os.truncate(folder / "shard-000001.tar", offset + 100)
    errors = verify_dataset(folder, workers=1).errors
    assert {fault.shard for fault in errors} == {"shard-000001.tar"}
    assert any(fault.reason.startswith("truncated") for fault in errors)
    assert any(fault.key == "000000007" for fault in errors)
    assert any("2 samples behind its end" in fault.reason for fault in errors)


def test_a_changed_image_is_named(folder):
    _, offset, _ = open_dataset(folder).locate(7)
    flip(folder / "shard-000001.tar", offset + 100)
    errors = found(folder)
    assert set(errors) == {("shard-000001.tar", None), ("shard-000001.tar", "000000007")}
    assert "CRC-32" in errors["shard-000001.tar", "000000007"]


def test_a_changed_label_is_named(folder):
    row = open_dataset(folder).index[7]
    end = -(-(int(row["offset"]) + int(row["length"])) // 512) * 512
    flip(folder / "shard-000001.tar", end + 512)
    assert "its label is" in found(folder)["shard-000001.tar", "000000007"]


def test_a_damaged_header_is_named(folder):
    row = open_dataset(folder).index[7]
    flip(folder / "shard-000001.tar", int(row["offset"]) - 512 + 2)
    assert "damaged" in str(found(folder)["shard-000001.tar", None])


def test_a_changed_byte_between_the_members_is_noticed(folder):
    row = open_dataset(folder).index[7]
    flip(folder / "shard-000001.tar", int(row["offset"]) - 10)  # padding of the header
    assert found(folder)


@pytest.mark.parametrize("position", [64 + 32 * 7 + 5, 64 + 32 * 7 + 16, 64 + 32 * 7 + 24, 30])
def test_a_changed_index_is_named(folder, position):
    flip(folder / "index.bin", position)
    assert ("index.bin", None) in found(folder)


def test_a_missing_index_is_named_and_the_shards_are_still_checked(folder):
    (folder / "index.bin").unlink()
    flip(folder / "shard-000002.tar", 600)
    assert set(found(folder)) == {("index.bin", None), ("shard-000002.tar", None)}


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_wrong_dali_index_is_named(folder, damage):
    path = folder / "shard-000001.idx"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("jpg 512 ", "jpg 513 "))
    assert "shard-000001.idx" in found(folder)["shard-000001.tar", None]


def test_deep_finds_a_picture_of_another_size(folder):
    # A consistent lie: every digest is made anew, only the decoder can tell.
    from dataclasses import replace

    from fastssl.shards.index import IndexHeader
    from fastssl.shards.manifest import begin_digest, read_manifest

    index = bytearray((folder / "index.bin").read_bytes())
    index[64 + 16] ^= 1  # width of sample 0
    manifest = read_manifest(folder)
    digest = begin_digest("keep", {}, manifest.class_names, manifest.shards)
    digest.update(index[64:])
    index[:64] = IndexHeader(12, digest.hexdigest()).pack()
    (folder / "index.bin").write_bytes(index)
    text = replace(manifest, digest=digest.hexdigest()).to_json()
    (folder / "manifest.json").write_text(text)
    assert found(folder) == {}
    assert found(folder, deep=True) == {
        ("shard-000000.tar", "000000000"): "40 x 30 px, the index says 41 x 30"
    }


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="make one of it by"):
        verify_dataset(tmp_path)


def test_the_command_reports_and_exits_1(folder, tmp_path, run_tool):
    report = tmp_path / "report.json"
    good = run_tool("check_shards.py", folder, "--json", report)
    assert good.returncode == 0
    assert json.loads(report.read_text()) == {"ok": True, "samples": 12, "errors": []}
    (folder / "shard-000001.tar").unlink()
    bad = run_tool("check_shards.py", folder, "--deep", "--json", report)
    assert bad.returncode == 1
    assert "shard-000001.tar" in bad.stdout
    errors = json.loads(report.read_text())["errors"]
    assert [(e["shard"], e["key"]) for e in errors] == [("shard-000001.tar", None)]
    assert "missing" in errors[0]["reason"]


def test_the_command_refuses_what_is_no_dataset_with_2(tmp_path, run_tool):
    done = run_tool("check_shards.py", tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_a_member_of_negative_size_ends_the_walk(folder):
    row = open_dataset(folder).index[7]
    start = int(row["offset"]) - 512
    content = bytearray((folder / "shard-000001.tar").read_bytes())
    header = content[start : start + 512]
    header[124:136] = b"-0000001000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[start : start + 512] = header
    (folder / "shard-000001.tar").write_bytes(content)
    errors = verify_dataset(folder, workers=1).errors
    assert any("damaged" in fault.reason and "-0000001000" in fault.reason for fault in errors)


def test_a_pipe_in_place_of_a_shard_is_named_and_not_waited_for(folder):
    for name in ("shard-000001.tar", "shard-000002.idx"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    errors = found(folder)
    assert "a pipe, wanted a regular file" in errors["shard-000001.tar", None]
    assert "a pipe, wanted a regular file" in errors["shard-000002.tar", None]
