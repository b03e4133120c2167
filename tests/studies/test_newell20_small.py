"""The third study in small: its list of runs, and what would be refused."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from fastssl.commands.frame import parse_arguments
from fastssl.config import RunConfig
from fastssl.errors import InputError
from fastssl.evaluation.downstream_options import DOWNSTREAM
from fastssl.runs.result import read_results
from fastssl.runs.sweep import check_trials
from fastssl.studies.newell20_small import TASKS, Newell20Small
from fastssl.studies.registry import build_recipe

SETS = {"--V-": "89a749cd", "TCVL": "93e72fef"}
"""Beginning of the digests of what was tested on, as results have them."""
COLUMNS = [(task, variant) for task in TASKS for variant in SETS]
METHODS = {
    "from scratch": "scratch",
    "rotation": "rotation",
    "CMC": "cmc",
    "VAE": "vae",
    "AMDIM": "amdim",
}
DATA = {v: (Path(f"{v}/train"), Path(f"{v}/test")) for v in ("0010", "1111")}


def test_runs_fit_together_and_no_two_are_the_same():
    trials = Newell20Small().list_trials(DATA)
    check_trials(trials)
    assert len(trials) == 2 * 5 * 2 + 2 * 2 * 5 * 4 * 3
    assert len({trial.command for trial in trials}) == len(trials)


def test_scratch_and_pretrained_are_trained_alike():
    """They differ in what they begin with alone."""
    trials = {t.name: t for t in Newell20Small().list_trials(DATA)}
    scratch = trials["pose-1111-scratch-n400-s2"].command
    tuned = trials["pose-1111-cmc-n400-s2"].command
    shared = len(scratch) - len(("--from-scratch", "true", "--trunk", "resnet9", "--width", "1"))
    assert scratch[:shared] == tuned[:shared]
    assert tuned[shared:] == ("--checkpoint", "{run:pretrain-1111-cmc}")
    assert trials["pose-1111-cmc-n400-s2"].all_needs == ("pretrain-1111-cmc",)


def test_commands_are_understood():
    trials = Newell20Small(seeds=1, label_counts=(100,)).list_trials(DATA)
    for trial in trials:
        kind, name, *words = trial.command
        words = [word.replace("{run:", "").replace("}", "") for word in words]
        if kind == "train":
            config = parse_arguments(RunConfig, words, default=build_recipe(name))
            assert (config.trunk.startswith("resnet9"), config.width) == (True, 1)
        elif name in DOWNSTREAM:
            config = parse_arguments(DOWNSTREAM[name], words)
            assert config.num_labels == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ("0001",)}, "must be four digits TCVL with V at 1"),
        ({"variants": ("0010-multi",)}, "must be four digits TCVL with V at 1"),
        ({"methods": ("jigsaw",)}, "is not of Newell and Deng 2020"),
        ({"label_counts": (400, 100)}, "must ascend from 1 on"),
        ({"label_counts": (100, 20_000)}, r"20,000.* must not exceed the 10,000 images"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Newell20Small(**changes)


def test_the_page_says_what_its_results_hold():
    """Every accuracy in the table of docs/studies.md is the mean of the results beside it."""
    root = Path(__file__).parents[2] / "docs"
    results = read_results([root / "studies" / "newell20-small"])
    means: dict[tuple, list[float]] = {}
    for result in results:
        if result.task in TASKS:
            variant = {name: text for text, name in SETS.items()}[result.test_digest[:8]]
            method = result.recipe.removeprefix("newell20_").removesuffix("_smoke") or "scratch"
            key = (method, result.task, variant, result.settings["num_labels"])
            means.setdefault(key, []).append(100 * result.value)
    assert all(len(values) == 3 for values in means.values())
    told = (root / "studies.md").read_text()
    for title, method in METHODS.items():
        row = next(line for line in told.splitlines() if line.startswith(f"| {title} |"))
        cells = [cell.split() for cell in row.split("|")[2:-1]]
        for (task, variant), numbers in zip(COLUMNS, cells, strict=True):
            for count, number in zip((100, 400, 1600, 6400), numbers, strict=True):
                assert f"{fmean(means[method, task, variant, count]):.1f}" == number
