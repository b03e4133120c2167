"""Locks, retries and checksums."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import threading

import pytest

from fastssl.errors import InputError
from fastssl.system.files import READ_TRIES, locked, retried, sha256_of


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_keeps_a_second_one_out_until_it_is_let_go(tmp_path, kind):
    path = tmp_path / "lock" if kind == "file" else tmp_path
    with locked(path, "busy"):
        with pytest.raises(InputError, match="busy"), locked(path, "busy"):
            pytest.fail("two hold it")
    with locked(path, "busy"):
        pass


def test_a_patient_one_waits_for_the_lock(tmp_path):
    path, order = tmp_path / "lock", []

    def follow():
        with locked(path, "busy", patience_s=math.inf):
            order.append("second")

    second = threading.Thread(target=follow)
    with locked(path, "busy"):
        second.start()
        second.join(0.3)
        order.append("first")
    second.join()
    assert order == ["first", "second"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_that_lives_on_does_not_hold_the_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    ending = context.Event()
    child = context.Process(target=ending.wait)
    with locked(tmp_path / "lock", "busy"):
        child.start()
    try:
        with locked(tmp_path / "lock", "busy"):
            assert child.is_alive()
    finally:
        ending.set()
        child.join()


def test_a_read_is_tried_three_times():
    assert list(retried(0.0)) == list(range(READ_TRIES)) == [0, 1, 2]


def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
