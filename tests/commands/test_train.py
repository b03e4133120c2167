"""What a user meets at the shell of ``tools/train.py`` when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import NUM_SAMPLES
from tests.nursery import Child, run_child
from tests.patience import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
EVERY = 2
STEPS = 2 * EVERY
STUCK = "the run does not get on"
OPTIONS = [
    *("--task.num-permutations", "10", "--task.hidden", "8", "--task.resize-short", "36"),
    *("--task.crop", "36", "--task.patch", "10", "--task.jitter", "3"),
    *("--data.global-batch-size", "8", "--data.num-threads", "1", "--data.ledger", "true"),
    *("--schedule.epochs", "1000", "--checkpoint.every-steps", str(EVERY)),
    *("--log.every-steps", "2", "--log.progress", "false", "--log.pictures-every-steps", "0"),
]


def start(*arguments):
    return Child([ROOT / "tools" / "train.py", *arguments], CUDA_VISIBLE_DEVICES="")


def run(*arguments):
    """Run to the end; return the exit code and what stands on stderr."""
    done = run_child(ROOT / "tools" / "train.py", *arguments, CUDA_VISIBLE_DEVICES="")
    return done.returncode, done.stderr


def train(dataset_path, folder, *options):
    return run("demo", "--data.path", dataset_path, "--output-dir", folder, *OPTIONS, *options)


def error_of(said):
    """Return the one line that names what is wrong."""
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said
    assert "Traceback" not in said
    return lines[0]


def ending_of(folder):
    return json.loads((folder / "exit.json").read_text())


def steps_done(folder):
    path = folder / "ledger.rank0.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def finished(dataset_path, tmp_path_factory):
    """A run of ``STEPS`` steps; tests work on copies."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    code, said = train(dataset_path, folder, "--max-steps", STEPS)
    assert code == 0, said
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dmo"], "recipe ('dmo') is not known; did you mean 'demo'?"),
        (["resnet50"], "recipe ('resnet50') is not known, it is a trunk: name a recipe, then "),
        (["demo", "--data.loader", "webdatset"], "did you mean 'webdataset'?"),
        (
            ["demo", "--data.global-batch-size", "0"],
            "data.global_batch_size (0) must lie in 1 .. 1,000,000; set --data.global-batch-size",
        ),
        (["demo"], "--data.path (none given) must name a dataset"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(tmp_path, arguments, message):
    code, said = run(*arguments, "--output-dir", tmp_path / "run")
    assert code == 2
    assert message in error_of(said)


def test_a_batch_that_does_not_divide_is_answered_with_the_nearest_that_do(dataset_path, tmp_path):
    code, said = train(dataset_path, tmp_path, "--data.global-batch-size", 7, "--accumulation", 2)
    assert code == ending_of(tmp_path)["code"] == 2
    assert "set --data.global-batch-size to 6 or 8" in error_of(said)


def test_a_batch_larger_than_the_dataset_is_refused(dataset_path, tmp_path):
    code, said = train(dataset_path, tmp_path, "--data.global-batch-size", 48)
    assert code == ending_of(tmp_path)["code"] == 2
    assert f"({NUM_SAMPLES} samples)" in error_of(said)
    assert "--data.allow-repeat-in-batch true" in error_of(said)


def test_a_missing_shard_is_named_before_the_first_step(dataset_path, tmp_path):
    shards = shutil.copytree(dataset_path, tmp_path / "shards")
    (shards / "shard-000002.tar").unlink()
    code, said = train(shards, tmp_path / "run")
    assert code == ending_of(tmp_path / "run")["code"] == 2
    assert f"{shards}/shard-000002.tar: the shard is missing" in error_of(said)
    assert steps_done(tmp_path / "run") == 0


def test_without_a_whole_checkpoint_every_start_is_refused_and_nothing_is_lost(
    dataset_path, finished, tmp_path
):
    folder = shutil.copytree(finished, tmp_path / "run")
    states = sorted(folder.glob("checkpoints/0*/state.pt"))
    assert len(states) == 2
    for path in states:
        os.truncate(path, 10)
    before = contents(folder)
    for _ in range(2):  # a scheduler starts a failed job again by itself
        code, said = train(dataset_path, folder, "--max-steps", STEPS + 1)
        assert code == 2
        assert "no checkpoint is whole" in error_of(said)
    after = contents(folder)
    for path in (*states, folder / "metrics.jsonl", folder / "ledger.rank0.jsonl"):
        assert after[path] == before[path]


def test_a_run_goes_on_when_it_and_its_data_have_moved(dataset_path, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "elsewhere" / "run")
    shards = shutil.copytree(dataset_path, tmp_path / "moved")
    code, said = train(shards, folder, "--max-steps", STEPS + 1)
    assert code == 0, said
    assert f"going on after step {STEPS}" in said
    assert ending_of(folder) == {"code": 0, "reason": "done", "step": STEPS + 1}


def test_a_second_run_in_a_directory_is_refused_and_the_first_is_not_disturbed(
    dataset_path, tmp_path
):
    folder = tmp_path / "run"
    first = start("demo", "--data.path", dataset_path, "--output-dir", folder, *OPTIONS)
    try:
        wait_until(lambda: steps_done(folder) >= EVERY, STUCK, first)
        code, said = train(dataset_path, folder)
        assert code == 2
        assert "is in use by another run" in error_of(said)
        assert not (folder / "exit.json").exists()
        steps = steps_done(folder)
        wait_until(lambda: steps_done(folder) > steps, STUCK, first)
        first.send_signal(signal.SIGTERM)
        first.send_signal(signal.SIGTERM)  # schedulers repeat themselves
        _, said = first.communicate()
    finally:
        first.kill()
    assert first.returncode == ending_of(folder)["code"] == 75, said
    assert ending_of(folder)["step"] == steps_done(folder)


def test_a_signal_before_the_first_step_saves_and_stops(dataset_path, tmp_path):
    folder = tmp_path / "run"
    process = start("demo", "--data.path", dataset_path, "--output-dir", folder, *OPTIONS)
    try:
        wait_until((folder / "config.json").exists, STUCK, process)
        process.send_signal(signal.SIGUSR1)
        _, said = process.communicate()
    finally:
        process.kill()
    assert process.returncode == ending_of(folder)["code"] == 75, said
    assert ending_of(folder)["step"] == steps_done(folder)


def children_of(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def test_a_killed_loader_worker_ends_the_run_instead_of_hanging_it(dataset_path, tmp_path):
    folder = tmp_path / "run"
    process = start(
        *("demo", "--data.path", dataset_path, "--output-dir", folder, *OPTIONS),
        *("--data.num-threads", "2", "--log.tensorboard", "false"),
        *("--data.loader", "webdataset"),
    )
    try:
        wait_until(lambda: steps_done(folder) >= EVERY, STUCK, process)
        workers = children_of(process.pid)
        assert len(workers) == 2
        # The trainer must be waiting for a batch: that is when the failure comes out of the loader.
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        steps = -1
        while steps != (steps := steps_done(folder)):
            time.sleep(1)
        os.kill(workers[0], signal.SIGKILL)
        # The other one stays stopped: it holds nothing up.
        _, said = process.communicate()
    finally:
        for pid in (process.pid, *children_of(process.pid)) if process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
    assert process.returncode == ending_of(folder)["code"] == 1, said
    assert "worker" in ending_of(folder)["reason"]
