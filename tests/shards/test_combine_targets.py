"""Targets of datasets that are made of datasets: no row is lost, moved or made up."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.derive.combine import CombineConfig, combine
from fastssl.shards.derive.select import Selection
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.making.convert import ConvertConfig, convert


def add_voc(root, objects, draw_photograph, encode, seed):
    """Lay out pictures as VOC does: name -> classes on it, those with a ? are difficult."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for number, (picture, classes) in enumerate(objects.items()):
        photograph = encode(draw_photograph(seed + number))
        (root / f"JPEGImages/{picture}.jpg").write_bytes(photograph)
        boxes = "".join(
            f"<object><name>{name.rstrip('?')}</name><difficult>{int('?' in name)}</difficult>"
            "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            for name in classes
        )
        (root / f"Annotations/{picture}.xml").write_text(f"<annotation>{boxes}</annotation>")
    (root / "ImageSets/Main/trainval.txt").write_text("\n".join(objects))


ANIMALS = {"a1": ["cat"], "a2": ["dog", "cat?"], "a3": ["cat", "dog"], "a4": ["dog?"], "a5": []}
BIRDS = {"b1": ["bird"], "b2": ["bird?", "dog"], "b3": []}


@pytest.fixture(scope="module")
def made_once(tmp_path_factory, draw_photograph, encode):
    root = tmp_path_factory.mktemp("combine-targets")
    add_voc(root / "voc animals", ANIMALS, draw_photograph, encode, 0)
    add_voc(root / "voc birds", BIRDS, draw_photograph, encode, 50)
    for name in ("animals", "birds"):
        convert(ConvertConfig(root / f"voc {name}", root / name, samples_per_shard=2, workers=1))
    for name, columns in {
        "aged": ("age:float32", "pose:int16"),
        "older": ("age:float32", "pose:int16"),
        "ageless": ("pose:int16",),
        "double": ("age:float64", "pose:int16"),
    }.items():
        lines = []
        for number in range(5):
            path = root / f"photographs {name}" / f"{name}{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode(draw_photograph(sum(map(ord, name)) * 10 + number)))
            lines.append(f"{path.name},,{sum(map(ord, name)) + number / 3},{number}\n")
        table = root / f"photographs {name}" / "table.csv"
        table.write_text("path,label,age,pose\n" + "".join(lines))
        convert(ConvertConfig(table, root / name, targets=columns, samples_per_shard=2, workers=1))
    return root


@pytest.fixture
def make(tmp_path, made_once):
    """(*names, out="out", **options of CombineConfig and Selection) -> the opened dataset."""

    def make_one(*names, out="out", **options):
        chosen = {k: options.pop(k) for k in ("ids", "classes", "sources") if k in options}
        datasets = tuple(made_once / name for name in names)
        combine(CombineConfig(datasets, tmp_path / out, Selection(**chosen), **options))
        dataset = open_dataset(tmp_path / out)
        assert verify_dataset(dataset.folder, deep=True, workers=1).errors == ()
        return dataset

    return make_one


def rows_by_source(dataset, name):
    sources = [dataset.read_metadata(i)["source"] for i in range(len(dataset))]
    return dict(zip(sources, dataset.targets[name].tolist(), strict=True))


def labels_of(dataset):
    """Picture -> classes that are 1, and those that are 0."""
    rows = rows_by_source(dataset, "labels").items()
    return {
        source[-6:-4]: tuple(
            {name for name, label in zip(dataset.class_names, row, strict=True) if label == wanted}
            for wanted in (1, 0)
        )
        for source, row in rows
    }


def test_merging_keeps_every_row_with_its_sample(made_once, make):
    merged = make("aged", "older")
    parts = [open_dataset(made_once / name) for name in ("aged", "older")]
    for name in ("age", "pose"):
        wanted = np.concatenate([part.targets[name] for part in parts])
        assert merged.targets[name].dtype == wanted.dtype
        assert merged.targets[name].tolist() == wanted.tolist()
        assert rows_by_source(merged, name) == {
            source: row for part in parts for source, row in rows_by_source(part, name).items()
        }


def test_a_part_keeps_the_rows_of_its_samples(made_once, make, tmp_path):
    (tmp_path / "ids.txt").write_text("1\n4\n6\n")
    part = make("aged", "older", ids=tmp_path / "ids.txt")
    whole = np.concatenate(
        [open_dataset(made_once / name).targets["age"] for name in ("aged", "older")]
    )
    assert part.targets["age"].tolist() == whole[[1, 4, 6]].tolist()


def test_what_is_taken_whole_has_the_digest_that_it_had(made_once, make):
    assert make("aged").digest == open_dataset(made_once / "aged").digest


def test_columns_of_classes_go_where_the_classes_go(make):
    merged = make("animals", "birds", merge_classes=True)
    assert merged.class_names == ("cat", "dog", "bird")
    # Nobody looked for birds in the first, nor for cats in the second: not counted there.
    assert labels_of(merged) == {
        "a1": ({"cat"}, {"bird"}),
        "a2": ({"dog"}, {"cat", "bird"}),
        "a3": ({"cat", "dog"}, {"bird"}),
        "a4": (set(), {"dog", "bird"}),
        "a5": (set(), {"bird"}),
        "b1": ({"bird"}, {"cat"}),
        "b2": ({"dog"}, {"bird", "cat"}),
        "b3": (set(), {"cat"}),
    }


def test_class_lists_that_differ_are_refused_unasked(make):
    with pytest.raises(InputError, match="class lists differ"):
        make("animals", "birds")


def test_a_part_by_class_takes_the_samples_on_which_it_is_present(make):
    assert set(labels_of(make("animals", classes=("cat",)))) == {"a1", "a3"}
    assert set(labels_of(make("animals", out="o", classes=("cat", "dog")))) == {"a1", "a2", "a3"}


def test_classes_without_a_sample_lose_their_column(make, tmp_path, made_once):
    animals = open_dataset(made_once / "animals")
    labels = labels_of(animals)
    wanted = [i for i, name in enumerate(labels) if name in ("a2", "a5")]
    (tmp_path / "ids.txt").write_text("\n".join(map(str, wanted)))
    part = make("animals", ids=tmp_path / "ids.txt", drop_empty_classes=True)
    assert part.class_names == ("dog",)
    assert labels_of(part) == {"a2": ({"dog"}, set()), "a5": (set(), set())}


def test_a_target_that_one_lacks_is_told_and_can_be_left_behind(made_once, make):
    with pytest.raises(
        InputError, match=r"ageless: no target 'age', .*aged has it; .* --drop-targets age"
    ):
        make("aged", "ageless")
    merged = make("aged", "ageless", drop_targets=("age",))
    assert list(merged.targets) == ["pose"]
    assert len(merged) == 10
    plain = make("aged", out="plain", drop_targets=("age", "pose"))
    assert not (plain.folder / "targets").exists()
    assert plain.manifest.format_version == 1
    assert plain.digest != open_dataset(made_once / "aged").digest


def test_a_target_of_two_types_is_told(make):
    with pytest.raises(
        InputError, match=r"'age' is float32 \(N,\) in .*aged, float64 \(N,\) in .*double; leave"
    ):
        make("aged", "double")


def test_an_unknown_target_is_not_left_behind(make):
    with pytest.raises(InputError, match="--drop-targets: no target 'agee'; did you mean 'age'"):
        make("aged", drop_targets=("agee",))


def test_a_changed_target_gets_no_sha_256_that_fits(made_once, make, tmp_path):
    import shutil

    copy = shutil.copytree(made_once / "aged", tmp_path / "copy")
    content = bytearray((copy / "targets/age.npy").read_bytes())
    content[-1] ^= 1
    (copy / "targets/age.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"age\.npy: changed"):
        make(copy)
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_is_cleared_away(make, tmp_path):
    left = tmp_path / ".out.combining/targets"
    left.mkdir(parents=True)
    (left / "age.npy").write_bytes(b"half")
    assert sorted(os.listdir(make("aged").folder / "targets")) == ["age.npy", "pose.npy"]
    assert not left.exists()


def test_the_command_leaves_targets_behind(made_once, tmp_path, run_tool):
    arguments = (tmp_path / "out", made_once / "aged", "--drop-targets", "age", "pose")
    done = run_tool("combine_shards.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert not open_dataset(tmp_path / "out").targets
