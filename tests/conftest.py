"""What every test shares: the same start whatever came before, a small dataset, no GPU tests
without a GPU."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.shards import reader
from fastssl.shards.making import ranges
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.system import workers
from tests.nursery import ForkedWorker
from tests.range_server import RangeServer

# Programs that tests start find the package compiled, whatever the shell says: each would compile
# it again, for a tenth of a second to a half.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Tests are small; more threads only fight with each other, and sums change with their number.
torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is no CUDA device; deal the tests to the workers."""
    num_workers = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = deal(items, num_workers)
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def deal(items: list[pytest.Item], num_workers: int) -> list[pytest.Item]:
    """Put files with slow tests first in the share of every worker; else the order stays.

    The plug-in gives each worker an equal, contiguous part, and those that are done early take from
    the ends of others: there only short tests are left, and all workers end together.
    """
    files = [list(tests) for _, tests in itertools.groupby(items, lambda item: item.path)]
    shares: list[list[pytest.Item]] = [[] for _ in range(num_workers)]
    for tests in sorted(files, key=lambda tests: not any("slow" in t.keywords for t in tests)):
        min(shares, key=len).extend(tests)
    sizes, left = [], len(items)
    for number in range(num_workers, 0, -1):
        sizes.append(left // number)
        left -= sizes[-1]
    over = [item for share, size in zip(shares, sizes, strict=True) for item in share[size:]]
    for share, size in zip(shares, sizes, strict=True):
        share[size:] = [over.pop() for _ in range(size - len(share))]
    return [item for share in shares for item in share]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let no test or fixture depend on what ran before it in the same process.

    Weights that nobody seeds are drawn alike in every order. Dynamo forgets the sizes that it has
    seen, or it would compile the same code for sizes that it does not know. (pytest-randomly seeds
    ``random`` and NumPy, by the order's seed; no test draws from their global generators.) Ctrl-C
    is heard, which a shell's background jobs ignore, and with them all that they start.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.manual_seed(0)
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


@pytest.fixture(scope="session", autouse=True)
def _forked_workers():
    """Fork the workers of conversions and checks; ``fresh_workers`` has a test start real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "SpawnProcess", ForkedWorker)
        yield


@pytest.fixture(scope="module")
def fresh_workers():
    """Start workers as outside tests: their start is the point, or what they use cannot fork."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "SpawnProcess", SpawnProcess)
        yield


NUM_SAMPLES = 47


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """(folder) -> a web server of it until the test's end, asked without proxy or pauses.

    What is kept of stores without being asked for lies in the test's own folder.
    """
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("FASTSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reader, "RETRY_WAIT_S", 0.0)
    monkeypatch.setattr(ranges, "RETRY_WAIT_S", 0.0)
    with contextlib.ExitStack() as stack:

        def start(folder):
            server = RangeServer(folder)
            stack.callback(server.stop)
            return server

        yield start


def save_photograph(path: Path, number: int) -> None:
    """Save a JPEG that is like no other: smooth colours, some texture, its own size."""
    rng = np.random.default_rng(number)
    height, width = 40 + number % 7 * 5, 44 + number % 5 * 9
    coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth).astype(int) + rng.integers(-12, 13, (height, width, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


@pytest.fixture(scope="session")
def dataset_path(tmp_path_factory):
    """47 samples of three classes in uneven shards."""
    root = tmp_path_factory.mktemp("loaders")
    for number in range(NUM_SAMPLES):
        save_photograph(root / "photos" / "abc"[number % 3] / f"{number:03d}.jpg", number)
    # One unreadable file makes the shards uneven.
    (root / "photos" / "a" / "zero.jpg").touch()
    convert(ConvertConfig(root / "photos", root / "shards", samples_per_shard=9, workers=1))
    return root / "shards"
