"""Imports go one way, as CONTRIBUTING.md draws it.

system, leaves <- ops, shards <- models <- tasks, loaders <- runs, training <- evaluation, studies
<- commands <- tools.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEAVES = {
    "address",
    "average_precision",
    "batch",
    "config",
    "counts",
    "errors",
    "extension",
    "fields",
    "jpeg_extension",
    "randomness",
    "sampling",
    "stages",
    "system",
    "views",
    "world",
    "_C",
}
# The rooms of shards; each may import those before it.
SHARDS_ROOMS = ("", "making", "derive")

# Part -> the parts that it may import beside itself and the leaves.
_BELOW_RUNS = {"ops", "shards", "models", "tasks", "loaders"}
_BELOW_EVALUATION = {*_BELOW_RUNS, "runs", "training", "synthetic"}
_BELOW_COMMANDS = {*_BELOW_EVALUATION, "evaluation", "studies", "proposals"}
ARROWS = {
    "ops": set(),
    "shards": set(),
    "models": {"ops", "shards"},
    "synthetic": {"shards"},
    "proposals": {"shards"},
    "loaders": {"ops", "shards"},
    "tasks": {"ops", "shards", "models"},
    "runs": _BELOW_RUNS,
    "training": {*_BELOW_RUNS, "runs"},
    "evaluation": _BELOW_EVALUATION,
    "studies": _BELOW_EVALUATION,
    "commands": _BELOW_COMMANDS,
    "benchmarks": {*_BELOW_COMMANDS, "commands"},
    "__main__": {"commands"},
}


def part_of_file(path: Path) -> str:
    """Name the part that a file belongs to."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "loaders" if parts[0] == "loaders" else parts[1]


def module_of_file(path: Path) -> list[str]:
    """Split the module's name at its dots."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ["fastssl", *parts] if parts[0] == "loaders" else parts


def imported_modules(path: Path, source: str) -> list[list[str]]:
    """List the modules that a file imports, relative names resolved."""
    package = module_of_file(path)[:-1]
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            found += [[*base, alias.name] for alias in node.names]
    return found


def backward_arrows(path: Path, source: str) -> list[str]:
    """List the imports of a file that its part may not make."""
    part = part_of_file(path)
    if part == "__init__":
        return []
    if part in LEAVES:
        allowed = LEAVES
    else:
        assert part in ARROWS, f"{path}: part '{part}' has no row in ARROWS; give it one"
        allowed = LEAVES | ARROWS[part] | {part}
    bad = []
    for module in imported_modules(path, source):
        if module[0] == "loaders":
            bad.append(f"{path}: a top-level `loaders`, write fastssl.loaders")
        elif module[0] == "tools":
            bad.append(f"{path}: tools")
        elif module[0] == "fastssl" and len(module) > 1 and not module[1].startswith("__"):
            if module[1] not in allowed:
                bad.append(f"{path}: {part} -> {'.'.join(module)}")
    return bad


def room_of_shards(parts: list[str]) -> int:
    """Return the place in SHARDS_ROOMS of a module's name, split at its dots."""
    return SHARDS_ROOMS.index(parts[2]) if len(parts) > 2 and parts[2] in SHARDS_ROOMS else 0


def backward_arrows_of_shards(path: Path, source: str) -> list[str]:
    """List the imports of a file of shards that its room may not make."""
    return [
        f"{path}: {'.'.join(module)}"
        for module in imported_modules(path, source)
        if module[:2] == ["fastssl", "shards"]
        and room_of_shards(module) > room_of_shards(module_of_file(path))
    ]


def library_files() -> list[Path]:
    """List the files of the library."""
    return sorted([*ROOT.glob("fastssl/**/*.py"), *ROOT.glob("loaders/**/*.py")])


def test_no_import_runs_against_the_arrows():
    files = library_files()
    assert len(files) > 10
    assert [bad for path in files for bad in backward_arrows(path, path.read_text())] == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("fastssl/ops/patches.py", "from ..tasks import jigsaw"),
        ("fastssl/ops/patches.py", "import fastssl.loaders.base"),
        ("fastssl/batch.py", "from .ops import normalize"),
        ("loaders/base.py", "from ..tasks.jigsaw import Jigsaw"),
        ("loaders/base.py", "from loaders import fixed"),
        ("fastssl/tasks/jigsaw.py", "from fastssl import loaders"),
        ("fastssl/training/trainer.py", "def f():\n    from tools import train"),
    ],
)
def test_an_import_against_the_arrows_is_found(file, source):
    assert len(backward_arrows(ROOT / file, source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("fastssl/ops/__init__.py", "from .. import __version__\nfrom .patches import x"),
        ("fastssl/ops/patches.py", "from ..extension import load_extension"),
        ("loaders/base.py", "from ..shards import reader\nfrom . import device"),
        ("fastssl/training/trainer.py", "from ..tasks import jigsaw\nimport torch"),
    ],
)
def test_an_import_along_the_arrows_is_allowed(file, source):
    assert backward_arrows(ROOT / file, source) == []


def test_reading_does_not_import_making_nor_making_derived_datasets():
    files = sorted(ROOT.glob("fastssl/shards/**/*.py"))
    assert {room_of_shards(module_of_file(path)) for path in files} == {0, 1, 2}
    bad = [bad for path in files for bad in backward_arrows_of_shards(path, path.read_text())]
    assert bad == []


@pytest.mark.parametrize(
    ("file", "source", "is_backward"),
    [
        ("fastssl/shards/reader.py", "from .making import writer", True),
        ("fastssl/shards/making/plan.py", "from ..derive.classes import unite_classes", True),
        ("fastssl/shards/making/plan.py", "from ..index import ROW\nfrom .encode import x", False),
        ("fastssl/shards/derive/combine.py", "from ..making.writer import shard_name", False),
    ],
)
def test_imports_inside_shards_go_one_way(file, source, is_backward):
    assert bool(backward_arrows_of_shards(ROOT / file, source)) == is_backward


def test_importing_fastssl_alone_loads_nothing_heavy(tmp_path):
    code = "import sys, fastssl; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_worker_processes_of_a_conversion_do_without_torch():
    # It takes seconds to import and half a gigabyte, in each of them.
    code = "import sys, fastssl.shards.making.convert; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_training_starts_without_the_compiler():
    # A decorator of torch.compiler would import it: 1.6 s of every command's start.
    code = "import sys, fastssl.commands.train; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
