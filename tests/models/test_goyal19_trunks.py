"""The trunks that see lightness alone, as Goyal et al. 2019 colour pictures with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastssl.models import build_trunk

WIDTHS = (4, 8, 12, 16)


def build_on_meta(name, width):
    with torch.device("meta"):
        return build_trunk(name, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_alexnet_has_convolutions_and_nothing_else(width):
    channels = [1, 24 * width, 64 * width, 96 * width, 96 * width, 64 * width]
    seen = [1, 24 * width // 2, 64 * width, 96 * width // 2, 96 * width // 2]
    areas = (121, 25, 9, 9, 9)
    wanted = sum(a * i * o for a, i, o in zip(areas, seen, channels[1:], strict=True))
    trunk = build_on_meta("alexnet_color", width)
    assert sum(part.numel() for part in trunk.parameters()) == wanted
    norms = [part for part in trunk.modules() if isinstance(part, nn.BatchNorm2d)]
    assert [norm.affine for norm in norms] == [False] * 5
    assert (wanted == 2_309_472) == (width == 4)


@pytest.mark.parametrize("width", WIDTHS)
def test_resnet_differs_from_the_standard_one_in_its_first_kernels(width):
    color, plain = build_on_meta("resnet50_color", width), build_on_meta("resnet50", width)
    shapes = [
        {name: tuple(part.shape) for name, part in t.named_parameters()} for t in (color, plain)
    ]
    assert {name for name in shapes[1] if shapes[0][name] != shapes[1][name]} == {"conv1.weight"}
    assert shapes[0]["conv1.weight"] == (16 * width, 1, 7, 7)


def test_resnet_ends_with_a_map_of_stride_16():
    points = build_on_meta("resnet50_color", 4).forward_features(
        torch.empty(2, 1, 224, 224, device="meta")
    )
    sides = {name: tuple(point.shape[1:]) for name, point in points.items()}
    assert sides == {
        "conv1": (64, 112, 112),
        "res2": (256, 56, 56),
        "res3": (512, 28, 28),
        "res4": (1024, 14, 14),
        "res5": (2048, 14, 14),
        "pre_logits": (2048,),
    }


def test_alexnet_has_the_maps_of_the_study():
    points = build_on_meta("alexnet_color", 4).forward_features(
        torch.empty(2, 1, 227, 227, device="meta")
    )
    sides = {name: tuple(point.shape[1:]) for name, point in points.items() if "conv" in name}
    assert sides == {
        "conv1": (96, 55, 55),
        "conv2": (256, 27, 27),
        "conv3": (384, 13, 13),
        "conv4": (384, 13, 13),
        "conv5": (256, 13, 13),
    }


@pytest.mark.parametrize("name", ["alexnet_color", "resnet50_color"])
def test_every_weight_learns_from_lightness(name):
    torch.manual_seed(0)
    trunk = build_trunk(name, 1)
    trunk(torch.randn(2, 1, 127, 127)).square().sum().backward()
    assert all(part.grad.abs().sum() > 0 for part in trunk.parameters())
