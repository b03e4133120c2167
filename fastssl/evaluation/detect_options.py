"""What the evaluation by detection is asked for, and how it is trained; see ``detect``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..config import (
    CheckpointConfig,
    LoaderConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)
from ..errors import InputError
from ..fields import Count, CountOrZero, Range
from ..models.detection import Pooling
from ..randomness import Seed
from ..tasks.detection import PROPOSALS, DetectionConfig, DetectorName
from ..views import MAX_SIDE
from .setting import TrunkOptions
from .subject import Subject

_SHORT, _LONG = 600, 1000
_LR, _BATCH, _WEIGHT_DECAY = 0.002, 4, 5e-4
_WARMUP_STEPS, _WARMUP_START = 500, 1 / 3
_OWN_EPOCHS, _OWN_STEPS = 12, 2000


@dataclass(frozen=True)
class DetectEvaluation(TrunkOptions):
    """Fast or Faster R-CNN on a trunk: objects found in pictures, by average precision."""

    protocol: Literal["own", "voc07", "voc0712"] = "own"
    """Whose course: of Goyal et al. 2019 on VOC 2007 or on VOC 2007 and 2012, 11-point average
    precision first; or a shorter one for data of your own, all points first."""
    detector: DetectorName = "fast_rcnn"
    """fast_rcnn is given proposals; faster_rcnn makes them itself."""
    proposals: Annotated[Path, tyro.conf.arg(metavar="FOLDER|FILE")] = Path()
    """Boxes that may hold objects, of the pictures of --data.path: the folder that fastssl
    proposals wrote, or its proposals.npy."""
    test_proposals: Annotated[Path, tyro.conf.arg(metavar="FOLDER|FILE")] = Path()
    """Those of --data.test-path."""
    seed: Seed = 0
    """Seed of fresh weights and of all that is drawn in training."""
    split_seed: Seed = 0
    """Seed of the split where there is no test path."""
    from_scratch: bool = False
    """Begin with fresh weights by the seed, of the network that --trunk and --width name or that
    the checkpoint is of."""
    frozen_stages: Annotated[int, Range(0, 1000)] = 2
    """Stages of the trunk that do not learn, from the first: 4 of a ResNet is the frozen body
    (through res4), 2 the full form (conv1 and res2); docs/trunks.md names them."""
    view_size: Annotated[int, Range(0, MAX_SIDE)] = 0
    """Short side of pictures in pixels; 0 is 600."""
    long_side: Annotated[int, Range(0, MAX_SIDE)] = 0
    """Most pixels of the long side; 0 is 5/3 of the short one."""
    short_sides: Annotated[tuple[int, ...], Range(1, MAX_SIDE)] = ()
    """Short sides of pictures that are learnt from, of which one is drawn each time; () is the one
    that is tested on."""
    pooling: Pooling = "roi_pool"
    """How regions are cut out of the trunk's map: roi_pool as published, or roi_align."""
    regions: Annotated[int, Range(1, 100_000)] = 64
    """Regions of a picture that are learnt from, a quarter of them at most of objects."""
    max_proposals: Annotated[int, Range(1, 100_000)] = 2000
    """Proposals of a picture that are looked at, the first; of faster_rcnn those it makes in
    training, and at most 1,000 in tests."""
    anchor_sizes: Annotated[tuple[int, ...], Range(1, MAX_SIDE)] = (64, 128, 256, 512)
    """Faster R-CNN: roots of the areas of anchors in pixels."""
    epochs: Annotated[float, Range(0, 1_000_000)] = 0.0
    """Length in passes over the pictures that are learnt from; 0 is the protocol's."""
    max_steps: CountOrZero = 0
    """Length in steps instead, over which the rate falls as it does over the protocol's; 0 is by
    epochs."""
    global_batch_size: Annotated[int, Range(0, 1_000_000)] = 0
    """Pictures a step over all ranks; 0 is 4."""
    lr: Annotated[float, Range(0, 1e30)] = 0.0
    """Rate for 4 pictures a step, in proportion for others; 0 is 0.002."""
    accumulation: Count = 1
    """Micro-batches a step on each rank."""
    coco: bool = False
    """COCO's figures too, by pycocotools: average precision over overlaps of 0.5 to 0.95."""
    checkpoint_every_steps: Count = 1000
    """Steps between checkpoints."""
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    """Logs of the training."""
    output_dir: Path | None = None
    """Run directory of the training; without it one in "detect" beside the trunk, from scratch
    beside the result."""

    def __post_init__(self) -> None:
        """Take the file of a folder of proposals."""
        for name in ("proposals", "test_proposals"):
            path = getattr(self, name)
            if path != Path() and path.is_dir():
                object.__setattr__(self, name, path / f"{PROPOSALS}.npy")
        super().__post_init__()

    def check(self) -> None:
        """Refuse two lengths, and proposals of another name."""
        for name in ("proposals", "test_proposals"):
            path = getattr(self, name)
            if path != Path() and path.name != f"{PROPOSALS}.npy":
                raise InputError(
                    f"{name} ({path}) must be a file {PROPOSALS}.npy or its folder, as fastssl "
                    "proposals writes it"
                )
        if self.epochs and self.max_steps:
            raise InputError(
                f"epochs ({self.epochs:g}) and max_steps ({self.max_steps}) are two lengths; give "
                "one of them"
            )

    @property
    def metric(self) -> str:
        """What the result says first: VOC 2007 is judged by 11 points."""
        return "ap50" if self.protocol == "own" else "ap50_11"


@dataclass(frozen=True)
class Course:
    """Length of a training and where its rate falls, in steps."""

    steps: int
    """All of them."""
    drop: int
    """When the rate falls to a tenth."""


COURSES = {
    ("voc07", "fast_rcnn"): Course(30_000, 22_000),
    ("voc0712", "fast_rcnn"): Course(80_000, 66_000),
    ("voc07", "faster_rcnn"): Course(50_000, 38_000),
    ("voc0712", "faster_rcnn"): Course(100_000, 65_000),
}
"""Of Goyal et al. 2019, longer than Detectron's own, for every trunk."""
_OWN_COURSE = Course(4, 3)
"""In proportion."""


def plan_course(config: DetectEvaluation, num_images: int) -> Course:
    """Return the length.

    Args:
        config: the options.
        num_images: that are learnt from.
    """
    usual = COURSES.get((config.protocol, config.detector), _OWN_COURSE)
    batch = config.global_batch_size or _BATCH
    epoch = num_images / batch
    if config.max_steps:
        steps = config.max_steps
    elif config.epochs:
        steps = max(round(config.epochs * epoch), 1)
    elif config.protocol == "own":
        steps = max(round(_OWN_EPOCHS * epoch), _OWN_STEPS)
    else:
        steps = usual.steps
    return Course(steps, round(steps * usual.drop / usual.steps))


def plan_run(config: DetectEvaluation, subject: Subject, num_images: int) -> RunConfig[Any]:
    """Return the run but for its data, whose ids are written when it starts.

    Args:
        config: the options.
        subject: the trunk.
        num_images: that are learnt from.

    Raises:
        InputError: if the views are not what the trunk takes.
    """
    batch, course = config.global_batch_size or _BATCH, plan_course(config, num_images)
    short = config.view_size or _SHORT
    return RunConfig(
        recipe="detect",
        task=DetectionConfig(
            detector=config.detector,
            input=subject.spec.to_text(),
            short=config.short_sides or (short,),
            test_short=short,
            long=config.long_side or round(short * _LONG / _SHORT),
            pooling=config.pooling,
            regions=config.regions,
            max_proposals=config.max_proposals,
            test_proposals=min(config.max_proposals, DetectionConfig.test_proposals),
            anchor_sizes=config.anchor_sizes,
        ),
        trunk=subject.trunk.name,
        width=subject.trunk.width,
        seed=config.seed,
        frozen_stages=config.frozen_stages,
        accumulation=config.accumulation,
        precision=config.precision,
        device=config.device,
        data=LoaderConfig(global_batch_size=batch),
        # Biases as Fast R-CNN has them since its first code: twice the rate, no decay.
        optim=OptimConfig(
            lr=config.lr or _LR,
            lr_batch_size=_BATCH,
            weight_decay=_WEIGHT_DECAY,
            decay_bias=False,
            bias_lr_factor=2.0,
        ),
        # An epoch of it is a step.
        schedule=ScheduleConfig(
            epochs=float(course.steps),
            epoch_samples=batch,
            milestones=(float(course.drop),),
            warmup_epochs=float(min(_WARMUP_STEPS, course.steps // 4)),
            warmup_start=_WARMUP_START,
        ),
        checkpoint=CheckpointConfig(every_steps=config.checkpoint_every_steps),
        log=config.log,
    )
