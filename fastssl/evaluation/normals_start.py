"""What a run on surface normals begins with: the clusters of the images that it learns from."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..shards import open_dataset
from ..tasks import Normals, NormalsConfig
from ..tasks.normal_clusters import cluster_normals, sample_normals, write_clusters

_log = logging.getLogger(__name__)

CLUSTERS_NAME = "clusters.json"
"""The clusters, in the run directory."""


def open_clusters(
    task: NormalsConfig, path: str | Path, rows: NDArray[np.int64], seed: int, folder: Path
) -> NormalsConfig:
    """Return a task with its clusters, made when its run starts; the same ones when it goes on.

    By every rank: none waits for another here, and all write the same.

    Args:
        task: without.
        path: of the dataset.
        rows: ids of the samples that are learnt from.
        seed: of the run.
        folder: its directory.

    Raises:
        InputError: if too few normals are known.
    """
    file = folder / CLUSTERS_NAME
    if not file.exists():
        with contextlib.closing(open_dataset(path)) as dataset:
            normals = sample_normals(dataset, Normals.target, rows, seed)
        try:
            write_clusters(file, cluster_normals(normals, task.num_clusters, seed))
        except InputError as error:
            raise InputError(f"data.path ({path}): {error}") from None
        _log.info("%d clusters of %d normals: %s", task.num_clusters, len(normals), file)
    return dataclasses.replace(task, clusters_file=str(file))
