"""The evaluations that need nothing but stored features, by name.

Each is handed the features of one end point on both sides of a split and returns its figures as
results, of which the command fills in whatever they share; the first stands for all. A new one is a
config, a function and a line in ``MEASURES``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..average_precision import average_precision
from ..counts import spell_number
from ..errors import InputError
from ..fields import Range
from ..runs.result import Result
from .knn import measure_neighbours
from .logistic import MAX_UPDATES, fit_logistic
from .low_shot import GOYAL19_SHOTS, LowShotDraw, low_shot
from .setting import EvaluateConfig, Side
from .splits import split_by_group
from .svm import GOYAL19_COSTS, Solver, Uncounted, fit_svms, normalize_rows


@dataclass(frozen=True)
class KnnConfig(EvaluateConfig):
    """k nearest neighbours by cosine vote on each test image."""

    k: Annotated[int, Range(1, 1_000_000)] = 20
    """Neighbours that vote."""
    temperature: Annotated[float, Range(0, 1000)] = 0.07
    """A vote weighs exp(cosine / temperature); 0 has every vote count the same."""


def measure_knn(config: KnnConfig, train: Side, test: Side, device: torch.device) -> list[Result]:
    """Classify test images by their neighbours among the training images."""
    found = measure_neighbours(
        as_tensor(test.features, device),
        torch.from_numpy(test.labels),
        as_tensor(train.features, device),
        torch.from_numpy(train.labels),
        config.k,
        config.temperature or None,
    )
    settings = {"k": found.k, "temperature": config.temperature}
    per_class = {test.class_names[label]: share for label, share in found.per_class.items()}
    return [_part("top1", found.accuracy, per_class, settings, {"top5": found.top5})]


@dataclass(frozen=True)
class SvmConfig(EvaluateConfig):
    """A linear SVM a class, its cost chosen by cross-validation (Goyal et al. 2019)."""

    folds: Annotated[int, Range(2, 100)] = 3
    """Folds, stratified by each class; cut in the order of the samples, as published."""
    solver: Solver = "batched"
    """batched: all classes, costs and folds at once, each with a certificate; sklearn: LinearSVC
    with the published settings, one after the other."""
    uncounted: Uncounted | None = None
    """Training samples of which a class has a label of 0: out of it, or negative as the study's
    code has them; nothing takes the protocol's."""


def measure_svm(config: SvmConfig, train: Side, test: Side, device: torch.device) -> list[Result]:
    """Fit a linear SVM for each class and score it by average precision on the test images."""
    uncounted = config.uncounted or ("negative" if config.protocol == "goyal19" else "out")
    classes = _find_classes(train, test, config.folds)
    names = [train.class_names[c] for c in classes]
    with _naming_classes(names):
        svms = fit_svms(
            normalize_rows(as_tensor(train.features, device)),
            train.as_signs()[:, classes],
            GOYAL19_COSTS,
            config.folds,
            uncounted=uncounted,
            solver=config.solver,
        )
    scores = svms.score(normalize_rows(as_tensor(test.features, torch.device("cpu"))).numpy())
    signs = test.as_signs()[:, classes]
    per_class = {name: average_precision(scores[:, i], signs[:, i]) for i, name in enumerate(names)}
    details = {
        "best_cost": dict(zip(names, svms.best_cost.tolist(), strict=True)),
        "cv_mean_ap": float(svms.cv_ap.max(1).mean()),
        "largest_gap": float(svms.gap.max()),
        "largest_cv_gap": float(svms.cv_gap.max()),
        # Of a class in any order: the share of its positives.
        "chance": float(np.mean((signs > 0).sum(0) / (signs != 0).sum(0))),
    }
    settings = {"folds": config.folds, "solver": config.solver, "uncounted": uncounted}
    return [_part("mAP", float(np.mean([*per_class.values()])), per_class, settings, details)]


@dataclass(frozen=True)
class LowShotConfig(EvaluateConfig):
    """Linear SVMs from k images a class, several draws of each (Goyal et al. 2019)."""

    shots: Annotated[tuple[int, ...], Range(1, 1_000_000)] = GOYAL19_SHOTS
    """The numbers k; those that a class has too few images for are left out."""
    draws: Annotated[int, Range(1, 1000)] = 5
    """Independent draws of each k."""


def measure_low_shot(
    config: LowShotConfig, train: Side, test: Side, device: torch.device
) -> list[Result]:
    """Fit SVMs to few images; the honest figure of the greatest k stands first."""
    classes = _find_classes(train, test, 1)
    names = [train.class_names[c] for c in classes]
    train_labels: NDArray[Any]
    test_labels: NDArray[Any]
    if train.signs is None:
        train_labels, test_labels = (_number(side.labels, classes) for side in (train, test))
    else:
        train_labels, test_labels = train.as_signs()[:, classes], test.as_signs()[:, classes]
    with _naming_classes(names):
        found = low_shot(
            normalize_rows(as_tensor(train.features, device)),
            train_labels,
            normalize_rows(as_tensor(test.features, device)),
            test_labels,
            config.shots,
            config.draws,
            seed=config.seed,
        )
    parts: list[Result] = []
    for result in reversed(found.results):
        for selection in (result.honest, result.published):
            if selection is None:
                continue
            name = "published" if selection is result.published else "honest"
            details: dict[str, Any] = {
                "chosen_by": selection.chosen_by,
                "costs": selection.costs.tolist(),
                "largest_gap": float(result.gap.max()),
            }
            if not parts:
                details["draws"] = [_list_drawn(draw, train) for draw in result.draws]
                details["left_out"] = {str(k): why for k, why in found.skipped.items()}
            per_class = dict(zip(names, selection.per_class.tolist(), strict=True))
            settings = {"k": result.k, "selection": name}
            part = _part("mAP", selection.mean, per_class, settings, details)
            parts.append(replace(part, values=tuple(selection.values.tolist())))
    return parts


def _list_drawn(draw: LowShotDraw, side: Side) -> dict[str, Any]:
    """Return the ids of what was drawn, a list a class; a smaller k has the first of each."""
    ids = {"positives": side.sample_ids[draw.positives].tolist()}
    if draw.negatives is not None:
        ids["negatives"] = side.sample_ids[draw.negatives].tolist()
    return ids


@dataclass(frozen=True)
class LogisticConfig(EvaluateConfig):
    """Multinomial logistic regression by L-BFGS (Kolesnikov et al. 2019)."""

    penalty: Annotated[float, Range(0, 1e6)] = 0.0
    """Factor of the squared weights beside the mean loss; 0 has it chosen on a fifth of the
    training images, by protocol kolesnikov19 the study's: 100 / (features x classes)."""
    max_updates: Annotated[int, Range(1, 1_000_000)] = MAX_UPDATES
    """Updates of L-BFGS at most."""


def measure_logistic(
    config: LogisticConfig, train: Side, test: Side, device: torch.device
) -> list[Result]:
    """Fit a logistic regression and count the test images whose class it finds.

    By protocol kolesnikov19 features are used as they are; else each is standardised.
    """
    classes = _find_classes(train, test, 1)
    labels = _number(train.labels, classes)
    known, judged = as_tensor(train.features, device), as_tensor(test.features, device)
    penalty = config.penalty or None
    if config.protocol != "kolesnikov19":
        deviation, mean = torch.std_mean(known, 0)
        known, judged = ((part - mean) / (deviation + _LEAST_STD) for part in (known, judged))
        penalty = penalty or _choose_penalty(known, labels, train.sample_ids, config.seed)
    fitted = fit_logistic(known, labels, penalty, config.max_updates)
    found = fitted.measure(judged, _number(test.labels, classes))
    per_class = {train.class_names[classes[c]]: share for c, share in found.per_class.items()}
    details = {
        "top5": found.top5,
        "objective": fitted.objective,
        "gradient_norm": fitted.gradient_norm,
        "has_converged": fitted.has_converged,
    }
    settings = {"penalty": fitted.penalty, "updates": fitted.num_updates}
    return [_part("top1", found.top1, per_class, settings, details)]


_PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_LEAST_STD = 1e-6
# Accuracies are settled long before the last digits of the weights.
_ROUGHLY: dict[str, Any] = {"max_updates": 200, "tolerance": 1e-3}


def _choose_penalty(
    features: Tensor, labels: NDArray[np.int64], ids: NDArray[np.int64], seed: int
) -> float:
    """Return the penalty that is best on a stratified fifth; of equal ones the greatest."""
    split = split_by_group(labels, ids, seed=seed)
    known, judged = (features[torch.from_numpy(rows)] for rows in (split.train, split.test))
    # Numbered anew: a class of one image is on one side alone.
    labels = _number(labels, np.unique(labels[split.train]))

    def judge(penalty: float) -> float:
        fitted = fit_logistic(known, labels[split.train], penalty, **_ROUGHLY)
        return fitted.measure(judged, labels[split.test]).top1

    return max(_PENALTIES, key=judge)


def _number(labels: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each label among some classes, -1 where it is none of them."""
    places = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    return np.where(classes[places] == labels, places, -1)


@contextlib.contextmanager
def _naming_classes(names: Sequence[str]) -> Iterator[None]:
    """Have an error about a class by number give its name."""
    try:
        yield
    except InputError as error:
        said = re.sub(r"class (\d+)", lambda found: f"class '{names[int(found[1])]}'", str(error))
        raise InputError(said) from None


def _find_classes(train: Side, test: Side, least: int) -> NDArray[np.int64]:
    """Return the numbers of the classes that can be learnt and tested.

    Raises:
        InputError: if a class of one side has too few positives on the other.
    """
    numbers, tested = ((side.as_signs() > 0).sum(0) for side in (train, test))
    classes = np.flatnonzero((numbers > 0) | (tested > 0))
    poor = [c for c in classes if numbers[c] < least or (least > 1 and not tested[c])]
    if poor:
        c = poor[0]
        raise InputError(
            f"class '{train.class_names[c]}' has {spell_number(numbers[c], 'positive')} to train "
            f"on and {tested[c]} to test on, wanted at least {least} and 1 ({len(poor)} of "
            f"{len(classes)} classes have too few); leave it out of the dataset, or label more"
        )
    return classes[tested[classes] > 0] if train.signs is not None else classes


def as_tensor(features: NDArray[Any], device: torch.device) -> Tensor:
    """Return features in memory of a device as float32 (N, D)."""
    return torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(device)


def _part(
    metric: str,
    value: float,
    per_class: dict[str, float],
    settings: dict[str, Any],
    details: dict[str, Any] | None = None,
) -> Result:
    return Result("", "", metric, value, per_class, settings=settings, details=details or {})


Measure = Callable[[Any, Side, Side, torch.device], Sequence[Result]]

MEASURES: dict[str, tuple[type[EvaluateConfig], Measure]] = {
    "knn": (KnnConfig, measure_knn),
    "svm": (SvmConfig, measure_svm),
    "low_shot": (LowShotConfig, measure_low_shot),
    "logistic": (LogisticConfig, measure_logistic),
}
"""By name: what it takes beside the options of all, and what it does."""

ONE_LABEL_TASKS = ("knn", "logistic")
"""Those that cannot do with several labels an image."""
