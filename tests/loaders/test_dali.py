"""What is DALI's alone: its pictures, what it refuses, and where it cannot work."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.config import LoaderConfig
from fastssl.errors import InputError, RunFailed
from fastssl.loaders import build_loader
from fastssl.loaders import dali as dali_loader
from fastssl.loaders import dali_pipeline as dali_side
from fastssl.loaders.reference import cut_views
from fastssl.shards import SampleFlags, decode_picture, open_dataset, reader
from fastssl.shards.index import HEADER_BYTES, ROW
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.views import ViewSpec, draw_boxes, list_views
from tests.conftest import NUM_SAMPLES, save_photograph
from tests.patience import HANGS_AFTER_S

RRC = ViewSpec.random_resized_crop(16, scale=(0.3, 1.0))
SEED = 5

# DALI rounds its resampling otherwise: 0.15 to 0.24 of 255 in the mean on ImageNet photographs.
# These pictures are small and noisy.
DISTANCE = 0.4


@pytest.fixture
def build():
    """Build loaders and close them all in the end."""
    loaders = []

    def build_one(path, views=RRC, **settings):
        settings = {"global_batch_size": 8, "num_threads": 2, "seed": SEED, **settings}
        settings.setdefault("allow_repeat_in_batch", True)
        config = LoaderConfig(path=path, loader="dali", **settings)
        loaders.append(build_loader(config, views))
        return loaders[-1]

    yield build_one
    for loader in loaders:
        loader.close()


def reference_views(path, views, sample_id, epoch=0):
    with_picture = decode_picture(open_dataset(path).read_payload(sample_id))
    height, width = with_picture.shape[:2]
    specs = list_views(views)
    boxes = draw_boxes(specs, [width], [height], SEED, epoch, sample_id)[0]
    return cut_views(Image.fromarray(with_picture), specs, boxes).astype(int)


def distances(path, views, batches):
    """Return the mean absolute difference of each sample from the reference picture."""
    return {
        int(sample_id): np.abs(
            image.numpy() - reference_views(path, views, int(sample_id), int(epoch))
        ).mean()
        for batch in batches
        for sample_id, epoch, image in zip(
            batch.sample_ids, batch.epochs, batch.images, strict=True
        )
    }


def make_dataset(root, files, **options):
    """Write files, by name, and make them a dataset whose ids are in the order of the names."""
    (root / "photos").mkdir(parents=True)
    for name, content in files.items():
        (root / "photos" / name).write_bytes(content)
    settings = {"keep_order": True, "workers": 1, **options}
    convert(ConvertConfig(root / "photos", root / "shards", **settings))
    return root / "shards"


def photograph(tmp_path, number):
    save_photograph(tmp_path / "photograph.jpg", number)
    return (tmp_path / "photograph.jpg").read_bytes()


def encode(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def smooth(width, height, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def with_stray_bytes(jpeg):
    """Put bytes between two segments: libjpeg warns and goes on, DALI's parser gives up."""
    at = jpeg.index(b"\xff\xc0")
    return jpeg[:at] + b"\x12\x34\x56" + jpeg[at:]


def with_turned_bits(jpeg):
    """Damage the coded pixels in the middle: decoders warn, and show the same strange picture."""
    at = (jpeg.index(b"\xff\xda") + len(jpeg)) // 2
    return jpeg[:at] + b"\x01\x02\x03\x04" + jpeg[at + 4 :]


def trust_all(path):
    """Clear the flag that asks for the reference decoder, so that every sample goes to DALI."""
    bit = SampleFlags(use_reference=True).pack()
    rows = np.memmap(path / "index.bin", ROW, "r+", HEADER_BYTES)
    rows["flags"] &= ~np.uint32(bit)
    rows.flush()


# ---------------------------------------------------------------- pictures

VIEWS = {
    "random_resized_crop": RRC,
    "resize_crop": ViewSpec.resize_crop(20, 16),
    "center": ViewSpec.center(20, 16),
    "squash": ViewSpec.squash(16),
    "squash_crop": ViewSpec.squash_crop(20, 16),
    "resize_squash": ViewSpec.resize_squash(20, 16),
    "enlarged": ViewSpec.resize_crop(200, 128),
    "area": ViewSpec.random_resized_crop(16, filter="area"),
    "area resize_squash": ViewSpec.resize_squash(20, 16, filter="area"),
    "area enlarged": ViewSpec.resize_crop(200, 128, filter="area"),
    "fit": ViewSpec.fit(14, 24),
    "area fit": ViewSpec.fit(14, 24, filter="area"),
    "several": [RRC, RRC, ViewSpec.resize_squash(20, 16)],
    "several with area": [
        RRC,
        ViewSpec.squash(16, filter="area"),
        ViewSpec.resize_squash(20, 16, filter="area"),
    ],
}


@pytest.mark.parametrize("views", VIEWS.values(), ids=VIEWS)
def test_every_view_is_near_the_reference(build, dataset_path, views):
    found = distances(dataset_path, views, build(dataset_path, views, max_samples=12).one_pass())
    assert len(found) == 12
    assert max(found.values()) < DISTANCE


@pytest.mark.parametrize(
    "views",
    [
        RRC,
        [RRC, ViewSpec.resize_squash(12, 16)],
        ViewSpec.fit(12, 16),
        [ViewSpec.fit(12, 16), RRC, ViewSpec.fit(9, 16)],
    ],
    ids=["one", "two", "fit", "with fit"],
)
@pytest.mark.parametrize("form", ["444", "420", "grey"])
def test_all_orientations_at_odd_sizes_are_upright(build, tmp_path, form, views):
    files = {}
    for width, height in ((33, 21), (17, 40), (64, 48)):
        for orientation in range(1, 9):
            image = smooth(width, height, seed=width)
            exif = Image.Exif()
            exif[0x0112] = orientation
            options = {"quality": 92, "exif": exif, "subsampling": {"444": 0}.get(form, 2)}
            image = image.convert("L") if form == "grey" else image
            files[f"{width}-{orientation}.jpg"] = encode(image, **options)
    path = make_dataset(tmp_path, files)
    batches = list(build(path, views).one_pass())
    assert sum(batch.fallback_decodes for batch in batches) == 0
    found = distances(path, views, batches)
    assert len(found) == 24
    assert max(found.values()) < DISTANCE


def test_a_damaged_exif_block_turns_nothing(build, tmp_path):
    # Orientation 6 in an entry of two values: DALI would turn the picture, the reference does not.
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x02\x00\x06\x00\x00"
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + entry + bytes(4)
    path = make_dataset(tmp_path, {"a.jpg": encode(smooth(40, 30), exif=exif)})
    assert max(distances(path, RRC, build(path).one_pass()).values()) < DISTANCE


PICTURES = {
    "progressive": lambda image: encode(image, progressive=True, quality=90),
    "grey": lambda image: encode(image.convert("L")),
    "grey png": lambda image: encode(image.convert("L"), "PNG"),
    "png": lambda image: encode(image, "PNG"),
    "restart markers": lambda image: encode(image, restart_marker_blocks=1),
    "damaged": lambda image: with_turned_bits(encode(image, quality=90)),
    "one pixel": lambda image: encode(image.resize((1, 1))),
    "one column": lambda image: encode(image.resize((1, 31))),
}


@pytest.mark.parametrize("views", [RRC, [RRC, RRC]], ids=["one", "two"])
@pytest.mark.parametrize("make", PICTURES.values(), ids=PICTURES)
def test_dali_decodes_odd_pictures(build, tmp_path, make, views):
    path = make_dataset(tmp_path, {"a.image": make(smooth(50, 37))})
    batches = list(build(path, views).one_pass())
    assert batches[0].fallback_decodes == 0
    assert max(distances(path, views, batches).values()) < DISTANCE


OTHERS = {
    "cmyk": lambda image: encode(image.convert("CMYK"), quality=90),
    "rgb": lambda image: encode(image, keep_rgb=True),
    "transparent png": lambda image: encode(image.convert("L").convert("LA"), "PNG"),
    "palette png": lambda image: encode(image.convert("P"), "PNG"),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_flagged_pictures_are_counted_fallbacks(build, tmp_path, make):
    path = make_dataset(tmp_path, {"a.image": make(smooth(50, 37))})
    batches = list(build(path).one_pass())
    assert batches[0].fallback_decodes == 1
    assert distances(path, RRC, batches) == {0: 0.0}


def test_raw_pixels_need_no_decoder_and_no_fallback(build, tmp_path):
    files = {f"{n}.jpg": encode(smooth(30 + n, 40)) for n in range(3)}
    path = make_dataset(tmp_path, files, encode="raw")
    batches = list(build(path, [RRC, RRC]).one_pass())
    assert batches[0].fallback_decodes == 0
    assert distances(path, [RRC, RRC], batches) == {0: 0.0, 1: 0.0, 2: 0.0}


def test_a_huge_picture_is_decoded(build, tmp_path):
    huge = encode(smooth(12000, 9000), quality=60)
    path = make_dataset(tmp_path, {"a.jpg": huge, "b.jpg": encode(smooth(40, 30))})
    view = ViewSpec.resize_crop(64, 64)
    batches = list(build(path, view).one_pass())
    assert batches[0].fallback_decodes == 0
    assert max(distances(path, view, batches).values()) < DISTANCE


@pytest.mark.parametrize("views", [RRC, [RRC, RRC]], ids=["one", "two"])
def test_a_batch_decoded_in_parts_is_the_same(build, dataset_path, monkeypatch, views):
    whole = [batch.images.clone() for batch in build(dataset_path, views).one_pass()]
    monkeypatch.setattr(dali_loader, "MAX_RUN_BYTES", 12_000)
    parts = [batch.images.clone() for batch in build(dataset_path, views).one_pass()]
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [(16, 16), (23, 31), (64, 5), (100, 80), (1, 1), (7, 200)])
def test_resize_area_is_pillows_box_filter(size):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    found = dali_side.resize_area(torch.from_numpy(pixels), *size).numpy()
    # Pillow's fixed-point weights may round a half the other way.
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_boxes_hold_the_pixels_of_upright_ones(orientation):
    image = smooth(11, 7)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode_picture(encode(image, "PNG", exif=exif))
    height, width = upright.shape[:2]
    box = np.array([[[2, 1, 4, 4]]], np.int32)
    (left, top, w, h), *_ = dali_side.to_stored_boxes(
        box, np.array([width]), np.array([height]), np.array([orientation])
    )[0].tolist()
    crop = torch.from_numpy(np.array(image)[top : top + h, left : left + w].copy())[None]
    turned = dali_side.turn_views(crop, orientation)[0]
    assert np.array_equal(turned.numpy(), upright[1:5, 2:6])


# ---------------------------------------------------------------- what DALI refuses


@pytest.fixture
def refused_path(tmp_path):
    """Twenty photographs; DALI refuses those with ids 3, 4 and 17."""
    files = {}
    for number in range(20):
        jpeg = photograph(tmp_path, number)
        files[f"{number:02d}.jpg"] = with_stray_bytes(jpeg) if number in (3, 4, 17) else jpeg
    path = make_dataset(tmp_path / "refused", files)
    trust_all(path)
    return path


@pytest.mark.parametrize("views", [RRC, [RRC, RRC]], ids=["one", "two"])
def test_refused_samples_come_from_the_reference_decoder(build, refused_path, views):
    batches = list(build(refused_path, views).one_pass())
    ids = [i for batch in batches for i in batch.sample_ids.tolist()]
    assert ids == list(range(20))
    assert [batch.fallback_decodes for batch in batches] == [2, 0, 1]
    found = distances(refused_path, views, batches)
    assert max(found.values()) < DISTANCE
    assert [found[i] for i in (3, 4, 17)] == [0, 0, 0]
    assert not any(batch.substitutions for batch in batches)


def test_refused_samples_are_counted_in_every_epoch(build, refused_path):
    loader = build(refused_path, global_batch_size=10)
    batches = list(itertools.islice(loader, 6))
    counts = [batch.fallback_decodes for batch in batches]
    assert [sum(counts[i : i + 2]) for i in (0, 2, 4)] == [3, 3, 3]
    assert loader.refused == {3, 4, 17}
    assert max(distances(refused_path, RRC, batches).values()) < DISTANCE


def test_a_batch_of_refused_samples_alone(build, tmp_path):
    jpeg = with_stray_bytes(photograph(tmp_path, 0))
    path = make_dataset(tmp_path / "refused", {"a.jpg": jpeg, "b.jpg": jpeg})
    trust_all(path)
    batches = list(build(path).one_pass())
    assert [batch.fallback_decodes for batch in batches] == [2]
    assert distances(path, RRC, batches) == {0: 0.0, 1: 0.0}


def test_a_failure_of_dali_itself_ends_the_run():
    pipeline = dali_side.DaliPipeline((RRC,), 4, 1, torch.device("cpu"))
    payload = np.frombuffer(encode(smooth(20, 20)), np.uint8)
    box = np.array([[[0, 0, 20, 20]]], np.int32)
    run = dali_side.DaliRun([0], [payload], box, np.ones(1, np.int64), box[..., 2:])
    # No sample is at fault: what failed once is decoded when it is tried alone.
    with pytest.raises(RunFailed, match=r"whatever the samples \(out of memory\)"):
        pipeline._find_refused(run, "out of memory")
    pipeline.close()


# ---------------------------------------------------------------- one read, one decode


def test_a_sample_is_read_once_for_all_its_views(build, dataset_path, monkeypatch):
    reads = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
    batches = list(build(dataset_path, [RRC, RRC, RRC]).one_pass())
    assert sum(map(len, batches)) == len(reads) == NUM_SAMPLES


@pytest.mark.parametrize("num_views", [1, 2, 5])
def test_the_graph_decodes_once_whatever_the_views(num_views):
    from nvidia.dali import Pipeline

    pipe = Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipe:
        pipe.set_outputs(*dali_side._build_graph((RRC,) * num_views, on_gpu=False))
    assert pipe.serialize().count(b"decoders__Image") == 1


# ---------------------------------------------------------------- life and death


def test_a_batch_outlives_its_loader(build, dataset_path):
    loader = build(dataset_path)
    batch = next(iter(loader))
    kept = batch.images.clone()
    loader.close()
    for _ in build(dataset_path).one_pass():
        pass
    assert torch.equal(batch.images, kept)


def test_two_streams_at_once_do_not_meet(build, dataset_path):
    loader = build(dataset_path)
    alone = [batch.images.clone() for batch in loader.one_pass()]
    for a, b, wanted in zip(loader.one_pass(), iter(loader), alone, strict=False):
        assert torch.equal(a.images, wanted)
        assert not torch.equal(b.images, wanted)


def test_shards_that_disappear_end_the_run_in_the_consumer(build, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "RETRY_WAIT_S", 0)
    files = {f"{n}.jpg": encode(smooth(30 + n, 40)) for n in range(3)}
    path = make_dataset(tmp_path, files)
    loader = build(path)
    for shard in path.glob("*.tar"):
        os.truncate(shard, 0)
    with pytest.raises(RunFailed, match="substitutes cannot be read"):
        next(iter(loader))


def test_every_stage_is_timed(build, dataset_path):
    loader = build(dataset_path)
    batch = next(iter(loader))
    assert set(batch.stage_s) == {"read", "check", "decode", "collate"}
    assert min(batch.stage_s.values()) > 0
    assert loader.stage_workers["decode"] == 2


def test_a_program_may_end_while_batches_are_made(dataset_path):
    program = f"""
from fastssl.config import LoaderConfig
from fastssl.loaders import build_loader
from fastssl.views import ViewSpec
config = LoaderConfig(path={str(dataset_path)!r}, loader="dali", global_batch_size=8)
loader = build_loader(config, ViewSpec.squash(16))
batches = iter(loader)
next(batches)
raise SystemExit(75)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGS_AFTER_S
    )
    assert (done.returncode, done.stderr) == (75, "")


# ---------------------------------------------------------------- where it cannot work


def test_without_dali_the_install_line_is_given(build, dataset_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(InputError, match=r'pip install "fastssl\[dali\]" or .*nvidia-dali-cuda1'):
        build(dataset_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_device_is_refused(dataset_path):
    config = LoaderConfig(path=dataset_path, loader="dali", global_batch_size=8)
    with pytest.raises(InputError, match=r"device \('cuda'\) .*use device cpu|needs a torch"):
        build_loader(config, RRC, device="cuda")


def test_a_build_for_another_cuda_is_refused():
    dali_loader.check_cuda(12, "12.8")
    with pytest.raises(InputError, match="pip install nvidia-dali-cuda120"):
        dali_loader.check_cuda(13, "12.8")
    with pytest.raises(InputError, match="torch that was built for CUDA"):
        dali_loader.check_cuda(13, None)
