"""The commands: one importable main each, under ``fastssl``, ``python -m fastssl`` and ``tools/``.

A new command is one file with ``main(arguments)`` and one line in ``COMMANDS``. Nothing heavy is
imported before the command is known.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import EXIT_STOPPED
from ..system.lifelines import die_with_launcher
from ..system.signals import stop_at_once_on_signals


@dataclass(frozen=True)
class Command:
    """One command."""

    module: str
    """Where its ``main`` stands."""
    summary: str
    """What it does, in one line."""
    has_ranks: bool = False
    """Whether torchrun starts it on several ranks."""


COMMANDS = {
    "make-shards": Command(
        "fastssl.commands.make_shards",
        "turn a folder of images, a list, a table, PASCAL VOC or tars into shards",
    ),
    "check-shards": Command(
        "fastssl.commands.check_shards", "check a dataset against all that it says of itself"
    ),
    "combine-shards": Command(
        "fastssl.commands.combine_shards", "merge datasets, or take a part of one"
    ),
    "make-beton": Command("fastssl.commands.make_beton", "write a dataset in FFCV's file format"),
    "train": Command(
        "fastssl.commands.train", "pretrain a trunk; a run found there goes on", has_ranks=True
    ),
    "demo": Command("fastssl.commands.demo", "a first look, in minutes on two CPU cores"),
    "render-synthetic": Command(
        "fastssl.commands.render_synthetic", "render the embedded synthetic set"
    ),
    "run-recipes": Command(
        "fastssl.commands.run_recipes", "run the recipes' small forms and one step of every cell"
    ),
    "color-prior": Command(
        "fastssl.commands.color_prior", "count how often each colour is met in a dataset"
    ),
    "check-shortcuts": Command(
        "fastssl.commands.check_shortcuts", "show what low-level cues give away of a puzzle"
    ),
    "bench-loaders": Command("fastssl.benchmarks.loaders", "measure loaders beside their peers"),
    "bench-encodings": Command(
        "fastssl.benchmarks.encodings", "measure bytes and speed of every encoding"
    ),
    "bench-shards": Command("fastssl.benchmarks.shards", "measure the conversion of photographs"),
    "bench-ops": Command("fastssl.benchmarks.ops", "measure operators against plain PyTorch"),
    "bench-memory": Command("fastssl.benchmarks.memory", "measure a training step's memory"),
    "bench-training": Command(
        "fastssl.benchmarks.training", "measure the trainer's step on shards and on one batch"
    ),
}


def run(name: str, arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run a command and leave the process with its exit code.

    Args:
        name: one of ``COMMANDS``.
        arguments: its command line; None takes the process's own.
        program: its name in help and errors; None takes the script's.

    Raises:
        SystemExit: always, unless the failure deserves its traceback.
    """
    command = COMMANDS[name]
    if command.has_ranks:
        # Before the slow imports: torchrun may be killed meanwhile, and signals come at any time.
        die_with_launcher()
        stop_at_once_on_signals(EXIT_STOPPED)
    from .frame import run_command

    if arguments is None:
        arguments = sys.argv[1:]
    if program is not None:
        sys.argv[0] = program  # the parser's name for it
    run_command(lambda: importlib.import_module(command.module).main(arguments))


def describe_commands() -> str:
    """Return the list of commands for ``--help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fastssl COMMAND [options]",
            "",
            "Pretrain vision trunks on pretext tasks at the speed of the GPU.",
            "",
            *lines,
            "",
            "fastssl COMMAND --help shows a command's options, fastssl --version the version.",
        ]
    )
