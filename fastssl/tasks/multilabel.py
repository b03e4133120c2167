"""Several labels an image, on a trunk that learns with its head: each class is answered by itself.

What is learnt is the dataset's target ``labels``, as PASCAL VOC folders and COCO's instances have
it: 1 of the class, -1 not, 0 not counted. Scored by the average precision of every class.

Shape legend: B images, N images that are tested, C channels that the trunk takes, S side of a
picture, Q classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..average_precision import average_precision
from ..batch import Batch
from ..errors import InputError
from ..models import Trunk
from ..models.downstream_heads import build_downstream_head
from ..shards import ShardDataset
from .base import Inputs, Metric
from .downstream import DownstreamTask, Score
from .photograph_views import PhotographViewsConfig
from .pictures import Picture, frame_picture

_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class MultilabelConfig(PhotographViewsConfig):
    """Classes of photographs of which one may show several."""

    name: Literal["multilabel"] = "multilabel"
    """Task."""


class Multilabel(DownstreamTask):
    """A head on pre-logits, a sigmoid a class; labels of 0 enter neither loss nor score."""

    needs_labels = True
    metrics = (
        Metric("accuracy", "share", "images of any class whose likeliest class is one of theirs"),
        Metric("test_mAP", "share", "mean over the classes of the average precision, test images"),
    )
    target = "labels"
    metric = "mAP"

    def __init__(self, config: MultilabelConfig, trunk: Trunk, num_classes: int) -> None:
        """Build the head.

        Args:
            config: views and head.
            trunk: gives ``num_features`` pre-logits.
            num_classes: Q, of the dataset.

        Raises:
            InputError: if the dataset has no classes, or the trunk does not take images of this
                size.
        """
        super().__init__(config, trunk)
        if num_classes < 1:
            raise InputError(
                f"task ({config.name}) needs labels, the dataset has no classes; give one that "
                "make-shards made of a PASCAL VOC folder or of COCO's instances"
            )
        self.num_classes = num_classes
        self.head = build_downstream_head(config.head, trunk.num_features, num_classes)

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse what is no label, and labels of no image."""
        check_signs(dataset, num_samples)

    def check_tested(self, dataset: ShardDataset, what: str) -> None:
        """Refuse a dataset of other classes."""
        super().check_tested(dataset, what)
        if tuple(dataset.class_names) != tuple(self.class_names):
            raise InputError(
                f"{what} ({dataset.path}) has other classes than those that are learnt "
                f"({len(dataset.class_names)} and {len(self.class_names)}); make both alike"
            )

    def make_outline_targets(self, num: int) -> dict[str, Tensor]:
        """Return ``labels`` of ``num`` images."""
        return {self.target: torch.zeros(num, self.num_classes, dtype=torch.int8)}

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Mirror and normalise: ``images`` (B, C, S, S), ``signs`` int8 (B, Q) of 1, 0, -1."""
        signs = self.take_target(batch)
        return {
            "images": self.config.make_views(batch, seed, 1, dtype)[:, 0],
            "signs": signs.to(batch.images.device, non_blocking=True),
        }

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` and ``accuracy``, see ``score_signs``."""
        return score_signs(self.answer(inputs["images"]), inputs["signs"])

    def answer(self, images: Tensor) -> Tensor:
        """Return logits (B, Q) of normalised images."""
        return self.head(self.trunk(images)).float()

    def count(self, answers: Tensor, batch: Batch) -> Tensor:
        """Return answers and labels beside each other: float32 (B, 2Q) on the CPU."""
        return torch.cat((answers.float().cpu(), self.take_target(batch).float()), dim=1)

    def join(self, counts: Sequence[Tensor]) -> Tensor:
        """Return (N, 2Q): a precision is of all images together."""
        return torch.cat([*counts])

    def summarize(self, counts: Tensor) -> Score:
        """Return the mean average precision; ``chance`` is the mean share of a class's images.

        A class without a positive among them has none.
        """
        scores, signs = (part.numpy() for part in counts.chunk(2, dim=1))
        names = self.class_names or [f"class {c}" for c in range(self.num_classes)]
        there = np.flatnonzero((signs > 0).any(0)).tolist()
        per_class = {names[c]: average_precision(scores[:, c], signs[:, c]) for c in there}
        chance = np.mean((signs[:, there] > 0).sum(0) / (signs[:, there] != 0).sum(0))
        return Score(float(np.mean([*per_class.values()])), per_class, {"chance": float(chance)})

    def chance(self) -> dict[str, float]:
        """Return nothing: how many classes an image has is the dataset's."""
        return {}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show the pictures, framed green where all classes are answered rightly, else red."""
        shown = batch.rows(0, min(count, len(batch)))
        with self.answering():
            inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
            answers = (self.answer(inputs["images"]) > 0).cpu()
        signs = inputs["signs"].cpu()
        pictures = []
        views = self.config.show_views(shown, seed, 1)[:, 0]
        for view, sign, is_said in zip(views, signs, answers, strict=True):
            kinds = {
                "found": (sign > 0) & is_said,
                "missed": (sign > 0) & ~is_said,
                "wrongly said": (sign < 0) & is_said,
            }
            words = [f"{kind}: {self._list(which)}" for kind, which in kinds.items() if which.any()]
            is_right = not (kinds["missed"] | kinds["wrongly said"]).any()
            pictures.append(Picture(frame_picture(view, is_right), "; ".join(words) or "nothing"))
        return pictures

    def _list(self, which: Tensor) -> str:
        numbers = which.nonzero().flatten().tolist()
        return ", ".join(self.class_names[c] if self.class_names else f"class {c}" for c in numbers)


def score_signs(logits_BQ: Tensor, signs_BQ: Tensor) -> dict[str, Tensor]:
    """Return ``loss`` and ``accuracy`` over the labels that count.

    Args:
        logits_BQ: float32.
        signs_BQ: int8 on the same device: 1 of the class, -1 not, 0 not counted.

    Returns:
        The mean over image and class of the sigmoid's cross-entropy; the share of the images of any
        class whose likeliest class, of those that count, is one of theirs.
    """
    counts = signs_BQ != 0
    truth = (signs_BQ > 0).float()
    losses = functional.binary_cross_entropy_with_logits(logits_BQ, truth, reduction="none")
    # A batch without a single label costs nothing; the mean of nothing would be NaN.
    loss = torch.where(counts, losses, 0.0).sum() / counts.sum().clamp(min=1)
    best_B = logits_BQ.detach().masked_fill(~counts, -torch.inf).argmax(1)
    has_any = (signs_BQ > 0).any(1)
    is_right = signs_BQ.gather(1, best_B[:, None])[:, 0] > 0
    return {"loss": loss, "accuracy": is_right.sum() / has_any.sum().clamp(min=1)}


def check_signs(dataset: ShardDataset, num_samples: int) -> None:
    """See that a dataset's labels are labels, and one of them is 1.

    Args:
        dataset: has the target.
        num_samples: samples with ids below this are used.

    Raises:
        InputError: if they are not.
    """
    rows = dataset.targets[Multilabel.target]  # int8, a column a class: the manifest says so
    has_any = False
    for start in range(0, num_samples, _ROWS_AT_ONCE):
        signs = np.asarray(rows[start : min(start + _ROWS_AT_ONCE, num_samples)])
        if np.abs(signs.astype(np.int16)).max(initial=0) > 1:
            wrong = signs[np.abs(signs.astype(np.int16)) > 1][0]
            raise InputError(
                f"target 'labels' of {dataset.path} has {wrong}, wanted 1 (of the class), -1 (not) "
                "or 0 (not counted)"
            )
        has_any |= bool((signs > 0).any())
    if not has_any:
        raise InputError(
            f"target 'labels' of {dataset.path} has no 1: no image is of any class, and there is "
            "nothing to learn"
        )
