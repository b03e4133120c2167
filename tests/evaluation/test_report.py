from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fastssl.evaluation.report import Comparison, Report, write_report
from fastssl.evaluation.report.charts import draw_curves
from fastssl.evaluation.report.training import describe_speed
from fastssl.runs.read import Ending, Run, read_run


@pytest.fixture
def run(trained):
    return read_run(trained, "seed 0")


class Page(HTMLParser):
    """Text, links and tags of a page; fails on tags that do not match."""

    VOID = ("meta", "img", "link", "br", "hr")

    def __init__(self, source):
        super().__init__()
        self.text, self.sources, self.tags, self.open = "", [], [], []
        self.titles = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        self.titles += [v for k, v in attrs if tag == "svg" and k == "aria-label"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.text += data


def build(tmp_path, **fields):
    path = tmp_path / "report.html"
    write_report(path, Report(**{"title": "demo", "lead": "What was done.", "runs": [], **fields}))
    return path.read_text()


def compare(pretrained, random, **fields):
    measure = {"measure": "kNN", "chance": 0.1, "num_train": 1280, "num_test": 320}
    return Comparison(pretrained=pretrained, random=random, **measure, **fields)


def test_curves_of_many_runs_differ_in_colour_or_dash_and_have_room_for_their_names():
    curves = {f"run {number}": ([1, 2], [number, 2.0]) for number in range(8)}
    many, few = draw_curves("Loss", curves, {}), draw_curves("Loss", {"x": ([1, 2], [1, 2])}, {})
    looks = re.findall(r'style="fill: none; (stroke[^"]*stroke-width: 1.6[^"]*)"', many)
    assert len({*looks}) == 8

    def height(svg):
        return float(re.search(r'viewBox="0 0 [0-9.]+ ([0-9.]+)"', svg)[1])

    assert height(many) > height(few)


def test_steps_passed_over_are_told_of_runs_that_did(tmp_path, run):
    plain = build(tmp_path, runs=[run])
    last = {**run.lines[-1], "step": 4000, "samples": 64000}
    lines = (*run.lines[:-1], last)
    left_out = build(tmp_path, runs=[dataclasses.replace(run, lines=lines, num_left_out=1234)])
    assert "passed over" not in plain
    assert "4,000, 1,234 of them passed over" in left_out
    assert f"{(4000 - 1234) * 16:,}" in left_out  # images seen


def test_page_needs_nothing_from_outside(tmp_path, run):
    source = build(
        tmp_path,
        runs=[run],
        comparison=compare((0.6, 0.62), (0.4, 0.42), per_class={"car": (0.7, 0.2)}),
        samples=np.zeros((8, 8, 3), np.uint8),
    )
    page = Page(source)
    assert "svg" in page.tags
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(s.startswith(("data:image/png;base64,", "#")) for s in page.sources)
    assert "url(http" not in source
    assert "@import" not in source


def test_page_is_ascii(tmp_path):
    assert build(tmp_path, comparison=compare((0.6, 0.7), (0.4, 0.5))).isascii()


def test_charts_take_every_colour_from_the_theme(tmp_path, run):
    source = build(
        tmp_path,
        runs=[run],
        comparison=compare((0.6, 0.62), (0.4, 0.42), per_class={"car": (0.7, 0.2)}),
    )
    drawn = "".join(re.findall(r"<svg.*?</svg>", source, re.DOTALL))
    assert "var(--series-1)" in drawn
    assert not re.findall(r"#0[1-7]0[1-7]0[1-7]", drawn)


def test_ids_of_a_page_are_unique(tmp_path, run):
    ids = re.findall(r' id="([^"]+)"', build(tmp_path, runs=[run]))
    assert len(ids) == len(set(ids))


def test_names_are_escaped(tmp_path):
    source = build(tmp_path, lead="<b>&", environment={"data": "/photos/<new>"})
    assert "&lt;b&gt;&amp;" in source
    assert "/photos/&lt;new&gt;" in source


@pytest.mark.parametrize(
    ("pretrained", "random", "says"),
    [
        ((0.6, 0.62), (0.4, 0.42), "Pretraining lifts the accuracy from 41.0"),
        ((0.4, 0.42), (0.6, 0.62), "did not help"),
        ((0.4, 0.5), (0.41, 0.48), "No clear difference"),
        ((0.5,), (0.4,), "from 40.0 % to 50.0 %"),
    ],
)
def test_headline_says_who_won(pretrained, random, says):
    assert says in compare(pretrained, random).headline()


def test_page_without_labels_says_why_there_is_no_result(tmp_path, run):
    page = Page(build(tmp_path, runs=[run], no_comparison="There are no labels."))
    assert "There are no labels." in page.text
    assert page.titles[:2] == ["Loss", "Accuracy"]


def test_training_table_shows_where_each_run_stands(tmp_path, run):
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", build(tmp_path, runs=[run]))
    last = run.lines[-1]
    numbers = [f"{last['loss']:.3g}", f"{last['accuracy']:.1%}", "1", "0"]
    assert cells[:9] == ["seed 0", "done", "4", "64", "1.4", *numbers]


def test_a_run_shows_loss_and_accuracy_with_chance_and_folds_the_loader_away(tmp_path, run):
    """Of a line that the trainer wrote nothing of the loader's stands among the results."""
    source = build(tmp_path, runs=[run])
    shown, folded = source.split("<details>")
    names = [name for name in run.names() if name.startswith("loader_")]
    assert len(names) > 3
    for name in names:
        assert name not in shown
        assert name in folded
        assert name.replace("_", " ") not in shown
    assert re.findall(r'<svg[^>]*aria-label="([^"]*)"', shown) == ["Loss", "Accuracy"]
    accuracy = re.findall(r"<svg.*?</svg>", shown, re.DOTALL)[1]
    assert ">chance<" in accuracy
    assert "puzzles whose order is found" in shown


def test_tasks_do_not_share_a_chart(tmp_path, run):
    other = dataclasses.replace(run, name="labels", settings={"task.name": "supervised"})
    shown = Page(build(tmp_path, runs=[run, other]))
    wanted = [(what, task) for task in ("jigsaw", "supervised") for what in ("Loss", "Accuracy")]
    assert shown.titles[:4] == [f"{what}, {task}" for what, task in wanted]
    for meaning in ("puzzles whose order is found", "labelled images whose class is found"):
        assert meaning in shown.text


def test_a_refused_start_is_not_how_a_run_ended(tmp_path, run):
    refused = dataclasses.replace(run, ending=Ending(2, "error: seed (old 0, new 1)", 4))
    assert "its last start was refused: exit.json says why" in build(tmp_path, runs=[refused])


def test_one_line_says_how_fast_and_whether_data_held_the_run_up(tmp_path, run):
    page = Page(build(tmp_path, runs=[run]))
    assert re.search(
        r"Speed: [\d,]+ images a second; [\d.]+% of the time went by waiting", page.text
    )


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (0.001, "data is no bottleneck."),
        (0.4, "decode, the loader's slowest stage, does 70 images"),
    ],
)
def test_a_starved_run_is_told_what_helps(run, share, says):
    rates = {"loader_read_images_per_s": 900.0, "loader_decode_images_per_s": 70.0}
    lines = tuple(line | rates | {"data_wait_share": share} for line in run.lines)
    sentence = describe_speed([dataclasses.replace(run, lines=lines)])
    assert says in sentence
    assert ("--encode resized" in sentence) == (share > 0.1)


def test_pictures_show_the_same_puzzle_first_and_last(tmp_path, run):
    page = Page(build(tmp_path, runs=[run]))
    assert page.tags.count("img") == 2 * 4
    assert "step 1" in page.text
    assert "step 4" in page.text


def test_a_run_of_an_older_version_is_shown_with_what_it_has(tmp_path):
    """Without chance, telemetry, settings or ending; and with a number of a name long gone."""
    lines = tuple(
        {"step": s, "samples": 64 * s, "epoch": 0.1 * s, "loss": 4.0 / s, "accuracy": s / 40}
        | {"lr": 0.1, "images_per_s": 90.0, "data_wait_ms": 1.5, "old_number": 7.0}
        for s in (10, 20)
    )
    shown, folded = build(tmp_path, runs=[Run("old", lines)]).split("<details>")
    assert "Speed: 90 images a second." in shown
    assert "old_number" not in shown
    assert "not known to this version" in folded


def test_an_unclear_result_comes_with_what_makes_it_clear(tmp_path):
    commands = {"The same with 4 times the steps": "fastssl demo --steps 600"}
    unclear = compare((0.4, 0.5), (0.41, 0.48))
    page = Page(build(tmp_path, comparison=unclear, clearer=commands))
    assert "2 seeds and 320 test images leave that open by" in page.text
    assert "fastssl demo --steps 600" in page.text
    clear = Page(build(tmp_path, comparison=compare((0.6, 0.7), (0.1, 0.1)), clearer=commands))
    assert "fastssl demo --steps 600" not in clear.text
