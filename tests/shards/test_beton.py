"""Betons: FFCV reads what we write, and what is not ours is refused."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from fastssl.errors import InputError
from fastssl.shards import decode_picture, open_dataset
from fastssl.shards.beton import (
    BETON_NAME,
    JPG,
    RAW,
    Beton,
    BetonOptions,
    store_picture,
    write_beton,
)
from fastssl.shards.index import Payload, SampleFlags


@pytest.fixture
def dataset(dataset_path):
    dataset = open_dataset(dataset_path)
    yield dataset
    dataset.close()


def write(dataset, folder, encode, **options):
    path = folder / BETON_NAME
    report = write_beton(dataset, path, BetonOptions(encode, **options), workers=1)
    return path, report


def read(beton, sample_id):
    row = beton.locate(sample_id)
    with beton.path.open("rb") as file:
        file.seek(int(row["image"]["data_ptr"]))
        return row, file.read(int(row["stored"]) >> 32)


def test_kept_jpegs_are_the_datasets_bytes_under_the_same_ids(dataset, tmp_path):
    path, report = write(dataset, tmp_path, "keep")
    beton = Beton(path, dataset.digest, dataset.num_samples)
    for sample_id in range(len(dataset)):
        row, content = read(beton, sample_id)
        assert content == dataset.read_payload(sample_id)
        assert int(row["label"]) == int(dataset.index["label"][sample_id])
        size = int(row["source"])
        assert size >> 16 == dataset.index["width"][sample_id]
        assert size & 0xFFFF == dataset.index["height"][sample_id]
    beton.close()
    assert report["jpg"] == len(dataset)
    assert report["bytes"] == path.stat().st_size


def test_raw_pixels_are_the_reference_picture(dataset, tmp_path):
    path, report = write(dataset, tmp_path, "raw")
    beton = Beton(path, dataset.digest, dataset.num_samples)
    row, content = read(beton, 5)
    beton.close()
    wanted = decode_picture(dataset.read_payload(5))
    assert (int(row["image"]["height"]), int(row["image"]["width"])) == wanted.shape[:2]
    assert content == wanted.tobytes()
    assert report["raw"] == len(dataset)


def test_smart_keeps_pixels_where_they_are_small(dataset, tmp_path):
    (tmp_path / "few").mkdir()
    assert write(dataset, tmp_path, "smart", smart_ratio=1e6)[1]["jpg"] == 0
    assert write(dataset, tmp_path / "few", "smart", smart_ratio=0.01)[1]["raw"] == 0


@pytest.mark.parametrize("encode", ["jpg", "keep", "raw", "smart"])
def test_the_longer_side_is_reduced(dataset, encode):
    payload = dataset.read_payload(3)
    height, width = decode_picture(payload).shape[:2]
    stored = store_picture(payload, SampleFlags(), BetonOptions(encode, max_side=20))
    assert max(stored.width, stored.height) == 20
    assert abs(stored.width / stored.height - width / height) < 0.1


def save(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_a_turned_picture_is_stored_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(40 * 60 * 3, dtype=np.int64).reshape(40, 60, 3) // 29 % 256
    payload = save(Image.fromarray(pixels.astype(np.uint8)), quality=95, exif=exif)
    stored = store_picture(payload, SampleFlags(orientation=6), BetonOptions("keep"))
    assert (stored.width, stored.height) == (40, 60)
    difference = decode_picture(stored.content).astype(int) - decode_picture(payload)
    assert np.abs(difference).mean() < 4  # encoded once more, at quality 90


def test_what_libffcv_cannot_decode_is_encoded_anew():
    payload = save(Image.new("CMYK", (30, 20), (10, 200, 30, 0)))
    stored = store_picture(payload, SampleFlags(use_reference=True), BetonOptions("keep"))
    assert Image.open(io.BytesIO(stored.content)).mode == "RGB"
    assert stored.mode == JPG
    assert SampleFlags().payload == Payload.JPEG


def test_ffcv_itself_reads_the_file(dataset, tmp_path):
    loader = pytest.importorskip("ffcv.loader", reason="ffcv is not installed")
    from ffcv.fields.decoders import IntDecoder
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
    from ffcv.transforms import ToTensor

    path, _ = write(dataset, tmp_path, "raw")
    numbers = [IntDecoder(), ToTensor()]
    pipelines = {"image": [CenterCropRGBImageDecoder((16, 16), 1.0), ToTensor()]}
    pipelines |= {"label": numbers, "source": None, "stored": None}
    plain = loader.Loader(
        str(path), batch_size=8, num_workers=1, pipelines=pipelines, drop_last=False
    )
    images, labels = zip(*((i.clone(), n.clone()) for i, n in plain), strict=True)
    found = np.concatenate([part.numpy().ravel() for part in labels])
    assert found.tolist() == dataset.index["label"].tolist()
    assert sum(len(part) for part in images) == len(dataset)
    pixels = decode_picture(dataset.read_payload(0))
    assert abs(float(images[0][0].float().mean()) - pixels.mean()) < 15


def test_a_file_that_is_not_there_tells_the_command(dataset, tmp_path):
    with pytest.raises(InputError, match=r"no such beton; make it: fastssl make-beton"):
        Beton(tmp_path / "none.beton", dataset.digest, dataset.num_samples)


def test_a_beton_of_another_dataset_is_refused(dataset, tmp_path):
    path, _ = write(dataset, tmp_path, "keep")
    with pytest.raises(InputError, match="made from the dataset"):
        Beton(path, "0" * 64, 47)


def test_a_truncated_beton_is_refused(dataset, tmp_path):
    path, _ = write(dataset, tmp_path, "keep")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(InputError, match=r"bytes, \d+ were written"):
        Beton(path, dataset.digest, dataset.num_samples)


@pytest.mark.parametrize("content", [b"", b"\2\0", b"\3\0" + bytes(2000), b"PNG" * 1000])
def test_another_file_is_refused(dataset, tmp_path, content):
    path = tmp_path / "other.beton"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no beton of FFCV's format 2"):
        Beton(path, dataset.digest, dataset.num_samples)


def test_a_beton_that_ffcv_wrote_says_nothing_of_its_dataset(dataset, tmp_path):
    path, _ = write(dataset, tmp_path, "keep")
    content = bytearray(path.read_bytes())
    place = content.index(b'{"fastssl"')
    content[place : place + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(InputError, match="nothing says which dataset it holds"):
        Beton(path, dataset.digest, dataset.num_samples)


def test_a_missing_shard_leaves_no_file(dataset_path, tmp_path):
    copy = tmp_path / "shards"
    shutil.copytree(dataset_path, copy)
    dataset = open_dataset(copy)
    (copy / dataset.manifest.shards[-1].name).unlink()
    with pytest.raises(InputError, match="the shard is missing"):
        write(dataset, tmp_path, "keep")
    dataset.close()
    assert not (tmp_path / BETON_NAME).exists()
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encode": "jpeg"}, r"encode \('jpeg'\) is not known; did you mean 'jpg'"),
        ({"max_side": -1}, r"max_side \(-1\)"),
        ({"quality": 0}, r"quality \(0\) must lie in 1 \.\. 100"),
        ({"smart_ratio": 0.0}, r"smart_ratio \(0\.0\)"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        BetonOptions(**options)


def test_modes_are_ffcvs():
    modes = pytest.importorskip("ffcv.fields.rgb_image", reason="ffcv is not installed").IMAGE_MODES
    assert (modes["jpg"], modes["raw"]) == (JPG, RAW)
