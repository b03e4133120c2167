"""The page of results: what stands beside what, what is marked, and that it needs nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import pytest

from fastssl.commands.report import find_places, main, read_runs
from fastssl.errors import InputError
from fastssl.evaluation.report import Entry, ResultsReport, prepare
from fastssl.evaluation.report.entries import choose_layers
from fastssl.evaluation.report.result_tables import find_published
from fastssl.evaluation.report.study_page import render_results_page
from fastssl.runs.facts import read_run_facts
from fastssl.runs.read import Run, read_run
from fastssl.runs.result import Result, write_result
from fastssl.studies.grids import list_grids
from fastssl.studies.published import find_facts, list_published
from tests.evaluation.test_report import Page

VOC07 = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()
JIGSAW = "goyal19_jigsaw_resnet50_p2000_imagenet1k"
PUBLISHED = [Entry(result, find_facts(result.recipe)) for result in list_published()]


def make(recipe=JIGSAW, value=0.5, **fields):
    """Return an entry of SVMs on data that are VOC07's by their classes."""
    content = {"task": "svm", "protocol": "goyal19", "metric": "mAP", "layer": "res4"}
    content |= {"train_digest": "a" * 64, "test_digest": "b" * 64, "trunk_digest": recipe}
    content |= {"per_class": dict.fromkeys(VOC07, value), "step": 9, "split": "trainval to test"}
    result = Result(value=value, recipe=recipe, **(content | fields))
    return Entry(result, find_facts(recipe))


def render(*entries, names=None, **fields):
    rows = prepare([*entries, *PUBLISHED], names or {})
    return render_results_page(ResultsReport("Title", rows, **fields))


def find_beside(entry, names=None, **options):
    rows = prepare([entry, *PUBLISHED], names or {})
    found = find_published(rows[0], rows[1:], **options)
    return {(round(100 * other.result.value, 2), other.data, other.result.layer) for other in found}


# --- Published figures ----------------------------------------------------------------------------


def test_a_published_figure_stands_beside_one_of_its_recipe_protocol_task_and_metric():
    assert find_beside(make(), is_best=True) == {(64.5, "VOC07", "")}
    assert find_beside(make(metric="top1")) == set()
    assert find_beside(make(protocol="own")) == set()
    assert find_beside(make(task="linear")) == set()
    assert find_beside(make("goyal19_jigsaw_resnet50_p5000_imagenet1k")) == set()


def test_layers_stand_beside_the_same_layer():
    on_imagenet = {"task": "linear", "metric": "top1", "per_class": {}, "layer": "res3"}
    names = {"bbbb": "ImageNet-1k"}
    assert find_beside(make(**on_imagenet), names) == {(39.9, "ImageNet-1k", "res3")}
    assert (45.7, "ImageNet-1k", "res4") in find_beside(make(**on_imagenet), names, is_best=True)


def test_a_figure_of_other_data_stands_with_the_name_of_its_data():
    page = Page(render(make(per_class={"cat": 0.1})))
    assert "mean average precision on bbbbbbbb" in page.text
    assert "64.5 % on VOC07" in page.text
    assert "64.5 % on" not in Page(render(make())).text
    assert "64.5 %" in Page(render(make(per_class={}), names={"bb": "VOC07"})).text


def test_what_is_only_remembered_is_said_to_be_so():
    recipe = "goyal19_jigsaw_resnet50_p2000_imagenet22k"
    assert "71.9 %, remembered" in Page(render(make(recipe))).text
    assert "remembered," not in Page(render(make())).text


def test_published_figures_are_shares_and_marked():
    results = list_published()
    assert all(result.is_published and 0 < result.value < 1 for result in results)
    assert {(r.task, r.protocol, r.metric) for r in results} == {
        *(
            ("detect", protocol, metric)
            for protocol in ("voc07", "voc0712")
            for metric in ("ap50_11", "ap50", "coco_ap", "coco_ap75")
        ),
        ("finetune", "newell20", "top1"),
        ("linear", "goyal19", "top1"),
        ("linear", "kolesnikov19", "top1"),
        ("linear", "newell20", "top1"),
        ("logistic", "kolesnikov19", "top1"),
        ("svm", "goyal19", "mAP"),
    }


def test_table_1_of_newell_and_deng_is_there_as_a_whole():
    rows = {
        (r.recipe, r.test_digest): round(100 * r.value, 1)
        for r in list_published()
        if r.protocol == "newell20"
    }
    assert len(rows) == 5 * 8
    assert rows["newell20_amdim_resnet9", "-CVL"] == 77.4
    assert rows["newell20_cmc_resnet9", "TC--"] == 90.8
    assert rows["newell20_rotation_resnet9", "-C-L"] == 39.7
    assert rows["newell20_vae_resnet9", "TCVL"] == 31.5
    assert rows["scratch", "----"] == 98.5


def test_of_many_sets_that_are_not_ones_own_the_range_stands():
    of_newell = {"task": "linear", "protocol": "newell20", "metric": "top1", "per_class": {}}
    page = Page(render(make("newell20_cmc_resnet9", **of_newell)))
    assert "69.0 to 91.3 % on 8 other sets" in page.text
    named = Page(render(make("newell20_cmc_resnet9", **of_newell), names={"bb": "T-VL"}))
    assert "69.9 %" in named.text
    assert "other sets" not in named.text


# --- Tables ---------------------------------------------------------------------------------------


def test_a_row_says_what_it_is_a_figure_of():
    figure = make(
        values=(0.4, 0.6), settings={"k": 4, "selection": "cv"}, details={"chance": 0.125}
    )
    page = Page(render(figure))
    for said in (
        JIGSAW,
        "ResNet-50 x4, jigsaw, |P| = 2,000, ImageNet-1k, step 9 of 525,479",
        "svm, goyal19: mean average precision on VOC07",
        "tested on bbbbbbbb; trained on aaaaaaaa; split: trainval to test",
        "k 4, selection cv",
        "50.0 %",
        "40.0 to 60.0 %, deviation 10, 2 repeats, chance 12.5 %",
        "tvmonitor",
    ):
        assert said in page.text


def test_the_best_layer_stands_in_front_and_all_of_them_fold_away():
    entries = [make(value=v, layer=name) for name, v in (("res3", 0.3), ("res4", 0.5))]
    shown, folded = render(*entries).split("All 2 figures")
    assert ">res3<" not in shown
    assert ">res3<" in folded


def test_the_pre_logits_count_where_the_study_reports_them():
    rows = [make(layer=name, protocol="kolesnikov19") for name in ("block3", "pre_logits")]
    rows = [Entry(row.result, row.facts) for row in rows]
    assert [row.result.layer for row in choose_layers(rows)] == ["pre_logits"]


def test_results_that_contradict_each_other_are_both_shown_and_marked():
    source = render(make(value=0.5), make(value=0.6), make(value=0.6), make(value=0.6, seed=1))
    assert source.count(">contradicts another<") == 2
    assert "Some figures contradict each other" in source
    shown = source.split("<details>")[0]
    assert "50.0 %" in shown
    assert shown.count("60.0 %") == 2
    assert "contradict" not in render(make(value=0.5), make(value=0.6, layer="res5"))


def test_other_data_are_marked():
    other = make(test_digest="c" * 64, seed=1)
    taught = make(train_digest="d" * 64, seed=2)
    page = Page(render(make(), make(seed=3), other, taught))
    assert page.text.count("other test data") == 1
    assert page.text.count("other training data") == 1


def test_figures_of_views_of_different_size_stand_in_tables_apart():
    views = [
        make(value=0.5 + size / 1000, input=see(size), seed=size, settings={"folds": 3})
        for size in (224, 227, 96, 64)
    ]
    patches = make(value=0.4, input=see(192, grid=3), settings={"folds": 3})
    page = render(*views, patches).split("<details>")[0]
    tables = {
        re.sub("<[^>]*>", "", part.split("</h3>")[0]): part.split("</table>")[0]
        for part in page.split("<h3>")[1:]
    }
    name = "svm, goyal19: mean average precision on VOC07"
    assert list(tables) == [name, f"{name}, view 64 px", f"{name}, view 96 px"]
    assert [table.count("<tr>") - 1 for table in tables.values()] == [3, 1, 1]
    # What a study compares though it is shown in other ways has a column.
    assert ">3 x 3 patches of 64 px<" in tables[name]
    assert "view: 96 px" in tables[f"{name}, view 96 px"]
    assert "view: 224 px" in Page(render(views[0])).text


def test_published_figures_stand_beside_no_view_that_is_not_their_protocols():
    cell = "goyal19_jigsaw_resnet50_p2000_imagenet1k"
    usual, odd = (render(make(cell, input=see(size)), grids=list_grids()) for size in (224, 96))
    assert 'class="published"' in usual.split("<details>")[0]
    assert "Published figures, in italics" in usual
    assert 'class="published"' not in odd


def see(size, grid=1, scale="mean"):
    """Return a result's account of what its trunk was shown."""
    return json.dumps({"view": {"kind": "center", "size": size}, "grid": grid, "scale": scale})


def test_how_pixels_are_scaled_parts_no_tables():
    one, other = (make(seed=seed, input=see(96, scale=f"s{seed}")) for seed in (1, 2))
    assert render(one, other).split("<details>")[0].count("<h3>svm") == 1


def test_the_page_needs_nothing_from_outside_and_names_are_escaped():
    source = render(make("<b>&co", layer='"x"'))
    page = Page(source)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.sources)
    assert "http" not in source.replace("http://www.w3.org/", "")
    assert "&lt;b&gt;&amp;co" in source
    assert "<b>&co" not in source


def test_a_studys_table_says_which_cells_are_filled():
    cells = [make(value=0.5), make("kolesnikov19_rotation_revnet50_8x", protocol="kolesnikov19")]
    source = render(*cells, make(value=0.4, layer="res3"), grids=list_grids())
    titles = re.findall(r"<summary>([^<]*cells filled)</summary>", source)
    assert titles == [
        "Goyal et al. 2019: svm (goyal19), mean average precision on VOC07; 1 of 77 cells filled",
        "Kolesnikov et al. 2019, Table 1: svm (kolesnikov19), mean average precision on VOC07; "
        "1 of 72 cells filled",
    ]
    table = source.split(titles[0])[1].split("</table>")[0]
    row = table.split("jigsaw ResNet-50, |P| 2,000</td>")[1].split("</tr>")[0]
    texts = [re.sub(r"<br>", " ", cell) for cell in re.findall(r"<td.*?</td>", row)]
    plain = [re.sub(r"<[^>]*>", "", cell) for cell in texts]
    assert plain[:6] == ["64.0", "\u00b7", "\u00b7", "71.0", "50.0 64.5", "71.9?"]
    assert "cells filled" not in render(make("mine"), grids=list_grids())


def test_kolesnikovs_table_has_its_columns():
    grid = list_grids()[1]
    assert (len(grid.rows), len(grid.columns), len(grid.recipes)) == (6, 12, 72)


# --- The command ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    write_result(tmp_path / "runs" / "a" / "results" / "svm.json", make().result)
    (tmp_path / "runs" / "a" / "config.json").write_text("{}")
    write_result(tmp_path / "runs" / "svm of b.json", make(value=0.4, seed=1).result)
    return tmp_path


def test_runs_results_and_folders_of_them_are_found_once(folder):
    runs = folder / "runs"
    wanted = [runs / "a", runs / "svm of b.json"]
    assert list(find_places([folder])) == wanted
    assert list(find_places([runs / "svm of b.json", runs])) == wanted[::-1]
    assert list(find_places([runs / "a" / "results"])) == [runs / "a" / "results" / "svm.json"]


def test_what_an_evaluation_keeps_for_itself_is_no_result(folder):
    for kept in ("features", "heads"):
        write_result(folder / "runs" / kept / "parts" / "svm.json", make(value=0.9).result)
    assert len(list(find_places([folder]))) == 2
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    assert len(list(find_places([folder]))) == 2
    with pytest.raises(InputError, match="pipe holds neither a run nor a result"):
        list(find_places([folder / "pipe"]))


def test_the_command_writes_a_page(folder, capsys):
    main([str(folder), "--output", str(folder / "page.html"), "--title", "Mine"])
    assert "2 results and 0 runs" in capsys.readouterr().out
    page = Page((folder / "page.html").read_text())
    assert "2 figures of 1 trunk." in page.text
    assert "Mine" in page.text


def test_what_is_no_result_is_refused_unless_it_lies_beside_runs(folder):
    (folder / "runs" / "mine.json").write_text("{}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(list(find_places([folder]))) == 2
    assert "mine.json is no result" in str(said[0].message)
    with pytest.raises(InputError, match=r"mine\.json is no result"):
        main([str(folder / "runs/mine.json"), "--output", str(folder / "page.html")])
    (folder / "alone").mkdir()
    (folder / "alone" / "x.json").write_text("[]")
    with pytest.raises(InputError, match=r"x\.json is no result"):
        list(find_places([folder / "alone"]))


def test_what_demos_datasets_and_sweeps_keep_is_passed_over_in_silence(folder):
    for name in ("demo.json", "manifest.json", "render.json", "sweep.json"):
        (folder / "runs" / "demo").mkdir(exist_ok=True)
        (folder / "runs" / "demo" / name).write_text("{}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(list(find_places([folder]))) == 2
    assert said == []


def test_what_refused_runs_have_left_is_no_result(folder):
    before = list(find_places([folder]))
    (folder / "runs" / "refused").mkdir()
    (folder / "runs" / "refused" / "exit.json").write_text('{"code": 2}')
    assert list(find_places([folder])) == before
    with pytest.raises(InputError, match="refused holds neither a run nor a result"):
        list(find_places([folder / "runs" / "refused"]))
    (folder / "runs" / "refused" / "notes.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"notes\.json is no result .*left out"):
        assert list(find_places([folder])) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/none"], "none does not exist"),
        (["{}/empty"], "empty holds neither a run nor a result; give run directories"),
        (["{}", "--output", "{}/no/page.html"], r"--output .*lies in no folder"),
        (["{}", "--output", "{}"], r"--output .*is a folder"),
        (["{}", "--data-names", "VOC07"], r"--data-names \(VOC07\) must be DIGEST=NAME"),
        ([], "has nothing to read"),
    ],
)
def test_wrong_input_is_one_line(folder, arguments, message):
    (folder / "empty").mkdir()
    arguments = [argument.format(folder) for argument in arguments]
    if "--output" not in arguments:
        arguments += ["--output", str(folder / "page.html")]
    with pytest.raises(InputError, match=message):
        main(arguments)
    assert not Path(folder / "page.html").exists()


def test_a_run_and_its_results_make_one_page(trained, tmp_path):
    """Results written as evaluate writes them, beside lines that the trainer wrote."""
    run = shutil.copytree(trained, tmp_path / "first")
    for layer in ("block1", "block2"):
        result = make("demo_smoke", 0.3, layer=layer, step=4).result
        write_result(run / "results" / f"{layer}.json", result)
    main([str(run), "--output", str(tmp_path / "page.html")])
    source = (tmp_path / "page.html").read_text()
    page = Page(source)
    assert "2 figures of 1 trunk and the course of 1 run." in page.text
    assert "first (demo_smoke)" in page.text
    assert "ResNet9 x1, jigsaw, |P| = 10, " in page.text
    assert "recipe changed: difficulty 10 in place of 100" in page.text
    assert "Layer by layer" in page.text
    assert {"Loss", "Accuracy"} <= set(page.titles)
    assert len(page.titles) == len(set(page.titles))


def test_of_runs_without_a_result_the_course_alone_is_announced(trained):
    text = Page(render(runs=[read_run(trained)])).text
    assert "The course of 1 run." in text
    assert "0 figures" not in text


def test_runs_of_one_name_are_told_apart_by_the_folders_above(trained, tmp_path):
    places = [shutil.copytree(trained, tmp_path / end) for end in ("a/seed0", "b/seed0", "c")]
    assert [run.name for run in read_runs(places).values()] == ["a/seed0", "b/seed0", "c"]


def test_facts_of_a_run_come_from_what_it_left_behind(trained):
    facts = read_run_facts(read_run(trained), find_facts("demo_smoke"))
    assert (facts.pretext, facts.trunk, facts.difficulty) == ("jigsaw", "ResNet9", 10)
    assert facts.num_images == 47
    assert 0 <= facts.pretext_accuracy <= 1
    assert facts.form
    strange = Run("x", ({"step": 1, "samples": "7", "epoch": [], "accuracy": {}},))
    strange = dataclasses.replace(strange, settings={"task.name": "jigsaw", "trunk": "resnet9"})
    assert read_run_facts(strange, None).num_images == 0


def test_the_accuracy_in_pretext_is_that_at_the_step_of_the_trunk():
    lines = tuple({"step": s, "samples": s, "accuracy": s / 1000} for s in (10, 20, 30, 400))
    settings = {"task.name": "jigsaw", "trunk": "resnet9", "log.every_steps": 10}
    run = Run("x", lines[:3], settings=settings)

    def accuracy(step):
        return read_run_facts(run, None, step).pretext_accuracy

    assert [accuracy(step) for step in (10, 20, 29, 30, 39)] == [0.01, 0.02, 0.02, 0.03, 0.03]
    assert [accuracy(step) for step in (0, 9, 40)] == [None] * 3
    assert accuracy(None) == 0.03
    assert read_run_facts(run, None, 9).logs_accuracy


@pytest.mark.parametrize(
    "shown", ["", "[]", "{", "[" * 9999, '{"view": 3}', '{"view": {"size": "9"}}']
)
def test_strange_views_break_nothing(shown):
    assert "view" not in Page(render(make(input=shown))).text.split("Results")[1][:200]


def test_data_have_the_names_of_their_folders_and_those_of_two_a_digest_too():
    plain = {"per_class": {}, "layer": "res4"}
    named = make(**plain, test_data="cal", train_data="cal")
    assert "mean average precision on cal" in Page(render(named)).text
    assert "tested on bbbbbbbb" in Page(render(named)).text
    other = make(**plain, test_data="cal", test_digest="c" * 64, seed=1)
    text = Page(render(named, other)).text
    assert "on cal bbbbbbbb" in text
    assert "on cal cccccccc" in text
    assert "on mine" in Page(render(named, names={"bb": "mine"})).text
    rows = prepare([make(**plain)], {}, [("b" * 64, "/of/a/run")])
    assert rows[0].data == "run"


def test_settings_of_svms_are_said_in_words():
    settings = {"folds": 3, "solver": "batched", "uncounted": "out"}
    page = Page(render(make(settings=settings)))
    assert "costs by 3 folds, all SVMs at once, labels of 0 left out" in page.text


def test_strange_settings_break_nothing():
    odd = [make(layer=layer, settings={"k": "many", "label_share": "all"}) for layer in "ab"]
    assert "k many, label share all" in Page(render(*odd)).text
