"""The trainer on a GPU: every precision steps, and a resumed run equals the undisturbed one."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from fastssl.training import train
from tests.small_runs import (
    assert_equal_states,
    crash_after,
    load_state,
    read_lines,
)

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_steps_in_every_precision_keep_the_loss_finite(configure, precision):
    config = configure(device="cuda", precision=precision, max_steps=6)
    train(config)
    losses = [line["loss"] for line in read_lines(config.output_dir / "metrics.jsonl")]
    # Before its scale has settled a GradScaler skips steps, and a skipped step has no loss.
    assert any(loss is not None for loss in losses)
    assert all(math.isfinite(loss) for loss in losses if loss is not None)
    assert all(torch.isfinite(v).all() for v in load_state(config)["task"].values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_resumed_run_equals_the_undisturbed_one(configure, precision):
    whole = configure("whole", device="cuda", precision=precision)
    train(dataclasses.replace(whole, max_steps=8))
    stopped = configure("stopped", device="cuda", precision=precision)
    for step in (2, 5):
        crash_after(stopped, step)
    train(dataclasses.replace(stopped, max_steps=8))
    assert_equal_states(load_state(whole), load_state(stopped))


def test_the_gpu_uses_the_samples_that_the_cpu_uses(configure):
    paths = []
    for device in ("cuda", "cpu"):
        config = configure(device, device=device, max_steps=8)
        train(config)
        paths.append(config.output_dir / "ledger.rank0.jsonl")
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.slow
def test_a_compiled_network_trains(configure):
    config = configure(device="cuda", precision="bf16", compile=True, max_steps=4)
    train(config)
    assert read_lines(config.output_dir / "metrics.jsonl")[-1]["step"] == 4
