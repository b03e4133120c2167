"""Datasets over tars that stay where they are: what others wrote, read in its place."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fastssl.commands.frame import parse_arguments
from fastssl.commands.index_tars import IndexTars, put_places_last
from fastssl.config import LoaderConfig
from fastssl.errors import InputError, RunFailed
from fastssl.loaders import build_loader
from fastssl.shards import BadSample, open_dataset
from fastssl.shards.derive.combine import CombineConfig, combine
from fastssl.shards.derive.select import Selection
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.in_place import IndexTarsConfig
from fastssl.shards.making.tar_list import list_tars
from fastssl.shards.places import open_places
from fastssl.shards.store import StoreError
from fastssl.views import ViewSpec
from tests.hostile.sources import set_size
from tests.indexed import index

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
NUM_IN_TAR = 6
pytestmark = pytest.mark.usefixtures("serve")


def write_tar(path, members, kind="ustar"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=FORMATS[kind]) as archive:
        for name, content in members:
            # Times with fractions and long names are what other headers than USTAR's are for.
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 3 if kind == "ustar" else 3.5
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def tars(tmp_path, draw_photograph, encode):
    """Three tars of others, one of each kind: label, image and JSON of every sample."""
    paths = []
    for t, kind in enumerate(FORMATS):
        folder = "n" * 120 + "/" if kind != "ustar" else "a/"
        members = []
        for i in range(NUM_IN_TAR):
            number = t * NUM_IN_TAR + i
            key, size = f"{folder}IMG_{number:04d}", (40 + number, 30)
            members += [
                (f"{key}.cls", b"%d" % (number % 4)),
                (f"{key}.jpg", encode(draw_photograph(number, *size))),
                (f"{key}.json", json.dumps({"number": number}).encode()),
            ]
        paths.append(write_tar(tmp_path / "served" / f"{t:03d}.tar", members, kind))
    return paths


@pytest.fixture
def server(serve, tars):
    return serve(tars[0].parent)


def read_by_webdataset(tars):
    """Return image, label and JSON of every sample, by the package that the format is of."""
    import webdataset

    source = webdataset.WebDataset(list(map(str, tars)), shardshuffle=False, empty_check=False)
    return [(s["jpg"], int(s["cls"]), json.loads(s["json"])) for s in source]


def test_samples_are_those_of_webdataset(tars, tmp_path):
    before = [path.read_bytes() for path in tars]
    report = index(tmp_path / "out", tars[0].parent)
    assert (report.read, report.written, report.num_tars) == (18, 18, 3)
    dataset = open_dataset(tmp_path / "out")
    wanted = read_by_webdataset(tars)
    assert len(dataset) == len(wanted)
    for number, (image, label, metadata) in enumerate(wanted):
        assert dataset.read_payload(number) == image
        assert dataset.index["label"][number] == label
        assert dataset.read_metadata(number) == metadata
        assert dataset.read_members(number)["jpg"] == image
    assert dataset.class_names == ("0", "1", "2", "3")
    assert [path.read_bytes() for path in tars] == before
    own = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert own == report.bytes_out


def test_the_manifest_says_where_every_tar_lies(tars, tmp_path):
    index(tmp_path / "out", tars[1], tars[0])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [tar["address"] for tar in manifest["tars"]] == [str(tars[1]), str(tars[0])]
    assert [tar["bytes"] for tar in manifest["tars"]] == [p.stat().st_size for p in tars[1::-1]]
    assert manifest["format_version"] == 4


def test_a_member_that_ends_behind_its_tar_is_named_at_once(tmp_path, draw_photograph, encode):
    tar = write_tar(tmp_path / "x.tar", [("a.jpg", encode(draw_photograph(0)))])
    set_size(tar, b"\x80" + b"\xff" * 11)
    with pytest.raises(InputError, match=r"'a.jpg' ends behind them"):
        index(tmp_path / "out", tar)


@pytest.mark.parametrize("loader", ["webdataset", "native", "dali"])
def test_loaders_see_what_a_conversion_of_the_same_tars_shows(tars, tmp_path, loader):
    if loader == "dali":
        pytest.importorskip("nvidia.dali")
    index(tmp_path / "out", tars[0].parent)
    convert(ConvertConfig(tars[0].parent, tmp_path / "made", keep_order=True, workers=1))
    pixels = []
    for path in (tmp_path / "out", tmp_path / "made"):
        config = LoaderConfig(path=path, loader=loader, global_batch_size=9, num_threads=1)
        loaded = build_loader(config, ViewSpec.random_resized_crop(16))
        pixels.append(np.concatenate([b.images.numpy().copy() for b in loaded.one_pass()]))
        loaded.close()
    np.testing.assert_array_equal(*pixels)


def test_what_is_no_picture_in_place_is_listed_and_left_out(tmp_path, draw_photograph, encode):
    good = encode(draw_photograph(0))
    members = [
        ("a.jpg", good),
        ("b.jpg", good[:-200]),
        ("c.webp", encode(draw_photograph(1), "WEBP")),
        ("d.txt", b"no picture"),
        ("e.jpg", good),
        ("e.jpg", good),
        ("f.jpg", good),
        ("f.cls", b"cat"),
        ("a.jpg", good),
        ("g.seg.png", encode(draw_photograph(3), "PNG")),
        ("g.png", encode(draw_photograph(2), "PNG")),
        ("g.npy", b"something else"),
    ]
    report = index(tmp_path / "out", write_tar(tmp_path / "x.tar", members))
    assert report.written == 2
    assert report.skipped == {
        "doubled": 2,
        "label": 1,
        "non-image": 1,
        "not-in-place": 1,
        "truncated": 1,
    }
    lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"].rpartition("/")[2] for line in lines] == [
        *("b.jpg", "c.webp", "d", "e.jpg", "f.jpg", "a.jpg")
    ]
    dataset = open_dataset(tmp_path / "out")
    assert dataset.read_payload(1) == members[10][1]
    assert verify_dataset(tmp_path / "out", deep=True, workers=1).ok


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (gzip.compress, "compressed by gzip, so that no part of it can be read by itself"),
        (lambda content: content[:-20_000], "cut off|cannot be read as a tar"),
        (lambda content: content[:4000] + content[4000:].replace(b"ustar", b"xstar"), "damaged"),
        (lambda _: b"no tar" * 1000, "cannot be read as a tar"),
        (lambda _: b"", "cannot be read as a tar"),
    ],
)
def test_what_is_no_whole_tar_is_refused(tars, tmp_path, change, told):
    tars[1].write_bytes(change(tars[1].read_bytes()))
    with pytest.raises(InputError, match=told) as caught:
        index(tmp_path / "out", *tars)
    assert str(tars[1]) in str(caught.value)


def test_a_tar_that_has_changed_is_found(tars, tmp_path):
    index(tmp_path / "out", *tars)
    content = bytearray(tars[1].read_bytes())
    dataset = open_dataset(tmp_path / "out")
    shard, offset, _ = dataset.locate(7)
    assert shard == 1
    content[offset + 100] ^= 1
    tars[1].write_bytes(content)
    with pytest.raises(BadSample, match="CRC-32"):
        dataset.read_payload(7)
    told = [fault.reason for fault in verify_dataset(tmp_path / "out", workers=1).errors]
    assert told == [
        "changed: its SHA-256 is not the one in the manifest",
        "changed: the CRC-32 of its image is not the one in the index",
    ]
    tars[1].write_bytes(content + bytes(512))
    with pytest.raises(InputError, match=r"001.tar: .* bytes, .* when it was indexed"):
        open_dataset(tmp_path / "out")
    tars[1].unlink()
    with pytest.raises(InputError, match=r"001.tar: No such file or directory; put it back"):
        open_dataset(tmp_path / "out")


def test_a_stopped_index_goes_on_at_the_first_tar_that_is_not_done(tars, tmp_path):
    index(tmp_path / "whole", *tars)
    good = tars[2].read_bytes()
    tars[2].write_bytes(b"x" + good[1:])
    with pytest.raises(InputError, match="cannot be read as a tar"):
        index(tmp_path / "out", *tars)
    with pytest.raises(InputError, match="unfinished dataset; add --resume"):
        index(tmp_path / "out", *tars)
    with pytest.raises(InputError, match="begun with other options"):
        index(tmp_path / "out", *tars[:2], resume=True)
    done = tmp_path / "out" / ".building" / "tar-000000.rows"
    before = done.stat().st_mtime_ns
    tars[2].write_bytes(good)
    (tmp_path / "out" / ".building" / "tar-000001.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastssl.shards.making.in_place.shutil.rmtree", lambda _: None)
        index(tmp_path / "out", *tars, resume=True)
    assert done.stat().st_mtime_ns == before
    for name in ("index.bin", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(InputError, match="holds a finished dataset"):
        index(tmp_path / "out", *tars, resume=True)


def test_parts_of_such_datasets_and_of_others_are_united(tars, tmp_path):
    index(tmp_path / "one", *tars[:2])
    convert(ConvertConfig(tars[2], tmp_path / "two", keep_order=True, workers=1))
    selection = Selection(classes=("1",))
    combine(CombineConfig((tmp_path / "one", tmp_path / "two"), tmp_path / "all", selection))
    dataset = open_dataset(tmp_path / "all")
    wanted = [image for image, label, _ in read_by_webdataset(tars) if label == 1]
    assert [dataset.read_payload(i) for i in range(len(dataset))] == wanted
    assert verify_dataset(tmp_path / "all", workers=1).ok
    with pytest.raises(InputError, match="over tars that stay where they are; convert those"):
        convert(ConvertConfig(tmp_path / "one", tmp_path / "x", workers=1))


def test_tars_are_named_once_by_paths_folders_and_braces(tars):
    folder = tars[0].parent
    names = [str(path) for path in tars]
    assert list_tars([str(folder)]) == names
    assert list_tars([f"{folder}/{{000..002}}.tar"]) == names
    assert list_tars(["s3://bucket/{0..1}.tar"]) == ["s3://bucket/0.tar", "s3://bucket/1.tar"]
    with pytest.raises(InputError, match="named twice"):
        list_tars([names[0], f"{folder}/../served/000.tar"])


def test_tars_of_a_server_are_read_once_and_in_place(tars, tmp_path, server):
    pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')
    server.etag = '"first"'
    places = [f"{server.address}/{path.name}" for path in tars]
    report = index(tmp_path / "out", *places)
    assert report.written == 18
    assert [name for name, _ in server.asked] == [path.name for path in tars]
    dataset = open_dataset(tmp_path / "out")
    wanted = read_by_webdataset(tars)
    assert [dataset.read_payload(i) for i in range(18)] == [image for image, _, _ in wanted]
    assert dataset.fetch_ahead([3, 17])[1].result() == wanted[17][0]
    with pytest.raises(InputError, match="needs tars on this machine"):
        dataset.list_paths()
    with pytest.raises(InputError, match="lies in a store, and every byte is read"):
        verify_dataset(tmp_path / "out", workers=1)
    dataset.close()
    server.etag = '"second"'
    with pytest.raises(InputError, match=r'calls it "second" now, "first" when it was indexed'):
        open_dataset(tmp_path / "out")


def test_a_server_that_fails_is_asked_again_and_then_named(tars, tmp_path, server):
    pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')
    places = [f"{server.address}/{path.name}" for path in tars]
    server.troubled("001.tar", "short", times=2)
    assert index(tmp_path / "out", *places).written == 18
    server.troubled("001.tar", "503")
    with pytest.raises(RunFailed, match=r"001.tar: status 503 .*; go on later with --resume"):
        index(tmp_path / "more", *places)
    server.trouble = lambda _name: None
    assert index(tmp_path / "more", *places, resume=True).written == 18


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://user:word@host/x.tar", "leave user, password"),
        ("https://host/x.tar?token=1", "leave user, password"),
        ("ftp://host/x.tar", "tars are read from files and by"),
        ("/nowhere/x.tar", "No such file or directory; put it back"),
        ("/dev/zero", "a device, wanted a regular file"),
    ],
)
def test_a_place_that_is_none_is_refused_and_no_password_is_shown(tmp_path, address, told):
    with pytest.raises(InputError, match=told) as caught:
        index(tmp_path / "out", address)
    assert "word@" not in str(caught.value)
    assert "token" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_lies_of_its_tars_is_refused(tars, tmp_path):
    index(tmp_path / "out", *tars)
    path = tmp_path / "out" / "manifest.json"
    good = json.loads(path.read_text())
    for change, told in (
        ({"tars": good["tars"][:2]}, "its tars are not those of its shards"),
        ({"tars": [{**tar, "bytes": 3} for tar in good["tars"]]}, "its tars are not those"),
        ({"tars": [{**tar, "address": "x.tar"} for tar in good["tars"]]}, "must be absolute"),
        ({"tars": [{**tar, "more": 3} for tar in good["tars"]]}, "unknown field 'more'"),
        ({"format_version": 3}, "says more than version 3 can"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=told):
            open_dataset(tmp_path / "out")


@pytest.mark.parametrize("host", ["169.254.169.254", "0xA9FEA9FE", "2852039166", "[fe80::1]:80"])
def test_a_manifest_names_no_link_local_address(tars, tmp_path, host):
    pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')
    index(tmp_path / "out", *tars)
    path = tmp_path / "out" / "manifest.json"
    good = json.loads(path.read_text())
    moved = [{**tar, "address": f"http://{host}/{n}.tar"} for n, tar in enumerate(good["tars"])]
    path.write_text(json.dumps({**good, "tars": moved}))
    with pytest.raises(InputError, match=r"names http://.*0\.tar, a link-local address"):
        open_dataset(tmp_path / "out")


def test_a_name_in_a_manifest_that_leads_to_a_link_local_address_is_not_connected_to():
    """To aiohttp the number in hexadecimal is a name, which the system resolves without network."""
    pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')
    ((store, name),) = open_places(["http://0xA9FEA9FE/0.tar"], is_guarded=True)
    with contextlib.closing(store), pytest.raises(StoreError, match="is at a link-local") as told:
        store.read_range(name, 0, 1)
    assert told.value.kind == "denied"


def test_a_name_in_a_manifest_that_leads_elsewhere_is_read(tars, tmp_path, server):
    pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')
    named = server.address.replace("127.0.0.1", "localhost")
    index(tmp_path / "out", *[f"{named}/{path.name}" for path in tars])
    with contextlib.closing(open_dataset(tmp_path / "out")) as dataset:
        assert dataset.read_payload(0)


def test_a_process_that_opens_again_asks_no_server(tars, tmp_path, server):
    pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')
    server.etag = "first"
    index(tmp_path / "out", *[f"{server.address}/{path.name}" for path in tars])
    dataset = open_dataset(tmp_path / "out")
    server.etag = "another"  # whoever looks sees a change
    again = pickle.loads(pickle.dumps(dataset))
    assert again.read_payload(5) == dataset.read_payload(5)


def test_a_manifest_in_a_store_names_no_file_of_this_machine(tars, server):
    pytest.importorskip("aiohttp", reason='needs pip install "fastssl[scale]"')
    index(server.folder / "ds", *tars)
    with pytest.raises(InputError, match=r"its manifest names /.*, a file of this machine"):
        open_dataset(f"{server.address}/ds")


def test_options_may_stand_behind_the_places():
    words = ["a.tar", "--workers", "3", "b.tar", "out", "--resume=true"]
    command = parse_arguments(IndexTars, put_places_last(words))
    wanted = (("a.tar", "b.tar"), Path("out"), 3, True)
    assert (command.tars, command.out, command.workers, command.resume) == wanted


def test_without_a_tar_the_line_to_type_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no tar is named: fastssl index-tars TAR \[TAR"):
        index(tmp_path)


def test_fields_of_a_config_have_ranges(tmp_path):
    config = IndexTarsConfig(("x.tar",), tmp_path)
    with pytest.raises(InputError, match="max_scans"):
        dataclasses.replace(config, max_scans=0)
