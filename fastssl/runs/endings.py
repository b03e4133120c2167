"""How a run ended: ``exit.json``, which tells what torchrun's own exit code hides.

torchrun turns every exit code but 0 into 1. A rank that fails alone leaves its reason in a file of
its own, for rank 0 sees only that it is gone. Where a run is done, a later start that is refused
leaves its reason in ``refused.json``: the run is still done. Under torchrun, which hides the exit
code of that start, it stands in ``exit.json`` all the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..address import hide_credentials
from ..errors import EXIT_DONE, EXIT_ELSE, EXIT_INPUT, InputError, describe_failure
from ..system.files import locked
from ..system.lifelines import has_launcher
from ..system.signals import StopSignals, noting_signals
from ..world import World
from .directory import CONFIG_NAME, EXIT_NAME, LOCK_NAME, REFUSED_NAME, write_json
from .read import read_ending

_FAILURES = "exit.rank*.json"
_FAILURE_PATIENCE_S = 2.0

# Runs whose last word is written: torchrun's signal to the ranks that are left may come behind it.
# The lock is one that a signal's handler may take in the thread that holds it.
_ended: set[Path] = set()
# Runs whose start this process has accepted, and whose end it has not told since: what exit.json
# says there, another rank has said, whom this one did not answer in time.
_untold: set[Path] = set()
_writing = threading.RLock()


@contextlib.contextmanager
def recorded_exit(folder: Path, world: World, get_step: Callable[[], int]) -> Iterator[None]:
    """Write exit.json however the block ends.

    Args:
        folder: the run directory.
        world: the ranks.
        get_step: returns the steps done.
    """
    code, reason, is_shared = 0, "done", True
    try:
        yield
    except BaseException as error:
        code, line = describe_failure(error)
        reason = line or f"{type(error).__name__}: {error}"
        # What has no line of its own is one rank's trouble; the others see that it is gone.
        is_shared = line is not None and not isinstance(error, OSError)
        raise
    finally:
        # On a full disk the reason still goes to stderr.
        with contextlib.suppress(OSError):
            if world.is_zero:
                if not is_shared and world.size > 1:
                    reason = _find_failure(folder) or reason
                with _writing:
                    _ended.add(folder)
                    _write_last_word(folder, code, reason, get_step())
            elif not is_shared:
                name = _FAILURES.replace("*", str(world.rank))
                _write_ending(folder, code, reason, get_step(), name)


@contextlib.contextmanager
def stoppable(
    folder: Path, world: World, get_step: Callable[[], int], owns_process: bool
) -> Iterator[StopSignals]:
    """Note signals for the end of the step, and leave the truth behind where it never comes.

    Every file is good at every moment, as it has to be for ``kill -9``.

    Args:
        folder: the run directory.
        world: the ranks.
        get_step: returns the steps done.
        owns_process: end the process where the second Ctrl-C comes in the middle of a long pass.
    """

    def note_first(number: signal.Signals) -> None:
        # torchrun kills 30 seconds after a signal, or at the second one; what the run does in the
        # end takes the place of this.
        with contextlib.suppress(OSError), _writing:
            if folder not in _ended:
                reason = f"stopped: {number.name}, before it was done"
                _write_ending(folder, EXIT_ELSE, reason, get_step())

    def abort() -> None:
        code, line = describe_failure(KeyboardInterrupt())
        if world.is_zero:
            with contextlib.suppress(OSError):
                _write_ending(folder, code, str(line), get_step())
            os.write(2, f"\n{line}\n".encode())
        os._exit(code)

    _ended.discard(folder)
    with noting_signals(
        is_telling=world.is_zero,
        on_first=note_first if world.is_zero and has_launcher() else None,
        abort=abort if owns_process else None,
    ) as signals:
        yield signals


def record_hang(folder: Path, reason: str, step: int, is_told: bool) -> None:
    """Write exit.json for a run that hangs, from another thread than the one that does.

    Args:
        folder: the run directory.
        reason: who holds it up.
        step: steps done.
        is_told: whether this rank writes it; another's words are not written over either.
    """
    with _writing:
        if is_told and folder not in _ended:
            _write_ending(folder, EXIT_ELSE, f"error: {reason}", step)
        _ended.add(folder)


def record_refusal(arguments: Sequence[str], error: InputError) -> None:
    """Write exit.json, or refused.json, for a run that is refused before its config is known.

    Args:
        arguments: the command line; only a run directory that no run holds is written to.
        error: why.
    """
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, has_value, value = word.partition("=")
        folder = Path(value if has_value else following)
        if name.replace("_", "-") != "--output-dir" or not (folder / CONFIG_NAME).is_file():
            continue
        # Where a run is at work, the file is that run's.
        with contextlib.suppress(InputError), locked(folder / LOCK_NAME, "in use"):
            _write_last_word(folder, EXIT_INPUT, f"error: {error}", 0)


def _write_last_word(folder: Path, code: int, reason: str, step: int) -> None:
    """Write how a life ended; one that was refused does not undo what an earlier one has done."""
    last = read_ending(folder)  # stands until a start is accepted
    name = EXIT_NAME
    if code == EXIT_INPUT and last is not None:
        step = max(step, last.step)
        name = REFUSED_NAME if last.code == EXIT_DONE and not has_launcher() else EXIT_NAME
    _write_ending(folder, code, reason, step, name)


def _write_ending(folder: Path, code: int, reason: str, step: int, name: str = EXIT_NAME) -> None:
    path = folder / name
    if name == EXIT_NAME:
        if folder in _untold and path.exists():
            return
        _untold.discard(folder)
    write_json(path, {"code": code, "reason": hide_credentials(reason), "step": step})


def _find_failure(folder: Path) -> str | None:
    """Return what another rank left, if one does so within a moment."""
    deadline = time.monotonic() + _FAILURE_PATIENCE_S
    while time.monotonic() < deadline:
        for path in sorted(folder.glob(_FAILURES)):
            rank = path.name.removeprefix("exit.rank").removesuffix(".json")
            found = read_ending(folder, path.name)
            if found is not None:
                return f"rank {rank}: {found.reason}"
        time.sleep(0.1)
    return None


def clear_failures(folder: Path) -> None:
    """Remove what single ranks of earlier lives said, and files that they left half-written."""
    _remove(folder, _FAILURES, ".*.tmp")


def clear_endings(folder: Path) -> None:
    """Remove what earlier lives said of their end: a start has been accepted."""
    _remove(folder, EXIT_NAME, REFUSED_NAME)
    _untold.add(folder)


def _remove(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.is_symlink() or not path.is_dir():
                path.unlink()
