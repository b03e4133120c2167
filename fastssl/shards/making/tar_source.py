"""WebDataset tars as a source, on this machine or in a store.

Headers are listed, members read by ranges.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...system.files import open_regular
from ..manifest import MANIFEST_NAME, Manifest, read_manifest
from ..places import open_store
from ..reader import open_dataset
from ..store import Store
from ..tar import TARFILE_ERRORS, split_name
from .entries import (
    IMAGE_ENDINGS,
    MAX_FILE_BYTES,
    TAR_PIXELS,
    Entry,
    LeftOut,
    Source,
    SourceSample,
)
from .ranges import look_at_file, read_candidate
from .tar_stream import TarStream, list_stream

ENDING = ".tar"
"""Of the names of tars."""

_MAX_METADATA_BYTES = 1 << 24
_MAX_DEPTH = 64


class TarSource(Source):
    """WebDataset tars: members that share a name up to its first dot are a sample.

    Tars of a store are read once to list them, and once more to convert what is in them.

    Of a dataset of ours it takes the shards that the manifest names, and of those the samples and
    labels that the index names, with their targets.
    """

    def __init__(self, root: Path | str, tars: list[str]):
        """Take the tars, by name below a folder or an address."""
        super().__init__(root, "tars")
        self._tars = tars

    def entries(self) -> Iterator[Entry]:
        """Yield one entry a sample, in the order of the tars."""
        self.class_names = []
        manifest = _find_manifest(self.root)
        if manifest is None:
            for name in self._tars:
                yield from self._walk(name)
            return
        self.class_names = list(manifest.class_names)
        self.targets = tuple(entry.spec for entry in manifest.targets)
        if manifest.targets or not all(shard.is_plain for shard in manifest.shards):
            yield from self._walk_index()
            return
        for shard in manifest.shards:
            if shard.name in self._tars:
                yield from self._walk(shard.name)

    def _walk_index(self) -> Iterator[Entry]:
        """Yield the samples that the index of a dataset names, in the order of their ids."""
        with contextlib.closing(open_dataset(self.root)) as dataset:
            dataset.check_rows()
            targets = [dataset.targets[spec.name] for spec in self.targets]
            for number, shard in enumerate(dataset.manifest.shards):
                if shard.name not in self._tars:
                    continue
                start = dataset.shard_start(number)
                rows = dataset.rows_of(number)
                ids = {offset: i for i, offset in enumerate(rows["offset"].tolist(), start)}
                for entry in self._walk(shard.name):
                    sample_id = ids.get(entry.members.get("image", (-1, 0))[0])
                    if sample_id is None:
                        continue
                    yield replace(
                        entry,
                        label=int(dataset.index["label"][sample_id]),
                        members={k: v for k, v in entry.members.items() if k != "cls"},
                        targets=tuple(target[sample_id] for target in targets),
                    )

    def _walk(self, tar: str) -> Iterator[Entry]:
        key: str | None = None
        members: dict[str, tuple[int, ...]] = {}
        for name, offset, size in _list_members(self.root, tar):
            found, extension = split_name(name)
            if not found:
                continue  # hidden
            if found != key:
                if key is not None:
                    yield self._entry(tar, key, members)
                key, members = found, {}
            members[extension] = (offset, size)
        if key is not None:
            yield self._entry(tar, key, members)

    @staticmethod
    def _entry(tar: str, key: str, members: dict[str, tuple[int, ...]]) -> Entry:
        kept: dict[str, tuple[int, ...]] = {}
        for kind in ("cls", "json"):
            if kind in members:
                kept[kind] = members[kind]
        images = [extension for extension in members if extension in IMAGE_ENDINGS]
        if not images and TAR_PIXELS in members:
            images = [TAR_PIXELS]
        if images:
            kept["image"] = members[images[0]]
            return Entry(f"{tar}/{key}.{images[0]}", -1, tar, kept)
        return Entry(f"{tar}/{key}", -1, tar, kept)


class _HeaderReader(io.FileIO):
    """A tar for tarfile, which takes every header's word for how long the next one is."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MAX_METADATA_BYTES:
            raise tarfile.ReadError("a header that says it has no end")
        return super().read(size) or b""


def _find_manifest(root: Path | str) -> Manifest | None:
    """Return the manifest of a dataset of ours; None of tars of somebody else, with their own."""
    if isinstance(root, Path) and (root / MANIFEST_NAME).exists():
        with contextlib.suppress(InputError):
            return read_manifest(root)
    return None


def _list_members(root: Path | str, tar: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, first byte and size of the regular files in a tar."""
    if isinstance(root, Path):
        yield from _list_local(root / tar)
        return
    with contextlib.closing(open_store(root)) as store:
        size = look_at_file(store, tar).size
        if size is None:
            raise InputError(f"{store.place}/{tar}: its store does not tell its size; copy it")
        with TarStream(store, tar, size) as stream:
            yield from list_stream(stream, f"{store.place}/{tar}")


def _list_local(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset, size) of the regular files of any kind of uncompressed tar."""
    try:
        with (
            _HeaderReader(open_regular(path)) as file,
            tarfile.open(fileobj=file, mode="r:", errorlevel=1) as archive,
        ):
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined] # tarfile keeps every member that it has seen
                if member.isreg():
                    yield member.name, member.offset_data, member.size
            # tarfile takes a damaged or cut header for the end; the real one is a block of zeros.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"damaged or cut off at byte {archive.offset}")
    except TARFILE_ERRORS as error:
        raise InputError(
            f"{path}: cannot be read as an uncompressed tar ({error}); unpack it if it is "
            "compressed, restore it if it is damaged"
        ) from None


# --- Members --------------------------------------------------------------------------------------


def begin_sample(store: Store, entry: Entry) -> Callable[[], SourceSample]:
    """Ask a store for the members of a sample; return what waits for them.

    Args:
        store: that the tar lies in.
        entry: of ``TarSource``.

    Returns:
        What gives the sample, or raises ``LeftOut``; ``RunFailed`` if a store does not give it.

    Raises:
        LeftOut: if it is not to be read.
    """
    if "image" not in entry.members:
        raise LeftOut("non-image", "the sample has no member with the extension of an image")
    image = _begin_member(store, entry, "image", MAX_FILE_BYTES)
    label = _begin_member(store, entry, "cls") if "cls" in entry.members else None
    metadata = _begin_member(store, entry, "json") if "json" in entry.members else None

    def finish() -> SourceSample:
        return SourceSample(
            image(),
            entry.label if label is None else parse_label(label()),
            {} if metadata is None else _parse_metadata(metadata()),
        )

    return finish


def _begin_member(
    store: Store, entry: Entry, kind: str, most: int = _MAX_METADATA_BYTES
) -> Callable[[], bytes]:
    assert entry.tar is not None
    offset, size = entry.members[kind]
    if size > most:
        raise LeftOut("too-large", f"a member of {size:,} bytes; up to {most:,} are read")
    return store.begin(functools.partial(read_candidate, store, entry.tar, offset, size))


def parse_label(text: bytes) -> int:
    """Return the label that a ``.cls`` says.

    Raises:
        LeftOut: if it is none.
    """
    try:
        label = int(text)
    except ValueError:
        label = None
    if label is None or not -1 <= label < 2**31:
        raise LeftOut("label", f"its .cls says {text[:40]!r}, wanted an integer below 2**31")
    return label


def _is_deeper(value: object, depth: int) -> bool:
    """Return whether lists and objects are nested deeper: whoever reads them may not manage."""
    level: list[Any] = [value]
    for _ in range(depth):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for some in inner for one in some if isinstance(one, dict | list)]
        if not level:
            return False
    return True


def _parse_metadata(text: bytes) -> dict:
    """Return what a ``.json`` says; one that is no object, or nested deeply, is kept as text."""
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if isinstance(metadata, dict) and not _is_deeper(metadata, _MAX_DEPTH):
        return metadata
    return {"original": text.decode("utf-8", "replace")}
