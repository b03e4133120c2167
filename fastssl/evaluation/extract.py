"""One pass of a frozen trunk over the samples of a dataset: features of its end points.

Shape legend: B samples of a batch, N samples, G x G patches of a picture, S patch side in pixels,
C channels, H W pixels, D features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from ..models import Trunk
from ..models.base import list_end_points
from ..models.input_spec import InputSpec, cut_grid, make_inputs
from ..models.pooling import Pooling, pool_points

Precision = Literal["fp32", "bf16", "fp16"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRE_LOGITS = "pre_logits"
_IMAGENET_INPUT = InputSpec()


@dataclass(frozen=True)
class Pass(Documented):
    """How a trunk is shown pictures, and what is kept of its end points."""

    spec: InputSpec = _IMAGENET_INPUT
    """What the trunk takes."""
    end_points: tuple[str, ...] = (PRE_LOGITS,)
    """Which are kept."""
    pooling: Pooling = "global"
    """How maps become features."""
    grid: int = 1
    """G: pictures are cut into G x G patches, and features are the mean over those of each."""
    precision: Precision = "fp32"
    """Number format of the forward pass."""
    channels_last: bool = True
    """Memory order of the input and the weights."""


class FeatureBatch(NamedTuple):
    """Features of B samples."""

    sample_ids: Tensor
    """int64 (B,): the ids that were asked for."""
    used_ids: Tensor
    """int64 (B,): the ids whose pixels they are, another where a sample was bad."""
    labels: Tensor | None
    """int64 (B,), -1 where a sample has none; None if the dataset has no labels."""
    features: Mapping[str, Tensor]
    """float32 (B, D) by end point, on the device."""


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


@contextlib.contextmanager
def frozen(trunk: nn.Module) -> Iterator[None]:
    """Run a trunk in evaluation mode, on running statistics; it gets its mode back afterwards."""
    was_training = trunk.training
    trunk.eval()
    try:
        yield
    finally:
        trunk.train(was_training)


def find_end_points(trunk: Trunk, side: int) -> dict[str, tuple[int, ...]]:
    """Return all end points of a trunk, each with its shape without the batch.

    Args:
        trunk: the trunk.
        side: of what it is shown, in pixels.

    Raises:
        InputError: if that is too small for it.
    """
    try:
        return list_end_points(trunk, side)
    except (ValueError, RuntimeError) as error:
        said = str(error).strip().splitlines()[0]
        raise InputError(
            f"trunk '{trunk.name}' does not take pictures of {side} pixels ({said}); choose "
            "another --view-size"
        ) from None


def run_trunk(
    trunk: nn.Module,
    batches: Iterable[Batch],
    setting: Pass,
    device: str | torch.device = "cpu",
) -> Iterator[FeatureBatch]:
    """Run a trunk over batches; it is moved to the device and stays there.

    Args:
        trunk: a ``Trunk``; any module that maps (B, C, H, W) to (B, D) will do for pre_logits.
        batches: with one view a sample.
        setting: what is shown and kept.
        device: where the trunk runs.

    Yields:
        Features, a batch after the other.

    Raises:
        InputError: if batches have several views, the trunk takes another number of channels than
            the spec gives, or a feature is not finite.
    """
    device = torch.device(device)
    _check_channels(trunk, setting.spec)
    order = torch.channels_last if setting.channels_last else torch.contiguous_format
    trunk.to(device).to(memory_format=order)
    with frozen(trunk):
        for batch in batches:
            _check_single_view(batch)
            features = _look(trunk, batch.images[:, 0].to(device, non_blocking=True), setting)
            yield FeatureBatch(batch.sample_ids, batch.used_ids, batch.labels, features)


@torch.inference_mode()
def _look(trunk: nn.Module, images_BHWC: Tensor, setting: Pass) -> dict[str, Tensor]:
    """Return the features of pictures by end point, float32 (B, D)."""
    points = find_points(trunk, prepare_inputs(images_BHWC, setting), setting)
    return pool_points(points, setting.end_points, setting.pooling, len(images_BHWC))


def prepare_inputs(images_BHWC: Tensor, setting: Pass) -> Tensor:
    """Turn pictures into what the trunk takes.

    Args:
        images_BHWC: uint8, on the device.
        setting: what is shown.

    Returns:
        (B, C, H, W), or (B G G, C, S, S) where pictures are cut into patches.
    """
    if setting.grid > 1:
        images_BHWC = cut_grid(images_BHWC, setting.grid)
    return make_inputs(images_BHWC, setting.spec, channels_last=setting.channels_last)


def find_points(trunk: nn.Module, inputs: Tensor, setting: Pass) -> dict[str, Tensor]:
    """Return the end points of a forward pass, those that the setting keeps among them.

    Args:
        trunk: as for ``run_trunk``.
        inputs: of ``prepare_inputs``.
        setting: how the trunk is run.
    """
    autocast = _AUTOCAST.get(setting.precision)
    with torch.autocast(inputs.device.type, autocast, enabled=autocast is not None):
        if setting.end_points == (PRE_LOGITS,):
            return {PRE_LOGITS: trunk(inputs)}
        return trunk.forward_features(inputs)  # type: ignore[operator]


def extract_features(
    trunk: nn.Module,
    loader: OnePass,
    spec: InputSpec = _IMAGENET_INPUT,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    channels_last: bool = True,
) -> Features:
    """Run a trunk over every sample and keep its pre-logits in memory.

    The trunk runs in evaluation mode (running statistics of batch normalisation) and gets its mode
    back afterwards; it is moved to the device and stays there. ``fill_store`` keeps features on
    disk, those of several end points in one pass.

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
    setting = Pass(spec, precision=precision, channels_last=channels_last)
    found = [
        (batch.features[PRE_LOGITS].cpu(), batch.labels, batch.sample_ids)
        for batch in run_trunk(trunk, loader.one_pass(), setting, device)
    ]
    if not found:
        raise InputError("the loader gave no sample to extract features of; check the data set")
    features, labels, ids = zip(*found, strict=True)
    known = [part for part in labels if part is not None]
    has_labels = len(known) == len(labels)
    return Features(torch.cat(features), torch.cat(known) if has_labels else None, torch.cat(ids))


def _check_channels(trunk: nn.Module, spec: InputSpec) -> None:
    wanted = getattr(trunk, "in_channels", spec.channels)
    if wanted != spec.channels:
        raise InputError(
            f"spec ({spec.kind}) gives {spell_number(spec.channels, 'channel')}, trunk "
            f"'{getattr(trunk, 'name', type(trunk).__name__)}' takes {wanted}; give the one that "
            "it was trained with: InputSpec.from_metadata"
        )


def _check_single_view(batch: Batch) -> None:
    if batch.images.shape[1] != 1:
        raise InputError(
            f"the loader gives {batch.images.shape[1]} views a sample, features "
            "need 1; ask for a single view such as ViewSpec.center(256, 224)"
        )
