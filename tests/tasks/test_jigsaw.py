"""Jigsaw: the puzzle is what it says, drawn from sample ids, and can be learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.models.input_spec import IMAGENET_MEAN, IMAGENET_STD
from fastssl.tasks import Jigsaw, JigsawConfig, build_task

SMALL = {
    "num_permutations": 12,
    "resize_short": 36,
    "crop": 36,
    "patch": 10,
    "jitter": 3,
    "hidden": 8,
}


def build(**changes):
    torch.manual_seed(0)
    return build_task(JigsawConfig(**SMALL | changes), build_trunk("resnet9", 1))


def make_batch(num=6, size=36, epoch=0, first=0):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num, 1, size, size, 3), generator=generator, dtype=torch.uint8)
    ids = torch.arange(first, first + num)
    return Batch(images, ids, torch.full_like(ids, epoch), None)


def cut_by_hand(task, batch, seed):
    """Cut the patches with NumPy, from the drawn puzzles."""
    config, puzzles = task.config, task.draw(batch, seed)
    patches = []
    for b in range(len(batch)):
        image = batch.images[b, 0].numpy()
        if puzzles.flip_B[b]:
            image = image[:, ::-1]
        if puzzles.grey[b]:
            r, g, b_ = (image[..., i].astype(np.int64) for i in range(3))
            luma = (19595 * r + 38470 * g + 7471 * b_ + 0x8000) >> 16
            image = np.repeat(luma[..., None], 3, -1).astype(np.uint8)
        size = config.patch
        patches.append(
            [image[y : y + size, x : x + size] for y, x in puzzles.corners_BP2[b].tolist()]
        )
    pixels = torch.from_numpy(np.array(patches)).double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((pixels - mean) / std).permute(0, 1, 4, 2, 3)


def test_patches_are_those_of_the_drawn_places():
    task, batch = build(), make_batch()
    inputs = task.prepare(batch, 5, torch.float32)
    assert inputs["patches"].shape == (6, 9, 3, 10, 10)
    wanted = cut_by_hand(task, batch, 5)
    # One rounding of a value near 2.6 in float32.
    assert (inputs["patches"].double() - wanted).abs().max() < 1e-6


def test_patches_stay_in_their_cells_and_reach_every_place():
    task = build()
    corners = task.draw(make_batch(400), 0).corners_BP2.numpy()
    cells = np.stack(np.divmod(np.arange(9), 3), axis=-1) * 12
    offsets = corners - cells
    assert offsets.min() == 0
    assert offsets.max() == 2
    assert (offsets + 10 <= 12).all()


def test_goyals_form_is_the_default():
    config = JigsawConfig()
    assert (config.resize_short, config.crop, config.grid, config.cell) == (256, 255, 3, 85)
    assert (config.patch, config.jitter, config.grey_probability) == (64, 21, 0.66)
    task = Jigsaw(config, build_trunk("resnet9", 1))
    offsets = task.draw(make_batch(2000, size=1), 0).corners_BP2.numpy()[:, 0]
    assert (offsets.min(), offsets.max()) == (0, 20)


def test_shares_of_flips_and_greys():
    puzzles = build(flip_probability=0.5, grey_probability=0.66).draw(make_batch(5000, 1), 0)
    assert float(puzzles.flip_B.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(puzzles.grey.float().mean()) == pytest.approx(0.66, abs=0.03)
    both = (puzzles.flip_B & puzzles.grey).float().mean()
    assert float(both) == pytest.approx(0.33, abs=0.03)


def test_labels_are_uniform():
    labels = build().draw(make_batch(6000, 1), 0).labels_BK.flatten().numpy()
    counts = np.bincount(labels, minlength=12)
    # Chi-square with 11 degrees of freedom exceeds 31.3 once in a thousand; the seed is fixed.
    assert ((counts - 500) ** 2 / 500).sum() < 31.3


def test_draws_belong_to_the_sample_not_to_its_place():
    task = build()
    whole = task.draw(make_batch(10), 3)
    part = task.draw(make_batch(4, first=6), 3)
    assert torch.equal(whole.corners_BP2[6:], part.corners_BP2)
    assert torch.equal(whole.labels_BK[6:], part.labels_BK)


def test_epochs_draw_anew():
    task = build()
    first, second = (task.draw(make_batch(50, epoch=e), 3) for e in (0, 1))
    assert not torch.equal(first.corners_BP2, second.corners_BP2)
    assert (first.labels_BK == second.labels_BK).float().mean() < 0.4


def test_slot_j_holds_patch_permutation_j():
    """The head sees the projected patches in the order that the label's permutation gives."""
    task, batch = build().eval(), make_batch()
    inputs = task.prepare(batch, 5, torch.float32)
    features = task.trunk(inputs["patches"].flatten(0, 1)).unflatten(0, (6, 9))
    wanted = []
    for b in range(6):
        order = task.permutations_QP[inputs["labels"][b, 0]]
        projected = task.head.project(features[b])[order].flatten()
        wanted.append(task.head.classify(projected))
    torch.testing.assert_close(task._logits(inputs)[:, 0], torch.stack(wanted))


def test_several_puzzles_take_one_pass_of_the_trunk():
    task, batch = build(permutations_per_image=4).eval(), make_batch()
    calls = []
    task.trunk.register_forward_hook(lambda *arguments: calls.append(arguments[1][0].shape))
    inputs = task.prepare(batch, 5, torch.float32)
    outputs = task(inputs)
    assert inputs["labels"].shape == (6, 4)
    assert calls == [torch.Size([54, 3, 10, 10])]
    logits = task._logits(inputs).flatten(0, 1)
    wanted = torch.nn.functional.cross_entropy(logits, inputs["labels"].flatten())
    torch.testing.assert_close(outputs["loss"], wanted)


def test_accuracy_is_the_share_of_right_answers():
    task, batch = build().eval(), make_batch()
    inputs = task.prepare(batch, 5, torch.float32)
    right = task._logits(inputs)[:, 0].argmax(-1) == inputs["labels"][:, 0]
    assert task(inputs)["accuracy"] == right.float().mean()
    assert task.chance() == {"accuracy": 1 / 12}


def test_a_fresh_network_is_at_chance_and_learns_a_batch():
    """Sixty steps on one batch of puzzles: the loss falls from log Q to a fraction of it."""
    task, batch = build(grey_probability=0.0), make_batch(16)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)
    inputs = task.prepare(batch, 5, torch.float32)
    losses = []
    for _ in range(60):
        loss = task(inputs)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(12), abs=0.2)
    assert losses[-1] < losses[0] / 4


def test_pictures_show_the_puzzle_and_the_answer():
    task, batch = build(), make_batch()
    pictures = [picture.pixels for picture in task.draw_pictures(batch, 5, 3)]
    assert len(pictures) == 3
    assert task.training
    side = 3 * (10 + 8)
    assert all(p.shape == (side, 2 * side + 5, 3) and p.dtype == np.uint8 for p in pictures)
    # The top left tile of the puzzle is the patch that the permutation puts there.
    puzzles = task.draw(batch, 5)
    image = batch.images[0, 0].numpy()
    patch = int(task.permutations_QP[puzzles.labels_BK[0, 0], 0])
    y, x = puzzles.corners_BP2[0, patch].tolist()
    image = image[:, ::-1] if puzzles.flip_B[0] else image
    wanted = image[y : y + 10, x : x + 10].astype(int)
    if puzzles.grey[0]:
        luma = (wanted @ [19595, 38470, 7471] + 0x8000) >> 16
        wanted = np.repeat(luma[..., None], 3, -1)
    assert (pictures[0][4:14, 4:14] == wanted).all()


def test_pictures_do_not_change_what_is_learnt():
    task, batch = build(), make_batch()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    task.draw_pictures(batch, 5, 2)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 11}, "needs a cell of 13 px"),
        ({"patch": 13}, r"set --task\.patch to 12 or less"),
        ({"jitter": 9}, "lower the jitter to 3"),
        ({"grey_probability": 1.5}, r"task\.grey_probability \(1\.5\)"),
        ({"permutations_per_image": 0}, "permutations_per_image"),
    ],
)
def test_puzzles_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        JigsawConfig(**SMALL | changes)
