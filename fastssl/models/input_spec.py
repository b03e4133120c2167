"""What a trunk takes in place of RGB: asked by its task, written beside it, read to evaluate it.

Shape legend: B images, H W pixels, C channels that the trunk takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError
from ..fields import Documented
from ..ops import augment_views, extract_patches, normalize, split_lab

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INPUT_KEY = "input"
"""Where an exported trunk's metadata hold its input."""

# (x / 255 - mean) / std, the operators' rule. Caffe's own form leaves 0 .. 255, for networks that
# begin with small weights; the others of ours meet numbers of ordinary size.
_HALF = (0.5, 0.5, 0.5)
_CAFFE_MEAN = (123 / 255, 117 / 255, 104 / 255)
_ONE_STD = (sum(IMAGENET_STD) / 3,) * 3
SCALES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "caffe": (_CAFFE_MEAN, (1 / 255,) * 3),
    "inception": (_HALF, _HALF),
    "mean": (_CAFFE_MEAN, _ONE_STD),
    "none": ((0.0,) * 3, _ONE_STD),
    # Newell and Deng 2020: their synthetic set, and CIFAR-10.
    "newell20_rgb": (
        (98.12 / 255, 89.92 / 255, 84.36 / 255),
        (43.95 / 255, 42.66 / 255, 44.05 / 255),
    ),
    "cifar10_rgb": (
        (125.32 / 255, 122.97 / 255, 113.89 / 255),
        (62.99 / 255, 62.09 / 255, 66.70 / 255),
    ),
}
"""Mean and deviation, in units of 0 .. 1, of the normalisations that are the same everywhere."""
LAB_SCALES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "newell20_lab": ((38.44, 3.03, 4.77), (17.42, 9.41, 11.37)),
    "cifar10_lab": ((50.84, 0.40, 5.73), (24.26, 10.15, 16.08)),
}
"""Mean and deviation of L, a and b."""
SCALE_NAMES = (*SCALES, *LAB_SCALES, "patch")
"""What ``InputSpec.named`` knows; ``patch`` is each image's own mean and deviation."""

Kind = Literal["scaled", "standardized", "lightness", "lab"]
_WITH_SCALE = ("scaled", "lab")


@dataclass(frozen=True)
class InputSpec(Documented):
    """How uint8 RGB becomes what a trunk takes; the default is that of ImageNet networks."""

    kind: Kind = "scaled"
    """scaled: by mean and std; standardized: each image by its own; lightness: L - 50 alone; lab:
    L, a and b by mean and std."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Of R, G, B in units of 0 .. 1, or of L, a, b; scaled and lab only."""
    std: tuple[float, ...] = IMAGENET_STD
    """Likewise."""
    eight_bit: bool = False
    """L as if stored in 8 bits; lightness only."""

    def __post_init__(self) -> None:
        """Refuse what no image can be scaled by.

        Raises:
            ValueError: unless mean and std are three finite numbers each, those of std above 0.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            is_good = len(values) == 3 and all(map(math.isfinite, values))
            if not is_good or (name == "std" and min(values) <= 0):
                above = " above 0" if name == "std" else ""
                raise ValueError(f"{name} {values} must be three finite numbers{above}")

    @classmethod
    def named(cls, normalization: str) -> InputSpec:
        """Return what a task's field ``normalize`` asks for.

        Args:
            normalization: a name in ``SCALES`` or ``LAB_SCALES``; any other takes each image's or
                patch's own mean and deviation.
        """
        if normalization in LAB_SCALES:
            return cls("lab", *LAB_SCALES[normalization])
        if normalization not in SCALES:
            return cls("standardized")
        return cls("scaled", *SCALES[normalization])

    @property
    def channels(self) -> int:
        """C."""
        return 1 if self.kind == "lightness" else 3

    def to_text(self) -> str:
        """Return it as JSON, for a trunk's metadata."""
        fields: dict[str, Any] = {"kind": self.kind}
        if self.kind in _WITH_SCALE:
            fields |= {"mean": self.mean, "std": self.std}
        if self.kind == "lightness":
            fields["eight_bit"] = self.eight_bit
        return json.dumps(fields)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> InputSpec:
        """Read what an exported trunk takes.

        Args:
            metadata: from ``fastssl.models.load_trunk``.

        Raises:
            InputError: if it is not there, or not to be read.
        """
        name = metadata.get("name", "")
        if INPUT_KEY not in metadata:
            raise InputError(
                f"the file of trunk '{name}' does not say what its input is (metadata "
                f"'{INPUT_KEY}' is absent); start its run again, which exports it anew, or give "
                "an InputSpec (evaluate: --scale)"
            )
        try:
            fields = json.loads(metadata[INPUT_KEY])
            if fields["kind"] not in get_args(Kind):
                raise ValueError(f"kind '{fields['kind']}' is not known")
            if fields["kind"] in _WITH_SCALE:
                mean, std = (tuple(map(float, fields[key])) for key in ("mean", "std"))
                return cls(fields["kind"], mean, std)
            return cls(fields["kind"], eight_bit=bool(fields.get("eight_bit", False)))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            told = metadata[INPUT_KEY][:200]
            raise InputError(
                f"the file of trunk '{name}' says of its input {told!r}, which cannot be read "
                f"({str(error)[:200]}); start its run again with this version of fastssl"
            ) from None


def make_inputs(
    images_BHWC: Tensor,
    spec: InputSpec,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    flip_B: Tensor | None = None,
    grey_B: Tensor | None = None,
) -> Tensor:
    """Make what a trunk takes, as its task made it; nothing is drawn here.

    Args:
        images_BHWC: uint8 RGB; square where each is standardised.
        spec: what the trunk takes.
        dtype: of the result.
        channels_last: memory order.
        flip_B: bool; True mirrors left to right.
        grey_B: bool; True makes grey (luma) first; not of lightness, which is grey, nor of Lab.

    Returns:
        (B, C, H, W) on the same device.

    Raises:
        ValueError: if shape or dtype is wrong.
    """
    if spec.kind == "scaled":
        return normalize(
            images_BHWC,
            spec.mean,
            spec.std,
            flip_B=flip_B,
            grey_B=grey_B,
            dtype=dtype,
            channels_last=channels_last,
        )
    if spec.kind == "lab":
        return augment_views(
            images_BHWC,
            "lab",
            spec.mean,
            spec.std,
            flip_BK=None if flip_B is None else flip_B[:, None],
            dtype=dtype,
            channels_last=channels_last,
        )[:, 0]
    height, width = images_BHWC.shape[1:3]
    if spec.kind == "lightness":
        stride = math.gcd(height, width)  # the fewest a and b, which nobody asks for here
        lightness, _ = split_lab(images_BHWC, stride, flip_B, eight_bit=spec.eight_bit, dtype=dtype)
        return lightness
    if height != width:
        raise ValueError(f"images must be square to be standardised, got {height} x {width}")
    # One patch that is the whole image: the operator that knows its statistics.
    corners_BP2 = torch.zeros(len(images_BHWC), 1, 2, dtype=torch.int32, device=images_BHWC.device)
    whole = extract_patches(
        images_BHWC,
        corners_BP2,
        height,
        flip_B=flip_B,
        grey=grey_B,
        standardize=True,
        dtype=dtype,
        channels_last=channels_last,
    )
    return whole[:, 0]


def cut_grid(images_BHWC: Tensor, grid: int) -> Tensor:
    """Cut images into grid x grid patches without gaps, those of an image row by row.

    Args:
        images_BHWC: square, of a side that the grid divides.
        grid: patches a side, P = grid x grid; 1 leaves the images as they are.

    Returns:
        (B * P, S, S, C), a view of the images' memory where the grid is 1.
    """
    if grid == 1:
        return images_BHWC
    rows = images_BHWC.unflatten(1, (grid, -1)).unflatten(3, (grid, -1))
    return rows.transpose(2, 3).flatten(0, 2)
