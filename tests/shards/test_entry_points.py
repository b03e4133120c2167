"""Entry points beside the index: made while converting or later; used, checked, spoiled."""

from __future__ import annotations

import json
import logging
import os
import tarfile

import numpy as np
import pytest

from fastssl.config import LoaderConfig
from fastssl.errors import InputError
from fastssl.loaders import build_loader
from fastssl.shards import open_dataset
from fastssl.shards.derive.combine import CombineConfig, combine
from fastssl.shards.derive.select import Selection
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.entry_points import ENTRY_POINTS_NAME, MAX_SHARE
from fastssl.shards.entry_reader import open_entry_points
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.entry_points import add_entry_points
from fastssl.shards.making.in_place import IndexTarsConfig, index_tars
from fastssl.views import ViewSpec
from tests.jpeg_layout import HAS_TRANSCODER

pytestmark = pytest.mark.skipif(
    not HAS_TRANSCODER, reason="needs the extension with libjpeg-turbo (libjpeg-dev)"
)
NUM = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory, draw_photograph, encode):
    """Five JPEGs that are large enough for entry points, and a PNG."""
    folder = tmp_path_factory.mktemp("source")
    for i in range(NUM):
        kind = "PNG" if i == 3 else "JPEG"
        options = {} if kind == "PNG" else {"quality": 95, "subsampling": i % 3}
        content = encode(draw_photograph(i, 200 + 10 * i, 150), kind, **options)
        (folder / f"{i}.{kind.lower()}").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, source):
    """The same images converted with entry points, and without."""
    root = tmp_path_factory.mktemp("made")
    options = {"samples_per_shard": 4, "workers": 1, "keep_order": True}
    for name, wanted in (("with", True), ("without", False)):
        convert(ConvertConfig(source, root / name, entry_points=wanted, **options))
    return root


@pytest.fixture
def copy(made, tmp_path):
    def copy_of(name="with"):
        target = tmp_path / name
        target.mkdir()
        for path in (made / name).iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        return target

    return copy_of


def one_pass(folder):
    """Return the pixels of random crops of every sample, and the share of units that were read."""
    config = LoaderConfig(path=folder, loader="native", global_batch_size=2, num_threads=1)
    loader = build_loader(config, [ViewSpec.random_resized_crop(32, scale=(0.05, 0.2))] * 2)
    images, read, total = [], 0, 0
    for batch in loader.one_pass():
        images.append(batch.images.numpy().copy())
        read += batch.entropy_decoded_mcus
        total += batch.total_mcus
    loader.close()
    return np.concatenate(images), read / total


def test_a_loader_reads_less_and_shows_the_same(made):
    entered, share = one_pass(made / "with")
    plain, whole = one_pass(made / "without")
    np.testing.assert_array_equal(entered, plain)
    assert 0 < share < 0.7 * whole


def test_the_dataset_is_the_same_for_every_run(made):
    with_, without = open_dataset(made / "with"), open_dataset(made / "without")
    assert with_.digest == without.digest
    assert (with_.manifest.format_version, without.manifest.format_version) == (5, 1)
    assert not (made / "without" / ENTRY_POINTS_NAME).exists()
    payload_bytes = with_.index["length"].astype(np.int64)
    _, lengths = open_entry_points(with_).locate(np.arange(NUM), payload_bytes)
    assert (lengths > 0).tolist() == [i != 3 for i in range(NUM)]
    assert (lengths <= MAX_SHARE * payload_bytes).all()


def test_made_later_they_are_the_same_bytes(made, copy):
    later = copy("without")
    report = add_entry_points(later, workers=1)
    assert (report.samples, report.written) == (NUM, NUM - 1)
    names = sorted(path.name for path in (made / "with").iterdir())
    assert sorted(path.name for path in later.iterdir()) == names
    for name in (ENTRY_POINTS_NAME, "manifest.json", "index.bin"):
        assert (later / name).read_bytes() == (made / "with" / name).read_bytes()
    assert report.bytes_out == (later / ENTRY_POINTS_NAME).stat().st_size


def test_tars_in_place_have_them_from_their_one_pass(made, source, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for path in sorted(source.iterdir()):
            archive.add(path, path.name)
    for name, wanted in (("with", True), ("without", False)):
        config = IndexTarsConfig((str(tmp_path / "a.tar"),), tmp_path / name, workers=1)
        index_tars(config.__class__(**{**vars(config), "entry_points": wanted}))
    manifests = [open_dataset(tmp_path / name).manifest for name in ("with", "without")]
    assert [manifest.format_version for manifest in manifests] == [5, 4]
    assert manifests[0].digest == manifests[1].digest
    found = open_entry_points(open_dataset(tmp_path / "with"))
    wanted = open_entry_points(open_dataset(made / "with"))
    for i in range(NUM):
        size = (source / f"{i}.{'png' if i == 3 else 'jpeg'}").stat().st_size
        assert found.read(i, size) == wanted.read(i, size)
    np.testing.assert_array_equal(one_pass(tmp_path / "with")[0], one_pass(made / "without")[0])
    assert verify_dataset(tmp_path / "with", deep=True, workers=1).ok


def test_a_good_file_has_no_errors(made):
    assert verify_dataset(made / "with", deep=True, workers=1).ok


def spoil(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def test_a_changed_record_is_named_warned_of_and_not_used(made, copy, caplog):
    folder = copy()
    offset, _ = open_entry_points(open_dataset(folder)).locate(np.array([4]), np.array([10**6]))
    spoil(folder / ENTRY_POINTS_NAME, int(offset[0]) + 12)
    errors = verify_dataset(folder, deep=True, workers=1).errors
    assert {fault.shard for fault in errors} == {ENTRY_POINTS_NAME}
    assert [fault.reason.split(":")[0] for fault in errors] == ["changed", "sample 4"]
    with caplog.at_level(logging.WARNING):
        images, _ = one_pass(folder)
    np.testing.assert_array_equal(images, one_pass(made / "without")[0])
    assert "entry points of 1 sample of a batch are damaged" in caplog.text


def test_records_of_other_samples_are_not_used(made, copy):
    # A table that leads to the neighbour's record, behind the end, backwards.
    folder = copy()
    path = folder / ENTRY_POINTS_NAME
    content = bytearray(path.read_bytes())
    ends = np.frombuffer(bytes(content[64:120]), "<u8").copy()
    ends[1:5] = ends[2:6]
    ends[6] = 2**63
    content[64:120] = ends.tobytes()
    path.write_bytes(content)
    images, _ = one_pass(folder)
    np.testing.assert_array_equal(images, one_pass(made / "without")[0])


@pytest.mark.parametrize("damage", ["missing", "cut", "of another dataset"])
def test_a_file_that_is_not_the_one_is_refused_and_made_again(made, copy, damage):
    folder = copy()
    path = folder / ENTRY_POINTS_NAME
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        os.truncate(path, path.stat().st_size - 1)
    else:
        spoil(path, 30)
    with pytest.raises(InputError, match="make them again: fastssl entry-points"):
        one_pass(folder)
    assert open_dataset(folder).num_samples == NUM  # other loaders need none
    assert [f.shard for f in verify_dataset(folder, workers=1).errors] == [ENTRY_POINTS_NAME]
    add_entry_points(folder, workers=1)
    assert path.read_bytes() == (made / "with" / ENTRY_POINTS_NAME).read_bytes()


def test_an_unknown_field_is_refused(copy):
    path = copy() / "manifest.json"
    fields = json.loads(path.read_text())
    fields["entry_points"]["codec"] = 2
    path.write_text(json.dumps(fields))
    with pytest.raises(InputError, match="unknown field 'codec'"):
        open_dataset(path.parent)


def test_a_part_keeps_those_of_its_samples(made, tmp_path):
    (tmp_path / "ids.txt").write_text("1\n4\n7\n11\n")
    selection = Selection(ids=tmp_path / "ids.txt")
    combine(CombineConfig((made / "with",), tmp_path / "part", Selection()))
    combine(CombineConfig((made / "without",), tmp_path / "none", Selection()))
    (tmp_path / "ids.txt").write_text("1\n4\n")
    combine(CombineConfig((made / "with",), tmp_path / "two", selection))
    whole, two = (open_dataset(tmp_path / name) for name in ("part", "two"))
    assert open_dataset(tmp_path / "none").manifest.entry_points is None
    assert whole.manifest.entry_points.samples == NUM - 1
    assert two.manifest.entry_points.samples == 2
    for sample_id, original in enumerate((1, 4)):
        size = len(two.read_payload(sample_id))
        assert open_entry_points(two).read(sample_id, size) == (
            open_entry_points(open_dataset(made / "with")).read(original, size)
        )
    assert verify_dataset(tmp_path / "two", deep=True, workers=1).ok
