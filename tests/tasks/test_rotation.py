"""Rotation: the turns, their labels, and that they learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.ops import augment_targets
from fastssl.tasks import NewellRotationConfig, RotationConfig, build_task
from fastssl.tasks.newell_views import augment, draw_augmentation, to_pictures
from fastssl.tasks.rotation import turn_images

# Without colour jitter: what is asked here is about places.
PLAIN = {"size": 16, "brightness": 0.0, "saturation": 0.0}


def build(trunk="resnet9", width=1, **changes):
    torch.manual_seed(0)
    return build_task(RotationConfig(**PLAIN | changes), build_trunk(trunk, width))


def make_batch(num=6, size=16, epoch=0):
    generator = torch.Generator().manual_seed(1)
    shape = (num, 1, size, size, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    ids = torch.arange(num)
    return Batch(images, ids, torch.full_like(ids, epoch), None)


def test_turns_are_numpys_counter_clockwise():
    images = torch.rand(3, 3, 5, 5)
    labels = torch.tensor([[0, 1, 2, 3], [3, 3, 1, 0], [2, 0, 1, 2]])
    turned = turn_images(images, labels)
    for b in range(3):
        for k in range(4):
            wanted = np.rot90(images[b].numpy(), int(labels[b, k]), axes=(1, 2))
            np.testing.assert_array_equal(turned[b, k].numpy(), wanted)
    assert turned.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_a_quarter_turn_takes_the_right_border_to_the_top():
    image = torch.zeros(1, 1, 4, 4)
    image[..., -1] = 1
    turned = turn_images(image, torch.tensor([[1]]))[0, 0, 0]
    assert turned[0].sum() == 4
    assert turned.sum() == 4


def test_all_four_turns_are_of_one_view():
    task, batch = build(flip_probability=0.5), make_batch(40)
    inputs = task.prepare(batch, 3, torch.float32)
    assert inputs["images"].shape == (40, 4, 3, 16, 16)
    assert inputs["labels"].tolist() == [[0, 1, 2, 3]] * 40
    upright = inputs["images"][:, 0]
    for turn in range(4):
        assert torch.equal(inputs["images"][:, turn], torch.rot90(upright, turn, (-2, -1)))
    pixels = batch.images[:, 0].movedim(-1, 1) / 127.5 - 1
    is_mirrored = (upright - pixels.flip(-1)).abs().amax((1, 2, 3)) < 1e-5
    is_plain = (upright - pixels).abs().amax((1, 2, 3)) < 1e-5
    assert (is_mirrored ^ is_plain).all()
    assert 8 < int(is_mirrored.sum()) < 32


def test_one_turn_is_drawn_for_each_sample_and_epoch():
    task = build(copies="one", flip_probability=0.0)
    batch = make_batch(8)
    inputs = task.prepare(batch, 3, torch.float32)
    assert inputs["images"].shape == (8, 1, 3, 16, 16)
    all_turns = build(flip_probability=0.0).prepare(batch, 3, torch.float32)["images"]
    for b, (label,) in enumerate(inputs["labels"].tolist()):
        assert torch.equal(inputs["images"][b, 0], all_turns[b, label])
    # The same rows of another batch get the same labels; another epoch, others.
    many = task.draw_labels(make_batch(2000), 3)
    assert torch.equal(many[:8], inputs["labels"])
    assert not torch.equal(task.draw_labels(make_batch(2000, epoch=1), 3), many)
    counts = np.bincount(many.flatten().numpy(), minlength=4)
    # Chi-square with 3 degrees of freedom exceeds 16.3 once in a thousand; the seed is fixed.
    assert ((counts - 500) ** 2 / 500).sum() < 16.3


def test_golden_labels_never_change():
    labels = build(copies="one").draw_labels(make_batch(12, 1), 2026)
    assert labels.flatten().tolist() == [0, 0, 3, 3, 2, 0, 1, 1, 0, 0, 1, 3]


@pytest.mark.parametrize("copies", ["all", "one"])
def test_it_learns_a_batch(copies):
    task, batch = build(copies=copies), make_batch(8)
    inputs = task.prepare(batch, 3, torch.float32)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)
    for _ in range(12):
        optimizer.zero_grad()
        outputs = task(inputs)
        outputs["loss"].backward()
        optimizer.step()
    assert outputs["accuracy"] > 0.9
    assert outputs["loss"] < 0.5


def test_pictures_are_turned_back_by_the_answer_and_framed():
    task, batch = build(flip_probability=0.0), make_batch(3)
    with torch.no_grad():  # a head that always answers "a quarter"
        task.head.weight.zero_()
        task.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    pictures = [picture.pixels for picture in task.draw_pictures(batch, 3, 2)]
    assert [(p.shape, p.dtype) for p in pictures] == [((48, 96, 3), np.uint8)] * 2
    upright = batch.images[0, 0].numpy()
    for turn in range(4):
        column = pictures[0][:, 24 * turn : 24 * turn + 24]
        np.testing.assert_array_equal(column[4:20, 4:20], np.rot90(upright, turn))
        np.testing.assert_array_equal(column[28:44, 4:20], np.rot90(upright, turn - 1))
        frame = column[26, 2].astype(int)
        assert (frame[1] > frame[0]) == (turn == 1)
    assert task.training


def test_a_size_too_small_for_the_trunk_is_refused():
    with pytest.raises(InputError, match=r"task\.size \(16\) must be at least \d+ px for trunk"):
        build("alexnet")


@pytest.mark.parametrize("trunk", ["resnet50_v1", "resnet50_v2_minus", "revnet50", "vgg19_bn"])
def test_one_step_on_every_family_of_trunks(trunk):
    task = build(trunk, size=max(32, build_trunk(trunk, 1).min_side))
    task(task.prepare(make_batch(2, task.config.size), 3, torch.float32))["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters())


# ---------------------------------------------------------------------- Newell and Deng 2020


def build_newell(**changes):
    torch.manual_seed(0)
    return build_task(NewellRotationConfig(size=16, **changes), build_trunk("resnet9", 1))


def test_newells_views_are_turned_once_and_after_the_augmentation():
    task, batch = build_newell(), make_batch(8)
    inputs = task.prepare(batch, 3, torch.float32)
    drawn = draw_augmentation(task.config, batch, 3, 1)
    upright = augment(batch.images[:, 0], drawn, task.config, torch.float32)[:, 0]
    assert inputs["images"].shape == (8, 1, 3, 16, 16)
    for b, (label,) in enumerate(inputs["labels"].tolist()):
        assert torch.equal(inputs["images"][b, 0], torch.rot90(upright[b], label, (-2, -1)))
    assert task.input_spec.kind == "lab"
    # One name, one stream: the labels are those of the other form.
    assert torch.equal(inputs["labels"], build(copies="one").draw_labels(batch, 3))


def test_dense_targets_are_turned_with_their_pictures():
    config = NewellRotationConfig(size=16, cutout=0, jitter_probability=0, grey_probability=0)
    task, batch = build_task(config, build_trunk("resnet9", 1)), make_batch(8)
    inputs = task.prepare(batch, 3, torch.float32)
    drawn = draw_augmentation(config, batch, 3, 1)
    targets = batch.images[:, 0].movedim(-1, 1)
    moved = augment_targets(targets, drawn.flip_BK, drawn.offset_BK2)[:, 0]
    turned = turn_images(moved, inputs["labels"])[:, 0].movedim(1, -1)
    shown = torch.from_numpy(to_pictures(inputs["images"], config))[:, 0]
    # What comes from outside is 0 in a target, and in a picture the mean colour.
    is_inside = (turned != 0).any(-1, keepdim=True)
    assert is_inside.float().mean() > 0.7
    assert ((turned.int() - shown.int()).abs() * is_inside).max() <= 1


def test_newells_form_learns_a_batch_and_shows_it():
    task, batch = build_newell(), make_batch(8)
    inputs = task.prepare(batch, 3, torch.float32)
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3, betas=(0.8, 0.999))
    for _ in range(25):
        optimizer.zero_grad()
        outputs = task(inputs)
        outputs["loss"].backward()
        optimizer.step()
    assert outputs["accuracy"] > 0.9
    pictures = task.draw_pictures(batch, 3, 2)
    assert [picture.pixels.shape for picture in pictures] == [(48, 24, 3)] * 2
