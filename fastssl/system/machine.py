"""What the machine is and leaves this process, and what measured figures hold for."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import math
import os
import platform
from pathlib import Path
from typing import Any

from .cgroups import cgroup_memory, cgroup_quota
from .cpus import available_cpus

_PACKAGES = (
    *("torch", "torchvision", "numpy", "Pillow", "webdataset", "ffcv", "spdl"),
    "nvidia-dali-cuda130",
)


def describe_environment() -> dict[str, Any]:
    """Return the date, the machine, its usable cores, and the versions of what is installed."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "date": datetime.date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "cores": available_cpus(),
        "versions": versions,
    }


def describe_resources() -> dict[str, str]:
    """Return processor, CPUs and memory, and what of them this process may use, in words."""
    quota, affinity = cgroup_quota(), len(os.sched_getaffinity(0))
    limits = [f"{affinity} by affinity"] if affinity < (os.cpu_count() or 1) else []
    limits += [f"{quota:g} by its cgroup"] if quota < math.inf else []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    left = min(memory, cgroup_memory())
    return {
        "processor": read_processor(),
        "CPUs": f"{available_cpus()} usable of {os.cpu_count()}"
        + (f" ({', '.join(limits)})" if limits else ""),
        "memory": f"{left / 2**30:.1f} GiB"
        + (f" by its cgroup, of {memory / 2**30:.1f}" if left < memory else ""),
    }


def read_processor() -> str:
    """Return the processor's model where the system names it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
