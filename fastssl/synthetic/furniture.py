"""Builders of the six furniture classes.

Each takes the proportions of one model and returns its parts. The spans are chosen so that models
of a class differ plainly while the class stays plain at 64 pixels.
"""

from __future__ import annotations

import numpy as np
import trimesh

from .draws import Proportions
from .solids import box, cushion, ellipsoid, mirrored, path, tube, turned

Parts = list[trimesh.Trimesh]


def _legs(half_x: float, half_z: float, top: float, thick: float, splay: float) -> Parts:
    """Return four round legs whose feet stand ``splay`` further out than their tops."""
    legs = []
    for z in (-half_z, half_z):
        foot = [half_x + splay, 0, z + np.sign(z) * splay]
        legs += mirrored(tube(foot, [half_x, top, z], 0.75 * thick, thick))
    return legs


def build_bench(p: Proportions) -> Parts:
    """Build a park bench: slats on two end frames, with or without a back."""
    length, depth, seat = p.between(1.5, 2.2), p.between(0.42, 0.6), p.between(0.42, 0.52)
    slats, thick = p.count(3, 5), p.between(0.04, 0.07)
    has_back, has_arms, has_panels = p.chance(0.65), p.chance(0.5), p.chance(0.4)
    pitch = depth / slats
    parts = [
        box([0, seat, -depth / 2 + (i + 0.5) * pitch], [length, thick, 0.72 * pitch])
        for i in range(slats)
    ]
    end = length / 2 - p.between(0.08, 0.22)
    if has_panels:
        parts += mirrored(box([end, seat / 2, 0], [0.09, seat, 0.85 * depth]))
    else:
        for z in (-0.38 * depth, 0.38 * depth):
            parts += mirrored(box([end, seat / 2, z], [0.08, seat, 0.08]))
        parts += mirrored(box([end, seat - thick, 0], [0.08, 0.06, 0.84 * depth]))
        parts += [box([0, 0.35 * seat, 0], [2 * end, 0.05, 0.05])]
    if has_back:
        height, lean = p.between(0.4, 0.55), p.between(0.05, 0.16)
        rows = p.count(2, 4)
        foot = np.array([end, seat, depth / 2])
        top = foot + np.array([0, height, lean])
        parts += mirrored(tube(foot, top, 0.04))
        for i in range(rows):
            share = 0.3 + 0.7 * i / (rows - 1)
            at = foot + share * (top - foot)
            parts += [box([0, at[1] - 0.04, at[2]], [length, 0.55 * height / rows, 0.05])]
    if has_back and has_arms:
        rest = seat + 0.24
        parts += mirrored(box([end, rest, 0], [0.08, 0.05, depth]))
        parts += mirrored(box([end, seat + 0.12, -0.42 * depth], [0.06, 0.24, 0.06]))
    return parts


def build_cabinet(p: Proportions) -> Parts:
    """Build a chest: drawers and doors that stand out from a body, on a plinth or on legs."""
    width, depth = p.between(0.7, 1.5), p.between(0.4, 0.6)
    height = p.between(0.7, 1.9)
    columns, rows = p.count(1, 3), p.count(1, 4)
    lift = p.between(0.06, 0.22)
    on_legs, has_top, has_shelf = p.chance(0.5), p.chance(0.6), p.chance(0.35)
    parts = [box([0, lift + height / 2, 0], [width, height, depth])]
    if on_legs:
        parts += _legs(0.42 * width, 0.4 * depth, lift, 0.035, 0.0)
    else:
        parts += [box([0, lift / 2, 0], [0.9 * width, lift, 0.85 * depth])]
    if has_top:
        parts += [box([0, lift + height + 0.025, 0], [1.06 * width, 0.05, 1.1 * depth])]
    front, cell_x, cell_y = -depth / 2, width / columns, height / rows
    for column in range(columns):
        for row in range(rows):
            x = -width / 2 + (column + 0.5) * cell_x
            y = lift + (row + 0.5) * cell_y
            parts += [box([x, y, front - 0.02], [0.88 * cell_x, 0.88 * cell_y, 0.05])]
            grip = [0.3 * cell_x, 0.03, 0.05] if cell_y < cell_x else [0.03, 0.2 * cell_y, 0.05]
            shift = 0 if cell_y < cell_x else 0.3 * cell_x
            parts += [box([x + shift, y, front - 0.07], grip)]
    # The side looks at the camera; without a frame it would be a bare wall.
    for z in (-0.42 * depth, 0.42 * depth):
        parts += mirrored(box([width / 2, lift + height / 2, z], [0.05, height, 0.15 * depth]))
    for y in (0.04, 0.96):
        parts += mirrored(box([width / 2, lift + y * height, 0], [0.05, 0.08, depth]))
    if has_shelf:
        shelf = 0.35 * height
        parts += mirrored(box([0.47 * width, lift + height + shelf / 2, 0], [0.05, shelf, depth]))
        parts += [box([0, lift + height + shelf, 0], [width, 0.05, depth])]
        parts += [box([0, lift + height + shelf / 2, 0.45 * depth], [width, shelf, 0.04])]
    return parts


def _chair_base(p: Proportions, half: float, seat: float) -> Parts:
    """Return what a chair stands on: four legs, or a column with a five-pointed star."""
    if p.chance(0.75):
        thick, splay = p.between(0.025, 0.045), p.between(0.0, 0.07)
        parts = _legs(half - thick, half - thick, seat, thick, splay)
        if p.chance(0.5):
            y = 0.4 * seat
            parts += mirrored(tube([half - thick, y, -half], [half - thick, y, half], 0.018))
        return parts
    parts = [tube([0, 0.06, 0], [0, seat, 0], 0.04)]
    for i in range(5):
        angle = 2 * np.pi * i / 5
        end = [1.15 * half * np.cos(angle), 0.05, 1.15 * half * np.sin(angle)]
        parts += [tube([0, 0.1, 0], end, 0.035, 0.02), ellipsoid(end, [0.04, 0.04, 0.04])]
    return parts


def build_chair(p: Proportions) -> Parts:
    """Build a chair: seat, tall back of panel, slats or rungs, with or without arms."""
    half, seat = p.between(0.2, 0.25), p.between(0.42, 0.5)
    height, lean = p.between(0.42, 0.62), p.between(0.02, 0.12)
    style, thick = p.count(0, 2), p.between(0.04, 0.08)
    has_arms = p.chance(0.35)
    parts = _chair_base(p, half, seat)
    parts += [cushion([0, seat + thick / 2, 0], [2 * half, thick, 2 * half], 0.4)]
    foot, top = (
        np.array([half - 0.03, seat, half - 0.03]),
        np.array([half - 0.03, seat + height, 0]),
    )
    top[2] = foot[2] + lean
    parts += mirrored(tube(foot, top, 0.026))
    middle, bar = (foot + top) / 2, 2 * half - 0.03
    if style == 0:
        parts += [box(middle * [0, 1, 1] + [0, 0.06, 0], [bar, 0.72 * height, 0.045])]
    elif style == 1:
        for share in (0.4, 0.68, 0.96):
            at = foot + share * (top - foot)
            parts += [box([0, at[1], at[2]], [bar, 0.16 * height, 0.04])]
    else:
        parts += [box([0, top[1] - 0.04, top[2]], [bar, 0.09, 0.05])]
        for x in (-0.5, 0.0, 0.5):
            parts += [tube([x * bar, seat, foot[2]], [x * bar, top[1], top[2]], 0.02)]
    if has_arms:
        rest = seat + 0.21
        parts += mirrored(box([half, rest, 0.02], [0.05, 0.035, 2 * half]))
        parts += mirrored(tube([half, seat, -half + 0.05], [half, rest, -half + 0.05], 0.02))
    return parts


def _shade(p: Proportions, low: float, x: float = 0.0, size: float = 1.0) -> Parts:
    """Return a lamp shade, a cone open at both ends, whose lower rim is at ``low``."""
    height, wide = size * p.between(0.24, 0.36), size * p.between(0.2, 0.3)
    narrow = wide * p.between(0.35, 0.8)
    top = low + height
    # The wall goes up outside and comes back inside, so that the shade is hollow.
    wall = [(wide, low), (narrow, top), (narrow - 0.015, top), (wide - 0.015, low)]
    return [turned(wall, x)]


def build_lamp(p: Proportions) -> Parts:
    """Build a lamp: on a table, on the floor, on a jointed arm, or hanging."""
    style = p.count(0, 3)
    if style == 0:
        stem, belly = p.between(0.3, 0.5), p.between(0.05, 0.14)
        foot = p.between(0.11, 0.18)
        body = [(foot, 0), (foot, 0.03), (0.03, 0.06), (belly, 0.5 * stem), (0.025, stem)]
        return [turned([*body, (0.015, stem + 0.2)]), *_shade(p, stem + 0.02)]
    if style == 1:
        stem, foot = p.between(0.85, 1.25), p.between(0.16, 0.24)
        pole = turned([(foot, 0), (foot, 0.035), (0.03, 0.06), (0.022, stem + 0.2)])
        return [pole, *_shade(p, stem)]
    if style == 2:
        reach, height = p.between(0.3, 0.5), p.between(0.5, 0.75)
        joint, head = [-0.25 * reach, 0.6 * height, 0], [reach, height, 0]
        foot = p.between(0.14, 0.2)
        parts = [turned([(foot, 0), (foot, 0.04), (0.03, 0.06)])]
        parts += path([[0, 0.04, 0], joint, head], 0.022)
        parts += [ellipsoid(joint, [0.04, 0.04, 0.04])]
        wide = p.between(0.12, 0.18)
        tip = [reach + 0.2, height - 0.14, 0]
        return [*parts, tube(head, tip, 0.05, wide, points=24)]
    drop = p.between(0.35, 0.75)
    rose = turned([(0.08, drop + 0.35), (0.08, drop + 0.32), (0.014, drop + 0.3), (0.014, 0.25)])
    bulb = ellipsoid([0, 0.04, 0], [0.07, 0.07, 0.07])
    return [rose, bulb, *_shade(p, 0.0, size=1.2)]


def build_sofa(p: Proportions) -> Parts:
    """Build a sofa: one cushion a seat, a back and two arms on a low base."""
    seats = p.count(2, 3)
    width = p.between(0.55, 0.68) * seats
    depth, seat = p.between(0.75, 0.95), p.between(0.22, 0.3)
    arm, rest = p.between(0.13, 0.24), p.between(0.2, 0.34)
    back, lift = p.between(0.38, 0.55), p.between(0.05, 0.13)
    plump, is_corner = p.between(0.3, 0.6), p.chance(0.2)
    full = width + 2 * arm
    parts = [box([0, lift + seat / 2, 0], [full, seat, depth])]
    parts += _legs(0.46 * full, 0.42 * depth, lift, 0.04, 0.0)
    top = lift + seat
    for i in range(seats):
        x = -width / 2 + (i + 0.5) * width / seats
        size = 0.97 * width / seats
        parts += [cushion([x, top + 0.08, -0.08], [size, 0.18, 0.8 * depth], plump)]
        parts += [cushion([x, top + 0.14 + back / 2, 0.24 * depth], [size, 0.8 * back, 0.2], plump)]
    parts += [cushion([0, top + back / 2, 0.42 * depth], [full, back, 0.16 * depth], 0.25)]
    low = cushion([(width + arm) / 2, top + rest / 2, 0], [arm, rest, depth], plump)
    parts += mirrored(low)
    if is_corner:
        x = -width / 2 + width / (2 * seats)
        parts += [box([x, lift + seat / 2, -0.8 * depth], [width / seats, seat, 0.9 * depth])]
        parts += [
            cushion([x, top + 0.08, -0.85 * depth], [width / seats, 0.18, 0.75 * depth], plump)
        ]
    return parts


def build_table(p: Proportions) -> Parts:
    """Build a table: a square, long or round top on legs, on end panels or on a column."""
    length, depth, height = p.between(1.1, 1.9), p.between(0.7, 1.0), p.between(0.5, 0.78)
    thick, is_round, base = p.between(0.05, 0.1), p.chance(0.35), p.count(0, 3)
    leg, splay = p.between(0.03, 0.06), p.between(0.0, 0.1)
    if is_round:
        radius = 0.5 * (length + depth) / 2
        top = turned([(radius, height), (radius, height + thick)])
        half_x = half_z = 0.62 * radius
    else:
        top = box([0, height + thick / 2, 0], [length, thick, depth])
        half_x, half_z = 0.44 * length, 0.4 * depth
    if base <= 1:
        parts = _legs(half_x, half_z, height, leg, splay)
        if not is_round:
            parts += [
                box([0, height - 0.05, z], [2 * half_x, 0.09, 0.04]) for z in (-half_z, half_z)
            ]
            parts += mirrored(box([half_x, height - 0.05, 0], [0.04, 0.09, 2 * half_z]))
    elif base == 2 or is_round:
        foot = 0.55 * min(half_x, half_z) + 0.1
        neck = p.between(0.05, 0.1)
        column = [(foot, 0), (foot, 0.04), (neck, 0.1), (neck, height - 0.1), (foot, height)]
        parts = [turned(column)]
    else:
        parts = mirrored(box([half_x, height / 2, 0], [0.07, height, 1.7 * half_z]))
        parts += [box([0, 0.3 * height, 0], [2 * half_x, 0.12, 0.05])]
    return [top, *parts]
