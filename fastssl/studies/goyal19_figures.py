"""What is published of Goyal et al. 2019's cells: task, trunk, difficulty, data -> figures.

Whence: the authors' later release (its model zoo), and Misra and van der Maaten 2020, who repeat
the study's figures and add their own. Figures of single end points on VOC07, some on Places205, and
those of Fast R-CNN are remembered of the paper's tables and not verified; they are marked so. The
curves over data size, difficulty and shots are pictures in the paper, without numbers: ``FINDINGS``
has what is said of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from .cells import Published

_ZOO, _PIRL, _PLACES, _NATURE = (
    "vissl-linear-imagenet1k",
    "pirl-linear-imagenet1k",
    "pirl-linear-places205",
    "pirl-linear-inaturalist18",
)
_VOC07 = "goyal19-svm-voc07"
_PAPER, _RELEASE = "the paper's weights", "of the release, 105 epochs"
_MISRA = "of Misra and van der Maaten"
_LAYERS = ("conv1", "res2", "res3", "res4", "res5")


def _each(protocol: str, what: str, *values: float, is_remembered: bool = False) -> Published:
    """Return figures of ResNet-50's end points, the best of them in front."""
    layers = dict(zip(_LAYERS, values, strict=True))
    return Published(max(values), protocol, what, layers, is_remembered)


def _recall(protocol: str, *values: float) -> Published:
    return _each(protocol, _PAPER, *values, is_remembered=True)


def _fast_rcnn(voc07: float, voc0712: float) -> tuple[Published, ...]:
    """Return figures of the study's Fast R-CNN, tested on VOC07."""
    named = {"voc07": voc07, "voc0712": voc0712}
    return tuple(
        Published(value, f"goyal19-detect-{name}", "all of the trunk learns", is_remembered=True)
        for name, value in named.items()
    )


def _detect(data: str, ap50: float, ap: float, ap75: float) -> tuple[Published, ...]:
    """Return figures of Faster R-CNN, tested on VOC07."""
    named = {"": ap50, "_ap": ap, "_ap75": ap75}
    return tuple(
        Published(value, f"pirl-detect-{data}{name}", "all of the trunk learns")
        for name, value in named.items()
    )


PUBLISHED: Mapping[tuple[str, str, int, str], tuple[Published, ...]] = {
    ("jigsaw", "resnet50", 100, "imagenet1k"): (Published(48.57, _ZOO, _RELEASE),),
    ("jigsaw", "resnet50", 2000, "imagenet1k"): (
        Published(46.58, _ZOO, _PAPER),
        Published(46.73, _ZOO, _RELEASE),
        _each(_PIRL, _PAPER, 12.4, 28.0, 39.9, 45.7, 34.2),
        _each(_PLACES, _PAPER, 15.1, 28.8, 36.8, 41.2, 34.4),
        Published(64.5, _VOC07, _PAPER),
        _recall(_VOC07, 27.1, 45.7, 56.6, 64.5, 57.2),
        Published(21.3, _NATURE, _PAPER),
        *_fast_rcnn(61.4, 68.3),
        *_detect("voc07", 64.9, 37.7, 38.0),
        *_detect("voc0712", 75.1, 48.9, 52.9),
    ),
    ("jigsaw", "resnet50", 10000, "imagenet1k"): (Published(48.11, _ZOO, _RELEASE),),
    ("jigsaw", "resnet50", 2000, "imagenet22k"): (
        Published(53.09, _ZOO, _PAPER),
        Published(44.84, _ZOO, _RELEASE),
        _recall(_VOC07, 20.2, 47.7, 57.7, 71.9, 64.8),
        *_fast_rcnn(69.2, 75.4),
        _recall(_PLACES, 11.0, 30.2, 36.4, 41.5, 36.4),
    ),
    ("jigsaw", "resnet50", 2000, "yfcc1m"): (
        Published(42.1, _PLACES, _PAPER),
        Published(64.0, _VOC07, _PAPER),
    ),
    ("jigsaw", "resnet50", 2000, "yfcc100m"): (
        Published(51.37, _ZOO, _PAPER),
        Published(48.3, _PIRL, _PAPER),
        Published(44.8, _PLACES, _PAPER),
        Published(71.0, _VOC07, _PAPER),
        _recall(_VOC07, 20.4, 47.1, 58.4, 71.0, 62.5),
        *_fast_rcnn(66.6, 73.3),
        _recall(_PLACES, 11.3, 28.6, 38.1, 44.8, 37.4),
    ),
    ("jigsaw", "alexnet", 2000, "imagenet1k"): (Published(34.82, _ZOO, _PAPER),),
    ("jigsaw", "alexnet", 2000, "imagenet22k"): (Published(37.5, _ZOO, _PAPER),),
    ("jigsaw", "alexnet", 2000, "yfcc100m"): (Published(37.01, _ZOO, _PAPER),),
    # Misra and van der Maaten's row of Places205's end points contradicts their own table of best
    # layers (37.5): only that stands here as published.
    ("colorization", "resnet50", 10, "imagenet1k"): (
        Published(40.11, _ZOO, _PAPER),
        _each(_PIRL, _PAPER, 10.2, 24.1, 31.4, 39.6, 35.2),
        Published(37.5, _PLACES, _PAPER),
        _recall(_PLACES, 14.7, 27.4, 32.7, 37.5, 34.8),
        Published(55.6, _VOC07, _PAPER),
        _recall(_VOC07, 24.3, 40.7, 48.1, 55.6, 52.3),
    ),
    ("colorization", "resnet50", 10, "imagenet22k"): (
        Published(49.24, _ZOO, _PAPER),
        _recall(_VOC07, 25.8, 43.1, 53.6, 66.1, 62.7),
        _recall(_PLACES, 15.0, 30.5, 37.8, 44.0, 41.5),
    ),
    ("colorization", "resnet50", 10, "yfcc100m"): (
        Published(47.46, _ZOO, _PAPER),
        _recall(_VOC07, 26.1, 42.3, 53.8, 67.2, 61.4),
        _recall(_PLACES, 15.2, 30.4, 38.6, 45.4, 41.5),
    ),
    ("colorization", "alexnet", 10, "imagenet1k"): (Published(30.39, _ZOO, _PAPER),),
    ("colorization", "alexnet", 10, "imagenet22k"): (Published(36.83, _ZOO, _PAPER),),
    ("colorization", "alexnet", 10, "yfcc100m"): (Published(34.19, _ZOO, _PAPER),),
    ("supervised", "resnet50", 0, "imagenet1k"): (
        Published(75.88, _ZOO, _PAPER),
        Published(75.9, _PIRL, _MISRA),
        _each(_PIRL, "as repeated by Misra and van der Maaten", 11.6, 33.3, 48.7, 67.9, 75.5),
        _each(_PLACES, _MISRA, 14.8, 32.6, 42.1, 50.8, 51.5),
        Published(87.5, _VOC07, _MISRA),
        _recall(_VOC07, 24.5, 47.8, 60.5, 80.4, 88.0),
        Published(45.4, _NATURE, _MISRA),
        *_fast_rcnn(70.5, 76.2),
        *_detect("voc07", 74.5, 43.8, 45.9),
        *_detect("voc0712", 81.1, 52.6, 57.4),
    ),
    ("supervised", "resnet50", 0, "places205"): (
        Published(58.49, _ZOO, _PAPER),
        _each(_PIRL, _PAPER, 13.2, 31.7, 46.0, 58.2, 51.7),
        _each(_PLACES, _PAPER, 16.7, 32.3, 43.2, 54.7, 62.3),
        _recall(_VOC07, 28.2, 46.9, 59.1, 77.3, 80.8),
    ),
    ("supervised", "alexnet", 0, "imagenet1k"): (Published(49.54, _ZOO, "BVLC's weights"),),
    ("random", "resnet50", 0, ""): (
        _each(_PIRL, "", 9.6, 13.7, 12.0, 8.0, 5.6),
        _each(_PLACES, "", 12.9, 16.6, 15.5, 11.6, 9.0),
        _recall(_VOC07, 9.6, 8.3, 8.1, 8.0, 7.7),
    ),
}
"""Which |P| and K the paper's weights had is said of ImageNet-22k's jigsaw alone; the others stand
where the study scales data."""

FINDINGS: Mapping[str, str] = {
    "data": "Goyal et al. 2019 find jigsaw to grow with the logarithm of the data and to level off "
    "towards 100 million images; ImageNet-22k serves VOC07 as well as YFCC-100M does, and one "
    "million of YFCC serve Places205 as well as ImageNet-22k.",
    "difficulty": "Goyal et al. 2019, VOC07: from |P| = 100 to 10,000 jigsaw gains 5 points of mAP "
    "with ResNet-50 and 1.9 with AlexNet; over K colorization varies by about 2.",
    "capacity": "Goyal et al. 2019 find the gap between ResNet-50 and AlexNet to widen with data.",
}
"""What is said of pictures whose numbers are not published, by the picture's name."""
