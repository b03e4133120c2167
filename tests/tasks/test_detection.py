"""The task of detection: where pictures lie, what is learnt from, what is answered."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.models.detection import Found
from fastssl.models.input_spec import InputSpec
from fastssl.tasks import build_task
from fastssl.tasks.detection import DetectionConfig
from fastssl.tasks.detection_pictures import draw_found
from fastssl.tasks.detection_views import Places, find_places, make_images
from fastssl.tasks.pictures import RIGHT, WRONG
from fastssl.training.memory import count_step_bytes
from fastssl.views import ViewSpec

pytest.importorskip("torchvision", reason="detection stands on torchvision")

SHORT, LONG = 48, 80
SIZES = [(120, 96), (60, 100), (200, 100)]  # of the stored pictures
FITTED = [(60, 48), (48, 80), (80, 40)]


def make_batch(ids=(0, 1, 2), num_proposals=30):
    """Draw a batch as the loader gives it: the same sample is the same whatever stands beside."""
    images = torch.zeros(len(ids), 1, LONG, LONG, 3, dtype=torch.uint8)
    boxes = torch.zeros(len(ids), 1, 4, dtype=torch.int32)
    objects = torch.zeros(len(ids), 3, 6)
    objects[..., 4] = -1
    proposals = torch.zeros(len(ids), num_proposals, 4)
    for row, sample in enumerate(ids):
        generator = torch.Generator().manual_seed(sample)
        (width, height), (w, h) = SIZES[sample % 3], FITTED[sample % 3]
        images[row, 0, :h, :w] = torch.randint(
            0, 256, (h, w, 3), dtype=torch.uint8, generator=generator
        )
        boxes[row, 0, 2:] = torch.tensor((width, height))
        size = torch.tensor((width, height, width, height))
        objects[row, 0] = torch.tensor([*(size * torch.tensor((0.1, 0.2, 0.6, 0.9))), 1, 0])
        objects[row, 1] = torch.tensor([*(size * torch.tensor((0.5, 0.1, 0.9, 0.4))), 0, 1])
        corner = torch.rand(num_proposals - 4, 2, generator=generator) * 0.7
        side = 0.1 + torch.rand(num_proposals - 4, 2, generator=generator) * 0.2
        proposals[row, :-4] = torch.cat((corner, corner + side), 1) * size
    numbers = torch.tensor(ids)
    targets = {"objects": objects, "proposals": proposals}
    return Batch(images, numbers, torch.zeros_like(numbers), None, targets, boxes)


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    trunk = build_trunk("resnet9", 1)
    built = build_task(DetectionConfig(short=(SHORT,), test_short=SHORT, long=LONG), trunk, 2)
    trunk.freeze(2)
    return built


# ------------------------------------------------------------------ places


def test_pictures_lie_where_the_view_put_them_and_boxes_follow():
    batch = make_batch()
    places = find_places(batch, ViewSpec.fit(SHORT, LONG))
    assert places.sizes_B2.tolist() == [list(size) for size in FITTED]
    assert not places.flips_B.any()
    whole = torch.tensor([[[0.0, 0, *size]] for size in SIZES])
    assert places.move(whole)[:, 0, 2:].tolist() == [list(map(float, size)) for size in FITTED]
    outside = torch.tensor([[[-5.0, -5, 999, 999]]] * 3)
    assert torch.equal(places.move(outside), places.move(whole))
    half = places.move(torch.tensor([[[60.0, 48, 120, 96]]] * 3))[0, 0]
    assert half.tolist() == [30, 24, 60, 48]


def test_mirrored_pictures_and_boxes_go_together():
    batch = make_batch()
    view = ViewSpec.fit(SHORT, LONG)
    plain = find_places(batch, view)
    mirrored = Places(plain.sizes_B2, plain.scales_B2, torch.tensor([True, False, True]))
    boxes = torch.tensor([[[10.0, 20, 50, 60]]] * 3)
    for row, (w, h) in enumerate(FITTED):
        cut, flat = mirrored.cut(batch.images[:, 0]), plain.cut(batch.images[:, 0])
        picture = flat[row, :h, :w].flip(1) if mirrored.flips_B[row] else flat[row, :h, :w]
        assert torch.equal(cut[row, :h, :w], picture)
        assert (cut[row, h:] == 0).all()
        assert (cut[row, :, w:] == 0).all()
        x1, y1, x2, y2 = plain.move(boxes)[row, 0].tolist()
        there = mirrored.move(boxes)[row, 0].tolist()
        assert there == ([w - x2, y1, w - x1, y2] if mirrored.flips_B[row] else [x1, y1, x2, y2])
    assert torch.equal(batch.images, make_batch().images)  # the loader's memory stays


def test_half_of_the_pictures_are_mirrored_by_their_ids_alone():
    ids = torch.arange(2000)
    boxes = torch.tensor([0, 0, 60, 100], dtype=torch.int32).expand(2000, 1, 4)
    batch = Batch(torch.zeros(2000, 1, 1, 1, 3), ids, torch.zeros_like(ids), None, {}, boxes)
    flips = find_places(batch, ViewSpec.fit(SHORT, LONG), 7, 0.5).flips_B
    assert 0.45 < flips.float().mean() < 0.55
    part = find_places(batch.rows(500, 600), ViewSpec.fit(SHORT, LONG), 7, 0.5).flips_B
    assert torch.equal(part, flips[500:600])


@pytest.mark.parametrize("kind", ["scaled", "lightness", "lab"])
def test_what_is_no_picture_is_zero_and_a_picture_is_as_it_is_alone(kind):
    spec = InputSpec.named("newell20_lab") if kind == "lab" else InputSpec(kind)
    batch = make_batch()
    view = ViewSpec.fit(SHORT, LONG)
    made = make_images(batch.images[:, 0], find_places(batch, view), spec)
    assert made.shape == (3, spec.channels, 80, 80)
    for row, (w, h) in enumerate(FITTED):
        one = batch.rows(row, row + 1)
        alone = make_images(one.images[:, 0], find_places(one, view), spec)
        assert alone.shape[2:] == (h, w)
        assert torch.equal(made[row, :, :h, :w], alone[0])
        assert (made[row, :, h:] == 0).all()
        assert (made[row, :, :, w:] == 0).all()


# ------------------------------------------------------------------ learning


def test_inputs_of_a_sample_do_not_depend_on_its_batch(task):
    whole = task.prepare(make_batch((0, 1, 2, 3)), 5, torch.float32)
    part = task.prepare(make_batch((2, 3)), 5, torch.float32)
    chosen = task.choose_regions(part)
    for name, value in vars(task.choose_regions(whole)).items():
        assert torch.equal(value[2:], getattr(chosen, name))
    height, width = part["images"].shape[2:]
    assert torch.equal(whole["images"][2:, :, :height, :width], part["images"])
    other = task.choose_regions(task.prepare(make_batch((2, 3)), 6, torch.float32))
    assert not torch.equal(other.boxes, chosen.boxes)


def test_the_own_boxes_of_objects_are_learnt_from_and_difficult_ones_are_not(task):
    batch = make_batch()
    chosen = task.choose_regions(task.prepare(batch, 5, torch.float32))
    assert set(chosen.labels.flatten().tolist()) == {-1, 0, 2}
    places = find_places(batch, task.config.view, 5, 0.5)
    own = places.move(batch.targets["objects"][:, :1, :4])
    assert (chosen.boxes == own).all(-1).any(1).all()


def test_only_what_is_not_frozen_learns(task):
    task.train()
    inputs = task.prepare(make_batch(), 5, torch.float32)
    scalars = task(inputs)
    assert set(scalars) == {"loss", *(metric.name for metric in task.metrics[:4])}
    assert torch.isfinite(scalars["loss"])
    scalars["loss"].backward()
    moved = {name.split(".")[1] for name, p in task.named_parameters() if p.grad is not None}
    assert moved == {"block2", "block3", "fc", "classify", "locate"}
    task.zero_grad()


def test_bfloat16_comes_to_the_same_loss(task):
    batch = make_batch()
    with torch.no_grad():
        exact = task(task.prepare(batch, 5, torch.float32))["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            rough = task(task.prepare(batch, 5, torch.bfloat16))["loss"]
    assert rough.dtype == torch.float32
    # 8 bits of mantissa, through a dozen layers.
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0)


def test_faster_rcnn_makes_its_own_proposals():
    torch.manual_seed(0)
    trunk = build_trunk("resnet9", 1)
    config = DetectionConfig(
        detector="faster_rcnn",
        short=(SHORT,),
        test_short=SHORT,
        long=LONG,
        max_proposals=100,
        test_proposals=50,
        anchor_sizes=(16, 32),
    )
    task = build_task(config, trunk, 2)
    trunk.freeze(2)
    batch = make_batch()
    del batch.targets["proposals"]
    inputs = task.prepare(batch, 5, torch.float32)
    part = task.prepare(batch.rows(1, 3), 5, torch.float32)
    for name in ("draws", "anchor_draws"):
        assert torch.equal(inputs[name][1:], part[name])
    scalars = task(inputs)
    assert {"loss_anchor", "loss_anchor_box", "loss_class", "loss_box"} < set(scalars)
    parts = [value for name, value in scalars.items() if name.startswith("loss_")]
    torch.testing.assert_close(scalars["loss"], sum(parts))
    scalars["loss"].backward()
    assert all(p.grad is not None for p in task.proposer.parameters())
    with task.answering():
        found = task.detect(batch, config.test_view)
    assert all(0 < len(one.scores) <= 100 for one in found)


@pytest.mark.parametrize("detector", ["fast_rcnn", "faster_rcnn"])
def test_a_step_is_tried_without_memory(detector):
    with torch.device("meta"):
        trunk = build_trunk("resnet50", 1)
        task = config = DetectionConfig(detector=detector, short=(120,), test_short=120, long=200)
        task = build_task(config, trunk, 20)
    trunk.freeze(4)
    frozen = count_step_bytes(task, 2, "fp32")
    trunk.freeze(2)
    assert count_step_bytes(task, 2, "fp32") > 1.2 * frozen > 0


# ------------------------------------------------------------------ answers


def test_answers_do_not_depend_on_what_stands_beside_and_lie_in_the_stored_picture(task):
    config = task.config
    with task.answering():
        whole = task.detect(make_batch(), config.test_view)
        alone = task.detect(make_batch((1,)), config.test_view)[0]
    assert torch.equal(whole[1].boxes, alone.boxes)
    assert torch.equal(whole[1].scores, alone.scores)
    for found, (width, height) in zip(whole, SIZES, strict=True):
        assert 0 < len(found.scores) <= config.max_detections
        assert (found.boxes >= 0).all()
        limits = torch.tensor((width, height, width, height)) * (1 + 1e-6)
        assert (found.boxes <= limits).all()
        assert (found.scores.diff() <= 0).all()


def test_a_picture_without_proposals_has_no_answers(task):
    batch = make_batch()
    batch.targets["proposals"][1] = 0
    with task.answering():
        found = task.detect(batch, task.config.test_view)
    assert len(found[1].scores) == 0
    assert len(found[0].scores) > 0


def test_pictures_show_what_was_found_and_missed(task):
    task.class_names = ("cell", "disc")
    pictures = task.draw_pictures(make_batch(), 0, 2)
    assert [picture.pixels.shape for picture in pictures] == [(240, 300, 3), (320, 192, 3)]
    assert all("of 1 object found" in picture.words for picture in pictures)
    objects = torch.tensor([[5.0, 5, 20, 20, 0, 0], [25, 5, 40, 20, 1, 0], [0, 0, 3, 3, -1, 0]])
    found = Found(
        torch.tensor([[5.0, 5, 20, 20], [50, 30, 58, 40], [0, 0, 9, 9]]),
        torch.tensor([0.9, 0.7, 0.2]),
        torch.tensor([0, 1, 1]),
    )
    drawn = draw_found(np.zeros((48, 60, 3), np.uint8), objects, found, ("cell", "disc"))
    assert drawn.words.startswith("1 of 2 objects found (green, missed red), 1 false (orange)")
    assert drawn.words.endswith("Answers: cell 0.90, disc 0.70")
    assert drawn.pixels.shape == (240, 300, 3)  # small pictures are enlarged
    assert tuple(drawn.pixels[26, 50]) == RIGHT  # round the first object
    assert tuple(drawn.pixels[26, 150]) == WRONG


# ------------------------------------------------------------------ refused


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"task.short \(700\) must lie in 1 .. task.long \(600\)"):
        DetectionConfig(short=(700,), test_short=600, long=600)
    with pytest.raises(InputError, match="each image's own mean and deviation"):
        DetectionConfig(input=InputSpec("standardized").to_text())
    with pytest.raises(InputError, match="needs the classes of objects"):
        build_task(DetectionConfig(), build_trunk("resnet9", 1), 0)
    with pytest.raises(InputError, match=r"task.short \(100\) must be at least 227"):
        build_task(DetectionConfig(short=(100,)), build_trunk("caffenet", 1), 2)
