"""Render the embedded synthetic set: ten classes of procedural models, path-traced.

    fastssl render-synthetic OUT --variant 0100 --images 1600 --size 64 --seed 0 --workers 2

OUT/<class>/<class>_m<model>_<index>.png, and OUT/metadata.jsonl with every number of every scene.
An interrupted run goes on where it was when the same command is given again; docs/synthetic.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from ..fields import Checked, NumThreads
from ..synthetic import RenderConfig, render_set
from ..system.cpus import available_cpus
from ..system.signals import stopping_on_signals
from .frame import parse_arguments


@dataclass(frozen=True)
class RenderSynthetic(Checked):
    """Render a set of synthetic images; an interrupted run goes on where it was."""

    out: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder to write; must be empty or absent."""
    render: Annotated[RenderConfig, tyro.conf.arg(name="")] = field(default_factory=RenderConfig)
    """What to render."""
    workers: NumThreads = 0
    """Processes; 0 takes one for each usable core."""


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and render."""
    command = parse_arguments(RenderSynthetic, arguments)
    workers = command.workers or available_cpus()
    kept = "every finished image is kept, the same command goes on with the rest"
    bar = tqdm(total=command.render.images, unit="img", desc="render")
    with stopping_on_signals(kept), bar:
        render_set(command.out, command.render, workers, bar.update)
