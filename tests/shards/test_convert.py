from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastssl.commands.make_shards import describe_labels
from fastssl.errors import InputError
from fastssl.shards import (
    Payload,
    SampleFlags,
    Sampling,
    decode_picture,
    open_dataset,
    open_picture,
)
from fastssl.shards.making.encode import shrunk_size
from fastssl.shards.manifest import begin_digest


def test_every_image_is_there_once_with_its_label(photographs, make_dataset):
    out, report = make_dataset(photographs)
    dataset = open_dataset(out)
    assert (report.read, report.written, report.skipped) == (12, 12, {})
    assert dataset.class_names == ("cat", "dog")
    found = {}
    for sample_id in range(dataset.num_samples):
        source = dataset.read_metadata(sample_id)["source"]
        found[source] = dataset.read_payload(sample_id)
        assert dataset.class_names[dataset.index["label"][sample_id]] == source.split("/")[0]
    assert found == {
        str(path.relative_to(photographs)): path.read_bytes() for path in photographs.rglob("*.jpg")
    }


def test_the_order_is_shuffled_by_the_seed(photographs, make_dataset):
    def sources(name, **options):
        dataset = open_dataset(make_dataset(photographs, name, **options)[0])
        return [dataset.read_metadata(i)["source"] for i in range(12)]

    kept = sources("kept", keep_order=True)
    first, second = sources("first", seed=1), sources("second", seed=2)
    assert kept == sorted(kept)
    assert sorted(first) == sorted(second) == kept
    assert len({tuple(kept), tuple(first), tuple(second)}) == 3


def test_workers_do_not_change_a_byte(photographs, make_dataset, read_tree):
    one = read_tree(make_dataset(photographs, "one", workers=1)[0])
    two = read_tree(make_dataset(photographs, "two", workers=2)[0])
    assert one == two
    assert len([name for name in one if name.endswith(".tar")]) == 3


def test_a_tree_holds_what_the_contract_names(photographs, make_dataset, read_tree):
    out, _ = make_dataset(photographs)
    shards = [f"shard-{i:06d}.{e}" for i in range(3) for e in ("idx", "tar")]
    assert sorted(read_tree(out)) == ["index.bin", "manifest.json", *shards, "skipped.jsonl"]


def test_rows_say_where_the_members_lie(photographs, make_dataset):
    out, _ = make_dataset(photographs)
    dataset = open_dataset(out)
    sample_id = 0
    for shard in dataset.manifest.shards:
        with tarfile.open(out / shard.name) as archive:
            members = archive.getmembers()
        for image, cls, text in zip(*[iter(members)] * 3, strict=True):
            row = dataset.index[sample_id]
            payload = dataset.read_payload(sample_id)
            assert image.name == f"{sample_id:09d}.jpg"
            assert (cls.name[9:], text.name[9:]) == (".cls", ".json")
            assert (row["offset"], row["length"]) == (image.offset_data, image.size)
            assert row["span"] == text.offset_data + text.size - image.offset
            assert row["crc32"] == zlib.crc32(payload)
            sample_id += 1
    assert sample_id == 12


def test_the_digest_is_the_documented_sum(photographs, make_dataset):
    out, _ = make_dataset(photographs)
    manifest = json.loads((out / "manifest.json").read_text())
    index = (out / "index.bin").read_bytes()
    dataset = open_dataset(out).manifest
    digest = begin_digest("keep", {}, dataset.class_names, dataset.shards)
    digest.update(index[64:])
    assert manifest["digest"] == digest.hexdigest() == index[24:56].hex()


def test_the_digest_tells_other_labels_apart(photographs, make_dataset):
    first = open_dataset(make_dataset(photographs, "first")[0]).digest
    (photographs / "dog").rename(photographs / "emu")
    second = open_dataset(make_dataset(photographs, "second")[0]).digest
    assert first != second


@pytest.mark.parametrize("orientation", range(1, 9))
def test_kept_images_are_described_upright(
    tmp_path, make_dataset, draw_photograph, encode, exif_block, orientation
):
    payload = encode(draw_photograph(0), exif=exif_block(orientation))
    (tmp_path / "source").mkdir()
    (tmp_path / "source/1.jpg").write_bytes(payload)
    dataset = open_dataset(make_dataset(tmp_path / "source")[0])
    row = dataset.index[0]
    assert dataset.read_payload(0) == payload
    assert SampleFlags.unpack(row["flags"]).orientation == orientation
    assert (row["width"], row["height"]) == ((40, 30) if orientation < 5 else (30, 40))
    assert dataset.read_metadata(0) == {"source": "1.jpg", "orientation": orientation}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_resized_images_are_written_upright(
    tmp_path, make_dataset, draw_photograph, encode, exif_block, orientation
):
    payload = encode(draw_photograph(0, 90, 60), exif=exif_block(orientation), quality=95)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/1.jpg").write_bytes(payload)
    out, _ = make_dataset(tmp_path / "source", encode="resized", resize_short=40, quality=95)
    dataset = open_dataset(out)
    stored = dataset.read_payload(0)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(payload)))
    size = (60, 40) if orientation < 5 else (40, 60)
    wanted = np.asarray(upright.resize(size, Image.Resampling.BILINEAR)).astype(int)
    assert SampleFlags.unpack(dataset.index["flags"][0]).orientation == 1
    assert dataset.read_metadata(0)["orientation"] == 1
    assert b"Exif" not in stored
    # One JPEG pass at quality 95 on smooth colours.
    assert np.abs(decode_picture(stored).astype(int) - wanted).mean() < 4


def test_resized_makes_baseline_of_progressive(tmp_path, make_dataset, draw_photograph, encode):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/1.jpg").write_bytes(encode(draw_photograph(0), progressive=True))
    dataset = open_dataset(make_dataset(tmp_path / "source", encode="resized")[0])
    assert not SampleFlags.unpack(dataset.index["flags"][0]).is_progressive
    assert open_picture(dataset.read_payload(0)).info.get("progressive") is None


def test_resized_leaves_small_baseline_images_alone(photographs, make_dataset):
    dataset = open_dataset(make_dataset(photographs, encode="resized", quality=10)[0])
    source = dataset.read_metadata(0)["source"]
    assert dataset.read_payload(0) == (photographs / source).read_bytes()


def test_resized_keeps_grey_grey(tmp_path, make_dataset, draw_photograph, encode):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/1.jpg").write_bytes(encode(draw_photograph(0, 90, 60).convert("L")))
    dataset = open_dataset(make_dataset(tmp_path / "source", encode="resized", resize_short=30)[0])
    flags = SampleFlags.unpack(dataset.index["flags"][0])
    assert flags.is_grey
    assert flags.sampling == Sampling.GREY


@pytest.mark.parametrize(
    ("size", "short", "wanted"),
    [
        ((500, 375), 256, (341, 256)),
        ((375, 500), 256, (256, 341)),
        ((200, 300), 256, (200, 300)),
        ((256, 9000), 256, (256, 9000)),
        ((5, 3), 2, (3, 2)),  # 3.33 rounds down
        ((7, 4), 2, (4, 2)),  # 3.5 rounds up
        ((20_000, 300), 256, (17_067, 256)),
    ],
)
def test_the_short_side_is_brought_down(size, short, wanted):
    assert shrunk_size(*size, short) == wanted


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_other_formats_become_png(tmp_path, make_dataset, draw_photograph, encode, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    payload = encode(draw_photograph(0), kind, **options)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / f"1.{kind.lower()}").write_bytes(payload)
    dataset = open_dataset(make_dataset(tmp_path / "source")[0])
    flags = SampleFlags.unpack(dataset.index["flags"][0])
    assert flags == SampleFlags(payload=Payload.PNG)
    stored = decode_picture(dataset.read_payload(0))
    np.testing.assert_array_equal(stored, decode_picture(payload))
    assert list(dataset.read_members(0)) == ["png", "json"]


def sixteen_bit(encode):
    return encode(Image.fromarray(np.full((4, 4), 40_000, np.uint16)), "PNG")


def animated(draw_photograph, encode):
    return encode(draw_photograph(0), "GIF", save_all=True, append_images=[draw_photograph(1)])


def seventy_thousand_wide(encode):
    return encode(Image.new("1", (70_000, 1)), "PNG")


@pytest.fixture
def bad_files(draw_photograph, encode):
    """Every kind of file that is left out, by reason."""
    good = encode(draw_photograph(0, 200, 150), quality=95)
    return {
        "truncated": good[:-500],
        "zero-byte": b"",
        "non-image": b"This is no image.",
        "16-bit": sixteen_bit(encode),
        "animated": animated(draw_photograph, encode),
        "too-large": seventy_thousand_wide(encode),
        "corrupt": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    }


@pytest.mark.parametrize("encoding", ["keep", "resized", "raw"])
def test_bad_files_are_left_out_with_a_reason(photographs, make_dataset, bad_files, encoding):
    for reason, content in bad_files.items():
        (photographs / "cat" / f"{reason}.jpg").write_bytes(content)
    out, report = make_dataset(photographs, encode=encoding)
    dataset = open_dataset(out)
    lines = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert {line["source"]: line["reason"] for line in lines} == {
        f"cat/{reason}.jpg": reason for reason in bad_files
    }
    assert report.skipped == dict.fromkeys(bad_files, 1) == dataset.manifest.skipped
    assert (report.read, report.written) == (12 + len(bad_files), 12)
    for sample_id in range(12):
        decode_picture(dataset.read_payload(sample_id))


def test_ids_are_consecutive_where_images_were_left_out(photographs, make_dataset, bad_files):
    for reason, content in bad_files.items():
        (photographs / "cat" / f"{reason}.jpg").write_bytes(content)
    dataset = open_dataset(make_dataset(photographs)[0])
    counts = [shard.samples for shard in dataset.manifest.shards]
    assert sum(counts) == 12
    assert len(set(counts)) > 1
    keys = []
    for shard in dataset.manifest.shards:
        with tarfile.open(dataset.path / shard.name) as archive:
            keys += [name[:9] for name in archive.getnames() if name.endswith(".jpg")]
    assert keys == sorted(set(keys))
    assert len(keys) == 12


def test_a_slice_of_bad_files_makes_no_shard(photographs, make_dataset):
    for number in range(5):
        (photographs / "cat" / f"a{number}.jpg").write_bytes(b"bad")
    out, _ = make_dataset(photographs, keep_order=True)
    assert [shard.name for shard in open_dataset(out).manifest.shards] == [
        "shard-000001.tar",
        "shard-000002.tar",
        "shard-000003.tar",
    ]
    assert not (out / "shard-000000.idx").exists()


def test_cmyk_is_kept_for_the_reference_decoder(tmp_path, make_dataset, draw_photograph, encode):
    payload = encode(draw_photograph(0).convert("CMYK"))
    (tmp_path / "source").mkdir()
    (tmp_path / "source/1.jpg").write_bytes(payload)
    dataset = open_dataset(make_dataset(tmp_path / "source")[0])
    assert dataset.read_payload(0) == payload
    assert SampleFlags.unpack(dataset.index["flags"][0]).use_reference


def test_cmyk_is_resized_to_plain_jpeg(tmp_path, make_dataset, draw_photograph, encode):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/1.jpg").write_bytes(encode(draw_photograph(0).convert("CMYK")))
    dataset = open_dataset(make_dataset(tmp_path / "source", encode="resized")[0])
    assert not SampleFlags.unpack(dataset.index["flags"][0]).use_reference
    assert open_picture(dataset.read_payload(0)).mode == "RGB"


def test_a_twenty_thousand_pixel_image_is_kept(tmp_path, make_dataset, encode):
    (tmp_path / "source").mkdir()
    image = Image.new("L", (20_000, 300), 77)
    (tmp_path / "source/1.jpg").write_bytes(encode(image))
    dataset = open_dataset(make_dataset(tmp_path / "source")[0])
    assert (dataset.index["width"][0], dataset.index["height"][0]) == (20_000, 300)


def test_names_that_are_foreign_or_collide_are_kept_apart(
    tmp_path, make_dataset, draw_photograph, encode
):
    files = ["caf\u00e9/\u00fcber.jpg", "a/1.jpg", "b/1.jpg", "a/1.JPG", "b/1.a.jpg", "b/1.b.jpg"]
    contents = {name: encode(draw_photograph(seed)) for seed, name in enumerate(files)}
    for name, content in contents.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    dataset = open_dataset(make_dataset(tmp_path / "source")[0])
    found = {
        dataset.read_metadata(i)["source"]: dataset.read_payload(i)
        for i in range(dataset.num_samples)
    }
    assert found == contents
    assert "caf\u00e9" in dataset.class_names


def test_a_name_that_is_no_utf8_is_kept(tmp_path, make_dataset, draw_photograph, encode):
    (tmp_path / "source").mkdir()
    with open(bytes(tmp_path / "source") + b"/\xff.jpg", "wb") as file:
        file.write(encode(draw_photograph(0)))
    dataset = open_dataset(make_dataset(tmp_path / "source")[0])
    assert dataset.read_metadata(0)["source"] == "\udcff.jpg"


def test_a_dataset_can_be_converted_again(photographs, make_dataset):
    first = open_dataset(make_dataset(photographs, "first")[0])
    out, report = make_dataset(first.path, "second", keep_order=True)
    second = open_dataset(out)
    assert report.written == 12
    assert second.class_names == ("cat", "dog")
    for i in range(12):
        assert second.read_payload(i) == first.read_payload(i)
        assert second.read_metadata(i) == first.read_metadata(i)
        assert second.index["label"][i] == first.index["label"][i]


def test_labels_of_tars_without_names_are_their_numbers(
    tmp_path, make_dataset, draw_photograph, encode
):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, label in enumerate(["2", "0"]):
            for extension, content in (
                ("jpg", encode(draw_photograph(number))),
                ("cls", label.encode()),
            ):
                info = tarfile.TarInfo(f"{number}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    dataset = open_dataset(make_dataset(tmp_path / "a.tar", keep_order=True)[0])
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.index["label"].tolist() == [2, 0]
    assert dataset.has_labels


def test_images_without_folders_have_no_labels(tmp_path, make_dataset, draw_photograph, encode):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/1.jpg").write_bytes(encode(draw_photograph(0)))
    dataset = open_dataset(make_dataset(tmp_path / "source")[0])
    assert not dataset.has_labels
    assert dataset.index["label"].tolist() == [-1]
    assert list(dataset.read_members(0)) == ["jpg", "json"]


@pytest.mark.parametrize("content", [None, b"no image"])
def test_a_source_without_images_is_refused_and_leaves_nothing(tmp_path, make_dataset, content):
    (tmp_path / "source").mkdir()
    if content is not None:
        (tmp_path / "source/1.jpg").write_bytes(content)
    message = "no files in it" if content is None else "no readable image in its 1 file"
    with pytest.raises(InputError, match=message):
        make_dataset(tmp_path / "source")
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encode": "webp"}, r"encode \('webp'\) is not known; did you mean 'keep'"),
        ({"encode": "raw", "resize_short": 70_000}, "--resize-short"),
        ({"samples_per_shard": 0}, "--samples-per-shard"),
        ({"workers": 0}, "--workers"),
        ({"seed": -1}, "--seed"),
        ({"encode": "resized", "resize_short": 0}, "--resize-short"),
        ({"encode": "resized", "quality": 101}, "--quality"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    tmp_path, photographs, make_dataset, options, message
):
    with pytest.raises(InputError, match=message):
        make_dataset(photographs, **options)
    assert not (tmp_path / "dataset").exists()


def test_a_target_that_holds_something_else_is_refused(tmp_path, photographs, make_dataset):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        make_dataset(photographs, resume=True)


def test_a_target_inside_the_source_is_refused(photographs, make_dataset):
    with pytest.raises(InputError, match="inside the source"):
        make_dataset(photographs, photographs / "out")
    assert not (photographs / "out").exists()


def test_settings_that_are_ignored_are_named(photographs, make_dataset):
    with pytest.warns(UserWarning, match="--resize-short and --quality are ignored"):
        make_dataset(photographs, quality=50)


def test_a_header_of_the_index_is_little_endian(photographs, make_dataset):
    out, _ = make_dataset(photographs)
    start = (out / "index.bin").read_bytes()[:24]
    assert struct.unpack("<8sIIQ", start) == (b"FSSLIDX1", 1, 32, 12)


def test_a_stored_picture_is_held_to_what_loaders_decode(photographs, make_dataset):
    with pytest.raises(InputError, match=r"--max-pixels .*loaders decode up to 134217728"):
        make_dataset(photographs, max_pixels=2**28)


def test_limits_are_counted_by_reason(tmp_path, make_dataset, draw_photograph, encode):
    (tmp_path / "source").mkdir()
    for number, side in enumerate((10, 20, 30)):
        content = encode(draw_photograph(0, side, side), progressive=side == 10)
        (tmp_path / f"source/{number}.jpg").write_bytes(content)
    options = {"max_pixels": 400, "max_scans": 9, "encode": "resized"}
    _, report = make_dataset(tmp_path / "source", **options)
    assert report.skipped == {"too-large": 1, "too-many-scans": 1}
    assert report.written == 1


def test_the_summary_counts_classes_and_labels(photographs, make_dataset, draw_photograph, encode):
    (photographs / "loose.jpg").write_bytes(encode(draw_photograph(99)))
    _, report = make_dataset(photographs)
    assert describe_labels(report) == "2 classes, 12 labelled, 1 without"
    _, report = make_dataset(photographs / "cat", "cats")
    assert describe_labels(report) == "no labels, which pretext tasks do without"


def test_two_conversions_of_damaged_files_are_equal(photographs, make_dataset, read_tree):
    (photographs / "cat/damaged.tif").write_bytes(b"II*\0" + b"no header")
    first, second = (read_tree(make_dataset(photographs, name)[0]) for name in ("one", "two"))
    assert b"corrupt" in first["skipped.jsonl"]
    assert first == second
