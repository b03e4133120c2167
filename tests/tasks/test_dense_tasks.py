"""Segmentation and depth against plain implementations: targets that follow, losses, counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.tasks import DepthConfig, SegmentationConfig, build_task
from fastssl.tasks.dense import find_map, reduce_nearest
from fastssl.tasks.depth import find_ratio, scale_depth

NUM, SIDE, GRID = 12, 32, 4  # ResNet9 reduces by eight
STILL = {"jitter_probability": 0.0, "grey_probability": 0.0}


def make_batch(pixels=None, **targets):
    if pixels is None:
        pixels = np.random.default_rng(3).integers(0, 256, (NUM, SIDE, SIDE, 3), np.uint8)
    images = torch.from_numpy(pixels)[:, None]
    zeros = torch.zeros(NUM, dtype=torch.int64)
    return Batch(images, torch.arange(NUM), zeros, None, targets)


def draw_classes(side=SIDE):
    return torch.from_numpy(np.random.default_rng(4).integers(0, 11, (NUM, side, side), np.uint8))


def build(config):
    torch.manual_seed(1)
    return build_task(config, build_trunk("resnet9", 1), 0)


# ------------------------------------------------------------------ targets


def test_nearest_is_that_of_torch():
    target = draw_classes(30)
    for side in (4, 7, 30, 60):
        wanted = functional.interpolate(target[:, None].float(), size=side, mode="nearest")
        assert torch.equal(reduce_nearest(target, side).float(), wanted[:, 0])


def test_classes_follow_flip_and_crop_of_the_picture():
    classes = draw_classes()
    # The class is to be seen in every pixel: 10 times its number and 100.
    pixels = np.repeat(100 + 10 * classes.numpy()[..., None], 3, -1).astype(np.uint8)
    task = build(SegmentationConfig(size=SIDE, space="rgb", **STILL))
    batch = make_batch(pixels, segmentation=classes)
    inputs = task.prepare(batch, 5, torch.float32)
    spec = task.input_spec
    red = 255 * (inputs["images"][:, 0] * spec.std[0] + spec.mean[0])
    seen = reduce_nearest(red, GRID)
    # Outside of the picture is the mean colour, and background.
    outside = torch.tensor(255 * spec.mean[0])
    wanted = torch.where((seen - outside).abs() < 1e-2, 0, ((seen - 100) / 10).round()).long()
    assert inputs["truth"].tolist() == wanted.tolist()
    moved = (inputs["truth"] != task.find_truth(batch)).flatten(1).any(1)
    assert moved.sum() > NUM / 2


def test_targets_of_another_resolution_are_brought_to_the_pictures_first():
    fine = draw_classes()
    coarse = reduce_nearest(fine, SIDE // 2)
    task = build(SegmentationConfig(size=SIDE, **STILL))
    half = task.prepare(make_batch(segmentation=coarse), 5, torch.float32)["truth"]
    again = reduce_nearest(coarse, SIDE)
    full = task.prepare(make_batch(segmentation=again), 5, torch.float32)["truth"]
    assert torch.equal(half, full)


def test_study_leaves_cutout_to_the_others_and_does_not_crop_depth():
    segmentation, depth = SegmentationConfig(), DepthConfig()
    assert (segmentation.size, segmentation.padding, segmentation.cutout) == (128, 0.125, 0)
    assert (depth.size, depth.padding, depth.cutout) == (128, 0, 0)
    assert find_map(build_trunk("resnet9", 1), 128).grid == 16
    assert find_map(build_trunk("resnet50_newell_dense", 1), 128) == ("fc", 128, 16)


# ------------------------------------------------------------------ segmentation


def test_places_that_do_not_count_enter_neither_loss_nor_score():
    task = build(SegmentationConfig(size=SIDE)).eval()
    classes = draw_classes()
    classes[:, ::16] = 255
    batch = make_batch(segmentation=classes)
    inputs = task.prepare(batch, 5, torch.float32)
    truth = inputs["truth"]
    assert (truth == -1).any()
    logits = task.answer(inputs["images"])
    assert logits.shape == (NUM, 11, GRID, GRID)
    losses = functional.cross_entropy(logits, truth.clamp(min=0), reduction="none")
    counted = truth >= 0
    found = task(inputs)
    torch.testing.assert_close(found["loss"], losses[counted].mean())
    right = (logits.argmax(1) == truth)[counted]
    torch.testing.assert_close(found["accuracy"], right.float().mean())


def test_a_score_of_segmentation_is_over_places():
    task = build(SegmentationConfig(size=SIDE)).eval()
    task.class_names = tuple("abcdefghij")
    batch = make_batch(segmentation=draw_classes())
    truth = task.find_truth(batch)
    with torch.no_grad():
        answers = task.answer(torch.randn(NUM, 3, SIDE, SIDE))
    score = task.summarize(task.count(answers, batch))
    right = answers.argmax(1) == truth
    assert score.value == pytest.approx(right.double().mean().item())
    assert score.per_class["background"] == right[truth == 0].double().mean().item()
    assert score.per_class["c"] == right[truth == 3].double().mean().item()


# ------------------------------------------------------------------ depth


def test_depth_is_scaled_as_the_study_has_it():
    metres = torch.tensor([[[0.5, 0.999], [2.0, 4.3]]], dtype=torch.float32)
    assert scale_depth(metres).flatten().tolist() == pytest.approx([2.0, 99 / 25, 8.0, 10.2])
    # Nothing is known, and what is not above it: the greatest.
    assert scale_depth(torch.tensor([[[0.0, 0.004]]])).flatten().tolist() == pytest.approx(
        [10.2] * 2
    )
    centimetres = torch.tensor([[[0, 1, 100, 255]]], dtype=torch.uint8)
    wanted = pytest.approx([10.2, 0.04, 4.0, 10.2])
    assert scale_depth(centimetres).flatten().tolist() == wanted


def test_depth_is_the_synthetic_sets_study_form():
    trace = pytest.importorskip("fastssl.synthetic.trace")
    metres = np.random.default_rng(0).uniform(0.01, 3, (1, 40, 40)).astype(np.float16)
    wanted = trace.to_study_depth(metres).astype(np.float32) / 25
    assert np.array_equal(scale_depth(torch.from_numpy(metres)).numpy(), wanted)


def test_an_answer_that_is_not_above_zero_is_wrong():
    truth = torch.tensor([4.0, 4.0, 4.0, 4.0, 4.0])
    answers = torch.tensor([-4.0, 0.0, 4.9, 5.1, 3.3])
    assert (find_ratio(answers, truth) < 1.25).tolist() == [False, False, True, False, True]


def test_scores_of_depth_are_those_of_a_loop():
    task = build(DepthConfig(size=SIDE)).eval()
    rng = np.random.default_rng(5)
    depth = torch.from_numpy(rng.uniform(0.3, 3, (NUM, SIDE, SIDE)).astype(np.float16))
    batch = make_batch(depth=depth)
    truth = task.find_truth(batch)
    answers = truth * torch.from_numpy(rng.uniform(0.6, 1.4, truth.shape)).float()
    answers[0] *= -1
    rows = list(zip(answers.flatten().tolist(), truth.flatten().tolist(), strict=True))
    ratios = [max(p / t, t / p) if p > 0 else np.inf for p, t in rows]
    sums = [task.count(answers[i : i + 5, None], batch.rows(i, i + 5)) for i in range(0, NUM, 5)]
    score = task.summarize(torch.stack(sums).sum(0))
    assert score.value == np.mean([r < 1.25 for r in ratios])
    assert score.details["delta_1.1"] == np.mean([r < 1.1 for r in ratios])
    wanted = np.mean([(p - t) ** 2 for p, t in rows]) ** 0.5
    assert score.details["rmse"] == pytest.approx(wanted)
    assert score.details["l1"] == pytest.approx(np.mean([abs(p - t) for p, t in rows]))
    assert score.details["chance"] == np.mean([10.2 / t < 1.25 for _, t in rows])


def test_depth_learns_by_the_absolute_difference():
    task = build(DepthConfig(size=SIDE)).eval()
    depth = torch.from_numpy(np.random.default_rng(6).uniform(0.3, 3, (NUM, SIDE, SIDE)))
    inputs = task.prepare(make_batch(depth=depth), 5, torch.float32)
    answers = task.answer(inputs["images"])[:, 0]
    found = task(inputs)
    torch.testing.assert_close(found["loss"], (answers - inputs["truth"]).abs().mean())
    wanted = (find_ratio(answers, inputs["truth"]) < 1.25).float().mean()
    assert torch.equal(found["delta_1.25"], wanted)


# ------------------------------------------------------------------ maps, pictures


def test_a_trunk_without_a_map_at_its_end_is_refused():
    with pytest.raises(InputError, match=r"layers behind its last map, 'fc6' \(pre_logits\)"):
        find_map(build_trunk("caffenet", 1), 227)
    with pytest.raises(InputError, match=r"'fc' .* has one place at 8 px; set a larger"):
        find_map(build_trunk("resnet9", 1), 8)


def test_halves_are_answered_by_both_maps_as_they_are():
    trunk = build_trunk("resnet9_dense_halves", 1).eval()
    config = dataclasses.replace(SegmentationConfig(size=SIDE), head="mlp")
    task = build_task(config, trunk, 0).eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        maps = [trunk.lightness.forward_features(images[:, :1])["fc"]]
        maps.append(trunk.colour.forward_features(images[:, 1:])["fc"])
        wanted = task.head(torch.cat(maps, 1))
        torch.testing.assert_close(task.answer(images), wanted)


@pytest.mark.parametrize("config", [SegmentationConfig(size=SIDE), DepthConfig(size=SIDE)])
def test_pictures_lay_truth_and_answer_beside_the_image(config):
    task = build(config)
    classes, depth = draw_classes(), torch.rand(NUM, SIDE, SIDE, dtype=torch.float16)
    pictures = task.draw_pictures(make_batch(segmentation=classes, depth=depth), 5, 2)
    assert len(pictures) == 2
    for picture in pictures:
        assert picture.pixels.shape == (136, 3 * 136, 3)
        assert "%" in picture.words
    assert task.training
