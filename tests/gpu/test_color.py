"""The colour operators on a GPU: against the CPU's kernels, in half precision, in graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssl import ops

pytestmark = pytest.mark.gpu

FLOATS = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module", autouse=True)
def _kernels_are_built():
    assert ops.build_info()["cuda"], "the extension was built without CUDA kernels"


def random_images(num=5, height=36, width=52, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=generator)


def draw(num=3, height=9, width=13, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num, 313, height, width, generator=generator)
    ab = 220 * torch.rand(num, 2, height, width, generator=generator) - 110
    return logits, ab, torch.randn(num, height, width, generator=generator)


def run(loss, logits, ab, grads, counted):
    leaf = logits.detach().clone().requires_grad_()
    losses = loss.losses(leaf, ab, counted)
    losses.backward(grads)
    return losses.detach().cpu(), leaf.grad.cpu()


def test_lab_is_that_of_the_cpu():
    images = random_images()[:, 1:, 2:50]
    wanted = ops.rgb_to_lab(images)
    torch.testing.assert_close(ops.rgb_to_lab(images.cuda()).cpu(), wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_split_is_that_of_the_cpu(dtype, mean):
    images, flip = random_images(), torch.tensor([True, False, True, True, False])
    ours = ops.split_lab(images.cuda(), 4, flip.cuda(), mean=mean, dtype=dtype)
    wanted = ops.split_lab(images, 4, flip, mean=mean, dtype=dtype)
    step = 64 * torch.finfo(dtype).eps
    torch.testing.assert_close(ours[0].cpu(), wanted[0], rtol=0, atol=step)
    torch.testing.assert_close(ours[1].cpu(), wanted[1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("num_neighbors", [1, 10, 40, 313])
def test_losses_and_gradients_are_those_of_the_cpu(num_neighbors, dtype, is_last):
    loss = ops.ColorLoss(num_neighbors, prior_Q=np.random.default_rng(0).random(313))
    logits, ab, grads = draw()
    logits = logits.to(dtype)
    if is_last:
        logits = logits.to(memory_format=torch.channels_last)
    counted = torch.tensor([True, False, True])
    wanted = run(loss, logits, ab, grads, counted)
    ours = run(loss.cuda(), logits.cuda(), ab.cuda(), grads.cuda(), counted.cuda())
    torch.testing.assert_close(ours[0], wanted[0], rtol=1e-5, atol=1e-5)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ours[1], wanted[1], rtol=max(2 * eps, 1e-5), atol=1e-5)
    assert ours[1].stride() == logits.stride()


def test_a_graph_gives_what_eager_gives():
    loss = ops.ColorLoss(10).cuda()
    logits, ab, _ = (tensor.cuda() for tensor in draw())
    wanted = loss.losses(logits, ab)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        loss.losses(logits, ab)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = loss.losses(logits, ab)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(losses, wanted)


@pytest.mark.parametrize("num_neighbors", [1, 313])
def test_memory_beyond_logits_and_gradient_is_a_twentieth_of_a_dense_target(num_neighbors):
    loss = ops.ColorLoss(num_neighbors).cuda()
    logits = torch.randn(32, 313, 56, 56, device="cuda", requires_grad=True)
    ab = ops.rgb_to_lab(random_images(32, 56, 56).cuda())[:, 1:].contiguous()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss(logits, ab).backward()
    beyond = torch.cuda.max_memory_allocated() - before - logits.grad.nbytes
    assert beyond <= logits.nbytes / 20
