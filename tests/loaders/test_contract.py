"""The contract of every loader back end: laws 1 to 4, whatever the world size."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.config import LoaderConfig
from fastssl.errors import InputError
from fastssl.loaders import build_loader, count_samples
from fastssl.loaders.reference import cut_views
from fastssl.shards import ShardDataset, decode_picture, open_dataset
from fastssl.shards.beton import BETON_NAME, Beton, BetonOptions, write_beton
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.views import ViewSpec, draw_boxes, fitted_sizes, list_views
from tests.conftest import NUM_SAMPLES, save_photograph
from tests.holdings import list_children, list_holdings, wait_for_release
from tests.target_sets import add_targets

BACK_ENDS = ["webdataset", "native", "dali", "ffcv"]
"""Every back end is held to this suite; a new one is one more name."""

GLOBAL_BATCH = 24  # world sizes 1, 2, 3 and 8 divide it; the dataset's 47 samples do not
VIEWS = [ViewSpec.random_resized_crop(16, scale=(0.3, 1.0)), ViewSpec.resize_crop(20, 16)]

# Mean absolute difference from the reference picture, of 255.
DISTANCE = {"webdataset": 0.0, "native": 0.0, "dali": 0.4, "ffcv": 3.0}


@pytest.fixture(params=BACK_ENDS)
def back_end(request):
    return request.param


@pytest.fixture
def build(back_end, dataset_path):
    """Build loaders of the back end; close them all in the end."""
    loaders = []

    def build_one(rank=0, world_size=1, views=VIEWS, path=dataset_path, dataset=None, **settings):
        settings = {"global_batch_size": GLOBAL_BATCH, "num_threads": 1, "seed": 3, **settings}
        if back_end == "ffcv":
            make_beton(path)
        config = LoaderConfig(path=path, loader=back_end, **settings)
        loaders.append(build_loader(config, views, rank, world_size, dataset=dataset))
        return loaders[-1]

    yield build_one
    for loader in loaders:
        loader.close()


def take(loader, steps):
    return list(itertools.islice(loader, steps))


def pairs(batch):
    return list(zip(batch.epochs.tolist(), batch.sample_ids.tolist(), strict=True))


# ---------------------------------------------------------------- law 1: order


@pytest.mark.parametrize("order", ["global", "chunked"])
def test_every_sample_comes_once_an_epoch(build, order):
    loader = build(order=order, chunk_size=4, num_lanes=6, window_chunks=2)
    seen = [pair for batch in take(loader, 6) for pair in pairs(batch)]
    for epoch in range(3):
        ids = [sample_id for e, sample_id in seen if e == epoch]
        wanted = NUM_SAMPLES if (epoch + 1) * NUM_SAMPLES <= len(seen) else None
        assert len(set(ids)) == len(ids)
        assert wanted is None or sorted(ids) == list(range(NUM_SAMPLES))


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("order", ["global", "chunked"])
def test_world_size_never_changes_a_steps_samples(build, order, world_size):
    layout = {"order": order, "chunk_size": 4, "num_lanes": 24, "window_chunks": 2}
    alone = take(build(**layout), 3)
    ranks = [take(build(rank, world_size, **layout), 3) for rank in range(world_size)]
    for step, batch in enumerate(alone):
        together = [pairs(ranks[rank][step]) for rank in range(world_size)]
        # Rank r takes the positions with s mod W = r, so dealing them out again gives the order.
        assert list(itertools.chain(*zip(*together, strict=True))) == pairs(batch)


def test_threads_never_change_a_batch(build):
    one, two = take(build(num_threads=1), 4), take(build(num_threads=2), 4)
    for a, b in zip(one, two, strict=True):
        assert pairs(a) == pairs(b)
        assert torch.equal(a.images, b.images)


def test_a_batch_may_cross_an_epochs_border(build):
    second = take(build(), 2)[1]
    assert set(second.epochs.tolist()) == {0, 1}


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("world_size", [1, 3])
def test_resume_at_any_step_and_another_world_size(build, steps, world_size):
    whole = take(build(), steps + 2)
    first = build(0, 2)
    iterator = iter(first)
    for _ in range(steps):
        next(iterator)
    state = first.state_dict()
    resumed = []
    for rank in range(world_size):
        loader = build(rank, world_size)
        loader.load_state_dict(json.loads(json.dumps(state)))
        resumed.append(take(loader, 2))
    for step in range(2):
        dealt = zip(*(pairs(resumed[rank][step]) for rank in range(world_size)), strict=True)
        assert list(itertools.chain(*dealt)) == pairs(whole[steps + step])


def test_state_is_small_and_plain(build):
    loader = build()
    take(loader, 1)
    state = loader.state_dict()
    assert len(json.dumps(state)) < 1024
    assert state["position"] == GLOBAL_BATCH
    assert {"seed", "order", "position", "dataset_digest"} <= set(state)


def test_state_of_another_stream_is_refused(build):
    state = build(seed=4).state_dict()
    with pytest.raises(InputError, match="seed: state 4, here 3"):
        build().load_state_dict(state)


def test_subset_is_the_ids_below(build):
    loader = build(max_samples=30)
    seen = [sample_id for batch in take(loader, 5) for _, sample_id in pairs(batch)]
    assert sorted(seen) == sorted(list(range(30)) * 4)
    assert len(loader) == 2


def test_what_is_held_out_is_never_trained_on_and_read_alone(build):
    held = {"hold_out": 10, "hold_out_seed": 1}
    (batch,) = build(part="held_out", global_batch_size=10, **held).one_pass()
    ids = batch.sample_ids.tolist()
    assert ids == sorted(set(ids))
    assert len(ids) == 10
    training = build(**held)
    assert training.num_samples == 37
    seen = [pair for batch in take(training, 4) for pair in pairs(batch)]
    for epoch in (0, 1):
        epoch_ids = [sample_id for e, sample_id in seen if e == epoch]
        assert sorted([*epoch_ids, *ids]) == list(range(NUM_SAMPLES))
    whole = torch.cat([batch.sample_ids for batch in training.one_pass()]).tolist()
    assert sorted([*whole, *ids]) == list(range(NUM_SAMPLES))
    assert whole == sorted(whole)


def test_samples_that_a_file_names_are_the_dataset(build, tmp_path):
    chosen = np.array([3, 5, 8, 20, 21, 22, 30, 40, 45, 46])
    np.save(tmp_path / "ids.npy", chosen)
    loader = build(ids_file=tmp_path / "ids.npy", global_batch_size=5)
    assert loader.num_samples == 10
    whole = torch.cat([batch.sample_ids for batch in loader.one_pass()])
    assert whole.tolist() == chosen.tolist()
    seen = [pair for batch in take(loader, 4) for pair in pairs(batch)]
    for epoch in (0, 1):
        assert sorted(sample_id for e, sample_id in seen if e == epoch) == chosen.tolist()


def test_the_state_of_another_hold_out_is_refused(build):
    state = build(hold_out=10).state_dict()
    with pytest.raises(InputError, match="part: state 'remaining:10:0', here 'remaining:10:1'"):
        build(hold_out=10, hold_out_seed=1).load_state_dict(state)


def test_length_is_the_steps_of_an_epoch_rounded_up(build):
    assert len(build()) == 2


def test_one_pass_is_in_id_order_and_does_not_move_the_stream(build):
    loader = build()
    iterator = iter(loader)
    first = next(iterator)
    batches = list(loader.one_pass())
    ids = torch.cat([batch.sample_ids for batch in batches])
    assert ids.tolist() == list(range(NUM_SAMPLES))
    assert [len(batch) for batch in batches] == [24, 23]
    assert loader.state_dict()["position"] == GLOBAL_BATCH
    assert pairs(first) + pairs(next(iterator)) == [
        pair for batch in take(build(), 2) for pair in pairs(batch)
    ]


def test_batches_of_the_stream_lie_ready_after_a_pass_too(build):
    loader = build()
    iterator = iter(loader)
    next(iterator)
    assert len(list(loader.one_pass())) == 2
    deadline = time.monotonic() + 20
    while not loader.num_ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    iterator.close()


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_one_pass_splits_evenly(build, world_size):
    parts = [
        [i for batch in build(rank, world_size).one_pass() for i in batch.sample_ids.tolist()]
        for rank in range(world_size)
    ]
    assert list(itertools.chain(*parts)) == list(range(NUM_SAMPLES))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# ---------------------------------------------------------------- law 2: randomness, and pixels


def test_pixels_are_the_reference_picture(build, back_end, dataset_path):
    loader = build()
    dataset, views = open_dataset(dataset_path), list_views(VIEWS)
    differences = []
    for batch in take(loader, 2):
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (GLOBAL_BATCH, 2, 16, 16, 3)
        for row, (epoch, sample_id) in enumerate(pairs(batch)):
            pixels = decode_picture(dataset.read_payload(sample_id))
            height, width = pixels.shape[:2]
            boxes = draw_boxes(views, [width], [height], 3, epoch, sample_id)[0]
            wanted = cut_views(Image.fromarray(pixels), views, boxes)
            difference = batch.images[row].numpy().astype(int) - wanted
            differences.append(np.abs(difference).mean())
            assert int(batch.labels[row]) == int(dataset.index["label"][sample_id])
    assert np.mean(differences) <= DISTANCE[back_end]


FITTING = [ViewSpec.fit((8, 11, 16), 20), ViewSpec.squash(20), ViewSpec.fit(20, 20)]


@pytest.mark.parametrize("views", [FITTING[0], FITTING], ids=["one", "several"])
def test_what_fits_is_the_reference_picture_on_black(build, back_end, dataset_path, views):
    loader, dataset, differences = build(views=views), open_dataset(dataset_path), []
    for batch in take(loader, 8):  # memory serves again from the sixth on
        sizes = fitted_sizes(
            loader.views, batch.boxes, 3, batch.epochs.numpy(), batch.sample_ids.numpy()
        )
        for row, sample_id in enumerate(batch.sample_ids.tolist()):
            picture = Image.fromarray(decode_picture(dataset.read_payload(sample_id)))
            boxes = np.array([[0, 0, *picture.size]] * len(loader.views), np.int32)
            assert batch.boxes[row].tolist() == boxes.tolist()
            wanted = cut_views(picture, loader.views, boxes, sizes[row])
            for image, size, one in zip(batch.images[row], sizes[row], wanted, strict=True):
                assert not image[size[1] :].any()
                assert not image[:, size[0] :].any()
                differences.append(np.abs(image.numpy().astype(int) - one).mean())
        del batch
    assert {8, 11, 16} <= set(sizes[:, 0].min(axis=1).tolist())
    assert np.mean(differences) <= DISTANCE[back_end]


def test_pixels_do_not_depend_on_rank_or_place_in_the_batch(build):
    alone = {
        pair: image
        for batch in take(build(), 2)
        for pair, image in zip(pairs(batch), batch.images, strict=True)
    }
    for batch in take(build(1, 3), 2):
        for pair, image in zip(pairs(batch), batch.images, strict=True):
            assert torch.equal(alone[pair], image)


def test_a_loader_may_be_iterated_in_inference_mode(build, back_end, tmp_path):
    """As those who compute features do, also where Python writes a row into the batch."""
    photos = tmp_path / "photos"
    for number in range(3):
        save_photograph(photos / f"{number}.jpg", number)
    with Image.open(photos / "0.jpg") as picture:
        picture.convert("CMYK").save(photos / "print.jpg")
        picture.convert("P").save(photos / "palette.png")
    convert(ConvertConfig(photos, tmp_path / "shards", workers=1))
    settings = {"path": tmp_path / "shards", "global_batch_size": 5}
    wanted = next(iter(build(**settings).one_pass()))
    # Of a beton the odd ones are made JPEGs; the portable back end is the reference itself.
    assert wanted.fallback_decodes > 0 or back_end in ("ffcv", "webdataset")
    with torch.inference_mode():
        assert torch.equal(next(iter(build(**settings).one_pass())).images, wanted.images)


def test_a_batch_stays_as_it_is_for_as_long_as_it_is_held(build):
    loader = build()
    iterator = iter(loader)
    held, wanted = [], []
    for number, batch in enumerate(itertools.islice(iterator, 8)):
        if number in (1, 2, 3, 5):  # more than the loader lends
            held.append(batch.images[3:, 1])  # a part is enough
            wanted.append(held[-1].clone())
        del batch
    loader.close()
    assert all(torch.equal(a, b) for a, b in zip(held, wanted, strict=True))


# ---------------------------------------------------------------- law 3: bad samples


def copy_dataset(dataset_path, target):
    shutil.copytree(dataset_path, target)
    return target


def make_beton(path: Path) -> Path:
    """Write the dataset's beton, unless it is there, and return it."""
    beton = path / BETON_NAME
    if not beton.exists():
        dataset = open_dataset(path)
        write_beton(dataset, beton, BetonOptions("keep"), workers=1)
        dataset.close()
    return beton


def find_payload(path: Path, sample_id: int, back_end: str) -> tuple[Path, int, int]:
    """Return where the back end reads a sample: file, offset, length."""
    dataset = open_dataset(path)
    if back_end == "ffcv":
        beton = Beton(make_beton(path), dataset.digest, dataset.num_samples)
        row = beton.locate(sample_id)
        place = beton.path, int(row["image"]["data_ptr"]), int(row["stored"]) >> 32
        beton.close()
    else:
        shard, offset, length = dataset.locate(sample_id)
        place = path / dataset.manifest.shards[shard].name, offset, length
    dataset.close()
    return place


def damage(path: Path, sample_id: int, back_end: str) -> None:
    """Turn one byte of a sample's payload."""
    name, offset, length = find_payload(path, sample_id, back_end)
    with name.open("r+b") as file:
        file.seek(offset + length // 2)
        old = file.read(1)
        file.seek(offset + length // 2)
        file.write(bytes([old[0] ^ 0xFF]))


def test_a_sample_that_misses_its_crc_is_replaced_by_its_substitute(
    build, back_end, dataset_path, tmp_path
):
    path = copy_dataset(dataset_path, tmp_path / "shards")
    damage(path, 7, back_end)
    loader = build(path=path)
    good = {pair: batch for batch in take(build(), 2) for pair in pairs(batch)}
    found = []
    for batch in take(loader, 2):
        for s in batch.substitutions:
            found.append(s.planned)
            epoch = int(batch.epochs[s.row])
            assert int(batch.sample_ids[s.row]) == s.planned == 7
            assert s.used == loader.order.substitute(epoch, 7, 0) != 7
            assert "CRC" in s.reason
            label = open_dataset(path).index["label"][s.used]
            assert int(batch.labels[s.row]) == label
            planned = good[(epoch, 7)]
            assert not torch.equal(
                batch.images[s.row], planned.images[pairs(planned).index((epoch, 7))]
            )
    assert found.count(7) >= 1
    assert set(found) == {7}


def test_a_bad_substitute_is_replaced_in_turn(build, back_end, dataset_path, tmp_path):
    path = copy_dataset(dataset_path, tmp_path / "shards")
    loader = build(path=path)
    first = loader.order.substitute(0, 7, 0)
    damage(path, 7, back_end)
    damage(path, first, back_end)
    for batch in take(loader, 2):
        for s in batch.substitutions:
            if s.planned == 7 and int(batch.epochs[s.row]) == 0:
                assert s.used == loader.order.substitute(0, 7, 1)
                return
    pytest.fail("sample 7 was not replaced")


def test_bytes_that_are_missing_make_a_sample_bad(build, back_end, dataset_path, tmp_path):
    path = copy_dataset(dataset_path, tmp_path / "shards")
    loader = build(path=path)
    name, offset, length = find_payload(path, NUM_SAMPLES - 1, back_end)
    with name.open("r+b") as file:
        file.truncate(offset + length // 2)
    batches = take(loader, 2)
    bad = [s.planned for batch in batches for s in batch.substitutions]
    assert NUM_SAMPLES - 1 in bad
    assert all(len(batch) == GLOBAL_BATCH for batch in batches)


def test_bad_samples_are_the_same_at_every_world_size(build, back_end, dataset_path, tmp_path):
    path = copy_dataset(dataset_path, tmp_path / "shards")
    for sample_id in (3, 20, 41):
        damage(path, sample_id, back_end)

    def replaced(loaders):
        return sorted(
            (int(batch.epochs[s.row]), s.planned, s.used)
            for loader in loaders
            for batch in take(loader, 4)
            for s in batch.substitutions
        )

    alone = replaced([build(path=path)])
    assert {planned for _, planned, _ in alone} == {3, 20, 41}
    assert replaced([build(rank, 3, path=path) for rank in range(3)]) == alone


# ---------------------------------------------------------------- targets and boxes

TARGETS = ("number", "grid")


@pytest.fixture(scope="module")
def with_targets(dataset_path, tmp_path_factory):
    """The dataset with its own ids, and an array of two axes behind the first, as targets."""
    # A beton is bound to the digest, which targets change.
    without_beton = shutil.ignore_patterns(BETON_NAME)
    path = tmp_path_factory.mktemp("targets") / "shards"
    shutil.copytree(dataset_path, path, ignore=without_beton)
    arrays = {
        "grid": np.random.default_rng(0).normal(size=(NUM_SAMPLES, 3, 2)).astype(np.float32),
        "number": np.arange(NUM_SAMPLES, dtype=np.int64),
    }
    add_targets(path, arrays)
    return path


def check_targets_and_boxes(batch, path):
    """Hold a batch to the dataset: rows of the samples used, boxes of the planned draws on them."""
    dataset = open_dataset(path)
    used = batch.sample_ids.clone()
    for s in batch.substitutions:
        used[s.row] = s.used
    assert list(batch.targets) == list(TARGETS)
    assert torch.equal(batch.targets["number"], used)
    assert torch.equal(batch.targets["grid"], torch.tensor(dataset.targets["grid"][used.numpy()]))
    sizes = dataset.index[used.numpy()]
    wanted = draw_boxes(
        list_views(VIEWS),
        sizes["width"],
        sizes["height"],
        3,
        batch.epochs.numpy(),
        batch.sample_ids.numpy(),
    )
    assert batch.boxes.dtype == torch.int32
    assert batch.boxes.tolist() == wanted.tolist()
    assert {rows.device.type for rows in (batch.boxes, *batch.targets.values())} == {"cpu"}


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 3)])
def test_targets_and_boxes_are_those_of_the_samples(build, with_targets, rank, world_size):
    loader = build(rank, world_size, path=with_targets, targets=TARGETS)
    for batch in take(loader, 3):
        check_targets_and_boxes(batch, with_targets)


def test_one_pass_has_targets_and_boxes(build, with_targets):
    batches = list(build(path=with_targets, targets=TARGETS).one_pass())
    assert [len(batch.targets["grid"]) for batch in batches] == [24, 23]
    for batch in batches:
        check_targets_and_boxes(batch, with_targets)


def test_targets_and_boxes_of_a_bad_sample_are_its_substitutes(
    build, back_end, with_targets, tmp_path
):
    path = copy_dataset(with_targets, tmp_path / "shards")
    damage(path, 7, back_end)
    batches = take(build(path=path, targets=TARGETS), 2)
    assert sum(len(batch.substitutions) for batch in batches) >= 1
    for batch in batches:
        check_targets_and_boxes(batch, path)


def test_a_part_of_a_batch_has_its_targets_and_boxes(build, with_targets):
    batch = take(build(path=with_targets, targets=TARGETS), 1)[0]
    part = batch.rows(5, 9)
    assert torch.equal(part.targets["grid"], batch.targets["grid"][5:9])
    check_targets_and_boxes(part, with_targets)


def test_targets_that_nobody_asked_for_are_not_handed_over(build, with_targets):
    assert take(build(path=with_targets), 1)[0].targets == {}


@pytest.mark.parametrize(
    ("asked", "has_targets", "message"),
    [
        ("numbr", True, "has no target 'numbr'; did you mean 'number'"),
        ("xyz", True, "has no target 'xyz'; known: grid, number"),
        ("number", False, "has no target 'number'; it has none"),
    ],
)
def test_a_target_that_is_not_there_is_refused(
    build, dataset_path, with_targets, asked, has_targets, message
):
    with pytest.raises(InputError, match=message):
        build(path=with_targets if has_targets else dataset_path, targets=(asked,))


# ---------------------------------------------------------------- law 4: one read, one decode


@pytest.mark.parametrize("back_end", ["webdataset"], indirect=True)
def test_a_sample_is_read_and_decoded_once_for_all_its_views(build, monkeypatch):
    """Spies count in the workers, which are forked and share the counters."""
    preads, decodes = (multiprocessing.Value("i", 0) for _ in range(2))

    def spy(function, counter):
        def call(*args, **kwargs):
            with counter.get_lock():
                counter.value += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "pread", spy(os.pread, preads))
    monkeypatch.setattr(Image, "open", spy(Image.open, decodes))
    loader = build(num_threads=2)
    assert sum(len(batch) for batch in loader.one_pass()) == NUM_SAMPLES
    assert preads.value == NUM_SAMPLES
    assert decodes.value == NUM_SAMPLES


# ---------------------------------------------------------------- life and death


def test_close_leaves_nothing(build):
    with contextlib.closing(build(num_threads=2)) as first:
        take(first, 1)  # what is started once for the whole process stays
    before = list_holdings()
    loader = build(num_threads=2)
    iterator = iter(loader)
    next(iterator)
    assert list_holdings() - before
    loader.close()
    loader.close()
    with pytest.raises(StopIteration):
        next(iterator)
    del iterator
    wait_for_release(before)


def test_a_dataset_that_was_handed_over_is_not_opened_again(build, dataset_path, monkeypatch):
    build()  # writes the beton, which opens it too
    with contextlib.closing(open_dataset(dataset_path)) as dataset:
        monkeypatch.setattr(ShardDataset, "__init__", None)
        loader = build(dataset=dataset)
        ids = take(loader, 1)[0].sample_ids
        loader.close()
        with pytest.raises(InputError, match="larger than the dataset"):
            build(dataset=dataset, global_batch_size=96)
        assert len(dataset.read_payload(int(ids[0]))) > 0  # it is the caller's to close


def test_a_newer_iterator_ends_the_older(build):
    loader = build()
    older = iter(loader)
    first = next(older)
    newer = next(iter(loader))
    assert pairs(first) != pairs(newer)
    with pytest.raises(StopIteration):
        next(older)


def test_close_ends_a_pass_too(build):
    before = list_children()
    loader = build()
    one_pass = loader.one_pass()
    next(one_pass)
    loader.close()
    with pytest.raises(StopIteration):
        next(one_pass)
    wait_for_release(before, list_children)


def test_a_closed_loader_says_so(build):
    loader = build()
    loader.close()
    with pytest.raises(ValueError, match=r"loader \(closed\)"):
        iter(loader)


def test_a_batch_that_does_not_divide_is_refused(build):
    with pytest.raises(InputError, match=r"set --data\.global-batch-size to 20 or 25"):
        build(0, 5)


def test_a_batch_larger_than_the_dataset_must_be_allowed(build):
    with pytest.raises(InputError, match="allow-repeat-in-batch true"):
        build(global_batch_size=96)
    batch = take(build(global_batch_size=96, allow_repeat_in_batch=True), 1)[0]
    assert set(batch.epochs.tolist()) == {0, 1, 2}


def test_more_samples_than_there_are_is_refused(build):
    with pytest.raises(InputError, match=r"set --data\.max-samples to 47 or less"):
        build(max_samples=48)


@pytest.mark.parametrize("ids", [[3, 3], [5, 4], [-1, 2], [46, 47], [], [0.5, 1.5]], ids=str)
def test_a_file_of_no_ids_is_refused(build, tmp_path, ids):
    np.save(tmp_path / "ids.npy", np.array(ids))
    with pytest.raises(InputError, match=r"must hold ids 0 \.\. 46 of samples, int64 and ascend"):
        build(ids_file=tmp_path / "ids.npy")


def test_a_file_of_ids_that_changed_is_refused_and_so_are_two_ways_to_choose(build, tmp_path):
    path = tmp_path / "ids.npy"
    np.save(path, np.arange(4))
    config = LoaderConfig(ids_file=path)
    np.save(path, np.arange(5))
    with pytest.raises(InputError, match="has changed since its samples were chosen"):
        count_samples(config, NUM_SAMPLES)
    with pytest.raises(InputError, match=r"data\.ids_file .* and so do data\.hold_out \(3\)"):
        LoaderConfig(ids_file=path, hold_out=3)
    path.write_bytes(b"no array")
    with pytest.raises(InputError, match=r"is no \.npy file"):
        build(ids_file=path)


def test_a_hold_out_larger_than_the_dataset_is_refused_and_so_is_a_part_of_nothing(build):
    too_many = r"data\.hold_out \(47\) must be less than the 47 samples"
    with pytest.raises(InputError, match=too_many):
        build(hold_out=47)
    # Before a loader is built, too: the run's other checks come first.
    with pytest.raises(InputError, match=too_many):
        count_samples(LoaderConfig(hold_out=47), NUM_SAMPLES)
    assert count_samples(LoaderConfig(hold_out=40), NUM_SAMPLES) == 7
    with pytest.raises(InputError, match=r"data\.part \(held_out\) needs data\.hold_out"):
        build(part="held_out")
