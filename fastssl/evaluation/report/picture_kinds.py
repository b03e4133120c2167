"""The kinds of pictures that the studies have: what is varied, what belongs together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from ...runs.facts import RANDOM, Facts
from .entries import Entry
from .line_charts import Scale
from .names import order_layers


@dataclass(frozen=True)
class Picture:
    """One kind of picture: what is varied, what belongs on one chart, what on one line."""

    name: str
    """By which findings of a study are known."""
    title: str
    """Above its charts."""
    x_label: Callable[[Entry], str]
    """Below the axis."""
    x: Callable[[Entry], float | None]
    """What is varied; None of an entry that does not belong here."""
    panel: Callable[[Entry], tuple[str, ...]]
    """What figures of a chart have in common, beside evaluation and data."""
    line: Callable[[Entry], Hashable]
    """What figures of a line have in common."""
    scale: Scale = "log"
    """Of x."""
    setting: str = ""
    """Of a result, where that is what is varied."""
    has_lines: bool = True
    """Whether points are joined; else each stands alone."""
    x_is_share: bool = False
    """Whether x is a part of a whole."""
    apart: Callable[[Entry], Hashable] = lambda _: ()
    """What else figures of a chart have in common, and nobody needs to read."""
    lacks: Callable[[Entry], str] = lambda _: ""
    """Why an entry that belongs here has no x; empty of one that has, or does not belong."""


def facts_of(entry: Entry) -> Facts:
    """Return what is known of an entry that has it."""
    assert entry.facts is not None
    return entry.facts


def is_trained(entry: Entry) -> bool:
    """Return whether an entry is of a trunk that is known to have been trained."""
    return entry.facts is not None and entry.facts.pretext != RANDOM


def count_images(entry: Entry) -> float | None:
    """Return the images that a trunk was pretrained on; None of a random trunk, and of shots."""
    if not is_trained(entry) or entry.result.task == "low_shot":
        return None
    return float(facts_of(entry).num_images) or None


def _take_difficulty(entry: Entry) -> float | None:
    if not is_trained(entry) or entry.result.task == "low_shot":
        return None
    return float(facts_of(entry).difficulty) or None


def _take_width(entry: Entry) -> float | None:
    if not is_trained(entry) or entry.result.task == "low_shot":
        return None
    return float(facts_of(entry).width) or None


def _take_pretext(entry: Entry) -> float | None:
    if not is_trained(entry) or entry.result.task == "low_shot":
        return None
    found = entry.result.details.get("pretext_accuracy", facts_of(entry).pretext_accuracy)
    return float(found) if isinstance(found, (int, float)) else None


def _lack_pretext(entry: Entry) -> str:
    is_lost = is_trained(entry) and facts_of(entry).logs_accuracy and _take_pretext(entry) is None
    return f"its run logged no accuracy by step {entry.result.step:,}" if is_lost else ""


def _take_shots(entry: Entry) -> float | None:
    value = entry.result.settings.get("k") if entry.result.task == "low_shot" else None
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


def _take_labels(entry: Entry) -> float | None:
    value = entry.result.settings.get("label_share", 1.0)  # all, where nothing is said
    if entry.result.task == "low_shot" or not isinstance(value, (int, float)):
        return None
    return float(value) if value > 0 else None


def _label_difficulty(entry: Entry) -> str:
    name = facts_of(entry).difficulty_name
    return {"|P|": "permutations |P|", "K": "neighbours K of the soft colour code"}.get(name, name)


def spell_task(entry: Entry) -> str:
    """Return the pretext task as people read it."""
    return facts_of(entry).pretext.replace("_", " ")


def _name_run(entry: Entry) -> Hashable:
    facts = entry.facts
    if facts is None:
        return (entry.result.recipe,)
    same = (facts.pretext, facts.trunk, facts.width, facts.difficulty, facts.course)
    return (entry.result.recipe, facts.data, facts.num_images, facts.form, *same)


PICTURES = (
    Picture(
        "data",
        "Transfer against data size",
        lambda _: "images to pretrain on",
        count_images,
        lambda e: (spell_task(e),),
        lambda e: (
            facts_of(e).trunk,
            facts_of(e).family,
            facts_of(e).difficulty,
            facts_of(e).course,
        ),
    ),
    Picture(
        "difficulty",
        "Transfer against the problem's complexity",
        _label_difficulty,
        _take_difficulty,
        lambda e: (spell_task(e), facts_of(e).data),
        lambda e: (facts_of(e).trunk, facts_of(e).width, facts_of(e).course),
    ),
    Picture(
        "width",
        "Width against accuracy",
        lambda _: "width factor",
        _take_width,
        lambda e: (spell_task(e), facts_of(e).data),
        lambda e: (facts_of(e).trunk, facts_of(e).difficulty, facts_of(e).course),
        scale="linear",
    ),
    Picture(
        "pretext",
        "Pretext accuracy against what transfers",
        lambda e: f"accuracy in {spell_task(e)}",
        _take_pretext,
        lambda e: (spell_task(e), facts_of(e).data),
        lambda e: (facts_of(e).trunk,),
        scale="linear",
        has_lines=False,
        x_is_share=True,
        lacks=_lack_pretext,
    ),
    Picture(
        "shots",
        "Low-shot curves",
        lambda _: "examples a class, k",
        _take_shots,
        lambda _: (),
        _name_run,
        setting="k",
    ),
    Picture(
        "labels",
        "Share of labels",
        lambda _: "labels used",
        _take_labels,
        lambda _: (),
        _name_run,
        setting="label_share",
        x_is_share=True,
    ),
)
"""The pictures over something that was varied, in the order of the page."""


def make_layers_picture(entries: Sequence[Entry]) -> Picture:
    """Return the picture over the layers that these results have."""
    places = order_layers(entries)
    layers: dict[Hashable, set[str]] = {}
    for entry in entries:
        layers.setdefault(entry.facts and entry.facts.trunk, set()).add(entry.result.layer)

    def take(entry: Entry) -> float | None:
        return float(places[entry.result.layer]) if entry.result.layer else None

    def name_kind(entry: Entry) -> Hashable:
        # Trunks whose layers have the same names belong on one axis.
        of_trunk = layers[entry.facts and entry.facts.trunk]
        known = [name for name in ("res2", "block1", "conv2", "layer1") if name in of_trunk]
        return known[0] if known else frozenset(of_trunk)

    return Picture(
        "layers",
        "Layer by layer",
        lambda _: "layer",
        take,
        lambda _: (),
        _name_run,
        scale="names",
        apart=name_kind,
    )
