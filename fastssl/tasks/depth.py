"""Depth: how far is what is at every place of a picture (Newell and Deng 2020).

In the study's form: centimetres up to 2.55 m, divided by 25, so that a metre is 4. Flip moves the
depth too; pictures are neither cropped nor cut out. Where nothing is known (0) stands the greatest
depth, 10.2: the study takes the batch's greatest, which is the same wherever a background is seen,
and here no batch says what another image's target is.

Shape legend: B images, g places a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..batch import Batch
from ..fields import Share
from ..models import Trunk
from ..shards import ShardDataset
from .base import Inputs, Metric, Side
from .dense import DenseTask, check_square, lay_out
from .downstream import DownstreamConfig, Score
from .heat_maps import colour_heat
from .pictures import Picture

CENTIMETRES = 25
"""That a unit of the target has."""
MAX_CENTIMETRES = 255
_WITHIN, _WITHIN_LESS = 1.25, 1.1


@dataclass(frozen=True)
class DepthConfig(DownstreamConfig):
    """Depth of places, without crop and cutout."""

    name: Literal["depth"] = "depth"
    """Task."""
    size: Side = 128
    """Side of a picture in pixels; the trunk's map says how many places are told apart."""
    padding: Share = 0.0
    """Frame of zeros that a picture is shifted against, over its side; 0 crops none."""
    cutout: Share = 0.0
    """Side of the square of zeros, over that of the picture; 0 cuts none."""


class Depth(DenseTask):
    """A number at every place of a trunk's last map; L1 loss."""

    metrics = (
        Metric("delta_1.25", "share", "places whose depth is found within a factor of 1.25"),
        Metric("test_delta_1.25", "share", "places of test images found within that factor"),
    )
    target = "depth"
    metric = "delta_1.25"
    unit = torch.float16

    def __init__(self, config: DepthConfig, trunk: Trunk) -> None:
        """Build the head.

        Args:
            config: views and head.
            trunk: ends in a map.

        Raises:
            InputError: if the trunk does not take images of this size or has no map.
        """
        super().__init__(config, trunk, 1)

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse what is no depth of every pixel."""
        check_depth(dataset, num_samples)

    def read_target(self, target: Tensor) -> Tensor:
        """Return depth in the study's units, float32."""
        return scale_depth(target)

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean absolute difference) and ``delta_1.25``."""
        answers, truth = self.answer(inputs["images"])[:, 0], inputs["truth"]
        is_within = find_ratio(answers.detach(), truth) < _WITHIN
        return {"loss": functional.l1_loss(answers, truth), "delta_1.25": is_within.float().mean()}

    def count(self, answers: Tensor, batch: Batch) -> Tensor:
        """Return places, those within 1.25 and 1.1, and sums of squared and absolute errors.

        The last number are places that are found by saying the greatest depth everywhere.
        """
        answers = answers[:, 0].cpu().double()
        truth = self.find_truth(batch).double()
        ratio, error = find_ratio(answers, truth), answers - truth
        within = [(ratio < bound).sum().double() for bound in (_WITHIN, _WITHIN_LESS)]
        guess = torch.full_like(truth, MAX_CENTIMETRES / CENTIMETRES)
        by_guess = (find_ratio(guess, truth) < _WITHIN).sum().double()
        num = torch.tensor(float(truth.numel()), dtype=torch.float64)
        return torch.stack([num, *within, error.square().sum(), error.abs().sum(), by_guess])

    def summarize(self, sums: Tensor) -> Score:
        """Return the share of places within a factor of 1.25; ``rmse`` and ``l1`` in 25 cm.

        ``chance`` is what the greatest depth everywhere would reach: backgrounds are that far.
        """
        num, within, within_less, squares, absolutes, by_guess = sums.tolist()
        num = max(num, 1.0)
        details = {
            "delta_1.1": within_less / num,
            "rmse": (squares / num) ** 0.5,
            "l1": absolutes / num,
            "chance": by_guess / num,
        }
        return Score(within / num, {}, details)

    def chance(self) -> dict[str, float]:
        """Return nothing: no guess is usual."""
        return {}

    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show the picture, its depth, and what was answered, from dark and near to bright."""
        pictures = []
        for view, truth, answers in zip(*self.answer_shown(batch, seed, count), strict=True):
            answer = answers[0]
            share = (find_ratio(answer, truth) < _WITHIN).float().mean()
            low, high = float(truth.min()), float(truth.max())
            maps = [colour_heat(depth.numpy(), (low, high)) for depth in (truth, answer)]
            metres = CENTIMETRES / 100
            words = (
                f"{share:.0%} of places within a factor of 1.25. Truth, answer: {low * metres:.2f} "
                f"m dark, {high * metres:.2f} m bright"
            )
            pictures.append(lay_out(view, maps, words))
        return pictures


def scale_depth(depth: Tensor) -> Tensor:
    """Return depth in the study's units of 25 cm.

    Args:
        depth: metres, floating; or uint8 of centimetres, as the study stores it.

    Returns:
        float32 of the same shape, above 0, at most 10.2; whole centimetres, the greatest where
        there is nothing (0).
    """
    if depth.dtype != torch.uint8:
        metres = depth.float().clamp(0, MAX_CENTIMETRES / 100)
        depth = (metres * 100).to(torch.uint8)  # cut off, as the study does
    filled = torch.where(depth == 0, MAX_CENTIMETRES, depth.int())
    return filled.float() / CENTIMETRES


def find_ratio(answers: Tensor, truth: Tensor) -> Tensor:
    """Return how many times too great or too small answers are, infinite where not above 0.

    A negative answer has a negative ratio, which is below every bound: in the study's code it
    counts as right.

    Args:
        answers: floating.
        truth: of the same shape, above 0.
    """
    ratio = torch.maximum(answers / truth, truth / answers)
    return torch.where(answers > 0, ratio, torch.inf)


def check_depth(dataset: ShardDataset, num_samples: int) -> None:  # noqa: ARG001 - as others
    """See that a dataset's depth is of every pixel.

    Args:
        dataset: has the target.
        num_samples: samples with ids below this are used.

    Raises:
        InputError: if it is not.
    """
    check_square(dataset, Depth.target, "fu", "metres (float16, float32) or centimetres (uint8)")
