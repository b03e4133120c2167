"""fastssl sweep: from a grid's file to runs and results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastssl.commands.trials import (
    check_drawn,
    check_options,
    complete_trials,
    describe_trials,
    estimate,
)
from fastssl.errors import InputError
from fastssl.runs.read import read_run
from fastssl.runs.result import read_results
from fastssl.runs.search import SPACES
from fastssl.runs.sweep import Trial
from tests.nursery import run_child

TOOL = Path(__file__).parents[2] / "tools" / "sweep.py"
GRID = """
stages:
  pretrain:
    command: train newell20_rotation_smoke
    options:
      data.path: {data}
      data.global-batch-size: 4
    axes:
      max-steps: [1]
  probe:
    command: evaluate knn
    from: {{checkpoint: pretrain}}
    options: {{data.path: {data}, data.test-share: 0.3}}
"""


def run(*arguments):
    return run_child(TOOL, *arguments, CUDA_VISIBLE_DEVICES="")


@pytest.fixture
def grid(dataset_path, tmp_path):
    """The file of a small grid."""
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.format(data=dataset_path))
    return path


def train(*words, name="a"):
    return Trial(name, ("train", "demo_smoke", "--data.path", "/data", *words))


def evaluate(*words, name="b"):
    return Trial(name, ("evaluate", *words))


@pytest.mark.slow
def test_a_grid_becomes_runs_and_results(grid, tmp_path):
    folder = tmp_path / "sweep"
    done = run(grid, "--output-dir", folder)
    assert done.returncode == 0, (done.stderr, *(p.read_text() for p in folder.glob("logs/*")))
    assert f"2 trials done; results: {folder / 'results'}" in done.stdout
    assert len(read_run(folder / "trials" / "pretrain-max-steps=1").lines) == 1
    # The folder is a place of results like a run's.
    assert [(result.task, result.step) for result in read_results([folder])] == [("knn", 1)]
    again = run(grid, "--output-dir", folder)
    assert again.returncode == 0
    assert {
        entry["starts"] for entry in json.loads((folder / "journal.json").read_text()).values()
    } == {1}


def test_a_dry_run_lists_trials_with_their_cost_and_makes_nothing(grid, tmp_path):
    folder = tmp_path / "sweep"
    done = run(grid, "--output-dir", folder, "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    assert lines["pretrain-max-steps=1"][:4] == ["train", "newell20_rotation_smoke", "waiting", "1"]
    assert float(lines["pretrain-max-steps=1"][4]) > 0
    assert lines["probe-max-steps=1"] == ["evaluate", "knn", "waiting"]
    assert not folder.exists()


def test_what_is_done_counts_nothing_in_a_dry_run(tmp_path):
    trial = train("--max-steps", "100")
    assert "1 trial, 0 done; training the others takes" in describe_trials([trial], tmp_path)
    folder = tmp_path / "trials" / "a"
    folder.mkdir(parents=True)
    (folder / "exit.json").write_text('{"code": 0, "reason": "done", "step": 100}')
    assert "1 trial, 1 done." in describe_trials([trial], tmp_path)


def test_what_is_not_known_before_it_runs_takes_no_column(tmp_path):
    words = ("evaluate", "finetune", "--checkpoint", "a", "--data.path", "b")
    told = describe_trials([Trial("a", words)], tmp_path)
    assert told.splitlines() == [
        "trial  command            state",
        "a      evaluate finetune  waiting",
        "",
        "1 trial, 0 done; what the others take is not known before they run.",
    ]


def test_cost_is_that_of_the_options(tmp_path):
    few, many = (estimate(train("--max-steps", n), tmp_path) for n in ("10", "30"))
    assert (few.steps, many.steps) == (10, 30)
    assert many.exaflops == pytest.approx(3 * few.exaflops)
    wide = estimate(train("--max-steps", "10", "--width", "4"), tmp_path)
    assert wide.exaflops > few.exaflops


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        (
            [train("--optm.lr", "1")],
            "trial a: option --optm.lr is not known; did you mean 'optim.lr",
        ),
        ([train("--optim.lr", "x")], "trial a: .*could not convert string to float: 'x'"),
        ([train("--optim.lr=-1")], r"trial a: optim.lr \(-1.0\) must lie in"),
        ([Trial("a", ("train", "demo_smok"))], "trial a: .*did you mean 'demo_smoke'"),
        ([Trial("a", ("train", "demo_smoke"))], "trial a: --data.path .none given. must name"),
        ([Trial("a", ("train", "--seed", "1"))], "behind train comes a recipe or a task"),
        ([evaluate("knnn")], "trial b: task 'knnn' is not known; did you mean 'knn'"),
        ([evaluate("knn", "--data.max_sample", "1")], "did you mean 'data.max-samples'"),
        (
            [evaluate("knn", name="c"), evaluate("knn", "--checkpoint", "{run:c}")],
            "trial b goes on from the run of c, and evaluate knn keeps none",
        ),
    ],
)
def test_what_a_command_does_not_take_is_refused_before_anything_starts(trials, told, tmp_path):
    with pytest.raises(InputError, match=told):
        check_options(complete_trials(trials), tmp_path)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"optim.lr": ("log", "1e-4", "1e40")}, r"optim.lr .* must lie in"),
        ({"optim.rl": ("log", "1e-4", "1")}, "option --optim.rl is not known; did you mean"),
        ({"max-steps": ("choice", "1", "x", "2")}, "trial a: Error parsing --max-steps"),
        ({"data.path": ("choice", "a")}, "data.path is given, and searched for"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_starts(space, told, tmp_path):
    with pytest.raises(InputError, match=told):
        check_drawn(train(), space, tmp_path)


def test_the_studys_space_is_of_options_that_train_takes(tmp_path):
    trial = Trial("a", ("train", "newell20_cmc_smoke", "--data.path", "/data"))
    check_drawn(trial, SPACES["newell20"], tmp_path)


def test_an_evaluation_that_trains_keeps_its_run_in_the_sweep(tmp_path):
    trials = complete_trials([train(), evaluate("linear", "--checkpoint", "{run:a}")])
    check_options(trials, tmp_path)
    words = trials[1].spell(tmp_path, 1)
    assert words[words.index("--output-dir") + 1] == str(tmp_path / "trials" / "b")


def test_an_unknown_field_ends_with_2_and_one_line(grid, tmp_path):
    grid.write_text(grid.read_text().replace("axes:", "axis:"))
    done = run(grid, "--output-dir", tmp_path / "sweep")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {grid}: stage pretrain: field 'axis' is not known; did you mean 'axes'?\n"
    )
    assert not (tmp_path / "sweep").exists()


def test_without_ray_the_line_that_installs_it_is_said(grid, tmp_path):
    hidden = "import sys; sys.modules['ray'] = None; from fastssl.commands import run; run('sweep')"
    arguments = (grid, "--output-dir", tmp_path / "sweep", "--executor", "ray")
    done = run_child("-c", hidden, *arguments)
    assert done.returncode == 2
    assert done.stderr == ('error: a sweep on Ray needs it: pip install "fastssl[scale]"\n')


def test_what_ray_decides_is_not_given(grid, tmp_path):
    done = run(grid, "--output-dir", tmp_path, "--executor", "ray", "--at-once", "2")
    assert done.returncode == 2
    assert "at_once (2) is of this machine; on Ray, --ray.cores" in done.stderr
