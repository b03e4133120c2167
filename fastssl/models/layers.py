"""What trunks share."""

from __future__ import annotations

from torch import nn


def init_conv_and_norm(module: nn.Module) -> None:
    """Give fresh weights: convolutions He-normal by fan-out, batch norms one and zero.

    Args:
        module: initialised in place, with everything inside it, from torch's global generator.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
