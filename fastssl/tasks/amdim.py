"""AMDIM: a view of an image tells the other's places from those of all other images.

Augmented multiscale deep infomax (Bachman et al. 2019) in the form of Newell and Deng 2020: two
augmentations of one picture; the vector of the whole of one, and that of one of its places, predict
the places of the other, in grids of 5 x 5 and 7 x 7.

Shape legend: B images of this rank, N images of all ranks, K = 2 views, L places of a grid,
C channels, S side of a view, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..errors import InputError
from ..fields import Range
from ..models import Trunk
from ..models.base import LocalTrunk
from ..shards import ShardDataset
from ..world import World
from .base import Inputs, Metric, Task, check_side
from .divided_table import DividedTable
from .heat_maps import draw_matches
from .local_contrast import clip_scores, contrast_places, pool_places, score_places, take_own
from .newell_views import NewellViewsConfig, augment, draw_augmentation, to_pictures
from .pictures import Picture

NUM_VIEWS = 2
COARSE, FINE = 5, 7
"""Places a side of the two grids."""


@dataclass(frozen=True)
class AmdimConfig(NewellViewsConfig):
    """AMDIM; the defaults are those of Newell and Deng 2020."""

    name: Literal["amdim"] = "amdim"
    """Pretext task."""
    clip: Annotated[float, Range(0, 1000)] = 30.0
    """Scores are brought softly into -clip .. clip; 0 leaves them as they are."""
    penalty: Annotated[float, Range(0, 1000)] = 0.05
    """Weight of the mean square of the scores before they are clipped."""
    projection: Literal["linear", "residual"] = "linear"
    """From the trunk's maps to vectors of places: a 1x1 convolution; or, as the original has it,
    two of them beside a third, with a batch norm behind."""


class ResidualProjection(nn.Module):
    """Two 1x1 convolutions beside a third, and a batch norm (Bachman et al. 2019)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Build it with fresh weights: the second convolution at zero, the third near identity.

        Args:
            in_channels: C.
            out_channels: D.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.zeros_(self.conv2.weight)
        if out_channels >= in_channels:
            nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
            with torch.no_grad():
                self.shortcut.weight[:in_channels, :, 0, 0].fill_diagonal_(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, D, H, W)."""
        return self.bn(self.conv2(self.relu(self.conv1(x))) + self.shortcut(x))


_PROJECTIONS = {"linear": lambda c, d: nn.Conv2d(c, d, 1), "residual": ResidualProjection}


class Vectors(NamedTuple):
    """What the network says of views."""

    whole_BKD: Tensor
    """Of the whole view, the trunk's pre-logits."""
    coarse_BKLD: Tensor
    """Of its 5 x 5 places."""
    fine_BKLD: Tensor
    """Of its 7 x 7 places."""


class Others(NamedTuple):
    """What the views of this rank's images are told from."""

    coarse_NKLD: Tensor
    """Places of all ranks' images."""
    fine_NKLD: Tensor
    """Places of all ranks' images."""
    is_same_BN: Tensor
    """bool; the image itself and copies of it, which are no negatives."""
    first: int
    """Place of this rank's first image among all."""


class Amdim(Task):
    """Projections of two maps on a trunk that gives vectors of places."""

    metrics = (
        Metric(
            "accuracy",
            "share",
            "views whose best match, of the 7 x 7 places of all images of the step, is of their "
            "own image",
        ),
        Metric("accuracy_of_chance", "share", "accuracy of a guess: one of the images of the step"),
        Metric("loss_1to5", "", "part of the loss: whole views tell 5 x 5 places"),
        Metric("loss_1to7", "", "part of the loss: whole views tell 7 x 7 places"),
        Metric("loss_5to5", "", "part of the loss: a place of 5 x 5 tells those of the other view"),
        Metric("score_penalty", "", "part of the loss: weighted mean square of the scores"),
    )
    trunk: LocalTrunk

    def __init__(self, config: AmdimConfig, trunk: Trunk) -> None:
        """Build the projections.

        Args:
            config: the views and the loss.
            trunk: gives vectors of places (``LocalTrunk``).

        Raises:
            InputError: if the trunk gives none, or does not take images of this size.
        """
        super().__init__()
        if not isinstance(trunk, LocalTrunk):
            raise InputError(
                f"trunk ('{trunk.name}') gives no vectors of places, which AMDIM predicts; set "
                "--trunk resnet9, resnet50_newell, the _dense form of one, or amdim_encoder"
            )
        check_side("size", config.size, trunk)
        self.config = config
        self.views = config.list_views()
        self.input_spec = config.input_spec
        self.trunk = trunk
        build = _PROJECTIONS[config.projection]
        self.head = nn.ModuleDict(
            {
                name: build(channels, trunk.num_features)
                for name, channels in zip(("fine", "coarse"), trunk.local_channels, strict=True)
            }
        )
        self._world: World | None = None

    def check_batch(self, size: int) -> None:
        """Refuse a single image, which has no others to be told from.

        Raises:
            InputError: says what to change.
        """
        super().check_batch(size)
        if size < 2:
            raise InputError(
                f"images of a micro-batch on one rank ({size}) must be at least 2: AMDIM tells an "
                "image from the others of its step; raise --data.global-batch-size, or lower "
                "--accumulation or the number of ranks"
            )

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:  # noqa: ARG002
        """Refuse a single sample, whose copies are no others.

        Raises:
            InputError: if there is one alone.
        """
        if num_samples < 2:
            raise InputError(
                f"AMDIM tells images from each other and needs at least 2, got {num_samples}; "
                "give another --data.path, or raise --data.max-samples"
            )

    def open_tables(self, num_samples: int, world: World) -> dict[str, DividedTable]:  # noqa: ARG002
        """Learn of the other ranks, whose images are negatives too; there are no tables."""
        self._world = world
        return {}

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Augment each picture twice: ``images`` (B, 2, 3, S, S), ``labels`` int64 (B,)."""
        device = batch.images.device
        # Both are mirrored or neither.
        drawn = draw_augmentation(self.config, batch, seed, NUM_VIEWS, shares_flip=True).to(device)
        labels = batch.used_ids.to(device, non_blocking=True)
        return {
            "images": augment(batch.images[:, 0], drawn, self.config, dtype),
            "labels": labels,
        }

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss``, its parts, and ``accuracy`` with that of a guess."""
        vectors = self.encode(inputs["images"])
        num = len(inputs["images"])
        # Which of a view's places speaks for it is drawn by torch's generator.
        places_BK = torch.randint(COARSE**2, (num, NUM_VIEWS), device=inputs["images"].device)
        with torch.autocast(inputs["images"].device.type, enabled=False):
            return self.compare(vectors, self._gather(vectors, inputs["labels"]), places_BK)

    def encode(self, images_BKCSS: Tensor) -> Vectors:
        """Return the vectors of views, in float32 under autocast."""
        fine, coarse, whole = self.trunk.forward_local(images_BKCSS.flatten(0, 1))

        def project(name: str, maps: Tensor, side: int) -> Tensor:
            # Averages first: of a linear projection that is the same, and cheaper.
            with torch.autocast(maps.device.type, enabled=False):
                pooled = pool_places(_widen(maps), side)
            places = self.head[name](pooled).flatten(2).mT
            return _widen(places).unflatten(0, (-1, NUM_VIEWS))

        return Vectors(
            _widen(whole).unflatten(0, (-1, NUM_VIEWS)),
            project("coarse", coarse, COARSE),
            project("fine", fine, FINE),
        )

    def compare(self, vectors: Vectors, others: Others, places_BK: Tensor) -> dict[str, Tensor]:
        """Return what ``forward`` returns.

        Args:
            vectors: of this rank's images.
            others: what they are told from.
            places_BK: int64; which of its 5 x 5 places speaks for each view.
        """
        config = self.config
        images = torch.arange(len(places_BK), device=places_BK.device)
        costs: dict[str, list[Tensor]] = {"1to5": [], "1to7": [], "5to5": []}
        squares, found = [], []
        for view in range(NUM_VIEWS):
            whole = vectors.whole_BKD[:, view]
            place = vectors.coarse_BKLD[images, view, places_BK[:, view]]
            coarse, fine = (t[:, 1 - view] for t in (others.coarse_NKLD, others.fine_NKLD))
            pairs = {"1to5": (whole, coarse), "1to7": (whole, fine), "5to5": (place, coarse)}
            for name, (sources, targets) in pairs.items():
                scores = score_places(sources, targets)
                squares.append(scores.square().mean())
                scores = clip_scores(scores, config.clip)
                costs[name].append(contrast_places(scores, others.is_same_BN, others.first))
                if name == "1to7":
                    found.append(_find_own(scores.detach(), others))
        parts = {f"loss_{name}": torch.stack(pair).mean() for name, pair in costs.items()}
        parts["score_penalty"] = config.penalty * torch.stack(squares).sum() / NUM_VIEWS
        return {
            "loss": torch.stack([*parts.values()]).sum(),
            "accuracy": torch.cat(found).float().mean(),
            **{name: part.detach() for name, part in parts.items()},
            "accuracy_of_chance": torch.full_like(
                parts["loss_1to7"], 1 / len(others.fine_NKLD)
            ).detach(),
        }

    def _gather(self, vectors: Vectors, labels_B: Tensor) -> Others:
        """Bring together the places of all ranks' images, with gradient."""
        world, coarse, fine = self._world, vectors.coarse_BKLD, vectors.fine_BKLD
        if world is None or world.size == 1:
            return Others(coarse, fine, labels_B[:, None] == labels_B, 0)
        both = world.gather_rows(torch.cat([coarse, fine], 2))
        all_coarse, all_fine = both.split([COARSE**2, FINE**2], 2)
        is_same_BN = labels_B[:, None] == world.gather_rows(labels_B)
        return Others(all_coarse, all_fine, is_same_BN, world.rank * len(labels_B))

    def chance(self) -> dict[str, float]:
        """Return nothing: a guess is one of the images of the step, as ``forward`` says."""
        return {}

    @torch.no_grad()
    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show how well the places of an image's other view match one view, and those of another's.

        Above the match of the whole view, below that of the place in its middle. The map has a
        green frame where the best place of all images shown is the image's own, else a red one.
        """
        shown = batch.rows(0, max(count, 2))
        with self.answering():
            inputs = self.prepare(shown, seed, next(self.parameters()).dtype)
            vectors = self.encode(inputs["images"])
        pictures_BK = to_pictures(inputs["images"], self.config)
        middle = vectors.coarse_BKLD[:, 0, COARSE**2 // 2]
        scores = [
            clip_scores(score_places(sources, targets[:, 1]), self.config.clip).cpu().numpy()
            for sources, targets in (
                (vectors.whole_BKD[:, 0], vectors.fine_BKLD),
                (middle, vectors.coarse_BKLD),
            )
        ]
        return [
            draw_matches(pictures_BK, [rows[number] for rows in scores], number)
            for number in range(min(count, len(shown)))
        ]


def _widen(values: Tensor) -> Tensor:
    """Return half precision as float32, what is longer as it is."""
    return values if values.dtype == torch.float64 else values.float()


def _find_own(scores_BNL: Tensor, others: Others) -> Tensor:
    """Tell whose best place is better than all of other images: bool (B,)."""
    rivals = scores_BNL.amax(-1).masked_fill(others.is_same_BN, -torch.inf)
    return take_own(scores_BNL, others.first).amax(1) > rivals.amax(1)
