"""Run a grid: recipes x seeds x label counts x options become runs, then results.

``fastssl sweep GRID --output-dir FOLDER``; the same command goes on with what was interrupted.
``fastssl sweep utility ...`` says how many labels a trunk saves: see ``sweep_utility``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..fields import Checked, CountOrZero
from ..runs.result import RESULTS_NAME
from ..runs.sweep import run_trials
from .frame import parse_arguments, show_log
from .grid import read_grid
from .trials import check_options, complete_trials, describe_trials


@dataclass(frozen=True)
class SweepConfig(Checked):
    """Run what is not yet done of a grid; in its place "utility": how many labels a trunk saves."""

    grid: Path
    """YAML or Python file: stages, each a command, its options and its axes; or the word utility,
    which has options of its own (fastssl sweep utility --help)."""
    output_dir: Path = Path()
    """Folder of the sweep: its runs, results and journal."""
    at_once: CountOrZero = 1
    """Trials at a time; they share the usable cores, and each takes a GPU in turn. 0 takes one a
    GPU, without one 1."""
    dry_run: bool = False
    """List the trials with what they cost, and end."""

    def check(self) -> None:
        """Refuse a sweep without a folder."""
        if self.output_dir == Path() and not self.dry_run:
            raise InputError("--output-dir (none given) must name the folder of the sweep")


def main(arguments: Sequence[str]) -> None:
    """Read the grid, see that all of it fits, and run it."""
    if arguments[:1] == ["utility"]:
        from .sweep_utility import main as find_utility  # what trains is not loaded for a grid

        find_utility(arguments[1:])
        return
    config = parse_arguments(SweepConfig, arguments)
    show_log(logging.INFO)
    trials = complete_trials(read_grid(config.grid))
    check_options(trials, config.output_dir)
    if config.dry_run:
        print(describe_trials(trials, config.output_dir))
        return
    run_trials(trials, config.output_dir, config.at_once)
    print(f"{len(trials)} trials done; results: {config.output_dir / RESULTS_NAME}")
