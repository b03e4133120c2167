from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from fastssl.errors import InputError
from fastssl.evaluation.report import Comparison, Report, read_run, write_report

LINE = {"epoch": 0.5, "samples": 640, "lr": 0.1, "images_per_s": 90.0, "data_wait_ms": 1.5}


def write_metrics(folder, lines):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    lines = [{**LINE, "step": s, "loss": 4.0 / s, "accuracy": s / 40} for s in (10, 20)]
    write_metrics(folder, [lines[0], {"event": "resume", "step": 10}, lines[1]])
    return folder


class Page(HTMLParser):
    """Text, links and tags of a page; fails on tags that do not match."""

    VOID = ("meta", "img", "link", "br", "hr")

    def __init__(self, source):
        super().__init__()
        self.text, self.sources, self.tags, self.open = "", [], [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
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


def test_run_gives_curves_and_counts_resumes(run):
    read = read_run(run, "seed 0")
    assert (read.name, read.num_resumes) == ("seed 0", 1)
    assert read.curve("loss") == ([10, 20], [0.4, 0.2])
    assert read.task_scalars() == ["accuracy"]


def test_torn_last_line_of_a_killed_run_is_left_out(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "lo')
    assert [line["step"] for line in read_run(run).lines] == [10, 20]


def test_steps_whose_loss_is_not_finite_leave_a_gap(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**LINE, "step": 30, "loss": None}) + "\n")
    assert read_run(run).curve("loss") == ([10, 20], [0.4, 0.2])


def test_newest_pictures_are_read_from_tensorboard(run):
    from torch.utils.tensorboard import SummaryWriter

    newest = np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8)
    with SummaryWriter(str(run / "tensorboard")) as writer:
        writer.add_image("jigsaw/0", torch.zeros(12, 20, 3), 1, dataformats="HWC")
        writer.add_image("jigsaw/0", torch.from_numpy(newest), 2, dataformats="HWC")
    (picture,) = read_run(run).pictures
    np.testing.assert_array_equal(picture, newest)


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no metrics.jsonl"):
        read_run(tmp_path)


def test_page_needs_nothing_from_outside(tmp_path, run):
    source = build(
        tmp_path,
        runs=[read_run(run)],
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
        runs=[read_run(run)],
        chance={"accuracy": 0.01},
        comparison=compare((0.6, 0.62), (0.4, 0.42), per_class={"car": (0.7, 0.2)}),
    )
    drawn = "".join(re.findall(r"<svg.*?</svg>", source, re.DOTALL))
    assert "var(--series-1)" in drawn
    assert not re.findall(r"#0[1-7]0[1-7]0[1-7]", drawn)


def test_ids_of_a_page_are_unique(tmp_path, run):
    ids = re.findall(r' id="([^"]+)"', build(tmp_path, runs=[read_run(run)]))
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
    page = Page(build(tmp_path, runs=[read_run(run)], no_comparison="There are no labels."))
    assert "There are no labels." in page.text
    assert "Pretext loss" in page.text


def test_training_table_shows_where_each_run_stands(tmp_path, run):
    page = Page(build(tmp_path, runs=[read_run(run, "seed 0")]))
    assert "seed 0" in page.text
    assert "640" in page.text
    assert "0.200" in page.text
