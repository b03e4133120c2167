"""``fastssl train``, where the weights of rank 1 meet what is not a number from some step on.

``NAN_FROM`` and ``NAN_TO`` say at which of its forward passes, both included.
"""

from __future__ import annotations

import itertools
import os

import torch
from torch import Tensor, nn

from fastssl.commands import run

if __name__ == "__main__":
    passes = itertools.count()
    first, last = int(os.environ["NAN_FROM"]), int(os.environ["NAN_TO"])

    def spoil(module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
        """Spoil the first convolution of a trunk."""
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.training:
            return output * torch.nan if first <= next(passes) <= last else None
        return None

    if os.environ["RANK"] == "1":
        nn.modules.module.register_module_forward_hook(spoil)
    run("train")
