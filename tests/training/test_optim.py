"""The optimiser's groups, and the guard that masks an update on the device."""

import importlib.util

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastssl.config import OptimConfig
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.studies import build_recipe
from fastssl.tasks import RotationConfig, build_task
from fastssl.training.optim import (
    UpdateGuard,
    build_optimizer,
    list_statistics,
    load_apex_optimizers,
    set_lr,
)


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
    counts = {0.0: 0, 0.1: 0}
    for group in optimizer.param_groups:
        counts[group["weight_decay"]] += len(group["params"])
    assert counts == {0.1: num_decayed, 0.0: 6 - num_decayed}


def list_decays(optimizer):
    return {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("task", ["jigsaw", "relative_location"])
def test_kernels_of_the_patch_head_decay_as_the_study_has_it(task):
    """5e-4 on both layers of the head, 1e-4 on the embedding and the trunk, none elsewhere."""
    recipe = build_recipe(f"kolesnikov19_{task}")
    network = build_task(recipe.task, build_trunk(recipe.trunk, 1))
    decays = list_decays(build_optimizer(recipe.optim, network))
    assert decays.keys() == set(network.parameters())
    first, norm, _, _, last = network.head.classify
    assert [decays[layer.weight] for layer in (first, norm, last)] == [5e-4, 0, 5e-4]
    assert [decays[layer.bias] for layer in (first, norm, last)] == [0, 0, 0]
    assert (decays[network.head.project.weight], decays[network.trunk.conv1.weight]) == (1e-4, 1e-4)
    assert sorted(decays.values()).count(5e-4) == 2


def test_any_other_head_decays_whole():
    network = build_task(RotationConfig(), build_trunk("resnet9", 1))
    config = OptimConfig(weight_decay=1e-4, head_weight_decay=0.5)
    decays = list_decays(build_optimizer(config, network))
    assert {decays[p] for p in network.head.parameters()} == {0.5}
    assert 0.5 not in {decays[p] for p in network.trunk.parameters()}


def test_without_a_decay_of_its_own_the_head_has_that_of_all():
    network = build_task(RotationConfig(), build_trunk("resnet9", 1))
    groups = build_optimizer(OptimConfig(), network).param_groups
    same = build_optimizer(OptimConfig(head_weight_decay=1e-4), network).param_groups
    assert [g["params"] for g in groups] == [g["params"] for g in same]


def test_the_decay_of_a_head_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"needs a head, Sequential has none; set --optim\.head"):
        build_optimizer(OptimConfig(head_weight_decay=0.1), network())


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(value):
    with pytest.raises(InputError, match=r"optim\.head_weight_decay \("):
        OptimConfig(head_weight_decay=value)


def test_lr_reaches_every_group():
    optimizer = build_optimizer(OptimConfig(), network())
    set_lr(optimizer, 0.123)
    assert {group["lr"] for group in optimizer.param_groups} == {0.123}


def test_biases_may_learn_faster_and_norms_do_not():
    optimizer = build_optimizer(OptimConfig(bias_lr_factor=2.0), net := network())
    set_lr(optimizer, 0.1)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    conv, norm, _, linear = net
    assert [rates[layer.weight] for layer in (conv, norm, linear)] == [0.1, 0.1, 0.1]
    assert [rates[layer.bias] for layer in (conv, norm, linear)] == [0.2, 0.1, 0.2]


def test_a_head_may_learn_at_a_rate_of_its_own():
    task = build_task(RotationConfig(), build_trunk("alexnet", 1))
    optimizer = build_optimizer(OptimConfig(head_lr_factor=10.0, bias_lr_factor=2.0), task)
    set_lr(optimizer, 0.01)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    layer, conv = next(iter(task.head.children()), task.head), task.trunk.conv1
    found = [rates[p] for p in (layer.weight, layer.bias, conv.weight, conv.bias)]
    assert found == pytest.approx([0.1, 0.2, 0.01, 0.02])
    with pytest.raises(InputError, match=r"head_lr_factor needs a head.* --optim.head-lr-factor 1"):
        build_optimizer(OptimConfig(head_lr_factor=10.0), network())


@pytest.mark.parametrize("decay_norm", [False, True])
def test_norms_may_decay_at_a_rate_of_their_own(decay_norm):
    config = OptimConfig(weight_decay=1e-6, norm_weight_decay=1e-4, decay_norm=decay_norm)
    decays = list_decays(build_optimizer(config, net := network()))
    conv, norm, _, linear = net
    assert [decays[layer.weight] for layer in (conv, norm, linear)] == [1e-6, 1e-4, 1e-6]
    assert [decays[layer.bias] for layer in (conv, norm, linear)] == [1e-6, 1e-4, 1e-6]


@pytest.mark.parametrize("name", ["noroozi16_jigsaw", "goyal19_jigsaw_alexnet"])
def test_biases_of_caffes_alexnets_learn_at_twice_the_rate_without_decay(name):
    recipe = build_recipe(name)
    task = build_task(recipe.task, build_trunk(recipe.trunk, 1))
    optimizer = build_optimizer(recipe.optim, task)
    set_lr(optimizer, 0.01)
    group = next(
        g for g in optimizer.param_groups if any(p is task.trunk.conv1.bias for p in g["params"])
    )
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.0)


def test_a_checkpoint_without_factors_goes_on_with_one_rate():
    optimizer = build_optimizer(OptimConfig(), network())
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["lr_factor"]
    optimizer.load_state_dict(state)
    set_lr(optimizer, 0.3)
    assert {group["lr"] for group in optimizer.param_groups} == {0.3}


def test_the_root_of_revnet_does_not_decay_in_the_study():
    """Its root convolution has no regulariser (the study's resnet.py); ResNet's has."""
    for trunk, wanted in (("revnet50", 0.0), ("resnet50_v2", 1e-4)):
        recipe = build_recipe(f"kolesnikov19_rotation_{trunk}_4x")
        task = build_task(recipe.task, build_trunk(recipe.trunk, 1))
        decays = list_decays(build_optimizer(recipe.optim, task))
        assert decays[task.trunk.conv1.weight] == wanted
        assert decays[task.trunk.layer1[0].conv1.weight] == 1e-4


def test_a_root_that_is_not_there_cannot_be_spared():
    with pytest.raises(InputError, match=r"optim\.decay_root \(false\) needs a trunk"):
        build_optimizer(OptimConfig(decay_root=False), network())


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


@pytest.mark.parametrize(
    ("name", "plain"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.999)])
def test_adam_equals_the_plain_one(name, plain, betas):
    nets = [network(), network()]
    # A large eps: the convolution's bias stands before a batch norm, so its gradient is noise.
    adam = {"beta1": betas[0], "beta2": betas[1], "eps": 1e-3}
    config = OptimConfig(name=name, lr=0.01, weight_decay=0.1, decay_norm=True, **adam)
    ours = build_optimizer(config, nets[0])
    theirs = plain(
        nets[1].parameters(), lr=0.01, betas=betas, eps=1e-3, weight_decay=0.1, foreach=False
    )
    for seed in range(5):
        take_step(nets[0], ours, seed)
        take_step(nets[1], theirs, seed)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def take_lars_step_by_hand(weights, momenta, gradients, lr, config, is_adapted):
    for w, m, g, adapted in zip(weights, momenta, gradients, is_adapted, strict=True):
        rate = 1.0
        decayed = g + config.weight_decay * w
        if adapted:
            length = g.norm() + config.weight_decay * w.norm()
            rate = config.trust_coefficient * w.norm() / length
        m.mul_(config.momentum).add_(rate * decayed)
        w.sub_(lr * m)


@pytest.mark.parametrize("uses_scaler", [False, True])
def test_lars_is_the_papers_rule(uses_scaler):
    net = network()
    config = OptimConfig(name="lars", lr=2.0, weight_decay=0.01, decay_norm=True)
    optimizer = build_optimizer(config, net)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=uses_scaler)
    weights = [p.detach().clone().double() for p in net.parameters()]
    momenta = [torch.zeros_like(w) for w in weights]
    is_adapted = [p.dim() > 1 for p in net.parameters()]
    for step in range(4):
        inputs = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        scaler.scale(net(inputs).square().mean()).backward()
        scale = scaler.get_scale() if uses_scaler else 1.0
        gradients = [p.grad.double() / scale for p in net.parameters()]
        take_lars_step_by_hand(weights, momenta, gradients, 2.0, config, is_adapted)
        scaler.step(optimizer)
        scaler.update()
    for p, w in zip(net.parameters(), weights, strict=True):
        # float32 against float64 over four steps.
        torch.testing.assert_close(p.double(), w, rtol=1e-4, atol=1e-6)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}


@pytest.mark.parametrize("name", ["sgd", "lars", "adam", "adamw"])
def test_every_optimiser_is_masked_whole(name):
    net = network()
    optimizer = build_optimizer(OptimConfig(name=name, lr=0.01), net)
    guard = UpdateGuard(optimizer, net, torch.device("cpu"))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for step, loss in enumerate((1.0, float("nan"), 1.0), start=1):
        before = [p.detach().clone() for p in net.parameters()]
        states = [value.clone() for s in optimizer.state.values() for value in s.values()]
        optimizer.zero_grad()
        inputs = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        (net(inputs).square().mean() * loss).backward()
        guard.observe(torch.tensor(loss), step)
        guard.take_step(optimizer, scaler)
        after = [value for s in optimizer.state.values() for value in s.values()]
        if step == 2:
            assert all(map(torch.equal, before, net.parameters()))
            assert all(map(torch.equal, states, after))
        else:
            assert not all(map(torch.equal, before, net.parameters()))
    assert guard.read() == (1, 0)


def test_absent_apex_is_named_with_the_way_to_install_it():
    if importlib.util.find_spec("apex") is not None:
        pytest.skip("a package called apex is installed")
    with pytest.raises(ImportError, match="needs NVIDIA apex, which is absent; install NVIDIA"):
        build_optimizer(OptimConfig(name="apex_fused_lamb"), network())


def test_the_unrelated_apex_is_refused(tmp_path, monkeypatch):
    """A package of that name without the optimisers, as PyPI has it."""
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match=r"not NVIDIA's .* pip uninstall apex"):
        load_apex_optimizers()


def test_an_unknown_optimiser_offers_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'adamw'"):
        OptimConfig(name="adamww")


def test_a_finite_loss_with_a_non_finite_gradient_is_masked():
    net = network()
    optimizer = build_optimizer(OptimConfig(), net)
    guard = UpdateGuard(optimizer, net, torch.device("cpu"))
    before = snapshot(net, optimizer)
    gradients = []
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
        gradients.append(parameter.grad)
    gradients[0].view(-1)[3] = float("inf")
    assert not guard.observe(torch.tensor(1.0), 1, gradients)
    optimizer.step()
    assert all(map(torch.equal, before, snapshot(net, optimizer)))


class Touched(TorchDispatchMode):
    """Notes the memory that operators are given."""

    def __init__(self):
        super().__init__()
        self.storages = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor):
                self.storages.add(value.untyped_storage().data_ptr())
        return func(*args, **(kwargs or {}))


def test_the_guard_touches_running_statistics_and_no_other_buffer():
    net = network()
    net.register_buffer("table", torch.zeros(1000))
    net.append(nn.BatchNorm1d(2))
    net[-1].eval()  # as of a frozen stage: its statistics do not change
    guard = UpdateGuard(build_optimizer(OptimConfig(), net), net, torch.device("cpu"))
    with Touched() as touched:
        guard.remember()
        guard.observe(torch.tensor(float("nan")), 1)
    assert net[1].running_mean.untyped_storage().data_ptr() in touched.storages
    assert net.table.untyped_storage().data_ptr() not in touched.storages
    assert net[-1].running_mean.untyped_storage().data_ptr() not in touched.storages


def test_statistics_are_those_of_batch_norms_that_train():
    net = network()
    net.register_buffer("table", torch.zeros(1000))
    names = ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert list(list_statistics(net)) == names
    assert list(list_statistics(net.eval())) == []


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_frozen_parameters_are_not_the_optimisers(name):
    net = network()
    net[0].requires_grad_(False)
    optimizer = build_optimizer(OptimConfig(name=name, weight_decay=0.5), net)
    before = net[0].weight.clone()
    take_step(net, optimizer)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert set(held) == {p for part in net[1:] for p in part.parameters()}
    assert set(optimizer.state) <= set(held)
    assert torch.equal(net[0].weight, before)
