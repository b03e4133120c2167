"""The third study in small: its list of runs, and what would be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastssl.commands.frame import parse_arguments
from fastssl.config import RunConfig
from fastssl.errors import InputError
from fastssl.evaluation.downstream_options import DOWNSTREAM
from fastssl.runs.sweep import check_trials
from fastssl.studies.newell20_small import Newell20Small
from fastssl.studies.registry import build_recipe

DATA = {v: (Path(f"{v}/train"), Path(f"{v}/test")) for v in ("0010", "1111")}


def test_runs_fit_together_and_no_two_are_the_same():
    trials = Newell20Small().list_trials(DATA)
    check_trials(trials)
    assert len(trials) == 2 * 5 * 2 + 2 * 2 * 5 * 4 * 3
    assert len({trial.command for trial in trials}) == len(trials)


def test_scratch_and_pretrained_are_trained_alike():
    """They differ in what they begin with alone."""
    trials = {t.name: t for t in Newell20Small().list_trials(DATA)}
    scratch = trials["pose-1111-scratch-n400-s2"].command
    tuned = trials["pose-1111-cmc-n400-s2"].command
    shared = len(scratch) - len(("--from-scratch", "true", "--trunk", "resnet9", "--width", "1"))
    assert scratch[:shared] == tuned[:shared]
    assert tuned[shared:] == ("--checkpoint", "{run:pretrain-1111-cmc}")
    assert trials["pose-1111-cmc-n400-s2"].all_needs == ("pretrain-1111-cmc",)


def test_commands_are_understood():
    trials = Newell20Small(seeds=1, label_counts=(100,)).list_trials(DATA)
    for trial in trials:
        kind, name, *words = trial.command
        words = [word.replace("{run:", "").replace("}", "") for word in words]
        if kind == "train":
            config = parse_arguments(RunConfig, words, default=build_recipe(name))
            assert (config.trunk.startswith("resnet9"), config.width) == (True, 1)
        elif name in DOWNSTREAM:
            config = parse_arguments(DOWNSTREAM[name], words)
            assert config.num_labels == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ("0001",)}, "must be four digits TCVL with V at 1"),
        ({"variants": ("0010-multi",)}, "must be four digits TCVL with V at 1"),
        ({"methods": ("jigsaw",)}, "is not of Newell and Deng 2020"),
        ({"label_counts": (400, 100)}, "must ascend from 1 on"),
        ({"label_counts": (100, 20_000)}, r"20,000.* must not exceed the 10,000 images"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Newell20Small(**changes)
