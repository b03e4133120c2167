"""README and CONTRIBUTING tell the truth: the tree is the tree, links lead on, commands run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="ascii")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="ascii")
# Folders whose every entry stands in the tree; below them every folder in PARTED does.
LISTED_FOLDERS = ("", "fastssl")
PARTED = ("fastssl", "loaders", "csrc")
# Built here, never a part of the source.
NOT_SOURCE = re.compile(
    r"(__pycache__|build|dist|.*\.egg-info|.*\.s?o|\.git|\.venv|\.(pytest|ruff|mypy)_cache)$"
)
# What the README's commands read and write.
USER_FOLDERS = [ROOT / name for name in ("photos", "shards", "runs")]
# What makes the README's real run a matter of seconds.
SMALL_RUN = "--max-steps 2 --data.global-batch-size 4 --data.num-threads 1"
# What pip writes for [project.scripts]; test_packaging.py has it written by pip.
CONSOLE_SCRIPT = """#!{}
from fastssl.__main__ import main

if __name__ == "__main__":
    main()
"""


def read_tree() -> set[str]:
    """Return the paths of the annotated tree, relative to the repository."""
    block = re.search(r"## The house\n.*?```\n(.*?)```", CONTRIBUTING, re.DOTALL).group(1)
    paths, parents = set(), []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        # Names, two blanks, what they are.
        names = line.strip().split("  ")[0].split()
        paths |= {"/".join([*parents[:depth], name.rstrip("/")]) for name in names}
        parents = [*parents[:depth], names[0].rstrip("/")]
    return paths


def read_commands() -> str:
    """Return the block of commands that the README says is run here."""
    marker = r"<!-- tests/test_readme.py runs this block -->\n```bash\n(.*?)```"
    return re.search(marker, README, re.DOTALL).group(1)


def write_photographs(folder: Path) -> None:
    """Write twelve smooth JPEGs in two classes, large enough for a 255 px crop."""
    rng = np.random.default_rng(0)
    for number in range(12):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        target = folder / ("field" if number % 2 else "street") / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((340, 280), Image.Resampling.BICUBIC).save(target)


def is_source(entry: Path) -> bool:
    """Tell whether git would have it: neither built here nor a folder without a file."""
    if NOT_SOURCE.match(entry.name) or entry in USER_FOLDERS:
        return False
    return entry.is_file() or any(is_source(child) for child in entry.iterdir())


def test_tree_lists_only_what_exists():
    missing = sorted(path for path in read_tree() if not (ROOT / path).exists())
    assert missing == []


@pytest.mark.parametrize("folder", LISTED_FOLDERS)
def test_tree_lists_every_entry(folder: str):
    there = {str(entry.relative_to(ROOT)) for entry in (ROOT / folder).iterdir()}
    assert sorted(path for path in there - read_tree() if is_source(ROOT / path)) == []


@pytest.mark.parametrize("folder", PARTED)
def test_tree_lists_every_room(folder: str):
    rooms = {entry for entry in (ROOT / folder).rglob("*") if entry.is_dir() and is_source(entry)}
    assert sorted({str(room.relative_to(ROOT)) for room in rooms} - read_tree()) == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(document: str):
    text = (ROOT / document).read_text(encoding="ascii")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(document: str):
    text = (ROOT / document).read_text(encoding="ascii")
    named = set(re.findall(r"(?:^|`|=cpu )make ([a-z]+)\b", text, re.MULTILINE))
    assert named
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.slow
def test_commands_pretrain_on_a_folder_of_photographs(tmp_path: Path):
    write_photographs(tmp_path / "photos")
    # The commands are run to the letter, from a folder that looks like the checkout.
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'export PATH="{programs}:$PATH"\n', encoding="utf-8")
    (programs / "fastssl").write_text(CONSOLE_SCRIPT.format(sys.executable), encoding="utf-8")
    (programs / "fastssl").chmod(0o755)
    lines = [
        f"{line} {SMALL_RUN}" if "fastssl train" in line else line
        for line in read_commands().splitlines()
    ]
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "shards" / "manifest.json").is_file()
    assert (tmp_path / "runs" / "first" / "trunk.safetensors").is_file()
