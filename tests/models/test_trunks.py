"""Trunks: torchvision's network, the paper's network, names."""

from __future__ import annotations

import pytest
import torch

from fastssl.errors import InputError
from fastssl.models import build_trunk


def build(name, width=4, seed=0):
    torch.manual_seed(seed)
    return build_trunk(name, width)


def test_a_torchvision_state_dict_loads_and_gives_equal_features():
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    torch.manual_seed(1)
    theirs = torchvision.models.resnet50(weights=None)
    for part in theirs.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.running_mean, std=0.1)
    theirs.fc = torch.nn.Identity()
    ours = build("resnet50")
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def test_resnet9_has_the_number_of_parameters_of_the_paper():
    assert sum(p.numel() for p in build("resnet9").parameters()) == 6_699_328


def test_resnet50_has_the_number_of_parameters_of_torchvision_without_fc():
    assert sum(p.numel() for p in build("resnet50").parameters()) == 25_557_032 - 2_049_000


@pytest.mark.parametrize(("name", "side"), [("resnet50", 64), ("resnet9", 32)])
def test_forward_is_the_last_end_point(name, side):
    trunk = build(name, width=1).eval()
    images = torch.randn(2, 3, side, side)
    points = trunk.forward_features(images)
    assert list(points)[-1] == "pre_logits"
    assert torch.equal(trunk(images), points["pre_logits"])
    assert points["pre_logits"].shape == (2, trunk.num_features)


def test_end_points_of_resnet50():
    with torch.no_grad():
        points = build("resnet50").eval().forward_features(torch.randn(1, 3, 224, 224))
    assert {name: tuple(point.shape[1:]) for name, point in points.items()} == {
        "conv1": (64, 112, 112),
        "res2": (256, 56, 56),
        "res3": (512, 28, 28),
        "res4": (1024, 14, 14),
        "res5": (2048, 7, 7),
        "pre_logits": (2048,),
    }


def test_strides_of_the_patch_form():
    """Kolesnikov et al. 2019: a patch of 64 px gives maps of 64, 32, 32, 16, 8 and 8 px."""
    trunk = build("resnet50_patch", width=1).eval()
    kept = []
    trunk.maxpool.register_forward_hook(lambda _m, _i, out: kept.append(out.shape[-1]))
    with torch.no_grad():
        points = trunk.forward_features(torch.randn(1, 3, 64, 64))
    sides = [points[name].shape[-1] for name in ("conv1", "res2", "res3", "res4", "res5")]
    assert (sides, kept) == ([64, 32, 16, 8, 8], [32])
    assert trunk.state_dict().keys() == build("resnet50", width=1).state_dict().keys()


def test_end_points_of_resnet9():
    points = build("resnet9").eval().forward_features(torch.randn(1, 3, 64, 64))
    assert {name: tuple(point.shape[1:]) for name, point in points.items()} == {
        "stem": (64, 64, 64),
        "block1": (128, 32, 32),
        "block2": (256, 16, 16),
        "block3": (512, 8, 8),
        "fc": (256, 8, 8),
        "pre_logits": (256,),
    }


@pytest.mark.parametrize("name", ["resnet9", "resnet50"])
def test_later_layers_do_not_overwrite_end_points(name):
    trunk = build(name, width=1).eval()
    images = torch.randn(1, 3, 64, 64)
    kept = {}
    layers = dict(trunk.named_children())
    watched = {"resnet9": ("block1", "block2"), "resnet50": ("layer1", "layer2")}[name]
    for layer in watched:
        layers[layer].register_forward_hook(
            lambda _m, _i, out, layer=layer: kept.update({layer: out.clone()})
        )
    points = list(trunk.forward_features(images).values())
    assert torch.equal(points[1], kept[watched[0]])
    assert torch.equal(points[2], kept[watched[1]])


@pytest.mark.parametrize("name", ["resnet9", "resnet50"])
def test_doubling_the_width_doubles_every_channel_count(name):
    narrow = dict(build(name, width=1).named_parameters())
    for key, wide in build(name, width=2).named_parameters():
        in_and_out = [
            side if key == "conv1.weight" and axis == 1 else side * 2
            for axis, side in enumerate(narrow[key].shape[:2])
        ]
        assert list(wide.shape[:2]) == in_and_out


def test_convolutions_are_he_normal_by_fan_out():
    weight = build("resnet50").layer4[2].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert abs(weight.mean().item()) < 1e-4


def test_equal_seeds_give_equal_weights():
    first, second = build("resnet9", seed=3).state_dict(), build("resnet9", seed=3).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_trunk_trains_in_channels_last():
    trunk = build("resnet9", width=1).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    trunk(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trunk.parameters())


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(
        InputError, match=r"trunk \('resnet5'\) is not known; did you mean 'resnet50'"
    ):
        build_trunk("resnet5")


@pytest.mark.parametrize("width", [0, -4, 65, 4.0, True])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(InputError, match=r"width \(.*\) must be a whole number in 1 \.\. 64"):
        build_trunk("resnet9", width)
