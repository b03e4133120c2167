"""Surface normals: which way what is seen at every place of a photograph faces.

As Goyal et al. 2019 measure trunks on NYUv2: normals are clustered to K = 40 directions (Ladicky et
al. 2014), which one it is is learnt by cross-entropy, and the answer is the sum of the directions,
weighted by their probabilities. Angles to the truth are measured at its own resolution, over all
pixels where something is known (Fouhey et al. 2013).

The whole photograph is squashed to a square, so that nothing of it is lost. A mirrored one has
mirrored normals: the first coordinate, which runs along the rows, changes its sign.

Shape legend: B images, C channels that the trunk takes, S side of a picture, K clusters, g places a
side of the trunk's map, H W pixels of a target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..batch import Batch
from ..errors import InputError
from ..fields import Range, free
from ..models import Trunk
from ..shards import ShardDataset
from ..views import ViewSpec
from .base import Inputs, Metric
from .checksums import note_checksum
from .dense import DenseTask, lay_out
from .downstream import NOT_COUNTED, Score, score_labels
from .normal_clusters import CLUSTERS_REMEDY, read_clusters, read_normals
from .photograph_views import PhotographConfig
from .pictures import Picture

BIN_DEGREES = 0.01
"""Width of the bins that angles are counted in, which the median is exact to."""
WITHIN_DEGREES = (11.25, 22.5, 30.0)
"""Angles within which shares of the pixels are reported."""

_NUM_BINS = round(180 / BIN_DEGREES)
_OTHER_SHAPE = 0.01


@dataclass(frozen=True)
class NormalsConfig(PhotographConfig):
    """Normals of whole photographs, squashed to a square."""

    name: Literal["normals"] = "normals"
    """Task."""
    num_clusters: Annotated[int, Range(2, 10_000)] = 40
    """Directions that normals are clustered to."""
    clusters_file: str = free("")
    """File of the directions, clusters.json of a run's folder."""
    clusters_sha256: str = ""
    """SHA-256 of that file; filled in where it is not given, so that a run keeps its clusters."""

    def check(self) -> None:
        """Note the checksum of the clusters."""
        note_checksum(self, "clusters", CLUSTERS_REMEDY)

    def list_views(self) -> tuple[ViewSpec, ...]:
        """Return what to ask of the loader: one view, the whole picture."""
        return (self.test_view,)

    @property
    def test_view(self) -> ViewSpec:
        """What to ask of the loader to test on: the same."""
        return ViewSpec.squash(self.size)


class Normals(DenseTask):
    """A classifier of every place of a trunk's last map, whose answer is a direction."""

    config: NormalsConfig  # type: ignore[assignment]  # views of photographs, not those of Newell
    metrics = (
        Metric("accuracy", "share", "places whose cluster of normals is found"),
        Metric("test_median_angle", "degrees", "median angle to the normals of test images"),
    )
    target = "normals"
    metric = "median_angle"
    unit = torch.uint8

    def __init__(self, config: NormalsConfig, trunk: Trunk) -> None:
        """Build the head.

        Args:
            config: views, head and clusters.
            trunk: ends in a map.

        Raises:
            InputError: if the trunk does not take images of this size or has no map, or there are
                no clusters.
        """
        super().__init__(config, trunk, config.num_clusters)
        if not config.clusters_file:
            raise InputError(
                f"task.clusters_file (none given) must name a file of clusters; {CLUSTERS_REMEDY}"
            )
        clusters = read_clusters(Path(config.clusters_file), config.num_clusters)
        # No buffers: the file is the run's own. On the CPU, where labels are made.
        self._centres_K3 = torch.from_numpy(clusters.centres)
        self._mean_3 = torch.from_numpy(clusters.mean)

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse what are no normals of every pixel."""
        check_normals(dataset, num_samples)

    def make_outline_targets(self, num: int) -> dict[str, Tensor]:
        """Return the target of ``num`` black images."""
        side = self.config.size
        return {self.target: torch.zeros(num, side, side, 3, dtype=self.unit)}

    def read_target(self, target: Tensor) -> Tensor:
        """Return the cluster of each normal (..., 3), int64, ``NOT_COUNTED`` of those not known."""
        normals, is_known = read_normals(target)
        return torch.where(is_known, (normals @ self._centres_K3.T).argmax(-1), NOT_COUNTED)

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Mirror and normalise: ``images`` (B, C, S, S), ``truth`` int64 (B, g, g)."""
        truth = self.read_target(self._follow(batch, seed, self.map.grid))
        return {
            "images": self.config.make_views(batch, seed, 1, dtype)[:, 0],
            "truth": truth.to(batch.images.device, non_blocking=True),
        }

    def _follow(self, batch: Batch, seed: int, side: int) -> Tensor:
        """Return normals (B, side, side, 3) at the middles of places, mirrored with the images."""
        normals, _ = read_normals(take_middles(self.take_target(batch), side))
        mirrored = normals.flip(2) * torch.tensor([-1.0, 1.0, 1.0])
        flips = self.config.draw_flips(batch, seed)[:, None, None, None]
        return torch.where(flips, mirrored, normals)

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean cross-entropy over known places) and ``accuracy``."""
        logits = self.answer(inputs["images"]).movedim(1, -1).flatten(0, 2)
        return score_labels(logits, inputs["truth"].flatten())

    def answer_normals(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the directions that answers come to.

        Args:
            logits: (B, K, g, g).
            size: H and W that they are brought to, by bilinear interpolation.

        Returns:
            Unit vectors, float32 (B, H, W, 3).
        """
        weighed = torch.einsum("bkyx,kc->bcyx", logits.softmax(1), self._centres_K3.to(logits))
        large = functional.interpolate(weighed, size, mode="bilinear", align_corners=False)
        return functional.normalize(large, dim=1).movedim(1, -1)

    def count(self, answers: Tensor, batch: Batch) -> Tensor:
        """Count pixels by their angle, see ``count_angles``: float64 (2, bins + 2).

        The second row are those of who always says the mean normal.
        """
        counts = []
        for logits, target in zip(answers, self.take_target(batch), strict=True):
            truth, is_known = read_normals(target.to(logits.device))
            found = self.answer_normals(logits[None], (target.shape[0], target.shape[1]))[0]
            guess = self._mean_3.to(logits.device).expand_as(truth)
            both = (count_angles(said[is_known], truth[is_known]) for said in (found, guess))
            counts.append(torch.stack([*both]))
        return torch.stack(counts).sum(0).cpu()

    def summarize(self, sums: Tensor) -> Score:
        """Return the median angle in degrees; ``mean``, ``rmse`` and shares ``within_..``.

        ``chance`` is the median of who always says the mean normal of the images learnt from.
        """
        found, guess = (summarize_angles(row) for row in sums)
        chance = {"chance": guess["median"], "chance_mean": guess["mean"]}
        return Score(found.pop("median"), {}, {**found, **chance})

    def chance(self) -> dict[str, float]:
        """Return 1 / K for the accuracy; some clusters are commoner than that."""
        return {"accuracy": 1 / self.config.num_clusters}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show the picture, its normals as colours, and what was answered."""
        side = self.config.size
        shown = batch.rows(0, min(count, len(batch)))
        views, _, answers = self.answer_shown(batch, seed, count)
        truths = self._follow(shown, seed, side)
        pictures = []
        found = self.answer_normals(answers, (side, side))
        for view, truth, said in zip(views, truths, found, strict=True):
            is_known = truth.any(-1)
            angles = summarize_angles(count_angles(said[is_known], truth[is_known]))
            words = (
                f"median angle {angles['median']:.1f} degrees, {angles['within_11.25']:.0%} within "
                "11.25. Truth, answer: red, green, blue are the three coordinates"
            )
            pictures.append(lay_out(view, [_colour(truth), _colour(said)], words))
        return pictures


def take_middles(target: Tensor, side: int) -> Tensor:
    """Return of each of side x side places the pixel in its middle.

    Args:
        target: (B, H, W, ...) of any type.
        side: places a side.

    Returns:
        (B, side, side, ...).
    """
    places = 2 * torch.arange(side) + 1
    rows, columns = (places * length // (2 * side) for length in target.shape[1:3])
    return target[:, rows][:, :, columns]


def count_angles(found_M3: Tensor, truth_M3: Tensor) -> Tensor:
    """Count pairs of unit vectors by the angle between them.

    Args:
        found_M3: floating.
        truth_M3: likewise.

    Returns:
        float64: how many lie in each bin of ``BIN_DEGREES`` of 0 .. 180 degrees, the sum of the
        angles and that of their squares.
    """
    cosines = (found_M3.double() * truth_M3.double()).sum(-1)
    # The length of what is left is exact where the angle is small, and its cosine is not.
    sines = torch.linalg.cross(found_M3.double(), truth_M3.double()).norm(dim=-1)
    angles = torch.atan2(sines, cosines) * (180 / math.pi)
    bins = (angles / BIN_DEGREES).long().clamp(max=_NUM_BINS - 1)
    sums = torch.stack([angles.sum(), angles.square().sum()])
    return torch.cat([torch.bincount(bins, minlength=_NUM_BINS).double(), sums])


def summarize_angles(counts: Tensor) -> dict[str, float]:
    """Return what counted angles come to.

    Args:
        counts: sums of ``count_angles``.

    Returns:
        ``median``, ``mean`` and ``rmse`` in degrees, shares ``within_11.25``, ``within_22.5`` and
        ``within_30``, and ``num_pixels``.
    """
    bins, (total, squares) = counts[:-2], counts[-2:].tolist()
    num = float(bins.sum())
    if not num:
        return {"median": 0.0, "mean": 0.0, "rmse": 0.0, "num_pixels": 0.0} | {
            f"within_{bound:g}": 0.0 for bound in WITHIN_DEGREES
        }
    below = bins.cumsum(0)
    middle = int(torch.searchsorted(below, num / 2))
    inside = float((num / 2 - (below[middle] - bins[middle])) / bins[middle])
    return {
        "median": (middle + inside) * BIN_DEGREES,
        "mean": total / num,
        "rmse": math.sqrt(squares / num),
        **{
            f"within_{bound:g}": float(bins[: round(bound / BIN_DEGREES)].sum()) / num
            for bound in WITHIN_DEGREES
        },
        "num_pixels": num,
    }


def check_normals(
    dataset: ShardDataset,
    num_samples: int,  # noqa: ARG001 - as others
    num_clusters: int = 0,  # noqa: ARG001
) -> None:
    """See that a dataset has normals of every pixel of its pictures.

    Args:
        dataset: has the target.
        num_samples: samples with ids below this are used.
        num_clusters: that they are clustered to.

    Raises:
        InputError: if it does not.
    """
    name = Normals.target
    rows, index = dataset.targets[name], dataset.index
    is_float = rows.dtype.kind == "f"
    if rows.ndim != 4 or rows.shape[3] != 3 or not (is_float or rows.dtype == np.uint8):
        raise InputError(
            f"target '{name}' of {dataset.path} is {rows.dtype} of shape {rows.shape[1:]} an "
            "image, wanted uint8 (n = 2 rgb / 255 - 1) or floating unit vectors, of shape "
            "(H, W, 3)"
        )
    height, width = rows.shape[1:3]
    ratios = index["width"] * (height / width) / index["height"]
    has_other_shape = np.abs(ratios - 1) > _OTHER_SHAPE
    if has_other_shape.any():
        number = int(np.flatnonzero(has_other_shape)[0])
        size = f"{index['width'][number]} x {index['height'][number]}"
        raise InputError(
            f"sample {number} of {dataset.path} has {size} px and target '{name}' {width} x "
            f"{height}: it must tell of all of the picture; cut both alike"
        )


def _colour(normals: Tensor) -> np.ndarray:
    """Return normals (H, W, 3) as images have them: uint8, black where none is known."""
    pixels = ((normals + 1) * 127.5).round().byte()
    return torch.where(normals.any(-1, keepdim=True), pixels, 0).cpu().numpy()
