"""What every trunk is: its size, its named end points, and the stages that may be frozen.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ..errors import InputError

Layers = Mapping[str, tuple[str, ...]]


class Trunk(nn.Module, abc.ABC):
    """A network without its task: images in, features out."""

    layers: ClassVar[Layers]
    """Of each end point with weights of its own, in order: the children that hold them."""

    name: str
    """The name that ``build_trunk`` knows it by."""
    width: int
    """The width that it was built with."""
    num_features: int
    """D, the features of its pre-logits."""
    min_side: int
    """Smallest side of an image that it takes, in pixels."""
    in_channels: int = 3
    """Channels of an image that it takes; 3, or 1 for lightness alone."""
    num_frozen: int = 0
    """Stages that do not learn, from the first."""

    @abc.abstractmethod
    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the named end points, pre_logits (B, D) the last of them.

        Args:
            x: normalised images (B, in_channels, H, W), sides at least ``min_side``.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to pre-logits (B, D)."""
        return self.forward_features(x)["pre_logits"]

    def stages(self) -> dict[str, list[nn.Module]]:
        """Return the stages: end points in order, each with the modules that hold its weights.

        An end point without weights, such as a pool, is no stage; every weight is in one.
        """
        return {
            name: [self.get_submodule(child) for child in children]
            for name, children in self.layers.items()
        }

    def freeze(self, num_stages: int) -> None:
        """Let the first stages learn nothing: no gradient, and batch norms in evaluation mode.

        Args:
            num_stages: 0 lets all learn; the number of all stages freezes the whole trunk.

        Raises:
            InputError: if there are not so many; lists them.
        """
        stages = self.stages()
        if not 0 <= num_stages <= len(stages):
            listed = ", ".join(f"{number} {name}" for number, name in enumerate(stages, 1))
            raise InputError(
                f"frozen_stages ({num_stages}) must lie in 0 .. {len(stages)}, the stages of trunk "
                f"'{self.name}': {listed}; set --frozen-stages to one of them, or 0 for none"
            )
        self.num_frozen = num_stages
        for number, modules in enumerate(stages.values()):
            for module in modules:
                module.requires_grad_(number >= num_stages)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, but for the frozen stages: their running statistics stay."""
        super().train(mode)
        for modules in [*self.stages().values()][: self.num_frozen]:
            for module in modules:
                module.eval()
        return self


class LocalTrunk(Trunk):
    """A trunk that also gives vectors of places, of two sizes: AMDIM predicts them."""

    local_channels: tuple[int, int]
    """Channels of the finer and of the coarser map of ``forward_local``."""

    @abc.abstractmethod
    def forward_local(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a finer map, a coarser one (B, C, H, W) and pre_logits (B, D) of one pass.

        Args:
            x: normalised images (B, in_channels, H, W), sides at least ``min_side``.
        """


class RegionTrunk(Trunk):
    """A trunk in two parts: a map of the whole picture, and what follows on regions of that map.

    Both parts behind one another are the trunk's forward pass, but for the pool that regions are
    cut out by. So detectors take it apart (Girshick 2015; Ren et al. 2015 with ResNets: C4).
    """

    region_side: ClassVar[int] = 14
    """Places a side that a region of the map has for the second part."""
    body: ClassVar[str]
    """The last stage of the first part."""

    @abc.abstractmethod
    def forward_map(self, x: Tensor) -> Tensor:
        """Return the map (B, C, H', W').

        Args:
            x: normalised images (B, in_channels, H, W), sides at least ``min_side``.
        """

    @abc.abstractmethod
    def forward_regions(self, regions: Tensor) -> Tensor:
        """Map regions of it (N, C, region_side, region_side) to pre-logits (N, D)."""


@torch.inference_mode()
def list_end_points(trunk: Trunk, side: int) -> dict[str, tuple[int, ...]]:
    """Return the end points of a trunk and the shape of each, without the batch.

    Args:
        trunk: is run once on an empty picture, in evaluation mode.
        side: of that picture in pixels.
    """
    was_training = trunk.training
    parameter = next(trunk.parameters())
    picture = torch.zeros(1, trunk.in_channels, side, side, device=parameter.device)
    trunk.eval()
    try:
        points = trunk.forward_features(picture.to(parameter.dtype))
    finally:
        trunk.train(was_training)
    return {name: tuple(value.shape[1:]) for name, value in points.items()}


def check_end_points(
    trunk: Trunk, wanted: Iterable[str], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """See that a trunk has the end points that are wanted.

    Args:
        trunk: the trunk.
        wanted: names.
        shapes: what it has, from ``list_end_points``.

    Raises:
        InputError: names one that it lacks, and lists those that it has.
    """
    for name in wanted:
        if name not in shapes:
            raise InputError(
                f"trunk '{trunk.name}' has no end point '{name}'; it has {', '.join(shapes)}"
            )
