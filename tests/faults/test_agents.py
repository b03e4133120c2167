"""Machines that come and go under torchrun: several agents, one rank each, meet on loopback."""

from __future__ import annotations

import contextlib
import json
import platform
import signal
import socket

import pytest

from fastssl.shards.making.convert import ConvertConfig, convert
from tests.conftest import NUM_SAMPLES
from tests.faults.test_kill import BATCH, STUCK, read_ledgers, run, words
from tests.nursery import Child
from tests.patience import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

LONG = ["--schedule.epochs", "10000", "--max-steps", "50000"]
# torchrun's own patience, of half a minute each, is for clusters.
MEETING = "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3,close_timeout=1"


# Without TORCH_DISABLE_SHARE_RDZV_TCP_STORE who joins later never learns where rank 0 is: torch
# 2.14.1 tells it in the first meeting alone, and both agents end after a minute.


@pytest.fixture
def start_agent():
    """Start agents of one meeting; what is left of them ends with the test."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    agents = []

    def is_open():
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return True

    def start(arguments, nodes="1:2"):
        options = [*("--nnodes", nodes), *("--rdzv-endpoint", f"localhost:{port}")]
        options += ["--rdzv-id", "run", "--rdzv-conf", MEETING, "--monitor-interval", "0.1"]
        command = [*options, "--max-restarts", "9", *arguments]
        agents.append(Child(command, ranks=1, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"))
        if len(agents) == 1:  # the first one holds what all meet by
            wait_until(is_open, STUCK, agents[0])
        return agents[-1]

    yield start
    for agent in agents:
        agent.kill()


def last_step(folder, rank):
    """Return the last step in a rank's ledger, 0 if there is none."""
    path = folder / f"ledger.rank{rank}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    return json.loads(whole[-1])["step"] if whole else 0


def wait_for_step(folder, rank, more_than, agent):
    try:
        wait_until(lambda: last_step(folder, rank) > more_than, STUCK, agent)
    except AssertionError:
        raise AssertionError(agent.communicate()[1]) from None
    return last_step(folder, rank)


def test_one_machine_is_killed_and_another_added_while_training(
    dataset_path, tmp_path, start_agent
):
    folder = tmp_path / "run"
    first = start_agent(words(dataset_path, folder, LONG))
    second = start_agent(words(dataset_path, folder, LONG))
    together = wait_for_step(folder, 1, 5, first)
    second.kill()
    alone = wait_for_step(folder, 0, together + 50, first)
    third = start_agent(words(dataset_path, folder, LONG))
    wait_for_step(folder, 1, alone + 10, first)
    for agent in (first, third):
        agent.send_signal(signal.SIGTERM)
    for agent in (first, third):
        agent.wait()

    ending = json.loads((folder / "exit.json").read_text())
    assert ending["code"] == 75, ending
    num_epochs = -(-ending["step"] * BATCH // NUM_SAMPLES)
    last = -(-num_epochs * NUM_SAMPLES // BATCH)
    run(dataset_path, folder, 1, [*LONG, "--max-steps", str(last)])
    assert json.loads((folder / "exit.json").read_text())["code"] == 0
    steps = read_ledgers(folder)
    assert list(steps) == list(range(1, last + 1))
    seen = [pair for pairs in steps.values() for pair in pairs]
    for epoch in range(num_epochs):
        assert sorted(i for e, i in seen if e == epoch) == list(range(NUM_SAMPLES))


@pytest.mark.parametrize("kind", ["data", "run", "settings"])
def test_machines_that_differ_are_named_at_the_start(dataset_path, tmp_path, start_agent, kind):
    """Each of two machines has what it is told, under names that look alike."""
    first = (dataset_path, tmp_path / "run", ())
    if kind == "data":
        convert(ConvertConfig(dataset_path.parent / "photos" / "a", tmp_path / "a", workers=1))
        other, said = (tmp_path / "a", tmp_path / "run", ()), "dataset_digest"
    elif kind == "run":
        other, said = (dataset_path, tmp_path / "other", ()), "does not see what rank 0"
    else:
        other, said = (dataset_path, tmp_path / "run", ("--seed", "5")), "has seed "
    agents = [
        start_agent(["--max-restarts", "0", *words(*place)], nodes="2") for place in (first, other)
    ]
    errors = "".join(agent.communicate()[1] for agent in agents)
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors
    assert lines[0].startswith(f"error: rank 1 on {platform.node()} ")
    assert said in lines[0]
    codes = [json.loads(path.read_text())["code"] for path in tmp_path.glob("*/exit.json")]
    assert codes == [2]


def test_a_machine_without_the_data_says_so(dataset_path, tmp_path, start_agent):
    nowhere = tmp_path / "nowhere"
    first = start_agent(["--max-restarts", "0", *words(dataset_path, tmp_path / "run")], nodes="2")
    second = start_agent(["--max-restarts", "0", *words(nowhere, tmp_path / "run")], nodes="2")
    ended = []
    wait_until(lambda: ended.extend(a for a in (first, second) if a.poll()) or ended, STUCK)
    for agent in {first, second} - set(ended):
        agent.kill()
    errors = "".join(agent.communicate()[1] for agent in (first, second))
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors
    assert str(nowhere) in lines[0]
