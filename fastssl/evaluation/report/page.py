"""Put a report together: result, puzzles, curves, data, what to run next, where it ran."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...runs.read import Run
from ...system.files import publish_bytes
from .charts import classes_height_in, draw_classes, draw_comparison, draw_curves
from .style import STYLE

_MAX_PUZZLES = 6


@dataclass(frozen=True)
class Comparison:
    """A measure of the pretrained trunk beside the same measure of a random one."""

    measure: str
    """What was measured and how, in a line."""
    pretrained: tuple[float, ...]
    """Accuracy of each seed, 0 .. 1."""
    random: tuple[float, ...]
    """The same of the trunk before training, in the same order."""
    chance: float
    """What guessing reaches, 0 .. 1."""
    num_train: int
    """Samples that the classifier knew."""
    num_test: int
    """Samples that it was tested on."""
    per_class: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """(pretrained, random) means over the seeds, by class."""

    def headline(self) -> str:
        """Say who won, or that the difference lies within one deviation.

        Seeds and the choice of test images both make a mean uncertain, so both enter.
        """
        gain = fmean(self.pretrained) - fmean(self.random)
        variance = 0.0
        for values in (self.pretrained, self.random):
            mean = fmean(values)
            variance += _deviation(values) ** 2 + mean * (1 - mean) / self.num_test
        spread = variance**0.5
        numbers = f"{_percent(self.random)} to {_percent(self.pretrained)}"
        if gain > spread:
            return f"Pretraining lifts the accuracy from {numbers}"
        if gain < -spread:
            return f"Pretraining did not help here: from {numbers}"
        return f"No clear difference in so short a run: {numbers}"


@dataclass(frozen=True)
class Report:
    """What stands on the page."""

    title: str
    """Small line above the headline."""
    lead: str
    """A paragraph: what was done."""
    runs: Sequence[Run]
    """Training runs."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """What guessing reaches in the pretext task, by the name of its number."""
    comparison: Comparison | None = None
    """The result, if there were labels."""
    no_comparison: str = ""
    """Why there is no result."""
    samples: NDArray[np.uint8] | None = None
    """A sheet of the data, uint8 (H, W, 3)."""
    samples_caption: str = ""
    """What the sheet shows."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """What to run next: command by purpose."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Where it ran."""


def write_report(path: Path, report: Report) -> None:
    """Write the page: one HTML file that needs nothing else.

    Args:
        path: of the file; replaced by rename.
        report: what stands on it.

    Raises:
        OSError: if it cannot be written.
    """
    publish_bytes(path, render_page(report).encode("ascii", "xmlcharrefreplace"))


def render_page(report: Report) -> str:
    """Return the page as HTML."""
    headline = report.comparison.headline() if report.comparison else "What the trunk has seen"
    sections = [
        _result(report),
        _puzzles(report),
        _curves(report),
        _data(report),
        _commands(report),
        _environment(report),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(report.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">{_text(report.title)}</p>
<h1>{_text(headline)}</h1>
<p class="lead">{_text(report.lead)}</p>
</header>
{"".join(sections)}
</main>
</body>
</html>
"""


# --- Sections -------------------------------------------------------------------------------------


def _result(report: Report) -> str:
    result = report.comparison
    if result is None:
        return _section("Result", f"<p>{_text(report.no_comparison)}</p>")
    seeds = len(result.pretrained)
    numbers = [
        ("one", _percent(result.pretrained), "pretrained trunk"),
        ("two", _percent(result.random), "random trunk, same seeds"),
        ("", f"{100 * result.chance:.1f} %", "chance"),
    ]
    cards = "".join(
        f'<div class="card number {kind}"><b>{_text(value)}</b><span>{_text(name)}</span></div>'
        for kind, value, name in numbers
    )
    # Side by side the two charts are equally high; more classes than this scroll on alone.
    height = classes_height_in(min(len(result.per_class), 12)) if result.per_class else 1.75
    title = "Accuracy, a dot a seed"
    charts = [draw_comparison(title, result.pretrained, result.random, result.chance, height)]
    if result.per_class:
        charts.append(draw_classes("Accuracy by class, mean of the seeds", result.per_class))
    spread = "One seed" if seeds == 1 else f"Mean and standard deviation of {seeds} seeds"
    note = (
        f"{result.measure}. {spread}; {result.num_train:,} images known, {result.num_test:,} "
        "tested. Both trunks start from the same weights; only one has been trained, and neither "
        "has seen a label."
    )
    body = f'<p class="note">{_text(note)}</p><div class="numbers">{cards}</div>'
    return _section("Result", body + _cards(charts))


def _puzzles(report: Report) -> str:
    pictures = [picture for run in report.runs for picture in run.pictures][:_MAX_PUZZLES]
    if not pictures:
        return ""
    images = "".join(f"<figure>{_image(p, 'A puzzle and its answer')}</figure>" for p in pictures)
    note = (
        "Left the puzzle as the network saw it, right the tiles where it put them: green where "
        "they belong, red elsewhere."
    )
    return _section(
        "Puzzles", f'<p class="note">{note}</p><div class="card puzzles">{images}</div>'
    )


def _curves(report: Report) -> str:
    runs = [run for run in report.runs if run.lines]
    if not runs:
        return ""
    names = [("loss", "Pretext loss", False)]
    for key in runs[0].task_scalars():
        names.append((key, f"Pretext {key}", key == "accuracy"))
    names += [
        ("images_per_s", "Images a second", False),
        ("data_wait_ms", "Wait for data, ms", False),
    ]
    charts = []
    for key, title, is_share in names:
        curves = {run.name: run.curve(key) for run in runs}
        curves = {name: curve for name, curve in curves.items() if curve[0]}
        if curves:
            charts.append(draw_curves(title, curves, report.chance.get(key), is_share))
    header = ("run", "steps", "images seen", "epochs", "last loss", "resumed", "bad samples")
    rows = [_run_row(run) for run in runs]
    return _section("Training", _cards(charts) + _table(header, rows))


def _run_row(run: Run) -> list[str]:
    last = run.lines[-1]
    loss = last.get("loss")
    return [
        run.name,
        f"{last['step']:,}",
        f"{last['samples']:,}",
        f"{last['epoch']:.1f}",
        "not finite" if loss is None else f"{loss:.3f}",
        f"{run.num_resumes}",
        f"{last.get('substituted', 0):,}",
    ]


def _data(report: Report) -> str:
    if report.samples is None:
        return ""
    image = _image(report.samples, report.samples_caption)
    caption = f"<figcaption>{_text(report.samples_caption)}</figcaption>"
    return _section("Data", f'<figure class="card">{image}{caption}</figure>')


def _commands(report: Report) -> str:
    entries = "".join(
        f"<dt>{_text(purpose)}</dt><dd><pre>{_text(command)}</pre></dd>"
        for purpose, command in report.commands.items()
    )
    return _section("Go on", f"<dl>{entries}</dl>") if entries else ""


def _environment(report: Report) -> str:
    rows = "".join(
        f'<tr><th>{_text(name)}</th><td class="wrap">{_text(value)}</td></tr>'
        for name, value in report.environment.items()
    )
    if not rows:
        return ""
    return _section("Where it ran", f'<div class="card"><table>{rows}</table></div>')


# --- Pieces ---------------------------------------------------------------------------------------


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{_text(title)}</h2>\n{body}\n</section>\n"


def _cards(charts: Sequence[str]) -> str:
    cards = "".join(f'<figure class="card">{chart}</figure>' for chart in charts)
    return f'<div class="grid">{cards}</div>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = ["", *[' class="n"'] * (len(cells) - 1)]
        return "".join(
            f"<{tag}{kind}>{_text(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    table = f"<table><tr>{line('th', header)}</tr>{body}</table>"
    return f'<div class="card scroll" style="margin-top:1rem">{table}</div>'


def _image(pixels: NDArray[np.uint8], label: str) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    height, width = pixels.shape[:2]
    return (
        f'<img alt="{_text(label)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}">'
    )


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _percent(values: Sequence[float]) -> str:
    mean = f"{100 * fmean(values):.1f}"
    return f"{mean} \u00b1 {100 * _deviation(values):.1f} %" if len(values) > 1 else f"{mean} %"
