"""Law 1: the order is a bijection, closed form, the same in C++ and NumPy, and looks random."""

import itertools

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.extension import load_extension
from fastssl.sampling import (
    NEVER,
    ORDERS,
    ChunkLayout,
    HoldOut,
    SampleOrder,
    permute,
    reference_ids,
)

DIGEST = "0123456789abcdef" * 4
LAYOUTS = [ChunkLayout(), ChunkLayout(3, 4, 2), ChunkLayout(1, 1, 1), ChunkLayout(10, 7, 3)]
COUNTS = [1, 2, 3, 5, 7, 13, 97, 100, 1000, 4095, 4096, 4097, 10007]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_epoch_is_a_bijection(order, layout):
    for count in COUNTS:
        _, ids = SampleOrder(DIGEST, count, 5, order, layout).at(np.arange(3 * count))
        for epoch in range(3):
            assert sorted(ids[epoch * count : (epoch + 1) * count]) == list(range(count)), count


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_extension_equals_the_reference(order, layout):
    if not load_extension():
        pytest.skip("the extension was not built: there is nothing to compare")
    for count in COUNTS:
        sample_order = SampleOrder(DIGEST, count, 11, order, layout)
        places = np.arange(count)
        chunk_size = layout.chunk_size if order == "chunked" else 0
        reference = reference_ids(places, count, *sample_order._keys(4), chunk_size, layout)
        assert (sample_order.ids(4, places) == reference).all(), count


def test_golden_orders_never_change():
    layout = ChunkLayout(3, 2, 2)
    assert SampleOrder(DIGEST, 13, 5, "global").at(np.arange(13))[1].tolist() == [
        *(12, 3, 0, 2, 7, 1, 10, 6, 11, 4, 8, 9, 5)
    ]
    assert SampleOrder(DIGEST, 13, 5, "chunked", layout).at(np.arange(13))[1].tolist() == [
        *(10, 7, 2, 12, 11, 4, 0, 8, 1, 6, 9, 5, 3)
    ]
    places = np.array([0, 1, 10**9 - 1, 5 * 10**9 + 3])
    large = SampleOrder(DIGEST, 10**9, 2026).at(places)
    assert large[0].tolist() == [0, 0, 0, 5]
    assert large[1].tolist() == [119100504, 210210350, 314803996, 170670374]


def test_golden_substitutes_never_change():
    order = SampleOrder(DIGEST, 1000, 1)
    assert [order.substitute(2, 17, attempt) for attempt in range(4)] == [518, 339, 420, 895]


def test_position_is_found_without_those_before_it():
    order = SampleOrder(DIGEST, 1_000_003, 3, "chunked")
    positions = np.array([2_500_000, 17, 1_000_002, 1_000_003])
    epochs, ids = order.at(positions)
    assert epochs.tolist() == [2, 0, 0, 1]
    for position, sample_id in zip(positions, ids, strict=True):
        assert order.at(np.array([position]))[1][0] == sample_id


@pytest.mark.parametrize("order", ORDERS)
def test_order_depends_on_seed_epoch_and_dataset(order):
    places = np.arange(5000)
    base = SampleOrder(DIGEST, 5000, 1, order).ids(0, places)
    others = [
        SampleOrder(DIGEST, 5000, 2, order).ids(0, places),
        SampleOrder(DIGEST, 5000, 1, order).ids(1, places),
        SampleOrder("f" + DIGEST[1:], 5000, 1, order).ids(0, places),
    ]
    for other in others:
        assert (base == other).mean() < 0.01


@pytest.mark.parametrize("count", [2, 3, 4, 5, 9, 97, 5000])
def test_inverse_undoes_the_bijection(count):
    values = np.arange(count)
    for key in (0, 1, 2**64 - 1):
        assert (permute(permute(values, count, key), count, key, inverse=True) == values).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", [(7, 5, 3), (16, 64, 2), (1, 3, 1), (256, 64, 16)])
@pytest.mark.parametrize("count", [1, 5, 47, 1000, 4097])
def test_next_use_is_the_order_read_backwards(order, layout, count):
    sample_order = SampleOrder(DIGEST, count, 3, order, ChunkLayout(*layout))
    position = 2 * count + count // 2
    _, ids = sample_order.at(np.arange(position, position + 2 * count))
    first = {}
    for place, sample_id in enumerate(ids.tolist()):
        first.setdefault(sample_id, position + place)
    uses = sample_order.next_use(np.arange(count), position)
    assert uses.tolist() == [first[i] for i in range(count)]


def test_a_sample_that_is_held_out_is_never_used_next():
    part = HoldOut(DIGEST, 1000, 100)
    sample_order = SampleOrder(DIGEST, 900, 3, find_ids=part.find_remaining)
    uses = sample_order.next_use(np.arange(1000), 17)
    is_used = ~np.isin(np.arange(1000), part.ids)
    assert ((uses < NEVER) == is_used).all()
    assert (sample_order.at(uses[is_used])[1] == np.arange(1000)[is_used]).all()


@pytest.mark.parametrize("count", [3, 4, 5])
def test_small_sets_reach_every_permutation_equally(count):
    """Chi-square over all orders of a few samples."""
    permutations = dict.fromkeys(itertools.permutations(range(count)), 0)
    draws = 200 * len(permutations)
    keys = np.random.default_rng(0).integers(0, 2**64, draws, np.uint64)
    columns = [permute(np.full(draws, i), count, keys) for i in range(count)]
    for row in zip(*(column.tolist() for column in columns), strict=True):
        permutations[row] += 1
    expected = draws / len(permutations)
    chi_square = sum((n - expected) ** 2 / expected for n in permutations.values())
    freedom = len(permutations) - 1
    # Mean plus four standard deviations of the distribution; the keys are fixed.
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("order", ORDERS)
def test_places_and_ids_are_independent(order):
    """Chi-square of (place block, id block) over epochs: no block of ids prefers a place."""
    count, blocks, epochs = 4000, 8, 30
    sample_order = SampleOrder(DIGEST, count, 0, order, ChunkLayout(20, 4, 4))
    table = np.zeros((blocks, blocks))
    places = np.arange(count)
    for epoch in range(epochs):
        ids = sample_order.ids(epoch, places)
        np.add.at(table, (places * blocks // count, ids * blocks // count), 1)
    expected = count * epochs / blocks**2
    chi_square = ((table - expected) ** 2 / expected).sum()
    # In the chunked order whole chunks of 20 move together, so deviations are 20 times as large.
    scale = 20 if order == "chunked" else 1
    freedom = (blocks - 1) ** 2
    assert chi_square / scale < freedom + 4 * (2 * freedom) ** 0.5


def test_neighbours_are_not_correlated():
    """Serial correlation of the global order at lags 1 to 16 stays within four errors."""
    count = 100_000
    ids = SampleOrder(DIGEST, count, 9).ids(0, np.arange(count)).astype(float)
    ids -= ids.mean()
    for lag in range(1, 17):
        correlation = (ids[:-lag] * ids[lag:]).mean() / ids.var()
        assert abs(correlation) < 4 / count**0.5, lag


def test_epochs_are_not_correlated():
    count = 50_000
    order = SampleOrder(DIGEST, count, 9)
    places = np.arange(count)
    correlation = np.corrcoef(order.ids(0, places), order.ids(1, places))[0, 1]
    assert abs(correlation) < 4 / count**0.5


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_a_rank_touches_its_own_lanes_chunks_alone(world_size):
    count, layout = 100_000, ChunkLayout(chunk_size=100, num_lanes=16, window_chunks=4)
    order = SampleOrder(DIGEST, count, 2, "chunked", layout)
    num_chunks = count // layout.chunk_size
    lanes_of_rank = layout.num_lanes // world_size
    for epoch in range(2):
        positions = np.arange(epoch * count, (epoch + 1) * count)
        _, ids = order.at(positions)
        for rank in range(world_size):
            touched = len(np.unique(ids[positions % world_size == rank] // layout.chunk_size))
            # Its share, and at most one chunk cut at either end of each of its lanes.
            assert touched <= num_chunks / world_size + 2 * lanes_of_rank


def test_a_lane_reads_its_chunks_one_window_after_another():
    count, layout = 64_000, ChunkLayout(chunk_size=100, num_lanes=4, window_chunks=8)
    order = SampleOrder(DIGEST, count, 2, "chunked", layout)
    lane = order.ids(0, np.arange(0, count, 4)) // layout.chunk_size
    window = layout.window_chunks * layout.chunk_size
    for start in range(0, len(lane), window):
        # A window may cut one chunk at either end.
        assert len(np.unique(lane[start : start + window])) <= layout.window_chunks + 2


def test_subsets_are_nested_and_the_same_for_every_seed():
    for seed in (0, 1):
        ids = SampleOrder(DIGEST, 500, seed).at(np.arange(500))[1]
        assert sorted(ids) == list(range(500))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SampleOrder(DIGEST, 10, 0, "globl"), "did you mean 'global'"),
        (lambda: SampleOrder(DIGEST, 0), r"number of samples \(0\)"),
        (
            lambda: ChunkLayout(num_lanes=0),
            r"data\.num_lanes \(0\) must lie in 1 \.\. 1,000,000; set --data\.num-lanes",
        ),
    ],
)
def test_wrong_orders_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


# ---------------------------------------------------------------------- what is held out


@pytest.mark.parametrize(("count", "num"), [(2, 1), (13, 5), (1000, 999), (4097, 400)])
def test_what_is_held_out_and_what_remains_are_all(count, num):
    parts = HoldOut(DIGEST, count, num, 3)
    held, rest = parts.find_held_out(np.arange(num)), parts.find_remaining(np.arange(count - num))
    assert (np.diff(held) > 0).all()
    assert (np.diff(rest) > 0).all()
    assert sorted([*held, *rest]) == list(range(count))


def test_golden_hold_outs_never_change():
    assert HoldOut(DIGEST, 13, 4, 0).ids.tolist() == [6, 8, 10, 11]
    assert HoldOut(DIGEST, 10**8, 50_046, 7).ids[[0, 1, -1]].tolist() == [2325, 3691, 99999048]


def test_another_seed_or_dataset_holds_out_others():
    base = set(HoldOut(DIGEST, 1000, 100, 0).ids.tolist())
    for other in (HoldOut(DIGEST, 1000, 100, 1), HoldOut("f" + DIGEST[1:], 1000, 100, 0)):
        assert len(base & set(other.ids.tolist())) < 40


def test_fewer_held_out_are_a_part_of_more():
    few, many = (HoldOut(DIGEST, 1000, num, 5).ids.tolist() for num in (50, 100))
    assert set(few) < set(many)


@pytest.mark.parametrize("order", ORDERS)
def test_an_epoch_is_a_bijection_on_what_remains(order):
    parts = HoldOut(DIGEST, 1000, 77, 1)
    sample_order = SampleOrder(
        DIGEST, 923, 5, order, ChunkLayout(10, 4, 2), find_ids=parts.find_remaining
    )
    ids = sample_order.ids(2, np.arange(923)).tolist()
    assert sorted([*ids, *parts.ids.tolist()]) == list(range(1000))
    used = {sample_order.substitute(0, ids[0], attempt) for attempt in range(500)}
    assert not used & set(parts.ids.tolist())


def test_of_a_hundred_million_nothing_of_their_size_is_stored():
    parts = HoldOut(DIGEST, 10**8, 50_046, 0)
    sample_order = SampleOrder(DIGEST, parts.num_remaining, find_ids=parts.find_remaining)
    arrays = [value for value in vars(parts).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) < 1_000_000
    ids = sample_order.ids(0, np.arange(0, 10**8 - 50_046, 9973))
    assert len(set(ids.tolist())) == len(ids)
    assert not np.isin(ids, parts.ids).any()
    assert ids.max() > 0.99 * 10**8


@pytest.mark.parametrize("num", [0, 10, 11])
def test_a_hold_out_of_nothing_or_everything_is_refused(num):
    with pytest.raises(InputError, match=rf"data\.hold_out \({num}\) must be less than the 10"):
        HoldOut(DIGEST, 10, num)
