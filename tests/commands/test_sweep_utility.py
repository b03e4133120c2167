"""fastssl sweep utility: which trainings it plans, and what it makes of their results."""

from __future__ import annotations

import dataclasses
import json
import shlex

import pytest
import torch

from fastssl.commands.sweep import main
from fastssl.commands.sweep_utility import UtilityConfig, choose_counts, plan_sweep
from fastssl.errors import InputError, RunFailed
from fastssl.evaluation.setting import EvaluationData
from fastssl.models import build_trunk, save_trunk
from fastssl.models.input_spec import INPUT_KEY, InputSpec
from fastssl.runs.result import write_result
from fastssl.runs.sweep import result_file
from tests.evaluation.test_report import Page
from tests.label_results import learn, make_result


def save(folder, trunk="resnet9", scale="newell20_lab"):
    """Make a run directory with a trunk in it and nothing else."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    torch.manual_seed(0)
    metadata = {"recipe": "newell20_cmc_smoke", "step": "5", "dataset_digest": "d" * 64}
    metadata[INPUT_KEY] = InputSpec.named(scale).to_text()
    save_trunk(build_trunk(trunk, 1), folder / "trunk.safetensors", metadata)
    return folder


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    return save(tmp_path_factory.mktemp("trunk") / "run")


@pytest.fixture
def words(dataset_path, trunk, tmp_path):
    """Return the command line of a small sweep."""

    def spell(**options):
        usual = {
            "data.path": dataset_path,
            "checkpoint": trunk,
            "output-dir": tmp_path / "sweep",
            "label-counts": "10,all",
            "seeds": 2,
            "max-steps": 1,
            "view-size": 16,
        }
        given = {**usual, **{name.replace("_", "-"): value for name, value in options.items()}}
        return [
            "utility",
            *(str(w) for k, v in given.items() if v is not None for w in (f"--{k}", v)),
        ]

    return spell


def plan(dataset_path, trunk, **options):
    data = EvaluationData(path=dataset_path)
    usual = {"checkpoint": trunk, "label_counts": "10,all", "view_size": 16, "dry_run": True}
    return plan_sweep(UtilityConfig(data=data, **{**usual, **options}))


# --- Counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num", "wanted"),
    [
        (120_000, [100, 250, 1000, 4000, 20_000, 50_000, 120_000]),
        (100_000, [100, 250, 1000, 4000, 20_000, 50_000, 100_000]),
        (1100, [100, 250, 1100]),
        (300, [37, 75, 150, 300]),
        (3, [1, 3]),
    ],
)
def test_counts_are_the_studys_below_the_set_and_all(num, wanted):
    assert choose_counts("", num) == wanted


def test_counts_that_are_given_stand():
    assert choose_counts("250, all,100,100", 300) == [100, 250, 300]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("10,400", r"--label-counts \(400\) must not exceed the 300 labelled images .* write all"),
        ("10,many", "must be whole numbers from 1 on, or all"),
        ("0,10", "must be whole numbers"),
        ("10,,20", "must be whole numbers"),
        ("-5,10", "must be whole numbers"),
        ("10", "make 1 count; a curve needs 2"),
        ("all,300", "make 1 count"),
    ],
)
def test_counts_that_no_curve_can_have_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        choose_counts(given, 300)


# --- The plan -------------------------------------------------------------------------------------


def test_trainings_are_counts_by_seeds_from_scratch_and_pretrained(dataset_path, trunk):
    trials = plan(dataset_path, trunk, seeds=2, max_steps=1, lr=0.01).trials
    assert [trial.name for trial in trials] == [
        f"{start}-n{count}-s{seed}"
        for count in (10, 38)
        for seed in (0, 1)
        for start in ("scratch", "pretrained")
    ]
    same = f"--data.path {dataset_path} --view-size 16 --max-steps 1 --lr 0.01"
    own = "--num-labels 10 --seed 1 --output-dir '{run}'"
    commands = {trial.name: shlex.join(trial.command) for trial in trials}
    assert commands["pretrained-n10-s1"] == f"evaluate finetune --checkpoint {trunk} {same} {own}"
    assert commands["scratch-n10-s1"] == (
        f"evaluate finetune --from-scratch true --checkpoint {trunk} {same} {own}"
    )


def test_from_scratch_nothing_is_frozen(dataset_path, trunk):
    trials = plan(dataset_path, trunk, frozen_stages=2).trials
    frozen = {trial.name for trial in trials if "--frozen-stages" in trial.command}
    assert frozen == {trial.name for trial in trials if trial.name.startswith("pretrained")}


def test_half_networks_stand_beside_the_whole_one_from_scratch(dataset_path, tmp_path):
    halves = save(tmp_path / "run", "resnet9_halves")
    first, second, *_ = plan(dataset_path, halves, protocol="newell20").trials
    words = shlex.join(first.command)
    assert "--from-scratch true --trunk resnet9 --width 1 --scale newell20_lab" in words
    assert "--checkpoint" not in words
    assert f"--checkpoint {halves}" in shlex.join(second.command)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_counts": "10,39"}, r"--label-counts \(39\) must not exceed the 38 labelled"),
        ({"checkpoint": None}, r"--checkpoint \(none given\)"),
        ({"data.path": None}, r"--data.path \(none given\)"),
        ({"checkpoint": "/nowhere"}, "nowhere"),
        ({"output-dir": None}, r"--output-dir \(none given\)"),
        (
            {"task": "fintune"},
            r"--task \('fintune'\) is no downstream task; did you mean 'finetune'",
        ),
        ({"task": "pose"}, "has no target 'pose'"),
        ({"protocol": "mine"}, r"--protocol \('mine'\) is not known"),
        ({"seeds": 0}, "seeds"),
        ({"epochs": 2}, "are two lengths"),
        ({"json": "/nowhere/x.json"}, "--json"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_starts(words, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        main(words(**options))
    assert not (tmp_path / "sweep").exists()


def test_a_dry_run_lists_the_trainings(words, capsys, tmp_path):
    main(words(dry_run="true"))
    said = capsys.readouterr().out
    assert "scratch-n10-s0" in said
    assert "8 trials, 0 done" in said
    assert not (tmp_path / "sweep").exists()


# --- The answer -----------------------------------------------------------------------------------


@pytest.fixture
def finish(dataset_path, trunk, tmp_path):
    """Write the results of a sweep's trials, as if they had run; with all but those left out."""
    folder = tmp_path / "sweep"

    def write(*without, **changes):
        planned = plan(dataset_path, trunk, seeds=2, max_steps=1)
        digests = dict(
            zip(("train_digest", "test_digest"), planned.pretrained.digests, strict=True)
        )
        digests |= {"trunk_digest": planned.pretrained.subject.digest} | changes
        for trial in planned.trials:
            start, num, seed = trial.name.split("-")
            count = int(num[1:])
            worth = count if start == "scratch" else 3 * count
            value = learn(worth, knee=60) + 0.001 * int(seed[1:])
            result = make_result(count, value, int(seed[1:]), start, settings={"width": 1})
            result = dataclasses.replace(result, **digests)
            if start == "scratch":
                result = dataclasses.replace(result, trunk_digest="")
            if trial.name not in without:
                write_result(result_file(folder, trial.name), result)
        return folder

    return write


def test_the_answer_is_said_and_stands_as_json_and_as_a_page(finish, words, capsys, tmp_path):
    folder = finish()
    main(words(json=tmp_path / "answer.json"))
    said = capsys.readouterr().out
    first = (
        "Your trunk saves you 22 labels at n = 10; above n = 10 it is better than all from scratch"
    )
    assert said.startswith(f"{first}.\n")
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer == json.loads((folder / "utility.json").read_text())
    assert answer["counts"] == [10, 38]
    assert answer["answer"][0] == first
    assert answer["saves_nothing_above"] is None
    assert answer["scratch"]["seeds"] == [0, 1]
    assert answer["is_bound"] == [[False, True], [False, True]]
    page = Page((folder / "report.html").read_text())
    assert first in page.text
    assert "finetune (newell20), shards, ResNet9 x1" in page.text
    assert len(page.titles) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trunk_digest": "a" * 64}, r"results of another --checkpoint than .*\(digest aaaaaaaa"),
        ({"train_digest": "b" * 64}, r"results of another --data\.path"),
    ],
)
def test_results_of_another_trunk_or_other_data_in_the_folder_are_refused(
    finish, words, changes, message
):
    finish(**changes)
    with pytest.raises(InputError, match=message):
        main(words())


def test_where_trainings_fail_the_others_answer_and_the_failure_is_raised(
    finish, words, capsys, monkeypatch
):
    folder = finish("scratch-n10-s1")

    def fail(*_):
        raise RunFailed("1 of 8 trials failed: scratch-n10-s1")

    # The trials' own failing is the sweep's matter, and tested there.
    monkeypatch.setattr("fastssl.commands.sweep_utility.run_trials", fail)
    with pytest.raises(RunFailed, match="scratch-n10-s1"):
        main(words())
    said = capsys.readouterr().out
    assert "Your trunk saves you" in said
    assert "Left out: seed 1, which lacks 10 labels from scratch" in said
    assert (folder / "utility.json").is_file()


def test_where_no_curve_is_left_the_failure_alone_is_raised(words, monkeypatch, tmp_path):
    def fail(*_):
        raise RunFailed("8 of 8 trials failed")

    monkeypatch.setattr("fastssl.commands.sweep_utility.run_trials", fail)
    with pytest.raises(RunFailed, match="8 of 8"):
        main(words())
    assert not (tmp_path / "sweep" / "utility.json").exists()
