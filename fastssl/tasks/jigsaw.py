"""Jigsaw: which permutation were the patches put in (Noroozi and Favaro 2016).

Three published forms are settings of one task: that of Goyal et al. 2019 as released by the same
authors (the default), ``JigsawConfig.noroozi`` and ``JigsawConfig.kolesnikov``. In each the image
is cut into 3 x 3 cells, a patch of 64 px is taken at a random place of each cell, all patches go
through one trunk, and a head sees them in the order of the puzzle. ``docs/tasks.md`` says where the
sources differ.

Patches are numbered row by row; slot j of a puzzle holds patch ``permutation[j]``.

Shape legend: B images, P patches, K puzzles of each image, Q permutations, S patch side, C = 3.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..batch import Batch
from ..errors import InputError
from ..fields import Checked, Range, Share, free
from ..models import ConcatHead, FullyConnectedHead, JointHead, Trunk, split_batch_norms
from ..models.input_spec import InputSpec
from ..randomness import Seed, Stream, draw_words, is_below, to_below
from .base import Drawn, Features, Inputs, Metric, Resize, Side, Task, check_side, score_answers
from .checksums import note_checksum
from .patch_grid import VIEWS, check_cells, draw_corners
from .patch_look import choose_look
from .permutation_files import read_permutations
from .permutations import PermutationSet, Selection, select_permutations
from .pictures import Picture
from .puzzle_pictures import draw_puzzle

_log = logging.getLogger(__name__)

LIKE_NOROOZIS_FILES: dict[str, Any] = {"selection": "min", "has_identity": False}
"""Fields that choose a set as spread as Noroozi's files of 100 and 701, which no rule gives again:
those have no identity and hardly a pair one swap apart, sets by the greatest mean both."""


@dataclass(frozen=True)
class JigsawConfig(Checked, prefix="task."):
    """Jigsaw; the defaults are the form of Goyal et al. 2019."""

    name: Literal["jigsaw"] = "jigsaw"
    """Pretext task."""
    num_permutations: Annotated[int, Range(1, 1_000_000)] = 2000
    """Permutations to tell apart: the difficulty of the puzzle."""
    selection: Selection = "mean"
    """Greedy choice of permutations: greatest mean or greatest minimum Hamming distance. Published
    sets of 2,000 and more are by the mean; those of 100 and 701 are Noroozi's files, which the
    minimum without the identity comes closest to."""
    has_identity: bool = True
    """Whether the patches in their own order may be a puzzle."""
    permutation_seed: Seed = 0
    """Seed of the permutation set."""
    permutations_file: str = free("")
    """Read the set from this file (Noroozi's int32 binary, .npy or text) instead of choosing it."""
    permutations_sha256: str = ""
    """SHA-256 of that file; filled in where it is not given, so that a run keeps its set."""
    permutations_per_image: Annotated[int, Range(1, 1000)] = 1
    """Puzzles made of one image from one pass of the trunk, no two of them alike."""
    view: Literal["resize_crop", "center", "squash_crop"] = "resize_crop"
    """Crop at a random place or in the centre of the resized image, or of the squashed one."""
    resize_short: Resize = 256
    """Short side of the image in pixels before the crop; both sides where it is squashed."""
    crop: Side = 255
    """Side of the crop in pixels."""
    grid: Annotated[int, Range(1, 16)] = 3
    """Cells a side."""
    patch: Side = 64
    """Patch side in pixels."""
    jitter: Side = 21
    """Places a patch may take in its cell along each axis: offsets 0 .. jitter-1 pixels."""
    channel_shift: Annotated[int, Range(0, 100)] = 0
    """Colour channels of a patch shifted by 0 .. this many pixels, each by itself (not fused)."""
    flip_probability: Share = 0.5
    """Share of images mirrored."""
    grey_probability: Share = 0.66
    """Share of images made grey, all patches together."""
    grey: Literal["luma", "mean"] = "luma"
    """Grey is the luma (ITU-R 601) or the mean of the channels (not fused)."""
    grey_per_patch: bool = False
    """Toss the coin for grey for each patch instead of each image."""
    projection_probability: Share = 0.0
    """Share of the images not made grey that lose their green-magenta colour (not fused)."""
    normalize: Literal["imagenet", "patch", "mean", "none"] = "imagenet"
    """ImageNet's mean and deviation; each patch's own; Caffe's channel means (123, 117, 104) with
    one deviation for all channels; or that deviation alone."""
    head: Literal["concat", "fully_connected", "joint"] = "concat"
    """Goyal's (one Linear), Noroozi's (fc6, fc7, fc8, dropout) or Kolesnikov's (BN, dropout)."""
    hidden: Features = 1000
    """Features that each patch is projected to."""
    joint_hidden: Features = 4096
    """Hidden layer of the heads fully_connected and joint, over all patches."""
    batch_norm: Literal["shared", "tower"] = "shared"
    """The trunk's batch norms: one set for all patches, or one for each slot of the puzzle."""

    def check(self) -> None:
        """Refuse a puzzle that cannot be made, and note the checksum of a permutations file."""
        check_cells(self)
        if self.permutations_per_image > self.num_permutations:
            raise InputError(
                f"task.permutations_per_image ({self.permutations_per_image}) must not exceed "
                f"task.num_permutations ({self.num_permutations}): no two of an image are alike"
            )
        if self.batch_norm == "tower" and self.permutations_per_image > 1:
            raise InputError(
                f"task.permutations_per_image ({self.permutations_per_image}) must be 1 with "
                "task.batch_norm tower: the trunk has to see the patches in the puzzle's order"
            )
        note_checksum(self, "permutations", "name a file, or leave it out to generate a set")

    @classmethod
    def noroozi(cls, **changes: Any) -> JigsawConfig:
        """Return the form of Noroozi and Favaro 2016; ``changes`` are fields with other values."""
        fields: dict[str, Any] = {
            "num_permutations": 100,
            **LIKE_NOROOZIS_FILES,
            "view": "center",
            "jitter": 22,
            "channel_shift": 2,
            "flip_probability": 0.0,
            "grey_probability": 0.5,
            "grey": "mean",
            "projection_probability": 0.5,
            "normalize": "mean",
            "head": "fully_connected",
            "hidden": 1024,
        }
        return cls(**fields | changes)

    @classmethod
    def kolesnikov(cls, **changes: Any) -> JigsawConfig:
        """Return the form of Kolesnikov et al. 2019; ``changes`` are fields with other values."""
        fields: dict[str, Any] = {
            "num_permutations": 100,
            **LIKE_NOROOZIS_FILES,
            "permutations_per_image": 8,
            "view": "squash_crop",
            "resize_short": 292,
            "jitter": 22,
            "flip_probability": 0.0,
            "grey": "mean",
            "normalize": "patch",
            "head": "joint",
        }
        return cls(**fields | changes)

    @property
    def cell(self) -> int:
        """Side of a cell in pixels."""
        return self.crop // self.grid

    @property
    def num_patches(self) -> int:
        """P."""
        return self.grid * self.grid


@dataclass(frozen=True)
class Puzzles(Drawn):
    """What was drawn for a batch, on one device."""

    corners_BP2: Tensor
    """int32 (y, x) of the patches in the (mirrored) crop."""
    flip_B: Tensor
    """bool."""
    grey: Tensor
    """bool (B,), or (B, P) where each patch has its own coin."""
    is_projected_B: Tensor
    """bool; False where the whole image is grey."""
    shifts_BPC2: Tensor
    """int32 (y, x) pixels that each channel's corner moves on."""
    labels_BK: Tensor
    """int64, the permutation of each puzzle."""


def draw_distinct(words_BK: np.ndarray, bound: int) -> np.ndarray:
    """Turn words into K different integers 0 .. bound-1, uniformly; the first is ``to_below``'s.

    Args:
        words_BK: uint32.
        bound: at least K.

    Returns:
        int64 (B, K).
    """
    chosen: list[np.ndarray] = []
    for k in range(words_BK.shape[1]):
        value = to_below(words_BK[:, k], bound - k)
        # The value counts among those that are left: step over the smaller ones that are taken.
        if chosen:
            for taken in np.sort(np.stack(chosen), axis=0):
                value = value + (value >= taken)
        chosen.append(value)
    return np.stack(chosen, axis=1)


class Jigsaw(Task):
    """The jigsaw task on a trunk."""

    metrics = (Metric("accuracy", "share", "puzzles whose order is found"),)

    permutations_QP: Tensor
    """int64, the set."""

    def __init__(self, config: JigsawConfig, trunk: Trunk) -> None:
        """Choose or read the permutations and build the head.

        Args:
            config: the form of the puzzle.
            trunk: gives ``num_features`` pre-logits of a patch; with batch norm by tower its batch
                norms are exchanged in place.

        Raises:
            InputError: if there are not so many permutations, the file of permutations is not for
                this puzzle, or the trunk does not take patches of this size.
        """
        super().__init__()
        self.config = config
        self.views = (VIEWS[config.view](config.resize_short, config.crop),)
        self.input_spec = InputSpec.named(config.normalize)
        self.trunk = trunk
        check_side("patch", config.patch, trunk)
        self._look = choose_look(
            config.patch,
            config.normalize,
            config.grey if config.grey_probability else None,
            has_shifts=config.channel_shift > 0,
            has_projection=config.projection_probability > 0,
        )
        permutations = load_permutations(config)
        # Before a run its task is built once without memory.
        if not any(parameter.is_meta for parameter in trunk.parameters()):
            _log.info("jigsaw: %s", permutations)
        # Not persistent: the set follows from the config, which is the run's identity.
        members = torch.from_numpy(permutations.members.copy())
        self.register_buffer("permutations_QP", members, persistent=False)
        self._has_towers = config.batch_norm == "tower"
        if self._has_towers:
            if not any(isinstance(part, nn.BatchNorm2d) for part in trunk.modules()):
                raise InputError(
                    f"task.batch_norm tower needs a trunk with batch norms, '{trunk.name}' has "
                    "none; set --task.batch-norm shared"
                )
            split_batch_norms(trunk, config.num_patches)
        self.head = _build_head(config, trunk.num_features)

    def draw(self, batch: Batch, seed: int) -> Puzzles:
        """Draw the puzzles of a batch from its sample ids and epochs (law 2), on the CPU."""
        config, num_patches = self.config, self.config.num_patches
        epochs, ids = batch.epochs.numpy(), batch.sample_ids.numpy()

        def words(stream: Stream, num: int) -> np.ndarray:
            return draw_words(seed, epochs, ids, stream, num)

        num_shifts = 6 * num_patches if config.channel_shift else 0
        shifts = to_below(words(Stream.CHANNEL_SHIFT, num_shifts), config.channel_shift + 1)
        shape = (-1, num_patches, 3, 2) if num_shifts else (len(ids), 0, 3, 2)
        num_coins = num_patches if config.grey_per_patch else 1
        grey = is_below(words(Stream.GREY, num_coins), config.grey_probability)
        projected = is_below(
            words(Stream.COLOUR_PROJECTION, 1)[:, 0], config.projection_probability
        )
        labels = draw_distinct(
            words(Stream.PERMUTATION, config.permutations_per_image), config.num_permutations
        )
        return Puzzles(
            draw_corners(config, batch, seed),
            torch.from_numpy(is_below(words(Stream.FLIP, 1)[:, 0], config.flip_probability)),
            torch.from_numpy(grey if config.grey_per_patch else grey[:, 0]),
            torch.from_numpy(projected & ~grey.all(axis=1)),
            torch.from_numpy(shifts.reshape(shape).astype(np.int32)),
            torch.from_numpy(labels),
        )

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Cut the patches: ``patches`` (B, P, 3, S, S) normalised, ``labels`` int64 (B, K).

        Patches stand in their true order, or in the puzzle's where batch norm is by tower.
        """
        images = batch.images[:, 0]
        puzzles = self.draw(batch, seed).to(images.device)
        order_BP = self.permutations_QP[puzzles.labels_BK[:, 0]] if self._has_towers else None
        patches = self._look.prepare(images, puzzles, dtype, order_BP)
        return {"patches": patches, "labels": puzzles.labels_BK}

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (mean cross-entropy) and ``accuracy`` over all puzzles."""
        return score_answers(self._logits(inputs).flatten(0, 1), inputs["labels"].flatten())

    def chance(self) -> dict[str, float]:
        """Return 1 / Q for the accuracy."""
        return {"accuracy": 1 / self.config.num_permutations}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show each image's puzzle as asked beside the arrangement that the network believes in.

        The tiles of the answer have a green frame where they lie right and a red one elsewhere.
        """
        shown = batch.rows(0, min(count, len(batch)))
        puzzles = self.draw(shown, seed)
        with self.answering():
            inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
            answers = self._logits(inputs)[:, 0].argmax(-1).cpu()
        tiles = self._look.show(shown.images[:, 0].cpu().contiguous(), puzzles)
        pixels = tiles.clamp(0, 255).round().to(torch.uint8).numpy()
        permutations = self.permutations_QP.cpu().numpy()
        return [
            draw_puzzle(pixels[b], permutations[asked], permutations[answer], self.config.grid)
            for b, (asked, answer) in enumerate(
                zip(puzzles.labels_BK[:, 0].tolist(), answers.tolist(), strict=True)
            )
        ]

    def _logits(self, inputs: Inputs) -> Tensor:
        patches = inputs["patches"]
        features = self.trunk(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        if self._has_towers:  # the patches came in the puzzle's order
            return self.head(features)[:, None]
        return self.head(features, self.permutations_QP[inputs["labels"]])


def load_permutations(config: JigsawConfig) -> PermutationSet:
    """Read or choose the permutation set that a config describes.

    Raises:
        InputError: if there is none.
    """
    if config.permutations_file:
        return read_permutations(
            config.permutations_file, config.num_permutations, config.num_patches
        )
    return select_permutations(
        config.num_permutations,
        config.num_patches,
        config.selection,
        config.permutation_seed,
        config.has_identity,
    )


def _build_head(config: JigsawConfig, num_features: int) -> nn.Module:
    sizes = (num_features, config.num_patches, config.hidden, config.num_permutations)
    if config.head == "concat":
        return ConcatHead(*sizes)
    kinds = {"fully_connected": FullyConnectedHead, "joint": JointHead}
    return kinds[config.head](*sizes, config.joint_hidden)
