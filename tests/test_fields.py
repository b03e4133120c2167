"""What a config's field may be is said once, in its type, and checked in one place."""

from __future__ import annotations

import importlib
import math
import pkgutil
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest

import fastssl
from fastssl.errors import InputError
from fastssl.fields import Checked, Range, Share, free, list_fields, walk


@dataclass(frozen=True)
class Inner(Checked, prefix="inner."):
    """A part."""

    batch_size: Annotated[int, Range(1, 65_536)] = 8
    rate: Annotated[float | None, Range(0, 10, without=0)] = None
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
    below = ["batch_size", "rate", "milestones", "share", "kind", "stride"]
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
