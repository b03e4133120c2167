"""The tables of Kolesnikov et al. 2019: task x trunk x width, random trunks, and its ablations.

Which form the study's ablations had is not known: networks without skip connections stand here for
rotation at the standard width, the layer of the representation's size for rotation on RevNet-50
with the sizes that the widths give. Batch and course are those of the public configuration.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from ..config import RunConfig
from .cells import IMAGENET_1K, Cell, Published
from .kolesnikov19 import PAPER_BATCH, TASKS, TRUNKS, WIDTHS, kolesnikov19
from .operations import GIGAFLOPS

NO_SKIP = ("resnet50_v1_noskip", "resnet50_v2_noskip")
"""Trunks of the ablation; a reversible unit is its skip connection."""
REPRESENTATIONS = (2048, 4096, 6144, 8192)
"""Features of the pre-logits: those of the study's widths; ours, its grid is not known."""

_LBFGS = "kolesnikov19-lbfgs-imagenet1k"
_SGD, _PLACES = "kolesnikov19-sgd-imagenet1k", "kolesnikov19-sgd-places205"
# Table 1 of the paper, widths in order. The wider ones were not run.
_TABLE_1: dict[str, dict[str, tuple[float, ...]]] = {
    "rotation": {
        "resnet50_v1": (41.7, 43.4, 43.3, 43.2),
        "resnet50_v2": (43.8, 47.5, 47.2, 47.6),
        "resnet50_v2_minus": (38.6, 44.5, 47.3, 48.2),
        "revnet50": (47.3, 50.4, 53.1, 53.7),
        "revnet50_minus": (45.2, 51.0, 52.8, 53.7),
        "vgg19_bn": (16.8, 14.6, 16.6, 22.7),
    },
    "exemplar": {
        "resnet50_v1": (42.8, 46.9, 47.7),
        "resnet50_v2": (43.0, 45.7, 46.6),
        "resnet50_v2_minus": (33.7, 36.7, 38.2),
        "revnet50": (42.4, 45.6, 46.4),
        "revnet50_minus": (38.0, 42.6, 44.3),
        "vgg19_bn": (26.4, 28.3, 29.0),
    },
    "relative_location": {
        "resnet50_v1": (46.8, 50.5),
        "resnet50_v2": (42.2, 46.7),
        "resnet50_v2_minus": (38.6, 43.4),
        "revnet50": (40.6, 45.0),
        "revnet50_minus": (33.8, 43.5),
        "vgg19_bn": (28.5, 29.4),
    },
    "jigsaw": {
        "resnet50_v1": (42.2, 45.4),
        "resnet50_v2": (38.4, 41.3),
        "resnet50_v2_minus": (32.5, 34.4),
        "revnet50": (40.1, 43.7),
        "revnet50_minus": (36.1, 41.5),
        "vgg19_bn": (19.8, 21.1),
    },
}
_RANDOM = {
    "revnet50": 8.1,
    "resnet50_v2": 4.4,
    "resnet50_v1": 2.5,
    "revnet50_minus": 8.4,
    "resnet50_v2_minus": 5.3,
    "vgg19_bn": 2.7,
}
# Table 2: (task, trunk, width) -> ImageNet-1k, Places205. The supervised networks' widths are not
# said; here they are the standard ones.
_TABLE_2 = {
    ("rotation", "revnet50", 16): (55.4, 48.0),
    ("exemplar", "resnet50_v1", 12): (46.0, 42.7),
    ("relative_location", "resnet50_v1", 8): (51.4, 45.3),
    ("jigsaw", "resnet50_v1", 8): (44.6, 42.2),
    ("supervised", "revnet50", 4): (74.4, 58.9),
    ("supervised", "resnet50_v2", 4): (75.8, 61.6),
    ("supervised", "vgg19_bn", 8): (75.0, 61.5),
}


def random_trunk(trunk: str) -> RunConfig[Any]:
    """Return a random trunk of Table 1: width 4, exported before the first step.

    Args:
        trunk: one of ``TRUNKS``.
    """
    config = kolesnikov19("rotation", trunk, WIDTHS[0])
    return dataclasses.replace(
        config, recipe=f"kolesnikov19_random_{trunk}_{WIDTHS[0]}x", max_steps=0
    )


def ablation(trunk: str, width: int) -> RunConfig[Any]:
    """Return rotation on a trunk with another form of the study's networks.

    Args:
        trunk: ``resnet50_v2_noskip``, ``revnet50_linear2048`` and so on.
        width: its width factor.
    """
    base, _, _ = trunk.partition("_linear")
    config = kolesnikov19("rotation", base.removesuffix("_noskip"), width)
    return dataclasses.replace(
        config, recipe=f"kolesnikov19_rotation_{trunk}_{width}x", trunk=trunk
    )


def list_cells() -> dict[str, Cell]:
    """Return the whole study, name -> cell; other forms of cells stand last."""
    cells, variants = {}, {}
    for task in TASKS:
        for trunk in TRUNKS:
            for column, width in enumerate(WIDTHS):
                cell = _make_cell(task, trunk, column)
                cells[cell.build().recipe] = cell
                if task in PAPER_BATCH:
                    build = partial(kolesnikov19, task, trunk, width, True)
                    variants[build().recipe] = dataclasses.replace(
                        cell, build=build, is_variant=True, origin="remembered"
                    )
    for trunk, value in _RANDOM.items():
        build = partial(random_trunk, trunk)
        known = (Published(value, _LBFGS),)
        cells[build().recipe] = Cell(build, IMAGENET_1K, 0.0, known, ("table1",))
    forms: list[tuple[str, tuple[int, ...], str]]
    forms = [(trunk, WIDTHS[:1], "figure5") for trunk in NO_SKIP]
    forms += [(f"revnet50_linear{size}", WIDTHS, "figure6") for size in REPRESENTATIONS]
    for trunk, widths, place in forms:
        for column, width in enumerate(widths):
            build = partial(ablation, trunk, width)
            gigaflops = GIGAFLOPS[f"kolesnikov19_rotation_{trunk}"][column]
            cells[build().recipe] = Cell(build, IMAGENET_1K, gigaflops, (), (place,), "ours")
    return cells | variants


def _make_cell(task: str, trunk: str, column: int) -> Cell:
    width = WIDTHS[column]
    figures = _TABLE_1.get(task, {}).get(trunk, ())
    published = [Published(value, _LBFGS) for value in figures[column : column + 1]]
    places = ["table1"] if published else []
    if (task, trunk, width) in _TABLE_2:
        values = _TABLE_2[task, trunk, width]
        protocols = (_SGD, _PLACES)
        published += [Published(v, p) for v, p in zip(values, protocols, strict=True)]
        places.append("table2")
    return Cell(
        partial(kolesnikov19, task, trunk, width),
        IMAGENET_1K,
        GIGAFLOPS[f"kolesnikov19_{task}_{trunk}"][column],
        tuple(published),
        tuple(places),
        "study" if places else "ours",
    )
