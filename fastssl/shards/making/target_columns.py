"""Columns of a table that become targets: what the command line says of them, and their values."""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError, nearest
from ..targets import DTYPES, LABELS, OBJECTS, TargetSpec

_FORM = re.compile(
    r"(?:(?P<name>[^=:]+)=)?(?P<column>.+?):(?P<dtype>[a-z]+[0-9]*)(?::(?P<missing>[^:]*))?"
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")

Value = Any
"""Of a table: text of CSV, a number, a list or None of Parquet."""


class EmptyValue(ValueError):
    """A row has no value, and nobody said what stands for that."""


@dataclass(frozen=True)
class TargetColumn:
    """One column that becomes a target."""

    text: str
    """What the user wrote."""
    column: str
    """Name of the column."""
    name: str
    """Name of the target."""
    dtype: str
    """One of ``DTYPES``."""
    missing: int | float | None = None
    """What stands for an empty value; None: there may be none."""

    def to_row(self, value: Value, shape: tuple[int, ...]) -> Any:
        """Return a value as its target stores it: numbers, nested as deep as the shape.

        Args:
            value: of the table.
            shape: what it must have; an empty value is filled up to it.

        Raises:
            ValueError: if it is no such value; says how so.
        """
        if shape and value is not None:
            if not isinstance(value, list | tuple):
                raise ValueError(f"{value!r}, the rows before have lists")
            if len(value) != shape[0]:
                raise ValueError(f"a list of {len(value)}, the rows before have {shape[0]}")
            return [self.to_row(item, shape[1:]) for item in value]
        if value is None or value == "":
            if self.missing is None:
                raise EmptyValue("nothing")
            return np.full(shape, self.missing).tolist()
        return to_number(value, self.dtype)


def find_row_shape(value: Value) -> tuple[int, ...]:
    """Return the shape of a value: () for a number, (k,) for a list of k."""
    shape: list[int] = []
    while isinstance(value, list | tuple):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def to_number(value: Value, dtype: str) -> int | float:
    """Return a value as a number that a type can hold; floats are rounded, integers must be whole.

    Args:
        value: text or a number.
        dtype: one of ``DTYPES``.

    Raises:
        ValueError: if it is none.
    """
    shown = f"{value!r}, wanted {dtype}"
    kind = np.dtype(dtype).kind
    if kind == "b" and isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    number = _read_number(value)
    if number is None:
        raise ValueError(shown)
    if kind == "f":
        with np.errstate(over="ignore"):
            fits = math.isfinite(np.array(number, np.float64).astype(dtype)) or _is_odd(number)
        if not fits:
            raise ValueError(f"{shown}, which holds {np.finfo(dtype).max:.4g} at the most")
        return number
    low, high = (0, 1) if kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if _is_odd(number) or number != int(number) or not low <= number <= high:
        raise ValueError(f"{shown}, a whole number in {low} .. {high}")
    return int(number)


def _is_odd(number: int | float) -> bool:
    return isinstance(number, float) and not math.isfinite(number)


def _read_number(value: Value) -> int | float | None:
    if isinstance(value, str):
        text = value.strip()
        if _INTEGER.fullmatch(text):
            return int(text)
        try:
            return float(text) if "_" not in text else None
        except ValueError:
            return None
    if isinstance(value, int | float):
        return value
    return float(value) if isinstance(value, decimal.Decimal) else None


def _parse(text: str) -> TargetColumn:
    match = _FORM.fullmatch(text)
    if match is None:
        raise InputError(
            f"--targets {text!r} is not COLUMN:TYPE, as age:float32 or, with what stands for an "
            f"empty value, pose:int64:-1; types: {', '.join(DTYPES)}"
        )
    column, dtype, given = match["column"], match["dtype"], match["missing"]
    name = match["name"] or column
    if dtype not in DTYPES:
        raise InputError(f"--targets {text!r}: no type {dtype!r}{nearest(dtype, DTYPES)}")
    try:
        TargetSpec(name, dtype)
    except ValueError as error:
        raise InputError(
            f"--targets {text!r}: {error}; name it so: --targets NAME={column}:{dtype}"
        ) from None
    kept = {LABELS: "a column a class", OBJECTS: "a row an object"}
    if name in kept:
        raise InputError(
            f"--targets {text!r}: {name!r} is the target with {kept[name]}; name it "
            f"otherwise: --targets NAME={column}:{dtype}"
        )
    try:
        missing = None if given is None else to_number(given, dtype)
    except ValueError as error:
        raise InputError(f"--targets {text!r}: an empty value is to be {error}") from None
    return TargetColumn(text, column, name, dtype, missing)


def parse_target_columns(texts: Sequence[str]) -> tuple[TargetColumn, ...]:
    """Read what ``--targets`` says.

    Args:
        texts: each ``[NAME=]COLUMN:TYPE[:MISSING]``.

    Returns:
        The columns, sorted by the names of their targets.

    Raises:
        InputError: for another form, an unknown type, a name that no target can have, or one that
            comes twice.
    """
    columns = sorted(map(_parse, texts), key=lambda column: column.name)
    names = [column.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"--targets names {name!r} twice; name one of them otherwise: NAME=COLUMN:TYPE"
            )
    return tuple(columns)
