"""The table of Goyal et al. 2019: task x trunk x difficulty x data, and its baselines.

What is known of the paper's runs is little (``goyal19.py``); what a cell takes over from elsewhere:

- **Batch and rate**: 256 images and 0.1 (AlexNet's jigsaw 0.01), of the authors' later release. A
  comment of theirs speaks of 8 machines for ImageNet-22k: with another
  ``--data.global-batch-size`` the rate follows.
- **Length**: 105 epochs on ImageNet-1k and ImageNet-22k are the release's own for jigsaw. That
  comment has 120 for the paper's ImageNet-22k, without milestones (``--schedule.epochs 120``).
  Subsets of YFCC see the same number of samples each, that of ImageNet-1k's 105 epochs, so that
  their axis is one of data and not of length; the release's 10 epochs, which it has without saying
  of which subset, are the cells with ``_10epochs`` behind their name. Of Places205 nothing is
  known: its pretext cells are ours, with ImageNet-1k's epochs. Colorization has jigsaw's.
- **Difficulty**: the five sizes of permutation sets are published. Those of 100 and 701 are files
  by Noroozi there; here they are chosen by the greatest minimum distance, without the identity
  (``--task.permutations-file`` takes the files). The list of K is remembered and not verified.
- **Supervised**: ResNet-50 as the recipe ``supervised``; AlexNet is ``caffenet``, the network whose
  weights the study downloaded, with BVLC's course.
- **Random**: the untrained trunk, exported at once.
- **Places**: numbers of tables and figures are remembered and not verified.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..config import RunConfig
from ..errors import InputError, nearest
from ..tasks.jigsaw import LIKE_NOROOZIS_FILES
from . import goyal19 as recipes
from . import supervised as supervised_recipes
from .cells import DATA_SETS, IMAGENET_1K, Cell, Origin
from .goyal19_figures import PUBLISHED
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

TEN_EPOCHS = "10epochs"
"""Word behind a cell's name of YFCC for the release's course."""


def goyal19(
    task: str,
    trunk: str = "resnet50",
    difficulty: int = 0,
    data: str = "imagenet1k",
    ten_epochs: bool = False,
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
        ten_epochs: of a subset of YFCC, ten of its own epochs in place of as many samples as of
            every other.

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
        schedule = recipes.TEN_EPOCHS if ten_epochs else recipes.EQUAL_SAMPLES
        config = dataclasses.replace(config, schedule=schedule)
        name += f"_{TEN_EPOCHS}" if ten_epochs else ""
    elif ten_epochs:
        raise InputError(f"data ('{data}') has no course of ten epochs; subsets of YFCC have one")
    data_set = DATA_SETS[data]
    max_samples = data_set.num_images if data_set.is_subset else 0
    return dataclasses.replace(
        config,
        recipe=name,
        data=dataclasses.replace(
            config.data, max_samples=max_samples, nominal_samples=data_set.num_images
        ),
    )


def random_trunk(trunk: str = "resnet50") -> RunConfig[Any]:
    """Return the study's random trunk: that of its jigsaw, exported before the first step.

    Args:
        trunk: one of ``TRUNKS``.
    """
    config = _build("jigsaw", trunk, 2000)
    return dataclasses.replace(config, recipe=f"goyal19_random_{trunk}", max_steps=0)


def list_cells() -> dict[str, Cell]:
    """Return the whole study, name -> cell; other forms of cells stand last."""
    cells, variants = {}, {}
    for task, (_, difficulties, usual) in _DIFFICULTIES.items():
        for trunk in TRUNKS:
            figures = GIGAFLOPS[f"goyal19_{task}_{trunk}"]
            for number, difficulty in enumerate(difficulties):
                gigaflops = figures[number if len(figures) > 1 else 0]
                for data in _TASK_DATA[task]:
                    key = (task, trunk, difficulty, data)
                    cell = Cell(
                        partial(goyal19, *key),
                        DATA_SETS[data],
                        gigaflops,
                        PUBLISHED.get(key, ()),
                        tuple(_list_places(task, difficulty == usual, data)),
                        _name_origin(*key),
                    )
                    cells[cell.build().recipe] = cell
                    if data.startswith("yfcc"):
                        build = partial(goyal19, *key, ten_epochs=True)
                        variants[build().recipe] = dataclasses.replace(
                            cell, build=build, is_variant=True
                        )
    for trunk in TRUNKS:
        known = PUBLISHED.get(("random", trunk, 0, ""), ())
        build = partial(random_trunk, trunk)
        cells[build().recipe] = Cell(build, IMAGENET_1K, 0.0, known, ("table1",))
    return cells | variants


def _list_places(task: str, is_usual: bool, data: str) -> Iterator[str]:
    if task == "supervised" or (is_usual and data != "places205"):
        yield "table1"
    if task != "supervised":
        if is_usual and data.startswith("yfcc"):
            yield "figure1"
        if data == "imagenet1k":
            yield "figure2"
        if task == "jigsaw" and data.startswith("yfcc"):
            yield "figure3"


def _name_origin(task: str, trunk: str, difficulty: int, data: str) -> Origin:
    if data == "places205" and (task, trunk) != ("supervised", "resnet50"):
        return "ours"
    is_remembered = task == "colorization" and difficulty != _DIFFICULTIES[task][2]
    return "remembered" if is_remembered else "study"


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
