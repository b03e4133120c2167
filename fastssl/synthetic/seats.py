"""Builders of chairs, benches and sofas.

Each takes the draws of one model and returns its parts. What a model is made of is drawn first,
then its proportions: models of a class differ in structure, while the class stays plain at 64
pixels.
"""

from __future__ import annotations

import numpy as np

from .draws import Proportions
from .solids import (
    Parts,
    box,
    cushion,
    ellipsoid,
    loft,
    mirrored,
    path,
    slab,
    tube,
    turned,
)


def legs(
    p: Proportions, half_x: float, half_z: float, top: float, thick: float, splay: float
) -> Parts:
    """Return four legs, round or square, whose feet stand ``splay`` further out than their tops."""
    is_round, taper = p.chance(0.5), p.between(0.5, 1.0)
    parts: Parts = []
    for z in (-half_z, half_z):
        foot, head = [half_x + splay, 0, z + np.sign(z) * splay], [half_x, top, z]
        if is_round:
            leg = tube(foot, head, taper * thick, thick)
        else:
            leg = slab(foot, head, 2 * thick, 2 * thick)
        parts += mirrored(leg)
    return parts


# --- Chairs ---------------------------------------------------------------------------------------


def _chair_base(p: Proportions, half: float, seat: float) -> Parts:
    """Return what a chair stands on."""
    kind = p.choice("legs", "legs", "legs", "legs", "star", "pedestal", "sled", "rockers", "box")
    thick = p.between(0.02, 0.04)
    if kind == "star":
        count, reach = p.count(4, 5), p.between(1.05, 1.3) * half
        parts = [tube([0, 0.06, 0], [0, seat, 0], 0.04)]
        for i in range(count):
            angle = 2 * np.pi * i / count + 0.3
            end = [reach * np.cos(angle), 0.05, reach * np.sin(angle)]
            parts += [tube([0, 0.1, 0], end, 0.035, 0.02), ellipsoid(end, [0.045] * 3, 8)]
        return parts
    if kind == "pedestal":
        foot, neck = p.between(0.8, 1.1) * half, p.between(0.025, 0.06)
        profile = [(foot, 0), (foot, 0.02), (neck, 0.1), (neck, 0.7 * seat), (0.6 * half, seat)]
        return [turned(profile)]
    if kind == "sled":
        x = half - thick
        corners = [[x, seat, half], [x, thick, half], [x, thick, -half], [x, seat, -half]]
        corners = corners[p.count(0, 1) :]
        return mirrored(*path(corners, thick))
    if kind == "box":
        return mirrored(box([half - 0.02, seat / 2, 0], [0.04, seat, 1.8 * half]))
    parts = legs(p, half - thick, half - thick, seat, thick, p.between(0.0, 0.09))
    if kind == "rockers":
        points = [[half, 0.06 * (z / half) ** 2, 1.7 * z] for z in np.linspace(-half, half, 6)]
        return [*parts, *mirrored(*path(points, 0.02))]
    stretcher, y = p.count(0, 3), p.between(0.2, 0.5) * seat
    if stretcher in (1, 3):
        parts += mirrored(tube([half - thick, y, -half], [half - thick, y, half], 0.015))
    if stretcher == 2:
        parts += mirrored(tube([half - thick, y, -half], [half - thick, y, half], 0.015))
        parts += [tube([-half, y, 0], [half, y, 0], 0.015)]
    if stretcher == 3:
        for z in (-half, half):
            parts += [tube([-half, y, z], [half, y, z], 0.015)]
    return parts


def _chair_back(p: Proportions, half: float, seat: float) -> Parts:
    """Return the back of a chair, on two posts or as a shell."""
    height, lean = p.between(0.38, 0.68), p.between(0.0, 0.14)
    kind = p.choice("panel", "ladder", "spindles", "cross", "padded", "shell", "splat", "hoop")
    z = half - 0.03
    foot, top = np.array([half - 0.03, seat, z]), np.array([half - 0.03, seat + height, z + lean])
    width = 2 * half - 0.03

    def at(share: float, x: float = 0.0) -> np.ndarray:
        return np.array([x, 0, 0]) + (foot + share * (top - foot)) * [0, 1, 1]

    if kind == "shell":
        sections = []
        for share in (0.0, 0.35, 0.7, 1.0):
            y, back = seat + share * height, z + share * lean
            bow = p.between(0.6, 1.0) * half * (1 - 0.35 * share)
            arc = np.linspace(-0.5, 0.5, 8) * np.pi
            outer = np.stack([half * np.sin(arc), np.full(8, y), back - bow * (1 - np.cos(arc))], 1)
            sections += [np.concatenate([outer, outer[::-1] * [0.9, 1, 1] - [0, 0, 0.05]])]
        return [loft(sections)]
    if kind == "hoop":
        arc = np.linspace(0, np.pi, 9)
        hoop = [at(np.sin(a) ** 0.7, (half - 0.03) * np.cos(a)) for a in arc]
        rods = np.linspace(-0.6, 0.6, p.count(3, 6)) * (half - 0.03)
        return [
            *path(hoop, 0.02),
            *(tube(at(0, x), at(0.95 * (1 - (x / half) ** 2) ** 0.5, x), 0.012) for x in rods),
        ]
    post = p.between(0.018, 0.03)
    parts = mirrored(tube(foot, top, post))
    if kind == "panel":
        low = p.between(0.0, 0.4)
        parts += [slab(at(low), at(p.between(0.85, 1.0)), width, 0.04)]
    elif kind == "padded":
        thick, low = p.between(0.08, 0.14), p.between(0.08, 0.2)
        middle = at((low + 1) / 2)
        parts += [cushion(middle, [1.1 * width, (1 - low) * height, thick + lean], 0.4)]
    elif kind == "ladder":
        count = p.count(2, 5)
        for share in np.linspace(p.between(0.25, 0.5), 0.95, count):
            parts += [box(at(share), [width, 0.45 * height / count, 0.035])]
    elif kind == "spindles":
        parts += [box(at(0.96), [width + 0.05, 0.09, 0.045])]
        for x in np.linspace(-0.42, 0.42, p.count(3, 7)) * width:
            parts += [tube(at(0, x), at(0.96, x), 0.014)]
    elif kind == "cross":
        parts += [box(at(0.95), [width, 0.07, 0.04]), box(at(0.25), [width, 0.05, 0.04])]
        parts += mirrored(tube(at(0.25, -width / 2), at(0.92, width / 2), 0.018))
    else:
        parts += [box(at(0.95), [width + 0.04, 0.1, 0.045])]
        parts += [slab(at(0), at(0.95), p.between(0.3, 0.5) * width, 0.03)]
    return parts


def _chair_arms(p: Proportions, half: float, seat: float, thick: float) -> Parts:
    """Return arms on posts, sloping arms, or closed sides."""
    kind, rest = p.choice("posts", "posts", "sloping", "closed"), seat + p.between(0.17, 0.26)
    if kind == "closed":
        return mirrored(box([half, (seat + rest) / 2, 0], [thick + 0.03, rest - seat, 2 * half]))
    drop = p.between(0.04, 0.1) if kind == "sloping" else 0.0
    front, back = [half, rest - drop, -0.85 * half], [half, rest + drop, half]
    parts = mirrored(slab(front, back, 0.055, 0.03))
    inset = p.between(0.0, 0.5) * half
    return [
        *parts,
        *mirrored(
            tube([half, seat, inset - 0.85 * half], [half, rest - drop / 2, -0.8 * half], 0.02)
        ),
    ]


def build_chair(p: Proportions) -> Parts:
    """Build a chair: a seat and a tall back, on legs, a star, a pedestal, a sled, rockers."""
    half, seat = p.between(0.19, 0.26), p.between(0.4, 0.52)
    parts = _chair_base(p, half, seat)
    kind, thick = p.choice("board", "padded", "padded", "round", "tapered"), p.between(0.03, 0.1)
    if kind == "round":
        parts += [turned([(half, seat), (1.08 * half, seat + thick / 2), (half, seat + thick)])]
    elif kind == "padded":
        parts += [cushion([0, seat + thick / 2, 0], [2 * half, thick, 2 * half], 0.5)]
    elif kind == "board":
        parts += [box([0, seat + thick / 4, 0], [2 * half, thick / 2, 2 * half])]
    else:
        corners = np.array([[-1.1, -1], [1.1, -1], [0.85, 1], [-0.85, 1]]) * half
        flat = np.stack([corners[:, 0], np.full(4, seat), corners[:, 1]], 1)
        parts += [loft([flat, np.add(flat, [0, 0.7 * thick, 0])])]
    parts += _chair_back(p, half, seat)
    if p.chance(0.4):
        parts += _chair_arms(p, half, seat, thick)
    return parts


# --- Benches --------------------------------------------------------------------------------------


def _bench_supports(p: Proportions, length: float, depth: float, seat: float) -> Parts:
    """Return what carries a bench's seat."""
    kind = p.choice("legs", "panels", "trestles", "frames", "blocks")
    end, thick = length / 2 - p.between(0.05, 0.3), p.between(0.03, 0.06)
    places = [-end, end, 0.0] if p.chance(0.25) else [-end, end]
    wide, deep = p.between(0.15, 0.3), p.between(0.7, 0.95) * depth
    parts: Parts = []
    for x in places:
        if kind == "legs":
            for z in (-0.4 * depth, 0.4 * depth):
                parts += [slab([x, 0, 1.1 * z], [x, seat, z], 2 * thick, 2 * thick)]
        elif kind == "panels":
            parts += [box([x, seat / 2, 0], [2 * thick, seat, deep])]
        elif kind == "trestles":
            for z in (-0.45 * depth, 0.45 * depth):
                parts += [slab([x, 0, z], [x, seat, -0.7 * z], 1.6 * thick, 1.6 * thick)]
        elif kind == "frames":
            for z in (-0.4 * depth, 0.4 * depth):
                parts += [box([x, seat / 2, z], [1.4 * thick, seat, 1.4 * thick])]
            parts += [box([x, thick, 0], [1.4 * thick, 1.4 * thick, 1.1 * depth])]
            parts += [box([x, seat - thick, 0], [1.4 * thick, 1.4 * thick, 0.84 * depth])]
        else:
            parts += [box([x, seat / 2, 0], [wide, seat, deep])]
    if p.chance(0.4):
        parts += [box([0, 0.35 * seat, 0], [2 * end, 0.05, 0.05])]
    return parts


def _bench_back(p: Proportions, length: float, depth: float, seat: float) -> Parts:
    """Return a bench's back on posts."""
    height, lean, thick = p.between(0.35, 0.6), p.between(0.0, 0.18), p.between(0.03, 0.05)
    end = length / 2 - p.between(0.02, 0.2)
    kind = p.choice("boards", "boards", "spindles", "panel", "crosses", "rail")
    foot = np.array([end, seat, depth / 2])
    top = foot + np.array([0, height, lean])
    parts = mirrored(tube(foot, top, 0.04))

    def at(share: float, x: float = 0.0) -> np.ndarray:
        return np.array([x, 0, 0]) + (foot + share * (top - foot)) * [0, 1, 1]

    if kind == "boards":
        rows = p.count(2, 4)
        for share in np.linspace(0.3, 1.0, rows):
            parts += [box(at(share), [length, 0.6 * height / rows, thick])]
        return parts
    if kind == "panel":
        low = p.between(0.1, 0.35)
        return [*parts, slab(at(low), at(1), 2 * end, thick)]
    parts += [box(at(1), [length, 0.09, 1.5 * thick])]
    if kind == "rail":
        return parts
    parts += [box(at(0.15), [2 * end, 0.06, thick])]
    if kind == "spindles":
        for x in np.linspace(-end, end, p.count(6, 12) + 2)[1:-1]:
            parts += [tube(at(0.15, x), at(1, x), 0.018, points=8)]
    else:
        count = p.count(2, 3)
        for i in range(count):
            left, right = -end + 2 * end * i / count, -end + 2 * end * (i + 1) / count
            parts += [tube(at(0.15, left), at(1, right), 0.022)]
            parts += [tube(at(1, left), at(0.15, right), 0.022)]
    return parts


def build_bench(p: Proportions) -> Parts:
    """Build a park bench: boards or a slab on end frames, with or without a back and arms."""
    length, depth, seat = p.between(1.4, 2.3), p.between(0.36, 0.6), p.between(0.4, 0.52)
    slats, thick = p.count(1, 5), p.between(0.04, 0.09)
    pitch, share = depth / slats, 1.0 if slats == 1 else p.between(0.6, 0.85)
    parts = [
        box([0, seat, -depth / 2 + (i + 0.5) * pitch], [length, thick, share * pitch])
        for i in range(slats)
    ]
    parts += _bench_supports(p, length, depth, seat)
    if not p.chance(0.6):
        return parts
    parts += _bench_back(p, length, depth, seat)
    if p.chance(0.5):
        rest, end = seat + p.between(0.2, 0.28), length / 2 - p.between(0.02, 0.15)
        parts += mirrored(box([end, rest, 0], [0.08, 0.05, depth]))
        parts += mirrored(box([end, (seat + rest) / 2, -0.42 * depth], [0.06, rest - seat, 0.06]))
    return parts


# --- Sofas ----------------------------------------------------------------------------------------


def _sofa_arm(p: Proportions, x: float, arm: float, top: float, rest: float, depth: float) -> Parts:
    """Return one arm, whose middle is at x."""
    kind = p.choice("box", "padded", "rolled", "sloping", "rail")
    if kind == "box":
        return [box([x, top + rest / 2, 0], [arm, rest, depth])]
    if kind == "padded":
        return [cushion([x, top + rest / 2, 0], [arm, rest, depth], p.between(0.3, 0.7))]
    if kind == "rolled":
        radius = p.between(0.55, 0.75) * arm
        roll = tube([x, top + rest, -depth / 2], [x, top + rest, depth / 2], radius, points=14)
        return [roll, box([x, top + rest / 2, 0], [0.8 * arm, rest, 0.97 * depth])]
    if kind == "sloping":
        low = p.between(0.3, 0.6) * rest
        face = [[-depth / 2, 0], [-depth / 2, low], [depth / 2, 1.3 * rest], [depth / 2, 0]]
        side = np.array([[x - arm / 2, top + y, z] for z, y in face])
        return [loft([side, np.add(side, [arm, 0, 0])])]
    posts = [
        box([x, top + rest / 2, z], [0.4 * arm, rest, 0.06]) for z in (-0.45 * depth, 0.4 * depth)
    ]
    return [box([x, top + rest, 0], [0.7 * arm, 0.06, depth]), *posts]


def _sofa_back(p: Proportions, full: float, top: float, depth: float) -> Parts:
    """Return a straight, arched, winged or low back."""
    kind, back = p.choice("straight", "straight", "arched", "round"), p.between(0.32, 0.62)
    z, thick = 0.42 * depth, p.between(0.13, 0.2) * depth
    if kind == "straight":
        return [cushion([0, top + back / 2, z], [full, back, thick], p.between(0.15, 0.5))]
    if kind == "arched":
        shares = np.linspace(0, np.pi, 9)
        outline = [[-full / 2 * np.cos(a), back * (0.6 + 0.5 * np.sin(a))] for a in shares]
        outline = [[-full / 2, 0], *outline, [full / 2, 0]]
        front = np.array([[x, top + y, z - thick / 2] for x, y in outline])
        return [loft([front, np.add(front, [0, 0, thick])])]
    roll = tube([-full / 2, top + back, z], [full / 2, top + back, z], 0.7 * thick, points=14)
    return [roll, box([0, top + back / 2, z], [0.98 * full, back, thick])]


def build_sofa(p: Proportions) -> Parts:
    """Build a sofa: cushions on a low base between two arms, with or without a corner."""
    seats, depth = p.count(2, 4), p.between(0.75, 1.0)
    width = p.between(0.5, 0.66) * seats
    seat, arm, rest = p.between(0.18, 0.3), p.between(0.12, 0.26), p.between(0.16, 0.36)
    plump, corner = p.between(0.3, 0.65), p.choice(0, 0, 0, -1, 1)
    full = width + 2 * arm
    foot = p.choice("legs", "legs", "plinth", "blocks")
    lift = p.between(0.06, 0.18) if foot == "legs" else p.between(0.03, 0.08)
    parts = [box([0, lift + seat / 2, 0], [full, seat, depth])]
    if foot == "plinth":
        parts += [box([0, lift / 2, 0], [0.92 * full, lift, 0.85 * depth])]
    else:
        thick = 0.03 if foot == "legs" else 0.06
        parts += legs(p, 0.46 * full, 0.42 * depth, lift, thick, 0.0)
    top = lift + seat
    parts += _sofa_back(p, full, top, depth)
    has_backs, single = p.chance(0.7), p.chance(0.25)
    pads = 1 if single else seats
    for i in range(pads):
        x, size = -width / 2 + (i + 0.5) * width / pads, 0.97 * width / pads
        parts += [cushion([x, top + 0.08, -0.08], [size, 0.17, 0.8 * depth], plump)]
        if has_backs:
            high = p.between(0.3, 0.42)
            parts += [cushion([x, top + 0.14 + high / 2, 0.24 * depth], [size, high, 0.2], plump)]
    arms = _sofa_arm(p, (width + arm) / 2, arm, top, rest, depth)
    # A chaise has its corner on one side and needs no arm there, sometimes.
    parts += mirrored(*arms) if p.chance(0.85) or not corner else arms
    if corner:
        x, reach = corner * (width / 2 - width / (2 * seats)), p.between(0.6, 1.0) * depth
        size, z = width / seats, -depth / 2 - reach / 2
        parts += [box([x, lift + seat / 2, z], [size, seat, reach])]
        parts += [cushion([x, top + 0.08, z], [size, 0.17, 0.95 * reach], plump)]
    for i in range(p.count(0, 2)):
        x = (-1) ** i * 0.36 * width
        parts += [ellipsoid([x, top + 0.3, 0.05 * depth], [0.16, 0.15, 0.07], 10)]
    return parts
