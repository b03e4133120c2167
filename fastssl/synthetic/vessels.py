"""Builders of aircraft and watercraft; the front looks to -z. Structure is drawn first."""

from __future__ import annotations

import numpy as np

from .draws import Proportions
from .solids import (
    Part,
    Parts,
    along_z,
    blade,
    box,
    cushion,
    ellipsoid,
    loft,
    mirrored,
    path,
    slab,
    tube,
    turned,
    wheel,
)

# --- Aircraft -------------------------------------------------------------------------------------

_UP = [0, 1, 0]


def _fuselage(p: Proportions, style: str, radius: float) -> Part:
    """Return the body, one unit long."""
    nose = p.between(0.03, 0.09) if style != "fighter" else 0.2
    body = [
        (-0.5, 0.15, -0.3, 0.05),
        (-0.5 + 0.2 * nose, 0.75, -0.6, 0.3),
        (-0.5 + 0.6 * nose, 1.4, -0.85, 0.65),
        (-0.5 + 1.3 * nose, 2.0, -1, 1),
        (0.1 + p.between(-0.1, 0.1), 2.0, -1, 1),
        (0.3, 1.5, -0.6, 1),
        (0.45, p.between(0.5, 0.9), 0.1, 0.9),
        (0.5, 0.2, 0.5, 0.75),
    ]
    if style in ("glider", "single"):
        body[5:7] = [(0.2, 0.9, -0.4, 0.7), (0.45, 0.4, 0.1, 0.6)]
    return along_z([(z, w * radius, b * radius, t * radius) for z, w, b, t in body])


def _nacelle(x: float, y: float, z: float, size: float, long: float) -> Parts:
    """Return one jet engine: a lip and a body."""
    lip = tube([x, y, z - 0.5 * long], [x, y, z - 0.36 * long], size, 1.12 * size, points=12)
    return [
        lip,
        tube([x, y, z - 0.36 * long], [x, y, z + 0.5 * long], 1.12 * size, 0.75 * size, 12),
    ]


def _propeller(x: float, y: float, z: float, blades: int, reach: float) -> Parts:
    """Return a spinner and its blades."""
    parts = [ellipsoid([x, y, z], [0.022, 0.022, 0.035], 8)]
    for i in range(blades):
        angle = 2 * np.pi * i / blades + 0.4
        tip = [x + reach * np.cos(angle), y + reach * np.sin(angle), z]
        parts += [tube([x, y, z], tip, 0.008, 0.013, points=6)]
    return parts


def _engines(
    p: Proportions, style: str, span: float, sweep: float, low: float, radius: float
) -> Parts:
    """Return what drives an aircraft."""
    size, parts = 0.38 * radius + p.between(0.008, 0.018), []
    if style == "airliner":
        for share in (0.32, 0.6)[: p.count(1, 2)]:
            x, z = share * span, share * sweep - 0.06
            y = low - 1.15 * size
            parts += mirrored(*_nacelle(x, y, z, size, p.between(0.12, 0.17)))
            parts += mirrored(box([x, (y + low) / 2, z], [0.012, low - y, 0.09]))
    elif style == "business":
        x, y = radius + 1.1 * size, 0.4 * radius
        parts += mirrored(*_nacelle(x, y, 0.24, size, 0.17))
        parts += mirrored(box([0.9 * radius, y, 0.24], [0.6 * radius, 0.014, 0.08]))
    elif style == "twin":
        x, z = p.between(0.25, 0.4) * span, -0.1
        parts += mirrored(ellipsoid([x, low, z + 0.03], [0.9 * size, size, 0.13], 10))
        parts += mirrored(*_propeller(x, low, z - 0.1, p.count(2, 4), 0.11))
    elif style in ("single", "biplane", "seaplane"):
        parts += _propeller(0, -0.1 * radius, -0.51, p.count(2, 4), p.between(0.1, 0.15))
    elif style == "fighter":
        parts += mirrored(*_nacelle(0.7 * radius, -0.3 * radius, 0.34, 0.55 * radius, 0.3))
    return parts


def _tail(p: Proportions, style: str, radius: float, span: float, sweep: float) -> Parts:
    """Return fins and the tail's wings: plain, on top of the fin, twin, or as a V."""
    at, height, back = p.between(0.34, 0.42), p.between(0.12, 0.22), 0.05 + 0.3 * sweep
    kind = p.choice("plain", "plain", "top", "twin") if style != "fighter" else "twin"
    kind = "top" if style == "business" else kind
    root, chord = p.between(0.11, 0.17), p.between(0.06, 0.1)
    parts: Parts = []
    y = 0.5 * radius
    if kind == "twin":
        x = 0.8 * radius if style == "fighter" else 0.3 * span
        lean = p.between(0.0, 0.06)
        tip = [x + lean, y + 0.8 * height, at + back]
        parts += mirrored(blade([x, y, at], tip, (root, chord), 0.12, [1, 0, 0]))
    else:
        tip = [0, y + height, at + back]
        parts += [blade([0, y, at], tip, (root, chord), 0.14, [1, 0, 0])]
        if kind == "top":
            y, at = tip[1], tip[2]
    reach = p.between(0.32, 0.46) * span
    return parts + mirrored(
        blade([0, y, at], [reach, y, at + back], (0.8 * root, chord), 0.12, _UP)
    )


def _upper_wing(span: float, low: float, at: float, radius: float, chord: float) -> Parts:
    """Return the upper wing of a biplane, and the struts that carry it."""
    high, thin = low + 3.2 * radius, 0.008
    parts = mirrored(blade([0, high, at], [span, high, at], (chord, 0.9 * chord), 0.1, _UP))
    for z in (at - 0.04, at + 0.05):
        parts += mirrored(tube([0.7 * span, low, z], [0.7 * span, high, z], thin, points=6))
        parts += mirrored(tube([0.03, 0, z], [0.06, high, z], thin, points=6))
    return parts


def _floats(p: Proportions, radius: float) -> Parts:
    """Return the floats of a seaplane."""
    x, y = p.between(0.1, 0.16), -radius - p.between(0.07, 0.11)
    hull = [
        (-0.3, 0.02, 0, 0.03),
        (-0.2, 0.05, -0.03, 0.03),
        (0.05, 0.05, -0.02, 0.03),
        (0.2, 0.02, 0.01, 0.03),
    ]
    struts = [tube([x, y, z], [0.02, -0.6 * radius, z], 0.008, points=6) for z in (-0.15, 0.02)]
    return mirrored(along_z(hull).moved(x, y, 0), *struts)


def build_airplane(p: Proportions) -> Parts:
    """Build an aircraft: airliner, business jet, fighter, glider, or one with propellers."""
    style = p.choice(
        "airliner", "airliner", "airliner", "business", "fighter", "glider", "single", "biplane",
        "twin", "seaplane",
    )  # fmt: skip
    radius = {"glider": p.between(0.03, 0.04), "airliner": p.between(0.045, 0.075)}.get(
        style, p.between(0.045, 0.065)
    )
    has_jets = style in ("airliner", "business", "fighter")
    span = {"glider": p.between(0.7, 0.9), "fighter": p.between(0.28, 0.38)}.get(
        style, p.between(0.42, 0.58)
    )
    sweep = p.between(0.12, 0.32) if has_jets else p.between(-0.02, 0.06)
    chord = {"glider": p.between(0.08, 0.11), "fighter": p.between(0.34, 0.46)}.get(
        style, p.between(0.15, 0.24)
    )
    taper = p.between(0.25, 0.5) if has_jets else p.between(0.55, 1.0)
    if style == "fighter":
        taper = p.between(0.08, 0.3)
    is_high = p.chance({"airliner": 0.2, "business": 0.0, "fighter": 0.3}.get(style, 0.6))
    low = 0.8 * radius if is_high else -0.6 * radius
    at, lift = p.between(-0.12, 0.02) + 0.12 * (style == "fighter"), low + p.between(-0.01, 0.06)
    parts = [_fuselage(p, style, radius)]
    tip, chords = [span, lift, at + sweep], (chord, taper * chord)
    parts += mirrored(blade([0, low, at], tip, chords, p.between(0.09, 0.15), _UP))
    if p.chance(0.4) and style != "biplane":  # winglets
        height = p.between(0.04, 0.1)
        end = [span + 0.01, lift + height, at + sweep + 0.03]
        parts += mirrored(blade(tip, end, (0.9 * taper * chord, 0.3 * chord), 0.12, [1, 0, 0]))
    if style == "biplane":
        parts += _upper_wing(span, low, at, radius, chord)
    elif is_high and not has_jets:
        parts += mirrored(tube([0.02, -0.8 * radius, at], [0.5 * span, low, at], 0.009, points=6))
    if style in ("fighter", "glider", "single"):  # a canopy
        parts += [ellipsoid([0, 0.9 * radius, -0.2], [0.5 * radius, 0.6 * radius, 0.1], 10)]
    parts += _tail(p, style, radius, span if style != "glider" else 0.4, max(sweep, 0))
    parts += _engines(p, style, span, sweep, low, radius)
    if style == "seaplane":
        parts += _floats(p, radius)
    elif not has_jets and style != "glider":
        parts += mirrored(tube([0.09, -2.3 * radius, -0.1], [0.03, -radius, -0.1], 0.012, points=6))
        parts += mirrored(wheel([0.1, -2.5 * radius, -0.1], p.between(0.028, 0.04), 0.02))
    return parts


# --- Watercraft -----------------------------------------------------------------------------------


def _hull(p: Proportions, length: float, beam: float, side: float, bluff: float) -> Part:
    """Return a hull with a raised bow, the fuller the bluffer; the deck lies at y = 0."""
    rise, half, transom = p.between(0.03, 0.16), length / 2, p.between(0.55, 0.95)
    stations = [
        (-half, 0.04 + 0.3 * bluff, 0.15 * side, rise),
        (-0.8 * half, 0.42 + 0.4 * bluff, -0.45 * side, 0.7 * rise),
        (-0.45 * half, 0.85 + 0.12 * bluff, -0.85 * side, 0.25 * rise),
        (0.1 * half, 1.0, -side, 0.0),
        (0.7 * half, 0.97, -0.95 * side, 0.0),
        (half, transom, -0.75 * side, p.between(0.0, 0.05)),
    ]
    round_ = p.between(0.5, 0.85)
    rings = []
    for z, wide, bottom, top in stations:
        w = wide * beam / 2
        # Keel, bilge and gunwale of one side; the other side mirrors them.
        bilge = (round_ * w, bottom + 0.25 * (top - bottom))
        profile = [(0, bottom), bilge, (w, top), (0.9 * w, top)]
        starboard = np.array([[x, y, z] for x, y in profile])
        rings += [np.concatenate([starboard, starboard[:0:-1] * [-1, 1, 1]])]
    return loft(rings)


def _sail(foot: list[float], length: float, height: float, head: float = 0.0) -> Part:
    """Return a sail that stands on its foot and reaches back along z; its head is so long."""
    x, y, z = foot
    corners = [
        [x, y, z],
        [x + 0.05, y, z + length],
        [x + 0.02, y + height, z + head],
        [x, y + height, z],
    ]
    outline = np.array(corners if head else [*corners[:2], corners[3]])
    half = np.array([0.008, 0, 0])
    return loft([outline - half, outline + half])


def _build_sailer(p: Proportions, length: float, beam: float) -> Parts:
    """Return masts and sails: one mast or two, a jib or none, gaff or pointed sails."""
    masts, head = p.choice(1, 1, 2), p.choice(0.0, 0.0, p.between(0.1, 0.2))
    tall = p.between(0.75, 1.2)
    parts: Parts = []
    for number in range(masts):
        step = (-0.12 + 0.3 * number) * length - 0.1 * length * (masts == 2)
        high, boom = (
            tall * (1 - 0.2 * number),
            p.between(0.3, 0.46) * length * (1 - 0.3 * (masts - 1)),
        )
        parts += [tube([0, 0, step], [0, high, step], 0.016, 0.01, points=8)]
        parts += [tube([0, 0.1, step], [0.05, 0.1, step + boom], 0.012, points=8)]
        parts += [_sail([0, 0.12, step + 0.02], 0.95 * boom, p.between(0.7, 0.85) * high, head)]
    front = -0.12 * length - 0.1 * length * (masts == 2)
    for number in range(p.count(0, 2) if masts == 1 else 1):
        size = 1 - 0.35 * number
        parts += [_sail([0, 0.08, front - 0.02], -size * (length / 2 + front), 0.75 * size * tall)]
    cabin = [0.5 * beam, p.between(0.06, 0.12), p.between(0.2, 0.35) * length]
    return [*parts, cushion([0, 0.03, 0.15 * length], cabin, 0.5)]


def _build_yacht(p: Proportions, length: float, beam: float) -> Parts:
    """Return the cabins and rails of a motor boat."""
    height, back = p.between(0.1, 0.2), p.between(0.1, 0.34)
    cabin = [
        (-0.26, 0.25, 0.0, 0.04),
        (-p.between(0.05, 0.14), 0.62, 0.0, height),
        (back - 0.05, 0.68, 0.0, 1.1 * height),
        (back, 0.66, 0.0, p.between(0.4, 1.0) * height),
    ]
    parts = [along_z([(z * length, w * beam, b, t) for z, w, b, t in cabin], power=5)]
    deck = 1.1 * height
    if p.chance(0.55):  # a bridge with a roof
        roof = p.between(0.08, 0.14)
        parts += [box([0, deck + roof, 0.08 * length], [0.55 * beam, 0.02, 0.22 * length])]
        parts += mirrored(
            box([0.22 * beam, deck + roof / 2, 0.14 * length], [0.02, roof, 0.03 * length])
        )
        parts += [box([0, deck + 0.03, 0.02 * length], [0.5 * beam, 0.06, 0.1 * length])]
    if p.chance(0.5):
        high = p.between(0.1, 0.2)
        parts += [tube([0, deck, 0.12 * length], [0, deck + high, 0.14 * length], 0.01, points=6)]
    parts += path([[0, 0.14, -0.46 * length], [0, 0.16, -0.28 * length]], 0.01)
    parts += mirrored(tube([0, 0.02, -0.4 * length], [0.3 * beam, 0.13, -0.3 * length], 0.01))
    return parts


def _build_ship(p: Proportions, length: float, beam: float) -> Parts:
    """Return decks, chimneys, masts, and what a ship carries."""
    kind = p.choice("liner", "cargo", "tug", "warship", "ferry")
    decks = {"liner": p.count(3, 4), "ferry": p.count(2, 3)}.get(kind, p.count(1, 3))
    size = {"liner": 0.62, "ferry": 0.72, "cargo": 0.16}.get(kind, p.between(0.22, 0.36))
    start = {"cargo": 0.34, "tug": -0.1, "liner": 0.02, "ferry": 0.0}.get(
        kind, p.between(-0.08, 0.1)
    )
    step = p.between(0.07, 0.1) * (1.4 if kind == "cargo" else 1)
    shrink = 0.04 if kind in ("ferry", "cargo") else 0.14
    parts: Parts = []
    for i in range(decks):
        extents = [(0.8 - 0.07 * i) * beam, step, (1 - shrink * i) * size * length]
        parts += [box([0, (i + 0.5) * step, start * length + 0.02 * i * length], extents)]
    top = step * decks
    for i in range(p.count(1, 3) if kind == "liner" else 1):
        z, wide = (
            (start + (0.1 if kind != "liner" else -0.1) + 0.14 * i) * length,
            p.between(0.03, 0.055),
        )
        parts += [
            tube([0, top, z], [0, top + p.between(0.1, 0.2), z + 0.02], wide, 0.9 * wide, points=12)
        ]
    if kind == "cargo":
        rows, high = p.count(3, 6), p.between(0.06, 0.2)
        for i in range(rows):
            z = (-0.34 + 0.56 * i / (rows - 1)) * length
            tall = high * p.between(0.5, 1.2)
            parts += [box([0, tall / 2, z], [0.78 * beam, tall, 0.46 * length / rows])]
        if p.chance(0.4):
            parts += [tube([0, 0, -0.06 * length], [0, 0.4, -0.06 * length], 0.016, points=8)]
            parts += [tube([0, 0.05, -0.06 * length], [0, 0.34, -0.3 * length], 0.012, points=8)]
    elif kind == "warship":
        for z in (-0.3, -0.22)[: p.count(1, 2)]:
            parts += [turned([(0.05, 0), (0.05, 0.05), (0.03, 0.07)], 0, z * length)]
            parts += [tube([0, 0.05, z * length], [0, 0.07, (z - 0.14) * length], 0.012, points=8)]
    mast = p.between(0.25, 0.5)
    z = start * length - 0.2 * size * length
    parts += [tube([0, top, z], [0, top + 0.6 * mast, z], 0.011, points=6)]
    parts += [tube([-0.08, top + 0.4 * mast, z], [0.08, top + 0.4 * mast, z], 0.008, points=6)]
    return parts


def _build_open_boat(p: Proportions, length: float, beam: float) -> Parts:
    """Return the thwarts, oars or screen of a boat that one sits in."""
    parts = [
        box([0, 0.015, z * length], [0.9 * beam, 0.03, 0.06 * length]) for z in (-0.16, 0.06, 0.28)
    ]
    if p.chance(0.5):
        for z in (-0.06, 0.14)[: p.count(1, 2)]:
            oar = tube(
                [0.15 * beam, 0.09, z * length], [beam, -0.05, (z + 0.1) * length], 0.012, points=6
            )
            parts += mirrored(oar)
        return parts
    parts += [
        slab([0, 0, -0.2 * length], [0, p.between(0.08, 0.14), -0.12 * length], 0.7 * beam, 0.015)
    ]
    return [*parts, box([0, 0.0, 0.5 * length], [0.12, 0.22, 0.09])]


def build_watercraft(p: Proportions) -> Parts:
    """Build a sailing boat, a catamaran, a motor yacht, a ship or an open boat."""
    style = p.choice("sailer", "sailer", "catamaran", "yacht", "yacht", "ship", "ship", "open")
    length, beam = p.between(0.95, 1.35), p.between(0.24, 0.4)
    side = p.between(0.12, 0.24)
    if style == "open":
        length, beam = p.between(0.8, 1.1), p.between(0.26, 0.36)
    bluff = p.between(0.0, 1.0) if style == "ship" else p.between(0.0, 0.25)
    if style == "catamaran":
        one = _hull(p, length, 0.35 * beam, side, 0.0)
        apart = p.between(0.7, 1.0) * beam
        parts = mirrored(one.moved(apart / 2, 0, 0))
        parts += [box([0, 0.02, 0.1 * length], [apart, 0.03, p.between(0.3, 0.5) * length])]
        return parts + _build_sailer(p, length, 0.8 * beam)
    parts = [_hull(p, length, beam, side, bluff)]
    build = {
        "sailer": _build_sailer,
        "yacht": _build_yacht,
        "ship": _build_ship,
        "open": _build_open_boat,
    }
    return parts + build[style](p, length, beam)
