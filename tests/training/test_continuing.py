"""A run is trained on under another schedule: in a directory of its own, with nothing lost."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from fastssl.errors import InputError
from fastssl.models import load_trunk
from fastssl.runs.read import read_run
from fastssl.training import train
from tests.small_runs import assert_equal_states, crash_after, load_state, read_lines

# The rate stays the same whatever the length, so that a longer run says what is right.
STEADY = {"kind": "step", "milestones": (50.0,), "warmup_epochs": 0.5}
SHORT, LONG = {**STEADY, "epochs": 1.2}, {**STEADY, "epochs": 2.5}


@pytest.fixture
def finished(configure):
    config = configure("first", nested={"schedule": SHORT})
    train(config)
    return config


def train_on(configure, finished, name="second", **changes):
    nested = {"schedule": LONG} | changes.pop("nested", {})
    return configure(name, nested=nested, continue_from=finished.output_dir, **changes)


def without_names(state):
    return {key: value for key, value in state.items() if key != "identity"}


def test_it_begins_with_the_whole_state_and_goes_on_with_the_next_samples(configure, finished):
    before = {path: path.read_bytes() for path in finished.output_dir.rglob("*") if path.is_file()}
    second = train_on(configure, finished)
    step = load_state(finished)["step"]
    train(dataclasses.replace(second, max_steps=step))
    assert_equal_states(without_names(load_state(finished)), without_names(load_state(second)))
    train(second)
    whole = configure("whole", nested={"schedule": LONG})
    train(whole)
    assert_equal_states(without_names(load_state(whole)), without_names(load_state(second)))
    ledger = "ledger.rank0.jsonl"
    assert (second.output_dir / ledger).read_text() == "".join(
        line
        for line in (whole.output_dir / ledger).read_text().splitlines(keepends=True)
        if json.loads(line)["step"] > step
    )
    after = {path: path.read_bytes() for path in finished.output_dir.rglob("*") if path.is_file()}
    assert after == before
    run = read_run(second.output_dir)
    assert run.lines[0]["step"] > step
    event = read_lines(second.output_dir / "metrics.jsonl")[0]
    assert event == {"event": "continue", "step": step, "from": str(finished.output_dir)}
    origin = load_state(second)["identity"]["continue_from"]
    assert f" at step {step}, state " in origin
    assert load_trunk(second.output_dir / "trunk.safetensors")[1]["continue_from"] == origin


def test_once_begun_it_needs_the_other_run_no_more(configure, finished):
    second = train_on(configure, finished)
    crash_after(second, 10)
    shutil.rmtree(finished.output_dir)
    train(second)
    whole = configure("whole", nested={"schedule": LONG})
    train(whole)
    assert_equal_states(without_names(load_state(whole)), without_names(load_state(second)))


def test_once_begun_it_does_not_mind_that_the_other_run_goes_on(configure, finished):
    short = dataclasses.replace(finished, output_dir=finished.output_dir.with_name("short"))
    train(dataclasses.replace(short, max_steps=4))
    second = train_on(configure, short)
    train(dataclasses.replace(second, max_steps=6))
    train(short)
    train(second)
    assert " at step 4, state " in load_state(second)["identity"]["continue_from"]


def test_another_runs_state_is_another_identity(configure, finished):
    second = train_on(configure, finished)
    train(dataclasses.replace(second, max_steps=8))
    other = configure("other", nested={"schedule": SHORT}, seed=1)
    train(other)
    for source in (other.output_dir, None):
        with pytest.raises(InputError, match=r"continue_from \(old 'run \w+ at step 8, state"):
            train(dataclasses.replace(second, continue_from=source))


def test_a_longer_schedule_is_refused_with_the_way_to_train_on(configure, finished):
    longer = configure("first", nested={"schedule": LONG})
    with pytest.raises(InputError) as caught:
        train(longer)
    message = str(caught.value)
    assert "schedule.epochs (old 1.2, new 2.5)" in message
    assert f"--output-dir ANOTHER --continue-from {finished.output_dir}" in message
    wider = configure("first", nested={"schedule": LONG}, width=2)
    with pytest.raises(InputError) as caught:
        train(wider)
    assert "--continue-from" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 2}, r"different: width \(old 1, new 2\); give the old values"),
        ({"seed": 3}, r"different: seed \(old 0, new 3\)"),
        ({"nested": {"optim": {"weight_decay": 0.5}}}, r"different: optim\.weight_decay"),
        ({"nested": {"schedule": {"epochs": 1.0}}}, r"schedule\.epochs \(1\) ends at step 6"),
        ({"trunk_from": "x"}, r"trunk_from \(x\) and continue_from .* both give"),
    ],
)
def test_what_cannot_change_in_the_middle_is_refused(configure, finished, changes, message):
    with pytest.raises(InputError, match=message):
        train(train_on(configure, finished, **changes))


def test_the_learning_rate_and_the_name_of_the_device_may_change(configure, finished):
    second = train_on(configure, finished, nested={"optim": {"lr": 0.01}}, device="cpu")
    train(dataclasses.replace(second, max_steps=10))
    assert read_run(second.output_dir).lines[-1]["lr"] == pytest.approx(0.01 * 8 / 64)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), r"is not there, wanted a run directory"),
        (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json"),
        (lambda folder: shutil.rmtree(folder / "checkpoints"), "has no whole checkpoint"),
    ],
)
def test_a_run_without_a_state_is_named(configure, finished, damage, message):
    damage(finished.output_dir)
    with pytest.raises(InputError, match=message):
        train(train_on(configure, finished))


def test_a_damaged_checkpoint_is_passed_over_and_left_as_it_is(configure, finished):
    newest = sorted((finished.output_dir / "checkpoints").glob("0*"))[-1]
    (newest / "state.pt").write_bytes(b"rubbish")
    second = train_on(configure, finished)
    train(dataclasses.replace(second, max_steps=7))
    assert " at step 6, state " in load_state(second)["identity"]["continue_from"]
    assert (newest / "state.pt").read_bytes() == b"rubbish"
