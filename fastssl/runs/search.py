"""Search of the options of one trial by Ray Tune: drawn by TPE, the worst stopped early by ASHA.

Every draw is a trial like any other: a run directory under ``trials/``. ``search.json`` says what
each was drawn, how far it came and what it reached. Tune's own state lies in ``tune/``, by which a
search goes on after whatever ended it; a trial's run goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..counts import spell_number
from ..errors import EXIT_STOPPED, InputError, RunFailed, nearest
from ..fields import Checked, Count
from ..randomness import Seed
from ..system.files import locked, open_own
from ..system.ray_jobs import INSTALL_LINE, uncovered
from ..system.signals import stopping_on_signals
from .cluster import RayConfig, start_ray
from .directory import write_json
from .launch import start_child
from .read import read_lines
from .result import read_result
from .sweep import LOGS_NAME, PROGRAM, Trial, opened_folder, result_file, trial_folder

SEARCH_NAME = "search.json"
VALUE = "value"
"""In place of a number of the run's metrics: the value of an evaluation's result."""

Space = Mapping[str, tuple[str, ...]]
"""By option: ``log LOW HIGH``, ``uniform LOW HIGH``, or ``choice`` and the values."""

SPACES: dict[str, Space] = {
    "newell20": {
        "optim.lr": ("log", "1e-4", "1e-2"),
        "final-lr": ("log", "1e-7", "1e-4"),
        "optim.weight-decay": ("log", "1e-7", "1e-3"),
        "schedule.exponent": ("uniform", "-0.5", "2"),
    }
}
"""Of studies: rate, final rate, decay, exponent (Newell and Deng 2020's released search)."""
FINAL_LR = "final-lr"
"""An option of no command: it becomes ``schedule.final-share``, its share of the drawn rate."""

_KINDS = {"log": 2, "uniform": 2, "choice": 0}
_TUNE_NAME = "tune"
_IS_DONE = "is_done"
_ASK_EVERY_S = 1.0
_MOST_STEPS = 1_000_000_000


@dataclass(frozen=True)
class SearchConfig(Checked, prefix="search."):
    """What is searched for, and how long."""

    metric: str = "loss"
    """A number of metrics.jsonl; value is that of an evaluation's result."""
    mode: Literal["min", "max"] = "min"
    """Whether the least or the greatest is best."""
    samples: Count = 64
    """Trials that are drawn."""
    at_once: Count = 4
    """Trials at a time, as far as the cores allow; TPE learns from those that have ended."""
    grace_steps: Count = 1000
    """Steps that every trial takes before the worse three quarters may be stopped, and again at
    four times as many."""
    seed: Seed = 0
    """Of the draws."""


def check_space(space: Space) -> None:
    """See that every option of a space can be drawn.

    Args:
        space: the options.

    Raises:
        InputError: names the first that cannot.
    """
    for option, (kind, *values) in space.items():
        if kind not in _KINDS:
            raise InputError(f"search: {option}: '{kind}' is not known{nearest(kind, _KINDS)}")
        if kind == "choice":
            if not values:
                raise InputError(f"search: {option}: a choice of nothing; name its values")
            continue
        try:
            low, high = map(float, values)
        except ValueError:
            low, high = math.nan, math.nan
        if not (-math.inf < low < high < math.inf) or (kind == "log" and low <= 0):
            above = ", above 0" if kind == "log" else ""
            raise InputError(
                f"search: {option}: {kind} {' '.join(values)}; wanted two numbers{above}, the "
                "lower one first"
            )
    if FINAL_LR in space and "optim.lr" not in space:
        raise InputError(f"search: {FINAL_LR} is a share of optim.lr, which must be drawn too")


def draw_words(drawn: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words of a command line that give what was drawn.

    Args:
        drawn: by option.
    """
    words: list[str] = []
    for option, value in drawn.items():
        if option == FINAL_LR:
            option, value = "schedule.final-share", min(1.0, value / drawn["optim.lr"])
        words += [f"--{option}", f"{value:.6g}" if isinstance(value, float) else str(value)]
    return tuple(words)


def search(
    trial: Trial,
    space: Space,
    folder: Path,
    config: SearchConfig,
    ray: RayConfig,
    program: Sequence[str] = PROGRAM,
) -> dict[str, Any]:
    """Search the best options of a trial; the same call again goes on.

    Args:
        trial: what is run, without the options that are drawn.
        space: those options.
        folder: of the search.
        config: what is searched for.
        ray: what a trial takes.
        program: what a trial's words stand behind.

    Returns:
        What ``search.json`` holds.

    Raises:
        ImportError: with the line that installs Ray Tune and optuna.
        InputError: if the space does not fit, or the folder holds another search.
        RunFailed: if all failed.
        StoppedBySignal: after a signal.
    """
    check_space(space)
    words = [word for option, kind in space.items() for word in (f"--{option}", " ".join(kind))]
    whole = dataclasses.replace(trial, command=(*trial.command, *words))
    with opened_folder([whole], folder):
        _prepare_tune()
        started = start_ray(ray)
        try:
            with stopping_on_signals("the same command goes on"), uncovered():
                told = _fit(trial, space, folder, config, ray, program)
        finally:
            started.shutdown()
    if told["best"] is None:
        raise RunFailed(
            f"none of {spell_number(len(told['trials']), 'trial')} reached a {config.metric}; what "
            f"they said stands in {folder / LOGS_NAME}"
        )
    return told


def _prepare_tune() -> None:
    """Import what a search needs, or say the line that installs it."""
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    try:
        import optuna
        from ray import tune  # noqa: F401
    except ImportError as error:
        raise ImportError(f"a search needs Ray Tune and optuna: {INSTALL_LINE}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _fit(
    trial: Trial,
    space: Space,
    folder: Path,
    config: SearchConfig,
    ray: RayConfig,
    program: Sequence[str],
) -> dict[str, Any]:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    drawn: dict[str, Callable[..., Any]] = {
        "log": lambda low, high: tune.loguniform(float(low), float(high)),
        "uniform": lambda low, high: tune.uniform(float(low), float(high)),
        "choice": lambda *values: tune.choice(list(values)),
    }
    told = _Told(trial, folder.resolve(), Path.cwd(), config.metric, ray.cores, tuple(program))
    resources = {"cpu": ray.cores, "gpu": ray.gpus}
    trainable = tune.with_resources(tune.with_parameters(_run_drawn, told=told), resources)
    storage = (folder / _TUNE_NAME).resolve()
    place = storage / trial.name
    if tune.Tuner.can_restore(str(place)):
        tuner = tune.Tuner.restore(
            str(place), trainable, resume_unfinished=True, restart_errored=True
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={option: drawn[kind](*values) for option, (kind, *values) in space.items()},
            tune_config=tune.TuneConfig(
                metric=config.metric,
                mode=config.mode,
                search_alg=OptunaSearch(seed=config.seed % 2**32),
                scheduler=ASHAScheduler(
                    time_attr="step", grace_period=config.grace_steps, max_t=_MOST_STEPS
                ),
                num_samples=config.samples,
                max_concurrent_trials=config.at_once,
                trial_dirname_creator=lambda one: f"{trial.name}-{one.trial_id}",
            ),
            run_config=tune.RunConfig(name=trial.name, storage_path=str(storage), verbose=0),
        )
    return _note(tuner.fit(), folder, config)


def _note(grid: Any, folder: Path, config: SearchConfig) -> dict[str, Any]:
    """Write what was drawn and reached, the best first."""
    rows = []
    for result in grid:
        metrics = result.metrics or {}
        value = metrics.get(config.metric)
        has_value = isinstance(value, (int, float)) and math.isfinite(value)
        rows.append(
            {
                "trial": Path(result.path).name,
                "options": list(draw_words(result.config)),
                config.metric: value if has_value else None,
                "steps": metrics.get("step", 0),
                "state": _tell_state(result.error, metrics),
            }
        )
    sign = 1 if config.mode == "min" else -1
    rows.sort(key=lambda row: math.inf if row[config.metric] is None else sign * row[config.metric])
    best = rows[0] if rows and rows[0][config.metric] is not None else None
    told = {"metric": config.metric, "mode": config.mode, "best": best, "trials": rows}
    write_json(folder / SEARCH_NAME, told)
    return told


def _tell_state(error: object, metrics: Mapping[str, Any]) -> str:
    if error is not None:
        return "failed"
    return "done" if metrics.get(_IS_DONE) else "stopped early"


@dataclass(frozen=True)
class _Told:
    """What a worker has to know."""

    trial: Trial
    folder: Path
    place: Path
    metric: str
    cores: int
    program: tuple[str, ...]


def _run_drawn(drawn: Mapping[str, Any], told: _Told) -> None:
    """Run a trial with what was drawn, in one of Ray's workers, and report what it reaches."""
    from ray import tune

    name = f"{told.trial.name}-{tune.get_context().get_trial_id()}"
    words = (*told.trial.command, *draw_words(drawn))
    trial = dataclasses.replace(told.trial, name=name, command=words)
    log = told.folder / LOGS_NAME / f"{name}.log"
    environment = {**os.environ, "OMP_NUM_THREADS": str(told.cores)}
    last = 0
    with locked(log.with_suffix(".lock"), "busy", math.inf) as held, open_own(log, "ab") as file:
        command = [*told.program, *trial.spell(told.folder, told.cores)]
        output = (file, subprocess.STDOUT, environment, [held], told.place)
        child = start_child(command, *output)
        try:
            while child.poll() is None:
                last = _report_new(trial, told, last)
                time.sleep(_ASK_EVERY_S)
        finally:
            # Stopped early, too: it saves, for a longer run may go on from it.
            child.terminate()
            child.wait()
    if child.returncode:
        stopped = " by a signal" if child.returncode in (EXIT_STOPPED, -15) else ""
        raise RunFailed(f"{name} ended{stopped} with {child.returncode}; see {log}")
    _report_end(trial, told, last)


def _report_new(trial: Trial, told: _Told, last: int) -> int:
    """Report the lines of the run's metrics behind a step; return the newest step."""
    from ray import tune

    for step, value in _read_curve(trial, told):
        if step > last:
            last = step
            tune.report({told.metric: value, "step": step, _IS_DONE: False})
    return last


def _report_end(trial: Trial, told: _Told, last: int) -> None:
    from ray import tune

    if told.metric == VALUE:
        value, step = read_result(result_file(told.folder, trial.name)).value, last + 1
    else:
        points = _read_curve(trial, told)
        if not points:
            raise RunFailed(f"{trial.name}: its metrics have no number '{told.metric}'")
        step, value = points[-1]
    tune.report({told.metric: value, "step": step, _IS_DONE: True})


def _read_curve(trial: Trial, told: _Told) -> list[tuple[int, float]]:
    if told.metric == VALUE:
        return []
    with contextlib.suppress(InputError):  # not begun yet
        lines = list(read_lines(trial_folder(told.folder, trial.name)))
        found = [(line["step"], line.get(told.metric)) for line in lines if "event" not in line]
        return [(step, value) for step, value in found if value is not None]
    return []
