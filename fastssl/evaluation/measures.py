"""The evaluations that need nothing but stored features, by name.

Each is handed the features of one end point on both sides of a split and returns its figures as
results, of which the command fills in whatever they share. A new one is a config, a function and a
line in ``MEASURES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..fields import Range
from ..runs.result import Result
from .average_precision import average_precision
from .knn import classify_by_neighbours
from .setting import EvaluateConfig, Side
from .svm import GOYAL19_COSTS, Uncounted, fit_svms, normalize_rows


@dataclass(frozen=True)
class KnnConfig(EvaluateConfig):
    """k nearest neighbours by cosine vote on each test image."""

    k: Annotated[int, Range(1, 1_000_000)] = 20
    """Neighbours that vote."""
    temperature: Annotated[float, Range(0, 1000)] = 0.07
    """A vote weighs exp(cosine / temperature); 0 has every vote count the same."""


def measure_knn(config: KnnConfig, train: Side, test: Side, device: torch.device) -> list[Result]:
    """Classify test images by their neighbours among the training images."""
    _refuse_signs("knn", train)
    guesses = classify_by_neighbours(
        as_tensor(test.features, device),
        as_tensor(train.features, device),
        torch.from_numpy(train.labels),
        config.k,
        config.temperature or None,
    )
    is_right = guesses.cpu().numpy() == test.labels
    per_class = {
        test.class_names[label]: float(is_right[test.labels == label].mean())
        for label in np.unique(test.labels)
    }
    settings = {"k": min(config.k, len(train.labels)), "temperature": config.temperature}
    return [_part("top1", float(is_right.mean()), per_class, settings)]


@dataclass(frozen=True)
class SvmConfig(EvaluateConfig):
    """A linear SVM a class, its cost chosen by cross-validation (Goyal et al. 2019)."""

    folds: Annotated[int, Range(2, 100)] = 3
    """Folds, stratified by each class; cut in the order of the samples, as published."""
    solver: Literal["batched", "sklearn"] = "batched"
    """batched: all classes, costs and folds at once, each with a certificate; sklearn: LinearSVC
    with the published settings, one after the other."""
    uncounted: Uncounted | None = None
    """Training samples of which a class has a label of 0: out of it, or negative as the study's
    code has them; nothing takes the protocol's."""


def measure_svm(config: SvmConfig, train: Side, test: Side, device: torch.device) -> list[Result]:
    """Fit a linear SVM for each class and score it by average precision on the test images."""
    uncounted = config.uncounted or ("negative" if config.protocol == "goyal19" else "out")
    features = normalize_rows(as_tensor(train.features, device))
    svms = fit_svms(features, train.as_signs(), GOYAL19_COSTS, config.folds, uncounted=uncounted)
    scores = svms.score(normalize_rows(torch.as_tensor(np.asarray(test.features))).numpy())
    signs = test.as_signs()
    per_class = {
        name: average_precision(scores[:, c], signs[:, c])
        for c, name in enumerate(test.class_names)
        if (signs[:, c] > 0).any()
    }
    details = {
        "best_cost": dict(zip(train.class_names, svms.best_cost.tolist(), strict=True)),
        "cv_mean_ap": float(svms.cv_ap.max(1).mean()),
        "largest_gap": float(svms.gap.max()),
        "largest_cv_gap": float(svms.cv_gap.max()),
    }
    settings = {"folds": config.folds, "solver": config.solver, "uncounted": uncounted}
    return [_part("mAP", float(np.mean([*per_class.values()])), per_class, settings, details)]


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


def _refuse_signs(task: str, side: Side) -> None:
    if side.signs is not None:
        raise InputError(
            f"{task} takes images of one label each, and these have several (targets 'labels'); "
            "take svm or low_shot"
        )


Measure = Callable[[Any, Side, Side, torch.device], Sequence[Result]]

MEASURES: dict[str, tuple[type[EvaluateConfig], Measure]] = {
    "knn": (KnnConfig, measure_knn),
    "svm": (SvmConfig, measure_svm),
}
"""By name: what it takes beside the options of all, and what it does."""
