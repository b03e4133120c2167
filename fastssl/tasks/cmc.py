"""Contrastive multiview coding: which colours belong to this lightness, and the other way round.

Tian et al. 2019 in the form of Newell and Deng 2020. A picture's lightness goes through one half
network, its colours through another, and what each says is contrasted with what a memory holds of
the other view: of the same picture, and of thousands of others.

Shape legend: B images, K negatives of each, V = 2 views (lightness, colour), D features of a view,
S side of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..counts import spell_number
from ..errors import InputError
from ..fields import Range, Share
from ..models import Trunk
from ..models.halves import HalvesTrunk
from ..models.input_spec import make_inputs
from ..shards import ShardDataset
from ..world import World
from .base import Inputs, Metric, Task, check_side
from .divided_table import DividedTable
from .memory_bank import NUM_VIEWS, Contrast, MemoryBank
from .newell_views import NewellViewsConfig
from .pictures import Picture, frame_picture

_NUM_NEIGHBOURS = 5


@dataclass(frozen=True)
class CMCConfig(NewellViewsConfig):
    """Contrastive multiview coding; the defaults are the study's for one object and ResNet9."""

    name: Literal["cmc"] = "cmc"
    """Pretext task."""
    space: Literal["lab", "rgb"] = "lab"
    """Colours that the halves take: lab, whose first channel is lightness; not rgb."""
    jitter_probability: Share = 0.0
    """Share of pictures whose colours change."""
    num_negatives: Annotated[int, Range(1, 1 << 20)] = 8192
    """Other samples that each is contrasted with, drawn with replacement."""
    temperature: Annotated[float, Range(0, 100, without=0)] = 0.1
    """What scores are divided by."""
    momentum: Share = 0.2
    """Share of a row of the memory that stays when its sample comes by."""


class CMC(Task):
    """Two half networks and a memory of what they said."""

    metrics = (
        Metric(
            "accuracy", "share", "views whose own row of the memory is nearer than all negatives"
        ),
    )

    def __init__(self, config: CMCConfig, trunk: Trunk) -> None:
        """Take a trunk of two halves.

        Args:
            config: pictures, negatives and memory.
            trunk: whose pre-logits are those of lightness and then those of colour.

        Raises:
            InputError: if the trunk has no halves, does not take pictures of this size, or the
                pictures have no lightness.
        """
        super().__init__()
        check_side("size", config.size, trunk)
        if not isinstance(trunk, HalvesTrunk):
            raise InputError(
                f"trunk ('{trunk.name}') must have two halves for task cmc, one for lightness and "
                "one for colour; set --trunk resnet9_halves"
            )
        if config.space != "lab":
            raise InputError(
                f"task.space ('{config.space}') must be 'lab' for task cmc, whose halves take "
                "lightness and colour"
            )
        self.config = config
        self.views = config.list_views()
        self.input_spec = config.input_spec
        self.trunk = trunk
        # Of the run's own draws before its first step: on every rank the same.
        seed = int(torch.randint(2**62, (), device="cpu"))
        self.bank = MemoryBank(
            trunk.num_features // NUM_VIEWS,
            config.num_negatives,
            config.temperature,
            config.momentum,
            seed,
        )

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse a single sample, which has no negatives.

        Raises:
            InputError: if there are fewer than two.
        """
        if num_samples < 2:
            raise InputError(
                f"{dataset.path} gives {spell_number(num_samples, 'sample')}, task cmc wants at "
                "least 2 to tell apart; give more images"
            )

    def count_table_bytes(self, num_samples: int, world_size: int) -> int:
        """Return the bytes of a rank's rows: two views' features of each of its samples."""
        return DividedTable.count_bytes(num_samples, self.bank.row_shape, torch.float32, world_size)

    def open_tables(self, num_samples: int, world: World) -> dict[str, DividedTable]:
        """Make the memory, a row for every id."""
        return {"bank": self.bank.open(num_samples, world)}

    def end_step(self, is_kept: Tensor) -> None:
        """Move the rows of the step's samples."""
        self.bank.end_step(is_kept)

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Augment the pictures and draw negatives; a collective call.

        A sample that took a bad one's place is that sample here too: its own row is its positive.

        Returns:
            ``images`` (B, 3, S, S) normalised Lab, and what ``MemoryBank.draw`` returns.
        """
        images = self.config.make_views(batch, seed, 1, dtype)[:, 0]
        return {"images": images, **self.bank.draw(batch.used_ids)}

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (the sum of both views' mean cross-entropies) and ``accuracy``."""
        features = self._look(inputs["images"])
        contrast: Contrast = self.bank.contrast(features, inputs["ids"], inputs["negatives"])
        loss = contrast.losses_BV.sum(1).mean()
        return {"loss": loss, "accuracy": contrast.is_first_BV.float().mean()}

    def chance(self) -> dict[str, float]:
        """Return 1 / (K + 1) for the accuracy."""
        return {"accuracy": 1 / (self.config.num_negatives + 1)}

    @torch.no_grad()
    def draw_pictures(
        self,
        batch: Batch,
        seed: int,  # noqa: ARG002 - the pictures are shown as they are
        count: int,
    ) -> list[Picture]:
        """Show the first images, and beside each the samples whose rows lie nearest to it.

        What the halves say of the image as it is, of both views together, is compared with the
        rows that this rank holds; the image's own row is left out.
        """
        shown = batch.rows(0, min(count, len(batch)))
        with self.answering():
            dtype = next(self.parameters()).dtype
            features = self._look(make_inputs(shown.images[:, 0], self.input_spec, dtype))
        found, products = self.bank.find_nearest(features, _NUM_NEIGHBOURS + 1)
        own = shown.used_ids.tolist()
        kept = [
            [pair for pair in zip(ids, values, strict=True) if pair[0] != me][:_NUM_NEIGHBOURS]
            for ids, values, me in zip(found.tolist(), products.tolist(), own, strict=True)
        ]
        neighbours = self._read([number for pairs in kept for number, _ in pairs])
        return [
            _draw_neighbours(image, [neighbours[n] for n, _ in pairs if n in neighbours], pairs)
            for image, pairs in zip(shown.images[:, 0].cpu().numpy(), kept, strict=True)
        ]

    def _read(self, ids: Sequence[int]) -> dict[int, np.ndarray]:
        """Read the pictures of samples: uint8 (S, S, 3) by id."""
        wanted = np.unique(np.asarray(ids, np.int64))
        if self.read_samples is None or not len(wanted):
            return {}
        pictures: list[np.ndarray] = []
        for batch in self.read_samples(wanted):
            pictures += [*batch.images[:, 0].cpu().numpy().copy()]
        return dict(zip(wanted.tolist(), pictures, strict=True))

    def _look(self, images: Tensor) -> Tensor:
        """Return what the halves say: (B, V, D), each view's of length 1."""
        return self.trunk(images).unflatten(1, (NUM_VIEWS, -1))


def _draw_neighbours(
    image: np.ndarray, neighbours: Sequence[np.ndarray], pairs: Sequence[tuple[int, float]]
) -> Picture:
    row = [frame_picture(picture, None) for picture in (image, *neighbours)]
    listed = ", ".join(f"sample {number} ({product:.2f})" for number, product in pairs) or "none"
    return Picture(
        np.concatenate(row, axis=1),
        f"A picture, and the nearest in the memory (cosine of both views): {listed}",
    )
