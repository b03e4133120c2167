"""How the options of a config read in ``--help``: words, ranges, what must be given.

The parser takes types and defaults from the dataclass; what stands here changes how it tells them.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    MISSING,
    MISSING_NONPROP,
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from ..fields import Range, read_field_docs

_BEYOND = 1_000_000
_METAVARS = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


def build_registry() -> ConstructorRegistry:
    """Return the rules for the parser."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_spell_boolean)
    registry.struct_rule(_describe_fields)
    return registry


def _spell_boolean(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Have booleans written ``true`` and ``false``."""
    if info.type is not bool:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="true|false",
        instance_from_str=lambda words: words[0] == "true",
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value).lower()],
        choices=("true", "false"),
    )


def _describe_fields(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Describe a dataclass field by field."""
    if not dataclasses.is_dataclass(info.type):
        return None
    kinds = typing.get_type_hints(info.type, include_extras=True)
    docs = read_field_docs(info.type)
    described = []
    for field in dataclasses.fields(info.type):
        default = _find_default(field, info.default)
        kind = _describe_kind(field, kinds[field.name], default)
        described.append(StructFieldSpec(field.name, kind, default, docs.get(field.name, "")))
    return StructConstructorSpec(info.type, tuple(described))


def _find_default(field: dataclasses.Field[Any], whole: Any) -> Any:
    if whole is not MISSING and whole is not MISSING_NONPROP:
        return getattr(whole, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING_NONPROP


def _describe_kind(field: dataclasses.Field[Any], kind: Any, default: Any) -> Any:
    """Annotate a field's type with its name in the help, and with what stands behind the text."""
    plain, *notes = typing.get_args(kind) if typing.get_origin(kind) is Annotated else (kind,)
    if isinstance(plain, typing.TypeVar):
        return type(default)  # what the recipe has there
    if dataclasses.is_dataclass(plain):
        return kind  # its own fields are described
    members = [member for member in typing.get_args(plain) if member is not types.NoneType]
    is_optional = typing.get_origin(plain) in (typing.Union, types.UnionType)
    value = members[0] if is_optional and len(members) == 1 else plain
    metavar = _METAVARS.get(value)
    is_positional = default is MISSING_NONPROP or tyro.conf.Positional in notes
    if is_positional and metavar is not None:
        metavar = field.name.replace("_", "-").upper()
    ranges = [_spell_range(note) for note in notes if isinstance(note, Range)]
    is_required = default is MISSING_NONPROP or field.metadata.get("required", False)
    hint = functools.partial(_hint, default, [*filter(None, ranges)], is_required)
    # The field's own notes come last: they prevail.
    return Annotated[plain, tyro.conf.arg(metavar=metavar, help_behavior_hint=hint), *notes]


def _spell_range(limits: Range) -> str:
    """Return a range for the help; nothing where its end is only there to catch slips."""
    if limits.high >= _BEYOND:
        return ""
    return re.sub(r"(?<=\d),(?=\d)", "", str(limits))  # lines are broken at commas


def _hint(default: Any, ranges: list[str], is_required: bool, label: str) -> str:
    """Return what stands behind the text of an option."""
    said = list(ranges)
    # What it means that nothing is given, the text says.
    if is_required:
        said.append("required")
    elif default not in (None, "", (), Path()):
        said.append(f"default: {label}")
    return f"({'; '.join(said)})" if said else ""
