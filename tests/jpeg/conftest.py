"""Small JPEGs of every kind, and programs that read them by other code than ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.jpeg_layout import HAS_TRANSCODER

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


@dataclass(frozen=True)
class Plane:
    """One component of a JPEG."""

    factors: tuple[int, int]
    """Horizontal and vertical sampling factor."""
    steps_88: np.ndarray
    """Quantisation steps: vertical frequency, horizontal frequency."""
    blocks_YX88: np.ndarray
    """Coefficients: block down, block across, vertical frequency, horizontal frequency."""


@pytest.fixture(scope="session")
def build_program(tmp_path_factory) -> Callable[..., Path]:
    """(name, sources, *options) -> the program that they make, once a session."""
    if COMPILER is None or not HAS_TRANSCODER:
        pytest.skip("needs a C++ compiler and the extension with libjpeg-turbo (libjpeg-dev)")
    folder = tmp_path_factory.mktemp("programs")

    def build(name: str, sources: list[Path], *options: str) -> Path:
        program = folder / name
        command = [COMPILER, "-std=c++17", f"-I{ROOT / 'csrc'}", *options, *map(str, sources)]
        subprocess.run([*command, "-o", str(program), "-ljpeg", "-lpthread"], check=True)
        return program

    return build


@pytest.fixture(scope="session")
def make_corpus(build_program) -> Callable[..., None]:
    """(folder, *arguments) -> fills it with the seeds of the fuzz targets."""
    program = build_program("make_corpus", [ROOT / "csrc/jpeg/fuzz/make_corpus.cpp"])

    def make(folder: Path, *arguments: str) -> None:
        subprocess.run([program, folder, *arguments], check=True)

    return make


@pytest.fixture(scope="session")
def corpus(make_corpus, tmp_path_factory) -> Path:
    """All seeds: every kind at 1x1, 7x9, 17x33, 41x30 and 64x32 px."""
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


@pytest.fixture(scope="session")
def read_planes(build_program, tmp_path_factory) -> Callable[[list[bytes]], list[list[Plane]]]:
    """(files) -> the components of each, as libjpeg reads them."""
    program = build_program("dump_coefficients", [Path(__file__).parent / "dump_coefficients.cpp"])
    folder = tmp_path_factory.mktemp("dumped")

    def read(files: list[bytes]) -> list[list[Plane]]:
        paths = [folder / f"{i}.jpg" for i in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        done = subprocess.run([program, *paths], check=True, capture_output=True)
        numbers = np.frombuffer(done.stdout, np.int32)
        at, pictures = 0, []
        for _ in files:
            num, at = int(numbers[at + 2]), at + 3
            planes = []
            for _ in range(num):
                h, v, across, down = (int(n) for n in numbers[at : at + 4])
                steps = numbers[at + 4 : at + 68].reshape(8, 8)
                at += 68
                blocks = numbers[at : at + 64 * across * down].reshape(down, across, 8, 8)
                at += 64 * across * down
                planes.append(Plane((h, v), steps, blocks))
            pictures.append(planes)
        assert at == len(numbers)
        return pictures

    return read
