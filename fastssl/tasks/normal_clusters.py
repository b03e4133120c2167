"""Surface normals, and the directions that they are clustered to (Ladicky et al. 2014).

A normal is a unit vector. Images of them have it in 8 bits a channel, n = 2 rgb / 255 - 1, and are
black where nothing is known.

Shape legend: N samples, M normals, K clusters, H W pixels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..counts import spell_number
from ..errors import InputError
from ..fields import Documented
from ..randomness import Stream, draw_words, to_below, to_unit
from ..shards import ShardDataset
from ..system.files import publish_bytes, read_regular, refusing_unreadable

CLUSTERS_REMEDY = "fastssl evaluate normals makes one at the start of its run"
_PIXELS = 100_000
_PICTURES = 1000
_ROUNDS = 200
_MAX_BYTES = 1 << 20
# A unit vector in 8 bits has a length of 0.99 .. 1.01; black, white and grey are far from it.
_LENGTHS = 0.5, 1.5


@dataclass(frozen=True)
class NormalClusters(Documented):
    """Where normals lie."""

    centres: NDArray[np.float32]
    """(K, 3), unit vectors, those of more normals first."""
    mean: NDArray[np.float32]
    """(3,), the unit vector along the sum of all normals: the answer of who looks at nothing."""


def read_normals(target: Tensor) -> tuple[Tensor, Tensor]:
    """Return normals as unit vectors.

    Args:
        target: (..., 3), uint8 as images have it, or the vectors themselves, floating.

    Returns:
        float32 (..., 3), zeros where nothing is known; and bool (...), where something is.
    """
    vectors = target.float()
    if target.dtype == torch.uint8:
        vectors = vectors * (2 / 255) - 1
    length = vectors.norm(dim=-1, keepdim=True)
    is_known = (length > _LENGTHS[0]) & (length < _LENGTHS[1])  # of NaN neither
    return torch.where(is_known, vectors / length, 0.0), is_known[..., 0]


def sample_normals(
    dataset: ShardDataset, target: str, ids: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Return normals of pixels drawn from samples: float64 (M, 3), those that are known.

    Args:
        dataset: has the target.
        target: its name; rows (H, W, 3).
        ids: of the samples.
        seed: of the draws.
    """
    rows = dataset.targets[target]
    order = np.argsort(draw_words(seed, 0, ids, Stream.CLUSTERS, 1)[:, 0], kind="stable")
    chosen = np.sort(np.asarray(ids)[order[:_PICTURES]])
    each = -(-_PIXELS // len(chosen))
    height, width = rows.shape[1:3]
    places = to_below(draw_words(seed, 1, chosen, Stream.CLUSTERS, each), height * width)
    found = []
    for number, own in zip(chosen.tolist(), places, strict=True):
        pixels = np.array(rows[number][own // width, own % width])
        normals, is_known = read_normals(torch.from_numpy(pixels))
        found.append(normals[is_known].double().numpy())
    return np.concatenate(found)


def cluster_normals(normals_M3: NDArray[np.float64], num: int, seed: int) -> NormalClusters:
    """Cluster normals by spherical k-means, begun by k-means++ (Arthur and Vassilvitskii 2007).

    Centres are means scaled to length 1; a cluster that has lost its last normal takes the one that
    lies farthest from its own centre.

    Args:
        normals_M3: unit vectors.
        num: K.
        seed: of the draws that it begins by.

    Raises:
        InputError: if there are fewer different normals.
    """
    draws = to_unit(draw_words(seed, 2, 0, Stream.CLUSTERS, num)[0]).astype(np.float64)
    num_different = len(np.unique(normals_M3, axis=0))
    if num_different < num:
        raise InputError(
            f"num_clusters ({num}) must not exceed the "
            f"{spell_number(num_different, 'different normal')} among the {len(normals_M3):,} "
            "known pixels that were looked at; set fewer clusters, or give normals of more pixels"
        )
    centres = np.empty((num, 3))
    nearest = np.full(len(normals_M3), -1.0)
    for k, draw in enumerate(draws):
        # On the sphere 1 - cos is half the squared distance.
        shares = np.cumsum(np.maximum(1 - nearest, 0)) if k else np.arange(1.0, len(nearest) + 1)
        centres[k] = normals_M3[np.searchsorted(shares, draw * shares[-1], side="right")]
        nearest = np.maximum(nearest, normals_M3 @ centres[k])
    own = np.full(len(normals_M3), -1)
    for _ in range(_ROUNDS):
        cosines = normals_M3 @ centres.T
        before, own = own, cosines.argmax(1)
        if np.array_equal(before, own):
            break
        farthest = iter(np.argsort(cosines.max(1), kind="stable").tolist())
        for k, total in enumerate(_sum_by(own, normals_M3, num)):
            length = np.linalg.norm(total)
            centres[k] = total / length if length > 0 else normals_M3[next(farthest)]
    order = np.argsort(-np.bincount(own, minlength=num), kind="stable")
    mean = normals_M3.sum(0)
    mean = mean / np.linalg.norm(mean) if mean.any() else centres[order[0]]
    return NormalClusters(centres[order].astype(np.float32), mean.astype(np.float32))


def _sum_by(own: NDArray[np.int64], vectors: NDArray[np.float64], num: int) -> NDArray[np.float64]:
    return np.stack([np.bincount(own, part, num) for part in vectors.T], axis=1)


def write_clusters(path: Path, clusters: NormalClusters) -> None:
    """Write clusters down as JSON, which ``read_clusters`` reads to the last bit."""
    content = {"centres": clusters.centres.tolist(), "mean": clusters.mean.tolist()}
    publish_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def read_clusters(path: Path, num: int) -> NormalClusters:
    """Read clusters.

    Args:
        path: of a file by ``write_clusters``.
        num: K that it must hold.

    Raises:
        InputError: if it holds something else.
    """
    with refusing_unreadable(path, CLUSTERS_REMEDY):
        text = read_regular(path, _MAX_BYTES)
    try:
        content: dict[str, Any] = json.loads(text)
        clusters = NormalClusters(
            *(np.array(content[name], np.float32) for name in ("centres", "mean"))
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"task.clusters_file {path} holds no clusters ({str(error)[:100]}); {CLUSTERS_REMEDY}"
        ) from None
    vectors = (clusters.centres, clusters.mean)
    shapes = [vector.shape for vector in vectors]
    are_units = all(np.allclose(np.linalg.norm(v, axis=-1), 1, atol=1e-3) for v in vectors)
    if shapes != [(num, 3), (3,)] or not are_units:
        raise InputError(
            f"task.clusters_file {path} holds centres {shapes[0]} and a mean {shapes[1]}, wanted "
            f"unit vectors ({num}, 3) and (3,); set --num-clusters {len(clusters.centres)}, or "
            "give another file"
        )
    return clusters
