"""exit.json has the last word of a run, whatever comes behind it."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from fastssl.errors import RunFailed
from fastssl.runs.endings import recorded_exit, stoppable
from fastssl.world import World
from tests.patience import wait_until


@pytest.fixture(autouse=True)
def _under_torchrun(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")


def fail(folder, world):
    with recorded_exit(folder, world, lambda: 3):
        raise RunFailed("the disk is full")


def read(folder):
    return json.loads((folder / "exit.json").read_text())


def test_a_signal_behind_the_last_word_does_not_change_it(tmp_path):
    """torchrun sends one to the ranks that are left when another has failed."""
    world = World(0, 1, torch.device("cpu"), None)
    with stoppable(tmp_path, world, lambda: 3, owns_process=False) as signals:
        with pytest.raises(RunFailed):
            fail(tmp_path, world)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: signals.received is not None, "the signal is not heard")
    assert "disk is full" in read(tmp_path)["reason"]


def test_a_signal_before_it_is_told_until_it_comes(tmp_path):
    world = World(0, 1, torch.device("cpu"), None)
    with stoppable(tmp_path, world, lambda: 3, owns_process=False):
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until((tmp_path / "exit.json").exists, "nothing is written")
        assert read(tmp_path)["reason"] == "stopped: SIGTERM, before it was done"
        with pytest.raises(RunFailed):
            fail(tmp_path, world)
    assert "disk is full" in read(tmp_path)["reason"]


def test_another_run_in_the_same_directory_is_told_of_again(tmp_path):
    world = World(0, 1, torch.device("cpu"), None)
    with stoppable(tmp_path, world, lambda: 3, owns_process=False), pytest.raises(RunFailed):
        fail(tmp_path, world)
    with stoppable(tmp_path, world, lambda: 4, owns_process=False):
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: read(tmp_path)["step"] == 4, "nothing is written")
