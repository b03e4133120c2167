"""A cell of a study's table: a recipe, the data set that it is of, and what was published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..config import RunConfig
from ..training.schedule import build_schedule


@dataclass(frozen=True)
class DataSet:
    """A data set of a study."""

    title: str
    """Its name."""
    num_images: int
    """Images to train on."""
    is_subset: bool = False
    """A random part of a larger one: the first samples of the shuffled whole, nested."""


IMAGENET_1K = DataSet("ImageNet-1k", 1_281_167)

DATA_SETS = {
    "yfcc1m": DataSet("1 million of YFCC-100M", 1_000_000, is_subset=True),
    "yfcc10m": DataSet("10 million of YFCC-100M", 10_000_000, is_subset=True),
    "yfcc50m": DataSet("50 million of YFCC-100M", 50_000_000, is_subset=True),
    "yfcc100m": DataSet("YFCC-100M", 100_000_000),
    "imagenet1k": IMAGENET_1K,
    "imagenet22k": DataSet("ImageNet-22k", 14_197_122),
    "places205": DataSet("Places205", 2_448_873),
}
"""By the names that cells have them under. YFCC-100M is taken as large as its name says; some of
its photographs are gone by now."""

SYNTHETIC = DataSet("a synthetic set of Newell's", 200_000)
"""Any variant of Newell and Deng 2020; those with changing viewpoints have 400,000."""


@dataclass(frozen=True)
class Protocol:
    """How a figure was measured; its names are those of ``fastssl.runs.result.Result``."""

    meaning: str
    """In words, with whoever measured it."""
    task: str
    """The evaluation: ``svm``, ``linear``, ``logistic``."""
    rules: str
    """Whose they are: the ``protocol`` of a result."""
    data: str
    """Title of the data set that it was measured on."""
    metric: str = "top1"
    """What was measured."""


_DETECTION = {"voc07": "VOC07", "voc0712": "VOC07+12"}
"""What detectors learnt from, by their protocols."""

PROTOCOLS = {
    "vissl-linear-imagenet1k": Protocol(
        "linear on ImageNet-1k by SGD, 28 epochs; the authors' later zoo",
        "linear",
        "goyal19",
        "ImageNet-1k",
    ),
    "pirl-linear-imagenet1k": Protocol(
        "linear on ImageNet-1k by SGD, 28 epochs, best layer; Misra and van der Maaten 2020",
        "linear",
        "goyal19",
        "ImageNet-1k",
    ),
    "pirl-linear-places205": Protocol(
        "linear on Places205 by SGD, 14 epochs, best layer; Misra and van der Maaten 2020",
        "linear",
        "goyal19",
        "Places205",
    ),
    "goyal19-svm-voc07": Protocol(
        "linear SVMs on VOC07, best layer, as Misra and van der Maaten repeat it",
        "svm",
        "goyal19",
        "VOC07",
        "mAP",
    ),
    "kolesnikov19-lbfgs-imagenet1k": Protocol(
        "L-BFGS on pre-logits, ImageNet-1k, the study's own hold-out",
        "logistic",
        "kolesnikov19",
        "ImageNet-1k",
    ),
    "kolesnikov19-sgd-imagenet1k": Protocol(
        "linear by SGD, 520 epochs, ImageNet-1k's official validation",
        "linear",
        "kolesnikov19",
        "ImageNet-1k",
    ),
    "kolesnikov19-sgd-places205": Protocol(
        "linear by SGD, 520 epochs, Places205's official validation",
        "linear",
        "kolesnikov19",
        "Places205",
    ),
    "pirl-linear-inaturalist18": Protocol(
        "linear on iNaturalist 2018 by SGD, 84 epochs, best layer; Misra and van der Maaten 2020",
        "linear",
        "goyal19",
        "iNaturalist 2018",
    ),
    "newell20-linear-synthetic": Protocol(
        "linear on all labels of the set that it was pretrained on, trunk in training mode",
        "linear",
        "newell20",
        "a synthetic set of Newell's",
    ),
    "newell20-normal-synthetic": Protocol(
        "a ResNet9 trained on all labels of the set, as a whole and from scratch",
        "finetune",
        "newell20",
        "a synthetic set of Newell's",
    ),
    **{
        f"goyal19-detect-{name}": Protocol(
            f"Fast R-CNN C4 by Detectron, {title}, IoU 0.5",
            "detect",
            name,
            "VOC07",
            "ap50_11",
        )
        for name, title in _DETECTION.items()
    },
    **{
        f"pirl-detect-{name}{ending}": Protocol(
            f"Faster R-CNN C4 by Detectron2, {title}, {words}; Misra and van der Maaten 2020",
            "detect",
            name,
            "VOC07",
            metric,
        )
        for name, title in _DETECTION.items()
        for ending, metric, words in (
            ("", "ap50", "IoU 0.5"),
            ("_ap", "coco_ap", "IoU 0.5 .. 0.95"),
            ("_ap75", "coco_ap75", "IoU 0.75"),
        )
    },
}
"""How a published figure was measured, by the name of its protocol."""

Origin = Literal["study", "remembered", "ours"]
"""Whose a row is: a source has it; it is remembered of one and not verified; no source has it."""


@dataclass(frozen=True)
class Published:
    """A figure that a study, or its authors later, published; never one of this project's."""

    value: float
    """In percent."""
    protocol: str
    """One of ``PROTOCOLS``."""
    what: str = ""
    """What it was measured on, where that is not plainly this cell."""
    layers: Mapping[str, float] = field(default_factory=dict)
    """The same at each end point, of which the value above is the best."""
    is_remembered: bool = False
    """Nobody has verified it."""
    data: str = ""
    """Title of the data set that it was measured on, where the protocol is of several."""

    @property
    def metric(self) -> str:
        """What was measured: ``top1``, ``mAP``, ``ap50``, ..."""
        return PROTOCOLS[self.protocol].metric


@dataclass(frozen=True)
class Cell:
    """One cell of a study."""

    build: Callable[[], RunConfig[Any]]
    """Gives the run's config."""
    data: DataSet
    """What the study trained it on."""
    gigaflops: float
    """10^9 floating-point operations of a training step for one image."""
    published: tuple[Published, ...] = ()
    """Figures that are known for it."""
    places: tuple[str, ...] = ()
    """Tables and figures of the study that it stands in: ``table1``, ``figure2``."""
    origin: Origin = "study"
    """Whose it is."""
    is_variant: bool = False
    """Another form of a cell of the study, listed where its own word is asked for."""


def count_images(config: RunConfig[Any], num_images: int = 0) -> float:
    """Count the images that a run sees.

    Args:
        config: of the run.
        num_images: of the data that it is given, where its recipe is for any.
    """
    if config.max_steps is not None:
        return config.max_steps * config.data.global_batch_size
    of_epoch = config.schedule.epoch_samples or config.data.nominal_samples or num_images
    return config.schedule.epochs * of_epoch


def count_steps(config: RunConfig[Any], num_images: int = 0) -> int:
    """Count the steps of a run; arguments as those of ``count_images``."""
    if config.max_steps is not None:
        return config.max_steps
    num_images = config.data.nominal_samples or num_images
    batch_size = config.data.global_batch_size
    return build_schedule(config.schedule, config.optim, num_images, batch_size).total_steps
