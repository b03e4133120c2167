"""What a scene is: every number of one image, before anything is rendered.

The rules are those of Newell and Deng 2020 (their released renderer, single-object form):
placement, warp, viewpoint, light and colours. Lengths are metres, angles radians, z up, the camera
at +x. All numbers are rounded to six decimals and a scene is defined by the rounded ones, so that
one seed means the same scenes on every machine.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..randomness import Stream
from .draws import Draws
from .shapes import CLASSES, build_model

FRAMES_PER_MODEL = 10
"""Consecutive images of a class that show the same model, as in the study."""
LARGEST_SIDE = 0.7 * 0.8
"""Largest side of an object before it is warped."""
BASE_EULER = (math.pi / 2, 0.0, -math.pi / 6)
VIEWPOINT_SIGMA = 0.5
LIGHT_RADIUS, LIGHT_ANGLE = 1.5, -0.5
LIGHT_SPREAD = 2.0
WARP = 0.1

# Slots of an image's draws. A normal deviate takes two.
_BACKGROUND, _OBJECT, _HUE, _WARP, _VIEWPOINT, _LIGHT, _SAMPLER = 0, 3, 6, 12, 18, 24, 26


@dataclass(frozen=True)
class Variant:
    """Which factors of a set are hard: the four digits TCVL of the study's names."""

    random_color: bool
    """C: a random colour for each object, else the hue of its class."""
    random_viewpoint: bool
    """V: turn each object by normal deviates of 0.5 rad."""
    random_light: bool
    """L: move the light along its arc by normal deviates of 2 rad."""

    @classmethod
    def parse(cls, digits: str) -> Variant:
        """Read the four digits, 1 for hard and 0 for easy.

        Args:
            digits: texture, colour, viewpoint, light; "0100" varies the colour alone.

        Raises:
            InputError: if these are not four digits 0 or 1, or texture is asked for.
        """
        if len(digits) != 4 or set(digits) - {"0", "1"}:
            raise InputError(
                f"variant ('{digits}') must be four digits 0 or 1: texture, colour, viewpoint, "
                "light; the demo takes 0100"
            )
        if digits[0] == "1":
            raise InputError(
                f"variant ('{digits}') asks for textures, which are not there yet; "
                f"take 0{digits[1:]}"
            )
        return cls(*(digit == "1" for digit in digits[1:]))

    def __str__(self) -> str:
        """Return the four digits."""
        factors = (False, self.random_color, self.random_viewpoint, self.random_light)
        return "".join("01"[factor] for factor in factors)


@dataclass(frozen=True)
class Scene:
    """One image's scene."""

    index: int
    """Number of the image in its set."""
    class_name: str
    """One of ``CLASSES``."""
    model: int
    """Number of the model in its class."""
    warp: tuple[float, float, float]
    """Stretch along the object's own axes, 0.5 .. 1.5."""
    euler: tuple[float, float, float]
    """Angles around the fixed axes x, y, z, applied in this order."""
    light: tuple[float, float, float]
    """Centre of the light."""
    object_rgb: tuple[float, float, float]
    """Linear base colour, 0 .. 1."""
    background_rgb: tuple[float, float, float]
    """Linear base colour, 0 .. 1."""
    sampler_seed: int
    """Seed of the path tracer's sampler."""

    @property
    def label(self) -> int:
        """Return the number of the class."""
        return CLASSES.index(self.class_name)

    @property
    def group(self) -> str:
        """Return the name of the model among all classes, such as ``car_m07``."""
        return f"{self.class_name}_m{self.model:02d}"

    @property
    def file_name(self) -> str:
        """Return where the image stands below a set's folder."""
        return f"{self.class_name}/{self.group}_{self.index:06d}.png"

    def rotation(self) -> NDArray[np.float64]:
        """Return the 3x3 matrix that turns model axes into world axes."""
        x, y, z = (_turn(axis, angle) for axis, angle in enumerate(self.euler))
        return z @ y @ x

    def vertices(self) -> NDArray[np.float64]:
        """Return the object's vertices (V, 3) in the model's axes, scaled and warped."""
        return build_model(self.class_name, self.model)[0] * LARGEST_SIDE * np.array(self.warp)

    def metadata(self) -> dict:
        """Return the record of the image, ready for JSON; numbers rounded to six decimals."""
        box = self.vertices()
        return {
            "file": self.file_name,
            "index": self.index,
            "class": self.class_name,
            "label": self.label,
            "model": self.model,
            "group": self.group,
            "rot_mat": _rounded(self.rotation()),
            "quaternion": _rounded(_quaternion(self.euler)),
            "euler": list(self.euler),
            "bbox": _rounded([box.min(0), box.max(0)]),
            "scale": _rounded(LARGEST_SIDE * np.array(self.warp)),
            "location": [0.0, 0.0, 0.0],
            "light": list(self.light),
            "object_rgb": list(self.object_rgb),
            "background_rgb": list(self.background_rgb),
        }


def draw_scene(seed: int, index: int, variant: Variant, models_per_class: int) -> Scene:
    """Draw the scene of one image, a pure function of its arguments.

    Classes take turns, so every ten consecutive images show all of them; within a class the model
    changes every ten images. A factor that a variant does not switch is equal in both.

    Args:
        seed: of the set, 0 .. 2**64 - 1.
        index: number of the image, from 0.
        variant: which factors are random.
        models_per_class: models that a class cycles through.
    """
    draws = Draws(seed, 0, index, Stream.SCENE)
    label, frame = index % len(CLASSES), index // len(CLASSES)
    normals = [[draws.normal(at + 2 * axis) for axis in range(3)] for at in (_WARP, _VIEWPOINT)]
    warp = np.array(normals[0])
    euler = np.array(BASE_EULER)
    if variant.random_viewpoint:
        euler = euler + VIEWPOINT_SIGMA * np.array(normals[1])
    angle = LIGHT_ANGLE
    if variant.random_light:
        angle += LIGHT_SPREAD * draws.normal(_LIGHT)
    light = [0.0, LIGHT_RADIUS * math.sin(angle), LIGHT_RADIUS * math.cos(angle)]
    return Scene(
        index=index,
        class_name=CLASSES[label],
        model=frame // FRAMES_PER_MODEL % models_per_class,
        # Without the mean the object keeps its size; the study warps every object.
        warp=tuple(_rounded(np.clip(1 + WARP * (warp - warp.mean()), 0.5, 1.5))),
        euler=tuple(_rounded(euler)),
        light=tuple(_rounded(light)),
        object_rgb=_object_color(draws, seed, label, variant),
        background_rgb=tuple(_rounded([draws.unit(_BACKGROUND + i) for i in range(3)])),
        sampler_seed=draws.below(_SAMPLER, 2**31),
    )


def _object_color(
    draws: Draws, seed: int, label: int, variant: Variant
) -> tuple[float, float, float]:
    """Return a uniform colour, or one near the hue that the class has in the whole set."""
    if variant.random_color:
        return tuple(_rounded([draws.unit(_OBJECT + i) for i in range(3)]))
    reference = Draws(seed, 1, label, Stream.SCENE)
    hue, saturation, value = (reference.unit(i) for i in range(3))
    noise = [draws.normal(_HUE + 2 * i) for i in range(3)]
    # 0.06 and 0.2 are the study's spreads of hue and of saturation and value.
    saturation = np.clip(0.2 + 0.8 * saturation + 0.2 * noise[1], 0, 1)
    value = np.clip(0.6 + 0.4 * value + 0.2 * noise[2], 0, 1)
    rgb = colorsys.hsv_to_rgb((hue + 0.06 * noise[0]) % 1, float(saturation), float(value))
    return tuple(_rounded(rgb))


def _rounded(values: object) -> list:
    """Return nested lists of floats with six decimals and no minus before a zero."""
    return (np.round(np.asarray(values, np.float64), 6) + 0.0).tolist()


def _turn(axis: int, angle: float) -> NDArray[np.float64]:
    """Return the matrix of a turn around one axis."""
    matrix = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
    return matrix


def _quaternion(euler: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return (w, x, y, z) of turns around the fixed axes x, y, z, w >= 0."""
    product = np.array([1.0, 0, 0, 0])
    for axis, angle in enumerate(euler):
        half = np.zeros(4)
        half[0], half[1 + axis] = math.cos(angle / 2), math.sin(angle / 2)
        w, v = half[0], half[1:]
        product = np.array(
            [
                w * product[0] - v @ product[1:],
                *(w * product[1:] + product[0] * v + np.cross(v, product[1:])),
            ]
        )
    return -product if product[0] < 0 else product
