"""Counts in words: one of a thing is no plural."""

from __future__ import annotations

import pytest

from fastssl.counts import spell_number


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((0, "run"), "0 runs"),
        ((1, "run"), "1 run"),
        ((1000, "run"), "1,000 runs"),
        ((1, "class", "classes"), "1 class"),
        ((2, "class", "classes"), "2 classes"),
    ],
)
def test_one_of_a_thing_is_no_plural(arguments, wanted):
    assert spell_number(*arguments) == wanted
