"""Start a training run as a child: it dies with its parent, and a signal lets it save first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from ..system.lifelines import ending_with_parent


def training_command(recipe: str, *options: str) -> list[str]:
    """Return the command line of a training run, which needs no checkout.

    Args:
        recipe: its name.
        options: what stands behind it.
    """
    return [sys.executable, "-m", "fastssl", "train", recipe, *options]


def run_child(command: Sequence[str], is_quiet: bool = False) -> tuple[int, str]:
    """Run a command to its end; whatever ends this process lets the child save and end before.

    Args:
        command: the command line.
        is_quiet: keep what it says for the caller instead of showing it.

    Returns:
        The exit code, and what it wrote to stderr if it is quiet.
    """
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL if is_quiet else None,
        stderr=subprocess.PIPE if is_quiet else None,
        text=True,
        preexec_fn=ending_with_parent,
    ) as child:
        try:
            _, said = child.communicate()
        except BaseException:
            child.terminate()
            child.communicate()
            raise
    return child.returncode, said or ""
