"""Other loaders as their documentation uses them, for fastssl bench-loaders to compare with.

Each function yields uint8 batches for ever, in random order, on the CPU. ``NOTES`` says what each
does otherwise than ours. Shape legend: B images of a batch, S side of a view.
"""

from __future__ import annotations

import contextlib
import glob
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class PeerError(Exception):
    """A peer that cannot run here; the others are measured."""


@dataclass(frozen=True)
class PeerSettings:
    """What every loader is asked for."""

    path: Path
    """The dataset."""
    beton: Path
    """Its beton, for FFCV."""
    crop: str
    """``rrc`` (RandomResizedCrop of 0.08 to 1) or ``resize`` (short side, then a random square)."""
    resize: int
    """Short side for ``resize``, in pixels."""
    side: int
    """S, side of the views in pixels."""
    batch_size: int
    """B."""
    threads: int
    """Threads or worker processes."""


def list_shards(settings: PeerSettings) -> list[str]:
    """Return the tars of a dataset."""
    return sorted(glob.glob(f"{settings.path}/shard-*.tar"))


def _random_box(settings: PeerSettings, width: int, height: int) -> tuple[int, int, int, int]:
    """Draw left, top, width, height as torchvision does."""
    if settings.crop == "resize":
        side = round(min(width, height) * settings.side / settings.resize)
        return random.randint(0, width - side), random.randint(0, height - side), side, side
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, width - w), random.randint(0, height - h), w, h
    return 0, 0, width, height


# ---- torchvision -------------------------------------------------------------------------------


class _Payloads(torch.utils.data.Dataset):
    """Payloads of the same shards by their offsets: a file an image would be slower still."""

    def __init__(self, settings: PeerSettings) -> None:
        from torchvision.transforms import v2

        from ..shards import open_dataset

        self.dataset = open_dataset(settings.path)
        side = settings.side
        if settings.crop == "rrc":
            self.transform: Any = v2.RandomResizedCrop(side, antialias=True)
        else:
            resize = v2.Resize(settings.resize, antialias=True)
            self.transform = v2.Compose([resize, v2.RandomCrop(side)])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, sample_id: int) -> Tensor:
        from torchvision.io import ImageReadMode, decode_image

        payload = bytearray(self.dataset.fetch_payload(sample_id))
        image = decode_image(torch.frombuffer(payload, dtype=torch.uint8), ImageReadMode.RGB)
        return self.transform(image)


def run_torchvision(settings: PeerSettings) -> Iterator[Tensor]:
    """Yield (B, 3, S, S): DataLoader workers, decode_image, transforms v2 on tensors."""
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        _Payloads(settings),
        batch_size=settings.batch_size,
        shuffle=True,
        num_workers=settings.threads,
        drop_last=True,
        persistent_workers=True,
    )
    while True:
        yield from loader


# ---- webdataset --------------------------------------------------------------------------------


def run_webdataset(settings: PeerSettings) -> Iterator[Tensor]:
    """Yield (B, 3, S, S): DataLoader workers, decode("pil"), torchvision's transforms on PIL."""
    import webdataset
    from torchvision import transforms

    side = settings.side
    if settings.crop == "rrc":
        crop: Any = transforms.RandomResizedCrop(side)
    else:
        crop = transforms.Compose([transforms.Resize(settings.resize), transforms.RandomCrop(side)])
    samples = webdataset.WebDataset(list_shards(settings), resampled=True, shardshuffle=False)
    batches = (
        samples.shuffle(200)
        .decode("pil")
        .to_tuple("jpg")
        .map_tuple(lambda image: transforms.functional.pil_to_tensor(crop(image.convert("RGB"))))
        .batched(settings.batch_size)
    )
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=settings.threads)
    for (images,) in loader:
        yield images


# ---- DALI --------------------------------------------------------------------------------------


def run_dali(settings: PeerSettings) -> Iterator[Tensor]:
    """Yield (B, S, S, 3): its reader of such shards, decode of the box, its PyTorch iterator."""
    from nvidia import dali
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    # Made at run time: their types say less than their documentation.
    fn: Any = dali.fn
    types: Any = dali.types
    triangle = {"interp_type": types.INTERP_TRIANGULAR, "antialias": True}
    side, tars = settings.side, list_shards(settings)
    pipeline = dali.Pipeline(settings.batch_size, settings.threads, device_id=None)
    with pipeline:
        encoded = fn.readers.webdataset(
            paths=tars,
            index_paths=[f"{tar.removesuffix('.tar')}.idx" for tar in tars],
            ext=["jpg"],
            random_shuffle=True,
            name="reader",
        )
        if settings.crop == "rrc":
            images = fn.decoders.image_random_crop(
                encoded, random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3]
            )
            images = fn.resize(images, size=[side, side], **triangle)
        else:
            images = fn.decoders.image(encoded)
            images = fn.resize(images, resize_shorter=settings.resize, **triangle)
            x, y = (fn.random.uniform(range=[0.0, 1.0]) for _ in range(2))
            images = fn.crop(images, crop=[side, side], crop_pos_x=x, crop_pos_y=y)
        pipeline.set_outputs(images)
    batches = DALIGenericIterator([pipeline], ["images"], reader_name="reader", auto_reset=True)
    while True:
        with contextlib.suppress(StopIteration):  # it has reset itself
            while True:
                yield next(batches)[0]["images"]


# ---- FFCV --------------------------------------------------------------------------------------


def run_ffcv(settings: PeerSettings) -> Iterator[Tensor]:
    """Yield (B, S, S, 3): its loader, its decoder of random resized crops, the page cache."""
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    # It has no random crop of a resized picture; a square of a fixed share is the nearest.
    share = (settings.side / settings.resize) ** 2 if settings.crop == "resize" else 0
    area = {"scale": (share, share), "ratio": (1.0, 1.0)} if share else {}
    decoder = RandomResizedCropRGBImageDecoder((settings.side, settings.side), **area)
    loader = Loader(
        str(settings.beton),
        batch_size=settings.batch_size,
        num_workers=settings.threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        pipelines={
            "image": [decoder, ToTensor()],
            **dict.fromkeys(("label", "source", "stored")),
        },
    )
    while True:
        for (images,) in loader:
            yield images


# ---- SPDL --------------------------------------------------------------------------------------


def run_spdl(settings: PeerSettings) -> Iterator[Tensor]:
    """Yield (B, S, S, 3): its pipeline of threads, FFmpeg's decoder and crop-and-scale filter."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    from ..shards import open_dataset

    dataset = open_dataset(settings.path)

    def draw() -> Iterator[int]:
        while True:
            yield from random.sample(range(len(dataset)), len(dataset))

    def decode(sample_id: int) -> Any:
        row = dataset.index[sample_id]
        width, height = int(row["width"]), int(row["height"])
        if row["flags"] & 7 >= 4:  # stored on its side, and FFmpeg leaves it there
            width, height = height, width
        left, top, w, h = _random_box(settings, width, height)
        scale = f"scale={settings.side}:{settings.side}:flags=bilinear"
        packets = spdl.io.demux_image(dataset.fetch_payload(sample_id))
        return spdl.io.decode_packets(
            packets, filter_desc=f"crop={w}:{h}:{left}:{top},{scale},format=pix_fmts=rgb24"
        )

    def collate(frames: list[Any]) -> Tensor:
        return spdl.io.to_torch(spdl.io.convert_frames(frames))

    decode(0)  # a pipeline goes on past samples that fail, for ever if FFmpeg is absent
    pipeline = (
        PipelineBuilder()
        .add_source(draw())
        .pipe(decode, concurrency=settings.threads)
        .aggregate(settings.batch_size)
        .pipe(collate)
        .add_sink(2)
        .build(num_threads=settings.threads)
    )
    with pipeline.auto_stop():
        yield from pipeline


PEERS: dict[str, tuple[Callable[[PeerSettings], Iterator[Tensor]], tuple[str, ...]]] = {
    "torchvision": (run_torchvision, ("torchvision",)),
    "wds-plain": (run_webdataset, ("webdataset", "torchvision")),
    "dali-plain": (run_dali, ("nvidia.dali",)),
    "ffcv-plain": (run_ffcv, ("ffcv",)),
    "spdl": (run_spdl, ("spdl.io",)),
}
"""Name: what runs it, and the packages that it needs."""

NOTES = {
    "torchvision": "pictures in planes (B, 3, S, S); no CRC, no orientation",
    "wds-plain": "planes (B, 3, S, S); shards with replacement, a buffer of 200; no CRC, no "
    "orientation",
    "dali-plain": "shuffles a buffer of 1,024; no CRC; damaged pictures end the run",
    "ffcv-plain": "the beton's stored size and quality; fast DCT, area filter; no CRC; for resize "
    "views a random square of the same share of the whole picture",
    "spdl": "FFmpeg's decoder and bilinear scaler; no CRC, no orientation",
}
"""What each does otherwise than ours."""
