"""AMDIM's equations against an implementation that writes every sum out."""

from __future__ import annotations

import math

import pytest
import torch

from fastssl.tasks.local_contrast import (
    clip_scores,
    contrast_places,
    pool_places,
    score_places,
    take_own,
)

M, N, L, D = 3, 5, 4, 6
FIRST = 1


def draw(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    sources = scale * torch.randn(M, D, generator=generator, dtype=torch.float64)
    targets = scale * torch.randn(N, L, D, generator=generator, dtype=torch.float64)
    is_same = torch.eye(N, dtype=torch.bool)[FIRST : FIRST + M]
    return sources.requires_grad_(), targets.requires_grad_(), is_same


def write_out(sources, targets, is_same, clip):
    """Return the mean cost and the mean square score, place by place (Newell and Deng 2020)."""
    scores = [
        [[sum(s[k] * t[k] for k in range(D)) / math.sqrt(D) for t in places] for places in targets]
        for s in sources
    ]
    square = sum(x * x for row in scores for places in row for x in places) / (M * N * L)
    if clip:
        scores = [[[clip * torch.tanh(x / clip) for x in p] for p in row] for row in scores]
    costs = []
    for number, row in enumerate(scores):
        others = [x.exp() for n, p in enumerate(row) if not is_same[number, n] for x in p]
        for own in row[FIRST + number]:
            costs.append(-(own.exp() / (own.exp() + sum(others))).log())
    return sum(costs) / len(costs), square


@pytest.mark.parametrize("clip", [30.0, 2.0, 0.0])
@pytest.mark.parametrize("has_copy", [False, True])
def test_cost_and_gradient_are_those_of_the_written_out_sums(clip, has_copy):
    sources, targets, is_same = draw(2.0)
    if has_copy:  # of the second image of this rank, elsewhere
        is_same[1, 4] = True
    wanted, square = write_out(sources, targets, is_same, clip)
    scores = score_places(sources, targets)
    cost = contrast_places(clip_scores(scores, clip), is_same, FIRST)
    torch.testing.assert_close(cost, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(scores.square().mean(), square, rtol=1e-12, atol=0)
    given = torch.autograd.grad(cost + 0.05 * scores.square().mean(), [sources, targets])
    plain = torch.autograd.grad(wanted + 0.05 * square, [sources, targets])
    for ours, theirs in zip(given, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_own_scores_are_those_of_this_ranks_images():
    scores = torch.arange(M * N * L).reshape(M, N, L)
    own = take_own(scores, FIRST)
    assert torch.equal(own, torch.stack([scores[m, FIRST + m] for m in range(M)]))


def test_scores_beyond_the_range_of_exp_cost_what_they_should():
    """In float32 e^89 is no number any more; nor is a sum without it."""
    scores = torch.zeros(1, 2, 1)
    scores[0, 1] = 500
    is_same = torch.tensor([[True, False]])
    assert contrast_places(scores, is_same, 0).item() == pytest.approx(500)
    assert contrast_places(-scores, is_same, 0).item() == pytest.approx(0)


def test_without_any_other_image_there_is_no_cost_and_no_gradient():
    sources, targets, _ = draw()
    cost = contrast_places(
        score_places(sources, targets), torch.ones(M, N, dtype=torch.bool), FIRST
    )
    cost.backward()
    assert cost.item() == 0
    assert not sources.grad.any()
    assert not targets.grad.any()


@pytest.mark.parametrize(("side", "places"), [(16, 7), (8, 7), (8, 5), (4, 5), (7, 7), (32, 7)])
def test_places_are_the_windows_of_an_adaptive_average_pool(side, places):
    maps = torch.randn(2, 3, side, side, dtype=torch.float64)
    wanted = torch.nn.functional.adaptive_avg_pool2d(maps, places)
    torch.testing.assert_close(pool_places(maps, places), wanted)
