"""The commands: one importable main each, under ``fastssl``, ``python -m fastssl`` and ``tools/``.

A new command is one file with ``main(arguments)`` and one line in ``COMMANDS``. Nothing heavy is
imported before the command is known.
"""

from __future__ import annotations

import importlib
import itertools
import signal
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
    group: str
    """Where it stands in the list of commands."""
    has_ranks: bool = False
    """Whether torchrun starts it on several ranks."""


_DATA, _TRAINING, _HERE, _MEASURING = "data", "training", "this installation", "measuring"

_RANKED = ("train", "evaluate", "replay-step")

COMMANDS = {
    name: Command(f"fastssl.{module}", summary, group, has_ranks=name in _RANKED)
    for name, module, group, summary in (
        (
            "make-shards",
            "commands.make_shards",
            _DATA,
            "photographs, a list, a table, VOC, COCO or tars into shards",
        ),
        ("index-tars", "commands.index_tars", _DATA, "tars that stay where they are, as a dataset"),
        ("entry-points", "commands.entry_points", _DATA, "from where on JPEGs can be decoded"),
        ("check-shards", "commands.check_shards", _DATA, "check all that a dataset says of itself"),
        ("repair", "commands.repair", _DATA, "make damaged shards again from their source"),
        ("combine-shards", "commands.combine_shards", _DATA, "merge datasets, or take a part"),
        ("make-beton", "commands.make_beton", _DATA, "write a dataset in FFCV's file format"),
        ("render-synthetic", "commands.render_synthetic", _DATA, "render the synthetic set"),
        ("proposals", "commands.proposals", _DATA, "where objects might be, for Fast R-CNN"),
        ("color-prior", "commands.color_prior", _DATA, "count the colours of a dataset"),
        ("check-shortcuts", "commands.check_shortcuts", _DATA, "what low-level cues give away"),
        ("train", "commands.train", _TRAINING, "pretrain a trunk; a run found there goes on"),
        (
            "replay-step",
            "commands.replay_step",
            _TRAINING,
            "run a bad step again",
        ),
        ("evaluate", "commands.evaluate", _TRAINING, "say what a trunk is worth"),
        ("demo", "commands.demo", _TRAINING, "a first look, in minutes on two CPU cores"),
        ("run-recipes", "commands.run_recipes", _TRAINING, "recipes' small forms, one by one"),
        ("sweep", "commands.sweep", _TRAINING, "a grid of runs; the labels that a trunk saves"),
        ("study", "commands.study", _TRAINING, "a study from end to end, small"),
        (
            "plan",
            "commands.plan",
            _TRAINING,
            "what a job of a given size takes, and why",
        ),
        ("report", "commands.report", _TRAINING, "a page of results, pictures and curves"),
        ("doctor", "commands.doctor", _HERE, "what is there, what is missing, what is used"),
        ("completion", "commands.completion", _HERE, "complete commands in bash or zsh"),
        ("bench-loaders", "benchmarks.loaders", _MEASURING, "loaders beside their peers"),
        ("bench-scale", "benchmarks.scale", _MEASURING, "what a hundred million samples cost"),
        ("bench-encodings", "benchmarks.encodings", _MEASURING, "bytes and speed of encodings"),
        ("bench-shards", "benchmarks.shards", _MEASURING, "the conversion of photographs"),
        ("bench-ops", "benchmarks.ops", _MEASURING, "operators against plain PyTorch"),
        ("bench-memory", "benchmarks.memory", _MEASURING, "a training step's memory"),
        ("bench-training", "benchmarks.training", _MEASURING, "steps on shards and on one batch"),
        ("bench-features", "benchmarks.features", _MEASURING, "features beside the forward pass"),
        ("bench-bank", "benchmarks.bank", _MEASURING, "CMC's memory beside its networks' step"),
        ("bench-svm", "benchmarks.svm", _MEASURING, "the VOC07 protocol's SVMs beside LinearSVC"),
    )
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
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # In the middle of an import Ctrl-C would show a traceback; run_command answers it again.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .frame import run_command

    if arguments is None:
        arguments = sys.argv[1:]
    if program is not None:
        sys.argv[0] = program  # the parser's name for it
    run_command(lambda: importlib.import_module(command.module).main(arguments))


def describe_commands() -> str:
    """Return the list of commands for ``--help``."""
    width = max(map(len, COMMANDS))
    lines = []
    for group, members in itertools.groupby(COMMANDS.items(), lambda item: item[1].group):
        lines += ["", group]
        lines += [f"  {name:<{width}}  {command.summary}" for name, command in members]
    return "\n".join(
        [
            "usage: fastssl COMMAND [options]",
            "",
            "Pretrain vision trunks on pretext tasks at the speed of the GPU.",
            *lines,
            "",
            "fastssl COMMAND --help shows a command's options, fastssl --version the version.",
        ]
    )
