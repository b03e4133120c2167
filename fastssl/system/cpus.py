"""How many CPUs this process may really use: affinity mask and cgroup quota, not the machine."""

from __future__ import annotations

import math
import os

from .cgroups import cgroup_quota


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
