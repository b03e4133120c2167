"""What there is to convert: a folder tree, a list, a table, tars or zips, as one list of entries.

Listing reads names only (of tars and zips: headers). An entry is a candidate: whether it is an
image shows when it is read, and every entry ends up as a sample or in ``skipped.jsonl``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...address import hide_credentials
from ...errors import InputError
from ...system.files import open_regular
from ..manifest import MANIFEST_NAME, TarEntry, read_manifest
from ..places import open_store
from ..reader import open_dataset
from ..store import Store
from ..tar import TARFILE_ERRORS, split_name
from ..targets import FOLDER_NAME as TARGETS_NAME
from .coco import CocoSource, is_coco
from .entries import IMAGE_ENDINGS, MAX_FILE_BYTES, Entry, LeftOut, Source
from .file_list import is_pattern, list_files
from .folders import FolderSource, ListSource
from .parquet_table import ROW, ParquetTable, RowReader, find_files
from .ranges import NUM_AHEAD, read_whole
from .rendered import RenderedSource, SplitName, is_rendered
from .tables import ENDINGS as TABLE_ENDINGS
from .tables import (
    PARQUET_ENDINGS,
    TEXT_ENDINGS,
    ImageTable,
    TableColumns,
    TableSource,
    is_table,
)
from .voc import DEFAULT_SPLIT, VocSource, is_voc
from .zip_source import ENDING as ZIP_ENDING
from .zip_source import MEMBER, ZipSource, begin_member, find_zips

if TYPE_CHECKING:
    from ..remote import RemoteStore

TAR_PIXELS = "npy"
"""Of raw datasets; elsewhere often something else that goes with the image: images come first."""
_BESIDE_FILES = (".txt", ".md", ".json", ".csv", ".md5", ".sha256", "license")
_BESIDE_TARS = (".idx", ".bin", ".json", ".jsonl", ".txt", ".beton", TARGETS_NAME)
_SNIFF_BYTES = 4096
_MAX_METADATA_BYTES = 1 << 24
_MAX_DEPTH = 64


class TarSource(Source):
    """WebDataset tars: members that share a name up to its first dot are a sample.

    Of a dataset of ours it takes the shards that the manifest names, and of those the samples and
    labels that the index names, with their targets.
    """

    root: Path

    def __init__(self, root: Path, tars: list[str]):
        """Take the tars, by name below root."""
        super().__init__(root, "tars")
        self._tars = tars

    def entries(self) -> Iterator[Entry]:
        """Yield one entry a sample, in the order of the tars."""
        self.class_names = []
        manifest = None
        if (self.root / MANIFEST_NAME).exists():
            with contextlib.suppress(InputError):  # tars of somebody else, with their own manifest
                manifest = read_manifest(self.root)
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
        for name, offset, size in _tar_members(self.root / tar):
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


def _tar_members(path: Path) -> Iterator[tuple[str, int, int]]:
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


def _is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(512)[257:262] == b"ustar"


def _open_folder(path: Path, columns: TableColumns) -> Source:
    """Return what a folder is that has no layout of its own: a tree of images, or tars."""
    with os.scandir(path) as found:
        names = sorted(item.name for item in found if not item.name.startswith("."))
    tars = [name for name in names if name.endswith(".tar")]
    if not tars and MANIFEST_NAME in names:
        places: tuple[TarEntry, ...] = ()
        with contextlib.suppress(InputError):  # of somebody else
            places = read_manifest(path).tars
        if places:
            raise InputError(
                f"{path}: a dataset over tars that stay where they are; convert those, the first "
                f"is {places[0].address}"
            )
    if tars:
        _refuse_others(path, names, f"tars ({tars[0]})", (".tar", *_BESIDE_TARS))
        return TarSource(path, tars)
    tables = [name for name in names if not name.lower().endswith(_BESIDE_FILES)]
    if tables and all(name.lower().endswith(PARQUET_ENDINGS) for name in tables):
        return _open_parquet(path, path, find_files(names, PARQUET_ENDINGS, str(path)), columns)
    if zips := find_zips(names):
        _refuse_others(path, names, f"zips ({zips[0]})", (ZIP_ENDING, *_BESIDE_FILES))
        return ZipSource(path, zips)
    return FolderSource(path)


def _refuse_others(path: Path, names: list[str], kind: str, endings: tuple[str, ...]) -> None:
    """See that a folder of archives holds nothing else that may be meant."""
    others = [name for name in names if not name.lower().endswith(endings)]
    if others:
        raise InputError(
            f"{path}: holds both {kind} and other files ({others[0]}); "
            "put them apart and convert one kind"
        )


def _open_parquet(
    path: Path | str, root: Path | str, files: list[str], columns: TableColumns
) -> TableSource:
    """Return Parquet that holds images, or the paths of some."""
    table = ParquetTable(root, files, columns.image, columns.path)
    if table.image_column is not None:
        return ImageTable(path, columns, table)
    if isinstance(root, str) and columns.path in table.names:
        raise InputError(
            f"{path}: holds paths of images and no images; copy it, and them, to a folder"
        )
    return TableSource(path, columns, table)


def _open_files(given: Path | str, columns: TableColumns) -> Source:
    """Return what an address stands for, or a path with a pattern."""
    files = list_files(given)
    if files.end_with(ZIP_ENDING):
        return ZipSource(files.root, files.names)
    if files.end_with(*PARQUET_ENDINGS):
        return _open_parquet(given, files.root, files.names, columns)
    raise InputError(
        f"{hide_credentials(str(given))}: wanted zips or Parquet; of remote tars make "
        "a dataset by fastssl index-tars, or copy what there is to a folder"
    )


def _open_zip(path: Path) -> ZipSource | None:
    """Return a zip, or a folder in it that a path names; None if there is none in the path."""
    for zip_path in (path, *path.parents):
        if zip_path.suffix.lower() == ZIP_ENDING and zip_path.is_file():
            inner = path.relative_to(zip_path).as_posix()
            return ZipSource(zip_path.parent, [zip_path.name], "" if inner == "." else f"{inner}/")
    return None


def open_source(
    path: Path | str,
    columns: TableColumns | None = None,
    voc_split: str = DEFAULT_SPLIT,
    coco_images: Path | None = None,
    synthetic_split: SplitName = "all",
) -> Source:
    """Find out what a source is.

    Args:
        path: a folder tree of images, a PASCAL VOC folder, a rendered set, a folder of tars or
            zips, a tar, a zip or a folder in one, a table, a file of COCO's instances, or a text
            list; a pattern of zips or of Parquet, or their address.
        columns: which columns of a table to use; None takes ``path`` and ``label``.
        voc_split: which list of a PASCAL VOC folder to take.
        coco_images: folder of COCO's pictures; None finds it.
        synthetic_split: which part of a rendered set to take.

    Returns:
        The source; nothing is listed yet.

    Raises:
        InputError: if it is none of these.
    """
    columns = columns or TableColumns()
    if isinstance(path, str) or is_pattern(path):
        return _open_files(path, columns)
    if path.is_dir():
        if is_voc(path):
            return VocSource(path, voc_split)
        if is_rendered(path):
            return RenderedSource(path, synthetic_split)
        return _open_folder(path, columns)
    if (zipped := _open_zip(path)) is not None:
        return zipped
    if not path.exists():
        raise InputError(
            f"{path}: no such file or folder; wanted a folder of images, a text list, a "
            "table, a tar or a zip"
        )
    # Files of /proc say that they are empty, and some are waited on for ever when they are read.
    has_content = path.suffix.lower() in TABLE_ENDINGS or path.stat().st_size
    if not path.is_file() or not has_content:
        what = "empty" if path.is_file() else "not a regular file"
        raise InputError(f"{path}: {what}; wanted a folder of images, a list, a table or a tar")
    if is_table(path):
        if path.suffix.lower() in TEXT_ENDINGS:
            return TableSource(path, columns)
        return _open_parquet(path, path.parent, [path.name], columns)
    if path.suffix == ".tar" or _is_tar(path):
        return TarSource(path.parent, [path.name])
    if is_coco(path):
        return CocoSource(path, coco_images)
    with path.open("rb") as file:
        if b"\0" in file.read(_SNIFF_BYTES):
            raise InputError(
                f"{path}: neither a tar nor a text list (it holds zero bytes); wanted a folder of "
                "images, a list with one path a line, a table (.csv, .tsv, .parquet), or an "
                "uncompressed tar"
            )
    return ListSource(path)


def _read_file(path: Path) -> bytes:
    try:
        with open(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise LeftOut(
                    "too-large", f"{size:,} bytes; images up to {MAX_FILE_BYTES:,} are read"
                )
            # No more than it says it has: files of /proc say 0, and may have no end.
            return file.read(size) or b""
    except FileNotFoundError:
        raise LeftOut("missing", "no such file, or a link that leads nowhere") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LeftOut("missing", "a link that leads to itself") from None
        if error.errno == errno.EINVAL:
            raise LeftOut("not-a-file", error.strerror or str(error)) from None
        raise LeftOut("unreadable", error.strerror or str(error)) from None
    except ValueError as error:  # a zero byte in a path of a list
        raise LeftOut("missing", str(error)) from None


def _read_member(path: Path, place: tuple[int, ...], max_bytes: int = _MAX_METADATA_BYTES) -> bytes:
    offset, size = place
    if size > max_bytes:
        raise LeftOut("too-large", f"a member of {size:,} bytes; up to {max_bytes:,} are read")
    try:
        with open(open_regular(path), "rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise LeftOut("unreadable", error.strerror or str(error)) from None
    if len(content) < size:
        raise LeftOut("truncated", f"{len(content)} of {size} bytes, then the tar ends")
    return content


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


@dataclass(frozen=True)
class SourceSample:
    """The bytes of an entry."""

    data: bytes
    """The image file."""
    label: int
    """Its label; -1 for none."""
    metadata: dict
    """What came along: JSON of a tar, further columns of a table."""


class EntryReader:
    """Reads entries of one source; those of a store are asked for before they are waited for.

    Opens nothing before it is used, and then what it opens is this process's own.
    """

    def __init__(self, root: Path | str) -> None:
        """Take the source's root."""
        self._root = root
        self.num_ahead = NUM_AHEAD if isinstance(root, str) else 1
        """Entries to begin before the first of them is waited for."""

    @functools.cached_property
    def _store(self) -> Store:
        return open_store(self._root)

    @functools.cached_property
    def _rows(self) -> RowReader:
        return RowReader(self._store)

    def begin(self, entry: Entry) -> Callable[[], SourceSample]:
        """Ask for an entry.

        Args:
            entry: of the source.

        Returns:
            What gives its bytes, label and metadata, or raises ``LeftOut`` if they cannot be had;
            ``RunFailed`` if it is a store that does not give them.
        """
        if ROW in entry.members:
            return lambda: SourceSample(self._rows.read(entry), entry.label, entry.columns)
        if isinstance(self._root, str) and entry.tar is None and entry.problem is None:
            store = cast("RemoteStore", self._store)
            come = store.begin(functools.partial(read_whole, store, entry.name, MAX_FILE_BYTES))
            return lambda: SourceSample(come(), entry.label, entry.columns)
        if MEMBER not in entry.members:
            assert isinstance(self._root, Path) or entry.problem is not None
            return functools.partial(_read_local, Path(self._root), entry)
        try:
            wait = begin_member(self._store, entry)
        except LeftOut as left_out:
            return functools.partial(_leave_out, left_out)
        return lambda: SourceSample(wait(), entry.label, entry.columns)


def _leave_out(left_out: LeftOut) -> SourceSample:
    raise left_out


def read_entry(root: Path | str, entry: Entry) -> SourceSample:
    """Read one entry.

    Args:
        root: the source's root.
        entry: one of its entries.

    Returns:
        Its bytes, label and metadata.

    Raises:
        LeftOut: if they cannot be had.
    """
    return EntryReader(root).begin(entry)()


def _read_local(root: Path, entry: Entry) -> SourceSample:
    if entry.problem is not None:
        raise LeftOut(entry.reason, entry.problem)
    if entry.tar is None:
        return SourceSample(_read_file(root / entry.name), entry.label, entry.columns)
    if "image" not in entry.members:
        raise LeftOut("non-image", "the sample has no member with the extension of an image")
    path = root / entry.tar
    data = _read_member(path, entry.members["image"], MAX_FILE_BYTES)
    label = entry.label
    metadata: dict = {}
    if "cls" in entry.members:
        label = parse_label(_read_member(path, entry.members["cls"]))
    if "json" in entry.members:
        metadata = _parse_metadata(_read_member(path, entry.members["json"]))
    return SourceSample(data, label, metadata)
