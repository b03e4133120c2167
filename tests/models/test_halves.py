"""Half networks: the study's sizes, who sees which channels, what is joined and how."""

from __future__ import annotations

import pytest
import torch

from fastssl.models import build_trunk


def build(name="resnet9_halves", width=1):
    torch.manual_seed(0)
    return build_trunk(name, width).eval()


def count(module):
    return sum(p.numel() for p in module.parameters())


# Newell and Deng 2020: 3.32 million each and 6.64 together, 6.03 each and 12.1 together.
@pytest.mark.parametrize(
    ("name", "lightness", "colour"),
    [("resnet9_halves", 3_322_176, 3_322_752), ("resnet50_newell_halves", 6_027_456, 6_030_592)],
)
def test_halves_have_the_number_of_parameters_of_the_study(name, lightness, colour):
    with torch.device("meta"):
        trunk = build_trunk(name)
    assert (count(trunk.lightness), count(trunk.colour)) == (lightness, colour)
    assert count(trunk) == lightness + colour
    assert trunk.num_features == 256


def test_end_points_of_resnet9_halves():
    points = build(width=4).forward_features(torch.randn(1, 3, 64, 64))
    assert {name: tuple(point.shape[1:]) for name, point in points.items()} == {
        "stem": (128, 64, 64),
        "block1": (256, 32, 32),
        "block2": (256, 16, 16),
        "block3": (1024, 8, 8),
        "fc": (256, 8, 8),
        "pre_logits": (256,),
    }


@pytest.mark.parametrize("name", ["resnet9_halves", "resnet50_newell_halves"])
def test_each_half_sees_its_channels_and_its_features_have_length_one(name):
    trunk, images = build(name), torch.randn(2, 3, 32, 32)
    features = trunk(images)
    for number, (half, seen) in enumerate(
        [(trunk.lightness, images[:, :1]), (trunk.colour, images[:, 1:])]
    ):
        own = half(seen)
        wanted = own / own.norm(dim=1, keepdim=True)
        torch.testing.assert_close(features.chunk(2, 1)[number], wanted)
    assert torch.equal(trunk.forward_features(images)["pre_logits"], features)


@pytest.mark.parametrize("name", ["resnet9_dense_halves", "resnet50_newell_dense_halves"])
def test_dense_maps_have_512_features_of_a_picture_of_128_px(name):
    with torch.device("meta"):
        points = build_trunk(name).forward_features(torch.empty(1, 3, 128, 128))
    assert points["fc"].shape == (1, 512, 16, 16)
    assert points["pre_logits"].shape == (1, 512)


def test_maps_are_joined_as_they_are():
    trunk, images = build(), torch.randn(2, 3, 32, 32)
    points = trunk.forward_features(images)
    lightness, colour = points["fc"].chunk(2, 1)
    assert torch.equal(lightness, trunk.lightness.forward_features(images[:, :1])["fc"])
    assert torch.equal(colour, trunk.colour.forward_features(images[:, 1:])["fc"])


def test_features_without_length_stay_zero():
    trunk = build()
    for half in (trunk.lightness, trunk.colour):
        torch.nn.init.zeros_(half.fc.weight)
    assert torch.equal(trunk(torch.randn(2, 3, 32, 32)), torch.zeros(2, trunk.num_features))
