"""What a JPEG's own markers say: size, kind, sampling, restart interval (ITU T.81, annex B)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from ..fields import Range

_SOI = b"\xff\xd8"
_SOS = 0xDA
_EOI = 0xD9
_DRI = 0xDD
_APP1 = 0xE1
_APP14 = 0xEE
_EXIF = b"Exif\x00\x00"
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
# All SOFn; 0xC4 (DHT), 0xC8 (JPG) and 0xCC (DAC) share the range but are no frame headers.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# In the bits of a scan 0xFF stands before 0x00 or a restart marker; anything else ends it.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN = b"\xff\xda"
_BASELINE = 0xC0
_EXTENDED = 0xC1
_PROGRESSIVE = frozenset({0xC2, 0xCA})


class Sampling(IntEnum):
    """Chroma sampling; the numbers are TurboJPEG's and part of the index format."""

    S444 = 0
    S422 = 1
    S420 = 2
    GREY = 3
    S440 = 4
    S411 = 5
    S441 = 6
    OTHER = 7


# (horizontal, vertical) factors of the luma component where both chroma components have (1, 1).
_SAMPLINGS = {
    (1, 1): Sampling.S444,
    (2, 1): Sampling.S422,
    (2, 2): Sampling.S420,
    (1, 2): Sampling.S440,
    (4, 1): Sampling.S411,
    (1, 4): Sampling.S441,
}


class JpegError(ValueError):
    """The markers of a JPEG cannot be followed."""


Quality = Annotated[int, Range(1, 100)]
"""Of a JPEG that is encoded."""


@dataclass(frozen=True)
class JpegHeader:
    """What stands before the first scan of a JPEG."""

    width: int
    """Stored width in pixels, before EXIF orientation."""
    height: int
    """Stored height in pixels, before EXIF orientation."""
    precision: int
    """Bits a sample: 8, or 12."""
    frame: int
    """The SOFn marker: 0xC0 baseline, 0xC1 extended, 0xC2 progressive, others are rare."""
    num_components: int
    """1 grey, 3 colour, 4 CMYK or YCCK."""
    sampling: Sampling
    """Chroma sampling."""
    restart_interval: int
    """MCUs between restart markers; 0 means none."""
    adobe_transform: int | None
    """Colour transform of the Adobe segment; None without one."""
    component_ids: tuple[int, ...]
    """The components' identifiers."""
    exif: bytes
    """EXIF block with its prefix, of as many segments as it has; empty without one."""
    is_single_scan: bool
    """Whether the first scan holds all components, and no later one refines it."""

    @property
    def is_baseline(self) -> bool:
        """Whether any decoder reads it: sequential Huffman, 8 bits, SOF0."""
        return self.frame == _BASELINE and self.precision == 8

    @property
    def is_progressive(self) -> bool:
        """Whether its scans refine each other."""
        return self.frame in _PROGRESSIVE

    @property
    def is_common(self) -> bool:
        """Whether fast decoders may take it: Huffman coded, 8 bits, grey or YCbCr."""
        is_rgb = self.num_components == 3 and (
            self.adobe_transform == 0
            or (self.adobe_transform is None and bytes(self.component_ids) == b"RGB")
        )
        return (
            self.frame in (_BASELINE, _EXTENDED, 0xC2)
            and self.precision == 8
            and self.num_components in (1, 3)
            and not is_rgb
        )


def _classify(factors: list[tuple[int, int]]) -> Sampling:
    if len(factors) == 1:
        return Sampling.GREY
    if len(factors) != 3 or factors[1] != factors[2]:
        return Sampling.OTHER
    (luma_h, luma_v), (chroma_h, chroma_v) = factors[0], factors[1]
    if not chroma_h or not chroma_v or luma_h % chroma_h or luma_v % chroma_v:
        return Sampling.OTHER
    return _SAMPLINGS.get((luma_h // chroma_h, luma_v // chroma_v), Sampling.OTHER)


def _parse_frame(marker: int, body: bytes) -> dict:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise JpegError("the frame header is shorter than it says")
    precision, height, width, num_components = struct.unpack_from(">BHHB", body)
    triples = [body[6 + 3 * i : 9 + 3 * i] for i in range(num_components)]
    return {
        "width": width,
        "height": height,
        "precision": precision,
        "frame": marker,
        "num_components": num_components,
        "sampling": _classify([(t[1] >> 4, t[1] & 15) for t in triples]),
        "component_ids": tuple(t[0] for t in triples),
    }


def parse_jpeg(payload: bytes) -> JpegHeader:
    """Read the markers of a JPEG up to its first scan; no pixel is decoded.

    Args:
        payload: a whole JPEG, or at least everything up to its first scan.

    Returns:
        What the markers say.

    Raises:
        JpegError: if there is no frame header before the first scan.
    """
    if payload[:2] != _SOI:
        raise JpegError("it does not begin with the SOI marker")
    position, frame, restart_interval, adobe, exif = 2, None, 0, None, b""
    while True:
        start = payload.find(b"\xff", position)
        # Any number of 0xFF may fill the room before a marker; stray bytes are passed over, as
        # libjpeg does.
        while start != -1 and payload[start + 1 : start + 2] == b"\xff":
            start += 1
        if start == -1 or start + 2 > len(payload):
            raise JpegError("it ends before its first scan")
        marker = payload[start + 1]
        position = start + 2
        if marker == 0 or marker in _STANDALONE:
            continue
        if marker in (_SOS, _EOI):
            break
        if position + 2 > len(payload):
            raise JpegError("it ends before its first scan")
        (length,) = struct.unpack_from(">H", payload, position)
        body = payload[position + 2 : position + length]
        if length < 2 or len(body) != length - 2:
            raise JpegError("a segment is shorter than it says")
        if marker in _FRAMES:
            frame = _parse_frame(marker, body)
        elif marker == _DRI and len(body) >= 2:
            (restart_interval,) = struct.unpack_from(">H", body)
        elif marker == _APP14 and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif marker == _APP1 and body.startswith(_EXIF):
            exif = exif + body[len(_EXIF) :] if exif else body
        position += length
    if frame is None:
        raise JpegError("there is no frame header before the first scan")
    return JpegHeader(
        restart_interval=restart_interval,
        adobe_transform=adobe,
        exif=exif,
        is_single_scan=payload[position + 2 : position + 3] == bytes([frame["num_components"]])
        and marker == _SOS
        and frame["frame"] in (_BASELINE, _EXTENDED),
        **frame,
    )


def count_scans(payload: bytes) -> int:
    """Count the scans of a JPEG up to its end; nothing is decoded.

    Args:
        payload: a whole JPEG; what stands behind its end, such as further views, is not counted.
    """
    count, position = 0, len(_SOI)
    while (found := _END_OF_SCAN.search(payload, position)) is not None:
        marker, position = payload[found.start() + 1], found.end()
        if marker == _EOI:
            break
        if marker in _STANDALONE or position + 2 > len(payload):
            continue
        count += marker == _SOS
        # A segment may hold a thumbnail with scans of its own, so it is stepped over.
        position += int.from_bytes(payload[position : position + 2], "big")
    return count
