"""What the tests of the on-disk format share. Helpers are fixtures: test modules import nothing
of each other under pytest's importlib mode."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.report import ConversionReport
from tests.patience import HANGS_AFTER_S

ROOT = Path(__file__).parents[2]


def _draw_photograph(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def _encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def draw_photograph() -> Callable[..., Image.Image]:
    """(seed, width=40, height=30) -> smooth random colours, every region of which differs."""
    return _draw_photograph


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """(image, kind="JPEG", **options) -> the file that the image makes."""
    return _encode


@pytest.fixture(scope="session")
def exif_block() -> Callable[[int], bytes]:
    """(orientation) -> an EXIF block that says it."""

    def make(orientation: int) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = orientation
        return exif.tobytes()

    return make


@pytest.fixture(scope="session")
def read_tree() -> Callable[[Path], dict[str, bytes]]:
    """(folder) -> the bytes of every file below it, by relative path."""

    def read(folder: Path) -> dict[str, bytes]:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    return read


@pytest.fixture(scope="session")
def run_tool() -> Callable[..., subprocess.CompletedProcess]:
    """(name, *arguments) -> the finished command."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(ROOT / "tools" / name), *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=HANGS_AFTER_S,
        )

    return run


def _save_photographs(source: Path) -> Path:
    for number in range(12):
        path = source / ("cat", "dog")[number % 2] / f"image{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_encode(_draw_photograph(number)))
    return source


@pytest.fixture(scope="session")
def save_photographs() -> Callable[[Path], Path]:
    """(folder) -> the folder, with two classes of 12 JPEGs in all."""
    return _save_photographs


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of two classes with 12 JPEGs in all."""
    return _save_photographs(tmp_path / "photographs")


@pytest.fixture(scope="session")
def _converted(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("converted")
    options = {"samples_per_shard": 5, "workers": 1}
    convert(ConvertConfig(_save_photographs(root / "photographs"), root / "dataset", **options))
    return root / "dataset"


@pytest.fixture
def folder(_converted: Path, tmp_path: Path) -> Path:
    """What ``make_dataset`` makes of ``photographs``: a copy, for tests to spoil."""
    return shutil.copytree(_converted, tmp_path / "dataset")


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., tuple[Path, ConversionReport]]:
    """(source, name="dataset", **options of ConvertConfig) -> the folder and the report."""

    def make(source: Path, name: str = "dataset", **options: object):
        out = tmp_path / name
        options = {"samples_per_shard": 5, "workers": 1, **options}
        return out, convert(ConvertConfig(source, out, **options))

    return make
