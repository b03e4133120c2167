"""tools/run_recipes.py: what ``make recipes`` runs, and what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastssl.commands import run_recipes
from fastssl.studies import build_recipe, recipe_names
from tests.nursery import run_child

TOOL = Path(__file__).parents[2] / "tools" / "run_recipes.py"


def run(*arguments):
    return run_child(TOOL, *arguments, CUDA_VISIBLE_DEVICES="")


def save_unlabelled(folder):
    """Save sixteen small photographs without classes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(16):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 36)).save(folder / f"{number}.jpg")


@pytest.fixture(scope="module")
def names():
    """What the tool would run."""
    return run_recipes.list_names("")


def test_every_smoke_form_is_run(names):
    assert {name for name in recipe_names() if name.endswith("_smoke")} <= set(names)


def test_cells_are_of_each_task_and_family_of_trunks(names):
    cells = [build_recipe(name) for name in names if not name.endswith("_smoke")]
    found = {(cell.recipe.partition("_")[0], cell.task.name, cell.trunk) for cell in cells}
    wanted = set()
    for name in set(recipe_names()) - set(recipe_names(has_cells=False)):
        cell = build_recipe(name)
        # Of the family of the same trunk without (-), as those of the ablations are.
        trunk = re.sub(r"_minus|_noskip|_linear\d+", "", cell.trunk)
        wanted.add((name.partition("_")[0], cell.task.name, trunk))
    assert found == wanted


def test_a_run_gives_a_row_of_figures(dataset_path, tmp_path):
    options = ("--only", "kolesnikov19_supervised_smoke", "--smoke-steps", "1")
    done = run("--data", dataset_path, "--output-dir", tmp_path / "runs", *options)
    assert done.returncode == 0, done.stderr
    name, trunk, width, steps, first, last, *_, outcome = done.stdout.splitlines()[-1].split()
    assert (name, trunk, width) == ("kolesnikov19_supervised_smoke", "resnet50_v2", "x1")
    assert (steps, outcome) == ("1", "done")
    assert float(first) == float(last) > 0


def test_a_recipe_that_fails_is_named_and_ends_with_1(tmp_path):
    save_unlabelled(tmp_path / "photos")
    options = ("--only", "kolesnikov19_supervised_smoke", "--output-dir", tmp_path / "runs")
    done = run("--data", tmp_path / "photos", *options)
    assert done.returncode == 1
    assert "exit 2: error: task (supervised) needs labels" in done.stdout.splitlines()[-1]
    assert "1 of 1 recipe failed: kolesnikov19_supervised_smoke" in done.stderr


def test_runs_on_other_data_are_not_mixed_up(dataset_path, tmp_path):
    (tmp_path / "data.txt").write_text("synthetic")
    done = run("--data", dataset_path, "--output-dir", tmp_path)
    assert done.returncode == 2
    assert f"holds runs on synthetic, data is {dataset_path}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data.txt"]
