"""One step of every task on every family of trunks, eager and compiled.

Recipes' own smoke forms, which test_recipes.py trains, stay with ResNet9 or one trunk of the study.
"""

from __future__ import annotations

import copy
import dataclasses
import functools

import pytest
import torch

from fastssl.batch import Batch
from fastssl.models import build_trunk
from fastssl.studies import build_recipe
from fastssl.studies.registry import CELLS
from fastssl.tasks import RotationConfig, build_task
from fastssl.training.optim import build_optimizer
from fastssl.views import list_views
from fastssl.world import World

# What makes a cell small; what it asks stays.
PATCHES = {"patch": 64, "jitter": 2, "crop": 195, "hidden": 8, "joint_hidden": 16}
SMALL = {
    "rotation": {"size": 32, "copies": "one"},
    "exemplar": {"size": 32, "num_crops": 2, "group_images": 2, "embedding": 8},
    "jigsaw": PATCHES | {"num_permutations": 8},
    "relative_location": PATCHES,
    "colorization": {"resize_short": 112, "crop": 112, "hidden": 8},
    "supervised": {"size": 32},
}
SMALL_NEWELL = {"vae": {"output": 32}}
LEAST_SIDE = {"vgg19_bn": 224, "caffenet": 227, "amdim_encoder": 64}
KOLESNIKOV = [
    f"kolesnikov19_{task}_{trunk}_4x"
    for task in ("rotation", "exemplar", "jigsaw", "relative_location", "supervised")
    for trunk in ("resnet50_v1", "resnet50_v2", "resnet50_v2_minus", "revnet50", "vgg19_bn")
]
GOYAL = [
    f"goyal19_{cell}_imagenet1k"
    for trunk in ("alexnet", "resnet50")
    for cell in (f"jigsaw_{trunk}_p100", f"colorization_{trunk}_k20", f"supervised_{trunk}")
]
NEWELL = [name for name in CELLS if name.startswith("newell20_")]


def build_small(name):
    """Return a cell's task on its trunk of width 1, its optimiser, and inputs of four images."""
    config = build_recipe(name)
    changes = dict(SMALL.get(config.task.name, {}))
    if name in NEWELL:
        changes = {"size": 32} | SMALL_NEWELL.get(config.task.name, {})
    if "size" in changes:
        changes["size"] = max(changes["size"], LEAST_SIDE.get(config.trunk, 0))
    torch.manual_seed(0)
    task = build_task(
        dataclasses.replace(config.task, **changes), build_trunk(config.trunk, 1), num_classes=3
    )
    task.open_tables(8, World(0, 1, torch.device("cpu"), None))
    return task, build_optimizer(config.optim, task), task.prepare(make_batch(task), 5, torch.float)


def make_batch(task, num=4):
    """Noise on smooth colours, with labels."""
    views = list_views(task.views)
    side = views[0].size
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(num * len(views), 3, 5, 5, generator=generator) * 200
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    noisy = smooth + torch.rand(smooth.shape, generator=generator) * 50
    images = noisy.to(torch.uint8).movedim(1, -1).unflatten(0, (num, len(views))).contiguous()
    ids = torch.arange(num)
    return Batch(images, ids, torch.zeros_like(ids), ids % 3, task.make_outline_targets(num))


@pytest.mark.parametrize("name", [*KOLESNIKOV, *GOYAL, *NEWELL])
def test_a_step_moves_every_kernel(name):
    task, optimizer, inputs = build_small(name)
    # A bias in front of a batch norm has no gradient but rounding errors.
    kernels = {key: value for key, value in task.named_parameters() if value.dim() > 1}
    before = {key: value.detach().clone() for key, value in kernels.items()}
    result = task(inputs)
    assert torch.isfinite(result["loss"])
    result["loss"].backward()
    optimizer.step()
    assert all(torch.isfinite(value).all() for value in kernels.values())
    assert [key for key, value in kernels.items() if torch.equal(value, before[key])] == []


# ---------------------------------------------------------------------- compiled


def keep_first_block(trunk):
    """Leave a ResNet9 its stem, its first block and its last layer."""
    trunk.block2 = trunk.block3 = torch.nn.Identity()
    num_channels = trunk.blocks[0][-1] * trunk.conv1.out_channels
    trunk.fc = torch.nn.Conv2d(num_channels, trunk.num_features, 1)


@functools.cache
def build_short(trunk_name, has_one_block=False):
    """Return rotation on a trunk of width 1 with one unit a stage, and inputs of four images.

    Units of a stage are alike, and compilation takes a second for each.
    """
    torch.manual_seed(0)
    trunk = build_trunk(trunk_name, 1)
    if has_one_block:
        keep_first_block(trunk)
    for number in range(1, 5):
        stage = getattr(trunk, f"layer{number}", None)
        if stage is not None:
            del stage[1:]
    task = build_task(RotationConfig(size=max(64, trunk.min_side), copies="one"), trunk)
    return task, task.prepare(make_batch(task), 5, torch.float32)


def compare_compiled(backend, *trunk):
    """Hold loss and gradients of a compiled task to those of the eager one."""
    eager, inputs = build_short(*trunk)
    eager = copy.deepcopy(eager)
    compiled = copy.deepcopy(eager)
    # As the trainer compiles it, and no break is forgiven.
    compiled.compile(fullgraph=True, backend=backend)
    losses = []
    for task in (eager, compiled):
        loss = task(inputs)["loss"]
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    for ours, plain in zip(compiled.parameters(), eager.parameters(), strict=True):
        # Other kernels sum in another order: in proportion to the longest of a tensor's entries.
        scale = plain.grad.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(ours.grad / scale, plain.grad / scale, rtol=0, atol=1e-3)


# Lowering to C++ takes half a minute a family on two cores, however few its layers (ResNet9 33 s,
# AlexNet 35 s): a stem and a residual block go all the way, of the others what Dynamo and
# AOTAutograd make of them is the point.
@pytest.mark.parametrize(
    "trunk", ["resnet50", "resnet50_v2", "revnet50", "vgg19_bn", "alexnet", "resnet9"]
)
def test_trunk_and_head_compile_to_one_graph_that_learns_the_same(trunk):
    compare_compiled("aot_eager", trunk)


@pytest.mark.slow
def test_a_network_lowered_by_inductor_learns_the_same():
    compare_compiled("inductor", "resnet9", True)


def test_a_process_that_compiled_another_size_before_compiles_for_the_size_that_comes():
    """Inductor cannot lower channels-last images whose height and width are unknown."""
    seen = []

    def note_shapes(graph, inputs):
        seen.append([tuple(value.shape) for value in inputs if torch.is_tensor(value)])
        return graph.forward

    for size in (32, 48):
        task = build_task(RotationConfig(size=size, copies="one"), build_trunk("resnet9", 1))
        task.compile(fullgraph=True, backend=note_shapes)
        task(task.prepare(make_batch(task), 5, torch.float32))
    assert len(seen) == 2
    for size, shapes in zip((32, 48), seen, strict=True):
        # A length that Dynamo takes for unknown is a symbol.
        assert all(isinstance(length, int) for shape in shapes for length in shape)
        assert (4, 1, 3, size, size) in shapes
