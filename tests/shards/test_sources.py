from __future__ import annotations

import io
import json
import os
import re
import tarfile

import pytest

from fastssl.errors import InputError
from fastssl.shards.making.hints import check_first_path
from fastssl.shards.making.sources import Entry, LeftOut, open_source, read_entry

# A link loop that is followed shows as a warning or as thousands of entries.
pytestmark = pytest.mark.filterwarnings("ignore:.*read by another path")


def names(path):
    return [entry.name for entry in open_source(path).entries()]


def labelled(path):
    source = open_source(path)
    entries = list(source.entries())
    return {e.name: source.class_names[e.label] if e.label >= 0 else None for e in entries}


def touch(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_first_level_folder_is_the_class(tmp_path):
    touch(tmp_path / "dog/deep/er/1.jpg")
    touch(tmp_path / "cat/1.jpg")
    assert labelled(tmp_path) == {"cat/1.jpg": "cat", "dog/deep/er/1.jpg": "dog"}


def test_files_beside_the_folders_have_no_label(tmp_path):
    touch(tmp_path / "1.jpg")
    touch(tmp_path / "zebra/1.jpg")
    assert labelled(tmp_path) == {"1.jpg": None, "zebra/1.jpg": "zebra"}


def test_an_empty_folder_is_no_class(tmp_path):
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "full/1.jpg")
    source = open_source(tmp_path)
    list(source.entries())
    assert source.class_names == ["full"]


def test_hidden_files_and_folders_are_ignored(tmp_path):
    touch(tmp_path / ".hidden.jpg")
    touch(tmp_path / ".git/1.jpg")
    touch(tmp_path / "seen.jpg")
    assert names(tmp_path) == ["seen.jpg"]


def test_links_to_files_are_followed(tmp_path):
    touch(tmp_path / "elsewhere/1.jpg", b"bytes")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/link.jpg").symlink_to(tmp_path / "elsewhere/1.jpg")
    (entry,) = open_source(tmp_path / "source").entries()
    assert read_entry(tmp_path / "source", entry).data == b"bytes"


def test_a_link_to_a_folder_elsewhere_is_a_class(tmp_path):
    touch(tmp_path / "elsewhere/1.jpg")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/cat").symlink_to(tmp_path / "elsewhere")
    assert labelled(tmp_path / "source") == {"cat/1.jpg": "cat"}


def test_link_loops_come_to_an_end(tmp_path):
    source, other = tmp_path / "source", tmp_path / "other"
    touch(source / "a/1.jpg")
    touch(other / "2.jpg")
    (source / "a/self").symlink_to(source / "a")
    (source / "a/up").symlink_to(source)
    (source / "a/above").symlink_to(tmp_path)
    (source / "b").symlink_to(other)
    (other / "back").symlink_to(source)
    (other / "again").symlink_to(other)
    assert names(source) == ["a/1.jpg", "b/2.jpg"]


@pytest.mark.parametrize("target", ["nowhere.jpg", "broken.jpg"])
def test_a_link_that_leads_nowhere_is_left_out(tmp_path, target):
    (tmp_path / "broken.jpg").symlink_to(tmp_path / target)
    (entry,) = open_source(tmp_path).entries()
    with pytest.raises(LeftOut, match="missing"):
        read_entry(tmp_path, entry)


def test_a_pipe_is_left_out_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (entry,) = open_source(tmp_path).entries()
    with pytest.raises(LeftOut, match="not-a-file"):
        read_entry(tmp_path, entry)


def test_a_list_gives_paths_and_labels(tmp_path):
    list_file = tmp_path / "list.txt"
    list_file.write_bytes(b"a/1.jpg\tdog\r\n\n/b 2.jpg\ncafe\xcc\x81.jpg\tcat\n")
    assert labelled(list_file) == {"a/1.jpg": "dog", "/b 2.jpg": None, "cafe\u0301.jpg": "cat"}


def test_paths_of_a_list_are_relative_to_its_folder(tmp_path):
    touch(tmp_path / "deep/1.jpg", b"bytes")
    (tmp_path / "list.txt").write_text("deep/1.jpg\n")
    source = open_source(tmp_path / "list.txt")
    (entry,) = source.entries()
    assert read_entry(source.root, entry).data == b"bytes"


def write_tar(path, members, **options):
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_members_of_a_tar_are_grouped_into_samples(tmp_path):
    members = [
        ("x/1.jpg", b"image"),
        ("x/1.cls", b"3"),
        ("x/1.json", b'{"a": 1}'),
        ("x/2.PNG", b"other"),
        ("x/3.txt", b"none"),
    ]
    write_tar(tmp_path / "a.tar", members)
    source = open_source(tmp_path / "a.tar")
    entries = list(source.entries())
    assert [e.name for e in entries] == ["a.tar/x/1.jpg", "a.tar/x/2.png", "a.tar/x/3"]
    first = read_entry(source.root, entries[0])
    assert (first.data, first.label, first.metadata) == (b"image", 3, {"a": 1})
    assert read_entry(source.root, entries[1]).label == -1
    with pytest.raises(LeftOut, match="non-image"):
        read_entry(source.root, entries[2])


@pytest.mark.parametrize("label", [b"", b"dog", b"-2", b"99999999999"])
def test_a_label_that_is_no_label_is_left_out(tmp_path, label):
    write_tar(tmp_path / "a.tar", [("1.jpg", b"image"), ("1.cls", label)])
    (entry,) = open_source(tmp_path).entries()
    with pytest.raises(LeftOut, match="label"):
        read_entry(tmp_path, entry)


def test_long_and_foreign_names_in_tars_are_read(tmp_path):
    name = "\u00e9t\u00e9/" + "x" * 150 + ".jpg"
    write_tar(tmp_path / "a.tar", [(name, b"image")], format=tarfile.PAX_FORMAT)
    assert names(tmp_path) == [f"a.tar/{name}"]


@pytest.mark.parametrize("size", [0, 100, 3000, 5632, 6000, 9000])
def test_a_truncated_tar_is_an_error(tmp_path, size):
    write_tar(tmp_path / "a.tar", [("1.jpg", b"image" * 999), ("2.jpg", b"image" * 999)])
    os.truncate(tmp_path / "a.tar", size)
    with pytest.raises(InputError, match=r"a\.tar: cannot be read"):
        names(tmp_path)


def test_a_tar_with_a_damaged_header_is_an_error(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.jpg", b"image" * 999), ("2.jpg", b"image" * 999)])
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[5632 + 3] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match="cut off at byte 5632"):
        names(tmp_path)


def test_tars_and_images_in_one_folder_are_refused(tmp_path):
    touch(tmp_path / "a.tar")
    touch(tmp_path / "1.jpg")
    with pytest.raises(InputError, match="both tars"):
        open_source(tmp_path)


def test_an_image_as_source_is_refused(tmp_path, encode, draw_photograph):
    touch(tmp_path / "1.jpg", encode(draw_photograph(0)))
    with pytest.raises(InputError, match=r"neither a tar nor a text list \(one picture\)"):
        open_source(tmp_path / "1.jpg")


def test_entries_survive_json_whatever_their_name():
    entry = Entry("caf\u00e9\n\udcff/\t.jpg", 3, "a.tar", {"image": [512, 9]})
    line = entry.to_json()
    assert line.isascii()
    assert "\n" not in line
    assert Entry.from_json(json.dumps(json.loads(line)).encode()) == entry


def test_what_make_beton_leaves_beside_tars_is_passed_over(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.jpg", b"image")])
    touch(tmp_path / "dataset.beton")
    touch(tmp_path / "dataset.beton.json")
    assert names(tmp_path) == ["a.tar/1.jpg"]


def test_a_json_that_is_nested_deeply_is_kept_as_text(tmp_path):
    deep = b'{"a":' + b"[" * 90 + b"]" * 90 + b"}"
    write_tar(tmp_path / "a.tar", [("1.jpg", b"image"), ("1.json", deep)])
    (entry,) = open_source(tmp_path).entries()
    assert read_entry(tmp_path, entry).metadata == {"original": deep.decode()}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("1.jpg,cat", "is no file, but '1.jpg' is: path and label have a tab between them"),
        ("1.jpg cat", "is no file, but '1.jpg' is: path and label have a tab between them"),
        ("here.jpg", "lies in the current folder and not in"),
    ],
)
def test_a_list_whose_first_line_means_something_else_is_refused(tmp_path, monkeypatch, line, what):
    touch(tmp_path / "list/1.jpg")
    touch(tmp_path / "here.jpg")
    touch(tmp_path / "list/list.txt", f"{line}\n".encode())
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "list/list.txt"
    with pytest.raises(InputError, match=what):
        check_first_path(path, open_source(path))


def test_a_list_that_begins_with_a_missing_file_is_taken(tmp_path):
    touch(tmp_path / "list.txt", b"nowhere.jpg\n1.jpg\n")
    check_first_path(tmp_path / "list.txt", open_source(tmp_path / "list.txt"))


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (["train/cat/1.jpg", "val/cat/1.jpg"], r"train, val are parts .*make-shards \S+/train OUT"),
        (["images/cat/1.jpg", "images/dog/1.jpg"], "so there is one class; .*images as SOURCE"),
        (
            ["cat/siamese/1.jpg", "dog/1.jpg"],
            r"1 file in folders .*the first: cat/siamese/1.jpg",
        ),
        (["cat/1.jpg", "dog/1.jpg"], None),
        (["1.jpg"], None),
    ],
)
def test_folders_that_are_no_classes_are_named(tmp_path, files, what):
    for name in files:
        touch(tmp_path / name)
    source = open_source(tmp_path)
    list(source.entries())
    said = source.describe_labels()
    assert said is None if what is None else re.search(what, said)
