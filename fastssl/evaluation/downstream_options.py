"""What downstream evaluations are asked for: trunk, labels, length; see ``downstream``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ..config import LogConfig
from ..errors import InputError
from ..fields import Count, CountOrZero, Range
from ..models.downstream_heads import HeadName
from ..randomness import Seed
from .setting import TrunkOptions


@dataclass(frozen=True)
class DownstreamEvaluation(TrunkOptions):
    """A head and a trunk that learns with it, by labels of which there may be few."""

    protocol: Literal["own", "newell20", "goyal19"] = "newell20"
    """Whose views and course: Newell and Deng 2020's; or random crops of photographs at what the
    trunk takes."""
    seed: Seed = 0
    """Seed of fresh weights and of all that is drawn in training."""
    from_scratch: bool = False
    """Begin with fresh weights by the seed, of the network that --trunk and --width name or that
    the checkpoint is of."""
    num_labels: CountOrZero = 0
    """Images that are learnt from, the first of one shuffle; 0 is all."""
    split_seed: Seed = 0
    """Seed of that shuffle, and of the split where there is no test path; --seed draws all else."""
    frozen_stages: Annotated[int, Range(0, 1000)] = 0
    """Stages of the trunk that do not learn, from the first; docs/trunks.md names them."""
    head: HeadName = "linear"
    """One Linear layer; or a hidden one of the features' number with BN and ReLU before it."""
    epochs: Annotated[float, Range(0, 1_000_000)] = 0.0
    """Length in passes over the images that are learnt from; 0 is the protocol's."""
    max_steps: CountOrZero = 0
    """Length in steps instead, over which the rate rises and falls; 0 is by epochs."""
    global_batch_size: Annotated[int, Range(0, 1_000_000)] = 0
    """Images a step over all ranks, which few images fill several times; 0 is the protocol's."""
    lr: Annotated[float, Range(0, 1e30)] = 0.0
    """Peak of the learning rate, whatever the batch; 0 is the protocol's."""
    head_lr_factor: Annotated[float, Range(0, 1000)] = 1.0
    """Rate of the head over that of the trunk."""
    accumulation: Count = 1
    """Micro-batches a step on each rank."""
    checkpoint_every_steps: Count = 1000
    """Steps between checkpoints."""
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    """Logs of the training."""
    output_dir: Path | None = None
    """Run directory of the training; without it one in "downstream" beside the trunk, from scratch
    beside the result."""

    def check(self) -> None:
        """Refuse two lengths."""
        if self.epochs and self.max_steps:
            raise InputError(
                f"epochs ({self.epochs:g}) and max_steps ({self.max_steps}) are two lengths; give "
                "one of them"
            )


@dataclass(frozen=True)
class FinetuneEvaluation(DownstreamEvaluation):
    """Classification, by one label an image or several: all learns, or all but the first stages."""

    protocol: Literal["own", "newell20", "goyal19"] = "own"
    """Whose views and course: random crops of photographs at what the trunk takes; those of Newell
    and Deng 2020; or those of Goyal et al. 2019 on VOC07, by the trunk."""


@dataclass(frozen=True)
class PoseEvaluation(DownstreamEvaluation):
    """Pose of an object, one of five, with the whole network or all but its first stages."""

    protocol: Literal["newell20"] = "newell20"
    """Whose views and course: Newell and Deng 2020's."""


@dataclass(frozen=True)
class SegmentationEvaluation(DownstreamEvaluation):
    """Classes at every place of the trunk's last map."""

    protocol: Literal["newell20"] = "newell20"
    """Whose views and course: Newell and Deng 2020's."""
    num_classes: Annotated[int, Range(2, 255)] = 11
    """Classes that are told apart, background, 0, among them; 255 does not count."""


@dataclass(frozen=True)
class DepthEvaluation(DownstreamEvaluation):
    """Depth at every place of the trunk's last map."""

    protocol: Literal["newell20"] = "newell20"
    """Whose views and course: Newell and Deng 2020's."""


@dataclass(frozen=True)
class NormalsEvaluation(DownstreamEvaluation):
    """Surface normals of photographs (NYUv2) at every place of the trunk's last map."""

    protocol: Literal["own"] = "own"
    """Whose course: no sheet says that of Goyal et al. 2019, whose clusters and figures these
    are."""
    num_clusters: Annotated[int, Range(2, 10_000)] = 40
    """Directions that normals are clustered to, by those of the images that are learnt from."""


DOWNSTREAM: dict[str, type[DownstreamEvaluation]] = {
    "finetune": FinetuneEvaluation,
    "pose": PoseEvaluation,
    "segmentation": SegmentationEvaluation,
    "depth": DepthEvaluation,
    "normals": NormalsEvaluation,
}
"""By name: what it takes."""
