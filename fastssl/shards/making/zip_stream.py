"""A zip that stays where it is: its samples as it passes once, front to back, like those of a tar.

Its directory, at its end, is read first. A sample is what shares a name up to its first dot,
wherever it lies in the zip. Only what is stored without compression can be read in place later.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import InputError
from ..store import Store
from ..tar import split_name
from .entries import MAX_FILE_BYTES, Entry, LeftOut
from .tar_stream import RANKS, TarSample, TarStream
from .zip_directory import STORED, ZipMember, find_end, read_members
from .zip_source import HEADER_BYTES, MEMBER, begin_member, find_data

_SKIPPED_BYTES = 4 << 20


@dataclass
class _Members:
    """Of one sample, as the directory says."""

    key: str
    image: ZipMember | None = None
    extension: str = ""
    label: ZipMember | None = None
    doubled: str = ""
    names: tuple[str, ...] = ()

    def add(self, member: ZipMember, extension: str) -> None:
        """Add a member."""
        if extension in self.names:
            self.doubled = extension
            return
        self.names += (extension,)
        if RANKS.get(extension, 0) > RANKS.get(self.extension, 0):
            self.image, self.extension = member, extension
        elif extension == "cls":
            self.label = member


def read_zip_samples(stream: TarStream, store: Store, name: str) -> Iterator[TarSample]:
    """Yield the samples of a zip, those without an image first, then as their images lie in it.

    Args:
        stream: the zip, at its beginning.
        store: that it lies in: its directory and labels are read by ranges.
        name: of the zip there.

    Yields:
        Each with its image's bytes, or with why they cannot be read in place.

    Raises:
        InputError: if it is damaged or no zip, or an image is encrypted.
        RunFailed: if a store does not give it.
    """
    found: dict[str, _Members] = {}
    for member in read_members(store, name, find_end(store, name)):
        key, extension = split_name(member.name)
        if member.is_file and key:
            found.setdefault(key, _Members(key)).add(member, extension)
    placed = []
    for members in found.values():
        if members.image is None:
            yield TarSample(members.key, doubled=members.doubled)
        else:
            placed.append((members.image.offset, members))
    for _, members in sorted(placed, key=lambda one: one[0]):
        yield _read_sample(stream, store, name, members)


def _read_sample(stream: TarStream, store: Store, name: str, members: _Members) -> TarSample:
    image = members.image
    assert image is not None
    if image.is_encrypted:
        raise InputError(
            f"{store.place}/{name}: {image.name[:80]!r} is encrypted; unpack the zip with its "
            "password, and convert the folder: fastssl make-shards"
        )
    sample = TarSample(members.key, members.extension, doubled=members.doubled, size=image.size)
    try:
        if image.method != STORED or image.stored != image.size:
            raise LeftOut(
                "not-in-place",
                f".{sample.extension}: compressed in its zip, so that nothing reads it where it "
                "stands; convert it by fastssl make-shards",
            )
        if not sample.doubled and image.size <= MAX_FILE_BYTES:
            sample.offset, sample.image = _read_image(stream, image)
            sample.label = _read_label(store, name, members.label)
        sample.end = sample.offset + sample.size
    except LeftOut as error:
        sample.problem = error
    return sample


def _read_image(stream: TarStream, member: ZipMember) -> tuple[int, bytes]:
    """Let the bytes in front of a member pass; return where its own begin, and these."""
    if member.offset < stream.tell():
        raise LeftOut("corrupt", "it begins inside the member before it")
    _skip(stream, member.offset - stream.tell())
    begin = find_data(_read(stream, HEADER_BYTES))
    _skip(stream, begin - HEADER_BYTES)
    offset = stream.tell()
    content = _read(stream, member.size)
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise LeftOut("corrupt", f"{len(content):,} bytes whose CRC-32 is not what the zip says")
    return offset, content


def _read_label(store: Store, name: str, member: ZipMember | None) -> bytes | None:
    if member is None:
        return None
    numbers = (member.offset, member.stored, member.size, member.crc, member.method)
    return begin_member(
        store, Entry(f"{name}/{member.name}", tar=name, members={MEMBER: numbers})
    )()


def _read(stream: TarStream, length: int) -> bytes:
    pieces = []
    while length and (piece := stream.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _skip(stream: TarStream, length: int) -> None:
    while length > 0 and (piece := stream.read(min(length, _SKIPPED_BYTES))):
        length -= len(piece)
