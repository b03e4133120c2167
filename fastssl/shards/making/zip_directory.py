"""The central directory of a zip, read by itself: what lies where, without a member's bytes.

Numbers come from whoever wrote the file: each is held against the size that the file has, and the
directory is walked in pieces, so that no number of it decides how much memory is taken.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ...counts import spell_number
from ...errors import InputError
from ..store import Store
from .ranges import look_at_file, read_part, read_parts

STORED, DEFLATED = 0, 8
"""Methods of compression that are read."""
MAX_DIRECTORY_BYTES = 1 << 30
"""A larger directory is not read: that of ten million members."""

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4B4H3L5H2L")
_MAX_COMMENT_BYTES = 1 << 16
_ENCRYPTED = 1
_UTF8 = 0x800
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_UNIX = 3


class ZipEnd(NamedTuple):
    """Where the directory of a zip lies."""

    start: int
    """First byte of the directory in the file."""
    num_bytes: int
    """Its bytes."""
    num_members: int
    """Members that it says to have."""
    shift: int
    """What is to be added to offsets: bytes in front of the zip proper, as of programs that unpack
    themselves."""


class ZipMember(NamedTuple):
    """A member as the directory says."""

    name: str
    """Its path, whatever it may be."""
    offset: int
    """Where its own header begins in the file."""
    stored: int
    """Bytes that it takes there, behind its header."""
    size: int
    """Bytes that it has."""
    crc: int
    """CRC-32 of these."""
    method: int
    """How it is compressed."""
    is_encrypted: bool
    """Whether it takes a password."""
    is_file: bool
    """Whether it is a regular file: no folder, no link, no device."""


def find_end(store: Store, name: str) -> ZipEnd:
    """Find the directory of a zip, by its last bytes.

    Args:
        store: that the zip lies in.
        name: of the zip there.

    Raises:
        InputError: if it is no whole zip, or one of several parts.
        RunFailed: if a store does not give it.
    """
    size = look_at_file(store, name).size or 0
    length = min(size, _LOCATOR.size + _END.size + _MAX_COMMENT_BYTES)
    if length < _END.size:
        raise _damaged(store, name, f"it has {size:,} bytes")
    tail = read_part(store, name, size - length, length)
    place = tail.rfind(b"PK\5\6")
    while place >= 0:
        at = size - length + place
        if len(tail) - place >= _END.size and _fits(tail, place):
            return _parse_end(store, name, tail[: place + _END.size], at)
        place = tail.rfind(b"PK\5\6", 0, place)
    raise _damaged(store, name, "the end of its directory is not there")


def _fits(tail: bytes, place: int) -> bool:
    """Tell whether the comment behind an end record reaches the end of the file."""
    *_, comment = _END.unpack_from(tail, place)
    return place + _END.size + comment == len(tail)


def _parse_end(store: Store, name: str, tail: bytes, at: int) -> ZipEnd:
    """Read the record that ``tail`` ends with, which lies at a place of the file."""
    _, disk, first_disk, here, count, num_bytes, offset, _ = _END.unpack(tail[-_END.size :])
    behind = at
    if _FULL16 in (here, count) or _FULL32 in (num_bytes, offset):
        locator = tail[-_END.size - _LOCATOR.size : -_END.size]
        if len(locator) == _LOCATOR.size and locator.startswith(b"PK\6\7"):
            behind = at - _LOCATOR.size - _END64.size
            if behind < 0:
                raise _damaged(store, name, "the end of its directory lies before its beginning")
            record = read_part(store, name, behind, _END64.size)
            sign, *_, disk, first_disk, here, count, num_bytes, offset = _END64.unpack(record)
            if sign != b"PK\6\6":
                raise _damaged(store, name, "the record of a zip64 is not where it should be")
    if disk or first_disk or here != count:
        raise InputError(
            f"{store.place}/{name}: a part of a zip in several files; join them (zip -s 0)"
        )
    if num_bytes > MAX_DIRECTORY_BYTES:
        raise InputError(
            f"{store.place}/{name}: its directory has {num_bytes:,} bytes, up to "
            f"{MAX_DIRECTORY_BYTES:,} are read; split it into several zips"
        )
    start = behind - num_bytes
    if start < offset or count * _ENTRY.size > num_bytes:
        raise _damaged(store, name, "its directory does not fit into it")
    return ZipEnd(start, num_bytes, count, start - offset)


def read_members(store: Store, name: str, end: ZipEnd) -> Iterator[ZipMember]:
    """Yield the members of a zip in the order of its directory.

    Args:
        store: that the zip lies in.
        name: of the zip there.
        end: from ``find_end``.

    Raises:
        InputError: if the directory is damaged.
        RunFailed: if a store does not give it.
    """
    held, begin, count = b"", 0, 0
    for piece in read_parts(store, name, end.start, end.num_bytes):
        held, begin = held[begin:] + piece, 0
        while len(held) - begin >= _ENTRY.size:
            fields = _ENTRY.unpack_from(held, begin)
            if fields[0] != b"PK\1\2":
                raise _damaged(store, name, f"entry {count} of its directory is none")
            length = _ENTRY.size + sum(fields[12:15])
            if len(held) - begin < length:
                break
            rest = held[begin + _ENTRY.size : begin + length]
            yield _parse_member(store, name, fields, rest, end)
            begin += length
            count += 1
    if count != end.num_members or begin != len(held):
        raise _damaged(
            store,
            name,
            f"its directory has {spell_number(count, 'member')}, not {end.num_members:,}",
        )


def _parse_member(store: Store, name: str, fields: tuple, rest: bytes, end: ZipEnd) -> ZipMember:
    system, flags, method = fields[2], fields[5], fields[6]
    crc, stored, size, name_bytes, extra_bytes = fields[9:14]
    mode, offset = fields[-2] >> 16, fields[-1]
    path = rest[:name_bytes]
    text = path.decode("utf-8", "surrogateescape") if flags & _UTF8 else path.decode("cp437")
    extra = rest[name_bytes : name_bytes + extra_bytes]
    large = [size == _FULL32, stored == _FULL32, offset == _FULL32]
    if any(large):
        numbers = _parse_zip64(extra, sum(large))
        if numbers is None:
            raise _damaged(store, name, f"{text[:80]!r} says neither its size nor its place")
        size, stored, offset = (
            numbers.pop(0) if is_large else value
            for is_large, value in zip(large, (size, stored, offset), strict=True)
        )
    offset += end.shift
    if offset + stored > end.start:
        raise _damaged(store, name, f"{text[:80]!r} reaches into its directory")
    is_other = system == _UNIX and stat.S_IFMT(mode) not in (0, stat.S_IFREG)
    is_file = not text.endswith("/") and not is_other
    return ZipMember(text, offset, stored, size, crc, method, bool(flags & _ENCRYPTED), is_file)


def _parse_zip64(extra: bytes, count: int) -> list[int] | None:
    """Return the first numbers of the field that holds what is too large for 32 bits."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        place += 4
        if kind == 1:
            held = extra[place : place + length]
            return list(struct.unpack_from(f"<{count}Q", held)) if len(held) >= 8 * count else None
        place += length
    return None


def _damaged(store: Store, name: str, what: str) -> InputError:
    return InputError(
        f"{store.place}/{name}: damaged, cut off, or no zip ({what}); fetch it again, or leave it "
        "out"
    )
