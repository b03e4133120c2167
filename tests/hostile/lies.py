"""What a dataset and a beton may say that is not so, and how it is written into them.

Everything here writes into files that are there; checksums are made to fit unless they are the lie.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fastssl.shards import beton as betons
from fastssl.shards import open_dataset
from fastssl.shards.index import HEADER_BYTES, INDEX_NAME, ROW
from fastssl.shards.npy import pack_header

from .sources import encode

ROWS: dict[str, tuple[str, int, str]] = {
    "no width": ("width", 0, "0 x "),
    "no height": ("height", 0, " x 0 px"),
    "a billion pixels": ("width", 65535, "pixels are decoded"),
    "payload kind 5": ("flags", 5 << 5, "payload kind 5"),
    "no bytes": ("length", 0, "0 bytes of payload kind 0"),
    "2 GB": ("length", 2**31, "2147483648 bytes of payload"),
    "4 GB": ("length", 2**32 - 1, "4294967295 bytes of payload"),
    "longer than its shard": ("length", 2**29, "536870912 bytes at"),
    "behind 2**63": ("offset", 2**63 + 512, "bytes at 9223372036854776320"),
    "the last byte of all": ("offset", 2**64 - 512, "bytes at 18446744073709551104"),
    "in the first header": ("offset", 0, "bytes at 0"),
    "between two blocks": ("offset", 513, "bytes at 513"),
    "a span of nothing": ("span", 0, "a span of 0"),
    "a span of 4 GB": ("span", 2**32 - 1, "a span of 4294967295"),
    "label 99": ("label", 99, "label 99"),
    "label -2": ("label", -2, "label -2"),
}
"""Lies of a row by name: its field, what it says, and what is to be heard of it."""


def edit_row(folder: Path, sample_id: int, **fields: int) -> None:
    """Have a row of a dataset's index say something else."""
    path = folder / INDEX_NAME
    content = bytearray(path.read_bytes())
    row = np.frombuffer(content, ROW, 1, HEADER_BYTES + sample_id * ROW.itemsize)
    for name, value in fields.items():
        row[name][0] = value
    path.write_bytes(content)


def tell_row_lie(folder: Path, sample_id: int, name: str) -> None:
    """Have a row tell one of ``ROWS``."""
    field, value, _ = ROWS[name]
    edit_row(folder, sample_id, **{field: value})
    if name == "a billion pixels":
        edit_row(folder, sample_id, height=65535)


def set_jpeg_size(payload: bytes, width: int, height: int) -> bytes:
    """Have the frame header of a baseline JPEG say another size."""
    place = payload.index(b"\xff\xc0") + 5
    return payload[:place] + struct.pack(">HH", height, width) + payload[place + 4 :]


def _png_of_size(width: int, height: int) -> bytes:
    payload = bytearray(encode(Image.new("RGB", (1, 1)), "PNG"))
    payload[16:24] = struct.pack(">II", width, height)
    payload[29:33] = struct.pack(">I", zlib.crc32(payload[12:29]))
    return bytes(payload)


def _scan_again(old: bytes) -> bytes:
    with Image.open(io.BytesIO(old)) as picture:
        flat = Image.new("L", picture.size, 128)
    payload = encode(flat, progressive=True, quality=10)
    start = payload.rindex(b"\xff\xda")
    return payload[:-2] + payload[start:-2] * 100 + payload[-2:]


PICTURES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "zeros": (lambda old: bytes(len(old)), "non-image"),
    "noise": (lambda old: np.random.default_rng(0).bytes(len(old)), "non-image"),
    "text": (lambda _: b"hello", "non-image"),
    "a JPEG's first bytes": (lambda old: old[:40], "corrupt"),
    "a JPEG cut in its header": (lambda old: old[:300], "corrupt"),
    "half a JPEG": (lambda old: old[: len(old) * 2 // 3], "truncated"),
    "a JPEG of another size": (lambda _: encode(Image.new("RGB", (9, 7))), "9 x 7 px"),
    "a JPEG of 65,535 x 65,535": (lambda old: set_jpeg_size(old, 65535, 65535), "too-large"),
    "a larger JPEG": (lambda old: set_jpeg_size(old, 4000, 3000), "4000 x 3000 px"),
    "a JPEG without height": (lambda old: set_jpeg_size(old, 64, 0), "corrupt"),
    "a JPEG of more than a hundred scans": (_scan_again, "too-many-scans"),
    "a PNG of 20,000 x 20,000": (lambda _: _png_of_size(20_000, 20_000), "too-large"),
    "a PNG of another size": (lambda _: _png_of_size(2, 2), "2 x 2 px"),
    "raw pixels of another size": (lambda _: pack_header("|u1", (2, 3, 3)) + bytes(18), "3 x 2 px"),
    "raw pixels that are not there": (lambda _: pack_header("|u1", (40, 44, 3)), "truncated"),
}
"""What is no picture of its row by name: made of the good one, and what is to be heard of it."""


def replace_payload(folder: Path, sample_id: int, payload: bytes) -> None:
    """Put other bytes, which must not be longer, in the place of a sample's image."""
    dataset = open_dataset(folder)
    shard, offset, length = dataset.locate(sample_id)
    path = folder / dataset.manifest.shards[shard].name
    dataset.close()
    assert len(payload) <= length
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(payload)
    edit_row(folder, sample_id, length=len(payload), crc32=zlib.crc32(payload))


# --- Betons ---------------------------------------------------------------------------------------

BETON_ROWS: dict[str, Callable[[np.ndarray], None]] = {}
"""Lies of a beton's row by name: each changes an array of one."""


def _lie(name: str) -> Callable[[Callable[[np.ndarray], None]], Callable[[np.ndarray], None]]:
    def register(change: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], None]:
        BETON_ROWS[name] = change
        return change

    return register


def _set(name: str, field: str, value: int) -> None:
    def change(row: np.ndarray) -> None:
        (row["image"] if field in row["image"].dtype.names else row)[field] = value

    BETON_ROWS[name] = change


for _name, _field, _value in (
    ("a mode that is none", "mode", 7),
    ("no width", "width", 0),
    ("no height", "height", 0),
    ("the widest", "width", 65535),
    ("the highest", "height", 65535),
    ("behind 2**63", "data_ptr", 2**63 + 8),
    ("the last byte of all", "data_ptr", 2**64 - 1),
    ("in the header", "data_ptr", 0),
    ("behind the file", "data_ptr", 2**40),
    ("no bytes", "stored", 0),
    ("less than no bytes", "stored", -1 << 32),
    ("2 GB", "stored", (2**31 - 1) << 32),
    ("another picture", "source", 9 << 16 | 9),
    ("a picture of less than nothing", "source", -1),
):
    _set(_name, _field, _value)


@_lie("pixels of a JPEG's bytes")
def _(row: np.ndarray) -> None:
    row["image"]["mode"] = betons.RAW


@_lie("65,535 x 65,535 of raw pixels")
def _(row: np.ndarray) -> None:
    row["image"]["mode"] = betons.RAW
    row["image"]["width"] = row["image"]["height"] = 65535


@_lie("sides swapped")
def _(row: np.ndarray) -> None:
    image = row["image"]
    image["width"], image["height"] = image["height"].copy(), image["width"].copy()


def _row_place(sample_id: int) -> int:
    start = betons.HEADER.itemsize + len(betons._FIELDS) * betons.FIELD.itemsize
    return start + sample_id * betons.ROW.itemsize


def edit_beton_row(path: Path, sample_id: int, change: Callable[[np.ndarray], None]) -> np.ndarray:
    """Have a row of a beton say something else; return it, (1,) of ``betons.ROW``."""
    with path.open("r+b") as file:
        file.seek(_row_place(sample_id))
        row = np.frombuffer(bytearray(file.read(betons.ROW.itemsize)), betons.ROW)
        change(row)
        file.seek(_row_place(sample_id))
        file.write(row.tobytes())
    return row


def replace_stored(path: Path, sample_id: int, payload: bytes) -> None:
    """Put other bytes, which must not be longer, in the place of a beton's picture."""

    def change(row: np.ndarray) -> None:
        assert len(payload) <= int(row["stored"][0]) >> 32
        row["stored"] = len(payload) << 32 | zlib.crc32(payload)

    row = edit_beton_row(path, sample_id, change)
    with path.open("r+b") as file:
        file.seek(int(row["image"]["data_ptr"][0]))
        file.write(payload)
