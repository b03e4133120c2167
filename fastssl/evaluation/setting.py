"""What every evaluation is asked for and given: options, labelled features, splits.

Shape legend: N samples, D features, C classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from ..address import CachePlace, parse_place
from ..config import LoaderName
from ..counts import spell_number
from ..errors import InputError
from ..fields import Checked, Documented, NumThreads, Range, Share
from ..models.trunks import MAX_WIDTH
from ..randomness import Seed
from ..sampling import MAX_SAMPLES, HoldOut
from ..shards import ShardDataset
from .extract import Precision
from .protocols import ProtocolName
from .splits import label_subset, split_by_group
from .store import Storage

_MAX_SHARED = 0.01


@dataclass(frozen=True)
class EvaluationData(Checked, prefix="data."):
    """Labelled images."""

    path: Annotated[str | Path, tyro.conf.arg(metavar="FOLDER|ADDRESS")] = Path()
    """Dataset to train on."""
    test_path: Annotated[str | Path, tyro.conf.arg(metavar="FOLDER|ADDRESS")] = Path()
    """Dataset to test on; without it a part of the first, by seed."""
    test_share: Annotated[float, Range(0.001, 0.999)] = 0.2
    """Without a test path: share of each class that is tested on."""
    hold_out: Annotated[int, Range(0, MAX_SAMPLES)] = 0
    """Without a test path: test on the samples that pretraining with the same --data.hold-out left
    out, and train on the others."""
    hold_out_seed: Seed = 0
    """Its seed."""
    max_samples: Annotated[int, Range(0, MAX_SAMPLES)] = 0
    """Use the samples with ids below this; 0 uses all."""
    label_share: Annotated[float, Range(1e-6, 1)] = 1.0
    """Share of the labels of each class that is trained on; a smaller share is part of a greater
    one of the same seed."""
    max_shared: Share = _MAX_SHARED
    """Greatest share of test images that may be among those trained on, byte for byte."""
    loader: LoaderName = "auto"
    """Back end."""
    batch_size: Annotated[int, Range(1, 1_000_000)] = 64
    """Images that a rank's trunk looks at together."""
    num_threads: NumThreads = 0
    """Loader threads a rank; 0 takes its share of the usable cores."""
    cache_dir: Path = Path()
    """Folder on this machine's own disk in which datasets of an object store are kept as they are
    read; the one that a run was trained with is used again."""
    cache_gb: Annotated[float, Range(0, 1_000_000, without=0)] = 100.0
    """GB (1e9 bytes) that each of them may take in cache_dir; it may be less than the dataset."""

    def __post_init__(self) -> None:
        """Tell folders and addresses apart."""
        for name in ("path", "test_path"):
            object.__setattr__(self, name, parse_place(getattr(self, name)))
        super().__post_init__()

    @property
    def has_test_path(self) -> bool:
        """Whether a dataset of its own is tested on."""
        return self.test_path != Path()

    @property
    def path_to_test(self) -> str | Path:
        """The dataset that samples to test on are of."""
        return self.test_path if self.has_test_path else self.path

    @property
    def cache(self) -> CachePlace | None:
        """Where datasets of an object store are kept, if anywhere."""
        return CachePlace.of(self.cache_dir, self.cache_gb)

    @property
    def settings(self) -> dict[str, float]:
        """What of it tells a result from its neighbours."""
        return {} if self.label_share == 1 else {"label_share": self.label_share}

    def check(self) -> None:
        """Refuse two ways to split at once."""
        if self.has_test_path and self.hold_out:
            raise InputError(
                f"data.hold_out ({self.hold_out}) holds test samples out of data.path, and "
                "data.test_path names others; give one of them"
            )


@dataclass(frozen=True)
class TrunkOptions(Checked):
    """What every evaluation takes."""

    checkpoint: Annotated[Path, tyro.conf.arg(metavar="RUN|FILE")] = Path()
    """The trunk: a run that has ended, a file that it exported, or a file of weights."""
    trunk: str = ""
    """What network the weights are of, where the file does not say: resnet50 and its like,
    torchvision:NAME, timm:NAME."""
    width: Annotated[int, Range(0, MAX_WIDTH)] = 0
    """Width of that network; 0 is the file's own, or 4."""
    scale: str = ""
    """How pixels are scaled: imagenet, caffe, inception, mean, none, newell20_lab, newell20_rgb,
    cifar10_lab, cifar10_rgb or patch (each image by its own); nothing takes what the file says."""
    data: EvaluationData = field(default_factory=EvaluationData)
    """Labelled images."""
    view_size: Annotated[int, Range(0, 65535)] = 0
    """Side of what the trunk is shown, in pixels; 0 is the protocol's."""
    precision: Precision = "fp32"
    """Number format of the forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the trunk and the solvers run; auto takes the GPU if there is one."""
    seed: Seed = 0
    """Seed of splits, folds and draws."""
    json: Path | None = None
    """Write the result to this file."""


@dataclass(frozen=True)
class EvaluateConfig(TrunkOptions):
    """What every evaluation of a frozen trunk takes."""

    protocol: ProtocolName = "own"
    """Whose rules: what is shown, how maps are pooled, which layers are compared."""
    end_points: str = ""
    """Layers, with commas between their names, or all; nothing takes the protocol's."""
    features_dir: Path | None = None
    """Where features are kept and found again; without it "features" beside the trunk."""
    storage: Storage = "float32"
    """Number format of features on disk."""


@dataclass(frozen=True)
class Side(Documented):
    """Labelled features of one side of a split."""

    features: NDArray[Any]
    """float32 or float16 (N, D)."""
    labels: NDArray[np.int64]
    """(N,), -1 where a sample has no single label."""
    signs: NDArray[np.int8] | None
    """(N, C) of 1, 0 (not counted) and -1, where samples have several labels."""
    class_names: tuple[str, ...]
    """Of the labels."""
    sample_ids: NDArray[np.int64]
    """(N,): in their dataset."""

    def as_signs(self) -> NDArray[np.int8]:
        """Return the labels as one class against the rest, (N, C)."""
        if self.signs is not None:
            return self.signs
        classes = np.arange(len(self.class_names))
        return np.where(self.labels[:, None] == classes, 1, -1).astype(np.int8)


@dataclass(frozen=True)
class Divided(Documented):
    """Which samples are trained on and which are tested."""

    train_rows: NDArray[np.int64]
    """Rows of the first dataset."""
    test_rows: NDArray[np.int64]
    """Rows of the second, or of the first where there is no other."""
    text: str
    """In words."""
    chance: float | None = None
    """Share of the commonest class among those tested; None where samples have several labels."""


def divide(
    config: EvaluationData,
    seed: int,
    train: ShardDataset,
    test: ShardDataset | None,
    needs_labels: bool = True,
) -> Divided:
    """Decide which samples are trained on and which tested: a function of (dataset digest, seed).

    Args:
        config: the options.
        seed: of the split.
        train: the dataset to train on.
        test: the one to test on; None splits the first.
        needs_labels: whether samples without a label have no part in it; else all have, and what is
            learnt of them is no label.

    Raises:
        InputError: if one side has no labels, or samples are on both sides.
    """
    whole = _divide_all(config, seed, train, test, needs_labels)
    tested = test or train
    if needs_labels and not has_signs(tested):
        counts = np.bincount(tested.index["label"][whole.test_rows])
        whole = dataclasses.replace(whole, chance=float(counts.max() / counts.sum()))
    if config.label_share == 1:
        return whole
    if not needs_labels:
        raise InputError(
            f"data.label_share ({config.label_share}) is of labels, which are not what is learnt "
            "here; set --num-labels"
        )
    if has_signs(train):
        raise InputError(
            f"data.label_share ({config.label_share}) is of images with one label each; those of "
            f"{train.path} have several"
        )
    labels = train.index["label"][whole.train_rows]
    chosen = label_subset(labels, config.label_share, draw_seed(train, seed))
    share = f"{100 * config.label_share:g} % of the labels"
    return dataclasses.replace(
        whole, train_rows=whole.train_rows[chosen], text=f"{whole.text}, {share}"
    )


def draw_seed(dataset: ShardDataset, seed: int) -> int:
    """Return a seed of 64 bits that is another for another dataset."""
    drawn = hashlib.sha256(f"{dataset.digest}:{seed}".encode()).digest()
    return int.from_bytes(drawn[:8], "little")


def _divide_all(
    config: EvaluationData,
    seed: int,
    train: ShardDataset,
    test: ShardDataset | None,
    needs_labels: bool,
) -> Divided:
    find = find_labelled if needs_labels else find_all
    rows = find(train, config.max_samples)
    if test is not None:
        test_rows = find(test, config.max_samples)
        if needs_labels:
            _check_classes(train, test)
        _check_shared(config, train, rows, test, test_rows)
        return Divided(rows, test_rows, "a dataset each")
    if config.hold_out:
        num_ids = config.max_samples or train.num_samples
        held_out = HoldOut(train.digest, num_ids, config.hold_out, config.hold_out_seed)
        ids = held_out.find_held_out(np.arange(config.hold_out))
        is_held = np.isin(rows, ids)
        text = f"hold-out of {config.hold_out} by seed {config.hold_out_seed}"
        return Divided(rows[~is_held], rows[is_held], text)
    # Of several labels a sample none says what to stratify by.
    is_plain = has_signs(train) or not needs_labels
    strata = np.zeros(len(rows), np.int64) if is_plain else train.index["label"][rows]
    split = split_by_group(strata, rows, config.test_share, draw_seed(train, seed))
    kind = "at random" if is_plain else "stratified"
    share = 100 * config.test_share
    return Divided(
        rows[split.train], rows[split.test], f"{kind} {100 - share:g}/{share:g} by seed {seed}"
    )


def has_signs(dataset: ShardDataset) -> bool:
    """Tell whether samples have several labels each."""
    return "labels" in dataset.targets


def refuse_signs(task: str, *datasets: ShardDataset) -> None:
    """Refuse datasets whose samples have several labels each, before anything is computed.

    Args:
        task: that takes one.
        datasets: to train and to test on.

    Raises:
        InputError: names the tasks that take them.
    """
    for dataset in datasets:
        if has_signs(dataset):
            raise InputError(
                f"{task} takes images of one label each, and those of {dataset.path} have several "
                "(targets 'labels'); take finetune, svm or low_shot"
            )


def find_labelled(dataset: ShardDataset, max_samples: int = 0) -> NDArray[np.int64]:
    """Return the ids of the samples that have a label.

    Args:
        dataset: the samples.
        max_samples: those with ids below this; 0 is all.

    Raises:
        InputError: if there are fewer classes than two, or not so many samples.
    """
    samples = find_all(dataset, max_samples)
    if has_signs(dataset):
        return samples
    num = len(samples)
    labels = np.asarray(dataset.index["label"][:num])
    rows = np.flatnonzero(labels >= 0)
    num_classes = len(np.unique(labels[rows]))
    if num_classes < 2:
        raise InputError(
            f"{dataset.path} has labels of {spell_number(num_classes, 'class', 'classes')} on "
            f"{len(rows)} of {spell_number(num, 'sample')}; an evaluation needs two classes or "
            "more: make it of a folder a class, or of a table with labels"
        )
    return rows


def find_all(dataset: ShardDataset, max_samples: int = 0) -> NDArray[np.int64]:
    """Return the ids of the samples.

    Args:
        dataset: the samples.
        max_samples: those with ids below this; 0 is all.

    Raises:
        InputError: if there are not so many.
    """
    if max_samples > dataset.num_samples:
        raise InputError(
            f"data.max_samples ({max_samples}) must not exceed the "
            f"{spell_number(dataset.num_samples, 'sample')} of {dataset.path}"
        )
    return np.arange(max_samples or dataset.num_samples)


def _check_classes(train: ShardDataset, test: ShardDataset) -> None:
    if train.class_names != test.class_names:
        lacking = sorted(set(train.class_names) ^ set(test.class_names))[:3]
        told = f", such as {', '.join(lacking)}" if lacking else " in another order"
        raise InputError(
            f"data.test_path ({test.path}) has other classes than data.path ({train.path}): "
            f"{len(test.class_names)} and {len(train.class_names)}{told}; make both of the same "
            "classes"
        )
    if has_signs(train) != has_signs(test):
        raise InputError(
            f"one of {train.path} and {test.path} has several labels a sample and the other has "
            "one; make both alike"
        )


def _check_shared(
    config: EvaluationData,
    train: ShardDataset,
    rows: NDArray[np.int64],
    test: ShardDataset,
    test_rows: NDArray[np.int64],
) -> None:
    """Refuse a test set whose images are among those trained on, byte for byte."""

    def identify(dataset: ShardDataset, chosen: NDArray[np.int64]) -> NDArray[np.uint64]:
        index = dataset.index
        crc, length = (index[name][chosen].astype(np.uint64) for name in ("crc32", "length"))
        return crc << np.uint64(32) | length

    shared = int(np.isin(identify(test, test_rows), identify(train, rows)).sum())
    share = shared / len(test_rows)
    if share > config.max_shared:
        raise InputError(
            f"{shared} of {len(test_rows)} test images of {test.path} are among "
            f"those of {train.path} ({100 * share:.1f} %, --data.max-shared allows "
            f"{100 * config.max_shared:g} %); test on images that were not trained on"
        )
