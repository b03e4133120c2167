"""A list of trials that need each other: each a run or an evaluation in a process of its own.

A sweep's folder holds ``trials/<name>/``, the run directory of a trial; ``results/<name>.json``,
the result of one that evaluates; ``logs/<name>.log``, what it said; ``sweep.json``, the trials; and
``journal.json``, how each of them went. What is done is known by the trial's own last word alone,
so that a sweep goes on after whatever ended it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import graphlib
import heapq
import json
import logging
import math
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from ..address import hide_credentials
from ..counts import spell_number
from ..errors import EXIT_STOPPED, InputError, RunFailed, nearest
from ..fields import Documented
from ..system.files import check_own_folder, locked, make_folder, read_own
from ..system.signals import stopping_on_signals
from .directory import write_json
from .executors import Ended, Executor, LocalExecutor
from .read import read_ending
from .result import RESULTS_NAME, read_result

TRIALS_NAME = "trials"
LOGS_NAME = "logs"
SWEEP_NAME = "sweep.json"
JOURNAL_NAME = "journal.json"
MAX_TRIALS = 100_000
"""A longer list is a slip."""
MAX_TRIAL_NAME = 150
"""Letters of a trial's name, which is that of a file."""

State = Literal["waiting", "running", "done", "failed", "stopped", "left out"]
MakeExecutor = Callable[[Sequence[int]], Executor]

_LOCK_NAME = ".lock"
_CHILDREN_NAME = ".trials.lock"
_MAX_BYTES = 1 << 28
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.=+-]{{0,{MAX_TRIAL_NAME - 1}}}")
_PLACE = re.compile(r"\{run(?::([^{}]*))?\}")
_COMMANDS = ("train", "evaluate")
PROGRAM = (sys.executable, "-m", "fastssl")
"""What a trial's words stand behind."""
_TAIL_BYTES = 4096
_NAMED = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial(Documented):
    """A run of the trainer, or an evaluation.

    In its words ``{run}`` stands for its own run directory and ``{run:NAME}`` for that of the
    trial NAME, which it then needs. A run of ``train`` is given its directory, an evaluation the
    file for its result, and both their share of the cores.
    """

    name: str
    """Of its files, and in messages: letters, digits and any of ``_.=+-``."""
    command: tuple[str, ...]
    """What stands behind ``fastssl``: ``train`` or ``evaluate`` and its words."""
    needs: tuple[str, ...] = ()
    """Trials that must be done before, beside those that its words name."""

    @property
    def all_needs(self) -> tuple[str, ...]:
        """All trials that must be done before."""
        named = [name for word in self.command for name in _PLACE.findall(word) if name]
        return tuple(dict.fromkeys((*self.needs, *named)))

    def is_done(self, folder: Path) -> bool:
        """Return whether its own last word says that it is done.

        Args:
            folder: of the sweep.
        """
        if self.command[0] == "train":
            ending = read_ending(trial_folder(folder, self.name))
            return ending is not None and ending.code == 0
        try:
            read_result(result_file(folder, self.name))
        except InputError:
            return False
        return True

    def spell(self, folder: Path, cores: int) -> list[str]:
        """Return its words as they are given to ``fastssl``.

        Args:
            folder: of the sweep.
            cores: that it may use.
        """

        def replace(found: re.Match[str]) -> str:
            return str(trial_folder(folder, found[1] or self.name))

        words = [_PLACE.sub(replace, word) for word in self.command]
        if words[0] == "train":
            own = ["--output-dir", str(trial_folder(folder, self.name))]
            own += ["--log.progress", "false"]
        else:
            own = ["--json", str(result_file(folder, self.name))]
        given = {word.partition("=")[0].replace("_", "-") for word in words}
        if "--data.num-threads" not in given:
            own += ["--data.num-threads", str(cores)]
        return [*words, *own]


def trial_folder(folder: Path, name: str) -> Path:
    """Return the run directory of a trial.

    Args:
        folder: of the sweep.
        name: of the trial.
    """
    return folder / TRIALS_NAME / name


def result_file(folder: Path, name: str) -> Path:
    """Return the file for the result of a trial that evaluates.

    Args:
        folder: of the sweep.
        name: of the trial.
    """
    return folder / RESULTS_NAME / f"{name}.json"


def run_trials(
    trials: Sequence[Trial],
    folder: Path,
    at_once: int = 1,
    make_executor: MakeExecutor | None = None,
    program: Sequence[str] = PROGRAM,
) -> None:
    """Run what is not yet done of a list of trials, each as soon as all that it needs is done.

    One that fails does not stop the others; those that need it are left out. The same call again
    goes on, whatever ended the last one, and runs the failed ones again.

    Args:
        trials: in the order in which they start, as far as their needs allow.
        folder: of the sweep; made if there is none.
        at_once: trials that run at the same time, which share the cores; 0 takes one a GPU,
            without one 1.
        make_executor: gives what runs them in place of this machine; called with descriptors that
            children hold too.
        program: what a trial's words stand behind.

    Raises:
        InputError: if the trials do not fit together, another sweep is at work in the folder, or
            it holds other trials; before anything starts.
        RunFailed: at the end, if some failed; names them and those that were left out.
        StoppedBySignal: after a signal, when those at work have saved and ended.
    """
    check_trials(trials)
    with opened_folder(trials, folder) as held:
        executor = make_executor([held]) if make_executor else LocalExecutor(at_once, [held])
        with stopping_on_signals("trials at work have saved; the same command goes on"):
            _Sweep(trials, folder, executor, program).run()


def check_trials(trials: Sequence[Trial]) -> None:
    """See that trials fit together.

    Args:
        trials: all of a sweep.

    Raises:
        InputError: names the first that does not.
    """
    if not 1 <= len(trials) <= MAX_TRIALS:
        raise InputError(
            f"a sweep of {spell_number(len(trials), 'trial')}; wanted 1 .. {MAX_TRIALS:,}"
        )
    names = [trial.name for trial in trials]
    known = set(names)
    for trial in trials:
        if not _NAME.fullmatch(trial.name):
            raise InputError(
                f"trial ('{trial.name[:MAX_TRIAL_NAME]}') must have a name of up to "
                f"{MAX_TRIAL_NAME} letters, digits and any of _.=+- (the first a letter or digit)"
            )
        if not trial.command or trial.command[0] not in _COMMANDS:
            given = trial.command[0] if trial.command else ""
            raise InputError(
                f"trial {trial.name}: its command ('{given}') is not known"
                f"{nearest(given, _COMMANDS)}"
            )
        for need in trial.all_needs:
            if need not in known:
                raise InputError(
                    f"trial {trial.name} needs '{need}', which is no trial"
                    f"{nearest(need, names[:_NAMED])}"
                )
    if len(known) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two trials are called '{twice}'; give each a name of its own")
    try:
        graphlib.TopologicalSorter({t.name: t.all_needs for t in trials}).prepare()
    except graphlib.CycleError as error:
        raise InputError(
            f"trials need each other in a ring: {' -> '.join(error.args[1])}"
        ) from None


def list_left(trials: Sequence[Trial], folder: Path) -> list[Trial]:
    """Return the trials that are not done in a sweep's folder.

    Args:
        trials: all of the sweep.
        folder: of the sweep, which need not be there.
    """
    return [trial for trial in trials if not trial.is_done(folder)]


@contextlib.contextmanager
def opened_folder(trials: Sequence[Trial], folder: Path) -> Iterator[int]:
    """Make a sweep's folder and keep other sweeps out of it for as long as the block lasts.

    Args:
        trials: all of the sweep.
        folder: of the sweep.

    Yields:
        A descriptor that children have to hold too: the next sweep waits for their end.

    Raises:
        InputError: if another sweep is at work there, or it holds other trials.
    """
    make_folder(folder, "--output-dir")
    if any((folder / name).exists() for name in ("manifest.json", "config.json")):
        raise InputError(
            f"--output-dir ({folder}) is the folder of a dataset or a run; a sweep needs one of "
            "its own; choose another"
        )
    for name in (TRIALS_NAME, RESULTS_NAME, LOGS_NAME):
        check_own_folder(folder / name)
    busy = (
        f"--output-dir ({folder}) is in use by another sweep; wait for it, stop it, or choose "
        "another folder"
    )
    with locked(folder / _LOCK_NAME, busy), contextlib.ExitStack() as stack:
        children = folder / _CHILDREN_NAME
        try:
            held = stack.enter_context(locked(children, "busy"))
        except InputError:
            # Of a sweep that was killed: its trials were asked to end, and save.
            _log.warning("trials of a sweep that was killed still save; waiting for their end")
            held = stack.enter_context(locked(children, "busy", math.inf))
        _check_same(trials, folder)
        for name in (TRIALS_NAME, RESULTS_NAME, LOGS_NAME):
            (folder / name).mkdir(exist_ok=True)
        yield held


def _check_same(trials: Sequence[Trial], folder: Path) -> None:
    """Write the trials down, or see that those of the folder are the same."""
    now = {trial.name: _describe(trial) for trial in trials}
    path = folder / SWEEP_NAME
    try:
        old = dict(json.loads(read_own(path, _MAX_BYTES))["trials"])
    except FileNotFoundError:
        write_json(path, {"trials": now})
        return
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({error!r}); restore it, or choose another --output-dir"
        ) from None
    told = [f"{name} is new" for name in now if name not in old]
    told += [f"{name} is gone" for name in old if name not in now]
    for name in now:
        if name in old and now[name] != old[name]:
            told.append(f"{name} ({_tell_change(old[name], now[name])})")
    if told:
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        raise InputError(
            f"--output-dir ({folder}) holds a sweep of other trials: {'; '.join(told[:3])}{more}; "
            "give the old ones back, or choose another folder"
        )


def _describe(trial: Trial) -> dict[str, Any]:
    # What is written down lasts: an address leaves its password behind.
    words = [hide_credentials(word) for word in trial.command]
    return {"command": words, "needs": list(trial.all_needs)}


def _tell_change(old: Any, now: dict[str, Any]) -> str:
    """Say which options differ, for a trial has many that do not."""
    words = old.get("command") if isinstance(old, dict) else None
    were = Counter(_group_words(words if isinstance(words, list) else []))
    are = Counter(_group_words(now["command"]))
    if were == are:
        return "its words in another order, or what it needs"
    gone, new = (" ".join((a - b).elements()) for a, b in ((were, are), (are, were)))
    return f"old {gone or 'without'}, new {new or 'without'}"


def _group_words(words: Sequence[Any]) -> list[str]:
    """Return a command's options, each with what stands behind it."""
    groups: list[list[str]] = []
    for word in map(str, words):
        if word.startswith("--") or not groups or not groups[-1][0].startswith("--"):
            groups.append([])
        groups[-1].append(word)
    return [shlex.join(group) for group in groups]


@dataclass
class _Entry:
    """How a trial went, as the journal has it."""

    state: State
    seconds: float | None = None
    code: int | None = None
    starts: int = 0


class _Sweep:
    """One life of a sweep."""

    def __init__(
        self, trials: Sequence[Trial], folder: Path, executor: Executor, program: Sequence[str]
    ) -> None:
        self._trials = {trial.name: trial for trial in trials}
        self._order = {name: number for number, name in enumerate(self._trials)}
        self._folder = folder
        self._executor = executor
        self._program = program
        self._running: set[str] = set()
        self._journal = self._read_journal()
        self._sorter = graphlib.TopologicalSorter({t.name: t.all_needs for t in trials})
        self._sorter.prepare()
        self._ready: list[int] = []

    def run(self) -> None:
        """Run what is not done."""
        for name, trial in self._trials.items():
            self._settle(name, "done" if trial.is_done(self._folder) else "waiting")
        num_done = len(self._list("done"))
        self._write_journal()
        with tqdm(
            total=len(self._trials), initial=num_done, unit="trial", dynamic_ncols=True
        ) as bar:
            try:
                self._run_all(bar)
            finally:
                for ended in self._executor.stop():
                    self._take(ended, is_stopped=True)
                self._write_journal()
        self._conclude()

    def _run_all(self, bar: tqdm[Any]) -> None:
        names = list(self._trials)
        self._find_ready()
        while self._ready or self._running:
            while self._ready and self._executor.has_room:
                self._start(names[heapq.heappop(self._ready)])
            num = len(self._running)
            bar.set_postfix_str(f"{num} at work" if num > 1 else "".join(self._running))
            for ended in self._executor.wait():
                bar.update(self._take(ended))
            self._write_journal()
            self._find_ready()

    def _find_ready(self) -> None:
        """Note what may start now; what was done before needs none."""
        while ready := self._sorter.get_ready():
            for name in ready:
                if self._journal[name].state == "done":
                    self._sorter.done(name)
                else:
                    heapq.heappush(self._ready, self._order[name])

    def _start(self, name: str) -> None:
        words = self._trials[name].spell(self._folder, self._executor.cores)
        log = self._folder / LOGS_NAME / f"{name}.log"
        with log.open("ab") as file:
            file.write(f"$ {shlex.join(['fastssl', *words])}\n".encode())
        self._executor.start(name, [*self._program, *words], log)
        self._running.add(name)
        entry = self._journal[name]
        self._journal[name] = _Entry("running", starts=entry.starts + 1)
        self._write_journal()

    def _take(self, ended: Ended, is_stopped: bool = False) -> int:
        """Note the end of a trial, which may have been asked for; return how many more are done."""
        name, code, _ = ended
        self._running.discard(name)
        entry = self._journal[name]
        entry.seconds, entry.code = round(ended.seconds, 3), code
        is_done = code == 0 and self._trials[name].is_done(self._folder)
        is_stopped |= code == EXIT_STOPPED
        entry.state = "done" if is_done else "stopped" if is_stopped else "failed"
        if is_done:
            self._sorter.done(name)
        elif entry.state == "failed":
            _log.warning("trial %s failed: %s", name, self._tell_failure(name))
        return int(is_done)

    def _tell_failure(self, name: str) -> str:
        code = self._journal[name].code
        if code == 0:
            return "it ended with 0 and left no result"
        path = self._folder / LOGS_NAME / f"{name}.log"
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").replace("\r", "\n").strip().splitlines()
        last = lines[-1].strip() if lines else ""
        return f"exit {code}" + (f": {last}" if last and not last.startswith("$ ") else "")

    def _conclude(self) -> None:
        failed = [*self._list("failed"), *self._list("stopped")]
        if not failed:
            return
        left = self._list("waiting")
        for name in left:
            self._journal[name].state = "left out"
        self._write_journal()
        trials = spell_number(len(self._trials), "trial")
        told = f"{len(failed)} of {trials} failed: {', '.join(failed)}"
        if left:
            told += f"; left out, for they need one of them: {', '.join(left)}"
        raise RunFailed(
            f"{told}; what they said stands in {self._folder / LOGS_NAME}; the same command runs "
            "them again"
        )

    def _list(self, state: State) -> list[str]:
        return [name for name in self._trials if self._journal[name].state == state]

    def _settle(self, name: str, state: State) -> None:
        entry = self._journal.setdefault(name, _Entry(state))
        if entry.state != state:  # of a life that was killed
            self._journal[name] = dataclasses.replace(entry, state=state)

    def _read_journal(self) -> dict[str, _Entry]:
        """Return what earlier lives noted; nothing depends on it."""
        try:
            old = json.loads(read_own(self._folder / JOURNAL_NAME, _MAX_BYTES))
            return {name: _Entry(**old[name]) for name in self._trials if name in old}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def _write_journal(self) -> None:
        entries = {name: dataclasses.asdict(self._journal[name]) for name in self._trials}
        write_json(self._folder / JOURNAL_NAME, entries)
