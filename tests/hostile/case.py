"""A case of the corpus, and what became of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.nursery import Child

MAX_S = 10
"""Seconds that a command may take."""
MAX_MB = 2000
"""Memory that its largest process may take, in MB."""
_HANGS_AFTER_S = 60
_SAYS_WRONG = ("error: ", "\u2502 Error parsing ")
"""How the one line of a wrong input begins: ours, and that of the command line's parser."""
VICTIM = "victim"
"""A folder that a case may make, of which nothing must change."""


@dataclass(frozen=True)
class Case:
    """One hostile input and the command that meets it."""

    name: str
    """A few words."""
    prepare: Callable[[Path], Sequence[str | Path]]
    """Writes the files into an empty folder and returns the command line behind ``fastssl``."""
    code: int | None = None
    """Exit code that is wanted; None takes 0, 1 and 2."""
    says: str = ""
    """What the output has to hold."""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    """Its exit code; negative if a signal ended it."""
    seconds: float
    """How long it took."""
    peak_mb: float
    """The most that one of its processes took."""
    output: str
    """All that it said."""
    errors: str
    """What of that went to stderr."""
    is_harmed: bool = False
    """Whether something changed in the folder that is none of the command's."""

    def list_faults(self, case: Case) -> list[str]:
        """Return what did not hold."""
        faults = []
        if self.code not in ((0, 1, 2) if case.code is None else (case.code,)):
            faults.append(f"exit code {self.code}")
        if "Traceback" in self.output:
            faults.append("a traceback")
        num_lines = sum(line.startswith(_SAYS_WRONG) for line in self.errors.splitlines())
        if self.code == 2 and num_lines != 1:
            faults.append(f"{num_lines} lines of error")
        if case.says not in self.output:
            faults.append(f"it does not say {case.says!r}")
        if self.is_harmed:
            faults.append(f"{VICTIM} was changed")
        if self.seconds > MAX_S:
            faults.append(self._say_time())
        if self.peak_mb > MAX_MB:
            faults.append(f"{self.peak_mb:,.0f} MB")
        return faults

    def is_merely_slow(self, case: Case) -> bool:
        """Tell whether all that did not hold is the time."""
        return self.list_faults(case) == [self._say_time()]

    def _say_time(self) -> str:
        return f"{self.seconds:.0f} s"


def run_case(case: Case, folder: Path) -> Outcome:
    """Run a case in a process of its own, forked from one that has imported torch.

    So it takes a second where a fresh one takes five, four of which are no case's affair.

    Args:
        case: the case.
        folder: an empty folder for its files.
    """
    arguments = [str(word) for word in case.prepare(folder)]
    before = look_at(folder / VICTIM)
    begin, peak_mb = time.monotonic(), 0.0
    child = Child(["-m", "fastssl", *arguments], CUDA_VISIBLE_DEVICES="")
    while child.poll() is None:
        peak_mb = max(peak_mb, _read_peak_mb(child.pid))
        if time.monotonic() - begin > _HANGS_AFTER_S:
            child.kill()
            child.wait()
        time.sleep(0.01)
    out, errors = child.communicate()
    return Outcome(
        code=child.wait(),
        seconds=time.monotonic() - begin,
        peak_mb=peak_mb,
        output=out + errors,
        errors=errors,
        is_harmed=look_at(folder / VICTIM) != before,
    )


def _read_peak_mb(pid: int) -> float:
    """Return the most that a process and its children have held until now; 0 if it has ended."""
    most = 0.0
    try:
        for status in (Path(f"/proc/{one}/status") for one in (pid, *list_children(pid))):
            peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            most = max(most, int(peak[1]) / 1000 if peak else 0.0)
    except OSError:
        return most
    return most


def list_children(pid: int) -> list[int]:
    """Return the processes that a process has started and that live."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in path.read_text().split()]
    return found


def look_at(folder: Path) -> dict[str, bytes | None]:
    """Return what lies in a folder: by name the bytes of a file, of all else None."""
    if not folder.is_dir():
        return {}
    return {p.name: p.read_bytes() if p.is_file() else None for p in folder.iterdir()}


def make_victim(folder: Path) -> Path:
    """Make the folder of which nothing must change, with a file in it, in a case's own."""
    (folder / VICTIM).mkdir()
    (folder / VICTIM / "precious").write_text("precious")
    return folder / VICTIM
