"""What there is to convert: a folder tree, a list, a table, tars or zips, as one list of entries.

Listing reads names only (of tars and zips: headers). An entry is a candidate: whether it is an
image shows when it is read, and every entry ends up as a sample or in ``skipped.jsonl``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ...address import hide_credentials
from ...errors import InputError, nearest_beside
from ...system.files import open_regular
from ..manifest import MANIFEST_NAME, TarEntry, read_manifest
from ..places import open_store
from ..store import Store
from ..targets import FOLDER_NAME as TARGETS_NAME
from .coco import CocoSource, is_coco
from .entries import MAX_FILE_BYTES, Entry, LeftOut, Source, SourceSample
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
from .tar_source import ENDING as TAR_ENDING
from .tar_source import TarSource, begin_sample
from .voc import DEFAULT_SPLIT, VocSource, is_voc
from .zip_source import ENDING as ZIP_ENDING
from .zip_source import MEMBER, ZipSource, begin_member, find_zips

if TYPE_CHECKING:
    from ..remote import RemoteStore

_BESIDE_FILES = (".txt", ".md", ".json", ".csv", ".md5", ".sha256", "license")
_BESIDE_TARS = (".idx", ".bin", ".json", ".jsonl", ".txt", ".beton", TARGETS_NAME)
_SNIFF_BYTES = 4096

_MAX_DEPTH = 64


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
    if files.end_with(TAR_ENDING):
        return TarSource(files.root, files.names)
    raise InputError(
        f"{hide_credentials(str(given))}: wanted tars, zips or Parquet; copy what there is to a "
        "folder"
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
            f"{path}: no such file or folder{nearest_beside(path)}; wanted a folder of images, a "
            "text list, a table, a tar or a zip"
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
    if path.suffix == TAR_ENDING or _is_tar(path):
        return TarSource(path.parent, [path.name])
    if is_coco(path):
        return CocoSource(path, coco_images)
    with path.open("rb") as file:
        if b"\0" in (head := file.read(_SNIFF_BYTES)):
            is_picture = head.startswith((b"\xff\xd8\xff", b"\x89PNG"))
            what = "one picture" if is_picture else "bytes that are no text"
            raise InputError(
                f"{path}: neither a tar nor a text list ({what}); wanted a folder of "
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
        if entry.problem is not None:
            return functools.partial(_leave_out, LeftOut(entry.reason, entry.problem))
        if ROW in entry.members:
            return lambda: SourceSample(self._rows.read(entry), entry.label, entry.columns)
        try:
            if entry.tar is None:
                come = self._begin_file(entry)
            elif MEMBER in entry.members:
                come = begin_member(self._store, entry)
            else:
                return begin_sample(self._store, entry)
        except LeftOut as left_out:
            return functools.partial(_leave_out, left_out)
        return lambda: SourceSample(come(), entry.label, entry.columns)

    def _begin_file(self, entry: Entry) -> Callable[[], bytes]:
        if isinstance(self._root, Path):
            return functools.partial(_read_file, self._root / entry.name)
        store = cast("RemoteStore", self._store)
        return store.begin(functools.partial(read_whole, store, entry.name, MAX_FILE_BYTES))


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
