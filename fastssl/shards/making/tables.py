"""Tables of images: CSV, TSV and Parquet with a column of paths and, if there is one, of labels.

Every pass streams: a table may be larger than memory.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...counts import spell_number
from ...errors import InputError, nearest
from ..targets import TargetSpec
from .entries import Entry, Source
from .parquet_table import ROW, ImagePlace, ParquetTable, Row
from .target_columns import EmptyValue, TargetColumn, find_row_shape

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
TEXT_ENDINGS = tuple(_DELIMITERS)
"""Of the names of CSV and TSV."""
PARQUET_ENDINGS = (".parquet", ".pq")
"""Of the names of Parquet."""
ENDINGS = (*_DELIMITERS, *PARQUET_ENDINGS)
"""Of the names of tables."""
_ADDRESSES = ("url", "urls", "image_url", "img_url", "uri", "coco_url", "flickr_url")

_PARQUET_MAGIC = b"PAR1"
_MAX_LABEL = 2**31 - 1
_MAX_DIGITS = 18
_SHOWN_COLUMNS = 8
_COMPARED_COLUMNS = 1000
_RESERVED = ("source", "orientation")


@dataclass(frozen=True)
class TableColumns:
    """Which columns of a table mean what."""

    path: str = "path"
    """Paths of the images, relative to the table's folder."""
    label: str = "label"
    """Labels: text names a class, an integer is the label itself."""
    image: str | None = None
    """Bytes of images, in Parquet; None finds the column."""
    targets: tuple[TargetColumn, ...] = ()
    """Columns that become targets, sorted by the targets' names."""


def is_table(path: Path) -> bool:
    """Tell whether a file is a table: by its ending, Parquet also by its first bytes."""
    if path.suffix.lower() in ENDINGS:
        return True
    with path.open("rb") as file:
        return file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC


# --- CSV and TSV ----------------------------------------------------------------------------------


class _CsvTable:
    """Text: every value is a string, and an empty one is none."""

    origin_of_names = " (its first line names them)"

    def __init__(self, path: Path):
        self._path = path
        self._delimiter = _DELIMITERS[path.suffix.lower()]
        self.names: list[str] = []
        for _, row in self._read_rows():
            self.names = row
            break

    def _read_rows(self) -> Iterator[tuple[int, list[str]]]:
        # surrogateescape: a name that is no UTF-8 keeps its bytes on the way to the file system.
        with self._path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            try:
                for row in reader:
                    if row:
                        yield reader.line_num, row
            except csv.Error as error:
                raise InputError(
                    f"{self._path}: line {reader.line_num} is no {self._path.suffix[1:].upper()} "
                    f"({error}); wanted fields with the delimiter {self._delimiter!r}, in double "
                    "quotes where they hold it"
                ) from None

    def check_delimiter(self) -> None:
        """Refuse a table whose columns have all come as one, for something else parts them."""
        if len(self.names) > 1:
            return
        for other in "\t;,|":
            if other in self.names[0] and other != self._delimiter:
                remedy = "name it .tsv" if other == "\t" else "write it anew with that"
                raise InputError(
                    f"{self._path}: its columns are separated by {other!r}, wanted "
                    f"{self._delimiter!r} in a {self._path.suffix}; {remedy}"
                )

    def check_path_type(self, name: str) -> None:
        """Text is what a path is."""

    def list_classes(self, name: str) -> list[str]:  # noqa: ARG002
        """Text names no numbers."""
        return []

    def find_label_kind(self, name: str) -> type:
        """Return int if all labels are whole numbers in plain form, else str."""
        labels = {values[0] for _, values in self.rows([name])} - {None}
        return int if all(_is_plain_integer(label) for label in labels) else str

    def check_columns(self, names: Sequence[str]) -> None:
        """Any text can be kept."""

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """Yield the line number and the values of these columns, for every row."""
        place_of = {name: place for place, name in enumerate(self.names)}
        places = [place_of[name] for name in names]
        rows = self._read_rows()
        next(rows, None)
        for line, row in rows:
            if len(row) != len(self.names):
                raise InputError(
                    f"{self._path}: line {line} has {spell_number(len(row), 'field')}, its header "
                    f"has {len(self.names)}; put fields that hold {self._delimiter!r} in double "
                    "quotes"
                )
            yield line, [row[place] or None for place in places]


def _is_plain_integer(text: str) -> bool:
    """Whether an integer prints as this text: 007 is a name, not the number 7."""
    digits = text.removeprefix("-")
    if len(digits) > _MAX_DIGITS:
        return False
    return digits.isascii() and digits.isdigit() and str(int(text)) == text


# --- The source -----------------------------------------------------------------------------------


def _list_names(names: Sequence[str]) -> str:
    """Name columns in the table's order."""
    return ", ".join([*names[:_SHOWN_COLUMNS], *["..."] * (len(names) > _SHOWN_COLUMNS)])


def to_plain(value: Any) -> Any:
    """Return a value of a table as JSON knows it.

    Dates and times become ISO 8601, decimals and infinities text, and what is not a number null.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    raise InputError(
        f"a table's column holds a {type(value).__name__}, which JSON cannot keep; drop it from "
        "the table, or cast it to a string"
    )


class TableSource(Source):
    """A table: paths relative to its folder; text labels name classes, integers are labels."""

    def __init__(
        self, path: Path | str, columns: TableColumns, parquet: ParquetTable | None = None
    ):
        """Open a table and check its columns.

        Args:
            path: the table.
            columns: which of its columns mean what.
            parquet: the table itself, where it is no text.

        Raises:
            InputError: if it is damaged, empty, or its columns are not what was asked for.
            ImportError: if it is Parquet and pyarrow is not installed.
        """
        super().__init__(parquet.root if parquet else Path(path).parent, "table")
        self._path = path
        self._table: _CsvTable | ParquetTable = parquet or _CsvTable(Path(path))
        self._check_names(columns)
        self._columns = columns
        self._has_labels = columns.label in self._table.names
        used = (columns.path, columns.label)
        self._further = [name for name in self._table.names if name not in used]
        reserved = [name for name in self._further if name in _RESERVED]
        if reserved:
            raise InputError(
                f"{path}: the column {reserved[0]!r} would hide what every sample's JSON says "
                "under that name; rename it"
            )
        self._table.check_path_type(columns.path)
        self._table.check_columns(self._further)
        if columns.targets:
            self.options["--targets"] = " ".join(column.text for column in columns.targets)

    def _check_names(self, columns: TableColumns) -> None:
        names = self._table.names
        if not names:
            raise InputError(f"{self._path}: empty; wanted a table with a column of paths")
        doubled = [name for name, count in Counter(names).items() if count > 1]
        if doubled:
            raise InputError(
                f"{self._path}: {len(doubled)} column names come more than once (the first: "
                f"{doubled[0]!r}); rename the columns"
            )
        wanted = [(columns.path, "paths", "--path-column")]
        if columns.label != TableColumns.label:
            wanted.append((columns.label, "labels", "--label-column"))
        wanted += [(column.column, "values", "--targets") for column in columns.targets]
        for name, meaning, option in wanted:
            addresses = [one for one in names if one.lower() in _ADDRESSES]
            if name not in names and meaning == "paths" and addresses:
                raise InputError(
                    f"{self._path}: holds addresses of images ({addresses[0]!r}) and no images; "
                    "fetch them first (img2dataset writes tars that make-shards takes), then "
                    "convert what was fetched"
                )
            if name not in names:
                self._table.check_delimiter()
                close = nearest(name, names)
                hint = close if "did you mean" in close else ";"
                raise InputError(
                    f"{self._path}: no column {name!r}{hint} its columns"
                    f"{self._table.origin_of_names}: {_list_names(names)}; name the one that "
                    f"holds the {meaning} by {option}"
                )
        others = [name for name in names if name != columns.path]
        if columns.label not in names and others:
            close = nearest(columns.label, others[:_COMPARED_COLUMNS])
            hint = close if "did you mean" in close else f"; its columns: {_list_names(others)}."
            warnings.warn(
                f"{self._path}: no column {columns.label!r}, so no sample has a label{hint} Name "
                "the one that holds labels by --label-column, if there is one",
                stacklevel=2,
            )

    def first_path(self) -> str | None:
        """Return the path of the first row that has one."""
        rows = self._table.rows([self._columns.path])
        return next((path for _, (path,) in rows if path), None)

    def entries(self) -> Iterator[Entry]:
        """Yield one entry a row, in the order of the table."""
        self.class_names = []
        self.targets = tuple(map(self._find_spec, self._columns.targets))
        to_label: dict[Any, int] = {None: -1}
        kind: type = str
        label_column = [self._columns.label] if self._has_labels else []
        if label_column:
            kind = self._table.find_label_kind(self._columns.label)
            self.class_names = self._table.list_classes(self._columns.label)
        if label_column and kind is str:
            found = {values[0] for _, values in self._table.rows(label_column)}
            self.class_names = sorted(found - {None, ""})
            to_label |= {name: number for number, name in enumerate(self.class_names)}
            to_label[""] = -1
        targets = [column.column for column in self._columns.targets]
        for number, (path, *values) in self._table.rows(
            [self._columns.path, *targets, *label_column, *self._further]
        ):
            rows = self._to_rows(values[: len(targets)], number)
            del values[: len(targets)]
            given = values.pop(0) if label_column else None
            label = self._check_integer(given, number) if kind is int else to_label[given]
            columns = dict(zip(self._further, map(to_plain, values), strict=True))
            if path:
                yield self._make_entry(path, label, columns, rows)
            else:
                name, problem = f"{Path(self._path).name}:{number}", "the row has no path"
                yield Entry(name, label, columns=columns, problem=problem, targets=rows)

    def _make_entry(
        self, path: Any, label: int, columns: dict[str, Any], targets: tuple[Any, ...]
    ) -> Entry:
        return Entry(path, label, columns=columns, targets=targets)

    def _find_spec(self, column: TargetColumn) -> TargetSpec:
        """Say what a target is: its first value tells the shape of a row."""
        shape: tuple[int, ...] = ()
        for number, (value,) in self._table.rows([column.column]):
            if value is not None:
                shape = find_row_shape(value)
                if 0 in shape:
                    raise self._wrong_value(number, column, "an empty list")
                break
        return TargetSpec(column.name, column.dtype, shape)

    def _to_rows(self, values: list[Any], number: int | str) -> tuple[Any, ...]:
        rows = []
        for column, spec, value in zip(self._columns.targets, self.targets, values, strict=True):
            try:
                rows.append(column.to_row(value, spec.row_shape))
            except EmptyValue:
                remedy = f"fill it in, or say what stands for that: --targets {column.text}:MISSING"
                raise self._wrong_value(number, column, "nothing", remedy) from None
            except ValueError as error:
                raise self._wrong_value(number, column, str(error)) from None
        return tuple(rows)

    def _wrong_value(
        self, number: int | str, column: TargetColumn, what: str, remedy: str = "correct it"
    ) -> InputError:
        return InputError(
            f"{self._path}: row {number} has in the column {column.column!r} {what}; {remedy}"
        )

    def _check_integer(self, given: Any, number: int | str) -> int:
        label = -1 if given is None else int(given)
        most = len(self.class_names) - 1 if self.class_names else _MAX_LABEL
        if not -1 <= label <= most:
            raise InputError(
                f"{self._path}: row {number} has the label {label}, wanted -1 (none) .. "
                f"{most}; change it, or name another column by --label-column"
            )
        return label


class ImageTable(TableSource):
    """Parquet that holds the images themselves: one file or several with the same columns."""

    def __init__(self, path: Path | str, columns: TableColumns, parquet: ParquetTable):
        """Check the columns; otherwise as ``TableSource``, whose paths are the images' places."""
        assert parquet.image_column is not None
        super().__init__(path, replace(columns, path=parquet.image_column), parquet)
        self.kind = "images"
        self._parquet = parquet
        self.options["--image-column"] = parquet.image_column

    def first_path(self) -> None:
        """Return nothing: a row names no file."""

    def entries(self) -> Iterator[Entry]:
        """Yield one entry a row, in the order of the files."""
        yield from super().entries()
        self.blocks = self._parquet.blocks

    def _make_entry(
        self, path: ImagePlace, label: int, columns: dict[str, Any], targets: tuple[Any, ...]
    ) -> Entry:
        name = f"{path.file}/{path.number}"
        members: dict[str, tuple[int, ...]] = {ROW: (path.group, path.row, path.column)}
        if path.path is not None:
            columns = {"path": path.path, **columns}
        return Entry(name, label, path.file, members, columns, targets=targets)
