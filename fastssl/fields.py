"""Fields of a config: their ranges, their words, the one checker and the one walk over them.

A config is a frozen dataclass that derives from ``Checked``. What a field may be stands in its
type: ``Annotated[int, Range(1, 64)]`` or ``Literal["fp32", "bf16"]``; what it is, in the docstring
below it, from where the command line's help, ``help()`` and the API pages have it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import operator
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union

from .errors import InputError, nearest


@dataclass(frozen=True)
class Range:
    """The numbers that a field takes, both ends included; of a tuple, each of its numbers."""

    low: float
    """Least."""
    high: float
    """Greatest."""
    without: float | None = None
    """An end that does not belong to it."""

    def __contains__(self, value: Any) -> bool:
        """Return whether a number lies in it; "not a number" lies nowhere."""
        return self.low <= value <= self.high and value != self.without

    def __str__(self) -> str:
        """Return it as an error message has it."""
        end = "" if self.without is None else f", {_spell(self.without)} excluded"
        return f"{_spell(self.low)} .. {_spell(self.high)}{end}"


Share = Annotated[float, Range(0, 1)]
"""A part of a whole, or a probability."""
NumThreads = Annotated[int, Range(0, 1024)]
"""Threads or processes; 0 takes the cores that there are."""
NumWorkers = Annotated[int | None, Range(1, 1024)]
"""Processes; None takes the cores that there are."""
Rounds = Annotated[int, Range(3, 1000)]
"""Rounds of a measurement, whose median counts."""
Count = Annotated[int, Range(1, 1_000_000_000)]
"""How many there shall be."""
CountOrZero = Annotated[int, Range(0, 1_000_000_000)]
"""How many there shall be, where 0 says none, or leaves the choice."""


def free(default: Any, is_required: bool = False) -> Any:
    """Declare a field that may change between stops of a run.

    Args:
        default: its value where none is given.
        is_required: tell in the help that one has to be.
    """
    metadata = {"free": True, "required": is_required}
    return dataclasses.field(default=default, metadata=metadata)


class Documented:
    """A dataclass whose own docstring tells of its fields too, as ``help()`` needs it.

    Python keeps no docstring that stands below a field.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Put what tells of the fields in the docstring's place."""
        super().__init_subclass__(**kwargs)
        own_class: Any = cls
        own_class.__doc__ = _Docstring(cls.__doc__ or "")


class _Docstring:
    """Docstring of a class, written when somebody asks: that takes reading its source."""

    def __init__(self, written: str) -> None:
        self._written = inspect.cleandoc(written)

    def __get__(self, instance: object, owner: type) -> str:
        # dataclass() itself asks, before it is done: whether there is one at all.
        if "__match_args__" not in vars(owner):
            return self._written
        return "\n".join([self._written, "", "Attributes:", *_describe_fields(owner)])


class Checked(Documented):
    """A frozen dataclass that refuses what its fields' types do not take.

    ``class DataConfig(Checked, prefix="data.")`` names its fields as the command line does where
    they are not at its top; a prefix with a space is of no command line.
    """

    _prefix: ClassVar[str] = ""

    def __init_subclass__(cls, prefix: str | None = None, **kwargs: Any) -> None:
        """Note what stands before the fields' names in messages."""
        super().__init_subclass__(**kwargs)
        if prefix is not None:
            cls._prefix = prefix

    def __post_init__(self) -> None:
        """Check every field by itself, then what ``check`` asks of several."""
        own_class: Any = type(self)
        for field, kind, limits in list_fields(own_class):
            _check_field(self._prefix + field.name, getattr(self, field.name), kind, limits)
        self.check()

    def check(self) -> None:
        """Check what relates several fields, or a field and the world; each class has its own.

        Raises:
            InputError: if something does not fit.
        """


@dataclass(frozen=True)
class Item:
    """A field that is no config itself."""

    name: str
    """From the top, with dots between."""
    value: Any
    """Of an instance; of a class ``dataclasses.MISSING``."""
    kind: Any
    """Its type, without annotations."""
    limits: Range | None
    """Of a number."""
    field: dataclasses.Field[Any]
    """What the dataclass knows of it."""

    @property
    def is_free(self) -> bool:
        """Whether it may change between stops of a run."""
        return self.field.metadata.get("free", False)


def walk(config: Any, prefix: str = "") -> Iterator[Item]:
    """Yield every field of a config, in order, those of the configs in it in their place.

    Args:
        config: a dataclass, or an instance of one, whose values then tell more than its types.
        prefix: put before each name.
    """
    is_class = isinstance(config, type)
    config_class: Any = config if is_class else type(config)
    for field, kind, limits in list_fields(config_class):
        value = dataclasses.MISSING if is_class else getattr(config, field.name)
        inner = kind if is_class else value
        if dataclasses.is_dataclass(inner):
            yield from walk(inner, f"{prefix}{field.name}.")
        else:
            yield Item(prefix + field.name, value, kind, limits, field)


def fill(config: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Return a config with the values that a JSON file gave its fields.

    Args:
        config: an instance of a dataclass; what is not named stays.
        values: plain values by the names of ``walk``.
        prefix: put before each name.
    """
    changes: dict[str, Any] = {}
    config_class: Any = type(config)
    for field, kind, _ in list_fields(config_class):
        name, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = fill(value, values, f"{name}.")
        elif name in values:
            changes[field.name] = _revive(values[name], kind)
    return dataclasses.replace(config, **changes)


def _revive(value: Any, kind: Any) -> Any:
    """Return what JSON has made of a value of this type."""
    if isinstance(value, list):
        (inner, *_) = typing.get_args(kind) or (Any,)
        return tuple(_revive(one, inner) for one in value)
    kinds = (kind, *typing.get_args(kind))
    return Path(value) if isinstance(value, str) and Path in kinds and str not in kinds else value


@functools.cache
def list_fields(
    config_class: type,
) -> tuple[tuple[dataclasses.Field[Any], Any, Range | None], ...]:
    """Return the fields of a dataclass, each with its type without annotations and its range."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    found = []
    for field in dataclasses.fields(config_class):
        found.append((field, *_take_apart(hints[field.name])))
    return tuple(found)


def _take_apart(kind: Any) -> tuple[Any, Range | None]:
    """Return a type without annotations, and its range, also where it is one of a union."""
    if typing.get_origin(kind) is Annotated:
        kind, *notes = typing.get_args(kind)
        return kind, next((note for note in notes if isinstance(note, Range)), None)
    if typing.get_origin(kind) not in (Union, UnionType):
        return kind, None
    parts = [_take_apart(part) for part in typing.get_args(kind)]
    limits = next((limits for _, limits in parts if limits is not None), None)
    return functools.reduce(operator.or_, (part for part, _ in parts)), limits


@functools.cache
def read_field_docs(kind: type) -> dict[str, str]:
    """Return what stands below the fields of a dataclass, and of those it derives from, by field.

    A class that was typed at a prompt has no source to read: it has none.
    """
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        if dataclasses.is_dataclass(parent):
            found |= _read_own_docs(parent)
    return found


def _read_own_docs(kind: type) -> dict[str, str]:
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, SyntaxError):
        body = []
    # From 3.13 on the lines of another class may be given for one that was never in a file.
    definitions = [d for d in body if isinstance(d, ast.ClassDef) and d.name == kind.__name__]
    found: dict[str, str] = {}
    if not definitions:
        return found
    for line, below in itertools.pairwise(definitions[0].body):
        if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
            text = below.value.value if isinstance(below.value, ast.Constant) else None
            if isinstance(line.target, ast.Name) and isinstance(text, str):
                found[line.target.id] = " ".join(text.split())
    return found


def _describe_fields(kind: type) -> Iterator[str]:
    """Yield the lines that tell of a dataclass's fields: type, range, default, docstring."""
    docs = read_field_docs(kind)
    for field, kind_of_field, limits in list_fields(kind):
        said = [_spell_kind(kind_of_field) + (f", {limits}" if limits else "")]
        if field.metadata.get("required", False):
            said.append("required")
        elif field.default is not dataclasses.MISSING and not isinstance(field.default, Path):
            said.append(f"default {field.default!r}")
        yield f"    {field.name} ({'; '.join(said)}):"
        text = docs.get(field.name, "")
        yield from (f"        {line}" for line in textwrap.wrap(text, 72, break_on_hyphens=False))


def _spell_kind(kind: Any) -> str:
    """Write a type without the modules of its names."""
    if typing.get_origin(kind) is Literal:
        return " | ".join(map(repr, typing.get_args(kind)))
    name = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
    return re.sub(r"\b[A-Za-z_]\w*\.(?=\w)|~", "", name)


def _check_field(name: str, value: Any, kind: Any, limits: Range | None) -> None:
    """Check a field by itself."""
    if typing.get_origin(kind) is Literal:
        known = typing.get_args(kind)
        if value not in known and isinstance(value, str):
            raise InputError(f"{name} ('{value}') is not known{nearest(value, map(str, known))}")
        if value not in known:
            raise InputError(f"{name} ({value}) must be one of {', '.join(map(str, known))}")
    if limits is None or (value is None and NoneType in typing.get_args(kind)):
        return
    is_whole = int in (kind, *typing.get_args(kind))
    remedy = "" if " " in name else f"; set --{name.replace('_', '-')}"
    for one in value if isinstance(value, tuple | list) else (value,):
        if isinstance(one, bool) or not isinstance(one, Integral if is_whole else Real):
            what = "a whole number" if is_whole else "a number"
            raise InputError(f"{name} ({one!r}) must be {what} in {limits}{remedy}")
        if one not in limits:
            raise InputError(f"{name} ({one}) must lie in {limits}{remedy}")


def _spell(end: float) -> str:
    """Write the end of a range: 0.5, 65,536, 2**64 - 1."""
    if isinstance(end, int) and end >= 2**32 and end & (end + 1) == 0:
        return f"2**{end.bit_length()} - 1"
    return f"{end:,}"
