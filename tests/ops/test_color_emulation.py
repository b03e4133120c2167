"""The arithmetic of the CUDA kernels for colour, thread by thread on the host.

The functions in csrc/cuda/color_kernels.cuh are compiled by the C++ compiler. What only a GPU shows
stands in tests/gpu.
"""

from __future__ import annotations

from ctypes import Structure, byref, c_float, c_int64, c_void_p

import numpy as np
import pytest
import torch

from fastssl import ops
from fastssl.ops import reference
from tests.ops.emulation import Images, address, compile_kernels


class LossJob(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("bins", "weights", "offsets", "candidates")),
        *((name, c_int64) for name in ("num_bins", "num_neighbors")),
        ("scale", c_float),
        *((n, c_int64) for n in ("num_images", "num_pixels", "bin_stride", "pixel_stride")),
        *((name, c_void_p) for name in ("logits", "ab", "counted", "losses", "log_sums")),
        *((name, c_void_p) for name in ("grads", "kept_log_sums", "grad")),
    )


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return compile_kernels("color_emulation", tmp_path_factory.mktemp("emulation"))


def random_images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("eight_bit", [False, True])
def test_lab_is_that_of_the_reference(kernels, eight_bit):
    images = random_images(3, 12, 14)[:, 2:11, 1:13]
    out = torch.full((3, 3, 9, 12), 777.0)
    kernels.emulate_lab(byref(Images.of(images)), c_int64(eight_bit), c_void_p(out.data_ptr()))
    torch.testing.assert_close(out, reference.rgb_to_lab(images, eight_bit), rtol=0, atol=2e-4)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("stride", [1, 4])
def test_split_is_that_of_the_reference(kernels, stride, mean):
    images, flip = random_images(3, 12, 16), torch.tensor([True, False, True])
    light = torch.full((3, 1, 12, 16), 777.0)
    ab = torch.full((3, 2, 12 // stride, 16 // stride), 777.0)
    kernels.emulate_split(
        byref(Images.of(images)),
        c_void_p(flip.data_ptr()),
        *(c_int64(value) for value in (stride, mean, False)),
        c_void_p(light.data_ptr()),
        c_void_p(ab.data_ptr()),
    )
    wanted = reference.split_lab(images, flip, stride, mean, False, torch.float32)
    for ours, theirs in zip((light, ab), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def run(kernels, loss, logits, ab, counted, **pointers):
    """Run one pass of the loss; the tensors that it writes are given by name."""
    num, num_bins, height, width = logits.shape
    is_planar = logits.is_contiguous()
    job = LossJob(
        address(loss.bins_Q2),
        address(loss.weights_Q),
        address(loss._offsets),
        address(loss._candidates),
        num_bins,
        loss.num_neighbors,
        -0.5 / loss.sigma**2,
        *(num, height * width),
        *((height * width, 1) if is_planar else (1, num_bins)),
        *(address(tensor) for tensor in (logits, ab, counted)),
        *(address(pointers.get(n)) for n in ("losses", "log_sums")),
        *(address(pointers.get(n)) for n in ("grads", "kept_log_sums", "grad")),
    )
    kernels.emulate_loss(byref(job), c_int64(is_planar))


@pytest.mark.parametrize("kind", ["random", "tied", "far"])
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("num_neighbors", [1, 10, 40, 313])
def test_losses_and_gradients_are_those_of_the_reference(kernels, num_neighbors, is_last, kind):
    """Numbers of pixels that fill no block, an image that does not count, ties, no neighbour."""
    prior = np.random.default_rng(0).random(313)
    loss = ops.ColorLoss(num_neighbors, prior_Q=prior)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 313, 5, 7, generator=generator)
    ab = 220 * torch.rand(3, 2, 5, 7, generator=generator) - 110
    if kind == "tied":
        ab = (ab / 5).round() * 5
    elif kind == "far":
        ab = ab * 3
    grads = torch.randn(3, 5, 7, generator=generator)
    if is_last:
        logits = logits.to(memory_format=torch.channels_last)
    counted = torch.tensor([True, False, True])
    losses, log_sums = torch.full((2, 3, 5, 7), 777.0)
    grad = torch.full_like(logits, 777.0)
    run(kernels, loss, logits, ab, counted, losses=losses, log_sums=log_sums)
    run(kernels, loss, logits, ab, counted, grads=grads, kept_log_sums=log_sums, grad=grad)
    # Far from all bins float32 squares of distances are rough, in the reference too.
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if kind == "far" else {"rtol": 1e-5, "atol": 1e-5}
    given = (logits, ab, loss.bins_Q2, None, None, loss.weights_Q, counted)
    wanted, sums = reference.color_loss(*given, num_neighbors, 5.0)
    torch.testing.assert_close(losses, wanted, **tolerance)
    wanted_grad = reference.color_loss_backward(grads, sums, *given, num_neighbors, 5.0)
    torch.testing.assert_close(grad, wanted_grad, **tolerance)


def test_a_number_that_is_none_shows(kernels):
    loss = ops.ColorLoss(10)
    logits, ab = torch.randn(1, 313, 1, 3), torch.zeros(1, 2, 1, 3)
    ab[0, 0, 0, 1], logits[0, 5, 0, 2] = float("nan"), float("nan")
    losses, log_sums = torch.zeros(2, 1, 1, 3)
    grad = torch.zeros_like(logits)
    run(kernels, loss, logits, ab, None, losses=losses, log_sums=log_sums)
    ones = torch.ones(1, 1, 3)
    run(kernels, loss, logits, ab, None, grads=ones, kept_log_sums=log_sums, grad=grad)
    assert losses.isnan().flatten().tolist() == [False, True, True]
    assert grad.isnan().any(1).flatten().tolist() == [False, True, True]
