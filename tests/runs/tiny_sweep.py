"""A sweep of tiny trials, as a program that its tests kill: ``FOLDER AT_ONCE|ray|search``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from fastssl.commands.frame import run_command, show_log
from fastssl.runs.sweep import Trial, run_trials

# Without the site's packages, which the trial does not need.
PROGRAM = (sys.executable, "-S", str(Path(__file__).with_name("tiny_trial.py")))


def list_trials() -> list[Trial]:
    """Return two runs, a run that goes on from each, and two evaluations of each of those."""
    trials = []
    for seed in range(2):
        trials.append(Trial(f"first-s{seed}", ("train", "one", "--seed", str(seed))))
        words = ("train", "two", "--trunk-from", f"{{run:first-s{seed}}}")
        trials.append(Trial(f"second-s{seed}", words))
        for n in (1, 2):
            words = ("evaluate", "knn", "--checkpoint", f"{{run:second-s{seed}}}", "--seed", str(n))
            trials.append(Trial(f"knn-s{seed}-n{n}", words))
    return trials


def main() -> None:
    """Run the trials that the first word's folder has a list of, or the usual ones."""
    show_log(logging.INFO)
    folder = Path(sys.argv[1])
    given = folder.with_suffix(".json")
    trials = (
        [Trial(name, tuple(words)) for name, words in json.loads(given.read_text()).items()]
        if given.exists()
        else list_trials()
    )
    if sys.argv[2] == "search":
        from fastssl.runs.cluster import RayConfig
        from fastssl.runs.search import SearchConfig, search

        config = SearchConfig(samples=4, at_once=2, grace_steps=4)
        space = {"optim.lr": ("log", "1e-5", "1e-1")}
        trial = trials[0] if given.exists() else Trial("tune", ("train", "one"))
        search(trial, space, folder, config, RayConfig(), PROGRAM)
    elif sys.argv[2] == "ray":
        from fastssl.runs.cluster import RayConfig, RayExecutor

        run_trials(
            trials, folder, program=PROGRAM, make_executor=lambda _: RayExecutor(RayConfig())
        )
    else:
        run_trials(trials, folder, at_once=int(sys.argv[2]), program=PROGRAM)


if __name__ == "__main__":
    run_command(main)
