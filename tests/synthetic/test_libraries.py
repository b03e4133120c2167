"""Models of ShapeNetCore and textures of DTD, from folders that are laid out as theirs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mitsuba", reason="mitsuba renders the set: pip install 'fastssl[synthetic]'")
pytest.importorskip("trimesh", reason="trimesh reads meshes: pip install 'fastssl[synthetic]'")

from fastssl.errors import InputError
from fastssl.synthetic import CLASSES, RenderConfig, render_set
from fastssl.synthetic.libraries import (
    SYNSETS,
    PictureTextures,
    ShapeNetModels,
    Unusable,
    read_mesh,
)
from fastssl.synthetic.shapes import build_model

MODELS = 13


def write_mesh(path, vertices, faces):
    lines = ["mtllib model_normalized.mtl", "usemtl wood"]
    lines += [f"v {x} {y} {z}" for x, y, z in vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in faces + 1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def model_path(root, name, number):
    return root / SYNSETS[name] / f"{number:032x}" / "models" / "model_normalized.obj"


@pytest.fixture
def shapenet(tmp_path):
    root = tmp_path / "ShapeNetCore.v2"
    for name in CLASSES:
        for number in range(MODELS):
            vertices = np.eye(4)[:, :3] * [1 + number, 2, 3]
            faces = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
            write_mesh(model_path(root, name, number), vertices, faces)
    return root


@pytest.fixture
def dtd(tmp_path):
    root = tmp_path / "dtd" / "images"
    for number, (kind, color) in enumerate(
        [("banded", "red"), ("dotted", "green"), ("woven", "blue")]
    ):
        (root / kind).mkdir(parents=True)
        Image.new("RGB", (60 + number, 40), color).save(root / kind / f"{kind}_0001.jpg")
    return root


def test_meshes_are_read_as_they_stand(tmp_path):
    vertices, faces = build_model("chair", 1)
    write_mesh(tmp_path / "chair.obj", 3 * vertices + 7, faces)
    read_vertices, read_faces = read_mesh(tmp_path / "chair.obj")
    np.testing.assert_allclose(read_vertices[read_faces], vertices[faces], atol=2e-6)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "no faces|cannot be read"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces|cannot be read"),
        ("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "all in one place"),
        ("v 0 0 0\nv 1 nan 0\nv 0 1 0\nf 1 2 3\n", "no numbers|cannot be read"),
        ("v 0 0 0\nf 1 2 99\n", "cannot be read"),
        ("\0\1\2", "no faces|cannot be read"),
    ],
)
def test_broken_mesh_is_unusable_and_says_why(tmp_path, content, why):
    (tmp_path / "broken.obj").write_text(content)
    with pytest.raises(Unusable, match=why):
        read_mesh(tmp_path / "broken.obj")


def test_missing_classes_are_named(shapenet):
    for name in ("car", "lamp"):
        (shapenet / SYNSETS[name]).rename(shapenet / f"not-{name}")
    with pytest.raises(InputError, match=r"lacks 2 of the ten classes: 02958343 \(car\), 03636649"):
        ShapeNetModels(shapenet)


def test_class_with_too_few_models_is_refused(shapenet):
    for number in range(4):
        model_path(shapenet, "sofa", number).unlink()
    with pytest.raises(InputError, match="9 of class sofa, wanted 12 or more"):
        ShapeNetModels(shapenet)


def test_folder_that_is_not_there_names_the_number_of_models(tmp_path):
    with pytest.raises(InputError, match="--models-per-class"):
        ShapeNetModels(tmp_path / "24")


def test_broken_mesh_gives_its_place_to_the_next_of_its_bucket(shapenet):
    model_path(shapenet, "car", 0).write_text("")
    library = ShapeNetModels(shapenet)
    number, (vertices, _) = library.find("car", 0)
    assert number == 12
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [1, 2 / 13, 3 / 13], atol=1e-6)
    assert list(library.unusable) == [str(model_path(shapenet, "car", 0))]


def test_bucket_without_a_usable_mesh_is_refused(shapenet):
    model_path(shapenet, "car", 5).write_text("")
    with pytest.raises(InputError, match="0 others of its bucket cannot be used"):
        ShapeNetModels(shapenet).find("car", 5)


def test_set_of_folders_counts_what_it_could_not_use(shapenet, dtd, tmp_path):
    model_path(shapenet, "bench", 0).write_text("v 0 0 0\n")
    (dtd / "woven" / "woven_0001.jpg").write_bytes(b"no picture")
    config = RenderConfig(
        variant="1100", images=30, size=16, samples=1, models=shapenet, textures=dtd
    )
    unusable = render_set(tmp_path / "out", config)
    assert {path.rpartition("/")[2] for path in unusable} == {
        "model_normalized.obj",
        "woven_0001.jpg",
    }
    listed = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").open()]
    assert {row["file"]: row["reason"] for row in listed} == unusable
    records = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").open()]
    benches = [record for record in records if record["class"] == "bench"]
    assert {(b["model"], b["model_name"]) for b in benches} == {(12, f"{12:032x}")}
    used = {name for record in records for name in record["texture_names"]}
    assert used == {"banded/banded_0001.jpg", "dotted/dotted_0001.jpg"}


def test_middle_of_a_picture_becomes_a_texture(dtd):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = [200, 100, 50]
    Image.fromarray(wide).save(dtd / "banded" / "a.png")
    textures = PictureTextures(dtd, 8, least=2)
    number, texture = textures.find(0)
    assert textures.name(number) == "banded/a.png"
    assert texture.shape == (8, 8, 3)
    assert (texture == [200, 100, 50]).all()


def test_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("DTD goes here")
    with pytest.raises(InputError, match=r"0 pictures .* a scene takes 2"):
        PictureTextures(tmp_path, 8, least=2)


def test_changed_folder_has_another_digest(shapenet):
    """A set's record has it, so that half a set is not continued with other models."""
    before = ShapeNetModels(shapenet).digest
    assert ShapeNetModels(shapenet).digest == before
    first = model_path(shapenet, "car", 0).parents[1]
    first.rename(first.with_name("f" * 32))
    assert ShapeNetModels(shapenet).digest != before
