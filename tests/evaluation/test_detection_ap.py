"""Average precision of detections, against a plain implementation of the VOC kit's loop."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.evaluation.detection_ap import (
    Detections,
    check_coco,
    intersect,
    match_objects,
    measure_coco,
    measure_voc,
)

PICTURES, MOST, CLASSES = 40, 6, 3


def make_objects(rng):
    """Draw objects with whole corners, some difficult, some pictures with none."""
    objects = np.zeros((PICTURES, MOST, 6), np.float32)
    objects[..., 4] = -1
    for picture in objects:
        for row in picture[: rng.integers(0, MOST + 1)]:
            x, y = rng.integers(0, 60, 2)
            w, h = rng.integers(8, 40, 2)
            row[:] = (x, y, x + w, y + h, rng.integers(CLASSES), rng.random() < 0.3)
    return objects


def make_detections(rng, objects, copies=4):
    """Shift each object a few times, with scores of which many are equal, and add false ones."""
    rows = []
    for picture, own in enumerate(objects):
        for x1, y1, x2, y2, label, _ in own[own[:, 4] >= 0]:
            for _ in range(rng.integers(0, copies + 1)):
                box = np.array([x1, y1, x2, y2]) + rng.integers(-5, 6, 4)
                wrong = rng.random() < 0.2
                rows.append((picture, rng.integers(CLASSES) if wrong else label, *box))
        for _ in range(rng.integers(0, 4)):
            x, y, w, h = rng.integers(1, 60, 4)
            rows.append((picture, rng.integers(CLASSES), x, y, x + w, y + h))
    found = np.array(rows)[rng.permutation(len(rows))]
    scores = rng.integers(0, 12, len(found)) / 12  # ties
    return Detections(
        found[:, 0].astype(np.int64),
        found[:, 1].astype(np.int64),
        scores.astype(np.float32),
        found[:, 2:].astype(np.float32),
    )


def overlap_plain(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def measure_plain(detections, objects, label):
    """Follow the kit's own loop for one class: AP by all points, by eleven, and every verdict."""
    truths = {p: [row for row in own.tolist() if row[4] == label] for p, own in enumerate(objects)}
    num = sum(row[5] == 0 for own in truths.values() for row in own)
    taken, verdicts, rows = set(), {}, np.flatnonzero(detections.classes == label)
    for k in sorted(rows.tolist(), key=lambda k: -detections.scores[k]):
        picture, highest, best = int(detections.pictures[k]), 0.0, None
        for number, row in enumerate(truths[picture]):
            share = overlap_plain(detections.boxes[k].tolist(), row)
            if share > highest:
                highest, best = share, number
        if best is None or highest < 0.5:
            verdicts[k] = -1
        elif truths[picture][best][5]:
            verdicts[k] = 0
        else:
            verdicts[k] = -1 if (picture, best) in taken else 1
            taken.add((picture, best))
    recall, precision, hits, seen = [], [], 0, 0
    for verdict in verdicts.values():
        if verdict:
            seen, hits = seen + 1, hits + (verdict > 0)
            recall.append(hits / num)
            precision.append(hits / seen)
    steps = [
        max((p for r, p in zip(recall, precision, strict=True) if r >= t / 10), default=0.0)
        for t in range(11)
    ]
    area, last = 0.0, 0.0
    for number, r in enumerate(recall):
        area += (r - last) * max(precision[number:])
        last = r
    return area, sum(steps) / 11, verdicts


@pytest.mark.parametrize("seed", range(6))
def test_ap_and_verdicts_are_those_of_the_kits_loop(seed):
    rng = np.random.default_rng(seed)
    objects = make_objects(rng)
    detections = make_detections(rng, objects)
    found = measure_voc(detections, objects)
    signs = match_objects(detections, objects)
    assert set(signs.tolist()) == {-1, 0, 1}
    assert sorted(found.all_points) == [0, 1, 2]
    for label in range(CLASSES):
        area, eleven, verdicts = measure_plain(detections, objects, label)
        assert {k: int(signs[k]) for k in verdicts} == verdicts
        # Sums of the same fractions in another order.
        assert found.all_points[label] == pytest.approx(area, abs=1e-12)
        assert found.eleven_points[label] == pytest.approx(eleven, abs=1e-12)
    assert found.ap50 == pytest.approx(np.mean([*found.all_points.values()]))
    assert found.ap50_11 == pytest.approx(np.mean([*found.eleven_points.values()]))


def detect(*rows):
    """Make detections of (picture, class, score, x1, y1, x2, y2)."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    return Detections(
        table[:, 0].astype(np.int64),
        table[:, 1].astype(np.int64),
        table[:, 2].astype(np.float32),
        table[:, 3:].astype(np.float32),
    )


def objects_of(*rows):
    """Make the objects of one picture."""
    return np.array(rows, np.float32).reshape(1, -1, 6)


def test_a_second_detection_of_an_object_is_false():
    truth = objects_of((0, 0, 10, 10, 0, 0), (20, 20, 30, 30, 0, 0))
    twice = detect((0, 0, 0.5, 0, 0, 10, 10), (0, 0, 0.9, 0, 0, 10, 9))
    assert match_objects(twice, truth).tolist() == [-1, 1]
    found = measure_voc(twice, truth)
    assert found.all_points == {0: 0.5}  # one of two found, at precision 1
    assert found.eleven_points == {0: pytest.approx(6 / 11)}


def test_an_overlap_of_half_is_enough_and_less_is_not():
    truth = objects_of((0, 0, 10, 10, 0, 0))
    assert match_objects(detect((0, 0, 1, 0, 0, 10, 5)), truth).tolist() == [1]
    assert match_objects(detect((0, 0, 1, 0, 0, 10, 4.9)), truth).tolist() == [-1]


def test_detections_of_a_difficult_object_do_not_count_and_it_is_not_missed():
    truth = objects_of((0, 0, 10, 10, 0, 1), (20, 20, 30, 30, 0, 0))
    found = detect((0, 0, 0.9, 0, 0, 10, 10), (0, 0, 0.8, 20, 20, 30, 30))
    assert match_objects(found, truth).tolist() == [0, 1]
    assert measure_voc(found, truth).ap50 == 1


def test_a_class_without_detections_has_none_and_one_without_objects_is_left_out():
    truth = objects_of((0, 0, 10, 10, 2, 0), (0, 0, 9, 9, 1, 1))
    found = measure_voc(detect((0, 0, 0.9, 0, 0, 10, 10)), truth)
    assert (found.all_points, found.eleven_points) == ({2: 0.0}, {2: 0.0})
    assert found.num_objects == {2: 1}
    nothing = measure_voc(detect(), np.zeros((3, 0, 6), np.float32))
    assert (nothing.ap50, nothing.all_points) == (0.0, {})


def test_a_detection_of_no_picture_is_refused():
    with pytest.raises(InputError, match=r"of pictures 0 .. 0, got 4"):
        match_objects(detect((4, 0, 0.9, 0, 0, 10, 10)), objects_of((0, 0, 10, 10, 0, 0)))


def test_empty_boxes_overlap_nothing():
    assert intersect(np.zeros(4), np.zeros(4)) == 0
    assert intersect(np.array([0, 0, 4, 4]), np.array([5, 5, 9, 9])) == 0


def test_coco_figures_are_those_of_hand_and_of_voc_at_half():
    pytest.importorskip("pycocotools", reason="needs pycocotools: pip install fastssl[detection]")
    truth = objects_of((0, 0, 40, 40, 0, 0), (50, 50, 90, 90, 0, 0))
    # Overlaps of 1 and of 0.8: the second counts at seven of the ten levels.
    found = measure_coco(
        detect((0, 0, 0.9, 0, 0, 40, 40), (0, 0, 0.8, 50, 50, 90, 82)), truth, ["a"]
    )
    half = 51 / 101  # of 101 recalls those up to 0.5
    assert found["ap50"] == pytest.approx(1)
    assert found["ap75"] == pytest.approx(1)
    assert found["ap"] == pytest.approx((7 + 3 * half) / 10)
    assert found["ap_medium"] == found["ap"]
    assert "ap_large" not in found
    assert measure_coco(detect(), truth, ["a"])["ap"] == 0


def test_without_pycocotools_one_line_says_what_installs_it():
    if importlib.util.find_spec("pycocotools"):
        pytest.skip("pycocotools is installed")
    with pytest.raises(ImportError, match=r'needs pycocotools.*pip install "fastssl\[detection\]"'):
        check_coco()
