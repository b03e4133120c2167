"""What pretraining saves of labels, in numbers: curves, transfer between data, two rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from .entries import Entry, choose_rows, is_share, name_metric, spell_value
from .label_lines import (
    Told,
    choose_main,
    choose_middle,
    group_by,
    name_curves,
    name_network,
    say_counts,
    take_mean,
    title_of,
)
from .line_charts import MAX_LINES, Chart, Line, Point, draw_scatter, spell_count
from .pieces import Markup, cards, fold, note, stacked, table, text

LINEAR = ("linear", "logistic")
"""Tasks that fit a linear classifier to a frozen trunk."""


# --- All curves -----------------------------------------------------------------------------------


def render_numbers(told: Sequence[Told]) -> str:
    """Return every curve as a row, folded: means, deviations and utility at every count.

    Args:
        told: all curves.
    """
    tables = ""
    for members in group_by(told, lambda one: one.place).values():
        counts = sorted({int(count) for one in members for count in one.curve.counts})
        names = name_curves(members)
        rows: list[list[str]] = []
        for one, name in zip(members, names, strict=True):
            seeds = len(one.curve.seeds)
            row: list[str] = [stacked(name, "one seed" if seeds == 1 else f"{seeds} seeds")]
            rows.append(row + [_spell_cell(one, count) for count in counts])
        header = [name_metric(members[0].curve.key.ground.metric)]
        header += [spell_count(count) for count in counts]
        tables += f"<h4>{text(title_of(members[0]))}</h4>{table(header, rows)}"
    return fold("Every curve in numbers: accuracy, and below it utility U", tables)


def _spell_cell(told: Told, count: int) -> str:
    curve = told.curve
    columns = np.flatnonzero(curve.counts == count)
    if not len(columns):
        return ""
    at = columns[0]
    metric, many = curve.key.ground.metric, len(curve.seeds) > 1
    value = _spell(metric, float(curve.mean[at]), float(curve.std[at]), many)
    if told.savings is None:
        return value
    found = told.savings.utility
    sign = "\u2265 " if told.savings.is_bound[at] else ""
    spread = f" \u00b1 {found.std[at]:.2g}" if many else ""
    return stacked(value, f"U {sign}{found.mean[at]:.3g}{spread}")


def _spell(metric: str, mean: float, std: float, has_spread: bool) -> str:
    if not has_spread:
        return spell_value(metric, mean)
    if is_share(metric):
        return f"{100 * mean:.1f} \u00b1 {100 * std:.1f} %"
    return f"{mean:.4g} \u00b1 {std:.2g}"


# --- Transfer between data ------------------------------------------------------------------------


def render_transfer(told: Sequence[Told]) -> str:
    """Return tables of what is lost by pretraining on other data, in points; empty without two.

    Args:
        told: all curves.
    """
    pretrained = [
        one
        for one in told
        if one.curve.key.beginning.is_pretrained
        and not one.curve.key.frozen_stages
        and one.entry.pretrain_data
    ]
    tables = ""
    for members in group_by(pretrained, _line_of).values():
        rows, counts = _compare(members)
        if rows:
            first = members[0]
            ground = first.curve.key.ground
            title = f"{first.method}: {ground.task} ({ground.protocol}), "
            title += name_network(first.curve.key.network)
            targets = list(dict.fromkeys(target for _, target in rows))
            tables += f"<h4>{text(title)}</h4>{_tabulate(rows, targets, counts)}"
    if not tables:
        return ""
    words = note(
        "Accuracy, in points, above or below that of the same method pretrained on the target "
        "data itself (0 by definition), mean over labels and seeds; rows: pretrained on, columns: "
        "fine-tuned and tested on. The deeper the colour, the more is lost."
    )
    return words + tables


def _line_of(told: Told) -> tuple[object, ...]:
    key = told.curve.key
    ground = replace(key.ground, train_digest="", test_digest="", split="")
    return ground, key.network, replace(key.beginning, data="", trunk_digest="")


def _compare(members: Sequence[Told]) -> tuple[dict[tuple[str, str], float], list[int]]:
    """Return the change by (pretrained on, target), and the label counts that it is the mean of."""
    changes: dict[tuple[str, str], float] = {}
    used: set[int] = set()
    for of_target in group_by(members, lambda one: one.curve.key.ground).values():
        own = next((one for one in of_target if one.is_own), None)
        if own is None or len(of_target) < 2:
            continue
        for one in of_target:
            counts = choose_middle([own.curve, one.curve])
            if counts:
                used |= {*counts}
                change = take_mean(one.curve, counts) - take_mean(own.curve, counts)
                changes[one.entry.pretrain_data, one.entry.train_data] = change
    return changes, sorted(used)


def _tabulate(
    changes: Mapping[tuple[str, str], float], targets: Sequence[str], counts: Sequence[int]
) -> str:
    worst = min(changes.values())
    rows: list[list[str]] = []
    for source in dict.fromkeys(source for source, _ in changes):
        cells = [_shade(changes.get((source, target)), worst) for target in targets]
        rows.append([source, *cells])
    return table([f"pretrained on; {say_counts(counts)}", *targets], rows)


def _shade(change: float | None, worst: float) -> str:
    if change is None:
        return ""
    if not change:
        return "0"
    # At most so deep that text on it stays readable in both themes.
    depth = round(40 * change / worst) if worst < 0 and change < 0 else 0
    style = f"background: color-mix(in srgb, var(--series-2) {depth}%, transparent)"
    return Markup(f'<span class="cell" style="{style}">{100 * change:+.1f}</span>')


# --- Linear against fine-tuned --------------------------------------------------------------------


def render_ranks(told: Sequence[Told], entries: Sequence[Entry], colors: Mapping[str, int]) -> str:
    """Return how methods rank by a linear classifier and by fine-tuning; empty without two.

    Args:
        told: all curves.
        entries: from ``prepare``, with results of linear classifiers and published ones.
        colors: of the methods.
    """
    ours = [entry for entry in entries if not entry.result.is_published]
    linear = [e for e in choose_rows(ours) if e.result.task in LINEAR]
    known = [e for e in entries if e.result.is_published and e.result.task in LINEAR]
    body = ""
    charts = []
    for members in group_by(told, lambda one: one.place).values():
        if members[0].curve.key.ground.task != "finetune":  # of labels, as linear classifiers are
            continue
        main = choose_main([one for one in members if one.curve.key.beginning.is_pretrained])
        found = {id(one): find_linear(one, linear) for one in main}
        both = [one for one in main if found[id(one)]]
        counts = choose_middle([one.curve for one in both]) if both else []
        if len(both) < 2 or not counts:
            continue
        names = name_curves(both)
        pairs = [
            (fmean(e.result.value for e in found[id(one)]), take_mean(one.curve, counts))
            for one in both
        ]
        title = title_of(both[0])
        published = [_find_published(one, found[id(one)], known) for one in both]
        body += f"<h4>{text(title)}</h4>" + _rank(both, names, pairs, published, counts)
        if len(both) <= MAX_LINES:
            charts.append((_draw_ranks(title, both, names, pairs, counts, colors), ""))
    if not body:
        return ""
    words = note(
        "A linear classifier on the frozen trunk and all labels, beside the same trunk fine-tuned "
        "with few: where the ranks differ, the one does not tell what the other is worth."
    )
    return words + body + cards(charts)


def find_linear(told: Told, linear: Sequence[Entry]) -> list[Entry]:
    """Return the results of linear classifiers on a curve's trunks, by its data.

    Args:
        told: the curve.
        linear: results of ``LINEAR`` tasks.
    """
    ground = told.curve.key.ground
    return [
        entry
        for entry in linear
        if entry.result.trunk_digest in told.curve.trunk_digests
        and entry.result.test_digest == ground.test_digest
        and entry.result.train_digest == ground.train_digest
        and entry.result.metric in ("top1", "accuracy")
    ]


def _find_published(told: Told, mine: Sequence[Entry], known: Sequence[Entry]) -> str:
    recipe, data = told.curve.key.beginning.recipe, mine[0].data
    of_recipe = [e for e in known if e.result.recipe == recipe and e.data == data]
    said = (spell_value(e.result.metric, e.result.value) for e in of_recipe)
    return " / ".join(dict.fromkeys(said))


def _rank(
    told: Sequence[Told],
    names: Sequence[str],
    pairs: Sequence[tuple[float, float]],
    published: Sequence[str],
    counts: Sequence[int],
) -> str:
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    metric = told[0].curve.key.ground.metric
    header = ["pretrained by", "linear", "rank", "published"]
    header += [f"fine-tuned, {say_counts(counts)}", "rank", "utility there"]
    rows: list[list[str]] = []
    for one, name, (linear, tuned), said in zip(told, names, pairs, published, strict=True):
        row = [name, spell_value("top1", linear), _place(linear, first)]
        row += [Markup(f'<span class="published">{text(said)}</span>') if said else ""]
        row += [spell_value(metric, tuned), _place(tuned, second), _spell_utility(one, counts)]
        rows.append(row)
    rows.sort(key=lambda row: int(row[5]))
    if not any(published):
        header, *rows = ([*row[:3], *row[4:]] for row in (header, *rows))
    return table(header, rows)


def _place(value: float, values: Sequence[float]) -> str:
    return f"{1 + sum(other > value for other in values)}"


def _spell_utility(told: Told, counts: Sequence[int]) -> str:
    if told.savings is None:
        return ""
    chosen = np.isin(told.curve.counts, counts)
    sign = "\u2265 " if told.savings.is_bound[chosen].any() else ""
    return f"{sign}{told.savings.utility.mean[chosen].mean():.3g}"


def _draw_ranks(
    title: str,
    told: Sequence[Told],
    names: Sequence[str],
    pairs: Sequence[tuple[float, float]],
    counts: Sequence[int],
    colors: Mapping[str, int],
) -> str:
    numbers = [colors[one.method] for one in told]
    if len({number % MAX_LINES for number in numbers}) < len(told):
        numbers = [*range(len(told))]
    lines = tuple(
        Line(name, (Point(x, y, y, y),), number)
        for name, number, (x, y) in zip(names, numbers, pairs, strict=True)
    )
    metric = told[0].curve.key.ground.metric
    chart = Chart(
        title,
        f"Linear against fine-tuned: {title} {told[0].curve.key.ground.test_digest}",
        "linear classifier, all labels",
        f"fine-tuned, {say_counts(counts)}",
        "linear",
        lines,
        unit="share" if is_share(metric) else "",
        x_unit="share",
    )
    return draw_scatter(chart)
