"""Datasets made of datasets: no byte of a shard is written, and no sample is lost or doubled."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastssl.config import LoaderConfig
from fastssl.errors import InputError
from fastssl.loaders import build_loader
from fastssl.shards import open_dataset
from fastssl.shards.derive.classes import ClassList, compose_maps, unite_classes
from fastssl.shards.derive.combine import CombineConfig, combine
from fastssl.shards.derive.select import Selection
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.index import IndexHeader
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.manifest import read_manifest
from fastssl.views import ViewSpec

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory, draw_photograph, encode):
    """Two datasets that every test takes its own copy of."""
    root = tmp_path_factory.mktemp("combine")
    for name, classes, seed, samples, per_shard in (
        ("animals", ("cat", "dog"), 0, 12, 5),
        ("birds", ("bird", "cat"), 100, 6, 3),
    ):
        for number in range(samples):
            path = root / f"{name} source" / classes[number % 2] / f"{name}{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(draw_photograph(seed + number)))
        config = ConvertConfig(
            root / f"{name} source", root / name, samples_per_shard=per_shard, workers=1
        )
        convert(config)
    return root


@pytest.fixture
def animals(tmp_path, made_once):
    """12 samples in three shards; cat and dog."""
    return shutil.copytree(made_once / "animals", tmp_path / "animals")


@pytest.fixture
def birds(tmp_path, made_once):
    """6 samples in two shards; bird and cat, so that cat has another label than in animals."""
    return shutil.copytree(made_once / "birds", tmp_path / "birds")


@pytest.fixture
def make(tmp_path):
    """(*datasets, name="out", **options of CombineConfig and Selection) -> the opened dataset."""

    def make_one(*datasets, name="out", **options):
        chosen = {k: options.pop(k) for k in ("ids", "classes", "sources") if k in options}
        config = CombineConfig(datasets, tmp_path / name, Selection(**chosen), **options)
        combine(config)
        return open_dataset(tmp_path / name)

    return make_one


def samples_of(dataset):
    """Source -> (class name, bytes)."""
    found = {}
    for i in range(dataset.num_samples):
        label = int(dataset.index["label"][i])
        name = dataset.class_names[label] if label >= 0 else None
        found[dataset.read_metadata(i)["source"]] = (name, dataset.read_payload(i))
    return found


def is_whole(dataset):
    return verify_dataset(dataset.path, deep=True, workers=1).errors == ()


# --- Merging --------------------------------------------------------------------------------------


def test_merged_datasets_keep_every_sample_under_its_class(animals, birds, make):
    merged = make(animals, birds, merge_classes=True)
    assert merged.num_samples == 18
    assert merged.class_names == ("cat", "dog", "bird")
    assert samples_of(merged) == samples_of(open_dataset(animals)) | samples_of(open_dataset(birds))
    assert is_whole(merged)


def test_ids_of_the_first_stay_and_the_second_follows(animals, birds, make):
    merged, first, second = (
        make(animals, birds, merge_classes=True),
        *map(open_dataset, (animals, birds)),
    )
    for i in range(18):
        wanted = first.read_payload(i) if i < 12 else second.read_payload(i - 12)
        assert merged.read_payload(i) == wanted
    assert merged.index["label"][:12].tolist() == first.index["label"].tolist()


def test_shards_are_linked_and_not_written(animals, make):
    made = make(animals)
    for shard in made.manifest.shards:
        for name in (shard.name, shard.name.replace(".tar", ".idx")):
            assert os.path.samefile(made.path / name, animals / name)
            assert not (made.path / name).is_symlink()


def test_symbolic_links_lead_to_the_files_themselves(animals, make):
    first = make(animals, name="first", link="symbolic")
    second = make(first.path, name="second", link="symbolic")
    link = second.path / "shard-000000.tar"
    assert Path(os.readlink(link)) == (animals / "shard-000000.tar").resolve()
    assert is_whole(second)


def test_hard_links_outlive_the_dataset_that_they_came_from(animals, make):
    made = make(animals)
    for path in animals.iterdir():
        path.unlink()
    assert is_whole(made)


def test_the_same_data_has_the_same_digest(animals, make):
    assert make(animals).digest == open_dataset(animals).digest


def test_merged_data_has_another_digest_in_each_order(animals, birds, make):
    options = {"merge_classes": True}
    digests = {
        make(animals, birds, name="a", **options).digest,
        make(birds, animals, name="b", **options).digest,
        open_dataset(animals).digest,
        open_dataset(birds).digest,
    }
    assert len(digests) == 4


def test_accounts_are_added_up(photographs, make_dataset, make, birds):
    (photographs / "cat/bad.jpg").write_bytes(b"no image")
    first = make_dataset(photographs, "first")[0]
    merged = make(first, birds, merge_classes=True, classes=("bird",))
    manifest = merged.manifest
    assert manifest.skipped == {"non-image": 1, "not-selected": 15}
    assert manifest.num_read == manifest.num_samples + sum(manifest.skipped.values()) == 19
    lines = (merged.path / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["cat/bad.jpg"]


def test_plain_merges_stay_version_1(animals, birds, make, photographs, make_dataset):
    (photographs / "dog/more.jpg").write_bytes((photographs / "dog/image1.jpg").read_bytes())
    other = make_dataset(photographs, "other", seed=5)[0]
    assert json.loads((make(animals, other).path / "manifest.json").read_text()).keys() == (
        json.loads((animals / "manifest.json").read_text()).keys()
    )
    relabelled = make(animals, birds, name="relabelled", merge_classes=True)
    assert relabelled.manifest.format_version == 2
    assert json.loads((relabelled.path / "manifest.json").read_text())["label_maps"] == [[2, 0]]


def test_encodings_that_differ_are_called_mixed(photographs, animals, make_dataset, make):
    raw = make_dataset(photographs, "raw", encode="raw", resize_short=20)[0]
    merged = make(animals, raw)
    assert (merged.encoding, merged.manifest.encoding_options) == ("mixed", {})
    assert is_whole(merged)


# --- Parts ----------------------------------------------------------------------------------------


def test_classes_are_kept_by_name(animals, make):
    part = make(animals, classes=("dog",))
    wanted = {k: v for k, v in samples_of(open_dataset(animals)).items() if v[0] == "dog"}
    assert samples_of(part) == wanted
    assert part.class_names == ("cat", "dog")
    assert part.index["label"].tolist() == [1] * 6
    assert part.manifest.format_version == 2
    assert is_whole(part)


def test_empty_classes_are_dropped_on_demand(animals, birds, make):
    part = make(
        animals, birds, classes=("dog", "bird"), merge_classes=True, drop_empty_classes=True
    )
    assert part.class_names == ("dog", "bird")
    assert np.bincount(part.index["label"]).tolist() == [6, 3]
    assert is_whole(part)


def test_ids_are_kept_in_their_order(tmp_path, animals, birds, make):
    (tmp_path / "ids.txt").write_text("13\n 0\n11\n\n12\n0\n")
    part = make(animals, birds, ids=tmp_path / "ids.txt", merge_classes=True)
    first, second = open_dataset(animals), open_dataset(birds)
    wanted = [first.read_payload(0), first.read_payload(11)]
    wanted += [second.read_payload(0), second.read_payload(1)]
    assert [part.read_payload(i) for i in range(part.num_samples)] == wanted
    # The shard in the middle has no sample left, so it is not linked.
    assert [shard.samples for shard in part.manifest.shards] == [1, 1, 2]
    assert is_whole(part)


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_sources_are_kept_by_list_and_by_table(tmp_path, animals, make, kind):
    chosen = ["dog/animals3.jpg", "cat/animals0.jpg"]
    header = "path\n" if kind == "csv" else ""
    (tmp_path / f"chosen.{kind}").write_text(header + "\n".join(chosen) + "\n")
    part = make(animals, sources=tmp_path / f"chosen.{kind}")
    assert sorted(samples_of(part)) == sorted(chosen)


def test_selections_are_cut_with_each_other(tmp_path, animals, make):
    ids = [i for i in range(12) if i % 3]
    (tmp_path / "ids.txt").write_text("\n".join(map(str, ids)))
    part = make(animals, ids=tmp_path / "ids.txt", classes=("cat",))
    labels = open_dataset(animals).index["label"]
    assert part.num_samples == sum(labels[i] == 0 for i in ids)


def test_parts_that_do_not_overlap_can_be_merged_again(animals, make):
    cats = make(animals, name="cats", classes=("cat",))
    dogs = make(animals, name="dogs", classes=("dog",))
    whole = make(cats.path, dogs.path)
    assert samples_of(whole) == samples_of(open_dataset(animals))
    assert is_whole(whole)


def test_a_part_of_a_part_of_merged_data_keeps_its_classes(animals, birds, make):
    merged = make(birds, animals, name="merged", merge_classes=True)
    part = make(merged.path, name="part", classes=("dog", "cat"), drop_empty_classes=True)
    last = make(part.path, classes=("dog",), drop_empty_classes=True)
    assert part.class_names == ("cat", "dog")
    assert last.class_names == ("dog",)
    wanted = {k: v for k, v in samples_of(open_dataset(animals)).items() if v[0] == "dog"}
    assert samples_of(last) == wanted
    assert is_whole(part)
    assert is_whole(last)


def test_samples_without_a_label_stay_without(animals, make, make_dataset, photographs):
    plain = make_dataset(photographs / "cat", "plain", seed=3)[0]
    merged = make(animals, plain)
    assert merged.class_names == ("cat", "dog")
    assert merged.index["label"][12:].tolist() == [-1] * 6
    assert merged.manifest.num_labelled == 12


def test_loaders_read_a_part_like_any_dataset(animals, birds, make):
    part = make(animals, birds, classes=("cat",), merge_classes=True)
    config = LoaderConfig(path=part.path, loader="webdataset", global_batch_size=9, num_threads=1)
    loader = build_loader(config, ViewSpec.center(20, 16))
    try:
        batch = next(iter(loader))
    finally:
        loader.close()
    assert sorted(batch.sample_ids.tolist()) == list(range(9))
    assert batch.labels.tolist() == [0] * 9


def test_a_derived_dataset_is_converted_as_the_index_says(animals, birds, make, make_dataset):
    part = make(animals, birds, classes=("cat", "bird"), merge_classes=True)
    again = open_dataset(make_dataset(part.path, "again", keep_order=True)[0])
    assert again.class_names == ("cat", "dog", "bird")
    assert samples_of(again) == samples_of(part)
    assert again.manifest.format_version == 1


# --- Checking derived datasets --------------------------------------------------------------------


def rewrite(folder, change):
    """Change the rows and make every digest anew: a lie that the digest does not tell."""
    index = (folder / "index.bin").read_bytes()
    rows = np.frombuffer(index, open_dataset(folder).index.dtype, offset=64).copy()
    change(rows)
    manifest = read_manifest(folder)
    digest = manifest.begin_digest()
    digest.update(rows.tobytes())
    header = IndexHeader(len(rows), digest.hexdigest()).pack()
    (folder / "index.bin").write_bytes(header + rows.tobytes())
    manifest = replace(manifest, digest=digest.hexdigest())
    (folder / "manifest.json").write_text(manifest.to_json())


def relabel(rows):
    rows["label"][0] = 1


def misplace(rows):
    rows["offset"][0] += 512


def double(rows):
    rows[4] = rows[3]  # of the first shard of the second dataset


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (relabel, r"its label is b'1' \(b'0' here\), the index says 1"),
        (misplace, "none of its images begins at"),
        (double, "once each and in order"),
    ],
)
def test_a_row_that_contradicts_the_tar_is_named(animals, birds, make, change, message):
    part = make(birds, animals, classes=("cat",), merge_classes=True, drop_empty_classes=True)
    rewrite(part.path, change)
    errors = verify_dataset(part.path, workers=1).errors
    assert any(re.search(message, fault.reason) for fault in errors), errors


def test_an_intruder_in_the_tar_is_noticed(animals, make):
    part = make(animals, classes=("dog",))
    manifest = json.loads((part.path / "manifest.json").read_text())
    manifest["shards"][0]["stored"] += 1
    (part.path / "manifest.json").write_text(json.dumps(manifest))
    errors = verify_dataset(part.path, workers=1).errors
    assert [fault.reason for fault in errors] == ["5 samples, 6 in the manifest"]


# --- Bad input ------------------------------------------------------------------------------------


def test_other_classes_are_refused_unless_merging_is_asked_for(tmp_path, animals, birds, make):
    with pytest.raises(InputError, match=r"class lists differ.*'bird' is in.*--merge-classes true"):
        make(animals, birds)
    assert not (tmp_path / "out").exists()


def test_a_dataset_given_twice_is_refused(animals, make):
    with pytest.raises(InputError, match="share samples"):
        make(animals, animals)
    part = make(animals, name="part", classes=("dog",))
    with pytest.raises(InputError, match="share samples"):
        make(animals, part.path)


def test_an_index_that_was_changed_gets_no_new_digest(animals, make):
    content = bytearray((animals / "index.bin").read_bytes())
    content[64 + 24] ^= 1
    (animals / "index.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"give the digest .*fastssl check-shards"):
        make(animals)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("0\n12\n", r"line 2 says '12', wanted a sample id, 0 \.\. 11"),
        ("-1\n", "line 1 says '-1'"),
        ("one\n", "line 1 says 'one'"),
        ("9" * 5000, "line 1 says '999"),
        ("", "nothing is left of 12 samples: --ids keep none"),
    ],
)
def test_wrong_ids_are_named(tmp_path, animals, make, ids, message):
    (tmp_path / "ids.txt").write_text(ids)
    with pytest.raises(InputError, match=message):
        make(animals, ids=tmp_path / "ids.txt")
    assert not (tmp_path / "out").exists()


def test_unknown_classes_and_sources_are_named(tmp_path, animals, make):
    with pytest.raises(InputError, match="no class 'doc'; did you mean 'dog'"):
        make(animals, classes=("doc",))
    (tmp_path / "chosen.txt").write_text("cat/animals0.jpg\ncat/animals1.jpg\n")
    with pytest.raises(InputError, match=r"1 of its 2 sources.*'cat/animals1\.jpg'"):
        make(animals, sources=tmp_path / "chosen.txt")
    with pytest.raises(InputError, match="no such file"):
        make(animals, ids=tmp_path / "nowhere.txt")


def test_a_target_that_is_not_new_is_refused(animals, make):
    with pytest.raises(InputError, match="not empty"):
        make(animals, name="animals")
    with pytest.raises(InputError, match="no dataset given"):
        make()


def test_a_missing_dali_index_is_named(animals, make, tmp_path):
    (animals / "shard-000001.idx").unlink()
    with pytest.raises(InputError, match=r"shard-000001\.idx: missing"):
        make(animals)
    assert [path.name for path in tmp_path.iterdir()] == ["animals"]


def test_hard_links_across_file_systems_name_the_remedy(animals, make, tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to link into")
    target = other / f"fastssl-test-{os.getpid()}"
    with pytest.raises(InputError, match=r"cannot be hard-linked.*--link symbolic"):
        make(animals, name=target)
    assert not target.exists()


def test_labels_without_names_do_not_mix_with_names():
    named, nameless = ClassList("a", ("x",), True), ClassList("b", (), True)
    with pytest.raises(InputError, match="b has labels without class names"):
        unite_classes([named, nameless], merge=True)
    assert unite_classes([nameless, nameless], merge=False) == ((), [None, None])


def test_maps_are_composed():
    assert compose_maps(None, None) is None
    assert compose_maps((1, 0), None) == (1, 0)
    assert compose_maps(None, (2, 1)) == (2, 1)
    assert compose_maps((1, -1, 0), (5, 7)) == (7, -1, 5)


# --- The command ----------------------------------------------------------------------------------


def test_the_command_merges_and_says_so(tmp_path, animals, birds, run_tool):
    out = tmp_path / "out"
    refused = run_tool("combine_shards.py", out, animals, birds)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: class lists differ")
    done = run_tool("combine_shards.py", out, animals, birds, "--merge-classes", "true")
    assert done.returncode == 0, done.stderr
    assert "18 samples in 5 linked shards, 3 classes" in done.stdout


def test_classes_given_twice_are_refused(tmp_path, animals, run_tool):
    options = ("--classes", "cat", "--classes", "dog")
    done = run_tool("combine_shards.py", tmp_path / "out", animals, *options)
    assert done.returncode == 2
    assert "--classes is given more than once" in done.stderr


@pytest.mark.faults
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_stopped_merge_leaves_no_dataset_and_can_be_repeated(tmp_path, animals, name):
    # The signal comes after the first shard was linked.
    out = tmp_path / "out"
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fastssl.commands.frame import run_command\n"
        "from fastssl.shards.derive.combine import CombineConfig, combine\n"
        f"config = CombineConfig((Path({str(animals)!r}),), Path({str(out)!r}))\n"
        f"stop = lambda *_: os.kill(os.getpid(), signal.{name}) if len(sys.argv) > 1 else None\n"
        "run_command(lambda: combine(config, stop))\n"
    )
    command = [sys.executable, "-c", code]
    stopped = subprocess.run([*command, "stop"], cwd=ROOT, capture_output=True, text=True)
    assert stopped.returncode == (-signal.SIGKILL if name == "SIGKILL" else 75)
    assert not out.exists()
    assert (tmp_path / ".out.combining").exists() == (name == "SIGKILL")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert is_whole(open_dataset(out))
    assert not (tmp_path / ".out.combining").exists()


def test_hard_links_of_symbolic_ones_are_of_the_files_themselves(animals, make):
    linked = make(animals, name="first", link="symbolic")
    made = make(linked.path, name="second")
    for name in ("shard-000000.tar", "shard-000000.idx"):
        assert os.path.samefile(made.path / name, animals / name)
        assert not (made.path / name).is_symlink()


@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_an_index_of_a_shard_that_leads_elsewhere_is_not_linked(animals, make, tmp_path, link):
    (tmp_path / "secret").write_text("of somebody else")
    (animals / "shard-000001.idx").unlink()
    (animals / "shard-000001.idx").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"shard-000001\.idx: a symbolic link"):
        make(animals, link=link)
