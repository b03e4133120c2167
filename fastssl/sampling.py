"""The order in which samples are used (law 1): a pure function, closed form, O(1) from place to id.

Training reads one endless stream of positions s = 0, 1, 2, ...; with N samples, position s is
place p = s mod N of epoch e = s // N. Two orders turn (e, p) into a sample id (where samples are
held out, N counts those in use, and the orders give an id's rank among them):

* ``global``: a keyed bijection on 0..N-1, a new one each epoch;
* ``chunked``: chunks of C consecutive ids stand in keyed order; the sequence is cut into L
  contiguous stretches, one a lane; place p belongs to lane p mod L; inside its lane, windows of
  ``window_chunks`` x C samples are mixed by a keyed bijection. A rank r of W takes the positions
  with s mod W = r, so with W dividing L it touches its own lanes' chunks alone.

The keyed bijection is a Feistel network on the smallest rectangle a x b that holds N (Black and
Rogaway 2002, "Ciphers with arbitrary finite domains"), walked until the value falls below N.
``csrc/cpu/order.cpp`` computes the same; this file is its reference, and the fallback.

Shape legend: B positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from .counts import spell_number
from .errors import InputError, nearest
from .extension import load_extension
from .fields import Checked, Range
from .randomness import MAX_EPOCH, MAX_SAMPLES, Stream, draw_words, philox, to_below

ORDERS = ("global", "chunked")

# Few values mix slowly through a Feistel network; more rounds cost nothing there.
_SMALL_DOMAIN = 4096
_ROUNDS = 8
_ROUNDS_SMALL = 24

NEVER = 1 << 62
"""Position of the stream where a sample is used that is not in use."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


ChunkSize = Annotated[int, Range(1, 1_000_000_000)]
NumLanes = Annotated[int, Range(1, 1_000_000)]
WindowChunks = Annotated[int, Range(1, 1_000_000)]


@dataclass(frozen=True)
class ChunkLayout(Checked, prefix="data."):
    """The shape of the chunked order."""

    chunk_size: ChunkSize = 256
    """C, consecutive ids in a chunk."""
    num_lanes: NumLanes = 64
    """L; ranks touch only their own lanes where the world size divides it."""
    window_chunks: WindowChunks = 16
    """Chunks whose samples are mixed inside a lane."""


def count_remaining(num_samples: int, num_held_out: int) -> int:
    """Return how many samples remain where some are held out.

    Args:
        num_samples: N.
        num_held_out: H, 1 .. N - 1.

    Raises:
        InputError: if nothing would be held out, or nothing remain.
    """
    if not 1 <= num_held_out < num_samples:
        raise InputError(
            f"data.hold_out ({num_held_out}) must be less than the "
            f"{spell_number(num_samples, 'sample')} in use; set --data.hold-out to fewer, or to 0 "
            "for none"
        )
    return num_samples - num_held_out


def list_positions(start: int, stop: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """Return a rank's positions of a stretch of the stream: those with s mod W = r, ascending.

    Args:
        start: first position of the stretch.
        stop: behind its last one.
        rank: r, 0 .. W - 1.
        world_size: W.

    Returns:
        int64 (B,).
    """
    return np.arange(start + (rank - start) % world_size, stop, world_size, dtype=np.int64)


class HoldOut:
    """A part of the samples that training keeps away from: a function of (dataset, seed) alone.

    The part are the first values of the keyed bijection on all ids, so that every run and probe
    that names the same number and seed has the same one. Those that remain are found by counting
    the ones left out before them: nothing of the size of the dataset is stored.
    """

    def __init__(self, digest: str, num_samples: int, num_held_out: int, seed: int = 0) -> None:
        """Choose the part.

        Args:
            digest: the dataset's digest, hexadecimal, at least 16 digits.
            num_samples: N; the part is chosen among the ids below it.
            num_held_out: H, 1 .. N - 1.
            seed: 0 .. 2**64 - 1.

        Raises:
            InputError: if nothing would be held out, or nothing remain.
        """
        self.num_remaining = count_remaining(num_samples, num_held_out)
        """N - H."""
        words = philox(
            (seed & 0xFFFFFFFF, seed >> 32),
            (*_digest_words(digest), 0, int(Stream.HOLD_OUT) << 24),
        )
        key = int(words[0]) | int(words[1]) << 32
        self.ids: NDArray[np.int64] = np.sort(
            permute(np.arange(num_held_out, dtype=np.int64), num_samples, key)
        )
        """(H,) int64, ascending."""
        # Of each, how many of those that remain stand before it.
        self._remaining_before = self.ids - np.arange(num_held_out)

    def find_held_out(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the ids at ranks 0 .. H-1 of the part, int64 (B,), ascending with the rank."""
        return self.ids[ranks]

    def find_remaining(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the ids at ranks 0 .. N-H-1 of what remains, int64 (B,), ascending."""
        return ranks + np.searchsorted(self._remaining_before, ranks, side="right")


class SampleOrder:
    """Turns positions of the endless stream into epochs and sample ids."""

    def __init__(
        self,
        digest: str,
        num_samples: int,
        seed: int = 0,
        order: str = "global",
        layout: ChunkLayout | None = None,
        find_ids: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None,
    ) -> None:
        """Set the order up; costs nothing, whatever N.

        Args:
            digest: the dataset's digest, hexadecimal, at least 16 digits.
            num_samples: N, 1 .. 2**40.
            seed: 0 .. 2**64 - 1.
            order: ``global`` or ``chunked``.
            layout: the shape of the chunked order.
            find_ids: turns ranks 0..N-1 into the ids of a part of the dataset, ascending; None
                where the part is the ids below N.

        Raises:
            InputError: for an unknown order or an N out of range.
        """
        if order not in ORDERS:
            raise InputError(f"data.order ('{order}') is not known{nearest(order, ORDERS)}")
        if not 1 <= num_samples <= MAX_SAMPLES:
            raise InputError(f"number of samples ({num_samples}) must lie in 1 .. 2**40")
        self.num_samples = num_samples
        self.seed = seed
        self.order = order
        self.layout = layout or ChunkLayout()
        self.find_ids = find_ids or _find_itself
        self._digest_words = _digest_words(digest)

    def at(self, positions: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the epochs and sample ids at positions.

        Args:
            positions: int64 (B,), not negative.

        Returns:
            epochs and sample ids, int64 (B,) each.
        """
        positions = np.asarray(positions, np.int64)
        epochs, places = np.divmod(positions, self.num_samples)
        first, last = (int(epochs.min()), int(epochs.max())) if epochs.size else (0, 0)
        if first == last:  # as most steps are; picking rows apart takes as long as an id
            return epochs, self.ids(first, places)
        ids = np.empty_like(places)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            ids[rows] = self.ids(int(epoch), places[rows])
        return epochs, ids

    def ids(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sample ids at places 0..N-1 of one epoch, int64 (B,)."""
        return self.find_ids(self._find_ranks(epoch, places))

    def _find_ranks(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        order_key, window_key = self._keys(epoch)
        layout = self.layout
        chunk_size = layout.chunk_size if self.order == "chunked" else 0
        if load_extension():
            return torch.ops.fastssl.order_ids(
                torch.from_numpy(np.ascontiguousarray(places)),
                self.num_samples,
                _as_signed(order_key),
                _as_signed(window_key),
                chunk_size,
                layout.num_lanes,
                layout.window_chunks,
            ).numpy()
        return reference_ids(places, self.num_samples, order_key, window_key, chunk_size, layout)

    def next_use(self, sample_ids: NDArray[np.int64], position: int) -> NDArray[np.int64]:
        """Return where in the stream samples are used next: what ``at`` says, read backwards.

        Args:
            sample_ids: int64 (B,).
            position: of the stream.

        Returns:
            int64 (B,) first position from that one on, ``NEVER`` for samples that are not in use.
        """
        epoch, place = divmod(position, self.num_samples)
        ranks, is_used = self._rank(sample_ids)
        places = self._find_places(epoch, ranks)
        gone = places < place
        places[gone] = self.num_samples + self._find_places(epoch + 1, ranks[gone])
        return np.where(is_used, epoch * self.num_samples + places, NEVER)

    def _rank(self, sample_ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the rank of samples among those in use, and whether they are; int64, bool (B,)."""
        # Ids ascend with their ranks, whatever turns the one into the other: search by halves.
        low = np.zeros_like(sample_ids)
        high = np.full_like(sample_ids, self.num_samples - 1)
        if self.find_ids is _find_itself:
            return np.minimum(sample_ids, high), sample_ids <= high
        for _ in range(self.num_samples.bit_length()):
            middle = (low + high) // 2
            is_below = self.find_ids(middle) < sample_ids
            low = np.minimum(np.where(is_below, middle + 1, low), high)
            high = np.where(is_below, high, middle)
        return low, self.find_ids(low) == sample_ids

    def _find_places(self, epoch: int, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        order_key, window_key = self._keys(epoch)
        chunk_size = self.layout.chunk_size if self.order == "chunked" else 0
        return find_places(ranks, self.num_samples, order_key, window_key, chunk_size, self.layout)

    def substitute(self, epoch: int, sample_id: int, attempt: int) -> int:
        """Return the id to try in place of a bad sample: sub(seed, epoch, id, attempt) of law 3."""
        words = draw_words(self.seed, epoch, sample_id, Stream.SUBSTITUTE, 1, first=attempt)
        return int(self.find_ids(to_below(words, self.num_samples))[0, 0])

    def _keys(self, epoch: int) -> tuple[int, int]:
        """Derive the epoch's keys: one for the bijection over N or the chunks, one for windows."""
        if not 0 <= epoch <= MAX_EPOCH:
            raise ValueError(f"epoch ({epoch}) must lie in 0 .. 2**32 - 1")
        key = (self.seed & 0xFFFFFFFF, self.seed >> 32)
        words = philox(key, (*self._digest_words, epoch, int(Stream.ORDER) << 24))
        w = [int(word) for word in words]
        return w[0] | w[1] << 32, w[2] | w[3] << 32


def _digest_words(digest: str) -> tuple[int, int]:
    return int(digest[:8], 16), int(digest[8:16], 16)


def _find_itself(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    return ranks


def _as_signed(word: int) -> int:
    """Torch's schemas know signed integers alone."""
    return word - 2**64 if word >= 2**63 else word


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def _rectangle(count: int) -> tuple[int, int]:
    a = math.isqrt(count - 1) + 1
    return a, -(-count // a)


def _num_rounds(count: int) -> int:
    return _ROUNDS if count >= _SMALL_DOMAIN else _ROUNDS_SMALL


def _round_value(half: NDArray, number: int, key: NDArray, bound: int) -> NDArray[np.int64]:
    """Pseudo-random function of a half, below bound."""
    mixed = _mix(half.astype(np.uint64) + key + np.uint64(number + 1) * _GOLDEN)
    return ((mixed >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def _walk(
    values: NDArray[np.int64], count: int, key: NDArray[np.uint64], *, inverse: bool
) -> NDArray[np.int64]:
    a, b = _rectangle(count)
    numbers = range(_num_rounds(count))
    left, right = np.divmod(values, b)
    for number in reversed(numbers) if inverse else numbers:
        if number % 2 == 0:
            shift = _round_value(right, number, key, a)
            left = (left + (a - shift if inverse else shift)) % a
        else:
            shift = _round_value(left, number, key, b)
            right = (right + (b - shift if inverse else shift)) % b
    return left * b + right


def permute(
    values: NDArray[np.int64], count: int, key: int | NDArray[np.uint64], *, inverse: bool = False
) -> NDArray[np.int64]:
    """Apply the keyed bijection on 0..count-1.

    Args:
        values: int64 (B,), 0..count-1.
        count: size of the domain.
        key: 64 bits, one for all or (B,).
        inverse: undo it.

    Returns:
        int64 (B,).
    """
    key = np.broadcast_to(np.asarray(key, np.uint64), values.shape)
    with np.errstate(over="ignore"):
        result = _walk(values, count, key, inverse=inverse)
        outside = result >= count
        while outside.any():
            result[outside] = _walk(result[outside], count, key[outside], inverse=inverse)
            outside = result >= count
    return result


def reference_ids(
    places: NDArray[np.int64],
    num_samples: int,
    order_key: int,
    window_key: int,
    chunk_size: int,
    layout: ChunkLayout,
) -> NDArray[np.int64]:
    """Compute sample ids in NumPy: the reference of ``csrc/cpu/order.cpp``.

    Args:
        places: int64 (B,), 0..N-1.
        num_samples: N.
        order_key: 64 bits, for the bijection over the samples or the chunks.
        window_key: 64 bits, for the windows of a lane.
        chunk_size: C, or 0 for the global order.
        layout: lanes and windows.

    Returns:
        int64 (B,).
    """
    if chunk_size == 0:
        return permute(places, num_samples, order_key)
    lanes, steps = places % layout.num_lanes, places // layout.num_lanes
    lane_starts, lane_lengths = _find_lanes(lanes, num_samples, layout)
    window_starts = steps - steps % (layout.window_chunks * chunk_size)
    mixed = _mix_windows(
        steps, lanes, lane_lengths - window_starts, window_key, chunk_size, layout, inverse=False
    )
    sequence = lane_starts + window_starts + mixed
    num_chunks, gap, short_slot = _find_gap(num_samples, chunk_size, order_key)
    behind = sequence >= (short_slot + 1) * chunk_size - gap
    slots, offsets = np.divmod(sequence + gap * behind, chunk_size)
    return permute(slots, num_chunks, order_key) * chunk_size + offsets


def find_places(
    ids: NDArray[np.int64],
    num_samples: int,
    order_key: int,
    window_key: int,
    chunk_size: int,
    layout: ChunkLayout,
) -> NDArray[np.int64]:
    """Return the places of sample ids in an epoch: ``reference_ids`` backwards.

    Args:
        ids: int64 (B,), 0..N-1.
        num_samples: N.
        order_key: 64 bits, for the bijection over the samples or the chunks.
        window_key: 64 bits, for the windows of a lane.
        chunk_size: C, or 0 for the global order.
        layout: lanes and windows.

    Returns:
        int64 (B,).
    """
    if chunk_size == 0:
        return permute(ids, num_samples, order_key, inverse=True)
    num_chunks, gap, short_slot = _find_gap(num_samples, chunk_size, order_key)
    chunks, offsets = np.divmod(ids, chunk_size)
    slots = permute(chunks, num_chunks, order_key, inverse=True)
    sequence = slots * chunk_size + offsets - gap * (slots > short_slot)

    share, rest = divmod(num_samples, layout.num_lanes)
    long = rest * (share + 1)  # samples of the lanes that have one more
    lanes = np.where(
        sequence < long, sequence // (share + 1), rest + (sequence - long) // max(share, 1)
    )
    lane_starts, lane_lengths = _find_lanes(lanes, num_samples, layout)
    steps = sequence - lane_starts
    window_starts = steps - steps % (layout.window_chunks * chunk_size)
    mixed = _mix_windows(
        steps, lanes, lane_lengths - window_starts, window_key, chunk_size, layout, inverse=True
    )
    return (window_starts + mixed) * layout.num_lanes + lanes


def _find_lanes(
    lanes: NDArray[np.int64], num_samples: int, layout: ChunkLayout
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where in the sequence of chunks' samples lanes begin, and their lengths."""
    share, rest = divmod(num_samples, layout.num_lanes)
    return lanes * share + np.minimum(lanes, rest), share + (lanes < rest)


def _find_gap(num_samples: int, chunk_size: int, order_key: int) -> tuple[int, int, int]:
    """Return the number of chunks, what the last lacks, and where in the keyed order it stands.

    The last chunk may be short and stands anywhere: its gap is to be stepped over.
    """
    num_chunks = -(-num_samples // chunk_size)
    last = np.array([num_chunks - 1], np.int64)
    short_slot = int(permute(last, num_chunks, order_key, inverse=True)[0])
    return num_chunks, num_chunks * chunk_size - num_samples, short_slot


def _mix_windows(
    steps: NDArray[np.int64],
    lanes: NDArray[np.int64],
    remaining: NDArray[np.int64],
    window_key: int,
    chunk_size: int,
    layout: ChunkLayout,
    *,
    inverse: bool,
) -> NDArray[np.int64]:
    """Mix steps of lanes inside their windows, the last of which in a lane may be short.

    Args:
        steps: int64 (B,) in their lanes.
        lanes: int64 (B,).
        remaining: int64 (B,) samples of the lane from the window's start on.
        window_key: 64 bits.
        chunk_size: C.
        layout: lanes and windows.
        inverse: undo it.

    Returns:
        int64 (B,) steps in the window.
    """
    window = layout.window_chunks * chunk_size
    numbers, within = np.divmod(steps, window)
    lengths = np.minimum(window, remaining)
    with np.errstate(over="ignore"):
        keys = _mix(
            np.uint64(window_key)
            + lanes.astype(np.uint64) * _MIX1
            + numbers.astype(np.uint64) * _MIX2
        )
    mixed = np.empty_like(steps)
    for length in np.unique(lengths):
        rows = lengths == length
        mixed[rows] = permute(within[rows], int(length), keys[rows], inverse=inverse)
    return mixed
