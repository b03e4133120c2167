"""The gradients of one step of AMDIM, on this rank's part of eight images.

``amdim_ranks.py FILE``: rank 0 writes them there. No batch norm takes the batch's statistics, which
are a rank's own.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastssl.models import build_trunk
from fastssl.tasks import AmdimConfig, build_task
from fastssl.tasks.amdim import COARSE
from fastssl.world import join_world

NUM = 8


class Step(nn.Module):
    """The loss for places that are given."""

    def __init__(self, task):
        super().__init__()
        self.task = task

    def forward(self, images, labels, places):
        vectors = self.task.encode(images)
        return self.task.compare(vectors, self.task._gather(vectors, labels), places)["loss"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    world = join_world("cpu")
    torch.manual_seed(0)
    task = build_task(AmdimConfig(), build_trunk("amdim_encoder", 1)).double().eval()
    for part in task.modules():  # second convolutions begin at zero and let nothing through
        if isinstance(part, nn.Conv2d) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.05)
    images = torch.randn(NUM, 2, 3, 64, 64, dtype=torch.float64)
    labels = torch.tensor([1, 2, 3, 1, 5, 6, 7, 8])  # the fourth is a copy of the first
    places = torch.randint(COARSE**2, (NUM, 2))
    task.open_tables(NUM, world)
    step = Step(task)
    # Small buckets: gradients travel while others still flow.
    network = DistributedDataParallel(step, bucket_cap_mb=0.1) if world.size > 1 else step
    mine = slice(world.rank, NUM, world.size)
    network(images[mine], labels[mine], places[mine]).backward()
    if world.is_zero:
        torch.save({name: p.grad for name, p in task.named_parameters()}, sys.argv[1])
    world.gather(None)
    del network
    world.leave()
