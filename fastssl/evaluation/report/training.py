"""The report's part on training: curves, how each run ended, speed, and the loader folded away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

from ...errors import EXIT_INPUT, InputError
from ...loaders.telemetry import REMEDIES, STARVED_SHARE
from ...runs.metrics import list_metrics
from ...runs.read import Run
from ...stages import STAGES
from ...tasks import Metric, find_task
from .charts import Curve, draw_curves
from .pieces import cards, fold, note, section, table

_SHOWN = ("task", "probe")
_FOLDED_CURVES = ("images_per_s", "data_wait_share", "lr")


def render_training(runs: Sequence[Run]) -> str:
    """Return the section; empty if no run has a line."""
    runs = [run for run in runs if run.lines]
    if not runs:
        return ""
    metrics = find_metrics(runs)
    shown = _list_shown(metrics)
    charts = []
    # Losses and accuracies of two tasks have nothing in common, and their meanings differ.
    tasks = dict.fromkeys(_task_of(run) for run in runs)
    for task in tasks:
        its = [run for run in runs if _task_of(run) == task]
        told = find_metrics(its)
        own = [metric for metric in _list_shown(told) if metric.group != "probe"]
        charts += _charts(own, told, its, f", {task}" if len(tasks) > 1 else "")
    charts += _charts([metric for metric in shown if metric.group == "probe"], metrics, runs)
    body = cards(charts) + _runs_table(shown, runs) + note(describe_speed(runs))
    return section("Training", body + _inside(metrics, runs))


def _task_of(run: Run) -> str:
    return str(run.settings.get("task.name", "task unknown"))


def _list_shown(metrics: Mapping[str, Metric]) -> list[Metric]:
    """Return what has a chart in front: the loss, and what the task and then the probe say."""
    shown = [
        metric
        for metric in metrics.values()
        if metric.name == "loss" or (metric.group in _SHOWN and "_of_" not in metric.name)
    ]
    return sorted(shown, key=lambda metric: metric.group == "probe")


def find_metrics(runs: Sequence[Run]) -> dict[str, Metric]:
    """Return what the lines of runs hold, by name; what nobody declares comes last, in no group.

    Args:
        runs: of any task and age.
    """
    table: dict[str, Metric] = {}
    for run in runs:
        try:
            task = find_task(str(run.settings.get("task.name")))
        except InputError:  # of a task that this version does not know
            task = None
        table |= list_metrics(task)
    names = list(dict.fromkeys(name for run in runs for name in run.names()))
    known = {name: metric for name, metric in table.items() if name in names}
    return known | {name: Metric(name, "", "", "") for name in names if name not in known}


def describe_speed(runs: Sequence[Run]) -> str:
    """Say in a sentence or two how fast runs were, and whether data held them up.

    Args:
        runs: with at least a line each.
    """
    rate = median(_values(runs, "images_per_s") or [0.0])
    waits = _values(runs, "data_wait_share")
    if not waits:  # of a version that did not record it
        return f"Speed: {rate:,.0f} images a second."
    share = fmean(waits)
    sentence = (
        f"Speed: {rate:,.0f} images a second; {share:.1%} of the time went by waiting for data"
    )
    rates = {stage: _values(runs, f"loader_{stage}_images_per_s") for stage in STAGES}
    means = {stage: fmean(values) for stage, values in rates.items() if values}
    if share <= STARVED_SHARE or not means:
        return f"{sentence}: data is no bottleneck."
    stage = min(means, key=means.__getitem__)
    return (
        f"{sentence}: {stage}, the loader's slowest stage, does {means[stage]:,.0f} images a "
        f"second; remedy: {REMEDIES[stage]}."
    )


def _values(runs: Iterable[Run], key: str) -> list[float]:
    """Return all values but each run's first, which waits for workers to start."""
    found = []
    for run in runs:
        _, values = run.curve(key)
        found += values[1:] or values
    return found


def _charts(
    shown: Sequence[Metric], metrics: Mapping[str, Metric], runs: Sequence[Run], suffix: str = ""
) -> list[tuple[str, str]]:
    charts = []
    for metric in shown:
        curves = _curves(runs, metric.name)
        prefix = f"{metric.name}_of_"
        # What guessing reaches, or another answer that costs nothing; alike in all runs.
        references: dict[str, Curve] = {}
        for name in metrics:
            if name.startswith(prefix):
                found = list(_curves(runs, name).values())
                references |= {name.removeprefix(prefix): found[0]} if found else {}
        if curves:
            chart = draw_curves(_title(metric) + suffix, curves, references, metric.unit == "share")
            charts.append((chart, _explain(metric)))
    return charts


def _curves(runs: Sequence[Run], name: str) -> dict[str, Curve]:
    curves = {run.name: run.curve(name) for run in runs}
    return {run: curve for run, curve in curves.items() if curve[0]}


def _title(metric: Metric) -> str:
    words = metric.name.replace("_", " ")
    return words[0].upper() + words[1:]


def _explain(metric: Metric) -> str:
    unit = "" if metric.unit in ("", "share") else f" ({metric.unit})"
    return f"{metric.meaning}{unit}" if metric.meaning else "not known to this version"


def _runs_table(shown: Sequence[Metric], runs: Sequence[Run]) -> str:
    header = ["run", "ended", "steps", "images seen", "epochs"]
    header += [f"last {metric.name}" for metric in shown] + ["resumed", "bad samples"]
    rows = []
    for run in runs:
        last = run.lines[-1]
        rows.append(
            [
                run.name,
                _describe_ending(run),
                _describe_steps(run),
                f"{_count_seen(run):,}",
                f"{last.get('epoch') or 0:.1f}",
                *(_last(run, metric) for metric in shown),
                f"{run.num_resumes}",
                f"{last.get('substituted') or 0:,}",
            ]
        )
    return table(header, rows, num_words=2)


def _count_seen(run: Run) -> int:
    step, samples = run.lines[-1]["step"], int(run.lines[-1].get("samples") or 0)
    return samples * max(step - run.num_left_out, 0) // step if step else samples


def _describe_steps(run: Run) -> str:
    passed = f", {run.num_left_out:,} of them passed over" if run.num_left_out else ""
    return f"{run.lines[-1]['step']:,}{passed}"


def _last(run: Run, metric: Metric) -> str:
    """Write the last number of a run; nothing where it records none of that name."""
    values = [line[metric.name] for line in run.lines if metric.name in line]
    return _number(values[-1], metric.unit) if values else ""


def _describe_ending(run: Run) -> str:
    if run.ending is None:
        return "still at work, or killed"
    if run.ending.code == EXIT_INPUT:
        return "its last start was refused: exit.json says why"
    return run.ending.reason


def _inside(metrics: Mapping[str, Metric], runs: Sequence[Run]) -> str:
    """Return what few people ask, folded away: speed over time, and the loader's own numbers."""
    folded = [metrics[name] for name in _FOLDED_CURVES if name in metrics]
    rows = []
    for metric in metrics.values():
        if metric.name not in ("step", "samples") and metric.group not in ("train", *_SHOWN):
            cells = (median(run.curve(metric.name)[1] or [0]) for run in runs)
            numbers = [_number(cell, metric.unit) for cell in cells]
            rows.append([metric.name, _explain(metric), *numbers])
    names = [run.name for run in runs]
    body = cards(_charts(folded, {}, runs))
    body += table(["median of the lines", "", *names], rows, num_words=2)
    return fold("Inside: speed over time, the loader's stages, health", body)


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "not finite"
    if unit == "share":
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
