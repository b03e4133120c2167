"""Put a report together: result, pictures, training, data, what to run next, where it ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from ...counts import spell_number
from ...runs.read import Run
from ...system.files import publish_bytes
from .charts import classes_height_in, draw_classes, draw_comparison
from .pieces import caption, cards, commands, image, note, section, text
from .style import STYLE
from .training import render_training

_MAX_PICTURES = 4


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

    @property
    def gain(self) -> float:
        """What pretraining adds to the accuracy, mean over the seeds."""
        return fmean(self.pretrained) - fmean(self.random)

    @property
    def spread(self) -> float:
        """How far the gain may be off: one deviation of seeds and of the choice of test images."""
        variance = 0.0
        for values in (self.pretrained, self.random):
            mean = fmean(values)
            variance += _deviation(values) ** 2 + mean * (1 - mean) / self.num_test
        return variance**0.5

    @property
    def is_clear(self) -> bool:
        """Whether the gain, or the loss, is more than one deviation."""
        return abs(self.gain) > self.spread

    def headline(self) -> str:
        """Say who won, or that the difference lies within one deviation."""
        numbers = f"{_percent(self.random)} to {_percent(self.pretrained)}"
        if not self.is_clear:
            return f"No clear difference in so short a run: {numbers}"
        if self.gain > 0:
            return f"Pretraining lifts the accuracy from {numbers}"
        return f"Pretraining did not help here: from {numbers}"

    def doubt(self) -> str:
        """Say what would make a difference that is not clear clear."""
        num = len(self.pretrained)
        seeds = "one seed" if num == 1 else f"{num} seeds"
        return (
            f"Pretraining changes the accuracy by {100 * self.gain:+.1f} points; {seeds} and "
            f"{spell_number(self.num_test, 'test image')} leave that open by "
            f"{100 * self.spread:.1f}. More steps teach the trunk more; more images and seeds make "
            "the doubt smaller."
        )


@dataclass(frozen=True)
class Report:
    """What stands on the page."""

    title: str
    """Small line above the headline."""
    lead: str
    """A paragraph: what was done."""
    runs: Sequence[Run]
    """Training runs."""
    comparison: Comparison | None = None
    """The result, if there were labels."""
    no_comparison: str = ""
    """Why there is no result."""
    clearer: Mapping[str, str] = field(default_factory=dict)
    """What would make a result clear that is not: command by purpose."""
    neighbours: Sequence[NDArray[np.uint8]] = ()
    """Images beside their nearest, uint8 (H, W, 3)."""
    neighbours_caption: str = ""
    """What stands where in them."""
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
        _neighbours(report),
        _pictures(report.runs),
        render_training(report.runs),
        _data(report),
        section("Go on", commands([*report.commands.items()])) if report.commands else "",
        _environment(report),
    ]
    return render_document(report.title, headline, report.lead, sections)


def render_document(eyebrow: str, headline: str, lead: str, sections: Sequence[str]) -> str:
    """Return a page.

    Args:
        eyebrow: small line above the headline, and title of the window.
        headline: of the page.
        lead: the paragraph below it.
        sections: markup.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(eyebrow)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">{text(eyebrow)}</p>
<h1>{text(headline)}</h1>
<p class="lead">{text(lead)}</p>
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
        return section("Result", f"<p>{text(report.no_comparison)}</p>")
    seeds = len(result.pretrained)
    numbers = [
        ("one", _percent(result.pretrained), "pretrained trunk"),
        ("two", _percent(result.random), "random trunk, same seeds"),
        ("", f"{100 * result.chance:.1f} %", "chance"),
    ]
    big = "".join(
        f'<div class="card number {kind}"><b>{text(value)}</b><span>{text(name)}</span></div>'
        for kind, value, name in numbers
    )
    # Side by side the two charts are equally high; more classes than this scroll on alone.
    height = classes_height_in(min(len(result.per_class), 12)) if result.per_class else 1.75
    title = "Accuracy, a dot a seed"
    dots = draw_comparison(title, result.pretrained, result.random, result.chance, height)
    charts = [(dots, "")]
    if result.per_class:
        classes = draw_classes("Accuracy by class, mean of the seeds", result.per_class)
        charts.append((classes, ""))
    spread = "One seed" if seeds == 1 else f"Mean and standard deviation of {seeds} seeds"
    how = (
        f"{result.measure}. {spread}; {spell_number(result.num_train, 'image')} known, "
        f"{result.num_test:,} tested. Both trunks start from the same weights; only one has been "
        "trained, and neither has seen a label."
    )
    body = f'<div class="numbers">{big}</div>'
    if not result.is_clear:
        body += f"<p>{text(result.doubt())}</p>" + commands([*report.clearer.items()])
    return section("Result", body + cards(charts) + note(how))


def _neighbours(report: Report) -> str:
    if not report.neighbours:
        return ""
    images = "".join(
        f'<figure class="card">{image(sheet, "An image and its nearest")}</figure>'
        for sheet in report.neighbours
    )
    words = note(report.neighbours_caption)
    return section("Nearest neighbours", f'{words}<div class="grid">{images}</div>')


def _pictures(runs: Sequence[Run]) -> str:
    """Return the pictures of the first run that has some: each image first and last."""
    pictures = next((run.pictures for run in runs if run.pictures), ())
    tags = list(dict.fromkeys(picture.tag for picture in pictures))[:_MAX_PICTURES]
    if not tags:
        return ""
    pairs = []
    for tag in tags:
        figures = [
            f"<figure>{image(p.pixels, p.tag)}{caption(f'step {p.step:,}')}</figure>"
            for p in pictures
            if p.tag == tag
        ]
        pairs.append(f'<div class="card pair">{"".join(figures)}</div>')
    words = note("What the network answered: the same images in the beginning and in the end.")
    return section("Pictures", f'{words}<div class="grid">{"".join(pairs)}</div>')


def _data(report: Report) -> str:
    if report.samples is None:
        return ""
    sheet = image(report.samples, report.samples_caption)
    return section(
        "Data", f'<figure class="card">{sheet}{caption(report.samples_caption)}</figure>'
    )


def _environment(report: Report) -> str:
    if not report.environment:
        return ""
    rows = "".join(
        f'<tr><th>{text(name)}</th><td class="wrap">{text(value)}</td></tr>'
        for name, value in report.environment.items()
    )
    return section("Where it ran", f'<div class="card"><table>{rows}</table></div>')


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _percent(values: Sequence[float]) -> str:
    mean = f"{100 * fmean(values):.1f}"
    return f"{mean} \u00b1 {100 * _deviation(values):.1f} %" if len(values) > 1 else f"{mean} %"
