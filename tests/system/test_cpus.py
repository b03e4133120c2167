from __future__ import annotations

import math
import os

import pytest

from fastssl.system.cgroups import cgroup_memory, cgroup_quota
from fastssl.system.cpus import available_cpus


def test_at_least_one_and_no_more_than_the_affinity_mask():
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))


def test_a_smaller_affinity_mask_counts():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("own", "parent", "quota"),
    [
        ("max 100000", "max 100000", math.inf),
        ("150000 100000", "max 100000", 1.5),
        ("max 100000", "400000 100000", 4),
        ("300000 100000", "200000 100000", 2),
    ],
)
def test_quota_v2_is_the_tightest_on_the_way_up(tmp_path, own, parent, quota):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/cpu.max").write_text(parent + "\n")
    (tmp_path / "a/b/cpu.max").write_text(own + "\n")
    mounts = f"30 20 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw"
    assert cgroup_quota(mounts, "0::/a/b") == quota


@pytest.mark.parametrize(("limit", "quota"), [("-1", math.inf), ("250000", 2.5)])
def test_quota_v1_is_read(tmp_path, limit, quota):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/cpu.cfs_quota_us").write_text(limit + "\n")
    (tmp_path / "a/cpu.cfs_period_us").write_text("100000\n")
    mounts = f"30 20 0:26 / {tmp_path} rw - cgroup cgroup rw,cpu,cpuacct"
    assert cgroup_quota(mounts, "4:cpu,cpuacct:/a") == quota


def test_quota_of_a_container_that_sees_only_its_part(tmp_path):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    mounts = f"30 20 0:26 /docker/x {tmp_path} rw - cgroup2 cgroup2 rw"
    assert cgroup_quota(mounts, "0::/docker/x") == 0.5


def test_no_cgroup_means_no_quota():
    assert cgroup_quota("", "") == math.inf
    assert cgroup_memory("", "") == math.inf


@pytest.mark.parametrize(
    ("own", "parent", "limit"),
    [("max", "max", math.inf), ("4096", "max", 4096), ("8192", "4096", 4096)],
)
@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_memory_is_the_tightest_on_the_way_up(tmp_path, version, own, parent, limit):
    kind, options, name = {
        1: ("cgroup", "rw,memory", "memory.limit_in_bytes"),
        2: ("cgroup2", "rw", "memory.max"),
    }[version]
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a" / name).write_text(parent + "\n")
    (tmp_path / "a/b" / name).write_text(own + "\n")
    mounts = f"30 20 0:26 / {tmp_path} rw - {kind} {kind} {options}"
    membership = "4:memory:/a/b" if version == 1 else "0::/a/b"
    assert cgroup_memory(mounts, membership) == limit
