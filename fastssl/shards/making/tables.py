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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError, nearest
from ..targets import TargetSpec
from .entries import Entry, Source
from .target_columns import EmptyValue, TargetColumn, find_row_shape

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*_DELIMITERS, ".parquet", ".pq")
"""Of the names of tables."""

_PARQUET_MAGIC = b"PAR1"
_MAX_LABEL = 2**31 - 1
_MAX_DIGITS = 18
_SHOWN_COLUMNS = 8
_COMPARED_COLUMNS = 1000
_RESERVED = ("source", "orientation")
_INSTALL = (
    "reading Parquet takes pyarrow, which is not installed: "
    'pip install "fastssl[tables]" (CSV and TSV need nothing)'
)

Row = tuple[int, list[Any]]
"""Number of a row, as a person counts it, and its values."""


@dataclass(frozen=True)
class TableColumns:
    """Which columns of a table mean what."""

    path: str = "path"
    """Paths of the images, relative to the table's folder."""
    label: str = "label"
    """Labels: text names a class, an integer is the label itself."""
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

    def check_path_type(self, name: str) -> None:
        """Text is what a path is."""

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
                    f"{self._path}: line {line} has {len(row)} fields, its header has "
                    f"{len(self.names)}; put fields that hold {self._delimiter!r} in double quotes"
                )
            yield line, [row[place] or None for place in places]


def _is_plain_integer(text: str) -> bool:
    """Whether an integer prints as this text: 007 is a name, not the number 7."""
    digits = text.removeprefix("-")
    if len(digits) > _MAX_DIGITS:
        return False
    return digits.isascii() and digits.isdigit() and str(int(text)) == text


# --- Parquet --------------------------------------------------------------------------------------


class _ParquetTable:
    """Typed columns, read by pyarrow in batches."""

    def __init__(self, path: Path):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(_INSTALL) from error
        self._path = path
        self._arrow = pyarrow
        try:
            self._schema = pyarrow.parquet.read_schema(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise self._unreadable(error) from None
        self.names: list[str] = self._schema.names

    def _unreadable(self, error: Exception) -> InputError:
        reason = " ".join(str(error).split())
        return InputError(
            f"{self._path}: cannot be read as Parquet ({reason}); restore it, or write it again"
        )

    def _type(self, name: str) -> Any:
        kind = self._schema.field(name).type
        return kind.value_type if self._arrow.types.is_dictionary(kind) else kind

    def _is_text(self, name: str) -> bool:
        types, kind = self._arrow.types, self._type(name)
        checks = (types.is_string, types.is_large_string, types.is_string_view)
        return any(check(kind) for check in checks)

    def check_path_type(self, name: str) -> None:
        """Make sure that the column holds text."""
        if not self._is_text(name):
            raise InputError(
                f"{self._path}: the column {name!r} is {self._type(name)}, paths are strings; name "
                "another by --path-column, or cast it"
            )

    def find_label_kind(self, name: str) -> type:
        """Return int or str."""
        if self._arrow.types.is_integer(self._type(name)):
            return int
        if self._is_text(name) or self._arrow.types.is_null(self._type(name)):
            return str
        raise InputError(
            f"{self._path}: the column {name!r} is {self._type(name)}, labels are strings or "
            "integers; name another by --label-column, or cast it to string or int64"
        )

    def check_columns(self, names: Sequence[str]) -> None:
        """Make sure that JSON can keep the further columns."""
        for name in names:
            if "binary" in str(self._type(name)):
                raise InputError(
                    f"{self._path}: the column {name!r} holds bytes ({self._type(name)}), which "
                    "JSON cannot keep; drop it from the table"
                )

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """Yield the row number, from 1, and the values of these columns, for every row."""
        number = 0
        try:
            with self._arrow.parquet.ParquetFile(self._path) as file:
                for batch in file.iter_batches(columns=list(names)):
                    columns = [batch.column(name).to_pylist() for name in names]
                    for values in zip(*columns, strict=True):
                        number += 1
                        yield number, list(values)
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise self._unreadable(error) from None


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


# --- The source -----------------------------------------------------------------------------------


class TableSource(Source):
    """A table: paths relative to its folder; text labels name classes, integers are labels."""

    def __init__(self, path: Path, columns: TableColumns):
        """Open a table and check its columns.

        Args:
            path: the table.
            columns: which of its columns mean what.

        Raises:
            InputError: if it is damaged, empty, or its columns are not what was asked for.
            ImportError: if it is Parquet and pyarrow is not installed.
        """
        super().__init__(path.parent, "table")
        self._path = path
        is_text = path.suffix.lower() in _DELIMITERS
        self._table: _CsvTable | _ParquetTable = (_CsvTable if is_text else _ParquetTable)(path)
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
            if name not in names:
                raise InputError(
                    f"{self._path}: no column {name!r}{nearest(name, names)}; name the one that "
                    f"holds the {meaning} by {option}"
                )
        others = [name for name in names if name != columns.path]
        if columns.label not in names and others:
            shown = others[:_SHOWN_COLUMNS] + ["..."] * (len(others) > _SHOWN_COLUMNS)
            close = nearest(columns.label, others[:_COMPARED_COLUMNS])
            hint = close if "did you mean" in close else f"; its columns: {', '.join(shown)}."
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
                yield Entry(path, label, columns=columns, targets=rows)
            else:
                name, problem = f"{self._path.name}:{number}", "the row has no path"
                yield Entry(name, label, columns=columns, problem=problem, targets=rows)

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

    def _to_rows(self, values: list[Any], number: int) -> tuple[Any, ...]:
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
        self, number: int, column: TargetColumn, what: str, remedy: str = "correct it"
    ) -> InputError:
        return InputError(
            f"{self._path}: row {number} has in the column {column.column!r} {what}; {remedy}"
        )

    def _check_integer(self, given: Any, number: int) -> int:
        label = -1 if given is None else int(given)
        if not -1 <= label <= _MAX_LABEL:
            raise InputError(
                f"{self._path}: row {number} has the label {label}, wanted -1 (none) .. "
                f"{_MAX_LABEL}; change it, or name another column by --label-column"
            )
        return label
