"""A tar read once, from its beginning to its end: its samples and its SHA-256 in one pass.

Of files and of object stores alike. What WebDataset takes for a sample is one here: members that
follow each other and share a name up to the first dot of its last part.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from ...errors import InputError
from ..store import Store
from ..tar import BLOCK, TARFILE_ERRORS, split_name
from .entries import IMAGE_ENDINGS, MAX_FILE_BYTES, TAR_PIXELS, LeftOut
from .ranges import read_part

RANKS = {
    **dict.fromkeys(IMAGE_ENDINGS, 1),
    TAR_PIXELS: 1,
    # What loaders read where it stands; of a raw dataset there is nothing else.
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif", "png"), 2),
}
"""Which member of a sample is its image: the first one of the highest rank."""
_CHUNK_BYTES = 4 << 20
_PIECE_BYTES = 1 << 16
"""What tarfile's stream asks for at a time: it copies what it keeps at every read."""
_KEPT_BYTES = 2 * _PIECE_BYTES
_MAX_LABEL_BYTES = 64
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}


@dataclass
class TarSample:
    """Members of a tar that share a key."""

    key: str
    """Path of the members up to the first dot of their name."""
    extension: str = ""
    """Of the image; "" without one."""
    offset: int = 0
    """Where the image's bytes begin in the tar."""
    size: int = 0
    """Bytes of the image."""
    image: bytes = b""
    """The bytes; none of an image that is too large."""
    label: bytes | None = None
    """What its ``.cls`` says."""
    end: int = 0
    """Where its last member ends."""
    doubled: str = ""
    """An extension that it has twice."""
    names: list[str] = field(default_factory=list)
    """Extensions of its members, in order."""
    problem: LeftOut | None = None
    """Why its image was not read."""

    @property
    def span(self) -> int:
        """Bytes from the image's header to the last member's end."""
        return self.end - self.offset + BLOCK


class TarStream(io.RawIOBase):
    """The bytes of a tar in their order, hashed as they pass; others' are asked one part ahead."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        """Ask for the first part.

        Args:
            store: that the tar lies in.
            name: of the tar there.
            size: bytes that it has.
        """
        super().__init__()
        self._store, self._name = store, name
        self.size = size
        """Bytes that it had when it was found."""
        self._hash = hashlib.sha256()
        self._position = self._fetched = self._begin = 0
        self._chunk = self._last = b""
        self._next = self._fetch()

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def tell(self) -> int:
        """Return how many bytes have passed."""
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return bytes that follow, ``size`` or fewer; empty at the end.

        Raises:
            RunFailed: if a store does not give it.
        """
        if self._begin == len(self._chunk):
            self._begin, self._chunk = 0, self._next()
            self._next = self._fetch()
            self._hash.update(self._chunk)
        stop = len(self._chunk) if size is None or size < 0 else self._begin + size
        content = self._chunk[self._begin : stop]
        self._begin += len(content)
        self._position += len(content)
        self._last = (self._last + content)[-_KEPT_BYTES:]
        return content

    def look_back(self, start: int, length: int) -> bytes:
        """Return bytes that have passed lately; fewer where they have not."""
        begin = self._position - len(self._last)
        return self._last[max(0, start - begin) : max(0, start + length - begin)]

    def finish(self) -> tuple[int, str]:
        """Let the rest pass; return the bytes of all and their SHA-256."""
        while self.read(_CHUNK_BYTES):
            pass
        return self._position, self._hash.hexdigest()

    def _fetch(self) -> Callable[[], bytes]:
        """Begin to read the part behind those that were asked for; empty at the end."""
        begin = self._fetched
        length = min(_CHUNK_BYTES, self.size - begin)
        self._fetched += length
        if not length:
            return bytes
        return self._store.begin(partial(read_part, self._store, self._name, begin, length))


def refuse_compressed(start: bytes, address: str) -> None:
    """Refuse a tar that is compressed as a whole.

    Args:
        start: its first bytes.
        address: named in the error.

    Raises:
        InputError: with what it is compressed by.
    """
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise InputError(
                f"{address}: compressed by {name}, so that no part of it can be read by itself; "
                "unpack it"
            )


def read_samples(stream: TarStream, address: str) -> Iterator[TarSample]:
    """Yield the samples of a tar in their order.

    Args:
        stream: the tar, at its beginning.
        address: named in errors.

    Yields:
        Each with its image's bytes.

    Raises:
        InputError: if it is no tar, compressed, damaged or cut off.
    """
    with _refusing_damaged(stream, address):
        sample: TarSample | None = None
        for archive, member in _walk(stream):
            key, extension = split_name(member.name)
            if not member.isreg() or member.issparse() or not key:
                continue
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = TarSample(key)
            _add(sample, archive, member, extension)
        if sample is not None:
            yield sample


def list_stream(stream: TarStream, address: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, first byte and size of the regular files in a tar; else as ``read_samples``."""
    with _refusing_damaged(stream, address):
        for _, member in _walk(stream):
            if member.isreg() and not member.issparse():
                yield member.name, member.offset_data, member.size


@contextlib.contextmanager
def _refusing_damaged(stream: TarStream, address: str) -> Iterator[None]:
    try:
        yield
    except TARFILE_ERRORS as error:
        refuse_compressed(stream.look_back(0, 8), address)
        raise InputError(
            f"{address}: cannot be read as a tar ({error}); restore it, or leave it out"
        ) from None


def _walk(stream: TarStream) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_PIECE_BYTES) as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined] # tarfile keeps all that it has seen
            # Or tarfile would look for its end for ever.
            if member.offset_data + member.size > stream.size:
                what = f"{member.name[:80]!r} ends behind them"
                raise tarfile.ReadError(f"it has {stream.size:,} bytes, {what}")
            yield archive, member
        # tarfile takes a damaged or cut header for the end; the real one is a block of zeros.
        end = stream.look_back(archive.offset, BLOCK)
        if end != bytes(BLOCK):
            what = "damaged" if len(end) == BLOCK else "cut off"
            raise tarfile.ReadError(f"{what} at byte {archive.offset}")


def _add(
    sample: TarSample, archive: tarfile.TarFile, member: tarfile.TarInfo, extension: str
) -> None:
    if extension in sample.names:
        sample.doubled = extension
        return
    sample.names.append(extension)
    sample.end = member.offset_data + member.size
    if RANKS.get(extension, 0) > RANKS.get(sample.extension, 0):
        sample.extension = extension
        sample.offset, sample.size = member.offset_data, member.size
        sample.image = _read(archive, member) if member.size <= MAX_FILE_BYTES else b""
    elif extension == "cls":
        sample.label = _read(archive, member)[:_MAX_LABEL_BYTES] if member.size < 1 << 20 else b"?"


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = io.BytesIO()  # whose value is no copy; tarfile would hold the pieces and the whole
    if (file := archive.extractfile(member)) is not None:
        shutil.copyfileobj(file, content, _PIECE_BYTES)
    if content.tell() < member.size:
        raise tarfile.ReadError(f"cut off in {member.name}")
    return content.getvalue()
