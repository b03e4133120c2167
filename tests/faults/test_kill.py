"""Runs under torchrun, killed with -9, must end as if nothing had happened.

Real scripts, real JPEGs, 1, 2 and 4 gloo ranks; the launcher, one worker, or the whole group dies.
What dies is forked from the nursery; what it is compared with at two ranks is torchrun's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastssl.shards import open_dataset
from tests.conftest import NUM_SAMPLES
from tests.nursery import Child, run_child
from tests.patience import is_alive, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
BATCH = 8
STEPS = 18  # 47 samples an epoch: steps 6, 12 and 18 cross a border
EVERY = 4
STUCK = "the run does not get on"
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
OPTIONS = [
    *("--task.num-permutations", "10", "--task.hidden", "8", "--task.resize-short", "36"),
    *("--task.crop", "36", "--task.patch", "10", "--task.jitter", "3"),
    *("--data.global-batch-size", str(BATCH), "--data.num-threads", "1", "--data.ledger", "true"),
    *("--schedule.epochs", "4", "--max-steps", str(STEPS)),
    *("--checkpoint.every-steps", str(EVERY), "--log.every-steps", "2"),
    *("--log.progress", "false", "--log.pictures-every-steps", "0"),
]


def words(dataset_path, folder, extra=()):
    script = [ROOT / "tools" / "train.py", "demo", "--data.path", dataset_path]
    return [*script, "--output-dir", folder, *OPTIONS, *extra]


def torchrun(dataset_path, folder, extra=()):
    """Return what starts two ranks as a user does, each a fresh Python."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node", "2", *map(str, words(dataset_path, folder, extra))]


def run(dataset_path, folder, num_ranks, extra=()):
    ranks = num_ranks if num_ranks > 1 else 0
    run_child(*words(dataset_path, folder, extra), ranks=ranks, check=True)


def descendants(pid):
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(status.parent.name)
            found += [child, *descendants(child)]
    return found


def steps_done(folder):
    path = folder / "ledger.rank0.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def has_come_to(folder, step, num_lives):
    """Return whether this life has gone on from the last one, and done a step."""
    metrics = folder / "metrics.jsonl"
    if not metrics.exists() or metrics.read_text().count('"resume"') < num_lives:
        return False
    # The first life must leave a checkpoint, or the second would prove nothing.
    return steps_done(folder) >= step and any((folder / "checkpoints").glob("0*"))


def kill_at(dataset_path, folder, num_ranks, step, victim, num_lives, extra):
    """Start the run, and kill the victim with -9 once a step is done."""
    process = Child(words(dataset_path, folder, extra), num_ranks if num_ranks > 1 else 0)
    wait_until(lambda: has_come_to(folder, step, num_lives), STUCK, process)
    family = descendants(process.pid)
    if victim == "group":  # ranks may lead sessions of their own, so everyone by name
        for pid in (process.pid, *family):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    elif victim == "worker" and num_ranks > 1:
        assert len(family) == num_ranks
        os.kill(sorted(family)[step % num_ranks], signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_alive, family)), "processes outlive their launcher")


def load_state(folder):
    newest = sorted((folder / "checkpoints").glob("0*"))[-1]
    return torch.load(newest / "state.pt", weights_only=True)


def flat(value, name=""):
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in flat(item, f"{name}.{key}")]
    if isinstance(value, list):
        return [pair for n, item in enumerate(value) for pair in flat(item, f"{name}.{n}")]
    return [(name, value)]


def read_ledgers(folder):
    """Return step -> the (epoch, id) pairs of all ranks, sorted."""
    steps: dict[int, list] = {}
    for path in folder.glob("ledger.rank*.jsonl"):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            pairs = zip(line["epochs"], line["sample_ids"], strict=True)
            steps.setdefault(line["step"], []).extend(pairs)
    return {step: sorted(pairs) for step, pairs in sorted(steps.items())}


@pytest.fixture(scope="module")
def undisturbed(dataset_path, tmp_path_factory):
    """Undisturbed runs by number of ranks, made when first asked for; two by torchrun itself."""
    folders = {}

    def get(num_ranks, extra=()):
        key = num_ranks, extra
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("whole") / "run"
            if num_ranks == 2:
                launch = torchrun(dataset_path, folders[key], extra)
                subprocess.run(launch, env=ONE_THREAD, check=True, capture_output=True)
            else:
                run(dataset_path, folders[key], num_ranks, extra)
        return folders[key]

    return get


BF16 = ("--precision", "bf16", "--accumulation", "2", "--frozen-stages", "1")


@pytest.mark.parametrize(
    ("num_ranks", "victims", "extra"),
    [
        (1, [("launcher", 5), ("group", 9), ("launcher", 13)], ()),
        (2, [("launcher", 5), ("worker", 6), ("group", 13)], BF16),
        # Two summands commute; only four ranks show that gradients are summed in one order.
        (4, [("worker", 5), ("launcher", 9), ("group", 10)], ()),
    ],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    dataset_path, tmp_path, undisturbed, num_ranks, victims, extra
):
    folder = tmp_path / "run"
    for num_lives, (victim, step) in enumerate(victims):
        kill_at(dataset_path, folder, num_ranks, step, victim, num_lives, extra)
    run(dataset_path, folder, num_ranks, extra)
    whole = undisturbed(num_ranks, extra)
    for (name, a), (other, b) in zip(
        flat(load_state(whole)), flat(load_state(folder)), strict=True
    ):
        assert name == other
        assert torch.equal(a, b) if torch.is_tensor(a) else a == b, name
    trunks = [(place / "trunk.safetensors").read_bytes() for place in (whole, folder)]
    assert trunks[0] == trunks[1]

    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    resumes = [line["step"] for line in lines if line.get("event") == "resume"]
    assert len(resumes) == len(victims)
    assert min(resumes) > 0
    seen = [pair for pairs in read_ledgers(folder).values() for pair in pairs]
    for epoch in range(STEPS * BATCH // NUM_SAMPLES):
        assert sorted(i for e, i in seen if e == epoch) == list(range(NUM_SAMPLES))


def test_a_run_moves_from_two_ranks_to_one_to_four(dataset_path, tmp_path, undisturbed):
    folder = tmp_path / "run"
    for num_ranks, steps in ((2, 5), (1, 9), (4, STEPS)):
        run(dataset_path, folder, num_ranks, ["--max-steps", str(steps)])
    assert read_ledgers(folder) == read_ledgers(undisturbed(1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_launcher_saves_on_all_ranks(dataset_path, tmp_path, number):
    folder = tmp_path / "run"
    handled = "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1"
    process = Child([handled, *words(dataset_path, folder)], ranks=2)
    wait_until(lambda: steps_done(folder) >= 3, STUCK, process)
    process.send_signal(number)
    process.wait()
    ending = json.loads((folder / "exit.json").read_text())
    assert ending["code"] == 75
    assert load_state(folder)["step"] == ending["step"] >= 3
    for rank in range(2):
        assert (folder / f"ledger.rank{rank}.jsonl").read_bytes().count(b"\n") == ending["step"]


def test_the_wrong_input_of_a_torchrun_run_stands_in_exit_json(dataset_path, tmp_path):
    folder = tmp_path / "run"
    done = run_child(*words(dataset_path, folder, ["--data.global-batch-size", "7"]), ranks=2)
    assert done.returncode == 1  # torchrun's own
    assert json.loads((folder / "exit.json").read_text())["code"] == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr
    assert "set --data.global-batch-size to 6 or 8" in said[0]
    # torchrun has much to say of its own; its last words are ours.
    assert any(said[0] in line for line in done.stderr.splitlines()[-12:]), done.stderr


def test_ranks_stop_together_on_too_many_bad_samples(dataset_path, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(dataset_path, shards)
    dataset = open_dataset(shards)
    for sample_id in range(30):
        shard, offset, length = dataset.locate(sample_id)
        with (shards / dataset.manifest.shards[shard].name).open("r+b") as file:
            file.seek(offset + length // 2)
            old = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([old[0] ^ 1]))
    folder = tmp_path / "run"
    done = run_child(*words(shards, folder), ranks=2)
    assert done.returncode == 1
    ending = json.loads((folder / "exit.json").read_text())
    assert ending["code"] == 1
    assert "samples of epoch 0 are bad" in ending["reason"]
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    steps = {(folder / f"ledger.rank{rank}.jsonl").read_text().count("\n") for rank in range(2)}
    assert len(steps) == 1


def test_a_rank_that_fails_alone_leaves_its_reason(dataset_path, tmp_path):
    """Rank 1 cannot write its ledger; rank 0 alone would only know that its peer is gone."""
    folder = tmp_path / "run"
    _script, *arguments = words(dataset_path, folder)
    done = run_child("-m", "tests.faults.limited_rank", *arguments, ranks=2)
    assert done.returncode == 1
    ending = json.loads((folder / "exit.json").read_text())
    assert ending["code"] == 1
    assert "ledger.rank1.jsonl" in ending["reason"]


def test_ranks_die_with_a_launcher_that_is_killed_at_once(dataset_path, tmp_path):
    process = subprocess.Popen(
        torchrun(dataset_path, tmp_path / "run"),
        env=ONE_THREAD,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(descendants(process.pid)) >= 2, "no ranks come")
    family = descendants(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_alive, family)), "ranks outlive a launcher killed at once")
