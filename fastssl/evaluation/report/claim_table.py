"""The claims of Newell and Deng 2020 beside what curves here say of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ..label_claims import Claim, judge_claims
from .entries import Entry, choose_rows
from .label_lines import Told, choose_main, group_by, name_curves
from .label_tables import LINEAR, find_linear
from .pieces import Markup, note, table, text

_WORDS = {
    "agrees": "here too",
    "disagrees": "not here",
    "cannot tell": "these results do not tell",
}


def render_claims(told: Sequence[Told], entries: Sequence[Entry]) -> str:
    """Return the study's claims and what was found; empty without two methods by its protocol.

    Args:
        told: all curves.
        entries: from ``prepare``, with results of linear classifiers.
    """
    claims = find_claims(told, entries)
    if not claims:
        return ""
    words = note(
        "What Newell and Deng 2020 claim, beside these curves; a difference counts where it is "
        "larger than the deviation of the seeds. Points over scratch are means over the label "
        "counts, with their standard error."
    )
    rows = [
        [
            claim.text,
            _WORDS[claim.verdict],
            Markup("<br>".join(text(line) for line in claim.measured)),
        ]
        for claim in claims
    ]
    return words + table(["claim", "here", "found"], rows, num_words=3)


def find_claims(told: Sequence[Told], entries: Sequence[Entry]) -> list[Claim]:
    """Judge the claims by the curves of the study's protocol.

    Args:
        told: all curves.
        entries: from ``prepare``.
    """
    linear_rows = [
        e
        for e in choose_rows([e for e in entries if not e.result.is_published])
        if e.result.task in LINEAR
    ]
    savings, linear = {}, {}
    of_study = [one for one in told if one.curve.key.ground.protocol == "newell20"]
    for members in group_by(of_study, lambda one: one.place).values():
        main = [one for one in choose_main(members) if one.savings is not None]
        for one, name in zip(main, name_curves(main), strict=True):
            assert one.savings is not None
            data, task = one.entry.data, one.curve.key.ground.task
            savings[data, task, name] = one.savings
            found = find_linear(one, linear_rows)
            if found:
                linear[data, name] = fmean(entry.result.value for entry in found)
    return judge_claims(savings, linear) if len({key[2] for key in savings}) > 1 else []
