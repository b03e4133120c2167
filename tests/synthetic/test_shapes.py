from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("trimesh", reason="trimesh builds the models: pip install 'fastssl[synthetic]'")

from fastssl.errors import InputError
from fastssl.synthetic.shapes import CLASSES, build_model


@pytest.mark.parametrize("name", CLASSES)
def test_models_are_centred_and_their_largest_side_is_one(name):
    for model in range(24):
        vertices, faces = build_model(name, model)
        low, high = vertices.min(0), vertices.max(0)
        np.testing.assert_allclose(low + high, 0, atol=3e-6)
        assert (high - low).max() == pytest.approx(1, abs=3e-6)
        assert np.isfinite(vertices).all()
        assert faces.max() < len(vertices)


@pytest.mark.parametrize("name", CLASSES)
def test_models_of_a_class_differ(name):
    extents = {tuple(np.ptp(build_model(name, model)[0], axis=0)) for model in range(24)}
    assert len(extents) == 24


@pytest.mark.parametrize("name", CLASSES)
def test_models_are_mirror_symmetric_where_the_class_is(name):
    """Only a lamp with an arm and a corner sofa lean to one side."""
    leaning = 0
    for model in range(12):
        vertices, faces = build_model(name, model)
        corners = vertices[faces]
        double_area = np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
        )
        center = (corners.mean(1) * double_area[:, None]).sum(0) / double_area.sum()
        leaning += abs(center[0]) > 0.04
    assert leaning <= {"lamp": 6, "sofa": 5}.get(name, 0)


def test_unknown_class_offers_the_nearest():
    with pytest.raises(InputError, match="did you mean 'chair'"):
        build_model("chiar", 0)


def test_negative_model_is_refused():
    with pytest.raises(InputError, match="0 or more"):
        build_model("chair", -1)
