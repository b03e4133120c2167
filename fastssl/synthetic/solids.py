"""Solids that models are made of: a skin over rings of points, and what follows from it.

Model coordinates follow ShapeNetCore: x to the side, y up, front at -z. Lengths have no unit;
a model is scaled when it is placed.

Shape legend: R rings, K points of a ring, V vertices, F faces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ring = NDArray[np.float64]
_POINTS = 20


class Part(NamedTuple):
    """One closed skin of a model."""

    vertices: NDArray[np.float64]
    """(V, 3)."""
    faces: NDArray[np.int64]
    """(F, 3), counted from the part's first vertex."""

    def moved(self, x: float, y: float, z: float) -> Part:
        """Return the part in another place."""
        return Part(self.vertices + np.array([x, y, z]), self.faces)


Parts = list[Part]

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_SIDES = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ]
)


def ring(
    center: ArrayLike,
    half_u: ArrayLike,
    half_v: ArrayLike,
    power: float = 2.0,
    points: int = _POINTS,
) -> Ring:
    """Return K points of a superellipse around a centre.

    Args:
        center: (3,).
        half_u: (3,) half axis.
        half_v: (3,) half axis.
        power: 2 is an ellipse, 8 nearly a rectangle.
        points: K.

    Returns:
        float64 (K, 3).
    """
    # Half a step of offset puts flat sides, not corners, on the axes.
    angle = (np.arange(points) + 0.5) * (2 * np.pi / points)
    cos, sin = np.cos(angle), np.sin(angle)
    along_u = np.sign(cos) * np.abs(cos) ** (2 / power)
    along_v = np.sign(sin) * np.abs(sin) ** (2 / power)
    return (
        np.asarray(center, float)
        + along_u[:, None] * np.asarray(half_u, float)
        + along_v[:, None] * np.asarray(half_v, float)
    )


def loft(rings: Sequence[Ring]) -> Part:
    """Stretch a skin over R rings of K points and close both ends with fans.

    Args:
        rings: R >= 2 arrays (K, 3) with corresponding points.

    Returns:
        A closed mesh with consistent winding.
    """
    num_rings, num_points = len(rings), len(rings[0])
    first = np.arange(num_points)
    second = (first + 1) % num_points
    faces = []
    for r in range(num_rings - 1):
        a, b = r * num_points, (r + 1) * num_points
        faces += [np.stack([a + first, a + second, b + second], 1)]
        faces += [np.stack([a + first, b + second, b + first], 1)]
    start, end = num_rings * num_points, num_rings * num_points + 1
    last = (num_rings - 1) * num_points
    faces += [np.stack([np.full(num_points, start), second, first], 1)]
    faces += [np.stack([np.full(num_points, end), last + first, last + second], 1)]
    vertices = np.concatenate([*rings, [rings[0].mean(0)], [rings[-1].mean(0)]])
    return Part(vertices, np.concatenate(faces))


def box(center: ArrayLike, extents: ArrayLike) -> Part:
    """Return an upright box.

    Args:
        center: (3,).
        extents: (3,) full lengths along x, y, z.
    """
    return Part(_CORNERS * np.asarray(extents, float) + np.asarray(center, float), _SIDES)


def slab(start: ArrayLike, end: ArrayLike, width: float, thickness: float) -> Part:
    """Return a bar of rectangular section from one point to another, wide along x.

    Args:
        start: (3,) middle of one end.
        end: (3,) middle of the other.
        width: along x, or along z where the bar runs along x.
        thickness: across both.
    """
    start, end = np.asarray(start, float), np.asarray(end, float)
    axis = (end - start) / np.linalg.norm(end - start)
    side = np.array([0.0, 0, 1]) if abs(axis[0]) > 0.9 else np.array([1.0, 0, 0])
    side = side - axis * (axis @ side)
    side /= np.linalg.norm(side)
    over = np.cross(axis, side) * thickness / 2
    side = side * width / 2
    corners = np.array([side + over, over - side, -side - over, side - over])
    return loft([start + corners, end + corners])


def cushion(center: ArrayLike, extents: ArrayLike, rounding: float = 0.3) -> Part:
    """Return a box with soft edges, stacked along its y axis.

    Args:
        center: (3,).
        extents: (3,) full lengths along x, y, z.
        rounding: share of the half height that is rounded off, 0 .. 1.
    """
    center, half = np.asarray(center, float), np.asarray(extents, float) / 2
    inset = rounding * half[1]
    levels = [(-1.0, inset), (-1.0 + rounding, 0.0), (1.0 - rounding, 0.0), (1.0, inset)]
    return loft(
        [
            ring(
                center + np.array([0, level * half[1], 0]),
                [max(half[0] - cut, 0.2 * half[0]), 0, 0],
                [0, 0, -max(half[2] - cut, 0.2 * half[2])],
                power=8,
            )
            for level, cut in levels
        ]
    )


def tube(
    start: ArrayLike,
    end: ArrayLike,
    radius: float,
    end_radius: float | None = None,
    points: int = 10,
) -> Part:
    """Return a cylinder, or a cone where the radii differ.

    Args:
        start: (3,) centre of one end.
        end: (3,) centre of the other.
        radius: at the start.
        end_radius: at the end; the same if None.
        points: K.
    """
    start, end = np.asarray(start, float), np.asarray(end, float)
    axis = (end - start) / np.linalg.norm(end - start)
    helper = np.eye(3)[np.argmin(np.abs(axis))]
    u = np.cross(axis, helper)
    u /= np.linalg.norm(u)
    v = np.cross(axis, u)
    end_radius = radius if end_radius is None else end_radius
    return loft(
        [
            ring(start, u * radius, v * radius, points=points),
            ring(end, u * end_radius, v * end_radius, points=points),
        ]
    )


def path(points: Sequence[ArrayLike], radius: float) -> Parts:
    """Return tubes that join points one after another."""
    return [tube(a, b, radius) for a, b in pairwise(points)]


def ellipsoid(center: ArrayLike, half_axes: ArrayLike, points: int = 14) -> Part:
    """Return an ellipsoid.

    Args:
        center: (3,).
        half_axes: (3,) along x, y, z.
        points: K.
    """
    center, (a, b, c) = np.asarray(center, float), np.asarray(half_axes, float)
    angles = np.linspace(-np.pi / 2, np.pi / 2, points // 2 + 2)[1:-1]
    return loft(
        [
            ring(
                center + np.array([0, b * np.sin(angle), 0]),
                [a * np.cos(angle), 0, 0],
                [0, 0, -c * np.cos(angle)],
                points=points,
            )
            for angle in angles
        ]
    )


def turned(profile: Iterable[tuple[float, float]], x: float = 0, z: float = 0) -> Part:
    """Return a solid turned on a lathe around a vertical axis.

    Args:
        profile: (radius, y) pairs from one end to the other.
        x: place of the axis.
        z: place of the axis.
    """
    return loft([ring([x, y, z], [r, 0, 0], [0, 0, -r]) for r, y in profile])


def wheel(center: ArrayLike, radius: float, width: float) -> Part:
    """Return a disc with rounded shoulders whose axis is x.

    Args:
        center: (3,).
        radius: outer radius.
        width: along x.
    """
    x, y, z = np.asarray(center, float)
    stations = [(-0.5, 0.55), (-0.5, 0.85), (-0.3, 1.0), (0.3, 1.0), (0.5, 0.85), (0.5, 0.55)]
    # The hub lies deeper than the tyre, which gives the disc a rim that catches the light.
    stations = [(-0.25, 0.5), *stations, (0.25, 0.5)]
    return loft(
        [
            ring([x + width * at, y, z], [0, radius * share, 0], [0, 0, radius * share])
            for at, share in stations
        ]
    )


def tyre(center: ArrayLike, radius: float, thickness: float) -> Part:
    """Return a torus whose axis is x.

    Args:
        center: (3,).
        radius: outer radius.
        thickness: of the tyre.
    """
    around, across = 28, 8
    a = np.arange(around) * (2 * np.pi / around)
    b = np.arange(across) * (2 * np.pi / across)
    far = radius - thickness / 2 + thickness / 2 * np.cos(b)
    points = np.stack(
        [
            np.broadcast_to(thickness / 2 * np.sin(b), (around, across)),
            np.sin(a)[:, None] * far,
            np.cos(a)[:, None] * far,
        ],
        axis=-1,
    )
    i, j = (grid.ravel() for grid in np.mgrid[:around, :across])
    here, right = i * across + j, i * across + (j + 1) % across
    down = (i + 1) % around * across + j
    both = (i + 1) % around * across + (j + 1) % across
    faces = np.concatenate([np.stack([here, right, both], 1), np.stack([here, both, down], 1)])
    return Part(points.reshape(-1, 3) + np.asarray(center, float), faces)


def blade(
    root: ArrayLike,
    tip: ArrayLike,
    chords: tuple[float, float],
    thickness: float,
    normal: ArrayLike,
) -> Part:
    """Return a wing or fin: flat ellipses along z, from root to tip.

    Args:
        root: (3,) middle of the root's chord.
        tip: (3,) middle of the tip's chord.
        chords: lengths along z at root and tip.
        thickness: at the root, relative to the chord.
        normal: (3,) direction of the thickness, of length 1.
    """
    normal = np.asarray(normal, float)
    return loft(
        [
            ring(center, [0, 0, chord / 2], normal * chord * thickness / 2)
            for center, chord in zip((root, tip), chords, strict=True)
        ]
    )


def along_z(stations: Iterable[tuple[float, float, float, float]], power: float = 2.0) -> Part:
    """Return a body skinned over upright sections.

    Args:
        stations: (z, width, bottom y, top y) of each section, from front to back.
        power: of the superellipses; 8 is nearly a rectangle.
    """
    return loft(
        [
            ring(
                [0, (bottom + top) / 2, z],
                [width / 2, 0, 0],
                [0, (top - bottom) / 2, 0],
                power,
            )
            for z, width, bottom, top in stations
        ]
    )


def mirrored(*parts: Part) -> Parts:
    """Return parts and their mirror images in the plane x = 0."""
    twins = [Part(part.vertices * [-1, 1, 1], part.faces[:, ::-1]) for part in parts]
    return [*parts, *twins]
