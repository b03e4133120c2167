"""Trunks as files: export, import, what is refused, and the digest."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from fastssl.errors import InputError
from fastssl.models import (
    build_trunk,
    digest_trunk,
    load_trunk,
    save_trunk,
    split_batch_norms,
    trunk_names,
)


def build(name, width=4, seed=0):
    torch.manual_seed(seed)
    return build_trunk(name, width)


@pytest.fixture
def small_file(tmp_path):
    """A trunk of width 1 and the file that it was exported to."""
    trunk, path = build("resnet9", width=1), tmp_path / "trunk.safetensors"
    save_trunk(trunk, path, {"recipe": "demo"})
    return trunk, path


@pytest.mark.parametrize("name", trunk_names())
def test_a_trunk_survives_export_and_import(name, tmp_path):
    trunk = build(name, width=2)
    with torch.no_grad():
        for buffer in trunk.buffers():
            buffer.add_(1)
    save_trunk(trunk, tmp_path / "trunk.safetensors", {"step": "12"})
    loaded, metadata = load_trunk(tmp_path / "trunk.safetensors")
    assert metadata == {"name": name, "width": "2", "step": "12"}
    assert (loaded.name, loaded.width) == (name, 2)
    wanted = trunk.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in loaded.state_dict().items())


def test_export_in_another_process_gives_equal_bytes(tmp_path):
    script = (
        "import sys, torch; from fastssl.models import build_trunk, save_trunk;"
        "torch.manual_seed(0);"
        "save_trunk(build_trunk('resnet9', 1), sys.argv[1], {k: k for k in 'abcdefgh'})"
    )
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        subprocess.run([sys.executable, "-c", script, str(file)], check=True)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_export_is_plain_safetensors_with_the_names_of_the_modules(small_file):
    trunk, path = small_file
    assert safetensors.torch.load_file(path).keys() == trunk.state_dict().keys()


def test_export_leaves_no_draft_behind(small_file):
    assert [file.name for file in small_file[1].parent.iterdir()] == ["trunk.safetensors"]


def test_export_refuses_metadata_that_contradicts_the_trunk(tmp_path):
    with pytest.raises(ValueError, match=r"metadata\['width'\] \(8\) must be the trunk's own, 1"):
        save_trunk(build("resnet9", width=1), tmp_path / "trunk", {"width": "8"})


def test_export_refuses_metadata_that_is_no_text(tmp_path):
    with pytest.raises(ValueError, match=r"metadata\['step'\] must be text, got 12"):
        save_trunk(build("resnet9", width=1), tmp_path / "trunk", {"step": 12})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"path \(.*trunk\.safetensors\) is not there"):
        load_trunk(tmp_path / "trunk.safetensors")


def test_a_run_directory_stands_for_the_trunk_that_it_has_exported(tmp_path):
    trunk = build("resnet9", width=1)
    with pytest.raises(InputError, match=r"folder without trunk\.safetensors, .* give a run that"):
        load_trunk(tmp_path)
    save_trunk(trunk, tmp_path / "trunk.safetensors", {})
    assert digest_trunk(load_trunk(tmp_path)[0]) == digest_trunk(trunk)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(small_file, keep):
    path = small_file[1]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        load_trunk(path)


def test_a_file_that_does_not_name_its_trunk_is_refused(small_file):
    trunk, path = small_file
    safetensors.torch.save_file(trunk.state_dict(), path, {"width": "1"})
    with pytest.raises(InputError, match=r"must hold name and width, got \['width'\]"):
        load_trunk(path)


def test_missing_and_unexpected_weights_are_named(small_file):
    trunk, path = small_file
    state = trunk.state_dict()
    state["head.weight"] = state.pop("fc.weight")
    state["fc.bias"] = torch.zeros(3)
    safetensors.torch.save_file(state, path, {"name": "resnet9", "width": "1"})
    match = (
        r"resnet9 of width 1: missing: fc\.weight; unexpected: head\.weight; "
        r"of another shape: fc\.bias \(3,\) instead of \(64,\)"
    )
    with pytest.raises(InputError, match=match):
        load_trunk(path)


def test_the_digest_is_that_of_the_file_and_of_nothing_else_that_it_says(small_file, tmp_path):
    trunk, path = small_file
    save_trunk(trunk, tmp_path / "other.safetensors", {"recipe": "another", "step": "7"})
    digests = {digest_trunk(load_trunk(file)[0]) for file in (path, tmp_path / "other.safetensors")}
    assert digests == {digest_trunk(trunk)}


def test_the_digest_of_a_trunk_with_towers_is_that_of_its_export(tmp_path):
    trunk = build("resnet9", width=1)
    digest = digest_trunk(trunk)
    split_batch_norms(trunk, 3)
    assert digest_trunk(trunk) == digest
    save_trunk(trunk, tmp_path / "trunk.safetensors", {})
    assert digest_trunk(load_trunk(tmp_path / "trunk.safetensors")[0]) == digest


@pytest.mark.parametrize("part", ["conv1.weight", "bn1.running_var", "bn1.num_batches_tracked"])
def test_the_digest_changes_with_any_weight_or_statistic(part):
    trunk = build("resnet9", width=1)
    before = digest_trunk(trunk)
    with torch.no_grad():
        trunk.state_dict()[part].view(-1)[0] += 1
    assert digest_trunk(trunk) != before


def test_forms_that_compute_something_else_have_another_digest():
    trunk, form = build("resnet50", width=1), build("resnet50_patch", width=1)
    form.load_state_dict(trunk.state_dict())
    assert digest_trunk(trunk) != digest_trunk(form)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"name": "resnet50_linear65536", "width": "64"}, "weights of resnet50_linear65536"),
        ({"name": "resnet9", "width": "9" * 5000}, "does not name its trunk"),
        ({"name": "resnet9", "width": "\N{ARABIC-INDIC DIGIT FIVE}"}, "does not name its trunk"),
        ({"name": "resnet9", "width": "0"}, r"cannot be: width \(0\)"),
        ({"name": "x" * 10**6, "width": "1"}, "does not name its trunk"),
        ({"name": "resnet9\n\x1b[31m", "width": "1"}, "does not name its trunk"),
        ({"name": "resnet9_linear" + "9" * 50, "width": "1"}, "must end with a whole number"),
        ({"name": "resnet99", "width": "1"}, r"cannot be: .* did you mean 'resnet9'"),
    ],
)
def test_a_trunk_that_the_file_cannot_hold_is_refused_before_it_takes_memory(
    tmp_path, metadata, message
):
    """At width 64 the first of them has 9 GB of weights."""
    path = tmp_path / "trunk.safetensors"
    safetensors.torch.save_file({"conv1.weight": torch.zeros(3)}, path, metadata)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message):
        load_trunk(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
