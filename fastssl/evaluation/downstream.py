"""Downstream tasks: a trunk learns with a head on it, from few labels or many, and is tested.

A run of the one trainer, the same for a pretrained trunk and for one from scratch, so that the two
say how many labels pretraining saves (Newell and Deng 2020). See ``tasks.downstream``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..config import LoaderConfig, RunConfig
from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from ..runs.result import Result
from ..shards import ShardDataset, open_dataset
from ..system.files import make_folder
from ..tasks import Task, find_task
from ..tasks.dense import DenseMap, find_map
from ..tasks.downstream import DownstreamTask, Score, check_target
from ..tasks.multilabel import check_signs
from ..training import train
from ..training.measures import NEVER, never
from ..training.validation import DownstreamValidation
from ..world import World
from .downstream_course import KINDS, plan_run
from .downstream_options import DownstreamEvaluation
from .evaluate import Circumstances, check_required, conclude
from .extract import PRE_LOGITS
from .learner_run import (
    check_batch,
    check_score,
    find_folder,
    hash_rows,
    open_learner,
    read_score,
    write_score,
)
from .setting import Divided, divide, draw_seed, has_signs
from .splits import first_labels
from .subject import SCRATCH, Subject
from .trained import load_rows

_log = logging.getLogger(__name__)

FOLDER_NAME = "downstream"
"""The folder beside a trunk, or a result, that holds the runs of downstream tasks."""


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
    map: DenseMap | None
    """Where it is answered; None for an answer an image, by the pre-logits."""
    divided: Divided
    """Ids of the samples that are trained on and of those that are tested."""
    digests: tuple[str, str]
    """Of the datasets that they are of."""

    @property
    def tested(self) -> str:
        """What names the images that are tested."""
        rows = hash_rows(self.divided.test_rows)
        return hashlib.sha256(f"{self.digests[1]}:{rows}".encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """The run directory, named by all that the result depends on."""
        name = f"{FOLDER_NAME}/{self.task}-{self.config.protocol}"
        depends_on = (self.digests, self.divided, self.run, ())
        return find_folder(self.config, self.subject, name, depends_on, ("log", "device"))


# ------------------------------------------------------------------ plan


def plan_downstream(
    task: str, config: DownstreamEvaluation, world_size: int = 1
) -> DownstreamTraining:
    """See that everything fits; every rank by itself.

    Args:
        task: a name in ``DOWNSTREAM``.
        config: its options.
        world_size: number of ranks.

    Raises:
        InputError: for whatever does not fit.
    """
    check_required(config, needs_checkpoint=not config.from_scratch)
    kind, data = KINDS[task], config.data
    with contextlib.ExitStack() as held:
        train = test = held.enter_context(contextlib.closing(open_dataset(data.path)))
        if data.has_test_path:
            test = held.enter_context(contextlib.closing(open_dataset(data.test_path)))
        has_labels = kind.check_target is None
        has_several = has_labels and has_signs(train)
        if not has_labels:
            _check_target(task, config, train, test)
        second = test if data.has_test_path else None
        divided = divide(data, config.split_seed, train, second, has_labels)
        divided = _take_first(config, divided, train)
        if has_several:
            _check_signs(train, test, divided)
        digests = (train.digest, test.digest)
    usual = "newell20_lab" if config.protocol == "newell20" else "imagenet"
    subject = open_learner(config, FOLDER_NAME, usual)
    run = plan_run(task, config, subject, len(divided.train_rows), has_several)
    check_batch(run, world_size)
    places = find_map(subject.trunk, run.task.size) if kind.is_dense else None
    return DownstreamTraining(task, config, subject, run, places, divided, digests)


def _check_target(
    task: str, config: DownstreamEvaluation, train: ShardDataset, test: ShardDataset
) -> None:
    """See that both datasets have what is learnt."""
    kind = KINDS[task]
    learner: Any = find_task(kind.config().name)
    name = learner.target
    own = [getattr(config, option) for option in kind.own_options]
    for dataset, what in ((train, "data.path"), (test, "data.test_path")):
        check_target(dataset, name, task, what)
        assert kind.check_target is not None
        kind.check_target(dataset, dataset.num_samples, *own)


def _check_signs(train: ShardDataset, test: ShardDataset, divided: Divided) -> None:
    """See that several labels an image can be learnt, and every class be tested."""
    for dataset in (train, test):
        check_signs(dataset, dataset.num_samples)
    signs = np.asarray(test.targets["labels"][divided.test_rows])
    poor = [name for c, name in enumerate(test.class_names) if not (signs[:, c] > 0).any()]
    if poor:
        raise InputError(
            f"class '{poor[0]}' has no positive among the {spell_number(len(signs), 'image')} of "
            f"{test.path} to test on ({len(poor)} of "
            f"{len(test.class_names)} classes have none), and no average "
            "precision; test on more images, or leave it out of the dataset"
        )


def _take_first(config: DownstreamEvaluation, divided: Divided, train: ShardDataset) -> Divided:
    """Return the split with as many images to learn from as are wanted."""
    num, rows = config.num_labels, divided.train_rows
    if num > len(rows):
        raise InputError(
            f"num_labels ({num:,}) must not exceed the {spell_number(len(rows), 'image')} of "
            f"{train.path} that there are to learn from; set --num-labels {len(rows)} or less, or "
            "0 for all"
        )
    if num:
        rows = first_labels(rows, num, draw_seed(train, config.split_seed))
    text = f"{divided.text}, labels by seed {config.split_seed}"
    return dataclasses.replace(divided, train_rows=rows, text=text)


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
    make_folder(folder, "--output-dir")
    _log.info("the run: %s", folder)
    data, batch = config.data, training.run.data.global_batch_size
    train_ids, test_ids = (folder / f"{side}_ids.npy" for side in ("train", "test"))
    train_data = load_rows(data, data.path, divided.train_rows, train_ids, batch)
    # Few images fill a batch several times, each copy with an augmentation of its own.
    train_data = dataclasses.replace(train_data, allow_repeat_in_batch=True)
    test_data = load_rows(data, data.path_to_test, divided.test_rows, test_ids, batch)
    began, tested = time.monotonic(), training.tested
    check_score(folder, tested)

    def open_test(run: RunConfig, world: World, task: Task) -> DownstreamTest:
        assert isinstance(task, DownstreamTask)
        return DownstreamTest(run, world, task, test_data, tested)

    run = dataclasses.replace(training.run, output_dir=folder, data=train_data)
    open_start = KINDS[training.task].open_start
    if open_start is not None:
        start = open_start(run.task, data.path, divided.train_rows, run.seed, folder)
        run = dataclasses.replace(run, task=start)
    trunk = None if config.from_scratch else training.subject.trunk
    train(run, open_probe=open_test, trunk=trunk)
    score = Score(**read_score(folder, tested))
    return _conclude(training, score, time.monotonic() - began)


class DownstreamTest(DownstreamValidation):
    """Tests a downstream task once, at its end, and writes its score down."""

    def __init__(
        self,
        config: RunConfig,
        world: World,
        task: DownstreamTask,
        data: LoaderConfig,
        tested: str,
    ) -> None:
        """Open the dataset.

        Args:
            config: of the run.
            world: the ranks.
            task: what learns.
            data: what is tested on.
            tested: a name for it.

        Raises:
            InputError: if it cannot be opened.
        """
        super().__init__(config, world, task, data, NEVER, "the test data")
        self._folder = config.output_dir
        self._tested = tested

    def measure(
        self,
        is_stopping: Callable[[], bool] = never,  # noqa: ARG002 - the run would be at its end
    ) -> dict[str, float | None]:
        """Test, write the score down, and return it; a collective call."""
        score = self.score()
        assert score is not None  # nobody stops it
        content = dataclasses.asdict(score)
        self._world.on_zero(partial(write_score, self._folder, content, self._tested))
        return {self._task.tested: score.value}


def _conclude(training: DownstreamTraining, score: Score, seconds: float) -> Result:
    config, run, divided = training.config, training.run, training.divided
    metric: Any = find_task(run.task.name)
    num_train, num_test = len(divided.train_rows), len(divided.test_rows)
    length = {"steps": config.max_steps} if config.max_steps else _describe_length(run, num_train)
    settings = {
        "start": SCRATCH if config.from_scratch else "pretrained",
        "num_labels": num_train,
        "frozen_stages": config.frozen_stages,
        "head": config.head,
        "trunk": run.trunk,
        "width": run.width,
        **length,
        "global_batch_size": run.data.global_batch_size,
        "lr": run.optim.lr,
        **({} if config.head_lr_factor == 1 else {"head_lr_factor": config.head_lr_factor}),
        **({} if training.map is None else {"grid": training.map.grid}),
        **{name: getattr(config, name) for name in KINDS[training.task].own_options},
        **config.data.settings,
    }
    details: dict[str, Any] = {"num_train": num_train, "num_test": num_test, **score.details}
    if training.subject.pretrained_on:
        details["pretrain_data"] = training.subject.pretrained_on
    if training.subject.max_samples:
        details["pretrain_images"] = training.subject.max_samples
    part = Result(
        "",
        "",
        metric.metric,
        score.value,
        score.per_class,
        layer=PRE_LOGITS if training.map is None else training.map.name,
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
