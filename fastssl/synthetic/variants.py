"""Names of the sets: which factors are hard, and how many objects stand in a scene."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError

LETTERS = "TCVL"
"""Texture, colour, viewpoint, light: the factors in the order of their digits."""
MULTI = "-multi"
"""Ending of the sets whose scenes have several objects."""
STUDY_VARIANTS = (
    *("0000", "1000", "0100", "0010", "0001", "1100", "0110", "0101", "0111", "1110", "1011"),
    *("1111", "0000-multi", "0011-multi", "1111-multi"),
)
"""The fifteen sets of the study. Its paper names one of the three with several objects, the
hardest; the other two are ours: all easy, and viewpoint and light hard."""


@dataclass(frozen=True)
class Variant:
    """Which factors of a set are hard: the four digits TCVL of the study's names."""

    random_texture: bool = False
    """T: a texture on every object and on the background, else flat colours."""
    random_color: bool = False
    """C: a random colour for each object, else the hue of its class."""
    random_viewpoint: bool = False
    """V: turn each object by normal deviates of 0.5 rad."""
    random_light: bool = False
    """L: move the light along its arc by normal deviates of 2 rad."""
    is_multi: bool = False
    """Four objects a scene, else one."""

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read a name.

        Args:
            text: four digits, 1 for hard and 0 for easy (``0110``), or letters and dashes
                (``-CV-``), with ``-multi`` behind for several objects.

        Raises:
            InputError: if it is no such name; the nearest one is offered.
        """
        factors = text.removesuffix(MULTI)
        if len(factors) == len(LETTERS):
            pairs = list(zip(factors.upper(), LETTERS, strict=True))
            for easy, hard in (("0", "1"), ("-", None)):
                if all(given in (easy, hard or letter) for given, letter in pairs):
                    texture, colour, viewpoint, light = (given != easy for given, _ in pairs)
                    return cls(texture, colour, viewpoint, light, text.endswith(MULTI))
        raise InputError(
            f"variant ('{text}') must be four digits 0 or 1 (texture, colour, viewpoint, light; 1 "
            f"is hard), or as letters {LETTERS} with a dash for each easy one, and {MULTI} behind "
            f"for several objects{_offer(text)}"
        )

    @property
    def letters(self) -> str:
        """The name as the study's figures have it, such as ``-CV-``."""
        letters = "".join(
            letter if factor else "-" for factor, letter in zip(self._factors, LETTERS, strict=True)
        )
        return letters + MULTI * self.is_multi

    @property
    def _factors(self) -> tuple[bool, ...]:
        return (
            *(self.random_texture, self.random_color),
            *(self.random_viewpoint, self.random_light),
        )

    def __str__(self) -> str:
        """Return the four digits, and ``-multi`` for several objects."""
        return "".join("01"[factor] for factor in self._factors) + MULTI * self.is_multi


def _offer(text: str) -> str:
    """Name the nearest set: the same letters put in order, the first digits, else those there are.

    Args:
        text: what is no name.
    """
    upper = text.upper()
    ending = MULTI if "M" in upper else ""
    given = upper.partition("M")[0].translate(str.maketrans("", "", "-_ "))
    if set(given) & set(LETTERS) and set(given) <= {*LETTERS, "0", "1"}:
        factors = "".join(letter if letter in given else "-" for letter in LETTERS)
    elif given.isdigit():
        factors = "".join("01"[digit == "1"] for digit in given[: len(LETTERS)]).ljust(4, "0")
    else:
        return f"; the study's: {', '.join(STUDY_VARIANTS)}"
    return f"; did you mean '{factors}{ending}'?"
