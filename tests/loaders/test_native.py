"""The native back end: what the contract does not ask of the others."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.config import LoaderConfig, RunConfig
from fastssl.errors import InputError
from fastssl.extension import load_extension
from fastssl.loaders import build_loader
from fastssl.loaders.reference import cut_views
from fastssl.ops.jpeg import decode_views, has_jpeg, pack_views, require_jpeg
from fastssl.runs.identity import identity
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.picture import open_picture, to_upright_rgb
from fastssl.views import ViewSpec, draw_boxes, list_views
from tests.conftest import save_photograph
from tests.patience import HANGS_AFTER_S, wait_until
from tests.stalls import Stall

pytestmark = pytest.mark.skipif(not has_jpeg(), reason="the extension has no libjpeg-turbo")

VIEWS = [
    ViewSpec.random_resized_crop(16, scale=(0.1, 1.0)),
    ViewSpec.resize_squash(30, 16),
    ViewSpec.resize_crop(20, 16, filter="area"),
]


@pytest.fixture
def build():
    loaders = []

    def build_one(path, views=VIEWS, **settings):
        settings = {"global_batch_size": 8, "num_threads": 2, "seed": 5, **settings}
        loaders.append(build_loader(LoaderConfig(path=path, loader="native", **settings), views))
        return loaders[-1]

    yield build_one
    for loader in loaders:
        loader.close()


def save_odd_ones(folder):
    """Save what real collections hold beside plain JPEGs."""
    for number in range(6):
        save_photograph(folder / f"plain-{number}.jpg", number)
    with Image.open(folder / "plain-0.jpg") as opened:
        picture = opened.copy()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(folder / f"turned-{orientation}.jpg", exif=exif, subsampling=orientation % 3)
    picture.save(folder / "progressive.jpg", progressive=True)
    picture.convert("L").save(folder / "grey.jpg")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.save(folder / "lossless.png")
    picture.resize((1, 1)).save(folder / "dot.jpg")
    return folder


def worst_difference(loader):
    """Return the largest difference of a pass from the reference picture, and the fallbacks."""
    views, worst, fallbacks = list_views(loader.views), 0, 0
    rows = loader.dataset.index
    for batch in loader.one_pass():
        fallbacks += batch.fallback_decodes
        ids = batch.sample_ids.numpy()
        boxes = draw_boxes(
            views, rows["width"][ids], rows["height"][ids], 5, batch.epochs.numpy(), ids
        )
        for row, sample_id in enumerate(ids.tolist()):
            picture = to_upright_rgb(open_picture(loader.dataset.read_payload(sample_id)))
            wanted = torch.from_numpy(cut_views(picture, views, boxes[row]))
            difference = (batch.images[row].int() - wanted.int()).abs().max().item()
            worst = max(worst, difference)
    return worst, fallbacks


@pytest.mark.parametrize(
    ("encode", "fallbacks"), [("keep", 2), ("tiled", 2), ("resized", 0), ("raw", 0)]
)
def test_every_kind_of_file_gives_the_reference_picture(build, tmp_path, encode, fallbacks):
    """CMYK and PNG are the reference decoder's where they are stored as they came."""
    source = save_odd_ones(tmp_path / "photos")
    options = {"resize_short": 24} if encode == "resized" else {}
    convert(ConvertConfig(source, tmp_path / "shards", encode=encode, workers=1, **options))
    assert worst_difference(build(tmp_path / "shards")) == (0, fallbacks)


@pytest.mark.parametrize("encode", ["keep", "tiled", "raw"])
def test_what_fits_is_the_reference_picture_whatever_the_file(build, tmp_path, encode):
    source = save_odd_ones(tmp_path / "photos")
    convert(ConvertConfig(source, tmp_path / "shards", encode=encode, workers=1))
    views = [ViewSpec.fit(30, 44), ViewSpec.fit(90, 120), ViewSpec.fit(30, 44, filter="area")]
    for view in views:
        assert worst_difference(build(tmp_path / "shards", views=[view]))[0] == 0
    views = [ViewSpec.fit(30, 44), ViewSpec.resize_squash(50, 44), ViewSpec.fit(10, 44)]
    assert worst_difference(build(tmp_path / "shards", views=views))[0] == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_steps_planned_together_are_those_of_the_order(dataset_path, rank):
    config = LoaderConfig(path=dataset_path, loader="native", global_batch_size=8, num_threads=1)
    with contextlib.closing(build_loader(config, VIEWS, rank=rank, world_size=2)) as loader:
        together = loader.plan_steps(24, 11)  # across an epoch's end
        assert len(together) == 11
        for number, plan in enumerate(together):
            positions = np.arange(24 + 8 * number + rank, 32 + 8 * number, 2)
            epochs, ids = loader.order.at(positions)
            sizes = [loader.dataset.index[side][ids] for side in ("width", "height")]
            np.testing.assert_array_equal(plan.sample_ids, ids)
            np.testing.assert_array_equal(plan.epochs, epochs)
            boxes = draw_boxes(list_views(loader.views), *sizes, 0, epochs, ids)
            np.testing.assert_array_equal(plan.boxes, boxes)


@pytest.mark.parametrize("views", [VIEWS, [ViewSpec.fit(30, 44)] * 2], ids=["boxes", "fit"])
def test_no_more_is_decoded_than_a_full_decode(build, dataset_path, views):
    loader = build(dataset_path, views=views)
    list(itertools.islice(loader, 6))
    share = loader.telemetry.total().entropy_decoded_share
    assert 0 < share <= 1


def test_scaled_dct_reaches_the_threads(build, dataset_path):
    views = [ViewSpec.random_resized_crop(6, scale=(0.3, 1.0)), ViewSpec.center(8, 6)]
    loader = build(dataset_path, views, dct="scaled")
    rows, factors = loader.dataset.index, set()
    for batch in loader.one_pass():
        ids = batch.sample_ids.numpy()
        boxes = draw_boxes(
            loader.views, rows["width"][ids], rows["height"][ids], 5, batch.epochs.numpy(), ids
        )
        for row, sample_id in enumerate(ids.tolist()):
            payload = loader.dataset.read_payload(sample_id)
            wanted = decode_views(payload, loader.views, boxes[row], "scaled")
            np.testing.assert_array_equal(batch.images[row].numpy(), wanted.images)
            factors.add(wanted.factor)
    assert factors == {4, 8}


@pytest.mark.parametrize("name", ["webdataset", "fixed"])
def test_other_loaders_say_that_they_do_not_scale(dataset_path, caplog, name):
    settings = {"path": dataset_path, "loader": name, "global_batch_size": 8}
    with caplog.at_level(logging.WARNING):
        build_loader(LoaderConfig(**settings), VIEWS).close()
        assert not caplog.text
        build_loader(LoaderConfig(**settings, dct="scaled"), VIEWS).close()
    assert f"data.dct (scaled) is ignored: loader {name}" in caplog.text


def test_the_kind_of_dct_belongs_to_the_run():
    exact, scaled = (
        identity(RunConfig("demo", LoaderConfig(), data=LoaderConfig(dct=dct)), "")
        for dct in ("exact", "scaled")
    )
    assert {key for key in exact if exact[key] != scaled[key]} == {"data.dct"}


def test_an_unknown_dct_is_refused():
    with pytest.raises(InputError, match=r"data\.dct \('scale'\).*scaled"):
        LoaderConfig(dct="scale")


def find_threads():
    """Return the loaders' threads in this process: name by number."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            found[task.name] = (task / "comm").read_text().strip()
    return {number: name for number, name in found.items() if name.startswith("fastssl-")}


def test_a_disk_that_stalls_does_not_hold_up_the_end(build, dataset_path, tmp_path):
    path = shutil.copytree(dataset_path, tmp_path / "shards")
    others = find_threads().keys()  # of tests before this one, which may end at any time
    loader = build(path)
    batches = loader.one_pass()
    stalled = Stall(sorted(path.glob("*.tar"))[1])
    assert next(batches).sample_ids.tolist() == list(range(8))
    assert find_threads().keys() - others
    closer = threading.Thread(target=loader.close)
    closer.start()
    closer.join(HANGS_AFTER_S)
    is_closed = not closer.is_alive()
    stalled.release()
    are_gone = becomes_true(lambda: not find_threads().keys() - others)
    assert is_closed
    assert are_gone


class Stalled:
    """A pool of one thread, and jobs of two rows: of a good shard, and of one that hangs."""

    def __init__(self, path):
        dataset = open_dataset(path)
        ids = np.array([0, dataset.manifest.shards[0].samples])
        row, (view,) = dataset.index[ids], list_views(ViewSpec.squash(16))
        sizes, zeros = (row["width"], row["height"]), [0, 0]
        columns = [*dataset.locate_many(ids), row["crc32"], zeros, *sizes, [0, 1], zeros, zeros]
        self.rows = torch.from_numpy(np.stack(columns, axis=1).astype(np.int64))
        self.views = torch.from_numpy(pack_views([view], draw_boxes([view], *sizes, 0, ids, ids)))
        paths = [path / shard.name for shard in dataset.manifest.shards]
        self.release = Stall(paths[1]).release
        require_jpeg()
        self.pool = torch.classes.fastssl.DecodePool([str(p) for p in paths], "", 1, 8, False)

    def submit(self, images):
        return self.pool.submit(self.rows, self.views, torch.from_numpy(images), False)


@pytest.fixture
def stalled(dataset_path, tmp_path):
    return Stalled(shutil.copytree(dataset_path, tmp_path / "shards"))


def becomes_true(condition):
    deadline = time.monotonic() + HANGS_AFTER_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_row_does_not_wait_for_the_shard_of_a_later_one(stalled):
    images = np.zeros((2, 1, 16, 16, 3), np.uint8)
    stalled.submit(images)
    is_done = becomes_true(images[0].any)
    stalled.release()
    stalled.pool.stop()
    assert is_done


def test_a_thread_that_hangs_holds_nothing_of_pythons(stalled):
    """One that drops the last reference of a tensor while Python ends kills the process."""
    arrays = [np.zeros((2, 1, 16, 16, 3), np.uint8) for _ in range(3)]
    left = [weakref.ref(array) for array in arrays]
    stalled.submit(arrays[0])
    assert becomes_true(arrays[0].any)
    time.sleep(0.2)  # now the thread has taken the row that hangs
    stalled.submit(arrays[1])  # waits behind it
    stalled.pool.stop()
    late = stalled.submit(arrays[2])
    assert not stalled.pool.wait(late, 10_000)
    del stalled.pool
    arrays.clear()
    are_gone = [array() is None for array in left]
    is_hanging = "fastssl-decode" in find_threads().values()
    stalled.release()
    assert are_gone == [True] * 3
    assert is_hanging


def test_a_shard_that_becomes_a_pipe_is_listed_and_never_waited_for(build, dataset_path, tmp_path):
    path = shutil.copytree(dataset_path, tmp_path / "shards")
    loader = build(path)
    pipe = sorted(path.glob("*.tar"))[-1]
    num_gone = open_dataset(path).manifest.shards[-1].samples
    pipe.unlink()
    os.mkfifo(pipe)
    lost = [s for batch in loader.one_pass() for s in batch.substitutions]
    assert len(lost) == num_gone
    assert {s.reason for s in lost} == {f"{pipe.name}: no regular file"}


def test_a_shard_that_vanishes_while_reading_is_listed(build, dataset_path, tmp_path):
    path = shutil.copytree(dataset_path, tmp_path / "shards")
    loader = build(path)
    gone = sorted(path.glob("*.tar"))[-1]
    num_gone = open_dataset(path).manifest.shards[-1].samples
    gone.unlink()
    lost = [s for batch in loader.one_pass() for s in batch.substitutions]
    assert len(lost) == num_gone
    assert {s.reason for s in lost} == {f"{gone.name}: No such file or directory"}


def test_fields_of_damage_are_told(build, dataset_path, tmp_path):
    path = shutil.copytree(dataset_path, tmp_path / "shards")
    dataset = open_dataset(path)
    shard, offset, _ = dataset.locate(3)
    with open(path / dataset.manifest.shards[shard].name, "r+b") as file:
        file.seek(offset + 100)
        byte = file.read(1)
        file.seek(offset + 100)
        file.write(bytes([byte[0] ^ 1]))
    (lost,) = (s for batch in build(path).one_pass() for s in batch.substitutions)
    with pytest.raises(Exception, match="CRC-32") as portable:
        dataset.read_payload(3)
    assert lost.planned == 3
    assert lost.reason == portable.value.reason


def test_a_fork_leaves_the_threads_alone(build, dataset_path):
    loader = build(dataset_path)
    batches = iter(loader)
    next(batches)
    child = os.fork()
    if child == 0:
        loader.close()  # must neither wait for threads that are not there nor end the parent's
        os._exit(0)
    wait_until(lambda: os.waitpid(child, os.WNOHANG) != (0, 0), "the child does not end")
    assert len(next(batches)) == 8


PROGRAM = """
from fastssl.loaders import LoaderConfig, build_loader
from fastssl.views import ViewSpec

config = LoaderConfig(path={path!r}, loader="native", global_batch_size=256,
                      allow_repeat_in_batch=True)
loader = build_loader(config, ViewSpec.random_resized_crop(64))
batches = iter(loader)
next(batches)
"""


def run_script(script):
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=HANGS_AFTER_S, capture_output=True, text=True
    )
    return done.returncode, done.stderr


def test_a_program_may_end_in_the_middle_of_a_stream(dataset_path):
    assert run_script(PROGRAM.format(path=str(dataset_path))) == (0, "")


# Every fork is a program that ends as Python does, without the imports of a fresh one.
BY_FORKS = """
import os

import fastssl.loaders.native

for _ in range({number}):
    child = os.fork()
    if child == 0:
        break
    status = os.waitpid(child, 0)[1]
    if status:
        raise SystemExit(f"a program ended with {{os.waitstatus_to_exitcode(status)}}")
else:
    raise SystemExit(0)
"""


@pytest.mark.slow
def test_a_program_may_end_right_after_close(dataset_path):
    """One in ten was killed on Python 3.11: a thread let go of a tensor when Python had ended."""
    program = PROGRAM.format(path=str(dataset_path)) + "loader.close()\n"
    assert run_script(BY_FORKS.format(number=30) + program) == (0, "")


def test_more_threads_than_cores_are_warned_of(build, dataset_path, caplog):
    with caplog.at_level(logging.WARNING):
        build(dataset_path, num_threads=1000)
    assert "data.num_threads (1000) is more than the cores" in caplog.text


def test_an_object_store_is_another_loaders(dataset_path):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    store = fsspec.filesystem("memory")
    for file in dataset_path.iterdir():
        store.pipe_file(f"/native/{file.name}", file.read_bytes())
    config = LoaderConfig(path="memory://native", loader="native", global_batch_size=8)
    with pytest.raises(InputError, match=r"set --data\.loader to webdataset"):
        build_loader(config, VIEWS)


@pytest.mark.parametrize("by_tables", [False, True])
def test_checksums_are_zlibs(by_tables):
    assert load_extension()
    rng = np.random.default_rng(0)
    content = rng.integers(0, 256, 5000, np.uint8)
    for length in [*range(0, 300), 1023, 1024, 1025, 4999, 5000]:
        part = content[:length].copy()
        found = torch.ops.fastssl.crc32(torch.from_numpy(part), by_tables)
        assert found == zlib.crc32(part)


def test_a_picture_that_is_no_picture_reaches_nobody(build, tmp_path):
    """A PNG under a JPEG's flags: good bytes of the wrong kind go to the reference decoder."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (10, 20, 30)).save(buffer, "png")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(buffer.getvalue())  # a PNG by its content
    convert(ConvertConfig(folder, tmp_path / "shards", workers=1))
    (batch,) = build(tmp_path / "shards", global_batch_size=1).one_pass()
    assert batch.fallback_decodes == 1
    assert (batch.images == torch.tensor([10, 20, 30], dtype=torch.uint8)).all()
