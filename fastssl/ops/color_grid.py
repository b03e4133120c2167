"""The colours that a network chooses from: a grid over the plane of a and b, cut to what sRGB has.

Zhang et al. 2016 and Goyal et al. 2019 predict a and b of CIE Lab as one of Q bins. Of a grid of
step 10 they keep 313 points, published as a file without the rule behind it. The rule here gives
those very points: the convex hull of what sRGB's colours have as a and b meets certain cells of the
grid; the corners of these cells are the bins. (The hull and not the gamut itself: an image that is
resized in Lab has colours between two of sRGB's.)

Shape legend: Q bins, K neighbours.
"""

from __future__ import annotations

import functools

import numpy as np

from ..errors import InputError

MIN_GRID, MAX_GRID = 2, 50

# What scikit-image and OpenCV have too: sRGB's primaries, white D65 of the 2 degree observer.
XYZ_OF_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.95047, 1.0, 1.08883)


def lab_of_rgb(rgb: np.ndarray) -> np.ndarray:
    """Convert colours one by one, in float64: what bins are made of and tests compare with.

    Args:
        rgb: uint8 or integer (..., 3), 0 .. 255.

    Returns:
        float64 (..., 3): L in 0 .. 100, a, b.
    """
    values = rgb / 255.0
    linear = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    xyz = linear @ np.array(XYZ_OF_RGB).T / np.array(WHITE)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], -1)


def _find_hull(points: np.ndarray) -> np.ndarray:
    """Return the corners of the convex hull of (N, 2) points, counter-clockwise."""
    # What lies inside a polygon of the outermost points in a few directions is no corner.
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    rough = points[(points @ directions).argmax(0)]
    rough = rough[(rough != np.roll(rough, -1, axis=0)).any(1)]
    edges = np.roll(rough, -1, axis=0) - rough
    normals = np.stack([edges[:, 1], -edges[:, 0]])
    points = points[(points @ normals > (rough * normals.T).sum(1) - 1e-9).any(1)]
    points = np.unique(points, axis=0)

    def walk(order: np.ndarray) -> list[np.ndarray]:
        chain: list[np.ndarray] = []
        for point in order:
            while len(chain) >= 2:
                (dx, dy), (ex, ey) = chain[-1] - chain[-2], point - chain[-1]
                if dx * ey - dy * ex > 0:
                    break
                chain.pop()
            chain.append(point)
        return chain[:-1]

    return np.array(walk(points) + walk(points[::-1]))


def _find_range(hull: np.ndarray, low: float, high: float) -> tuple[float, float] | None:
    """Return the least and the greatest b of a hull where a lies in low .. high."""
    found = [b for a, b in hull if low <= a <= high]
    for (a, b), (next_a, next_b) in zip(hull, np.roll(hull, -1, axis=0), strict=True):
        for border in (low, high):
            if (a - border) * (next_a - border) < 0:
                found.append(b + (next_b - b) * (border - a) / (next_a - a))
    return (min(found), max(found)) if found else None


@functools.cache
def _list_bins(grid: int) -> np.ndarray:
    # The extremes of a and b lie on the cube's faces: inside it a colour is greyer.
    side = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).reshape(-1, 2)
    faces = [np.insert(side, axis, value, axis=1) for axis in range(3) for value in (0, 255)]
    hull = _find_hull(lab_of_rgb(np.concatenate(faces))[:, 1:])
    bins = set()
    first, last = (int(np.floor(hull[:, 0].min() / grid)), int(np.ceil(hull[:, 0].max() / grid)))
    for column in range(first, last):
        found = _find_range(hull, column * grid, (column + 1) * grid)
        assert found is not None, "a hull has no gap"
        rows = range(int(np.floor(found[0] / grid)), int(np.ceil(found[1] / grid)) + 1)
        bins |= {(a * grid, b * grid) for a in (column, column + 1) for b in rows}
    return np.array(sorted(bins), dtype=np.float32)


def color_bins(grid: int = 10) -> np.ndarray:
    """Return the bins of a grid, sorted by a, then b.

    Args:
        grid: step of the grid, in units of a and b; 10 gives 313 bins, 5, 15 and 20 are the other
            steps of Goyal et al. 2019.

    Returns:
        float32 (Q, 2): a and b of every bin.

    Raises:
        InputError: if the step is out of range.
    """
    if not MIN_GRID <= grid <= MAX_GRID:
        raise InputError(f"grid ({grid}) must lie in {MIN_GRID} .. {MAX_GRID}")
    return _list_bins(grid).copy()


def rebalance_bins(
    prior_Q: np.ndarray, grid: int = 10, sigma: float = 5.0, uniform_share: float = 0.5
) -> np.ndarray:
    """Return how much a pixel of each bin counts: rare colours more (Zhang et al. 2016).

    The prior is smoothed over neighbouring bins and mixed with an even one; the weights are its
    inverse, scaled so that their mean under the prior is 1.

    Args:
        prior_Q: (Q,), how often each bin was seen, counts or shares.
        grid: step of the bins that it was counted over.
        sigma: of the Gaussian that smooths it, in units of a and b; 0 smooths nothing.
        uniform_share: lambda, the share of the even prior; 1 gives weights of 1.

    Returns:
        float32 (Q,).

    Raises:
        InputError: if the prior is of another set of bins, holds a negative number or none above 0,
            or another value is out of range.
    """
    bins = color_bins(grid).astype(np.float64)
    prior = np.asarray(prior_Q, dtype=np.float64)
    if prior.shape != (len(bins),):
        raise InputError(
            f"the prior has shape {prior.shape}, the grid of step {grid} has {len(bins)} bins; "
            "count it over the same grid"
        )
    if not (np.isfinite(prior).all() and (prior >= 0).all() and prior.sum() > 0):
        raise InputError("the prior must hold numbers from 0 up, one of them above 0; count again")
    if not 0 <= uniform_share <= 1:
        raise InputError(f"uniform_share ({uniform_share}) must lie in 0 .. 1")
    if sigma < 0:
        raise InputError(f"sigma ({sigma}) must be at least 0")
    prior /= prior.sum()
    smooth = prior
    if sigma > 0:
        distances = ((bins[:, None] - bins) ** 2).sum(-1)
        kernel = np.exp(-distances / (2 * sigma**2))
        smooth = prior @ (kernel / kernel.sum(1, keepdims=True))
    mixed = (1 - uniform_share) * smooth + uniform_share / len(bins)
    if not (mixed > 0).all():
        raise InputError(
            "uniform_share (0) needs a prior without an empty bin; set it above 0, or sigma"
        )
    weights = 1 / mixed
    return (weights / (prior @ weights)).astype(np.float32)
