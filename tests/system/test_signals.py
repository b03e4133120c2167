"""Ctrl-C while processes are forked."""

from __future__ import annotations

import os
import signal

import pytest

from fastssl.system.signals import noting_signals, postponing_signals
from tests.nursery import run_child
from tests.patience import wait_until


def work(done, error=None):
    """Be interrupted in the middle of a block."""
    with postponing_signals():
        signal.raise_signal(signal.SIGINT)
        if error is not None:
            raise error
        done.append(True)


def test_ctrl_c_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        work(done)
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_failure_of_the_block_comes_before_ctrl_c():
    with pytest.raises(OSError, match="mine"):
        work([], OSError("mine"))


def test_what_waited_is_heard_once(capfd):
    with noting_signals() as signals:
        with postponing_signals():
            signal.raise_signal(signal.SIGINT)
            assert signals.received is None
        assert signals.received is signal.SIGINT
        wait_until(lambda: "again to abort" in capfd.readouterr().err, "nothing is said")
        assert signals._num_presses == 1


def test_a_forked_child_does_not_speak_for_its_parent(capfd):
    """In a terminal one Ctrl-C reaches both: it must not count twice."""
    with noting_signals() as signals:
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGINT)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        signal.raise_signal(signal.SIGINT)
        wait_until(lambda: signals.received is signal.SIGINT, "nothing is heard")
    assert capfd.readouterr().err.count("stopping after this step") == 1


def press_twice():
    with noting_signals(is_telling=False):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        wait_until(lambda: False, "it is not obeyed")


def test_the_second_ctrl_c_means_it():
    with pytest.raises(KeyboardInterrupt):
        press_twice()


def test_a_child_that_lives_on_does_not_hold_the_block_up():
    with noting_signals():
        child = os.fork()
        if not child:
            signal.pause()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize(("rank", "said"), [("0", "stopped: SIGINT; start the same "), ("1", "")])
def test_what_has_nothing_to_save_ends_with_a_line(rank, said):
    code = (
        "import signal; from fastssl.system.signals import stop_at_once_on_signals as stop; "
        "stop(75); signal.raise_signal(signal.SIGINT)"
    )
    done = run_child("-c", code, RANK=rank)
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == (said and f"{said}command again to go on\n")
