"""Curves over label counts from results alone, and what may not be compared."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.evaluation import utility
from fastssl.evaluation.label_curves import Network, group_results, is_on_curve, make_curve
from fastssl.evaluation.label_savings import (
    find_baseline,
    find_limit,
    measure_savings,
    tell_savings,
)
from fastssl.runs.result import Result
from tests.label_results import COUNTS, learn, make_curve_results, make_result

PRETRAINED = {"start": "pretrained"}
SCRATCH = make_curve_results()
CMC = make_curve_results(4.0, **PRETRAINED)


def curves(*results):
    return [make_curve(group) for group in group_results(results)]


def change(result, **fields):
    return dataclasses.replace(result, **fields)


# --- From results to curves -----------------------------------------------------------------------


def test_seeds_are_rows_and_label_counts_columns():
    (curve,) = curves(*SCRATCH[::-1])
    assert curve.counts.tolist() == [*COUNTS]
    assert curve.seeds == (0, 1, 2)
    np.testing.assert_allclose(curve.mean, learn(COUNTS))
    np.testing.assert_allclose(curve.accuracies[1], learn(COUNTS))
    np.testing.assert_allclose(curve.std[0], np.std([-0.01, 0, 0.01]) / 1.1)
    assert curve.left_out == ()


def test_results_of_other_evaluations_are_no_points():
    assert is_on_curve(SCRATCH[0])
    assert not is_on_curve(Result("linear", "newell20", "top1", 0.5))
    assert not is_on_curve(change(SCRATCH[0], is_published=True))
    odd = {**SCRATCH[0].settings, "num_labels": "many"}
    assert not is_on_curve(change(SCRATCH[0], settings=odd))
    assert group_results([Result("linear", "newell20", "top1", 0.5)]) == []


def test_all_labels_are_as_many_as_there_were():
    (curve,) = curves(make_result(0, 0.5, details={"num_train": 777}))
    assert curve.counts.tolist() == [777]


@pytest.mark.parametrize(
    "other",
    [
        {"variant": "T---"},
        {"split": "another"},
        {"task": "pose"},
        {"frozen": 1},
        {"trunk": "resnet50_newell"},
        {"recipe": "newell20_vae_resnet9"},
        {"pretrained_on": "----"},
        {"step": 500},
        {"details": {"pretrain_images": 50_000}},
        {"settings": {"head": "mlp"}},
        {"settings": {"width": 1}},
        {"settings": {"epochs": 3.0}},
    ],
)
def test_what_differs_parts_curves_and_never_mixes(other):
    more = make_curve_results(4.0, **{**PRETRAINED, **other})
    assert len(group_results(CMC + more)) == 2
    with pytest.raises(InputError, match=r"must not differ in|were trained in different ways"):
        make_curve(CMC + more)


def test_a_trunk_for_each_seed_is_a_repeat_and_two_of_one_seed_are_two_curves():
    own = [change(result, trunk_digest=f"{result.seed}" * 64) for result in CMC]
    (curve,) = curves(*own)
    assert curve.trunk_digests == ("0" * 64, "1" * 64, "2" * 64)
    other = [change(result, trunk_digest="f" * 64) for result in CMC]
    assert len(curves(*CMC, *other)) == 2
    with pytest.raises(InputError, match="seed 0 are of two trunks"):
        make_curve(CMC + other)


def test_trunks_without_a_recipe_are_told_apart_by_their_weights():
    foreign = [change(result, recipe="", step=0) for result in CMC]
    other = [change(result, trunk_digest=f"{result.seed}" * 64) for result in foreign]
    assert len(curves(*foreign, *other)) == 4


def test_a_figure_twice_is_one_and_two_that_differ_contradict():
    assert curves(*SCRATCH, *SCRATCH)[0].accuracies.shape == (3, 7)
    with pytest.raises(InputError, match=r"seed 0 with 100 labels contradict .*0\.123"):
        curves(*SCRATCH, change(SCRATCH[0], value=0.123))


def test_of_seeds_that_lack_counts_the_largest_block_stands_and_the_rest_is_said():
    lacking = [r for r in SCRATCH if r.seed != 1 or r.settings["num_labels"] != 4000]
    (curve,) = curves(*lacking)
    # Three seeds at six counts are more than two at seven.
    assert curve.seeds == (0, 1, 2)
    assert curve.left_out == ("4,000 labels, which not every seed has",)
    begun = [r for r in SCRATCH if r.seed != 1 or r.settings["num_labels"] < 1000]
    (curve,) = curves(*begun)
    assert curve.seeds == (0, 2)
    assert curve.counts.tolist() == [*COUNTS]
    assert curve.left_out == ("seed 1, which lacks 1,000, 4,000, 20,000, 50,000, 100,000 labels",)


# --- What is saved --------------------------------------------------------------------------------


def test_utility_is_that_of_the_function_on_rows_of_seeds():
    curve, baseline = curves(*CMC, *SCRATCH)
    found = measure_savings(curve, find_baseline(curve, [curve, baseline]))
    wanted = utility(baseline.counts, baseline.accuracies, curve.accuracies)
    np.testing.assert_array_equal(found.utility.values, wanted.values)
    # Straight lines between counts lie below the formula's curve, and read off a little more.
    truth = 4 / (1 + np.array(COUNTS) / 2000)
    assert (found.utility.mean[:3] >= truth[:3]).all()
    np.testing.assert_allclose(found.labels, found.utility.mean * COUNTS)
    assert found.to_json()["grey_above"][0] == 999


def test_the_grey_region_is_entered_between_two_counts():
    scratch = [make_result(n, y) for n, y in ((100, 0.5), (1000, 0.8))]
    better = [make_result(n, y, **PRETRAINED) for n, y in ((100, 0.7), (1000, 0.9))]
    baseline, curve = curves(*scratch, *better)
    found = measure_savings(curve, baseline)
    # 0.7 takes 700 from scratch; 0.8 lies half way from 100 to 1000.
    np.testing.assert_allclose(found.utility.mean, [6, 0])
    assert found.is_bound.tolist() == [False, True]
    assert found.is_clear.tolist() == [True, False]
    np.testing.assert_allclose(found.find_edge(), (550, 1000 / 550 - 1))
    assert measure_savings(baseline, baseline).find_edge() is None


def test_the_curve_from_scratch_may_have_other_counts():
    few = [r for r in CMC if r.settings["num_labels"] in (250, 1000)]
    curve, baseline = curves(*few, *SCRATCH)
    whole, _ = curves(*CMC, *SCRATCH)
    wanted = measure_savings(whole, baseline).utility.values[:, 1:3]
    np.testing.assert_array_equal(measure_savings(curve, baseline).utility.values, wanted)


def test_half_networks_are_measured_against_the_whole_one():
    halves = make_curve_results(4.0, trunk="resnet9_halves", **PRETRAINED)
    own = make_curve_results(trunk="resnet9_halves", learns={"top": 0.88})
    made = curves(*halves, *own, *SCRATCH)
    assert find_baseline(made[0], made).key.network == Network("resnet9", 4)
    half = find_baseline(made[0], made, made[0].key.network)
    assert half.key.network == Network("resnet9_halves", 4)
    with pytest.raises(InputError, match="wanted resnet9 of width 4"):
        find_baseline(made[0], made[:2])


def test_frozen_trunks_are_measured_against_one_that_learns_as_a_whole():
    frozen = make_curve_results(3.0, frozen=2, **PRETRAINED)
    still = make_curve_results(frozen=2)
    made = curves(*frozen, *still, *SCRATCH)
    assert find_baseline(made[0], made).key.frozen_stages == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "T---"}, "differs in train_digest"),
        ({"split": "stratified 80/20 by seed 1"}, "differs in split .*a dataset each.*stratified"),
        ({"task": "pose"}, "differs in task"),
        ({"trunk": "resnet50_newell"}, "differs in trunk"),
        ({"settings": {"epochs": 3.0}}, "not trained equally: with 100 labels by"),
    ],
)
def test_a_curve_without_its_scratch_baseline_is_refused(fields, message):
    made = curves(*CMC, *make_curve_results(**fields))
    with pytest.raises(InputError, match=message):
        find_baseline(made[0], made)
    with pytest.raises(InputError, match=r"has no curve from scratch .*--from-scratch"):
        find_baseline(made[0], made[:1])


def test_curves_of_other_data_or_training_make_no_utility():
    (curve,) = curves(*CMC)
    (other,) = curves(*make_curve_results(variant="T---"))
    with pytest.raises(InputError, match=r"must not differ in train_digest .* test_digest"):
        measure_savings(curve, other)
    (longer,) = curves(*make_curve_results(settings={"epochs": 3.0}))
    with pytest.raises(InputError, match="train both equally long"):
        measure_savings(curve, longer)


# --- In words -------------------------------------------------------------------------------------

FEW = (100, 1000, 10_000)


def tell(scratch, better, seeds=(0.0,)):
    """Return the words on two curves with the same seeds' offsets, and the end."""
    rows = [
        make_result(n, y + off, seed, start)
        for start, values in (("scratch", scratch), ("pretrained", better))
        for n, y in zip(FEW, values, strict=True)
        for seed, off in enumerate(seeds)
    ]
    baseline, curve = curves(*rows)
    savings = measure_savings(curve, baseline)
    return tell_savings(savings), find_limit(savings)


def test_the_answer_is_what_is_saved_and_above_which_count_nothing():
    said, end = tell((0.5, 0.6, 0.8), (0.6, 0.7, 0.8))
    # 0.7 lies half way from 1,000 to 10,000 labels.
    assert (
        said[0]
        == "Your trunk saves you 4,500 labels at n = 1,000; above n = 1,000 it saves nothing"
    )
    assert said[1] == (
        "With 1,000 labels it reaches 70.0 %, for which training from scratch needs 5,500: utility "
        "4.5, one seed."
    )
    assert end == 1000


def test_what_the_seeds_leave_open_is_not_saved():
    said, end = tell((0.5, 0.6, 0.8), (0.51, 0.61, 0.8), seeds=(-0.03, 0.03))
    assert said[0] == "Your trunk saves you no labels at n = 100 .. 10,000"
    assert "as far as 2 seeds tell" in said[1]
    assert end == 0
    said, _ = tell((0.5, 0.6, 0.8), (0.51, 0.61, 0.8), seeds=(-0.001, 0.001))
    assert said[0].startswith("Your trunk saves you 450 labels at n = 1,000; above")
    assert "of 2 seeds" in said[1]


def test_a_seed_that_is_better_by_chance_with_all_labels_says_nothing():
    said, end = tell((0.5, 0.6, 0.8), (0.6, 0.7, 0.801), seeds=(-0.01, 0.01))
    assert end == 1000
    assert not any("above the best from scratch" in words for words in said)


def test_a_trunk_that_costs_labels_saves_none():
    said, end = tell((0.5, 0.6, 0.8), (0.4, 0.5, 0.7))
    assert said[0] == "Your trunk saves you no labels at n = 100 .. 10,000"
    assert said[1].endswith("as far as one seed tells.")
    assert end == 0


def test_beyond_all_from_scratch_the_words_are_a_bound():
    said, end = tell((0.5, 0.6, 0.8), (0.6, 0.85, 0.9))
    assert said[0] == (
        "Your trunk saves you at least 9,000 labels at n = 1,000; above n = 1,000 it is better "
        "than all from scratch"
    )
    assert "needs more than 10,000: utility at least 9, one seed" in said[1]
    assert said[2].startswith("With 10,000 labels it ends +10.0 points above the best from scratch")
    assert end is None


def test_what_is_still_saved_at_the_last_count_is_said():
    said, end = tell((0.5, 0.8, 0.7), (0.6, 0.8, 0.75))
    assert "at n = 100; above n = 100 it saves nothing" in said[0]
    assert end == 100
    rows = [make_result(n, y) for n, y in ((100, 0.5), (1000, 0.6), (10_000, 0.9))]
    rows += [make_result(n, y, start="pretrained") for n, y in ((100, 0.6), (1000, 0.7))]
    baseline, curve = curves(*rows)
    savings = measure_savings(curve, baseline)
    assert "and still some at n = 1,000, the most there are" in tell_savings(savings)[0]
    assert find_limit(savings) is None


def test_what_was_left_out_is_said():
    lacking = [r for r in CMC if r.seed != 1 or r.settings["num_labels"] < 1000]
    curve, baseline = curves(*lacking, *SCRATCH)
    said = tell_savings(measure_savings(curve, baseline))
    assert said[-1].startswith("Left out: seed 1, which lacks 1,000, 4,000")
