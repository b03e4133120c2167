"""Render the embedded synthetic set: ten classes of procedural models, path-traced.

    python tools/render_synthetic.py OUT --variant 0100 --images 1600 --size 64 --seed 0 --workers 2

OUT/<class>/<class>_m<model>_<index>.png, and OUT/metadata.jsonl with every number of every scene.
An interrupted run goes on where it was when the same command is given again; docs/synthetic.md.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NoReturn

import tyro
from tqdm import tqdm

from fastssl.command import parse_arguments, run_command
from fastssl.cpu_count import available_cpus
from fastssl.errors import StoppedBySignal
from fastssl.synthetic import RenderConfig, render_set


@dataclass(frozen=True)
class Command:
    """Render a set of synthetic images; an interrupted run goes on where it was."""

    out: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder to write; must be empty or absent."""
    render: Annotated[RenderConfig, tyro.conf.arg(name="")] = field(default_factory=RenderConfig)
    """What to render."""
    workers: int = 0
    """Processes; 0 takes one for each usable core."""


def _stop(number: int, _frame: object) -> NoReturn:
    raise StoppedBySignal(
        f"{signal.Signals(number).name}; every finished image is kept, "
        "the same command goes on with the rest"
    )


def main() -> None:
    """Parse the command line and render."""
    command = parse_arguments(Command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    workers = command.workers or available_cpus()
    with tqdm(total=command.render.images, unit="img", desc="render") as bar:
        render_set(command.out, command.render, workers, bar.update)


if __name__ == "__main__":
    run_command(main)
