from __future__ import annotations

import pytest

from fastssl.errors import InputError
from fastssl.synthetic.variants import STUDY_VARIANTS, Variant


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("0000", "0000"),
        ("----", "0000"),
        ("TCVL", "1111"),
        ("-C-L", "0101"),
        ("t-vl", "1011"),
        ("0011-multi", "0011-multi"),
        ("TCVL-multi", "1111-multi"),
        ("-----multi", "0000-multi"),
    ],
)
def test_digits_and_letters_name_the_same_set(text, digits):
    assert str(Variant.parse(text)) == digits
    assert str(Variant.parse(Variant.parse(text).letters)) == digits


def test_study_has_twelve_sets_of_one_object_and_three_of_several():
    variants = [Variant.parse(name) for name in STUDY_VARIANTS]
    assert len(set(variants)) == 15
    assert sum(variant.is_multi for variant in variants) == 3


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("VCTL", "'TCVL'"),
        ("CV", "'-CV-'"),
        ("LT_multi", "'T--L-multi'"),
        ("TCVL_multi", "'TCVL-multi'"),
        ("0200", "'0000'"),
        ("01000", "'0100'"),
        ("1111-mutli", "'1111-multi'"),
        ("T000", "'T---'"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(text, offered):
    with pytest.raises(InputError, match=f"did you mean {offered}"):
        Variant.parse(text)


@pytest.mark.parametrize("text", ["", "hard", "abcd"])
def test_name_of_no_resemblance_is_refused_with_those_there_are(text):
    with pytest.raises(InputError, match=r"four digits .* the study's: 0000, 1000"):
        Variant.parse(text)
