from __future__ import annotations

import pytest
from PIL import Image

from fastssl.shards.jpeg import JpegError, Sampling, parse_jpeg


@pytest.mark.parametrize(
    ("subsampling", "sampling"),
    [("4:4:4", Sampling.S444), ("4:2:2", Sampling.S422), ("4:2:0", Sampling.S420)],
)
def test_sampling_is_read(draw_photograph, encode, subsampling, sampling):
    header = parse_jpeg(encode(draw_photograph(0), subsampling=subsampling))
    assert header.sampling == sampling
    assert (header.width, header.height) == (40, 30)


def test_grey_has_one_component(draw_photograph, encode):
    header = parse_jpeg(encode(draw_photograph(0).convert("L")))
    assert (header.num_components, header.sampling) == (1, Sampling.GREY)
    assert header.is_common


@pytest.mark.parametrize("progressive", [False, True])
def test_progressive_is_told_from_baseline(draw_photograph, encode, progressive):
    header = parse_jpeg(encode(draw_photograph(0), progressive=progressive))
    assert header.is_progressive == progressive
    assert header.is_baseline != progressive


def test_restart_interval_is_read(draw_photograph, encode):
    payload = encode(draw_photograph(0), restart_marker_blocks=7, subsampling="4:4:4")
    assert parse_jpeg(payload).restart_interval == 7


def test_cmyk_is_not_common(draw_photograph, encode):
    header = parse_jpeg(encode(draw_photograph(0).convert("CMYK")))
    assert header.num_components == 4
    assert not header.is_common


def test_rgb_without_colour_transform_is_not_common(draw_photograph, encode):
    header = parse_jpeg(encode(draw_photograph(0), keep_rgb=True))
    assert header.num_components == 3
    assert not header.is_common


def test_fill_bytes_before_a_marker_are_passed_over(draw_photograph, encode):
    payload = encode(draw_photograph(0))
    filled = payload[:2] + b"\xff\xff\xff" + payload[2:]
    assert parse_jpeg(filled) == parse_jpeg(payload)


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4, 20, 150])
def test_a_header_that_ends_early_is_an_error(draw_photograph, encode, cut):
    with pytest.raises(JpegError):
        parse_jpeg(encode(draw_photograph(0))[:cut])


def test_a_png_is_no_jpeg(encode):
    with pytest.raises(JpegError, match="SOI"):
        parse_jpeg(encode(Image.new("RGB", (4, 4)), "PNG"))
