"""One loader in a process of its own, for fastssl bench-loaders: asked for batches over a pipe.

It tells how long they took, the CPU time that it and its descendants spent, and their memory.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ..config import LoaderConfig
from ..errors import InputError
from ..loaders import build_loader
from ..shards import open_dataset
from ..views import ViewSpec
from .peers import PEERS, PeerError, PeerSettings

OURS = ("webdataset", "native", "dali", "ffcv")
_START_S = 120.0
_SETTLE_S = 10.0


def run_ours(
    name: str, settings: PeerSettings, data: Mapping[str, Any] = MappingProxyType({})
) -> Generator[torch.Tensor]:
    """Yield (B, 1, S, S, 3) of one of our back ends.

    Args:
        name: its name.
        settings: what it is asked for.
        data: further fields of ``LoaderConfig``, which go before the settings.
    """
    if settings.crop == "rrc":
        view = ViewSpec.random_resized_crop(settings.side)
    else:
        view = ViewSpec.resize_crop(settings.resize, settings.side)
    own = {
        "path": settings.path,
        "loader": name,
        "global_batch_size": settings.batch_size,
        "num_threads": settings.threads,
        "beton": settings.beton,
    }
    config = LoaderConfig(**{**own, **data})
    with contextlib.closing(build_loader(config, view)) as loader:
        for batch in loader:
            yield batch.images


def serve(connection: Connection, name: str, settings: PeerSettings) -> None:
    """Run a loader: for each (skip, count) that is asked, say how long count batches took."""
    # A spawned process would have its DataLoaders spawn too, which peers' pipelines do not survive.
    multiprocessing.set_start_method("fork", force=True)
    try:
        batches = run_ours(name, settings) if name in OURS else PEERS[name][0](settings)
        num_images = len(next(batches))
        if num_images != settings.batch_size:
            raise ValueError(f"a batch has {num_images} images, wanted {settings.batch_size}")
        connection.send("ready")
        while True:
            skip, count = connection.recv()
            if not count:
                batches.close()  # type: ignore[attr-defined] # all are generators
                break
            for _ in range(skip):
                next(batches)
            began, cpu = time.perf_counter(), cpu_seconds()
            images = sum(len(next(batches)) for _ in range(count))
            seconds = time.perf_counter() - began
            connection.send((images, seconds, cpu_seconds() - cpu, memory_mb("Pss")))
    except EOFError:
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            failure = PeerError if name in PEERS else RuntimeError
            known = isinstance(error, InputError)
            connection.send(error if known else failure(f"{type(error).__name__}: {error}"))
    # Some peers' threads outlive an ordered end.
    os._exit(0)


def serve_passes(connection: Connection, name: str, settings: PeerSettings, passes: int) -> None:
    """Send the private memory after two passes over the dataset, and after all."""
    with sending_refusals(connection):
        batches = run_ours(name, settings)
        with contextlib.closing(open_dataset(settings.path)) as dataset:
            steps = -(-len(dataset) // settings.batch_size)
        after = []
        for number in range(1, passes + 1):
            for _ in range(steps):
                next(batches)
            if number in (2, passes):
                after.append(memory_mb("Private_Dirty"))
        connection.send(after)
    os._exit(0)


@contextlib.contextmanager
def sending_refusals(connection: Connection) -> Iterator[None]:
    """Send what a loader refuses instead of a result."""
    try:
        yield
    except InputError as error:
        connection.send(error)


def ask(serve: Callable[..., None], *arguments: Any) -> Any:
    """Run a function in a fresh process, which sends one answer over the connection it is given.

    Raises:
        RuntimeError: if it ends without one.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise RuntimeError(f"{arguments[0]}: its process ended") from None
    finally:
        process.join()


# ---- its cost ------------------------------------------------------------------------------------


def family(first: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [first]
    for process in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(first: int | None = None) -> float:
    """Return the CPU time of a process, or this one, and of those that descend from it and live."""
    ticks = 0
    for process in family(first or os.getpid()):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(*kinds: str, of: Sequence[int] = ()) -> float:
    """Return the sum of lines of smaps_rollup, in MB.

    Args:
        kinds: names of the lines.
        of: processes; none: this one and its descendants.
    """
    total = 0
    for process in of or family(os.getpid()):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.split(":")[0] in kinds:
                    total += int(line.split()[1])
    return total / 1024


# ---- the other end -------------------------------------------------------------------------------


class Contender:
    """A loader's process."""

    def __init__(self, name: str, settings: PeerSettings) -> None:
        """Start it and wait for its first batch.

        Raises:
            InputError: if it cannot run on this dataset.
            RuntimeError: if it fails otherwise.
        """
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, name, settings))
        self._process.start()
        theirs.close()
        self._receive()
        self._settle()

    def measure(self, skip: int, count: int) -> tuple[int, float, float, float]:
        """Return images, seconds, CPU seconds and MB of some batches after some others."""
        self._connection.send((skip, count))
        answer = self._receive()
        self._settle()
        return answer

    def _settle(self) -> None:
        """Wait until it has refilled its queues and rests, or it takes the next one's cores.

        Four batches of a slow loader take as long as a whole turn of a fast one.
        """
        pid = self._process.pid
        assert pid is not None, "it was started"
        deadline = time.monotonic() + _SETTLE_S
        before, rests = cpu_seconds(pid), 0
        while rests < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
            now = cpu_seconds(pid)
            rests = rests + 1 if now - before <= 0.01 else 0
            before = now

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._connection.send((0, 0))
        self._process.join(10)
        self._process.kill()

    def _receive(self) -> Any:
        try:
            if not self._connection.poll(_START_S):
                raise RuntimeError(f"{self.name} gave no batch in {_START_S:.0f} s")
            answer = self._connection.recv()
        except EOFError:
            answer = RuntimeError("its process ended")
        if isinstance(answer, Exception):
            self._process.kill()
            raise answer
        return answer
