"""Show what is installed, what is missing and the line that installs it, and what will be used.

Looks for itself, package by package, for anything may be absent: even torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fastssl

from ..errors import EXIT_ELSE
from ..system.machine import describe_resources
from .frame import check_json_path, parse_arguments

_REQUIRED = {
    **dict.fromkeys(("torch", "numpy", "webdataset", "tqdm", "tensorboard", "tyro"), ""),
    **{
        "safetensors": "",
        "matplotlib": "",
        "isal": "",
        "PIL": "pillow",
        "sklearn": "scikit-learn",
    },
}
"""Modules, and their packages where those have another name."""
_FFCV = "apt-get install pkg-config libopencv-dev libturbojpeg0-dev && pip install ffcv"
_OPTIONAL = {
    "torchvision": ("torchvision", "pip install torchvision", "detection"),
    "pycocotools": ("pycocotools", "pip install pycocotools", "detection's average precision"),
    "mitsuba": (
        "mitsuba",
        "pip install mitsuba trimesh",
        "render-synthetic, the demo's own images",
    ),
    "ray": ("ray", "pip install ray", "sweeps and conversions on many machines"),
    "s3fs": ("s3fs", "pip install 's3fs>=2024.6'", "datasets in S3"),
    "aiohttp": ("aiohttp", "pip install 'fsspec[http]' 'aiohttp>=3.9'", "datasets behind HTTP"),
    "pyarrow": ("pyarrow", "pip install pyarrow", "Parquet tables as a source"),
    "pillow-heif": ("pillow_heif", "pip install pillow-heif", "HEIC and HEIF as a source"),
}
"""Package: its module, what installs it, what it is for."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    said: str
    """What is there, or what is wrong."""
    remedy: str = ""
    """The line that changes it; empty where nothing is missing."""
    is_needed: bool = False
    """Whether nothing can be trained as long as the remedy is not applied."""


@dataclass(frozen=True)
class Doctor:
    """Show what is installed, what is missing and what installs it, and what will be used."""

    json: Path | None = None
    """Write the same as JSON to this file."""


def examine() -> dict[str, list[Finding]]:
    """Look at everything; return the findings by group."""
    found = {"fastssl": [*_examine_package()]}
    has_torch = find_spec("torch") is not None
    if has_torch:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a misfit costs is said here
            found["fastssl"] += _examine_extension()
            found["loaders"] = [*_examine_loaders()]
    found["optional"] = [*_examine_optional(has_torch)]
    found["machine"] = [Finding(name, said) for name, said in describe_resources().items()]
    if has_torch:
        found["machine"] += _examine_gpus()
        if not any(finding.is_needed for finding in found["fastssl"]):
            found["used"] = [*_examine_choice()]
    return found


def _examine_package() -> Iterator[Finding]:
    where = Path(fastssl.__file__).parent
    yield Finding("version", f"{fastssl.__version__}, {where}")
    yield Finding("python", f"{platform.python_version()}, {sys.executable}")
    missing = [package or module for module, package in _REQUIRED.items() if not _is_there(module)]
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        yield Finding("packages", f"missing: {', '.join(missing)}", remedy, is_needed=True)
    if _is_there("torch"):
        import torch

        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        yield Finding("torch", f"{torch.__version__}, {build}")


def _examine_extension() -> Iterator[Finding]:
    """Tell what the compiled half was built for, and whether it is used."""
    import torch

    from ..extension import BUILD, describe_misfit, find_binary, load_extension, read_build_text

    path = find_binary()
    if path is None:
        said = (
            "missing: operators run their slower PyTorch reference, no native loader; in a checkout"
        )
        yield Finding("extension", said, BUILD)
        return
    try:
        build = read_build_text(path)
        misfit = describe_misfit(build, str(torch.__version__), torch.version.cuda)
        load_extension()
    except ImportError as error:
        said = str(error).partition("; build it again")[0]
        yield Finding("extension", said, BUILD, is_needed=True)
        return
    if misfit is not None:
        yield Finding("extension", f"not used: {misfit}", BUILD)
        return
    archs = build["cuda_archs"].replace(",", " ")
    yield Finding("extension", f"for torch {build['torch']}, {path.name}")
    asked = os.environ.get("FASTSSL_CPU_CAPABILITY")
    capability = torch.backends.cpu.get_cpu_capability().lower()
    limit = f", at most {asked} by FASTSSL_CPU_CAPABILITY" if asked else ""
    yield Finding("cpu kernels", f"up to avx512; this machine: {capability}{limit}")
    if archs:
        yield Finding("cuda kernels", f"compute capability {archs}, CUDA {build['cuda']}")
    else:
        remedy = f"FASTSSL_CUDA=1 {BUILD}" if torch.cuda.is_available() else ""
        yield Finding("cuda kernels", "none: on a GPU the PyTorch reference runs", remedy)
    yield Finding("jpeg", build["jpeg"] or "none: no native loader")


def _examine_loaders() -> Iterator[Finding]:
    from ..jpeg_extension import BUILD_JPEG

    try:
        from ..ops.jpeg import has_jpeg

        is_native = has_jpeg()
    except ImportError:
        is_native = False  # the extension is broken, and its finding says so
    if is_native:
        yield Finding("native", "works: threads, exact pixels, the fastest on a CPU")
    else:
        yield Finding("native", "missing", BUILD_JPEG)
    yield _import("webdataset", "webdataset", "pip install webdataset", "portable worker processes")
    import torch

    major = (torch.version.cuda or "13").split(".")[0]
    dali = f"nvidia-dali-cuda{major}0"
    yield _import("dali", "nvidia.dali", f"pip install {dali}", "decodes on a GPU", dali)
    yield _import("ffcv", "ffcv", _FFCV, "reads betons, which fastssl make-beton writes")


def _examine_optional(has_torch: bool) -> Iterator[Finding]:
    for package, (module, remedy, purpose) in _OPTIONAL.items():
        if _is_there(module):
            yield Finding(package, f"{_version(package)}: {purpose}")
        else:
            yield Finding(package, f"missing: {purpose}", remedy)
    if not _is_there("apex"):
        yield Finding("apex", "missing: two fused optimisers; torch's own do without")
    elif has_torch:
        from ..training.optim import load_apex_optimizers

        try:
            load_apex_optimizers()
            yield Finding("apex", "NVIDIA's: apex_fused_sgd, apex_fused_lamb")
        except ImportError as error:
            yield Finding("apex", str(error).partition(";")[0], "pip uninstall apex")


def _examine_gpus() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(number)
            said = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {gpu.major}.{gpu.minor}"
            yield Finding(f"GPU {number}", said)
    elif Path("/proc/driver/nvidia/version").exists():
        said = "a driver of NVIDIA's is there, but torch cannot use a GPU"
        yield Finding(
            "GPU", said, "pip install torch, in a build for CUDA: pytorch.org/get-started"
        )
    else:
        yield Finding("GPU", "none")


def _examine_choice() -> Iterator[Finding]:
    """Tell what a run takes where its options say auto or 0."""
    import torch

    from ..loaders.choice import prefer_loader
    from ..system.cpus import cpus_per_rank

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name, reason = prefer_loader(device)
    yield Finding("device", device)
    yield Finding("loader", f"{name}: {reason.partition('; for')[0]}")
    yield Finding("threads", f"{cpus_per_rank()} a rank")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "there"


def _import(name: str, module: str, remedy: str, purpose: str, package: str = "") -> Finding:
    """Tell whether a back end's package is there and can be imported."""
    if not _is_there(module):
        return Finding(name, f"missing: {purpose}", remedy)
    try:
        importlib.import_module(module)
    except Exception as error:
        return Finding(name, f"cannot be imported ({error}): {purpose}", remedy)
    return Finding(name, f"works, {_version(package or name)}: {purpose}")


def describe(found: dict[str, list[Finding]], width: int = 80) -> str:
    """Return the findings for the screen, a remedy below what it mends."""
    titles = {"fastssl": "fastssl", "loaders": "loaders", "optional": "optional packages"}
    titles |= {"machine": "machine", "used": "what auto takes here"}
    lines = []
    for group, findings in found.items():
        lines.append(titles[group])
        for finding in findings:
            head = f"  {finding.name:<13} "
            lines += textwrap.wrap(
                finding.said, width, initial_indent=head, subsequent_indent=" " * len(head)
            )
            if finding.remedy:  # on one line, to be copied
                lines.append(f"{'':>{len(head)}}> {finding.remedy}")
    return "\n".join(lines)


def can_train(found: dict[str, list[Finding]]) -> bool:
    """Return whether nothing that is needed is missing."""
    return not any(finding.is_needed for findings in found.values() for finding in findings)


def main(arguments: Sequence[str]) -> None:
    """Look, show, write; exit with 1 where nothing can be trained."""
    command = parse_arguments(Doctor, arguments)
    check_json_path(command.json)
    found = examine()
    is_good = can_train(found)
    print(describe(found))
    print("\nit can train" if is_good else "\nit cannot train before what is needed is mended")
    if command.json is not None:
        result: dict[str, Any] = {"ok": is_good, "version": fastssl.__version__}
        result |= {group: [asdict(f) for f in findings] for group, findings in found.items()}
        command.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if not is_good:
        raise SystemExit(EXIT_ELSE)
