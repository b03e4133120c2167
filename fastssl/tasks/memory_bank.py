"""A memory of what a network said of every sample, and the contrast of two views against it.

Tian et al. 2019 in the form of Newell and Deng 2020: what the network says now of one view of a
sample is scored against what the memory holds of the *other* view, of the same sample and of K
others, and a softmax over the K + 1 scores is to find the sample's own.

Each rank holds some of the rows. Rows never travel, they are too many: every rank scores what all
ranks say now against those negatives that it holds, and the softmax is put together from the parts.

Shape legend: N rows of a rank, V = 2 views, D features of a view, W ranks, B samples of a rank,
M = W x B of all, K negatives of a sample, R those of them that a rank holds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from ..world import World
from .divided_table import DividedTable

NUM_VIEWS = 2
_ROWS_OF_A_BLOCK = 4096
# Rows that are gathered at a time: on a CPU what its cache holds, on a GPU enough to keep it busy.
_GATHERED_BYTES = {"cpu": 1 << 23, "cuda": 1 << 29}


class Parts(NamedTuple):
    """What the negatives that a rank holds add to the softmax of M samples."""

    greatest_MV: Tensor
    """Their greatest score; the least finite number where there are none."""
    sums_MV: Tensor
    """Sum of exp(score - greatest)."""
    rows_MVD: Tensor
    """Sum of exp(score - greatest) x row, the row of the view that it was scored with."""


class Contrast(NamedTuple):
    """What B samples pay."""

    losses_BV: Tensor
    """Cross-entropy of each view; carries the gradient."""
    is_first_BV: Tensor
    """bool: whether a sample's own row has a greater score than all of its negatives."""


class MemoryBank:
    """A row a sample: what the network said of its views, averaged over the sample's visits."""

    def __init__(
        self, num_features: int, num_negatives: int, temperature: float, momentum: float, seed: int
    ) -> None:
        """Say what it is; ``open`` makes the rows.

        Args:
            num_features: D.
            num_negatives: K.
            temperature: what scores are divided by.
            momentum: share of a row that stays when its sample comes by.
            seed: of what rows begin with.
        """
        self.row_shape = NUM_VIEWS, num_features
        self.num_negatives = num_negatives
        self.temperature = temperature
        self.momentum = momentum
        self.seed = seed
        self.table: DividedTable | None = None
        self._world = World(0, 1, torch.device("cpu"), None)
        self._noted: list[tuple[Tensor, Tensor]] = []
        # As a decorator it would import torch._dynamo with fastssl: 1.6 s of every command's start.
        self.contrast = torch.compiler.disable(self._contrast)
        """Scores features against the memory, outside of compiled graphs; see ``_contrast``."""

    def open(self, num_rows: int, world: World) -> DividedTable:
        """Make this rank's rows: uniform around 0 with a variance of 1 / D (Wu et al. 2018).

        Args:
            num_rows: of all ranks.
            world: the ranks.
        """
        self._world = world
        self.table = table = DividedTable(num_rows, self.row_shape, torch.float32, world)
        reach = (3 / self.row_shape[1]) ** 0.5
        # Whole blocks of numbers, so that whoever holds a row begins with the same in it.
        first = table.first // _ROWS_OF_A_BLOCK * _ROWS_OF_A_BLOCK
        for begin in range(first, table.stop, _ROWS_OF_A_BLOCK):
            generator = torch.Generator().manual_seed((self.seed + begin) % 2**63)
            block = torch.empty(_ROWS_OF_A_BLOCK, *self.row_shape)
            block.uniform_(-reach, reach, generator=generator)
            low, high = max(begin, table.first), min(begin + _ROWS_OF_A_BLOCK, table.stop)
            table.rows[low - table.first : high - table.first] = block[low - begin : high - begin]
        return table

    def draw(self, ids_B: Tensor) -> dict[str, Tensor]:
        """Meet the other ranks' samples and draw the negatives of all; a collective call.

        The negatives of a sample are K rows of the whole table, uniform, with replacement. How many
        of them each rank holds is drawn once for all samples, which of its rows those are by each
        rank for every sample: for a single sample that is the same as drawing them one by one.

        Args:
            ids_B: int64 on the CPU.

        Returns:
            ``ids`` int64 (B, W), a column for each rank's samples, and ``negatives`` int32
            (B, W, R), this rank's rows as it counts them; on its device.
        """
        world, table = self._world, self.table
        num_rows, num_own = (1, 1) if table is None else (table.num_rows, len(table.rows))
        salt = int(torch.randint(2**62, ()))
        ids, salts = zip(*world.gather((ids_B, salt)), strict=True)
        stops = [(rank + 1) * num_rows // world.size for rank in range(world.size)]
        shares = np.diff(stops, prepend=0) / num_rows
        # torch has no multinomial of counts; numpy's is drawn from rank 0's generator.
        counts = np.random.Generator(np.random.Philox(salts[0])).multinomial(
            self.num_negatives, shares
        )
        negatives = torch.randint(
            max(num_own, 1),
            (len(ids_B), world.size, int(counts[world.rank])),
            dtype=torch.int32,
            device=world.device,
        )
        return {"ids": torch.stack(ids, 1).to(world.device), "negatives": negatives}

    def _contrast(self, features_BVD: Tensor, ids_BW: Tensor, negatives_BWR: Tensor) -> Contrast:
        """Score features against the memory and note them for ``end_step``; a collective call.

        Args:
            features_BVD: of this rank's samples, each of length 1.
            ids_BW: from ``draw``.
            negatives_BWR: likewise.

        Returns:
            The losses, differentiable once by the features; the rows have no gradient.
        """
        world, table = self._world, self.table
        with torch.no_grad(), torch.autocast(features_BVD.device.type, enabled=False):
            own = features_BVD.detach()
            rows, first = own.new_zeros(1, *self.row_shape), 0
            if table is not None:
                rows, first = table.rows, table.first
            # In the order of their places in the global batch: rank r has those that are r mod W.
            everyone = world.stack(own.to(rows.dtype)).transpose(0, 1).flatten(0, 1)
            places_M = ids_BW.flatten() - first
            negatives_MR = negatives_BWR.flatten(0, 1)
            if table is not None:
                self._noted.append((places_M, everyone))
            parts = score_negatives(everyone, rows, places_M, negatives_MR, self.temperature)
            positives = _take_rows(rows, places_M)
            parts, positives = self._merge(parts, positives)
            mine = slice(world.rank, None, world.size)
            values = weigh(
                everyone[mine],
                positives[mine],
                Parts(*(part[mine] for part in parts)),
                self.temperature,
            )
        losses, gradients, is_first = values
        gradients = gradients.to(features_BVD.dtype)
        return Contrast(_Paid.apply(features_BVD, losses, gradients), is_first)

    def end_step(self, is_kept: Tensor) -> None:
        """Move the rows of the samples that have been scored since the last call.

        A row becomes momentum x old + (1 - momentum) x new, scaled to length 1 a view. It moves
        once, towards what was said last where a sample stood in the step more than once.

        Args:
            is_kept: bool scalar; False forgets what was noted.
        """
        noted, self._noted = self._noted, []
        if not noted or self.table is None:
            return
        places, features = (torch.cat(parts) for parts in zip(*noted, strict=True))
        rows = self.table.rows
        ordered, order = places.sort(stable=True)
        is_last = torch.ones_like(ordered, dtype=torch.bool)
        is_last[:-1] = ordered[1:] != ordered[:-1]
        chosen = order[is_last & _is_inside(ordered, rows)]
        old = rows[places[chosen]]
        new = self.momentum * old + (1 - self.momentum) * features[chosen]
        new = functional.normalize(new, dim=-1)
        rows[places[chosen]] = torch.where(is_kept, new, old)

    def find_nearest(self, features_QVD: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Find the samples whose rows lie nearest, among this rank's.

        Args:
            features_QVD: each of length 1.
            count: rows wanted of each.

        Returns:
            Their ids int64 (Q, count), the nearest first, and the mean of both views' products;
            fewer where there are not so many rows, none before they are made.
        """
        rows, first = features_QVD.new_zeros(0, *self.row_shape), 0
        if self.table is not None:
            rows, first = self.table.rows, self.table.first
        products = features_QVD.flatten(1).to(rows.dtype) @ rows.flatten(1).T / NUM_VIEWS
        found = products.topk(min(count, len(rows)))
        return found.indices + first, found.values

    def _merge(self, parts: Parts, positives_MVD: Tensor) -> tuple[Parts, Tensor]:
        """Add up what all ranks hold; M x V x (2 D + 2) numbers travel."""
        world = self._world
        if world.size == 1:
            return parts, positives_MVD
        greatest = world.greatest(parts.greatest_MV.clone())
        scale = (parts.greatest_MV - greatest).exp()[..., None]
        sums = parts.sums_MV[..., None] * scale
        packed = world.total(torch.cat([sums, parts.rows_MVD * scale, positives_MVD], -1))
        num = self.row_shape[1]
        merged, rows, positives = packed.split([1, num, num], -1)
        return Parts(greatest, merged[..., 0], rows), positives


def score_negatives(
    features_MVD: Tensor,
    rows_NVD: Tensor,
    places_M: Tensor,
    negatives_MR: Tensor,
    temperature: float,
) -> Parts:
    """Score each sample against its negatives; the rows of a few samples are gathered at a time.

    Args:
        features_MVD: what the network says of the samples.
        rows_NVD: of the memory, of the same type.
        places_M: int64, each sample's own row; it is no negative even where it was drawn.
        negatives_MR: int32, rows.
        temperature: what scores are divided by.
    """
    num_samples, num_negatives = negatives_MR.shape
    least = torch.finfo(rows_NVD.dtype).min
    parts = Parts(
        features_MVD.new_full(features_MVD.shape[:2], least),
        features_MVD.new_zeros(features_MVD.shape[:2]),
        torch.zeros_like(features_MVD),
    )
    if num_negatives == 0:
        return parts
    row_bytes = rows_NVD[:1].numel() * rows_NVD.element_size()
    step = max(1, _GATHERED_BYTES[rows_NVD.device.type] // (num_negatives * row_bytes))
    step = min(step, num_samples)
    # Lent to every turn: fresh memory costs a CPU more than gathering into it.
    gathered = rows_NVD.new_empty(step * num_negatives, *rows_NVD.shape[1:])
    for begin in range(0, num_samples, step):
        few = slice(begin, begin + step)
        chosen = negatives_MR[few]
        taken = gathered[: chosen.numel()]
        torch.index_select(rows_NVD, 0, chosen.flatten(), out=taken)
        rows = taken.unflatten(0, chosen.shape)
        hidden = chosen == places_M[few, None]
        for view in range(NUM_VIEWS):
            other = rows[:, :, 1 - view]
            scores = torch.bmm(other, features_MVD[few, view, :, None])[..., 0] / temperature
            scores.masked_fill_(hidden, -torch.inf)
            greatest = scores.amax(1).clamp(min=least)
            scores = (scores - greatest[:, None]).exp_()
            parts.greatest_MV[few, view] = greatest
            parts.sums_MV[few, view] = scores.sum(1)
            parts.rows_MVD[few, view] = torch.bmm(scores[:, None], other)[:, 0]
    return parts


def weigh(
    features_BVD: Tensor, positives_BVD: Tensor, parts: Parts, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Finish the softmax with the samples' own rows.

    Args:
        features_BVD: what the network says of the samples.
        positives_BVD: their own rows of the other view.
        parts: of all their negatives.
        temperature: what scores are divided by.

    Returns:
        Losses (B, V), their gradients by the features (B, V, D), and whether the own row has the
        greatest score, bool (B, V).
    """
    positive = (features_BVD * positives_BVD).sum(-1) / temperature
    greatest = torch.maximum(positive, parts.greatest_MV)
    of_negatives, of_positive = (parts.greatest_MV - greatest).exp(), (positive - greatest).exp()
    total = parts.sums_MV * of_negatives + of_positive
    rows = parts.rows_MVD * of_negatives[..., None] + positives_BVD * of_positive[..., None]
    gradients = (rows / total[..., None] - positives_BVD) / temperature
    return greatest - positive + total.log(), gradients, positive > parts.greatest_MV


def _take_rows(rows_NVD: Tensor, places_M: Tensor) -> Tensor:
    """Return the samples' own rows, the views exchanged; zeros for rows that are not held here."""
    if len(rows_NVD) == 0:
        return rows_NVD.new_zeros(len(places_M), *rows_NVD.shape[1:])
    taken = rows_NVD[places_M.clamp(0, len(rows_NVD) - 1)].flip(1)
    return taken * _is_inside(places_M, rows_NVD)[:, None, None]


def _is_inside(places_M: Tensor, rows_NVD: Tensor) -> Tensor:
    return (places_M >= 0) & (places_M < len(rows_NVD))


class _Paid(torch.autograd.Function):
    """Losses whose gradients are known already."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, features_BVD: Tensor, losses_BV: Tensor, gradients_BVD: Tensor
    ) -> Tensor:
        del features_BVD
        ctx.save_for_backward(gradients_BVD)
        return losses_BV

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradients_BVD,) = ctx.saved_tensors  # type: ignore[attr-defined]
        (grad_BV,) = grads
        return (grad_BV[..., None] * gradients_BVD).to(gradients_BVD.dtype), None, None
