"""Builders of cars and motorcycles; the front looks to -z. Structure is drawn first."""

from __future__ import annotations

import numpy as np

from .draws import Proportions
from .solids import (
    Part,
    Parts,
    along_z,
    box,
    cushion,
    ellipsoid,
    loft,
    mirrored,
    path,
    ring,
    slab,
    tube,
    tyre,
    wheel,
)

# --- Cars -----------------------------------------------------------------------------------------

# Where the glass begins and ends at belt and roof, as shares of the length from the front.
_CABINS = {
    "saloon": (0.28, 0.42, 0.70, 0.86),
    "hatchback": (0.30, 0.42, 0.88, 0.97),
    "estate": (0.28, 0.41, 0.93, 0.98),
    "van": (0.12, 0.26, 0.96, 0.985),
    "coupe": (0.36, 0.50, 0.66, 0.92),
    "pickup": (0.28, 0.38, 0.54, 0.60),
    "offroad": (0.28, 0.33, 0.95, 0.97),
    "open": (0.38, 0.46, 0.46, 0.47),
    "bus": (0.02, 0.06, 0.97, 0.99),
}


def _cabin(glass: tuple[float, ...], length: float, width: float, belt: float, roof: float) -> Part:
    """Return a cabin, skinned upwards: at the belt, at the roof's edge, on top."""
    a, b, c, d = (share * length - length / 2 for share in glass)
    sections = (
        (belt - 0.02, a, d, 0.92),
        (roof - 0.04, b, c, 0.78),
        (roof, b + 0.04, c - 0.04, 0.68),
    )
    return loft(
        [
            ring([0, y, (f + r) / 2], [share * width / 2, 0, 0], [0, 0, (f - r) / 2], power=7)
            for y, f, r, share in sections
        ]
    )


def _bed(p: Proportions, width: float, belt: float, length: float) -> Parts:
    """Return the open bed of a pickup."""
    rim, half = p.between(0.08, 0.2), length / 2
    parts = mirrored(box([0.46 * width, belt + rim / 2, 0.3 * length], [0.06, rim, 0.38 * length]))
    parts += [box([0, belt + rim / 2, half - 0.06], [0.92 * width, rim, 0.05])]
    if p.chance(0.4):  # a hoop behind the cabin
        z, high = 0.62 * length - half, belt + p.between(0.2, 0.3)
        corners = [[0.42 * width, belt, z], [0.38 * width, high, z]]
        parts += [
            *mirrored(*path(corners, 0.025)),
            tube(corners[1], [-0.38 * width, high, z], 0.025),
        ]
    return parts


def _car_extras(
    p: Proportions, style: str, width: float, length: float, belt: float, roof: float
) -> Parts:
    """Return a roof rack, a spoiler, a spare wheel, bumpers: some of them."""
    half, parts = length / 2, []
    has_roof = style not in ("open", "pickup", "coupe")
    if has_roof and p.chance(0.3):
        high = roof + p.between(0.03, 0.07)
        parts += mirrored(
            slab([0.3 * width, high, -0.05], [0.3 * width, high, 0.25 * length], 0.03, 0.03)
        )
        for z in (0.0, 0.2 * length):
            parts += [box([0, high, z], [0.66 * width, 0.025, 0.04])]
        if p.chance(0.4):
            parts += [
                cushion([0, high + 0.08, 0.1 * length], [0.5 * width, 0.14, 0.3 * length], 0.4)
            ]
    if style in ("coupe", "saloon", "open") and p.chance(0.4):
        high = belt + p.between(0.08, 0.18)
        parts += [box([0, high, half - 0.08], [0.9 * width, 0.025, 0.14])]
        parts += mirrored(
            box([0.3 * width, (high + belt) / 2, half - 0.07], [0.03, high - belt, 0.08])
        )
    if style == "offroad" and p.chance(0.7):
        parts += [tyre([0, 0, 0], p.between(0.14, 0.18), 0.1)]
        spare = parts.pop()
        turned_back = spare.vertices[:, [2, 1, 0]] + [0, belt + 0.02, half + 0.03]
        parts += [Part(turned_back, spare.faces[:, ::-1])]
    if p.chance(0.5):
        size = [p.between(0.9, 1.02) * width, p.between(0.06, 0.12), 0.08]
        low = p.between(0.16, 0.22)
        parts += [box([0, low, -half - 0.01], size), box([0, low, half + 0.01], size)]
    return parts


def build_car(p: Proportions) -> Parts:
    """Build a car of nine kinds: a low body, a cabin, four wheels, and what one has besides."""
    style = p.choice(*_CABINS)
    is_tall = style in ("van", "bus", "offroad")
    length = p.between(1.4, 1.65) if style == "hatchback" else p.between(1.55, 2.0)
    width, clearance = p.between(0.66, 0.82), p.between(0.08, 0.14) + 0.06 * (style == "offroad")
    belt = p.between(0.34, 0.44) + 0.06 * is_tall
    radius = p.between(0.14, 0.18) + 0.04 * (style == "offroad")
    high = {"van": (0.34, 0.46), "bus": (0.36, 0.48), "coupe": (0.17, 0.23), "open": (0.14, 0.2)}
    roof = belt + p.between(*high.get(style, (0.22, 0.32)))
    half, hood = length / 2, belt - p.between(0.0, 0.1)
    edge, power = p.between(0.05, 0.14), p.between(3.5, 8.0)
    tail = belt - p.between(0.0, 0.08)
    body = [
        (-half, p.between(0.6, 0.9), clearance + 0.06, hood - edge),
        (-half + 0.05, 0.95, clearance, hood - edge / 3),
        (-half + 0.4, 1.0, clearance, hood),
        (half - 0.2, 1.0, clearance, belt),
        (half - 0.04, 0.96, clearance, tail),
        (half, 0.85, clearance + 0.06, tail - 0.06),
    ]
    parts = [along_z([(z, w * width, b, t) for z, w, b, t in body], power=power)]
    shift = p.between(-0.03, 0.03)
    glass = tuple(min(share + shift, 0.99) for share in _CABINS[style])
    if style == "open":
        a = glass[0] * length - half
        parts += [slab([0, belt, a], [0, roof, a + 0.12], 0.8 * width, 0.02)]
        for side in (-0.2, 0.2):
            seat = [0.16, 0.16, 0.07]
            parts += [ellipsoid([side * width, belt + 0.06, a + 0.3], [seat[0], 0.14, 0.06], 10)]
    else:
        parts += [_cabin(glass, length, width, belt, roof)]
    if style == "pickup":
        parts += _bed(p, width, belt, length)
    front, rear = p.between(0.16, 0.22), p.between(0.17, 0.23)
    wide = p.between(0.12, 0.18)
    for z in (-half + front * length, half - rear * length):
        parts += mirrored(wheel([width / 2 - 0.03, radius, z], radius, wide))
        if p.chance(0.25):  # flared fenders
            parts += mirrored(
                ellipsoid([width / 2 - 0.02, 1.15 * radius, z], [0.06, radius, 1.35 * radius], 12)
            )
    size = p.between(0.03, 0.055)
    parts += mirrored(
        ellipsoid([0.36 * width, hood - 0.1, -half + 0.03], [1.5 * size, size, 0.04], 8)
    )
    mirror = glass[0] * length - half + 0.12
    parts += mirrored(ellipsoid([width / 2 + 0.04, belt + 0.04, mirror], [0.05, 0.035, 0.025], 8))
    return parts + _car_extras(p, style, width, length, belt, roof)


# --- Motorcycles ----------------------------------------------------------------------------------


def _spoked(p: Proportions, hub: list[float], radius: float, thick: float, spokes: int) -> Parts:
    """Return a wheel: a tyre, a hub, and spokes or a disc."""
    parts = [tyre(hub, radius, thick), tube([-0.05, *hub[1:]], [0.05, *hub[1:]], 0.045)]
    if not spokes:
        return [*parts, tube([-0.02, *hub[1:]], [0.02, *hub[1:]], 0.85 * radius, points=16)]
    for angle in np.arange(spokes) * (2 * np.pi / spokes):
        y, z = 0.85 * radius * np.cos(angle), 0.85 * radius * np.sin(angle)
        parts += [tube(hub, [0, hub[1] + y, hub[2] + z], p.between(0.008, 0.016), points=6)]
    return parts


def _guard(hub: list[float], radius: float, wide: float, start: float, stop: float) -> Part:
    """Return a mudguard that follows a wheel between two angles."""
    far = 1.08 * radius
    return loft(
        [
            ring(
                [0, hub[1] + far * np.sin(a), hub[2] + far * np.cos(a)],
                [wide, 0, 0],
                [0, 0.012 * np.sin(a), 0.012 * np.cos(a)],
                points=8,
            )
            for a in np.linspace(start, stop, 8)
        ]
    )


def _fairing(p: Proportions, style: str, head: list[float], radius: float) -> Parts:
    """Return what breaks the wind: a sport's shell, a tourer's screen, a scooter's shield."""
    z, y = head[2], head[1]
    if style == "sport":
        shell = [
            (z - 0.2, 0.08, y - 0.16, y - 0.02),
            (z - 0.05, 0.24, y - 0.34, y + 0.08),
            (z + 0.1, 0.27, radius, y + 0.12),
            (z + 0.34, 0.2, radius - 0.02, y - 0.2),
        ]
        return [along_z(shell)]
    if style == "scooter":
        return [slab([0, 0.75 * radius, z + 0.12], [0, y - 0.05, z + 0.02], 0.3, 0.05)]
    if p.chance(0.5):
        high = p.between(0.12, 0.24)
        return [slab([0, y, z - 0.06], [0, y + high, z + 0.05], p.between(0.2, 0.34), 0.015)]
    return []


def _middle(
    p: Proportions, style: str, head: list[float], back: list[float], radius: float, saddle: float
) -> Parts:
    """Return what lies between the wheels: a scooter's body, else tank, engine and frame."""
    tank = 2 * radius + 0.06
    if style == "scooter":
        body = [
            (0.06, 0.1, radius, tank),
            (0.2, 0.26, 0.9 * radius, saddle + 0.04),
            (0.42, 0.2, radius, saddle),
        ]
        return [box([0, 0.85 * radius, -0.06], [0.2, 0.05, 0.34]), along_z(body, 4)]
    size = [p.between(0.07, 0.1), p.between(0.06, 0.1), p.between(0.14, 0.22)]
    return [
        ellipsoid([0, tank, -0.06], size),
        ellipsoid([0, radius + 0.08, -0.02], [p.between(0.08, 0.14), 0.13, 0.15]),
        box([0, radius - 0.04, 0.04], [0.17, 0.14, 0.24]),
        *path([head, [0, radius + 0.04, 0.08], back], 0.025),
    ]


def _saddle(p: Proportions, style: str, saddle: float) -> Parts:
    """Return the saddle, with or without a second seat and something to lean against."""
    drop, long = 0.1 if style == "cruiser" else 0.0, p.between(0.26, 0.42)
    parts = [cushion([0, saddle - drop, 0.1 + long / 2], [0.16, 0.07, long], 0.5)]
    if p.chance(0.5):
        parts += [cushion([0, saddle + 0.05 - drop / 2, 0.14 + long], [0.13, 0.07, 0.14], 0.5)]
    if style == "cruiser" and p.chance(0.5):
        parts += [slab([0, saddle, 0.2 + long], [0, saddle + 0.22, 0.26 + long], 0.14, 0.03)]
    return parts


def build_motorcycle(p: Proportions) -> Parts:
    """Build a motorcycle: a sport, a cruiser, an enduro, a scooter, or a plain one."""
    style = p.choice("plain", "sport", "cruiser", "enduro", "scooter", "cafe")
    radius = {"scooter": p.between(0.14, 0.18), "enduro": p.between(0.23, 0.27)}.get(
        style, p.between(0.2, 0.25)
    )
    base = p.between(0.6, 0.72) + {"cruiser": 0.16, "scooter": -0.04}.get(style, 0.04)
    thick = p.between(0.045, 0.085)
    rake = p.between(0.08, 0.16) + 0.14 * (style == "cruiser")
    front, back = [0.0, radius, -base / 2], [0.0, radius, base / 2]
    spokes = 0 if style == "scooter" and p.chance(0.5) else p.choice(3, 5, 6, 8, 10)
    small = p.between(0.8, 1.0) if style == "cruiser" else 1.0
    back[1] = small * radius
    parts = _spoked(p, front, radius, thick, spokes)
    parts += _spoked(p, back, small * radius, thick * p.between(1.0, 1.4), spokes)
    head = [0, 2 * radius + p.between(0.1, 0.22), -base / 2 + rake]
    if style == "scooter":
        head[1] += 0.18
    for x in (-0.06, 0.06):
        parts += [tube([x, *front[1:]], [x, *head[1:]], 0.02)]
    rise = {"cruiser": p.between(0.1, 0.26), "sport": -0.03, "cafe": -0.02}.get(
        style, p.between(0.02, 0.1)
    )
    grip = p.between(0.18, 0.3)
    parts += mirrored(tube([0, head[1], head[2]], [grip, head[1] + rise, head[2] + 0.1], 0.016))
    light = p.between(0.045, 0.075)
    parts += [ellipsoid([0, head[1] - 0.05, head[2] - 0.07], [light, light, light], 10)]
    saddle = 2 * radius + p.between(-0.02, 0.06)
    parts += _middle(p, style, head, back, radius, saddle)
    parts += _saddle(p, style, saddle)
    parts += mirrored(tube([0.05, saddle, 0.34], [0.05, *back[1:]], 0.018))
    pipe, lift = p.between(0.025, 0.045), p.between(-0.04, 0.2)
    exhaust = tube(
        [0.1, radius - 0.06, -0.1], [0.1, radius + lift, base / 2 + 0.1], 0.7 * pipe, pipe
    )
    parts += mirrored(exhaust) if p.chance(0.4) else [exhaust]
    parts += [_guard(back, small * radius, 0.045, 0.1, np.pi - p.between(0.6, 1.2))]
    if style == "enduro":
        parts += [
            slab([0, 2.3 * radius, -base / 2 - 0.16], [0, 2.35 * radius, head[2] + 0.05], 0.1, 0.02)
        ]
    else:
        parts += [_guard(front, radius, 0.045, np.pi / 2 - 0.5, np.pi + 0.3)]
    if style in ("plain", "cruiser") and p.chance(0.35):
        parts += mirrored(cushion([0.17, saddle - 0.08, base / 2], [0.12, 0.22, 0.3], 0.4))
    return parts + _fairing(p, style, head, radius)
