"""Batch norm with a set of parameters and statistics for each tower, weights shared.

Goyal et al. 2019's own Caffe2 code gives each of the P networks that look at the slots of a puzzle
its own batch norm, and carries the first one's over to other tasks.

Shape legend: B images, P towers, C channels, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TowerNorm(nn.Module):
    """P batch norms in one: row ``b * P + p`` of the input meets the p-th.

    They are one batch norm over P x C channels, so that SyncBN and the exemption from weight decay
    hold as they do for any other. The price: in channels_last memory order the rows are copied into
    contiguous order and back, at every layer.
    """

    def __init__(self, norm: nn.BatchNorm2d, num_towers: int) -> None:
        """Repeat a batch norm for every tower.

        Args:
            norm: whose parameters and statistics each tower begins with.
            num_towers: P.
        """
        super().__init__()
        self.num_towers = num_towers
        self.norm = nn.BatchNorm2d(
            num_towers * norm.num_features, norm.eps, norm.momentum, norm.affine
        )
        with torch.no_grad():
            for own, other in zip(_vectors(self.norm), _vectors(norm), strict=True):
                own.copy_(other.repeat(num_towers))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B * P, C, H, W) to the same shape.

        Raises:
            ValueError: if the rows are no multiple of P.
        """
        if len(x) % self.num_towers:
            raise ValueError(
                f"a trunk with {self.num_towers} towers takes {self.num_towers} patches of every "
                f"image, got {len(x)} rows; export it to look at single images"
            )
        wide = x.unflatten(0, (-1, self.num_towers)).flatten(1, 2)
        return self.norm(wide).unflatten(1, (self.num_towers, -1)).flatten(0, 1)


def _vectors(norm: nn.Module) -> list[Tensor]:
    named = norm.state_dict(keep_vars=True)
    names = ("weight", "bias", "running_mean", "running_var")
    return [named[name] for name in names if name in named]


def split_batch_norms(trunk: nn.Module, num_towers: int) -> None:
    """Give every batch norm of a trunk P sets of parameters and statistics, in place.

    Args:
        trunk: whose ``BatchNorm2d`` parts are exchanged.
        num_towers: P, the rows of the batch that belong to one image.
    """
    for name, part in trunk.named_children():
        if isinstance(part, nn.BatchNorm2d):
            setattr(trunk, name, TowerNorm(part, num_towers))
        elif not isinstance(part, TowerNorm):
            split_batch_norms(part, num_towers)


def first_tower_state(trunk: nn.Module) -> tuple[dict[str, Tensor], int]:
    """Return a trunk's weights as ``build_trunk`` names and shapes them.

    Args:
        trunk: with or without towers.

    Returns:
        The state with the first tower's batch norms, and P; P is 1 where there are no towers.
    """
    towers = {name: part for name, part in trunk.named_modules() if isinstance(part, TowerNorm)}
    num_towers = next(iter(towers.values())).num_towers if towers else 1
    state = {}
    for key, value in trunk.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        name = owner.removesuffix(".norm")
        if name != owner and name in towers:
            key = f"{name}.{leaf}"
            value = value[: len(value) // num_towers] if value.dim() else value
        state[key] = value
    return state, num_towers
