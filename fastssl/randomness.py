"""Counter-based randomness: every draw is a pure function of what it is for (law 2).

Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), vectorised.

Word layout, fixed for ever (golden vectors stand in ``tests/test_randomness.py``):

* key: word 0 = seed bits 0-31, word 1 = seed bits 32-63;
* counter: word 0 = sample id bits 0-31, word 1 = sample id bits 32-63, word 2 = epoch,
  word 3 = stream << 24 | block;
* draw ``d`` of a stream is word ``d % 4`` of block ``d // 4``.

A word becomes a float in [0, 1) by ``(word >> 8) * 2**-24`` (exact in float32) and an integer below
n by ``(word * n) >> 32`` (bias below n / 2**32).

Shape legend: B samples, D draws of each.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .fields import Range

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)

MAX_SEED = 2**64 - 1
Seed = Annotated[int, Range(0, MAX_SEED)]
MAX_EPOCH = 2**32 - 1
MAX_DRAWS = 2**26
MAX_SAMPLES = 2**40


@unique
class Stream(IntEnum):
    """What a draw is for. Numbers are part of the format: never reuse or renumber one."""

    ORDER = 0
    """Keys of the sample order."""
    SUBSTITUTE = 1
    """Ids that take the place of bad samples."""
    BOX = 2
    """Crop boxes."""
    FLIP = 3
    """Horizontal flips."""
    GREY = 4
    """Whole-image or per-patch grey."""
    PATCH_OFFSET = 5
    """Places of patches in their cells."""
    PERMUTATION = 6
    """Labels of puzzles."""
    STEP = 7
    """Seeds of a step's generators; (step, rank) stand in place of (epoch, sample id)."""
    SHUFFLE = 8
    """The source order while shards are made."""
    SCENE = 9
    """Scenes of the synthetic set; (part of the scene, image index) stand in place of the pair."""
    SHAPE = 10
    """Models and textures of the synthetic set; (class, model) stand in place of the pair."""
    PERMUTATION_SET = 11
    """First member of a permutation set."""
    COLOUR_PROJECTION = 12
    """Colour projections of puzzles."""
    CHANNEL_SHIFT = 13
    """Shifts of a patch's colour channels against each other."""
    SPLIT = 14
    """Splits of labelled data for evaluation; (class, group) stand in place of the pair."""
    ROTATION = 15
    """Labels of rotated images."""
    COLOUR_JITTER = 16
    """Brightness, saturation and their order, four draws a view."""
    HOLD_OUT = 17
    """Key of the samples that are held out."""
    LOW_SHOT = 18
    """Few samples of a class; (class, row) stand in place of (epoch, sample id), a draw a word."""
    AUGMENTATION = 19
    """Colours, flip, crop and cutout of Newell and Deng 2020, sixteen draws a copy."""
    REGION = 20
    """Regions that a detector learns from, a draw a candidate."""
    CLUSTERS = 21
    """Samples and pixels that are clustered, and where clusters begin; the steps 0, 1 and 2 of that
    stand in place of epochs."""
    OWN = 255
    """What tasks draw that are no part of this package; each counts its draws itself."""


def philox(key: tuple[ArrayLike, ArrayLike], counter: tuple[ArrayLike, ...]) -> tuple:
    """Run Philox 4x32-10 on broadcast arrays of 32-bit words.

    Args:
        key: two arrays of words.
        counter: four arrays of words.

    Returns:
        Four uint32 arrays of the broadcast shape.
    """
    k0, k1 = (np.asarray(k, np.uint64) for k in key)
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, np.uint64) for c in counter))
    for step in range(_ROUNDS):
        product0 = c0 * _MULTIPLIERS[0]
        product1 = c2 * _MULTIPLIERS[1]
        round_key0 = (k0 + np.uint64(step * _WEYL[0] & 0xFFFFFFFF)) & _LOW32
        round_key1 = (k1 + np.uint64(step * _WEYL[1] & 0xFFFFFFFF)) & _LOW32
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT32) ^ c1 ^ round_key0,
            product1 & _LOW32,
            (product0 >> _SHIFT32) ^ c3 ^ round_key1,
            product0 & _LOW32,
        )
    return tuple(c.astype(np.uint32) for c in (c0, c1, c2, c3))


def draw_words(
    seed: int,
    epochs: ArrayLike,
    sample_ids: ArrayLike,
    stream: Stream,
    num: int,
    first: int = 0,
) -> NDArray[np.uint32]:
    """Draw words for samples.

    Args:
        seed: the run's seed, 0 .. 2**64 - 1.
        epochs: (B,) or a scalar, the epoch of each sample.
        sample_ids: (B,) or a scalar.
        stream: what the words are for.
        num: D, words for each sample.
        first: number of the first draw; later draws never depend on it.

    Returns:
        uint32 (B, D).

    Raises:
        ValueError: if the seed or the draw numbers are out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed ({seed}) must lie in 0 .. 2**64 - 1; choose another seed")
    if num < 0 or first < 0 or first + num > MAX_DRAWS:
        raise ValueError(f"draws {first} .. {first + num - 1} must lie in 0 .. {MAX_DRAWS - 1}")
    epochs, sample_ids = np.broadcast_arrays(
        np.atleast_1d(np.asarray(epochs, np.uint64)),
        np.atleast_1d(np.asarray(sample_ids, np.uint64)),
    )
    if num == 0:
        return np.empty((len(sample_ids), 0), np.uint32)
    blocks = np.arange(first // 4, (first + num - 1) // 4 + 1, dtype=np.uint64)
    words = philox(
        (seed & 0xFFFFFFFF, seed >> 32),
        (
            (sample_ids & _LOW32)[:, None],
            (sample_ids >> _SHIFT32)[:, None],
            epochs[:, None],
            (np.uint64(int(stream) << 24) | blocks)[None],
        ),
    )
    flat = np.stack(words, axis=-1).reshape(len(sample_ids), -1)
    return flat[:, first % 4 : first % 4 + num]


def to_unit(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Turn words into float32 in [0, 1), exactly: the same on every machine."""
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def to_normal(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Turn pairs of words into standard normal deviates.

    Box and Muller 1958: sqrt(-2 ln(1 - u)) cos(2 pi v). As u < 1 - 2**-25 their magnitude stays
    below 5.8. Rounded to six decimals: the last bit of ``log`` and ``cos`` is the C library's.

    Args:
        words: uint32 (..., 2), u and v.

    Returns:
        float64 (...).
    """
    u, v = (to_unit(words[..., i]).astype(np.float64) for i in (0, 1))
    return np.round(np.sqrt(-2.0 * np.log1p(-u)) * np.cos(2.0 * np.pi * v), 6)


def to_below(words: NDArray[np.uint32], bound: ArrayLike) -> NDArray[np.int64]:
    """Turn words into integers 0 .. bound-1.

    Args:
        words: uint32 of any shape.
        bound: 1 .. 2**32, an integer or an array that broadcasts.

    Returns:
        int64 of the broadcast shape.
    """
    product = words.astype(np.uint64) * np.asarray(bound, np.uint64)
    return (product >> _SHIFT32).astype(np.int64)


def is_below(words: NDArray[np.uint32], probability: float) -> NDArray[np.bool_]:
    """Turn words into booleans that are true with a probability, compared as integers."""
    return words < np.uint64(round(probability * 2**32))


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of the generators of one step on one rank, in 0 .. 2**63 - 1."""
    low, high = draw_words(seed, step, rank, Stream.STEP, 2)[0]
    return int(low) | (int(high) & 0x7FFFFFFF) << 32
