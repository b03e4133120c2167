"""From a trunk and labelled images to a result: features once, figures part by part.

Everything that was finished is kept: features by ``store``, the figures of each end point beside
them. The same evaluation again, or after a kill, goes on behind its last finished part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..config import LoaderConfig
from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from ..loaders import Loader, build_loader
from ..runs.result import RESULTS_NAME, Result, rank_value, read_result, write_result
from ..shards import ShardDataset, open_dataset
from ..system.files import check_own_folder
from ..system.workers import Progress, say_nothing
from ..world import World, check_device
from .extract import Pass, find_end_points
from .measures import MEASURES, ONE_LABEL_TASKS
from .protocols import Showing, choose_end_points, choose_pooling, show
from .setting import (
    Divided,
    EvaluateConfig,
    Side,
    TrunkOptions,
    divide,
    has_signs,
    refuse_signs,
)
from .store import FeatureKey, FeatureStore, StoredFeatures, fill_store
from .subject import Subject, open_subject

_log = logging.getLogger(__name__)

FEATURES_NAME = "features"
_PARTS_NAME = "parts"
_MOST = 1e18  # Squares of larger ones, and their sums, are beyond float32.
ShowBar = Callable[[str], contextlib.AbstractContextManager[Progress]]


@contextlib.contextmanager
def _no_bar(_task: str) -> Iterator[Progress]:
    yield say_nothing


class Evaluation:
    """One task on one trunk and one pair of datasets."""

    def __init__(self, task: str, config: EvaluateConfig, world: World) -> None:
        """Open all that is needed and see that it fits, before anything takes time.

        Args:
            task: a name in ``MEASURES``.
            config: its options.
            world: the ranks.

        Raises:
            InputError: for whatever does not fit.
        """
        check_required(config)
        check_device(config.device, world)
        self.task, self.config, self.world = task, config, world
        data = config.data
        self.train = open_dataset(data.path, data.cache)
        self.test = open_dataset(data.test_path, data.cache) if data.has_test_path else None
        if task in ONE_LABEL_TASKS:
            refuse_signs(task, self.train, self.test or self.train)
        self.divided: Divided = divide(data, config.seed, self.train, self.test)
        self.subject: Subject = open_subject(
            config.checkpoint, config.trunk, config.width, config.scale
        )
        trunk = self.subject.trunk
        self.showing: Showing = show(config.protocol, trunk, config.view_size)
        side = self.showing.view.size // self.showing.grid
        shapes = find_end_points(trunk, side)
        self.end_points = choose_end_points(config.protocol, config.end_points, trunk, shapes)
        home = find_home(config.checkpoint, self.subject)
        root = config.features_dir or home / FEATURES_NAME
        # Whoever names a folder may name a link; one that lies beside the trunk leads nowhere else.
        beside = () if config.features_dir else (root,)
        for folder in (*beside, root / _PARTS_NAME, home / RESULTS_NAME):
            check_own_folder(folder)
        self.store = FeatureStore(root)

    def close(self) -> None:
        """Close the datasets."""
        for dataset in (self.train, self.test):
            if dataset is not None:
                dataset.close()

    # ------------------------------------------------------------ features

    def key(self, dataset: ShardDataset, end_point: str) -> FeatureKey:
        """Return what the features of an end point are of."""
        return FeatureKey(
            trunk_digest=self.subject.digest,
            dataset_digest=dataset.digest,
            view=self.showing.to_text(),
            input=self.subject.spec.to_text(),
            end_point=end_point,
            pooling=choose_pooling(self.config.protocol),
            precision=self.config.precision,
            storage=self.config.storage,
            samples=f"below {self.config.data.max_samples or dataset.num_samples}",
        )

    def make_features(self, show_bar: ShowBar = _no_bar) -> None:
        """Make the features that are not there yet, on all ranks.

        Args:
            show_bar: gives what is told of the progress.
        """
        for dataset, side in ((self.train, "train"), (self.test, "test")):
            if dataset is None:
                continue
            keys = {name: self.key(dataset, name) for name in self.end_points}
            if self.world.on_zero(partial(self._has, keys)):
                _log.info("features of %s: there already, in %s", side, self.store.root)
                continue
            loader = self.build_loader(dataset)
            with contextlib.closing(loader), show_bar(f"features of {side}") as advance:
                fill_store(
                    self.store,
                    keys,
                    self.subject.trunk,
                    loader,
                    self.setting,
                    str(self.world.device),
                    self.world,
                    advance,
                )

    def _has(self, keys: Mapping[str, FeatureKey]) -> bool:
        return all(self.store.find(key) is not None for key in keys.values())

    @property
    def setting(self) -> Pass:
        """How the trunk is run."""
        return Pass(
            self.subject.spec,
            self.end_points,
            choose_pooling(self.config.protocol),
            self.showing.grid,
            self.config.precision,
        )

    def build_loader(self, dataset: ShardDataset) -> Loader:
        """Build the loader of this rank's samples, with the view that the trunk is shown.

        Args:
            dataset: one of the two.
        """
        data, world = self.config.data, self.world
        config = LoaderConfig(
            path=dataset.address,
            loader=data.loader,
            global_batch_size=data.batch_size * world.size,
            num_threads=data.num_threads,
            max_samples=data.max_samples,
            cache_dir=data.cache_dir,
            cache_gb=data.cache_gb,
            allow_repeat_in_batch=True,
        )
        return build_loader(
            config, self.showing.view, world.rank, world.size, str(world.device), dataset=dataset
        )

    # ------------------------------------------------------------ figures

    def run(self) -> Result:
        """Work out the figures of every end point; on rank 0, behind ``make_features``.

        Returns:
            The result of the best end point, with all of them as its parts.
        """
        found, times = zip(*map(self._find_part, self.end_points), strict=True)
        shown = {"view": json.loads(self.showing.to_text())}
        return conclude(
            [part for parts in found for part in parts],
            Circumstances(
                self.task,
                self.config.protocol,
                self.config.seed,
                self.subject,
                self.divided,
                (self.train.digest, (self.test or self.train).digest),
            ),
            shown,
            sum(times),
        )

    def _find_part(self, end_point: str) -> tuple[list[Result], float]:
        """Return the figures of an end point and how long they took, found or worked out."""
        path = self.store.root / _PARTS_NAME / f"{self.task}-{self._digest_part(end_point)}.json"
        if path.is_file():
            try:
                kept = read_result(path)
            except InputError as error:
                raise InputError(f"{error}, or remove it: it is worked out again") from None
            _log.info("%s: %s", end_point, _say(kept))
            return list(kept.flatten()), kept.seconds
        begin = time.monotonic()
        train, test = self._sides(end_point)
        _, measure = MEASURES[self.task]
        counts = {"num_train": len(train.labels), "num_test": len(test.labels)}
        found = [
            dataclasses.replace(
                part,
                layer=end_point,
                settings={**part.settings, **self.config.data.settings},
                details={**counts, **part.details},
            )
            for part in measure(self.config, train, test, self.world.device)
        ]
        seconds = time.monotonic() - begin
        whole = dataclasses.replace(
            found[0],
            task=self.task,
            protocol=self.config.protocol,
            seconds=seconds,
            parts=tuple(found),
        )
        write_result(path, whole)
        _log.info("%s: %s", end_point, _say(whole))
        return found, seconds

    def _digest_part(self, end_point: str) -> str:
        """Return a digest of all that the figures of an end point depend on."""
        config = dataclasses.asdict(self.config)
        for name in ("checkpoint", "json", "features_dir", "device", "data", "end_points"):
            del config[name]
        datasets = [self.train, self.test or self.train]
        rows = [self.divided.train_rows, self.divided.test_rows]
        content = [
            __version__,
            config,
            [dataclasses.astuple(self.key(dataset, end_point)) for dataset in datasets],
            [hashlib.sha256(part.tobytes()).hexdigest() for part in rows],
        ]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:24]

    def _sides(self, end_point: str) -> tuple[Side, Side]:
        """Return the labelled features of both sides."""
        train = self.store.find(self.key(self.train, end_point))
        test = self.store.find(self.key(self.test or self.train, end_point))
        if train is None or test is None:
            raise AssertionError("features are not there")  # make_features came first
        try:
            return (
                _take_rows(self.train, train, self.divided.train_rows),
                _take_rows(self.test or self.train, test, self.divided.test_rows),
            )
        except ValueError as error:
            raise InputError(
                f"features of {end_point} in {self.store.root} {error}; remove the folder, they "
                "are made again"
            ) from None


@dataclass(frozen=True)
class Circumstances(Documented):
    """What the figures of one evaluation share."""

    task: str
    """Its name."""
    protocol: str
    """Whose rules."""
    seed: int
    """Of its draws."""
    subject: Subject
    """The trunk."""
    divided: Divided
    """Which samples were trained on and which tested."""
    digests: tuple[str, str]
    """Of the datasets that they are of."""


def conclude(
    parts: Sequence[Result], of: Circumstances, shown: Mapping[str, Any], seconds: float
) -> Result:
    """Return the result of the best end point, with all figures as its parts.

    Args:
        parts: the figures; of each end point the first one stands for it.
        of: what they share.
        shown: what the trunk was shown, besides how pixels were scaled.
        seconds: that they took.
    """
    chance = of.divided.chance
    parts = [
        dataclasses.replace(part, details={**part.details, "chance": chance})
        if part.metric == "top1" and chance is not None
        else part
        for part in parts
    ]
    firsts: dict[str, Result] = {}
    for part in parts:
        firsts.setdefault(part.layer, part)
    return dataclasses.replace(
        max(firsts.values(), key=lambda part: rank_value(part.metric, part.value)),
        parts=tuple(parts) if len(parts) > 1 else (),
        task=of.task,
        protocol=of.protocol,
        split=of.divided.text,
        seed=of.seed,
        train_digest=of.digests[0],
        test_digest=of.digests[1],
        trunk_digest=of.subject.digest,
        recipe=of.subject.recipe,
        step=of.subject.step,
        input=json.dumps({**shown, "scale": json.loads(of.subject.spec.to_text())}),
        seconds=seconds,
        version=__version__,
    )


def _take_rows(dataset: ShardDataset, stored: StoredFeatures, rows: NDArray[np.int64]) -> Side:
    """Return the labelled features of some samples.

    Raises:
        ValueError: if they cannot be of this dataset, or cannot be worked with.
    """
    if len(rows) and rows.max() >= len(stored.sample_ids):
        raise ValueError(
            f"are of {spell_number(len(stored.sample_ids), 'sample')}, wanted {rows.max() + 1} or "
            "more"
        )
    ids, labels, features = stored.sample_ids[rows], stored.labels[rows], stored.features[rows]
    if not ((0 <= ids) & (ids < dataset.num_samples)).all():
        raise ValueError(f"are of samples that {dataset.path} does not have")
    if not np.array_equal(labels, dataset.index["label"][ids]):
        raise ValueError(f"have other labels than {dataset.path}")
    if not (np.abs(features) <= min(_MOST, np.finfo(features.dtype).max)).all():
        raise ValueError("are not finite, or too large to be worked with")
    signs = np.asarray(dataset.targets["labels"][ids]) if has_signs(dataset) else None
    return Side(features, labels, signs, dataset.class_names, ids)


def _say(result: Result) -> str:
    return f"{result.metric} {100 * result.value:.1f} %"


def find_home(checkpoint: Path, subject: Subject) -> Path:
    """Return the folder beside which features and what was trained on a trunk lie.

    Args:
        checkpoint: as the options name the trunk.
        subject: the trunk.

    Returns:
        The run's, or the file's.
    """
    return subject.run or (checkpoint.parent if checkpoint.is_file() else checkpoint)


def check_required(config: TrunkOptions, needs_checkpoint: bool = True) -> None:
    """Refuse an evaluation of which something is missing.

    Args:
        config: its options.
        needs_checkpoint: whether there is no evaluation without a trunk that was trained.

    Raises:
        InputError: names all that is.
    """
    missing = []
    if needs_checkpoint and config.checkpoint == Path():
        missing.append("--checkpoint (none given) must name a run or a file of weights")
    if config.data.path == Path():
        missing.append("--data.path (none given) must name a dataset with labels")
    if missing:
        raise InputError("; ".join(missing))


def keep_result(result: Result, subject: Subject, path: Path | None) -> list[Path]:
    """Write a result to the run that the trunk is of, and to a file.

    Args:
        result: what was found.
        subject: the trunk.
        path: of the file, if one is wanted.

    Returns:
        Where it was written.
    """
    places = [] if path is None else [path]
    if subject.run is not None:
        same: Mapping[str, Any] = {
            "layers": [part.layer for part in result.flatten()],
            "settings": [dict(part.settings) for part in result.flatten()],
            **{
                name: getattr(result, name)
                for name in (
                    "split",
                    "seed",
                    "train_digest",
                    "test_digest",
                    "trunk_digest",
                    "input",
                )
            },
        }
        digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]
        name = f"{result.task}-{result.protocol}-{digest}.json"
        places.append(subject.run / RESULTS_NAME / name)
    for place in places:
        write_result(place, result)
    return places
