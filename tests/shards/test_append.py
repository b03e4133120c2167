"""Images are added to a finished dataset, which is the old one or the new one at every moment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.manifest import BUILDING_NAME

ROOT = Path(__file__).parents[2]


@pytest.fixture
def more(tmp_path, draw_photograph, encode):
    """Seven photographs of the same two classes, and a file that is none."""
    source = tmp_path / "more"
    for number in range(7):
        path = source / ("cat", "dog")[number % 2] / f"new{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(draw_photograph(50 + number)))
    (source / "cat/bad.jpg").write_bytes(b"no image")
    return source


def samples_of(path):
    """(class name, source, bytes) by sample id."""
    dataset = open_dataset(path)
    names = (*dataset.class_names, None)
    return [
        (
            names[dataset.index["label"][i]],
            dataset.read_metadata(i)["source"],
            dataset.read_payload(i),
        )
        for i in range(dataset.num_samples)
    ]


def assert_whole(path):
    assert verify_dataset(path, deep=True, workers=1).errors == ()


def test_added_images_follow_the_old_ones(photographs, more, make_dataset):
    out, _ = make_dataset(photographs)
    before, old = samples_of(out), open_dataset(out)
    _, report = make_dataset(more, append=True)
    after, new = samples_of(out), open_dataset(out)
    assert after[:12] == before
    assert {(name, source) for name, source, _ in after[12:]} == {
        (("cat", "dog")[i % 2], f"{('cat', 'dog')[i % 2]}/new{i}.jpg") for i in range(7)
    }
    assert (report.read, report.written, report.skipped) == (8, 7, {"non-image": 1})
    assert new.digest != old.digest
    assert new.class_names == old.class_names
    assert_whole(out)


def test_accounts_of_an_addition_are_added(photographs, more, make_dataset):
    (photographs / "dog/worse.jpg").write_bytes(b"")
    out, _ = make_dataset(photographs)
    make_dataset(more, append=True)
    manifest = open_dataset(out).manifest
    assert manifest.skipped == {"non-image": 1, "zero-byte": 1}
    assert manifest.num_read == manifest.num_samples + 2 == 21
    assert manifest.num_labelled == 19
    lines = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == ["dog/worse.jpg", "cat/bad.jpg"]
    (addition,) = manifest.additions
    assert (addition.num_read, addition.num_samples, addition.num_shards) == (8, 7, 2)


def test_old_shards_are_not_touched_and_names_do_not_collide(photographs, more, make_dataset):
    out, _ = make_dataset(photographs)
    before = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.glob("shard-*")}
    make_dataset(more, append=True)
    after = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.glob("shard-*")}
    assert before.items() < after.items()
    members = []
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as archive:
            members += [name for name in archive.getnames() if name.endswith(".jpg")]
    assert members == sorted(set(members))
    assert len(members) == 19


def test_what_is_added_does_not_depend_on_workers(tmp_path, photographs, more, read_tree):
    for name, workers in (("one", 1), ("two", 2)):
        for source, append in ((photographs, False), (more, True)):
            convert(
                ConvertConfig(
                    source, tmp_path / name, samples_per_shard=3, workers=workers, append=append
                )
            )
    assert read_tree(tmp_path / "one") == read_tree(tmp_path / "two")


def test_new_classes_come_only_when_asked_for(photographs, more, make_dataset, read_tree):
    out, _ = make_dataset(photographs)
    before = read_tree(out)
    (more / "cat").rename(more / "axolotl")
    with pytest.raises(InputError, match=r"class lists differ.*'axolotl'.*--merge-classes true"):
        make_dataset(more, append=True)
    assert read_tree(out) == before
    make_dataset(more, append=True, merge_classes=True)
    assert open_dataset(out).class_names == ("cat", "dog", "axolotl")
    added = samples_of(out)[12:]
    assert all(source.startswith(f"{name}/") for name, source, _ in added)
    assert_whole(out)


def test_images_without_labels_may_be_added(photographs, more, make_dataset):
    out, _ = make_dataset(photographs)
    make_dataset(more / "cat", append=True)
    assert [name for name, _, _ in samples_of(out)[12:]] == [None] * 4
    assert_whole(out)


def test_integer_labels_extend_a_numbered_class_list(tmp_path, photographs, make_dataset):
    for name, labels in (("first", (0, 1)), ("second", (3, 1))):
        rows = [f"{photographs}/cat/image{4 * i}.jpg,{label}\n" for i, label in enumerate(labels)]
        (tmp_path / f"{name}.csv").write_text("path,label\n" + "".join(rows))
    out, _ = make_dataset(tmp_path / "first.csv")
    make_dataset(tmp_path / "second.csv", append=True)
    dataset = open_dataset(out)
    assert dataset.class_names == ("0", "1", "2", "3")
    assert sorted(dataset.index["label"].tolist()) == [0, 1, 1, 3]


def test_numbers_are_not_taken_for_named_classes(tmp_path, photographs, make_dataset):
    make_dataset(photographs)
    (tmp_path / "t.csv").write_text(f"path,label\n{photographs}/cat/image0.jpg,1\n")
    with pytest.raises(InputError, match="labels without class names"):
        make_dataset(tmp_path / "t.csv", append=True)


def test_several_additions_follow_each_other(photographs, more, make_dataset):
    out, _ = make_dataset(photographs)
    make_dataset(more / "cat", append=True)
    make_dataset(more / "dog", append=True)
    assert len(samples_of(out)) == 12 + 4 + 3
    assert [addition.num_samples for addition in open_dataset(out).manifest.additions] == [4, 3]
    assert_whole(out)


def test_the_same_source_is_not_added_twice(photographs, more, make_dataset, read_tree):
    out, _ = make_dataset(photographs)
    _, first = make_dataset(more, append=True)
    after = read_tree(out)
    for source in (more, photographs):
        with pytest.raises(InputError, match=r"holds already.*combine_shards"):
            make_dataset(source, append=True)
    _, again = make_dataset(more, append=True, resume=True)
    assert again.was_finished
    assert (again.read, again.written, again.skipped) == (first.read, first.written, first.skipped)
    assert read_tree(out) == after


def test_a_source_without_images_changes_nothing(tmp_path, photographs, make_dataset, read_tree):
    out, _ = make_dataset(photographs)
    before = read_tree(out)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/1.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="none of its 1 files is a readable image"):
        make_dataset(tmp_path / "bad", append=True)
    assert read_tree(out) == before


def test_another_encoding_is_refused_with_the_options(photographs, more, make_dataset):
    make_dataset(photographs, encode="resized", resize_short=20, quality=80)
    with pytest.raises(
        InputError, match=r"--encode resized --quality 80 --resize-short 20; add to it by the same"
    ):
        make_dataset(more, append=True)
    make_dataset(more, append=True, encode="resized", resize_short=20, quality=80)


def test_only_a_whole_dataset_is_added_to(photographs, more, make_dataset):
    with pytest.raises(InputError, match="no such folder"):
        make_dataset(more, append=True)
    out, _ = make_dataset(photographs)
    os.truncate(out / "shard-000001.tar", 100)
    with pytest.raises(InputError, match="truncated or changed"):
        make_dataset(more, append=True)


def test_merge_classes_is_said_to_be_ignored(photographs, make_dataset):
    with pytest.warns(UserWarning, match="--merge-classes is ignored without --append"):
        make_dataset(photographs, merge_classes=True)


def test_datasets_that_share_shards_stay_as_they_are(tmp_path, photographs, more, make_dataset):
    from fastssl.shards.derive.combine import CombineConfig, combine

    out, _ = make_dataset(photographs)
    combine(CombineConfig((out,), tmp_path / "linked"))
    before = samples_of(tmp_path / "linked")
    make_dataset(more, append=True)
    assert samples_of(tmp_path / "linked") == before
    assert_whole(tmp_path / "linked")


def test_a_part_can_be_added_to(tmp_path, photographs, more, make_dataset):
    from fastssl.shards.derive.combine import CombineConfig, combine
    from fastssl.shards.derive.select import Selection

    out, _ = make_dataset(photographs)
    combine(CombineConfig((out,), tmp_path / "part", Selection(classes=("dog",))))
    make_dataset(more, "part", append=True)
    assert [name for name, _, _ in samples_of(tmp_path / "part")].count("dog") == 6 + 3
    assert_whole(tmp_path / "part")


# --- Stopped at every moment ----------------------------------------------------------------------

# Ends the process by kill -9 right before the n-th rename that it makes itself; the worker's are
# its own.
KILLED = """
import os, signal, sys
from pathlib import Path
from fastssl.command import run_command
from fastssl.shards.convert import ConvertConfig, convert

left = int(sys.argv[1]) if __name__ == "__main__" else -1
def count_renames(event, arguments):
    global left
    if event == "os.rename" and left >= 0:
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
sys.addaudithook(count_renames)
if __name__ == "__main__":
    config = ConvertConfig(
        Path(sys.argv[2]), Path(sys.argv[3]), samples_per_shard=5, workers=1, append=True,
        resume=True,
    )
    run_command(lambda: convert(config))
"""


def run_until_rename(script, count, source, out):
    return subprocess.run(
        [sys.executable, script, str(count), source, out],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.faults
def test_kill_9_at_every_rename_leaves_the_old_or_the_new_dataset(
    tmp_path, photographs, more, make_dataset, read_tree
):
    base, _ = make_dataset(photographs, "base")
    old = samples_of(base)
    shutil.copytree(base, tmp_path / "wanted")
    make_dataset(more, "wanted", append=True)
    new, wanted = samples_of(tmp_path / "wanted"), read_tree(tmp_path / "wanted")
    (tmp_path / "killed.py").write_text(KILLED)
    seen = []
    for count in range(20):
        out = tmp_path / f"out{count}"
        shutil.copytree(base, out)
        done = run_until_rename(tmp_path / "killed.py", count, more, out)
        assert done.returncode in (-signal.SIGKILL, 0), done.stderr
        found = samples_of(out)
        assert found in (old, new)
        seen.append(found == new)
        if done.returncode == 0:
            break
        assert_whole(out)
        again = make_dataset(more, out.name, append=True, resume=True)[1]
        assert (again.read, again.written) == (8, 7)
        assert read_tree(out) == wanted
        assert not (out / BUILDING_NAME).exists()
    else:
        pytest.fail("it never came to its end")
    # Old up to the rename of the index, new from then on, in at least two more renames.
    assert seen == sorted(seen)
    assert seen.count(False) >= 5
    assert seen.count(True) >= 3


@pytest.mark.faults
def test_an_unfinished_addition_is_not_mistaken_for_something_else(
    tmp_path, photographs, more, make_dataset
):
    out, _ = make_dataset(photographs)
    (tmp_path / "killed.py").write_text(KILLED)
    assert run_until_rename(tmp_path / "killed.py", 5, more, out).returncode == -signal.SIGKILL
    with pytest.raises(InputError, match=r"unfinished addition of .*add --resume"):
        make_dataset(more, append=True)
    with pytest.raises(InputError, match=r"unfinished addition of .*--append --resume"):
        make_dataset(photographs, resume=True)
    with pytest.raises(InputError, match=r"SOURCE was .*more, now .*photographs"):
        make_dataset(photographs, append=True, resume=True)
    make_dataset(more, append=True, resume=True)
    assert_whole(out)


@pytest.mark.slow
def test_a_run_on_the_old_data_refuses_the_new(tmp_path, photographs, more, make_dataset, run_tool):
    out, _ = make_dataset(photographs)
    old = open_dataset(out).digest
    options = ("demo_smoke", "--data.path", out, "--output-dir", tmp_path / "run")
    options += ("--data.global-batch-size", 4, "--data.num-threads", 1, "--max-steps", 2)
    first = run_tool("train.py", *options)
    assert first.returncode == 0, first.stderr
    make_dataset(more, append=True)
    second = run_tool("train.py", *options[:-1], 4)
    assert second.returncode == 2
    (line,) = [text for text in second.stderr.splitlines() if text.startswith("error: ")]
    assert "dataset_digest" in line
    assert old in line
    assert open_dataset(out).digest in line
