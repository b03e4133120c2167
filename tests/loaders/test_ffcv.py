"""What is the FFCV back end's own; the contract suite holds for it too."""

from __future__ import annotations

import io
import itertools
import logging
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.config import LoaderConfig
from fastssl.errors import InputError, RunFailed
from fastssl.loaders import build_loader
from fastssl.loaders.reference import cut_views
from fastssl.shards import beton as betons
from fastssl.shards import decode_picture, open_dataset
from fastssl.shards.beton import BetonOptions, write_beton
from fastssl.views import ViewSpec, draw_boxes, fitted_sizes, list_views, scale_boxes

pytest.importorskip("ffcv", reason="ffcv is not installed")

VIEW = ViewSpec.resize_crop(32, 24)


@pytest.fixture
def build(dataset_path, tmp_path):
    """Build loaders on betons of the dataset; close them in the end."""
    loaders = []

    def build_one(encode="keep", views=VIEW, beton=None, rank=0, world_size=1, **settings):
        options = {key: settings.pop(key) for key in ("max_side", "quality") if key in settings}
        if beton is None:
            beton = tmp_path / f"{encode}{len(loaders)}.beton"
            dataset = open_dataset(dataset_path)
            write_beton(dataset, beton, BetonOptions(encode, **options), workers=1)
            dataset.close()
        settings = {"global_batch_size": 16, "num_threads": 2, "seed": 5, **settings}
        config = LoaderConfig(path=dataset_path, loader="ffcv", beton=beton, **settings)
        loaders.append(build_loader(config, views, rank, world_size))
        return loaders[-1]

    yield build_one
    for loader in loaders:
        loader.close()


def mean_difference(loader, views, max_side=0):
    """Compare two batches with the reference picture, reduced as the beton's are."""
    dataset = loader.dataset
    differences = []
    for batch in itertools.islice(loader, 2):
        for image, sample_id, epoch in zip(
            batch.images, batch.sample_ids.tolist(), batch.epochs.tolist(), strict=True
        ):
            picture = Image.fromarray(decode_picture(dataset.read_payload(sample_id)))
            width, height = picture.size
            boxes = draw_boxes(views, [width], [height], 5, epoch, sample_id)
            sizes = fitted_sizes(views, boxes)[0]
            if max_side and max(width, height) > max_side:
                scale = max_side / max(width, height)
                size = tuple(max(1, round(side * scale)) for side in (width, height))
                boxes = scale_boxes(boxes, [width], [height], [size[0]], [size[1]])
                picture = picture.resize(size, Image.Resampling.BILINEAR)
            wanted = cut_views(picture, views, boxes[0], sizes).astype(int)
            differences.append(np.abs(image.numpy() - wanted).mean())
    return np.mean(differences)


@pytest.mark.parametrize("encode", ["raw", "smart"])
def test_raw_pixels_differ_by_the_filter_alone(build, encode):
    views = list_views(VIEW)
    assert mean_difference(build(encode), views) < 2


@pytest.mark.parametrize("encode", ["keep", "jpg", "raw"])
def test_boxes_follow_pictures_that_were_reduced(build, encode):
    views = list_views([ViewSpec.random_resized_crop(12), ViewSpec.squash(12)])
    assert mean_difference(build(encode, views=views, max_side=40), views, max_side=40) < 4


def test_two_resamplings_are_two(build):
    views = list_views(ViewSpec.resize_squash(30, 20))
    # Each resampling of the tiny noisy pictures adds its own difference.
    assert mean_difference(build("raw", views=views), views) < 3


def test_what_fits_has_its_size_of_a_reduced_picture_too(build):
    views = list_views(ViewSpec.fit(20, 24))
    assert mean_difference(build("raw", views=views, max_side=40), views, max_side=40) < 4


def replace_stored(path, sample_id, payload):
    """Put other bytes, with their CRC-32, in the place of a picture; they must not be longer."""
    with path.open("r+b") as file:
        content = bytearray(path.read_bytes())
        header = np.frombuffer(content, betons.HEADER, 1)[0]
        start = betons.HEADER.itemsize + int(header["num_fields"]) * betons.FIELD.itemsize
        place = start + sample_id * betons.ROW.itemsize
        row = np.frombuffer(content, betons.ROW, 1, place).copy()
        assert len(payload) <= int(row[0]["stored"]) >> 32
        row["stored"] = len(payload) << 32 | betons.crc32(payload)
        file.seek(place)
        file.write(row.tobytes())
        file.seek(int(row[0]["image"]["data_ptr"]))
        file.write(payload)


def test_what_libffcv_refuses_goes_to_the_reference_decoder(build, dataset_path):
    whole = build()
    beton = whole.config.beton
    dataset = open_dataset(dataset_path)
    picture = Image.fromarray(decode_picture(dataset.read_payload(9))).convert("CMYK")
    dataset.close()
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=20)
    replace_stored(beton, 9, buffer.getvalue())
    batches = list(build(beton=beton).one_pass())
    assert sum(batch.fallback_decodes for batch in batches) == 1
    assert not any(batch.substitutions for batch in batches)
    images = torch.cat([batch.images for batch in batches])
    views = list_views(VIEW)
    boxes = draw_boxes(views, [picture.width], [picture.height], 5, 0, 9)[0]
    wanted = cut_views(Image.fromarray(decode_picture(buffer.getvalue())), views, boxes)
    assert (images[9].numpy() == wanted).all()


def test_a_dataset_whose_every_sample_is_bad_ends_the_run(build):
    loader = build()
    with loader.config.beton.open("r+b") as file:
        file.truncate(200)
    with pytest.raises(RunFailed, match="substitutes cannot be read"):
        next(iter(loader))


def test_ranks_share_a_file(build):
    beton = build().config.beton
    ranks = [build(beton=beton, rank=rank, world_size=2) for rank in range(2)]
    alone = next(iter(build(beton=beton)))
    parts = [next(iter(loader)) for loader in ranks]
    for rank, part in enumerate(parts):
        assert torch.equal(part.images, alone.images[rank::2])


def test_a_pass_beside_the_stream_changes_neither(build):
    loader = build()
    wanted = [batch.images.clone() for batch in itertools.islice(loader, 4)]
    again = build(beton=loader.config.beton)
    stream = iter(again)
    found = [next(stream).images.clone() for _ in range(2)]
    assert sum(len(batch) for batch in again.one_pass()) == 47
    found += [next(stream).images.clone() for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_batches_lie_ready_while_the_user_works(build):
    loader = build(prefetch_batches=3)
    next(iter_of := iter(loader))
    deadline = threading.Event()
    while loader.num_ready() < 3:
        assert not deadline.wait(0.01)
    iter_of.close()


def test_it_says_what_it_will_hold(build, caplog):
    with caplog.at_level(logging.INFO):
        build()
    assert f"47 samples (keep); their rows, {betons.ROW.itemsize} bytes each" in caplog.text


def test_a_missing_beton_tells_the_command(build, tmp_path):
    with pytest.raises(InputError, match=r"make it: fastssl make-beton .* or name another"):
        build(beton=tmp_path / "none.beton")
