"""The stages of a trunk, and what it means to freeze them."""

from __future__ import annotations

import pytest
import torch

from fastssl.errors import InputError
from fastssl.models import build_trunk, split_batch_norms, trunk_names
from fastssl.models.memory import count_saved_bytes

NAMES = [*trunk_names(), "resnet9_linear8", "resnet50_v2_linear8"]


def build(name):
    torch.manual_seed(0)
    return build_trunk(name, 1)


def make_images(trunk, num=2):
    side = max(trunk.min_side, 64)
    return torch.randn(num, trunk.in_channels, side, side)


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_end_points_in_order_and_hold_every_weight_once(name):
    trunk = build(name)
    with torch.no_grad():
        points = trunk.eval().forward_features(make_images(trunk, 1))
    stages = trunk.stages()
    assert [point for point in points if point in stages] == list(stages)
    held = [p for modules in stages.values() for m in modules for p in m.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == set(trunk.parameters())


@pytest.mark.parametrize(
    "name", ["alexnet", "resnet50", "resnet50_v2_linear8", "resnet9_halves", "revnet50"]
)
@pytest.mark.parametrize("num_stages", [0, 2, "all"])
def test_frozen_stages_get_no_gradient_and_keep_their_statistics(name, num_stages):
    trunk = build(name)
    stages = trunk.stages()
    num_stages = len(stages) if num_stages == "all" else num_stages
    trunk.freeze(num_stages)
    out = trunk.train()(make_images(trunk))
    if num_stages < len(stages):
        out.square().sum().backward()
    else:
        assert not out.requires_grad
    for number, (stage, modules) in enumerate(stages.items()):
        for module in modules:
            learns = number >= num_stages
            assert all((p.grad is not None) == learns for p in module.parameters()), stage
            for key, value in module.state_dict().items():
                if key.endswith("num_batches_tracked"):
                    assert bool(value) == learns, stage


def test_training_mode_comes_back_everywhere_but_in_frozen_stages():
    trunk = build("resnet9")
    trunk.freeze(2)
    is_training = {name: module.training for name, module in trunk.named_modules()}
    assert not is_training["bn1"]
    assert not is_training["block1.residual.bn2"]
    assert is_training["block2.bn"]
    trunk.eval().train()
    assert {name: module.training for name, module in trunk.named_modules()} == is_training


def test_frozen_statistics_are_those_that_are_used():
    trunk, free = build("resnet9"), build("resnet9")
    trunk.freeze(len(trunk.stages()))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(trunk.train()(images), free.eval()(images))


def test_what_is_frozen_keeps_nothing_for_the_backward_pass():
    trunk, images = build("resnet9"), torch.randn(2, 3, 32, 32)
    whole = count_saved_bytes(trunk, images)
    trunk.freeze(3)
    assert count_saved_bytes(trunk, images) < whole / 3
    trunk.freeze(0)
    assert count_saved_bytes(trunk, images) == whole


def test_the_batch_norms_of_frozen_towers_stay_as_they_are():
    trunk = build("resnet9")
    split_batch_norms(trunk, 2)
    trunk.freeze(1)
    trunk.train()(torch.randn(4, 3, 32, 32))
    assert trunk.bn1.norm.num_batches_tracked == 0
    assert trunk.block1.bn.norm.num_batches_tracked == 1


@pytest.mark.parametrize("num_stages", [-1, 6])
def test_stages_that_are_not_there_are_refused_with_those_that_are(num_stages):
    match = (
        rf"frozen_stages \({num_stages}\) must lie in 0 \.\. 5, the stages of trunk 'resnet9': "
        "1 stem, 2 block1, 3 block2, 4 block3, 5 fc; set --frozen-stages"
    )
    with pytest.raises(InputError, match=match):
        build("resnet9").freeze(num_stages)
