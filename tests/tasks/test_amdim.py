"""AMDIM: the published sum, who is whose negative on how many ranks, and that it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from fastssl.batch import Batch, Substitution
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.tasks import AmdimConfig, build_task
from fastssl.tasks.amdim import COARSE, FINE, Others, Vectors
from fastssl.tasks.local_contrast import contrast_places, score_places
from fastssl.tasks.newell_views import draw_augmentation
from tests.nursery import run_child

SIDE = 32


def build(trunk="resnet9", width=1, **changes):
    torch.manual_seed(0)
    return build_task(AmdimConfig(**{"size": SIDE} | changes), build_trunk(trunk, width))


def make_batch(num=4, ids=None, side=SIDE):
    """Each image a coarse pattern of its own, and noise."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 200, (num, 1, 4, 4, 3), generator=generator)
    smooth = coarse.repeat_interleave(side // 4, 2).repeat_interleave(side // 4, 3)
    noise = torch.randint(0, 56, smooth.shape, generator=generator)
    sample_ids = torch.arange(num) if ids is None else torch.tensor(ids)
    epochs = torch.zeros(num, dtype=torch.int64)
    return Batch((smooth + noise).to(torch.uint8), sample_ids, epochs, None)


def draw_vectors(num=4, width=8):
    generator = torch.Generator().manual_seed(2)
    shapes = [(num, 2, width), (num, 2, COARSE**2, width), (num, 2, FINE**2, width)]
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    places = torch.randint(COARSE**2, (num, 2), generator=generator)
    return Vectors(*(values.requires_grad_() for values in drawn)), places


def among_themselves(vectors, labels=None):
    labels = torch.arange(len(vectors.whole_BKD)) if labels is None else labels
    is_same = labels[:, None] == labels
    return Others(vectors.coarse_BKLD, vectors.fine_BKLD, is_same, 0)


def sum_up(vectors, places, clip, penalty):
    """The sum of the study: three terms, each the mean of both directions, and half six squares."""
    terms, squares = [], []
    is_same = torch.eye(len(places), dtype=torch.bool)
    for kind in ("1to5", "1to7", "5to5"):
        for view in (0, 1):
            if kind == "5to5":
                pairs = zip(vectors.coarse_BKLD[:, view], places[:, view], strict=True)
                sources = torch.stack([grid[place] for grid, place in pairs])
            else:
                sources = vectors.whole_BKD[:, view]
            targets = vectors.fine_BKLD if kind == "1to7" else vectors.coarse_BKLD
            scores = score_places(sources, targets[:, 1 - view])
            squares.append(penalty * scores.square().mean())
            clipped = clip * torch.tanh(scores / clip) if clip else scores
            terms.append(contrast_places(clipped, is_same, 0) / 2)
    return sum(terms) + sum(squares) / 2


@pytest.mark.parametrize("clip", [30.0, 0.0])
def test_the_loss_is_the_sum_of_the_study(clip):
    vectors, places = draw_vectors()
    task = build(clip=clip)
    found = task.compare(vectors, among_themselves(vectors), places)
    wanted = sum_up(vectors, places, clip, 0.05)
    torch.testing.assert_close(found["loss"], wanted, rtol=1e-12, atol=0)
    given, plain = (torch.autograd.grad(loss, [*vectors]) for loss in (found["loss"], wanted))
    for ours, theirs in zip(given, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    parts = [found[name] for name in ("loss_1to5", "loss_1to7", "loss_5to5", "score_penalty")]
    torch.testing.assert_close(sum(parts), found["loss"].detach())
    assert found["accuracy_of_chance"] == 1 / 4


def test_places_are_projected_and_then_averaged():
    """As the study has it; here the averages come first."""
    task = build(size=64).double()
    images = torch.randn(3, 2, 3, 64, 64, dtype=torch.float64)
    fine, coarse, whole = task.trunk.forward_local(images.flatten(0, 1))
    vectors = task.encode(images)
    torch.testing.assert_close(vectors.whole_BKD.flatten(0, 1), whole)
    for maps, name, side in ((fine, "fine", FINE), (coarse, "coarse", COARSE)):
        wanted = functional.adaptive_avg_pool2d(task.head[name](maps), side)
        found = getattr(vectors, f"{name}_BKLD").flatten(0, 1)
        torch.testing.assert_close(found, wanted.flatten(2).mT)


def test_both_views_are_mirrored_or_neither_and_otherwise_of_their_own():
    task, batch = build(), make_batch(32)
    drawn = draw_augmentation(task.config, batch, 3, 2, shares_flip=True)
    assert torch.equal(drawn.flip_BK[:, 0], drawn.flip_BK[:, 1])
    for values in (drawn.gain_BK3, drawn.offset_BK2, drawn.corner_BK2):
        assert (values[:, 0] != values[:, 1]).any(-1).float().mean() > 0.5
    images = task.prepare(batch, 3, torch.float32)["images"]
    plain = dataclasses.replace(
        task.config, jitter_probability=0, grey_probability=0, padding=0, cutout=0
    )
    task.config = plain
    alike = task.prepare(batch, 3, torch.float32)["images"]
    assert torch.equal(alike[:, 0], alike[:, 1])
    assert not torch.equal(images[:, 0], images[:, 1])


def test_copies_of_an_image_are_no_negatives():
    """A batch may cross an epoch's border."""
    vectors, places = draw_vectors()
    labels = torch.tensor([5, 6, 5, 7])
    task = build()
    found = task.compare(vectors, among_themselves(vectors, labels), places)
    changed = vectors._replace(fine_BKLD=vectors.fine_BKLD.detach().clone())
    changed.fine_BKLD[2] *= 7  # the copy of the first image
    with torch.no_grad():
        others = among_themselves(changed, labels)
        again = task.compare(vectors._replace(whole_BKD=vectors.whole_BKD * 1), others, places)
    first = [
        contrast_places(
            score_places(vectors.whole_BKD[:1, 0], fine[:, 1]), (labels == 5)[None], 0
        ).item()
        for fine in (vectors.fine_BKLD, changed.fine_BKLD)
    ]
    assert first[0] == first[1]
    assert found["loss_1to7"] != again["loss_1to7"]  # to the others it is one


def test_a_substitute_is_known_by_what_it_shows():
    batch = make_batch(ids=[5, 6, 3, 7])
    batch = dataclasses.replace(batch, substitutions=(Substitution(2, 0, 3, 5, "CRC-32"),))
    assert build().prepare(batch, 3, torch.float32)["labels"].tolist() == [5, 6, 5, 7]


@pytest.mark.parametrize("size", [0, 1])
def test_one_image_a_batch_is_refused(size):
    with pytest.raises(InputError, match=rf"micro-batch on one rank \({size}\) must be at least 2"):
        build().check_batch(size)
    build().check_batch(2)


def test_one_sample_is_refused():
    with pytest.raises(InputError, match="needs at least 2, got 1"):
        build().check_data(None, 1)
    build().check_data(None, 2)


@pytest.mark.parametrize("trunk", ["resnet50", "resnet9_halves", "resnet9_linear8"])
def test_a_trunk_without_places_is_refused(trunk):
    with pytest.raises(
        InputError, match=rf"trunk \('{trunk}'\) gives no vectors of places.*resnet9"
    ):
        build(trunk)


def test_a_view_too_small_for_the_trunk_is_refused():
    with pytest.raises(InputError, match=r"task.size \(32\) must be at least 64 px"):
        build("amdim_encoder")


@pytest.mark.parametrize("trunk", ["resnet9_dense", "resnet50_newell", "amdim_encoder"])
@pytest.mark.parametrize("projection", ["linear", "residual"])
def test_every_weight_learns_in_every_trunk(trunk, projection):
    task = build(trunk, size=64, projection=projection)
    for part in task.modules():  # second convolutions that begin at zero let nothing through
        if isinstance(part, torch.nn.Conv2d) and not part.weight.any():
            torch.nn.init.normal_(part.weight, std=0.05)
    task(task.prepare(make_batch(side=64), 1, torch.float32))["loss"].backward()
    still = [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()]
    # A constant in front of a batch norm changes nothing.
    assert [name for name in still if not name.endswith("shortcut.bias")] == []


def test_the_projection_of_the_original_begins_near_identity():
    task = build("amdim_encoder", size=64, projection="residual").eval()
    layer = task.head["fine"]
    assert layer.shortcut.weight.shape[:2] == (64, 128)  # fewer features: no identity to be had
    wide = type(layer)(8, 16).eval()
    maps = torch.randn(2, 8, 7, 7)
    out = (wide(maps) - wide.shortcut.bias[:, None, None]) * (1 + 1e-5) ** 0.5
    torch.testing.assert_close(out[:, :8], maps, atol=0.01 * 8 * 4, rtol=0)


def test_the_place_that_speaks_for_a_view_comes_from_torchs_generator():
    task = build().eval()
    inputs = task.prepare(make_batch(), 3, torch.float32)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(task(inputs)["loss_5to5"].item())
    assert losses[0] == losses[1] != losses[2]


def test_half_precision_scores_in_float32():
    task = build()
    inputs = task.prepare(make_batch(), 3, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = task(inputs)
    found["loss"].backward()
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in task.parameters())


def test_trunk_and_projections_are_one_graph():
    task = build()
    inputs = task.prepare(make_batch(), 3, torch.float32)
    torch.compile(task, fullgraph=True, backend="eager")(inputs)["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters())


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_mean_over_ranks_is_the_loss_of_the_whole_batch(world_size):
    vectors, places = draw_vectors(8)
    labels = torch.tensor([1, 2, 3, 1, 5, 6, 7, 8])
    task, share = build(), 8 // world_size
    whole = task.compare(vectors, among_themselves(vectors, labels), places)
    parts = []
    for first in range(0, 8, share):
        mine = Vectors(*(values[first : first + share] for values in vectors))
        is_same = labels[first : first + share, None] == labels
        others = Others(vectors.coarse_BKLD, vectors.fine_BKLD, is_same, first)
        parts.append(task.compare(mine, others, places[first : first + share]))
    for name, value in whole.items():
        mean = sum(part[name] for part in parts) / world_size
        torch.testing.assert_close(mean, value, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_two_ranks_have_the_gradients_of_one(tmp_path):
    script = Path(__file__).with_name("amdim_ranks.py")
    for ranks in (0, 2):
        run_child(script, tmp_path / f"{ranks}.pt", ranks=ranks, check=True)
    one, two = (torch.load(tmp_path / f"{ranks}.pt") for ranks in (0, 2))
    assert one.keys() == two.keys()
    assert all(value.any() for value in one.values())
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-9, msg=name)


def test_it_learns_to_tell_images_apart():
    task = build(size=16, jitter_probability=0.0, grey_probability=0.0, cutout=0.0)
    optimizer = torch.optim.Adam(task.parameters(), 2e-3, (0.8, 0.999))
    batch, found = make_batch(16, side=16), []
    for step in range(12):
        values = task(task.prepare(batch, step, torch.float32))
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        found.append(values["accuracy"].item())
    # Seen: 0.03 and 0.42; a guess finds 1 in 16.
    assert sum(found[:2]) / 2 < 2 / 16
    assert sum(found[-4:]) / 4 > 4 / 16


def test_pictures_show_a_view_its_match_and_a_rivals():
    task = build(size=64)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    pictures = task.draw_pictures(make_batch(6, side=64), 3, 4)
    assert len(pictures) == 4
    assert pictures[0].pixels.shape == (2 * 136, 3 * 136, 3)
    assert "the most alike of 3 other images" in pictures[0].words
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    assert task.training
