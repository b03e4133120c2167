"""What several tests of evaluations look at."""

from __future__ import annotations

import dataclasses

import pytest

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
