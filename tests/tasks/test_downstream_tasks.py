"""Downstream tasks against plain implementations: heads, labels that follow, counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.models.downstream_heads import build_downstream_head
from fastssl.models.input_spec import InputSpec
from fastssl.ops import normalize
from fastssl.tasks import (
    ClassificationConfig,
    PhotographClassificationConfig,
    PoseConfig,
    build_task,
)
from fastssl.tasks.downstream import count_labels, score_labels, summarize_labels
from fastssl.tasks.newell_views import draw_augmentation
from fastssl.tasks.pose import mirror_poses

NUM, SIDE = 12, 16


def make_batch(targets=None, num=NUM, side=SIDE):
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.integers(0, 256, (num, 1, side, side, 3), np.uint8))
    labels = torch.from_numpy(rng.integers(-1, 3, num))
    zeros = torch.zeros(num, dtype=torch.int64)
    return Batch(images, torch.arange(num), zeros, labels, targets or {})


def build(config, num_classes=3, width=1):
    torch.manual_seed(1)
    return build_task(config, build_trunk("resnet9", width), num_classes)


# ------------------------------------------------------------------ heads


@pytest.mark.parametrize("is_dense", [False, True])
def test_an_mlp_head_is_linear_norm_relu_linear(is_dense):
    head = build_downstream_head("mlp", 6, 4, is_dense).eval()
    norm = head[1]
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(5, 6, 3, 3)
    first, last = head[0].weight.flatten(1), head[3].weight.flatten(1)
    assert first.shape == (6, 6)
    assert head[0].bias is None
    rows = x.movedim(1, -1) if is_dense else x[..., 0, 0]
    hidden = rows @ first.T
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    hidden = ((hidden - norm.running_mean) * scale + norm.bias).clamp(min=0)
    wanted = hidden @ last.T + head[3].bias
    found = head(x).movedim(1, -1) if is_dense else head(x[..., 0, 0])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_linear_head_is_one_layer_with_bias():
    (layer,) = build_downstream_head("linear", 6, 4)
    assert (type(layer), layer.weight.shape) == (nn.Linear, (4, 6))
    assert torch.equal(layer.bias, torch.zeros(4))


# ------------------------------------------------------------------ labels


def test_labels_that_do_not_count_enter_neither_loss_nor_score():
    logits = torch.randn(6, 3)
    labels = torch.tensor([0, -1, 2, 1, -1, 0])
    counted = labels >= 0
    found = score_labels(logits, labels)
    wanted = functional.cross_entropy(logits[counted], labels[counted])
    torch.testing.assert_close(found["loss"], wanted)
    right = (logits.argmax(1) == labels)[counted]
    torch.testing.assert_close(found["accuracy"], right.float().mean())
    nothing = score_labels(logits, torch.full((6,), -1))
    assert (nothing["loss"].item(), nothing["accuracy"].item()) == (0, 0)


def test_counts_by_class_are_those_of_a_loop():
    logits, labels = torch.randn(40, 7), torch.randint(-1, 7, (40,))
    wanted = np.zeros((3, 7))
    for row, label in zip(logits, labels.tolist(), strict=True):
        if label >= 0:
            place = row.argsort(descending=True).tolist().index(label)
            wanted[:, label] += [place == 0, place < 5, 1]
    sums = count_labels(logits[:15], labels[:15]) + count_labels(logits[15:], labels[15:])
    assert sums.tolist() == wanted.tolist()
    score = summarize_labels(sums, list("abcdefg"))
    assert score.value == wanted[0].sum() / wanted[2].sum()
    assert score.details["top5"] == wanted[1].sum() / wanted[2].sum()
    assert score.details["chance"] == wanted[2].max() / wanted[2].sum()
    assert score.per_class["b"] == wanted[0, 1] / wanted[2, 1]


def test_classification_shows_the_augmented_picture_and_tests_the_plain_one():
    config = ClassificationConfig(size=SIDE)
    task = build(config)
    batch = make_batch()
    inputs = task.prepare(batch, 5, torch.float32)
    wanted = config.make_views(batch, 5, 1, torch.float32)[:, 0]
    assert torch.equal(inputs["images"], wanted)
    assert inputs["labels"].tolist() == batch.labels.tolist()
    plain = dataclasses.replace(
        config, jitter_probability=0, grey_probability=0, flip_probability=0, padding=0, cutout=0
    )
    task.eval()
    with torch.no_grad():
        answers = task.head(task.trunk(plain.make_views(batch, 5, 1, torch.float32)[:, 0]))
    torch.testing.assert_close(
        task.test(batch), count_labels(answers, batch.labels), atol=0, rtol=0
    )


def test_photographs_are_mirrored_and_scaled_as_the_trunk_takes_them():
    spec = InputSpec("scaled", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    task = build(PhotographClassificationConfig(size=SIDE, input=spec.to_text()))
    batch = make_batch()
    images = task.prepare(batch, 5, torch.float32)["images"]
    straight = normalize(batch.images[:, 0], spec.mean, spec.std)
    kinds = [
        "straight" if torch.allclose(a, b) else "mirrored" if torch.allclose(a, b.flip(2)) else "?"
        for a, b in zip(images, straight, strict=True)
    ]
    assert set(kinds) == {"straight", "mirrored"}
    shown = task.config.show_views(batch, 5, 1)[:, 0]
    for kind, picture, image in zip(kinds, shown, batch.images[:, 0].numpy(), strict=True):
        assert np.array_equal(picture, image if kind == "straight" else image[:, ::-1])


def test_views_of_the_study_take_any_mean_and_deviation_but_no_other_kind():
    spec = InputSpec("scaled", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    config = PoseConfig(size=SIDE, space="rgb", input=spec.to_text())
    assert config.input_spec == spec
    assert PoseConfig().input_spec == InputSpec.named("newell20_lab")
    with pytest.raises(InputError, match=r"task.space \(lab\) is not what the trunk takes"):
        PoseConfig(size=SIDE, input=spec.to_text())


# ------------------------------------------------------------------ pose


def test_a_mirrored_picture_has_left_for_right():
    poses = torch.arange(5).repeat(2)
    flips = torch.arange(10) >= 5
    assert mirror_poses(poses, flips).tolist() == [0, 1, 2, 3, 4, 0, 3, 2, 1, 4]


def test_labels_of_pose_follow_the_flip_that_the_picture_has():
    task = build(PoseConfig(size=SIDE))
    poses = torch.arange(NUM) % 5
    batch = make_batch({"pose": poses})
    flips = draw_augmentation(task.config, batch, 9, 1).flip_BK[:, 0]
    assert 0 < flips.sum() < NUM
    labels = task.prepare(batch, 9, torch.float32)["labels"]
    swap = {1: 3, 3: 1}
    wanted = [swap.get(p, p) if f else p for p, f in zip(poses.tolist(), flips, strict=True)]
    assert labels.tolist() == wanted
    assert set(task(task.prepare(batch, 9, torch.float32))) == {"loss", "accuracy"}


def test_pictures_are_framed_by_whether_the_answer_is_right():
    task = build(PoseConfig(size=SIDE))
    batch = make_batch({"pose": torch.arange(NUM) % 5})
    shown = task.draw_pictures(batch, 9, 3)
    assert len(shown) == 3
    for picture in shown:
        assert picture.pixels.shape == (SIDE + 8, SIDE + 8, 3)
        is_green = picture.pixels[2, 2, 1] > picture.pixels[2, 2, 0]
        assert is_green == picture.words.endswith(", found")
