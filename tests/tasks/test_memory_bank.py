"""The memory bank: its equations, who holds which rows, what is drawn and what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastssl.tasks.memory_bank import MemoryBank, score_negatives
from fastssl.world import World
from tests.nursery import run_child
from tests.tasks.bank_of_ranks import compare

ALONE = World(0, 1, torch.device("cpu"), None)


def open_bank(num_rows=40, dim=6, negatives=16, seed=0, world=ALONE):
    bank = MemoryBank(dim, negatives, 0.1, 0.4, seed)
    return bank, bank.open(num_rows, world)


@pytest.mark.parametrize(("num_rows", "num_negatives"), [(40, 16), (2, 8), (12, 3)])
def test_scores_loss_gradient_and_ten_steps_are_those_of_a_plain_bank(num_rows, num_negatives):
    compare(ALONE, num_rows, num_negatives)


@pytest.mark.slow
def test_ranks_put_the_same_softmax_together_and_write_the_same_rows():
    """Three ranks hold 14, 13 and 13 rows; then 0, 1 and 1, where a rank has no negatives."""
    script = Path(__file__).with_name("bank_of_ranks.py")
    done = run_child(script, "40x16", "2x4", ranks=3)
    assert done.returncode == 0, done.stderr[-3000:]


def test_gradients_are_those_of_finite_differences():
    bank, table = open_bank()
    table.rows = table.rows.double()
    torch.manual_seed(0)
    draws = bank.draw(torch.tensor([3, 9]))
    features = torch.randn(2, 2, 6, dtype=torch.float64, requires_grad=True)

    def losses(values):
        return bank.contrast(values, draws["ids"], draws["negatives"]).losses_BV

    assert torch.autograd.gradcheck(losses, features)


def test_rows_begin_as_a_function_of_their_number_at_every_world_size():
    num_rows = 9000  # more than two blocks
    _, whole = open_bank(num_rows)
    for size in (2, 3):
        worlds = [World(rank, size, torch.device("cpu"), None) for rank in range(size)]
        parts = [open_bank(num_rows, world=world)[1].rows for world in worlds]
        assert torch.equal(torch.cat(parts), whole.rows)
    assert len(whole.rows.unique(dim=0)) == num_rows
    # Uniform with a variance of 1 / D, so that a row's length is about 1 from the start.
    assert whole.rows.abs().max() <= (3 / 6) ** 0.5
    assert whole.rows.square().sum(-1).mean().item() == pytest.approx(1, rel=0.01)
    assert not torch.equal(open_bank(num_rows, seed=1)[1].rows, whole.rows)


def test_negatives_are_uniform_with_replacement_and_a_function_of_the_generator():
    bank, _ = open_bank(num_rows=10, negatives=20_000)
    torch.manual_seed(5)
    draws = bank.draw(torch.tensor([0, 1]))["negatives"]
    assert draws.shape == (2, 1, 20_000)
    counts = np.stack([np.bincount(row[0], minlength=10) for row in draws.numpy()])
    assert abs(counts - 2000).max() < 5 * 2000**0.5
    assert not torch.equal(draws[0], draws[1])
    torch.manual_seed(5)
    assert torch.equal(bank.draw(torch.tensor([0, 1]))["negatives"], draws)


def test_a_negative_is_never_a_copy_of_the_sample():
    bank, table = open_bank(num_rows=3)
    torch.nn.functional.normalize(table.rows, dim=-1, out=table.rows)
    own = torch.tensor([[1], [1]])
    feature = table.rows[1].flip(0).expand(2, -1, -1)
    others = torch.tensor([[[0, 2, 0, 2]], [[0, 2, 1, 1]]], dtype=torch.int32)
    found = bank.contrast(feature, own, others).losses_BV
    twice = bank.contrast(feature[:1], own[:1], others[:1, :, :2]).losses_BV
    torch.testing.assert_close(found[1], twice[0])
    alone = bank.contrast(feature[:1], own[:1], torch.ones(1, 1, 4, dtype=torch.int32))
    assert torch.equal(alone.losses_BV, torch.zeros(1, 2))
    assert alone.is_first_BV.all()


def test_a_row_is_written_once_a_step_and_forgotten_where_the_step_is_not_kept():
    bank, table = open_bank()
    before = table.rows.clone()
    features = torch.nn.functional.normalize(torch.randn(3, 2, 6), dim=-1)
    none = torch.zeros(3, 1, 4, dtype=torch.int32)

    def note(rows, ids):
        bank.contrast(rows, torch.tensor(ids)[:, None], none[: len(rows)])

    note(features, [7, 30, 7])
    bank.end_step(torch.tensor(False))
    bank.end_step(torch.tensor(True))
    assert torch.equal(table.rows, before)
    note(features[:2], [7, 30])  # two micro-batches of a step
    note(features[2:], [7])
    bank.end_step(torch.tensor(True))
    wanted = before.clone()
    for number, feature in ((30, features[1]), (7, features[2])):
        wanted[number] = torch.nn.functional.normalize(0.4 * before[number] + 0.6 * feature, dim=-1)
    torch.testing.assert_close(table.rows, wanted)
    bank.end_step(torch.tensor(True))
    torch.testing.assert_close(table.rows, wanted)


def test_scores_that_no_float_can_be_the_power_of_stay_finite():
    rows = torch.nn.functional.normalize(torch.randn(20, 2, 6), dim=-1)
    bank, table = open_bank(num_rows=20)
    table.rows, bank.temperature = rows, 1e-3
    features = rows[:4].flip(1).clone().requires_grad_()
    draws = bank.draw(torch.arange(4))
    found = bank.contrast(features, draws["ids"], draws["negatives"])
    found.losses_BV.sum().backward()
    assert found.losses_BV.isfinite().all()
    assert features.grad.isfinite().all()
    assert found.is_first_BV.all()


def test_rows_are_gathered_a_few_samples_at_a_time():
    """More than a cache of rows in all; 4,096 negatives of 1 KB are two samples a turn."""
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(50, 2, 128), dim=-1)
    features, places = rows[:5], torch.arange(5)
    negatives = torch.randint(50, (5, 4096), dtype=torch.int32)
    parts = score_negatives(features, rows, places, negatives, 0.1)
    for b in range(5):
        alone = score_negatives(
            features[b : b + 1], rows, places[b : b + 1], negatives[b, None], 0.1
        )
        for whole, one in zip(parts, alone, strict=True):
            torch.testing.assert_close(whole[b], one[0])


def test_neighbours_are_those_of_the_greatest_products():
    bank, table = open_bank(num_rows=30)
    features = torch.nn.functional.normalize(torch.randn(2, 2, 6), dim=-1)
    ids, products = bank.find_nearest(features, 4)
    by_hand = (features[:, None] * table.rows).sum((-1, -2)) / 2
    assert ids.tolist() == by_hand.argsort(descending=True)[:, :4].tolist()
    torch.testing.assert_close(products, by_hand.sort(descending=True).values[:, :4])
    assert bank.find_nearest(features, 100)[0].shape == (2, 30)
