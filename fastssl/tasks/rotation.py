"""Rotation: how far was the image turned (Gidaris et al. 2018).

A view is turned by 0, 90, 180 and 270 degrees counter-clockwise, by transposing and mirroring: no
pixel is interpolated, none is missing. The network says which of the four it was. Views are those
of Kolesnikov et al. 2019, or of Newell and Deng 2020, who turn each once.

Shape legend: B images, K = 4 turns of each or 1, S side of the view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..models import Trunk
from ..models.heads import build_linear_head
from ..randomness import Stream, draw_words, to_below
from .base import Inputs, Metric, Task, check_side, score_answers
from .inception_views import InceptionConfig
from .newell_views import NewellViewsConfig
from .pictures import Picture, frame_picture

NUM_TURNS = 4
Copies = Literal["all", "one"]


@dataclass(frozen=True)
class RotationConfig(InceptionConfig):
    """Rotation; ``kolesnikov`` gives the form of Kolesnikov et al. 2019."""

    name: Literal["rotation"] = "rotation"
    """Pretext task."""
    copies: Copies = "all"
    """All four turns of each view, or one that is drawn."""


@dataclass(frozen=True)
class NewellRotationConfig(NewellViewsConfig):
    """Rotation in the form of Newell and Deng 2020: views are turned when they are augmented."""

    name: Literal["rotation"] = "rotation"
    """Pretext task."""
    copies: Copies = "one"
    """All four turns of each view, or one that is drawn."""


class Rotation(Task):
    """A linear classifier of four turns on a trunk."""

    metrics = (Metric("accuracy", "share", "views whose turn is found"),)

    def __init__(self, config: RotationConfig | NewellRotationConfig, trunk: Trunk) -> None:
        """Build the classifier.

        Args:
            config: the views and the turns.
            trunk: gives ``num_features`` pre-logits of an image.

        Raises:
            InputError: if the trunk does not take images of this size.
        """
        super().__init__()
        check_side("size", config.size, trunk)
        self.config = config
        self.views = config.list_views()
        self.input_spec = config.input_spec
        self.trunk = trunk
        self.head = build_linear_head(trunk.num_features, NUM_TURNS)

    def draw_labels(self, batch: Batch, seed: int) -> Tensor:
        """Draw the turns of a batch (law 2): int64 (B, K), quarters counter-clockwise."""
        if self.config.copies == "all":
            return torch.arange(NUM_TURNS).expand(len(batch), -1)
        epochs, ids = batch.epochs.numpy(), batch.sample_ids.numpy()
        words = draw_words(seed, epochs, ids, Stream.ROTATION, 1)
        return torch.from_numpy(to_below(words, NUM_TURNS))

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Turn the views: ``images`` (B, K, 3, S, S) normalised, ``labels`` int64 (B, K)."""
        upright = self.config.make_views(batch, seed, 1, dtype)
        labels_BK = self.draw_labels(batch, seed).to(upright.device, non_blocking=True)
        turned = turn_images(upright[:, 0], labels_BK)
        return {"images": turned, "labels": labels_BK}

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean cross-entropy) and ``accuracy`` over all turns."""
        return score_answers(self._logits(inputs).flatten(0, 1), inputs["labels"].flatten())

    def chance(self) -> dict[str, float]:
        """Return 1 / 4 for the accuracy."""
        return {"accuracy": 1 / NUM_TURNS}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show each image's turns as asked, and below them turned back by what was answered.

        The answer has a green frame where it is right and a red one elsewhere.
        """
        shown = batch.rows(0, min(count, len(batch)))
        with self.answering():
            inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
            answers = self._logits(inputs).argmax(-1).cpu().tolist()
        upright = self.config.show_views(shown, seed, 1)[:, 0]
        asked = inputs["labels"].cpu().tolist()
        return [_draw_turns(*row) for row in zip(upright, asked, answers, strict=True)]

    def _logits(self, inputs: Inputs) -> Tensor:
        images = inputs["images"]
        return self.head(self.trunk(images.flatten(0, 1))).unflatten(0, images.shape[:2])


def turn_images(images_BCHW: Tensor, turns_BK: Tensor) -> Tensor:
    """Turn each image K times.

    Args:
        images_BCHW: square images, torch.channels_last or not.
        turns_BK: int64, quarters counter-clockwise, 0 .. 3.

    Returns:
        (B, K, C, H, W) whose ``.flatten(0, 1)`` is torch.channels_last.
    """
    # Channels last first: the flattened result is then laid out as the trunk wants it.
    images = images_BCHW.movedim(1, -1)[:, None]
    turns = turns_BK[..., None, None, None]
    # A quarter counter-clockwise is the transpose, upside down. Choosing by where, and not by
    # index, leaves the device running.
    turned = torch.where(turns % 2 == 1, images.transpose(2, 3), images)
    turned = torch.where((turns == 1) | (turns == 2), turned.flip(2), turned)
    turned = torch.where(turns >= 2, turned.flip(3), turned)
    return turned.contiguous().movedim(-1, 2)


def _draw_turns(upright: np.ndarray, asked: list[int], answered: list[int]) -> Picture:
    columns = []
    for turn, answer in zip(asked, answered, strict=True):
        puzzle = np.rot90(upright, turn)
        solved = frame_picture(np.rot90(puzzle, -answer), turn == answer)
        columns.append(np.concatenate([frame_picture(puzzle, None), solved]))
    num_right = sum(turn == answer for turn, answer in zip(asked, answered, strict=True))
    words = (
        f"Above as it was turned, below turned back by the answer: {num_right} of {len(asked)} "
        "found"
    )
    return Picture(np.concatenate(columns, axis=1), words)
