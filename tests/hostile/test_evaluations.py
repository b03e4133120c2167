"""The short form of ``evaluations.py``, ``weights.py`` and ``targets.py``, in this process."""

from __future__ import annotations

import contextlib

import pytest

from fastssl.commands import evaluate
from fastssl.commands.frame import spell_line
from fastssl.errors import InputError, describe_failure
from fastssl.models import build_trunk
from fastssl.models.state_dicts import load_state
from fastssl.runs.result import read_result
from fastssl.shards.derive.combine import CombineConfig, combine
from fastssl.shards.making.sources import open_source

from . import case, datasets, evaluations, reports, sources, targets, weights


def prepare(found, folder):
    """Make a case's files; return the words of its command and what must not change."""
    words = [str(word) for word in found.prepare(folder)]
    return words, case.look_at(folder / case.VICTIM)


def evaluate_case(found, folder):
    """Evaluate in this process; return what was refused, empty where nothing was."""
    words, before = prepare(found, folder)
    told = ""
    try:
        evaluate.main(words[1:])
    except (InputError, IsADirectoryError) as error:
        told = describe_failure(error)[1] or ""
    assert case.look_at(folder / case.VICTIM) == before
    return told


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("features: an array of minus signs", "a header of 9,002 bytes"),
        ("features: an array that is a zip", "is no array"),
        ("features: an array that executes", "is {'descr': '|O'"),
        ("features: labels.npy is a pipe", "a pipe, wanted a regular file"),
        ("features: 1e400 samples", "cannot be read"),
        ("features: a storage that is no type", "cannot be read"),
        ("features: a view of a megabyte", "features of something else"),
        ("features: two rows of 24", "are of 2 samples"),
        ("features: labels of 99", "have other labels than"),
        ("features: features that are no numbers", "are not finite"),
        ("features: ids of 10**12", "are of samples that"),
        ("half done: features.npy leads out", "is a symbolic link"),
        ("half done: features.npy has another name", "has other names too"),
        ("half done: features.npy is a pipe", "is a pipe"),
        ("half done: features.npy is a terabyte", "has the wrong size"),
        ("half done: filled leads out", "is a symbolic link"),
        ("half done: a note of rubbish", "cannot be read"),
        ("half done: a note that is a device", "is a symbolic link"),
        ("half done: a note of rows that are none", "is of other rows"),
        ("half done: a note of ids that are none", "names sample 999"),
        ("half done: notes of all, and no rows", "is absent"),
        ("figures: figures are a folder", "Is a directory; a folder stands there"),
        ("figures: figures nested 300 deep", "nested more than 16 deep"),
        ("figures: seconds of text", "could not convert"),
        ("figures: settings that are no numbers", "a number is inf"),
        ("figures: a layer of surrogates", "surrogates not allowed"),
        ("figures: a layer that moves the cursor", "cannot be printed"),
        ("figures: a hundred thousand parts", "at most 10,000"),
        ("features leads out, knn", "is a symbolic link; a run changes nothing outside"),
        ("features/parts leads out, knn", "is a symbolic link"),
        ("results leads out, knn", "is a symbolic link"),
        ("an end point leads out, knn", "is a symbolic link"),
        ("heads leads out", "is a symbolic link"),
    ],
)
def test_what_lies_beside_a_trunk_is_used_or_refused_in_a_line(tmp_path, name, said):
    (found,) = (one for one in evaluations.list_cases() if one.name == name)
    assert said in evaluate_case(found, tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a trunk: an input nested without end", "maximum recursion depth"),
        ("a trunk: an input with a mean beyond floats", "too large"),
        ("a trunk: an input of a megabyte", "cannot be read"),
        ("a trunk: a recipe that moves the cursor", "wanted a recipe's name"),
        ("a trunk: a step of 5,000 digits", ""),
    ],
)
def test_what_an_exported_trunk_says_is_taken_or_refused(tmp_path, name, said):
    (found,) = (one for one in weights.list_cases() if one.name == name)
    told = evaluate_case(found, tmp_path)
    assert said in told
    assert bool(said) == bool(told)
    assert len(told) < 2000


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a pickle that executes", "cannot be read as weights"),
        ("a state that executes", "cannot be read as weights"),
        ("a zip bomb", "holds compressed members"),
        ("30 million empty dicts", "in more than 1,048,576 steps"),
        ("30 million empty dicts, as they were saved once", "in more than 1,048,576 steps"),
        ("dicts in dicts by the thousand", "does not fit"),
        ("a hundred thousand prefixes", "in more than 1,048,576 steps"),
        ("complex weights", "holds no named tensors"),
        ("sparse weights", "holds no named tensors"),
        ("weights without memory", "holds no named tensors"),
        ("quantized weights", "holds no named tensors"),
        ("storages of a byte", "cannot be read as weights"),
        ("weights as they were saved once", ""),
        ("parameters", ""),
        ("weights of whole numbers", ""),
    ],
)
def test_a_state_dict_is_loaded_or_refused_and_never_executed(tmp_path, name, said):
    path = tmp_path / "x.pt"
    case.make_victim(tmp_path)
    weights.list_states()[name](path)
    refused = pytest.raises(InputError, match=said) if said else contextlib.nullcontext()
    with refused:
        load_state(build_trunk("resnet9", 1), "resnet9", path)
    assert [p.name for p in (tmp_path / case.VICTIM).iterdir()] == ["precious"]


# --- Targets and COCO's instances -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a target is a pipe",
        "a target is a link to a device",
        "a target is an array of objects",
        "a target is a pickle",
        f"a target of {(datasets.NUM_SAMPLES, 1 << 33)}",
        "targets lead out",
    ],
)
def test_a_target_that_lies_is_refused_where_datasets_are_combined(tmp_path, name):
    dataset = datasets.copy_base(tmp_path)
    case.make_victim(tmp_path)
    targets.list_targets()[name](dataset)
    with pytest.raises(InputError) as told:
        combine(CombineConfig((dataset,), tmp_path / "out"))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["a pipe", "a link", "a terabyte"])
def test_a_list_of_what_was_skipped_is_a_file_of_bounded_size(tmp_path, kind):
    dataset = datasets.copy_base(tmp_path)
    path = dataset / "skipped.jsonl"
    path.unlink(missing_ok=True)
    targets.list_kinds()[kind](path)
    with pytest.raises(InputError, match=r"skipped\.jsonl"):
        combine(CombineConfig((dataset,), tmp_path / "out"))


def test_a_folder_that_leads_out_is_not_emptied_to_combine_in(tmp_path):
    dataset = datasets.copy_base(tmp_path)
    victim = case.make_victim(tmp_path)
    (tmp_path / ".out.combining").symlink_to(victim)
    with pytest.raises(InputError, match="is a symbolic link"):
        combine(CombineConfig((dataset,), tmp_path / "out"))
    assert (victim / "precious").exists()


@pytest.mark.parametrize(
    "name", [name for name, text in targets.list_instances().items() if not callable(text)]
)
def test_instances_are_listed_or_refused(tmp_path, name):
    (tmp_path / "instances_x.json").write_bytes(targets.list_instances()[name])
    (tmp_path / "a.jpg").write_bytes(sources.make_photograph())
    with contextlib.suppress(InputError):
        source = open_source(tmp_path / "instances_x.json")
        assert all(entry.to_json().isascii() for entry in source.entries())


def test_ten_billion_labels_are_refused_before_they_are_made(tmp_path):
    path = tmp_path / "instances_x.json"
    path.write_bytes(targets.list_instances()["ten billion labels"]())
    with pytest.raises(InputError, match=r"100,000 images x 100,000 categories"):
        next(open_source(path).entries())


# --- What is told ---------------------------------------------------------------------------------


def test_a_line_for_the_user_is_short_and_moves_no_cursor():
    assert spell_line("a\x1b[2J\nb\ud800") == "a\\x1b[2J b\\ud800"
    assert len(spell_line("ab:/" * 10**6)) < 5000  # not searched for passwords to its end
    assert "secret" not in spell_line(f"https://anna:secret@host/{'x' * 10**5}")


def test_a_result_of_a_billion_letters_is_not_read(tmp_path):
    path = tmp_path / "r.json"
    path.write_bytes(reports.changed() + b" " * (65 << 20))
    with pytest.raises(InputError, match="at most 16,777,216"):
        read_result(path)


def test_every_case_has_a_name_of_its_own():
    found = [*evaluations.list_cases(), *weights.list_cases(), *reports.list_cases()]
    names = [one.name for one in [*found, *targets.list_cases()]]
    assert len(names) > 500
    assert len(set(names)) == len(names)
