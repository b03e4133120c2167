"""The table of Goyal et al. 2019: task x trunk x difficulty x data, and its supervised baselines.

What is known of the paper's runs is little (``goyal19.py``); what a cell takes over from elsewhere:

- **Batch and rate**: 256 images and 0.1 (AlexNet's jigsaw 0.01), of the authors' later release. A
  comment of theirs speaks of 8 machines for ImageNet-22k: with another
  ``--data.global-batch-size`` the rate follows.
- **Schedule**: 105 epochs on ImageNet-1k and ImageNet-22k, 10 on YFCC, are the release's own for
  jigsaw. That comment has 120 for the paper's ImageNet-22k, without milestones
  (``--schedule.epochs 120``). Which subset of YFCC the 10 epochs are for is not said: here they are
  for all four. Of Places205 nothing is known: it has ImageNet-1k's. Colorization has jigsaw's.
- **Difficulty**: the five sizes of permutation sets are published. Those of 100 and 701 are files
  by Noroozi there; here they are chosen by the greatest minimum distance, without the identity
  (``--task.permutations-file`` takes the files). The list of K is remembered and not verified.
- **Supervised**: ResNet-50 as the recipe ``supervised``; AlexNet is ``caffenet``, the network whose
  weights the study downloaded, with BVLC's course.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from ..config import RunConfig
from ..errors import InputError, nearest
from ..tasks.jigsaw import LIKE_NOROOZIS_FILES
from . import goyal19 as recipes
from . import supervised as supervised_recipes
from .cells import DATA_SETS, Cell
from .operations import GIGAFLOPS

TRUNKS = ("alexnet", "resnet50")
"""The two ends of the axis of capacity."""
NUM_PERMUTATIONS = (100, 701, 2000, 5000, 10000)
"""|P|, the difficulty of jigsaw."""
NOROOZIS_SETS = (100, 701)
"""Sizes at which the study has Noroozi's files; here sets by the greatest minimum distance."""
NUM_NEIGHBORS = (2, 5, 10, 20, 40, 80, 160, 313)
"""K, the difficulty of colorization; remembered, not verified."""

# Task -> (letter in a cell's name, values, the one where the study scales data).
_DIFFICULTIES: dict[str, tuple[str, tuple[int, ...], int]] = {
    "jigsaw": ("p", NUM_PERMUTATIONS, 2000),
    "colorization": ("k", NUM_NEIGHBORS, 10),
    "supervised": ("", (0,), 0),
}
_TASK_DATA = {
    "jigsaw": tuple(DATA_SETS),
    "colorization": tuple(DATA_SETS),
    "supervised": ("imagenet1k", "places205"),
}

# (Task, trunk, difficulty, data) -> linear top-1 on ImageNet-1k of the paper's own weights, in the
# authors' later zoo. Which |P| and K those weights had is said of ImageNet-22k's jigsaw alone; the
# others stand where the study scales data.
_OF_PAPER: dict[tuple[str, str, int, str], float] = {
    ("jigsaw", "resnet50", 2000, "imagenet1k"): 46.58,
    ("jigsaw", "resnet50", 2000, "imagenet22k"): 53.09,
    ("jigsaw", "resnet50", 2000, "yfcc100m"): 51.37,
    ("jigsaw", "alexnet", 2000, "imagenet1k"): 34.82,
    ("jigsaw", "alexnet", 2000, "imagenet22k"): 37.5,
    ("jigsaw", "alexnet", 2000, "yfcc100m"): 37.01,
    ("colorization", "resnet50", 10, "imagenet1k"): 40.11,
    ("colorization", "resnet50", 10, "imagenet22k"): 49.24,
    ("colorization", "resnet50", 10, "yfcc100m"): 47.46,
    ("colorization", "alexnet", 10, "imagenet1k"): 30.39,
    ("colorization", "alexnet", 10, "imagenet22k"): 36.83,
    ("colorization", "alexnet", 10, "yfcc100m"): 34.19,
    ("supervised", "resnet50", 0, "imagenet1k"): 75.88,
    ("supervised", "resnet50", 0, "places205"): 58.49,
    ("supervised", "alexnet", 0, "imagenet1k"): 49.54,
}
# The same of runs of the later release: these settings exactly.
_OF_RELEASE: dict[tuple[str, str, int, str], float] = {
    ("jigsaw", "resnet50", 100, "imagenet1k"): 48.57,
    ("jigsaw", "resnet50", 2000, "imagenet1k"): 46.73,
    ("jigsaw", "resnet50", 10000, "imagenet1k"): 48.11,
    ("jigsaw", "resnet50", 2000, "imagenet22k"): 44.84,
}
# mAP of the linear SVM on VOC07, the best layer of the paper's models, as PIRL (Misra and van der
# Maaten 2020) repeats it.
_VOC07: dict[tuple[str, str, int, str], float] = {
    ("jigsaw", "resnet50", 2000, "imagenet1k"): 64.5,
    ("jigsaw", "resnet50", 2000, "yfcc1m"): 64.0,
    ("jigsaw", "resnet50", 2000, "yfcc100m"): 71.0,
    ("colorization", "resnet50", 10, "imagenet1k"): 55.6,
}


def goyal19(
    task: str, trunk: str = "resnet50", difficulty: int = 0, data: str = "imagenet1k"
) -> RunConfig[Any]:
    """Return one cell of the study: a task of a difficulty with a trunk on a data set.

    Command: ``torchrun --nproc-per-node 8 -m fastssl train goyal19_jigsaw_resnet50_p2000_yfcc10m
    --data.path shards/ --output-dir runs/cell``. A subset of YFCC-100M is the first 1, 10 or 50
    million samples of the whole dataset, which conversion has shuffled: they are nested, the same
    for every seed, and a smaller dataset is refused. A cell of a whole data set takes all samples
    there are and warns where they are not about as many.

    Args:
        task: ``jigsaw``, ``colorization`` or ``supervised``.
        trunk: one of ``TRUNKS``; the task decides which form of it.
        difficulty: one of ``NUM_PERMUTATIONS`` or ``NUM_NEIGHBORS``; 0 takes the one at which the
            study scales data, and is the only one of supervised training.
        data: one of ``DATA_SETS``; supervised training has ``imagenet1k`` and ``places205``.

    Returns:
        The config; its recipe has the name of the cell.

    Raises:
        InputError: for a cell that the study does not have.
    """
    if task not in _DIFFICULTIES:
        hint = nearest(task, _DIFFICULTIES, lists_all=True)
        raise InputError(f"task ('{task}') is not of Goyal et al. 2019{hint}")
    letter, values, usual = _DIFFICULTIES[task]
    difficulty = difficulty or usual
    for what, given, known in (("trunk", trunk, TRUNKS), ("data", data, _TASK_DATA[task])):
        if given not in known:
            hint = nearest(given, known, lists_all=True)
            raise InputError(f"{what} ('{given}') of {task} is not of Goyal et al. 2019{hint}")
    if difficulty not in values:
        field = {"jigsaw": "num-permutations", "colorization": "num-neighbors"}.get(task)
        remedy = f"; set --task.{field} for others" if field else ""
        raise InputError(
            f"difficulty ({difficulty}) of {task} is not of Goyal et al. 2019, which has "
            f"{', '.join(map(str, values))}{remedy}"
        )
    name = f"goyal19_{task}_{trunk}_" + (f"{letter}{difficulty}_" if letter else "") + data
    config = _build(task, trunk, difficulty)
    if data.startswith("yfcc"):
        config = dataclasses.replace(config, schedule=recipes.YFCC_SCHEDULE)
    data_set = DATA_SETS[data]
    max_samples = data_set.num_images if data_set.is_subset else 0
    return dataclasses.replace(
        config,
        recipe=name,
        data=dataclasses.replace(
            config.data, max_samples=max_samples, nominal_samples=data_set.num_images
        ),
    )


def list_cells() -> dict[str, Cell]:
    """Return the whole study, name -> cell."""
    cells = {}
    for task, (_, difficulties, _) in _DIFFICULTIES.items():
        for trunk in TRUNKS:
            figures = GIGAFLOPS[f"goyal19_{task}_{trunk}"]
            for number, difficulty in enumerate(difficulties):
                gigaflops = figures[number if len(figures) > 1 else 0]
                for data in _TASK_DATA[task]:
                    build = partial(goyal19, task, trunk, difficulty, data)
                    published = _describe_published((task, trunk, difficulty, data))
                    cells[build().recipe] = Cell(build, DATA_SETS[data], gigaflops, published)
    return cells


def _build(task: str, trunk: str, difficulty: int) -> RunConfig[Any]:
    """Return the settings of a cell on ImageNet-1k."""
    if task == "colorization":
        return recipes.colorization(f"{trunk}_color", num_neighbors=difficulty)
    if task == "jigsaw":
        jigsaw = recipes.jigsaw_alexnet() if trunk == "alexnet" else recipes.jigsaw()
        puzzle = dataclasses.replace(
            jigsaw.task,
            num_permutations=difficulty,
            **(LIKE_NOROOZIS_FILES if difficulty in NOROOZIS_SETS else {}),
        )
        return dataclasses.replace(jigsaw, task=puzzle)
    return recipes.supervised_alexnet() if trunk == "alexnet" else supervised_recipes.supervised()


def _describe_published(cell: tuple[str, str, int, str]) -> str:
    figures = []
    for place, source in ((_OF_PAPER, "the paper's weights"), (_OF_RELEASE, "the later release")):
        if cell in place:
            figures.append(f"{place[cell]} linear on ImageNet-1k ({source})")
    if cell in _VOC07:
        figures.append(f"{_VOC07[cell]} mAP on VOC07")
    return ", ".join(figures)
