"""Count how often each colour bin is met in a dataset, for colorization's rebalancing.

Every image is squashed to a square and every pixel of it counts for its nearest bin.

Example: fastssl color-prior shards prior.json --max-samples 100000
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from tqdm import tqdm

from ..config import LoaderConfig
from ..counts import spell_number
from ..errors import InputError
from ..fields import Checked, NumThreads, Range
from ..loaders import build_loader
from ..ops import color_bins
from ..ops.color_grid import MAX_GRID, MIN_GRID
from ..sampling import MAX_SAMPLES
from ..system.files import check_file_place
from ..tasks.color_prior import count_colors, write_prior
from ..views import ViewSpec
from .frame import parse_arguments

_BATCH = 32


@dataclass(frozen=True)
class ColorPrior(Checked):
    """Count how often each colour bin is met in a dataset."""

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """Folder that make-shards wrote, or its address in an object store."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """File to write, JSON."""
    grid: Annotated[int, Range(MIN_GRID, MAX_GRID)] = 10
    """Step of the bins, in units of a and b; 10 gives 313."""
    size: Annotated[int, Range(1, 1024)] = 256
    """Side that images are squashed to, in pixels."""
    max_samples: Annotated[int, Range(0, MAX_SAMPLES)] = 0
    """Look at the samples with ids below this; 0 looks at all."""
    loader: Literal["auto", "webdataset", "native", "dali", "ffcv"] = "auto"
    """Back end."""
    num_threads: NumThreads = 0
    """Threads or workers that decode; 0 takes the cores there are."""

    def check(self) -> None:
        """Refuse a place that cannot be written, or where something is."""
        if self.out.exists():
            raise InputError(
                f"OUT ({self.out}) is there already; choose another name, or remove it"
            )
        check_file_place(self.out, "OUT")


def main(arguments: Sequence[str]) -> None:
    """Count and write."""
    options = parse_arguments(ColorPrior, arguments)
    config = LoaderConfig(
        path=options.path,
        loader=options.loader,
        global_batch_size=_BATCH,
        max_samples=options.max_samples,
        allow_repeat_in_batch=True,  # one pass repeats nothing
        num_threads=options.num_threads,
    )
    counts = np.zeros(len(color_bins(options.grid)), np.int64)
    loader = build_loader(config, ViewSpec.squash(options.size))
    with contextlib.closing(loader), tqdm(total=loader.num_samples, unit="image") as bar:
        for batch in loader.one_pass():
            counts += count_colors(batch.images[:, 0], options.grid)
            bar.update(len(batch.images))
    write_prior(options.out, counts, options.grid, loader.dataset.digest, loader.num_samples)
    shares = np.sort(counts)[::-1] / counts.sum()
    print(
        f"{options.out}: {spell_number(loader.num_samples, 'image')}, {(counts > 0).sum()} of "
        f"{spell_number(len(counts), 'bin')} met; the most frequent one has {100 * shares[0]:.1f} "
        f"% of the pixels, the ten most frequent {100 * shares[:10].sum():.1f} %"
    )
