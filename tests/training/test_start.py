"""Where a run's weights begin, and which of them learn: trunk_from, frozen_stages, max_steps 0."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from fastssl.errors import InputError
from fastssl.models import build_trunk, digest_trunk, load_trunk, save_trunk
from fastssl.models.input_spec import INPUT_KEY, InputSpec
from fastssl.studies import build_recipe
from fastssl.training import train
from fastssl.training.memory import estimate_step, outline_task
from tests.small_runs import assert_equal_states, load_state

INPUT = {INPUT_KEY: InputSpec().to_text()}


def export(path, name="resnet9", width=1, metadata=INPUT):
    torch.manual_seed(7)
    trunk = build_trunk(name, width)
    save_trunk(trunk, path, metadata)
    return trunk


def trunk_of(state):
    names = [name for name in state["task"] if name.startswith("trunk.")]
    return {name.removeprefix("trunk."): state["task"][name] for name in names}


def assert_equal_weights(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


# ------------------------------------------------------------------ max_steps 0


def test_no_steps_export_the_untrained_trunk(configure):
    config = configure(max_steps=0)
    train(config)
    ending = json.loads((config.output_dir / "exit.json").read_text())
    assert ending == {"code": 0, "reason": "done", "step": 0}
    state = load_state(config)
    assert state["step"] == 0
    trunk, metadata = load_trunk(config.output_dir / "trunk.safetensors")
    assert metadata["step"] == "0"
    assert_equal_weights(trunk.state_dict(), trunk_of(state))
    other = configure("other", max_steps=1, nested={"optim": {"lr": 0.0}})
    train(other)
    trained, _ = load_trunk(other.output_dir / "trunk.safetensors")
    assert_equal_weights(dict(trunk.named_parameters()), dict(trained.named_parameters()))


def test_a_trunk_says_of_how_many_images_it_is_where_they_were_not_all(configure):
    for name, number, wanted in (("all", 0, None), ("part", 30, "30")):
        config = configure(name, max_steps=0, nested={"data": {"max_samples": number}})
        train(config)
        _, metadata = load_trunk(config.output_dir / "trunk.safetensors")
        assert metadata.get("max_samples") == wanted


def test_a_run_of_no_steps_goes_on_as_one_that_never_stopped(configure):
    whole, stopped = configure("whole", max_steps=4), configure("stopped", max_steps=4)
    train(whole)
    train(dataclasses.replace(stopped, max_steps=0))
    train(stopped)
    assert_equal_states(load_state(whole), load_state(stopped))


def test_without_a_limit_the_schedule_is_the_limit(configure):
    config = configure(max_steps=None, nested={"schedule": {"epochs": 0.5}})
    train(config)
    assert load_state(config)["step"] == 3  # 23.5 samples, 8 a step


# ------------------------------------------------------------------ trunk_from


def test_a_run_starts_with_the_trunk_of_another(configure):
    first = configure("first", max_steps=2)
    train(first)
    then = configure("then", max_steps=0, trunk_from=first.output_dir, seed=5)
    train(then)
    wanted, _ = load_trunk(first.output_dir / "trunk.safetensors")
    found, metadata = load_trunk(then.output_dir / "trunk.safetensors")
    assert_equal_weights(wanted.state_dict(), found.state_dict())
    assert metadata["trunk_from"] == digest_trunk(wanted)


def test_the_head_is_the_one_that_the_run_has_anyway(configure, tmp_path):
    export(tmp_path / "trunk.safetensors")
    fresh = configure("fresh", max_steps=0)
    started = configure("started", max_steps=0, trunk_from=tmp_path / "trunk.safetensors")
    train(fresh)
    train(started)
    a, b = load_state(fresh)["task"], load_state(started)["task"]
    heads = [name for name in a if name.startswith("head.")]
    assert heads
    assert all(torch.equal(a[name], b[name]) for name in heads)
    assert not torch.equal(a["trunk.conv1.weight"], b["trunk.conv1.weight"])


def test_towers_all_begin_with_the_trunks_batch_norms(configure, tmp_path):
    source = tmp_path / "trunk.safetensors"
    torch.manual_seed(7)
    trunk = build_trunk("resnet9", 1)
    torch.nn.init.uniform_(trunk.bn1.running_mean)
    save_trunk(trunk, source, INPUT)
    config = configure(max_steps=0, trunk_from=source, nested={"task": {"batch_norm": "tower"}})
    train(config)
    found = load_state(config)["task"]["trunk.bn1.norm.running_mean"]
    assert torch.equal(found, trunk.bn1.running_mean.repeat(9))


def test_the_place_of_the_trunk_may_change_between_stops(configure, tmp_path):
    export(tmp_path / "trunk.safetensors")
    whole = configure("whole", max_steps=4, trunk_from=tmp_path / "trunk.safetensors")
    stopped = configure("stopped", max_steps=2, trunk_from=tmp_path / "trunk.safetensors")
    train(whole)
    train(stopped)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "trunk.safetensors", tmp_path / "elsewhere")
    train(dataclasses.replace(stopped, max_steps=4, trunk_from=tmp_path / "elsewhere"))
    assert_equal_states(load_state(whole), load_state(stopped))


def test_another_trunk_is_another_run(configure, tmp_path):
    source = tmp_path / "trunk.safetensors"
    digest = digest_trunk(export(source))
    config = configure(max_steps=1, trunk_from=source)
    train(config)
    with pytest.raises(InputError, match=rf"trunk_from \(old '{digest}', new None\)"):
        train(dataclasses.replace(config, trunk_from=None))
    torch.manual_seed(8)
    save_trunk(build_trunk("resnet9", 1), source, INPUT)
    with pytest.raises(InputError, match=rf"trunk_from \(old '{digest}', new '\w{{64}}'\); give"):
        train(config)


def test_a_form_of_the_same_network_is_taken(configure, tmp_path):
    source = tmp_path / "trunk.safetensors"
    trunk = export(source, "resnet50_patch")
    config = configure(max_steps=0, trunk_from=source, trunk="resnet50")
    train(config)
    assert_equal_weights(trunk.state_dict(), trunk_of(load_state(config)))


@pytest.mark.parametrize(
    ("name", "width", "metadata", "message"),
    [
        (
            *("resnet9", 2, INPUT),
            r"holds trunk 'resnet9' of width 2, this run has 'resnet9' of width 1; set --trunk "
            r"resnet9 --width 2, or give another file",
        ),
        ("resnet50", 1, INPUT, r"holds trunk 'resnet50' of width 1, this run has 'resnet9'"),
        ("resnet9_linear8", 1, INPUT, r"holds trunk 'resnet9_linear8' of width 1"),
        (
            *("resnet9", 1, {INPUT_KEY: InputSpec("standardized").to_text()}),
            r"whose input is \{\"kind\": \"standardized\"\}, task 'jigsaw' gives \{\"kind\": \"sc",
        ),
        ("resnet9", 1, {}, r"does not say what its input is"),
    ],
    ids=["width", "name", "linear", "input", "no input"],
)
def test_a_trunk_that_does_not_fit_is_refused(configure, tmp_path, name, width, metadata, message):
    source = tmp_path / "trunk.safetensors"
    export(source, name, width, metadata)
    with pytest.raises(InputError, match=message):
        train(configure(trunk_from=source))
    assert not (configure().output_dir / "config.json").exists()


def test_a_network_of_the_same_weights_that_computes_something_else_is_refused(configure, tmp_path):
    """Weights of the two ResNet-50 v1 have the same names, their batch norms differ."""
    source = tmp_path / "trunk.safetensors"
    export(source, "resnet50_v1")
    with pytest.raises(InputError, match="holds trunk 'resnet50_v1' of width 1, this run has 'r"):
        train(configure(trunk_from=source, trunk="resnet50"))


def test_a_place_without_a_trunk_is_refused(configure, tmp_path):
    (tmp_path / "first").mkdir()
    with pytest.raises(InputError, match=r"frist\) is not there; did you mean '.*/first'"):
        train(configure(trunk_from=tmp_path / "frist"))
    with pytest.raises(InputError, match=r"is a folder without trunk\.safetensors, which a run"):
        train(configure(trunk_from=tmp_path / "first"))
    (tmp_path / "first" / "trunk.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        train(configure(trunk_from=tmp_path / "first"))


# ------------------------------------------------------------------ frozen_stages


@pytest.mark.parametrize("num_stages", [2, 5])
def test_frozen_stages_end_as_they_began_and_the_others_do_not(configure, num_stages):
    begun = configure("begun", max_steps=0, frozen_stages=num_stages)
    ended = configure("ended", max_steps=3, frozen_stages=num_stages)
    train(begun)
    train(ended)
    before, after = (trunk_of(load_state(config)) for config in (begun, ended))
    parts = [*build_trunk("resnet9", 1).layers.values()][:num_stages]
    frozen = tuple(f"{child}." for children in parts for child in children)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if not name.startswith(frozen)}


def test_frozen_weights_have_no_state_in_the_optimiser(configure):
    config = configure(max_steps=1, frozen_stages=5)
    train(config)
    state = load_state(config)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    names = [name for name in state["task"] if not name.endswith(statistics)]
    num_head = sum(name.startswith("head.") for name in names)
    assert sum(len(group["params"]) for group in state["optimizer"]["param_groups"]) == num_head
    assert len(state["optimizer"]["state"]) == num_head


def test_a_resumed_run_with_frozen_stages_equals_the_undisturbed_one(configure):
    whole, stopped = (configure(n, frozen_stages=2, max_steps=5) for n in ("whole", "stopped"))
    train(whole)
    train(dataclasses.replace(stopped, max_steps=2))
    train(stopped)
    assert_equal_states(load_state(whole), load_state(stopped))


def test_frozen_stages_are_part_of_the_run(configure):
    train(configure(max_steps=1))
    with pytest.raises(InputError, match=r"frozen_stages \(old 0, new 1\)"):
        train(configure(max_steps=1, frozen_stages=1))


def test_more_stages_than_there_are_are_refused_with_their_names(configure):
    match = r"frozen_stages \(6\) must lie in 0 \.\. 5, .* 1 stem, 2 block1, 3 block2, 4 block3, 5 "
    with pytest.raises(InputError, match=match):
        train(configure(frozen_stages=6))


def test_what_is_frozen_takes_no_memory_for_learning():
    config = dataclasses.replace(build_recipe("demo"), trunk="resnet50")
    whole = estimate_step(outline_task(config, 0), 2, "fp32", 1)
    frozen = dataclasses.replace(config, frozen_stages=5)
    head = estimate_step(outline_task(frozen, 0), 2, "fp32", 1)
    assert head.weights == whole.weights
    assert head.gradients == head.optimizer < whole.gradients / 5
    assert head.activations < whole.activations / 5
