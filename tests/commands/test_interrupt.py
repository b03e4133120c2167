"""Ctrl-C in a terminal: one line says so, and no command shows a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastssl.benchmarks.scale import repeat_samples
from tests.patience import wait_until
from tests.terminal import STOPPED, Terminal, last_line

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start():
    with contextlib.ExitStack() as stack:
        yield lambda *command: stack.enter_context(
            contextlib.closing(Terminal("-m", "fastssl", *command))
        )


@pytest.fixture
def start_module():
    with contextlib.ExitStack() as stack:
        yield lambda *command: stack.enter_context(contextlib.closing(Terminal("-m", *command)))


@pytest.fixture(scope="module")
def long_dataset(dataset_path, tmp_path_factory):
    """A dataset that takes minutes: few images, named again and again."""
    folder = tmp_path_factory.mktemp("long")
    repeat_samples(dataset_path, folder, 1_000_000)
    return folder


PRESS_BEFORE_COMMANDS = """
import signal, sys

class Press:
    def find_spec(self, name, path, target=None):
        if name == "fastssl.commands":
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Press())
import fastssl.__main__
"""


def test_before_the_imports_it_ends_without_a_word():
    ended = subprocess.run(
        [sys.executable, "-c", PRESS_BEFORE_COMMANDS], cwd=ROOT, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout + ended.stderr) == (-signal.SIGINT, "")


def test_a_check_is_stopped_in_one_line(start, dataset_path, tmp_path):
    shards = shutil.copytree(dataset_path, tmp_path / "shards")
    (shards / "shard-000001.tar").unlink()
    os.mkfifo(shards / "shard-000001.tar")  # whoever opens it waits for ever
    terminal = start("check-shards", shards)
    terminal.wait_for("check")
    terminal.press()
    assert terminal.wait() == 1, terminal.said
    assert last_line(terminal.said) == STOPPED
    assert "Traceback" not in terminal.said


@pytest.mark.parametrize("loader", ["auto", "webdataset"])
def test_a_count_is_stopped_in_one_line(start, long_dataset, tmp_path, loader):
    terminal = start("color-prior", long_dataset, tmp_path / "prior.json", "--loader", loader)
    terminal.wait_for("image/s")
    terminal.press()
    assert terminal.wait() == 1, terminal.said
    assert last_line(terminal.said) == STOPPED
    assert "Traceback" not in terminal.said
    assert not (tmp_path / "prior.json").exists()


def test_a_beton_is_stopped_in_one_line(start, long_dataset, tmp_path):
    terminal = start("make-beton", long_dataset, "--out", tmp_path / "x.beton", "--workers", "2")
    terminal.wait_for("img/s")
    terminal.press()
    assert terminal.wait() == 1, terminal.said
    assert last_line(terminal.said) == STOPPED
    assert "Traceback" not in terminal.said
    assert not (tmp_path / "x.beton").exists()


def test_one_ctrl_c_lets_a_run_save_and_two_end_it_at_once(start, long_dataset, tmp_path):
    run = tmp_path / "run"
    # A step takes seconds, so that there is a middle of one to be stopped in.
    command = (
        *("train", "demo", "--data.path", long_dataset, "--output-dir", run),
        *("--data.global-batch-size", 128, "--log.tensorboard", "false", "--data.num-threads", 1),
    )
    terminal = start(*command)
    terminal.wait_for("0/")
    terminal.press()
    terminal.wait_for("stopping after this step; Ctrl-C again to abort")
    assert terminal.wait() == 75
    # Before the first step began, or in it.
    saved = r"stopped: saved at step ([01]); start the same command again to go on"
    found = re.fullmatch(saved, last_line(terminal.said))
    assert found, terminal.said
    again = start(*command)
    again.wait_for(f"{found[1]}/")
    again.press()
    again.wait_for("Ctrl-C again to abort")
    again.press()
    assert again.wait() == 1
    assert last_line(again.said) == STOPPED
    assert "Traceback" not in terminal.said + again.said
    ending = json.loads((run / "exit.json").read_text())
    assert (ending["code"], ending["reason"]) == (1, STOPPED)


def test_inside_a_pass_that_never_ends_both_are_obeyed(start_module, dataset_path, tmp_path):
    run = tmp_path / "run"
    terminal = start_module("tests.training.stuck_run", dataset_path, run)
    terminal.wait_for("stuck")
    terminal.press()
    terminal.wait_for("stopping after this step; Ctrl-C again to abort")
    assert not (run / "exit.json").exists()
    terminal.press()
    assert terminal.wait() == 1, terminal.said
    assert last_line(terminal.said) == STOPPED
    assert "Traceback" not in terminal.said
    ending = json.loads((run / "exit.json").read_text())
    assert ending == {"code": 1, "reason": STOPPED, "step": 1}


def test_under_torchrun_too(start_module, dataset_path, tmp_path):
    run = tmp_path / "run"
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    terminal = start_module(*launcher, "-m", "tests.training.stuck_run", dataset_path, run)
    terminal.wait_for("stuck")
    terminal.press()
    terminal.wait_for("stopping after this step; Ctrl-C again to abort")
    # What stands if torchrun kills the ranks, as it does after 30 seconds.
    wait_until((run / "exit.json").exists, "the signal is not noted")
    ending = json.loads((run / "exit.json").read_text())
    assert (ending["code"], ending["reason"]) == (1, "stopped: SIGINT, before it was done")
    terminal.press()
    terminal.wait()
    assert terminal.said.count("stopping after this step") == 1
    assert "stuck_run.py" not in terminal.said  # torchrun shows a traceback of its own
    ending = json.loads((run / "exit.json").read_text())
    assert (ending["code"], ending["reason"]) == (1, STOPPED)
    assert "forcefully exiting" not in terminal.said  # the ranks have ended by themselves
