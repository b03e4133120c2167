"""Exemplar: the loss by its published rule, who is whose negative, and that it learns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fastssl.batch import Batch, Substitution
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.studies import build_recipe
from fastssl.tasks import ExemplarConfig, build_task
from fastssl.tasks.exemplar import group_images
from fastssl.tasks.triplets import (
    find_nearest,
    normalize_embeddings,
    pair_distances,
    semihard_loss,
)
from fastssl.training import train
from fastssl.views import ViewSpec, list_views

SMALL = {"size": 16, "num_crops": 3, "embedding": 8, "group_images": 4}


def build(trunk="resnet9", **changes):
    torch.manual_seed(0)
    return build_task(ExemplarConfig(**SMALL | changes), build_trunk(trunk, 1))


def make_batch(num=4, crops=3, size=16, ids=None):
    """Crops of one image are alike: a coarse pattern of its own, and noise."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 200, (num, 1, 3, 4, 4), generator=generator).float()
    smooth = coarse.repeat_interleave(size // 4, -1).repeat_interleave(size // 4, -2)
    noise = torch.randint(0, 56, (num, crops, 3, size, size), generator=generator)
    images = (smooth + noise).to(torch.uint8).movedim(2, -1).contiguous()
    sample_ids = torch.arange(num) if ids is None else torch.tensor(ids)
    return Batch(images, sample_ids, torch.zeros(num, dtype=torch.int64), None)


def loss_by_hand(distances, labels, margin):
    """The rule of the original, pair by pair."""
    costs = []
    for anchor, row in enumerate(distances.tolist()):
        negatives = [d for d, label in zip(row, labels, strict=True) if label != labels[anchor]]
        for positive, reach in enumerate(row):
            if positive == anchor or labels[positive] != labels[anchor] or not negatives:
                continue
            outside = [d for d in negatives if d > reach]
            mined = min(outside) if outside else max(negatives)
            costs.append(max(0.0, margin + reach - mined))
    return sum(costs) / max(1, len(costs))


def test_a_triplet_worked_out_by_hand():
    points = torch.tensor([[[0.0], [1.0], [1.1], [3.0]]])
    distances = pair_distances(points)
    labels = torch.tensor([[7, 7, 9, 9]])
    # Anchor 0: d = 1, nearest farther negative 1.21; anchor 1: d = 1, 4 (0.01 is nearer); anchor 2:
    # d = 3.61, none farther, farthest 1.21; anchor 3: d = 3.61, 4.
    wanted = ((0.5 + 1 - 1.21) + 0 + (0.5 + 3.61 - 1.21) + (0.5 + 3.61 - 4)) / 4
    assert semihard_loss(distances, labels, 0.5).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_that_of_all_pairs_one_by_one(seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(2, 15, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 15), generator=generator)
    distances = pair_distances(points)
    exact = (points[:, :, None] - points[:, None]).square().sum(-1)
    torch.testing.assert_close(distances, exact, rtol=1e-9, atol=1e-9)
    for group in range(2):
        wanted = loss_by_hand(distances[group], labels[group].tolist(), 0.5)
        found = semihard_loss(distances[group, None], labels[group, None], 0.5)
        assert found.item() == pytest.approx(wanted, rel=1e-12)


def test_gradients_of_the_loss_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(1, 9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(9)[None] // 3

    def loss(values):
        return semihard_loss(pair_distances(values), labels, 0.5)

    assert torch.autograd.gradcheck(loss, points)


def test_a_group_of_one_image_alone_costs_nothing():
    points = torch.randn(1, 6, 4, requires_grad=True)
    loss = semihard_loss(pair_distances(points), torch.zeros(1, 6, dtype=torch.int64), 0.5)
    assert loss == 0
    loss.backward()
    assert points.grad.abs().max() == 0


@pytest.mark.parametrize(("axis", "dim"), [("batch", 1), ("embedding", 2)])
def test_what_is_normalised_has_length_one(axis, dim):
    scaled = normalize_embeddings(torch.randn(2, 12, 5), axis)
    torch.testing.assert_close(scaled.norm(dim=dim), torch.ones(2, 5 if dim == 1 else 12))
    zeros = torch.zeros(2, 12, 5)
    assert torch.equal(normalize_embeddings(zeros, axis), zeros)


def test_embeddings_may_stay_as_they_are():
    embeddings = torch.randn(2, 12, 5)
    assert normalize_embeddings(embeddings, "none") is embeddings


def test_figures_of_the_study():
    task = build_task(ExemplarConfig(), build_trunk("resnet9", 1))
    spec = ViewSpec.random_resized_crop(
        224, (0.05, 1.0), (3 / 4, 4 / 3), attempts=16, fallback="whole", count=8
    )
    assert task.views == (spec,)
    assert len(list_views(task.views)) == 8
    assert task.head.weight.shape[0] == 1000
    config = task.config
    assert (config.margin, config.l2_axis, config.grey_probability) == (0.5, "batch", 0.66)
    assert task.chance() == {"accuracy": 7 / 63}


def test_crops_are_standardised_and_all_grey_or_none():
    task, batch = build(), make_batch(20)
    images = task.prepare(batch, 3, torch.float32)["images"]
    assert images.shape == (20, 3, 3, 16, 16)
    assert images.mean((2, 3, 4)).abs().max() < 1e-4
    assert (images.square().mean((2, 3, 4)) - 1).abs().max() < 1e-4
    is_grey_BV = (images[:, :, 0] - images[:, :, 2]).abs().amax((2, 3)) < 1e-4
    assert (is_grey_BV == is_grey_BV[:, :1]).all()
    assert 0 < int(is_grey_BV[:, 0].sum()) < 20


def test_two_copies_of_one_sample_are_never_negatives():
    """Law 1: a batch may cross an epoch's border."""
    twice = make_batch(ids=[5, 6, 5, 7])
    task = build().eval()
    inputs = task.prepare(twice, 3, torch.float32)
    distances = task._distances(inputs)[0].detach()
    labels = np.repeat([5, 6, 5, 7], 3).tolist()
    wanted = loss_by_hand(distances, labels, 0.5)
    assert task(inputs)["loss"].item() == pytest.approx(wanted, rel=1e-5)
    as_negatives = loss_by_hand(distances, np.repeat([5, 6, 8, 7], 3).tolist(), 0.5)
    assert wanted != pytest.approx(as_negatives, rel=1e-3)


def test_a_substitute_is_known_by_what_it_shows():
    batch = make_batch(ids=[5, 6, 3, 7])
    batch = dataclasses.replace(batch, substitutions=(Substitution(2, 0, 3, 5, "CRC-32"),))
    assert build().prepare(batch, 3, torch.float32)["labels"].tolist() == [5, 6, 5, 7]


def test_groups_know_nothing_of_each_other():
    task = build(l2_axis="batch").eval()
    both = task.prepare(make_batch(8), 3, torch.float32)
    halves = [{name: value[i::2] for name, value in both.items()} for i in (0, 1)]
    for name, value in task(both).items():
        mean = sum(task(half)[name] for half in halves) / 2
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_same_images_are_mined_together_at_every_world_size(size, world_size):
    places = torch.arange(32)  # rank r of W takes those with place mod W = r
    whole = {frozenset(group.tolist()) for group in group_images(places, size)}
    shares = [group_images(places[rank::world_size], size) for rank in range(world_size)]
    assert len(whole) == 32 // size
    assert {frozenset(group.tolist()) for share in shares for group in share} == whole


def test_the_loss_is_the_same_at_every_world_size():
    task = build().eval()
    whole = task.prepare(make_batch(8), 3, torch.float32)
    alone = task(whole)
    ranks = [task({name: value[r::2] for name, value in whole.items()}) for r in range(2)]
    for name, value in alone.items():
        mean = (ranks[0][name] + ranks[1][name]) / 2
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-6)


def test_accuracy_counts_nearest_crops_of_the_same_image():
    distances = torch.tensor([[[0.0, 1, 5, 6], [1, 0, 0.5, 7], [5, 0.5, 0, 9], [6, 7, 2, 0]]])
    assert find_nearest(distances).tolist() == [[1, 2, 1, 2]]


@pytest.mark.parametrize("axis", ["batch", "embedding"])
def test_it_learns_a_batch(axis):
    task, batch = build(l2_axis=axis, grey_probability=0.0), make_batch()
    inputs = task.prepare(batch, 3, torch.float32)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        outputs = task(inputs)
        outputs["loss"].backward()
        optimizer.step()
        losses.append(outputs["loss"].item())
    assert losses[-1] < 0.2 * losses[0]
    assert outputs["accuracy"] == 1


def test_distances_are_taken_in_float32_under_autocast():
    task, batch = build(), make_batch()
    inputs = task.prepare(batch, 3, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert task._distances(inputs).dtype == torch.float32
        assert torch.isfinite(task(inputs)["loss"])


def test_pictures_show_each_crop_above_its_nearest():
    task, batch = build(), make_batch(8)
    pictures = [picture.pixels for picture in task.draw_pictures(batch, 3, 2)]
    assert [(p.shape, p.dtype) for p in pictures] == [((48, 72, 3), np.uint8)] * 2
    inputs = task.eval().prepare(batch.rows(0, 4), 3, torch.float32)
    nearest = find_nearest(task._distances(inputs))[0]
    for n in range(6):
        column = pictures[n // 3][:, 24 * (n % 3) : 24 * (n % 3) + 24].astype(int)
        frame = column[26, 2]
        assert (frame[1] > frame[0]) == (int(nearest[n]) // 3 == n // 3)


def test_a_batch_that_is_no_multiple_of_a_group_is_refused():
    with pytest.raises(InputError, match=r"\(6\) must be a multiple of 4.*are 4 or 8"):
        build().prepare(make_batch(6), 3, torch.float32)


def test_such_a_batch_is_refused_before_a_run_starts(dataset_path, tmp_path):
    config = build_recipe("kolesnikov19_exemplar_smoke")
    data = dataclasses.replace(config.data, path=dataset_path, global_batch_size=12)
    config = dataclasses.replace(config, data=data, output_dir=tmp_path / "run")
    with pytest.raises(InputError, match=r"micro-batch on one rank \(12\).*are 8 or 16"):
        train(config)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_crops": 1}, r"task\.num_crops \(1\) must lie in 2 \.\. 64"),
        ({"group_images": 1}, r"task\.group_images \(1\) must lie in 2 \.\. 64"),
        ({"margin": 0.0}, r"task\.margin \(0\.0\) must lie in 0 \.\. 1,000, 0 excluded"),
        ({"flip_probability": -1.0}, r"task\.flip_probability \(-1\.0\)"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ExemplarConfig(**changes)


@pytest.mark.parametrize("trunk", ["resnet50_v1", "resnet50_v2_minus", "revnet50", "vgg19_bn"])
def test_one_step_on_every_family_of_trunks(trunk):
    side = max(32, build_trunk(trunk, 1).min_side)
    task = build(trunk, size=side, num_crops=2, group_images=2)
    inputs = task.prepare(make_batch(2, 2, side), 3, torch.float32)
    task(inputs)["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters())
