"""The colour loss: against a dense target in float64, and on wrong input."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from fastssl import ops
from fastssl.errors import InputError
from fastssl.models.memory import count_saved_bytes
from fastssl.ops import reference

NUM_BINS = 313
NEIGHBORS = [1, 2, 10, 40, 312, 313]


def draw(num=3, height=5, width=7, spread=110.0, seed=0):
    """Return logits, a and b (some beyond all bins), and gradients of the losses."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num, NUM_BINS, height, width, generator=generator)
    ab = spread * (2 * torch.rand(num, 2, height, width, generator=generator) - 1)
    return logits, ab, torch.randn(num, height, width, generator=generator)


def encode(ab, bins, num_neighbors, sigma):
    """Return the dense target, one pixel at a time, in float64."""
    num, _, height, width = ab.shape
    target = torch.zeros(num, len(bins), height, width, dtype=torch.float64)
    nearest = torch.zeros(num, height, width, dtype=torch.int64)
    for place in np.ndindex(num, height, width):
        b, y, x = place
        squares = ((bins.double() - ab[b, :, y, x].double()) ** 2).sum(1)
        # The same order as in float32, and ties to the lower bin.
        order = squares.float().sort(stable=True).indices[:num_neighbors]
        shares = torch.exp(-(squares[order] - squares[order[0]]) / (2 * sigma**2))
        target[b, order, y, x] = shares / shares.sum()
        nearest[b, y, x] = order[0]
    return target, nearest


def run_dense(loss, logits, ab, grads, counted=None):
    """Return losses and gradient from a dense target, in float64."""
    target, nearest = encode(ab, loss.bins_Q2, loss.num_neighbors, loss.sigma)
    leaf = logits.detach().double().requires_grad_()
    losses = -(target * leaf.log_softmax(1)).sum(1)
    if loss.weights_Q is not None:
        losses = losses * loss.weights_Q.double()[nearest]
    if counted is not None:
        losses = losses * counted[:, None, None]
    losses.backward(grads.double())
    return losses.detach(), leaf.grad


def run(loss, logits, ab, grads, counted=None):
    leaf = logits.detach().clone().requires_grad_()
    losses = loss.losses(leaf, ab, counted)
    losses.backward(grads)
    return losses.detach(), leaf.grad


def prior(seed=0):
    return np.random.default_rng(seed).random(NUM_BINS)


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("num_neighbors", NEIGHBORS)
def test_losses_and_gradients_are_those_of_a_dense_target(num_neighbors, is_last):
    loss = ops.ColorLoss(num_neighbors, prior_Q=prior())
    logits, ab, grads = draw()
    if is_last:
        logits = logits.to(memory_format=torch.channels_last)
    counted = torch.tensor([True, False, True])
    losses, grad = run(loss, logits, ab, grads, counted)
    wanted, wanted_grad = run_dense(loss, logits, ab, grads, counted)
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad.double(), wanted_grad, rtol=1e-5, atol=1e-5)
    assert grad.stride() == logits.stride()
    assert (grad[1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("value", [88.5, 89.0, 1e30, float("inf"), float("nan")])
def test_an_image_that_is_not_counted_adds_nothing_whatever_its_logits(value, is_last, dtype):
    logits, ab, grads = draw()
    logits[1] = value
    if is_last:
        logits = logits.to(memory_format=torch.channels_last)
    losses, grad = run(
        ops.ColorLoss(10), logits.to(dtype), ab, grads, torch.tensor([True, False, True])
    )
    assert (losses[1] == 0).all()
    assert (grad[1] == 0).all()
    assert torch.isfinite(grad).all()
    assert (grad[0] != 0).any()


@pytest.mark.parametrize("num_neighbors", [1, 10, 313])
def test_error_is_at_most_twice_that_of_pytorch_in_float32(num_neighbors):
    loss = ops.ColorLoss(num_neighbors)
    logits, ab, grads = draw(height=20, width=20, spread=80)
    ours = run(loss, logits, ab, grads)
    wanted = run_dense(loss, logits, ab, grads)
    target, _ = encode(ab, loss.bins_Q2, num_neighbors, loss.sigma)
    leaf = logits.requires_grad_()
    dense = -(target.float() * leaf.log_softmax(1)).sum(1)
    dense.backward(grads)
    for mine, theirs, truth in zip(ours, (dense, leaf.grad), wanted, strict=True):
        assert (mine - truth).abs().max() <= 2 * (theirs - truth).abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_nothing_but_logits_and_gradient(dtype):
    loss = ops.ColorLoss(10)
    logits, ab, grads = draw()
    logits = logits.to(dtype)
    losses, grad = run(loss, logits, ab, grads)
    wanted, wanted_grad = run_dense(loss, logits, ab, grads)
    assert (losses.dtype, grad.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        grad.double(), wanted_grad, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).tiny
    )


@pytest.mark.parametrize("grid", [5, 20])
def test_other_bins_and_sigmas(grid):
    loss = ops.ColorLoss(10, sigma=0.7 * grid, grid=grid)
    _, ab, grads = draw()
    logits = torch.randn(3, loss.num_bins, 5, 7, generator=torch.Generator().manual_seed(1))
    losses, grad = run(loss, logits, ab, grads)
    wanted, wanted_grad = run_dense(loss, logits, ab, grads)
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad.double(), wanted_grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_neighbors", [2, 6, 10])
def test_ties_go_to_the_lower_bin(num_neighbors):
    """Grey pixels stand on a bin, with rings of four around; 8-bit colours tie often too."""
    loss = ops.ColorLoss(num_neighbors)
    logits, _, grads = draw(1, 4, 8)
    ab = torch.tensor([0.0, 5.0, -10.0, 15.0, 20.0, -5.0, 12.0, 3.0]).expand(1, 2, 4, 8)
    losses, grad = run(loss, logits, ab.contiguous(), grads)
    wanted, wanted_grad = run_dense(loss, logits, ab, grads)
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad.double(), wanted_grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [-300.0, 127.9, 128.0, 500.0])
def test_colours_beyond_the_plane_have_a_target(value):
    loss = ops.ColorLoss(10)
    logits, _, grads = draw(1, 2, 3)
    ab = torch.full((1, 2, 2, 3), value)
    wanted, wanted_grad = run_dense(loss, logits, ab, grads)
    losses, grad = run(loss, logits, ab, grads)
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad.double(), wanted_grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_shows_in_the_loss(value):
    loss = ops.ColorLoss(10)
    logits, ab, _ = draw(1, 2, 3)
    ab[0, 1, 1, 2] = value
    assert loss.losses(logits, ab).isnan().sum() == 1
    logits, ab, _ = draw(1, 2, 3)
    logits[0, 7, 0, 0] = value
    assert loss.losses(logits, ab).isnan().sum() == 1


def test_large_logits_do_not_overflow():
    loss = ops.ColorLoss(10)
    logits, ab, grads = draw()
    losses, grad = run(loss, 1e4 * logits, ab, grads)
    wanted, wanted_grad = run_dense(loss, 1e4 * logits, ab, grads)
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(grad.double(), wanted_grad, rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_mean_over_all_pixels():
    loss = ops.ColorLoss(5)
    logits, ab, _ = draw()
    counted = torch.tensor([True, True, False])
    wanted = loss.losses(logits, ab)[:2].sum() / (3 * 5 * 7)
    torch.testing.assert_close(loss(logits, ab, counted), wanted)


@pytest.mark.parametrize("num_neighbors", [1, 10, 313])
def test_memory_is_a_twentieth_of_a_dense_target(num_neighbors):
    loss = ops.ColorLoss(num_neighbors)
    logits, ab, _ = draw(2, 56, 56)
    leaf = logits.requires_grad_()

    class Head(torch.nn.Module):
        def forward(self, ab):
            return loss(leaf, ab)

    head = Head()
    head.leaf, head.loss = torch.nn.Parameter(torch.zeros(1)), loss
    saved = count_saved_bytes(head, ab)
    tables = sum(buffer.nbytes for buffer in loss.buffers())
    beyond = saved - leaf.nbytes
    assert beyond - tables <= leaf.nbytes / 20
    # A table is for all batches: 32 images of this size have a target of 126 MB.
    assert tables < 16 * leaf.nbytes / 20


def test_empty_batches_give_empty_losses():
    loss = ops.ColorLoss(10)
    assert loss.losses(torch.zeros(0, NUM_BINS, 4, 4), torch.zeros(0, 2, 4, 4)).shape == (0, 4, 4)


def test_threads_do_not_change_the_result():
    loss = ops.ColorLoss(10, prior_Q=prior())
    logits, ab, grads = draw(2, 30, 30)
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            results.append(run(loss, logits, ab, grads))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


# ---------------------------------------------------------------------- as torch sees it


def arguments(loss, logits, ab):
    tables = (loss.bins_Q2, loss._offsets, loss._candidates, loss.weights_Q)
    return logits, ab, *tables, torch.tensor([True, False, True]), 10, 5.0


@pytest.mark.parametrize("is_last", [False, True])
def test_opcheck(is_last):
    loss = ops.ColorLoss(10, prior_Q=prior())
    logits, ab, grads = draw()
    if is_last:
        logits = logits.to(memory_format=torch.channels_last)
    given = arguments(loss, logits.requires_grad_(), ab)
    torch.library.opcheck(torch.ops.fastssl.color_loss.default, given)
    given = (grads, torch.zeros(3, 5, 7), *arguments(loss, logits.detach(), ab))
    torch.library.opcheck(torch.ops.fastssl.color_loss_backward.default, given)


def test_the_reference_does_the_same():
    loss = ops.ColorLoss(10, prior_Q=prior())
    logits, ab, grads = draw()
    given = arguments(loss, logits, ab)
    losses, log_sums = reference.color_loss(*given)
    ours, own_sums = torch.ops.fastssl.color_loss.default(*given)
    torch.testing.assert_close(ours, losses, rtol=1e-5, atol=1e-5)
    grad = reference.color_loss_backward(grads, log_sums, *given)
    own = torch.ops.fastssl.color_loss_backward.default(grads, own_sums, *given)
    torch.testing.assert_close(own, grad, rtol=1e-5, atol=1e-5)


def test_a_compiled_graph_is_whole_and_gives_what_eager_gives():
    loss = ops.ColorLoss(10, prior_Q=prior())
    logits, ab, _ = draw()
    leaf, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    compiled = torch.compile(copy.deepcopy(loss), fullgraph=True, backend="aot_eager")
    compiled(2 * leaf, ab).backward()
    loss(2 * other, ab).backward()
    torch.testing.assert_close(leaf.grad, other.grad)


def test_under_autocast_the_loss_takes_the_head_as_it_is():
    loss, head = ops.ColorLoss(10), torch.nn.Conv2d(4, NUM_BINS, 1)
    _, ab, _ = draw()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(torch.randn(3, 4, 5, 7))
        value = loss(logits, ab)
    value.backward()
    assert (logits.dtype, value.dtype) == (torch.bfloat16, torch.float32)
    assert head.weight.grad.abs().sum() > 0


def test_buffers_move_and_are_not_saved():
    loss = ops.ColorLoss(10, prior_Q=prior())
    assert not loss.state_dict()
    assert all(buffer.device.type == "meta" for buffer in copy.deepcopy(loss).to("meta").buffers())


# ---------------------------------------------------------------------- decoding


def test_decoding_goes_from_the_mean_to_the_most_likely_bin():
    bins = ops.ColorLoss(1).bins_Q2
    logits, _, _ = draw(2, 3, 4)
    mean = torch.einsum("bqhw,qc->bchw", logits.softmax(1), bins)
    torch.testing.assert_close(ops.decode_colors(logits, bins, 1.0), mean)
    likely = bins[logits.argmax(1)].movedim(-1, 1)
    torch.testing.assert_close(ops.decode_colors(logits, bins, 1e-5), likely)
    sharp = ops.decode_colors(logits, bins)
    assert (sharp - likely).norm() < (mean - likely).norm()


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_neighbors": 0}, r"num_neighbors \(0\) must lie in 1 \.\. 313"),
        ({"num_neighbors": 314}, r"num_neighbors \(314\) must lie in 1 \.\. 313"),
        ({"sigma": 0}, r"sigma \(0\) must be above 0"),
        ({"grid": 0}, r"grid \(0\) must lie in"),
        ({"prior_Q": np.ones(262)}, "has 313 bins; count it over the same grid"),
    ],
)
def test_wrong_options_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        ops.ColorLoss(**options)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"logits_BQHW": torch.zeros(3, 312, 5, 7)}, r"\(B, 313, H, W\), one channel a bin"),
        ({"logits_BQHW": torch.zeros(3, 313, 5)}, r"\(B, 313, H, W\)"),
        ({"logits_BQHW": torch.zeros(3, 313, 5, 7).double()}, "float32, float16 or bfloat16"),
        ({"ab_B2HW": torch.zeros(3, 2, 10, 14)}, "stride of split_lab to that of the head"),
        ({"ab_B2HW": torch.zeros(3, 2, 5, 7).double()}, r"ab must be float32 .*float64"),
        ({"counted_B": torch.ones(3)}, r"counted_B must be bool \(B,\) = \(3,\)"),
        ({"counted_B": torch.ones(2).bool()}, r"counted_B must be bool \(B,\) = \(3,\)"),
        ({"ab_B2HW": torch.zeros(3, 2, 5, 7, device="meta")}, "ab must be on cpu like logits"),
    ],
)
def test_wrong_input_is_refused(change, match):
    given = {"logits_BQHW": torch.zeros(3, 313, 5, 7), "ab_B2HW": torch.zeros(3, 2, 5, 7)}
    with pytest.raises(ValueError, match=match):
        ops.ColorLoss(10)(**given | change)


def test_decoding_refuses_no_temperature():
    with pytest.raises(ValueError, match=r"temperature \(0\) must be above 0"):
        ops.decode_colors(torch.zeros(1, 313, 2, 2), torch.zeros(313, 2), 0)
