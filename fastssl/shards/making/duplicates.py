"""Pictures that show nothing or are there already: left out where that is asked for.

A picture is known by its print: a digest of its file, and a difference hash of what it shows. They
are taken while slices are converted, each by itself; what repeats another is found at the end, when
all are known, so that it depends neither on workers nor on machines. The first in the order of the
dataset stays. Tars keep the others, and the index passes over them.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..picture import LIMITS, DecodeLimits, open_picture

Drop = Literal["blank", "duplicates", "near-duplicates"]
"""What may be left out."""

BLANK_RANGE = 8
"""Levels of 255 within which all pixels of a blank picture lie, channel by channel."""
NEAR_BITS = 2
"""Bits of 64 in which the hashes of near duplicates differ at most."""
MIN_BITS = 8
"""Hashes with fewer bits of either kind show too little to be compared: skies, gradients."""

PRINT = np.dtype([("high", "<u8"), ("low", "<u8"), ("look", "<u8")])
"""Of a sample: 128 bits of its file's SHA-256, and its difference hash."""

_LOOKED_AT = 64  # pixels of the short side, at least, to which a JPEG is reduced while decoded
_BANDS = ((0, 21), (21, 21), (42, 22))  # of two different bits one of three bands has none


class Look(NamedTuple):
    """What a picture shows, as far as others are compared with it."""

    is_blank: bool
    """Whether it shows nothing."""
    print: bytes
    """Its print, one ``PRINT``."""


def look_at(data: bytes, limits: DecodeLimits = LIMITS) -> Look:
    """Look at a picture that can be decoded; once, and reduced while it is decoded.

    Args:
        data: its file.
        limits: how much work it may make.
    """
    image = open_picture(data, limits)
    image.draft("RGB", (_LOOKED_AT, _LOOKED_AT))
    small = image.convert("RGB")
    extrema = np.array(small.getextrema())
    is_blank = bool((extrema[:, 1] - extrema[:, 0] <= BLANK_RANGE).all())
    levels = np.asarray(small.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes()
    return Look(is_blank, hashlib.sha256(data).digest()[:16] + bits)


def find_repeated(
    prints: NDArray[np.void], with_near: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Say which samples repeat an earlier one.

    Args:
        prints: dtype ``PRINT``, (N,), in the order of the dataset.
        with_near: whether those count that look alike, too.

    Returns:
        int64 (N,): the sample that each one repeats, -1 for none; bool (N,): whether it is the same
        file as that.
    """
    repeats = np.full(len(prints), -1, np.int64)
    order = np.lexsort((prints["low"], prints["high"]))  # stable: the first one leads its group
    high, low = prints["high"][order], prints["low"][order]
    follows = np.zeros(len(prints), bool)
    follows[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    leaders = order[np.maximum.accumulate(np.where(follows, 0, np.arange(len(prints))))]
    repeats[order[follows]] = leaders[follows]
    is_same = repeats >= 0
    if with_near:
        _find_near(prints["look"], repeats)
        # A copy of what looks like another repeats that other, and is no copy of it.
        copies = np.flatnonzero(is_same)
        gone = repeats[repeats[copies]]
        repeats[copies] = np.where(gone >= 0, gone, repeats[copies])
        is_same[copies[gone >= 0]] = False
    return repeats, is_same


def _count_bits(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1, dtype=np.int64)


def _find_near(looks: NDArray[np.uint64], repeats: NDArray[np.int64]) -> None:
    """Note in ``repeats`` what looks like an earlier sample that stays."""
    alone = np.flatnonzero(repeats < 0)
    bits = _count_bits(np.ascontiguousarray(looks[alone]))
    alone = alone[(bits >= MIN_BITS) & (bits <= 64 - MIN_BITS)]
    hashes, places, groups = np.unique(looks[alone], return_index=True, return_inverse=True)
    first = alone[places]
    repeats[alone] = np.where(first[groups] == alone, -1, first[groups])
    order = np.argsort(first)
    hashes, first = hashes[order], first[order]
    pairs = [_pair(hashes, *band) for band in _BANDS]
    found = np.unique(np.concatenate(pairs), axis=0)
    for earlier, later in sorted(found.tolist(), key=lambda pair: (pair[1], pair[0])):
        if repeats[first[earlier]] < 0 and repeats[first[later]] < 0:
            repeats[first[later]] = first[earlier]
    # What repeats one that has gone now repeats the one that stayed.
    moved = alone[repeats[alone] >= 0]
    targets = repeats[moved]
    repeats[moved] = np.where(repeats[targets] >= 0, repeats[targets], targets)


def _pair(hashes: NDArray[np.uint64], shift: int, width: int) -> NDArray[np.int64]:
    """Return pairs (earlier, later), (P, 2), that are near and equal in a band of their bits."""
    keys = (hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)
    order = np.argsort(keys, kind="stable")
    keys, found = keys[order], []
    for distance in range(1, len(keys)):
        places = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(places):
            break
        one, other = order[places], order[places + distance]
        is_near = _count_bits(hashes[one] ^ hashes[other]) <= NEAR_BITS
        both = np.stack([one[is_near], other[is_near]], axis=1)
        found.append(np.sort(both, axis=1))
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)
