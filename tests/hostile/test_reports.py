"""The short form of ``reports.py``: results and logs of others, in this process."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from fastssl.commands.report import find_places, read_entries, read_runs
from fastssl.errors import InputError
from fastssl.evaluation.report import ResultsReport, prepare
from fastssl.evaluation.report.study_page import render_results_page
from fastssl.runs.read import MAX_NAMES, read_run
from fastssl.runs.result import read_result

from . import reports

TAGS = set(
    "html head meta title style body main header p h1 h2 h3 h4 section div details summary figure "
    "figcaption table tr th td span small br b dl dt dd pre img svg g path defs use text tspan "
    "rect clippath line circle polygon polyline image".split()
)


class Reader(HTMLParser):
    """Collects what of a page would do something."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        names = dict(attrs)
        is_foreign = not names.get("src", "data:").startswith("data:image/png;base64,")
        if tag not in TAGS or (tag == "img" and is_foreign):
            self.found.append((tag, attrs))
        self.found += [(tag, name) for name in names if name.startswith("on") or name == "srcdoc"]


def render(place):
    """Return the page of a place, without what is published."""
    found = list(find_places([place]))
    runs = read_runs([one for one in found if (one / "metrics.jsonl").is_file()])
    entries = [entry for one in found for entry in read_entries(one, runs.get(one))]
    report = ResultsReport("title", prepare(entries, {}), [*runs.values()])
    return render_results_page(report)


def test_whatever_a_field_holds_a_result_is_shown_or_refused_and_never_acts(tmp_path):
    path = tmp_path / "r.json"
    num_shown = 0
    for name, content in reports.list_fields():
        path.write_bytes(content)
        try:
            result = read_result(path)
        except InputError as error:
            told = str(error)
            assert len(told) < 500, name
            continue
        num_shown += 1
        if reports.SCRIPT in json.dumps(result.to_json(), ensure_ascii=False) or "<" in name:
            reader = Reader()
            page = render(path)
            reader.feed(page)
            assert reader.found == [], name
            assert "alert(1)" not in page or "&lt;script&gt;alert(1)" in page
    assert num_shown > 100


@pytest.mark.parametrize("name", ["scripts", "names of formulas", "values below nothing"])
def test_results_are_drawn_with_names_that_act_nowhere(tmp_path, name):
    for number, content in enumerate(reports.list_sets()[name]):
        (tmp_path / f"{number}.json").write_bytes(content)
    reader = Reader()
    try:
        page = render(tmp_path)
    except InputError:
        return
    reader.feed(page)
    assert reader.found == []


@pytest.mark.parametrize(
    "name", [name for name, lines in reports.list_lines().items() if not callable(lines)]
)
def test_a_log_is_shown_whatever_its_lines_hold(tmp_path, name):
    run = reports.make_run(tmp_path, reports.list_lines()[name])
    found = read_run(run)
    assert len(found.names()) <= MAX_NAMES
    assert all(
        value is None or (type(value) in (int, float) and abs(value) < 1e30)
        for line in found.lines
        for value in line.values()
    )


def test_a_run_full_of_scripts_is_shown_and_acts_nowhere(tmp_path):
    script = reports.SCRIPT
    lines = reports.list_lines()["names that are scripts"]
    run = reports.make_run(tmp_path, lines, trunk=script, **{"data.path": script})
    (run / "exit.json").write_text(json.dumps({"code": 1, "reason": script, "step": 3}))
    reports.write_pictures(run / "tensorboard", iter([(script, reports.make_picture(2))]))
    reader = Reader()
    page = render(run)
    reader.feed(page)
    assert reader.found == []
    assert "alert(1)" in page  # the ending is told, as text


def test_pictures_of_a_log_take_bounded_memory(tmp_path):
    run = reports.make_run(tmp_path)
    encoded = reports.make_picture(4096)
    reports.write_pictures(run / "tensorboard", ((f"t{i}", encoded) for i in range(6)))
    assert len(read_run(run).pictures) == 4
    reports.write_pictures(
        run / "tensorboard", ((f"t{i}", reports.make_picture(2)) for i in range(99))
    )
    assert len(read_run(run).pictures) == 64


def test_folders_that_lead_to_each_other_are_entered_once(tmp_path):
    case = next(c for c in reports.list_cases() if c.name == "a hundred links to the folder above")
    _, place, *_ = case.prepare(tmp_path)
    assert [path.name for path in find_places([place])] == ["0.json"]
