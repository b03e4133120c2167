"""From a rendered set to shards: all that is known of a picture arrives in ``Batch.targets``."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mitsuba", reason="mitsuba renders the set: pip install 'fastssl[synthetic]'")

from fastssl import LoaderConfig, ViewSpec, build_loader
from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.rendered import RenderedSource
from fastssl.shards.npy import pack_header
from fastssl.synthetic import CLASSES, RenderConfig, pose_bin, render_set, split_of
from fastssl.synthetic.render import SceneMaker

SINGLE = RenderConfig(variant="0010", images=40, size=16, samples=1, seed=3, models_per_class=12)
MULTI = RenderConfig(variant="0011-multi", images=5, size=16, samples=1)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    out = tmp_path_factory.mktemp("single") / "set"
    render_set(out, SINGLE)
    return out


@pytest.fixture(scope="module")
def multi(tmp_path_factory):
    out = tmp_path_factory.mktemp("multi") / "set"
    render_set(out, MULTI)
    return out


def shard(source, out, **options):
    report = convert(ConvertConfig(source=source, out=out, workers=1, **options))
    return report, open_dataset(out)


def test_every_target_arrives_with_its_picture(single, tmp_path):
    report, dataset = shard(single, tmp_path / "shards")
    assert (report.written, report.skipped, report.num_labelled) == (40, {}, 40)
    assert dataset.manifest.class_names == CLASSES
    names = ("class", "depth", "group", "normals", "pose", "rotation", "segmentation", "split")
    assert tuple(dataset.targets) == names
    config = LoaderConfig(
        path=str(tmp_path / "shards"), loader="webdataset", global_batch_size=40, targets=names
    )
    with contextlib.closing(build_loader(config, ViewSpec.center(16, 16))) as loader:
        batch = next(iter(loader.one_pass()))
    arrays = {
        name: np.load(single / f"{name}.npy") for name in ("segmentation", "depth", "normals")
    }
    records = [json.loads(line) for line in (single / "metadata.jsonl").open()]
    for row, sample_id in enumerate(batch.sample_ids.tolist()):
        kept = dataset.read_metadata(sample_id)
        record = records[kept["index"]]
        assert kept["source"] == record["file"]
        targets = {name: rows[row].numpy() for name, rows in batch.targets.items()}
        for name, array in arrays.items():
            np.testing.assert_array_equal(targets[name], array[record["index"]])
        assert targets["class"] == batch.labels[row] == record["label"]
        assert targets["group"] == record["group_number"]
        np.testing.assert_allclose(targets["rotation"], record["rot_mat"], atol=1e-6)
        assert targets["pose"] == record["pose"] == pose_bin(record["rot_mat"])
        assert ("train", "val", "test")[targets["split"]] == split_of(record["model"])
        # The picture and its segmentation are of one scene.
        assert set(np.unique(targets["segmentation"])) == {0, 1 + record["label"]}


def test_splits_share_no_model_and_lose_no_picture(multi, tmp_path):
    """Listed from records alone: of 240 scenes, twenty of each bucket."""
    config = replace(MULTI, images=240)
    record = json.loads((multi / "render.json").read_text()) | {"images": config.images}
    (tmp_path / "render.json").write_text(json.dumps(record))
    maker = SceneMaker(config)
    scenes = [maker.make(index)[:2] for index in range(config.images)]
    lines = [json.dumps(maker.describe(*scene)) + "\n" for scene in scenes]
    (tmp_path / "metadata.jsonl").write_text("".join(lines))
    for name in ("segmentation", "depth", "instances", "normals"):
        rows = np.load(multi / f"{name}.npy")
        header = pack_header(rows.dtype.str, (config.images, *rows.shape[1:]))
        (tmp_path / f"{name}.npy").write_bytes(header + bytes(rows[0].nbytes * config.images))
    sizes, groups = {}, {}
    for split in ("train", "val", "test"):
        source = RenderedSource(tmp_path, split)
        entries = list(source.entries())
        place = [spec.name for spec in source.targets].index("group")
        sizes[split] = len(entries)
        groups[split] = {group for entry in entries for group in entry.targets[place].tolist()}
    assert sizes == {"train": 200, "val": 20, "test": 20}
    assert not groups["train"] & groups["test"]
    assert not groups["val"] & (groups["train"] | groups["test"])


def test_split_is_taken_by_the_conversion(multi, tmp_path):
    """The first twenty scenes train, so that none is left for the test."""
    report, dataset = shard(multi, tmp_path / "train", synthetic_split="train")
    assert report.written == 5
    assert set(np.asarray(dataset.targets["split"])) == {0}
    with pytest.raises(InputError, match="none of its 5 images is in split 'test'; render more"):
        shard(multi, tmp_path / "test", synthetic_split="test")


def test_scenes_of_several_objects_have_a_row_an_object(multi, tmp_path):
    report, dataset = shard(multi, tmp_path / "shards", keep_order=True)
    assert (report.written, report.num_labelled) == (5, 0)
    shapes = {name: dataset.targets[name].shape[1:] for name in dataset.targets}
    assert shapes == {
        "class": (4,),
        "depth": (16, 16),
        "group": (4,),
        "instances": (16, 16),
        "normals": (16, 16, 3),
        "pose": (4,),
        "rotation": (4, 3, 3),
        "segmentation": (16, 16),
        "split": (),
    }
    for row in range(5):
        classes = dataset.targets["class"][row]
        instances = dataset.targets["instances"][row]
        expected = np.concatenate([[0], 1 + classes])[instances]
        np.testing.assert_array_equal(dataset.targets["segmentation"][row], expected)
        assert {group % 10 for group in dataset.targets["group"][row]} == set(classes)


def test_sets_from_before_normals_are_taken_without(multi, tmp_path):
    source = tmp_path / "set"
    shutil.copytree(multi, source)
    record = json.loads((source / "render.json").read_text()) | {"format": 2}
    (source / "render.json").write_text(json.dumps(record))
    (source / "normals.npy").unlink()
    names = [spec.name for spec in RenderedSource(source)._list_specs().values()]
    assert "normals" not in names
    assert "depth" in names


def test_split_of_other_sources_is_refused(multi, tmp_path):
    with pytest.raises(InputError, match="is no set of render-synthetic"):
        shard(multi / "scenes", tmp_path / "shards", synthetic_split="train")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda out: (out / "metadata.jsonl").unlink(), "an unfinished set"),
        (lambda out: (out / "depth.npy").write_bytes(b"x"), "depth.npy: it begins with b'x'"),
        (lambda out: (out / "segmentation.npy").unlink(), "target is missing"),
        (
            lambda out: (out / "metadata.jsonl").write_text('{"file": 3}\n'),
            "line 1 is not the record of an image",
        ),
        (
            lambda out: (out / "metadata.jsonl").write_text(
                "".join((out / "metadata.jsonl").open().readlines()[:3])
            ),
            "3 lines, render.json says 5 images",
        ),
    ],
    ids=["unfinished", "array", "no array", "record", "cut"],
)
def test_damaged_set_is_refused(multi, tmp_path, damage, match):
    source = tmp_path / "set"
    shutil.copytree(multi, source)
    damage(source)
    with pytest.raises(InputError, match=match):
        shard(source, tmp_path / "shards")
