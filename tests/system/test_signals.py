"""Ctrl-C while processes are forked."""

from __future__ import annotations

import signal

import pytest

from fastssl.system.signals import postponing_ctrl_c


def work(done, error=None):
    """Be interrupted in the middle of a block."""
    with postponing_ctrl_c():
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
