"""Classifiers on every end point of a frozen trunk at once: a task on the one trainer.

Shape legend: B images, P = grid x grid patches of each, S side of the view or of a patch, C
channels, D features, E end points, Q classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..batch import Batch
from ..errors import InputError
from ..fields import Checked, CountOrZero, Range, Share
from ..models import Trunk
from ..models.base import check_end_points, list_end_points
from ..models.heads import build_linear_head
from ..models.input_spec import INPUT_KEY, InputSpec, cut_grid, make_inputs
from ..models.pooling import Pooling, pool_map, pool_points
from ..randomness import Stream, draw_words, is_below
from ..views import ViewSpec
from .base import Inputs, Metric, Resize, Side, Task, rank_own
from .pictures import Picture

_NO_LABEL = -1
_DROPOUT = 0.5


@dataclass(frozen=True)
class LinearConfig(Checked, prefix="task."):
    """One Linear layer on each end point."""

    name: Literal["linear", "mlp"] = "linear"
    """Task."""
    input: str = ""
    """What the trunk takes, as its file says it; "" is ImageNet's mean and deviation."""
    end_points: tuple[str, ...] = ()
    """End points that are classified by; () is all that the trunk has."""
    pooling: Pooling = "goyal19"
    """How maps become about 9,000 features."""
    view: Literal["random_resized_crop", "resize_crop", "center", "squash"] = "random_resized_crop"
    """What is learnt from: a crop of 8 to 100 % of the area; one at a random place of the resized
    image; its centre; or the centre of the squashed image."""
    size: Side = 224
    """Side of the view in pixels."""
    resize: Resize = 256
    """Short side before the crop, both where it is squashed; also of what is tested on."""
    filter: Literal["triangle", "area"] = "triangle"
    """Resampling filter."""
    grid: Annotated[int, Range(1, 16)] = 1
    """The view is cut into grid x grid patches, and features are the mean over those of each."""
    flip_probability: Share = 0.5
    """Share of views mirrored."""
    norm: Literal["none", "plain", "affine"] = "plain"
    """Batch norm over the channels of a pooled map before the classifier, without or with scale and
    shift."""
    norm_momentum: Share = 0.1
    """Share of a batch in the running statistics of that batch norm."""
    init: Literal["normal", "glorot"] = "normal"
    """Weights of a layer begin normal with a deviation of 0.01, or Glorot-uniform; biases zero."""
    hidden: CountOrZero = 0
    """Units of a hidden layer with ReLU and dropout of a half; 0 is none."""

    def check(self) -> None:
        """Refuse mirrored patches and a crop larger than the image."""
        if self.grid > 1 and self.flip_probability:
            raise InputError("task.flip_probability must be 0 where task.grid is above 1")
        if self.size % self.grid:
            raise InputError(
                f"task.size ({self.size}) must be a multiple of task.grid ({self.grid})"
            )
        if self.view != "random_resized_crop" and self.resize < self.size:
            raise InputError(
                f"task.resize ({self.resize}) must be at least task.size ({self.size})"
            )

    @property
    def spec(self) -> InputSpec:
        """What the trunk takes."""
        return InputSpec.from_metadata({INPUT_KEY: self.input}) if self.input else InputSpec()

    @property
    def train_view(self) -> ViewSpec:
        """What to ask of the loader to learn from."""
        if self.view == "random_resized_crop":
            return ViewSpec.random_resized_crop(self.size, filter=self.filter)
        if self.view == "resize_crop":
            return ViewSpec.resize_crop(self.resize, self.size, filter=self.filter)
        return self.test_view

    @property
    def test_view(self) -> ViewSpec:
        """What to ask of the loader to test on."""
        if self.view == "squash":  # its centre is cut out when the batch is there
            return ViewSpec.squash(self.resize, filter=self.filter)
        return ViewSpec.center(self.resize, self.size, filter=self.filter)


class Head(nn.Module):
    """A classifier of one end point: a batch norm over channels, then one or two Linear layers."""

    def __init__(self, config: LinearConfig, shape: tuple[int, ...], num_classes: int) -> None:
        """Build it with fresh weights from torch's global generator.

        Args:
            config: its form.
            shape: of the pooled end point without the batch: (C, D / C).
            num_classes: Q.
        """
        super().__init__()
        channels, places = shape
        self.channels = channels
        self.norm: nn.Module = nn.Identity()
        if config.norm != "none":
            is_affine = config.norm == "affine"
            self.norm = nn.BatchNorm1d(channels, momentum=config.norm_momentum, affine=is_affine)
        sizes = [channels * places, *([config.hidden] if config.hidden else []), num_classes]
        layers: list[nn.Module] = []
        for into, out in itertools.pairwise(sizes):
            layer = build_linear_head(into, out)
            if config.init == "normal":
                nn.init.normal_(layer.weight, std=0.01)
            layers += [layer, nn.ReLU(inplace=True), nn.Dropout(_DROPOUT)]
        self.classify = nn.Sequential(*layers[:-2])

    def forward(self, features_BD: Tensor) -> Tensor:
        """Map pooled features (B, D) to logits (B, Q)."""
        maps = features_BD.unflatten(1, (self.channels, -1))
        return self.classify(self.norm(maps).flatten(1))


class LinearHeads(Task):
    """Heads on a trunk that does not learn and keeps its running statistics.

    Each end point has a head of its own; their losses are summed, so that each learns as if it were
    alone. Images without a label do not enter the loss.
    """

    needs_labels = True
    learns_trunk = False
    metrics: tuple[Metric, ...] = (
        Metric("accuracy", "share", "labelled images whose class is found, mean over end points"),
    )

    def __init__(self, config: LinearConfig, trunk: Trunk, num_classes: int) -> None:
        """Build the heads.

        Args:
            config: views, heads and what the trunk takes.
            trunk: has the end points.
            num_classes: Q, of the dataset.

        Raises:
            InputError: if the dataset has fewer than two classes, or the trunk lacks an end point
                or does not take views of this size.
        """
        super().__init__()
        if num_classes < 2:
            raise InputError(
                f"task ({config.name}) needs labels of at least 2 classes, the dataset has "
                f"{num_classes}; give a dataset made from one folder a class"
            )
        self.config = config
        self.num_classes = num_classes
        self.views = (config.train_view,)
        self.input_spec = config.spec
        self.trunk = trunk.requires_grad_(False)
        shapes = _list_shapes(trunk, config)
        self.end_points = tuple(shapes)
        """E names, in the trunk's order."""
        # A name may hold a dot, which no module's may.
        self.heads = nn.ModuleList(Head(config, shape, num_classes) for shape in shapes.values())
        self.metrics = (
            *type(self).metrics,
            *(
                Metric(f"{kind}accuracy_{name}", "share", f"{meaning} by end point {name}")
                for kind, meaning in _KINDS.items()
                for name in self.end_points
            ),
        )
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode of the heads; the trunk stays as it is tested."""
        super().train(mode)
        self.trunk.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state of what learns: a checkpoint needs no copy of the trunk."""
        whole = super().state_dict(*args, **kwargs)
        return {name: value for name, value in whole.items() if not name.startswith("trunk.")}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take over a state by ``state_dict``; the trunk stays as it is."""
        trunk = {f"trunk.{name}": value for name, value in self.trunk.state_dict().items()}
        return super().load_state_dict({**trunk, **state_dict}, strict, assign)

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Mirror and normalise: ``images`` (B, P, C, S, S), ``labels`` int64 (B,)."""
        if batch.labels is None:
            raise ValueError("batch.labels (None) must be given to classifiers")
        flips = None
        if self.config.flip_probability:
            words = draw_words(
                seed, batch.epochs.numpy(), batch.sample_ids.numpy(), Stream.FLIP, num=1
            )
            flips = torch.from_numpy(is_below(words[:, 0], self.config.flip_probability))
        device = batch.images.device
        return {
            "images": self.make_images(batch.images, dtype, flips),
            "labels": batch.labels.to(device, non_blocking=True),
        }

    def make_images(
        self, images_BVHWC: Tensor, dtype: torch.dtype, flips_B: Tensor | None = None
    ) -> Tensor:
        """Make what the trunk takes of a loader's views.

        Args:
            images_BVHWC: uint8, one view each.
            dtype: of the result.
            flips_B: bool; which are mirrored.

        Returns:
            (B, P, C, S, S) on the same device, S the side of a patch.
        """
        images, device = images_BVHWC[:, 0], images_BVHWC.device
        margin = (images.shape[1] - self.config.size) // 2
        if margin:
            images = images[:, margin : margin + self.config.size]
            images = images[:, :, margin : margin + self.config.size].contiguous()
        flips_B = None if flips_B is None else flips_B.to(device, non_blocking=True)
        cut = cut_grid(images, self.config.grid)
        made = make_inputs(cut, self.input_spec, dtype, flip_B=flips_B)
        return made.unflatten(0, (len(images), -1))

    @torch.no_grad()
    def pool_points(self, images_BPCSS: Tensor) -> dict[str, Tensor]:
        """Run the trunk: features (B, D) by end point, the mean over the patches of an image."""
        points = self.trunk.forward_features(images_BPCSS.flatten(0, 1))
        return pool_points(points, self.end_points, self.config.pooling, len(images_BPCSS))

    def classify(self, images_BPCSS: Tensor) -> dict[str, Tensor]:
        """Return logits (B, Q) by end point, of what ``make_images`` gave."""
        points = self.pool_points(images_BPCSS)
        return {
            name: head(points[name]).float()
            for name, head in zip(self.end_points, self.heads, strict=True)
        }

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss`` (sum over end points of mean cross-entropy) and accuracies."""
        labels = inputs["labels"]
        is_labelled = labels != _NO_LABEL
        count = is_labelled.sum().clamp(min=1)
        loss = torch.zeros((), device=labels.device)
        accuracies = {}
        for name, logits in self.classify(inputs["images"]).items():
            loss = loss + functional.cross_entropy(
                logits, labels, ignore_index=_NO_LABEL, reduction="sum"
            )
            is_right = (logits.detach().argmax(-1) == labels) & is_labelled
            accuracies[f"accuracy_{name}"] = is_right.sum() / count
        mean = torch.stack([*accuracies.values()]).mean()
        return {"loss": loss / count, "accuracy": mean, **accuracies}

    @torch.no_grad()
    def rank_classes(self, images_BVHWC: Tensor, labels_B: Tensor) -> Tensor:
        """Return how many classes each head takes for likelier than an image's own: int64 (B, E).

        Args:
            images_BVHWC: uint8, one view each, as ``LinearConfig.test_view`` gives them.
            labels_B: int64, a class each, on the same device.
        """
        answers = self.classify(self.make_images(images_BVHWC, torch.float32))
        return torch.stack([rank_own(logits, labels_B) for logits in answers.values()], dim=1)

    def chance(self) -> dict[str, float]:
        """Return 1 / Q for the accuracy."""
        return {"accuracy": 1 / self.num_classes}

    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:  # noqa: ARG002
        """Return none: crops of a dataset with as many answers as there are end points."""
        return []


_KINDS = {
    "": "labelled images whose class is found",
    "test_": "test images whose class is found",
}


def _list_shapes(trunk: Trunk, config: LinearConfig) -> Mapping[str, tuple[int, int]]:
    """Return the end points in use, each with its channels and the places that pooling leaves."""
    side = config.size // config.grid
    if side < trunk.min_side:
        raise InputError(
            f"task.size ({config.size}) gives images of {side} px, trunk '{trunk.name}' takes at "
            f"least {trunk.min_side}; enlarge it"
        )
    points = list_end_points(trunk, side)
    wanted = config.end_points or tuple(points)
    check_end_points(trunk, wanted, points)
    shapes = {}
    for name, shape in points.items():
        if name in wanted:
            pooled = pool_map(torch.empty(1, *shape, device="meta"), name, config.pooling)
            shapes[name] = (shape[0], pooled.shape[1] // shape[0])
    return shapes
