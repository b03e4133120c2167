"""A loss that leaps: the run goes back, and on without the steps around it."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from fastssl.commands.replay_step import main as replay_step
from fastssl.config import SpikeConfig
from fastssl.errors import InputError, RunFailed
from fastssl.loaders import build_loader
from fastssl.system.signals import noting_signals
from fastssl.training import Trainer, train
from fastssl.training.checkpoint import CheckpointStore
from fastssl.training.rollback import LeftOut
from fastssl.views import ViewSpec
from fastssl.world import join_world
from tests.nursery import run_child
from tests.small_runs import (
    BATCH,
    EAGER,
    LEAPING,
    assert_equal_states,
    crash_after,
    load_state,
    make_config,
    read_lines,
)

STEPS = 30


def read_metrics(config):
    return read_lines(config.output_dir / "metrics.jsonl")


def read_ledger(config):
    return read_lines(config.output_dir / "ledger.rank0.jsonl")


def list_left_out(config):
    return [line["step"] for line in read_ledger(config) if "left_out" in line]


@pytest.fixture(scope="module")
def gone_back(dataset_path, tmp_path_factory):
    """A run that went back, by its config."""
    config = make_config(dataset_path, tmp_path_factory.mktemp("back") / "run", nested=LEAPING)
    train(config)
    return config


def test_what_is_left_out_lies_around_the_leap(gone_back):
    rollbacks = [line for line in read_metrics(gone_back) if line.get("event") == "rollback"]
    assert len(rollbacks) > 5
    before = 0
    for line in rollbacks:
        assert line["step"] < line["first"] <= line["leapt"] <= line["last"]
        assert (line["first"], line["last"]) == (max(line["leapt"] - 1, before), line["leapt"] + 1)
        assert line["loss"] > 0
        before = line["last"] + 1
    expected = [step for line in rollbacks for step in range(line["first"], line["last"] + 1)]
    assert list_left_out(gone_back) == [step for step in expected if step <= STEPS]


def test_every_step_stands_once_in_the_ledger_with_all_its_samples(gone_back):
    lines = read_ledger(gone_back)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    data = dataclasses.replace(gone_back.data, seed=gone_back.seed, loader="native")
    with_order = build_loader(data, ViewSpec.center(8, 8))
    for line in lines:
        plan = with_order.plan_step((line["step"] - 1) * BATCH)
        planned = list(zip(plan.epochs.tolist(), plan.sample_ids.tolist(), strict=True))
        used = list(zip(line["epochs"], line["sample_ids"], strict=True))
        assert used + [tuple(pair) for pair in line.get("left_out", [])] == planned
        assert not (used and "left_out" in line)
    with_order.close()


def test_the_run_is_the_one_that_never_took_those_steps(gone_back, configure):
    """Nothing that came after the place it went back to is left in weights, momenta or counts."""
    config = configure("told", nested=LEAPING)
    train(dataclasses.replace(config, max_steps=0))
    with noting_signals() as signals:
        trainer = Trainer(config, join_world("cpu"), signals)
        trainer.set_up()
        trainer.rolls_back = False
        trainer.left_out.load_state_dict(load_state(gone_back)["left_out"])
        trainer.run()
        trainer.close()
    ours, theirs = load_state(gone_back), load_state(config)
    for state in (ours, theirs):
        del state["spikes"]["count"]
    assert_equal_states(ours, theirs)
    trunks = [(c.output_dir / "trunk.safetensors").read_bytes() for c in (gone_back, config)]
    assert trunks[0] == trunks[1]


@pytest.mark.parametrize("stops", [(7, 8, 9), (6, 10, 11, 23), (20,)])
def test_a_run_that_is_killed_on_the_way_ends_in_the_same(gone_back, configure, stops):
    config = configure("killed", nested=LEAPING)
    for step in stops:
        crash_after(config, step)
    train(config)
    assert_equal_states(load_state(config), load_state(gone_back))
    assert read_ledger(config) == read_ledger(gone_back)


def test_how_often_one_looks_decides_nothing(gone_back, configure):
    often = configure("often", nested=LEAPING | {"log": {"every_steps": 1}})
    train(often)
    ours, theirs = load_state(gone_back), load_state(often)
    for state in (ours, theirs):
        del state["meter"]
    assert_equal_states(ours, theirs)


def test_metrics_and_curves_hold_what_was_kept_alone(gone_back):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = read_metrics(gone_back)
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    kept = [line for line in lines if "event" not in line]
    assert kept[-1]["step"] == STEPS
    assert not {line["step"] for line in kept[:-1]} & {*list_left_out(gone_back)}
    rollbacks = [line for line in lines if line.get("event") == "rollback"]
    assert kept[-1]["spikes"] == len(rollbacks)
    board = EventAccumulator(
        str(gone_back.output_dir / "tensorboard"), size_guidance={"scalars": 0}
    )
    board.Reload()
    drawn = [event.step for event in board.Scalars("1_learning/loss")]
    assert drawn == [line["step"] for line in kept if line["loss"] is not None]


def test_a_leap_in_a_run_that_goes_back_comes_out_the_same_again(gone_back, capsys):
    for capsule in sorted((gone_back.output_dir / "spikes").iterdir()):
        replay_step([str(capsule)])
        assert f"step {int(capsule.name)} came out the same" in capsys.readouterr().out


def test_a_stop_between_steps_that_are_left_out_changes_nothing(gone_back, configure):
    config = configure("stopped", nested=LEAPING)
    inside = next(step for step in list_left_out(gone_back) if step + 1 in list_left_out(gone_back))
    train(dataclasses.replace(config, max_steps=inside))
    assert read_metrics(config)[-1]["step"] == inside
    train(config)
    assert read_ledger(config) == read_ledger(gone_back)
    assert_equal_states(load_state(config)["task"], load_state(gone_back)["task"])


def test_too_many_leaps_end_the_run_and_more_may_be_allowed(gone_back, configure):
    few = configure("few", nested=LEAPING | {"spike": EAGER | {"max_rollbacks": 1}})
    for _ in range(2):
        with pytest.raises(RunFailed, match=r"after 1 rollback, and spike\.max_rollbacks \(1\)"):
            train(few)
    more = dataclasses.replace(few, spike=dataclasses.replace(few.spike, max_rollbacks=99))
    train(more)
    assert_equal_states(load_state(more)["task"], load_state(gone_back)["task"])


def test_what_is_left_out_is_the_runs_own(gone_back):
    for values in ({"skip_steps": 5}, {"threshold": 2.0}, {"window": 20}):
        spike = dataclasses.replace(gone_back.spike, **values)
        with pytest.raises(InputError, match=rf"different: spike\.{next(iter(values))}"):
            train(dataclasses.replace(gone_back, spike=spike))


def test_a_run_that_is_continued_may_leave_out_more(gone_back, configure):
    spike = dataclasses.replace(gone_back.spike, skip_steps=5, threshold=2.0)
    longer = {"spike": dataclasses.asdict(spike), "schedule": {"epochs": 6}}
    config = configure("more", nested=LEAPING | longer, continue_from=gone_back.output_dir)
    train(config)
    ours, theirs = (load_state(one)["left_out"] for one in (config, gone_back))
    assert ours["first"][: len(theirs["first"])] == theirs["first"]
    assert load_state(config)["step"] > STEPS


def test_fewer_rollbacks_than_there_were_allow_none():
    left_out = LeftOut(SpikeConfig(skip_steps=2, max_rollbacks=1))
    left_out.load_state_dict({"first": [3, 9], "last": [4, 10]})
    with pytest.raises(RunFailed, match="after 2 rollbacks"):
        left_out.add(20)


def test_a_run_that_leaves_nothing_out_may_look_for_other_leaps(configure):
    config = configure(max_steps=2)
    train(config)
    train(dataclasses.replace(config, spike=SpikeConfig(threshold=3.0), max_steps=3))


def test_stretches_do_not_overlap():
    left_out = LeftOut(SpikeConfig(skip_steps=6))
    assert left_out.add(2) == (1, 4)
    assert left_out.add(20) == (17, 22)
    assert left_out.add(24) == (23, 26)
    assert [left_out.find_end(step) for step in (4, 5, 16, 17, 22, 26, 27)] == [
        *(4, None, None, 22, 22, 26, None)
    ]
    assert [left_out.find_stop(step, 100) for step in (5, 27)] == [16, 100]


def test_the_checkpoint_that_a_leap_may_need_is_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep=2, reach=5)
    kept = []
    for step in range(0, 12, 2):
        store.save(step, {"step": step})
        store.wait()
        kept.append(sorted(int(path.name) for path in tmp_path.glob("0*")))
    assert kept == [[0], [0, 2], [0, 2, 4], [0, 2, 4, 6], [2, 4, 6, 8], [4, 6, 8, 10]]


def test_a_run_that_has_nothing_to_go_back_to_says_so(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    store.save(6, {"step": 6})
    with pytest.raises(InputError, match="has no checkpoint of before step 5 to go back to"):
        store.go_back(5)
    assert store.find_newest() == 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"skip_steps": -1}, r"spike\.skip_steps \(-1\) must lie in 0 \.\. 100,000"),
        ({"max_rollbacks": 0}, r"spike\.max_rollbacks \(0\) must lie in 1 \.\. 10,000"),
    ],
)
def test_what_cannot_be_left_out_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SpikeConfig(), **values)


@pytest.mark.slow
def test_two_ranks_go_back_from_what_is_no_number_on_one(dataset_path, tmp_path):
    options = ("--task.num-permutations", 10, "--task.hidden", 8, "--task.resize-short", 36)
    options += ("--task.crop", 36, "--task.patch", 10, "--task.jitter", 3)
    options += ("--data.global-batch-size", 8, "--data.num-threads", 1, "--max-steps", 12)
    options += ("--spike.skip-steps", 4, "--log.every-steps", 3, "--data.ledger", "true")
    options += ("--checkpoint.every-steps", 3, "--log.pictures-every-steps", 0)
    words = ("-m", "tests.faults.nan_rank", "demo", "--data.path", dataset_path)
    # The first pass of all settles DDP's buckets.
    spoilt = {"NAN_FROM": "7", "NAN_TO": "8"}
    run_child(*words, "--output-dir", tmp_path, *options, ranks=2, check=True, **spoilt)
    lines = read_lines(tmp_path / "metrics.jsonl")
    (event,) = [line for line in lines if line.get("event") == "rollback"]
    assert event == {
        **{"event": "rollback", "step": 3, "leapt": 7, "loss": None},
        **{"first": 5, "last": 8},
    }
    (last,) = [line for line in lines if line["step"] == 12]
    assert last["skipped"] == 0
    assert math.isfinite(last["loss"])
    for rank in range(2):
        ledger = read_lines(tmp_path / f"ledger.rank{rank}.jsonl")
        assert [line["step"] for line in ledger if "left_out" in line] == [5, 6, 7, 8]
    assert json.loads((tmp_path / "exit.json").read_text())["code"] == 0
