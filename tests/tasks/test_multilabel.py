"""Several labels an image, against plain implementations: loss, scores, crops, words."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.config import LoaderConfig
from fastssl.errors import InputError
from fastssl.evaluation import average_precision
from fastssl.loaders import build_loader
from fastssl.models import build_trunk
from fastssl.models.input_spec import make_inputs
from fastssl.shards import open_dataset
from fastssl.tasks import MultilabelConfig, PhotographClassificationConfig, build_task
from fastssl.tasks.multilabel import check_signs, score_signs
from fastssl.views import ViewSpec
from tests.target_sets import NUM, add_targets, make_set

SIDE = 16


def build(num_classes=3, **config):
    torch.manual_seed(1)
    task = build_task(MultilabelConfig(size=SIDE, **config), build_trunk("resnet9", 1), num_classes)
    task.class_names = tuple("abc"[:num_classes])
    return task


def make_batch(signs, num_views=1):
    rng = np.random.default_rng(3)
    num = len(signs)
    images = torch.from_numpy(rng.integers(0, 256, (num, num_views, SIDE, SIDE, 3), np.uint8))
    ids, zeros = torch.arange(num), torch.zeros(num, dtype=torch.int64)
    return Batch(images, ids, zeros, zeros - 1, {"labels": torch.as_tensor(signs).to(torch.int8)})


def test_the_loss_is_a_sigmoids_cross_entropy_over_the_labels_that_count():
    logits, signs = torch.randn(7, 4), torch.randint(-1, 2, (7, 4), dtype=torch.int8)
    signs[2] = 0
    losses = []
    for logit, sign in zip(logits.flatten().tolist(), signs.flatten().tolist(), strict=True):
        if sign:
            share = 1 / (1 + math.exp(-logit))
            losses.append(-math.log(share if sign > 0 else 1 - share))
    assert score_signs(logits, signs)["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    nothing = score_signs(logits, torch.zeros_like(signs))
    assert (nothing["loss"].item(), nothing["accuracy"].item()) == (0, 0)


def test_an_image_is_found_by_its_likeliest_class_that_counts():
    signs = torch.tensor([[1, -1, 0], [1, -1, 1], [-1, -1, -1], [-1, 1, 0]], dtype=torch.int8)
    logits = torch.tensor([[1.0, 0, 9], [0, 2, 1], [1, 1, 1], [0, 1, 5]])
    assert score_signs(logits, signs)["accuracy"].item() == pytest.approx(2 / 3)


def test_labels_that_do_not_count_move_nothing():
    task = build()
    batch = make_batch([[1, -1, 0], [-1, 1, 0]])
    task(task.prepare(batch, 5, torch.float32))["loss"].backward()
    (layer,) = task.head
    assert layer.bias.grad[2] == 0
    assert (layer.bias.grad[:2] != 0).all()


def test_scores_are_average_precisions_of_all_batches_together():
    rng = np.random.default_rng(0)
    signs = rng.integers(-1, 2, (20, 3))
    task = build()
    answers = torch.randn(20, 3)
    batch = make_batch(signs)
    parts = [task.count(answers[a:b], batch.rows(a, b)) for a, b in ((0, 7), (7, 8), (8, 20))]
    score = task.summarize(task.join([task.join(parts[:2]), parts[2]]))
    wanted = [average_precision(answers[:, c].numpy(), signs[:, c]) for c in range(3)]
    assert score.per_class == dict(zip("abc", wanted, strict=True))
    assert score.value == pytest.approx(np.mean(wanted))
    shares = [(signs[:, c] > 0).sum() / (signs[:, c] != 0).sum() for c in range(3)]
    assert score.details == {"chance": pytest.approx(np.mean(shares))}


def test_a_class_that_no_tested_image_has_enters_no_score():
    task, answers = build(), torch.randn(3, 3)
    score = task.summarize(task.count(answers, make_batch([[1, -1, -1], [-1, 1, -1], [1, 1, 0]])))
    assert list(score.per_class) == ["a", "b"]
    assert score.value == pytest.approx(np.mean([*score.per_class.values()]))


@pytest.mark.parametrize("view", ["random_resized_crop", "resize_crop"])
def test_crops_at_test_are_those_of_training_and_their_answers_are_averaged(dataset_path, view):
    own = {"view": view, "min_area": 0.1, "max_area": 0.5, "resize": 20}
    task = build(test_crops=10, **own).eval()
    (trained,), tested = task.views, task.config.test_view
    assert tested == dataclasses.replace(trained, count=10)
    data = LoaderConfig(path=dataset_path, global_batch_size=6, num_threads=1)
    with contextlib.closing(build_loader(data, tested)) as loader:
        batch = next(loader.one_pass())
    signs = torch.ones(len(batch), 3, dtype=torch.int8)
    batch = dataclasses.replace(batch, targets={"labels": signs})
    passes = []
    with torch.no_grad():
        for v in range(10):
            inputs = make_inputs(batch.images[:, v].contiguous(), task.input_spec)
            passes.append(task.head(task.trunk(inputs)).numpy())
    assert np.std(passes, axis=0).min() > 0  # ten other crops
    np.testing.assert_allclose(task.test(batch)[:, :3], np.mean(passes, axis=0), atol=1e-6)


def test_one_crop_is_the_centre():
    assert MultilabelConfig(size=224).test_view == ViewSpec.center(256, 224)
    with pytest.raises(InputError, match=r"task.min_area \(0.6\) must not exceed task.max_area"):
        PhotographClassificationConfig(min_area=0.6, max_area=0.5)


def test_words_name_what_was_found_missed_and_wrongly_said():
    task = build()
    (layer,) = task.head
    torch.nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -1.0, 1.0]))
    shown = task.draw_pictures(make_batch([[1, 1, -1], [1, -1, 0], [-1, -1, -1]]), 5, 3)
    assert [picture.words for picture in shown] == [
        "found: a; missed: b; wrongly said: c",
        "found: a",
        "wrongly said: a, c",
    ]
    greens = [int(p.pixels[2, 2, 1]) > int(p.pixels[2, 2, 0]) for p in shown]
    assert greens == [False, True, False]


def test_labels_that_do_not_fit_are_refused(tmp_path):
    path = make_set(tmp_path, "set", 1)

    def check(rows):
        add_targets(path, {"labels": rows})
        with contextlib.closing(open_dataset(path)) as dataset:
            check_signs(dataset, NUM)

    check(np.eye(3, dtype=np.int8)[np.arange(NUM) % 3] * 2 - 1)
    with pytest.raises(InputError, match=r"has -128, wanted 1 \(of the class\), -1"):
        check(np.full((NUM, 3), -128, np.int8))
    with pytest.raises(InputError, match="has no 1: no image is of any class"):
        check(np.full((NUM, 3), -1, np.int8))
    with pytest.raises(InputError, match=r"task \(multilabel\) needs labels"):
        build(0)
