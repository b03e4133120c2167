"""What recipes there are, what each takes and what was published, for people and for programs."""

from __future__ import annotations

import difflib
import re
import string
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..counts import spell_number
from ..errors import InputError
from ..tasks import find_task
from .cells import PROTOCOLS, Cell, Published, count_images, count_steps
from .cost import count_operations
from .operations import RECIPE_GIGAFLOPS
from .registry import CELLS, RECIPES, build_recipe, fit_recipe, is_fitted, recipe_names

GpuName = Literal["v100", "a100", "h100", "h200"]
PEAK_TFLOPS: dict[GpuName, float] = {"v100": 125, "a100": 312, "h100": 989, "h200": 989}
"""10^12 operations a second in 16 bits without sparsity, by the makers' data sheets."""
UTILISATION = 0.3
"""Share of the peak that GPU-hours count with; an assumption, not a measurement."""
LINE = 96
"""Columns that a list keeps to."""
SUITS_S = 4 * 3600.0
"""Seconds that a run may take to suit a device."""
_FEW_STEPS = 100
"""Fewer are no training: such forms try the path."""
_DAY_S = 86_400.0
_UNITS = ((365 * _DAY_S, "years"), (_DAY_S, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_LETTERS = dict(zip(PROTOCOLS, string.ascii_lowercase, strict=False))

_MEASURED = re.compile(r", \d+ s of one core")


@dataclass(frozen=True)
class Row:
    """A recipe and what it takes."""

    name: str
    """Of the recipe."""
    config: Any
    """Its ``RunConfig``."""
    gigaflops: float
    """10^9 operations of a training step for one image."""
    summary: str
    """What it is, in a line."""
    num_images: int
    """Images of the data that a recipe for any data is given; 0 where that is not known."""
    cell: Cell | None = None
    """Of a study."""

    @property
    def published(self) -> tuple[Published, ...]:
        """Figures that are known for it."""
        return self.cell.published if self.cell else ()

    @property
    def steps(self) -> int:
        """Steps of the whole run; 0 where they depend on the data."""
        return count_steps(self.config, self.num_images)

    @property
    def exaflops(self) -> float:
        """10^18 operations of the whole run."""
        return self.gigaflops * count_images(self.config, self.num_images) / 1e9

    def gpu_hours(self, gpu: GpuName) -> float:
        """Hours that one GPU takes at ``UTILISATION`` of its peak."""
        return self.exaflops * 1e6 / (PEAK_TFLOPS[gpu] * UTILISATION) / 3600

    def to_json(self, gpu: GpuName) -> dict[str, Any]:
        """Return all that is known of it, as plain values.

        Args:
            gpu: for its hours.
        """
        config, cell = self.config, self.cell
        return {
            "recipe": self.name,
            "summary": self.summary,
            "task": config.task.name,
            "trunk": config.trunk,
            "width": config.width,
            "data": cell.data.title if cell else None,
            "batch": config.data.global_batch_size,
            "epochs": config.schedule.epochs,
            "steps": self.steps or None,
            "images_seen": count_images(config, self.num_images) or None,
            "gigaflops_per_image": self.gigaflops,
            "exaflops": self.exaflops or None,
            "gpu": gpu,
            "gpu_hours": self.gpu_hours(gpu) or None,
            "places": list(cell.places) if cell else [],
            "origin": cell.origin if cell else None,
            "published": [
                {
                    "task": PROTOCOLS[figure.protocol].task,
                    "protocol": figure.protocol,
                    "metric": figure.metric,
                    "value": figure.value,
                    "what": figure.what,
                    "layers": dict(figure.layers),
                    "is_remembered": figure.is_remembered,
                }
                for figure in self.published
            ],
        }


def list_rows(
    words: Sequence[str] = (), has_published: bool = False, num_images: int = 0
) -> list[Row]:
    """Return the recipes that words choose.

    Args:
        words: each is a part of a recipe's name between underscores from its beginning, a number
            whole (``p100``, ``yfcc1m``), a table or figure (``table1``), or whose it is (``ours``).
            Other forms of cells (``10epochs``, ``paperbatch``) come where their word is there.
        has_published: those with a published figure alone.
        num_images: of the data, for recipes for any.

    Raises:
        InputError: if there is none.
    """
    names = [name for name in recipe_names() if _is_chosen(name, words)]
    rows = [_make_row(name, num_images) for name in names]
    rows = [row for row in rows if row.published or not has_published]
    if not rows:
        places = sorted({place for cell in CELLS.values() for place in cell.places})
        known = {part for name in (*RECIPES, *CELLS) for part in name.split("_")}
        known |= {*places, "ours", "10epochs", "paperbatch"}
        odd = [w for w in words if not any(_has_word(name, w) for name in (*RECIPES, *CELLS))]
        close = [difflib.get_close_matches(w.lower(), known, n=1) for w in odd if w not in known]
        hint = f"; did you mean '{close[0][0]}'?" if close and close[0] else ""
        raise InputError(
            f"--list ({' '.join(words)}) finds no recipe with these words"
            f"{' and a published figure' if has_published else ''}{hint}; words are parts of "
            f"names, {', '.join(places)}, ours, 10epochs or paperbatch; --list alone shows what "
            "there is"
        )
    return rows


def _is_chosen(name: str, words: Sequence[str]) -> bool:
    cell = CELLS.get(name)
    if cell is not None and cell.is_variant:
        if name.rpartition("_")[2] not in [word.lower() for word in words]:
            return False
    marks = (*cell.places, cell.origin) if cell else ()
    return all(word.lower() in marks or _has_word(name, word) for word in words)


def _has_word(name: str, word: str) -> bool:
    # Of p100 and k2 nobody means p10000 and k20.
    whole = r"(?!\d)" if word[-1:].isdigit() else ""
    return re.search(rf"(?:^|_){re.escape(word)}{whole}", name, re.IGNORECASE) is not None


def _make_row(name: str, num_images: int, is_gpu: bool = False) -> Row:
    config = build_recipe(name)
    if name in CELLS:
        cell = CELLS[name]
        return Row(name, config, cell.gigaflops, f"on {cell.data.title}", num_images, cell)
    summary = (RECIPES[name].__doc__ or "").splitlines()[0]
    gigaflops = RECIPE_GIGAFLOPS[name]
    if is_fitted(name) and num_images:
        fitted = fit_recipe(config, num_images, is_gpu)
        if fitted.width != config.width:
            gigaflops = count_operations(fitted)
        config = fitted
    return Row(name, config, gigaflops, summary, num_images)


def describe_recipes(
    words: Sequence[str] = (),
    has_published: bool = False,
    num_images: int = 0,
    gpu: GpuName = "a100",
) -> str:
    """Return a table of recipes: steps, arithmetic, GPU-hours, and what was published.

    Args:
        words: as ``list_rows`` takes them.
        has_published: list every published figure with its protocol in place of the costs.
        num_images: of the data, for recipes for any.
        gpu: for the hours.

    Raises:
        InputError: if there is none.
    """
    rows = list_rows(words, has_published, num_images)
    return _describe_figures(rows) if has_published else _describe_costs(rows, gpu)


def _describe_costs(rows: list[Row], gpu: GpuName) -> str:
    table = [("recipe", "steps", "EFLOP", f"{gpu} h", "published")]
    for row in rows:
        known = row.steps or row.config.max_steps == 0
        costs = (f"{row.steps:,}", _round(row.exaflops), _round(row.gpu_hours(gpu)))
        table.append((row.name, *(costs if known else ("", "", "")), _describe_short(row)))
    widths = [max(len(line[i]) for line in table) for i in range(4)]
    lines = [
        "  ".join((name.ljust(widths[0]), *(c.rjust(w) for c, w in costs), last)).rstrip()
        for name, *middle, last in table
        for costs in [list(zip(middle, widths[1:], strict=True))]
    ]
    used = {figure.protocol for row in rows for figure in row.published[:1]}
    lines += ["", *_wrap(_explain(gpu)), *_describe_protocols(used)]
    return "\n".join(lines)


def _describe_short(row: Row) -> str:
    marks = {"ours": "ours", "remembered": "?"}
    said = [marks[row.cell.origin]] if row.cell and row.cell.origin in marks else []
    if row.published:
        first, *others = row.published
        more = f" +{len(others)}" if others else ""
        said.insert(0, f"{first.value} {_LETTERS[first.protocol]}{more}")
    return " ".join(said)


def _explain(gpu: GpuName) -> str:
    return (
        f"EFLOP: 10^18 operations of the whole run, as torch counts them. {gpu} h: hours of one at "
        f"{UTILISATION:.0%} of {PEAK_TFLOPS[gpu]:g} TFLOP/s, an assumption (--gpu "
        f"{'|'.join(PEAK_TFLOPS)}). Empty: depends on your data (--images N). ours: a row that no "
        "source has; ?: remembered of a source, not verified. +1: --published shows all figures."
    )


def _describe_figures(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        lines.append(row.name)
        for figure in row.published:
            what = f"  {figure.what}" if figure.what else ""
            what += " (remembered, not verified)" if figure.is_remembered else ""
            lines.append(f"    {figure.value:5} {figure.metric:4}  {figure.protocol}{what}")
    used = {figure.protocol for row in rows for figure in row.published}
    return "\n".join([*lines, "", *_describe_protocols(used, has_letters=False)])


def _describe_protocols(used: set[str], has_letters: bool = True) -> list[str]:
    lines: list[str] = []
    for name, protocol in PROTOCOLS.items():
        if name in used:
            letter = f"{_LETTERS[name]}  " if has_letters else ""
            lines += _wrap(f"{letter}{name}: {protocol.meaning}", "   ")
    return lines


def describe_overview(
    num_images: int,
    speed: float,
    device: str,
    is_gpu: bool = False,
    targets: Collection[str] = (),
) -> str:
    """Return what suits a number of photographs on a device, then the other recipes and studies.

    Args:
        num_images: photographs.
        speed: of the device, 10^9 operations a second.
        device: its name.
        is_gpu: whether it is one.
        targets: that the dataset has.
    """
    rows = [_make_row(name, num_images, is_gpu) for name in recipe_names(has_cells=False)]
    times = {row.name: row.exaflops * 1e9 / speed for row in rows}
    # What is made for any photographs and devices comes first.
    rows.sort(key=lambda row: (not is_fitted(row.name), times[row.name]))
    kinds = ("suits", "longer", "tries", "too few", "targets")
    parts: dict[str, list[Row]] = {kind: [] for kind in kinds}
    for row in rows:
        parts[_judge(row, num_images, times[row.name], targets)].append(row)
    lines = _wrap(
        f"For {spell_number(num_images, 'photograph')} on {device} (about {speed:,.0f} GFLOP/s; "
        "--images N or --data DATASET for another number), first what is made for any, then the "
        "shortest:"
    )
    for row in parts["suits"]:
        lines += _describe_timed(row, times[row.name])
    if not parts["suits"]:
        lines.append("  none")
    for part, said in (
        ("longer", f"Longer than {spell_duration(SUITS_S)} here:"),
        ("too few", "Too few photographs for a batch of:"),
        ("targets", "Not of photographs alone, but of a dataset with the target that they learn:"),
    ):
        if parts[part]:
            lines += ["", said]
            for row in parts[part]:
                lines += _describe_timed(row, times[row.name])
    tries = ", ".join(row.name for row in parts["tries"])
    lines += ["", *_wrap(f"To try the path in a few steps: {tries}.")] if tries else []
    lines += ["", "Cells of studies, by words (--list goyal19 table1, --list rotation revnet50):"]
    for study in ("goyal19", "kolesnikov19", "newell20"):
        cells = [cell for name, cell in CELLS.items() if name.startswith(study)]
        places = sorted({place for cell in cells for place in cell.places})
        number = sum(not cell.is_variant for cell in cells)
        lines += _name_and_say(study, f"{spell_number(number, 'cell')}; {', '.join(places)}")
    lines += _wrap("--published: figures that are known; --json FILE: all of it for programs.")
    return "\n".join(lines)


def _judge(row: Row, num_images: int, seconds: float, targets: Collection[str]) -> str:
    config = row.config
    if getattr(find_task(config.task.name), "target", "") not in ("", *targets):
        return "targets"
    if config.max_steps is not None and config.max_steps < _FEW_STEPS:
        return "tries"
    if config.data.global_batch_size > num_images:
        return "too few"
    return "suits" if seconds < SUITS_S else "longer"


def _describe_timed(row: Row, seconds: float) -> list[str]:
    config = row.config
    what = f"{config.trunk} x{config.width}, batch {config.data.global_batch_size}"
    summary = _MEASURED.sub("", row.summary)  # on another machine
    return _name_and_say(row.name, f"{spell_duration(seconds)}. {summary} {what}")


def _name_and_say(name: str, said: str) -> list[str]:
    return _wrap(f"  {name.ljust(36)}  {said}", " " * 40)


def _wrap(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, LINE, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def spell_duration(seconds: float) -> str:
    """Return a duration as people write it: 40 s, 12 min, 3 h, 5 days, 1,200 years."""
    for length, unit in _UNITS:
        if seconds >= 2 * length or unit == "s":
            return f"{max(seconds / length, 1):,.0f} {unit}"
    raise AssertionError(seconds)


def _round(value: float) -> str:
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}" if value else "0"
