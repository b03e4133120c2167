"""A run of a task that owns a table; under torchrun each rank holds a part of it.

``toy_run.py DATASET FOLDER STEPS COLUMNS DIE_AT [OTHER]``: rank 1 kills itself before it ends step
DIE_AT; OTHER is the run that this one continues from.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastssl.models.input_spec import InputSpec, make_inputs
from fastssl.tasks import DividedTable, Task, add_task
from fastssl.training import train
from fastssl.views import ViewSpec
from tests.small_runs import make_config

SEEN = 8


@dataclass(frozen=True)
class ToyConfig:
    """A table of this many columns, of which the task looks at eight."""

    name: str = "toy"
    columns: int = SEEN


class Toy(Task):
    """Pulls what a network says of an image towards what a table remembers of it."""

    def __init__(self, config, trunk):
        super().__init__()
        self.config, self.trunk = config, trunk
        self.views = (ViewSpec.center(36, 32),)
        self.input_spec = InputSpec()
        self.head = nn.Linear(trunk.num_features, SEEN)
        self.register_buffer("big", torch.zeros(config.columns * 10), persistent=False)
        self.table: Any = None
        self.noted: list = []
        self.num_kept = 0

    def open_tables(self, num_samples, world):
        self.world = world
        self.table = DividedTable(num_samples, (self.config.columns,), torch.float32, world)
        numbers = torch.arange(self.table.first, self.table.stop)
        self.table.rows[:, :SEEN] = (numbers[:, None] + torch.arange(SEEN)).sin()
        return {"memory": self.table}

    def rows_of(self, ids):
        """Return which ids are this rank's, and the rows of those."""
        mine = (ids >= self.table.first) & (ids < self.table.stop)
        return mine, ids[mine] - self.table.first

    def prepare(self, batch, seed, dtype):  # noqa: ARG002
        remembered = torch.zeros(len(batch), SEEN)
        if self.table is not None:
            parts = []
            for ids in self.world.gather(batch.sample_ids):
                mine, places = self.rows_of(ids)
                part = torch.zeros(len(ids), SEEN)
                part[mine] = self.table.rows[places, :SEEN]
                parts.append(part)
            everywhere = self.world.gather(parts)
            remembered = sum(parts[self.world.rank] for parts in everywhere)
        images = make_inputs(batch.images[:, 0], self.input_spec, dtype)
        return {"images": images, "remembered": remembered, "ids": batch.sample_ids}

    def forward(self, inputs):
        said = self.head(self.trunk(inputs["images"])).float()
        self.noted.append((inputs["ids"], said.detach()))
        return {"loss": (said - inputs["remembered"]).square().mean()}

    def end_step(self, is_kept):
        noted, self.noted = self.noted, []
        for ids, said in [pair for pairs in self.world.gather(noted) for pair in pairs]:
            mine, places = self.rows_of(ids)
            old = self.table.rows[places, :SEEN]
            new = torch.where(is_kept, 0.5 * old + 0.5 * said[mine], old)
            self.table.rows[places, :SEEN] = new
        self.num_kept += int(is_kept)
        if self.num_kept == DIE_AT and self.world.rank == self.world.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def chance(self):
        return {}

    def draw_pictures(self, batch, seed, count):  # noqa: ARG002
        return []


class Fresh(TorchDispatchMode):
    """Notes the largest memory that an operator makes, in bytes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        known = {t.untyped_storage()._cdata for t in tensors}
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.untyped_storage()._cdata not in known:
                if value.device.type != "meta":
                    self.largest = max(self.largest, value.untyped_storage().nbytes())
        return result


if __name__ == "__main__":
    dataset, folder = map(Path, sys.argv[1:3])
    steps, columns, DIE_AT = map(int, sys.argv[3:6])
    other = Path(sys.argv[6]) if sys.argv[6:] else None
    torch.set_num_threads(1)
    add_task("toy", Toy)
    config = make_config(dataset, folder, nested={"checkpoint": {"every_steps": 2}})
    config = dataclasses.replace(config, task=ToyConfig(columns=columns), max_steps=steps)
    config = dataclasses.replace(config, continue_from=other)
    from fastssl.training.trainer import Trainer

    run, fresh = Trainer.run, Fresh()

    def watched(self):
        with fresh:
            run(self)

    Trainer.run = watched
    train(config)
    Path(f"{folder}.rank{os.environ.get('RANK', 0)}.json").write_text(json.dumps(fresh.largest))
