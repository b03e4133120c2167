"""Decoding from entry points on: the same pixels from fewer bits, whatever a record says."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from fastssl.ops import jpeg
from fastssl.shards.making.entry_points import are_entry_points, find_entry_points
from fastssl.views import ViewSpec
from tests.ops.test_jpeg import SAMPLINGS, JpegWriter, draw_boxes, turn

pytestmark = pytest.mark.skipif(
    not jpeg.has_jpeg(), reason="needs the extension with libjpeg-turbo (libjpeg-dev)"
)

SIZES = ((5, 3), (67, 41), (130, 33), (96, 64))


def find(payload: bytes, bytes_apart: int) -> bytes:
    return find_entry_points(payload, bytes_apart, max_share=10)


def assert_same(payload: bytes, record: bytes, boxes: np.ndarray, dct="exact"):
    specs = [ViewSpec.squash(9)] * len(boxes)
    found = jpeg.decode_views(payload, specs, boxes, dct, record)
    wanted = jpeg.decode_views(payload, specs, boxes, dct)
    np.testing.assert_array_equal(found.images, wanted.images)
    assert found.entropy_decoded_mcus <= wanted.entropy_decoded_mcus
    return found, wanted


def seal(record: bytes, payload: bytes) -> bytes:
    """Give a record the checksum that fits."""
    return struct.pack("<I", zlib.crc32(record[4:]) ^ zlib.crc32(payload)) + record[4:]


@pytest.mark.parametrize("interval", [0, 3, 11])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_pixels_are_the_same_from_fewer_bits(sampling, interval):
    rng = np.random.default_rng(0)
    read = np.zeros(2, np.int64)
    for seed, size in enumerate(SIZES):
        payload = JpegWriter(size, SAMPLINGS[sampling], interval, seed).write()
        for bytes_apart in (1, 150, 700):
            record = find(payload, bytes_apart)
            assert not record or are_entry_points(payload, record)
            for dct in ("exact", "scaled"):
                found, wanted = assert_same(payload, record, draw_boxes(rng, *size, 2), dct)
                assert not found.has_refused
                read += [found.entropy_decoded_mcus, wanted.entropy_decoded_mcus]
    assert read[0] < read[1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_upright(orientation):
    rng = np.random.default_rng(orientation)
    payload = turn(JpegWriter((67, 41), SAMPLINGS["420"], 0, 0).write(), orientation)
    width, height = (41, 67) if orientation >= 5 else (67, 41)
    assert_same(payload, find(payload, 100), draw_boxes(rng, width, height, 3))


@pytest.mark.parametrize(
    ("boxes", "wanted"),
    [
        # Units of 8 pixels, 10 in a row, 6 rows; an entry every 4 units: 4, 8, 12 ... A pixel in
        # unit 2: from the first unit on.
        ([[20, 4, 1, 1]], 3),
        # In unit 6 of the first row, from 4 on; at the left edge of 8, whose neighbour is 7: from 4
        # on, to the end of 8.
        ([[52, 4, 1, 1]], 3),
        ([[64, 4, 1, 1]], 5),
        # Units 6 to 8 of the first two rows: 4 to 8 and, since 16 has an entry, 16 to 18.
        ([[52, 4, 18, 8]], 5 + 3),
        # Twice the same costs no more; what lies between two boxes is not read, and unit 52 has an
        # entry of its own.
        ([[52, 4, 1, 1], [52, 4, 1, 1]], 3),
        ([[52, 4, 1, 1], [20, 44, 1, 1]], 3 + 1),
        ([[0, 0, 80, 48]], 60),
    ],
)
def test_no_more_is_read_than_from_the_entry_before(boxes, wanted):
    payload = JpegWriter((80, 48), SAMPLINGS["444"], 0, 0).write()
    apart = next(n for n in range(1, 10_000) if find(payload, n)[4:6] == b"\x04\x00")
    found, _ = assert_same(payload, find(payload, apart), np.array(boxes, np.int32))
    assert found.entropy_decoded_mcus == wanted


def test_restarts_that_lie_as_close_need_no_entries():
    payload = JpegWriter((160, 96), SAMPLINGS["444"], 2, 0).write()
    assert find(payload, 1) != b""
    assert find(payload, 1000) == b""
    assert find(JpegWriter((160, 96), SAMPLINGS["444"], 0, 0).write(), 1000) != b""


def test_what_is_no_baseline_file_of_one_scan_has_none():
    assert find(b"", 100) == find(b"no JPEG at all", 100) == b""
    payload = JpegWriter((80, 48), SAMPLINGS["444"], 0, 0).write()
    assert find(payload[:-200], 100) == b""
    assert find(payload.replace(b"\xff\xc0", b"\xff\xc2"), 100) == b""


def test_a_record_takes_no_more_than_its_share():
    payload = JpegWriter((320, 240), SAMPLINGS["420"], 0, 0).write()
    sizes = [len(find_entry_points(payload, 1, share)) for share in (0.1, 0.02, 0.005, 0)]
    assert all(
        0 < size <= share * len(payload)
        for size, share in zip(sizes[:3], (0.1, 0.02, 0.005), strict=True)
    )
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0


def test_a_record_that_is_damaged_or_of_another_file_is_not_used():
    payload, other = (JpegWriter((80, 48), SAMPLINGS["420"], 0, s).write() for s in (0, 1))
    record = find(payload, 200)
    boxes = np.array([[30, 20, 9, 9]], np.int32)
    spoiled = [record[:size] for size in range(1, len(record))]
    for at in range(len(record)):
        spoiled.append(record[:at] + bytes([record[at] ^ 4]) + record[at + 1 :])
    for wrong in (*spoiled, record + b"\0", find(other, 200)):
        found, wanted = assert_same(payload, wrong, boxes)
        assert found.has_refused
        assert found.entropy_decoded_mcus == wanted.entropy_decoded_mcus
        assert not are_entry_points(payload, wrong)


def test_a_lie_ends_in_some_pixels_or_in_an_error():
    # The checksum fits; what it says is anything. Out of bounds would be for ASan to find, in the
    # fuzz target of the same; here the process lives on and the next picture is right.
    rng = np.random.default_rng(0)
    payload = JpegWriter((80, 48), SAMPLINGS["420"], 0, 0).write()
    record = find(payload, 200)
    boxes = np.array([[30, 20, 9, 9], [0, 0, 80, 48]], np.int32)
    specs, ends = [ViewSpec.squash(9)] * 2, set()
    for _ in range(300):
        body = bytearray(record)
        for at in rng.integers(4, len(record), rng.integers(1, 4)):
            body[at] = rng.integers(256)
        lie = seal(bytes(body), payload)
        try:
            ends.add(jpeg.decode_views(payload, specs, boxes, entry_points=lie).has_refused)
        except jpeg.JpegDecodeError as error:
            ends.add(error.status)
        if lie != record:
            assert not are_entry_points(payload, lie)
    assert {True, "corrupt"} <= ends <= {True, False, "corrupt"}
    assert_same(payload, record, boxes)
