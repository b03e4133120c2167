"""The semi-hard triplet loss (Schroff et al. 2015), by the rule of TensorFlow's contrib.

Shape legend: G groups that know nothing of each other, N embeddings of each, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_SQUARE = 1e-12


def normalize_embeddings(embeddings_GND: Tensor, axis: str) -> Tensor:
    """Scale embeddings, or their coordinates, to a length of 1.

    Args:
        embeddings_GND: floating.
        axis: ``embedding`` gives each embedding a length of 1, ``batch`` each coordinate over the N
            of a group, ``none`` leaves them as they are.
    """
    if axis == "none":
        return embeddings_GND
    dim = {"embedding": -1, "batch": 1}[axis]
    square = embeddings_GND.square().sum(dim, keepdim=True)
    return embeddings_GND * square.clamp(min=_LEAST_SQUARE).rsqrt()


def pair_distances(embeddings_GND: Tensor) -> Tensor:
    """Return the squared Euclidean distances of each group, (G, N, N), not negative."""
    square = embeddings_GND.square().sum(-1)
    product = embeddings_GND @ embeddings_GND.mT
    return (square[:, :, None] + square[:, None] - 2 * product).clamp(min=0)


def semihard_loss(distances_GNN: Tensor, labels_GN: Tensor, margin: float) -> Tensor:
    """Mine a negative for every pair of equal labels and return the mean hinge.

    For each anchor and positive the nearest negative that is farther than the positive; where
    there is none, the farthest negative. An anchor without any negative costs nothing.

    Args:
        distances_GNN: floating, squared distances.
        labels_GN: integers; embeddings of one label are never negatives of each other.
        margin: that a negative should be farther than the positive.

    Returns:
        Scalar: the mean of max(0, margin + d(anchor, positive) - d(anchor, negative)).
    """
    is_same = labels_GN[:, :, None] == labels_GN[:, None]
    with torch.no_grad():
        negatives = distances_GNN.masked_fill(is_same, torch.inf)
        ascending, numbers = negatives.sort(-1)
        num_negatives = (~is_same).sum(-1, keepdim=True)
        place = torch.searchsorted(ascending, distances_GNN.contiguous(), right=True)
        # Behind the last negative: there is none farther, and the farthest it is.
        mined = numbers.gather(-1, torch.minimum(place, num_negatives - 1).clamp(min=0))
        itself = torch.eye(labels_GN.shape[1], dtype=torch.bool, device=labels_GN.device)
        is_pair = is_same & ~itself & (num_negatives > 0)
    hinge = (margin + distances_GNN - distances_GNN.gather(-1, mined)).clamp(min=0)
    return torch.where(is_pair, hinge, 0.0).sum() / is_pair.sum().clamp(min=1)


def find_nearest(distances_GNN: Tensor) -> Tensor:
    """Return the number of the nearest other embedding, int64 (G, N)."""
    itself = torch.eye(distances_GNN.shape[1], dtype=torch.bool, device=distances_GNN.device)
    return distances_GNN.detach().masked_fill(itself, torch.inf).argmin(-1)
