"""Render a set of the synthetic benchmark: ten classes of models, path-traced.

    fastssl render-synthetic OUT --variant TCVL --images 20000 --size 64 --seed 0 --workers 2
    fastssl make-shards OUT SHARDS

OUT/<class>/<class>_m<model>_<index>.png, OUT/metadata.jsonl with every number of every scene, and
segmentation and depth as arrays; all of it becomes targets of the dataset.
An interrupted run goes on where it was when the same command is given again; docs/synthetic.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..counts import spell_number
from ..fields import Checked, NumThreads
from ..synthetic import RenderConfig, render_set
from ..system.cpus import available_cpus
from ..system.signals import stopping_on_signals
from .frame import parse_arguments, progress_bar


@dataclass(frozen=True)
class RenderSynthetic(Checked):
    """Render a set of synthetic images; an interrupted run goes on where it was."""

    out: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder to write; must be empty or absent."""
    render: Annotated[RenderConfig, tyro.conf.arg(name="")] = field(default_factory=RenderConfig)
    """What to render."""
    workers: NumThreads = 0
    """Processes; 0 takes one for each usable core."""


def join_variant(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a variant that begins with a dash (``-C-L``) joined to its option.

    A parser takes what begins with a dash for an option.
    """
    joined = list(arguments)
    for place in range(len(joined) - 1, 0, -1):
        if joined[place - 1] == "--variant" and joined[place].startswith("-"):
            joined[place - 1 : place + 1] = [f"--variant={joined[place]}"]
    return joined


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and render."""
    command = parse_arguments(RenderSynthetic, join_variant(arguments))
    workers = command.workers or available_cpus()
    kept = "every finished image is kept, the same command goes on with the rest"
    with stopping_on_signals(kept), progress_bar("render") as advance:

        def tell(done: int) -> None:
            advance(done, command.render.images)

        unusable = render_set(command.out, command.render, workers, tell)
    if unusable:
        path, reason = min(unusable.items())
        told = spell_number(len(unusable), "mesh or picture", "meshes or pictures")
        print(
            f"unusable, and others in their place: {told} (the first: {path}: {reason}); "
            f"{command.out / 'skipped.jsonl'} lists all"
        )
