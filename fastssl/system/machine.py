"""What measured figures hold for: the date, the machine and the versions; for every bench tool."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import platform
from typing import Any

from .cpus import available_cpus

_PACKAGES = (
    *("torch", "torchvision", "numpy", "Pillow", "webdataset", "ffcv", "spdl"),
    "nvidia-dali-cuda130",
)


def describe_machine() -> dict[str, Any]:
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
