"""What the tasks of Kolesnikov et al. 2019, and of Newell and Deng 2020, have in common."""

from __future__ import annotations

import pytest
import torch

from fastssl.batch import Batch
from fastssl.models import build_trunk
from fastssl.studies import build_recipe
from fastssl.tasks import build_task
from fastssl.views import list_views

TASKS = (
    *(f"kolesnikov19_{task}" for task in ("rotation", "exemplar", "jigsaw", "relative_location")),
    *(f"newell20_{task}" for task in ("rotation", "vae")),
)


def build(name):
    torch.manual_seed(0)
    return build_task(build_recipe(f"{name}_smoke").task, build_trunk("resnet9", 1))


def make_batch(task, num=16):
    views = list_views(task.views)
    shape = (num, len(views), views[0].size, views[0].size, 3)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    # A batch that crosses an epoch's border.
    epochs = (torch.arange(num) >= num // 2).long()
    return Batch(images, torch.arange(num) + 100, epochs, None)


@pytest.mark.parametrize("name", TASKS)
def test_what_a_sample_looks_like_does_not_depend_on_its_neighbours(name):
    """Law 2: the same on every rank, and in every micro-batch."""
    task = build(name)
    batch = make_batch(task)
    whole = task.prepare(batch, 7, torch.float32)
    part = task.prepare(batch.rows(8, 16), 7, torch.float32)
    assert whole.keys() == part.keys()
    for key, value in part.items():
        assert torch.equal(value, whole[key][8:])


@pytest.mark.parametrize("name", TASKS)
def test_another_seed_or_epoch_looks_otherwise(name):
    task = build(name)
    batch = make_batch(task)
    later = Batch(batch.images, batch.sample_ids, batch.epochs + 1, None)
    first = task.prepare(batch, 7, torch.float32)
    key = "patches" if "patches" in first else "images"
    first = first[key]
    for other in (task.prepare(batch, 8, torch.float32), task.prepare(later, 7, torch.float32)):
        is_equal = (other[key] == first).flatten(1).all(1)
        assert not is_equal.any()


@pytest.mark.parametrize("name", TASKS)
def test_inputs_come_in_the_dtype_asked_for(name):
    task = build(name)
    batch = make_batch(task, 8)
    exact = task.prepare(batch, 7, torch.float32)
    half = task.prepare(batch, 7, torch.bfloat16)
    for key, value in exact.items():
        if value.is_floating_point():
            assert half[key].dtype == torch.bfloat16
            # bfloat16 rounds to 8 bits: half a unit of the last place, relative.
            torch.testing.assert_close(half[key].float(), value, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_a_trunk_sees_dense_channels_last_images(name):
    task = build(name)
    seen = []
    task.trunk.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    task(task.prepare(make_batch(task, 8), 7, torch.float32))
    (images,) = seen
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", TASKS)
def test_trunk_and_head_are_one_graph(name):
    task = build(name)
    inputs = task.prepare(make_batch(task, 8), 7, torch.float32)
    torch.compile(task, fullgraph=True, backend="eager")(inputs)["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters())
