"""Procedural textures: thirteen families of patterns, each texture a function of its number alone.

A texture is drawn on the unit square. A family turns coordinates into a field of 0 .. 1, which a
palette of three colours turns into a picture; coordinates are turned, bent and roughened first, so
that two textures of one family differ in more than their colours.

Shape legend: S side in pixels, K side of a lattice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .draws import Proportions

NUM_TEXTURES = 5640
"""Textures to draw from: as many as the study's photographs."""
LARGEST_SIDE_PX = 128
"""Side of the finest texture: an object of a 128 px picture has fewer pixels across."""

Field = NDArray[np.floating]


@cache
def _grid(side: int) -> tuple[Field, Field]:
    steps = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    x, y = np.meshgrid(steps, steps)
    return x, y


@cache
def _upsampling(lattice: int, side: int) -> Field:
    """Return the matrix (S, K) that interpolates K periodic values with smooth steps."""
    place = (np.arange(side) + 0.5) / side * lattice
    left = np.floor(place).astype(int)
    share = place - left
    share = share * share * (3 - 2 * share)
    matrix = np.zeros((side, lattice), np.float32)
    np.add.at(matrix, (np.arange(side), left % lattice), 1 - share)
    np.add.at(matrix, (np.arange(side), (left + 1) % lattice), share)
    return matrix


def _noise(p: Proportions, lattice: int, octaves: int, side: int) -> Field:
    """Return smooth noise of 0 .. 1, each octave twice as fine and half as strong."""
    total, weight = np.zeros((side, side), np.float32), 0.0
    for octave in range(octaves):
        size = lattice << octave
        values = p.units(size * size).reshape(size, size)
        matrix = _upsampling(size, side)
        total += np.float32(0.5**octave) * (matrix @ values @ matrix.T)
        weight += 0.5**octave
    return total / np.float32(weight)


def _band(field: Field, duty: float, softness: float) -> Field:
    """Return 1 where the fraction of a field is near a half, 0 elsewhere, with soft edges."""
    near = np.abs(field - np.floor(field) - np.float32(0.5))
    return np.clip((np.float32(duty / 2) - near) / np.float32(softness) + np.float32(0.5), 0, 1)


def _stripes(p: Proportions, x: Field, y: Field) -> Field:
    bend = p.between(0.0, 0.12) * p.count(0, 1)
    wave = np.float32(bend) * np.sin(np.float32(2 * math.pi * p.count(1, 3)) * y)
    return _band(p.count(3, 14) * (x + wave), p.between(0.25, 0.75), p.between(0.05, 0.4))


def _checks(p: Proportions, x: Field, y: Field) -> Field:
    columns, ratio = p.count(3, 10), p.between(0.5, 2.0)
    cells = np.floor(columns * x) + np.floor(columns * np.float32(ratio) * y)
    return (cells % 2).astype(np.float32)


def _dots(p: Proportions, x: Field, y: Field) -> Field:
    columns, shift = p.count(3, 11), p.choice(0.0, 0.5)
    row = np.floor(columns * y)
    u = columns * x + np.float32(shift) * (row % 2)
    distance = np.hypot(u - np.floor(u) - 0.5, columns * y - row - np.float32(0.5))
    radius, hole = p.between(0.18, 0.46), p.choice(0.0, 0.0, 0.5)
    inside = np.clip((np.float32(radius) - distance) * 12 + np.float32(0.5), 0, 1)
    ring = np.clip((np.float32(radius * hole) - distance) * 12 + np.float32(0.5), 0, 1)
    return (inside - ring * (hole > 0)).astype(np.float32)


def _bricks(p: Proportions, x: Field, y: Field) -> Field:
    rows, columns, joint = p.count(5, 14), p.count(2, 6), p.between(0.04, 0.16)
    row = np.floor(rows * y)
    u = columns * x + np.float32(p.choice(0.5, 0.33, 0.25)) * row
    tone = p.units(256)[((row * 7 + np.floor(u) * 13) % 256).astype(int)]
    near = np.minimum(_edge(u) * np.float32(rows / columns), _edge(rows * y))
    return np.where(near < joint, 0, np.float32(0.55) + np.float32(0.45) * tone)


def _edge(field: Field) -> Field:
    """Return the distance to the nearest whole number."""
    return np.abs(field - np.round(field))


def _hexagons(p: Proportions, x: Field, y: Field) -> Field:
    scale = np.float32(p.count(3, 9))
    # Two lattices of points, shifted by half a cell; the nearer one is the cell's middle.
    tall = np.float32(math.sqrt(3))
    best = np.full(x.shape, 9.0, np.float32)
    tone = np.zeros(x.shape, np.float32)
    tones = p.units(256)
    for shift in (0.0, 0.5):
        u, v = scale * x - np.float32(shift), scale * y / tall - np.float32(shift)
        du, dv = u - np.round(u), (v - np.round(v)) * tall
        size = np.maximum(np.abs(du), np.abs(du) / 2 + np.abs(dv) * tall / 2)
        number = (np.round(u) * 5 + np.round(v) * 17 + 128 * shift) % 256
        is_nearer = size < best
        best = np.where(is_nearer, size, best)
        tone = np.where(is_nearer, tones[number.astype(int)], tone)
    if p.chance(0.5):
        return tone
    return np.where(best > 0.5 - p.between(0.04, 0.12), 0, np.float32(0.5) + tone / 2)


def _weave(p: Proportions, x: Field, y: Field) -> Field:
    scale, gap = p.count(4, 12), p.between(0.02, 0.1)
    u, v = scale * x, scale * y
    is_over = (np.floor(u) + np.floor(v)) % 2 == 0
    across, along = np.where(is_over, _edge(u), _edge(v)), np.where(is_over, _edge(v), _edge(u))
    shade = np.float32(0.35) + np.float32(0.65) * np.sqrt(np.clip(2 * along, 0, 1))
    dim = np.float32(p.between(0.35, 1.0))
    return np.where(across < gap, 0, shade * np.where(is_over, 1, dim)).astype(np.float32)


def _scales(p: Proportions, x: Field, y: Field) -> Field:
    columns, rows = p.count(4, 10), p.count(5, 12)
    shade, covered = np.zeros(x.shape, np.float32), np.zeros(x.shape, bool)
    for layer in (0, 1, 2):  # a scale hangs over the row below it
        v = rows * y + layer
        row = np.floor(v)
        u = columns * x + np.float32(0.5) * (row % 2)
        du, dv = 2 * (u - np.floor(u)) - 1, (v - row) / 2 + np.float32(0.5 * layer)
        inside = (du * du + dv * dv < 1) & ~covered
        shade = np.where(inside, np.float32(1) - np.hypot(du, dv) * np.float32(0.85), shade)
        covered |= inside
    return shade


def _marble(p: Proportions, x: Field, y: Field) -> Field:
    bend = np.float32(p.between(1.0, 4.0)) * _noise(p, p.count(2, 4), 4, len(x))
    veins = np.abs(np.sin(np.float32(math.pi * p.count(2, 5)) * (x + y / 2 + bend)))
    return veins ** np.float32(p.between(0.35, 1.5))


def _wood(p: Proportions, x: Field, y: Field) -> Field:
    stretch = np.float32(p.between(0.1, 0.3))
    rings = np.hypot(x - np.float32(p.between(-0.5, 1.5)), stretch * (y - p.between(0, 1)))
    rings = rings * p.count(8, 20) + np.float32(p.between(0.5, 1.5)) * _noise(p, 3, 3, len(x))
    return (rings - np.floor(rings)) ** np.float32(p.between(0.6, 2.0))


def _clouds(p: Proportions, x: Field, y: Field) -> Field:
    noise = _noise(p, p.count(2, 8), p.count(1, 3), max(len(x), len(y)))
    return np.clip((noise - np.float32(0.5)) * np.float32(p.between(1.5, 6.0)) + 0.5, 0, 1)


def _cells(p: Proportions, x: Field, y: Field) -> Field:
    num = p.count(3, 7)
    jitter, tones = p.units(2 * num * num).reshape(2, num, num), p.units(num * num)
    first = np.full(x.shape, 9.0, np.float32)
    second, tone = first.copy(), np.zeros(x.shape, np.float32)
    column, row = np.floor(num * x).astype(int), np.floor(num * y).astype(int)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            i, j = (row + down) % num, (column + right) % num
            dx = column + right + jitter[0, i, j] - num * x
            dy = row + down + jitter[1, i, j] - num * y
            distance = dx * dx + dy * dy
            second = np.minimum(np.maximum(first, distance), second)
            tone = np.where(distance < first, tones[i * num + j], tone)
            first = np.minimum(first, distance)
    style = p.count(0, 2)
    if style == 0:
        return np.clip(np.sqrt(first), 0, 1)
    near = np.sqrt(second) - np.sqrt(first) < np.float32(p.between(0.05, 0.15))
    return tone if style == 1 else np.where(near, 0, np.float32(0.4) + np.float32(0.6) * tone)


def _zigzag(p: Proportions, x: Field, y: Field) -> Field:
    teeth, height = p.count(2, 7), p.between(0.05, 0.25)
    wave = 2 * _edge(teeth * x) * np.float32(height)
    return _band(p.count(3, 10) * (y + wave), p.between(0.3, 0.7), p.between(0.05, 0.3))


def _plaid(p: Proportions, x: Field, y: Field) -> Field:
    total = np.zeros(x.shape, np.float32)
    for field in (x, y):
        for _ in range(2):
            total += _band(p.count(2, 8) * field + p.between(0, 1), p.between(0.1, 0.6), 0.05)
    return total / 4


_FAMILIES: dict[str, Callable[[Proportions, Field, Field], Field]] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "bricks": _bricks,
    "hexagons": _hexagons,
    "weave": _weave,
    "scales": _scales,
    "marble": _marble,
    "wood": _wood,
    "clouds": _clouds,
    "cells": _cells,
    "zigzag": _zigzag,
    "plaid": _plaid,
}

FAMILIES = tuple(_FAMILIES)
"""Names of the families; a texture's number modulo their number is its family."""


def _palette(p: Proportions) -> Field:
    """Return three colours (3, 3) of 0 .. 1; the ends differ plainly in brightness."""
    colors: Field = p.units(9).reshape(3, 3)
    weights = np.array([0.3, 0.59, 0.11], np.float32)
    # Most materials are less colourful than uniform colours.
    grey = (colors @ weights)[:, None]
    colors = grey + np.float32(p.between(0.15, 1.0)) * (colors - grey)
    luma = colors @ weights
    if abs(luma[2] - luma[0]) < 0.3:
        colors[0 if luma[0] <= luma[2] else 2] *= np.float32(0.35)
    return colors


def draw_texture(number: int, side: int) -> NDArray[np.uint8]:
    """Draw a procedural texture.

    Args:
        number: from 0.
        side: S.

    Returns:
        uint8 (S, S, 3), sRGB.
    """
    p = Proportions(Proportions.TEXTURE, number)
    x, y = _grid(side)
    angle = p.choice(0.0, 0.5, p.between(0, 2), p.between(0, 2)) * math.pi
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    u, v = cos * x - sin * y, sin * x + cos * y
    if p.chance(0.4):
        bend = np.float32(p.between(0.02, 0.15))
        u = u + bend * _noise(p, 3, 2, side)
        v = v + bend * _noise(p, 3, 2, side)
    field = _FAMILIES[FAMILIES[number % len(FAMILIES)]](p, u, v)
    rough = np.float32(p.between(0.0, 0.35))
    field = field * (1 - rough) + rough * _noise(p, p.choice(6, 9, 12), 2, side)
    low, middle, high = _palette(p)
    # From the first colour by the second to the third.
    toward, onward = np.clip(2 * field, 0, 1)[..., None], np.clip(2 * field - 1, 0, 1)[..., None]
    picture = low + toward * (middle - low) + onward * (high - middle)
    return np.round(255 * picture).astype(np.uint8)
