"""Losses that leap: they are found, recorded, and run again from their capsules."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch

from fastssl.commands.replay_step import main as replay_step
from fastssl.config import SpikeConfig
from fastssl.errors import InputError, RunFailed
from fastssl.training import train
from fastssl.training.spikes import MAX_CAPSULES, SpikeDetector
from tests.nursery import run_child
from tests.small_runs import assert_equal_states, crash_after, load_state, read_lines

# So low that noise is a leap: half of ten steps come before the first.
EAGER = {"spike": {"threshold": 1.0, "window": 10}}
LEAPING = {"optim": {"lr": 0.4}, "log": {"every_steps": 2}, **EAGER}


def look_at(losses, config, every=1):
    detector, found = SpikeDetector(config), []
    for step, loss in enumerate(losses, 1):
        detector.observe(step, torch.tensor(loss, dtype=torch.float64))
        if step % every == 0:
            found += detector.look()
    return found


def make_losses(leaps):
    losses = np.exp(np.random.default_rng(0).normal(0.5, 0.1, 300))
    for step in leaps:
        losses[step - 1] *= 4
    return losses.tolist()


def test_a_loss_that_leaps_is_found_with_its_deviations():
    losses = make_losses([150, 260])
    found = look_at(losses, SpikeConfig(threshold=6, window=100))
    assert [spike.step for spike in found] == [150, 260]
    before = np.log(losses[49:149])
    expected = (math.log(losses[149]) - before.mean()) / before.std()
    assert found[0].deviations == pytest.approx(expected, rel=1e-9)
    assert found[0].loss == losses[149]


def test_what_is_found_does_not_depend_on_when_one_looks():
    losses, config = make_losses([150, 151, 260]), SpikeConfig(threshold=3, window=50)
    assert look_at(losses, config) == look_at(losses, config, every=50)


@pytest.mark.parametrize("strange", [math.nan, math.inf, 0.0, -1.0])
def test_what_has_no_logarithm_is_no_leap(strange):
    losses = make_losses([])
    losses[200] = strange
    assert look_at(losses, SpikeConfig(threshold=6, window=100)) == []


def test_too_few_steps_say_nothing_and_zero_looks_for_nothing():
    losses = make_losses([20, 150])
    found = look_at(losses, SpikeConfig(threshold=6, window=100))
    assert [spike.step for spike in found] == [150]
    assert look_at(losses, SpikeConfig(threshold=0, window=100)) == []


@pytest.fixture(scope="module")
def leapt(dataset_path, tmp_path_factory):
    """A run whose loss leaps, by its config."""
    from tests.small_runs import make_config

    folder = tmp_path_factory.mktemp("leapt") / "run"
    config = make_config(dataset_path, folder, nested=LEAPING)
    train(config)
    return config


def list_spikes(config):
    lines = read_lines(config.output_dir / "metrics.jsonl")
    return [line for line in lines if line.get("event") == "spike"]


def list_capsules(config):
    return sorted((config.output_dir / "spikes").iterdir())


def test_a_leap_stands_in_the_log_beside_its_line(leapt):
    spikes = list_spikes(leapt)
    lines = read_lines(leapt.output_dir / "metrics.jsonl")
    assert lines[-1]["spikes"] == len(spikes) > 0
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    (first, *_) = spikes
    (line,) = [one for one in lines if first["step"] <= one["step"] < first["step"] + 2][-1:]
    assert line["spikes"] >= 1


def test_a_resumed_run_finds_the_same_leaps(leapt, configure):
    stopped = configure("stopped", nested=LEAPING)
    for step in (4, 10):
        crash_after(stopped, step)
    train(stopped)
    assert list_spikes(stopped) == list_spikes(leapt)
    assert_equal_states(load_state(stopped), load_state(leapt))


def test_the_first_leaps_leave_capsules_though_all_are_found_at_once(configure):
    rarely = {"log": {"every_steps": 100}, "checkpoint": {"every_steps": 100}}
    rarely["schedule"] = {"epochs": 6}
    config = configure("rarely", nested=LEAPING | rarely)
    train(config)
    assert len(list_spikes(config)) > MAX_CAPSULES
    steps = [int(place.name) for place in list_capsules(config)]
    assert steps == [spike["step"] for spike in list_spikes(config)][:MAX_CAPSULES]


def test_a_run_that_looks_for_leaps_equals_one_that_does_not(leapt, configure):
    other = configure("other", nested=LEAPING | {"spike": {"threshold": 0.0}})
    train(other)
    ours, theirs = load_state(leapt), load_state(other)
    del ours["spikes"], theirs["spikes"]
    assert_equal_states(ours, theirs)


def test_a_leap_comes_out_the_same_again(leapt, tmp_path, capsys):
    kept = list_capsules(leapt)[-1]
    capsule = shutil.copytree(kept, tmp_path / "elsewhere")  # it needs nothing of its run
    replay_step([str(capsule)])
    step = int(kept.name)
    loss = next(s["loss"] for s in list_spikes(leapt) if s["step"] == step)
    assert f"step {step} came out the same: 8 samples, their pixels, and loss {loss!r}" in (
        capsys.readouterr().out
    )


def test_a_loss_that_is_not_finite_comes_out_the_same_again(configure, capsys):
    config = configure(
        nested={"optim": {"lr": 1e3, "head_weight_decay": 100.0, "lr_batch_size": 0}}
    )
    with pytest.raises(RunFailed, match="the loss was not finite at step"):
        train(config)
    (capsule,) = (config.output_dir / "nonfinite").iterdir()
    replay_step([str(capsule)])
    assert "came out the same: 8 samples, their pixels, and loss not finite" in (
        capsys.readouterr().out
    )


@pytest.mark.slow
def test_two_ranks_run_a_step_of_two_ranks_again(dataset_path, tmp_path):
    options = ("--task.num-permutations", 10, "--task.hidden", 8, "--task.resize-short", 36)
    options += ("--task.crop", 36, "--task.patch", 10, "--task.jitter", 3, "--optim.lr", 0.4)
    options += ("--data.global-batch-size", 8, "--data.num-threads", 1, "--max-steps", 12)
    options += ("--spike.threshold", 1, "--spike.window", 10, "--log.every-steps", 2)
    options += ("--checkpoint.every-steps", 3, "--log.pictures-every-steps", 0)
    run = tmp_path / "run"
    words = ("-m", "fastssl", "train", "demo", "--data.path", dataset_path)
    run_child(*words, "--output-dir", run, *options, ranks=2, check=True)
    capsule = sorted((run / "spikes").iterdir())[-1]
    done = run_child("-m", "fastssl", "replay-step", capsule, ranks=2)
    assert "came out the same: 8 samples" in done.stdout, done.stderr
    with pytest.raises(InputError, match="is of 2 rank"):
        replay_step([str(capsule)])


def copy_capsule(leapt, tmp_path, change=None):
    copy = shutil.copytree(list_capsules(leapt)[0], tmp_path / "capsule")
    path = copy / "capsule.json"
    content = json.loads(path.read_text())
    if change is not None:
        change(content)
    path.write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=2), "is of version 2, this program reads 1"),
        (lambda c: c.update(dataset_digest="0" * 64), "is of the dataset 0000000000000000"),
        (lambda c: c.pop("loss"), r"capsule\.json is damaged \(loss\)"),
        (lambda c: c.update(step="x"), r"capsule\.json is damaged \(step\)"),
        (lambda c: c.update(checkpoint=10**6), r"capsule\.json is damaged"),
    ],
)
def test_what_is_no_capsule_of_this_run_is_refused(leapt, tmp_path, change, message):
    copy = copy_capsule(leapt, tmp_path, change)
    with pytest.raises(InputError, match=message):
        replay_step([str(copy)])


def test_a_capsule_that_lost_a_part_is_refused(leapt, tmp_path):
    copy = copy_capsule(leapt, tmp_path)
    (copy / "capsule.json").write_text("{")
    with pytest.raises(InputError, match=r"capsule\.json is damaged"):
        replay_step([str(copy)])
    with pytest.raises(InputError, match=r"has no capsule\.json"):
        replay_step([str(tmp_path)])


def test_a_capsule_whose_checkpoint_is_damaged_is_refused(leapt, tmp_path):
    copy = copy_capsule(leapt, tmp_path)
    (state,) = copy.glob("checkpoints/*/state.pt")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.unlink()  # a hard link no longer: copies have files of their own
    state.write_bytes(content)
    with pytest.raises(InputError, match="no checkpoint is whole"):
        replay_step([str(copy)])


def test_another_loss_than_the_capsules_is_told(leapt, tmp_path):
    copy = copy_capsule(leapt, tmp_path, lambda c: c.update(loss=1.5))
    with pytest.raises(RunFailed, match=r"came out differently: loss .*, and 1\.5 in the capsule"):
        replay_step([str(copy)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": -1.0}, r"spike\.threshold \(-1\.0\) must lie in 0 \.\. 1,000"),
        ({"threshold": math.nan}, r"spike\.threshold \(nan\) must lie in"),
        ({"window": 1}, r"spike\.window \(1\) must lie in 10 \.\. 100,000"),
    ],
)
def test_what_is_no_leap_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SpikeConfig(), **values)
