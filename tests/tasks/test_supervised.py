"""The supervised baseline."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.models.input_spec import IMAGENET_MEAN, IMAGENET_STD
from fastssl.ops import normalize
from fastssl.tasks import SupervisedConfig, build_task
from fastssl.tasks.inception_views import InceptionConfig
from fastssl.views import ViewSpec


def build(num_classes=3, **changes):
    torch.manual_seed(0)
    return build_task(SupervisedConfig(size=16, **changes), build_trunk("resnet9", 1), num_classes)


def make_batch(labels):
    generator = torch.Generator().manual_seed(1)
    shape = (len(labels), 1, 16, 16, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    ids = torch.arange(len(labels))
    return Batch(images, ids, torch.zeros_like(ids), torch.tensor(labels))


def test_images_are_normalised_and_flipped_by_their_draws():
    task, batch = build(), make_batch([0] * 40)
    images = task.prepare(batch, 3, torch.float32)["images"]
    plain = normalize(batch.images[:, 0], IMAGENET_MEAN, IMAGENET_STD)
    is_flipped = [torch.equal(images[i], plain[i].flip(-1)) for i in range(40)]
    is_plain = [torch.equal(images[i], plain[i]) for i in range(40)]
    assert all(a != b for a, b in zip(is_flipped, is_plain, strict=True))
    assert 8 < sum(is_flipped) < 32


def test_the_studys_form_has_the_views_of_its_pretext_tasks():
    config, usual = SupervisedConfig.kolesnikov(), InceptionConfig.kolesnikov()
    for field in dataclasses.fields(usual):
        assert getattr(config, field.name) == getattr(usual, field.name)
    assert config.has_jitter
    assert config.list_views(1) == usual.list_views(1)
    # 1 / (4 / 3) is 3 / 4 to the bit.
    assert SupervisedConfig(224).list_views(1) == (ViewSpec.random_resized_crop(224),)
    assert not SupervisedConfig().has_jitter


def test_an_image_too_small_for_the_trunk_is_refused():
    trunk = build_trunk("alexnet", 1)
    with pytest.raises(InputError, match=r"task\.size \(16\) must be at least \d+ px for trunk"):
        build_task(SupervisedConfig(size=16), trunk, 10)


def test_loss_and_accuracy_leave_out_images_without_a_label():
    task = build().eval()
    both = task.prepare(make_batch([0, 1, -1, 2]), 3, torch.float32)
    labelled = {name: value[[0, 1, 3]] for name, value in both.items()}
    for name, value in task(both).items():
        torch.testing.assert_close(value, task(labelled)[name])


def test_a_batch_without_labels_costs_nothing():
    task = build()
    outputs = task(task.prepare(make_batch([-1, -1]), 3, torch.float32))
    assert outputs["loss"] == 0
    outputs["loss"].backward()
    assert torch.isfinite(task.head.weight.grad).all()


def test_label_smoothing_is_torchs():
    task = build(label_smoothing=0.1).eval()
    inputs = task.prepare(make_batch([0, 1, 2]), 3, torch.float32)
    logits = task.head(task.trunk(inputs["images"]))
    wanted = torch.nn.functional.cross_entropy(logits, inputs["labels"], label_smoothing=0.1)
    torch.testing.assert_close(task(inputs)["loss"], wanted)


def test_it_learns_a_batch():
    task, batch = build(), make_batch([0, 1, 2, 0, 1, 2])
    inputs = task.prepare(batch, 3, torch.float32)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)
    for _ in range(40):
        loss = task(inputs)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


def test_pictures_are_framed_by_the_answer():
    task, batch = build(), make_batch([0, 1, 2, 0])
    pictures = [picture.pixels for picture in task.draw_pictures(batch, 3, 3)]
    assert [p.shape for p in pictures] == [(24, 24, 3)] * 3
    inputs = task.eval().prepare(batch, 3, torch.float32)
    is_right = (task.head(task.trunk(inputs["images"])).argmax(-1) == inputs["labels"]).tolist()
    for picture, right in zip(pictures, is_right, strict=False):
        assert (picture[1, 1, 1] > picture[1, 1, 0]) == right
    assert pictures[0].dtype == np.uint8


@pytest.mark.parametrize("num_classes", [0, 1])
def test_a_dataset_without_classes_is_refused(num_classes):
    with pytest.raises(InputError, match="needs labels of at least 2 classes"):
        build(num_classes)


def test_a_trunk_for_lightness_is_refused():
    trunk = build_trunk("resnet50_color", 1)
    with pytest.raises(InputError, match=r"'resnet50_color'\) takes images of 1 channel.* of 3"):
        build_task(SupervisedConfig(size=16), trunk, 10)
