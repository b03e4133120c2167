"""The transcoder's own check: it sees whatever is not as it should be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fastssl.jpeg_extension import STATUSES
from fastssl.shards.making.tiled import tile_jpeg
from tests.jpeg_layout import needs_transcoder

pytestmark = needs_transcoder
CSRC = Path(__file__).parents[2] / "csrc" / "jpeg"
PARTS = ("compare", "scan", "entropy", "huffman", "parse", "tables")


@pytest.fixture(scope="module")
def compare(build_program, tmp_path_factory):
    """(source, tiles, *place) -> the status of their comparison."""
    sources = [Path(__file__).parent / "compare_tiles.cpp", *(CSRC / f"{n}.cpp" for n in PARTS)]
    program = build_program("compare_tiles", sources)
    folder = tmp_path_factory.mktemp("compared")

    def run(source: bytes, tiles: bytes, *place: int) -> str:
        (folder / "source.jpg").write_bytes(source)
        (folder / "tiles.jpg").write_bytes(tiles)
        command = [program, folder / "source.jpg", folder / "tiles.jpg", *map(str, place)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return STATUSES[int(done.stdout)]

    return run


@pytest.mark.parametrize("kind", ["444", "420", "411", "odd", "grey22", "cmyk"])
@pytest.mark.parametrize("interval", [1, 4, 999])
def test_tiles_hold_what_their_source_does(corpus, compare, kind, interval):
    source = (corpus / f"41x30-{kind}.jpg").read_bytes()
    assert compare(source, tile_jpeg(source, interval)) == "ok"


# 41x30 px with 4:2:0: 6 x 4 blocks of luma, 3 x 2 of chroma.
@pytest.mark.parametrize(
    "place", [(0, 0, 0), (0, 23, 63), (0, 5, 1), (1, 5, 0), (2, 0, 8), (2, 5, 64), (0, 0, 127)]
)
def test_one_coefficient_or_step_that_differs_is_seen(corpus, compare, place):
    source = (corpus / "41x30-420.jpg").read_bytes()
    assert compare(source, tile_jpeg(source, 2), *place) == "corrupt"


@pytest.mark.parametrize("filler", [b"\0", b"\xaa" * 9])
def test_bytes_too_many_in_a_segment_are_seen(corpus, compare, filler):
    source = (corpus / "41x30-420.jpg").read_bytes()
    tiles = tile_jpeg(source, 2)
    for marker in (b"\xff\xd0", b"\xff\xd9"):
        assert compare(source, tiles.replace(marker, filler + marker)) == "corrupt"
