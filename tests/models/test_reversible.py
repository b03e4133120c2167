"""Reversible units: plain autograd's gradients, without its memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastssl.models import build_trunk
from fastssl.models.memory import count_saved_bytes
from fastssl.models.resnet50_v2 import PreActivationBranch
from fastssl.models.reversible import ReversibleStage
from tests.nursery import run_child

CHANNELS = 8


def build_stage(num_units, dtype=torch.float64, **options):
    torch.manual_seed(0)
    branches = [PreActivationBranch(CHANNELS, 4, CHANNELS) for _ in range(num_units)]
    return ReversibleStage(branches, **options).to(dtype)


def draw_halves(dtype=torch.float64, seed=1):
    torch.manual_seed(seed)
    return [torch.randn(4, CHANNELS, 6, 6, dtype=dtype, requires_grad=True) for _ in range(2)]


def pull(network, *inputs, autocast=False, backward_inside=False):
    """Return the output of a network and the gradients of inputs and parameters."""
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outs = network(*inputs)
        outs = outs if isinstance(outs, tuple) else (outs,)
        generator = torch.Generator().manual_seed(5)
        weights = [torch.randn(out.shape, generator=generator) for out in outs]
        loss = sum((out * weight).sum() for out, weight in zip(outs, weights, strict=True))
        if backward_inside:
            loss.backward()
    if not backward_inside:
        loss.backward()
    tensors = [*(x for x in inputs if x.requires_grad), *network.parameters()]
    return outs, [tensor.grad for tensor in tensors]


def find_worst(grads, wanted):
    """Return the largest error of a gradient, relative to its norm."""
    pairs = list(zip(grads, wanted, strict=True))
    assert all(w.norm() > 0 for _, w in pairs)
    return max(((g - w).norm() / w.norm()).item() for g, w in pairs)


def build_pair(name, side, dtype=torch.float64, num_images=4):
    """Return a trunk, the same trunk with plain autograd, and images."""
    torch.manual_seed(0)
    trunk = build_trunk(name, 1).to(dtype)
    plain = copy.deepcopy(trunk)
    plain.recomputes = False
    return trunk, plain, torch.randn(num_images, 3, side, side, dtype=dtype)


# ---------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("name", "side"), [("revnet50", 64), ("revnet50_minus", 41), ("revnet50_patch", 32)]
)
def test_gradients_are_those_of_plain_autograd(name, side):
    """Odd sides among them: the windows of the transitions reach over the border."""
    trunk, plain, images = build_pair(name, side)
    (out,), grads = pull(trunk, images)
    (wanted_out,), wanted = pull(plain, images)
    assert torch.equal(out, wanted_out)
    assert find_worst(grads, wanted) < 1e-9


def test_gradients_of_the_inputs_are_those_of_plain_autograd():
    stage, halves = build_stage(3), draw_halves()
    plain, others = copy.deepcopy(stage), draw_halves()
    plain.recomputes = False
    assert find_worst(pull(stage, *halves)[1], pull(plain, *others)[1]) < 1e-12


def test_channels_of_zeros_stop_at_a_relu_as_they_did_at_first():
    """What comes back from the inversion is no zero: the stage must not look at its sign."""
    widen = lambda half, number: torch.cat([half * 0, half][:: 1 - 2 * number], 1)  # noqa: E731
    torch.manual_seed(0)
    branches = [PreActivationBranch(2 * CHANNELS, 4, 2 * CHANNELS) for _ in range(2)]
    stage = ReversibleStage(branches, enter=widen).double()
    plain = copy.deepcopy(stage)
    plain.recomputes = False
    _, grads = pull(stage, *draw_halves())
    _, wanted = pull(plain, *draw_halves())
    for grad, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-9, atol=1e-12)


def test_statistics_are_noted_once():
    trunk, plain, images = build_pair("revnet50", 32)
    pull(trunk, images)
    pull(plain, images)
    assert trunk.layer3[0].bn1.num_batches_tracked == 1
    for buffer, wanted in zip(trunk.buffers(), plain.buffers(), strict=True):
        assert torch.equal(buffer, wanted)


def test_with_noted_statistics_gradients_are_those_of_plain_autograd():
    trunk, plain, images = build_pair("revnet50", 32)
    with torch.no_grad():
        trunk(images)
    plain.load_state_dict(trunk.state_dict())
    noted = copy.deepcopy(dict(trunk.named_buffers()))
    _, grads = pull(trunk.eval(), images)
    assert find_worst(grads, pull(plain.eval(), images)[1]) < 1e-9
    assert all(torch.equal(noted[name], buffer) for name, buffer in trunk.named_buffers())


def test_frozen_parameters_get_no_gradient_and_do_not_change_the_others():
    trunk, plain, images = build_pair("revnet50", 32)
    for part in (trunk, plain):
        for name, parameter in part.named_parameters():
            parameter.requires_grad_("bn" not in name and "layer1" not in name)
    _, grads = pull(trunk, images)
    _, wanted = pull(plain, images)
    assert [g is None for g in grads] == [g is None for g in wanted]
    assert 0 < sum(g is None for g in grads) < len(grads)
    given = [(g, w) for g, w in zip(grads, wanted, strict=True) if w is not None]
    assert find_worst(*zip(*given, strict=True)) < 1e-9


def test_a_trunk_in_channels_last_has_the_same_gradients():
    trunk, plain, images = build_pair("revnet50", 32)
    trunk.to(memory_format=torch.channels_last)
    _, grads = pull(trunk, images.to(memory_format=torch.channels_last))
    assert find_worst(grads, pull(plain, images)[1]) < 1e-9


# ---------------------------------------------------------------------- inversion


def test_inversion_gives_the_inputs_back():
    stage, halves = build_stage(6), draw_halves()
    noted = copy.deepcopy(dict(stage.named_buffers()))
    outs = stage(*halves)
    once = copy.deepcopy(dict(stage.named_buffers()))
    for x, half in zip(stage.invert(*outs), halves, strict=True):
        torch.testing.assert_close(x, half, rtol=0, atol=1e-12)
    assert not torch.equal(once["0.bn1.running_mean"], noted["0.bn1.running_mean"])
    assert all(torch.equal(once[name], buffer) for name, buffer in stage.named_buffers())


def test_every_unit_changes_the_half_that_the_one_before_has_copied():
    stage, halves = build_stage(1), draw_halves()
    first, second = stage(*halves)
    assert torch.equal(first, halves[1])
    torch.testing.assert_close(second, halves[0] + stage[0](halves[1]))


def test_in_float32_the_error_stays_small_over_more_units_than_any_stage_has():
    stage, halves = build_stage(24, torch.float32), draw_halves(torch.float32)
    with torch.no_grad():
        outs = stage(*halves)
    for x, half in zip(stage.invert(*outs), halves, strict=True):
        assert (x - half).norm() / half.norm() < 1e-5


# ---------------------------------------------------------------------- memory


def test_saved_tensors_do_not_grow_with_units():
    images = torch.randn(2, 2 * CHANNELS, 16, 16)

    def count(num_units, recomputes):
        stage = build_stage(num_units, torch.float32)
        stage.recomputes = recomputes
        network = nn.Sequential(nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 1), Halves(stage))
        return count_saved_bytes(network, images)

    assert count(2, True) == count(12, True)
    assert count(12, False) > 4 * count(2, False)


class Halves(nn.Module):
    """Give a stage the halves of a map."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def forward(self, x):
        return torch.cat(self.stage(*x.chunk(2, 1)), 1)


# ---------------------------------------------------------------------- precision, hooks, refusals


@pytest.mark.parametrize("backward_inside", [False, True])
def test_under_autocast_the_stream_is_float32_and_gradients_are_as_plain(backward_inside):
    trunk, plain, images = build_pair("revnet50", 32, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        points = trunk.forward_features(images)
    plain.load_state_dict(trunk.state_dict())
    assert points["after_root"].dtype == torch.bfloat16
    blocks = {name: point.dtype for name, point in points.items() if name != "after_root"}
    assert set(blocks.values()) == {torch.float32}
    (out,), grads = pull(trunk, images, autocast=True, backward_inside=backward_inside)
    (wanted_out,), wanted = pull(plain, images, autocast=True)
    assert torch.equal(out, wanted_out)
    # float32's error of the inversion meets roundings to bfloat16.
    assert find_worst(grads, wanted) < 0.02


def test_a_scaled_loss_gives_scaled_gradients():
    trunk, plain, images = build_pair("revnet50", 32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = torch.optim.SGD(trunk.parameters(), lr=0.1)
    scaler.scale(trunk(images).square().sum()).backward()
    scaler.unscale_(optimizer)
    plain(images).square().sum().backward()
    grads = [[p.grad for p in network.parameters()] for network in (trunk, plain)]
    assert find_worst(*grads) < 1e-9
    before = trunk.conv1.weight.clone()
    scaler.step(optimizer)
    assert not torch.equal(trunk.conv1.weight, before)


DDP_SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from fastssl.models import build_trunk

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
trunk = build_trunk("revnet50", 1).double()
images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
# Small buckets: hooks fire while gradients still flow.
network = DistributedDataParallel(trunk, gradient_as_bucket_view=True, bucket_cap_mb=0.1)
for _ in range(2):
    network.zero_grad()
    network(images[2 * rank : 2 * rank + 2]).square().sum().backward()
if rank == 0:
    torch.save([p.grad for p in trunk.parameters()], sys.argv[1])
# A rank that ends while the other still talks to it, or with its buckets alive, may abort.
dist.barrier()
del network
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_average_their_gradients(tmp_path):
    script, file = tmp_path / "script.py", tmp_path / "grads.pt"
    script.write_text(DDP_SCRIPT)
    run_child(script, file, ranks=2, check=True)
    _, plain, images = build_pair("revnet50", 32)
    for half in images.chunk(2):
        (plain(half).square().sum() / 2).backward()
    assert find_worst(torch.load(file), [p.grad for p in plain.parameters()]) < 1e-9


def compile_pair(network):
    """Return a network's copy, compiled whole but not lowered: what Dynamo traces is the point."""
    return torch.compile(copy.deepcopy(network), backend="aot_eager", fullgraph=True)


def test_a_stage_compiles_without_a_break():
    stage = build_stage(2)
    compiled = compile_pair(stage)
    _, grads = pull(compiled, *draw_halves())
    assert find_worst(grads, pull(stage, *draw_halves())[1]) < 1e-12
    for buffer, wanted in zip(compiled.buffers(), stage.buffers(), strict=True):
        torch.testing.assert_close(buffer, wanted)


@pytest.mark.slow
def test_a_trunk_compiles_without_a_break():
    trunk, _, images = build_pair("revnet50", 32)
    for number in range(
        1, 5
    ):  # of each stage one unit that changes the size, and one that does not
        del getattr(trunk, f"layer{number}")[2:]
    assert find_worst(pull(compile_pair(trunk), images)[1], pull(trunk, images)[1]) < 1e-9


def test_halves_of_different_shapes_are_refused():
    first, second = draw_halves()
    with pytest.raises(ValueError, match=r"must have one shape, got .* must be even in number"):
        build_stage(1)(first[:, 1:], second)


def test_a_change_of_mode_before_the_backward_pass_is_refused():
    stage = build_stage(1)
    outs = stage(*draw_halves())
    stage.eval()
    with pytest.raises(RuntimeError, match="call backward first"):
        outs[1].sum().backward()


def test_weights_that_change_before_the_backward_pass_are_refused():
    stage = build_stage(2)
    outs = stage(*draw_halves())
    with torch.no_grad():
        stage[1].conv1.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outs[1].sum().backward()


def test_a_second_derivative_is_refused():
    stage, halves = build_stage(1), draw_halves()
    grad = torch.autograd.grad(stage(*halves)[1].square().sum(), halves[1], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
