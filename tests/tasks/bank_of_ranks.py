"""Ten steps of a memory bank beside a slow, plain one; under torchrun every rank holds a part.

``bank_of_ranks.py ROWSxNEGATIVES ...``: fails where the two differ.
"""

from __future__ import annotations

import sys

import torch

from fastssl.tasks.memory_bank import MemoryBank
from fastssl.world import World, join_world

D, B, TEMPERATURE, MOMENTUM = 6, 5, 0.1, 0.4


def contrast_by_hand(feature_VD, memory_NVD, own, negatives):
    """Newell and Deng 2020: the softmax of both views, a sample and a row at a time."""
    losses, is_first = [], []
    for view in range(2):
        kept = [number for number in negatives if number != own]
        scores = [feature_VD[view] @ memory_NVD[n, 1 - view] / TEMPERATURE for n in (own, *kept)]
        losses.append(torch.stack([score.exp() for score in scores]).sum().log() - scores[0])
        is_first.append(all(scores[0] > score for score in scores[1:]))
    return torch.stack(losses), is_first


def compare(world: World, num_rows: int, num_negatives: int) -> MemoryBank:
    """Take steps of two micro-batches; the first one's second sample comes again in the second."""
    bank = MemoryBank(D, num_negatives, TEMPERATURE, MOMENTUM, seed=3)
    table = bank.open(num_rows, world)
    table.rows = table.rows.double()
    memory = torch.cat(world.gather(table.rows)).clone()
    for step in range(10):
        torch.manual_seed(1000 * step + world.rank)
        written = []
        for part in range(2):
            ids = torch.randint(num_rows, (B,))
            ids = torch.where(
                torch.tensor([False, True, False, False, False]), step % num_rows, ids
            )
            draws = bank.draw(ids)
            assert torch.equal(draws["ids"][:, world.rank], ids)
            features = torch.randn(B, 2, D, dtype=torch.float64)
            features = torch.nn.functional.normalize(features, dim=-1).requires_grad_()
            found = bank.contrast(features, draws["ids"], draws["negatives"])
            loss = found.losses_BV.sum(1).mean()
            loss.backward()
            negatives = torch.cat(world.gather(draws["negatives"] + table.first), 2)
            assert negatives.shape[2] == num_negatives
            copy = features.detach().clone().requires_grad_()
            plain = [
                contrast_by_hand(copy[b], memory, int(ids[b]), negatives[b, world.rank].tolist())
                for b in range(B)
            ]
            wanted = torch.stack([losses for losses, _ in plain])
            wanted.sum(1).mean().backward()
            torch.testing.assert_close(found.losses_BV, wanted, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(features.grad, copy.grad, rtol=1e-9, atol=1e-9)
            assert found.is_first_BV.tolist() == [right for _, right in plain]
            everyone = world.gather((ids, features.detach()))
            written += [
                (part, b, rank, *[part_[b] for part_ in everyone[rank]])
                for b in range(B)
                for rank in range(world.size)
            ]
        is_kept = step != 4
        bank.end_step(torch.tensor(is_kept))
        if is_kept:
            last = {int(number): feature for _, _, _, number, feature in written}
            for number, feature in last.items():
                for view in range(2):
                    row = MOMENTUM * memory[number, view] + (1 - MOMENTUM) * feature[view]
                    memory[number, view] = row / row.square().sum().sqrt()
        rows = torch.cat(world.gather(table.rows))
        torch.testing.assert_close(rows, memory, rtol=1e-12, atol=1e-12)
    return bank


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks = join_world("cpu")
    for words in sys.argv[1:]:
        compare(ranks, *map(int, words.split("x")))
    ranks.leave()
