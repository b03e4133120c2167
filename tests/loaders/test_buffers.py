"""Buffers of batches: kept while they are held, used again when they are not."""

from __future__ import annotations

import torch

from fastssl.loaders.buffers import MAX_HANDED_OVER, BatchBuffers

SHAPE = (4, 1, 2, 2, 3)


def fill(buffers, value):
    number = buffers.take()
    buffers[number].fill_(value)
    return buffers.hand_over(number, 4)


def test_a_batch_that_is_held_stays_as_it_is():
    buffers = BatchBuffers(1, SHAPE, is_shared=False)
    held = [fill(buffers, value) for value in range(20)]
    assert [batch.unique().tolist() for batch in held] == [[value] for value in range(20)]


def test_part_of_a_batch_holds_all_of_it():
    buffers = BatchBuffers(1, SHAPE, is_shared=False)
    part = fill(buffers, 7)[1, 0]
    for value in range(20, 30):
        fill(buffers, value)
    assert part.unique().tolist() == [7]


def test_memory_is_used_again_once_nobody_holds_it():
    buffers = BatchBuffers(1, SHAPE, is_shared=False)
    places = {fill(buffers, value).data_ptr() for value in range(50)}
    assert len(places) <= BatchBuffers.count(1)


def test_who_holds_too_many_gets_copies():
    buffers = BatchBuffers(1, SHAPE, is_shared=False)
    held = [fill(buffers, value) for value in range(10)]
    own = {buffers[number].data_ptr() for number in range(BatchBuffers.count(1))}
    assert sum(batch.data_ptr() in own for batch in held) == MAX_HANDED_OVER


def test_a_short_batch_is_the_beginning_of_a_buffer():
    buffers = BatchBuffers(1, SHAPE, is_shared=True)
    number = buffers.take()
    buffers[number].copy_(torch.arange(4).view(4, 1, 1, 1, 1).expand(SHAPE))
    assert buffers.hand_over(number, 3)[:, 0, 0, 0, 0].tolist() == [0, 1, 2]
