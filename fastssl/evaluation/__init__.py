"""What a trunk is worth: features of a data set, and measures on them."""

from __future__ import annotations

from ..average_precision import average_precision, step_average_precision
from ..models.pooling import pool_map
from .accuracy import Accuracy, measure_accuracy
from .effective_rank import effective_rank
from .extract import Features, extract_features
from .knn import (
    KnnResult,
    classify_by_neighbours,
    evaluate_knn,
    find_neighbours,
    measure_neighbours,
)
from .label_curves import LabelCurve, group_results, make_curve
from .label_savings import Savings, find_baseline, measure_savings
from .logistic import LogisticResult, fit_logistic
from .low_shot import (
    GOYAL19_SHOTS,
    LowShot,
    LowShotDraw,
    LowShotResult,
    LowShotSelection,
    draw_low_shot,
    low_shot,
)
from .probe import open_probe
from .splits import Split, label_subset, split_by_group
from .store import StoredFeatures, open_features
from .subject import open_subject
from .svm import GOYAL19_COSTS, SvmResult, fit_svms, normalize_rows
from .utility import UtilityCurve, utility

__all__ = [
    "GOYAL19_COSTS",
    "GOYAL19_SHOTS",
    "Accuracy",
    "Features",
    "KnnResult",
    "LabelCurve",
    "LogisticResult",
    "LowShot",
    "LowShotDraw",
    "LowShotResult",
    "LowShotSelection",
    "Savings",
    "Split",
    "StoredFeatures",
    "SvmResult",
    "UtilityCurve",
    "average_precision",
    "classify_by_neighbours",
    "draw_low_shot",
    "effective_rank",
    "evaluate_knn",
    "extract_features",
    "find_baseline",
    "find_neighbours",
    "fit_logistic",
    "fit_svms",
    "group_results",
    "label_subset",
    "low_shot",
    "make_curve",
    "measure_accuracy",
    "measure_neighbours",
    "measure_savings",
    "normalize_rows",
    "open_features",
    "open_probe",
    "open_subject",
    "pool_map",
    "split_by_group",
    "step_average_precision",
    "utility",
]
