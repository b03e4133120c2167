"""Numbered draws of the synthetic set: every value is a function of what it is for (law 2).

A *slot* is the number of a draw. Each factor of a scene (background, colour, light, ...) has its
own slots, so two variants of one seed differ in the factor that was switched and in nothing else.
"""

from __future__ import annotations

import math

from ..randomness import Stream, draw_words, to_below, to_unit

_SLOTS = 64


class Draws:
    """The draws of one scene or of one model.

    Args:
        seed: 0 .. 2**64 - 1.
        epoch: upper part of the name of what is drawn (for a model its class, else 0).
        sample: lower part (an image's index, a model's number).
        stream: what the draws are for.
    """

    def __init__(self, seed: int, epoch: int, sample: int, stream: Stream) -> None:
        """Draw the words of all slots."""
        self._words = draw_words(seed, epoch, sample, stream, _SLOTS)[0]

    def unit(self, slot: int) -> float:
        """Return a number in [0, 1), a multiple of 2**-24."""
        return float(to_unit(self._words[slot : slot + 1])[0])

    def below(self, slot: int, bound: int) -> int:
        """Return an integer 0 .. bound - 1."""
        return int(to_below(self._words[slot : slot + 1], bound)[0])

    def normal(self, slot: int) -> float:
        """Return a standard normal deviate; it uses the slots ``slot`` and ``slot + 1``.

        Box and Muller 1958: sqrt(-2 ln(1 - u)) cos(2 pi v). As u < 1 - 2**-25 its magnitude stays
        below 5.8. Rounded to six decimals, because the last bit of ``log`` and ``cos`` depends on
        the C library and a scene must not.
        """
        radius = math.sqrt(-2.0 * math.log(1.0 - self.unit(slot)))
        return round(radius * math.cos(2.0 * math.pi * self.unit(slot + 1)), 6)


class Proportions:
    """The draws of one model, taken in the order in which its builder asks for them.

    Args:
        class_index: number of the class.
        model: number of the model in its class, from 0.
    """

    # Models are a fixed library, like a set of CAD files: no seed of the user reaches them, so
    # that "car 7" is one shape in every variant and a split by model means the same everywhere.
    _LIBRARY = 2020

    def __init__(self, class_index: int, model: int) -> None:
        """Begin with the first draw."""
        self._draws = Draws(self._LIBRARY, class_index, model, Stream.SHAPE)
        self._next = 0

    def _slot(self) -> int:
        self._next += 1
        return self._next - 1

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self._draws.unit(self._slot())

    def count(self, low: int, high: int) -> int:
        """Return an integer low .. high."""
        return low + self._draws.below(self._slot(), high - low + 1)

    def chance(self, probability: float) -> bool:
        """Return true with a probability."""
        return self._draws.unit(self._slot()) < probability
