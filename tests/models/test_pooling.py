"""Pooling: the dimensions that the studies' sheets have, and the rules' own arithmetic."""

from __future__ import annotations

import pytest
import torch

from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.models.pooling import pool_map

# Goyal et al. 2019: trunk, side, end point -> features.
GOYAL19 = {
    ("resnet50", 224): {"conv1": 9216, "res2": 9216, "res3": 8192, "res4": 9216, "res5": 8192},
    ("resnet50_color", 224): {"res4": 9216, "res5": 8192},
    ("alexnet", 227): {
        "conv1": 9600,
        "pool1": 9600,
        "conv2": 9216,
        "pool2": 9216,
        "conv3": 9600,
        "conv4": 9600,
        "conv5": 9216,
        "pool5": 9216,
    },
    ("alexnet_color", 227): {
        "conv1": 9600,
        "conv2": 9216,
        "conv3": 9600,
        "conv4": 9600,
        "conv5": 9216,
        "pool5": 9216,
    },
    ("caffenet", 227): {"conv1": 9600, "conv2": 9216, "conv3": 9600, "conv5": 9216},
}
# Kolesnikov et al. 2019, ResNet v2 at 224 pixels: width -> features from after_root to block4.
KOLESNIKOV19 = {4: (7744, 6400, 8192, 4096, 2048), 8: (8192, 8192, 4096, 8192, 4096)}


@pytest.mark.parametrize("case", GOYAL19, ids=str)
def test_goyal19_has_the_sheets_dimensions(case: tuple[str, int]) -> None:
    name, side = case
    trunk = build_trunk(name).eval()
    with torch.inference_mode():
        points = trunk.forward_features(torch.zeros(1, trunk.in_channels, side, side))
    for point, num_features in GOYAL19[case].items():
        assert pool_map(points[point], point, "goyal19").shape == (1, num_features), point


@pytest.mark.parametrize("width", KOLESNIKOV19)
def test_kolesnikov19_has_the_sheets_dimensions(width: int) -> None:
    with torch.device("meta"):
        trunk = build_trunk("resnet50_v2", width).eval()
        points = trunk.forward_features(torch.zeros(1, 3, 224, 224))
    names = ("after_root", "block1", "block2", "block3", "block4")
    for name, num_features in zip(names, KOLESNIKOV19[width], strict=True):
        assert pool_map(points[name], name, "kolesnikov19").shape == (1, num_features), name


def test_padding_does_not_count() -> None:
    ones = torch.ones(1, 64, 112, 112)
    assert torch.equal(pool_map(ones, "conv1", "goyal19"), torch.ones(1, 9216))


def test_a_map_of_another_trunk_comes_close_to_9000() -> None:
    assert pool_map(torch.zeros(2, 512, 20, 20), "block4", "goyal19").shape == (2, 512 * 16)
    assert pool_map(torch.zeros(2, 4096, 2, 2), "block4", "goyal19").shape == (2, 4096)


def test_kolesnikov19_takes_the_greatest_of_a_window() -> None:
    point = torch.arange(2048 * 9.0).reshape(1, 2048, 3, 3)
    pooled = pool_map(point, "block4", "kolesnikov19")
    assert torch.equal(pooled, point[:, :, 1, 1])
    assert torch.equal(pool_map(point[:, :100], "x", "kolesnikov19"), point[:, :100].flatten(1))


def test_global_is_the_mean_and_features_stay() -> None:
    point = torch.rand(2, 5, 3, 4)
    assert torch.equal(pool_map(point, "x", "global"), point.mean((2, 3)))
    assert torch.equal(pool_map(point[:, :, 0, 0], "x", "goyal19"), point[:, :, 0, 0])
    with pytest.raises(InputError, match="pooling"):
        pool_map(point, "x", "other")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="end point 'x'"):
        pool_map(point[0], "x", "global")
