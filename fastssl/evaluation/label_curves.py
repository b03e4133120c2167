"""Accuracy over label counts, from scratch and pretrained: the points of one curve, and its seeds.

Made of results alone: no dataset and no run is opened. What of two results differs decides whether
they are points of one curve, seeds of one another, or may be compared at all.

Shape legend: S seeds, K label counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from ..runs.result import DEGREES, Result, read_shown

HALVES = "_halves"
"""Ending of the name of a trunk that is CMC's two half networks."""

Start = Literal["scratch", "pretrained"]
# What parts curves or names their points; every other setting is a part of the training's course.
_MAX_SHOWN = 60
_KEYED = ("start", "num_labels", "frozen_stages", "head", "trunk", "width")


@dataclass(frozen=True)
class Ground(Documented):
    """What curves share that may be compared."""

    task: str
    """``finetune``, ``pose``, ``segmentation``, ``depth``."""
    protocol: str
    """Whose rules."""
    metric: str
    """What the accuracy is."""
    split: str
    """Which samples were trained on and which tested, without their number."""
    train_digest: str
    """Of the dataset trained on."""
    test_digest: str
    """Of the dataset tested on."""
    head: str
    """``linear`` or ``mlp``."""
    view: str = ""
    """What was seen of a picture, as JSON; how pixels were scaled is the trunk's own affair."""


@dataclass(frozen=True)
class Network(Documented):
    """What was trained."""

    trunk: str
    """Its name."""
    width: int
    """Its width factor."""

    @property
    def whole(self) -> Network:
        """The network that utility is measured against: of CMC's half networks the whole one."""
        return Network(self.trunk.removesuffix(HALVES), self.width)


@dataclass(frozen=True)
class Beginning(Documented):
    """What a trunk began with."""

    start: Start
    """Fresh weights, or those of pretraining."""
    recipe: str = ""
    """That pretrained it."""
    step: int = 0
    """Steps that it was pretrained for."""
    data: str = ""
    """Digest of the dataset that it was pretrained on, where its file says it."""
    num_images: int = 0
    """Images of it that were used; 0 is all, or not said."""
    trunk_digest: str = ""
    """Of the trunk, where nothing else is known of it."""

    @property
    def is_pretrained(self) -> bool:
        """Whether it is not from scratch."""
        return self.start == "pretrained"


@dataclass(frozen=True)
class CurveKey(Documented):
    """What the results of a curve share."""

    ground: Ground
    """What it may be compared by."""
    network: Network
    """What was trained."""
    beginning: Beginning
    """What it began with."""
    frozen_stages: int = 0
    """Stages of the trunk that did not learn."""


@dataclass(frozen=True)
class LabelCurve(Documented):
    """Accuracy over label counts."""

    key: CurveKey
    """What it is a curve of."""
    counts: NDArray[np.int64]
    """(K,) labels, ascending."""
    accuracies: NDArray[np.float64]
    """(S, K), 0 .. 1, a row a seed."""
    seeds: tuple[int, ...]
    """Of every row."""
    trunk_digests: tuple[str, ...]
    """Of every row; empty ones from scratch."""
    courses: tuple[str, ...]
    """How it was trained at each count, as JSON: length, batch and whatever else results say."""
    left_out: tuple[str, ...] = ()
    """What results there are that no row or column has, in words."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over the seeds, (K,)."""
        return self.accuracies.mean(0)

    @property
    def std(self) -> NDArray[np.float64]:
        """Deviation over the seeds, (K,), around their own mean; 0 for a single seed."""
        return self.accuracies.std(0)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "counts": self.counts.tolist(),
            "seeds": list(self.seeds),
            "trunk_digests": list(self.trunk_digests),
            "accuracies": self.accuracies.tolist(),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "left_out": list(self.left_out),
        }


# --- From results to curves -----------------------------------------------------------------------


def is_on_curve(result: Result) -> bool:
    """Tell whether a result is a point of a curve over label counts: of accuracies alone."""
    settings = result.settings
    numbers = [settings.get(name) for name in ("num_labels", "frozen_stages", "width")]
    return (
        settings.get("start") in get_args(Start)
        and all(isinstance(settings.get(name), str) for name in ("head", "trunk"))
        and all(isinstance(number, int) and number >= 0 for number in numbers)
        and count_labels(result) > 0
        and not result.is_published
        and result.metric not in DEGREES
    )


def count_labels(result: Result) -> int:
    """Return the labels that a result was trained with; where that was all, as many as there are.

    Returns:
        0 where nobody says.
    """
    num = result.settings.get("num_labels") or result.details.get("num_train")
    return num if isinstance(num, int) and num > 0 else 0


def find_key(result: Result) -> CurveKey:
    """Return the curve that a result is a point of.

    Args:
        result: of which ``is_on_curve`` is true.
    """
    settings = result.settings
    start: Start = settings["start"]
    beginning = Beginning(start)
    if beginning.is_pretrained:
        data = result.details.get("pretrain_data")
        data = data if isinstance(data, str) else ""
        num_images = result.details.get("pretrain_images")
        num_images = num_images if isinstance(num_images, int) else 0
        known = result.recipe and result.step
        digest = "" if known else result.trunk_digest
        beginning = Beginning(start, result.recipe, result.step, data, num_images, digest)
    ground = Ground(
        result.task,
        result.protocol,
        result.metric,
        result.split,
        result.train_digest,
        result.test_digest,
        settings["head"],
        _find_view(result.input),
    )
    network = Network(settings["trunk"], settings["width"])
    return CurveKey(ground, network, beginning, settings["frozen_stages"])


def group_results(results: Iterable[Result]) -> list[list[Result]]:
    """Return the results of each curve; those that are points of none are left out.

    Results at one count that were trained in another way, such as for longer, are of another curve.
    So are those of one seed and two trunks: trunks of a recipe are seeds of one another only where
    each seed has its own.

    Args:
        results: of any evaluations.
    """
    groups: dict[CurveKey, list[Result]] = {}
    for result in results:
        if is_on_curve(result):
            groups.setdefault(find_key(result), []).append(result)
    return [
        of_trunk
        for group in groups.values()
        for of_course in _part_by_course(group)
        for of_trunk in _part_by_trunk(of_course)
    ]


def _part_by_course(group: Sequence[Result]) -> list[list[Result]]:
    """Return parts of which each has one course at a count, as few as can be.

    A protocol may train longer with more labels: courses of different counts go together, of each
    the one with the most counts first.
    """
    differing = []
    for name in sorted({name for result in group for name in _course_of(result)}):
        told: dict[int, set[str]] = {}
        for result in group:
            value = _spell({name: _course_of(result).get(name)})
            told.setdefault(count_labels(result), set()).add(value)
        if any(len(values) > 1 for values in told.values()):
            differing.append(name)
    parts: dict[str, list[Result]] = {}
    for result in group:
        course = _course_of(result)
        parts.setdefault(_spell({name: course.get(name) for name in differing}), []).append(result)
    joined: list[tuple[set[int], list[Result]]] = []
    for part in sorted(parts.values(), key=lambda part: -len(set(map(count_labels, part)))):
        counts = set(map(count_labels, part))
        known = next((one for one in joined if not one[0] & counts), None)
        if known is None:
            joined.append((counts, [*part]))
        else:
            known[0].update(counts)
            known[1].extend(part)
    return [results for _, results in joined]


def _part_by_trunk(group: Sequence[Result]) -> list[list[Result]]:
    of_seed: dict[int, set[str]] = {}
    parts: dict[str, list[Result]] = {}
    for result in group:
        of_seed.setdefault(result.seed, set()).add(_digest_of(result))
        parts.setdefault(_digest_of(result), []).append(result)
    return [*parts.values()] if any(len(found) > 1 for found in of_seed.values()) else [[*group]]


def make_curve(results: Sequence[Result]) -> LabelCurve:
    """Make a curve of results that are its points.

    The rows are the seeds that have every count; where some lack one, the largest block of seeds
    and counts without a gap stands, and ``left_out`` says what does not.

    Args:
        results: one or more; the same figure may come twice.

    Raises:
        InputError: if they are not of one curve, or two of them contradict each other.
    """
    if not results or not all(map(is_on_curve, results)):
        raise InputError(
            "a curve over label counts needs results of fine-tuning alone, one or more; "
            "fastssl evaluate finetune --json makes them"
        )
    key = find_key(results[0])
    for result in results[1:]:
        _check_same(key, find_key(result))
    courses: dict[int, str] = {}
    digests: dict[int, str] = {}
    values: dict[int, dict[int, float]] = {}
    for result in results:
        count, seed, digest = count_labels(result), result.seed, _digest_of(result)
        course = _spell(_course_of(result))
        if courses.setdefault(count, course) != course:
            raise InputError(
                f"results with {spell_number(count, 'label')} were trained in different ways "
                f"({courses[count]} and {course}) and are no seeds of one another; give those of "
                "one way"
            )
        if digests.setdefault(seed, digest) != digest:
            raise InputError(
                f"results of seed {seed} are of two trunks ({digests[seed][:8]} and {digest[:8]}); "
                "give each its own curve"
            )
        known = values.setdefault(seed, {}).setdefault(count, result.value)
        if known != result.value:
            raise InputError(
                f"two results of seed {seed} with {spell_number(count, 'label')} contradict each "
                f"other ({known} and {result.value}); remove one"
            )
    seeds, counts = _choose_block(values)
    return LabelCurve(
        key,
        np.array(counts, np.int64),
        np.array([[values[seed][count] for count in counts] for seed in seeds]),
        seeds,
        tuple(digests[seed] for seed in seeds),
        tuple(courses[count] for count in counts),
        _name_left_out(values, seeds, counts),
    )


def _check_same(key: CurveKey, other: CurveKey) -> None:
    differing = differ(key.ground, other.ground) + differ(key.network, other.network)
    differing += differ(key.beginning, other.beginning)
    if key.frozen_stages != other.frozen_stages:
        differing.append(f"frozen_stages ({key.frozen_stages} and {other.frozen_stages})")
    if differing:
        raise InputError(
            f"results of one curve must not differ in {', '.join(differing)}; give each curve its "
            "own"
        )


def differ(one: Any, other: Any) -> list[str]:
    """Return the fields in which two of a kind differ, each with both values.

    Args:
        one: a ground, network or beginning.
        other: another.
    """
    pairs = [(f.name, getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]
    return [f"{name} ({_shorten(a)} and {_shorten(b)})" for name, a, b in pairs if a != b]


def _shorten(value: Any) -> str:
    text = f"'{value}'" if isinstance(value, str) else f"{value}"
    return text if len(text) <= _MAX_SHOWN else f"{text[:8]}..."


def _find_view(shown: str) -> str:
    """Return what of a result's input does not depend on the trunk's own scaling."""
    content = read_shown(shown)
    return _spell(content) if content else shown


def _digest_of(result: Result) -> str:
    return "" if result.settings["start"] == "scratch" else result.trunk_digest


def _course_of(result: Result) -> dict[str, Any]:
    return {name: value for name, value in result.settings.items() if name not in _KEYED}


def _spell(course: dict[str, Any]) -> str:
    return json.dumps(course, sort_keys=True, default=str)


def _choose_block(values: dict[int, dict[int, float]]) -> tuple[tuple[int, ...], list[int]]:
    """Return seeds and counts of which every pair is there: the most of them, then the counts."""
    shared = set.intersection(*map(set, values.values()))
    # The counts of a seed with all seeds that have them, or what all seeds have.
    blocks = [
        (tuple(sorted(seed for seed, own in values.items() if counts <= set(own))), sorted(counts))
        for counts in [*map(set, values.values()), shared]
        if counts
    ]
    return max(blocks, key=lambda block: (len(block[0]) * len(block[1]), len(block[1])))


def _name_left_out(
    values: dict[int, dict[int, float]], seeds: Sequence[int], counts: Sequence[int]
) -> tuple[str, ...]:
    said = []
    for seed in sorted(set(values) - {*seeds}):
        lacking = ", ".join(f"{count:,}" for count in counts if count not in values[seed])
        said.append(f"seed {seed}, which lacks {lacking} labels")
    there = sorted({count for own in values.values() for count in own} - {*counts})
    said += [f"{spell_number(count, 'label')}, which not every seed has" for count in there]
    return tuple(said)
