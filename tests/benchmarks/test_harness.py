"""Rounds, ratios and what a file holds."""

from __future__ import annotations

import json

from fastssl.benchmarks.harness import compare, run_rounds, summarize, write_result


def test_every_side_has_a_turn_in_each_round_and_another_one_begins():
    order = []
    turns = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    assert run_rounds(turns, 3) == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}
    assert "".join(order) == "abcbcacab"


def test_ratios_are_those_of_each_round():
    # The machine was ten times slower in the second round, for both sides.
    ratio = compare([2.0, 30.0, 2.0], [1.0, 10.0, 1.0])
    assert (ratio.median, ratio.least, ratio.greatest) == (2, 2, 3)


def test_a_figure_is_a_median_with_its_spread():
    assert summarize(iter([3.0, 1.0, 10.0])).spread == [1, 10]
    assert summarize([3.0, 1.0, 10.0]).median == 3


def test_a_result_is_written_where_a_file_is_asked_for(tmp_path):
    write_result(None, {"rows": []})
    write_result(tmp_path / "rows.json", {"rows": [1]})
    assert json.loads((tmp_path / "rows.json").read_text()) == {"rows": [1]}
