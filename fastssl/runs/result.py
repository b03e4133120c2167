"""What an evaluation found: one JSON file each, written whole, and the only reader of them.

Everything that draws pictures or tables reads these files and nothing else.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from ..system.files import publish_bytes, read_regular, refusing_unreadable

RESULTS_NAME = "results"
"""The folder of a run directory that holds the results of its trunk."""
MAX_RESULT_BYTES = 1 << 24
"""A larger file is none of ours."""
MAX_NAME = 200
"""Letters of a name: of a task, a metric, a layer, a recipe."""

DEGREES = frozenset({"median_angle"})
"""Metrics that are angles in degrees, of which the least is best; all others are shares 0 .. 1, of
which the greatest is."""

_MOST = 1e30
_MAX_DEPTH = 16
_MAX_CLASS = 1024
_MAX_CLASSES = 100_000
_MAX_PARTS = 10_000
_MAX_VALUES = 8_000_000

_REPEATS = ("mean", "std", "min", "max")
_NAMES = ("task", "protocol", "metric", "layer", "recipe", "version")
# What the parts of a result share is written once, in the whole.
_OF_PART = ("metric", "value", "per_class", "layer", "settings", "values", "details")


@dataclass(frozen=True)
class Result(Documented):
    """One figure, and all that says what it is a figure of."""

    task: str
    """The evaluation: ``knn``, ``svm``, ``low_shot``, ``linear``, ``logistic``, ``mlp``, ..."""
    protocol: str
    """Whose rules: ``goyal19``, ``kolesnikov19``, ``own``."""
    metric: str
    """``top1``, ``top5``, ``mAP``, ..."""
    value: float
    """0 .. 1 for shares, angles in degrees; where there are repeats their mean."""
    per_class: Mapping[str, float] = field(default_factory=dict)
    """The same for each class by name, where the metric has it."""
    layer: str = ""
    """The trunk's end point."""
    split: str = ""
    """Which samples were trained on and which tested."""
    seed: int = 0
    """Of whatever was drawn."""
    train_digest: str = ""
    """Of the dataset trained on."""
    test_digest: str = ""
    """Of the dataset tested on; that of training where a split of it was."""
    train_data: str = ""
    """Name of the folder or address of the dataset trained on."""
    test_data: str = ""
    """The same of the one tested on."""
    trunk_digest: str = ""
    """Of the trunk's name, width and weights."""
    recipe: str = ""
    """That pretrained the trunk; its name where nobody says."""
    step: int = 0
    """Steps that it was pretrained for."""
    input: str = ""
    """What the trunk was shown: view, and how pixels were scaled."""
    values: tuple[float, ...] = ()
    """Of the repeats, where there are several."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What tells this figure from its neighbours: ``k``, ``selection``, ``label_share``."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else was found: costs that were chosen, certificates, ids that were drawn."""
    parts: tuple[Result, ...] = ()
    """Of an evaluation with several layers or settings each of them; the figure above is one."""
    seconds: float = 0.0
    """That the evaluation took, without features that were there."""
    version: str = ""
    """Of fastssl."""
    command: str = ""
    """That wrote it."""
    is_published: bool = False
    """A figure of a study, not one that was measured here."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it: with mean, deviation, least and greatest of its repeats."""
        return {**self._own_json(), "parts": [part._part_json() for part in self.parts]}

    def _own_json(self) -> dict[str, Any]:
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "parts"}
        content["values"] = list(self.values)
        if self.values:
            content |= {
                "mean": statistics.fmean(self.values),
                "std": statistics.pstdev(self.values),
                "min": min(self.values),
                "max": max(self.values),
            }
        return content

    def _part_json(self) -> dict[str, Any]:
        own = self._own_json()
        return {key: own[key] for key in (*_OF_PART, *_REPEATS) if key in own}

    def flatten(self) -> tuple[Result, ...]:
        """Return its parts, each with what the whole says of them all; itself if it has none."""
        shared = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in (*_OF_PART, "parts")
        }
        return tuple(replace(part, **shared) for part in self.parts) or (self,)


def write_result(path: Path, result: Result) -> None:
    """Write a result whole, by temporary file, fsync and rename.

    Args:
        path: the JSON file.
        result: what was found; its numbers finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.to_json(), indent=1, allow_nan=False)
    publish_bytes(path, text.encode() + b"\n")


def read_result(path: Path) -> Result:
    """Read a result.

    Args:
        path: a file by ``write_result``.

    Raises:
        InputError: if it is not there or holds something else.
    """
    remedy = "give a file that evaluate --json wrote"
    if not path.exists():
        raise InputError(f"{path} does not exist; {remedy}")
    with refusing_unreadable(path, remedy):
        text = read_regular(path, MAX_RESULT_BYTES)
    try:
        content = json.loads(text)
        if len(content.get("parts") or ()) > _MAX_PARTS:
            raise ValueError(
                f"{spell_number(len(content['parts']), 'part')}, at most {_MAX_PARTS:,} are read"
            )
        for one in (content, *(content.get("parts") or ())):
            if len(one.get("per_class") or ()) > _MAX_CLASSES:
                raise ValueError(f"more than {_MAX_CLASSES:,} classes are not read")
        check_plain(content)
        parts = tuple(_build({**content, **part}) for part in content.get("parts") or ())
        whole = _build(content)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        what = str(error)[:200]
        raise InputError(f"{path} is no result of an evaluation ({what}); {remedy}") from None
    return replace(whole, parts=parts)


def rank_value(metric: str, value: float) -> float:
    """Return a figure so that the greatest is best.

    Args:
        metric: what it is.
        value: the figure.
    """
    return -value if metric in DEGREES else value


def read_shown(text: str) -> dict[str, Any]:
    """Return what a trunk was shown, without how pixels were scaled, which goes with the trunk.

    Args:
        text: a result's ``input``.

    Returns:
        ``view``, ``grid`` and the like by name; empty for what is none of ours.
    """
    try:
        shown = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(shown, dict):
        return {}
    return {name: value for name, value in shown.items() if name != "scale"}


def is_name(text: str) -> bool:
    """Tell whether a text may be the name of something: short, of letters that can be printed."""
    return len(text) <= MAX_NAME and text.isprintable()


def check_plain(content: Any) -> None:
    """See that JSON holds what can be written, drawn and counted with, wherever it stands in it.

    Args:
        content: what was read.

    Raises:
        ValueError: if it does not.
    """
    level, num = [content], 0
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += [*one, *one.values()]
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str):
                one.encode()  # halves of a pair are no text
            elif one is not None and not -_MOST < one < _MOST:
                raise ValueError(f"a number is {str(one)[:40]}")
        level = below
        num += len(level)
        if num > _MAX_VALUES:
            raise ValueError(f"it holds more than {_MAX_VALUES:,} values")
        if not level:
            return
    raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")


def read_results(places: Iterable[Path]) -> list[Result]:
    """Read every result in some places, the parts of each as results of their own.

    Args:
        places: files; folders of them; run directories, whose ``results`` folder is meant.

    Raises:
        InputError: if a file holds something else.
    """
    found = []
    for place in places:
        folder = place / RESULTS_NAME if (place / RESULTS_NAME).is_dir() else place
        files = sorted(folder.glob("*.json")) if folder.is_dir() else [folder]
        found += [part for file in files for part in read_result(file).flatten()]
    return found


def _build(content: Mapping[str, Any]) -> Result:
    """Return what JSON holds as a result, without its parts; raises for what fits no field."""
    known = {f.name: content[f.name] for f in fields(Result) if f.name in content}
    known |= {
        "value": float(content["value"]),
        "values": tuple(map(float, content.get("values") or ())),
        "per_class": {str(k): float(v) for k, v in dict(content.get("per_class") or {}).items()},
        "settings": dict(content.get("settings") or {}),
        "details": dict(content.get("details") or {}),
        "parts": (),
    }
    for name in ("task", "protocol", "metric"):
        if name not in content:
            raise KeyError(name)
    known["seconds"] = float(content.get("seconds") or 0)
    for f in fields(Result):
        kind = {"str": str, "int": int, "bool": bool}.get(str(f.type))
        if kind is not None and f.name in known and type(known[f.name]) is not kind:
            raise TypeError(f"{f.name} is {known[f.name]!r}")
    result = Result(**known)
    numbers = [result.value, *result.values, *result.per_class.values()]
    if not all(-_MOST < number < _MOST for number in numbers):
        raise ValueError("a number is not finite")
    names = [getattr(result, name) for name in _NAMES]
    if not all(map(is_name, [*names, *result.settings])):
        raise ValueError(f"a name has more than {MAX_NAME} letters, or some that cannot be printed")
    if max(map(len, result.per_class), default=0) > _MAX_CLASS:
        raise ValueError(f"the name of a class has more than {_MAX_CLASS} letters")
    return result
