from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("trimesh", reason="trimesh builds the models: pip install 'fastssl[synthetic]'")

from fastssl.errors import InputError
from fastssl.randomness import Stream
from fastssl.synthetic.draws import Draws
from fastssl.synthetic.scene import Variant, draw_scene

GOLDEN = {
    "warp": (0.955756, 0.777175, 1.267068),
    "object_rgb": (0.696021, 0.090426, 0.63888),
    "background_rgb": (0.610247, 0.149692, 0.561014),
    "sampler_seed": 1207459787,
}
EASY, COLOR = Variant.parse("0000"), Variant.parse("0100")


def draw(index=0, variant=COLOR, seed=0):
    return draw_scene(seed, index, variant, 24)


def test_first_scene_is_golden():
    """One seed means the same scenes on every machine and in every version."""
    scene = draw(3)
    assert scene.file_name == "car/car_m00_000003.png"
    assert scene.warp == GOLDEN["warp"]
    assert scene.euler == (1.570796, 0.0, -0.523599)
    assert scene.light == (0.0, -0.719138, 1.316374)
    assert scene.object_rgb == GOLDEN["object_rgb"]
    assert scene.background_rgb == GOLDEN["background_rgb"]
    assert scene.sampler_seed == GOLDEN["sampler_seed"]


def test_classes_take_turns_and_a_model_stays_for_ten_images():
    scenes = [draw(index) for index in range(220)]
    assert [s.label for s in scenes[:12]] == [*range(10), 0, 1]
    cars = [s.model for s in scenes if s.class_name == "car"]
    assert cars == [0] * 10 + [1] * 10 + [2] * 2


def test_models_repeat_after_the_last():
    assert draw_scene(0, 200, COLOR, 2).model == 0


@pytest.mark.parametrize(
    ("digits", "fields"),
    [
        ("0100", {"object_rgb"}),
        ("0010", {"euler"}),
        ("0001", {"light"}),
        ("0111", {"object_rgb", "euler", "light"}),
    ],
)
def test_a_variant_changes_its_factors_alone(digits, fields):
    easy, hard = draw(17, EASY), draw(17, Variant.parse(digits))
    assert all(getattr(easy, name) != getattr(hard, name) for name in fields)
    assert replace(hard, **{name: getattr(easy, name) for name in fields}) == easy


def test_random_viewpoints_have_the_studys_spread():
    euler = np.array([draw(i, Variant.parse("0010")).euler for i in range(800)])
    np.testing.assert_allclose(euler.mean(0), [math.pi / 2, 0, -math.pi / 6], atol=0.08)
    np.testing.assert_allclose(euler.std(0), 0.5, atol=0.05)


def test_random_lights_stay_on_the_arc():
    light = np.array([draw(i, Variant.parse("0001")).light for i in range(200)])
    np.testing.assert_allclose(np.linalg.norm(light, axis=1), 1.5, atol=2e-6)
    assert np.ptp(light[:, 1]) > 2.9


def test_class_colours_cluster_by_class_and_random_colours_do_not():
    def spread_within_classes(variant):
        rgb = np.array([draw(i, variant).object_rgb for i in range(400)]).reshape(40, 10, 3)
        return (rgb.std(axis=0) ** 2).mean() / rgb.reshape(-1, 3).std(axis=0).mean() ** 2

    assert spread_within_classes(EASY) < 0.6
    assert spread_within_classes(COLOR) > 0.9


def test_warp_keeps_the_mean_and_the_limits():
    warp = np.array([draw(i).warp for i in range(300)])
    np.testing.assert_allclose(warp.mean(1), 1, atol=2e-6)
    assert warp.min() >= 0.5
    assert warp.max() <= 1.5
    assert warp.std() == pytest.approx(0.1 * math.sqrt(2 / 3), rel=0.1)


def test_seeds_give_other_scenes():
    assert draw(5, seed=1).object_rgb != draw(5, seed=2).object_rgb


def test_quaternion_and_matrix_are_the_same_turn():
    record = draw(3, Variant.parse("0111")).metadata()
    w, x, y, z = record["quaternion"]
    expected = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    # Both are rounded to six decimals.
    np.testing.assert_allclose(record["rot_mat"], expected, atol=5e-6)


def test_metadata_survives_json_and_names_the_studys_fields():
    record = draw(3).metadata()
    assert json.loads(json.dumps(record)) == record
    assert {"class", "rot_mat", "quaternion", "euler", "bbox", "scale", "location", "light"} <= set(
        record
    )


def test_unwarped_object_has_the_studys_size():
    scene = replace(draw(), warp=(1.0, 1.0, 1.0))
    assert np.ptp(scene.vertices(), axis=0).max() == pytest.approx(0.56, abs=1e-5)


def test_up_axis_of_a_model_points_up_in_the_world():
    np.testing.assert_allclose(draw().rotation() @ [0, 1, 0], [0, 0, 1], atol=1e-6)


def test_normal_deviates_have_the_moments_of_a_normal():
    values = np.array([Draws(7, 0, i, Stream.SCENE).normal(10) for i in range(4000)])
    # Four standard errors.
    assert abs(values.mean()) < 4 / math.sqrt(4000)
    assert abs(values.std() - 1) < 4 / math.sqrt(8000)
    assert abs(np.mean(values**4) - 3) < 4 * math.sqrt(96 / 4000)


@pytest.mark.parametrize("digits", ["", "010", "01000", "0200", "abcd"])
def test_malformed_variant_is_refused(digits):
    with pytest.raises(InputError, match="four digits"):
        Variant.parse(digits)


def test_texture_is_refused_with_the_nearest_variant():
    with pytest.raises(InputError, match="take 0110"):
        Variant.parse("1110")


@pytest.mark.parametrize("digits", ["0000", "0100", "0111"])
def test_variant_prints_its_digits(digits):
    assert str(Variant.parse(digits)) == digits
