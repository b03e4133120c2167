"""What pretraining saves of labels, in pictures: those of Newell and Deng 2020."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ...errors import InputError
from ..label_curves import Network
from ..label_savings import Savings, find_baseline, measure_savings
from .claim_table import render_claims
from .entries import Entry, is_share, name_metric
from .label_lines import (
    SCRATCH,
    Told,
    choose_main,
    draw_accuracy,
    draw_ceiling,
    draw_utility,
    gather,
    group_by,
    name_curves,
    name_network,
    title_of,
)
from .label_tables import render_numbers, render_ranks, render_transfer
from .line_charts import MAX_LINES, Chart, Line, draw_lines
from .pieces import cards, fold, note, section, text

_READING = (
    "Utility: the labels that training from scratch needs for the same accuracy, over those used, "
    "less 1. At 0 pretraining saves nothing, at 3 three quarters of the labels. In the grey region "
    "the accuracy is beyond all that was reached from scratch: an arrow stands on the least that "
    "the utility can be. Lines are means of seeds, bars one deviation."
)
_MAX_CHARTS = 8
"""Of a picture; more of them fold away."""

Charts = list[tuple[str, str]]


def render_labels(entries: Sequence[Entry], findings: Mapping[str, str]) -> str:
    """Return the section of curves over label counts; empty where results hold none.

    Args:
        entries: from ``prepare``.
        findings: what a study says of a picture, by the picture's name.
    """
    told, said = gather(entries)
    if not told:
        return note(" ".join(said)) if said else ""
    colors = _choose_colors(told)
    pictures = (
        ("labels_saved", "Accuracy and utility over labels", _draw_methods(told, colors)),
        ("freezing", "Frozen stages", _draw_freezing(told)),
        ("budget", "Length and data of pretraining", _draw_budgets(told)),
        ("halves", "Half networks", _draw_halves(told)),
        ("networks", "Networks", _draw_networks(told)),
    )
    body = ""
    for name, title, charts in pictures:
        if charts:
            body += f"<h3>{text(title)}</h3>" + _find(findings, name) + _lay_out(charts)
        if name == "labels_saved":
            body += render_numbers(told)
        if name == "freezing" and (matrix := render_transfer(told)):
            body += f"<h3>Transfer between data</h3>{_find(findings, 'transfer')}{matrix}"
    if ranks := render_ranks(told, entries, colors):
        body += f"<h3>Linear against fine-tuned</h3>{_find(findings, 'ranks')}{ranks}"
    if claims := render_claims(told, entries):
        body += f"<h3>The study's claims</h3>{claims}"
    if said:
        body += note(" ".join(said))
    return section("Labels saved", note(_READING) + body)


def _find(findings: Mapping[str, str], name: str) -> str:
    return note(findings[name]) if name in findings else ""


def _lay_out(charts: Charts) -> str:
    shown = cards(charts[:_MAX_CHARTS])
    rest = charts[_MAX_CHARTS:]
    return shown + (fold(f"{len(rest)} more", cards(rest)) if rest else "")


def _choose_colors(told: Sequence[Told]) -> dict[str, int]:
    """Return the colour of each method: the same in every chart that compares them."""
    methods = dict.fromkeys(one.method for one in told if one.curve.key.beginning.is_pretrained)
    return {method: number for number, method in enumerate(methods)}


# --- The pictures ---------------------------------------------------------------------------------


def _draw_methods(told: Sequence[Told], colors: Mapping[str, int]) -> Charts:
    """Return accuracy and utility of all methods, a pair a task, data set and network."""
    charts: Charts = []
    for members in group_by(told, lambda one: one.place).values():
        main = choose_main([one for one in members if one.curve.key.beginning.is_pretrained])
        fresh = [one for one in _list_fresh(members) if _is_whole(one)]
        charts += _draw_pairs(main, fresh, title_of(members[0]), colors)
    return charts


def _draw_freezing(told: Sequence[Told]) -> Charts:
    """Return accuracy and utility of a trunk by the stages that did not learn."""
    charts: Charts = []
    pretrained = [one for one in told if one.curve.key.beginning.is_pretrained]
    for members in group_by(pretrained, lambda one: (one.place, *_trunk_of(one))).values():
        frozen = {one.curve.key.frozen_stages for one in members}
        if len(frozen) > 1:
            members = sorted(members, key=lambda one: one.curve.key.frozen_stages)
            names = [_name_frozen(one.curve.key.frozen_stages) for one in members]
            charts += _draw_varied(told, members, names, members[0].method)
    return charts


def _name_frozen(stages: int) -> str:
    if not stages:
        return "nothing frozen"
    return "1 stage frozen" if stages == 1 else f"{stages} stages frozen"


def _draw_budgets(told: Sequence[Told]) -> Charts:
    """Return accuracy and utility by the steps and images of pretraining."""
    charts: Charts = []
    moving = [one for one in told if _is_moving(one) and one.curve.key.beginning.step]
    same = group_by(
        moving, lambda one: (one.place, one.curve.key.network, one.method, one.entry.pretrain_data)
    )
    for members in same.values():
        budgets = {(b.step, b.num_images) for b in (one.curve.key.beginning for one in members)}
        if len(budgets) > 1:
            charts += _draw_varied(told, members, name_curves(members), members[0].method)
    return charts


def _draw_halves(told: Sequence[Told]) -> Charts:
    """Return what half networks reach from scratch, and the utility against each."""
    charts: Charts = []
    for members in group_by(told, lambda one: one.place).values():
        halves = [one for one in members if not _is_whole(one)]
        fresh = _list_fresh(halves)
        if not fresh:
            continue
        main = choose_main([one for one in halves if one.curve.key.beginning.is_pretrained])
        shown = [*_list_fresh(members), *main]
        lines = [
            draw_accuracy(one, _name_whole(one), None if _is_whole(one) else number)
            for number, one in enumerate(shown)
        ]
        title = title_of(members[0])
        charts.append(_make_accuracy(title, "Half networks", members[0], lines))
        charts += _draw_against_both(title, main, fresh[0], told)
    return charts


def _draw_against_both(
    title: str, main: Sequence[Told], half: Told, told: Sequence[Told]
) -> Charts:
    curves = [one.curve for one in told]
    lines: list[Line] = []
    savings: list[Savings] = []
    for one in main:
        for network in (one.curve.key.network.whole, half.curve.key.network):
            try:
                against = measure_savings(one.curve, find_baseline(one.curve, curves, network))
            except InputError:  # the section says which is missing
                continue
            name = f"{one.method} against {_name_short(network)}"
            lines.append(draw_utility(against, name, len(lines)))
            savings.append(against)
    if not lines:
        return []
    chart = _make_utility(title, "Half networks", lines[:MAX_LINES])
    return [(draw_lines(replace(chart, ceiling=draw_ceiling(savings))), "")]


def _name_short(network: Network) -> str:
    return "the whole network" if network == network.whole else "its halves"


def _name_whole(told: Told) -> str:
    what = "whole" if _is_whole(told) else "halves"
    return f"{what} {SCRATCH}" if told.method == SCRATCH else f"halves, {told.method}"


def _draw_networks(told: Sequence[Told]) -> Charts:
    """Return a method's utility by network, each against its own from scratch."""
    charts: Charts = []
    pretrained = [one for one in told if _is_moving(one) and one.savings is not None]
    for members in group_by(pretrained, lambda one: (one.curve.key.ground, one.method)).values():
        main = choose_main(members)
        networks = dict.fromkeys(one.curve.key.network.whole for one in main)
        if len(networks) > 1:
            names = [name_network(one.curve.key.network) for one in main]
            title = f"{main[0].method}: {title_of(main[0], has_network=False)}"
            charts += _draw_utilities(title, "Networks", main, names, range(len(main)))
    return charts


# --- Charts ---------------------------------------------------------------------------------------


def _draw_pairs(
    main: Sequence[Told], fresh: Sequence[Told], title: str, colors: Mapping[str, int]
) -> Charts:
    """Return accuracy and utility of curves, six at most in a chart."""
    charts: Charts = []
    names = name_curves(main)
    for start in range(0, max(len(main), 1), MAX_LINES):
        part, called = main[start : start + MAX_LINES], names[start : start + MAX_LINES]
        numbers = [colors[one.method] for one in part]
        if len({number % MAX_LINES for number in numbers}) < len(part):
            numbers = [*range(len(part))]
        lines = [
            draw_accuracy(one, name, number)
            for one, name, number in zip(part, called, numbers, strict=True)
        ]
        lines = [*(draw_accuracy(one, SCRATCH, None) for one in fresh), *lines]
        if not any(len(line.points) > 1 for line in lines):
            continue
        of = (part or fresh)[0]
        charts.append(_make_accuracy(title, "Accuracy", of, lines))
        charts += _draw_utilities(title, "Utility", part, called, numbers)
    return charts


def _draw_varied(
    told: Sequence[Told], members: Sequence[Told], names: Sequence[str], what: str
) -> Charts:
    """Return accuracy and utility of one method's curves, which differ in something else."""
    first = members[0]
    fresh = [one for one in _list_fresh(told) if one.place == first.place and _is_whole(one)]
    title = f"{what}: {title_of(first)}"
    lines = [*(draw_accuracy(one, SCRATCH, None) for one in fresh)]
    chunk = members[:MAX_LINES]
    lines += [
        draw_accuracy(one, name, number)
        for number, (one, name) in enumerate(zip(chunk, names, strict=False))
    ]
    kind = "; ".join(names)
    return [
        _make_accuracy(title, kind, first, lines),
        *_draw_utilities(title, kind, chunk, names[:MAX_LINES], range(len(chunk))),
    ]


def _draw_utilities(
    title: str, kind: str, told: Sequence[Told], names: Sequence[str], colors: Sequence[int]
) -> Charts:
    with_savings = [
        (one.savings, name, color)
        for one, name, color in zip(told, names, colors, strict=True)
        if one.savings is not None and len(one.savings.utility.counts) > 1
    ]
    if not with_savings:
        return []
    lines = [draw_utility(savings, name, color) for savings, name, color in with_savings]
    ceiling = draw_ceiling([savings for savings, *_ in with_savings])
    seeds = sorted({len(one.curve.seeds) for one in told})
    chart = replace(_make_utility(title, kind, lines), ceiling=ceiling)
    return [(draw_lines(chart), _say_seeds(seeds))]


def _make_accuracy(title: str, kind: str, of: Told, lines: Sequence[Line]) -> tuple[str, str]:
    metric = of.curve.key.ground.metric
    digest = of.curve.key.ground.test_digest
    chart = Chart(
        title,
        f"Accuracy over labels, {kind}: {title} {digest}",
        "labels",
        name_metric(metric),
        "log",
        tuple(lines),
        unit="share" if is_share(metric) else "",
        has_legend=True,
    )
    return draw_lines(chart), f"Split: {of.curve.key.ground.split}."


def _make_utility(title: str, kind: str, lines: Sequence[Line]) -> Chart:
    return Chart(
        title,
        f"Utility over labels, {kind}: {title}",
        "labels",
        "utility",
        "log",
        tuple(lines),
        references=(("saves nothing", 0.0),),
        unit="",
        has_legend=True,
    )


def _say_seeds(numbers: Sequence[int]) -> str:
    said = " or ".join(map(str, numbers))
    return "One seed." if numbers == [1] else f"{said} seeds."


def _list_fresh(told: Sequence[Told]) -> list[Told]:
    return [
        one
        for one in told
        if not one.curve.key.beginning.is_pretrained and not one.curve.key.frozen_stages
    ]


def _is_whole(told: Told) -> bool:
    return told.curve.key.network == told.curve.key.network.whole


def _is_moving(told: Told) -> bool:
    return told.curve.key.beginning.is_pretrained and not told.curve.key.frozen_stages


def _trunk_of(told: Told) -> Iterator[object]:
    yield from (told.curve.key.network, told.curve.key.beginning, told.curve.trunk_digests)
