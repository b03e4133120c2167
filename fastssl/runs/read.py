"""Read what a run directory tells: curves, pictures, how it ended."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError

# Of every run, in every task; what else a line holds is the task's own.
_COMMON = {
    "step",
    "epoch",
    "samples",
    "loss",
    "lr",
    "images_per_s",
    "data_wait_ms",
    "step_ms",
    "skipped",
    "substituted",
    "fallback_decodes",
}


@dataclass(frozen=True)
class Run:
    """One run directory, read."""

    name: str
    """Name to show, such as ``seed 0``."""
    lines: tuple[dict, ...]
    """The logged steps of ``metrics.jsonl``, in order."""
    num_resumes: int
    """How often the run went on after a stop."""
    pictures: tuple[NDArray[np.uint8], ...]
    """The newest pictures of the task in TensorBoard's log, uint8 (H, W, 3)."""

    def curve(self, key: str) -> tuple[list[float], list[float]]:
        """Return (steps, values) of a number, without the lines that lack it."""
        points = [(line["step"], line[key]) for line in self.lines if line.get(key) is not None]
        return [x for x, _ in points], [y for _, y in points]

    def task_scalars(self) -> list[str]:
        """Return the names of the numbers that the task itself logs, such as its accuracy."""
        names = {
            key: None
            for line in self.lines
            for key, value in line.items()
            if key not in _COMMON and isinstance(value, (int, float))
        }
        return list(names)


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read a run directory, also one that is still at work or was killed.

    Args:
        folder: the run directory.
        name: to show; the folder's own if None.

    Returns:
        What it tells.

    Raises:
        InputError: if there is no ``metrics.jsonl``.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise InputError(f"run ({folder}) has no metrics.jsonl; give the folder of a training run")
    lines, num_resumes = [], 0
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            # A killed run may leave its last line torn; the next start cuts it off.
            continue
        if line.get("event") == "resume":
            num_resumes += 1
        elif "event" not in line:
            lines.append(line)
    pictures = _read_pictures(folder / "tensorboard")
    return Run(name or folder.name, tuple(lines), num_resumes, tuple(pictures))


def _read_pictures(folder: Path) -> list[NDArray[np.uint8]]:
    """Return the newest picture of each tag in a TensorBoard log; none without a log."""
    if not folder.is_dir():
        return []
    # Slow to import, and only a report needs it.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # What a lost life left behind has a lower step than the newest: no need to purge, and to warn.
    sizes = {"images": 0, "scalars": 1}
    log = EventAccumulator(str(folder), size_guidance=sizes, purge_orphaned_data=False)
    log.Reload()
    pictures = []
    for tag in sorted(log.Tags()["images"]):
        encoded = max(log.Images(tag), key=lambda event: event.step).encoded_image_string
        pictures.append(np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))
    return pictures
