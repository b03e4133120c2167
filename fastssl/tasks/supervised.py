"""Supervised classification: the baseline that pretext tasks are held against, on the same path.

Shape legend: B images, Q classes, S side of the view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..batch import Batch
from ..errors import InputError
from ..fields import Share
from ..models import Trunk
from ..models.input_spec import InputSpec, make_inputs
from ..shards import ShardDataset
from ..views import ViewSpec
from .base import Inputs, Metric, Resize, Task, check_labelled, check_side
from .inception_views import (
    Area,
    InceptionConfig,
    Normalization,
    draw_appearance,
    prepare_views,
    to_pictures,
)
from .pictures import Picture, frame_picture

_NO_LABEL = -1


@dataclass(frozen=True)
class SupervisedConfig(InceptionConfig):
    """Cross-entropy on labels, with the crops that ImageNet networks are trained on."""

    name: Literal["supervised"] = "supervised"
    """Task."""
    min_area: Area = 0.08
    """Smallest share of the image's area that a crop may cover."""
    brightness: Share = 0.0
    """Largest change of brightness, of a range of 1; 0 leaves it as it is."""
    saturation: Share = 0.0
    """Largest change of the saturation's factor around 1; 0 leaves it as it is."""
    normalize: Normalization = "imagenet"
    """To -1 .. 1; by ImageNet's mean and deviation; by each view's own; or Caffe's channel means
    (123, 117, 104) taken from 0 .. 255."""
    view: Literal["random_resized_crop", "squash_crop"] = "random_resized_crop"
    """Crop of random area and shape; or a crop at a random place of the squashed image."""
    resize: Resize = 256
    """View squash_crop: side that the image is squashed to, in pixels."""
    label_smoothing: Share = 0.0
    """Share of the target that is spread over all classes."""

    def list_views(self, count: int = 1) -> tuple[ViewSpec, ...]:
        """Return what to ask of the loader: torchvision's rule, ten attempts, else the centre."""
        if self.view == "random_resized_crop" and self.crop_rule == "tensorflow":
            return super().list_views(count)
        if self.view == "squash_crop":
            return (ViewSpec.squash_crop(self.resize, self.size, count),)
        ratio = (1 / self.max_ratio, self.max_ratio)
        return (
            ViewSpec.random_resized_crop(
                self.size, scale=(self.min_area, 1.0), ratio=ratio, count=count
            ),
        )

    @classmethod
    def caffenet(cls, **changes: Any) -> SupervisedConfig:
        """Return the form of BVLC's CaffeNet; ``changes`` are fields with other values."""
        fields: dict[str, Any] = {"size": 227, "view": "squash_crop", "normalize": "caffe"}
        return cls(**fields | changes)

    @classmethod
    def kolesnikov(cls, **changes: Any) -> SupervisedConfig:
        """Return the form of Kolesnikov et al. 2019; ``changes`` are fields with other values."""
        usual = InceptionConfig()
        names = ("brightness", "saturation", "normalize")
        return super().kolesnikov(**{name: getattr(usual, name) for name in names} | changes)


class Supervised(Task):
    """A linear classifier on a trunk; images without a label do not enter the loss."""

    needs_labels = True
    tested = "validation_accuracy"
    metrics = (Metric("accuracy", "share", "labelled images whose class is found"),)

    def __init__(self, config: SupervisedConfig, trunk: Trunk, num_classes: int) -> None:
        """Build the classifier.

        Args:
            config: crops and loss.
            trunk: gives ``num_features`` pre-logits.
            num_classes: Q, of the dataset.

        Raises:
            InputError: if the dataset has fewer than two classes, or the trunk does not take images
                of this size.
        """
        super().__init__()
        check_side("size", config.size, trunk)
        if num_classes < 2:
            raise InputError(
                f"task (supervised) needs labels of at least 2 classes, the dataset has "
                f"{num_classes}; make the dataset from one folder a class, or take a pretext task"
            )
        self.config = config
        self.num_classes = num_classes
        self.views = config.list_views(1)
        self.input_spec = InputSpec.named(config.normalize)
        self.trunk = trunk
        self.head = nn.Linear(trunk.num_features, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse a dataset without labels."""
        check_labelled(dataset, num_samples, self.config.name)

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Normalise: ``images`` (B, 3, S, S), ``labels`` int64 (B,)."""
        device = batch.images.device
        if batch.labels is None:
            raise ValueError("batch.labels (None) must be given to a supervised task")
        appearance = draw_appearance(self.config, batch, seed, 1).to(device)
        return {
            "images": prepare_views(batch.images[:, :1], appearance, self.config, dtype)[:, 0],
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

    @property
    def validation_view(self) -> ViewSpec:
        """What an image is tested by: its centre, as ImageNet's networks are (256 for 224)."""
        return ViewSpec.center(round(self.config.size * 256 / 224), self.config.size)

    @torch.no_grad()
    def count_right(self, images: Tensor, labels: Tensor) -> Tensor:
        """Count the images whose class is found; nothing is drawn.

        Args:
            images: uint8 (B, S, S, 3).
            labels: int64 (B,), -1 for none, on the same device.

        Returns:
            int64 (2,): found, and labelled.
        """
        logits = self.head(self.trunk(make_inputs(images, self.input_spec)))
        is_labelled = labels != _NO_LABEL
        is_right = (logits.argmax(-1) == labels) & is_labelled
        return torch.stack([is_right.sum(), is_labelled.sum()])

    def chance(self) -> dict[str, float]:
        """Return 1 / Q for the accuracy."""
        return {"accuracy": 1 / self.num_classes}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show the crops, framed green where the class is found and red where it is not."""
        shown = batch.rows(0, min(count, len(batch)))
        with self.answering():
            inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
            answers = self.head(self.trunk(inputs["images"])).argmax(-1)
        appearance = draw_appearance(self.config, shown, seed, 1)
        crops = to_pictures(shown.images[:, :1], appearance, self.config)[:, 0]
        rows = zip(crops, inputs["labels"].tolist(), answers.tolist(), strict=True)
        return [
            Picture(
                frame_picture(crop, None if label == _NO_LABEL else label == answer),
                self._name(label)
                + (", found" if label == answer else f", taken for {self._name(answer)}"),
            )
            for crop, label, answer in rows
        ]

    def _name(self, label: int) -> str:
        if label == _NO_LABEL:
            return "no label"
        return self.class_names[label] if self.class_names else f"class {label}"
