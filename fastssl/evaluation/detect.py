"""Detection: a trunk becomes a detector's, learns with it, and is tested (Goyal et al. 2019).

A run of the one trainer, with its resume, ledger and precision; see ``tasks.detection``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import LoaderConfig, RunConfig
from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from ..models import Trunk
from ..models.base import RegionTrunk
from ..models.detection import import_torchvision, take_apart
from ..runs.result import Result
from ..shards import ShardDataset, open_dataset
from ..shards.targets import OBJECTS
from ..system.files import make_folder, publish_bytes
from ..tasks import Detection, Task
from ..tasks.detection import check_objects
from ..training import train
from ..training.measures import NEVER, never
from ..training.validation import DataMeasure
from ..world import World
from .detect_options import DetectEvaluation, plan_run
from .detect_start import open_start
from .detection_ap import Detections, check_coco, measure_coco, measure_voc
from .evaluate import Circumstances, check_required, conclude
from .learner_run import (
    check_batch,
    check_score,
    find_folder,
    hash_rows,
    open_learner,
    read_score,
    write_score,
)
from .setting import Divided, divide
from .subject import SCRATCH, Subject
from .trained import load_rows

_log = logging.getLogger(__name__)

FOLDER_NAME = "detect"
"""The folder beside a trunk, or a result, that holds the runs of detectors."""
DETECTIONS_NAME = "detections.npz"
"""What was found on the test pictures, in the run's directory."""


@dataclass(frozen=True)
class DetectTraining(Documented):
    """A training that fits, before the ranks have met."""

    config: DetectEvaluation
    """Its options."""
    subject: Subject
    """The trunk; from scratch its outline."""
    run: RunConfig[Any]
    """How it is trained, but for its data."""
    divided: Divided
    """Ids of the samples that are trained on and of those that are tested."""
    digests: tuple[str, str]
    """Of the datasets that they are of."""
    class_names: tuple[str, ...]
    """Of the objects."""
    proposals: tuple[str, ...]
    """Of the files of proposals, what says that they are the same."""

    @property
    def tested(self) -> str:
        """What names the pictures that are tested, and what else the score depends on."""
        rows, config = hash_rows(self.divided.test_rows), self.config
        content = [self.digests[1], rows, self.proposals, config.coco]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """The run directory, named by all that the result depends on."""
        config = self.config
        more = (self.proposals, config.coco)
        return find_folder(
            config,
            self.subject,
            f"{FOLDER_NAME}/{config.protocol}",
            (self.digests, self.divided, self.run, more),
            ("log", "device", "checkpoint"),
        )


# ------------------------------------------------------------------ plan


def plan_detect(config: DetectEvaluation, world_size: int = 1) -> DetectTraining:
    """See that everything fits; every rank by itself.

    Args:
        config: the options.
        world_size: number of ranks.

    Raises:
        InputError: for whatever does not fit.
        ImportError: for a library that is not there.
    """
    check_required(config, needs_checkpoint=not config.from_scratch)
    import_torchvision()
    if config.coco:
        check_coco()
    data = config.data
    _check_proposals(config)
    with contextlib.ExitStack() as held:
        train = test = held.enter_context(contextlib.closing(open_dataset(data.path)))
        if data.has_test_path:
            test = held.enter_context(contextlib.closing(open_dataset(data.test_path)))
        for dataset in (train, test):
            check_objects(dataset, dataset.num_samples)
        _check_classes(train, test)
        second = test if data.has_test_path else None
        divided = divide(data, config.split_seed, train, second, needs_labels=False)
        _warn_of_classes(train, divided.train_rows, test, divided.test_rows)
        digests = (train.digest, test.digest)
    subject = open_learner(config, FOLDER_NAME)
    take_apart(subject.trunk)
    run = plan_run(config, subject, len(divided.train_rows))
    check_batch(run, world_size)
    files = [path for path in (config.proposals, config.test_proposals) if path != Path()]
    hashes = tuple(LoaderConfig(target_files=(path,)).target_sha256[0] for path in files)
    return DetectTraining(config, subject, run, divided, digests, train.class_names, hashes)


def _check_proposals(config: DetectEvaluation) -> None:
    """See that there are proposals of both sides, where there have to be."""
    if config.detector == "faster_rcnn":
        for name in ("proposals", "test_proposals"):
            if getattr(config, name) != Path():
                raise InputError(
                    f"{name} ({getattr(config, name)}) is not for detector faster_rcnn, which "
                    "makes its own; leave it away, or set --detector fast_rcnn"
                )
        return
    remedy = "make one: fastssl proposals DATASET OUT; or set --detector faster_rcnn"
    if config.proposals == Path():
        raise InputError(f"proposals (none given) must name a file of boxes; {remedy}")
    if config.data.has_test_path and config.test_proposals == Path():
        raise InputError(
            "test_proposals (none given) must name a file of boxes of the pictures of "
            f"--data.test-path; {remedy}"
        )
    if not config.data.has_test_path and config.test_proposals != Path():
        raise InputError(
            f"test_proposals ({config.test_proposals}) are of --data.test-path (none given): a "
            "part of --data.path is tested on, by --proposals; leave them away"
        )


def _check_classes(train: ShardDataset, test: ShardDataset) -> None:
    if train.class_names != test.class_names:
        lacking = [name for name in test.class_names if name not in train.class_names][:3]
        told = f"train lacks {', '.join(lacking)}" if lacking else "not the same, or not in order"
        raise InputError(
            f"data.test_path ({test.path}) has objects of "
            f"{spell_number(len(test.class_names), 'class', 'classes')}, data.path ({train.path}) "
            f"of {len(train.class_names)} ({told}); make both with the same classes"
        )


def _warn_of_classes(
    train: ShardDataset,
    train_rows: NDArray[np.int64],
    test: ShardDataset,
    test_rows: NDArray[np.int64],
) -> None:
    sides = [
        np.unique(np.asarray(dataset.targets[OBJECTS][rows][..., 4]))
        for dataset, rows in ((train, train_rows), (test, test_rows))
    ]
    lacking = [train.class_names[int(c)] for c in np.setdiff1d(sides[1], sides[0]) if c >= 0]
    if lacking:
        _log.warning(
            "no object that is learnt from is of %s, which test pictures have: it cannot be found",
            ", ".join(lacking),
        )


# ------------------------------------------------------------------ run


def run_detect(training: DetectTraining) -> Result:
    """Train and test, on all ranks; it goes on where it was stopped.

    Args:
        training: from ``plan_detect``; its trunk learns, so plan again for another run.

    Returns:
        The result.

    Raises:
        InputError: for what is found when the ranks have met, before the first step.
        StoppedBySignal: after a signal, with everything saved.
        RunFailed: as ``train``.
    """
    config, folder = training.config, training.folder
    make_folder(folder, "--output-dir")
    _log.info("the run: %s", folder)
    began, tested = time.monotonic(), training.tested
    train_data, test_data = _load_both(training, folder)
    check_score(folder, tested)

    def open_test(run: RunConfig, world: World, task: Task) -> DetectionTest:
        assert isinstance(task, Detection)
        return DetectionTest(run, world, task, test_data, training)

    run = dataclasses.replace(training.run, output_dir=folder, data=train_data)
    trunk: Trunk = open_start(training.subject, run, config.from_scratch)
    train(run, open_probe=open_test, trunk=trunk)
    return _conclude(training, read_score(folder, tested), time.monotonic() - began)


def _load_both(training: DetectTraining, folder: Path) -> tuple[LoaderConfig, LoaderConfig]:
    config, divided = training.config, training.divided
    data, batch = config.data, training.run.data.global_batch_size
    sides = (
        (data.path, divided.train_rows, "train", config.proposals),
        (
            data.path_to_test,
            divided.test_rows,
            "test",
            config.test_proposals if data.has_test_path else config.proposals,
        ),
    )
    loads = []
    for path, rows, name, proposals in sides:
        load = load_rows(data, path, rows, folder / f"{name}_ids.npy", batch)
        files = (proposals,) if config.detector == "fast_rcnn" else ()
        loads.append(dataclasses.replace(load, target_files=files))
    return dataclasses.replace(loads[0], allow_repeat_in_batch=True), loads[1]


class DetectionTest(DataMeasure):
    """Tests a detector once, at the end of its run, on every test picture."""

    def __init__(
        self,
        config: RunConfig,
        world: World,
        task: Detection,
        data: LoaderConfig,
        training: DetectTraining,
    ) -> None:
        """Open the dataset.

        Args:
            config: of the run.
            world: the ranks.
            task: what learns.
            data: what is tested on.
            training: says which pictures, and which figures are wanted.

        Raises:
            InputError: if it cannot be opened.
        """
        super().__init__(config, world, task, data, NEVER)
        self._folder = config.output_dir
        self._task = task
        self._training = training

    def measure(
        self,
        is_stopping: Callable[[], bool] = never,  # noqa: ARG002 - the run would be at its end
    ) -> dict[str, float | None]:
        """Test, write detections and score down, and return the score; a collective call."""
        world = self._world
        everyone = world.gather(world.together(self._detect))
        score: dict[str, Any] = world.on_zero(lambda: self._judge(everyone))
        return {f"test_{name}": score[name] for name in ("ap50", "ap50_11")}

    def _detect(self) -> tuple[NDArray[np.int64], Detections]:
        """Return the ids of this rank's pictures, and what was found, by their ids."""
        ids: list[int] = []
        found = []
        view = self._task.config.test_view
        with self.passing(view) as batches:
            for batch in batches:
                ids += batch.sample_ids.tolist()
                found += self._task.detect(batch, view)
        numbers = [len(one.scores) for one in found]
        empty = torch.zeros(0)
        return np.array(ids, np.int64), Detections(
            np.repeat(np.array(ids, np.int64), numbers),
            torch.cat([empty.long(), *(one.classes for one in found)]).numpy(),
            torch.cat([empty, *(one.scores for one in found)]).numpy(),
            torch.cat([empty.view(0, 4), *(one.boxes for one in found)]).numpy(),
        )

    def _judge(self, everyone: Sequence[tuple[NDArray[np.int64], Detections]]) -> dict[str, Any]:
        ids = np.concatenate([own for own, _ in everyone])
        parts = [vars(found) for _, found in everyone]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        content = io.BytesIO()
        named: dict[str, Any] = {"sample_ids": found.pop("pictures"), **found}
        np.savez(content, tested_ids=ids, class_names=self._training.class_names, **named)
        publish_bytes(self._folder / DETECTIONS_NAME, content.getvalue())
        order = np.argsort(ids)
        rows = order[np.searchsorted(ids, named["sample_ids"], sorter=order)]
        detections = Detections(rows, **found)
        objects = np.asarray(self._dataset.targets[OBJECTS][ids])
        score = score_detections(detections, objects, self._training)
        write_score(self._folder, score, self._training.tested)
        return score


def score_detections(
    detections: Detections, objects_NM6: NDArray[np.float32], training: DetectTraining
) -> dict[str, Any]:
    """Return every figure of some detections, by name, as JSON holds it.

    Args:
        detections: of N pictures.
        objects_NM6: what is in them.
        training: says what the classes are called, and whether COCO's figures are wanted.
    """
    names, found = training.class_names, measure_voc(detections, objects_NM6)
    score: dict[str, Any] = {
        "ap50": found.ap50,
        "ap50_11": found.ap50_11,
        "per_class": {
            "ap50": {names[c]: value for c, value in found.all_points.items()},
            "ap50_11": {names[c]: value for c, value in found.eleven_points.items()},
        },
        "num_objects": {names[c]: number for c, number in found.num_objects.items()},
        "num_detections": len(detections),
    }
    if training.config.coco:
        score["coco"] = measure_coco(detections, objects_NM6, names)
    return score


def keep_detections(training: DetectTraining) -> Path:
    """Copy what was found to a file beside the result; on rank 0, behind ``run_detect``.

    Args:
        training: that has ended.

    Returns:
        Where it is: ``RESULT.detections.npz``, or the run directory's own.
    """
    own = training.folder / DETECTIONS_NAME
    if training.config.json is None:
        return own
    beside = training.config.json.with_suffix(f".{DETECTIONS_NAME}")
    publish_bytes(beside, own.read_bytes())
    return beside


def _conclude(training: DetectTraining, score: dict[str, Any], seconds: float) -> Result:
    config, run, divided = training.config, training.run, training.divided
    trunk, task = training.subject.trunk, run.task
    assert isinstance(trunk, RegionTrunk)
    num_train, num_test = len(divided.train_rows), len(divided.test_rows)
    settings = {
        "start": SCRATCH if config.from_scratch else "pretrained",
        "detector": config.detector,
        "frozen_stages": config.frozen_stages,
        "trunk": run.trunk,
        "width": run.width,
        "steps": round(run.schedule.epochs),
        "global_batch_size": run.data.global_batch_size,
        "lr": run.optim.lr,
        "short": list(task.short),
        "pooling": task.pooling,
    }
    details = {
        "num_train": num_train,
        "num_test": num_test,
        "num_objects": score["num_objects"],
        "num_detections": score["num_detections"],
    }
    metrics = [config.metric, *(name for name in ("ap50", "ap50_11") if name != config.metric)]
    figures = [(name, score[name], score["per_class"][name]) for name in metrics]
    figures += [(f"coco_{name}", value, {}) for name, value in score.get("coco", {}).items()]
    parts = [
        Result("", "", name, value, by_class, layer=trunk.body, settings=settings, details=details)
        for name, value, by_class in figures
    ]
    circumstances = Circumstances(
        "detect", config.protocol, config.seed, training.subject, divided, training.digests
    )
    shown = {
        "view": dataclasses.asdict(task.test_view),
        "train_view": dataclasses.asdict(task.view),
    }
    return conclude(parts, circumstances, shown, seconds)
