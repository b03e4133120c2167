"""The pictures over label counts: each stands where results hold what it needs."""

from __future__ import annotations

import dataclasses
import re

import pytest

from fastssl.evaluation.report import Entry, prepare
from fastssl.evaluation.report.label_lines import choose_main, draw_utility, gather, name_curves
from fastssl.evaluation.report.label_pictures import render_labels
from fastssl.evaluation.report.line_charts import Chart, Line, Point, draw_lines
from fastssl.evaluation.report.study_page import ResultsReport, render_results_page
from fastssl.studies.published import FINDINGS, find_facts
from tests.evaluation.test_pictures import titles, words
from tests.evaluation.test_report import Page
from tests.evaluation.test_result_report import PUBLISHED
from tests.label_results import (
    NAMES,
    make_curve_results,
    make_linear,
    make_result,
    make_study,
    name_digest,
)

FEW = {"counts": (100, 1000, 10_000), "seeds": 2}
PRETRAINED = {"start": "pretrained", **FEW}
SCRATCH = make_curve_results(**FEW)
CMC, VAE, AMDIM = (f"newell20_{name}_resnet9" for name in ("cmc", "vae", "amdim"))
MAIN = "Accuracy and utility over labels"


def enter(*results):
    entries = [Entry(result, find_facts(result.recipe)) for result in results]
    return prepare([*entries, *PUBLISHED], NAMES)


def draw(*results, findings=None):
    return render_labels(enter(*results), findings or {})


def charts(source):
    return re.findall(r"<svg.*?</svg>", source, re.DOTALL)


def pretrain(recipe=CMC, gain=3.0, **of):
    return make_curve_results(gain, recipe=recipe, **{**PRETRAINED, **of})


def halves(**of):
    return {"trunk": "resnet9_halves", **of}


@pytest.mark.parametrize(
    ("results", "wanted"),
    [
        (SCRATCH, [MAIN]),
        (SCRATCH + pretrain(), [MAIN]),
        (SCRATCH + pretrain() + pretrain(frozen=2), [MAIN, "Frozen stages"]),
        (
            SCRATCH + pretrain() + pretrain(pretrained_on="----", gain=1.0),
            [MAIN, "Transfer between data"],
        ),
        (
            SCRATCH + pretrain() + pretrain(step=500),
            [MAIN, "Length and data of pretraining"],
        ),
        (
            SCRATCH + pretrain(**halves()) + make_curve_results(**halves(), **FEW),
            [MAIN, "Half networks"],
        ),
        (
            SCRATCH
            + pretrain()
            + make_curve_results(trunk="resnet50_newell", **FEW)
            + pretrain(trunk="resnet50_newell"),
            [MAIN, "Networks"],
        ),
        (
            SCRATCH + pretrain() + pretrain(VAE) + [make_linear(0.6, CMC), make_linear(0.3, VAE)],
            [MAIN, "Linear against fine-tuned", "The study's claims"],
        ),
    ],
    ids=["scratch", "methods", "freezing", "transfer", "budget", "halves", "networks", "ranks"],
)
def test_a_picture_appears_with_the_results_that_it_needs_and_not_without(results, wanted):
    assert titles(draw(*results)) == wanted


def test_without_curves_there_is_no_section():
    assert draw() == ""
    assert draw(make_linear(0.6, CMC)) == ""
    assert titles(draw(make_result(100, 0.5))) == []


def test_a_whole_study_makes_one_page_with_every_picture():
    source = render_results_page(
        ResultsReport(
            "Made", enter(*make_study((100, 1000, 10_000), 1)), findings=FINDINGS["newell20"]
        )
    )
    page = Page(source)
    assert [title for title in titles(source) if "newell20" not in title] == [
        MAIN,
        "Frozen stages",
        "Transfer between data",
        "Length and data of pretraining",
        "Half networks",
        "Networks",
        "Linear against fine-tuned",
        "The study's claims",
    ]
    assert all(said in page.text for said in FINDINGS["newell20"].values())
    assert len(page.titles) == len(set(page.titles))


# --- Names and lines ------------------------------------------------------------------------------


def test_lines_are_named_by_what_differs():
    told, said = gather(enter(*SCRATCH, *pretrain(), *pretrain(step=500), *pretrain(VAE)))
    assert said == []
    assert name_curves(told) == ["from scratch", "cmc, 1,000 steps", "cmc, 500 steps", "vae"]
    assert [one.method for one in choose_main(told[1:])] == ["cmc", "vae"]


def test_of_a_method_that_saw_the_data_itself_what_saw_others_is_left_out():
    told, _ = gather(enter(*SCRATCH, *pretrain(), *pretrain(pretrained_on="----")))
    assert [one.entry.pretrain_data for one in choose_main(told[1:])] == ["TCVL"]
    told, _ = gather(enter(*SCRATCH, *pretrain(pretrained_on="----")))
    assert len(choose_main(told[1:])) == 1


def test_trunks_that_differ_in_nothing_known_are_told_by_their_digests():
    other = [dataclasses.replace(r, trunk_digest="f" * 64) for r in pretrain(gain=1.0)]
    told, _ = gather(enter(*SCRATCH, *pretrain(), *other))
    assert "cmc, ffffffff" in name_curves(told[1:])


def test_a_line_ends_where_the_grey_region_begins_and_its_bounds_stand_alone():
    scratch = [make_result(n, y) for n, y in ((100, 0.5), (1000, 0.8))]
    better = [make_result(n, y, start="pretrained") for n, y in ((100, 0.7), (1000, 0.9))]
    told, _ = gather(enter(*scratch, *better))
    line = draw_utility(told[1].savings, "cmc", 0)
    assert [(p.mark, p.is_joined) for p in line.points] == [
        ("dot", True),
        ("none", True),
        ("bound", False),
    ]
    assert line.points[1].x == pytest.approx(550)
    (_, chart) = charts(draw(*scratch, *better))
    assert {"this or more", "beyond scratch", "saves nothing", "cmc"} <= set(words(chart))


def test_large_utilities_have_a_logarithmic_axis():
    def axis(*ys):
        points = tuple(Point(10.0**n, y, y, y) for n, y in enumerate(ys))
        ceiling = ((1.0, 999.0), (1000.0, 0.0))
        chart = Chart("t", "t", "x", "y", "log", (Line("a", points, 0),), unit="", ceiling=ceiling)
        return words(draw_lines(chart))

    assert {"0", "1", "3", "10", "30"} <= set(axis(50.0, 2.0, -0.5))
    assert "30" not in axis(5.0, 2.0, -0.5)


# --- Numbers --------------------------------------------------------------------------------------


def cells(source):
    found = re.findall(r"<td.*?</td>", source)
    return [re.sub(r"<[^>]*>", "", re.sub(r"<br>", " ", cell)) for cell in found]


def test_transfer_is_the_change_against_pretraining_on_the_target():
    counts = {"counts": (100, 250, 1000, 4000, 20_000), "seeds": 1, "spread": 0}
    own = pretrain(AMDIM, **counts)
    worse = [
        dataclasses.replace(r, value=r.value - (0.05 if r.settings["num_labels"] != 100 else 0.3))
        for r in pretrain(AMDIM, pretrained_on="----", **counts)
    ]
    source = draw(*make_curve_results(**counts), *own, *worse)
    table = source.split("Transfer between data")[1].split("</table>")[0]
    assert cells(table) == ["----", "-5.0", "TCVL", "0"]
    assert "250 to 4,000 labels" in table


def test_ranks_stand_beside_each_other_and_beside_what_is_published():
    results = SCRATCH + pretrain(gain=3.0) + pretrain(AMDIM, gain=1.0)
    linear = [make_linear(0.6, CMC), make_linear(0.7, AMDIM)]
    source = draw(*results, *linear)
    part = source.split("Linear against fine-tuned")[1]
    found = cells(part)
    assert found[:4] == ["cmc", "60.0 %", "2", "69.0 %"]
    assert found[5] == "1"
    assert found[7:11] == ["amdim", "70.0 %", "1", "74.5 %"]
    assert found[12] == "2"


def test_numbers_say_what_is_a_bound():
    scratch = [make_result(n, y, seed) for n, y in ((100, 0.5), (1000, 0.8)) for seed in (0, 1)]
    better = [
        make_result(n, y, seed, start="pretrained")
        for n, y in ((100, 0.7), (1000, 0.9))
        for seed in (0, 1)
    ]
    found = cells(draw(*scratch, *better))
    assert found[-2:] == ["70.0 \u00b1 0.0 % U 6 \u00b1 0", "90.0 \u00b1 0.0 % U \u2265 0 \u00b1 0"]


# --- What has to be said --------------------------------------------------------------------------


def test_a_curve_without_one_from_scratch_is_drawn_and_said():
    page = Page(draw(*pretrain()))
    assert "No utility: the finetune curve of newell20_cmc_resnet9 has no curve from" in page.text
    assert page.titles == [
        f"Accuracy over labels, Accuracy: finetune (newell20), TCVL, ResNet9 x4 "
        f"{name_digest('TCVL tested')}"
    ]


def test_contradictions_and_what_is_left_out_are_said():
    odd = dataclasses.replace(SCRATCH[0], value=0.9)
    assert "contradict each other" in Page(draw(*SCRATCH, odd)).text
    few = [r for r in SCRATCH if r.seed == 0 or r.settings["num_labels"] == 100]
    assert "seed 1, which lacks 1,000, 10,000 labels" in Page(draw(*few)).text


def test_points_of_curves_have_no_rows_in_front_of_the_page():
    source = render_results_page(ResultsReport("t", enter(*SCRATCH, *pretrain())))
    shown, folded = source.split("All 12 figures")
    assert "finetune, newell20" not in shown
    assert "finetune, newell20" in folded
