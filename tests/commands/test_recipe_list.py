"""``fastssl train --list`` as it is typed."""

from __future__ import annotations

import json

import pytest

from fastssl.commands.recipe_list import print_list
from fastssl.commands.train import main
from fastssl.errors import InputError


def test_words_and_options_may_stand_in_any_order(capsys):
    main(["--list", "goyal19", "table1", "--published", "--gpu", "h100"])
    first = capsys.readouterr().out
    main(["--published", "--gpu", "h100", "--list", "goyal19", "table1"])
    assert capsys.readouterr().out == first
    assert "goyal19_supervised_alexnet_imagenet1k\n    49.54 top1" in first


def test_json_goes_to_a_file_or_alone_to_the_standard_output(tmp_path, capsys):
    print_list(["kolesnikov19", "table2", "--json", "-"])
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 7
    print_list(["kolesnikov19", "table2", "--json", str(tmp_path / "rows.json")])
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    assert capsys.readouterr().out.startswith("recipe ")
    with pytest.raises(InputError, match="lies in no folder"):
        print_list(["--json", str(tmp_path / "not" / "there.json")])


def test_what_suits_is_told_for_ones_own_dataset(dataset_path, capsys):
    print_list(["--data", str(dataset_path)])
    assert capsys.readouterr().out.startswith("For 47 photographs on ")
    print_list(["demo", "--images", "6400"])
    assert "1,000" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"--images \(5\) and --data .* both say"):
        print_list(["--data", str(dataset_path), "--images", "5"])


def test_an_unknown_gpu_is_answered_with_those_known():
    with pytest.raises(InputError, match=r"--gpu \('b100'\) is not known; did you mean '.100'"):
        print_list(["goyal19", "--gpu", "b100"])
