"""How many there are of something, in words: ``1 run``, ``1,000 runs``."""

from __future__ import annotations


def spell_number(count: int, noun: str, plural: str = "") -> str:
    """Return how many there are of something, such as ``1 run`` and ``1,000 runs``.

    Args:
        count: how many.
        noun: for one of them.
        plural: for several; empty adds an s.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
