from __future__ import annotations

import struct

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.shards import Payload, SampleFlags, Sampling
from fastssl.shards.index import HEADER_BYTES, ROW, IndexHeader, read_index_header


def test_header_is_these_64_bytes():
    digest = "00112233445566778899aabbccddeeff" * 2
    wanted = (
        "4653534c49445831"  # FSSLIDX1
        "01000000"  # version 1
        "20000000"  # 32 bytes a sample
        "e803000000000000" + digest + "0000000000000000"  # 1000 samples
    )
    assert IndexHeader(1000, digest).pack().hex() == wanted


def test_row_is_these_32_bytes():
    row = np.array([(0x0102030405060708, 9, 10, 11, 12, 13, -1, 14)], ROW)
    assert row.tobytes() == struct.pack("<QIIHHIiI", 0x0102030405060708, 9, 10, 11, 12, 13, -1, 14)


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        (SampleFlags(), 0),
        (SampleFlags(orientation=8), 7),
        (SampleFlags(is_grey=True), 1 << 3),
        (SampleFlags(is_progressive=True), 1 << 4),
        (SampleFlags(payload=Payload.NPY), 2 << 5),
        (SampleFlags(sampling=Sampling.OTHER), 7 << 8),
        (SampleFlags(use_reference=True), 1 << 11),
        (SampleFlags(restart_interval=0xABCD), 0xABCD << 16),
    ],
)
def test_flags_have_their_bits(flags, bits):
    assert flags.pack() == bits
    assert SampleFlags.unpack(bits) == flags


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an index begins with"),
        (b"x" * HEADER_BYTES, "an index begins with"),
        (IndexHeader(0, "ab" * 32).pack()[:8] + b"\2" + bytes(55), "index version 2"),
        (IndexHeader(2, "ab" * 32).pack() + bytes(32), "96 bytes, wanted 128 for 2 samples"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, content, message):
    path = tmp_path / "index.bin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_index_header(path)
