"""Relative patch location: where does a patch lie, seen from the centre (Doersch et al. 2015).

In the form of Kolesnikov et al. 2019: nine patches as in their jigsaw, each through the trunk once;
of every image all eight pairs of a patch and the centre's are asked for, from that one pass.

Patches are numbered row by row; class k is pair k of ``PAIRS``.

Shape legend: B images, P = 9 patches, K = 8 pairs of each image, S patch side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..fields import Checked, Share
from ..models import JointHead, Trunk
from ..models.input_spec import InputSpec
from ..randomness import Stream, draw_words, is_below
from .base import Drawn, Features, Inputs, Metric, Resize, Side, Task, check_side, score_answers
from .patch_grid import VIEWS, check_cells, draw_corners
from .patch_look import choose_look
from .pictures import GAP, PAPER, RIGHT, WRONG, Picture, frame_picture

_CENTRE = 4
PAIRS = tuple((place, _CENTRE) for place in range(9) if place != _CENTRE)
"""(patch, centre) of each class, in raster order."""
_CELL = (224, 224, 224)


@dataclass(frozen=True)
class RelativeLocationConfig(Checked, prefix="task."):
    """Relative patch location; the defaults are the form of Kolesnikov et al. 2019."""

    name: Literal["relative_location"] = "relative_location"
    """Pretext task."""
    view: Literal["resize_crop", "center", "squash_crop"] = "squash_crop"
    """Crop at a random place or in the centre of the resized image, or of the squashed one."""
    resize_short: Resize = 292
    """Short side of the image in pixels before the crop; both sides where it is squashed."""
    crop: Side = 255
    """Side of the crop in pixels; a third of it is the side of a cell."""
    patch: Side = 64
    """Patch side in pixels."""
    jitter: Side = 22
    """Places a patch may take in its cell along each axis: offsets 0 .. jitter-1 pixels. Patches
    are at least cell - patch - jitter + 1 pixels apart."""
    flip_probability: Share = 0.0
    """Share of images mirrored."""
    grey_probability: Share = 0.66
    """Share of images made grey, all patches together."""
    grey: Literal["luma", "mean"] = "mean"
    """Grey is the luma (ITU-R 601) or the mean of the channels (not fused)."""
    grey_per_patch: bool = False
    """Toss the coin for grey for each patch instead of each image."""
    normalize: Literal["imagenet", "patch"] = "patch"
    """ImageNet's mean and deviation, or each patch's own."""
    hidden: Features = 1000
    """Features that each patch is projected to."""
    joint_hidden: Features = 4096
    """Hidden layer of the head, over both patches."""

    def check(self) -> None:
        """Refuse patches that do not fit their cells."""
        check_cells(self)

    @property
    def grid(self) -> int:
        """Cells a side; a centre and eight neighbours are 3."""
        return 3


@dataclass(frozen=True)
class Places(Drawn):
    """What was drawn for a batch, on one device."""

    corners_BP2: Tensor
    """int32 (y, x) of the patches in the (mirrored) crop."""
    flip_B: Tensor
    """bool."""
    grey: Tensor
    """bool (B,), or (B, P) where each patch has its own coin."""


class RelativeLocation(Task):
    """The relative-location task on a trunk."""

    metrics = (Metric("accuracy", "share", "patches whose place beside the centre is found"),)

    pairs_K2: Tensor
    """int64, (patch, centre) of each class."""

    def __init__(self, config: RelativeLocationConfig, trunk: Trunk) -> None:
        """Build the head.

        Args:
            config: the form of the pairs.
            trunk: gives ``num_features`` pre-logits of a patch.

        Raises:
            InputError: if the trunk does not take patches of this size.
        """
        super().__init__()
        self.config = config
        self.views = (VIEWS[config.view](config.resize_short, config.crop),)
        self.input_spec = InputSpec.named(config.normalize)
        self.trunk = trunk
        check_side("patch", config.patch, trunk)
        grey = config.grey if config.grey_probability else None
        self._look = choose_look(config.patch, config.normalize, grey)
        self.register_buffer("pairs_K2", torch.tensor(PAIRS), persistent=False)
        self.head = JointHead(trunk.num_features, 2, config.hidden, len(PAIRS), config.joint_hidden)

    def draw(self, batch: Batch, seed: int) -> Places:
        """Draw places and grey of a batch from sample ids and epochs (law 2), on the CPU."""
        config = self.config
        epochs, ids = batch.epochs.numpy(), batch.sample_ids.numpy()
        num_coins = config.grid**2 if config.grey_per_patch else 1
        coins = draw_words(seed, epochs, ids, Stream.GREY, num_coins)
        grey = is_below(coins, config.grey_probability)
        flips = draw_words(seed, epochs, ids, Stream.FLIP, 1)[:, 0]
        return Places(
            draw_corners(config, batch, seed),
            torch.from_numpy(is_below(flips, config.flip_probability)),
            torch.from_numpy(grey if config.grey_per_patch else grey[:, 0]),
        )

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Cut the patches: ``patches`` (B, P, 3, S, S) normalised, row by row."""
        images = batch.images[:, 0]
        places = self.draw(batch, seed).to(images.device)
        return {"patches": self._look.prepare(images, places, dtype)}

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean cross-entropy) and ``accuracy`` over all pairs."""
        logits = self._logits(inputs)
        labels = torch.arange(len(PAIRS), device=logits.device).expand(len(logits), -1).flatten()
        return score_answers(logits.flatten(0, 1), labels)

    def chance(self) -> dict[str, float]:
        """Return 1 / 8 for the accuracy."""
        return {"accuracy": 1 / len(PAIRS)}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show each image's patches in their places, and beside them the pairs with the answers.

        A map follows each pair: green is where the patch lies, red where the network believes it.
        """
        shown = batch.rows(0, min(count, len(batch)))
        places = self.draw(shown, seed)
        with self.answering():
            inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
            answers = self._logits(inputs).argmax(-1).cpu().tolist()
        tiles = self._look.show(shown.images[:, 0].cpu().contiguous(), places)
        tiles = tiles.round().to(torch.uint8)
        return [draw_pairs(*row) for row in zip(tiles.numpy(), answers, strict=True)]

    def _logits(self, inputs: Inputs) -> Tensor:
        patches = inputs["patches"]
        features = self.trunk(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        return self.head(features, self.pairs_K2.expand(len(patches), -1, -1))


def draw_pairs(tiles: np.ndarray, answers: list[int]) -> Picture:
    """Lay out the patches in their places, and beside them the pairs, four in a row.

    Args:
        tiles: uint8 (P, S, S, 3).
        answers: K classes, the network's answer for each pair.

    Returns:
        The picture and how many places are found.
    """
    framed = [frame_picture(tile, None) for tile in tiles]
    whole = np.concatenate([np.concatenate(framed[i : i + 3], axis=1) for i in (0, 3, 6)])
    pairs = []
    for label, answer in enumerate(answers):
        both = [framed[place] for place in PAIRS[label]]
        pairs.append(np.concatenate([*both, _draw_map(len(framed[0]), label, answer)], axis=1))
    rows = [np.concatenate(pairs[i : i + 4], axis=1) for i in (0, 4)]
    table = np.concatenate(rows)
    space = np.full((len(whole), tiles.shape[1] // 2, 3), PAPER, np.uint8)
    sheet = np.full((len(whole), table.shape[1], 3), PAPER, np.uint8)
    sheet[: len(table)] = table
    num_right = sum(label == answer for label, answer in enumerate(answers))
    words = (
        f"The patches, and each beside the centre with its place in green and a wrong answer in "
        f"red: {num_right} of {len(answers)} found"
    )
    return Picture(np.concatenate([whole, space, sheet], axis=1), words)


def _draw_map(side: int, label: int, answer: int) -> np.ndarray:
    """Draw 3 x 3 small cells: the true one green, another that was answered red."""
    cell = max(2, (side - 2 * GAP) // 5)
    icon = np.full((side, 3 * cell + 2 * GAP, 3), PAPER, np.uint8)
    top = (side - 3 * cell) // 2
    for place in range(9):
        y, x = divmod(place, 3)
        colour = _CELL if place != _CENTRE else (128, 128, 128)
        if place == PAIRS[answer][0]:
            colour = WRONG
        if place == PAIRS[label][0]:
            colour = RIGHT
        inner = icon[top + y * cell : top + (y + 1) * cell, GAP + x * cell : GAP + (x + 1) * cell]
        inner[:-1, :-1] = colour
    return icon
