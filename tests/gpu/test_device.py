"""Copies to a GPU: nothing is lost, swapped or overwritten on the way."""

from __future__ import annotations

import pytest
import torch

from fastssl.batch import Batch
from fastssl.loaders.device import DeviceBuffers, move_batches

pytestmark = pytest.mark.gpu


def make_batches(num, closed=None):
    """Yield batches that are all different, from one buffer that is written again each time."""
    buffer = torch.empty(4, 1, 256, 256, 3, dtype=torch.uint8)
    try:
        for number in range(num):
            buffer.fill_(number)
            ids = torch.arange(4) + 4 * number
            yield Batch(buffer.clone(), ids, torch.zeros_like(ids), None)
    finally:
        if closed is not None:
            closed.append(True)


def test_every_batch_arrives_whole_and_in_order():
    for number, batch in enumerate(move_batches(make_batches(20), "cuda")):
        assert batch.images.device.type == "cuda"
        assert batch.sample_ids.tolist() == [4 * number + k for k in range(4)]
        assert batch.images.eq(number).all()
    assert number == 19


def test_a_batch_is_valid_until_the_second_next_is_asked_for():
    batches = move_batches(make_batches(20), "cuda")
    before = next(batches)
    for number, batch in enumerate(batches, start=1):
        torch.cuda._sleep(5_000_000)  # the device is behind
        assert before.images.eq(number - 1).all()
        before = batch


def test_a_device_that_is_behind_still_reads_the_right_batch():
    sums = []
    for batch in move_batches(make_batches(30), "cuda"):
        torch.cuda._sleep(5_000_000)
        sums.append(batch.images.sum(dtype=torch.int64))
        del batch  # its memory goes back to the allocator while the sum is still to come
    assert [int(total) for total in sums] == [n * 4 * 256 * 256 * 3 for n in range(30)]


def test_copies_run_on_a_stream_of_their_own():
    for _ in move_batches(make_batches(3), "cuda"):
        pass  # pinned memory is there now: to allocate it may wait for the device
    batches = move_batches(make_batches(3), "cuda")
    torch.cuda._sleep(2_000_000_000)
    began = torch.cuda.Event()
    began.record()
    next(batches)
    assert not began.query(), "the copy waited for the device's other work"
    batches.close()
    torch.cuda.synchronize()


def test_closing_closes_the_source():
    closed = []
    batches = move_batches(make_batches(9, closed), "cuda")
    next(batches)
    batches.close()
    assert closed == [True]


def test_pixels_made_on_the_device_are_kept_until_their_user_is_done():
    buffers = DeviceBuffers((4, 1, 256, 256, 3), torch.device("cuda"))
    are_whole = []
    for value in range(30):
        number = buffers.take()
        with torch.cuda.stream(buffers.stream):
            buffers[number].fill_(value)
        buffers.stream.synchronize()
        pixels = buffers.hand_over(number, 3)
        assert pixels.shape == (3, 1, 256, 256, 3)
        torch.cuda._sleep(5_000_000)  # the user is behind
        are_whole.append(pixels.eq(value).all())
        del pixels
    assert all(are_whole)
