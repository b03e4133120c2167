"""A rank that hangs is named, with its stacks, and the run ends, on all ranks.

A thread of every rank tells the others what its main thread does, through the store that the ranks
met in, and looks at what they tell. Its clock counts its own turns: neither a clock that jumps, nor
a run that was stopped for an hour (Ctrl-Z), nor a machine that is too busy for a turn is a hang.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import secrets
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..errors import EXIT_ELSE, RunFailed
from ..runs.directory import HANG_NAME
from ..runs.endings import record_hang
from ..system.files import publish_bytes
from ..system.signals import StopSignals
from ..world import World
from .hangs import Hang, Phase, Status, decode, describe_hang, encode, find_hang

T = TypeVar("T")

_TICK_S = 5.0
_PATIENCE = 10.0
"""A phase may take so many times as long as the longest of its kind."""
_FIRST = {"data": 3.0}
"""Before there was one, it may take ten times the limit: compilers, first allocations. Data has
none of that."""
_REMEMBERED = 100
_STORE_PATIENCE_S = 10.0
_LAST_WORDS_S = 10.0
"""How long stacks and exit.json may take to be written: their disk may be what hangs."""


@dataclass(frozen=True)
class _Mark:
    phase: Phase
    step: int
    began: float
    """By the watchdog's clock."""
    limit_s: float


class Watchdog:
    """Knows what this rank does; while ``watching``, tells and looks."""

    def __init__(self, timeout_s: float, folder: Path, world: World) -> None:
        """Begin with the phase "start".

        Args:
            timeout_s: seconds without a sign of life that are a hang, at least; 0 watches nothing.
            folder: the run directory.
            world: the ranks.
        """
        self._timeout_s = timeout_s
        self._folder = folder
        self._world = world
        self._clock = 0.0
        self._ticks = 0
        self._past: dict[Phase, deque[float]] = {}
        self._mark = _Mark("start", 0, 0.0, self._limit("start"))
        self._has_left = threading.Event()
        self.locate: Callable[[int, int], str] = lambda _rank, _step: ""
        """Names the samples of a (rank, step)."""

    # ------------------------------------------------------------ of the main thread

    def enter(self, phase: Phase, step: int) -> None:
        """Say what this rank does from now on; to say the same again is a sign of life.

        Args:
            phase: what it does.
            step: that it is at.
        """
        last = self._mark
        past = self._past.setdefault(last.phase, deque(maxlen=_REMEMBERED))
        past.append(self._clock - last.began)
        self._mark = _Mark(phase, step, self._clock, self._limit(phase))

    def beat(self) -> None:
        """Give a sign of life in a phase that takes long."""
        self.enter(self._mark.phase, self._mark.step)

    def _limit(self, phase: Phase) -> float:
        past = self._past.get(phase)
        if not past:
            return _FIRST.get(phase, _PATIENCE) * self._timeout_s
        return max(self._timeout_s, _PATIENCE * max(past))

    # ------------------------------------------------------------ of the thread

    @contextlib.contextmanager
    def watching(self, signals: StopSignals, ends_process: bool) -> Iterator[None]:
        """Watch while the block runs; a collective call.

        Args:
            signals: through which the main thread hears of a hang.
            ends_process: end it where the run hangs. Else ``RunFailed`` is raised in the main
                thread, as soon as that comes to Python.
        """
        if not self._timeout_s:
            yield
            return
        tick = min(self._timeout_s / 10, _TICK_S)
        ranks = _Ranks(self._world, self._status, tick)
        thread = threading.Thread(
            target=self._watch,
            args=(ranks, tick, signals, ends_process),
            name="watchdog",
            daemon=True,
        )
        thread.start()
        try:
            yield
        finally:
            self._has_left.set()
            thread.join()
            ranks.leave()

    def _status(self) -> Status:
        mark = self._mark
        return Status(
            self._world.rank,
            self._ticks,
            mark.phase,
            mark.step,
            round(self._clock - mark.began, 1),
            mark.limit_s,
            _count_collectives(self._world),
            self._has_left.is_set(),
        )

    def _watch(self, ranks: _Ranks, tick: float, signals: StopSignals, ends_process: bool) -> None:
        before = time.monotonic()
        while not self._has_left.wait(tick):
            now = time.monotonic()
            turn = min(max(now - before, 0.0), 2 * tick)
            before = now
            self._clock += turn
            self._ticks += 1
            mine = self._status()
            hang = ranks.look(mine, turn)
            if hang is None:
                continue
            text = self._describe(hang)
            if ends_process:
                self._end(ranks, text)
            self._leave_words(text, is_told=True)
            signals.interrupt(RunFailed(text))
            return

    def _describe(self, hang: Hang | str) -> str:
        if isinstance(hang, str):  # as another rank says it
            return hang
        stacks = self._folder / HANG_NAME
        return (
            f"{describe_hang(hang, self._locate)}; stacks of all threads: {stacks}/rank*.txt; "
            "start the same command again to go on from the last checkpoint"
        )

    def _locate(self, rank: int, step: int) -> str:
        try:
            return self.locate(rank, step)
        except Exception as error:  # the hang is what has to be told
            return f"samples unknown ({error})"

    def _end(self, ranks: _Ranks, text: str) -> None:
        """End this process; the rank that told first speaks for all."""
        text, is_mine = ranks.agree(text)
        if is_mine:
            os.write(2, f"error: {text}\n".encode())
        self._leave_words(text, is_told=is_mine)
        ranks.wait_for_last_words()
        os._exit(EXIT_ELSE)

    def _leave_words(self, text: str, is_told: bool) -> None:
        """Write stacks and exit.json, unless that takes too long."""

        def write() -> None:
            record_hang(self._folder, text, self._steps_done(), is_told)
            place = self._folder / HANG_NAME
            place.mkdir(exist_ok=True)
            publish_bytes(place / f"rank{self._world.rank}.txt", _list_stacks())
            if (flights := _list_flights(self._world)) is not None:
                publish_bytes(place / f"collectives.rank{self._world.rank}.json", flights)

        _within(_LAST_WORDS_S, write)

    def _steps_done(self) -> int:
        mark = self._mark
        return max(mark.step - (mark.phase in _BEFORE_ITS_UPDATE), 0)


_BEFORE_ITS_UPDATE: tuple[Phase, ...] = ("data", "collective", "forward", "backward", "optimiser")


class _Ranks:
    """What ranks tell each other while their main threads may hang.

    A thread of its own asks the store, which may hang too: its process may be what was stopped.
    """

    def __init__(self, world: World, get_status: Callable[[], Status], tick_s: float) -> None:
        """Meet; a collective call.

        Args:
            world: the ranks.
            get_status: of this rank.
            tick_s: seconds between two looks.
        """
        self._world = world
        self._get_status = get_status
        self._tick_s = tick_s
        self._silent_s = [0.0] * world.size
        self._last: list[Status] = list(world.gather(get_status()))
        self._said = ""
        self._has_left = threading.Event()
        self._thread: threading.Thread | None = None
        if world.size == 1:
            return
        # A connection of its own: the main thread may hang in the other.
        self._store: Any = dist.distributed_c10d._get_default_store().clone()
        # The store outlives ranks that are started again.
        self._name = world.on_zero(lambda: f"watchdog/{secrets.token_hex(8)}")
        self._tell()
        world.gather(None)  # nobody looks before all have told
        self._thread = threading.Thread(target=self._exchange, name="watchdog store", daemon=True)
        self._thread.start()

    def look(self, mine: Status, turn_s: float) -> Hang | str | None:
        """Say why the run does not get on, if so: as found here, or as another rank says it.

        Args:
            mine: of this rank.
            turn_s: seconds since the last look.
        """
        if self._said:
            return self._said
        self._silent_s = [silent + turn_s for silent in self._silent_s]
        self._last[mine.rank], self._silent_s[mine.rank] = mine, 0.0
        return find_hang(self._last, self._silent_s)

    def agree(self, text: str) -> tuple[str, bool]:
        """Have one rank say what has happened.

        Returns:
            What it says, and whether that is this rank.
        """
        if self._thread is None:
            return text, True
        mine = f"{self._world.rank} {text}"

        def ask() -> str:
            return self._store.compare_set(self._key("hang"), "", mine).decode()

        said = _within(_STORE_PATIENCE_S, ask)
        if said is None:
            self._thread = None  # nobody is there to wait for
            return text, True
        return said.partition(" ")[2], said == mine

    def wait_for_last_words(self) -> None:
        """Wait until all have left theirs: torchrun ends the others with the first to go."""
        if self._thread is None:
            return
        answering = sum(
            self._silent_s[status.rank] < status.limit_s / 2 and not status.has_left
            for status in self._last
        )

        def wait() -> None:
            self._store.add(self._key("ready"), 1)
            while self._store.add(self._key("ready"), 0) < answering:
                time.sleep(0.05)

        _within(_LAST_WORDS_S, wait)

    def leave(self) -> None:
        """Tell the others that this rank's part of the run has ended."""
        self._has_left.set()
        if self._thread is not None:
            self._thread.join(_STORE_PATIENCE_S)
            _within(_STORE_PATIENCE_S, self._tell)

    def _exchange(self) -> None:
        while not self._has_left.wait(self._tick_s):
            # Who does not answer will be found silent.
            with contextlib.suppress(RuntimeError):
                self._tell()
                self._listen()

    def _tell(self) -> None:
        status = self._get_status()
        self._store.set(self._key(status.rank), json.dumps(encode(status)))

    def _listen(self) -> None:
        told = self._store.multi_get([self._key(rank) for rank in range(self._world.size)])
        for status in map(decode, map(json.loads, told)):
            if status.ticks != self._last[status.rank].ticks or status.has_left:
                self._silent_s[status.rank] = 0.0
            self._last[status.rank] = status
        if self._store.check([self._key("hang")]):
            self._said = self._store.get(self._key("hang")).decode().partition(" ")[2]

    def _key(self, name: object) -> str:
        return f"{self._name}/{name}"


def _within(seconds: float, function: Callable[[], T]) -> T | None:
    """Return what a function returns; None where it fails, or takes longer than that."""
    found: list[T] = []

    def call() -> None:
        with contextlib.suppress(RuntimeError, OSError):
            found.append(function())

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    caller.join(seconds)
    return found[0] if found else None


def _count_collectives(world: World) -> int:
    """Return how many collectives this rank has begun."""
    if world.size == 1:
        return 0
    groups: tuple[Any, ...] = (dist.group.WORLD, world.control)
    return sum(group._get_sequence_number_for_group() for group in groups)


def _list_stacks() -> bytes:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read()


def _list_flights(world: World) -> bytes | None:
    """Return what torch's flight recorder holds: the last collectives, and which have ended."""
    if world.size == 1:
        return None
    is_cuda = world.device.type == "cuda"
    known = torch._C._distributed_c10d
    dump = getattr(known, "_dump_nccl_trace_json" if is_cuda else "_dump_fr_trace_json", None)
    return None if dump is None else dump()


def record_flights(folder: Path) -> None:
    """Have NCCL leave its last collectives in the run directory where one takes too long.

    Before the ranks meet; what the environment says already stays.

    Args:
        folder: the run directory.
    """
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "2000")
    os.environ.setdefault("TORCH_FR_DUMP_TEMP_FILE", str(folder / HANG_NAME / "nccl.rank"))
    os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
