"""Grids: what trials their stages and axes make, and what is refused before anything starts."""

from __future__ import annotations

import pytest

from fastssl.commands.grid import expand_grid, read_grid
from fastssl.errors import InputError
from fastssl.runs.search import draw_words
from fastssl.runs.sweep import MAX_TRIAL_NAME

GRID = """
stages:
  pretrain:
    command: train
    options: {data.path: /data/0011, max-steps: 4}
    axes:
      recipe: [demo_smoke, newell20_vae_smoke]
      seed: [0, 1]
  probe:
    command: evaluate knn
    from: {checkpoint: pretrain}
    options: {data.path: /data/0011}
    axes:
      data.max-samples: [100, 1e2]
"""


def make(**stages):
    """Return the trials of a grid of some stages by name, which are commands unless mappings."""
    whole = {
        name: {"command": stage} if isinstance(stage, str) else stage
        for name, stage in stages.items()
    }
    return {trial.name: trial.command for trial in expand_grid({"stages": whole})}


@pytest.fixture
def write(tmp_path):
    """Write a grid file and return its path."""

    def write(text, name="grid.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("ending", ["yaml", "py"])
def test_a_grid_that_is_not_there_is_named_with_the_nearest(write, ending):
    path = write(GRID, f"grid.{ending}")
    with pytest.raises(InputError, match=rf"no such file; did you mean '.*/grid\.{ending}'"):
        read_grid(path.with_name(f"grd.{ending}"))


def test_a_stage_is_the_product_of_its_axes_and_of_the_stage_it_comes_from(write):
    trials = {trial.name: trial for trial in read_grid(write(GRID)).trials}
    assert len(trials) == 4 + 4 * 2
    assert trials["pretrain-newell20_vae_smoke-seed=1"].command == (
        *("train", "newell20_vae_smoke", "--data.path", "/data/0011"),
        *("--max-steps", "4", "--seed", "1"),
    )
    probe = trials["probe-demo_smoke-seed=0-max-samples=1e2"]  # every value as it is written
    assert probe.command == (
        *("evaluate", "knn", "--data.path", "/data/0011", "--data.max-samples", "1e2"),
        *("--checkpoint", "{run:pretrain-demo_smoke-seed=0}"),
    )
    assert probe.all_needs == ("pretrain-demo_smoke-seed=0",)


def test_python_gives_the_same_grid_or_a_list_of_trials(write):
    import yaml

    grid = yaml.load(GRID, yaml.BaseLoader)
    wanted = read_grid(write(GRID)).trials
    assert read_grid(write(f"GRID = {grid!r}", "grid.py")).trials == wanted
    code = f"from fastssl.runs.sweep import Trial\nTRIALS = {wanted!r}"
    assert read_grid(write(code, "trials.py")).trials == wanted


def test_numbers_and_truth_of_python_are_spelled_as_the_command_line_has_them():
    (words,) = make(
        a={"command": "train x", "options": {"log.progress": True, "lr": 1e-3}}
    ).values()
    assert words == ("train", "x", "--log.progress", "true", "--lr", "0.001")


def test_an_axis_of_one_name_takes_the_same_value_in_both_stages():
    seeds = {"seed": ["0", "1"]}
    trials = make(
        a={"command": "train x", "axes": seeds},
        b={"command": "evaluate knn", "from": {"checkpoint": "a"}, "axes": seeds},
    )
    assert trials["b-seed=1"][2:] == ("--seed", "1", "--checkpoint", "{run:a-seed=1}")
    assert len(trials) == 4


def test_two_runs_of_one_stage_are_those_of_the_same_place():
    trials = make(
        a={"command": "train x", "axes": {"seed": ["0", "1"]}},
        b={"command": "train x", "from": {"trunk-from": "a"}},
        c={"command": "evaluate knn", "from": {"checkpoint": "a", "other": "b"}},
    )
    assert [name for name in trials if name.startswith("c")] == ["c-seed=0", "c-seed=1"]


def test_an_axis_may_name_bundles_of_options():
    variants = {"0011": {"data.path": "/a", "data.test-path": "/b"}, "fast": {"data.path": "/c"}}
    trials = make(a={"command": "evaluate knn", "axes": {"variant": variants}})
    assert trials == {
        "a-variant=0011": ("evaluate", "knn", "--data.path", "/a", "--data.test-path", "/b"),
        "a-fast": ("evaluate", "knn", "--data.path", "/c"),
    }


def test_a_value_may_be_several_words():
    trials = make(a={"command": "evaluate knn", "options": {"k": ["1", "20"]}})
    assert trials["a"] == ("evaluate", "knn", "--k", "1", "20")


def test_names_that_would_be_the_same_are_told_apart():
    paths = ["/a/train", "/b/train", f"/c/{'x' * 300}", f"/d/{'x' * 300}"]
    trials = make(a={"command": "evaluate knn", "axes": {"data.path": paths}})
    assert len(trials) == 4
    assert max(map(len, trials)) <= MAX_TRIAL_NAME


def test_a_search_is_a_studys_space_or_one_of_ones_own(write):
    text = "stages: {tune: {command: train x}}\nsearch: "
    assert list(read_grid(write(text + "newell20")).space) == [
        *("optim.lr", "final-lr", "optim.weight-decay", "schedule.exponent")
    ]
    own = "{optim.lr: log 1e-4 1e-2, optim.name: [sgd, adam]}"
    assert read_grid(write(text + own)).space == {
        "optim.lr": ("log", "1e-4", "1e-2"),
        "optim.name": ("choice", "sgd", "adam"),
    }


def test_a_final_rate_is_given_as_its_share_of_the_rate():
    words = draw_words({"optim.lr": 2e-3, "final-lr": 1e-6})
    assert words == ("--optim.lr", "0.002", "--schedule.final-share", "0.0005")


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ("newel20", "'newel20' is not known; did you mean 'newell20'"),
        ("[1]", "search is a list, wanted a study's name"),
        ("{lr: lgo 1 2}", "lr: 'lgo' is not known; did you mean 'log'"),
        ("{lr: log 0 1}", "lr: log 0 1; wanted two numbers, above 0, the lower one first"),
        ("{lr: uniform 2 1}", "lr: uniform 2 1; wanted two numbers, the lower one first"),
        ("{lr: uniform 1}", "lr: uniform 1; wanted two numbers"),
        ("{final-lr: log 1 2}", "final-lr is a share of optim.lr, which must be drawn too"),
    ],
)
def test_a_search_that_does_not_fit_is_refused(search, told, write):
    with pytest.raises(InputError, match=told):
        read_grid(write("stages: {tune: {command: train x}}\nsearch: " + search))


def test_a_search_is_of_one_trial(write):
    with pytest.raises(InputError, match="a search is of one trial, and the grid has 12"):
        read_grid(write(GRID + "search: newell20\n"))


RUN = {"command": "train x"}


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ({"a": {**RUN, "optoins": {}}}, "stage a: field 'optoins' is not known; did you mean 'opt"),
        ({"a": "trian x"}, "command .'trian x'. must be train or evaluate.* did you mean 'train'"),
        ({"a": "train"}, "which recipe"),
        ({"a": {"command": "evaluate"}}, "which task"),
        ({"a": {**RUN, "axes": {"seed": []}}}, "axis seed is a list, wanted a list of values"),
        ({"a": {**RUN, "axes": {"seed": "0"}}}, "axis seed is '0', wanted a list of values"),
        ({"a": {**RUN, "axes": {"seed": ["0", "0"]}}}, "0 stands there twice"),
        ({"a": {**RUN, "axes": {"m": {"x": "1"}}}}, "x is '1', wanted options and their values"),
        ({"a": {**RUN, "options": {"o": {"x": "1"}}}}, "o is a mapping, wanted a value or a list"),
        ({"a": {**RUN, "options": {"o": [["x"]]}}}, "o is a list, wanted a value or a list"),
        ({"a": {**RUN, "options": {"output_dir": "r"}}}, "output-dir is given by the sweep"),
        ({"a": {**RUN, "options": {"s": "1"}, "axes": {"s": ["1"]}}}, "s is given twice"),
        ({"a": {**RUN, "axes": {"s": ["1"], "b": {"x": {"s": "1"}}}}}, "s is given twice"),
        ({"a": {**RUN, "from": {"trunk-from": "b"}}, "b": RUN}, "'b' is no stage above it"),
        (
            {
                "a": {**RUN, "axes": {"seed": ["0"]}},
                "b": {**RUN, "from": {"trunk-from": "a"}, "axes": {"seed": ["0", "1"]}},
            },
            "axis seed has '1', which the stage that it comes from has not",
        ),
        ({}, "stages must name one stage or more"),
    ],
)
def test_what_does_not_fit_in_a_grid_is_refused(stages, told):
    with pytest.raises(InputError, match=told):
        make(**stages)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("grid.yaml", "stage: {}", "field 'stage' is not known; did you mean 'stages'"),
        ("grid.yaml", "- a\n- b", "is a list, wanted fields: stages"),
        ("grid.yaml", "stages: {a: [", "is no YAML"),
        ("grid.yaml", "stages:\n  a: {x: 1, x: 2}", "'x' stands twice in the mapping at line 2"),
        ("grid.yaml", "a: &a [*a]", "is no YAML"),
        ("grid.py", "x = 1", "sets neither GRID nor TRIALS"),
        ("grid.py", "TRIALS = [1]", "TRIALS holds 1, wanted fastssl.runs.sweep.Trial"),
        ("grid.py", "\nx = 1 / 0", "line 2: ZeroDivisionError: division by zero"),
        ("grid.py", "\nx = (", "line 2: SyntaxError"),
    ],
)
def test_a_file_that_is_no_grid_is_refused(name, text, told, write):
    with pytest.raises(InputError, match=told):
        read_grid(write(text, name))
