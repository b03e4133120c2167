"""Curves and pictures for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from ..stages import STAGES

# Where each number of metrics.jsonl is shown; what is not here is the task's own.
_GROUPS = {
    "loss": "train/loss",
    "lr": "train/lr",
    "epoch": "train/epoch",
    "images_per_s": "speed/images_per_s",
    "data_wait_ms": "speed/data_wait_ms",
    "step_ms": "speed/step_ms",
    "data_wait_share": "speed/data_wait_share",
    "loader_ready_batches": "loader/ready_batches",
    "loader_entropy_decoded_share": "loader/entropy_decoded_share",
    **{f"loader_{stage}_images_per_s": f"loader/{stage}_images_per_s" for stage in STAGES},
    "skipped": "health/skipped_steps",
    "substituted": "health/substituted_samples",
    "fallback_decodes": "health/fallback_decodes",
}
_NOT_SHOWN = ("step", "samples")


class TensorBoard:
    """Writes a run's events; what a resumed run does again is purged."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open the log.

        Args:
            folder: of the events.
            first_step: events of this step and later are of a life that was lost.
        """
        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def write_metrics(self, line: dict[str, Any], chance: dict[str, float]) -> None:
        """Add a line of metrics.jsonl as points of curves.

        Args:
            line: the line.
            chance: what guessing reaches, drawn beside the curve of that name.
        """
        for name, value in line.items():
            if name not in _NOT_SHOWN and value is not None:
                tag = _GROUPS.get(name, f"task/{name}")
                self._writer.add_scalar(tag, value, line["step"])
        for name, value in chance.items():
            self._writer.add_scalar(f"task/{name}_of_chance", value, line["step"])

    def write_pictures(self, name: str, pictures: list[np.ndarray], step: int) -> None:
        """Add uint8 (H, W, 3) pictures, one below the other."""
        for number, picture in enumerate(pictures):
            tensor = torch.from_numpy(picture)
            self._writer.add_image(f"{name}/{number}", tensor, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write everything out."""
        self._writer.close()
