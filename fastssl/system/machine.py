"""What the machine is and leaves this process, and what measured figures hold for."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import importlib.util
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


def describe_code() -> str:
    """Return what has to be equal on machines that work together: our Python, and what it rests on.

    A version says little of a checkout, so all of the package's Python is hashed; 0.05 s.
    """
    digest = hashlib.sha256()
    home = Path(__file__).parents[1]
    # In a checkout they lie beside the package, installed in it.
    loaders = importlib.util.find_spec("fastssl.loaders")
    places = {"": home}
    for place in (loaders and loaders.submodule_search_locations) or ():
        places["loaders/"] = Path(place)
    sources = {
        f"{prefix}{path.relative_to(place)}": path
        for prefix, place in places.items()
        for path in place.rglob("*.py")
    }
    for name, path in sorted(sources.items()):
        digest.update(f"{name}\n".encode() + path.read_bytes())
    from PIL import features  # doctor runs where it is missing

    versions = {
        "Python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "NumPy": importlib.metadata.version("numpy"),
        "Pillow": importlib.metadata.version("Pillow"),
        "libjpeg-turbo": features.version_feature("libjpeg_turbo"),
    }
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"fastssl {digest.hexdigest()[:12]}, {told}"


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
