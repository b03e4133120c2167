"""Builders of the four vehicle classes.

Each takes the proportions of one model and returns its parts; the front looks to -z.
"""

from __future__ import annotations

import numpy as np
import trimesh

from .draws import Proportions
from .solids import (
    along_z,
    blade,
    box,
    cushion,
    ellipsoid,
    loft,
    mirrored,
    path,
    ring,
    tube,
    turned,
    tyre,
    wheel,
)

Parts = list[trimesh.Trimesh]


def _engines(p: Proportions, span: float, sweep: float, low: float, radius: float) -> Parts:
    """Return one or two pairs of jet engines below the wings."""
    parts = []
    size = 0.42 * radius + 0.012
    for share in (0.32, 0.6)[: p.count(1, 2)]:
        x, z = share * span, share * sweep - 0.06
        y = low - 1.1 * size
        for front, back, wide in ((-0.09, -0.07, size), (-0.07, 0.06, 1.1 * size)):
            nacelle = tube([x, y, z + front], [x, y, z + back], wide, 0.8 * wide)
            parts += mirrored(nacelle)
        parts += mirrored(box([x, (y + low) / 2, z], [0.012, low - y, 0.09]))
    return parts


def build_airplane(p: Proportions) -> Parts:
    """Build an airliner with jets below swept wings, or a small propeller plane."""
    radius, is_jet = p.between(0.05, 0.075), p.chance(0.7)
    span = p.between(0.42, 0.56)
    tail = p.between(0.36, 0.44)
    body = [
        (-0.5, 0.15, -0.3, 0.05),
        (-0.485, 0.75, -0.6, 0.3),
        (-0.45, 1.4, -0.85, 0.65),
        (-0.38, 2.0, -1, 1),
        (0.15, 2.0, -1, 1),
        (0.3, 1.5, -0.6, 1),
        (0.45, 0.7, 0.1, 0.9),
        (0.5, 0.2, 0.5, 0.75),
    ]
    parts = [along_z([(z, w * radius, b * radius, t * radius) for z, w, b, t in body])]
    sweep = p.between(0.16, 0.3) if is_jet else p.between(0.0, 0.05)
    chord = p.between(0.17, 0.24)
    taper = p.between(0.3, 0.45) if is_jet else p.between(0.65, 1.0)
    is_high = p.chance(0.3) if is_jet else p.chance(0.6)
    low = 0.8 * radius if is_high else -0.6 * radius
    lift = low + p.between(-0.01, 0.05)
    chords = (chord, taper * chord)
    parts += mirrored(blade([0, low, -0.04], [span, lift, -0.04 + sweep], chords, 0.13, [0, 1, 0]))
    height, back = p.between(0.15, 0.22), 0.05 + 0.3 * sweep
    fin_tip = [0, 0.6 * radius + height, tail + back]
    parts += [blade([0, 0.5 * radius, tail], fin_tip, (0.15, 0.08), 0.14, [1, 0, 0])]
    is_t_tail = p.chance(0.25)
    y = fin_tip[1] if is_t_tail else 0.5 * radius
    z = fin_tip[2] if is_t_tail else tail + 0.01
    plane = blade([0, y, z], [0.4 * span, y, z + back], (0.12, 0.07), 0.13, [0, 1, 0])
    parts += mirrored(plane)
    if is_jet:
        return parts + _engines(p, span, sweep, low, radius)
    blades = 0.13
    parts += [ellipsoid([0, -0.1 * radius, -0.5], [0.02, 0.02, 0.03])]
    parts += [box([0, -0.1 * radius, -0.51], [0.022, 2 * blades, 0.008])]
    parts += mirrored(tube([0.09, -2.3 * radius, -0.1], [0.03, -radius, -0.1], 0.012))
    parts += mirrored(wheel([0.1, -2.5 * radius, -0.1], 0.035, 0.02))
    return parts


def build_car(p: Proportions) -> Parts:
    """Build a saloon, hatchback, van or pickup: a low body, a cabin, four wheels."""
    style = p.count(0, 3)
    length, width = p.between(1.55, 1.9), p.between(0.68, 0.8)
    clearance, belt = p.between(0.1, 0.15), p.between(0.36, 0.44)
    radius = p.between(0.15, 0.19)
    roof = belt + (p.between(0.34, 0.46) if style == 2 else p.between(0.22, 0.3))
    half = length / 2
    hood = belt - p.between(0.02, 0.07)
    nose = [
        (-half, 0.8, clearance + 0.06, hood - 0.12),
        (-half + 0.04, 0.95, clearance, hood - 0.04),
        (-half + 0.4, 1.0, clearance, hood),
        (half - 0.15, 1.0, clearance, belt),
        (half - 0.03, 0.97, clearance, belt - 0.02),
        (half, 0.85, clearance + 0.06, belt - 0.08),
    ]
    parts = [along_z([(z, w * width, b, t) for z, w, b, t in nose], power=6)]
    # Where the glass starts and ends at belt and roof, as shares of the length from the front.
    glass = ((0.28, 0.42, 0.7, 0.86), (0.3, 0.42, 0.88, 0.97), (0.14, 0.26, 0.95, 0.985), None)[
        style
    ]
    if glass is None:
        glass = (0.3, 0.4, 0.54, 0.6)
        rim = 0.14
        parts += mirrored(
            box([0.46 * width, belt + rim / 2, 0.3 * length], [0.06, rim, 0.38 * length])
        )
        parts += [box([0, belt + rim / 2, half - 0.06], [0.92 * width, rim, 0.05])]
    a, b, c, d = (share * length - half for share in glass)
    # A cabin is skinned upwards: its section at the belt, one at the roof's edge, one on top.
    sections = (
        (belt - 0.02, a, d, 0.92),
        (roof - 0.04, b, c, 0.78),
        (roof, b + 0.05, c - 0.05, 0.68),
    )
    parts += [
        loft(
            [
                ring([0, y, (f + r) / 2], [share * width / 2, 0, 0], [0, 0, (f - r) / 2], power=7)
                for y, f, r, share in sections
            ]
        )
    ]
    for z in (-half + 0.19 * length, half - 0.2 * length):
        parts += mirrored(wheel([width / 2 - 0.03, radius, z], radius, 0.16))
    parts += mirrored(ellipsoid([0.36 * width, hood - 0.1, -half + 0.03], [0.07, 0.05, 0.04]))
    mirror = ellipsoid([0.5 * width + 0.04, belt + 0.04, a + 0.12], [0.05, 0.035, 0.025])
    return parts + mirrored(mirror)


def _hull(p: Proportions, length: float, beam: float, side: float) -> Parts:
    """Return a hull with a raised, pointed bow; the deck lies at y = 0."""
    rise, half = p.between(0.05, 0.16), length / 2
    transom = p.between(0.6, 0.95)
    stations = [
        (-half, 0.04, 0.15 * side, rise),
        (-0.8 * half, 0.42, -0.45 * side, 0.7 * rise),
        (-0.45 * half, 0.85, -0.85 * side, 0.25 * rise),
        (0.1 * half, 1.0, -side, 0.0),
        (0.7 * half, 0.97, -0.95 * side, 0.0),
        (half, transom, -0.75 * side, 0.03),
    ]
    rings = []
    for z, wide, bottom, top in stations:
        w = wide * beam / 2
        # Keel, bilge and gunwale of one side; the other side mirrors them.
        profile = [
            (0, bottom),
            (0.62 * w, bottom + 0.25 * (top - bottom)),
            (w, top),
            (0.9 * w, top),
        ]
        starboard = np.array([[x, y, z] for x, y in profile])
        rings += [np.concatenate([starboard, starboard[:0:-1] * [-1, 1, 1]])]
    return [loft(rings)]


def _sail(foot: list[float], length: float, height: float) -> trimesh.Trimesh:
    """Return a triangular sail that stands on its foot and reaches back along z."""
    x, y, z = foot
    thick = 0.008
    corners = np.array([[x, y, z], [x + 0.05, y, z + length], [x, y + height, z]])
    half = np.array([thick, 0, 0])
    return loft([corners - half, corners + half])


def build_watercraft(p: Proportions) -> Parts:
    """Build a sailing boat, a motor yacht or a ship."""
    style = p.count(0, 2)
    length, beam = p.between(1.0, 1.3), p.between(0.28, 0.4)
    side = p.between(0.14, 0.22)
    parts = _hull(p, length, beam, side)
    if style == 0:
        mast, step = p.between(0.85, 1.15), -0.08 * length
        boom = p.between(0.38, 0.5) * length
        parts += [tube([0, 0, step], [0, mast, step], 0.016, 0.01)]
        parts += [tube([0, 0.1, step], [0.05, 0.1, step + boom], 0.012)]
        parts += [_sail([0, 0.12, step + 0.02], 0.95 * boom, 0.82 * mast)]
        parts += [_sail([0, 0.1, step - 0.02], -0.34 * length, 0.7 * mast)]
        return [*parts, cushion([0, 0.03, 0.2 * length], [0.5 * beam, 0.1, 0.25 * length], 0.5)]
    if style == 1:
        height = p.between(0.12, 0.17)
        cabin = [
            (-0.22, 0.3, 0.0, 0.05),
            (-0.08, 0.62, 0.0, height),
            (0.16, 0.68, 0.0, 1.1 * height),
            (0.24, 0.66, 0.0, 0.6 * height),
        ]
        parts += [along_z([(z * length, w * beam, b, t) for z, w, b, t in cabin], power=5)]
        deck = 1.1 * height
        if p.chance(0.6):
            parts += [box([0, deck + 0.09, 0.08 * length], [0.55 * beam, 0.02, 0.22 * length])]
            parts += mirrored(
                box([0.22 * beam, deck + 0.04, 0.14 * length], [0.02, 0.1, 0.03 * length])
            )
        parts += path([[0, 0.14, -0.46 * length], [0, 0.16, -0.28 * length]], 0.01)
        parts += mirrored(tube([0, 0.02, -0.4 * length], [0.3 * beam, 0.13, -0.3 * length], 0.01))
        return parts
    decks, chimneys = p.count(2, 3), p.count(1, 2)
    start, size = p.between(-0.12, 0.1), p.between(0.28, 0.42)
    for i in range(decks):
        extents = [(0.74 - 0.12 * i) * beam, 0.1, (1 - 0.2 * i) * size * length]
        parts += [box([0, 0.05 + 0.1 * i, start * length + 0.08 * length], extents)]
    top = 0.1 * decks
    for i in range(chimneys):
        z = (start + 0.1 + 0.12 * i) * length
        parts += [turned([(0.045, top), (0.04, top + 0.17)], z=z)]
    parts += [tube([0, 0, -0.3 * length], [0, 0.38, -0.3 * length], 0.012)]
    parts += [tube([0, 0.32, -0.3 * length], [0, 0.12, -0.14 * length], 0.01)]
    return parts


def build_motorcycle(p: Proportions) -> Parts:
    """Build a motorcycle: two open wheels, fork, tank, saddle, engine and exhaust."""
    base, radius = p.between(0.62, 0.8), p.between(0.2, 0.25)
    thick, rake = p.between(0.05, 0.075), p.between(0.1, 0.2)
    front, back = [0, radius, -base / 2], [0, radius, base / 2]
    parts = []
    for hub in (front, back):
        parts += [tyre(hub, radius, thick)]
        parts += [tube([-0.05, *hub[1:]], [0.05, *hub[1:]], 0.045)]
        for angle in np.arange(5) * (2 * np.pi / 5):
            rim = [
                0,
                hub[1] + 0.85 * radius * np.cos(angle),
                hub[2] + 0.85 * radius * np.sin(angle),
            ]
            parts += [tube(hub, rim, 0.014)]
    head = [0, 2 * radius + p.between(0.12, 0.2), -base / 2 + rake]
    for x in (-0.06, 0.06):
        parts += [tube([x, *front[1:]], [x, *head[1:]], 0.02)]
    bar = head[1] + p.between(0.03, 0.12)
    grip = p.between(0.2, 0.28)
    parts += mirrored(tube([0, head[1], head[2]], [grip, bar, head[2] + 0.1], 0.016))
    parts += [ellipsoid([0, head[1] - 0.05, head[2] - 0.06], [0.06, 0.065, 0.06])]
    tank = 2 * radius + 0.06
    long = p.between(0.15, 0.2)
    parts += [ellipsoid([0, tank, -0.06], [0.085, 0.075, long])]
    saddle = tank - p.between(0.0, 0.04)
    parts += [cushion([0, saddle, 0.26], [0.16, 0.07, 0.36], 0.5)]
    parts += [cushion([0, saddle + 0.05, 0.42], [0.13, 0.05, 0.12], 0.5)]
    parts += [ellipsoid([0, radius + 0.08, -0.02], [0.11, 0.13, 0.15])]
    parts += [box([0, radius - 0.04, 0.04], [0.17, 0.14, 0.24])]
    joint = [0, radius + 0.04, 0.08]
    parts += path([head, joint, back], 0.025)
    parts += mirrored(tube([0.05, saddle, 0.34], [0.05, *back[1:]], 0.018))
    parts += [tube([0.1, radius - 0.06, -0.1], [0.1, radius - 0.02, base / 2 + 0.1], 0.028, 0.04)]
    guard = [
        ring(
            [0, radius + 1.06 * radius * np.sin(a), back[2] + 1.06 * radius * np.cos(a)],
            [0.045, 0, 0],
            [0, 0.012 * np.sin(a), 0.012 * np.cos(a)],
            points=8,
        )
        for a in np.linspace(0.1, np.pi - 0.9, 8)
    ]
    parts += [loft(guard)]
    if p.chance(0.4):
        screen = along_z(
            [
                (head[2] - 0.16, 0.08, head[1] - 0.12, head[1] - 0.02),
                (head[2] - 0.06, 0.2, head[1] - 0.2, head[1] + 0.12),
                (head[2] + 0.06, 0.22, head[1] - 0.2, head[1] + 0.16),
            ]
        )
        parts += [screen]
    return parts
