"""What the cgroups of this process leave it of the machine: CPU time and memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path


def _cgroup_folders(controller: str, mounts: str | None, membership: str | None) -> Iterator[Path]:
    """Yield the cgroup folders of this process, from its own up to the mount.

    Args:
        controller: ``""`` for the unified hierarchy (v2), else a v1 controller such as ``cpu``.
        mounts: text of ``/proc/self/mountinfo``; None reads it.
        membership: text of ``/proc/self/cgroup``; None reads it.
    """
    mounts = (_read(Path("/proc/self/mountinfo")) or "") if mounts is None else mounts
    membership = (_read(Path("/proc/self/cgroup")) or "") if membership is None else membership
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


def cgroup_quota(mounts: str | None = None, membership: str | None = None) -> float:
    """Return the tightest CPU quota of the cgroups that this process lies in.

    Args:
        mounts: text of ``/proc/self/mountinfo``; None reads it.
        membership: text of ``/proc/self/cgroup``; None reads it.

    Returns:
        The quota in CPUs; infinity where there is none.
    """
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


def cgroup_memory(mounts: str | None = None, membership: str | None = None) -> float:
    """Return the tightest memory limit of the cgroups that this process lies in.

    Args:
        mounts: text of ``/proc/self/mountinfo``; None reads it.
        membership: text of ``/proc/self/cgroup``; None reads it.

    Returns:
        Bytes; infinity, or more than any machine has, where there is none.
    """
    limit = math.inf
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        for folder in _cgroup_folders(controller, mounts, membership):
            text = (_read(folder / name) or "max").strip()
            limit = limit if text == "max" else min(limit, int(text))
    return limit
