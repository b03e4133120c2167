"""Downstream tasks: a trunk learns with a head on it, from few labels or many, and is tested.

A run of the one trainer, the same for a pretrained trunk and for one from scratch, so that the two
say how many labels pretraining saves (Newell and Deng 2020). See ``tasks.downstream``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from ..config import LoaderConfig, LogConfig, OptimConfig, RunConfig, ScheduleConfig
from ..errors import InputError
from ..fields import Count, CountOrZero, Documented, Range
from ..models import build_trunk
from ..models.downstream_heads import HeadName
from ..models.input_spec import InputSpec
from ..models.trunks import STANDARD_VGG_WIDTH, STANDARD_WIDTH
from ..randomness import Seed
from ..runs.result import Result
from ..shards import ShardDataset, open_dataset
from ..system.files import check_own_folder, publish_bytes
from ..tasks import (
    ClassificationConfig,
    PhotographClassificationConfig,
    PoseConfig,
    Task,
    find_task,
)
from ..tasks.downstream import DownstreamTask, Score
from ..tasks.pose import check_poses
from ..training import train
from ..training.measures import never
from ..world import World
from .evaluate import Circumstances, check_required, conclude, find_home
from .extract import PRE_LOGITS
from .linear import EndTest
from .setting import Divided, TrunkOptions, divide, draw_seed, refuse_signs
from .splits import first_labels
from .subject import Subject, open_subject
from .trained import load_rows

_log = logging.getLogger(__name__)

FOLDER_NAME = "downstream"
"""The folder beside a trunk, or a result, that holds the runs of downstream tasks."""
_SCORE_NAME = "score.json"
_SCRATCH = "scratch"
_SHOWN_STEPS = 1000
"""A shorter run draws no pictures unless it is asked for: they would take longer than it."""


@dataclass(frozen=True)
class DownstreamEvaluation(TrunkOptions):
    """A head and a trunk that learns with it, by labels of which there may be few."""

    protocol: Literal["own", "newell20"] = "newell20"
    """Whose views and course: Newell and Deng 2020's; or random crops of photographs at what the
    trunk takes."""
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
    """Peak of the learning rate, whatever the batch; 0 is the protocol's 0.001."""
    accumulation: Count = 1
    """Micro-batches a step on each rank."""
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
    """Classification by label: the whole network learns, or all but its first stages."""

    protocol: Literal["own", "newell20"] = "own"
    """Whose views and course: random crops of photographs at what the trunk takes; or those of
    Newell and Deng 2020."""


@dataclass(frozen=True)
class PoseEvaluation(DownstreamEvaluation):
    """Pose of an object, one of five, with the whole network or all but its first stages."""

    protocol: Literal["newell20"] = "newell20"
    """Whose views and course: Newell and Deng 2020's."""


DOWNSTREAM: dict[str, type[DownstreamEvaluation]] = {
    "finetune": FinetuneEvaluation,
    "pose": PoseEvaluation,
}
"""By name: what it takes."""


@dataclass(frozen=True)
class _Kind:
    """What a task is to an evaluation."""

    config: type
    """Of the task on the trainer, in the study's form."""
    size: int
    """Side of the study's pictures in pixels."""
    check_target: Callable[[ShardDataset, int], None] | None = None
    """Refuses a target that cannot be learnt; None where the label is."""
    is_dense: bool = False
    """Whether every place of a map is answered."""


_KINDS = {
    "finetune": _Kind(ClassificationConfig, 64),
    "pose": _Kind(PoseConfig, 64, check_poses),
}


@dataclass(frozen=True)
class DownstreamTraining(Documented):
    """A training that fits, before the ranks have met."""

    task: str
    """A name in ``DOWNSTREAM``."""
    config: DownstreamEvaluation
    """Its options."""
    subject: Subject
    """The trunk; from scratch its outline."""
    run: RunConfig[Any]
    """How it is trained, but for its data."""
    divided: Divided
    """Ids of the samples that are trained on and of those that are tested."""
    digests: tuple[str, str]
    """Of the datasets that they are of."""

    @property
    def target(self) -> str:
        """The target that is learnt; "" is the label."""
        kind: Any = find_task(self.run.task.name)
        return kind.target

    @property
    def folder(self) -> Path:
        """The run directory, named by all that the result depends on."""
        config = self.config
        if config.output_dir is not None:
            return config.output_dir
        run = {**dataclasses.asdict(self.run), "log": None, "device": None}
        rows = (self.divided.train_rows, self.divided.test_rows)
        content = [
            self.digests,
            [hashlib.sha256(side.tobytes()).hexdigest() for side in rows],
            self.subject.digest,
            run,
        ]
        digest = hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
        home = Path() if config.json is None else config.json.parent
        if config.checkpoint != Path():
            home = find_home(config.checkpoint, self.subject)
        return home / FOLDER_NAME / f"{self.task}-{config.protocol}-{digest[:12]}"


# ------------------------------------------------------------------ plan


def plan_downstream(task: str, config: DownstreamEvaluation) -> DownstreamTraining:
    """See that everything fits; every rank by itself.

    Args:
        task: a name in ``DOWNSTREAM``.
        config: its options.

    Raises:
        InputError: for whatever does not fit.
    """
    check_required(config, needs_checkpoint=not config.from_scratch)
    kind, data = _KINDS[task], config.data
    with contextlib.ExitStack() as held:
        train = test = held.enter_context(contextlib.closing(open_dataset(data.path)))
        if data.has_test_path:
            test = held.enter_context(contextlib.closing(open_dataset(data.test_path)))
        if kind.check_target is None:
            refuse_signs(task, train, test)
        else:
            _check_target(task, kind, train, test)
        has_labels = kind.check_target is None
        second = test if data.has_test_path else None
        divided = divide(data, config.split_seed, train, second, has_labels)
        divided = _take_first(config, divided, train)
        digests = (train.digest, test.digest)
    subject = _open_scratch(config) if config.from_scratch else _open_pretrained(config)
    run = _plan_run(task, config, subject, len(divided.train_rows))
    return DownstreamTraining(task, config, subject, run, divided, digests)


def _check_target(task: str, kind: _Kind, train: ShardDataset, test: ShardDataset) -> None:
    """See that both datasets have what is learnt."""
    found: Any = find_task(kind.config().name)
    name = found.target
    for dataset in (train, test):
        if name not in dataset.targets:
            has = ", ".join(dataset.targets) or "none"
            raise InputError(
                f"{dataset.path} has no target '{name}', which {task} learns (targets: {has}); "
                "give one that make-shards made of a rendered set, or with such a target "
                "(docs/shards.md, Targets)"
            )
    assert kind.check_target is not None
    kind.check_target(train, train.num_samples)


def _take_first(config: DownstreamEvaluation, divided: Divided, train: ShardDataset) -> Divided:
    """Return the split with as many images to learn from as are wanted."""
    num, rows = config.num_labels, divided.train_rows
    if num > len(rows):
        raise InputError(
            f"num_labels ({num:,}) must not exceed the {len(rows):,} images of {train.path} that "
            f"there are to learn from; set --num-labels {len(rows)} or less, or 0 for all"
        )
    if num:
        rows = first_labels(rows, num, draw_seed(train, config.split_seed))
    text = f"{divided.text}, labels by seed {config.split_seed}"
    return dataclasses.replace(divided, train_rows=rows, text=text)


def _open_pretrained(config: DownstreamEvaluation) -> Subject:
    subject = open_subject(config.checkpoint, config.trunk, config.width, config.scale)
    check_own_folder(find_home(config.checkpoint, subject) / FOLDER_NAME)
    return subject


def _open_scratch(config: DownstreamEvaluation) -> Subject:
    """Return the outline of a trunk with fresh weights: those of a checkpoint are not taken."""
    if config.checkpoint != Path():
        subject = open_subject(config.checkpoint, config.trunk, config.width, config.scale)
        return Subject(subject.trunk, subject.spec, _SCRATCH)
    if not config.trunk:
        raise InputError(
            "trunk (none given) must name the network that learns from scratch; set --trunk "
            "resnet9, or give --checkpoint for its name and width"
        )
    standard = STANDARD_VGG_WIDTH if config.trunk.startswith("vgg") else STANDARD_WIDTH
    with torch.device("meta"):
        trunk = build_trunk(config.trunk, config.width or standard)
    usual = "newell20_lab" if config.protocol == "newell20" else "imagenet"
    spec = InputSpec.named(config.scale or usual)
    if trunk.in_channels == 1 and not config.scale:
        spec = InputSpec("lightness")
    return Subject(trunk, spec, _SCRATCH)


# ------------------------------------------------------------------ course


@dataclass(frozen=True)
class Length:
    """How long a training is."""

    epochs: float
    """Passes over ``epoch_samples`` samples."""
    epoch_samples: int
    """Samples of a pass; 0 are those that are learnt from."""


def count_round(num_labels: int, is_dense: bool = False) -> int:
    """Return the samples of a round of Newell and Deng 2020, which repeats few labels.

    10,000 or a little more; from 4,000 labels on 20,000 or more; at most 50,000, or 10,000 of dense
    tasks.

    Args:
        num_labels: that are learnt from.
        is_dense: whether it is of segmentation or depth.
    """
    most = 10_000 if is_dense else 50_000
    least = 10_000 if is_dense or num_labels < 4_000 else 20_000
    return min(-(-least // num_labels) * num_labels, max(most, least))


def count_rounds(num_labels: int, trunk: str, is_dense: bool = False) -> int:
    """Return the rounds of a training of Newell and Deng 2020.

    Args:
        num_labels: that are learnt from.
        trunk: the network's name.
        is_dense: whether it is of segmentation or depth.
    """
    if num_labels < 20_000:
        return 200
    return 600 if trunk.startswith("resnet9") and not is_dense else 800


def _plan_run(
    task: str, config: DownstreamEvaluation, subject: Subject, num_labels: int
) -> RunConfig[Any]:
    """Return the run but for its data, whose ids are written when it starts."""
    kind, name = _KINDS[task], subject.trunk.name
    is_own = config.protocol == "own"
    usual_batch = 64 if kind.is_dense or is_own else 512 if name.startswith("resnet9") else 384
    batch = config.global_batch_size or usual_batch
    if config.max_steps:
        length = Length(config.max_steps, batch)
    elif config.epochs:
        length = Length(config.epochs, num_labels)
    elif is_own:
        length = Length(max(_OWN_EPOCHS, _OWN_STEPS * batch / num_labels), num_labels)
    else:
        rounds = count_rounds(num_labels, name, kind.is_dense)
        length = Length(rounds, count_round(num_labels, kind.is_dense))
    return RunConfig(
        recipe=task,
        task=_plan_task(kind, config, subject),
        trunk=name,
        width=subject.trunk.width,
        seed=config.seed,
        frozen_stages=config.frozen_stages,
        accumulation=config.accumulation,
        precision=config.precision,
        device=config.device,
        data=LoaderConfig(global_batch_size=batch),
        optim=_build_optimizer(config.lr or _PEAK_LR),
        schedule=ScheduleConfig(
            epochs=float(length.epochs),
            epoch_samples=length.epoch_samples,
            kind="linear",
            milestones=(),
            warmup_epochs=_WARMUP_SHARE * length.epochs,
            warmup_start=0.0,
            final_share=_FINAL_LR / _PEAK_LR,
        ),
        log=_choose_log(config, length, batch),
    )


_PEAK_LR, _FINAL_LR, _WEIGHT_DECAY = 1e-3, 1e-6, 1e-4
_WARMUP_SHARE = 5 / 200
"""Of the length: five rounds of 200."""
_OWN_EPOCHS, _OWN_STEPS = 20, 1000
"""Length of ``own``: so many epochs, and more of few images."""


def _build_optimizer(lr: float) -> OptimConfig:
    """Return the study's optimiser; the rate is the same whatever the batch."""
    return OptimConfig(
        name="adam",
        lr=lr,
        lr_batch_size=0,
        beta1=0.8,
        beta2=0.999,
        weight_decay=_WEIGHT_DECAY,
        decay_norm=True,
    )


def _choose_log(config: DownstreamEvaluation, length: Length, batch: int) -> LogConfig:
    """Return what is written: of a short run neither pictures nor curves, if nobody asks."""
    num_steps = length.epochs * length.epoch_samples / batch
    if config.log != LogConfig() or num_steps >= _SHOWN_STEPS:
        return config.log
    return dataclasses.replace(config.log, tensorboard=False, pictures_every_steps=0)


def _plan_task(kind: _Kind, config: DownstreamEvaluation, subject: Subject) -> Any:
    spec, trunk = subject.spec, subject.trunk
    own: dict[str, Any] = {"input": spec.to_text(), "head": config.head}
    if config.protocol == "own":
        usual = 227 if trunk.min_side > 224 or trunk.name.startswith("alexnet") else 224
        return PhotographClassificationConfig(size=config.view_size or usual, **own)
    spaces = {"lab": "lab", "scaled": "rgb"}
    if spec.kind not in spaces:
        raise InputError(
            f"protocol newell20 gives Lab or RGB by a mean and a deviation; the trunk takes "
            f"{spec.to_text()}; set --protocol own (finetune), or give another trunk"
        )
    return kind.config(size=config.view_size or kind.size, space=spaces[spec.kind], **own)


# ------------------------------------------------------------------ run


def run_downstream(training: DownstreamTraining) -> Result:
    """Train and test, on all ranks; it goes on where it was stopped.

    Args:
        training: from ``plan_downstream``; its trunk learns, so plan again for another run.

    Returns:
        The result.

    Raises:
        InputError: for what is found when the ranks have met, before the first step.
        StoppedBySignal: after a signal, with everything saved.
        RunFailed: as ``train``.
    """
    config, folder, divided = training.config, training.folder, training.divided
    folder.mkdir(parents=True, exist_ok=True)
    _log.info("the run: %s", folder)
    targets = (training.target,) if training.target else ()
    data, batch = config.data, training.run.data.global_batch_size
    train_ids, test_ids = (folder / f"{side}_ids.npy" for side in ("train", "test"))
    train_data = load_rows(data, data.path, divided.train_rows, train_ids, batch, targets)
    # Few images fill a batch several times, each copy with an augmentation of its own.
    train_data = dataclasses.replace(train_data, allow_repeat_in_batch=True)
    test_data = load_rows(data, data.path_to_test, divided.test_rows, test_ids, batch, targets)
    began = time.monotonic()

    def open_test(run: RunConfig, world: World, task: Task) -> DownstreamTest:
        assert isinstance(task, DownstreamTask)
        return DownstreamTest(run, world, task, test_data)

    run = dataclasses.replace(training.run, output_dir=folder, data=train_data)
    trunk = None if config.from_scratch else training.subject.trunk
    train(run, open_probe=open_test, trunk=trunk)
    score = read_score(folder)
    return _conclude(training, score, time.monotonic() - began)


class DownstreamTest(EndTest):
    """Tests a downstream task on pictures that nothing was drawn for."""

    def __init__(
        self, config: RunConfig, world: World, task: DownstreamTask, data: LoaderConfig
    ) -> None:
        """Open the dataset.

        Args:
            config: of the run.
            world: the ranks.
            task: what learns.
            data: what is tested on.

        Raises:
            InputError: if it cannot be opened.
        """
        super().__init__(config, world, task, data)
        self._task = task

    def measure(
        self,
        is_stopping: Callable[[], bool] = never,  # noqa: ARG002 - the run would be at its end
    ) -> dict[str, float | None]:
        """Test, write the score down, and return it; a collective call."""
        sums = self._world.gather(self._world.together(self._count))
        score = self._task.summarize(torch.stack([s for s in sums if s is not None]).sum(0))
        self._world.on_zero(lambda: _write_score(self._folder, score))
        return {f"test_{self._task.metric}": score.value}

    def _count(self) -> torch.Tensor | None:
        """Return the sums of this rank's images; None where it has none."""
        with self.passing(self._task.config.test_view) as batches:
            sums = [self._task.test(batch) for batch in batches]
        return torch.stack(sums).sum(0) if sums else None


def _write_score(folder: Path, score: Score) -> None:
    content = json.dumps(dataclasses.asdict(score), indent=1)
    publish_bytes(folder / _SCORE_NAME, content.encode() + b"\n")


def read_score(folder: Path) -> Score:
    """Return what a run that has ended reached.

    Args:
        folder: its directory.

    Raises:
        InputError: if it was not tested.
    """
    path = folder / _SCORE_NAME
    if not path.exists():
        raise InputError(f"{path} does not exist; start the command again, which goes on")
    return Score(**json.loads(path.read_text()))


def _conclude(training: DownstreamTraining, score: Score, seconds: float) -> Result:
    config, run, divided = training.config, training.run, training.divided
    metric: Any = find_task(run.task.name)
    num_train, num_test = len(divided.train_rows), len(divided.test_rows)
    length = {"steps": config.max_steps} if config.max_steps else _describe_length(run, num_train)
    settings = {
        "start": _SCRATCH if config.from_scratch else "pretrained",
        "num_labels": num_train,
        "frozen_stages": config.frozen_stages,
        "head": config.head,
        "trunk": run.trunk,
        "width": run.width,
        **length,
        "global_batch_size": run.data.global_batch_size,
        "lr": run.optim.lr,
        **config.data.settings,
    }
    details: dict[str, Any] = {"num_train": num_train, "num_test": num_test, **score.details}
    if training.subject.pretrained_on:
        details["pretrain_data"] = training.subject.pretrained_on
    part = Result(
        "",
        "",
        metric.metric,
        score.value,
        score.per_class,
        layer=PRE_LOGITS,
        settings=settings,
        details=details,
    )
    task = run.task
    shown = {
        "view": dataclasses.asdict(task.test_view),
        "train_view": dataclasses.asdict(task.list_views()[0]),
    }
    circumstances = Circumstances(
        training.task, config.protocol, config.seed, training.subject, divided, training.digests
    )
    return conclude([part], circumstances, shown, seconds)


def _describe_length(run: RunConfig, num_train: int) -> dict[str, float]:
    """Return the length in passes over the images that are learnt from."""
    return {"epochs": run.schedule.epochs * run.schedule.epoch_samples / num_train}
