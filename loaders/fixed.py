"""One resident batch, given again and again: the ceiling that a real loader is measured against."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from ..batch import Batch
from .webdataset import WebDatasetLoader


class FixedLoader(WebDatasetLoader):
    """Reads one batch through the portable back end, keeps it on the device and repeats it.

    The position moves on as in any loader; pixels, ids, epochs and labels stay those of the first
    step of the run. ``one_pass`` is a real pass.
    """

    name = "fixed"

    def _training_batches(self, _position: int) -> Generator[Batch, None, None]:
        batches = self._fetch([self.plan_step(0)])
        # It was worked on once, not at each step.
        batch = replace(next(batches), stage_s={})
        batches.close()
        while True:
            yield batch
