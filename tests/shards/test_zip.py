"""Zips as a source: Python's zipfile writes them, and is the reference of what they hold."""

from __future__ import annotations

import contextlib
import io
import json
import random
import stat
import struct
import zipfile

import pytest

from fastssl.errors import InputError, RunFailed
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.sources import LeftOut, open_source, read_entry
from fastssl.shards.making.zip_directory import find_end, read_members
from fastssl.shards.store import LocalStore


@pytest.fixture
def make_zip(tmp_path):
    """(name, {member: bytes}, **options of zipfile) -> the zip's path."""

    def make(name, members, method=zipfile.ZIP_STORED, comment=b"", force_zip64=False):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", method) as archive:
            for member, content in members.items():
                info = member if isinstance(member, zipfile.ZipInfo) else zipfile.ZipInfo(member)
                info.compress_type = method
                with archive.open(info, "w", force_zip64=force_zip64) as file:
                    file.write(content)
            archive.comment = comment
        return path

    return make


def read_tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_all(source):
    """Return what every entry is: bytes, or the reason why it is left out."""
    found = {}
    for entry in source.entries():
        try:
            found[entry.name] = read_entry(source.root, entry).data
        except LeftOut as error:
            found[entry.name] = error.reason
    return found


def labelled(source):
    entries = list(source.entries())
    return {e.name: source.class_names[e.label] if e.label >= 0 else None for e in entries}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("form", ["plain", "comment", "zip64", "behind a program"])
def test_members_are_those_that_zipfile_reads(make_zip, method, form):
    contents = {f"cat/{n}.jpg": random.Random(n).randbytes(n) * 3 for n in range(1, 60)}
    contents["hund/\u00e4\u00f6 \u65e5.png"] = b"named"
    path = make_zip(
        "a.zip",
        contents,
        method,
        comment=b"PK\5\6 is how a comment may begin" * (form == "comment"),
        force_zip64=form == "zip64",
    )
    if form == "behind a program":
        path.write_bytes(b"#!/bin/sh\n" * 99 + path.read_bytes())
    wanted = {f"a.zip/{name}": content for name, content in contents.items()}
    assert read_all(open_source(path)) == wanted


def test_numbers_beyond_32_bits_are_taken_from_their_own_field(tmp_path):
    """A zip of five gigabytes, by its directory alone: the file is sparse."""
    name, offset, size = b"cat/1.jpg", 5 << 30, 4 << 30
    extra = struct.pack("<2H3Q", 1, 24, size, size, 7)
    entry = struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 45, 3, 45, 0, *(0,) * 4, 1, *(2**32 - 1,) * 2,
                        len(name), len(extra), 0, 0, 0, 0, 2**32 - 1) + name + extra  # fmt: skip
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entry), offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, offset + len(entry), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", *(0, 0, 0xFFFF, 0xFFFF), *(2**32 - 1,) * 2, 0)
    with (tmp_path / "a.zip").open("wb") as file:
        file.seek(offset)
        file.write(entry + end64 + locator + end)
    store = LocalStore(tmp_path)
    (member,) = read_members(store, "a.zip", find_end(store, "a.zip"))
    assert member[:4] == ("cat/1.jpg", 7, size, size)
    assert read_all(open_source(tmp_path / "a.zip")) == {"a.zip/cat/1.jpg": "too-large"}


def test_the_class_is_the_first_folder_below_those_that_all_images_share(make_zip, tmp_path):
    make_zip("zips/a.zip", {"data/images/cat/x/1.jpg": b"", "data/README": b""})
    make_zip("zips/b.zip", {"data/images/dog/2.jpg": b"", "data/images/3.jpg": b""})
    assert labelled(open_source(tmp_path / "zips")) == {
        "a.zip/data/images/cat/x/1.jpg": "cat",
        "a.zip/data/README": None,
        "b.zip/data/images/dog/2.jpg": "dog",
        "b.zip/data/images/3.jpg": None,
    }


def test_the_only_folder_is_a_class(make_zip):
    assert labelled(open_source(make_zip("a.zip", {"cat/1.jpg": b""}))) == {
        "a.zip/cat/1.jpg": "cat"
    }
    assert labelled(open_source(make_zip("b.zip", {"1.jpg": b""}))) == {"b.zip/1.jpg": None}


def test_parts_of_a_data_set_are_named_and_taken_by_their_folder(make_zip):
    path = make_zip(
        "a.zip", {"d/train/cat/1.jpg": b"", "d/train/dog/1.jpg": b"", "d/val/1.jpg": b""}
    )
    source = open_source(path)
    list(source.entries())
    assert f"name {path}/d/train as SOURCE" in source.describe_labels()
    assert labelled(open_source(path / "d/train")) == {
        "a.zip/d/train/cat/1.jpg": "cat",
        "a.zip/d/train/dog/1.jpg": "dog",
    }


def test_a_pattern_names_zips(make_zip, tmp_path):
    for name in ("x-1.zip", "x-2.zip", "y.zip"):
        make_zip(name, {"1.jpg": b""})
    assert list(read_all(open_source(tmp_path / "x-*.zip"))) == ["x-1.zip/1.jpg", "x-2.zip/1.jpg"]
    assert list(read_all(open_source(tmp_path / "{y,x-2}.zip"))) == ["y.zip/1.jpg", "x-2.zip/1.jpg"]


def test_what_is_no_file_of_the_zip_is_left_out_and_counted(make_zip):
    link, pipe = zipfile.ZipInfo("link.jpg"), zipfile.ZipInfo("pipe.jpg")
    link.external_attr, pipe.external_attr = stat.S_IFLNK << 16, stat.S_IFIFO << 16
    names = {
        link: b"/etc/passwd",
        pipe: b"",
        "/etc/1.jpg": b"",
        "a/../../2.jpg": b"",
        ".hidden/1.jpg": b"",
        "__MACOSX/._1.jpg": b"",
        "folder/": b"",
        "good.jpg": b"good",
    }
    assert read_all(open_source(make_zip("a.zip", names))) == {
        "a.zip/link.jpg": "not-a-file",
        "a.zip/pipe.jpg": "not-a-file",
        "a.zip//etc/1.jpg": "unsafe-name",
        "a.zip/a/../../2.jpg": "unsafe-name",
        "a.zip/good.jpg": b"good",
    }


def test_other_compressions_are_counted(make_zip):
    path = make_zip("a.zip", {"1.jpg": b"x"}, zipfile.ZIP_LZMA)
    assert read_all(open_source(path)) == {"a.zip/1.jpg": "not-deflated"}


def spoil(path, place, **fields):
    """Change the numbers of the only member: in the directory, its own header, or both."""
    content = bytearray(path.read_bytes())
    at = {"directory": content.rindex(b"PK\1\2") + 8, "header": 6}
    offsets = {"flags": (0, "<H"), "crc": (8, "<L"), "stored": (12, "<L"), "size": (16, "<L")}
    for name, value in fields.items():
        offset, form = offsets[name]
        struct.pack_into(form, content, at[place] + offset, value)
    path.write_bytes(content)


def test_an_encrypted_member_is_refused_in_one_line(make_zip):
    path = make_zip("a.zip", {"cat/1.jpg": b"secret"})
    spoil(path, "directory", flags=1)
    with pytest.raises(InputError, match=r"a\.zip: 'cat/1\.jpg' is encrypted; unpack .* password"):
        list(open_source(path).entries())


def test_a_bomb_ends_at_the_size_that_it_declares(make_zip):
    path = make_zip("a.zip", {"1.jpg": bytes(1 << 26)}, zipfile.ZIP_DEFLATED)
    spoil(path, "directory", size=1000)
    assert read_all(open_source(path)) == {"a.zip/1.jpg": "corrupt"}
    spoil(path, "directory", size=2**31)
    assert read_all(open_source(path)) == {"a.zip/1.jpg": "too-large"}


def test_other_bytes_than_the_zip_was_made_with_are_left_out(make_zip):
    path = make_zip("a.zip", {"1.jpg": b"content"})
    path.write_bytes(path.read_bytes().replace(b"content", b"changed"))
    assert read_all(open_source(path)) == {"a.zip/1.jpg": "corrupt"}


def test_damaged_zips_are_named_and_never_crash(make_zip):
    path = make_zip("a.zip", {f"{n}.jpg": bytes(n) for n in range(5)}, zipfile.ZIP_DEFLATED)
    whole, rng = path.read_bytes(), random.Random(0)
    for number in range(300):
        content = bytearray(whole)
        if number % 3:
            content[-rng.randrange(1, 400)] = rng.randrange(256)
        else:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        with contextlib.suppress(InputError):
            read_all(open_source(path))


@pytest.mark.parametrize(
    "content", [b"x", b"PK\3\4" + bytes(100), b"PK\5\6" + bytes(18)[:-1] + b"\1"]
)
def test_what_is_no_zip_is_named(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip: damaged, cut off, or no zip"):
        list(open_source(tmp_path / "a.zip").entries())


def test_zips_beside_other_files_are_refused(make_zip, tmp_path):
    make_zip("zips/a.zip", {"1.jpg": b""})
    (tmp_path / "zips/README.md").write_text("beside")
    assert open_source(tmp_path / "zips").kind == "zips"
    (tmp_path / "zips/1.jpg").write_text("an image")
    with pytest.raises(InputError, match=r"both zips \(a\.zip\) and other files \(1\.jpg\)"):
        open_source(tmp_path / "zips")


# --- Conversion -----------------------------------------------------------------------------------


@pytest.fixture
def zips(photographs, make_zip):
    """The twelve photographs in two zips, stored and deflated; their folder."""
    contents = read_tree(photographs)
    for name, method in (("0.zip", zipfile.ZIP_STORED), ("1.zip", zipfile.ZIP_DEFLATED)):
        part = dict(list(contents.items())[int(name[0]) :: 2])
        path = make_zip(f"zips/{name}", {f"data/{n}": c for n, c in part.items()}, method)
    return path.parent


def read_dataset(out):
    dataset = open_dataset(out)
    labels = [dataset.class_names[label] for label in dataset.index["label"]]
    names = [dataset.read_metadata(i)["source"].partition("/data/")[2] for i in range(len(dataset))]
    return {
        n: (dataset.read_payload(i), label)
        for i, (n, label) in enumerate(zip(names, labels, strict=True))
    }


def test_zips_become_the_dataset_that_their_folder_does(zips, photographs, make_dataset):
    out, report = make_dataset(zips)
    assert (report.written, report.num_classes, report.skipped) == (12, 2, {})
    assert read_dataset(out) == {
        name: (content, name.partition("/")[0]) for name, content in read_tree(photographs).items()
    }


@pytest.fixture
def server(serve, zips):
    pytest.importorskip("fsspec", reason='needs pip install "fastssl[scale]"')
    return serve(zips)


def test_remote_zips_are_read_by_ranges_and_become_the_same_dataset(server, zips, make_dataset):
    local, _ = make_dataset(zips, "local", samples_per_shard=12)
    remote, _ = make_dataset(server.address + "/{0,1}.zip", "remote", samples_per_shard=12)
    trees = [read_tree(out) for out in (local, remote)]
    assert trees[0] == trees[1]
    assert all(part is not None for _, part in server.asked)
    # The end of each zip, its directory, and each member once.
    assert len(server.asked) == 2 * 2 + 12


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["503", "reset", "cut", "short"])
def test_a_store_that_fails_for_a_while_leaves_nothing_out(server, zips, kind):
    server.troubled("0.zip", kind, times=2)
    found = read_all(open_source(server.address + "/{0,1}.zip"))
    assert found == read_all(open_source(zips))


@pytest.mark.faults
def test_a_store_that_stays_away_ends_the_conversion_and_leaves_nothing_out(server):
    source = open_source(server.address + "/0.zip")
    entry = next(iter(source.entries()))
    server.troubled("0.zip", "503")
    with pytest.raises(RunFailed, match=r"0\.zip: status 503.*go on later with --resume"):
        read_entry(source.root, entry)


def test_another_zip_under_the_same_name_is_refused_by_resume(zips, tmp_path, make_zip):
    from fastssl.errors import StoppedBySignal

    options = {"samples_per_shard": 5, "workers": 1}

    def stop(*_counts):
        raise StoppedBySignal("stopped")

    with pytest.raises(StoppedBySignal):
        convert(ConvertConfig(zips, tmp_path / "out", **options), stop)
    make_zip("zips/1.zip", {"data/cat/other.jpg": b""})
    with pytest.raises(InputError, match="entries now, 12 when the conversion began"):
        convert(ConvertConfig(zips, tmp_path / "out", resume=True, **options))


def test_a_missing_remote_zip_is_named(server):
    with pytest.raises(InputError, match=r"/2\.zip: not found"):
        list(open_source(server.address + "/2.zip").entries())


def test_a_password_in_an_address_is_refused():
    with pytest.raises(InputError, match="leave user, password"):
        open_source("https://user:word@host/a.zip")


def test_an_address_of_something_else_says_what_is_taken():
    with pytest.raises(InputError, match=r"https://host/a\.rar: wanted tars, zips or Parquet"):
        open_source("https://host/a.rar")


def test_reasons_reach_the_report(make_zip, tmp_path):
    picture = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (8, 8)).save(picture, "PNG")
    path = make_zip("a.zip", {"../1.jpg": b"", "2.png": picture.getvalue()})
    report = convert(ConvertConfig(path, tmp_path / "out", workers=1))
    assert report.skipped == {"unsafe-name": 1}
    (line,) = (tmp_path / "out/skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] == "a.zip/../1.jpg"
