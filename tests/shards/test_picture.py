from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from fastssl.shards import PictureError, decode_picture, open_picture, to_upright_rgb
from fastssl.shards import picture as picture_module
from fastssl.shards.jpeg import count_scans
from fastssl.shards.picture import MAX_PIXELS, MAX_SCANS, DecodeLimits, parse_orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_is_applied(draw_photograph, encode, exif_block, kind, orientation):
    payload = encode(draw_photograph(1), kind, exif=exif_block(orientation))
    # Pillow's own rule is the independent reference.
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(payload))))
    assert wanted.shape == ((30, 40, 3) if orientation < 5 else (40, 30, 3))
    np.testing.assert_array_equal(decode_picture(payload), wanted)


def test_an_upright_picture_is_not_turned_again(draw_photograph, encode, exif_block):
    upright = to_upright_rgb(open_picture(encode(draw_photograph(1), exif=exif_block(6))))
    assert upright.size == (30, 40)
    again = to_upright_rgb(open_picture(encode(upright)))
    assert again.size == (30, 40)


def test_grey_becomes_rgb(draw_photograph, encode):
    pixels = decode_picture(encode(draw_photograph(1).convert("L")))
    assert pixels.shape == (30, 40, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 1])
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_transparent_pixels_lie_over_white(encode):
    image = Image.new("RGBA", (4, 2), (10, 20, 30, 255))
    image.putpixel((0, 0), (10, 20, 30, 0))
    pixels = decode_picture(encode(image, "PNG"))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [10, 20, 30]


def test_a_transparent_palette_entry_lies_over_white(encode):
    image = Image.new("P", (4, 2))
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.putpixel((1, 1), 1)
    pixels = decode_picture(encode(image, "PNG", transparency=0))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [0, 200, 0]


def test_cmyk_becomes_rgb(draw_photograph, encode):
    image = draw_photograph(1)
    payload = encode(image.convert("CMYK"), quality=100, subsampling=0)
    difference = np.abs(decode_picture(payload).astype(int) - np.asarray(image).astype(int))
    assert difference.max() <= 12  # two roundings of quality 100


@pytest.fixture
def png_of_size(encode):
    """(width, height) -> a PNG whose header says so; its pixels are missing."""

    def make(width, height):
        payload = bytearray(encode(Image.new("L", (8, 8)), "PNG"))
        payload[16:24] = struct.pack(">II", width, height)
        payload[29:33] = struct.pack(">I", zlib.crc32(payload[12:29]))
        return bytes(payload)

    return make


def test_more_pixels_than_pillow_takes_are_a_matter_of_the_limit(png_of_size):
    large = png_of_size(20_000, 20_000)
    assert open_picture(large, DecodeLimits(max_pixels=2**29)).size == (20_000, 20_000)
    assert Image.MAX_IMAGE_PIXELS is not None
    with pytest.raises(PictureError, match="too-large: 20000 x 20000 px"):
        open_picture(large)


def test_a_tiff_above_pillows_own_limit_is_decoded(draw_photograph, encode, monkeypatch):
    payload = encode(draw_photograph(1), "TIFF")
    wanted = decode_picture(payload)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # it refuses twice as many
    np.testing.assert_array_equal(decode_picture(payload), wanted)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_strips_over_white_are_what_the_whole_is(encode, monkeypatch, mode):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (30, 40, 4), dtype=np.uint8))
    payload = encode(image.convert(mode), "PNG", **({"transparency": 7} if mode == "P" else {}))
    monkeypatch.setattr(picture_module, "_STRIP_PIXELS", 280)  # seven rows, the last strip two
    rgba = Image.open(io.BytesIO(payload)).convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    wanted = np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    np.testing.assert_array_equal(decode_picture(payload), wanted)


def repeat_last_scan(payload, times):
    """Let the last scan of a progressive JPEG refine what it has refined already."""
    start = payload.rindex(b"\xff\xda")
    return payload[:-2] + payload[start:-2] * times + payload[-2:]


def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded(draw_photograph, encode):
    payload = encode(draw_photograph(1), progressive=True)
    assert count_scans(payload) == payload.count(b"\xff\xda") == 10
    bomb = repeat_last_scan(payload, MAX_SCANS)
    with pytest.raises(PictureError, match="too-many-scans: a JPEG of 110 scans; up to 100"):
        open_picture(bomb)
    assert open_picture(bomb, DecodeLimits(max_scans=110)).size == (40, 30)


def test_scans_of_a_thumbnail_and_of_further_views_do_not_count(draw_photograph, encode):
    inside = encode(draw_photograph(1), progressive=True)
    payload = encode(draw_photograph(2), exif=b"Exif\0\0" + inside)
    assert payload.count(b"\xff\xda") == 11
    assert count_scans(payload + inside) == 1


@pytest.mark.parametrize("payload", [b"II*\0" + b"no header", b"\x89PNG\r\n\x1a\n" + b"\xff" * 30])
def test_what_is_said_of_a_damaged_file_is_the_same_each_time(payload):
    with pytest.raises(PictureError, match="corrupt") as caught:
        open_picture(payload)
    assert " at 0x" not in str(caught.value)


HEIC_HEAD = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic"


@pytest.mark.skipif("HEIF" in picture_module._formats(), reason="pillow-heif is installed")
def test_heic_says_what_it_takes():
    with pytest.raises(PictureError, match=r'heic: .*"fastssl\[heif\]", or convert it first'):
        open_picture(HEIC_HEAD)


def test_heic_is_read_upright_with_pillow_heif(draw_photograph, encode, exif_block):
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    with pytest.raises(PictureError, match="corrupt"):
        open_picture(HEIC_HEAD)  # registers the format too
    payload = encode(draw_photograph(1), "HEIF", quality=-1, exif=exif_block(6))
    assert decode_picture(payload).shape == (40, 30, 3)


def test_more_pixels_than_the_limit_are_refused(png_of_size):
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(PictureError, match="too-large"):
        open_picture(png_of_size(side, side))


def test_a_longer_side_than_the_limit_is_refused(png_of_size):
    with pytest.raises(PictureError, match="too-large"):
        open_picture(png_of_size(65_536, 1))


def test_bytes_that_end_early_are_truncated(draw_photograph, encode):
    payload = encode(draw_photograph(1, 200, 150), quality=95)
    with pytest.raises(PictureError, match="truncated"):
        decode_picture(payload[: len(payload) // 2])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"", "zero-byte"), (b"hello world" * 9, "non-image"), (b"\xff\xd8\xff\xe0", "corrupt")],
)
def test_what_is_no_picture_has_a_reason(payload, reason):
    with pytest.raises(PictureError) as caught:
        open_picture(payload)
    assert caught.value.reason == reason


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_are_refused(draw_photograph, encode, kind):
    frames = [draw_photograph(seed) for seed in range(3)]
    payload = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match="animated: 3 frames"):
        open_picture(payload)


def test_sixteen_bit_grey_is_refused(encode):
    image = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    with pytest.raises(PictureError, match="16-bit"):
        open_picture(encode(image, "PNG"))


def test_sixteen_bit_colour_is_refused():
    # Pillow cannot write it: a one-pixel PNG by hand.
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">3H", 1000, 2000, 3000))
    payload = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)
    payload += chunk(b"IEND", b"")
    with pytest.raises(PictureError, match="16-bit"):
        open_picture(payload)


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0" * 40])
def test_a_damaged_exif_block_means_upright(block):
    assert parse_orientation(block) == 1


@pytest.mark.parametrize("value", [0, 9, 300])
def test_an_orientation_that_does_not_exist_means_upright(exif_block, value):
    assert parse_orientation(exif_block(value)) == 1


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_of_exif_are_read(order, value):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    block = mark + struct.pack(order + "IHHHIHH", 8, 1, 0x0112, 3, 1, value, 0)
    assert parse_orientation(b"Exif\0\0" + block) == value
