"""What several tests of evaluations look at."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fastssl.models import build_trunk, save_trunk
from fastssl.models.input_spec import INPUT_KEY, InputSpec
from fastssl.studies import build_recipe
from fastssl.training import train


@pytest.fixture(scope="session")
def trained(dataset_path, tmp_path_factory):
    """A run directory that the trainer wrote: four steps of a narrow network, stopped once."""
    config = build_recipe("demo_smoke")
    small = {"num_permutations": 10, "hidden": 8, "patch": 10, "jitter": 3}
    config = dataclasses.replace(
        config,
        task=dataclasses.replace(config.task, **small, resize_short=36, crop=36),
        data=dataclasses.replace(config.data, path=dataset_path, num_threads=1),
        log=dataclasses.replace(config.log, every_steps=1, progress=False),
        output_dir=tmp_path_factory.mktemp("trained") / "run",
    )
    train(dataclasses.replace(config, max_steps=2))
    train(config)
    return config.output_dir


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run directory with a trunk in it and nothing else."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text("{}")
    torch.manual_seed(0)
    metadata = {"recipe": "r", "step": "5", INPUT_KEY: InputSpec().to_text()}
    save_trunk(build_trunk("resnet9", 1), folder / "trunk.safetensors", metadata)
    return folder
