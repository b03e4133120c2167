"""Heads of downstream tasks: on the features of an image, or at every place of a map.

Shape legend: B images, D features, Q outputs, h w places of a map.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

HeadName = Literal["linear", "mlp"]
"""One Linear layer; or one of the features' own number without bias, BN, ReLU, and a second."""


def build_downstream_head(
    name: HeadName, num_features: int, num_outputs: int, is_dense: bool = False
) -> nn.Sequential:
    """Build a head of Newell and Deng 2020 with fresh weights from torch's global generator.

    Weights are Glorot-uniform and biases zero; how the study's begin is not known.

    Args:
        name: its form.
        num_features: D.
        num_outputs: Q.
        is_dense: map (B, D, h, w) to (B, Q, h, w), each place by itself, by convolutions of 1x1;
            else (B, D) to (B, Q).
    """
    last = _build_layer(num_features, num_outputs, is_dense)
    layers: list[nn.Module] = [last]
    if name == "mlp":
        first = _build_layer(num_features, num_features, is_dense, bias=False)
        norm = nn.BatchNorm2d if is_dense else nn.BatchNorm1d
        layers = [first, norm(num_features), nn.ReLU(inplace=True), last]
    return nn.Sequential(*layers)


def _build_layer(into: int, out: int, is_dense: bool, bias: bool = True) -> nn.Module:
    layer = nn.Conv2d(into, out, 1, bias=bias) if is_dense else nn.Linear(into, out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
