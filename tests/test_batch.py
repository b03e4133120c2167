"""What crosses from loader to task, as Python shows it."""

from __future__ import annotations

import torch

import fastssl
from fastssl import Batch


def test_a_batch_is_shown_by_its_shapes():
    ids = torch.arange(4)
    targets = {"pose": torch.zeros(4, 2)}
    batch = Batch(torch.zeros(4, 2, 8, 8, 3, dtype=torch.uint8), ids, ids, ids, targets)
    shown = repr(batch)
    assert "images=torch.uint8 (4, 2, 8, 8, 3) on cpu" in shown
    assert "labels=(4,), targets={'pose': (4, 2)}" in shown
    assert len(shown.splitlines()) == 1


def test_the_package_lists_its_public_names_alone():
    names = [name for name in dir(fastssl) if not name.startswith("_")]
    assert sorted([*fastssl.__all__, *fastssl._ROOMS]) == names
