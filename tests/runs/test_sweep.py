"""Sweeps: trials in the order of their needs, in one folder, at whatever moment they are killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
from importlib.util import find_spec

import numpy as np
import pytest

from fastssl.errors import InputError, RunFailed
from fastssl.runs import sweep
from fastssl.runs.sweep import Trial, list_left, run_trials
from fastssl.system.cpus import available_cpus
from fastssl.system.files import locked
from tests.nursery import Child
from tests.patience import wait_until
from tests.runs.tiny_sweep import PROGRAM, list_trials
from tests.runs.tiny_trial import NUM_STEPS


def run(trials, folder, **options):
    run_trials(trials, folder, program=PROGRAM, **options)


def read_journal(folder):
    return json.loads((folder / "journal.json").read_text())


def read_steps(folder):
    """Return what every trial of a folder has done, by its name."""
    return {path.parent.name: path.read_text() for path in sorted(folder.glob("*/*/steps"))}


def start(folder, at_once=1):
    return Child(["-m", "tests.runs.tiny_sweep", folder, at_once])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    run(list_trials(), folder, at_once=min(2, available_cpus()))
    return folder


def test_a_trial_starts_when_all_that_it_needs_is_done(undisturbed):
    # Each looks itself, see tiny_trial.
    assert list_left(list_trials(), undisturbed) == []
    assert all(len(steps.split()) == NUM_STEPS for steps in read_steps(undisturbed).values())
    assert len(list((undisturbed / "results").glob("*.json"))) == 4


def test_the_journal_says_how_each_trial_went(undisturbed):
    journal = read_journal(undisturbed)
    assert list(journal) == [trial.name for trial in list_trials()]
    for entry in journal.values():
        assert (entry["state"], entry["code"], entry["starts"]) == ("done", 0, 1)
        assert entry["seconds"] > 0


def test_trials_at_work_together_share_the_cores(undisturbed):
    share = str(available_cpus() // min(2, available_cpus()))
    for path in undisturbed.glob("*/*/lives"):
        threads, openmp, *_ = json.loads(path.read_text())
        assert threads == share
        assert openmp == os.environ.get("OMP_NUM_THREADS", share)


def test_what_is_done_is_not_done_again(undisturbed):
    run(list_trials(), undisturbed)
    assert all(len(path.read_text().split("\n")) == 2 for path in undisturbed.glob("*/*/lives"))


@pytest.mark.faults
def test_a_sweep_killed_ten_times_ends_as_if_undisturbed(undisturbed, tmp_path):
    folder = tmp_path / "killed"
    rng = np.random.default_rng(0)
    in_all = sum(steps.count("\n") for steps in read_steps(undisturbed).values())

    def count_steps():
        return sum(steps.count("\n") for steps in read_steps(folder).values())

    for number, moment in enumerate(sorted(rng.integers(0, in_all - 2 * NUM_STEPS, 10))):
        moment = max(moment, count_steps() + 1)  # every life takes a step
        child = start(folder, min(2, available_cpus()))
        wait_until(lambda moment=moment: count_steps() >= moment, "steps", child)
        # With its trials, as when the power fails; or alone, so that they save while it goes on.
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if number % 2 else os.kill)(child.pid, signal.SIGKILL)
        if child.wait() == 0:  # on a busy machine the rest may be done before this process looks
            break
        assert child.returncode == -signal.SIGKILL
    child = start(folder, min(2, available_cpus()))
    assert child.wait() == 0, child.communicate()
    assert list_left(list_trials(), folder) == []
    assert read_steps(folder) == read_steps(undisturbed)
    results = sorted((undisturbed / "results").glob("*.json"))
    for path in results:
        assert (folder / "results" / path.name).read_bytes() == path.read_bytes()
    assert sum(entry["starts"] for entry in read_journal(folder).values()) > len(list_trials())


def test_a_signal_passes_on_and_trials_save(tmp_path):
    folder = tmp_path / "sweep"
    words = ("train", "one", "--stop-at", "3", "--stops", "1")
    (tmp_path / "sweep.json").write_text(json.dumps({"a": words, "b": words}))
    child = start(folder)
    wait_until((folder / "trials" / "a" / "waits").exists, "the third step", child)
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 75
    assert "trials at work have saved" in child.communicate()[1]
    assert json.loads((folder / "trials" / "a" / "exit.json").read_text())["step"] == 2
    journal = read_journal(folder)
    assert [journal[name]["state"] for name in "ab"] == ["stopped", "waiting"]
    assert journal["a"]["code"] == 75


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
def test_ray_ends_the_same_with_a_worker_killed(undisturbed, tmp_path):
    folder = tmp_path / "sweep"
    trials = {trial.name: trial.command for trial in list_trials()}
    trials["first-s0"] += ("--stop-at", "3", "--stops", "2")
    trials["first-s1"] += ("--stop-at", "5", "--stops", "2")
    (tmp_path / "sweep.json").write_text(json.dumps(trials))
    runs = [folder / "trials" / name for name in ("first-s0", "first-s1")]
    child = start(folder, "ray")

    def are_in(life):
        places = [run / "waits" for run in runs]
        return all(place.exists() and place.read_text() == life for place in places)

    wait_until(lambda: are_in("1"), "the first life", child)
    lives = [json.loads((run / "lives").read_text()) for run in runs]
    os.kill(lives[0][3], signal.SIGKILL)  # Ray's worker
    os.kill(lives[1][2], signal.SIGKILL)  # the trial itself
    wait_until(lambda: are_in("2"), "the second life", child)
    # A signal reaches the trials through Ray.
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 75, child.communicate()
    assert [json.loads((run / "exit.json").read_text())["step"] for run in runs] == [2, 4]
    # What was begun on Ray goes on without it.
    assert start(folder).wait() == 0
    assert read_steps(folder) == read_steps(undisturbed)
    assert [len((run / "lives").read_text().splitlines()) for run in runs] == [3, 3]


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("ray") is None or find_spec("optuna") is None, reason="needs ray and optuna"
)
def test_a_search_makes_trials_and_says_which_is_best(tmp_path):
    folder = tmp_path / "search"
    child = start(folder, "search")
    assert child.wait() == 0, child.communicate()
    told = json.loads((folder / "search.json").read_text())
    assert len(told["trials"]) == 4
    reached = [row["loss"] for row in told["trials"]]
    assert reached == sorted(reached)
    assert told["best"] == told["trials"][0]
    for row in told["trials"]:
        lines = (folder / "trials" / row["trial"] / "metrics.jsonl").read_text().splitlines()
        losses = {line["step"]: line["loss"] for line in map(json.loads, lines)}
        assert losses[row["steps"]] == row["loss"]
        assert row["state"] == ("done" if row["steps"] == NUM_STEPS else "stopped early")
        assert row["options"][0] == "--optim.lr"


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.skipif(
    find_spec("ray") is None or find_spec("optuna") is None, reason="needs ray and optuna"
)
def test_a_killed_search_goes_on_with_what_it_has_drawn(tmp_path):
    folder = tmp_path / "search"
    words = ("train", "one", "--stop-at", "3", "--stops", "1")
    (tmp_path / "search.json").write_text(json.dumps({"tune": words}))

    # Two trials at a time wait at their third step, until all four have been killed there.
    for num_waiting in (2, 4):
        child = start(folder, "search")
        wait_until(
            lambda: len(list(folder.glob("trials/*/waits"))) == num_waiting,  # noqa: B023
            "two more trials at their third step",
            child,
        )
        child.kill()
        child.wait()
    child = start(folder, "search")
    assert child.wait() == 0, child.communicate()
    told = json.loads((folder / "search.json").read_text())["trials"]
    runs = [folder / "trials" / row["trial"] for row in told]
    assert sorted(runs) == sorted(folder.glob("trials/*"))
    assert len(runs) == 4
    for run_folder in runs:
        assert len((run_folder / "lives").read_text().splitlines()) == 2
        lines = (run_folder / "metrics.jsonl").read_text().splitlines()
        losses = {line["step"]: line["loss"] for line in map(json.loads, lines)}
        assert list(losses) == list(range(1, len(lines) + 1))
        # The rate is the one that was drawn first: the rest of the loss is its own.
        assert np.ptp([loss - 1 / step for step, loss in losses.items()]) < 1e-12


def test_one_that_fails_is_named_and_the_others_go_on(tmp_path, caplog):
    trials = [
        Trial("bad", ("train", "one", "--fail-at", "2")),
        Trial("after", ("evaluate", "knn", "--checkpoint", "{run:bad}")),
        Trial("later", ("train", "one"), needs=("after",)),
        Trial("mute", ("train", "one", "--forget")),
        Trial("good", ("train", "one")),
    ]
    with pytest.raises(
        RunFailed, match=r"2 of 5 trials failed: bad, mute; left out.* after, later"
    ):
        run(trials, tmp_path)
    states = {name: entry["state"] for name, entry in read_journal(tmp_path).items()}
    wanted = {"bad": "failed", "mute": "failed", "after": "left out", "later": "left out"}
    assert states == wanted | {"good": "done"}
    assert "trial bad failed: exit 1: error: it fails here" in caplog.text
    assert "trial mute failed: it ended with 0 and left no result" in caplog.text


def test_one_that_failed_is_tried_again(tmp_path):
    trial = Trial("a", ("train", "one", "--fail-at", "2"))
    with pytest.raises(RunFailed):
        run([trial], tmp_path)
    with pytest.raises(RunFailed):
        run([trial], tmp_path)
    assert read_journal(tmp_path)["a"]["starts"] == 2


def test_a_second_sweep_in_a_folder_is_refused(tmp_path):
    with locked(tmp_path / ".lock", "held"), pytest.raises(InputError, match="in use by another"):
        run(list_trials(), tmp_path)


def test_other_trials_in_a_folder_are_refused_with_what_differs(undisturbed):
    first, *others = list_trials()
    longer = dataclasses.replace(first, command=(*first.command, "--loud"))
    for trials, told in (
        ([longer, *others], r"first-s0 \(old without, new --loud\)"),
        (
            [dataclasses.replace(first, command=("train", "one", "--seed", "7")), *others],
            r"first-s0 \(old --seed 0, new --seed 7\)",
        ),
        ([first, *others, Trial("more", ("train", "one"))], "more is new"),
        ([first, *others[:-1]], f"{others[-1].name} is gone"),
    ):
        with pytest.raises(InputError, match=f"holds a sweep of other trials: {told}"):
            run(trials, undisturbed)


def test_a_result_that_is_not_whole_is_not_trusted(tmp_path):
    trial = Trial("a", ("evaluate", "knn"))
    run([trial], tmp_path)
    file = sweep.result_file(tmp_path, "a")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert list_left([trial], tmp_path) == [trial]
    run([trial], tmp_path)
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        ([], "a sweep of 0 trials"),
        ([("a/b", ("train",), ())], "trial .'a/b'. must have a name"),
        ([("a", ("trian",), ())], "its command .'trian'. is not known; did you mean 'train'"),
        ([("a", ("train",), ("b",))], "trial a needs 'b', which is no trial"),
        ([("a", ("train", "{run:c}"), ())], "trial a needs 'c', which is no trial"),
        ([("a", ("train",), ())] * 2, "two trials are called 'a'"),
        ([("a", ("train",), ("b",)), ("b", ("train",), ("a",))], "in a ring: . -> . -> ."),
    ],
)
def test_trials_that_do_not_fit_together_are_refused(trials, told, tmp_path):
    with pytest.raises(InputError, match=told):
        run([Trial(*trial) for trial in trials], tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_more_at_once_than_cores_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"at_once \(10000\) must not exceed"):
        run(list_trials(), tmp_path, at_once=10_000)


def test_a_folder_of_a_run_is_refused(tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(InputError, match="is the folder of a dataset or a run"):
        run(list_trials(), tmp_path)
