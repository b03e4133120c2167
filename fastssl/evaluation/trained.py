"""Evaluations that train on images: a run of the trainer on a trunk that does not learn, by name.

Unlike those of ``measures`` they see other crops in every epoch, so no stored features serve them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from ..config import LoaderConfig
from ..counts import spell_number
from ..errors import InputError
from ..fields import Count, CountOrZero, Documented, Range
from ..models.pooling import has_rule
from ..runs.result import RESULTS_NAME, Result
from ..shards import open_dataset
from ..system.files import check_own_folder, make_folder, publish_bytes
from .accuracy import Accuracy
from .evaluate import Circumstances, check_required, conclude, find_home
from .extract import find_end_points
from .linear import Course, choose_course, train_heads
from .protocols import PATCH_GRID, ProtocolName, choose_end_points, takes_patches
from .setting import Divided, EvaluateConfig, EvaluationData, divide, refuse_signs
from .subject import Subject, open_subject

_log = logging.getLogger(__name__)

HEADS_NAME = "heads"
"""The folder beside a trunk that holds the runs that were trained on it."""


@dataclass(frozen=True)
class LinearEvaluation(EvaluateConfig):
    """Linear classifiers on all end points at once, by SGD on crops of the images."""

    epochs: Annotated[float, Range(0, 1_000_000)] = 0.0
    """Length of the training; 0 is the protocol's: 28, of kolesnikov19 520."""
    global_batch_size: Annotated[int, Range(1, 1_000_000)] = 256
    """Images a step over all ranks, at most those that there are; the rate grows with it."""
    accumulation: Count = 1
    """Micro-batches a step on each rank."""
    max_steps: CountOrZero = 0
    """Stop after so many steps and test; 0 is the whole length."""
    output_dir: Path | None = None
    """Run directory of the training; without it one in "heads" beside the trunk."""


@dataclass(frozen=True)
class MlpEvaluation(LinearEvaluation):
    """Classifiers with a hidden layer of 1000 units on all end points at once, by SGD."""

    protocol: ProtocolName = "kolesnikov19"
    """Whose rules; goyal19 has none."""
    epochs: Annotated[float, Range(0, 1_000_000)] = 0.0
    """Length of the training; 0 is the protocol's 180."""
    global_batch_size: Annotated[int, Range(1, 1_000_000)] = 512
    """Images a step over all ranks, at most those that there are; the rate grows with it."""


TRAINED: dict[str, type[LinearEvaluation]] = {"linear": LinearEvaluation, "mlp": MlpEvaluation}
"""By name: what it takes."""


@dataclass(frozen=True)
class Training(Documented):
    """A training that fits, before the ranks have met."""

    task: str
    """A name in ``TRAINED``."""
    config: LinearEvaluation
    """Its options."""
    subject: Subject
    """The trunk."""
    course: Course
    """How it is trained."""
    batch: int
    """Images a step over all ranks."""
    divided: Divided
    """Ids of the samples that are trained on and of those that are tested."""
    digests: tuple[str, str]
    """Of the datasets that they are of."""
    class_names: tuple[str, ...]
    """Of the labels."""

    @property
    def folder(self) -> Path:
        """The run directory, named by all that the result depends on."""
        config, course = self.config, self.course
        if config.output_dir is not None:
            return config.output_dir
        rows = (self.divided.train_rows, self.divided.test_rows)
        content = [
            self.digests,
            [hashlib.sha256(side.tobytes()).hexdigest() for side in rows],
            self.subject.digest,
            [dataclasses.asdict(part) for part in (course.task, course.optim, course.schedule)],
            [self.batch, config.seed, config.precision, config.accumulation, config.max_steps],
        ]
        digest = hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
        home = find_home(config.checkpoint, self.subject) / HEADS_NAME
        return home / f"{self.task}-{config.protocol}-{digest[:12]}"


def plan_training(task: Any, config: LinearEvaluation, world_size: int = 1) -> Training:
    """See that everything fits; every rank by itself.

    Args:
        task: a name in ``TRAINED``.
        config: its options.
        world_size: number of ranks.

    Raises:
        InputError: for whatever does not fit.
    """
    check_required(config)
    data = config.data
    with contextlib.ExitStack() as held:
        train = test = held.enter_context(contextlib.closing(open_dataset(data.path)))
        if data.has_test_path:
            test = held.enter_context(contextlib.closing(open_dataset(data.test_path)))
        refuse_signs(task, train, test)
        divided = divide(data, config.seed, train, test if data.has_test_path else None)
        subject = open_subject(config.checkpoint, config.trunk, config.width, config.scale)
        home = find_home(config.checkpoint, subject)
        for name in (HEADS_NAME, RESULTS_NAME):
            check_own_folder(home / name)
        digests, class_names = (train.digest, test.digest), train.class_names
    num_train, parts = len(divided.train_rows), world_size * config.accumulation
    batch = min(config.global_batch_size, num_train // parts * parts)
    if not batch:
        raise InputError(
            f"data.path ({data.path}) gives {spell_number(num_train, 'image')} to train on, fewer "
            f"than ranks x accumulation ({parts}); take fewer of them"
        )
    course = _choose_course(task, config, subject)
    return Training(task, config, subject, course, batch, divided, digests, class_names)


def _choose_course(task: Any, config: LinearEvaluation, subject: Subject) -> Course:
    trunk, spec = subject.trunk, subject.spec
    grid = PATCH_GRID if takes_patches(trunk) else 1
    course = choose_course(
        task, config.protocol, trunk, spec, grid, config.epochs, config.view_size
    )
    side = course.task.size // grid
    shapes = find_end_points(trunk, side)
    # All at once cost hardly more than one; the sheet of Goyal et al. 2019 names its own.
    has_sheet = any(has_rule(name, shape) for name, shape in shapes.items())
    is_of_sheet = config.protocol == "goyal19" and has_sheet
    wanted = config.end_points or ("" if is_of_sheet else "all")
    end_points = choose_end_points(config.protocol, wanted, trunk, shapes)
    heads = dataclasses.replace(course.task, end_points=end_points)
    return dataclasses.replace(course, task=heads)


def run_training(training: Training) -> Result:
    """Train classifiers on a trunk and test them, on all ranks; it goes on where it was stopped.

    Args:
        training: from ``plan_training``.

    Returns:
        The result of the best end point, with all of them as its parts.

    Raises:
        InputError: for what is found when the ranks have met, before the first step.
        StoppedBySignal: after a signal, with everything saved.
    """
    config, course, folder = training.config, training.course, training.folder
    if config.output_dir is None:
        check_own_folder(folder)
    make_folder(folder, "--output-dir")
    _log.info("the classifiers' run: %s", folder)
    divided = training.divided
    data, batch = config.data, training.batch
    train_ids, test_ids = (folder / f"{side}_ids.npy" for side in ("train", "test"))
    train_data = load_rows(data, data.path, divided.train_rows, train_ids, batch)
    test_data = load_rows(data, data.path_to_test, divided.test_rows, test_ids, batch)
    began = time.monotonic()
    scores = train_heads(
        training.subject.trunk,
        course,
        train_data,
        test_data,
        folder,
        seed=config.seed,
        precision=config.precision,
        accumulation=config.accumulation,
        device=config.device,
        max_steps=config.max_steps or None,
    )
    shown = {
        "view": dataclasses.asdict(course.task.test_view),
        "train_view": dataclasses.asdict(course.task.train_view),
        "grid": course.task.grid,
    }
    return conclude(
        [_part(training, name, score) for name, score in scores.items()],
        Circumstances(
            training.task,
            config.protocol,
            config.seed,
            training.subject,
            divided,
            training.digests,
        ),
        shown,
        time.monotonic() - began,
    )


def load_rows(
    data: EvaluationData,
    path: str | Path,
    rows: NDArray[np.int64],
    ids_file: Path,
    batch: int,
) -> LoaderConfig:
    """Return how exactly some samples are loaded, and write their ids down.

    Args:
        data: the options.
        path: of the dataset.
        rows: ids of the samples.
        ids_file: where they are written, in the run's folder.
        batch: images a step over all ranks.
    """
    content = io.BytesIO()
    np.save(content, np.sort(rows).astype(np.int64))
    # By every rank: none waits for another here, and all write the same.
    publish_bytes(ids_file, content.getvalue())
    return LoaderConfig(
        path=path,
        loader=data.loader,
        global_batch_size=batch,
        num_threads=data.num_threads,
        cache_dir=data.cache_dir,
        cache_gb=data.cache_gb,
        ids_file=ids_file,
        ids_sha256=hashlib.sha256(content.getvalue()).hexdigest(),
    )


def _part(training: Training, name: str, score: Accuracy) -> Result:
    settings: dict[str, Any] = {
        "epochs": training.course.schedule.epochs,
        "global_batch_size": training.batch,
        **training.config.data.settings,
    }
    if training.config.max_steps:
        settings["max_steps"] = training.config.max_steps
    divided = training.divided
    details = {
        "num_train": len(divided.train_rows),
        "num_test": len(divided.test_rows),
        "top5": score.top5,
    }
    per_class = {training.class_names[label]: share for label, share in score.per_class.items()}
    return Result(
        "", "", "top1", score.top1, per_class, layer=name, settings=settings, details=details
    )
