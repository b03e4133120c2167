"""What a scene is: every number of one image, before anything is rendered.

The rules are those of Newell and Deng 2020 (their released renderer): placement, warp, viewpoint,
light, colours and textures. Lengths are metres, angles radians, z up, the camera at +x. All numbers
are rounded to six decimals and a scene is defined by the rounded ones, so that one seed means the
same scenes on every machine.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..randomness import Stream
from .draws import Draws
from .shapes import CLASSES
from .variants import Variant

FRAMES_PER_MODEL = 10
"""Consecutive images of a class that show the same model, as in the study."""
FRAMES_PER_GROUP = 20
"""Consecutive images that show the same four models, as in the study."""
OBJECTS = 4
"""Objects of a scene that has several."""
BUCKETS = 12
"""Parts that the models of a class are dealt into; ten train, one validates, one tests."""
SPLITS = ("train", "val", "test")
"""Names of the parts of a set; no model is in two of them."""
POSES = ("up", "left", "away", "right", "towards")
"""Names of the pose bins: where the object's up axis points, seen from the camera."""

LARGEST_SIDE = 0.7 * 0.8
"""Largest side of an object before it is warped."""
BASE_EULER = (math.pi / 2, 0.0, -math.pi / 6)
VIEWPOINT_SIGMA = 0.5
LIGHT_RADIUS, LIGHT_ANGLE = 1.5, -0.5
LIGHT_SPREAD = 2.0
WARP = 0.1
COLOR_SHARE = 0.4
"""Part of the class's colour in a textured object, where colour is easy."""
# A chain of places, before it is shrunk by five: its steps, and how near two places may come.
_STEP, _STEP_SIGMA, _NEAREST, _ATTEMPTS, _SHRINK = 1.75, 0.175, 1.25, 10, 5.0
_LIFT_SIGMA, _MIDDLE = 0.05, (0.05, 0.0, 0.05)

# Slots of an image's draws. A normal deviate takes two.
_BACKGROUND, _OBJECT, _HUE, _WARP, _VIEWPOINT, _LIGHT, _SAMPLER, _TEXTURE = (
    *(0, 3, 6, 12),
    *(18, 24, 26, 28),
)
# What stands in the place of an epoch. Object k > 0 has the draws _FIRST_OBJECT + k - 1.
_SCENE, _CLASS, _FIRST_OBJECT, _PLACES, _MODELS = 0, 1, 2, 16, 17

Triple = tuple[float, float, float]


def split_of(model: int) -> str:
    """Return the part of a set that a model is in: its number modulo 12 is its bucket.

    Args:
        model: number of the model in its class.

    Returns:
        ``train`` for ten buckets of twelve, ``val`` for one, ``test`` for one.
    """
    return SPLITS[max(0, model % BUCKETS - BUCKETS + 3)]


def pose_bin(rotation: ArrayLike) -> int:
    """Return where an object's up axis points (Newell and Deng 2020, released code).

    Args:
        rotation: (3, 3), model axes to world axes.

    Returns:
        0 up (less than pi/8 from the vertical), else 1 to the left of the image, 2 away from the
        camera, 3 to the right, 4 towards the camera. Turns around the up axis do not count.
    """
    x, y, z = np.asarray(rotation, np.float64)[:, 1]
    if math.atan2(math.hypot(x, y), z) < math.pi / 8:
        return 0
    angle = math.atan2(x, y)
    if abs(angle) >= 3 * math.pi / 4:
        return 1
    if angle < -math.pi / 4:
        return 2
    return 3 if angle < math.pi / 4 else 4


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    class_name: str
    """One of ``CLASSES``."""
    model: int
    """Number of the model in its class."""
    warp: Triple
    """Stretch along the object's own axes, 0.5 .. 1.5."""
    euler: Triple
    """Angles around the fixed axes x, y, z, applied in this order."""
    location: Triple
    """Where its centre stands."""
    rgb: Triple
    """Linear base colour, 0 .. 1."""
    texture: int | None = None
    """Number of its texture; None for flat colour."""

    @property
    def label(self) -> int:
        """Return the number of the class."""
        return CLASSES.index(self.class_name)

    @property
    def group(self) -> str:
        """Return the name of the model among all classes, such as ``car_m07``."""
        return f"{self.class_name}_m{self.model:02d}"

    @property
    def group_number(self) -> int:
        """Return the number of the model among all classes; modulo 10 it is the class."""
        return self.model * len(CLASSES) + self.label

    def rotation(self) -> NDArray[np.float64]:
        """Return the 3x3 matrix that turns model axes into world axes."""
        x, y, z = (_turn(axis, angle) for axis, angle in enumerate(self.euler))
        return z @ y @ x

    def scale(self) -> NDArray[np.float64]:
        """Return the factors (3,) from a model of largest side 1 to the object."""
        return LARGEST_SIDE * np.array(self.warp)

    def place(self, vertices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where a model's vertices (V, 3) stand in the world."""
        return (vertices * self.scale()) @ self.rotation().T + np.array(self.location)

    def metadata(self, vertices: NDArray[np.float64]) -> dict:
        """Return the record of the object, ready for JSON.

        Args:
            vertices: (V, 3) of its model.
        """
        rotation = self.rotation()
        box = np.stack([vertices.min(0), vertices.max(0)]) * self.scale()
        return {
            "class": self.class_name,
            "label": self.label,
            "model": self.model,
            "group": self.group,
            "group_number": self.group_number,
            "pose": pose_bin(rotation),
            "rot_mat": _rounded(rotation),
            "quaternion": _rounded(_quaternion(self.euler)),
            "euler": list(self.euler),
            "bbox": _rounded(box),
            "scale": _rounded(self.scale()),
            "location": list(self.location),
            "object_rgb": list(self.rgb),
            "texture": self.texture,
        }


@dataclass(frozen=True)
class Scene:
    """One image's scene."""

    index: int
    """Number of the image in its set."""
    variant: Variant
    """What the set is."""
    things: tuple[Thing, ...]
    """The objects, one or four."""
    light: Triple
    """Centre of the light."""
    background_rgb: Triple
    """Linear base colour, 0 .. 1."""
    background_texture: int | None
    """Number of the background's texture; None for flat colour."""
    sampler_seed: int
    """Seed of the path tracer's sampler."""

    @property
    def split(self) -> str:
        """Return the part of the set that the image is in; all its models are in that part."""
        return split_of(self.things[0].model)

    @property
    def file_name(self) -> str:
        """Return where the image stands below a set's folder."""
        if self.variant.is_multi:
            return f"scenes/scene_{self.index:06d}.png"
        thing = self.things[0]
        return f"{thing.class_name}/{thing.group}_{self.index:06d}.png"

    def metadata(self, models: Sequence[NDArray[np.float64]]) -> dict:
        """Return the record of the image, ready for JSON; numbers rounded to six decimals.

        Args:
            models: vertices (V, 3) of each object's model.

        Returns:
            What the whole image has, and of its object what it has; of several the list
            ``objects``.
        """
        things = [t.metadata(v) for t, v in zip(self.things, models, strict=True)]
        return {
            "file": self.file_name,
            "index": self.index,
            "variant": str(self.variant),
            "split": self.split,
            "light": list(self.light),
            "background_rgb": list(self.background_rgb),
            "background_texture": self.background_texture,
            **({"objects": things} if self.variant.is_multi else things[0]),
        }


def draw_scene(
    seed: int,
    index: int,
    variant: Variant,
    num_models: Sequence[int],
    num_textures: int,
) -> Scene:
    """Draw the scene of one image, a pure function of its arguments.

    One object: classes take turns, so every ten consecutive images show all of them; within a class
    the model changes every ten images. Several: four models of one bucket stay for twenty images,
    classes drawn with replacement. A factor that a variant does not switch is equal in both.

    Args:
        seed: of the set, 0 .. 2**64 - 1.
        index: number of the image, from 0.
        variant: which factors are random.
        num_models: models of each class, 10 numbers; of several objects each at least 12.
        num_textures: textures to choose from, at least 5.
    """
    draws = Draws(seed, _SCENE, index, Stream.SCENE)
    angle = LIGHT_ANGLE
    if variant.random_light:
        angle += LIGHT_SPREAD * draws.normal(_LIGHT)
    light = [0.0, LIGHT_RADIUS * math.sin(angle), LIGHT_RADIUS * math.cos(angle)]
    if variant.is_multi:
        models = _draw_models(seed, index // FRAMES_PER_GROUP, num_models)
        places = _draw_places(Draws(seed, _PLACES, index, Stream.SCENE))
    else:
        label, frame = index % len(CLASSES), index // len(CLASSES)
        models = [(label, frame // FRAMES_PER_MODEL % num_models[label])]
        places = [(0.0, 0.0, 0.0)]
    textures = _draw_textures(draws, variant, len(models), num_textures)
    things = []
    for number, ((label, model), place) in enumerate(zip(models, places, strict=True)):
        own = Draws(seed, _FIRST_OBJECT + number - 1, index, Stream.SCENE) if number else draws
        things += [_draw_thing(own, seed, label, model, place, textures[1 + number], variant)]
    return Scene(
        index=index,
        variant=variant,
        things=tuple(things),
        light=_triple(light),
        background_rgb=_triple([draws.unit(_BACKGROUND + i) for i in range(3)]),
        background_texture=textures[0],
        sampler_seed=draws.below(_SAMPLER, 2**31),
    )


def _draw_thing(
    draws: Draws,
    seed: int,
    label: int,
    model: int,
    place: Triple,
    texture: int | None,
    variant: Variant,
) -> Thing:
    """Draw what is an object's own."""
    normals = [[draws.normal(at + 2 * axis) for axis in range(3)] for at in (_WARP, _VIEWPOINT)]
    warp = np.array(normals[0])
    euler = np.array(BASE_EULER)
    if variant.random_viewpoint:
        euler = euler + VIEWPOINT_SIGMA * np.array(normals[1])
    return Thing(
        class_name=CLASSES[label],
        model=model,
        # Without the mean the object keeps its size; the study warps every object.
        warp=_triple(np.clip(1 + WARP * (warp - warp.mean()), 0.5, 1.5)),
        euler=_triple(euler),
        location=place,
        rgb=_object_color(draws, seed, label, variant),
        texture=texture,
    )


@lru_cache(len(CLASSES))
def class_color(seed: int, label: int) -> Triple:
    """Return hue, saturation and value of a class in the sets of a seed, each 0 .. 1."""
    reference = Draws(seed, _CLASS, label, Stream.SCENE)
    hue, saturation, value = (reference.unit(i) for i in range(3))
    return hue, 0.2 + 0.8 * saturation, 0.6 + 0.4 * value


def _object_color(draws: Draws, seed: int, label: int, variant: Variant) -> Triple:
    """Return a uniform colour, or one near the hue that the class has in the whole set."""
    if variant.random_color:
        return _triple([draws.unit(_OBJECT + i) for i in range(3)])
    hue, saturation, value = class_color(seed, label)
    noise = [draws.normal(_HUE + 2 * i) for i in range(3)]
    # 0.06 and 0.2 are the study's spreads of hue and of saturation and value.
    saturation = float(np.clip(saturation + 0.2 * noise[1], 0, 1))
    value = float(np.clip(value + 0.2 * noise[2], 0, 1))
    return _triple(colorsys.hsv_to_rgb((hue + 0.06 * noise[0]) % 1, saturation, value))


def _draw_textures(
    draws: Draws, variant: Variant, num_objects: int, num_textures: int
) -> list[int | None]:
    """Draw distinct textures for the background and each object; None where all is flat."""
    if not variant.random_texture:
        return [None] * (1 + num_objects)
    chosen: list[int] = []
    for number in range(1 + num_objects):
        texture = draws.below(_TEXTURE + number, num_textures - number)
        for other in sorted(chosen):  # the numbers that are left, counted from 0
            texture += texture >= other
        chosen.append(texture)
    return list(chosen)


def _draw_models(seed: int, group: int, num_models: Sequence[int]) -> list[tuple[int, int]]:
    """Draw the (class, model) of each of four objects, all of the group's bucket."""
    draws = Draws(seed, _MODELS, group, Stream.SCENE)
    bucket = group % BUCKETS
    models = []
    for number in range(OBJECTS):
        label = draws.below(2 * number, len(CLASSES))
        in_bucket = -(-(num_models[label] - bucket) // BUCKETS)
        models += [(label, bucket + BUCKETS * draws.below(2 * number + 1, in_bucket))]
    return models


def _draw_places(draws: Draws) -> list[Triple]:
    """Draw where four objects stand: a chain of places on the ground, shuffled and shrunk."""
    slot, places = 0, [np.zeros(2)]
    for _ in range(OBJECTS - 1):
        start = slot
        for attempt in range(_ATTEMPTS):
            slot = start + 3 * attempt
            step = _STEP + _STEP_SIGMA * draws.normal(slot)
            angle = 2 * math.pi * draws.unit(slot + 2)
            place = places[-1] + step * np.array([math.cos(angle), math.sin(angle)])
            if min(math.dist(place, other) for other in places) >= _NEAREST:
                break
        places.append(place)
        slot = start + 3 * _ATTEMPTS
    flat = (np.array(places) - np.mean(places, axis=0)) / _SHRINK
    order = list(range(OBJECTS))
    for last in range(OBJECTS - 1, 0, -1):
        other = draws.below(slot + last, last + 1)
        order[last], order[other] = order[other], order[last]
    lift = [_LIFT_SIGMA * draws.normal(slot + OBJECTS + 2 * i) for i in range(OBJECTS)]
    return [
        _triple([flat[at, 0] + _MIDDLE[0], flat[at, 1] + _MIDDLE[1], lift[i] + _MIDDLE[2]])
        for i, at in enumerate(order)
    ]


def _rounded(values: ArrayLike) -> list:
    """Return nested lists of floats with six decimals and no minus before a zero."""
    return (np.round(np.asarray(values, np.float64), 6) + 0.0).tolist()


def _triple(values: ArrayLike) -> Triple:
    x, y, z = _rounded(values)
    return x, y, z


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
