"""The trunks of Newell and Deng 2020: sizes, maps, and what AMDIM predicts."""

from __future__ import annotations

import pytest
import torch

from fastssl.models import build_trunk, load_trunk, save_trunk
from fastssl.models.amdim_encoder import PooledUnit
from fastssl.models.resnet50_newell import ResNet50Newell

# Name -> parameters, side of the images, sides of the maps from the first convolution to fc, D.
TRUNKS = {
    "resnet9": (6_699_328, 64, [64, 32, 16, 8, 8], 256),
    "resnet9_dense": (6_830_656, 128, [128, 64, 32, 16, 16], 512),
    "resnet50_newell": (24_032_576, 64, [32, 32, 16, 8, 4, 4], 256),
    "resnet50_newell_dense": (24_557_120, 128, [64, 64, 32, 16, 16, 16], 512),
}


def build_on_meta(name, width=4):
    with torch.device("meta"):
        return build_trunk(name, width)


@pytest.mark.parametrize("name", TRUNKS)
def test_sizes_of_the_study(name):
    num_parameters, side, sides, num_features = TRUNKS[name]
    trunk = build_on_meta(name)
    points = trunk.forward_features(torch.empty(2, 3, side, side, device="meta"))
    assert sum(part.numel() for part in trunk.parameters()) == num_parameters
    assert [point.shape[-1] for point in points.values() if point.dim() == 4] == sides
    assert points["fc"].shape[1] == points["pre_logits"].shape[1] == num_features
    assert trunk.num_features == num_features


@pytest.mark.parametrize(("in_channels", "num_parameters"), [(1, 6_027_456), (2, 6_030_592)])
def test_half_a_resnet50_has_a_whole_first_convolution(in_channels, num_parameters):
    with torch.device("meta"):
        trunk = ResNet50Newell(4, in_channels, is_half=True)
        points = trunk.forward_features(torch.empty(1, in_channels, 64, 64))
    assert sum(part.numel() for part in trunk.parameters()) == num_parameters
    channels = [point.shape[1] for point in points.values()]
    assert channels == [64, 128, 256, 512, 1024, 128, 128]


def test_only_the_first_unit_of_the_dilated_stage_is_not_dilated():
    for name, wanted in (("resnet50_newell", [1, 1, 1]), ("resnet50_newell_dense", [1, 2, 2])):
        units = build_on_meta(name, 1).layer4
        assert [unit.conv2.dilation[0] for unit in units] == wanted
        assert [unit.conv2.padding[0] for unit in units] == wanted


def test_the_weights_of_torchvision_fit_and_give_its_dilated_features():
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    torch.manual_seed(1)
    dilate = [False, False, True]
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=dilate).double().eval()
    theirs.maxpool, theirs.fc = torch.nn.Identity(), torch.nn.Identity()
    ours = build_trunk("resnet50_newell_dense").double().eval()
    assert not ours.load_state_dict(theirs.state_dict(), strict=False).unexpected_keys
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        points = ours.forward_features(images)
        torch.testing.assert_close(points["res5"].mean((2, 3)), theirs(images))


@pytest.mark.parametrize("name", TRUNKS)
def test_features_are_the_mean_of_the_dense_ones(name):
    torch.manual_seed(0)
    trunk = build_trunk(name, 1).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.nn.init.normal_(trunk.fc.bias)
        points = trunk.forward_features(images)
        pooled = points["res5" if "res5" in points else "block3"].mean((2, 3))
        linear = torch.nn.functional.linear(pooled, trunk.fc.weight[:, :, 0, 0], trunk.fc.bias)
        assert torch.equal(trunk(images), points["pre_logits"])
    assert list(points)[-1] == "pre_logits"
    torch.testing.assert_close(points["pre_logits"], linear)


@pytest.mark.parametrize(
    ("name", "fine", "coarse"),
    [
        ("resnet9", "block2.celu", "block3.celu"),
        ("resnet50_newell", "layer3.4", "layer4.1"),
        ("resnet50_newell_dense", "layer3.4", "layer4.1"),
    ],
)
def test_places_are_taken_from_the_units_of_the_study(name, fine, coarse):
    torch.manual_seed(0)
    trunk = build_trunk(name, 1).eval()
    images, kept = torch.randn(2, 3, 64, 64), {}
    for unit in (fine, coarse):
        trunk.get_submodule(unit).register_forward_hook(
            lambda _m, _i, out, unit=unit: kept.update({unit: out.clone()})
        )
    with torch.no_grad():
        maps = trunk.forward_local(images)
        assert torch.equal(maps[0], kept[fine])
        assert torch.equal(maps[1], kept[coarse])
        assert torch.equal(maps[2], trunk(images))
    assert tuple(point.shape[1] for point in maps[:2]) == trunk.local_channels


@pytest.mark.parametrize("name", ["resnet9_dense", "resnet50_newell", "amdim_encoder"])
def test_an_exported_trunk_comes_back(name, tmp_path):
    torch.manual_seed(0)
    trunk = build_trunk(name, 1)
    save_trunk(trunk, tmp_path / "trunk.safetensors", {})
    other, _ = load_trunk(tmp_path / "trunk.safetensors")
    states = trunk.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_encoder_of_amdim_is_as_large_as_the_resnet50_and_pads_nothing():
    trunk = build_on_meta("amdim_encoder")
    points = trunk.forward_features(torch.empty(2, 3, 64, 64, device="meta"))
    shapes = [tuple(point.shape[1:]) for point in points.values()]
    assert shapes[:4] == [(64, 62, 62), (128, 30, 30), (256, 14, 14), (512, 7, 7)]
    assert shapes[4:] == [(512, 5, 5), (512, 3, 3), (256,)]
    num_parameters = sum(part.numel() for part in trunk.parameters())
    assert num_parameters == 23_644_416
    assert abs(num_parameters / TRUNKS["resnet50_newell"][0] - 1) < 0.02
    assert trunk.local_channels == (512, 512)


def test_a_place_of_the_encoder_of_amdim_sees_nothing_of_what_is_far():
    """Places of 7 x 7 see windows of 16 px, 8 px apart."""
    trunk = build_trunk("amdim_encoder", 1).eval()
    images = torch.randn(1, 3, 64, 64).requires_grad_()
    fine, _, _ = trunk.forward_local(images)
    fine[0, :, 2, 3].sum().backward()
    seen = images.grad[0].abs().sum(0).nonzero()
    assert seen.min(0).values.tolist() == [16, 24]
    assert seen.max(0).values.tolist() == [16 + 15, 24 + 15]


@pytest.mark.parametrize(("channels", "kept"), [((4, 6), 4), ((6, 4), 4), ((5, 5), 5)])
def test_a_fresh_pooled_unit_is_its_shortcut(channels, kept):
    unit = PooledUnit(*channels, side=3)
    x = torch.randn(2, channels[0], 5, 5)
    out = unit(x)
    wanted = torch.nn.functional.avg_pool2d(x, 3, 1)
    assert torch.equal(out[:, :kept], wanted[:, :kept])
    assert not out[:, kept:].any()
