"""Jigsaw: which permutation were the patches put in (Noroozi and Favaro 2016; Goyal et al. 2019).

The form of Goyal et al. 2019 as released by the same authors: short side 256, random crop 255,
flip, grey for the whole image, 3 x 3 cells of 85 px, a patch of 64 px at a random place of each
cell, all patches through one trunk, each projected to 1000, concatenated, classified.

Patches are numbered row by row; slot j of a puzzle holds patch ``permutation[j]``.

Shape legend: B images, P patches, K puzzles of each image, Q permutations, S patch side.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..batch import Batch
from ..errors import InputError
from ..models import ConcatHead, Trunk
from ..ops import extract_patches
from ..randomness import Stream, draw_words, is_below, to_below
from ..views import ViewSpec
from .base import IMAGENET_MEAN, IMAGENET_STD, Inputs, Task
from .permutations import Selection, select_permutations

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JigsawConfig:
    """Jigsaw in the form of Goyal et al. 2019."""

    name: Literal["jigsaw"] = "jigsaw"
    """Pretext task."""
    num_permutations: int = 2000
    """Permutations to tell apart: the difficulty of the puzzle."""
    selection: Selection = "mean"
    """Greedy choice of permutations: greatest mean or greatest minimum Hamming distance."""
    permutation_seed: int = 0
    """Seed of the permutation set."""
    permutations_per_image: int = 1
    """Puzzles made of one image from one pass of the trunk."""
    resize_short: int = 256
    """Short side of the image in pixels before the crop."""
    crop: int = 255
    """Side of the crop in pixels."""
    grid: int = 3
    """Cells a side."""
    patch: int = 64
    """Patch side in pixels."""
    jitter: int = 21
    """Places a patch may take in its cell along each axis: offsets 0 .. jitter-1 pixels."""
    flip_probability: float = 0.5
    """Share of images mirrored."""
    grey_probability: float = 0.66
    """Share of images made grey, all patches together."""
    hidden: int = 1000
    """Features that each patch is projected to."""

    def __post_init__(self) -> None:
        """Refuse a grid that does not hold its patches."""
        for name in ("permutations_per_image", "grid", "patch", "jitter", "hidden"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"task.{name} ({value}) must be at least 1")
        if self.cell < self.patch + self.jitter - 1:
            raise InputError(
                f"task.patch ({self.patch}) with task.jitter ({self.jitter}) needs a cell of "
                f"{self.patch + self.jitter - 1} px, but {self.grid} cells of crop {self.crop} are "
                f"{self.cell} px; lower the jitter to {max(1, self.cell - self.patch + 1)}"
            )
        for name in ("flip_probability", "grey_probability"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"task.{name} ({value}) must lie in 0 .. 1")

    @property
    def cell(self) -> int:
        """Side of a cell in pixels."""
        return self.crop // self.grid

    @property
    def num_patches(self) -> int:
        """P."""
        return self.grid * self.grid


@dataclass(frozen=True)
class Puzzles:
    """What was drawn for a batch, on the CPU."""

    corners_BP2: Tensor
    """int32 (y, x) of the patches in the (mirrored) crop."""
    flip_B: Tensor
    """bool."""
    grey_B: Tensor
    """bool."""
    labels_BK: Tensor
    """int64, the permutation of each puzzle."""


class Jigsaw(Task):
    """The jigsaw task on a trunk."""

    permutations_QP: Tensor
    """int64, the set."""

    def __init__(self, config: JigsawConfig, trunk: nn.Module) -> None:
        """Choose the permutations and build the head.

        Args:
            config: the form of the puzzle.
            trunk: gives ``num_features`` pre-logits of a patch.

        Raises:
            InputError: if there are not so many permutations.
        """
        super().__init__()
        self.config = config
        self.views = (ViewSpec.resize_crop(config.resize_short, config.crop),)
        self.trunk = trunk
        permutations = select_permutations(
            config.num_permutations, config.num_patches, config.selection, config.permutation_seed
        )
        _log.info("jigsaw: %s", permutations)
        # Not persistent: the set follows from the config, which is the run's identity.
        members = torch.from_numpy(permutations.members.copy())
        self.register_buffer("permutations_QP", members, persistent=False)
        self.head = ConcatHead(
            cast(Trunk, trunk).num_features,
            config.num_patches,
            config.hidden,
            config.num_permutations,
        )

    def draw(self, batch: Batch, seed: int) -> Puzzles:
        """Draw the puzzles of a batch from its sample ids and epochs (law 2)."""
        config, num_patches = self.config, self.config.num_patches
        epochs, ids = batch.epochs.numpy(), batch.sample_ids.numpy()

        def words(stream: Stream, num: int) -> np.ndarray:
            return draw_words(seed, epochs, ids, stream, num)

        offsets = to_below(words(Stream.PATCH_OFFSET, 2 * num_patches), config.jitter)
        rows, columns = np.divmod(np.arange(num_patches), config.grid)
        cells_P2 = np.stack([rows, columns], axis=-1) * config.cell
        corners = cells_P2 + offsets.reshape(-1, num_patches, 2)
        flips = is_below(words(Stream.FLIP, 1)[:, 0], config.flip_probability)
        greys = is_below(words(Stream.GREY, 1)[:, 0], config.grey_probability)
        labels = to_below(
            words(Stream.PERMUTATION, config.permutations_per_image), config.num_permutations
        )
        return Puzzles(
            torch.from_numpy(corners.astype(np.int32)),
            torch.from_numpy(flips),
            torch.from_numpy(greys),
            torch.from_numpy(labels),
        )

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Cut the patches: ``patches`` (B, P, 3, S, S) normalised, ``labels`` int64 (B, K)."""
        puzzles, device = self.draw(batch, seed), batch.images.device
        patches = extract_patches(
            batch.images[:, 0],
            puzzles.corners_BP2.to(device, non_blocking=True),
            self.config.patch,
            flip_B=puzzles.flip_B.to(device, non_blocking=True),
            grey=puzzles.grey_B.to(device, non_blocking=True),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            dtype=dtype,
            channels_last=True,
        )
        return {
            "patches": patches,
            "labels": puzzles.labels_BK.to(device, non_blocking=True),
        }

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean cross-entropy) and ``accuracy`` over all puzzles."""
        labels = inputs["labels"].flatten()
        logits = self._logits(inputs).flatten(0, 1).float()
        accuracy = (logits.detach().argmax(-1) == labels).float().mean()
        return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy}

    def chance(self) -> dict[str, float]:
        """Return 1 / Q for the accuracy."""
        return {"accuracy": 1 / self.config.num_permutations}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[np.ndarray]:
        """Show each image's puzzle as asked beside the arrangement that the network believes in.

        The tiles of the answer have a green frame where they lie right and a red one elsewhere.
        """
        shown = batch.rows(0, min(count, len(batch)))
        puzzles = self.draw(shown, seed)
        was_training = self.training
        self.eval()
        inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
        answers = self._logits(inputs)[:, 0].argmax(-1).cpu()
        self.train(was_training)
        tiles = extract_patches(
            shown.images[:, 0].cpu().contiguous(),
            puzzles.corners_BP2,
            self.config.patch,
            flip_B=puzzles.flip_B,
            grey=puzzles.grey_B,
        ).numpy()
        permutations = self.permutations_QP.cpu().numpy()
        return [
            _draw_puzzle(tiles[b], permutations[asked], permutations[answer], self.config.grid)
            for b, (asked, answer) in enumerate(
                zip(puzzles.labels_BK[:, 0].tolist(), answers.tolist(), strict=True)
            )
        ]

    def _logits(self, inputs: Inputs) -> Tensor:
        patches = inputs["patches"]
        features = self.trunk(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        return self.head(features, self.permutations_QP[inputs["labels"]])


_GAP = 4
_RIGHT = (46, 160, 67)
_WRONG = (218, 54, 51)
_PAPER = 255


def _draw_puzzle(tiles: np.ndarray, asked: np.ndarray, answer: np.ndarray, grid: int) -> np.ndarray:
    """Lay out the puzzle and its answered arrangement side by side.

    Args:
        tiles: uint8 (P, S, S, 3), patches in their true order.
        asked: (P,) slot j of the puzzle holds patch asked[j].
        answer: (P,) the permutation that the network believes it was.
        grid: cells a side.
    """
    size = tiles.shape[1]
    puzzle = _lay_out(tiles[asked], grid, None)
    # Undoing the believed permutation: slot j's tile goes to place answer[j].
    placed = np.empty_like(asked)
    placed[answer] = asked
    solved = _lay_out(tiles[placed], grid, placed == np.arange(len(asked)))
    space = np.full((puzzle.shape[0], size // 2, 3), _PAPER, np.uint8)
    return np.concatenate([puzzle, space, solved], axis=1)


def _lay_out(tiles: np.ndarray, grid: int, is_right: np.ndarray | None) -> np.ndarray:
    size = tiles.shape[1]
    pitch = size + 2 * _GAP
    sheet = np.full((grid * pitch, grid * pitch, 3), _PAPER, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = (place // grid) * pitch, (place % grid) * pitch
        if is_right is not None:
            frame = _RIGHT if is_right[place] else _WRONG
            sheet[top + 1 : top + pitch - 1, left + 1 : left + pitch - 1] = frame
        sheet[top + _GAP : top + _GAP + size, left + _GAP : left + _GAP + size] = tile
    return sheet
