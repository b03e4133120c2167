"""What a training step of a trunk keeps in memory, known before it starts.

Shape legend: B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..fields import Documented
from .trunks import build_trunk


@dataclass(frozen=True)
class MemoryEstimate(Documented):
    """Bytes of a training step, without what lives only for a moment."""

    weights: int
    """Parameters and buffers."""
    gradients: int
    """One gradient for each parameter."""
    optimizer: int
    """One momentum for each parameter (SGD); Adam has twice that."""
    activations: int
    """What autograd keeps from the forward pass for the backward pass, the images included."""

    def least(self, keeps_gradients: bool, activations: int | None = None) -> int:
        """Return what a step surely holds at one time.

        Args:
            keeps_gradients: whether there are gradients while the forward pass runs: DDP and
                accumulation keep them; else they come as the activations go.
            activations: in place of its own.
        """
        kept = self.activations if activations is None else activations
        passing = kept + self.gradients if keeps_gradients else max(kept, self.gradients)
        return self.weights + self.optimizer + passing

    @property
    def total(self) -> int:
        """The sum; without DDP or accumulation a step takes up to ``gradients`` less."""
        return self.weights + self.gradients + self.optimizer + self.activations


def count_saved_bytes(network: nn.Module, images: Tensor) -> int:
    """Count what a forward pass keeps for the backward pass.

    Args:
        network: maps the images to a tensor; its parameters and buffers are not counted.
        images: (B, C, H, W), on the network's device; "meta" computes nothing.

    Returns:
        Bytes, the images included; memory that several tensors share is counted once.
    """
    own = [*network.parameters(), *network.buffers()]
    return count_kept_bytes(lambda: network(images), [images], own)


def count_kept_bytes(
    forward: Callable[[], Any], inputs: Iterable[Tensor], own: Iterable[Tensor]
) -> int:
    """Count what a forward pass keeps for the backward pass.

    Args:
        forward: runs it, and returns what hangs on to it.
        inputs: counted, kept or not.
        own: parameters and buffers, not counted.

    Returns:
        Bytes; memory that several tensors share is counted once.
    """
    skipped = {tensor.untyped_storage()._cdata for tensor in own}
    kept: dict[int, Tensor] = {tensor.untyped_storage()._cdata: tensor for tensor in inputs}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # The output lives as long as what it stands on.
        _output = forward()
    storages = [tensor.untyped_storage() for key, tensor in kept.items() if key not in skipped]
    return sum(storage.nbytes() for storage in storages)


def estimate_training_memory(
    name: str, width: int, batch_size: int, side: int, momentums: int = 1
) -> MemoryEstimate:
    """Estimate the memory of a training step in float32, in a second and without taking any.

    What is held at the border between forward and backward pass. To it come the head, the
    convolutions' scratch memory and what lives only for a moment: of a ResNet-50 about as much as
    the gradients that are not there yet, of a RevNet-50 two to three times its activations.

    Args:
        name: of the trunk.
        width: of the trunk.
        batch_size: images on one device.
        side: of the images, in pixels.
        momentums: tensors that the optimiser keeps for each parameter; SGD 1, Adam 2.

    Returns:
        The bytes by what they are for.

    Raises:
        InputError: if the name is not known or the width is out of range.
    """
    with torch.device("meta"):
        trunk = build_trunk(name, width)
        images = torch.empty(batch_size, trunk.in_channels, side, side)
    parameters = sum(part.numel() * part.element_size() for part in trunk.parameters())
    buffers = sum(part.numel() * part.element_size() for part in trunk.buffers())
    return MemoryEstimate(
        weights=parameters + buffers,
        gradients=parameters,
        optimizer=momentums * parameters,
        activations=count_saved_bytes(trunk, images),
    )
