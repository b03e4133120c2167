"""What may be wrong with a sample: with its row of the index, whoever wrote it, or with its bytes.

Rows are checked where they are used, many at once.

Shape legend: B rows.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from .index import INDEX_NAME, Payload
from .npy import MAX_HEADER_BYTES, PREFIX_BYTES
from .picture import MAX_PIXELS
from .tar import BLOCK

MAX_PAYLOAD_BYTES = 2**30
"""Bytes of the longest image that is read."""


class BadSample(Exception):
    """A sample whose bytes cannot be had, or are not those that were written."""

    def __init__(self, sample_id: int, reason: str):
        """Keep the sample id and the reason."""
        super().__init__(sample_id, reason)
        self.sample_id = sample_id
        self.reason = reason

    def __str__(self) -> str:
        """Return both in one line."""
        return f"sample {self.sample_id}: {self.reason}"


def describe_short_read(got: int, offset: int, length: int) -> str:
    """Say that a shard ends too early.

    Args:
        got: bytes that were there.
        offset: of the first byte that was wanted.
        length: bytes that were wanted.
    """
    return f"{got} of {length} bytes at {offset}, then the shard ends"


class RowFault(IntEnum):
    """What is wrong with a row."""

    NONE = 0
    PAYLOAD = 1
    """A kind of payload that there is not."""
    SIDES = 2
    """A picture without pixels."""
    PIXELS = 3
    """More pixels than are decoded."""
    LENGTH = 4
    """No bytes, too many, or others than its raw pixels take."""
    PLACE = 5
    """Bytes where its shard has none, or no member of a tar begins."""
    SPAN = 6
    """Members that end before its image does, or behind its shard."""
    LABEL = 7
    """A label that no class has."""


def find_faults(
    rows: np.ndarray, shard_bytes: NDArray[np.int64], num_classes: int, is_ours: bool = True
) -> NDArray[np.uint8]:
    """Say what is wrong with rows of an index; nothing is read of the shards.

    Args:
        rows: (B,) of ``fastssl.shards.index.ROW``.
        shard_bytes: (B,) size of the shard that each lies in; (1,) where it is one.
        num_classes: of the dataset; 0 where labels are no places in a list.
        is_ours: whether shards are tars of ours; those that stay where they are may be zips, whose
            members begin anywhere.

    Returns:
        uint8 (B,) of ``RowFault``, the first that holds.
    """
    payload = rows["flags"] >> 5 & 7
    length = rows["length"].astype(np.int64)
    pixels = rows["width"].astype(np.int64) * rows["height"]
    is_far = rows["offset"] > shard_bytes.astype(np.uint64)
    offset = np.where(is_far, 0, rows["offset"]).astype(np.int64)
    header = length - 3 * pixels
    # Plain numbers: NumPy asks an IntEnum for attributes, which runs Python code, and drops what is
    # raised there, Ctrl-C as well.
    raw = int(Payload.NPY)
    is_raw = payload == raw
    end = offset - BLOCK + rows["span"]
    label = rows["label"]
    wrong = {
        RowFault.LABEL: (label < -1) | ((label >= num_classes) if num_classes else False),
        RowFault.SPAN: (rows["span"] < BLOCK + length) | (end > shard_bytes),
        RowFault.PLACE: is_far
        | (is_ours & ((offset < BLOCK) | (offset % BLOCK != 0)))
        | (offset + length > shard_bytes),
        RowFault.LENGTH: (length == 0)
        | (length > MAX_PAYLOAD_BYTES)
        | (is_raw & ((header < 0) | (header > PREFIX_BYTES + MAX_HEADER_BYTES))),
        RowFault.PIXELS: pixels > MAX_PIXELS,
        RowFault.SIDES: pixels == 0,
        RowFault.PAYLOAD: payload > raw,
    }
    faults = np.zeros(len(rows), np.uint8)
    for fault, is_wrong in wrong.items():  # the first of them last
        faults[is_wrong] = int(fault)
    return faults


def describe_fault(row: np.void, fault: int, shard: str, shard_bytes: int) -> str:
    """Say in one line what is wrong with a row.

    Args:
        row: of ``fastssl.shards.index.ROW``.
        fault: from ``find_faults``.
        shard: name of the shard that it lies in.
        shard_bytes: its size.
    """
    payload = int(row["flags"]) >> 5 & 7
    size = f"{row['width']} x {row['height']} px"
    place = f"{row['length']} bytes at {row['offset']}"
    said = {
        RowFault.PAYLOAD: f"payload kind {payload}, wanted 0 to {int(Payload.NPY)}",
        RowFault.SIDES: f"{size}, a picture has one at least",
        RowFault.PIXELS: f"{size}, up to {MAX_PIXELS:,} pixels are decoded",
        RowFault.LENGTH: f"{row['length']} bytes of payload kind {payload} for {size}",
        RowFault.PLACE: f"{place}, {shard} has {shard_bytes}",
        RowFault.SPAN: f"a span of {row['span']} with {place}, {shard} has {shard_bytes}",
        RowFault.LABEL: f"label {row['label']}, which no class has",
    }
    return f"{INDEX_NAME}: its row says {said[RowFault(fault)]}"
