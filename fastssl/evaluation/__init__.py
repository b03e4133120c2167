"""What a trunk is worth: features of a data set, and measures on them."""

from __future__ import annotations

from .features import Features, extract_features
from .knn import KnnResult, classify_by_neighbours, evaluate_knn, find_neighbours
from .splits import Split, split_by_group

__all__ = [
    "Features",
    "KnnResult",
    "Split",
    "classify_by_neighbours",
    "evaluate_knn",
    "extract_features",
    "find_neighbours",
    "split_by_group",
]
