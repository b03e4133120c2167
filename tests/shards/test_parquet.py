"""Parquet that holds the images themselves, as Hugging Face keeps them, written by pyarrow."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from fastssl.errors import InputError, RunFailed
from fastssl.shards import open_dataset
from fastssl.shards.making import parquet_table, plan
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.plan import order_blocks
from fastssl.shards.making.sources import EntryReader, LeftOut, open_source, read_entry
from fastssl.shards.making.tables import TableColumns

pa = pytest.importorskip("pyarrow", reason='needs pip install "fastssl[tables]"')
pq = pytest.importorskip("pyarrow.parquet")

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["cat", "dog"]
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"_type": "ClassLabel", "names": NAMES},
}


def read_tree(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write(path, columns, features=FEATURES, row_group_size=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(
        pa.table(columns).replace_schema_metadata(metadata), path, row_group_size=row_group_size
    )
    return path


def images(*contents):
    items = [{"bytes": c, "path": f"{n}.jpg"} for n, c in enumerate(contents)]
    return pa.array(items, IMAGE)


@pytest.fixture
def parquet(photographs, tmp_path):
    """The twelve photographs in two files of row groups of two; their folder."""
    contents = read_tree(photographs)
    for part in (0, 1):
        names = list(contents)[part::2]
        columns = {
            "image": images(*(contents[name] for name in names)),
            "label": [NAMES.index(name.partition("/")[0]) for name in names],
            "name": names,
            "age": [float(len(name)) for name in names],
        }
        write(tmp_path / f"hf/train-0000{part}-of-00002.parquet", columns)
    return tmp_path / "hf"


def read_dataset(out):
    dataset = open_dataset(out)
    found = {}
    for number in range(len(dataset)):
        label = dataset.class_names[dataset.index["label"][number]]
        found[dataset.read_metadata(number)["name"]] = dataset.read_payload(number), label
    return found


def test_bytes_labels_and_targets_are_those_of_the_files(parquet, photographs, make_dataset):
    out, report = make_dataset(parquet, targets=("age:float32",))
    assert (report.written, report.skipped, report.num_labelled) == (12, {}, 12)
    dataset = open_dataset(out)
    assert list(dataset.class_names) == NAMES
    assert read_dataset(out) == {
        name: (content, name.partition("/")[0]) for name, content in read_tree(photographs).items()
    }
    names = [dataset.read_metadata(number)["name"] for number in range(12)]
    assert dataset.targets["age"].tolist() == [len(name) for name in names]
    source = dataset.read_metadata(0)["source"]
    assert source.startswith("train-0000")
    assert source.partition(".parquet/")[2].isdigit()
    assert dataset.read_metadata(0)["path"].endswith(".jpg")


@pytest.fixture
def server(serve, parquet):
    pytest.importorskip("fsspec", reason='needs pip install "fastssl[scale]"')
    return serve(parquet)


def read_all(source):
    reader = EntryReader(source.root)
    return {entry.name: reader.begin(entry)() for entry in source.entries()}


def test_remote_files_give_the_same(server, parquet):
    remote = open_source(server.address + "/train-{00000..00001}-of-00002.parquet")
    assert read_all(remote) == read_all(open_source(parquet))
    assert len(list(remote.entries())) == 12  # once more, as a conversion that goes on lists it
    assert all(part is not None for _, part in server.asked)


@pytest.mark.faults
def test_a_store_that_stays_away_ends_the_conversion_and_leaves_nothing_out(server):
    source = open_source(server.address + "/train-00000-of-00002.parquet")
    entry = next(iter(source.entries()))
    server.troubled("train-00000-of-00002.parquet", "503")
    with pytest.raises(RunFailed, match=r"status 503.*go on later with --resume"):
        read_entry(source.root, entry)


def test_a_stopped_conversion_goes_on_to_the_same_bytes(parquet, tmp_path):
    from fastssl.errors import StoppedBySignal

    options = {"samples_per_shard": 5, "workers": 1}

    def stop(*_counts):
        raise StoppedBySignal("stopped")

    with pytest.raises(StoppedBySignal):
        convert(ConvertConfig(parquet, tmp_path / "out", **options), stop)
    convert(ConvertConfig(parquet, tmp_path / "out", resume=True, **options))
    convert(ConvertConfig(parquet, tmp_path / "whole", **options))
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "whole")


def test_a_row_group_is_read_once_for_a_shard(monkeypatch):
    """Entries are mixed within shards, so that a shard's blocks are few."""
    monkeypatch.setattr(plan, "WINDOW_BYTES", 1000)
    blocks = [(10, 400)] * 9 + [(0, 0), (3, 5000)]
    order = order_blocks(blocks, 0, 30)
    assert sorted(order.tolist()) == list(range(93))
    assert order.tolist() == order_blocks(blocks, 0, 30).tolist()
    assert order.tolist() != order_blocks(blocks, 1, 30).tolist()
    block_of = np.minimum(order // 10, 9)
    # Two blocks fit into memory together: looking back over them, no other one is between.
    for number in range(10):
        places = np.flatnonzero(block_of == number)
        assert places[-1] - places[0] < 20 + 3
    assert any(len(list(run)) < 10 for _, run in itertools.groupby(block_of))
    assert order_blocks(blocks, None, 30).tolist() == list(range(93))


def test_row_groups_that_memory_has_no_room_for_are_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_table, "WINDOW_BYTES", 1000)
    contents = [bytes([n]) * 900 for n in range(8)]
    path = write(tmp_path / "a.parquet", {"image": images(*contents)}, row_group_size=1)
    source = open_source(path)
    reader = EntryReader(source.root)
    assert [reader.begin(entry)().data for entry in source.entries()] == contents
    assert sum(one.nbytes for one in reader._rows._groups.values()) < 4000


def test_a_column_of_plain_bytes_and_labels_of_text(tmp_path):
    columns = {"jpg": pa.array([b"one", b"two"]), "kind": ["b", "a"]}
    path = write(tmp_path / "a.parquet", columns, {})
    source = open_source(path, TableColumns(label="kind"))
    entries = list(source.entries())
    assert [read_entry(source.root, entry).data for entry in entries] == [b"one", b"two"]
    assert (source.class_names, [entry.label for entry in entries]) == (["a", "b"], [1, 0])


def test_several_columns_of_bytes_have_to_be_told_apart(tmp_path):
    columns = {"left": pa.array([b"l"]), "right": pa.array([b"r"]), "label": [0]}
    path = write(tmp_path / "a.parquet", columns, {})
    with pytest.raises(InputError, match=r"2 columns hold bytes \(left, right\).*--image-column"):
        open_source(path)
    with pytest.raises(InputError, match=r"'righ' .*did you mean 'right'"):
        open_source(path, TableColumns(image="righ"))


def test_a_row_without_bytes_is_left_out(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": images(None, b"x"), "label": [0, -1]})
    source = open_source(path)
    first, second = source.entries()
    with pytest.raises(LeftOut, match="no bytes of an image"):
        read_entry(source.root, first)
    assert (first.label, second.label) == (0, -1)


def test_a_label_that_has_no_name_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": images(b"x"), "label": [2]})
    with pytest.raises(InputError, match=r"row 1 has the label 2, wanted -1 \(none\) \.\. 1"):
        list(open_source(path).entries())


@pytest.mark.parametrize("name", ["url", "path"])
def test_addresses_alone_are_no_images_and_a_line_says_what_to_do(tmp_path, name):
    write(tmp_path / "a.parquet", {name: ["https://host/1.jpg"], "label": [0]}, {})
    with pytest.raises(InputError, match=r"holds addresses of images.* fetch them first"):
        ConvertConfig(tmp_path / "a.parquet", tmp_path / "out").open_source()


def test_parts_of_a_data_set_are_not_mixed(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"hf/{split}-00000-of-00001.parquet", {"image": images(b"x")})
    with pytest.raises(InputError, match=r"train, test are parts .*/hf/train-\*\.parquet' OUT"):
        open_source(tmp_path / "hf")
    found = open_source(tmp_path / "hf/train-*.parquet").entries()
    assert [entry.name for entry in found] == ["train-00000-of-00001.parquet/0"]


def test_files_of_other_columns_are_refused(tmp_path):
    write(tmp_path / "hf/0.parquet", {"image": images(b"x"), "label": [0]})
    write(tmp_path / "hf/1.parquet", {"image": images(b"x"), "label": ["cat"]})
    with pytest.raises(InputError, match=r"1\.parquet: its column 'label' is not there, or not as"):
        list(open_source(tmp_path / "hf").entries())


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": images(b"x" * 1000), "label": [0]})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
        open_source(path)
