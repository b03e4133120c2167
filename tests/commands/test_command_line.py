"""The command line of a run, read in this process: what is wrong with it is said at once."""

from __future__ import annotations

import pytest

from fastssl.commands.train import choose_run, main
from fastssl.errors import InputError


def test_the_recipe_comes_first():
    with pytest.raises(
        InputError, match=r"the recipe \('--data\.path'\) must come first: .* quick"
    ):
        main(["--data.path", "photos"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["photos", "runs/x"],
            r"'photos' stands behind .* wanted --data\.path DATASET --output-dir",
        ),
        (["--task", "rotatoin"], "recipe sets the task, here jigsaw; .* --list rotation$"),
        (["--optim.lr", "fast"], "--optim.lr: could not convert string to float: 'fast'; "),
    ],
)
def test_what_other_programs_would_take_is_refused_with_what_is_wanted(options, said):
    with pytest.raises(InputError, match=said):
        choose_run(["quickstart", *options])


def test_all_that_is_missing_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        choose_run(["demo", "--trunk", "resnet51"])
    message = str(caught.value)
    assert message.startswith("trunk ('resnet51') is not known; did you mean 'resnet50'?")
    assert "--data.path (none given) must name a dataset" in message
    assert "--output-dir (none given) must name the run directory" in message
