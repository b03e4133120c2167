"""What a linear classifier makes of low-level statistics of a puzzle's patches or a turned image.

A puzzle should be solved by what is in the picture. Three cheap cues solve it too (Noroozi and
Favaro 2016): lenses darken the corners and shift colours outwards, and the border of a patch goes
on in its neighbour. Each cue is boiled down to a few numbers, and a linear classifier says how
much of the answer they give away; chance is what a sound puzzle leaves it with. Photographs have a
cue of their own: the sky is above.

What tells how far an image was turned (Gidaris et al. 2018) are traces of the way it was made
ready: a border that was padded, an axis that was resampled more than the other.

Shape legend: B images, P patches in their true order (row by row), K turns, C = 3 channels, S side.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..counts import spell_number
from ..errors import InputError

_TINY = 1e-6

CueName = Literal["brightness", "colour_shift", "edges"]
CUES: tuple[CueName, ...] = ("brightness", "colour_shift", "edges")


class Cue(NamedTuple):
    """How far one cue leads."""

    accuracy: float
    """Share of right answers on images that the classifier was not fitted to."""
    chance: float
    """What guessing reaches."""


def measure_cue(name: CueName, patches_BPCSS: NDArray) -> Cue:
    """Fit a linear classifier on one cue with every second image and test it with the rest.

    Args:
        name: ``brightness`` and ``colour_shift``: which of the P places a patch is from, by its
            channels' means and deviations beside those of the whole picture, or by the displacement
            of red and of blue against green; ``edges``: whether two patches are neighbours, by how
            well their facing borders agree.
        patches_BPCSS: as the trunk sees them, in the order of the picture.

    Returns:
        The accuracy and what guessing reaches.

    Raises:
        InputError: if there are fewer than four images, or P is no square of 2 or more.
    """
    num_images, num_patches = patches_BPCSS.shape[:2]
    grid = math.isqrt(num_patches)
    if num_images < 4 or grid < 2 or grid * grid != num_patches:
        raise InputError(
            f"patches ({spell_number(num_images, 'image')} of {num_patches}) must be of 4 images "
            "or more, each a square grid of 2 x 2 or more"
        )
    patches = np.asarray(patches_BPCSS, np.float32)
    if name == "edges":
        neighbours, agreement = describe_edges(patches, grid)
        return Cue(_fit(agreement, neighbours), 1 / 2)
    describe = {"brightness": describe_brightness, "colour_shift": describe_colour_shift}[name]
    places = np.broadcast_to(np.arange(num_patches), (num_images, num_patches))
    return Cue(_fit(describe(patches), places), 1 / num_patches)


def measure_turn_cue(images_BKCSS: NDArray, labels_BK: NDArray) -> Cue:
    """Fit a linear classifier on what images look like at their borders and along their axes.

    Args:
        images_BKCSS: turned images, as the trunk sees them.
        labels_BK: the turn of each.

    Returns:
        The accuracy and what guessing reaches.

    Raises:
        InputError: if there are fewer than four images.
    """
    if len(images_BKCSS) < 4:
        raise InputError(f"images ({len(images_BKCSS)}) must be 4 or more")
    numbers = describe_axes(images_BKCSS.reshape(-1, *images_BKCSS.shape[2:]))
    num_turns = len(np.unique(labels_BK))
    return Cue(_fit(numbers.reshape(*labels_BK.shape, -1), labels_BK), 1 / num_turns)


def describe_axes(images_NCSS: NDArray) -> NDArray:
    """Describe the borders of images and how rough they are along each axis, (N, 20).

    Of the outermost row on each of the four sides its mean, its deviation and the steps to the next
    two rows; of the whole the logarithm of first and second differences down and across. That is
    what padding, resampling, block borders and squashing leave behind.
    """
    grey = np.asarray(images_NCSS, np.float32).mean(1)
    numbers = []
    for turn in range(4):
        first, second, third = (np.rot90(grey, turn, axes=(1, 2))[:, row] for row in range(3))
        numbers += [first.mean(-1), first.std(-1)]
        numbers += [np.abs(second - first).mean(-1), np.abs(third - second).mean(-1)]
    for order in (1, 2):
        rough = [np.abs(np.diff(grey, n=order, axis=axis)).mean((1, 2)) for axis in (1, 2)]
        numbers += [np.log(value + _TINY) for value in rough]
    return np.stack(numbers, axis=1)


def describe_brightness(patches_BPCSS: NDArray) -> NDArray:
    """Return mean and deviation of each channel less their mean over the picture, (B, P, 6)."""
    values = np.concatenate([patches_BPCSS.mean((3, 4)), patches_BPCSS.std((3, 4))], axis=-1)
    return values - values.mean(1, keepdims=True)


def describe_colour_shift(patches_BPCSS: NDArray) -> NDArray:
    """Estimate how far red and blue lie from green, (B, P, 4): y and x of each, in pixels.

    Least squares on the gradient (Lucas and Kanade 1981), after brightness and contrast of the
    channels are made equal; right for shifts of about a pixel and less.
    """
    values = patches_BPCSS - patches_BPCSS.mean((3, 4), keepdims=True)
    values = values / (values.std((3, 4), keepdims=True) + _TINY)
    green = values[:, :, 1]
    shifts = []
    for channel in (0, 2):
        other = values[:, :, channel]
        y, x = np.gradient((other + green) / 2, axis=(2, 3))
        change = green - other
        yy, xx, xy = ((a * b).mean((2, 3)) for a, b in ((y, y), (x, x), (x, y)))
        cy, cx = (y * change).mean((2, 3)), (x * change).mean((2, 3))
        determinant = yy * xx - xy**2 + _TINY
        shifts += [(xx * cy - xy * cx) / determinant, (yy * cx - xy * cy) / determinant]
    return np.clip(np.stack(shifts, axis=-1), -3, 3)


def describe_edges(patches_BPCSS: NDArray, grid: int) -> tuple[NDArray, NDArray]:
    """Compare facing borders of neighbours and of as many other pairs.

    The right border of one patch with the left of another, the bottom with the top: the finest
    texture along the border alone, for colours, shading and shapes go on across any gap.

    Args:
        patches_BPCSS: the patches.
        grid: patches a side.

    Returns:
        Whether the pairs are neighbours, int (B, pairs); the correlation of their borders, float
        (B, pairs, 1).
    """
    grey = patches_BPCSS.mean(2)
    borders = {
        "right": (grey[..., :, -1], grey[..., :, 0]),
        "down": (grey[..., -1, :], grey[..., 0, :]),
    }
    is_neighbour, agreement = [], []
    for direction, (leaving, entering) in borders.items():
        for first in range(grid * grid):
            row, column = divmod(first, grid)
            is_last = (column if direction == "right" else row) == grid - 1
            if is_last:
                continue
            second = first + (1 if direction == "right" else grid)
            # The opposite patch is never the neighbour that lies in this direction.
            for other, answer in ((second, 1), (grid * grid - 1 - first, 0)):
                if answer == 0 and other in (first, second):
                    other = (first - 1) % (grid * grid)
                is_neighbour.append(answer)
                agreement.append(_correlate(leaving[:, first], entering[:, other]))
    labels = np.broadcast_to(np.array(is_neighbour), (len(grey), len(is_neighbour)))
    return labels, np.stack(agreement, axis=1)[..., None]


def _correlate(a_BS: NDArray, b_BS: NDArray) -> NDArray:
    """Correlate the second differences along two lines, (B,): shapes go on across a gap too."""
    a, b = (np.diff(v, n=2, axis=-1) for v in (a_BS, b_BS))
    scale = np.sqrt((a**2).mean(-1) * (b**2).mean(-1))
    return (a * b).mean(-1) / (scale + _TINY)


def _fit(features: NDArray, labels: NDArray) -> float:
    """Fit on the even images, return the accuracy on the odd ones."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    width = features.shape[-1]
    model.fit(features[::2].reshape(-1, width), labels[::2].ravel())
    return float(model.score(features[1::2].reshape(-1, width), labels[1::2].ravel()))
