"""What pictures of results need to know of a run: task, trunk, data, difficulty."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..counts import spell_number
from ..fields import Documented, walk
from .read import Run
from .result import is_name

RANDOM = "random"
"""In place of the task of a trunk before its first step."""
DIFFICULTIES = {
    "jigsaw": ("task.num_permutations", "|P|"),
    "colorization": ("task.num_neighbors", "K"),
}
"""Task -> the field that makes it more difficult, and how the studies call it."""

# The longest names first: of several that fit one that says more is meant.
_NAMES = {
    "resnet50_v2_minus": "ResNet-50 v2 (-)",
    "revnet50_minus": "RevNet-50 (-)",
    "resnet50_newell": "ResNet-50 (Newell)",
    "resnet50_v1": "ResNet-50 v1",
    "resnet50_v2": "ResNet-50 v2",
    "resnet50": "ResNet-50",
    "revnet50": "RevNet-50",
    "vgg19_bn": "VGG19-BN",
    "alexnet": "AlexNet",
    "caffenet": "AlexNet",
    "resnet9": "ResNet9",
}
# A form of a trunk that its task needs; to a study it is the same trunk.
_FORMS = re.compile(r"_(patch|color|jigsaw|dense)\b")
_SAME_SIZE = 0.02
_MOST_IMAGES = 1e15


@dataclass(frozen=True)
class Facts(Documented):
    """What pretrained a trunk."""

    pretext: str
    """The task, or ``RANDOM``."""
    trunk: str
    """As people write it; a task's own form of a trunk is the same."""
    width: int
    """Its width factor."""
    data: str = ""
    """The data set's name."""
    family: str = ""
    """Name, or place, of what data sets have in common that differ in size alone."""
    num_images: int = 0
    """Images to train on; 0 where nobody says."""
    difficulty: int = 0
    """Of the task, where it has one: ``DIFFICULTIES``."""
    course: str = ""
    """What tells another form of a recipe from it."""
    steps: int = 0
    """Of the whole run; 0 where that depends on the data."""
    pretext_accuracy: float | None = None
    """The task's own accuracy at the trunk's step, 0 .. 1; None where none was logged."""
    logs_accuracy: bool = False
    """Whether the run logged the task's accuracy at some step."""
    form: str = ""
    """Of a run, a digest of all its settings but the seed: runs that share it are repeats."""

    @property
    def difficulty_name(self) -> str:
        """How the studies call the difficulty; empty where the task has none."""
        return DIFFICULTIES[self.pretext][1] if self.pretext in DIFFICULTIES else ""


@dataclass(frozen=True)
class Grid(Documented):
    """A table of a study, which results fill."""

    title: str
    """The study, and which table."""
    corner: str
    """Above the names of rows."""
    rows: tuple[str, ...]
    """Their names, from above."""
    columns: tuple[str, ...]
    """Their names, from the left."""
    recipes: Mapping[tuple[str, str], str]
    """(row, column) -> the recipe that fills it; a cell that the study does not have is absent."""


def name_trunk(trunk: str) -> str:
    """Return a trunk's name as people write it.

    Args:
        trunk: as ``build_trunk`` takes it.
    """
    plain = _FORMS.sub("", trunk)
    for known, name in _NAMES.items():
        if plain == known:
            return name
        if plain.startswith(f"{known}_"):
            return f"{name} {plain.removeprefix(f'{known}_')}"
    return plain


def read_facts(settings: Mapping[str, Any]) -> Facts | None:
    """Return what a run's settings say, or None where they are none.

    Args:
        settings: from ``fastssl.config.flatten``, or out of a ``config.json`` of any age.
    """
    task, trunk = settings.get("task.name"), settings.get("trunk")
    if not isinstance(task, str) or not isinstance(trunk, str):
        return None
    if not is_name(task) or not is_name(trunk):
        return None
    is_random = settings.get("max_steps") == 0
    field = DIFFICULTIES[task][0] if task in DIFFICULTIES else ""
    path = str(settings.get("data.path") or "")
    return Facts(
        pretext=RANDOM if is_random else task,
        trunk=name_trunk(trunk),
        width=_count(settings.get("width")),
        data=Path(path).name if is_name(path) else "",
        family=path,
        num_images=_count(settings.get("data.max_samples")),
        difficulty=0 if is_random else _count(settings.get(field)),
    )


def read_run_facts(run: Run, known: Facts | None, step: int | None = None) -> Facts | None:
    """Return what a run directory says of its trunk, where a recipe's own facts may say more.

    Args:
        run: as ``read_run`` gives it.
        known: of its recipe; its data set's name stands where the run had about as many images.
        step: steps done when the trunk was as it is meant; None is the end.
    """
    facts = read_facts(run.settings)
    if facts is None:
        return known
    facts = replace(facts, form=_digest_settings(run.settings))
    last = run.lines[-1] if run.lines else {}
    samples, epoch = _count(last.get("samples")), last.get("epoch")
    if samples and isinstance(epoch, (int, float)) and samples / _MOST_IMAGES < epoch < math.inf:
        facts = replace(facts, num_images=round(samples / epoch))
    facts = replace(
        facts,
        pretext_accuracy=_find_accuracy(run, step),
        logs_accuracy=bool(run.curve("accuracy")[0]),
    )
    if known is None:
        return facts
    size = facts.num_images or known.num_images
    if known.num_images and abs(size / known.num_images - 1) < _SAME_SIZE:
        facts = replace(facts, data=known.data, family=known.family, num_images=known.num_images)
    return replace(facts, course=known.course, steps=known.steps)


def describe_changes(facts: Facts, known: Facts) -> list[str]:
    """Say in what a run differs from its recipe, a phrase each.

    Args:
        facts: of the run.
        known: of the recipe.
    """
    said: list[str] = []
    if RANDOM in (facts.pretext, known.pretext):
        return said
    for name in ("pretext", "trunk", "width", "difficulty"):
        ours, theirs = getattr(facts, name), getattr(known, name)
        if ours != theirs:
            said.append(f"{name} {ours} in place of {theirs}")
    if known.num_images and facts.num_images and facts.num_images != known.num_images:
        said.append(f"{spell_number(facts.num_images, 'image')} in place of {known.num_images:,}")
    return said


def _find_accuracy(run: Run, step: int | None) -> float | None:
    """Return the accuracy at a step: the newest by then, not older than lines lie apart."""
    steps, values = run.curve("accuracy")
    if step is None:
        return values[-1] if values else None
    number = bisect.bisect_right(steps, step) - 1
    if number < 0:
        return None
    # Of a long log not every line is kept.
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    apart = max([_count(run.settings.get("log.every_steps")) or 1, *gaps[:1], *gaps[-1:]])
    return values[number] if step - steps[number] < apart else None


def _digest_settings(settings: Mapping[str, Any]) -> str:
    free = {item.name for item in walk(RunConfig) if item.is_free}
    kept = {name: v for name, v in settings.items() if name not in free and name != "seed"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value < 2**63 else 0
