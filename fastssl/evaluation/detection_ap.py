"""How good boxes are that were found in pictures: average precision by VOC's rules and by COCO's.

Shape legend: N pictures, M most objects of one, K detections, C classes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..average_precision import average_precision
from ..errors import InputError
from ..fields import Documented

VOC_OVERLAP = 0.5
"""Least intersection over union of a detection with the object that it finds."""
_COCO_LINE = (
    "COCO's average precision needs pycocotools, which is absent; install it: "
    'pip install "fastssl[detection]", or leave --coco away'
)


@dataclass(frozen=True)
class Detections(Documented):
    """Boxes that were found in pictures, in any order."""

    pictures: NDArray[np.int64]
    """(K,): the row of the picture, 0 .. N-1."""
    classes: NDArray[np.int64]
    """(K,): 0 .. C-1."""
    scores: NDArray[np.float32]
    """(K,): greater for what is surer."""
    boxes: NDArray[np.float32]
    """(K, 4): x1, y1, x2, y2 in pixels, half open."""

    def __len__(self) -> int:
        """Return K."""
        return len(self.scores)


@dataclass(frozen=True)
class DetectionAp(Documented):
    """Average precision by class, of the classes that have objects which count."""

    all_points: dict[int, float]
    """By class: precision made monotone, summed at every change of recall."""
    eleven_points: dict[int, float]
    """By class: the mean of the greatest precision at a recall of at least 0, 0.1 .. 1."""
    num_objects: dict[int, int]
    """By class: objects that are not difficult."""

    @property
    def ap50(self) -> float:
        """The mean over classes by all points; 0 where there is none."""
        return _mean(self.all_points)

    @property
    def ap50_11(self) -> float:
        """The mean over classes by 11 points; 0 where there is none."""
        return _mean(self.eleven_points)


def measure_voc(
    detections: Detections, objects_NM6: NDArray[np.float32], overlap: float = VOC_OVERLAP
) -> DetectionAp:
    """Return the average precision of detections as the VOC kit has it.

    Args:
        detections: of N pictures.
        objects_NM6: x1, y1, x2, y2, class, difficult; -1 for the class of an unused row.
        overlap: least intersection over union of a detection with what it finds.

    Raises:
        InputError: if a detection is of no picture or its score is not finite.
    """
    signs = match_objects(detections, objects_NM6, overlap)
    counts = (objects_NM6[..., 4] >= 0) & (objects_NM6[..., 5] == 0)
    classes, numbers = np.unique(objects_NM6[..., 4][counts].astype(np.int64), return_counts=True)
    order = np.argsort(detections.classes, kind="stable")
    starts = np.searchsorted(detections.classes[order], classes)
    stops = np.searchsorted(detections.classes[order], classes, side="right")
    found: dict[Any, dict[int, float]] = {"all": {}, 11: {}}
    for c, number, start, stop in zip(
        *(a.tolist() for a in (classes, numbers, starts, stops)), strict=True
    ):
        rows = order[start:stop]
        missed = number - int((signs[rows] > 0).sum())
        for points, by_class in found.items():
            by_class[c] = average_precision(
                detections.scores[rows], signs[rows], points, num_missed=missed
            )
    return DetectionAp(
        found["all"], found[11], dict(zip(classes.tolist(), numbers.tolist(), strict=True))
    )


def match_objects(
    detections: Detections, objects_NM6: NDArray[np.float32], overlap: float = VOC_OVERLAP
) -> NDArray[np.int8]:
    """Say of every detection whether it found an object, as the VOC kit does.

    A detection is judged by the object of its class that it overlaps most, the first of equal ones:
    by one that is difficult it does not count at all; the best detection of another has found it,
    and all others of it are false, as are those that overlap none enough. Of equal scores the first
    is the best.

    Args:
        detections: of N pictures.
        objects_NM6: x1, y1, x2, y2, class, difficult; -1 for the class of an unused row.
        overlap: least intersection over union.

    Returns:
        int8 (K,): 1 found, -1 false, 0 not counted.

    Raises:
        InputError: if a detection is of no picture.
    """
    pictures = detections.pictures
    if len(pictures) and not (0 <= pictures.min() and pictures.max() < len(objects_NM6)):
        raise InputError(
            f"detections must be of pictures 0 .. {len(objects_NM6) - 1}, got {pictures.max()}"
        )
    objects, best, highest = _find_best(detections, objects_NM6)
    signs = np.full(len(detections), -1, np.int8)
    rows = np.flatnonzero(highest >= overlap)
    is_difficult = objects[best[rows], 5] != 0
    signs[rows[is_difficult]] = 0
    rows = rows[~is_difficult]
    rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
    # The first of each object in falling order of scores.
    _, first = np.unique(best[rows], return_index=True)
    signs[rows[first]] = 1
    return signs


def _find_best(
    detections: Detections, objects_NM6: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Pair each detection with the objects of its class in its picture.

    Returns:
        All objects in a row; (K,) which of them each overlaps most, and how much: -1 for none.
    """
    pictures, places = np.nonzero(objects_NM6[..., 4] >= 0)
    objects = objects_NM6[pictures, places]
    num_classes = 1 + int(max(objects[:, 4].max(initial=0), detections.classes.max(initial=0)))
    keys = pictures * num_classes + objects[:, 4].astype(np.int64)
    order = np.argsort(keys, kind="stable")
    keys, objects = keys[order], objects[order]
    wanted = detections.pictures * num_classes + detections.classes
    begin = np.searchsorted(keys, wanted)
    counts = np.searchsorted(keys, wanted, side="right") - begin
    ends = np.cumsum(counts)
    paired = np.repeat(np.arange(len(detections)), counts)
    other = np.arange(len(paired)) - np.repeat(ends - counts - begin, counts)
    shares = intersect(detections.boxes[paired], objects[other, :4])
    best = np.zeros(len(detections), np.int64)
    highest = np.full(len(detections), -1.0)
    has_any = counts > 0
    if has_any.any():
        highest[has_any] = np.maximum.reduceat(shares, (ends - counts)[has_any])
        is_highest = np.flatnonzero(shares == highest[paired])
        rows, first = np.unique(paired[is_highest], return_index=True)
        best[rows] = other[is_highest[first]]
    return objects, best, highest


def intersect(boxes: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Return the intersection over union of boxes, half open; 0 where both are empty.

    Args:
        boxes: (..., 4) x1, y1, x2, y2.
        others: likewise, of a shape that broadcasts.
    """
    a, b = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(min=0).prod(-1)
    union = _area(a) + _area(b) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[..., 2:] - boxes[..., :2]).clip(min=0).prod(-1)


def _mean(by_class: dict[int, float]) -> float:
    return float(np.mean([*by_class.values()])) if by_class else 0.0


# ------------------------------------------------------------------ COCO


def check_coco() -> None:
    """See that pycocotools is there, before anything takes time.

    Raises:
        ImportError: says what installs it.
    """
    try:
        importlib.import_module("pycocotools.cocoeval")
    except ImportError:
        raise ImportError(_COCO_LINE) from None


def measure_coco(
    detections: Detections, objects_NM6: NDArray[np.float32], class_names: Sequence[str]
) -> dict[str, float]:
    """Return COCO's figures of boxes, worked out by pycocotools.

    Args:
        detections: of N pictures.
        objects_NM6: x1, y1, x2, y2, class, difficult; what is difficult is a crowd.
        class_names: C of them.

    Returns:
        ``ap`` (mean over overlaps of 0.5, 0.55 .. 0.95), ``ap50``, ``ap75``, and by the objects'
        area ``ap_small``, ``ap_medium`` and ``ap_large``, those that there are.

    Raises:
        ImportError: without pycocotools.
    """
    check_coco()
    coco: Any = importlib.import_module("pycocotools.coco")
    evaluation: Any = importlib.import_module("pycocotools.cocoeval")
    truth = coco.COCO()
    truth.dataset = _describe_truth(objects_NM6, class_names)
    corners = detections.boxes.astype(np.float64)
    found = np.column_stack(
        (
            detections.pictures,
            corners[:, :2],
            corners[:, 2:] - corners[:, :2],
            detections.scores,
            detections.classes + 1,
        )
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables as it goes
        truth.createIndex()
        if not len(found) or not truth.dataset["annotations"]:
            return {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
        judge = evaluation.COCOeval(truth, truth.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    numbers = zip(names, judge.stats[: len(names)].tolist(), strict=True)
    return {name: float(value) for name, value in numbers if value >= 0}  # -1: no such object


def _describe_truth(objects_NM6: NDArray[np.float32], class_names: Sequence[str]) -> dict[str, Any]:
    """Return objects as a COCO file has them; ids of classes and objects count from 1."""
    pictures, places = np.nonzero(objects_NM6[..., 4] >= 0)
    rows = objects_NM6[pictures, places].astype(np.float64)
    annotations = [
        {
            "id": number,
            "image_id": picture,
            "category_id": int(label) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": int(difficult != 0),
        }
        for number, (picture, (x1, y1, x2, y2, label, difficult)) in enumerate(
            zip(pictures.tolist(), rows.tolist(), strict=True), 1
        )
    ]
    return {
        "info": {},
        "images": [{"id": picture} for picture in range(len(objects_NM6))],
        "annotations": annotations,
        "categories": [{"id": c, "name": name} for c, name in enumerate(class_names, 1)],
    }
