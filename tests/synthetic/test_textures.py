from __future__ import annotations

import numpy as np
import pytest

from fastssl.synthetic.textures import FAMILIES, NUM_TEXTURES, draw_texture


def test_textures_are_thousands_of_a_dozen_families():
    assert NUM_TEXTURES >= 5000
    assert len(FAMILIES) >= 12


@pytest.mark.parametrize("number", range(len(FAMILIES)), ids=FAMILIES)
def test_family_gives_pictures_with_contrast(number):
    for texture in (draw_texture(number + i * len(FAMILIES), 48) for i in range(6)):
        assert texture.shape == (48, 48, 3)
        assert texture.dtype == np.uint8
        assert texture.astype(float).std(axis=(0, 1)).max() > 8


def test_textures_are_distinct():
    pictures = {draw_texture(number, 24).tobytes() for number in range(0, NUM_TEXTURES, 20)}
    assert len(pictures) == NUM_TEXTURES // 20


def test_texture_is_a_function_of_its_number():
    np.testing.assert_array_equal(draw_texture(77, 32), draw_texture(77, 32))


def test_finer_texture_shows_the_same():
    """A picture's size changes how fine its textures are, not what is on them."""
    for number in range(len(FAMILIES)):
        coarse, fine = draw_texture(number, 32), draw_texture(number, 128)
        reduced = fine.reshape(32, 4, 32, 4, 3).mean((1, 3))
        assert np.corrcoef(coarse.ravel(), reduced.ravel())[0, 1] > 0.6
