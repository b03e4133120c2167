"""What a trunk is worth while it is still being trained: neighbours and rank of its features.

Shape legend: B images of a rank, D features.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import LoaderConfig, RunConfig
from ..counts import spell_number
from ..errors import InputError
from ..loaders import build_loader
from ..models import build_trunk
from ..models.export import first_tower_state
from ..sampling import HoldOut
from ..shards import ShardDataset, open_dataset
from ..tasks import Task
from ..training.measures import Measure, never
from ..world import World
from .effective_rank import effective_rank
from .extract import PRE_LOGITS, Pass, run_trunk
from .knn import evaluate_knn
from .protocols import PATCH_GRID, Showing, show, takes_patches
from .splits import Split, split_by_group

_log = logging.getLogger(__name__)

TEMPERATURE = 0.07
TEST_SHARE = 0.2
_MAX_BATCH = 1024


class _Part(NamedTuple):
    """What one rank has of the probe's images, in id order."""

    features: Tensor
    """float32 (B, D)."""
    labels: Tensor
    """int64 (B,)."""


class Probe(Measure):
    """Probes a run's trunk on labelled images, each cut from its centre.

    A twin of the trunk looks at them: one that has the trunk's own weights, in evaluation mode, so
    that neither modes nor statistics nor generators of the run are touched.
    """

    phase = "probe"

    def __init__(self, config: RunConfig, world: World, task: Task) -> None:
        """Open the dataset, and choose images and split.

        Args:
            config: of the run; ``probe.data_path`` is set.
            world: the ranks.
            task: whose trunk is probed.

        Raises:
            InputError: if the dataset cannot be opened or its labels allow no split.
        """
        probe = config.probe
        super().__init__(probe.every_steps, config.log.every_steps)
        self._config = config
        self._world = world
        self._trunk = task.trunk
        self._spec = task.input_spec
        self._showing = choose_showing(task)
        with torch.device("meta"):  # neither memory nor a draw: it gets the trunk's weights
            self._twin = build_trunk(config.trunk, config.width).eval()
        with contextlib.ExitStack() as on_failure:
            self._dataset = on_failure.enter_context(
                contextlib.closing(open_dataset(probe.data_path))
            )
            ids = _choose_images(self._dataset, probe.max_samples, probe.seed)
            self._split = _split_images(self._dataset, ids, probe.seed)
            self._data = self._configure_loader(len(ids))
            on_failure.pop_all()
        _log.info(
            "probe: every %s %s of %s, %d of them classified by %s",
            spell_number(probe.every_steps, "step"),
            spell_number(len(ids), "image"),
            probe.data_path,
            len(self._split.test),
            spell_number(probe.k, "neighbour"),
        )

    def _configure_loader(self, num_images: int) -> LoaderConfig:
        config, world, data = self._config, self._world, self._config.data
        if num_images < world.size:
            raise InputError(
                f"probe.data_path ({config.probe.data_path}) gives "
                f"{spell_number(num_images, 'image')}, fewer than the "
                f"{spell_number(world.size, 'rank')}; give a larger dataset, or raise "
                "--probe.max-samples"
            )
        size = min(data.global_batch_size // config.accumulation, _MAX_BATCH, num_images)
        is_part = num_images < self._dataset.num_samples
        return LoaderConfig(
            path=config.probe.data_path,
            loader=data.loader if data.loader in ("native", "webdataset") else "auto",
            global_batch_size=max(size // world.size, 1) * world.size,
            num_threads=data.num_threads,
            hold_out=num_images if is_part else 0,
            hold_out_seed=config.probe.seed,
            part="held_out" if is_part else "remaining",
        )

    def measure(self, is_stopping: Callable[[], bool] = never) -> dict[str, float | None]:
        """Return accuracy, rank and the time that they took, by name; a collective call."""
        began = time.perf_counter()
        part = self._world.together(lambda: self._extract(is_stopping))
        parts = self._world.gather(part)
        if None in parts:
            return {}
        whole = [torch.cat(both) for both in zip(*parts, strict=True)]
        measured = self._world.on_zero(lambda: self._judge(*whole))
        return {**measured, "probe_ms": (time.perf_counter() - began) * 1e3}

    def _extract(self, is_stopping: Callable[[], bool] = never) -> _Part | None:
        """Run the trunk as it stands over this rank's images; None where it has to stop."""
        config, world = self._config, self._world
        self._twin.load_state_dict(first_tower_state(self._trunk)[0], assign=True)
        setting = Pass(
            self._spec,
            grid=self._showing.grid,
            precision=config.precision,
            channels_last=config.channels_last,
        )
        loader = build_loader(
            self._data,
            self._showing.view,
            world.rank,
            world.size,
            str(world.device),
            dataset=self._dataset,
        )
        features, labels = [], []
        with contextlib.closing(loader):
            for batch in run_trunk(self._twin, loader.one_pass(), setting, world.device):
                if is_stopping():
                    return None
                assert batch.labels is not None  # the dataset has classes
                features.append(batch.features[PRE_LOGITS].cpu())
                labels.append(batch.labels)
        return _Part(torch.cat(features), torch.cat(labels))

    def _judge(self, features: Tensor, labels: Tensor) -> dict[str, float | None]:
        """Measure features of all images, in id order."""
        train, test = self._split.train, self._split.test
        # In the place of an image whose bytes cannot be had stands another, maybe without a label.
        is_known = labels.numpy() >= 0
        split = Split(train[is_known[train]], test[is_known[test]])
        commonest = np.bincount(labels.numpy()[split.test]).max() / len(split.test)
        if not features.isfinite().all():
            return dict.fromkeys(("probe_knn_accuracy", "probe_effective_rank"), None)
        k = self._config.probe.k
        found = evaluate_knn(features, labels, [], k, TEMPERATURE, split=split)
        return {
            "probe_knn_accuracy": found.accuracy,
            "probe_knn_accuracy_of_chance": float(commonest),
            "probe_effective_rank": effective_rank(features.to(self._world.device)),
        }

    def close(self) -> None:
        """Close the dataset."""
        self._dataset.close()


def open_probe(config: RunConfig, world: World, task: Task) -> Probe | None:
    """Return what probes a run's trunk while it trains, for ``train``; None where nobody asks.

    Args:
        config: of the run.
        world: the ranks.
        task: of the run.

    Raises:
        InputError: if the run's trunk cannot be probed so.
    """
    return Probe(config, world, task) if config.probe.is_on else None


def choose_showing(task: Task) -> Showing:
    """Return what a trunk is shown to be probed: pictures or patches as large as the task's own.

    Args:
        task: whose trunk it is.
    """
    config: Any = getattr(task, "config", None)
    is_cut = takes_patches(task.trunk) and hasattr(config, "patch")
    return show("own", task.trunk, PATCH_GRID * config.patch if is_cut else task.views[0].size)


def _choose_images(dataset: ShardDataset, max_samples: int, seed: int) -> NDArray[np.int64]:
    """Return the ids of the images, ascending: those that a loader gives as held out, or all."""
    if max_samples >= dataset.num_samples:
        return np.arange(dataset.num_samples)
    return HoldOut(dataset.digest, dataset.num_samples, max_samples, seed).ids


def _split_images(dataset: ShardDataset, ids: NDArray[np.int64], seed: int) -> Split:
    """Return which of the images are classified and which by: rows of ``ids``."""
    labels = dataset.index["label"][ids].astype(np.int64)
    num_classes = len(np.unique(labels[labels >= 0]))
    if num_classes < 2:
        raise InputError(
            f"probe.data_path ({dataset.path}) has labels of "
            f"{spell_number(num_classes, 'class', 'classes')} in "
            f"{spell_number(len(ids), 'image')}, wanted 2 or more; give a dataset made from one "
            "folder a class, or raise --probe.max-samples"
        )
    try:
        return split_by_group(labels, ids, TEST_SHARE, seed)
    except InputError as error:
        raise InputError(f"probe.data_path ({dataset.path}): {error}") from None
