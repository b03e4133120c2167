from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mitsuba", reason="mitsuba renders the set: pip install 'fastssl[synthetic]'")

from fastssl.errors import InputError
from fastssl.synthetic.scene import Thing, draw_scene
from fastssl.synthetic.shapes import build_model
from fastssl.synthetic.trace import (
    SCALAR,
    Tracer,
    choose_variant,
    to_srgb,
    to_study_depth,
)
from fastssl.synthetic.variants import Variant

SIZE = 32
# The camera of the study: place, direction, half of what it sees.
CAMERA, TILT, HALF = np.array([1.0, 0.0, 0.4]), 0.36 * math.pi, 18 / 50
CUBE = (
    np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]),
    np.array(
        [
            *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
            *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
        ],
        np.uint32,
    ),
)


@pytest.fixture(scope="module")
def tracer():
    return Tracer(SIZE, 4)


def draw(index, name="0100"):
    return draw_scene(0, index, Variant.parse(name), (24,) * 10, 100)


def models_of(scene):
    return [build_model(thing.class_name, thing.model) for thing in scene.things]


def checks(number):
    """Half of the texture white, half black."""
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:, :4] = 255
    return texture if number else 255 - texture


def project(point):
    """Column and row of the pixel that shows a point, and its depth."""
    forward = np.array([-math.sin(TILT), 0.0, -math.cos(TILT)])
    right, up = np.array([0.0, 1.0, 0.0]), np.array([-math.cos(TILT), 0.0, math.sin(TILT)])
    ray = np.asarray(point) - CAMERA
    depth = ray @ forward
    across, over = ray @ right / depth / HALF, ray @ up / depth / HALF
    return int((across + 1) / 2 * SIZE), int((1 - over) / 2 * SIZE), depth


def test_object_stands_in_the_middle_on_its_background(tracer):
    scene = draw(2)
    thing = replace(scene.things[0], rgb=(1.0, 0.0, 0.0))
    scene = replace(scene, things=(thing,), background_rgb=(0.0, 0.0, 1.0))
    rendering = tracer.render(scene, models_of(scene))
    picture = rendering.picture.astype(int)
    is_red = picture[..., 0] > picture[..., 2]
    assert is_red[12:20, 13:19].mean() > 0.9
    assert not is_red[:, 0].any()
    assert not is_red[:, -1].any()
    # They differ on edges alone, which a pixel's middle lies on one side of.
    assert (is_red != (rendering.segmentation > 0)).mean() < 0.05


def test_light_comes_from_where_the_scene_says(tracer):
    scene = draw(9)

    def balance(y):
        moved = replace(scene, light=(0.5, y, 0.6))
        lit = tracer.render(moved, models_of(scene)).picture.astype(float)
        return lit[:, 16:].mean() - lit[:, :16].mean()

    # The camera's right is +y.
    assert balance(1.2) > balance(-1.2) + 10


def test_depth_is_measured_along_the_camera_axis(tracer):
    """The background stands square to the camera: one depth, whatever the pixel."""
    scene = draw(5)
    rendering = tracer.render(scene, models_of(scene))
    plane = np.array([-3.0, 0.0, -1.2]) - CAMERA
    distance = plane @ [-math.sin(TILT), 0.0, -math.cos(TILT)]
    background = rendering.depth[rendering.segmentation == 0]
    # Half a step of float16 at 4 m is 2 mm; a centimetre is where mitsuba begins to measure.
    np.testing.assert_allclose(background.astype(float), distance, atol=0.0025)
    thing = rendering.depth[rendering.segmentation > 0]
    assert 0.6 < thing.min() < thing.max() < 1.8


def test_pixels_name_class_object_and_depth_of_what_they_show(tracer):
    places = [(0.0, -0.2, 0.0), (0.0, 0.2, 0.0), (-0.5, 0.0, -0.3), (0.2, 0.0, 0.1)]
    names = ["chair", "car", "car", "airplane"]
    things = [
        Thing(name, 0, (0.1, 0.1, 0.1), (0.0, 0.0, 0.0), place, (0.5, 0.5, 0.5))
        for name, place in zip(names, places, strict=True)
    ]
    scene = replace(draw(0, "0000-multi"), things=tuple(things))
    rendering = tracer.render(scene, [CUBE] * 4)
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        column, row, depth = project(place)
        assert rendering.instances[row, column] == 1 + number
        label = {"chair": 4, "car": 3, "airplane": 0}[name]
        assert rendering.segmentation[row, column] == 1 + label
        # A cube of 5.6 cm: its front is nearer than its middle by no more than its half diagonal.
        assert depth - 0.05 < rendering.depth[row, column] < depth
    is_thing = rendering.instances > 0
    np.testing.assert_array_equal(is_thing, rendering.segmentation > 0)


def test_normals_are_those_of_the_faces_that_are_seen(tracer):
    """Of a cube, whose faces are wound either way: its top and front, by the camera's axes."""
    thing = Thing("car", 0, (0.4, 0.4, 0.4), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
    rendering = tracer.render(replace(draw(0, "0000"), things=(thing,)), [CUBE])
    normals = rendering.normals / 127.5 - 1
    top = np.array([0.0, math.sin(TILT), math.cos(TILT)])
    front = np.array([0.0, -math.cos(TILT), math.sin(TILT)])
    of_cube = normals[rendering.segmentation > 0]
    is_near = [np.abs(of_cube - wanted).max(-1) < 0.01 for wanted in (top, front)]
    assert all(near.sum() > 10 for near in is_near)
    assert (is_near[0] | is_near[1]).all()
    assert (rendering.normals[rendering.segmentation == 0] == (128, 128, 255)).all()


def test_texture_covers_the_object_and_the_background(tracer):
    scene = draw(2, "1100")
    thing = replace(scene.things[0], texture=1)
    scene = replace(scene, things=(thing,), background_texture=0)
    rendering = tracer.render(scene, models_of(scene), checks)
    for mask in (rendering.segmentation > 0, rendering.segmentation == 0):
        levels = rendering.picture[mask].mean(-1)
        assert (levels < 30).mean() > 0.1
        assert (levels > 60).mean() > 0.1


def test_class_colour_is_two_fifths_of_a_textured_object(tracer):
    """Black texture: what is left is the colour, 0.4 of it where colour is easy, else nothing."""

    def brightness(name, rgb):
        scene = draw(2, name)
        thing = replace(scene.things[0], texture=0, rgb=rgb)
        scene = replace(scene, things=(thing,), background_texture=1)
        black = lambda number: np.full((4, 4, 3), 255 * (number == 1), np.uint8)  # noqa: E731
        rendering = tracer.render(scene, models_of(scene), black)
        return rendering.picture[rendering.segmentation > 0].astype(float).mean(0)

    easy, hard = brightness("1000", (1.0, 0.0, 0.0)), brightness("1100", (1.0, 0.0, 0.0))
    assert easy[0] > easy[2] + 40
    assert abs(hard[0] - hard[2]) < 3
    flat = brightness("1000", (0.4, 0.0, 0.0))
    assert flat[0] < easy[0] - 10


def test_study_depth_is_truncated_centimetres():
    depth = np.array([0.0, 0.999, 1.0, 2.549, 2.55, 4.3, -1.0], np.float32)
    assert to_study_depth(depth).tolist() == [0, 99, 100, 254, 255, 255, 0]


def test_srgb_curve_has_the_standards_values():
    linear = np.array([-1, 0, 0.0031308, 0.18, 0.5, 1, 7])
    assert to_srgb(linear).tolist() == [0, 0, 10, 118, 188, 255, 255]


def test_gpu_that_is_not_there_is_refused():
    if choose_variant("auto") != SCALAR:
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="take --renderer scalar_rgb"):
        choose_variant("cuda_ad_rgb")
