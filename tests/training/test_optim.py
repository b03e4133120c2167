"""The optimiser's groups, and the guard that masks an update on the device."""

import pytest
import torch
from torch import nn

from fastssl.config import OptimConfig
from fastssl.training.optim import UpdateGuard, build_optimizer, set_lr


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def take_step(net, optimizer, seed=1):
    generator = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    net(torch.randn(8, 3, 4, 4, generator=generator)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_equals_the_plain_one(nesterov):
    nets = [network(), network()]
    ours = build_optimizer(
        OptimConfig(lr=0.1, nesterov=nesterov, weight_decay=0.01, decay_norm=True), nets[0]
    )
    plain = torch.optim.SGD(
        nets[1].parameters(), lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.01
    )
    for seed in range(5):
        take_step(nets[0], ours, seed)
        take_step(nets[1], plain, seed)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        # The fused kernel may contract multiply and add; a few units in the last place.
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "num_decayed"),
    [({}, 4), ({"decay_norm": True}, 6), ({"decay_bias": False}, 2)],
)
def test_decay_reaches_the_right_parameters(settings, num_decayed):
    optimizer = build_optimizer(OptimConfig(weight_decay=0.1, **settings), network())
    counts = {group["weight_decay"]: len(group["params"]) for group in optimizer.param_groups}
    assert counts.get(0.1, 0) == num_decayed
    assert sum(counts.values()) == 6


def test_lr_reaches_every_group():
    optimizer = build_optimizer(OptimConfig(), network())
    set_lr(optimizer, 0.123)
    assert [group["lr"] for group in optimizer.param_groups] == [0.123, 0.123]


def snapshot(net, optimizer):
    momenta = [optimizer.state[p]["momentum_buffer"] for p in net.parameters()]
    return [tensor.detach().clone() for tensor in (*net.parameters(), *momenta)]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_loss_leaves_weights_and_momentum_as_they_were(loss):
    net = network()
    optimizer = build_optimizer(OptimConfig(), net)
    guard = UpdateGuard(optimizer, net, torch.device("cpu"))
    for step, value in enumerate((1.0, loss), start=1):
        before = snapshot(net, optimizer)
        assert bool(guard.observe(torch.tensor(value), step)) is (step == 1)
        take_step(net, optimizer)
        after = snapshot(net, optimizer)
        assert all(map(torch.equal, before, after)) is (step == 2)
    assert guard.read() == (1, 0)


def test_a_masked_first_step_leaves_no_rubbish_in_the_momentum():
    net = network()
    optimizer = build_optimizer(OptimConfig(), net)
    guard = UpdateGuard(optimizer, net, torch.device("cpu"))
    guard.observe(torch.tensor(float("nan")), 1)
    take_step(net, optimizer)
    assert all(not optimizer.state[p]["momentum_buffer"].any() for p in net.parameters())


def test_two_in_a_row_trip_and_mask_everything_after():
    net = network()
    optimizer = build_optimizer(OptimConfig(), net)
    guard = UpdateGuard(optimizer, net, torch.device("cpu"))
    bad, good = torch.tensor(float("nan")), torch.tensor(1.0)
    for step, loss in enumerate((bad, good, bad, bad), start=1):
        guard.observe(loss, step)
        take_step(net, optimizer)
    assert guard.read() == (3, 4)
    before = snapshot(net, optimizer)
    guard.observe(good, 5)
    take_step(net, optimizer)
    assert all(map(torch.equal, before, snapshot(net, optimizer)))


def test_what_a_grad_scaler_skips_is_counted_and_masked():
    net = network()
    optimizer = build_optimizer(OptimConfig(), net)
    guard = UpdateGuard(optimizer, net, torch.device("cpu"))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = snapshot(net, optimizer)
    scaler.scale(net(torch.full((2, 3, 4, 4), 1e30)).square().mean()).backward()
    guard.observe(torch.tensor(1.0), 1)
    scaler.step(optimizer)
    scaler.update()
    assert all(map(torch.equal, before, snapshot(net, optimizer)))
    assert guard.read() == (1, 0)
    assert scaler.get_scale() == 2.0**9


def test_the_streak_goes_on_after_a_resume():
    net = network()
    optimizer = build_optimizer(OptimConfig(), net)
    first = UpdateGuard(optimizer, net, torch.device("cpu"))
    first.observe(torch.tensor(float("nan")), 1)
    take_step(net, optimizer)
    second_optimizer = build_optimizer(OptimConfig(), net)
    second = UpdateGuard(second_optimizer, net, torch.device("cpu"))
    second.load_state_dict(first.state_dict())
    second.observe(torch.tensor(float("nan")), 2)
    take_step(net, second_optimizer)
    assert second.read() == (2, 2)


def test_a_non_finite_batch_does_not_poison_the_running_statistics():
    net = network()
    guard = UpdateGuard(build_optimizer(OptimConfig(), net), net, torch.device("cpu"))
    for step, value in enumerate((1.0, float("nan")), start=1):
        before = net[1].running_mean.clone()
        guard.remember()
        loss = net(torch.full((2, 3, 4, 4), value)).mean()
        guard.observe(loss.detach(), step)
        assert torch.equal(net[1].running_mean, before) is (step == 2)
        assert torch.isfinite(net[1].running_var).all()
