"""Builders of tables, cabinets and lamps; as those of ``seats``, structure first."""

from __future__ import annotations

import numpy as np

from .draws import Proportions
from .seats import legs
from .solids import (
    Part,
    Parts,
    box,
    ellipsoid,
    loft,
    mirrored,
    path,
    ring,
    slab,
    tube,
    turned,
)

# --- Tables ---------------------------------------------------------------------------------------


def _flat(power: float, half_x: float, half_z: float, low: float, high: float) -> Part:
    """Return a horizontal board in the shape of a superellipse."""
    return loft([ring([0, y, 0], [half_x, 0, 0], [0, 0, -half_z], power) for y in (low, high)])


def _table_top(p: Proportions, kind: str, half_x: float, half_z: float, height: float) -> Parts:
    thick = p.between(0.03, 0.09)
    if kind == "round":
        return [_flat(2.0, half_x, half_x, height, height + thick)]
    if kind == "oval":
        return [_flat(p.between(2.0, 3.0), half_x, half_z, height, height + thick)]
    if kind == "eight":
        levels = (height, height + thick)
        sides = [ring([0, y, 0], [half_x, 0, 0], [0, 0, -half_z], 2, 8) for y in levels]
        return [loft(sides)]
    parts = [box([0, height + thick / 2, 0], [2 * half_x, thick, 2 * half_z])]
    if p.chance(0.2):  # leaves that hang down at both ends
        drop = p.between(0.3, 0.6) * height
        parts += mirrored(box([half_x - 0.015, height - drop / 2, 0], [0.03, drop, 1.9 * half_z]))
    return parts


def _column(p: Proportions, x: float, height: float, foot: float) -> Parts:
    """Return a column on a disc, or on three or four feet."""
    neck, count = p.between(0.04, 0.1), p.choice(0, 0, 3, 4)
    belly, at = p.between(1.0, 2.2) * neck, p.between(0.3, 0.6) * height
    profile = [(neck, 0.08), (belly, at), (neck, height - 0.08), (0.5 * foot, height)]
    if not count:
        return [turned([(foot, 0), (foot, 0.04), *profile], x)]
    parts = [turned(profile, x)]
    for i in range(count):
        angle = 2 * np.pi * i / count + 0.5
        end = [x + 1.2 * foot * np.cos(angle), 0.02, 1.2 * foot * np.sin(angle)]
        parts += [tube([x, 0.22 * height, 0], end, 0.05, 0.03)]
    return parts


def build_table(p: Proportions) -> Parts:
    """Build a table: a top of any shape on legs, panels, trestles, columns, or a desk's drawers."""
    half_x, half_z = p.between(0.45, 1.0), p.between(0.3, 0.52)
    height = p.between(0.42, 0.8)
    kind = p.choice("long", "long", "long", "square", "round", "oval", "eight")
    if kind in ("square", "eight", "round"):
        half_x = half_z = p.between(0.42, 0.6)
    parts = _table_top(p, kind, half_x, half_z, height)
    is_straight = kind in ("long", "square")
    inset = p.between(0.8, 0.95) if is_straight else 0.66
    x, z, thick = inset * half_x, inset * half_z, p.between(0.025, 0.055)
    base = p.choice("legs", "legs", "legs", "column", "trestle", "panels", "desk", "frame")
    if base == "column" or (not is_straight and base in ("panels", "desk")):
        foot = 0.6 * min(half_x, half_z)
        places = [-0.5 * half_x, 0.5 * half_x] if half_x > 0.75 else [0.0]
        return parts + [part for at in places for part in _column(p, at, height, foot)]
    if base == "trestle":
        for side in (-z, z):
            parts += mirrored(slab([x, 0, side], [x, height, -0.8 * side], 1.6 * thick, 0.05))
        return [*parts, box([0, height / 2, 0], [2 * x, 0.06, 0.06])]
    if base == "panels":
        parts += mirrored(box([x, height / 2, 0], [2 * thick, height, 1.9 * z]))
        return [*parts, box([0, p.between(0.25, 0.9) * height, 0.3 * z], [2 * x, 0.12, 0.04])]
    if base == "desk":
        wide, rows = p.between(0.3, 0.5) * half_x, p.count(2, 4)
        block = [box([x - wide / 2, height / 2 + 0.03, 0], [wide, height - 0.06, 1.9 * z])]
        for row in range(rows):
            y = 0.06 + (row + 0.5) * (height - 0.08) / rows
            face = [0.88 * wide, 0.8 * height / rows, 0.04]
            block += [box([x - wide / 2, y, -0.96 * z], face)]
            block += [box([x - wide / 2, y, -0.96 * z - 0.04], [0.3 * wide, 0.03, 0.04])]
        if p.chance(0.5):
            return parts + mirrored(*block)
        return [*parts, *block, box([-x, height / 2, 0], [0.05, height, 1.9 * z])]
    parts += legs(p, x, z, height, thick, p.choice(0.0, p.between(0.02, 0.12)))
    if is_straight and p.chance(0.6):
        deep = p.between(0.06, 0.16)
        parts += [box([0, height - deep / 2, side], [2 * x, deep, 0.03]) for side in (-z, z)]
        parts += mirrored(box([x, height - deep / 2, 0], [0.03, deep, 2 * z]))
    if p.chance(0.3):
        y = p.between(0.15, 0.4) * height
        parts += [box([0, y, 0], [2 * x, 0.03, 2 * z])]
    if base == "frame":
        parts += [box([0, 0.03, side], [2 * x, 0.05, 0.05]) for side in (-z, z)]
        parts += mirrored(box([x, 0.03, 0], [0.05, 0.05, 2 * z]))
    return parts


# --- Cabinets -------------------------------------------------------------------------------------


def _grip(kind: str, x: float, y: float, front: float, wide: float, tall: float) -> Part:
    """Return the handle of a door or drawer whose face is so large."""
    if kind == "knob":
        return ellipsoid([x, y, front - 0.06], [0.025, 0.025, 0.025], 8)
    across = tall < wide
    return box(
        [x, y, front - 0.06], [0.3 * wide, 0.025, 0.04] if across else [0.03, 0.25 * tall, 0.04]
    )


def _face(
    p: Proportions, kind: str, grip: str, x: float, y: float, wide: float, tall: float, front: float
) -> Parts:
    """Return what fills one field of the front."""
    plate = box([x, y, front - 0.02], [0.9 * wide, 0.9 * tall, 0.05])
    if kind == "drawer":
        return [plate, _grip(grip, x, y, front, wide, tall)]
    if kind == "door":
        parts = [plate, _grip(grip, x + 0.34 * wide, y, front, 0.0, tall)]
        return [*parts, box([x, y, front - 0.045], [0.6 * wide, 0.65 * tall, 0.02])]
    if kind == "doors":
        halves: Parts = []
        for side in (-1, 1):
            at = x + side * 0.235 * wide
            halves += [box([at, y, front - 0.02], [0.43 * wide, 0.9 * tall, 0.05])]
            halves += [_grip(grip, at - side * 0.17 * wide, y, front, 0.0, tall)]
        return halves
    # Open: boards between which one looks in.
    boards = p.count(1, 2)
    return [
        box([x, y - tall / 2 + tall * (i + 1) / (boards + 1), front + 0.1], [wide, 0.03, 0.2])
        for i in range(boards)
    ]


def build_cabinet(p: Proportions) -> Parts:
    """Build a chest, sideboard, wardrobe or bookcase: fields of drawers, doors and shelves."""
    kind = p.choice("chest", "chest", "wardrobe", "sideboard", "bookcase", "tall")
    width, height, columns, rows = {
        "chest": (p.between(0.7, 1.2), p.between(0.7, 1.2), p.count(1, 2), p.count(2, 5)),
        "wardrobe": (p.between(0.9, 1.4), p.between(1.5, 2.0), p.count(1, 2), 1),
        "sideboard": (p.between(1.3, 1.9), p.between(0.55, 0.85), p.count(2, 4), p.count(1, 2)),
        "bookcase": (p.between(0.7, 1.2), p.between(1.3, 2.0), p.count(1, 2), p.count(3, 5)),
        "tall": (p.between(0.45, 0.7), p.between(1.1, 1.8), 1, p.count(2, 6)),
    }[kind]
    depth, lift = p.between(0.35, 0.6), p.between(0.05, 0.22)
    front, wall = -depth / 2, 0.04
    # The carcass is open in front, so that shelves are seen into.
    parts = mirrored(box([width / 2 - wall / 2, lift + height / 2, 0], [wall, height, depth]))
    parts += [box([0, lift + height / 2, depth / 2 - wall / 2], [width, height, wall])]
    parts += [box([0, lift + y, 0], [width, wall, depth]) for y in (wall / 2, height - wall / 2)]
    foot = p.choice("legs", "plinth", "blocks", "none")
    if foot == "plinth":
        parts += [box([0, lift / 2, 0.02], [0.93 * width, lift, 0.88 * depth])]
    elif foot == "none":
        parts += [box([0, lift / 2, 0], [width, lift, depth])]
    else:
        thick = 0.03 if foot == "legs" else 0.06
        parts += legs(p, 0.43 * width, 0.4 * depth, lift, thick, 0.0)
    grip, wide = p.choice("knob", "bar"), width / columns
    base = "open" if kind == "bookcase" else p.choice("drawer", "door", "mixed")
    if kind == "wardrobe":
        base = "doors"
    # Rows of unequal height, the lower ones taller.
    shares = np.array([p.between(0.7, 1.3) for _ in range(rows)])
    edges = lift + height * np.concatenate([[0], np.cumsum(shares / shares.sum())])
    for column in range(columns):
        x = -width / 2 + (column + 0.5) * wide
        if column:
            parts += [box([x - wide / 2, lift + height / 2, 0], [wall, height, depth])]
        for row in range(rows):
            low, high = edges[row], edges[row + 1]
            field = p.choice("drawer", "door", "doors", "open") if base == "mixed" else base
            parts += [box([x, low, 0], [wide, 0.03, depth])]
            parts += _face(p, field, grip, x, (low + high) / 2, wide, high - low, front)
    top = lift + height
    if p.chance(0.5):
        over = p.between(1.03, 1.12)
        parts += [box([0, top + 0.025, 0], [over * width, 0.05, (over + 0.04) * depth])]
    if kind in ("chest", "sideboard") and p.chance(0.25):  # a hutch
        tall = p.between(0.3, 0.8)
        parts += mirrored(box([0.47 * width, top + tall / 2, 0.1], [0.05, tall, 0.6 * depth]))
        parts += [box([0, top + tall / 2, 0.45 * depth], [width, tall, 0.04])]
        parts += [box([0, top + y, 0.1], [width, 0.05, 0.6 * depth]) for y in (tall / 2, tall)]
    # The side looks at the camera; without a frame it would be a bare wall.
    if p.chance(0.6):
        for z in (-0.42 * depth, 0.42 * depth):
            parts += mirrored(box([width / 2, lift + height / 2, z], [0.04, height, 0.13 * depth]))
        for y in (0.04, 0.96):
            parts += mirrored(box([width / 2, lift + y * height, 0], [0.04, 0.07, depth]))
    return parts


# --- Lamps ----------------------------------------------------------------------------------------


def _shade(p: Proportions, low: float, x: float = 0.0, z: float = 0.0, size: float = 1.0) -> Parts:
    """Return a lamp shade, open below, whose lower rim is at ``low``."""
    height, wide = size * p.between(0.2, 0.36), size * p.between(0.17, 0.3)
    kind = p.choice("cone", "cone", "drum", "dome", "globe", "square", "bell")
    top = low + height
    if kind == "globe":
        return [ellipsoid([x, low + wide, z], [wide, wide, wide], 16)]
    narrow = wide * {"cone": p.between(0.3, 0.65), "drum": p.between(0.85, 1.0)}.get(kind, 0.45)
    if kind == "dome":
        steps = np.linspace(0, 1, 5)
        outside = [(wide * (1 - s * s) ** 0.5 + 0.01, low + s * 0.8 * wide) for s in steps]
    elif kind == "bell":
        steps = np.linspace(0, 1, 5)
        outside = [(narrow + (wide - narrow) * (1 - s) ** 2, low + s * height) for s in steps]
    else:
        outside = [(wide, low), (narrow, top)]
    # The wall goes up outside and comes back inside, so that the shade is hollow.
    inside = [(max(radius - 0.015, 0.004), y) for radius, y in outside[::-1]]
    if kind == "square":
        rings = [ring([x, y, z], [r, 0, 0], [0, 0, -r], 12, 4 * 4) for r, y in [*outside, *inside]]
        return [loft(rings)]
    return [turned([*outside, *inside], x, z)]


def _vase(p: Proportions, stem: float) -> Part:
    """Return the turned body of a table lamp, its outline drawn ring by ring."""
    foot, knots = p.between(0.08, 0.18), p.count(2, 5)
    widths = [p.between(0.02, 0.15) for _ in range(knots)]
    heights = np.linspace(0.06, stem, knots + 2)[1:-1]
    profile = [(foot, 0), (foot, 0.03), (0.5 * foot, 0.05)]
    profile += list(zip(widths, heights, strict=True))
    return turned([*profile, (0.02, stem), (0.014, stem + 0.2)])


def _desk_lamp(p: Proportions) -> Parts:
    """Return a lamp on a jointed arm."""
    reach, height, foot = p.between(0.25, 0.5), p.between(0.45, 0.8), p.between(0.12, 0.2)
    joint, head = (
        [-p.between(0.1, 0.4) * reach, p.between(0.4, 0.7) * height, 0],
        [reach, height, 0],
    )
    base = [(foot, 0), (foot, 0.04), (0.03, 0.06)]
    parts = [turned(base) if p.chance(0.7) else box([0, 0.03, 0], [1.7 * foot, 0.06, 1.7 * foot])]
    parts += [*path([[0, 0.04, 0], joint, head], p.between(0.014, 0.025))]
    parts += [ellipsoid(joint, [0.04, 0.04, 0.04], 8)]
    wide, tip = (
        p.between(0.1, 0.18),
        [reach + p.between(0.08, 0.24), height - p.between(0.08, 0.2), 0],
    )
    return [*parts, tube(head, tip, 0.05, wide, points=20)]


def _floor_lamp(p: Proportions, kind: str) -> Parts:
    """Return a lamp on a pole, on three legs, or on a bow."""
    stem, foot = p.between(0.8, 1.35), p.between(0.13, 0.24)
    if kind == "tripod":
        parts: Parts = []
        for i in range(3):
            angle = 2 * np.pi * i / 3 + 0.4
            reach = p.between(0.25, 0.4)
            parts += [tube([reach * np.cos(angle), 0, reach * np.sin(angle)], [0, stem, 0], 0.02)]
        return parts + _shade(p, stem - 0.03, size=p.between(0.9, 1.3))
    disc = turned([(foot, 0), (foot, 0.035), (0.03, 0.06), (0.02, 0.1)])
    if kind == "pole":
        parts = [disc, tube([0, 0.05, 0], [0, stem + 0.2, 0], p.between(0.014, 0.028))]
        if p.chance(0.25):  # lights the ceiling
            bowl = [
                (0.03, stem + 0.2),
                (0.24, stem + 0.36),
                (0.22, stem + 0.36),
                (0.02, stem + 0.22),
            ]
            return [*parts, turned(bowl)]
        return parts + _shade(p, stem)
    reach = p.between(0.4, 0.7)
    bow = [
        [reach * (1 - np.cos(a)) / 2 * 2, 0.05 + stem * np.sin(a) ** 0.8, 0]
        for a in np.linspace(0, 0.62 * np.pi, 8)
    ]
    return [disc, *path(bow, 0.018), *_shade(p, bow[-1][1] - 0.25, bow[-1][0], 0, 0.8)]


def _hanging_lamp(p: Proportions) -> Parts:
    """Return a lamp on a cord, or a chandelier of several arms."""
    drop = p.between(0.3, 0.75)
    rose = turned([(0.08, drop + 0.35), (0.08, drop + 0.32), (0.014, drop + 0.3), (0.014, 0.2)])
    if p.chance(0.5):
        bulb = ellipsoid([0, 0.04, 0], [0.07, 0.07, 0.07], 10)
        return [rose, bulb, *_shade(p, 0.0, size=p.between(1.0, 1.4))]
    count, reach, low = p.count(3, 6), p.between(0.25, 0.42), p.between(0.0, 0.1)
    parts = [rose, ellipsoid([0, 0.18, 0], [0.06, 0.09, 0.06], 10)]
    for i in range(count):
        x, z = reach * np.cos(2 * np.pi * i / count), reach * np.sin(2 * np.pi * i / count)
        parts += path([[0, 0.16, 0], [0.6 * x, 0.02, 0.6 * z], [x, low + 0.06, z]], 0.014)
        cup = [(0.03, low + 0.05), (0.09, low + 0.2), (0.075, low + 0.2), (0.02, low + 0.07)]
        parts += [turned(cup, x, z)]
    return parts


def build_lamp(p: Proportions) -> Parts:
    """Build a lamp: on a table, on the floor, on a jointed arm, or hanging."""
    kind = p.choice("table", "table", "pole", "tripod", "bow", "desk", "hanging")
    if kind == "table":
        stem = p.between(0.25, 0.5)
        return [_vase(p, stem), *_shade(p, stem + 0.02)]
    if kind == "desk":
        return _desk_lamp(p)
    return _hanging_lamp(p) if kind == "hanging" else _floor_lamp(p, kind)
