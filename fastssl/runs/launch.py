"""Start a training run as a child: it dies with its parent, and a signal lets it save first."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..system.lifelines import ending_with_parent


def describe_command(*words: str) -> str:
    """Return a command line of ours as a person types it in this shell.

    Args:
        words: the command's name and what stands behind it.
    """
    python = Path(sys.executable)
    if shutil.which("fastssl") == str(python.with_name("fastssl")):
        return shlex.join(["fastssl", *words])
    here = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    return shlex.join([str(here), "-m", "fastssl", *words])


def training_command(recipe: str, *options: str) -> list[str]:
    """Return the command line of a training run, which needs no checkout.

    Args:
        recipe: its name.
        options: what stands behind it.
    """
    return [sys.executable, "-m", "fastssl", "train", recipe, *options]


def start_child(
    command: Sequence[str],
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    environment: Mapping[str, str] | None = None,
    kept_open: Collection[int] = (),
    folder: Path | None = None,
) -> subprocess.Popen[str]:
    """Start a command that ends with this process: it is asked to, and may save before.

    Args:
        command: the command line.
        stdout: where it writes, as ``subprocess`` takes it.
        stderr: likewise.
        environment: its variables; None takes this process's.
        kept_open: descriptors that it holds too.
        folder: that it works in; None takes this process's.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        env=environment,
        cwd=folder,
        pass_fds=tuple(kept_open),
        preexec_fn=ending_with_parent,
    )


def run_child(command: Sequence[str], is_quiet: bool = False) -> tuple[int, str]:
    """Run a command to its end; whatever ends this process lets the child save and end before.

    Args:
        command: the command line.
        is_quiet: keep what it says for the caller instead of showing it.

    Returns:
        The exit code, and what it wrote to stderr if it is quiet.
    """
    quiet = (subprocess.DEVNULL, subprocess.PIPE) if is_quiet else (None, None)
    with start_child(command, *quiet) as child:
        try:
            _, said = child.communicate()
        except BaseException:
            child.terminate()
            child.communicate()
            raise
    return child.returncode, said or ""
