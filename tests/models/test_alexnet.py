"""AlexNet in the jigsaw form: parameters by hand, published maps, normalisations, export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastssl.models import build_trunk, load_trunk, save_trunk

# Weights of the five convolutions at the standard width, groups 1, 2, 1, 2, 2.
CONVOLUTIONS = [
    96 * 3 * 11 * 11,
    256 * (96 // 2) * 5 * 5,
    384 * 256 * 3 * 3,
    384 * (384 // 2) * 3 * 3,
    256 * (384 // 2) * 3 * 3,
]


def build(name, width=4):
    torch.manual_seed(0)
    return build_trunk(name, width)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        # Biases where there is no batch norm, scale and shift where there is one.
        ("alexnet", (96 + 256) + 2 * (384 + 384 + 256)),
        ("alexnet_no_lrn", (96 + 256) + 2 * (384 + 384 + 256)),
        ("alexnet_stride4", (96 + 256) + 2 * (384 + 384 + 256)),
        ("alexnet_no_bn", 96 + 256 + 384 + 384 + 256),
        ("alexnet_bn", 2 * (96 + 256 + 384 + 384 + 256)),
        ("alexnet_stride4_bn", 2 * (96 + 256 + 384 + 384 + 256)),
    ],
)
def test_parameters_are_those_counted_by_hand(name, others):
    assert sum(p.numel() for p in build(name).parameters()) == sum(CONVOLUTIONS) + others


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("alexnet", (109, 54, 54, 26, 26, 26, 26, 12)),
        ("alexnet_stride4", (55, 27, 27, 13, 13, 13, 13, 6)),
    ],
)
def test_maps_of_227_pixels_are_those_of_the_evaluation_tables(name, sides):
    with torch.no_grad():
        points = build(name).eval().forward_features(torch.randn(1, 3, 227, 227))
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    channels = (96, 96, 256, 256, 384, 384, 256, 256)
    wanted = {n: (c, side, side) for n, c, side in zip(names, channels, sides, strict=True)}
    wanted["pre_logits"] = (1024,)
    assert {name: tuple(point.shape[1:]) for name, point in points.items()} == wanted


def test_pre_logits_of_a_jigsaw_patch_are_the_whole_last_pool():
    points = build("alexnet", 1).eval().forward_features(torch.randn(2, 3, 64, 64))
    assert points["pool5"].shape == (2, 64, 2, 2)
    assert torch.equal(points["pre_logits"], points["pool5"].flatten(1))


@pytest.mark.parametrize(("side", "windows"), [(227, 12), (211, 11)])
def test_pre_logits_of_an_image_are_averages_of_the_last_pool(side, windows):
    points = build("alexnet", 1).eval().forward_features(torch.randn(1, 3, side, side))
    pool5 = points["pool5"]
    assert pool5.shape[-1] == windows
    half = (windows + 1) // 2
    corner = pool5[..., -half:, :half].mean((2, 3))
    torch.testing.assert_close(points["pre_logits"].view(1, -1, 2, 2)[..., 1, 0], corner)


def test_strides_share_their_weights():
    coarse, fine = build("alexnet_stride4", 1), build("alexnet", 1)
    coarse.load_state_dict(fine.state_dict())
    images = torch.randn(1, 3, 227, 227)
    # Every second place of the finer convolution is a place of the coarser one.
    assert torch.equal(coarse.conv1(images), fine.conv1(images)[..., ::2, ::2])


def test_response_normalisation_is_that_of_torch():
    trunk = build("alexnet", 1).eval()
    images = 300 * torch.randn(2, 3, 64, 64)
    kept = {}
    trunk.conv2.register_forward_hook(lambda _m, inputs, _o: kept.update(conv2=inputs[0]))
    points = trunk.forward_features(images)
    wanted = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)(points["pool1"])
    assert (wanted / points["pool1"]).nan_to_num(1).min() < 0.9  # it has something to do
    # Five additions in another order.
    torch.testing.assert_close(kept["conv2"], wanted, rtol=1e-5, atol=1e-5)


def test_without_response_normalisation_the_pools_go_on_as_they_are():
    trunk = build("alexnet_no_lrn", 1).eval()
    kept = {}
    trunk.conv3.register_forward_hook(lambda _m, inputs, _o: kept.update(conv3=inputs[0]))
    assert torch.equal(trunk.forward_features(torch.randn(1, 3, 64, 64))["pool2"], kept["conv3"])


@pytest.mark.parametrize(
    ("name", "normed"),
    [("alexnet", "345"), ("alexnet_no_bn", ""), ("alexnet_bn", "12345")],
)
def test_batch_norms_stand_where_the_name_says(name, normed):
    parts = dict(build(name, 1).named_modules())
    has_norm = "".join(n for n in "12345" if isinstance(parts[f"bn{n}"], nn.BatchNorm2d))
    has_bias = "".join(n for n in "12345" if parts[f"conv{n}"].bias is not None)
    assert has_norm == normed
    assert sorted(has_norm + has_bias) == list("12345")


def test_the_named_least_side_is_the_least_that_works():
    for name, least in (("alexnet", 55), ("alexnet_stride4", 99)):
        trunk = build(name, 1).eval()
        assert trunk.min_side == least
        assert trunk(torch.randn(1, 3, least, least)).shape == (1, trunk.num_features)
        with pytest.raises(ValueError, match=f"at least {least} pixels .* got {least - 1} x 227"):
            trunk(torch.randn(1, 3, least - 1, 227))


def test_every_weight_learns():
    trunk = build("alexnet_no_bn", 1)
    trunk(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trunk.parameters())


def test_export_keeps_stride_and_normalisation(tmp_path):
    trunk, images = build("alexnet_stride4", 1).eval(), torch.randn(1, 3, 99, 99)
    save_trunk(trunk, tmp_path / "trunk.safetensors", {})
    loaded = load_trunk(tmp_path / "trunk.safetensors")[0].eval()
    assert torch.equal(loaded(images), trunk(images))
