"""USTAR, written and walked: the part of it that a shard needs, the same bytes everywhere."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 512
END = bytes(2 * BLOCK)
"""Two blocks of zeros end an archive."""

MAX_MEMBER_BYTES = 8**11 - 1
"""Largest size that the octal field of a header holds."""

_OCTAL = re.compile(rb"[0-7]*")
_FIXED = b"0000644\x000000000\x000000000\x00"  # mode, owner, group


TARFILE_ERRORS = (tarfile.TarError, ValueError, OverflowError, RecursionError)
"""What tarfile says of hostile headers: numbers without end, headers in headers."""


class TarError(ValueError):
    """The structure of a tar is damaged."""


@dataclass(frozen=True)
class Member:
    """A file in a tar."""

    name: str
    """Its name."""
    start: int
    """Where its header begins."""
    offset: int
    """Where its bytes begin."""
    size: int
    """How many they are."""


def padding(size: int) -> int:
    """Return how many zero bytes fill the last block of a member."""
    return -size % BLOCK


def _checksum(header: bytes) -> int:
    return sum(header) - sum(header[148:156]) + 8 * ord(" ")


def build_header(name: str, size: int) -> bytes:
    """Return the USTAR header of a regular file: no times, no owners, mode 0644.

    Args:
        name: ASCII, at most 100 characters.
        size: bytes of the member.

    Returns:
        512 bytes.
    """
    encoded = name.encode("ascii")
    assert len(encoded) <= 100
    assert 0 <= size <= MAX_MEMBER_BYTES
    header = b"".join(
        (
            encoded.ljust(100, b"\0"),
            _FIXED,
            b"%011o\0" % size,
            b"%011o\0" % 0,  # modification time
            b" " * 8,  # room for the checksum
            b"0",  # a regular file
            bytes(100),  # no link
            b"ustar\0" + b"00",
            bytes(64),  # names of owner and group
            b"%07o\0" % 0 + b"%07o\0" % 0,  # device numbers
            bytes(167),  # no prefix of the name, and padding
        )
    )
    return header[:148] + b"%06o\0 " % _checksum(header) + header[156:]


def _octal(field: bytes, what: str, start: int) -> int:
    text = field.strip(b"\0 ")
    if not _OCTAL.fullmatch(text):  # int() takes signs too, and a negative size never ends
        raise TarError(f"the header at byte {start} has a {what} of {text!r}")
    return int(text or b"0", 8)


def parse_member(header: bytes, start: int) -> Member:
    """Take the header of a regular file apart.

    Args:
        header: 512 bytes.
        start: where in the tar they stand.

    Returns:
        The member.

    Raises:
        TarError: if they are not the header of a regular file.
    """
    if len(header) < BLOCK:
        raise TarError(f"the tar ends in the middle of the header at byte {start}")
    if _octal(header[148:156], "checksum", start) != _checksum(header):
        raise TarError(f"the checksum of the header at byte {start} is wrong")
    if header[257:262] != b"ustar" or header[156:157] not in (b"0", b"\0"):
        raise TarError(f"the header at byte {start} is not that of a regular USTAR file")
    name = header[:100].rstrip(b"\0").decode("ascii", "backslashreplace")
    return Member(name, start, start + BLOCK, _octal(header[124:136], "size", start))


def walk_tar(descriptor: int) -> Iterator[Member]:
    """Yield the members of a tar that consists of regular USTAR files.

    Args:
        descriptor: the opened tar; its position is left alone.

    Yields:
        The members in order.

    Raises:
        TarError: where the structure is damaged.
    """
    size = os.fstat(descriptor).st_size
    start = 0
    while True:
        header = os.pread(descriptor, BLOCK, start)
        if header == bytes(BLOCK):
            if os.pread(descriptor, BLOCK, start + BLOCK) != bytes(BLOCK):
                raise TarError(f"only one block of zeros at byte {start}, two end a tar")
            return
        member = parse_member(header, start)
        end = member.offset + member.size
        if end > size:
            raise TarError(f"the tar has {size} bytes, {member.name} ends at {end}")
        yield member
        start = end + padding(member.size)


def split_name(name: str) -> tuple[str, str]:
    """Return the key of the sample that a member is of, and its extension, as WebDataset has them.

    Args:
        name: of the member.

    Returns:
        What stands before the first dot of the last part, "" of a hidden file; what stands behind
        it, in small letters.
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem if stem else "", extension.lower()


def split_members(content: bytes) -> dict[str, bytes]:
    """Return the regular files in a part of a tar of any kind, by what follows their first dot.

    Args:
        content: whole members, the first header at its beginning; no end.

    Returns:
        The files up to the first one that is damaged.
    """
    found: dict[str, bytes] = {}
    with (
        contextlib.suppress(*TARFILE_ERRORS),
        tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive,
    ):
        for member in archive:
            if member.isreg():
                _, extension = split_name(member.name)
                stop = member.offset_data + member.size
                found.setdefault(extension, content[member.offset_data : stop])
    return found
