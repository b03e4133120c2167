from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("trimesh", reason="trimesh builds the models: pip install 'fastssl[synthetic]'")

from fastssl.randomness import Stream
from fastssl.synthetic.draws import Draws
from fastssl.synthetic.scene import _STEP, OBJECTS, Thing, draw_scene, pose_bin, split_of
from fastssl.synthetic.shapes import CLASSES, build_model
from fastssl.synthetic.variants import Variant

GOLDEN = {
    "warp": (0.955756, 0.777175, 1.267068),
    "rgb": (0.696021, 0.090426, 0.63888),
    "background_rgb": (0.610247, 0.149692, 0.561014),
    "sampler_seed": 1207459787,
}
EASY, COLOR, HARD = (Variant.parse(name) for name in ("0000", "0100", "1111"))
MULTI = Variant.parse("1111-multi")


def draw(index=0, variant=COLOR, seed=0, models=24, textures=100):
    return draw_scene(seed, index, variant, (models,) * 10, textures)


def record_of(scene):
    return scene.metadata([build_model(t.class_name, t.model)[0] for t in scene.things])


def test_first_scene_is_golden():
    """One seed means the same scenes on every machine and in every version."""
    scene = draw(3)
    (thing,) = scene.things
    assert scene.file_name == "car/car_m00_000003.png"
    assert thing.warp == GOLDEN["warp"]
    assert thing.euler == (1.570796, 0.0, -0.523599)
    assert scene.light == (0.0, -0.719138, 1.316374)
    assert thing.rgb == GOLDEN["rgb"]
    assert scene.background_rgb == GOLDEN["background_rgb"]
    assert scene.sampler_seed == GOLDEN["sampler_seed"]


def test_classes_take_turns_and_a_model_stays_for_ten_images():
    things = [draw(index).things[0] for index in range(220)]
    assert [t.label for t in things[:12]] == [*range(10), 0, 1]
    cars = [t.model for t in things if t.class_name == "car"]
    assert cars == [0] * 10 + [1] * 10 + [2] * 2


def test_models_repeat_after_the_last():
    assert draw(200, models=2).things[0].model == 0


@pytest.mark.parametrize(
    ("digits", "of_scene", "of_thing"),
    [
        ("1000", {"background_texture"}, {"texture"}),
        ("0100", set(), {"rgb"}),
        ("0010", set(), {"euler"}),
        ("0001", {"light"}, set()),
        ("0111", {"light"}, {"rgb", "euler"}),
    ],
)
def test_a_variant_changes_its_factors_alone(digits, of_scene, of_thing):
    easy, hard = draw(17, EASY), draw(17, Variant.parse(digits))
    thing, other = easy.things[0], hard.things[0]
    assert all(getattr(easy, name) != getattr(hard, name) for name in of_scene)
    assert all(getattr(thing, name) != getattr(other, name) for name in of_thing)
    same = replace(other, **{name: getattr(thing, name) for name in of_thing})
    kept = {name: getattr(easy, name) for name in of_scene}
    assert replace(hard, **kept, variant=EASY, things=(same,)) == easy


def test_random_viewpoints_have_the_studys_spread():
    euler = np.array([draw(i, Variant.parse("0010")).things[0].euler for i in range(800)])
    np.testing.assert_allclose(euler.mean(0), [math.pi / 2, 0, -math.pi / 6], atol=0.08)
    np.testing.assert_allclose(euler.std(0), 0.5, atol=0.05)


def test_random_lights_stay_on_the_arc():
    light = np.array([draw(i, Variant.parse("0001")).light for i in range(200)])
    np.testing.assert_allclose(np.linalg.norm(light, axis=1), 1.5, atol=2e-6)
    assert np.ptp(light[:, 1]) > 2.9


def test_class_colours_cluster_by_class_and_random_colours_do_not():
    def spread_within_classes(variant):
        rgb = np.array([draw(i, variant).things[0].rgb for i in range(400)]).reshape(40, 10, 3)
        return (rgb.std(axis=0) ** 2).mean() / rgb.reshape(-1, 3).std(axis=0).mean() ** 2

    assert spread_within_classes(EASY) < 0.6
    assert spread_within_classes(COLOR) > 0.9


def test_colours_have_hues():
    """The study's released code paints grey by a leftover line; its figures do not."""
    rgb = np.array([draw(i, EASY).things[0].rgb for i in range(100)])
    assert np.ptp(rgb, axis=1).mean() > 0.3


def test_warp_keeps_the_mean_and_the_limits():
    warp = np.array([draw(i).things[0].warp for i in range(300)])
    np.testing.assert_allclose(warp.mean(1), 1, atol=2e-6)
    assert warp.min() >= 0.5
    assert warp.max() <= 1.5
    assert warp.std() == pytest.approx(0.1 * math.sqrt(2 / 3), rel=0.1)


def test_seeds_give_other_scenes():
    assert draw(5, seed=1).things != draw(5, seed=2).things


def test_textures_of_a_scene_are_distinct_and_uniform():
    drawn = []
    for index in range(300):
        scene = draw(index, HARD, textures=5)
        drawn += [(scene.background_texture, scene.things[0].texture)]
        four = draw(index, MULTI, textures=5)
        assert {four.background_texture, *(t.texture for t in four.things)} == set(range(5))
    assert all(background != texture for background, texture in drawn)
    counts = np.bincount(np.ravel(drawn), minlength=5)
    # 600 draws of five: four standard deviations are 39.
    assert np.abs(counts - 120).max() < 40


# --- Poses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("up", "bin_"),
    [
        ((0, 0, 1), 0),
        ((0, math.sin(0.39), math.cos(0.39)), 0),
        ((0, math.sin(0.40), math.cos(0.40)), 3),
        ((0, -1, 0), 1),
        ((-1, 0, 0), 2),
        ((0, 1, 0), 3),
        ((1, 0, 0), 4),
        ((0.9, 0, -0.5), 4),
        ((-0.6, -0.61, 0), 1),
        ((-0.61, -0.6, 0), 2),
        ((0.6, 0.61, 0.1), 3),
        ((0.61, 0.6, 0.1), 4),
    ],
)
def test_pose_is_where_the_up_axis_points(up, bin_):
    rotation = np.zeros((3, 3))
    rotation[:, 1] = up
    assert pose_bin(rotation) == bin_


def test_pose_does_not_see_turns_around_the_up_axis():
    thing = draw(0, HARD).things[0]
    turn = np.array([[0.6, 0, 0.8], [0, 1, 0], [-0.8, 0, 0.6]])
    assert pose_bin(thing.rotation() @ turn) == pose_bin(thing.rotation())


def test_poses_have_the_studys_shares():
    rotations = [draw(i, Variant.parse("0010")).things[0].rotation() for i in range(4000)]
    shares = np.bincount([pose_bin(r) for r in rotations], minlength=5) / 4000
    # Four standard errors of the largest share.
    np.testing.assert_allclose(shares, [0.267, 0.191, 0.179, 0.188, 0.175], atol=0.028)


def test_fixed_views_are_all_upright():
    assert {pose_bin(draw(i).things[0].rotation()) for i in range(30)} == {0}


# --- Splits ---------------------------------------------------------------------------------------


def test_ten_of_twelve_models_train():
    splits = [split_of(model) for model in range(24)]
    assert splits == (["train"] * 10 + ["val", "test"]) * 2


def test_models_of_a_scene_are_in_one_split_and_stay_for_twenty_images():
    scenes = [draw(i, MULTI, models=240) for i in range(480)]
    for scene in scenes:
        assert {split_of(t.model) for t in scene.things} == {scene.split}
    models = [[(t.class_name, t.model) for t in scene.things] for scene in scenes]
    assert all(m == models[20 * (i // 20)] for i, m in enumerate(models))
    assert len({str(m) for m in models}) == 24
    shares = [sum(s.split == name for s in scenes) for name in ("train", "val", "test")]
    assert shares == [400, 40, 40]


def test_classes_of_a_scene_are_drawn_with_replacement():
    labels = np.array([[t.label for t in draw(20 * i, MULTI).things] for i in range(300)])
    assert np.bincount(labels.ravel(), minlength=10).min() > 80
    # Of four of ten, 49.6 % have a repeat.
    has_repeat = np.mean([len(set(row)) < OBJECTS for row in labels])
    assert has_repeat == pytest.approx(0.496, abs=0.12)


def test_places_follow_the_chain():
    places = np.array([[t.location for t in draw(i, MULTI).things] for i in range(400)])
    # The middle of four places, which the chain's centre becomes.
    np.testing.assert_allclose(places[..., :2].mean(1) - [0.05, 0.0], 0, atol=2e-6)
    assert places[..., 2].mean() == pytest.approx(0.05, abs=0.006)
    assert places[..., 2].std() == pytest.approx(0.05, rel=0.1)
    flat = places[..., :2]
    apart = np.linalg.norm(flat[:, :, None] - flat[:, None], axis=-1)[:, *np.triu_indices(4, 1)]
    # A step is 0.35; nearer than 0.25 only where ten attempts failed.
    assert (apart < 0.25 - 1e-6).mean() < 0.01
    assert np.sort(apart, axis=1)[:, 2].mean() == pytest.approx(_STEP / 5, rel=0.1)


def test_objects_of_a_scene_have_their_own_draws():
    things = draw(7, MULTI).things
    for name in ("warp", "euler", "rgb", "texture", "location"):
        assert len({getattr(thing, name) for thing in things}) == OBJECTS


# --- Records --------------------------------------------------------------------------------------


def test_quaternion_and_matrix_are_the_same_turn():
    record = record_of(draw(3, Variant.parse("0111")))
    w, x, y, z = record["quaternion"]
    expected = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    # Both are rounded to six decimals.
    np.testing.assert_allclose(record["rot_mat"], expected, atol=5e-6)


def test_metadata_survives_json_and_names_the_studys_fields():
    record = record_of(draw(3))
    assert json.loads(json.dumps(record)) == record
    wanted = {"class", "rot_mat", "quaternion", "euler", "bbox", "scale", "location", "light"}
    assert wanted <= set(record)
    objects = record_of(draw(3, MULTI))["objects"]
    assert len(objects) == OBJECTS
    assert wanted - {"light"} <= set(objects[0])


def test_unwarped_object_has_the_studys_size():
    thing = replace(draw().things[0], warp=(1.0, 1.0, 1.0), euler=(0.0, 0.0, 0.0))
    vertices = thing.place(build_model(thing.class_name, thing.model)[0])
    assert np.ptp(vertices, axis=0).max() == pytest.approx(0.56, abs=1e-5)


def test_group_numbers_name_class_and_model():
    thing = Thing("car", 12, *[(0.0, 0.0, 0.0)] * 4)
    assert thing.group_number == 123
    assert CLASSES[thing.group_number % 10] == "car"


def test_up_axis_of_a_model_points_up_in_the_world():
    np.testing.assert_allclose(draw().things[0].rotation() @ [0, 1, 0], [0, 0, 1], atol=1e-6)


def test_normal_deviates_have_the_moments_of_a_normal():
    values = np.array([Draws(7, 0, i, Stream.SCENE).normal(10) for i in range(4000)])
    # Four standard errors.
    assert abs(values.mean()) < 4 / math.sqrt(4000)
    assert abs(values.std() - 1) < 4 / math.sqrt(8000)
    assert abs(np.mean(values**4) - 3) < 4 * math.sqrt(96 / 4000)


def test_later_slots_do_not_move_earlier_ones():
    draws = Draws(7, 0, 3, Stream.SCENE)
    first, far = draws.unit(5), draws.unit(200)
    assert draws.unit(5) == first
    assert Draws(7, 0, 3, Stream.SCENE).unit(200) == far
