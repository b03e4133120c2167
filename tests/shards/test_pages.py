"""The table of pages that processes share, and the files that hold their bytes."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from fastssl.shards import pages
from fastssl.shards.pages import PAGE_BYTES, PRESENT, PageTable
from tests.nursery import Child
from tests.patience import wait_until

DIGEST = "ab" * 32
SIZES = np.array([5 * PAGE_BYTES + 7, 3 * PAGE_BYTES, 100], np.int64)  # 6, 3 and 1 pages
NOBODY = np.zeros(0, np.int64)


@pytest.fixture
def open_table(tmp_path):
    tables = []

    def open_one(digest=DIGEST):
        tables.append(PageTable(tmp_path, digest, SIZES))
        return tables[-1]

    yield open_one
    for table in tables:
        table.close()


def fill(table, first, last):
    taken = table.claim(np.arange(first, last), 100, lambda _: NOBODY)
    for page in taken.tolist():
        table.write(page, bytes([page + 1]) * table.bytes_of(page, page + 1)[2])
        table.settle(page, page + 1, np.array([True]))
    return taken


def is_there(table, first, last):
    return bool(table.are_present(np.array([first]), np.array([last]))[0])


def test_parts_of_shards_have_their_pages(open_table):
    table = open_table()
    shards, offsets = np.array([0, 0, 1, 2]), np.array([0, PAGE_BYTES - 1, 5, 99])
    firsts, lasts = table.span(shards, offsets, np.array([1, 2, PAGE_BYTES, 1]))
    assert firsts.tolist() == [0, 0, 6, 9]
    assert lasts.tolist() == [1, 2, 8, 10]
    assert table.bytes_of(4, 6) == (0, 4 * PAGE_BYTES, PAGE_BYTES + 7)
    assert table.split(np.array([0, 1, 3, 5, 6, 7, 9]), 2) == [
        *((0, 2), (3, 4), (5, 6), (6, 8), (9, 10))
    ]
    assert table.widen(np.array([1, 5, 9]), 4).tolist() == [0, 1, 2, 3, 4, 5, 9]


def test_a_page_takes_room_only_while_it_is_there(open_table):
    table = open_table()
    fill(table, 0, 6)
    path = table.path_of(0)
    before = os.stat(path).st_blocks
    assert table.drop(np.arange(2, 4))
    assert os.stat(path).st_blocks * 512 <= before * 512 - 2 * PAGE_BYTES
    assert (table.num_used, table.count_present()) == (4, 4)
    assert not is_there(table, 1, 3)
    content = path.read_bytes()
    assert len(content) == SIZES[0]
    assert content[PAGE_BYTES] == 2
    assert content[2 * PAGE_BYTES : 4 * PAGE_BYTES] == bytes(2 * PAGE_BYTES)


def test_another_opening_sees_what_is_there_and_takes_nothing_twice(open_table):
    one, other = open_table(), open_table()
    fill(one, 0, 3)
    assert is_there(other, 0, 3)
    coming = one.claim(np.arange(5), 100, lambda _: NOBODY)
    assert coming.tolist() == [3, 4]
    assert other.claim(np.arange(6), 100, lambda _: NOBODY).tolist() == [5]
    assert other.num_used == 6


def test_no_more_pages_are_taken_than_there_is_room_for(open_table):
    table = open_table()
    fill(table, 0, 6)
    asked = []

    def find_victims(excess):
        asked.append(excess)
        return np.array([4, 0])

    assert table.claim(np.array([6, 7, 8]), 6, find_victims).tolist() == [6, 7]
    assert asked == [3]
    assert table.num_used == 6
    assert not is_there(table, 4, 5)


def test_what_is_given_up_takes_no_room(open_table):
    table = open_table()
    table.claim(np.arange(3), 100, lambda _: NOBODY)
    table.write(0, bytes(3 * PAGE_BYTES))
    table.settle(0, 3, np.array([True, False, True]))
    assert (table.states[:3] == [PRESENT, 0, PRESENT]).all()
    assert table.num_used == 2
    assert os.stat(table.path_of(0)).st_blocks * 512 <= 2 * PAGE_BYTES + 4096


FETCHING = f"""
import sys, time
from pathlib import Path
import numpy as np
from fastssl.shards.pages import PageTable
table = PageTable(Path(sys.argv[1]), "{DIGEST}", np.array({SIZES.tolist()}))
table.claim(np.arange(4), 100, lambda excess: np.zeros(0, int))
table.write(0, b"half")  # a part of what it meant to write
time.sleep(1000)
"""


def test_what_a_killed_process_was_fetching_is_absent_again(open_table, tmp_path):
    table = open_table()
    child = Child(["-c", FETCHING, tmp_path])
    wait_until(lambda: table.num_used == 4, "nothing was begun", child)
    wait = np.array([0]), np.array([4])
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not table.wait(*wait, 60, lambda: None)[0]
    assert table.num_used == 0
    assert fill(table, 0, 4).tolist() == [0, 1, 2, 3]


def test_one_waits_for_a_page_that_lives(open_table, monkeypatch):
    monkeypatch.setattr(pages, "_LIVENESS_S", 0.0)
    one, other = open_table(), open_table()
    one.claim(np.arange(2), 100, lambda _: NOBODY)
    looks = []

    def look():
        looks.append(other.num_used)
        if len(looks) == 3:
            one.write(0, bytes(2 * PAGE_BYTES))
            one.settle(0, 2, np.array([True, True]))

    assert other.wait(np.array([0]), np.array([2]), 300, look)[0]
    assert looks == [2, 2, 2]


def test_a_child_that_closes_leaves_its_parents_pages(open_table):
    table = open_table()
    fill(table, 0, 2)
    table.claim(np.array([3]), 100, lambda _: NOBODY)
    child = os.fork()
    if child == 0:
        table.drop(np.array([0]))
        table.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert table.num_used == 2
    assert table.states[:4].tolist() == [0, PRESENT, 0, table.states[3]]
    table.write(3, bytes(PAGE_BYTES))
    table.settle(3, 4, np.array([True]))
    assert is_there(table, 3, 4)


@pytest.mark.parametrize("damage", ["digest", "cut", "noise"])
def test_a_table_that_is_not_of_these_shards_is_made_anew(open_table, tmp_path, damage):
    table = open_table()
    fill(table, 0, 3)
    table.close()
    path = tmp_path / pages.TABLE_NAME
    if damage == "cut":
        os.truncate(path, 20)
    elif damage == "noise":
        path.write_bytes(os.urandom(path.stat().st_size))
    again = open_table("cd" * 32 if damage == "digest" else DIGEST)
    assert (again.num_used, again.count_present()) == (0, 0)
    assert not again.path_of(0).exists()
