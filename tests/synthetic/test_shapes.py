from __future__ import annotations

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.synthetic.shapes import CLASSES, build_model

MODELS = 24


def surface_points(vertices, faces, num, seed=0):
    """Points spread evenly over a mesh's surface."""
    rng = np.random.default_rng(seed)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(faces), num, p=area / area.sum())
    u, v = rng.random((2, num, 1))
    u, v = np.where(u + v > 1, (1 - u, 1 - v), (u, v))
    return a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]


def describe_shape(name, model, seed=0):
    """D2 of Osada et al. 2002, the distances between points of the surface, and along each axis."""
    points = surface_points(*build_model(name, model), 16000, seed)
    pairs = points[:8000] - points[8000:]
    columns = [np.linalg.norm(pairs, axis=1), *np.abs(pairs).T]
    return np.concatenate([np.histogram(c, 24, (0, 1.75))[0] / 8000 for c in columns])


@pytest.fixture(scope="module")
def shapes():
    """(10 classes, MODELS, bins) shape statistics."""
    return np.array([[describe_shape(n, m) for m in range(MODELS)] for n in CLASSES])


@pytest.mark.parametrize("name", CLASSES)
def test_two_hundred_models_of_a_class_differ_in_structure_and_size(name):
    """The faces tell what a model is made of; its proportions only move their corners."""
    extents, structures = set(), []
    for model in range(200):
        vertices, faces = build_model(name, model)
        low, high = vertices.min(0), vertices.max(0)
        np.testing.assert_allclose(low + high, 0, atol=3e-6)
        assert (high - low).max() == pytest.approx(1, abs=3e-6)
        assert np.isfinite(vertices).all()
        assert faces.max() < len(vertices)
        extents.add(tuple(high - low))
        structures.append(faces.tobytes())
    assert len(extents) == 200
    assert len(set(structures)) >= 30
    assert max(map(structures.count, structures)) <= 30


def test_models_spread_within_classes_and_more_between_them(shapes):
    noise = np.mean(
        [np.abs(describe_shape(n, 0, 1) - s[0]).sum() for n, s in zip(CLASSES, shapes, strict=True)]
    )
    apart = np.abs(shapes[:, :, None] - shapes[:, None]).sum(-1)
    within = apart.sum((1, 2)) / (MODELS * (MODELS - 1))
    centers = shapes.mean(1)
    between = np.abs(centers[:, None] - centers[None]).sum(-1)[~np.eye(10, dtype=bool)]
    # Two models of a class differ by far more than two samples of one model's surface.
    assert within.min() > 2 * noise
    assert between.mean() > within.mean()


def test_shape_tells_the_class(shapes):
    """A model of each class is nearest, by its shape alone, to one of its class; chance is 0.1."""
    flat = shapes.reshape(-1, shapes.shape[-1])
    distance = np.abs(flat[:, None] - flat[None]).sum(-1)
    np.fill_diagonal(distance, np.inf)
    labels = np.repeat(np.arange(10), MODELS)
    accuracy = (labels[distance.argmin(1)] == labels).mean()
    assert 0.6 < accuracy < 1.0


@pytest.mark.parametrize("name", CLASSES)
def test_models_are_mirror_symmetric_where_the_class_is(name):
    """Only a lamp with an arm, a corner sofa, a desk and a field of doors lean to one side."""
    leaning = 0
    for model in range(MODELS):
        vertices, faces = build_model(name, model)
        corners = vertices[faces]
        double_area = np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
        )
        center = (corners.mean(1) * double_area[:, None]).sum(0) / double_area.sum()
        leaning += abs(center[0]) > 0.04
    assert leaning <= {"lamp": 14, "sofa": 12, "table": 6}.get(name, 0)


def test_unknown_class_offers_the_nearest():
    with pytest.raises(InputError, match="did you mean 'chair'"):
        build_model("chiar", 0)


def test_negative_model_is_refused():
    with pytest.raises(InputError, match="0 or more"):
        build_model("chair", -1)
