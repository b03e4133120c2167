"""How many CPUs and how much memory this process may really use: its cgroups, not the machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def _cgroup_folders(controller: str, mounts: str, membership: str) -> Iterator[Path]:
    """Yield the cgroup folders of this process, from its own up to the mount.

    Args:
        controller: ``""`` for the unified hierarchy (v2), else a v1 controller such as ``cpu``.
        mounts: text of ``/proc/self/mountinfo``.
        membership: text of ``/proc/self/cgroup``.
    """
    own = None
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = path
    if own is None:
        return
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        wanted = kind == "cgroup" and controller in options.split(",") if controller else False
        if not wanted and not (not controller and kind == "cgroup2"):
            continue
        root, mount = before.split()[3:5]
        # Inside a container the mount shows only the container's own part of the tree.
        relative = own[len(root) :] if root != "/" and own.startswith(root) else own
        top = Path(mount)
        folder = top / relative.strip("/")
        while folder != top:
            yield folder
            folder = folder.parent
        yield top


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None  # The file is absent where no such controller rules this process.


def cgroup_quota(
    mounts: str | None = None,
    membership: str | None = None,
) -> float:
    """Return the tightest CPU quota of the cgroups that this process lies in.

    Args:
        mounts: text of ``/proc/self/mountinfo``; None reads it.
        membership: text of ``/proc/self/cgroup``; None reads it.

    Returns:
        The quota in CPUs; infinity where there is none.
    """
    mounts = (_read(Path("/proc/self/mountinfo")) or "") if mounts is None else mounts
    membership = (_read(Path("/proc/self/cgroup")) or "") if membership is None else membership
    quota = math.inf
    for folder in _cgroup_folders("", mounts, membership):
        words = (_read(folder / "cpu.max") or "max").split()
        if words[0] != "max":
            quota = min(quota, int(words[0]) / int(words[1]))
    for folder in _cgroup_folders("cpu", mounts, membership):
        limit = int(_read(folder / "cpu.cfs_quota_us") or -1)
        if limit > 0:
            quota = min(quota, limit / int(_read(folder / "cpu.cfs_period_us") or 100_000))
    return quota


def cgroup_memory(
    mounts: str | None = None,
    membership: str | None = None,
) -> float:
    """Return the tightest memory limit of the cgroups that this process lies in.

    Args:
        mounts: text of ``/proc/self/mountinfo``; None reads it.
        membership: text of ``/proc/self/cgroup``; None reads it.

    Returns:
        Bytes; infinity, or more than any machine has, where there is none.
    """
    mounts = (_read(Path("/proc/self/mountinfo")) or "") if mounts is None else mounts
    membership = (_read(Path("/proc/self/cgroup")) or "") if membership is None else membership
    limit = math.inf
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        for folder in _cgroup_folders(controller, mounts, membership):
            text = (_read(folder / name) or "max").strip()
            limit = limit if text == "max" else min(limit, int(text))
    return limit


def available_cpus() -> int:
    """Return the number of CPUs that this process may use, at least 1.

    The smaller of the affinity mask and the cgroup's quota (v1 or v2), rounded up.
    """
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(affinity, math.ceil(min(cgroup_quota(), affinity))))


def local_world_size() -> int:
    """Return how many ranks torchrun has started on this machine; 1 without torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cpus_per_rank() -> int:
    """Return this rank's share of the cores that the machine's ranks may use, at least 1."""
    return max(1, available_cpus() // local_world_size())
