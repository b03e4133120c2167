"""The claims of Newell and Deng 2020, held against curves made by a formula."""

from __future__ import annotations

import pytest

from fastssl.evaluation.label_claims import find_end, find_saturation, judge_claims
from fastssl.evaluation.label_curves import make_curve
from fastssl.evaluation.label_savings import measure_savings
from fastssl.evaluation.report import Entry, prepare
from fastssl.evaluation.report.label_pictures import render_labels
from fastssl.studies.published import find_facts
from tests.evaluation.test_result_report import PUBLISHED
from tests.label_results import NAMES, make_curve_results, make_study

# From 4,000 labels on more of them bring less than a point.
EARLY = {"knee": 50.0, "low": 0.2}


def save(gain, fades, task="finetune", spread=0.004, **of):
    scratch = make_curve(make_curve_results(task=task, spread=spread, **of))
    tuned = make_curve_results(gain, fades, start="pretrained", task=task, spread=spread, **of)
    return measure_savings(make_curve(tuned), scratch)


def judge(savings, linear=None):
    return {claim.text.split()[1]: claim for claim in judge_claims(savings, linear or {})}


def test_saturation_is_where_more_labels_bring_less_than_a_point():
    assert find_saturation(save(1, 100, learns=EARLY).baseline) == 4000
    assert find_saturation(save(1, 100, counts=(100, 250, 1000)).baseline) is None


def test_the_end_of_saving_is_the_first_count_without_a_clear_one():
    assert find_end(save(0.0, 100)) == 100
    assert find_end(save(9.0, 30.0, spread=0.02)) == 20_000
    assert find_end(save(5.0, 1e9, counts=(100, 250, 1000, 4000))) is None


@pytest.mark.parametrize(
    ("savings", "verdict"),
    [
        (save(9.0, 30.0, spread=0.02), "agrees"),
        (save(9.0, 1e6, learns={"knee": 50.0}), "disagrees"),
    ],
)
def test_utility_that_ends_before_saturation(savings, verdict):
    claim = judge({("TCVL", "finetune", "cmc"): savings})["falls"]
    assert claim.verdict == verdict
    assert len(claim.measured) == 2
    assert claim.measured[0].endswith("of 1 curve that tells")


def test_the_best_method_is_one_that_is_ahead_by_more_than_the_seeds_differ():
    high, low = save(3.0, 2000.0), save(0.5, 2000.0)
    high_pose, low_pose = (save(g, 2000.0, "pose") for g in (3.0, 0.5))
    one = {("TCVL", "finetune", "cmc"): high, ("TCVL", "finetune", "vae"): low}
    same = {("TCVL", "pose", "cmc"): high_pose, ("TCVL", "pose", "vae"): low_pose}
    other = {("TCVL", "pose", "cmc"): low_pose, ("TCVL", "pose", "vae"): high_pose}
    near = {("TCVL", "pose", "cmc"): high_pose, ("TCVL", "pose", "vae"): save(2.98, 2000.0, "pose")}
    assert judge(one | same)["best"].verdict == "disagrees"
    assert judge(one | other)["best"].verdict == "agrees"
    assert judge(one | near)["best"].verdict == "cannot tell"
    assert "cmc +" in judge(one)["best"].measured[0]


def test_ranks_differ_where_a_pair_is_turned_by_more_than_the_seeds_differ():
    savings = {
        ("TCVL", "finetune", "cmc"): save(3.0, 2000.0),
        ("TCVL", "finetune", "amdim"): save(0.5, 2000.0),
    }
    turned = judge(savings, {("TCVL", "cmc"): 0.6, ("TCVL", "amdim"): 0.7})["rank"]
    assert turned.verdict == "agrees"
    assert "cmc before amdim" in turned.measured[0]
    kept = judge(savings, {("TCVL", "cmc"): 0.7, ("TCVL", "amdim"): 0.6})["rank"]
    assert kept.verdict == "disagrees"
    assert "rank" not in judge(savings)


def test_the_page_lays_claims_beside_what_was_found():
    entries = [Entry(result, find_facts(result.recipe)) for result in make_study()]
    page = render_labels(prepare([*entries, *PUBLISHED], NAMES), {})
    part = page.partition("The study&#39;s claims")[2] or page.partition("The study's claims")[2]
    for words in ("utility falls to zero", "the best method depends", "the rank of linear"):
        assert words in part
    assert "points over scratch" in part
