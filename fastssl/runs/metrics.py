"""The one table of what a run records: the trainer, TensorBoard, the report and docs/ read it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..stages import STAGES
from ..tasks import Metric, Task

COMMON = (
    Metric("step", "steps", "steps done", ""),
    Metric("epoch", "epochs", "samples seen, in passes over the dataset", "train"),
    Metric("samples", "images", "samples seen", ""),
    Metric(
        "loss", "", "what is minimised: mean over ranks and the steps since the last line", "train"
    ),
    Metric(
        "validation_accuracy",
        "share",
        "labelled images for validation whose class is found, each cut from its centre",
        "task",
    ),
    Metric(
        "probe_knn_accuracy",
        "share",
        "labelled images of the probe whose class their nearest neighbours by the trunk name",
        "probe",
    ),
    Metric(
        "probe_knn_accuracy_of_chance",
        "share",
        "probe_knn_accuracy of the commonest class",
        "probe",
    ),
    Metric(
        "probe_effective_rank",
        "",
        "dimensions that the trunk's features on the probe's images spread over (RankMe)",
        "probe",
    ),
    Metric("lr", "", "learning rate of the step just done", "train"),
    Metric(
        "images_per_s", "images/s", "images of a step over its time, all ranks together", "speed"
    ),
    Metric("data_wait_ms", "ms", "time a step waited for its batch, of the slowest rank", "speed"),
    Metric("step_ms", "ms", "time of a step, waiting included, of the slowest rank", "speed"),
    Metric(
        "probe_ms",
        "ms",
        "time that the probe took, on top of the steps' own, all included",
        "speed",
    ),
    Metric("data_wait_share", "share", "part of a step spent waiting for its batch", "speed"),
    Metric(
        "loader_ready_batches",
        "batches",
        "finished batches that lay ready when one was asked for; below 1 the loader is behind",
        "loader",
    ),
    *(
        Metric(
            f"loader_{stage}_images_per_s",
            "images/s",
            f"what the workers of stage {stage} would reach if nothing else held them up",
            "loader",
        )
        for stage in STAGES
    ),
    Metric(
        "loader_entropy_decoded_share",
        "share",
        "minimum coded units of the JPEGs whose bits were decoded (loader native); 1 is one full "
        "decode a sample, whatever its views",
        "loader",
    ),
    Metric(
        "cache_hit_share",
        "share",
        "samples that lay in the cache of a remote dataset when the look-ahead came to them",
        "loader",
    ),
    Metric("cache_fetched_mb", "MB", "what came from its store since the last line", "loader"),
    Metric(
        "cache_stalls",
        "samples",
        "samples since the last line that were wanted before they had come, or were read past it",
        "loader",
    ),
    Metric("cache_stall_s", "s", "time that their readers waited, all of them together", "loader"),
    Metric("skipped", "steps", "steps left out so far, for their loss was not finite", "health"),
    Metric("spikes", "steps", "steps so far whose loss leapt, or was rolled back for", "health"),
    Metric("substituted", "samples", "bad samples so far whose place another took", "health"),
    Metric(
        "fallback_decodes",
        "samples",
        "samples since the last line that the reference decoder read in place of the loader's own: "
        "PNGs and rare kinds of JPEG, as good as any",
        "loader",
    ),
)
"""Of every run, in the order of a line of metrics.jsonl."""


def list_metrics(task: Task | type[Task] | None) -> dict[str, Metric]:
    """Return all that a line may hold, by name, in the order of the line.

    Args:
        task: whose own numbers stand at the end, each with what guessing would reach; None leaves
            them out.
    """
    own = () if task is None else task.metrics
    chances = [metric.of_chance() for metric in own]
    return {metric.name: metric for metric in (*COMMON, *own, *chances)}


def order_line(values: dict[str, Any], table: dict[str, Metric]) -> dict[str, Any]:
    """Bring the numbers of a line into the table's order.

    Args:
        values: by name.
        table: from ``list_metrics``.

    Raises:
        ValueError: for a name that is not in the table.
    """
    check_names(values, table)
    return {name: values[name] for name in table if name in values}


def check_names(names: Iterable[str], table: dict[str, Metric]) -> None:
    """Refuse names that nobody declared.

    Args:
        names: of numbers that a run is about to record.
        table: from ``list_metrics``.

    Raises:
        ValueError: names them.
    """
    unknown = [name for name in names if name not in table]
    if unknown:
        raise ValueError(
            f"metrics ({', '.join(unknown)}) are not in the table; declare them in the task's "
            "`metrics` or in fastssl.runs.metrics.COMMON"
        )


def write_table(metrics: Iterable[Metric]) -> str:
    """Return the table as docs/metrics.md shows it."""
    rows = [("key", "unit", "meaning", "curve"), ("---",) * 4]
    for metric in metrics:
        curve = f"`{metric.tag}`" if metric.group else ""
        rows.append((f"`{metric.name}`", metric.unit, metric.meaning, curve))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
