"""The studies' pictures: each stands where results hold what it needs, and nowhere else."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import pytest

from fastssl.evaluation.report import Entry, prepare
from fastssl.evaluation.report.comparisons import render_matrix
from fastssl.evaluation.report.line_charts import Chart, Line, Point, draw_lines, spell_count
from fastssl.evaluation.report.names import order_layers
from fastssl.evaluation.report.pictures import make_point, render_pictures
from fastssl.evaluation.report.style import STYLE
from fastssl.studies.published import find_facts
from tests.evaluation.test_result_report import PUBLISHED, make

SHARE = {"task": "logistic", "protocol": "kolesnikov19", "metric": "top1", "layer": "pre_logits"}
SHARE |= {"per_class": {}}
ON_PLACES = {"task": "linear", "metric": "top1", "test_digest": "e" * 64, "per_class": {}}
NAMES = {"eeee": "Places205"}


def draw(entries, findings=None):
    return render_pictures(prepare([*entries, *PUBLISHED], NAMES), findings or {})


def titles(source):
    return re.findall(r"<h3>([^<]*)</h3>", source)


def charts(source, title):
    """Return the SVGs below a title."""
    part = source.split(f"<h3>{title}</h3>")[1].split("<h3>")[0]
    return re.findall(r"<svg.*?</svg>", part, re.DOTALL)


def words(svg):
    return [" ".join(text.split()) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def over_data(task="jigsaw_{}_p2000", trunk="resnet50", first=0.4, sizes=("1m", "10m", "100m")):
    return [
        make(f"goyal19_{task.format(trunk)}_yfcc{size}", first + 0.1 * number)
        for number, size in enumerate(sizes)
    ]


DIFFICULTY = [make(f"goyal19_jigsaw_resnet50_p{p}_imagenet1k", 0.4) for p in (100, 701, 2000)]
LAYERS = [make(layer=layer) for layer in ("conv1", "res2", "res3")]
SHOTS = [
    make(task="low_shot", settings={"k": k}, values=(0.01 * k, 0.03 * k), value=0.02 * k)
    for k in (1, 4, 16)
]
WIDTHS = [
    make(
        f"kolesnikov19_rotation_revnet50_{w}x", 0.02 * w, **SHARE, details={"pretext_accuracy": 0.7}
    )
    for w in (4, 8, 16)
]
LABELS = [
    make("kolesnikov19_rotation_revnet50_4x", 0.3, **SHARE, settings=settings)
    for settings in ({}, {"label_share": 0.1, "updates": 7}, {"label_share": 0.05})
]
SETS = [
    make(f"goyal19_jigsaw_resnet50_p2000_{data}", value, **kind)
    for (data, value), kind in itertools.product(
        (("imagenet1k", 0.3), ("yfcc1m", 0.4)), ({}, ON_PLACES)
    )
]


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        (over_data(), {"Transfer against data size"}),
        (
            over_data() + over_data(trunk="alexnet", first=0.2),
            {"Transfer against data size", "Gap of capacity"},
        ),
        (DIFFICULTY, {"Transfer against the problem&#x27;s complexity"}),
        (LAYERS, {"Layer by layer"}),
        (SHOTS, {"Low-shot curves"}),
        (WIDTHS, {"Width against accuracy", "Pretext accuracy against what transfers"}),
        (LABELS, {"Share of labels"}),
        (SETS, {"Pretraining set by transfer set"}),
    ],
)
def test_a_picture_appears_with_the_results_that_it_needs_and_not_without(entries, wanted):
    assert set(titles(draw(entries))) == wanted
    for number in range(len(entries)):
        one = draw(entries[number : number + 1])
        assert titles(one) == []
        assert "<svg" not in one


def test_a_single_point_is_said_in_a_sentence():
    source = draw(over_data()[:1] + LAYERS)
    assert titles(source) == ["Layer by layer"]
    assert "<summary>Not drawn, for one point is no picture</summary>" in source
    assert "Transfer against data size (jigsaw: svm (goyal19), VOC07" in source


def test_published_points_stand_beside_ours_hollow_and_named():
    (chart,) = charts(draw(over_data()), "Transfer against data size")
    assert {"measured here", "published", "ResNet-50", "1M", "10M", "100M"} <= set(words(chart))
    assert "stroke-dasharray" in chart
    odd = json.dumps({"view": {"kind": "center", "size": 96}, "grid": 1})
    small = [
        dataclasses.replace(e, result=dataclasses.replace(e.result, input=odd)) for e in over_data()
    ]
    assert "published" not in words(charts(draw(small), "Transfer against data size")[0])
    source = draw(over_data())
    assert "Published: linear SVMs on VOC07, best layer" in source
    other = [
        dataclasses.replace(e, result=dataclasses.replace(e.result, per_class={}))
        for e in over_data()
    ]
    assert "published" not in words(charts(draw(other), "Transfer against data size")[0])


def test_random_trunks_are_a_baseline_of_figures_of_the_same_view_alone():
    def see(size, first):
        view = f'{{"view": {{"kind": "center", "size": {size}}}}}'
        return [make(e.result.recipe, e.result.value, input=view) for e in over_data(first=first)]

    random = make("random", 0.1, input=see(96, 0.1)[0].result.input, trunk_digest="r")
    facts = dataclasses.replace(find_facts(see(96, 0.1)[0].result.recipe), pretext="random")
    random = dataclasses.replace(random, facts=facts)
    source = draw([*see(96, 0.3), *see(64, 0.4), random])
    of_64, of_96 = sorted(
        charts(source, "Transfer against data size"), key=lambda svg: "view 96 px" in svg
    )
    assert "view 64 px" in of_64
    assert "random ResNet-50" in words(of_96)
    assert "random ResNet-50" not in words(of_64)


def test_a_trunk_whose_accuracy_in_pretext_was_not_logged_is_named_and_not_drawn():
    trained = [
        dataclasses.replace(e, facts=dataclasses.replace(e.facts, logs_accuracy=True))
        for e in WIDTHS
    ]
    result = dataclasses.replace(trained[0].result, details={}, step=5, trunk_digest="early")
    lost = dataclasses.replace(trained[0], result=result, run="early")
    source = draw([*trained, lost])
    assert "Not drawn is early" in source
    assert "its run logged no accuracy by step 5." in source
    (chart,) = charts(draw([*trained]), "Pretext accuracy against what transfers")
    assert charts(source, "Pretext accuracy against what transfers") == [chart]


def test_of_several_steps_of_a_run_the_last_counts_in_a_table_of_sets():
    early = [
        dataclasses.replace(e, result=dataclasses.replace(e.result, step=3, value=0.1))
        for e in SETS
    ]
    last = draw(SETS)
    assert draw([*SETS, *early]).split("Not drawn")[0] == last.split("Not drawn")[0]


def test_metrics_and_data_never_share_an_axis():
    source = draw(over_data() + [make(e.result.recipe, 0.3, **ON_PLACES) for e in over_data()])
    first, second = charts(source, "Transfer against data size")
    assert "mean average precision" in words(first)
    assert "top-1 accuracy" not in words(first)
    assert "top-1 accuracy" in words(second)


def test_top5_stands_in_tables_alone_where_top1_is_drawn():
    both = [
        make(e.result.recipe, 0.3, **ON_PLACES | {"metric": m})
        for e in over_data()
        for m in ("top1", "top5")
    ]
    assert len(charts(draw(both), "Transfer against data size")) == 1
    alone = [entry for entry in both if entry.result.metric == "top5"]
    assert len(charts(draw(alone), "Transfer against data size")) == 1


def test_a_random_trunk_is_a_level_line():
    random = make("goyal19_random_resnet50", 0.08, step=0)
    (chart,) = charts(draw([*over_data(), random]), "Transfer against data size")
    assert "random ResNet-50" in words(chart)
    by_layer = draw(
        [
            *LAYERS,
            *(
                make("goyal19_random_resnet50", 0.1, step=0, layer=name)
                for name in ("conv1", "res2")
            ),
        ]
    )
    assert "random ResNet-50" in words(charts(by_layer, "Layer by layer")[0])


def test_seeds_of_a_recipe_are_one_point_with_its_range():
    a, b = make(value=0.4), make(value=0.6, trunk_digest="other")
    assert make_point(1.0, [a, b]) == Point(1.0, 0.5, 0.4, 0.6, 4.0)
    later = make(value=0.7, step=99)
    assert make_point(1.0, [a, b, later]) == Point(1.0, 0.7, 0.7, 0.7, 4.0)
    repeats = make(value=0.5, values=(0.3, 0.5, 0.7))
    assert make_point(1.0, [repeats]) == Point(1.0, 0.5, 0.3, 0.7, 4.0)


def test_runs_with_other_settings_are_no_repeats_and_keep_what_is_published():
    on_imagenet = ON_PLACES | {"test_digest": "f" * 64}
    entries = []
    for run, value, form in (("a", 0.3, "1"), ("b", 0.4, "2"), ("c", 0.42, "2")):
        for layer in ("res2", "res3"):
            entry = make(value=value, layer=layer, trunk_digest=run, **on_imagenet)
            facts = dataclasses.replace(entry.facts, form=form)
            entries.append(dataclasses.replace(entry, facts=facts, run=run))
    rows = prepare([*entries, *PUBLISHED], {"f": "ImageNet-1k"})
    (chart,) = charts(render_pictures(rows, {}), "Layer by layer")
    assert {"ResNet-50, a", "ResNet-50, b", "published"} <= set(words(chart))
    assert "ResNet-50, c" not in words(chart)


def test_what_follows_from_features_parts_no_charts_and_other_settings_do():
    follows = [
        make(e.result.recipe, 0.4, settings={"penalty": 0.1 * n, "epochs": 28})
        for n, e in enumerate(over_data())
    ]
    assert len(charts(draw(follows), "Transfer against data size")) == 1
    other = [make(e.result.recipe, 0.4, settings={"epochs": 1}) for e in over_data()]
    both = charts(draw(follows + other), "Transfer against data size")
    assert len(both) == 2
    assert "jigsaw, epochs 1: svm (goyal19), VOC07" in words(both[1])


def test_low_shot_says_how_costs_were_chosen():
    entries = [
        dataclasses.replace(
            e,
            result=dataclasses.replace(e.result, settings={**e.result.settings, "selection": name}),
        )
        for e in SHOTS
        for name in ("published", "honest")
    ]
    shown = [" ".join(words(chart)) for chart in charts(draw(entries), "Low-shot curves")]
    assert "costs chosen on the test set, as published" in shown[0]
    assert "costs chosen by folds" in shown[1]


def test_layers_stand_in_the_order_of_the_network():
    entries = [make(recipe="mine", layer=name) for name in ("stem", "new", "pre_logits")]
    assert [*sorted(order_layers(entries), key=order_layers(entries).get)][:2] == ["stem", "new"]
    assert order_layers(DIFFICULTY)["res5"] < order_layers(DIFFICULTY)["pre_logits"]


def test_many_lines_are_parted_by_task_and_trunk():
    recipes = [
        *(f"goyal19_jigsaw_resnet50_p{p}_imagenet1k" for p in (100, 701, 2000, 5000)),
        *(f"goyal19_colorization_resnet50_k{k}_imagenet1k" for k in (2, 5, 10, 20)),
    ]
    entries = [make(name, 0.5, layer=layer) for name in recipes for layer in ("res2", "res3")]
    drawn = charts(draw(entries), "Layer by layer")
    assert len(drawn) == 2
    assert any("jigsaw, ResNet-50: svm (goyal19), VOC07" in words(chart) for chart in drawn)
    assert {"|P| 100", "|P| 701", "|P| 2,000", "|P| 5,000"} <= {w for c in drawn for w in words(c)}


def test_the_matrix_has_what_is_published_below_ours():
    rows = prepare([*SETS, *PUBLISHED], NAMES)
    ours = [entry for entry in rows if not entry.result.is_published]
    source = render_matrix(ours, [entry for entry in rows if entry.result.is_published])
    cells = re.findall(r"<td.*?</td>", source)
    texts = [re.sub(r"<br>", " ", cell) for cell in cells]
    plain = [re.sub(r"<[^>]*>", "", cell) for cell in texts]
    assert plain == [
        "1 million of YFCC-100M",
        "40.0 % 64.0 %",
        "40.0 % 42.1 %",
        "ImageNet-1k",
        "30.0 % 64.5 %",
        "30.0 % 41.2 %",
    ]


def test_findings_stand_above_their_picture():
    source = draw(DIFFICULTY, {"difficulty": "It gains & grows."})
    assert "It gains &amp; grows." in source
    assert "It gains" not in draw(over_data(), {"difficulty": "It gains & grows."})


def test_results_without_a_known_recipe_are_drawn_by_name():
    entries = [
        Entry(dataclasses.replace(make(layer=layer).result, recipe=recipe))
        for recipe in ("torchvision <resnet50>", "$mine$")
        for layer in ("layer1", "layer2")
    ]
    (chart,) = charts(draw(entries), "Layer by layer")
    assert {"torchvision &lt;resnet50&gt;", "$mine$"} <= set(words(chart))


def test_facts_of_a_recipe():
    facts = find_facts("goyal19_colorization_alexnet_k40_yfcc10m")
    assert (facts.pretext, facts.trunk, facts.difficulty_name) == ("colorization", "AlexNet", "K")
    assert (facts.difficulty, facts.num_images, facts.family) == (40, 10_000_000, "YFCC-100M")
    assert find_facts("kolesnikov19_jigsaw_resnet50_v2_minus_8x").trunk == "ResNet-50 v2 (-)"
    assert find_facts("goyal19_random_alexnet").pretext == "random"
    assert find_facts("mine") is None


# --- Drawing --------------------------------------------------------------------------------------


def test_a_chart_follows_the_theme():
    points = tuple(Point(x, y, y, y) for x, y in ((1, 0.1), (10, 0.2)))
    lines = tuple(Line(f"line {n}", points, n) for n in range(6))
    svg = draw_lines(Chart("t", "t", "x", "y", "log", lines))
    assert all(f"var(--series-{n})" in svg for n in range(1, 7))
    assert not re.findall(r"#0[1-9a]0[1-9a]0[1-9a]", svg)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(100, "100"), (5000, "5,000"), (10_000, "10k"), (1_281_167, "1.28M"), (1e8, "100M")],
)
def test_counts_are_spelled_shortly(value, wanted):
    assert spell_count(value) == wanted


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_are_seen_on_the_page(theme):
    """WCAG 2.2 asks 3:1 of what is drawn."""
    block = STYLE.split("prefers-color-scheme: dark")[theme]
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for number in range(1, 7):
        assert contrast(colors[f"series-{number}"], colors["card"]) >= 3
    for name in ("ink", "muted"):
        assert contrast(colors[name], colors["card"]) >= 4.5


def contrast(a, b):
    """Return the ratio of two colours' luminances, by WCAG's formula."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
