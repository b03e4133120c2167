"""Folders of PNGs and arrays as targets: what lies where, what is left out, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.entries import LeftOut
from fastssl.shards.making.sources import read_entry
from fastssl.shards.making.target_folders import read_target_file

H, W = 6, 8
FOLDERS = ("cafe", "office")


def paint(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def layout(tmp_path):
    """Six images in two folders, normals beside them laid out alike, depth flat and of arrays."""
    rng = np.random.default_rng(0)
    wanted = {}
    for number in range(6):
        name = f"{FOLDERS[number % 2]}/{number:05d}"
        paint(tmp_path / "rgb" / f"{name}.png", rng.integers(0, 256, (H, W, 3), np.uint8))
        normals = rng.integers(0, 256, (H, W, 3), np.uint8)
        depth = rng.uniform(0, 9, (H, W)).astype(np.float32)
        paint(tmp_path / "normals" / f"{name}.png", normals)
        (tmp_path / "depth").mkdir(exist_ok=True)
        np.save(tmp_path / "depth" / f"{number:05d}.npy", depth)
        wanted[f"{name}.png"] = normals, depth
    return tmp_path, wanted


def configure(root, *folders, source="rgb", **options):
    words = tuple(f"{name}={root / path}" for name, path in folders)
    return ConvertConfig(root / source, root / "out", workers=1, target_folders=words, **options)


def shard(root, *folders, **options):
    return convert(configure(root, *folders, **options))


def test_files_become_rows_of_their_images(layout):
    root, wanted = layout
    shard(root, ("normals", "normals"), ("depth", "depth"))
    dataset = open_dataset(root / "out")
    found = [(entry.name, entry.dtype, entry.shape) for entry in dataset.manifest.targets]
    assert found == [("depth", "float32", (6, H, W)), ("normals", "uint8", (6, H, W, 3))]
    for row in range(6):
        normals, depth = wanted[dataset.read_metadata(row)["source"]]
        np.testing.assert_array_equal(dataset.targets["normals"][row], normals)
        np.testing.assert_array_equal(dataset.targets["depth"][row], depth)


def test_images_without_a_file_are_left_out(layout):
    root, _ = layout
    (root / "normals/cafe/00002.png").unlink()
    entries = list(configure(root, ("normals", "normals")).open_source().entries())
    (lacking,) = (entry for entry in entries if entry.problem)
    assert lacking.name == "cafe/00002.png"
    assert "no 'normals' of it" in lacking.problem
    assert "has no 00002.png or .npy" in lacking.problem
    with pytest.raises(LeftOut, match="no-target"):
        read_entry(root / "rgb", lacking)


def test_targets_stand_beside_those_of_the_source(layout):
    root, wanted = layout
    table = root / "all.csv"
    lines = [f"rgb/{name},{len(name)},x\n" for name in wanted]
    table.write_text("path,age,label\n" + "".join(lines))
    options = {"source": "all.csv", "targets": ("zeal=age:float32",)}
    source = configure(root, ("normals", "normals"), **options).open_source()
    for entry in source.entries():
        assert [spec.name for spec in source.targets] == ["normals", "zeal"]
        name = entry.name.removeprefix("rgb/")
        np.testing.assert_array_equal(entry.targets[0], wanted[name][0])
        assert entry.targets[1] == len(name)
    assert source.class_names == ["x"]


def test_a_finished_conversion_is_found_again_with_its_folders(layout):
    root, _ = layout
    shard(root, ("normals", "normals"))
    assert shard(root, ("normals", "normals"), resume=True).was_finished
    with pytest.raises(InputError, match="--target-folders was normals, now depth normals"):
        shard(root, ("normals", "normals"), ("depth", "depth"), resume=True)


def test_a_changed_file_is_another_source(layout, monkeypatch):
    root, _ = layout
    monkeypatch.setattr("fastssl.shards.making.convert.finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shard(root, ("normals", "normals"))
    paint(root / "normals/cafe/00000.png", np.zeros((H, W, 3), np.uint8))
    with pytest.raises(InputError, match="names, labels or targets differ"):
        shard(root, ("normals", "normals"), resume=True)


def test_png_kinds_keep_their_numbers(tmp_path):
    classes = np.arange(H * W, dtype=np.uint8).reshape(H, W)
    palette = Image.fromarray(classes, "P")
    palette.putpalette([7] * 768)
    deep = classes.astype(np.uint16) * 1000
    kinds = {"grey": Image.fromarray(classes), "palette": palette, "deep": Image.fromarray(deep)}
    for name, image in kinds.items():
        image.save(tmp_path / f"{name}.png")
        found = read_target_file(tmp_path / f"{name}.png")
        assert found.dtype == (np.int32 if name == "deep" else np.uint8)
        np.testing.assert_array_equal(found, deep if name == "deep" else classes)


def _widen(root):
    paint(root / "normals/office/00003.png", np.zeros((H, W + 1, 3), np.uint8))


def _cut(root):
    path = root / "normals/office/00003.png"
    path.write_bytes(path.read_bytes()[:60])


def _pickle(root):
    (root / "normals/office/00003.png").unlink()
    objects = np.array([{}], dtype=object)
    np.save(root / "normals/office/00003.npy", objects, allow_pickle=True)


def _flatten(root):
    for path in (root / "normals").rglob("*.png"):
        path.rename(root / "normals" / f"x{path.name}")


def _duplicate(root):
    paint(root / "rgb/office/00000.png", np.zeros((H, W, 3), np.uint8))
    (root / "normals/cafe/00000.png").rename(root / "normals/00000.png")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_widen, r"00003.png: uint8 \(6, 9, 3\), the first file, .* is uint8 \(6, 8, 3\); bring"),
        (_cut, "00003.png: no PNG that can be read"),
        (_pickle, "00003.npy: an .npy of .* wanted one of bool"),
        (_flatten, "none of the 6 images .* has its files .* 'normals' of it"),
        (_duplicate, "would be 'normals' of both cafe/00000.png and office/00000.png"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(layout, damage, match):
    root, _ = layout
    damage(root)
    with pytest.raises(InputError, match=match):
        shard(root, ("normals", "normals"))
    assert not (root / "out").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("normals",), "is not NAME=FOLDER"),
        (("Normals=rgb",), "a target is named 'Normals'"),
        (("labels=rgb",), "'labels' holds something else"),
        (("a=rgb", "a=depth"), "names 'a' twice"),
        (("a=nowhere",), "nowhere is not a folder"),
        (("a=rgb/cafe",), "it lies inside the source"),
        (("a=empty",), "no .png and no .npy in it"),
    ],
)
def test_folders_that_cannot_be_targets_are_refused(layout, monkeypatch, words, match):
    root, _ = layout
    monkeypatch.chdir(root)
    (root / "empty").mkdir()
    (root / "empty/x.txt").write_text(json.dumps({}))
    with pytest.raises(InputError, match=match):
        convert(ConvertConfig(root / "rgb", root / "out", workers=1, target_folders=words))
