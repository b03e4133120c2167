"""FFCV's file format: a dataset's pictures in one ``.beton``, and what we need to read it back.

The file is FFCV's own (version 2: header, field descriptors, a row of metadata a sample, pages of
data, a table of allocations), so any FFCV reads it. Ours to add: sample i is sample id i, and the
unused argument bytes of the image field's descriptor hold a line of JSON with the dataset's digest.

Beside ``image`` and ``label`` two integer fields: ``source`` is the upright size of the picture
that boxes are drawn on, ``width << 16 | height``; ``stored`` the length of the stored bytes and
their CRC-32, ``length << 32 | crc``. So a row says all that is needed to read its picture; the
table of allocations is for FFCV alone.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..counts import spell_number
from ..errors import InputError
from ..fields import Checked, Range
from ..system.files import open_regular, published
from ..system.workers import Report, run_jobs, say_nothing
from ..views import MAX_SIDE
from .checksum import crc32
from .index import INDEX_NAME, Payload, SampleFlags
from .jpeg import Quality
from .picture import PictureError, open_picture, to_upright_rgb
from .reader import BadSample, ShardDataset, open_dataset
from .rows import MAX_PAYLOAD_BYTES

BETON_NAME = "dataset.beton"
"""Its name in the dataset's folder, unless told otherwise."""

FFCV_VERSION = 2
VERSION = 1
"""Of what we add."""

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype([("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)], align=True)
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
ROW = np.dtype(
    [("image", IMAGE), ("label", "<i8"), ("source", "<i8"), ("stored", "<i8")], align=True
)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
JPG, RAW = 0, 1

_FIELDS = (("image", 2), ("label", 1), ("source", 1), ("stored", 1))
_MIN_PAGE, _MAX_PAGE = 8 << 20, 1 << 31
_CHUNK = 16

Encoding = Literal["jpg", "keep", "raw", "smart"]


@dataclass(frozen=True)
class BetonOptions(Checked):
    """How pictures are stored in a beton."""

    encode: Encoding = "jpg"
    """jpg: all as new JPEGs; keep: JPEGs that need no change as they are, others as jpg; raw:
    pixels; smart: pixels where they are not larger than smart_ratio times the JPEG."""
    max_side: Annotated[int, Range(0, MAX_SIDE)] = 0
    """Reduce pictures whose longer side has more pixels than this; 0 keeps all sizes."""
    quality: Quality = 90
    """JPEG quality of what is encoded, 1 to 100."""
    smart_ratio: Annotated[float, Range(0, 1_000_000, without=0)] = 4.0
    """smart: bytes of pixels for a byte of JPEG that are worth their space."""


@dataclass(frozen=True)
class StoredPicture:
    """One picture as it lies in the beton."""

    mode: int
    """``JPG`` or ``RAW``."""
    width: int
    """In pixels, as stored."""
    height: int
    """In pixels, as stored."""
    content: bytes
    """The bytes of a JPEG, or rows of RGB pixels."""


def store_picture(payload: bytes, flags: SampleFlags, options: BetonOptions) -> StoredPicture:
    """Make of a picture what lies in the beton.

    Args:
        payload: the bytes of its image in the dataset.
        flags: its flags in the index.
        options: how.
    """
    picture = open_picture(payload)
    width, height = picture.size
    fits = not options.max_side or max(width, height) <= options.max_side
    is_plain = flags.orientation == 1 and picture.mode in ("RGB", "L")
    if options.encode == "keep" and flags.payload == Payload.JPEG and is_plain and fits:
        return StoredPicture(JPG, width, height, payload)
    picture = to_upright_rgb(picture)
    width, height = picture.size
    if not fits:
        scale = options.max_side / max(width, height)
        width, height = (max(1, round(side * scale)) for side in (width, height))
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    raw = b"" if options.encode in ("jpg", "keep") else picture.tobytes()
    if options.encode == "raw":
        return StoredPicture(RAW, width, height, raw)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=options.quality)
    jpeg = buffer.getvalue()
    if raw and len(raw) <= options.smart_ratio * len(jpeg):
        return StoredPicture(RAW, width, height, raw)
    return StoredPicture(JPG, width, height, jpeg)


# ---- writing -------------------------------------------------------------------------------------


def write_beton(
    dataset: ShardDataset,
    out: Path,
    options: BetonOptions,
    workers: int,
    on_progress: Report = say_nothing,
) -> dict[str, int]:
    """Write a dataset's pictures to a beton; it appears whole or not at all.

    Args:
        dataset: the shards.
        out: the file.
        options: how pictures are stored.
        workers: processes that encode.
        on_progress: told how many more samples are encoded.

    Returns:
        ``samples``, ``jpg`` and ``raw`` of them, ``bytes`` of the file.

    Raises:
        InputError: if a picture does not fit a page, or the disk; if bytes of the dataset have
            changed, cannot be read, or are not the picture that the index says.
        WorkerDied: if a worker process is killed.
    """
    num = dataset.num_samples
    dataset.check_rows()
    page_size = _choose_page_size(dataset)
    rows, table = np.zeros(num, ROW), np.zeros(num, ALLOCATION)
    start = HEADER.itemsize + len(_FIELDS) * FIELD.itemsize
    offset = -(-(start + rows.nbytes) // page_size) * page_size
    chunks = run_jobs(
        functools.partial(_encode_chunk, path=dataset.address, options=options),
        range(0, num, _CHUNK),
        workers,
        on_progress,
        describe=lambda first: f"samples {first} .. {min(first + _CHUNK, num) - 1}",
    )
    with contextlib.closing(chunks), published(out) as file:
        file.seek(offset)
        for sample_id, stored in enumerate(itertools.chain.from_iterable(chunks)):
            size = len(stored.content)
            if size > page_size - offset % page_size:  # a picture lies in one page
                offset = -(-offset // page_size) * page_size
                file.seek(offset)
            index = dataset.index[sample_id]
            rows[sample_id]["image"] = (stored.mode, stored.width, stored.height, offset)
            rows[sample_id]["label"] = index["label"]
            rows[sample_id]["source"] = int(index["width"]) << 16 | int(index["height"])
            rows[sample_id]["stored"] = size << 32 | crc32(stored.content)
            table[sample_id] = (sample_id, offset, size)
            file.write(stored.content)
            offset += size
        # FFCV reads whole pages.
        end = -(-offset // page_size) * page_size
        file.truncate(end)
        file.seek(end)
        file.write(table.tobytes())
        header = np.array((FFCV_VERSION, len(_FIELDS), page_size, num, end), HEADER)
        file.seek(0)
        file.write(header.tobytes() + _describe_fields(dataset.digest, options).tobytes())
        file.write(rows.tobytes())
    raw = int((rows["image"]["mode"] == RAW).sum())
    return {"samples": num, "jpg": num - raw, "raw": raw, "bytes": out.stat().st_size}


# Opened in the worker and not pickled: what fails while a task is unpickled kills the worker.
_open = functools.lru_cache(maxsize=1)(open_dataset)


def _encode_chunk(
    first: int, report: Report, path: Path | str, options: BetonOptions
) -> list[StoredPicture]:
    dataset = _open(path)
    pictures = []
    for sample_id in range(first, min(first + _CHUNK, dataset.num_samples)):
        row = dataset.index[[sample_id]]
        try:
            payload = dataset.read_payload(sample_id)
            picture = store_picture(payload, SampleFlags.unpack(row["flags"][0]), options)
            sides = [int(side[0]) for side in _stored_sides(row, options.max_side)]
            if [picture.width, picture.height] != sides:
                raise BadSample(sample_id, f"a picture of another size than {INDEX_NAME} says")
        except (BadSample, PictureError) as error:
            reason = error.reason if isinstance(error, BadSample) else error
            raise InputError(
                f"{dataset.path}: sample {sample_id}: {reason}; see what else is wrong (fastssl "
                "check-shards), then make the dataset again"
            ) from None
        pictures.append(picture)
        report(1)
    return pictures


def _stored_sides(source: np.ndarray, max_side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return width and height, (B,) each, that ``store_picture`` gives pictures of an index."""
    sides = source["width"].astype(np.int64), source["height"].astype(np.int64)
    longest = np.maximum(*sides)
    most = max_side or MAX_SIDE
    scale = np.where(longest > most, most / longest, 1.0)
    width, height = (np.maximum(1, np.rint(side * scale).astype(np.int64)) for side in sides)
    return width, height


def _choose_page_size(dataset: ShardDataset) -> int:
    """Return a power of two that holds the largest picture, whatever becomes of it."""
    widths, heights = (dataset.index[name].astype(np.int64) for name in ("width", "height"))
    pixels = widths * heights * 3
    # A JPEG of noise at quality 100 is not larger than its pixels by more than its tables.
    largest = max(int(pixels.max(initial=1)) + 4096, int(dataset.index["length"].max(initial=1)))
    size = _MIN_PAGE
    while size < largest:
        size *= 2
    if size > _MAX_PAGE:
        raise InputError(
            f"the largest picture ({largest >> 20} MiB) must fit FFCV's largest page "
            f"({_MAX_PAGE >> 20} MiB); leave it out of the dataset: fastssl combine-shards"
        )
    return size


def _describe_fields(digest: str, options: BetonOptions) -> np.ndarray:
    fields = np.zeros(len(_FIELDS), FIELD)
    for field, (name, type_id) in zip(fields, _FIELDS, strict=True):
        field["type_id"] = type_id
        field["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
    about = {"fastssl": VERSION, "digest": digest, "encode": options.encode}
    about |= {"max_side": options.max_side, "quality": options.quality}
    text = json.dumps(about).encode()
    fields[0]["arguments"][: len(text)] = np.frombuffer(text, np.uint8)
    return fields


# ---- reading -------------------------------------------------------------------------------------


class _About(msgspec.Struct):
    """What we say of a beton in the argument bytes of its image field."""

    fastssl: int
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    encode: Encoding
    max_side: Annotated[int, msgspec.Meta(ge=0, le=MAX_SIDE)]
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)]


class Beton:
    """An open beton that was made from a dataset.

    Nothing of it is held in memory or mapped: what is asked for is read by pread, the row of a
    sample too. All ranks of a machine share one copy in the page cache, and a file that is
    truncated under a run is an I/O error, not SIGBUS.

    Whoever wrote it, nothing in it is believed: header and fields are checked here, rows by
    ``find_wrong`` where they are used. The table of allocations is FFCV's alone and is not read.
    """

    def __init__(self, path: Path, digest: str, num_samples: int) -> None:
        """Open a beton.

        Args:
            path: the file.
            digest: of the dataset that it must have been made from.
            num_samples: of that dataset.

        Raises:
            InputError: if it is absent, no beton, not ours, of another dataset, or truncated.
        """
        self.path = path
        self.num_samples = num_samples
        try:
            self.descriptor = open_regular(path)
        except FileNotFoundError:
            raise InputError(
                f"{path}: there is no such beton; make it: fastssl make-beton {path.parent}, or "
                "name another by --data.beton"
            ) from None
        try:
            self.about = self._read_head(digest)
        except BaseException:
            self.close()
            raise

    def _read_head(self, digest: str) -> _About:
        """Read what stands before the rows, and see that it holds a picture a sample."""
        remake = "make it again: fastssl make-beton"
        with open(self.descriptor, "rb", closefd=False) as file:
            headers = _read_array(file, HEADER, 1)
            if headers is None or headers[0]["version"] != FFCV_VERSION:
                raise InputError(f"{self.path}: no beton of FFCV's format {FFCV_VERSION}; {remake}")
            header = {name: int(headers[0][name]) for name in HEADER.names or ()}
            num_fields = header["num_fields"]
            fields = _read_array(file, FIELD, num_fields) if num_fields == len(_FIELDS) else None
            about = None if fields is None else _read_about(fields)
            if about is None or about.fastssl != VERSION:
                raise InputError(
                    f"{self.path}: a beton, but not one of this version's make-beton, so nothing "
                    f"says which dataset it holds; {remake}"
                )
            if about.digest != digest:
                raise InputError(
                    f"{self.path}: made from the dataset {about.digest[:12]}, this one is "
                    f"{digest[:12]}; {remake}"
                )
            self._rows_at, size = file.tell(), os.fstat(file.fileno()).st_size
        if header["num_samples"] != self.num_samples:
            raise InputError(
                f"{self.path}: {spell_number(header['num_samples'], 'sample')}, the dataset has "
                f"{self.num_samples}; {remake}"
            )
        self._pictures_at = self._rows_at + self.num_samples * ROW.itemsize
        self._pictures_end = header["alloc_table_ptr"]
        wanted = self._pictures_end + self.num_samples * ALLOCATION.itemsize
        if size != wanted or self._pictures_end < self._pictures_at:
            raise InputError(f"{self.path}: {size} bytes, {wanted} were written; {remake}")
        return about

    def locate(self, sample_id: int) -> np.void:
        """Return a sample's row (``ROW``): what is stored of it, and where.

        Args:
            sample_id: 0 .. num_samples - 1.

        Raises:
            OSError: if the file cannot be read, or ends before.
        """
        place = self._rows_at + sample_id * ROW.itemsize
        content = os.pread(self.descriptor, ROW.itemsize, place)
        if len(content) < ROW.itemsize:
            raise OSError(f"the file ends before the row of sample {sample_id}")
        return np.frombuffer(content, ROW)[0]

    def find_wrong(self, rows: np.ndarray, source: np.ndarray) -> NDArray[np.bool_]:
        """Tell which rows say what cannot be; libffcv would believe them.

        Args:
            rows: (B,) of ``ROW``.
            source: (B,) rows of the dataset's index, good ones.

        Returns:
            (B,) whether a row is wrong: pixels that are not the picture's in number, bytes that do
            not lie among the pictures, another picture than the dataset's.
        """
        image = rows["image"]
        widths, heights = image["width"].astype(np.int64), image["height"].astype(np.int64)
        sizes = rows["stored"] >> 32
        is_raw, is_far = image["mode"] == RAW, image["data_ptr"] > self._pictures_end
        starts = np.where(is_far, 0, image["data_ptr"]).astype(np.int64)
        stored = _stored_sides(source, self.about.max_side)
        return (
            (rows["source"] != (source["width"].astype(np.int64) << 16 | source["height"]))
            | (widths != stored[0])
            | (heights != stored[1])
            | (image["mode"] > RAW)
            | (sizes < 1)
            | (sizes > MAX_PAYLOAD_BYTES)
            | (is_raw & (sizes != widths * heights * 3))
            | (starts < self._pictures_at)
            | (starts + sizes > self._pictures_end)
        )

    def describe(self, row: np.void) -> str:
        """Say in one line what a row says."""
        image, size = row["image"], int(row["stored"]) >> 32
        return (
            f"its row says kind {image['mode']}, {image['width']} x {image['height']} px, {size} "
            f"bytes at {image['data_ptr']}, from {int(row['source']) >> 16} x "
            f"{int(row['source']) & 0xFFFF} px; pictures lie at {self._pictures_at} .. "
            f"{self._pictures_end}"
        )

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _read_array(file: BinaryIO, dtype: np.dtype, count: int) -> np.ndarray | None:
    content = file.read(dtype.itemsize * count)
    return np.frombuffer(content, dtype) if len(content) == dtype.itemsize * count else None


def _read_about(fields: np.ndarray) -> _About | None:
    """Return what the fields say of a beton; None if they are not those that we write."""
    found = tuple((f["name"].tobytes().rstrip(b"\0"), int(f["type_id"])) for f in fields)
    if found != tuple((name.encode(), type_id) for name, type_id in _FIELDS):
        return None
    try:
        return msgspec.json.decode(fields[0]["arguments"].tobytes().rstrip(b"\0"), type=_About)
    except (msgspec.MsgspecError, RecursionError):
        return None
