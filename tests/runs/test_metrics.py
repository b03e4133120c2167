"""The one table of what a run records: nothing is recorded that it does not name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from fastssl.batch import Batch
from fastssl.models import build_trunk
from fastssl.runs.metrics import COMMON, check_names, list_metrics, order_line, write_table
from fastssl.studies import build_recipe
from fastssl.tasks import (
    ClassificationConfig,
    DepthConfig,
    DetectionConfig,
    MultilabelConfig,
    PoseConfig,
    SegmentationConfig,
    build_task,
)
from fastssl.tasks.pictures import Picture

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
RECIPES = [
    *(
        f"kolesnikov19_{task}_smoke"
        for task in ("rotation", "exemplar", "jigsaw", "relative_location", "supervised")
    ),
    "goyal19_colorization_smoke",
    "newell20_amdim_smoke",
    "newell20_cmc_smoke",
    "newell20_rotation_smoke",
    "newell20_vae_smoke",
]
DOWNSTREAM = [
    ClassificationConfig(),
    DepthConfig(),
    MultilabelConfig(),
    PoseConfig(),
    SegmentationConfig(),
    *([DetectionConfig()] if find_spec("torchvision") else []),
]
"""Tasks of evaluations, which declare what they are tested by too."""


def make_task(recipe):
    config = build_recipe(recipe)
    task = build_task(config.task, build_trunk(config.trunk, 1), 3)
    size = max(8, task.batch_multiple)
    (view,) = task.views
    generator = torch.Generator().manual_seed(0)
    shape = (size, view.count, view.size, view.size, 3)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    ids, zeros = torch.arange(size), torch.zeros(size, dtype=torch.int64)
    return task, Batch(images, ids, zeros, ids % 3)


def test_names_stand_once():
    for task in (None, *(make_task(recipe)[0] for recipe in RECIPES)):
        own = () if task is None else task.metrics
        names = [metric.name for metric in (*COMMON, *own)]
        assert len(names) == len(set(names))
        assert len({metric.tag for metric in list_metrics(task).values()}) == len(
            list_metrics(task)
        )


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_task_returns_what_it_declares(recipe):
    task, batch = make_task(recipe)
    with torch.no_grad():
        scalars = task(task.prepare(batch, 3, torch.float32))
    assert set(scalars) == {"loss", *(metric.name for metric in task.metrics)}
    assert task.chance().keys() <= {metric.name for metric in task.metrics}
    assert {f"{name}_of_chance" for name in task.chance()} <= list_metrics(task).keys()


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_picture_has_its_words(recipe):
    task, batch = make_task(recipe)
    task.trunk.eval()  # as a frozen one is
    pictures = task.draw_pictures(batch, 3, 4)
    assert len(pictures) == 4
    for picture in pictures:
        assert picture.words
        assert picture.captioned().shape[0] > picture.pixels.shape[0]
    assert task.training
    assert not task.trunk.training


def test_words_of_a_supervised_picture_name_the_classes():
    task, batch = make_task("kolesnikov19_supervised_smoke")
    task.class_names = ("ant", "bee", "cat")
    torch.nn.init.zeros_(task.head.weight)
    with torch.no_grad():
        task.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))  # always a bee
    words = [picture.words for picture in task.draw_pictures(batch, 3, 3)]
    assert words == ["ant, taken for bee", "bee, found", "cat, taken for bee"]


def test_a_caption_takes_the_lines_that_it_needs():
    pixels = torch.zeros(20, 60, 3, dtype=torch.uint8).numpy()
    short, long = (Picture(pixels, "word " * n).captioned() for n in (2, 20))
    assert short.shape[1] == long.shape[1] == 150
    assert long.shape[0] > short.shape[0] > 20
    assert (long[20:] < 128).any()


def test_a_name_that_nobody_declares_is_refused():
    task, _ = make_task("kolesnikov19_rotation_smoke")
    check_names(["loss", "accuracy"], list_metrics(task))
    with pytest.raises(ValueError, match=r"metrics \(angle\) are not in the table; declare them"):
        check_names(["loss", "angle"], list_metrics(task))
    with pytest.raises(ValueError, match="angle"):
        order_line({"angle": 1.0}, list_metrics(task))


def test_the_page_shows_the_table():
    page = DOCS.read_text()
    assert write_table(COMMON) in page
    for recipe in RECIPES:
        task, _ = make_task(recipe)
        assert f"### {build_recipe(recipe).task.name}\n\n{write_table(task.metrics)}\n" in page
    for config in DOWNSTREAM:
        task = build_task(config, build_trunk("resnet9", 1), 3)
        assert f"### {config.name}\n\n{write_table(task.metrics)}\n" in page
        assert task.chance().keys() <= list_metrics(task).keys()
