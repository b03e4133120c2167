"""Other people's readers open what we write."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from fastssl.shards import open_dataset


@pytest.fixture
def dataset(photographs, make_dataset):
    return open_dataset(make_dataset(photographs)[0])


def test_webdataset_reads_the_samples(dataset):
    webdataset = pytest.importorskip("webdataset")
    urls = [str(dataset.path / shard.name) for shard in dataset.manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["jpg"] for sample in samples] == [dataset.read_payload(i) for i in range(12)]
    assert [int(sample["cls"]) for sample in samples] == dataset.index["label"].tolist()
    assert [json.loads(s["json"]) for s in samples] == [dataset.read_metadata(i) for i in range(12)]
    assert [sample["__key__"] for sample in samples] == [f"{i:09d}" for i in range(12)]


def test_dali_reads_the_samples_by_our_index(dataset):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install fastssl[dali])")
    from nvidia.dali import fn, pipeline_def

    shards = [dataset.path / shard.name for shard in dataset.manifest.shards]

    @pipeline_def(batch_size=12, num_threads=1, device_id=None)
    def read():
        images, labels = fn.readers.webdataset(
            paths=[str(path) for path in shards],
            index_paths=[str(path.with_suffix(".idx")) for path in shards],
            ext=["jpg", "cls"],
        )
        return images, labels

    images, labels = read().run()
    for i in range(12):
        assert np.array(images.at(i)).tobytes() == dataset.read_payload(i)
        assert int(np.array(labels.at(i)).tobytes()) == dataset.index["label"][i]


def test_dali_makes_the_same_index(dataset, tmp_path):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install fastssl[dali])")
    wds2idx = pytest.importorskip("wds2idx")
    for shard in dataset.manifest.shards:
        path = dataset.path / shard.name
        theirs = tmp_path / "theirs.idx"
        with wds2idx.IndexCreator(str(path), str(theirs), verbose=False) as creator:
            creator.create_index()
        assert path.with_suffix(".idx").read_text().split() == theirs.read_text().split()


def test_tar_unpacks_the_files(dataset, tmp_path):
    target = tmp_path / "unpacked"
    target.mkdir()
    for shard in dataset.manifest.shards:
        path = dataset.path / shard.name
        done = subprocess.run(
            ["tar", "-xf", path, "-C", target], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
    assert len(list(target.iterdir())) == 36
    for i in range(12):
        assert (target / f"{i:09d}.jpg").read_bytes() == dataset.read_payload(i)
