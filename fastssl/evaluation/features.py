"""Features of every sample of a data set, from one pass of a frozen trunk.

Shape legend: N samples, B of a batch, D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..errors import InputError
from ..models.input_spec import InputSpec, make_inputs

_IMAGENET_INPUT = InputSpec()
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Features(NamedTuple):
    """Features of N samples, in id order, on the CPU."""

    features: Tensor
    """float32 (N, D)."""
    labels: Tensor | None
    """int64 (N,), -1 where a sample has none; None if the data set has no labels."""
    sample_ids: Tensor
    """int64 (N,)."""


class OnePass(Protocol):
    """What is asked of a loader: every sample once."""

    def one_pass(self) -> Iterable[Batch]:
        """Yield batches in id order."""


@torch.inference_mode()
def extract_features(
    trunk: nn.Module,
    loader: OnePass,
    spec: InputSpec = _IMAGENET_INPUT,
    device: str | torch.device = "cpu",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    channels_last: bool = True,
) -> Features:
    """Run a trunk over every sample and keep its pre-logits.

    The trunk runs in evaluation mode (running statistics of batch normalisation) and gets its mode
    back afterwards; it is moved to the device and stays there.

    Args:
        trunk: maps (B, C, H, W) to (B, D).
        loader: with one view a sample; ``one_pass`` does not move its stream.
        spec: what the trunk takes; of one that was exported ``InputSpec.from_metadata``. Without it
            ImageNet's mean and deviation, as of torchvision's networks.
        device: where the trunk runs.
        precision: number format of the forward pass; the features are float32 in any case.
        channels_last: memory order of the input and the weights.

    Returns:
        The features, labels and ids of this rank's samples.

    Raises:
        InputError: if the loader gives several views a sample, or no sample at all, or the trunk
            takes another number of channels than the spec gives.
    """
    device = torch.device(device)
    _check_channels(trunk, spec)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    trunk.to(device).to(memory_format=memory_format)
    was_training = trunk.training
    trunk.eval()
    rows, ids = [], []
    labels: list[Tensor] = []
    has_labels = True
    try:
        for batch in loader.one_pass():
            _check_single_view(batch)
            images = batch.images[:, 0].to(device, non_blocking=True)
            inputs = make_inputs(images, spec, channels_last=channels_last)
            with torch.autocast(
                device.type, _AUTOCAST.get(precision), enabled=precision in _AUTOCAST
            ):
                rows.append(trunk(inputs).float().cpu())
            ids.append(batch.sample_ids)
            if batch.labels is None:
                has_labels = False
            else:
                labels.append(batch.labels)
    finally:
        trunk.train(was_training)
    if not rows:
        raise InputError("the loader gave no sample to extract features of; check the data set")
    return Features(torch.cat(rows), torch.cat(labels) if has_labels else None, torch.cat(ids))


def _check_channels(trunk: nn.Module, spec: InputSpec) -> None:
    wanted = getattr(trunk, "in_channels", spec.channels)
    if wanted != spec.channels:
        raise InputError(
            f"spec ({spec.kind}) gives {spec.channels} channel(s), trunk "
            f"'{getattr(trunk, 'name', type(trunk).__name__)}' takes {wanted}; give the one that "
            "it was trained with: InputSpec.from_metadata"
        )


def _check_single_view(batch: Batch) -> None:
    if batch.images.shape[1] != 1:
        raise InputError(
            f"the loader gives {batch.images.shape[1]} views a sample, features need 1; "
            "ask for a single view such as ViewSpec.center(256, 224)"
        )
