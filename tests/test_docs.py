"""The pages tell the truth: their Python runs as it stands, links lead on, commands exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from fastssl.commands import COMMANDS
from fastssl.models import InputSpec, build_trunk, save_trunk
from fastssl.shards.making.convert import ConvertConfig, convert
from tests.conftest import save_photograph

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NUM_PHOTOGRAPHS = 64
# What a page may import without having it as a dependency.
OPTIONAL = ("timm", "torchvision")


def read_blocks(page: Path) -> list[tuple[int, str]]:
    """Return the Python blocks of a page, each with the number of its first line."""
    text = page.read_text(encoding="ascii")
    return [
        (text.count("\n", 0, found.start(1)) + 1, found[1])
        for found in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]


def list_anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="ascii"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the pages' blocks read: photographs, datasets of them, a run."""
    root = tmp_path_factory.mktemp("pages")
    rows = ["path,age,label"]
    for number in range(NUM_PHOTOGRAPHS):
        path = root / "photos" / ("cat", "dog")[number % 2] / f"{number:03d}.jpg"
        save_photograph(path, number)
        rows.append(f"{path.relative_to(root)},{number / 2},{number % 2}")
    (root / "birds.csv").write_text("\n".join(rows) + "\n")
    convert(ConvertConfig(root / "photos", root / "shards", workers=1))
    convert(ConvertConfig(root / "birds.csv", root / "birds", workers=1, targets=("age:float32",)))
    torch.manual_seed(0)
    trunk = build_trunk("resnet50")
    path = root / "runs" / "jigsaw" / "trunk.safetensors"
    path.parent.mkdir(parents=True)
    save_trunk(trunk, path, {"input": InputSpec().to_text()})
    return root


@pytest.mark.parametrize("page", [p for p in PAGES if read_blocks(p)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_as_it_stands(page, place, monkeypatch):
    blocks = read_blocks(page)
    for name in OPTIONAL:
        if any(f"import {name}" in code for _, code in blocks) and not has(name):
            pytest.skip(f"{name} is not installed")
    monkeypatch.chdir(place)
    names = {"__name__": "__main__"}
    for first_line, code in blocks:
        # A traceback names the page and its line.
        exec(compile("\n" * (first_line - 1) + code, page.name, "exec", dont_inherit=True), names)


def has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = page.read_text(encoding="ascii")
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in list_anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    text = page.read_text(encoding="ascii")
    named = set(re.findall(r"(?:^|`|-m |\d )fastssl ([a-z][a-z-]+)\b", text, re.MULTILINE))
    assert named <= {*COMMANDS}
    scripts = set(re.findall(r"\btools/\w+\.(?:py|sh)\b", text))
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
