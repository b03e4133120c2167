"""Raw pixels: what is stored, who reads it, and what hostile bytes can do (nothing)."""

from __future__ import annotations

import io
import pickle
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastssl.config import LoaderConfig
from fastssl.loaders import build_loader
from fastssl.shards import (
    Payload,
    PictureError,
    SampleFlags,
    decode_picture,
    open_dataset,
    open_picture,
)
from fastssl.shards.npy import PIXELS_AT, pack_npy
from fastssl.views import ViewSpec


def write_npy(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def test_raw_holds_the_reference_picture(photographs, make_dataset):
    out, _ = make_dataset(photographs, encode="raw")
    dataset = open_dataset(out)
    assert dataset.manifest.encoding_options == {"resize_short": 256}
    for sample_id in range(12):
        metadata, row = dataset.read_metadata(sample_id), dataset.index[sample_id]
        payload = dataset.read_payload(sample_id)
        wanted = decode_picture((photographs / metadata["source"]).read_bytes())
        np.testing.assert_array_equal(np.load(io.BytesIO(payload), allow_pickle=False), wanted)
        np.testing.assert_array_equal(decode_picture(payload), wanted)
        assert SampleFlags.unpack(row["flags"]) == SampleFlags(payload=Payload.NPY)
        assert (row["height"], row["width"]) == wanted.shape[:2]
        assert metadata["orientation"] == 1
        assert list(dataset.read_members(sample_id)) == ["npy", "cls", "json"]


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_raw_is_upright_and_brought_down(
    tmp_path, make_dataset, draw_photograph, encode, exif_block, orientation
):
    content = encode(draw_photograph(0, 90, 60), exif=exif_block(orientation))
    (tmp_path / "source").mkdir()
    (tmp_path / "source/1.jpg").write_bytes(content)
    dataset = open_dataset(make_dataset(tmp_path / "source", encode="raw", resize_short=40)[0])
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    size = (60, 40) if orientation < 5 else (40, 60)
    wanted = np.asarray(upright.resize(size, Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode_picture(dataset.read_payload(0)), wanted)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA"])
def test_raw_has_three_channels_whatever_the_source(tmp_path, make_dataset, encode, mode):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).convert(mode)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/1.tif").write_bytes(encode(image, "TIFF"))
    dataset = open_dataset(make_dataset(tmp_path / "source", encode="raw")[0])
    wanted = decode_picture((tmp_path / "source/1.tif").read_bytes())
    np.testing.assert_array_equal(decode_picture(dataset.read_payload(0)), wanted)


def test_a_header_takes_the_documented_room():
    for shape in [(1, 1, 3), (375, 500, 3), (65_535, 1, 3)]:
        payload = pack_npy(np.zeros(shape, np.uint8))
        assert len(payload) == PIXELS_AT + np.prod(shape)
        assert np.load(io.BytesIO(payload), allow_pickle=False).shape == shape


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_of_numpy_are_read(version):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    payload = write_npy(pixels, version=version)
    np.testing.assert_array_equal(decode_picture(payload), pixels)


def test_webdataset_decodes_the_samples(photographs, make_dataset):
    webdataset = pytest.importorskip("webdataset")
    dataset = open_dataset(make_dataset(photographs, encode="raw")[0])
    urls = [str(dataset.path / shard.name) for shard in dataset.manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(samples) == 12
    for sample_id, sample in enumerate(samples):
        wanted = decode_picture(dataset.read_payload(sample_id))
        np.testing.assert_array_equal(sample["npy"], wanted)


def test_loaders_give_the_same_views_of_raw_and_of_png(tmp_path, make_dataset, draw_photograph):
    for number in range(8):
        path = tmp_path / "source" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        draw_photograph(number).save(path)
    batches = []
    for encoding in ("keep", "raw"):
        path, _ = make_dataset(tmp_path / "source", encoding, encode=encoding)
        config = LoaderConfig(path=path, loader="webdataset", global_batch_size=8, num_threads=1)
        loader = build_loader(config, ViewSpec.random_resized_crop(16))
        batches.append(next(loader.one_pass()))
        loader.close()
    keep, raw = batches
    assert keep.sample_ids.tolist() == raw.sample_ids.tolist()
    np.testing.assert_array_equal(keep.images.numpy(), raw.images.numpy())


@pytest.mark.parametrize("encoding", ["keep", "raw"])
def test_raw_can_be_converted_again(photographs, make_dataset, encoding):
    first = open_dataset(make_dataset(photographs, "first", encode="raw")[0])
    second = open_dataset(make_dataset(first.path, "second", encode=encoding, keep_order=True)[0])
    assert second.num_samples == 12
    for i in range(12):
        assert second.read_payload(i) == first.read_payload(i)
        assert second.read_metadata(i) == first.read_metadata(i)


class Bomb:
    """Unpickling it raises in a way that no reader hides."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def with_header(text, pixels=b""):
    header = text.encode().ljust(117) + b"\n"
    return struct.pack("<6sBBH", b"\x93NUMPY", 1, 0, len(header)) + header + pixels


GOOD = write_npy(np.zeros((4, 5, 3), np.uint8))
HOSTILE = {
    "objects": (write_npy(np.array([Bomb()], object), allow_pickle=True), "non-image"),
    "floats": (write_npy(np.zeros((4, 5, 3), np.float32)), "non-image"),
    "grey": (write_npy(np.zeros((4, 5), np.uint8)), "non-image"),
    "four channels": (write_npy(np.zeros((4, 5, 4), np.uint8)), "non-image"),
    "fortran order": (write_npy(np.zeros((4, 5, 3), np.uint8, "F")), "non-image"),
    "no pixels": (write_npy(np.zeros((0, 5, 3), np.uint8)), "non-image"),
    "cut pixels": (GOOD[:-1], "truncated"),
    "cut header": (GOOD[:40], "truncated"),
    "only the magic": (GOOD[:6], "truncated"),
    "bytes behind": (GOOD + b"\0", "corrupt"),
    "long header": (struct.pack("<6sBBI", b"\x93NUMPY", 2, 0, 2**31) + b" " * 99, "non-image"),
    "nested": (with_header("(" * 110), "non-image"),
    "huge": (
        with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 99999999, 3), }"),
        "too-large",
    ),
    "code": (with_header("__import__('os')._exit(3)"), "non-image"),
    "a pickle": (pickle.dumps(Bomb()), "non-image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrays_are_refused_with_a_reason(name):
    payload, reason = HOSTILE[name]
    with pytest.raises(PictureError) as caught:
        open_picture(payload)
    assert caught.value.reason == reason


def test_arrays_that_are_no_pictures_are_left_out(photographs, make_dataset):
    for name, (payload, _) in HOSTILE.items():
        (photographs / "cat" / f"{name}.npy").write_bytes(payload)
    _, report = make_dataset(photographs, encode="raw")
    assert report.written == 12
    assert report.skipped == {"non-image": 10, "truncated": 3, "corrupt": 1, "too-large": 1}


def test_quality_is_said_to_be_ignored(photographs, make_dataset):
    with pytest.warns(UserWarning, match="--quality is ignored: --encode raw"):
        make_dataset(photographs, encode="raw", quality=50)
