"""Results as rows: which are one figure twice, which contradict, on which data, which layer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from ...fields import Documented
from ...runs.facts import Facts
from ...runs.result import DEGREES, Result, is_name, rank_value, read_shown

CONTRADICTS = "contradicts another"
OTHER_TEST, OTHER_TRAIN = "other test data", "other training data"

VARIED = ("k", "label_share")
"""Settings that curves are drawn over."""

# Settings that follow from the features: of every layer another.
_FOLLOWING = ("penalty", "updates")
_SELECTIONS = {
    "published": "costs chosen on the test set, as published",
    "honest": "costs chosen by folds",
}

_SAID = {
    "solver batched": "all SVMs at once",
    "solver sklearn": "SVMs by scikit-learn",
    "uncounted out": "labels of 0 left out",
    "uncounted negative": "labels of 0 as negatives",
}
_USUAL_VIEWS = ("view 224 px", "view 227 px", "view 3 x 3 patches of 64 px")
_OWN_VIEWS = {
    **dict.fromkeys(("goyal19", "kolesnikov19"), _USUAL_VIEWS),
    **dict.fromkeys(("voc07", "voc0712"), ("view 600 px short, 1000 px long at most",)),
    "newell20": ("view 64 px", "view 128 px"),
}
"""What is shown by a study's protocol."""

# What makes two results figures of one thing.
_IDENTITY = (
    "task protocol metric layer split seed train_digest test_digest trunk_digest recipe step input "
    "settings is_published"
).split()
_SIDE_METRICS = {"top5": "top1"}
_DETECTION = {
    "ap50": "average precision at IoU 0.5",
    "ap50_11": "average precision at IoU 0.5, 11 points",
    "coco_ap": "average precision over IoU 0.5 .. 0.95",
    "coco_ap50": "COCO's average precision at IoU 0.5",
    "coco_ap75": "average precision at IoU 0.75",
    "coco_ap_small": "average precision, small objects",
    "coco_ap_medium": "average precision, medium objects",
    "coco_ap_large": "average precision, large objects",
}
_SHARES = {"top1", "top5", "mAP", "accuracy", "mIoU", "delta_1.25", *_DETECTION}
_METRICS = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mAP": "mean average precision",
    **_DETECTION,
    "delta_1.25": "depths within a factor of 1.25",
    "median_angle": "median angle to surface normals",
}
_VOC07 = set(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor".split()
)


@dataclass(frozen=True)
class Entry(Documented):
    """A result, and what is known of the trunk that it is a figure of."""

    result: Result
    """What was found, or published."""
    facts: Facts | None = None
    """What pretrained the trunk; None where nobody says."""
    data: str = ""
    """Name of the data set tested on."""
    train_data: str = ""
    """Name of the one trained on."""
    pretrain_data: str = ""
    """Name of the one that the trunk was pretrained on, where the result says it."""
    run: str = ""
    """Name of the run directory that it lay in."""
    marks: tuple[str, ...] = ()
    """What a reader has to be told of it, a few words each."""

    @property
    def name(self) -> str:
        """What the trunk is called: by its recipe, and the run where that is another word."""
        recipe = self.result.recipe or "a trunk without a name"
        return recipe if self.run in ("", recipe) else f"{self.run} ({recipe})"

    @property
    def kind(self) -> tuple[str, str, str]:
        """What was measured: task, protocol, metric."""
        return self.result.task, self.result.protocol, self.result.metric

    @property
    def trunk(self) -> Hashable:
        """Which trunk it is of: figures of one trunk differ in layer and settings alone."""
        found = self.result
        return found.recipe, found.trunk_digest, found.step, source_of(found)


def source_of(result: Result) -> tuple[str, ...]:
    """Return whence a published figure is, empty for one that was measured here."""
    if not result.is_published:
        return ()
    details = result.details
    return (
        str(details.get("meaning", "")),
        str(details.get("what", "")),
        "remembered, not verified" if details.get("is_remembered") else "",
    )


def describe_source(result: Result) -> str:
    """Say in a line whence a published figure is."""
    meaning, what, doubt = source_of(result)
    return "; ".join(part for part in (meaning, what, doubt) if part)


def prepare(
    entries: Iterable[Entry],
    names: Mapping[str, str],
    places: Iterable[tuple[str, str]] = (),
) -> list[Entry]:
    """Make rows of results: no figure twice, contradictions and other data marked, data named.

    Args:
        entries: as they were read.
        names: of data sets, by the beginning of their digests.
        places: (digest, folder or address) of data sets, which give names where nothing else does.
    """
    once: dict[str, Entry] = {}
    for entry in entries:
        once.setdefault(_identify(entry.result, has_value=True), entry)
    kept = [*once.values()]
    times = Counter(_identify(entry.result, has_value=False) for entry in kept)
    sure = {**_recognise(kept), **dict(names)}
    results = [entry.result for entry in kept]
    told = [(result.test_digest, result.test_data) for result in results]
    told += [(result.train_digest, result.train_data) for result in results]
    told += places
    known = {**sure, **_name_by_places(told, sure)}
    usual = _find_usual(kept)
    rows = []
    for entry in kept:
        found = entry.result
        marks = [CONTRADICTS] if times[_identify(found, has_value=False)] > 1 else []
        if not found.is_published:
            train, test = usual[entry.kind]
            if found.test_digest != test:
                marks.append(OTHER_TEST)
            elif found.train_digest != train:
                marks.append(OTHER_TRAIN)
        digests = (found.test_digest, found.train_digest, found.details.get("pretrain_data"))
        data, taught, pretrained = (
            name_data(digest, known) if isinstance(digest, str) else "" for digest in digests
        )
        named = replace(entry, data=data, train_data=taught, pretrain_data=pretrained)
        rows.append(replace(named, marks=(*marks, *entry.marks)))
    return rows


def name_data(digest: str, names: Mapping[str, str]) -> str:
    """Return a data set's name, or what is left of its digest where nobody gave one.

    Args:
        digest: of the dataset; a published figure has the data set's name there.
        names: by the beginning of digests.
    """
    for start, name in names.items():
        if digest.startswith(start):
            return name
    return digest[:8] if _is_digest(digest) else digest


def short_digest(digest: str) -> str:
    """Return the beginning of a digest; empty for what is none."""
    return digest[:8] if _is_digest(digest) else ""


def choose_layers(entries: Sequence[Entry]) -> list[Entry]:
    """Return of each trunk, evaluation and setting the figure of one layer.

    That is the best, as Goyal et al. 2019 report; by Kolesnikov et al. 2019's rules the pre-logits
    where they are there.
    """

    def rank(entry: Entry) -> tuple[bool, float]:
        found = entry.result
        is_theirs = found.protocol == "kolesnikov19" and found.layer == "pre_logits"
        return is_theirs, rank_value(found.metric, found.value)

    return _choose(entries, lambda e: (*evaluation_of(e), spell_kind(e)), rank)


def choose_rows(entries: Sequence[Entry]) -> list[Entry]:
    """Return the rows that say most: the largest settings of each trunk, and the layer as above.

    Largest is k, or the share of labels; settings in words stay apart.
    """

    def rank(entry: Entry) -> list[tuple[str, float]]:
        settings = entry.result.settings
        return [(name, float(settings[name])) for name in VARIED if _is_number(settings.get(name))]

    def group(entry: Entry) -> Hashable:
        return (*evaluation_of(entry), spell_kind(entry, VARIED))

    chosen = _choose(choose_layers(entries), group, rank)
    shown = {_identify(entry.result, has_value=False) for entry in chosen}
    return [entry for entry in entries if _identify(entry.result, has_value=False) in shown]


def keep_last(entries: Sequence[Entry]) -> list[Entry]:
    """Return, of figures of one run and evaluation at several steps, those of the last step."""

    def find_run(entry: Entry) -> Hashable:
        found = entry.result
        place = (*entry.kind, found.split, _data_of(found), spell_kind(entry))
        return found.recipe, entry.run, source_of(found), place

    last: dict[Hashable, int] = {}
    for entry in entries:
        last[find_run(entry)] = max(entry.result.step, last.get(find_run(entry), 0))
    return [entry for entry in entries if entry.result.step == last[find_run(entry)]]


def drop_asides(entries: Sequence[Entry]) -> list[Entry]:
    """Leave out metrics that stand in tables alone where another one of theirs is there."""
    there = {(entry.trunk, entry.kind) for entry in entries}

    def has_main(entry: Entry) -> bool:
        task, protocol, metric = entry.kind
        return (entry.trunk, (task, protocol, _SIDE_METRICS.get(metric))) in there

    return [entry for entry in entries if not has_main(entry)]


def drop_doubtful(published: Sequence[Entry]) -> list[Entry]:
    """Leave out figures that are only remembered where others of the same kind are known."""
    sure = {_known_as(e) for e in published if not e.result.details.get("is_remembered")}
    return [
        e
        for e in published
        if not e.result.details.get("is_remembered") or _known_as(e) not in sure
    ]


def _known_as(entry: Entry) -> Hashable:
    return entry.result.recipe, entry.kind, entry.data


def evaluation_of(entry: Entry) -> tuple[Hashable, ...]:
    """Return what stays the same over the layers and settings of one evaluation of a trunk."""
    found = entry.result
    return (*entry.kind, entry.trunk, found.seed, found.split, found.input, _data_of(found))


def spell_settings(settings: Mapping[str, Any]) -> str:
    """Return settings as people read them, such as ``k 4, costs chosen by folds``."""
    said = []
    for name, value in settings.items():
        words = name.replace("_", " ")
        if name == "label_share" and _is_number(value):
            said.append(f"{100 * value:.3g} % of labels")
        elif name == "selection" and isinstance(value, str):
            said.append(_SELECTIONS.get(value, f"{words} {value}"))
        elif f"{name} {value}" in _SAID:
            said.append(_SAID[f"{name} {value}"])
        elif name == "folds":
            said.append(f"costs by {value} folds")
        elif isinstance(value, float):
            said.append(f"{words} {value:g}")
        else:
            said.append(f"{words} {value}")
    return ", ".join(said)


def spell_kind(entry: Entry, without: Sequence[str] = ()) -> str:
    """Return what figures are told apart by, as people read it: settings, and an unusual view.

    Args:
        entry: with settings.
        without: settings that do not count.
    """
    return ", ".join(filter(None, (spell_chosen(entry, without), spell_odd_view(entry.result))))


def spell_chosen(entry: Entry, without: Sequence[str] = ()) -> str:
    """Return the settings alone that figures are told apart by, as people read them.

    Args:
        entry: with settings.
        without: settings that do not count.
    """
    settings = entry.result.settings.items()
    kept = {name: v for name, v in settings if name not in without and name not in _FOLLOWING}
    if kept.get("label_share") == 1:
        del kept["label_share"]
    return spell_settings(kept)


def spell_view(result: Result) -> str:
    """Return how large a trunk is shown pictures, such as ``view 96 px``; empty if nobody says.

    Args:
        result: how pixels are scaled, which goes with the trunk, is no part of it.
    """
    shown = read_shown(result.input)
    view, grid = shown.get("view"), shown.get("grid", 1)
    size = view.get("size") if isinstance(view, dict) else None
    if not isinstance(view, dict) or not _is_number(size) or not _is_number(grid):
        return ""
    if view.get("kind") == "fit" and _is_number(view.get("resize")):
        return f"view {view['resize']} px short, {size} px long at most"
    return f"view {grid} x {grid} patches of {size // grid} px" if grid > 1 else f"view {size} px"


def spell_odd_view(result: Result) -> str:
    """Return the view of figures that stand apart; empty for what a study shows each trunk.

    A study compares trunks that look at whole pictures with others that take them in patches.

    Args:
        result: as above.
    """
    view = spell_view(result)
    return "" if view in _USUAL_VIEWS else view


def has_own_view(result: Result) -> bool:
    """Return whether a trunk was shown what its protocol shows; True where nobody says."""
    view = spell_view(result)
    return not view or view in _OWN_VIEWS.get(result.protocol, (view,))


def find_comparable(entry: Entry, published: Iterable[Entry]) -> list[Entry]:
    """Return the published figures of a measured one's evaluation, on data of the same name.

    A protocol has a size of the view: none is comparable with a figure at another one.

    Args:
        entry: a figure that was measured.
        published: from ``prepare``.
    """
    if not has_own_view(entry.result):
        return []
    return [other for other in published if (other.kind, other.data) == (entry.kind, entry.data)]


def is_share(metric: str) -> bool:
    """Return whether a metric is a part of a whole, 0 .. 1, that is shown in per cent."""
    return metric in _SHARES


def name_metric(metric: str) -> str:
    """Return a metric's name as it stands on an axis."""
    return _METRICS.get(metric, metric)


def spell_value(metric: str, value: float) -> str:
    """Return a figure as people read it."""
    if metric in DEGREES:
        return f"{value:.1f}\u00b0"
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.4g}"


def _choose(
    entries: Sequence[Entry], group: Callable[[Entry], Hashable], rank: Callable[[Entry], Any]
) -> list[Entry]:
    best: dict[Hashable, Entry] = {}
    for entry in entries:
        key = group(entry)
        if key not in best or rank(entry) > rank(best[key]):
            best[key] = entry
    return [*best.values()]


def _data_of(result: Result) -> tuple[str, str]:
    return result.train_digest, result.test_digest


def _identify(result: Result, has_value: bool) -> str:
    """Return what makes two results figures of one thing, and with its value the same figure."""
    names = [*_IDENTITY, "value", "values"] if has_value else _IDENTITY
    content = {name: getattr(result, name) for name in names}
    return json.dumps([content, source_of(result)], sort_keys=True, default=str)


def _find_usual(entries: Sequence[Entry]) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Return the (train, test) digests that most figures of each kind are of."""
    counts: dict[tuple[str, str, str], Counter[tuple[str, str]]] = {}
    for entry in entries:
        if not entry.result.is_published:
            counts.setdefault(entry.kind, Counter())[_data_of(entry.result)] += 1
    return {kind: count.most_common(1)[0][0] for kind, count in counts.items()}


def _recognise(entries: Sequence[Entry]) -> dict[str, str]:
    """Return the names of test data that the names of their classes give away, by digest."""
    found = {}
    for entry in entries:
        classes = set(entry.result.per_class)
        digest = entry.result.test_digest
        if not digest or not classes:
            continue
        if classes == _VOC07:
            found[digest] = "VOC07"
        elif len(classes) == 1000 and all(_is_synset(name) for name in classes):
            found[digest] = "ImageNet-1k"
        elif len(classes) == 205 and any(name.endswith("abbey") for name in classes):
            found[digest] = "Places205"
    return found


def _name_by_places(places: Iterable[tuple[str, str]], sure: Mapping[str, str]) -> dict[str, str]:
    """Return names of data sets by digest: of its folder, with its digest where two share it."""
    found: dict[str, str] = {}
    for digest, place in places:
        name = PurePath(place).name
        is_known = any(digest.startswith(start) for start in sure)
        if _is_digest(digest) and name and is_name(name) and not is_known:
            found.setdefault(digest, name)
    times = Counter([*found.values(), *sure.values()])
    return {
        digest: name if times[name] == 1 else f"{name} {short_digest(digest)}"
        for digest, name in found.items()
    }


def _is_synset(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def _is_digest(text: str) -> bool:
    return len(text) >= 16 and all(letter in "0123456789abcdef" for letter in text)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
