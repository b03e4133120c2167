"""Zips as a source, on this machine or in a store: directories are listed, members read by ranges.

No file is ever made of a member, so its name leads nowhere; it is what it came from, and its folder
is the class.
"""

from __future__ import annotations

import functools
import json
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ...errors import InputError
from ..places import open_store
from ..store import Store
from .entries import IMAGE_ENDINGS, MAX_FILE_BYTES, Entry, LeftOut, Source
from .hints import describe_zip_folders
from .ranges import read_candidate, run_in_order
from .zip_directory import DEFLATED, STORED, ZipMember, find_end, read_members

ENDING = ".zip"
"""Of the names of zips."""
MEMBER = "zip"
"""Key of ``Entry.members``: (offset of the header, bytes stored, bytes, CRC-32, method)."""

HEADER_BYTES = 30
"""Of the header in front of a member, without its name."""
_SLACK = 64
"""Bytes asked for beyond a member's own: its header may hold more than the directory says. They are
there in any zip, since at least a directory follows."""


class ZipSource(Source):
    """Zips as if unpacked into one folder.

    The label of an image is the first folder below those that all images share: an inner folder of
    many zips cannot be named. Members are in the order of the zips and of their directories.
    """

    def __init__(self, root: Path | str, zips: Sequence[str], inner: str = ""):
        """Take the zips.

        Args:
            root: folder or address that they lie below.
            zips: their names there.
            inner: folder in the zips; what lies elsewhere is not taken.
        """
        super().__init__(root, "zips")
        self._zips = zips
        self._inner = inner
        self._folders = _Folders()

    def entries(self) -> Iterator[Entry]:
        """Yield the files that are not hidden; nothing of their bytes is read.

        Raises:
            InputError: if a zip is damaged, or a member encrypted.
        """
        self._folders = _Folders()
        with tempfile.TemporaryFile() as listing:
            for entry, folder in self._walk():
                if entry.name.rpartition(".")[2].lower() in IMAGE_ENDINGS:
                    self._folders.add(folder)
                fields = [entry.name, entry.tar, entry.members, entry.problem, entry.reason, folder]
                listing.write(json.dumps(fields).encode("ascii") + b"\n")
            self.class_names = self._folders.class_names()
            labels = {name: number for number, name in enumerate(self.class_names)}
            listing.seek(0)
            for line in listing:
                name, tar, members, problem, reason, folder = json.loads(line)
                label = labels.get(self._folders.class_of(folder) or "", -1)
                yield Entry(name, label, tar, members, problem=problem, reason=reason)

    def describe_labels(self) -> str | None:
        """Say whether the folders look like no classes."""
        where = f"{self.place}/{self._zips[0]}" if len(self._zips) == 1 else ""
        return describe_zip_folders(where, self._folders.path, self.class_names)

    def _walk(self) -> Iterator[tuple[Entry, str]]:
        """Yield each candidate, and the folder that it lies in."""
        store = open_store(self.root)
        try:
            ends = run_in_order(store, (functools.partial(find_end, store, n) for n in self._zips))
            for zip_name, end in zip(self._zips, ends, strict=True):
                for member in read_members(store, zip_name, end):
                    if (found := self._take(zip_name, member)) is not None:
                        yield found
        finally:
            store.close()

    def _take(self, zip_name: str, member: ZipMember) -> tuple[Entry, str] | None:
        path = member.name
        parts = path.split("/")
        if path.endswith("/") or not path.startswith(self._inner):
            return None
        if any(part.startswith(".") and part not in (".", "..") for part in parts):
            return None
        name = f"{zip_name}/{path}"
        if not member.is_file:
            return Entry(name, tar=zip_name, problem="a link or device", reason="not-a-file"), ""
        if path.startswith(("/", "\\")) or ".." in parts or "\0" in path:
            problem = "its name leads out of the zip"
            return Entry(name, tar=zip_name, problem=problem, reason="unsafe-name"), ""
        if member.is_encrypted:
            raise InputError(
                f"{self.place}/{zip_name}: {path[:80]!r} is encrypted; unpack the zip with its "
                "password, and convert the folder"
            )
        numbers = (member.offset, member.stored, member.size, member.crc, member.method)
        return Entry(name, tar=zip_name, members={MEMBER: numbers}), "/".join(parts[:-1])


class _Folders:
    """The folders of images, without keeping them all: what they share, and the first behind it."""

    def __init__(self) -> None:
        self._shared: list[str] | None = None
        self._next: set[str] = set()

    def add(self, folder: str) -> None:
        """Add the folder of an image."""
        parts = folder.split("/") if folder else []
        if self._shared is None:
            self._shared = parts
            return
        count = 0
        for one, other in zip(self._shared, parts, strict=False):
            if one != other:
                break
            count += 1
        if count < len(self._shared):  # all before it went on like this
            self._next = {self._shared[count]}
            self._shared = parts[:count]
        if len(parts) > count:
            self._next.add(parts[count])

    def _split(self) -> tuple[list[str], set[str]]:
        shared = self._shared or []
        if shared and not self._next:  # all lie in one folder: that is their class
            return shared[:-1], {shared[-1]}
        return shared, self._next

    @property
    def path(self) -> str:
        """The folder that holds those of the classes."""
        return "/".join(self._split()[0])

    def class_names(self) -> list[str]:
        """Return the classes, sorted."""
        return sorted(self._split()[1])

    def class_of(self, folder: str) -> str | None:
        """Return the class that a folder belongs to, if it does to one."""
        shared, _ = self._split()
        parts = folder.split("/")
        is_below = len(parts) > len(shared) and parts[: len(shared)] == shared
        return parts[len(shared)] if is_below else None


# --- Members --------------------------------------------------------------------------------------


def begin_member(store: Store, entry: Entry) -> Callable[[], bytes]:
    """Ask a store for a member; return what waits for it.

    Args:
        store: that the zip lies in.
        entry: of ``ZipSource``.

    Returns:
        What gives the member's bytes, or raises ``LeftOut``; ``RunFailed`` if a store does not give
        them.

    Raises:
        LeftOut: if they are not to be read.
    """
    assert entry.tar is not None
    offset, stored, size, _, method = entry.members[MEMBER]
    if method not in (STORED, DEFLATED):
        raise LeftOut("not-deflated", f"compressed by method {method}; unpack the zip")
    if max(stored, size) > MAX_FILE_BYTES:
        most = f"up to {MAX_FILE_BYTES:,} are read"
        raise LeftOut("too-large", f"{max(stored, size):,} bytes; {most}")
    length = HEADER_BYTES + len(entry.name) - len(entry.tar) - 1 + _SLACK + stored
    begun = store.begin(functools.partial(read_candidate, store, entry.tar, offset, length))
    return functools.partial(_finish, begun, store, entry)


def _finish(begun: Callable[[], bytes], store: Store, entry: Entry) -> bytes:
    assert entry.tar is not None
    offset, stored, size, crc, method = entry.members[MEMBER]
    content = begun()
    begin = find_data(content)
    if len(content) < begin + stored:
        missing = begin + stored - len(content)
        content += read_candidate(store, entry.tar, offset + len(content), missing)
    content = content[begin : begin + stored]
    if method == DEFLATED:
        content = _inflate(content, size)
    if len(content) != size or zlib.crc32(content) != crc:
        raise LeftOut("corrupt", f"{len(content):,} bytes whose CRC-32 is not what the zip says")
    return content


def find_data(header: bytes) -> int:
    """Return how far behind the beginning of a member's header its bytes begin.

    Args:
        header: ``HEADER_BYTES`` of it at least.

    Raises:
        LeftOut: if it is none.
    """
    if header[:4] != b"PK\3\4" or len(header) < HEADER_BYTES:
        raise LeftOut("corrupt", "the zip has something else in its place")
    return HEADER_BYTES + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))


def _inflate(content: bytes, size: int) -> bytes:
    """Unpack no more than was declared: a bomb ends there."""
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return unpacking.decompress(content, size + 1)
    except zlib.error as error:
        raise LeftOut("corrupt", f"its bytes cannot be unpacked ({error})") from None


def find_zips(names: Iterable[str]) -> list[str]:
    """Return the names that are those of zips."""
    return [name for name in names if is_zip(name)]


def is_zip(name: str) -> bool:
    """Tell whether a name is that of a zip."""
    return name.lower().endswith(ENDING)
