"""A run that began before a setting existed goes on with the setting's default."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fastssl.config import LogConfig
from fastssl.errors import InputError
from fastssl.studies import build_recipe
from fastssl.training import train
from fastssl.training.checkpoint import CheckpointStore

YOUNGER = {
    "data.dct": "exact",
    "optim.head_weight_decay": None,
    "trunk_from": None,
    "frozen_stages": 0,
    "data.hold_out": 0,
    "data.hold_out_seed": 0,
    "data.part": "remaining",
    "optim.bias_lr_factor": 1.0,
    "optim.decay_root": True,
    "optim.norm_weight_decay": None,
    "optim.head_lr_factor": 1.0,
}
"""Settings that runs of earlier versions do not know, with what those did."""


def forget_settings(run):
    """Make a run directory what it would be if these settings had not been known."""
    path = run / "config.json"
    config = json.loads(path.read_bytes())
    store = CheckpointStore(run / "checkpoints", 2)
    state = store.load(store.find_newest())
    for name in YOUNGER:
        del config["identity"][name], state["identity"][name]
    config["config"]["max_steps"] = 0  # once the whole schedule
    path.write_text(json.dumps(config))
    store.save(state["step"], state)
    store.wait()
    store.close()


@pytest.fixture
def config(dataset_path, tmp_path):
    recipe = build_recipe("kolesnikov19_rotation_smoke")
    return dataclasses.replace(
        recipe,
        output_dir=tmp_path / "run",
        max_steps=1,
        task=dataclasses.replace(recipe.task, size=16),
        data=dataclasses.replace(
            recipe.data, path=dataset_path, global_batch_size=4, num_threads=1
        ),
        log=LogConfig(progress=False, tensorboard=False),
    )


def test_it_goes_on_and_knows_them_from_then_on(config):
    train(config)
    forget_settings(config.output_dir)
    train(dataclasses.replace(config, max_steps=3))
    identity = json.loads((config.output_dir / "config.json").read_bytes())["identity"]
    assert {name: identity[name] for name in YOUNGER} == YOUNGER
    assert json.loads((config.output_dir / "exit.json").read_bytes())["step"] == 3


def test_another_value_is_refused_with_the_default_as_the_old_one(config):
    train(config)
    forget_settings(config.output_dir)
    optim = dataclasses.replace(config.optim, head_weight_decay=5e-4)
    with pytest.raises(InputError, match=r"optim\.head_weight_decay \(old None, new 0\.0005\)"):
        train(dataclasses.replace(config, optim=optim, max_steps=3))
