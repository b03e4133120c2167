"""Steps that are taken twice: nothing changes by it, and one bit that does is found and named."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError, RunFailed
from fastssl.tasks import CMCConfig
from fastssl.training import train
from fastssl.training.replay import is_same, list_differing_fields, sum_bits
from tests.nursery import run_child
from tests.small_runs import assert_equal_states, load_state, make_config
from tests.training.replay_run import KINDS, STEP, erring, flip_bit

REPLAYED = {"checks": {"replay_every": 2}}


def make(configure, name, task=None, **changes):
    config = configure(name, max_steps=6, **changes)
    if task is None:
        return config
    return dataclasses.replace(config, task=task, trunk="resnet9_halves", width=1)


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (None, {"accumulation": 2}),
        (None, {"precision": "bf16"}),
        (CMCConfig(size=16, num_negatives=20), {}),
    ],
    ids=["accumulation", "bf16", "a table"],
)
def test_a_run_whose_steps_are_taken_twice_is_the_same_run(configure, task, changes):
    once = make(configure, "once", task, **changes)
    twice = make(configure, "twice", task, nested=REPLAYED, **changes)
    train(once)
    train(twice)
    assert_equal_states(load_state(once), load_state(twice))
    for name in ("ledger.rank0.jsonl", "trunk.safetensors"):
        assert (once.output_dir / name).read_bytes() == (twice.output_dir / name).read_bytes()


NAMED = {
    "pixel": r"rank 0: pixels of sample \d+[,;]",
    "weight": r"rank 0: weight trunk\.conv1\.weight, ",
    "loss": "rank 0: loss;",
    "gradient": r"rank 0: this rank's gradient of trunk\.conv1\.weight;",
    "statistic": r"rank 0: running statistics trunk\.\S+\.running_mean;",
}


@pytest.fixture(scope="module")
def undisturbed(dataset_path, tmp_path_factory):
    """The state that the small run ends with."""
    config = make_config(dataset_path, tmp_path_factory.mktemp("whole") / "run", max_steps=6)
    train(config)
    return load_state(config)


@pytest.mark.parametrize("kind", KINDS)
def test_one_bit_is_found_before_the_update_and_the_run_goes_on(configure, undisturbed, kind):
    config = make(configure, "run", nested=REPLAYED)
    with erring(kind, 0), pytest.raises(RunFailed, match=f"step {STEP} .*: {NAMED[kind]}"):
        train(config)
    assert load_state(config)["step"] == 3
    train(config)
    assert_equal_states(undisturbed, load_state(config))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gradient", "pixel"])
def test_the_rank_that_errs_is_named_by_all(dataset_path, tmp_path, kind):
    script = Path(__file__).with_name("replay_run.py")
    done = run_child(script, dataset_path, tmp_path / "run", kind, 1, ranks=2)
    assert done.returncode != 0
    (said,) = set(re.findall(r"RunFailed: (step 4 .*)", done.stderr))
    assert re.search(NAMED[kind].replace("rank 0", "rank 1"), said)
    assert "rank 0:" not in said


def test_kernels_that_are_not_deterministic_are_refused(configure):
    with pytest.raises(InputError, match=r"check\.replay_every \(2\) needs deterministic kernels"):
        configure(deterministic=False, nested=REPLAYED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_every_bit_counts_in_a_sum(dtype):
    tensor = torch.full((3, 4), 7).to(dtype).t()
    before = sum_bits(tensor)
    words = tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])
    for bit in range(8 * tensor.element_size() - 1):
        words[2, 1] ^= 1 << bit
        assert sum_bits(tensor) != before
        words[2, 1] ^= 1 << bit
    assert sum_bits(tensor) == before


def test_numbers_that_are_none_are_compared_by_their_bits():
    nothing = torch.tensor([float("nan"), 0.0])
    assert is_same(nothing, nothing.clone())
    assert not is_same(nothing, torch.tensor([float("nan"), -0.0]))


def test_all_that_a_batch_carries_is_compared():
    def build():
        images = torch.zeros(3, 1, 2, 2, 3, dtype=torch.uint8)
        rows = [torch.arange(3), torch.zeros(3, dtype=torch.int64), torch.ones(3).long()]
        boxes = torch.zeros(3, 1, 4, dtype=torch.int32)
        return Batch(images, *rows, targets={"depth": torch.ones(3, 2)}, boxes=boxes)

    assert list_differing_fields(build(), build()) == []
    other = build()
    for tensor in (other.images[1], other.boxes[0], other.targets["depth"]):
        flip_bit(tensor)
    other.labels[0] = 5
    names = ["pixels of sample 1", "labels", "boxes", "target depth"]
    assert list_differing_fields(build(), other) == names
