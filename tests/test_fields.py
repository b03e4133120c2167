"""What a config's field may be is said once, in its type, and checked in one place."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest

import fastssl
from fastssl.errors import InputError
from fastssl.fields import (
    Checked,
    Documented,
    Range,
    Share,
    free,
    list_fields,
    read_field_docs,
    walk,
)


@dataclass(frozen=True)
class Inner(Checked, prefix="inner."):
    """A part."""

    batch_size: Annotated[int, Range(1, 65_536)] = 8
    rate: Annotated[float | None, Range(0, 10, without=0)] = None
    limit: Share | None = None
    milestones: Annotated[tuple[float, ...], Range(0, 100)] = (1.0, 2.0)
    share: Share = free(0.5)
    kind: Literal["step", "cosine"] = "step"
    stride: Literal[4, 8] = 4

    def check(self) -> None:
        if self.batch_size == 13:
            raise InputError("inner.batch_size (13) is unlucky")


@dataclass(frozen=True)
class Outer(Checked):
    """A whole."""

    seed: Annotated[int, Range(0, 2**64 - 1)] = 0
    inner: Inner = field(default_factory=Inner)
    name: str = "x"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 0},
            r"^inner\.batch_size \(0\) must lie in 1 \.\. 65,536; set --inner\.batch-size$",
        ),
        ({"batch_size": 10**23}, r"\(1000*\) must lie in 1 \.\. 65,536"),
        ({"batch_size": 8.0}, r"\(8\.0\) must be a whole number in 1 \.\. 65,536"),
        ({"batch_size": True}, r"\(True\) must be a whole number"),
        ({"batch_size": None}, r"\(None\) must be a whole number"),
        ({"rate": 0}, r"\(0\) must lie in 0 \.\. 10, 0 excluded"),
        ({"limit": 1.5}, r"inner\.limit \(1\.5\) must lie in 0 \.\. 1"),
        ({"limit": True}, r"\(True\) must be a number in 0 \.\. 1"),
        ({"rate": "fast"}, r"\('fast'\) must be a number in 0 \.\. 10"),
        ({"rate": math.nan}, r"\(nan\) must lie in"),
        ({"rate": math.inf}, r"\(inf\) must lie in"),
        ({"milestones": (1.0, math.nan)}, r"inner\.milestones \(nan\) must lie in 0 \.\. 100"),
        ({"share": 1.5}, r"\(1\.5\) must lie in 0 \.\. 1; set --inner\.share"),
        ({"kind": "stop"}, r"inner\.kind \('stop'\) is not known; did you mean 'step'\?"),
        ({"stride": 5}, r"inner\.stride \(5\) must be one of 4, 8"),
        ({"batch_size": 13}, "is unlucky"),
    ],
)
def test_what_a_field_may_not_be_is_refused_with_name_value_and_range(changes, message):
    with pytest.raises(InputError, match=message):
        Inner(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 1}, {"batch_size": np.int64(65_536)}, {"rate": 10}, {"share": np.float32(0)}],
)
def test_the_ends_belong_to_a_range_and_numpys_numbers_are_numbers(changes):
    Inner(**changes)


def test_the_greatest_seed_is_spelled_as_people_do():
    with pytest.raises(InputError, match=r"^seed \(-1\) must lie in 0 \.\. 2\*\*64 - 1; set"):
        Outer(seed=-1)


def test_a_walk_comes_by_every_field_in_order():
    config = Outer(inner=Inner(batch_size=2))
    below = ["batch_size", "rate", "limit", "milestones", "share", "kind", "stride"]
    names = ["seed", *(f"inner.{name}" for name in below), "name"]
    assert [item.name for item in walk(config)] == [item.name for item in walk(Outer)] == names
    assert {item.name: item.value for item in walk(config)}["inner.batch_size"] == 2
    assert [item.name for item in walk(config) if item.is_free] == ["inner.share"]
    assert [item.kind for item in walk(Outer)][:2] == [int, int]


def list_configs(parent: type = Checked) -> list[type]:
    """List every config of the package."""
    for module in pkgutil.walk_packages(fastssl.__path__, "fastssl."):
        if not module.name.endswith(("__main__", "_C", "_C_jpeg")):
            importlib.import_module(module.name)
    found, waiting = [], [parent]
    while waiting:
        below = waiting.pop().__subclasses__()
        found += [one for one in below if one.__module__.startswith("fastssl.")]
        waiting += below
    return found


def is_number(kind: Any) -> bool:
    """Return whether a type is of numbers."""
    return kind in (int, float) or any(map(is_number, typing.get_args(kind)))


def test_every_number_of_every_config_has_a_range():
    configs = list_configs()
    assert len(configs) > 10
    missing = [
        f"{config.__name__}.{item.name}"
        for config in configs
        for item, kind, limits in list_fields(config)
        if typing.get_origin(kind) is not Literal and is_number(kind) and limits is None
    ]
    assert missing == []


def test_help_tells_of_every_field_of_every_config_what_stands_below_it():
    for kind in list_configs(Documented):
        if not dataclasses.is_dataclass(kind):
            continue  # what they derive from
        docs, told = read_field_docs(kind), " ".join(inspect.getdoc(kind).split())
        for one, _, _ in list_fields(kind):
            assert f" {one.name} (" in told, f"{kind.__name__}.{one.name}"
            assert f"): {docs[one.name]}" in told, f"{kind.__name__}.{one.name}"


def test_help_tells_type_range_and_default_and_begins_with_what_was_written():
    @dataclass(frozen=True)
    class Small(Inner, prefix="small."):
        """A small part.

        Of something larger.
        """

        place: Annotated[int | None, Range(1, 9)] = None
        """Where it stands."""
        data: str = free("", is_required=True)
        """What it is of,
        said in two lines."""

    told = inspect.getdoc(Small)
    assert told.startswith("A small part.\n\nOf something larger.\n\nAttributes:\n    batch_size (")
    assert "    place (int | None, 1 .. 9; default None):\n        Where it stands.\n" in told
    assert told.endswith("    data (str; required):\n        What it is of, said in two lines.")
    # The help of the class that it derives from stays its own.
    assert "place" not in Inner.__doc__


def test_a_class_without_source_says_its_fields_without_words():
    code = """
@dataclass(frozen=True)
class Typed(Checked):
    'At a prompt.'

    size: int = 3
    'Side.'
"""
    space = {**globals(), "__name__": __name__}
    exec(code, space)
    assert inspect.getdoc(space["Typed"]) == (
        "At a prompt.\n\nAttributes:\n    size (int; default 3):"
    )
