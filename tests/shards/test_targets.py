"""Targets: arrays beside the index, a row a sample, that are what the manifest says or refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.target_columns import parse_target_columns, to_number
from fastssl.shards.manifest import read_manifest
from fastssl.shards.targets import DTYPES, TargetSpec, check_target, write_target

TARGETS = ("age:float32", "pose:int64:-1")
NUM_ROWS = 12
NO_IMAGE = 4  # its file is no image, so that no sample of the dataset has its row


def age_of(number):
    return number / 7


def pose_of(number):
    return None if number % 5 == 3 else number * 10**12


def write_table(photographs):
    (photographs / "dog/image5.jpg").rename(photographs / "dog/image5 kept.jpg")
    (photographs / "cat/image4.jpg").write_bytes(b"no image")
    path = photographs / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "age", "pose"))
        for number in range(NUM_ROWS):
            name = "image5 kept" if number == 5 else f"image{number}"
            kind = ("cat", "dog")[number % 2]
            writer.writerow((f"{kind}/{name}.jpg", kind, age_of(number), pose_of(number)))
    return path


@pytest.fixture
def table(photographs):
    """Twelve photographs with an age and a pose, one of them no image."""
    return write_table(photographs)


@pytest.fixture(scope="module")
def converted(save_photographs, tmp_path_factory):
    root = tmp_path_factory.mktemp("targets")
    table = write_table(save_photographs(root / "photographs"))
    options = {"samples_per_shard": 5, "workers": 1, "targets": TARGETS}
    convert(ConvertConfig(table, root / "dataset", **options))
    return root / "dataset"


@pytest.fixture
def folder(converted, tmp_path):
    return shutil.copytree(converted, tmp_path / "dataset")


def numbers_of(dataset):
    """Row of the table by sample id."""
    sources = [dataset.read_metadata(i)["source"] for i in range(len(dataset))]
    return [int("".join(filter(str.isdigit, source.split("/")[1]))) for source in sources]


# --- From a table ---------------------------------------------------------------------------------


def test_rows_follow_the_samples_through_the_shuffle_and_what_is_left_out(folder):
    dataset = open_dataset(folder)
    numbers = numbers_of(dataset)
    assert sorted(numbers) == [n for n in range(NUM_ROWS) if n != NO_IMAGE] != numbers
    assert dataset.targets["age"].tolist() == [np.float32(age_of(n)) for n in numbers]
    poses = [-1 if pose_of(n) is None else pose_of(n) for n in numbers]
    assert dataset.targets["pose"].tolist() == poses


def test_a_target_is_a_map_of_a_plain_npy(folder):
    dataset = open_dataset(folder)
    assert sorted(dataset.targets) == ["age", "pose"]
    age = dataset.targets["age"]
    assert isinstance(age, np.memmap)
    assert not age.flags.writeable
    loaded = np.load(folder / "targets/age.npy", mmap_mode="r", allow_pickle=False)
    assert loaded.dtype == np.float32
    assert (loaded == age).all()


def test_the_manifest_lists_type_shape_and_sha_256(folder):
    import hashlib

    fields = json.loads((folder / "manifest.json").read_text())
    assert fields["format_version"] == 3
    content = (folder / "targets/age.npy").read_bytes()
    assert fields["targets"][0] == {
        "name": "age",
        "dtype": "float32",
        "shape": [NUM_ROWS - 1],
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_other_targets_make_another_digest(table, make_dataset):
    digests = {
        open_dataset(make_dataset(table, name, targets=targets)[0]).digest
        for name, targets in {"a": (), "b": TARGETS[:1], "c": TARGETS}.items()
    }
    assert len(digests) == 3


def test_without_targets_nothing_speaks_of_them(table, make_dataset):
    folder, _ = make_dataset(table)
    assert b"targets" not in (folder / "manifest.json").read_bytes()
    assert json.loads((folder / "manifest.json").read_text())["format_version"] == 1
    assert not (folder / "targets").exists()
    assert dict(open_dataset(folder).targets) == {}


def test_a_name_that_is_not_there_is_told_with_the_nearest(folder):
    with pytest.raises(KeyError, match="no target 'agee'; did you mean 'age'"):
        open_dataset(folder).targets["agee"]


def test_a_pickled_dataset_has_its_targets(folder):
    import pickle

    dataset = open_dataset(folder)
    again = pickle.loads(pickle.dumps(dataset))
    assert (again.targets["pose"] == dataset.targets["pose"]).all()


def test_lists_of_a_parquet_table_become_rows(photographs, make_dataset):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install fastssl[tables]")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = [f"cat/image{number}.jpg" for number in (0, 2, 4, 6)]
    turns = [None, [0.0, 0.5], [1.0, None], [2.0, 2.5]]
    table = pyarrow.table({"path": paths, "Turn": turns, "flag": [True, False, True, True]})
    parquet.write_table(table, photographs / "t.parquet")
    folder, _ = make_dataset(
        photographs / "t.parquet", targets=("turn=Turn:float16:-1", "flag:bool"), keep_order=True
    )
    targets = open_dataset(folder).targets
    assert targets["turn"].dtype == np.float16
    assert targets["turn"].tolist() == [[-1, -1], [0, 0.5], [1, -1], [2, 2.5]]
    assert targets["flag"].tolist() == [True, False, True, True]
    parquet.write_table(
        pyarrow.table({"path": paths[:2], "Turn": [[1.0, 2.0], [1.0, 2.0, 3.0]]}),
        photographs / "uneven.parquet",
    )
    with pytest.raises(InputError, match=r"row 2 has in the column 'Turn' a list of 3, .* have 2"):
        make_dataset(photographs / "uneven.parquet", "o", targets=("turn=Turn:float16",))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("cat/image0.jpg,cat,old,1", "row 14 has in the column 'age' 'old', wanted float32"),
        ("cat/image0.jpg,cat,1,1.5", "'pose' '1.5', wanted int64, a whole number in -9"),
        (
            "cat/image0.jpg,cat,,1",
            "'age' nothing; .* what stands for that: --targets age:float32:M",
        ),
    ],
)
def test_a_wrong_value_is_named_by_file_row_and_column(table, make_dataset, row, message):
    with table.open("a") as file:
        file.write(row + "\n")
    with pytest.raises(InputError, match=f"table.csv: .*{message}"):
        make_dataset(table, targets=TARGETS)
    assert not (table.parents[1] / "dataset").exists()


@pytest.mark.parametrize(
    ("value", "dtype", "number"),
    [
        ("007", "int8", 7),
        ("3.0", "int64", 3),  # as pandas writes a column of integers with gaps
        ("9007199254740993", "int64", 2**53 + 1),
        ("1e3", "int16", 1000),
        ("inf", "float16", float("inf")),
        ("TRUE", "bool", True),
        (True, "int8", 1),
        (0, "bool", False),
    ],
)
def test_values_that_a_type_holds(value, dtype, number):
    assert to_number(value, dtype) == number


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ("300", "uint8"),
        ("-1", "uint8"),
        ("3.5", "int64"),
        ("nan", "int8"),
        ("1e39", "float32"),
        ("70000", "float16"),
        ("1_0", "float32"),
        ("yes", "bool"),
        (2, "bool"),
        (b"7", "int8"),
    ],
)
def test_values_that_a_type_does_not_hold(value, dtype):
    with pytest.raises(ValueError, match=f"wanted {dtype}"):
        to_number(value, dtype)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["age"], "is not COLUMN:TYPE"),
        (["age:flot32"], "no type 'flot32'; did you mean 'float32'"),
        (["Age:int8"], "a target is named 'Age', .* --targets NAME=Age:int8"),
        (["age:int8:300"], "an empty value is to be '300', wanted int8"),
        (["age:int8", "age=pose:int8"], "names 'age' twice"),
        (["labels:int8"], "'labels' is the target with a column a class"),
        (["../x:int8"], "wanted a-z, 0-9 and _"),
    ],
)
def test_what_the_command_line_says_wrong_is_told(texts, message):
    with pytest.raises(InputError, match=message):
        parse_target_columns(texts)


def test_a_column_that_is_not_there_is_told(table, make_dataset):
    with pytest.raises(InputError, match=r"no column 'agee'; did you mean 'age'.* by --targets"):
        make_dataset(table, targets=("agee:int8",))


def test_columns_of_what_is_no_table_are_refused(photographs, make_dataset):
    with pytest.raises(InputError, match=r"--targets age:int8: .* is no table"):
        make_dataset(photographs, targets=("age:int8",))


def test_the_command_takes_targets(table, tmp_path, run_tool):
    out = tmp_path / "out"
    done = run_tool("make_shards.py", table, out, "--workers", 1, "--targets", *TARGETS)
    assert done.returncode == 0, done.stderr
    assert list(open_dataset(out).targets) == ["age", "pose"]
    again = ("--targets", TARGETS[0], "--targets", TARGETS[1])
    done = run_tool("make_shards.py", table, tmp_path / "o", *again)
    assert done.returncode == 2
    assert "--targets is given more than once" in done.stderr


# --- Stopped and continued ------------------------------------------------------------------------


def stop_before_the_index(table, out):
    """Convert until the index is to take its name, which a folder holds; all else is written."""
    from fastssl.shards.making.convert import ConvertConfig, convert

    (out / ".building").mkdir(parents=True)
    (out / "index.bin/x").mkdir(parents=True)
    with pytest.raises(OSError, match=r"index\.bin"):
        convert(
            ConvertConfig(table, out, targets=TARGETS, samples_per_shard=5, workers=1, resume=True)
        )
    (out / "index.bin/x").rmdir()
    (out / "index.bin").rmdir()


def test_a_continued_conversion_gives_the_same_bytes(
    table, folder, tmp_path, make_dataset, read_tree
):
    out = tmp_path / "stopped"
    stop_before_the_index(table, out)
    assert (out / "targets/age.npy").exists()
    assert not (out / "manifest.json").exists()
    # Half a shard's work is lost, and half a target is written.
    (out / ".building/slice-000001.json").unlink()
    os.truncate(out / "targets/pose.npy", 130)
    make_dataset(table, "stopped", targets=TARGETS, resume=True)
    assert read_tree(out) == read_tree(folder)


@pytest.mark.parametrize("targets", [(), ("age:float64", "pose:int64:-1"), ("age:float32",)])
def test_a_conversion_is_not_continued_with_other_targets(table, tmp_path, make_dataset, targets):
    stop_before_the_index(table, tmp_path / "dataset")
    with pytest.raises(InputError, match="--targets was age:float32 pose:int64:-1, now"):
        make_dataset(table, targets=targets, resume=True)


def test_a_changed_value_is_a_changed_source(table, tmp_path, make_dataset):
    stop_before_the_index(table, tmp_path / "dataset")
    table.write_text(table.read_text().replace(str(age_of(3)), "3"))
    with pytest.raises(InputError, match="names, labels or targets differ"):
        make_dataset(table, targets=TARGETS, resume=True)


@pytest.mark.usefixtures("folder")
def test_a_finished_dataset_is_not_continued_with_other_targets(table, make_dataset):
    assert make_dataset(table, targets=TARGETS, resume=True)[1].was_finished
    with pytest.raises(InputError, match="--targets was age:float32 pose:int64, now age:int8"):
        make_dataset(table, targets=("age:int8",), resume=True)


# --- What is refused ------------------------------------------------------------------------------


def replace_target(folder, array):
    np.save(folder / "targets/age.npy", array, allow_pickle=True)


def good_array():
    return np.arange(NUM_ROWS - 1, dtype=np.float32)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(5, dtype=np.float32), r"float32 \(5,\), the manifest says float32 \(11,\)"),
        (np.arange(11), r"int64 \(11,\), the manifest says float32 \(11,\)"),
        (np.arange(11, dtype=">f4"), "an .npy of .*'>f4'"),
        (np.array([None] * 11), r"an .npy of .*'\|O'"),
        (np.zeros((11, 1), np.float32), r"float32 \(11, 1\)"),
        (np.asfortranarray(np.zeros((11, 2), np.float32)), "an .npy of .*'fortran_order': True"),
        (np.zeros(11, [("a", "f4")]), "an .npy of .*'a'"),
    ],
)
def test_another_array_is_refused_when_the_dataset_is_opened(folder, array, message):
    replace_target(folder, array)
    with pytest.raises(InputError, match=f"targets/age.npy: {message}"):
        open_dataset(folder)


def test_a_pickle_is_refused(folder):
    import pickle

    (folder / "targets/age.npy").write_bytes(pickle.dumps(good_array()))
    with pytest.raises(InputError, match="it begins with"):
        open_dataset(folder)


@pytest.mark.parametrize("size", [0, 5, 100, 128, 130, 200])
def test_a_cut_or_grown_target_is_refused(folder, size):
    os.truncate(folder / "targets/age.npy", size)
    with pytest.raises(InputError, match=r"targets/age\.npy: "):
        open_dataset(folder)


def test_a_missing_target_is_named(folder):
    (folder / "targets/age.npy").unlink()
    with pytest.raises(InputError, match=r"targets/age\.npy: the target is missing"):
        open_dataset(folder)


def edit_target(folder, **changes):
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    fields["targets"][0].update(changes)
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../age"}, "a target is named '../age'"),
        ({"name": "pose"}, "lists a target twice"),
        ({"dtype": "object"}, "target 'age' is 'object'"),
        ({"shape": [12]}, "target 'age' has 12 rows for 11 samples"),
        ({"shape": []}, "has the shape"),
        ({"shape": [11, 0]}, "has rows of shape"),
        ({"shape": [11, True]}, "Expected `int`, got `bool`"),
        ({"sha256": "0"}, "has no SHA-256"),
        ({"name": "labels"}, r"target 'labels' is float32 \(11,\), wanted int8 \(11, 2\)"),
        ({"kind": 1}, "unknown field 'kind'"),
    ],
)
def test_a_manifest_that_lists_nonsense_is_refused(folder, changes, message):
    edit_target(folder, **changes)
    with pytest.raises(InputError, match=f"not a whole manifest.*{message}"):
        read_manifest(folder)


def test_targets_need_the_version_that_has_them(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 3', '"format_version": 2'))
    with pytest.raises(InputError, match="says more than version 2 can"):
        read_manifest(folder)


# --- Checked --------------------------------------------------------------------------------------


def faults_of(folder):
    return {(f.shard, f.reason) for f in verify_dataset(folder, workers=1).errors}


def test_check_finds_nothing_in_a_good_one(folder):
    assert verify_dataset(folder, deep=True, workers=1).ok


def test_check_names_a_changed_item(folder):
    path = folder / "targets/pose.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    open_dataset(folder).close()  # not found by opening: nothing is read then
    assert faults_of(folder) == {
        ("targets/pose.npy", "changed: its SHA-256 is not the one in the manifest")
    }


def test_check_names_another_length_and_a_missing_file(folder):
    replace_target(folder, np.arange(5, dtype=np.float32))
    (folder / "targets/pose.npy").unlink()
    names = {name for name, _ in faults_of(folder)}
    assert names == {"targets/age.npy", "targets/pose.npy"}


def test_check_names_a_target_that_the_digest_does_not_know(folder):
    entry = write_target(folder, TargetSpec("age", "float32"), 11, [good_array()])
    edit_target(folder, sha256=entry.sha256)
    assert {name for name, _ in faults_of(folder)} == {"index.bin"}


# --- Written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row_shape", [(), (3,), (2, 1, 4)])
def test_every_type_and_shape_reads_back(tmp_path, dtype, row_shape):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (7, *row_shape)).astype(DTYPES[dtype])
    spec = TargetSpec("x", dtype, row_shape)
    entry = write_target(tmp_path, spec, 7, [rows[:3], rows[3:3], rows[3:]])
    path = tmp_path / "targets/x.npy"
    check_target(path, entry)
    assert path.stat().st_size == entry.num_bytes
    assert entry.num_bytes % 64 == rows.nbytes % 64  # items begin on a cache line
    loaded = np.load(path, allow_pickle=False)
    assert loaded.dtype == np.dtype(DTYPES[dtype])
    assert (loaded == rows).all()


def test_what_np_save_writes_of_a_plain_array_is_the_same(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_target(tmp_path, TargetSpec("x", "float32", (3,)), 4, [rows])
    np.save(tmp_path / "y.npy", rows)
    assert (tmp_path / "y.npy").read_bytes() == Path(tmp_path / "targets/x.npy").read_bytes()
