"""Datasets over zips that stay where they are; Python's zipfile writes them, the reference."""

from __future__ import annotations

import contextlib
import itertools
import zipfile

import numpy as np
import pytest

from fastssl.config import LoaderConfig
from fastssl.errors import InputError
from fastssl.loaders import build_loader
from fastssl.shards import open_dataset
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.views import ViewSpec
from tests.indexed import index
from tests.range_server import RangeServer

pytestmark = pytest.mark.usefixtures("serve")


@pytest.fixture
def photographs(draw_photograph, encode):
    return {f"data/{i % 3:03d}/{i:04d}.jpg": encode(draw_photograph(i)) for i in range(9)}


def write_zip(path, members, method=zipfile.ZIP_STORED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def read_images(path):
    """Return the images of a zip in the order in which they lie in it."""
    with zipfile.ZipFile(path) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        return [archive.read(m) for m in members if m.filename.endswith(".jpg")]


def test_samples_are_the_images_in_their_place(photographs, tmp_path):
    path = write_zip(tmp_path / "x.zip", photographs)
    before = path.read_bytes()
    report = index(tmp_path / "out", path)
    dataset = open_dataset(tmp_path / "out")
    assert (report.written, report.skipped, path.read_bytes()) == (9, {}, before)
    wanted = read_images(path)
    assert [dataset.read_payload(number) for number in range(9)] == wanted
    assert dataset.read_members(0) == {"jpg": wanted[0]}
    _, offset, length = dataset.locate(0)
    assert offset < 512
    assert before[offset : offset + length] == wanted[0]
    assert verify_dataset(tmp_path / "out", deep=True).ok


@pytest.mark.parametrize("loader", ["webdataset", "native"])
def test_loaders_see_what_a_conversion_of_the_same_zip_shows(photographs, tmp_path, loader):
    path = write_zip(tmp_path / "x.zip", photographs)
    index(tmp_path / "in_place", path)
    convert(ConvertConfig(str(path), tmp_path / "made", workers=1, keep_order=True))
    batches = []
    for name in ("in_place", "made"):
        config = LoaderConfig(str(tmp_path / name), loader, global_batch_size=4, num_threads=1)
        with contextlib.closing(build_loader(config, [ViewSpec.squash(16)])) as found:
            batches.append([batch.images.clone() for batch in found.one_pass()])
    for one, other in zip(*batches, strict=True):
        assert one.equal(other)


def test_labels_lie_anywhere_in_the_zip_and_may_be_compressed(photographs, tmp_path):
    path = write_zip(tmp_path / "x.zip", photographs)
    with zipfile.ZipFile(path, "a") as archive:
        for number, name in enumerate(reversed(photographs)):
            label = name.replace(".jpg", ".cls")
            archive.writestr(label, str(number), zipfile.ZIP_DEFLATED)
    report = index(tmp_path / "out", path)
    assert report.num_labelled == 9
    assert open_dataset(tmp_path / "out").index["label"].tolist() == list(range(8, -1, -1))


def test_what_cannot_be_read_in_place_is_left_out_by_reason(photographs, tmp_path):
    names = itertools.chain(photographs.items())
    path = write_zip(tmp_path / "x.zip", dict(itertools.islice(names, 4)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("packed.jpg", next(names)[1], zipfile.ZIP_DEFLATED)
        archive.writestr("readme.txt", "no picture")
        archive.writestr("broken.jpg", next(names)[1][:300])
        archive.writestr("twice.jpg", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("twice.jpg", b"2")
    report = index(tmp_path / "out", path)
    wanted = {"not-in-place": 1, "non-image": 1, "doubled": 1}
    assert report.written == 4
    assert {name: report.skipped.get(name) for name in wanted} == wanted
    assert sum(report.skipped.values()) == 4


def test_a_zip_of_compressed_images_says_what_to_do(photographs, tmp_path):
    path = write_zip(tmp_path / "x.zip", photographs, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match=r"not-in-place 9\); convert them: fastssl make-shards"):
        index(tmp_path / "out", path)


def test_an_encrypted_image_is_refused(photographs, tmp_path):
    path = write_zip(tmp_path / "x.zip", photographs)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is encrypted; unpack the zip with its password"):
        index(tmp_path / "out", path)


def test_an_image_that_changed_is_found_by_the_zips_own_checksum(photographs, tmp_path):
    path = write_zip(tmp_path / "x.zip", photographs)
    content = bytearray(path.read_bytes())
    content[content.index(read_images(path)[2]) + 700] ^= 1
    path.write_bytes(content)
    report = index(tmp_path / "out", path)
    assert (report.written, report.skipped) == (8, {"corrupt": 1})


def test_members_that_overlap_are_read_once(photographs, tmp_path):
    path = write_zip(tmp_path / "x.zip", photographs)
    content = bytearray(path.read_bytes())
    first = content.index(b"PK\1\2")
    second = content.index(b"PK\1\2", first + 4)
    content[second + 42 : second + 46] = bytes(4)  # its header is where the first one's is
    path.write_bytes(content)
    report = index(tmp_path / "out", path)
    assert (report.written, report.skipped) == (8, {"corrupt": 1})


def test_zips_and_tars_of_a_store_make_one_dataset(photographs, tmp_path):
    write_zip(tmp_path / "served" / "a.zip", photographs)
    write_zip(tmp_path / "served" / "b.zip", {f"b/{k}": v for k, v in photographs.items()})
    server = RangeServer(tmp_path / "served")
    try:
        report = index(tmp_path / "out", f"{server.address}/{{a,b}}.zip")
        dataset = open_dataset(tmp_path / "out")
        assert report.written == 18
        found = [dataset.read_payload(number) for number in range(18)]
    finally:
        server.stop()
    assert found == 2 * read_images(tmp_path / "served" / "a.zip")


def test_a_zip_cut_off_is_named(photographs, tmp_path):
    path = write_zip(tmp_path / "x.zip", photographs)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"x\.zip: damaged, cut off, or no zip"):
        index(tmp_path / "out", path)


def test_damaged_zips_end_in_an_error_or_whole_images(photographs, tmp_path):
    path = write_zip(tmp_path / "x.zip", photographs)
    whole, images = path.read_bytes(), set(photographs.values())
    generator = np.random.default_rng(0)
    num_refused = 0
    for number in range(20):
        content = bytearray(whole)
        for place in generator.integers(len(whole) - 900, len(whole), 3):
            content[place] = generator.integers(256)
        path.write_bytes(content)
        out = tmp_path / f"out{number}"
        try:
            index(out, path)
        except InputError:
            num_refused += 1
            continue
        dataset = open_dataset(out)
        assert {dataset.read_payload(n) for n in range(len(dataset))} <= images
    assert 0 < num_refused < 20
