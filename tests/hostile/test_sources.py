"""The short form of ``sources.py``: many hostile files at once, and the options that stop them."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.sources import LeftOut, open_source, read_entry

from . import sources

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
TARS = [case for case in sources.list_cases() if case.name.startswith("tar: ")]
SLOW_TO_MAKE = ("pixel-bomb.png", "text-bomb.png", "profile-bomb.png")


def run(source, out, **options):
    """Convert by one worker; return the report, and the reasons by source."""
    report = convert(ConvertConfig(source, out, workers=1, **options))
    lines = map(json.loads, (out / "skipped.jsonl").read_text().splitlines())
    return report, {line["source"]: line["reason"] for line in lines}


def test_what_is_no_file_holds_up_no_photograph(tmp_path):
    sources.fill_folder(tmp_path / "source")
    report, reasons = run(tmp_path / "source", tmp_path / "out")
    assert report.written == 2
    inside = {name.removeprefix("cat/"): reason for name, reason in reasons.items()}
    assert {name: inside[name] for name in inside if "/" not in name} == {
        **dict.fromkeys(("fifo.jpg", "socket.jpg", "device.jpg", "terminal.jpg"), "not-a-file"),
        **dict.fromkeys(("self.jpg", "nowhere.jpg"), "missing"),
        **dict.fromkeys(("log.jpg", "memory.jpg", "pages.jpg"), "zero-byte"),
        "sparse.jpg": "too-large",
        # Whatever they lead to here.
        **{name: inside[name] for name in ("output.jpg", "core.jpg")},
    }


def test_hostile_pictures_are_left_out_and_every_other_is_there(tmp_path):
    names = [name for name in sources.list_pictures() if name not in SLOW_TO_MAKE]
    sources.write_pictures(tmp_path / "source", names)
    report, reasons = run(tmp_path / "source", tmp_path / "out")
    assert report.written + len(reasons) == 1 + len(names)
    assert reasons["scan-bomb.jpg"] == "too-many-scans"
    assert reasons["lying.jpg"] == reasons["lying.png"] == reasons["wide.bmp"] == "too-large"
    assert verify_dataset(tmp_path / "out", deep=True, workers=1).ok


def test_a_picture_that_takes_too_long_is_left_out_alone(tmp_path):
    sources.write_pictures(tmp_path / "source", ["scan-bomb.jpg"])
    options = {"max_scans": 10**6, "max_seconds": 1}
    report, reasons = run(tmp_path / "source", tmp_path / "out", **options)
    assert reasons == {"scan-bomb.jpg": "too-slow"}
    assert report.written == 1


@pytest.mark.parametrize(("depth", "problem"), [(1100, ""), (2100, "File name too long")])
def test_folders_nested_by_the_thousand_are_walked(tmp_path, depth, problem):
    sources.nest_folders(tmp_path / "source", depth)
    try:
        first, second = open_source(tmp_path / "source").entries()
    finally:
        sources.unnest_folders(tmp_path / "source")
    assert (first.name, first.problem) == ("good.jpg", None)
    assert problem in (second.problem or "")
    assert second.name.count("d/") == depth or problem


def test_hostile_json_in_a_tar_stays_with_its_picture(tmp_path):
    members = {}
    for number, content in enumerate(sources.list_jsons().values()):
        members[f"{number}.jpg"] = sources.make_photograph(number)
        members[f"{number}.json"] = content
    sources.write_tar(tmp_path / "a.tar", members)
    report, reasons = run(tmp_path / "a.tar", tmp_path / "out")
    assert (report.written, reasons) == (len(sources.list_jsons()), {})


@pytest.mark.parametrize(
    "case",
    [case for case in sources.list_cases() if case.name.startswith("tar: ")],
    ids=lambda case: case.name,
)
def test_a_hostile_tar_is_read_or_refused(tmp_path, case):
    _, tar, *_ = case.prepare(tmp_path)
    source = open_source(tar)
    with contextlib.suppress(InputError, LeftOut):
        for entry in source.entries():
            json.dumps(read_entry(source.root, entry).metadata)


def test_links_and_devices_in_a_tar_are_no_pictures_and_names_are_no_paths(tmp_path):
    good = sources.make_photograph()
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, kind in enumerate(kinds):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        for name in ("../../climbs.jpg", str(tmp_path / "absolute.jpg")):
            member = tarfile.TarInfo(name)
            member.size = len(good)
            tar.addfile(member, io.BytesIO(good))
    report, _reasons = run(tmp_path / "a.tar", tmp_path / "made" / "in" / "out")
    assert report.written == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "made"]
    assert [path.name for path in (tmp_path / "made" / "in").iterdir()] == ["out"]
    with contextlib.closing(open_dataset(tmp_path / "made" / "in" / "out")) as dataset:
        assert [dataset.read_payload(number) for number in range(2)] == [good, good]


def test_a_list_of_devices_is_read_without_waiting(tmp_path):
    (tmp_path / "good.jpg").write_bytes(sources.make_photograph())
    (tmp_path / "list.txt").write_text("/dev/zero\n/proc/kmsg\ngood.jpg\n")
    report, reasons = run(tmp_path / "list.txt", tmp_path / "out")
    assert reasons == {"/dev/zero": "not-a-file", "/proc/kmsg": "zero-byte"}
    assert report.written == 1


@pytest.mark.parametrize("place", ["/proc/kmsg", "/dev/zero"])
def test_a_source_that_is_no_file_is_refused_unread(tmp_path, place):
    with pytest.raises(InputError, match="wanted a folder of images"):
        run(Path(place), tmp_path / "out")


def test_a_target_where_nothing_can_be_made_is_refused(tmp_path):
    sources.write_pictures(tmp_path / "source", ["empty.jpg"])
    with pytest.raises(InputError, match=r"OUT \(/proc/x\) cannot be made"):
        run(tmp_path / "source", Path("/proc/x"))
