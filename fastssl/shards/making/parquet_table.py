"""Parquet of a source: one file or many, on this machine or in a store, read a row group at a time.

A column may hold images: their bytes, or, as Hugging Face keeps them, a struct of ``bytes`` and
``path``. Listing never reads those.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError, nearest
from ..places import open_store
from ..store import Store
from .entries import MAX_FILE_BYTES, Entry, LeftOut
from .ranges import look_at_file, read_parts

ROW = "row"
"""Key of ``Entry.members``: (number of the row group, row in it, number of the column)."""
WINDOW_BYTES = 256 << 20
"""Row groups that are mixed with each other have about so many bytes together."""

_MAX_GROUP_BYTES = 1 << 30
_INSTALL = (
    "reading Parquet takes pyarrow, which is not installed: "
    'pip install "fastssl[tables]" (CSV and TSV need nothing)'
)

Row = tuple[int | str, list[Any]]
"""Number of a row, as a person counts it, and its values."""


class ImagePlace(NamedTuple):
    """Where an image lies, in the place of its bytes."""

    file: str
    """Name of the file."""
    group: int
    """Number of the row group in it."""
    row: int
    """Number of the row in that."""
    column: int
    """Number of the column."""
    number: int
    """Number of the row in the file."""
    path: str | None
    """What the file itself calls the image."""


class _RangeFile(io.RawIOBase):
    """A file in a store, for pyarrow."""

    def __init__(self, store: Store, name: str) -> None:
        super().__init__()
        self._store, self._name = store, name
        self._size = look_at_file(store, name).size or 0
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = begin + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = self._size - self._position
        length = left if size is None or size < 0 else min(size, left)
        parts = read_parts(self._store, self._name, self._position, length) if length > 0 else ()
        content = b"".join(parts)
        self._position += len(content)
        return content


def import_pyarrow() -> Any:
    """Return pyarrow with its Parquet.

    Raises:
        ImportError: without it; says how to install it.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(_INSTALL) from error
    return pyarrow


def open_parquet_file(arrow: Any, store: Store, name: str) -> Any:
    """Return pyarrow's ``ParquetFile`` of a file in a store.

    Raises:
        InputError: if it is not there, or none.
        RunFailed: if a store does not give it.
    """
    try:
        if isinstance(store.address, Path):
            return arrow.parquet.ParquetFile(store.address / name)
        return arrow.parquet.ParquetFile(arrow.PythonFile(_RangeFile(store, name), "r"))
    except (arrow.ArrowException, OSError) as error:
        raise _unreadable(f"{store.place}/{name}", error) from None


def _unreadable(place: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(
        f"{place}: cannot be read as Parquet ({reason}); restore it, or write it again"
    )


class ParquetTable:
    """Typed columns of one or several files with the same ones, read in batches."""

    origin_of_names = ""

    def __init__(
        self,
        root: Path | str,
        files: Sequence[str],
        image_column: str | None = None,
        path_column: str = "path",
    ):
        """Read the schema of the first file.

        Args:
            root: folder or address of the files.
            files: their names there.
            image_column: the one that holds images; None finds it.
            path_column: where it is there, bytes of no known meaning are no images.

        Raises:
            InputError: if it is no Parquet, or there is no such column.
            ImportError: without pyarrow.
        """
        self._arrow = import_pyarrow()
        self.root, self.files = root, list(files)
        self.place = f"{root}/{files[0]}" if len(files) == 1 else str(root)
        """Named in errors."""
        with contextlib.closing(open_store(root)) as store:
            with open_parquet_file(self._arrow, store, files[0]) as file:
                self._schema = file.schema_arrow
        self.names: list[str] = self._schema.names
        self.image_column = self._find_image(image_column, path_column)
        """The column that holds images, if one does."""
        self.blocks: list[tuple[int, int]] = []
        """Rows and bytes of each row group, once images have been listed."""

    def _find_image(self, wanted: str | None, path_column: str) -> str | None:
        holders = [name for name in self.names if self._holds_bytes(name)]
        if wanted is not None:
            if wanted not in holders:
                raise InputError(
                    f"{self.place}: no column {wanted!r} with the bytes of images"
                    f"{nearest(wanted, holders)}; name the one that holds them by --image-column"
                )
            return wanted
        told = self._features()
        images = [n for n in holders if told.get(n, {}).get("_type") == "Image"]
        if not images and (path_column not in self.names or "image" in holders):
            images = holders
        if len(images) > 1 and "image" not in images:
            raise InputError(
                f"{self.place}: {len(images)} columns hold bytes ({', '.join(images[:8])}); say "
                "which are the images: --image-column"
            )
        return "image" if "image" in images else next(iter(images), None)

    def _holds_bytes(self, name: str) -> bool:
        types, kind = self._arrow.types, self._schema.field(name).type
        if types.is_struct(kind):
            index = kind.get_field_index("bytes")
            if index < 0:
                return False
            kind = kind.field(index).type
        checks = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
        return any(check(kind) for check in checks)

    def _features(self) -> dict[str, Any]:
        """Return what Hugging Face's datasets says of the columns, as far as it can be read."""
        try:
            told = json.loads((self._schema.metadata or {}).get(b"huggingface", b"{}"))
            features = told["info"]["features"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
        if not isinstance(features, dict):
            return {}
        return {name: one for name, one in features.items() if isinstance(one, dict)}

    def list_classes(self, name: str) -> list[str]:
        """Return the names that Hugging Face's ``ClassLabel`` gives the labels of a column."""
        names = self._features().get(name, {}).get("names")
        is_list = isinstance(names, list) and all(isinstance(one, str) for one in names)
        return list(names) if is_list else []

    def _type(self, name: str) -> Any:
        kind = self._schema.field(name).type
        return kind.value_type if self._arrow.types.is_dictionary(kind) else kind

    def _is_text(self, name: str) -> bool:
        types, kind = self._arrow.types, self._type(name)
        checks = (types.is_string, types.is_large_string, types.is_string_view)
        return any(check(kind) for check in checks)

    def check_delimiter(self) -> None:
        """Nothing parts its columns."""

    def check_path_type(self, name: str) -> None:
        """Make sure that the column holds text, or images."""
        if name != self.image_column and not self._is_text(name):
            raise InputError(
                f"{self.place}: the column {name!r} is {self._type(name)}, paths are strings; name "
                "another by --path-column, or cast it"
            )

    def find_label_kind(self, name: str) -> type:
        """Return int or str."""
        if self._arrow.types.is_integer(self._type(name)):
            return int
        if self._is_text(name) or self._arrow.types.is_null(self._type(name)):
            return str
        raise InputError(
            f"{self.place}: the column {name!r} is {self._type(name)}, labels are strings or "
            "integers; name another by --label-column, or cast it to string or int64"
        )

    def check_columns(self, names: Sequence[str]) -> None:
        """Make sure that JSON can keep the further columns."""
        for name in names:
            if "binary" in str(self._type(name)):
                raise InputError(
                    f"{self.place}: the column {name!r} holds bytes ({self._type(name)}), which "
                    "JSON cannot keep; drop it from the table, or name it by --image-column if "
                    "it holds the images"
                )

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """Yield the row number, from 1, and the values of these columns, for every row.

        Of the column of images the values are ``ImagePlace``.
        """
        self.blocks = []
        with contextlib.closing(open_store(self.root)) as store:
            for file_name in self.files:
                where = f" of {file_name}" if len(self.files) > 1 else ""
                with open_parquet_file(self._arrow, store, file_name) as file:
                    self._check_same(file, file_name)
                    try:
                        for number, values in enumerate(self._rows_of(file, file_name, names), 1):
                            yield (f"{number}{where}" if where else number), values
                    except (self._arrow.ArrowException, OSError, ValueError) as error:
                        raise _unreadable(f"{self.root}/{file_name}", error) from None

    def _check_same(self, file: Any, name: str) -> None:
        lacking = [n for n in self.names if file.schema_arrow.get_field_index(n) < 0]
        for one in self.names if not lacking else ():
            if file.schema_arrow.field(one).type != self._schema.field(one).type:
                lacking = [one]
        if lacking:
            raise InputError(
                f"{self.root}/{name}: its column {lacking[0]!r} is not there, or not as in "
                f"{self.files[0]}; convert files of one kind at once"
            )

    def _rows_of(self, file: Any, name: str, names: Sequence[str]) -> Iterator[list[Any]]:
        image = self.image_column if self.image_column in names else None
        plain = [one for one in names if one != image]
        has_path = image is not None and self._has_path(image)
        wanted = [*plain, f"{image}.path"] if has_path else plain
        number = 0
        for group in range(file.num_row_groups):
            told = file.metadata.row_group(group)
            if image is not None:
                self.blocks.append((told.num_rows, told.total_byte_size))
            if image is not None and told.total_byte_size > _MAX_GROUP_BYTES:
                raise InputError(
                    f"{self.root}/{name}: row group {group} has {told.total_byte_size:,} "
                    f"bytes, up to {_MAX_GROUP_BYTES:,} are read at once; write it again with "
                    "smaller ones"
                )
            row = 0
            for values in self._values_of(file, group, told.num_rows, wanted):
                if image is not None:
                    path = values.pop()["path"] if has_path else None
                    column = self._schema.get_field_index(image)
                    place = ImagePlace(name, group, row, column, number, path)
                    values.insert(list(names).index(image), place)
                yield values
                row, number = row + 1, number + 1

    def _values_of(self, file: Any, group: int, count: int, names: list[str]) -> Iterator[list]:
        if not names:
            yield from ([] for _ in range(count))
            return
        for batch in file.iter_batches(row_groups=[group], columns=names):
            columns = [batch.column(name.partition(".path")[0]).to_pylist() for name in names]
            yield from map(list, zip(*columns, strict=True))

    def _has_path(self, image: str) -> bool:
        kind = self._schema.field(image).type
        return bool(self._arrow.types.is_struct(kind) and kind.get_field_index("path") >= 0)


class RowReader:
    """Reads images of Parquet by row; keeps the row groups that were read lately."""

    def __init__(self, store: Store) -> None:
        """Take the store of the files.

        Args:
            store: of this process.
        """
        self._store = store
        self._arrow = import_pyarrow()
        self._file: tuple[str, Any] | None = None
        self._groups: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def read(self, entry: Entry) -> bytes:
        """Return the bytes of an image.

        Raises:
            LeftOut: if there are none.
            RunFailed: if a store does not give them.
        """
        assert entry.tar is not None
        group, row, column = entry.members[ROW]
        try:
            value = self._group(entry.tar, group, column)[row].as_py()
        except (self._arrow.ArrowException, OSError, InputError) as error:
            raise LeftOut("unreadable", " ".join(str(error).split())) from None
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise LeftOut("missing", "the row has no bytes of an image")
        if len(content) > MAX_FILE_BYTES:
            raise LeftOut("too-large", f"{len(content):,} bytes; up to {MAX_FILE_BYTES:,} are read")
        return content

    def _group(self, name: str, group: int, column: int) -> Any:
        """Return the column of a row group."""
        key = (name, group)
        if key not in self._groups:
            held = sum(one.nbytes for one in self._groups.values())
            while self._groups and held > 2 * WINDOW_BYTES:
                held -= self._groups.popitem(last=False)[1].nbytes
            if self._file is None or self._file[0] != name:
                self._file = (name, open_parquet_file(self._arrow, self._store, name))
            file = self._file[1]
            wanted = file.schema_arrow.names[column]
            read = file.read_row_group(group, columns=[wanted], use_threads=False)
            self._groups[key] = read.column(0)
        self._groups.move_to_end(key)
        return self._groups[key]


def find_files(names: Sequence[str], endings: tuple[str, ...], place: str) -> list[str]:
    """Return which files of a folder are Parquet.

    Args:
        names: of what lies in it.
        endings: of Parquet's names.
        place: of the folder, named in errors.

    Raises:
        InputError: if they are of several splits of a data set.
    """
    found = [name for name in names if name.lower().endswith(endings)]
    splits = [
        split
        for split in ("train", "test", "validation", "val", "dev")
        if any(fnmatch.fnmatch(name, f"{split}[-_.]*") for name in found)
    ]
    if len(splits) > 1:
        raise InputError(
            f"{place}: {', '.join(splits)} are parts of a data set by their names; convert each by "
            f"itself: fastssl make-shards '{place}/{splits[0]}-*.parquet' OUT"
        )
    return found
