"""What the demo's trunks are worth: nearest neighbours in their features, counted and looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..config import LoaderConfig
from ..errors import InputError
from ..evaluation import (
    KnnResult,
    Split,
    evaluate_knn,
    extract_features,
    find_neighbours,
    split_by_group,
)
from ..evaluation.report import Comparison
from ..loaders import build_loader
from ..models import InputSpec, Trunk, build_trunk, load_trunk
from ..randomness import step_seed
from ..shards import ShardDataset, decode_picture
from ..studies import build_recipe
from ..tasks.pictures import PAPER, frame_picture
from ..views import ViewSpec

RECIPE = "demo"
NEIGHBOURS, TEMPERATURE = 20, 0.07
_KINDS = ("pretrained", "random")
_NUM_QUERIES, _NUM_SHOWN = 4, 6
_MAX_CLASSES = 20


class Worth(NamedTuple):
    """What was found."""

    comparison: Comparison | None
    """Accuracies; None where there are no labels to count by."""
    reason: str
    """Why there are none."""
    neighbours: list[NDArray[np.uint8]]
    """Images beside their nearest, uint8 (H, W, 3)."""
    caption: str
    """What stands where in them."""


def measure_worth(
    dataset: ShardDataset,
    num: int,
    view: ViewSpec,
    runs: Sequence[Path],
    groups: Sequence[str] | None,
) -> Worth:
    """Compare each run's trunk with the random one that it began from.

    Args:
        dataset: the images.
        num: of them, the first.
        view: what the trunks see.
        runs: run directories; the seed of each is its place.
        groups: of each image; no group is both known and tested. None splits by image.
    """
    labels = np.asarray(dataset.index["label"][:num], np.int64)
    split, reason = _split(labels, range(num) if groups is None else groups)
    features = {
        kind: [_extract(dataset, num, view, run, seed, kind) for seed, run in enumerate(runs)]
        # Without labels one pair is enough to look at.
        for kind, runs in zip(_KINDS, [runs if split else runs[:1]] * 2, strict=True)
    }
    comparison = None
    if split is not None:
        unit = "split by image" if groups is None else "no model on both sides"
        comparison = _compare(dataset.class_names, labels, features, split, unit)
    queries, bank = _choose_queries(num, split)
    nearest = [
        bank[find_neighbours(features[kind][0][queries], features[kind][0][bank], _NUM_SHOWN)]
        for kind in _KINDS
    ]
    sheets = [
        _draw_neighbours(dataset, int(query), rows, None if split is None else labels, view.size)
        for query, *rows in zip(queries, *nearest, strict=True)
    ]
    caption = (
        "Left an image; right of it, above, the nearest by the pretrained trunk, below those by "
        "the random one, the nearest first."
    )
    if split is not None:
        caption += " A green frame is the same class, a red one another."
    return Worth(comparison, reason, sheets, caption)


def build_random_twin(seed: int) -> Trunk:
    """Build the trunk that a run with this seed starts from."""
    recipe = build_recipe(RECIPE)
    torch.manual_seed(step_seed(seed, 0, 0))
    return build_trunk(recipe.trunk, recipe.width)


def cut_tile(dataset: ShardDataset, sample_id: int, side: int) -> NDArray[np.uint8]:
    """Return an image cut square: uint8 (side, side, 3)."""
    picture = Image.fromarray(decode_picture(dataset.read_payload(sample_id)))
    return np.asarray(ImageOps.fit(picture, (side, side)))


def _split(labels: NDArray[np.int64], groups: Sequence) -> tuple[Split | None, str]:
    if len(np.unique(labels[labels >= 0])) < 2:
        return None, (
            "The images have no labels, so there is nothing to compare the trunks by; put them "
            "into one folder a class for that. Neighbours, pictures and curves show what was "
            "learnt."
        )
    try:
        return split_by_group(labels, groups), ""
    except InputError as error:
        return None, f"The labels do not allow a comparison: {error}."


def _extract(
    dataset: ShardDataset, num: int, view: ViewSpec, run: Path, seed: int, kind: str
) -> torch.Tensor:
    """Extract the features of the first images: float32 (num, D)."""
    trunk, metadata = load_trunk(run)
    spec = InputSpec.from_metadata(metadata)
    if kind == "random":
        trunk = build_random_twin(seed)
    config = LoaderConfig(
        path=dataset.address, max_samples=num, global_batch_size=min(100, num), num_threads=1
    )
    loader = build_loader(config, view)
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return extract_features(trunk, loader, spec, device).features
    finally:
        loader.close()


def _compare(
    class_names: Sequence[str],
    labels: NDArray[np.int64],
    features: dict[str, list[torch.Tensor]],
    split: Split,
    unit: str,
) -> Comparison:
    truth = torch.from_numpy(labels)
    results: dict[str, list[KnnResult]] = {
        kind: [evaluate_knn(f, truth, [], NEIGHBOURS, TEMPERATURE, split=split) for f in seeds]
        for kind, seeds in features.items()
    }
    for seed, both in enumerate(zip(*results.values(), strict=True)):
        for kind, result in zip(results, both, strict=True):
            print(f"seed {seed}, {kind}: {100 * result.accuracy:.1f} %", flush=True)
    first = results["pretrained"][0]

    def mean(kind: str, label: int) -> float:
        return fmean(result.per_class[label] for result in results[kind])

    per_class = {
        class_names[label]: (mean("pretrained", label), mean("random", label))
        for label in first.per_class
    }
    return Comparison(
        measure=f"k nearest neighbours by cosine (k {first.k}, votes weighted by "
        f"exp(cosine / {TEMPERATURE})), {unit}",
        pretrained=tuple(result.accuracy for result in results["pretrained"]),
        random=tuple(result.accuracy for result in results["random"]),
        chance=max(Counter(labels[split.test].tolist()).values()) / len(split.test),
        num_train=first.num_train,
        num_test=first.num_test,
        per_class=per_class if len(per_class) <= _MAX_CLASSES else {},
    )


def _choose_queries(num: int, split: Split | None) -> tuple[NDArray, NDArray]:
    """Return ids to look at, evenly spaced, and the ids among which their nearest are sought."""
    ids = np.arange(num) if split is None else split.test
    queries = ids[np.linspace(0, len(ids) - 1, min(_NUM_QUERIES, len(ids))).astype(int)]
    bank = np.setdiff1d(np.arange(num), queries) if split is None else split.train
    return queries, bank


def _draw_neighbours(
    dataset: ShardDataset,
    query: int,
    nearest: Sequence[NDArray],
    labels: NDArray[np.int64] | None,
    side: int,
) -> NDArray[np.uint8]:
    """Lay out an image and its nearest, a row a trunk; framed where labels tell."""
    asked = frame_picture(cut_tile(dataset, query, side), None)
    rows = []
    for number, row in enumerate(nearest):
        tiles = [asked if number == 0 else np.full_like(asked, PAPER)]
        for sample_id in row.tolist():
            is_right = None
            if labels is not None and labels[query] >= 0:
                is_right = bool(labels[sample_id] == labels[query])
            tiles.append(frame_picture(cut_tile(dataset, sample_id, side), is_right))
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows)
