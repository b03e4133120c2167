"""Run a grid: recipes x seeds x label counts x options become runs, then results.

``fastssl sweep GRID --output-dir FOLDER``; the same command goes on with what was interrupted.
``fastssl sweep utility ...`` says how many labels a trunk saves: see ``sweep_utility``.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..counts import spell_number
from ..errors import InputError, RunFailed
from ..fields import Checked, CountOrZero
from ..runs.cluster import RayConfig, RayExecutor
from ..runs.result import RESULTS_NAME
from ..runs.search import SEARCH_NAME, SearchConfig, Space, search
from ..runs.sweep import Trial, run_trials
from .frame import parse_arguments, show_log
from .grid import read_grid
from .trials import check_drawn, check_options, complete_trials, describe_trials


@dataclass(frozen=True)
class SweepConfig(Checked):
    """Run what is not yet done of a grid; in its place "utility": how many labels a trunk saves."""

    grid: Path
    """YAML or Python file: stages, each a command, its options and its axes; or the word utility,
    which has options of its own (fastssl sweep utility --help)."""
    output_dir: Path = Path()
    """Folder of the sweep: its runs, results and journal."""
    at_once: CountOrZero = 0
    """Trials at a time on this machine; they share the usable cores, and each takes a GPU in turn.
    0 takes one a GPU, without one 1."""
    executor: Literal["local", "ray"] = "local"
    """Where trials run: as children of this process, or on Ray."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Ray: what a trial takes, and how often it is tried."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """For a grid that has a search: what is best, and how long to look for it."""
    dry_run: bool = False
    """List the trials with what they cost, and end."""

    def check(self) -> None:
        """Refuse a sweep without a folder, and a number that Ray decides."""
        if self.output_dir == Path() and not self.dry_run:
            raise InputError("--output-dir (none given) must name the folder of the sweep")
        if self.executor == "ray" and self.at_once:
            raise InputError(
                f"at_once ({self.at_once}) is of this machine; on Ray, --ray.cores and --ray.gpus "
                "say how many trials fit"
            )


def main(arguments: Sequence[str]) -> None:
    """Read the grid, see that all of it fits, and run it."""
    if arguments[:1] == ["utility"]:
        from .sweep_utility import main as find_utility  # what trains is not loaded for a grid

        find_utility(arguments[1:])
        return
    config = parse_arguments(SweepConfig, arguments)
    show_log(logging.INFO)
    grid = read_grid(config.grid)
    trials = complete_trials(grid.trials)
    check_options(trials, config.output_dir)
    if grid.space is not None:
        check_drawn(trials[0], grid.space, config.output_dir)
    if config.dry_run:
        print(describe_trials(trials, config.output_dir))
        if grid.space is not None:
            print(
                f"A search: {spell_number(config.search.samples, 'such trial')} at most, with "
                "options drawn."
            )
    elif grid.space is not None:
        _search(trials[0], grid.space, config)
    else:
        make_executor = (lambda _: RayExecutor(config.ray)) if config.executor == "ray" else None
        run_trials(trials, config.output_dir, config.at_once, make_executor)
        print(
            f"{spell_number(len(trials), 'trial')} done; results: "
            f"{config.output_dir / RESULTS_NAME}"
        )


def _search(trial: Trial, space: Space, config: SweepConfig) -> None:
    told = search(trial, space, config.output_dir, config.search, config.ray)
    best = told["best"]
    print(
        f"{spell_number(len(told['trials']), 'trial')}; best {told['metric']} "
        f"{best[told['metric']]:.6g} by {shlex.join(best['options'])}: {best['trial']}; all: "
        f"{config.output_dir / SEARCH_NAME}"
    )
    failed = [row["trial"] for row in told["trials"] if row["state"] == "failed"]
    if failed:
        raise RunFailed(
            f"{len(failed)} of {spell_number(len(told['trials']), 'trial')} failed: "
            f"{', '.join(failed)}"
        )
