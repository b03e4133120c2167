"""What every back end makes of datasets that lie: bad samples and substitutes (law 3)."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import resource
import shutil
import signal

import numpy as np
import pytest
import torch

from fastssl.config import LoaderConfig
from fastssl.errors import RunFailed
from fastssl.loaders import build_loader, webdataset
from fastssl.ops.jpeg import has_jpeg
from fastssl.shards import open_dataset
from fastssl.shards.beton import BETON_NAME, BetonOptions, write_beton
from fastssl.shards.index import INDEX_NAME
from fastssl.views import ViewSpec
from tests.holdings import list_children, wait_for_release
from tests.hostile import lies

BACK_ENDS = [
    "webdataset",
    pytest.param("native", marks=pytest.mark.skipif(not has_jpeg(), reason="no libjpeg-turbo")),
    "dali",
    "ffcv",
]
VIEWS = [ViewSpec.random_resized_crop(16), ViewSpec.resize_crop(20, 16)]
BATCH = 47  # every sample once


@pytest.fixture(params=BACK_ENDS)
def back_end(request):
    packages = {"dali": "nvidia.dali", "ffcv": "ffcv"}
    if request.param in packages:
        pytest.importorskip(packages[request.param])
    return request.param


@pytest.fixture(scope="module")
def with_beton(dataset_path, tmp_path_factory):
    """The dataset with a beton of it."""
    path = tmp_path_factory.mktemp("hostile") / "shards"
    shutil.copytree(dataset_path, path, ignore=shutil.ignore_patterns(BETON_NAME))
    with contextlib.closing(open_dataset(path)) as dataset:
        write_beton(dataset, path / BETON_NAME, BetonOptions("keep"), workers=1)
    return path


@pytest.fixture
def folder(with_beton, tmp_path):
    """A copy of both, to be damaged."""
    return shutil.copytree(with_beton, tmp_path / "shards")


def take(path, back_end, views=VIEWS, steps=1):
    """Return batches of the stream, one epoch each."""
    config = LoaderConfig(
        path=path, loader=back_end, global_batch_size=BATCH, num_threads=1, seed=3
    )
    with contextlib.closing(build_loader(config, views)) as loader:
        return list(itertools.islice(loader, steps)), loader.order


def check_substitutes(batch, order, wanted):
    """See that the planned ids were bad, for these reasons, and no others."""
    reasons = {s.planned: s.reason for s in batch.substitutions}
    assert set(reasons) == set(wanted)
    assert {i: r for i, r in reasons.items() if wanted[i] not in r} == {}
    for s in batch.substitutions:
        used = (order.substitute(0, s.planned, attempt) for attempt in range(20))
        assert s.used == next(i for i in used if i not in wanted)


def check_pixels(found, good, back_end):
    """See that a batch holds the pixels of good samples, its substitutes' where samples are bad."""
    place = {sample_id: row for row, sample_id in enumerate(good.sample_ids.tolist())}
    bad = {s.row for s in found.substitutions}
    for row, sample_id in enumerate(found.sample_ids.tolist()):
        if row not in bad:
            assert torch.equal(found.images[row], good.images[place[sample_id]])
    assert all(found.images[s.row].float().std() > 3 for s in found.substitutions), back_end


def test_a_row_that_lies_is_a_bad_sample(back_end, folder):
    good, _ = take(folder, back_end)
    wanted = {}
    for sample_id, (name, (*_, heard)) in enumerate(lies.ROWS.items()):
        lies.tell_row_lie(folder, sample_id, name)
        wanted[sample_id] = heard
    (batch,), order = take(folder, back_end)
    check_substitutes(batch, order, wanted)
    check_pixels(batch, good[0], back_end)


@pytest.mark.parametrize("views", [VIEWS[:1], VIEWS], ids=["one view", "two views"])
def test_good_bytes_that_are_no_picture_of_their_row_are_a_bad_sample(back_end, folder, views):
    good, _ = take(folder, back_end, views)
    dataset = open_dataset(folder)
    old = [dataset.read_payload(i) for i in range(len(lies.PICTURES))]
    dataset.close()
    wanted = {}
    for sample_id, (make, heard) in enumerate(lies.PICTURES.values()):
        payload = make(old[sample_id])
        lies.replace_payload(folder, sample_id, payload)
        lies.replace_stored(folder / BETON_NAME, sample_id, payload)
        wanted[sample_id] = heard
    (batch,), order = take(folder, back_end, views)
    check_substitutes(batch, order, wanted)
    assert batch.fallback_decodes == 0  # what is bad is not counted twice
    check_pixels(batch, good[0], back_end)


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_size_that_is_not_the_pictures_is_a_bad_sample(back_end, folder, side):
    size = int(open_dataset(folder).index[side][5])
    lies.edit_row(folder, 5, **{side: size - 1})
    (batch,), order = take(folder, back_end)
    check_substitutes(batch, order, {5: "its row says" if back_end != "ffcv" else "from"})


def test_a_beton_that_lies_is_a_bad_sample(folder):
    pytest.importorskip("ffcv")
    good, _ = take(folder, "ffcv")
    wanted = {}
    for sample_id, change in enumerate(lies.BETON_ROWS.values()):
        lies.edit_beton_row(folder / BETON_NAME, sample_id, change)
        wanted[sample_id] = "dataset.beton: its row says kind"
    (batch,), order = take(folder, "ffcv")
    check_substitutes(batch, order, wanted)
    check_pixels(batch, good[0], "ffcv")


def test_raw_pixels_of_another_shape_are_a_bad_sample(tmp_path, dataset_path):
    """As many bytes as the row says, in other rows."""
    if not has_jpeg():
        pytest.skip("no libjpeg-turbo")
    from fastssl.shards.making.convert import ConvertConfig, convert
    from fastssl.shards.npy import pack_npy

    path = tmp_path / "raw"
    convert(ConvertConfig(dataset_path, path, encode="raw", workers=1))
    with contextlib.closing(open_dataset(path)) as dataset:
        width, height = (int(dataset.index[side][7]) for side in ("width", "height"))
    pixels = np.random.default_rng(0).integers(0, 256, (width, height, 3), np.uint8)
    lies.replace_payload(path, 7, pack_npy(pixels))
    for back_end in ("native", "webdataset"):
        (batch,), order = take(path, back_end)
        check_substitutes(batch, order, {7: "its row says"})


# ---------------------------------------------------------------- files and workers that go


def test_an_index_that_is_cut_while_it_is_used_is_said_in_a_line(back_end, folder):
    config = LoaderConfig(path=folder, loader=back_end, global_batch_size=BATCH, num_threads=1)
    with contextlib.closing(build_loader(config, VIEWS)) as loader:
        batches = iter(loader)
        next(batches)
        os.truncate(folder / INDEX_NAME, 100)
        with pytest.raises(RunFailed, match=r"index\.bin: 100 bytes, 1568 .* cut while in use"):
            list(itertools.islice(batches, 30))


@pytest.fixture
def workers(dataset_path):
    """Build webdataset loaders of many workers; close them in the end."""
    loaders = []

    def build(num_threads):
        config = LoaderConfig(
            path=dataset_path, loader="webdataset", global_batch_size=8, num_threads=num_threads
        )
        loaders.append(build_loader(config, ViewSpec.squash(8)))
        return loaders[-1]

    yield build
    for loader in loaders:
        loader.close()


@pytest.mark.filterwarnings("ignore:.*worker processes:UserWarning")
def test_workers_that_cannot_all_be_started_are_gone_at_once(workers, capfd):
    before, limits = list_children(), resource.getrlimit(resource.RLIMIT_NOFILE)
    loader = workers(16)
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    free = [number for number in range(1000) if number not in used]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[15], limits[1]))
    try:
        with pytest.raises(RunFailed, match=r"16 workers cannot be started \(Too many open files"):
            next(iter(loader))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    wait_for_release(before, list_children)
    assert "Traceback" not in capfd.readouterr().err


def test_stopped_workers_do_not_hold_up_the_end(workers, monkeypatch):
    monkeypatch.setattr(webdataset, "_GRACE_S", 0.1)
    before, loader = list_children(), workers(2)
    next(iter(loader))
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGSTOP)
    loader.close()
    assert list_children() == before


def test_stopped_workers_do_not_hold_up_the_end_of_a_wait_that_was_ended(workers, monkeypatch):
    """The frames of what ended it hold on to DataLoader's iterator."""
    monkeypatch.setattr(webdataset, "_GRACE_S", 0.1)
    before, loader = list_children(), workers(2)
    batches = iter(loader)
    next(batches)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGSTOP)

    def give_up(_number, _frame):
        raise TimeoutError("no batch came")

    before_alarm = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(TimeoutError) as caught:  # noqa: PT012 - some batches are ready
            while True:
                next(batches)
    finally:
        signal.signal(signal.SIGALRM, before_alarm)
    assert caught.value.__traceback__ is not None
    loader.close()
    assert list_children() == before
