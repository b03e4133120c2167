"""Tiles hold the same coefficients, tables and colours as the file that they were made of."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from fastssl.shards.jpeg import parse_jpeg
from fastssl.shards.making.tiled import NotTiledError, tile_jpeg
from fastssl.shards.picture import decode_picture
from tests.jpeg_layout import needs_transcoder, parse_layout

pytestmark = needs_transcoder

KINDS = ("444", "422", "420", "440", "411", "441", "410", "odd", "rgb", "grey", "cmyk", "ycck")
SIZES = ("1x1", "7x9", "17x33", "41x30", "64x32")
SOS, DQT, SOF0 = b"\xff\xda", b"\xff\xdb", b"\xff\xc0"


def read_all(corpus, pattern: str) -> list[bytes]:
    files = [path.read_bytes() for path in sorted(corpus.glob(f"{pattern}.jpg"))]
    assert files
    return files


def insert_before(data: bytes, marker: bytes, segment: bytes) -> bytes:
    at = data.index(marker)
    return data[:at] + segment + data[at:]


def assert_same_planes(read_planes, before: list[bytes], after: list[bytes]):
    for old, new in zip(read_planes(before), read_planes(after), strict=True):
        assert len(old) == len(new)
        for one, other in zip(old, new, strict=True):
            assert one.factors == other.factors
            np.testing.assert_array_equal(one.steps_88, other.steps_88)
            np.testing.assert_array_equal(one.blocks_YX88, other.blocks_YX88)


@pytest.mark.parametrize("kind", [*KINDS, "grey22"])
@pytest.mark.parametrize("form", ["", "-progressive", "-separate", "-restart3"])
def test_no_coefficient_and_no_table_changes(corpus, read_planes, kind, form):
    before = [data for size in SIZES for data in read_all(corpus, f"{size}-{kind}{form}")]
    after = [tile_jpeg(data, interval) for interval, data in enumerate(before)]
    assert_same_planes(read_planes, before, after)
    for interval, data in enumerate(after):
        header = parse_jpeg(data)
        assert header.is_baseline
        assert header.restart_interval == interval or (interval == 0 and header.restart_interval)
        assert parse_layout(data).num_scans == 1


def turn(plane, orientation: int):
    """Do to blocks and steps what an orientation does to pixels, by the DCT's symmetries."""
    blocks, steps = plane.blocks_YX88.copy(), plane.steps_88
    odd = np.arange(8) % 2 == 1
    if orientation in (2, 3, 7, 8):
        blocks = blocks[:, ::-1].copy()
        blocks[..., odd] *= -1
    if orientation in (3, 4, 6, 7):
        blocks = blocks[::-1].copy()
        blocks[..., odd, :] *= -1
    if orientation >= 5:
        blocks, steps = blocks.transpose(1, 0, 3, 2), steps.T
    return blocks, steps


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_is_applied_to_whole_units_without_loss(corpus, read_planes, orientation):
    before = [read_all(corpus, f"64x32-{kind}-exif{orientation}")[0] for kind in KINDS]
    after = [tile_jpeg(data, 2) for data in before]
    for old, new in zip(read_planes(before), read_planes(after), strict=True):
        for one, other in zip(old, new, strict=True):
            blocks, steps = turn(one, orientation)
            np.testing.assert_array_equal(blocks, other.blocks_YX88)
            np.testing.assert_array_equal(steps, other.steps_88)
    assert {parse_layout(data).orientation for data in after} == {1}


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_picture_is_the_upright_one(corpus, orientation):
    data = read_all(corpus, f"64x32-444-exif{orientation}")[0]
    before = decode_picture(data).astype(int)
    after = decode_picture(tile_jpeg(data)).astype(int)
    assert before.shape == after.shape
    # The integer DCT rounds rows first, then columns, so a transposed block may round otherwise.
    assert np.abs(before - after).max() <= 3


def test_orientation_stays_where_turning_would_lose_pixels(corpus, read_planes):
    # 41x30 px: units in part on both sides.
    before = [read_all(corpus, f"41x30-420-exif{k}")[0] for k in (2, 3, 4, 6, 7, 8)]
    after = [tile_jpeg(data) for data in before]
    assert_same_planes(read_planes, before, after)
    assert [parse_layout(data).orientation for data in after] == [2, 3, 4, 6, 7, 8]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(decode_picture(one), decode_picture(other))


def test_a_transposition_alone_is_always_exact(corpus):
    assert parse_layout(tile_jpeg(read_all(corpus, "41x30-420-exif5")[0])).orientation == 1


def test_profile_stays_and_other_metadata_goes(corpus):
    data = read_all(corpus, "41x30-420-progressive")[0]
    tiled = tile_jpeg(data)
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(tiled))
    assert before.info["icc_profile"] == after.info["icc_profile"]
    assert before.info["comment"]
    assert "comment" not in after.info
    assert b"\xff\xed" not in tiled.partition(SOS)[0]


@pytest.mark.parametrize("kind", ["rgb", "cmyk", "ycck"])
def test_adobe_segment_that_decides_the_colours_stays(corpus, kind):
    data = read_all(corpus, f"41x30-{kind}")[0]
    assert parse_jpeg(data).adobe_transform is not None
    tiled = tile_jpeg(data)
    assert parse_jpeg(tiled).adobe_transform == parse_jpeg(data).adobe_transform
    np.testing.assert_array_equal(decode_picture(tiled), decode_picture(data))


@pytest.mark.parametrize("has_jfif", [False, True])
def test_jfif_segment_is_there_if_it_was(corpus, has_jfif):
    data = read_all(corpus, "41x30-420" if has_jfif else "41x30-420-separate")[0]
    assert (b"JFIF" in tile_jpeg(data)) == has_jfif


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0",
        b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0",
    ],
)
def test_markers_behind_the_scan_do_not_become_a_header(corpus, segment):
    # They would change the colours that decoders choose by the header.
    data = read_all(corpus, "17x33-420-separate")[0]
    tiled = tile_jpeg(data[:-2] + segment + b"\xff\xd9")
    assert tiled == tile_jpeg(data)


def test_tiling_again_changes_nothing(corpus):
    once = tile_jpeg(read_all(corpus, "41x30-420")[0], 3)
    assert tile_jpeg(once, 3) == once


def test_tables_are_as_good_as_those_of_libjpeg():
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    picture = Image.fromarray(noise).resize((384, 256), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", optimize=True, subsampling="4:2:0", quality=95)
    plain = buffer.getvalue()
    # An interval that the picture does not reach: four bytes of a DRI segment are two more here.
    assert abs(len(tile_jpeg(plain, 65_535)) - 6 - len(plain)) < 0.001 * len(plain)


# ---- what stays as it is -------------------------------------------------------------------------


def test_arithmetic_coding_is_unsupported(corpus):
    data = read_all(corpus, "41x30-444")[0].replace(SOF0, b"\xff\xc9", 1)
    with pytest.raises(NotTiledError, match="unsupported"):
        tile_jpeg(data)


def test_steps_of_16_bits_are_unsupported(corpus):
    data = read_all(corpus, "41x30-444")[0]
    wide = b"\xff\xdb" + (2 + 65 + 64).to_bytes(2, "big") + b"\x10" + b"\x01\x2c" * 64
    # Behind the other tables: it replaces that of the same number.
    with pytest.raises(NotTiledError, match="unsupported"):
        tile_jpeg(insert_before(data, SOF0, wide).replace(SOF0, b"\xff\xc1", 1))


def test_twelve_bits_are_unsupported(corpus):
    data = bytearray(read_all(corpus, "41x30-444")[0])
    at = data.index(SOF0)
    data[at + 1], data[at + 4] = 0xC1, 12
    with pytest.raises(NotTiledError, match="unsupported"):
        tile_jpeg(bytes(data))


def test_more_than_ten_blocks_a_unit_are_unsupported(corpus):
    data = bytearray(read_all(corpus, "41x30-444-separate")[0])
    at = data.index(SOF0)
    data[at + 11] = 0x44
    with pytest.raises(NotTiledError, match="unsupported"):
        tile_jpeg(bytes(data))


def test_a_progressive_file_without_its_last_bits_is_unsupported(corpus):
    # Decoders smooth what is missing, and would not do so with a baseline file.
    data = read_all(corpus, "41x30-444-progressive")[0]
    last_scan = data.rindex(SOS)
    with pytest.raises(NotTiledError, match="unsupported"):
        tile_jpeg(data[:last_scan] + b"\xff\xd9")


def write_grey(width: int, height: int, dc_size: int, bits: str) -> bytes:
    """A grey JPEG with one DC code and one AC code, the end of the block: 0 each."""
    segments = [(0xDB, b"\0" + b"\1" * 64)]
    segments.append((0xC0, struct.pack(">BHHB3B", 8, height, width, 1, 1, 0x11, 0)))
    for table, symbol in ((0x00, dc_size), (0x10, 0)):
        segments.append((0xC4, bytes([table, 1]) + bytes(15) + bytes([symbol])))
    segments.append((0xDA, bytes([1, 1, 0, 0, 63, 0])))
    bits += "1" * (-len(bits) % 8)
    scan = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    head = b"".join(struct.pack(">BBH", 0xFF, m, 2 + len(body)) + body for m, body in segments)
    return b"\xff\xd8" + head + scan.replace(b"\xff", b"\xff\0") + b"\xff\xd9"


def test_dc_beyond_baseline_is_refused():
    # Differences of 2047, one after the other, lead where no difference of baseline does: tiles
    # begin with the sum itself.
    steps = "0" + "1" * 11 + "0"
    tile_jpeg(write_grey(24, 8, 11, "0" + "1" * 11 + "0" + ("0" + "0" * 11 + "0") * 2), 2)
    with pytest.raises(NotTiledError, match="corrupt"):
        tile_jpeg(write_grey(24, 8, 11, steps * 3), 2)


@pytest.mark.parametrize(("width", "fits"), [(65_500, True), (65_501, False), (65_535, False)])
def test_sides_beyond_libjpegs_are_too_large(width, fits):
    data = write_grey(width, 8, 0, "00" * 8192)
    if fits:
        assert parse_layout(tile_jpeg(data)).width == width
        return
    with pytest.raises(NotTiledError, match="too_large"):
        tile_jpeg(data)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_scan_is_truncated(corpus, share):
    data = read_all(corpus, "41x30-444")[0]
    begin = data.index(SOS)
    with pytest.raises(NotTiledError, match="truncated"):
        tile_jpeg(data[: begin + int(share * (len(data) - begin))])
