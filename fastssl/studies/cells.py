"""A cell of a study's table: a recipe, the data set that it is of, and what was published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..config import RunConfig


@dataclass(frozen=True)
class DataSet:
    """A data set of a study."""

    title: str
    """Its name."""
    num_images: int
    """Images to train on."""
    is_subset: bool = False
    """A random part of a larger one: the first samples of the shuffled whole, nested."""


IMAGENET_1K = DataSet("ImageNet-1k", 1_281_167)

DATA_SETS = {
    "yfcc1m": DataSet("1 million of YFCC-100M", 1_000_000, is_subset=True),
    "yfcc10m": DataSet("10 million of YFCC-100M", 10_000_000, is_subset=True),
    "yfcc50m": DataSet("50 million of YFCC-100M", 50_000_000, is_subset=True),
    "yfcc100m": DataSet("YFCC-100M", 100_000_000),
    "imagenet1k": IMAGENET_1K,
    "imagenet22k": DataSet("ImageNet-22k", 14_197_122),
    "places205": DataSet("Places205", 2_448_873),
}
"""By the names that cells have them under. YFCC-100M is taken as large as its name says; some of
its photographs are gone by now."""


@dataclass(frozen=True)
class Cell:
    """One cell of a study."""

    build: Callable[[], RunConfig[Any]]
    """Gives the run's config."""
    data: DataSet
    """What the study trained it on."""
    gigaflops: float
    """10^9 floating-point operations of a training step for one image."""
    published: str = ""
    """Figure that the study, or its authors later, published for it; empty if none is known."""

    def describe_cost(self, config: RunConfig[Any]) -> str:
        """Return the arithmetic of the whole run as text.

        Args:
            config: of the cell.
        """
        cost = self.gigaflops * self.data.num_images * config.schedule.epochs / 1e9
        digits = 2 if cost < 10 else 1 if cost < 100 else 0
        return f"{cost:,.{digits}f} EFLOP"

    def summarize(self) -> str:
        """Return the data set and the published figure in one line."""
        return f"on {self.data.title}; " + (
            f"published: {self.published}" if self.published else "no published figure"
        )
