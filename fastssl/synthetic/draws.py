"""Numbered draws of the synthetic set: every value is a function of what it is for (law 2).

A *slot* is the number of a draw. Each factor of a scene (background, colour, light, ...) has its
own slots, so two variants of one seed differ in the factor that was switched and in nothing else.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..randomness import Stream, draw_words, to_below, to_unit

_BLOCK = 64

Option = TypeVar("Option")


class Draws:
    """The draws of one scene or of one model; as many slots as are asked for.

    Args:
        seed: 0 .. 2**64 - 1.
        epoch: upper part of the name of what is drawn (for a model its class).
        sample: lower part (an image's index, a model's number).
        stream: what the draws are for.
        first: slots that are drawn at once; what they hold does not depend on it.
    """

    def __init__(
        self, seed: int, epoch: int, sample: int, stream: Stream, first: int = _BLOCK
    ) -> None:
        """Draw the words of the first slots."""
        self._name = (seed, epoch, sample, stream)
        self._words = draw_words(*self._name, first)[0]

    def words(self, slot: int, num: int) -> NDArray[np.uint32]:
        """Return the words of the slots ``slot .. slot + num - 1``."""
        if slot + num > len(self._words):
            # Twice as many each time: a call costs as much as a thousand words.
            first = len(self._words)
            more = -(-max(slot + num - first, first) // _BLOCK) * _BLOCK
            self._words = np.concatenate([self._words, draw_words(*self._name, more, first)[0]])
        return self._words[slot : slot + num]

    def unit(self, slot: int) -> float:
        """Return a number in [0, 1), a multiple of 2**-24."""
        return float(to_unit(self.words(slot, 1))[0])

    def below(self, slot: int, bound: int) -> int:
        """Return an integer 0 .. bound - 1."""
        return int(to_below(self.words(slot, 1), bound)[0])

    def normal(self, slot: int) -> float:
        """Return a standard normal deviate; it uses the slots ``slot`` and ``slot + 1``.

        Box and Muller 1958: sqrt(-2 ln(1 - u)) cos(2 pi v). As u < 1 - 2**-25 its magnitude stays
        below 5.8. Rounded to six decimals, because the last bit of ``log`` and ``cos`` depends on
        the C library and a scene must not.
        """
        radius = math.sqrt(-2.0 * math.log(1.0 - self.unit(slot)))
        return round(radius * math.cos(2.0 * math.pi * self.unit(slot + 1)), 6)


class Proportions:
    """The draws of one model or texture, taken in the order in which its builder asks for them.

    Args:
        kind: number of the class; ``TEXTURE`` for a texture.
        number: number of the model in its class, or of the texture, from 0.
    """

    TEXTURE = 100
    """Stands in the place of a class for textures."""
    # Models and textures are a fixed library, like a set of CAD files: no seed of the user reaches
    # them, so that "car 7" is one shape in every variant and a split by model means the same
    # everywhere.
    _LIBRARY = 2020

    def __init__(self, kind: int, number: int) -> None:
        """Begin with the first draw."""
        first = 16 * _BLOCK if kind == self.TEXTURE else 2 * _BLOCK
        self._draws = Draws(self._LIBRARY, kind, number, Stream.SHAPE, first)
        self._next = 0

    def _take(self, num: int = 1) -> int:
        self._next += num
        return self._next - num

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self._draws.unit(self._take())

    def count(self, low: int, high: int) -> int:
        """Return an integer low .. high."""
        return low + self._draws.below(self._take(), high - low + 1)

    def chance(self, probability: float) -> bool:
        """Return true with a probability."""
        return self._draws.unit(self._take()) < probability

    def choice(self, *options: Option) -> Option:
        """Return one of several, each as likely."""
        return options[self._draws.below(self._take(), len(options))]

    def units(self, num: int) -> NDArray[np.float32]:
        """Return float32 (num,) in [0, 1)."""
        return to_unit(self._draws.words(self._take(num), num))
