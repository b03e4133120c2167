"""Supervised classification: the baseline that pretext tasks are held against, on the same path.

Shape legend: B images, Q classes, S side of the view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..batch import Batch
from ..errors import InputError
from ..models import Trunk
from ..ops import normalize
from ..randomness import Stream, draw_words, is_below
from ..views import ViewSpec
from .base import IMAGENET_MEAN, IMAGENET_STD, Inputs, Task
from .pictures import frame_picture

_NO_LABEL = -1


@dataclass(frozen=True)
class SupervisedConfig:
    """Cross-entropy on labels, with the crops that ImageNet networks are trained on."""

    name: Literal["supervised"] = "supervised"
    """Task."""
    size: int = 224
    """Side of the crop in pixels."""
    min_area: float = 0.08
    """Smallest share of the image's area that a crop may cover."""
    flip_probability: float = 0.5
    """Share of images mirrored."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in ("flip_probability", "label_smoothing"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"task.{name} ({value}) must lie in 0 .. 1")


class Supervised(Task):
    """A linear classifier on a trunk; images without a label do not enter the loss."""

    needs_labels = True

    def __init__(self, config: SupervisedConfig, trunk: nn.Module, num_classes: int) -> None:
        """Build the classifier.

        Args:
            config: crops and loss.
            trunk: gives ``num_features`` pre-logits.
            num_classes: Q, of the dataset.

        Raises:
            InputError: if the dataset has fewer than two classes.
        """
        super().__init__()
        if num_classes < 2:
            raise InputError(
                f"task (supervised) needs labels of at least 2 classes, the dataset has "
                f"{num_classes}; make the dataset from one folder a class, or take a pretext task"
            )
        self.config = config
        self.num_classes = num_classes
        self.views = (ViewSpec.random_resized_crop(config.size, scale=(config.min_area, 1.0)),)
        self.trunk = trunk
        self.head = nn.Linear(cast(Trunk, trunk).num_features, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Normalise: ``images`` (B, 3, S, S), ``labels`` int64 (B,)."""
        device = batch.images.device
        if batch.labels is None:
            raise ValueError("batch.labels (None) must be given to a supervised task")
        return {
            "images": normalize(
                batch.images[:, 0],
                IMAGENET_MEAN,
                IMAGENET_STD,
                flip_B=self._flips(batch, seed).to(device, non_blocking=True),
                dtype=dtype,
                channels_last=True,
            ),
            "labels": batch.labels.to(device, non_blocking=True),
        }

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean cross-entropy) and ``accuracy`` over the labelled images."""
        labels = inputs["labels"]
        logits = self.head(self.trunk(inputs["images"])).float()
        is_labelled = labels != _NO_LABEL
        count = is_labelled.sum().clamp(min=1)
        # A batch without a single label costs nothing; the mean of nothing would be NaN.
        loss = functional.cross_entropy(
            logits,
            labels,
            ignore_index=_NO_LABEL,
            label_smoothing=self.config.label_smoothing,
            reduction="sum",
        )
        is_right = (logits.detach().argmax(-1) == labels) & is_labelled
        return {"loss": loss / count, "accuracy": is_right.sum() / count}

    def chance(self) -> dict[str, float]:
        """Return 1 / Q for the accuracy."""
        return {"accuracy": 1 / self.num_classes}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[np.ndarray]:
        """Show the crops, framed green where the class is recognised and red elsewhere."""
        shown = batch.rows(0, min(count, len(batch)))
        was_training = self.training
        self.eval()
        inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
        answers = self.head(self.trunk(inputs["images"])).argmax(-1)
        self.train(was_training)
        is_right = (answers == inputs["labels"]).tolist()
        crops = shown.images[:, 0].cpu().numpy()
        flips = self._flips(shown, seed).tolist()
        return [
            frame_picture(crop[:, ::-1] if flip else crop, right)
            for crop, flip, right in zip(crops, flips, is_right, strict=True)
        ]

    def _flips(self, batch: Batch, seed: int) -> Tensor:
        words = draw_words(seed, batch.epochs.numpy(), batch.sample_ids.numpy(), Stream.FLIP, 1)
        return torch.from_numpy(is_below(words[:, 0], self.config.flip_probability))
