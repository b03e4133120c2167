"""What trunks share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


def init_conv_and_norm(module: nn.Module, mode: Literal["fan_out", "fan_in"] = "fan_out") -> None:
    """Give fresh weights: convolutions He-normal, batch norms one and zero, biases zero.

    Args:
        module: initialised in place, with everything inside it, from torch's global generator.
        mode: what the variance of a convolution's weights is taken from.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode=mode, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d) and part.affine:
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def follow_kolesnikov(module: nn.Module) -> None:
    """Give fresh weights and batch norms as Kolesnikov et al. 2019 have them, in place.

    Convolutions Glorot-uniform, batch norms one and zero with an epsilon of 1e-3 and a momentum of
    0.01: the defaults of their framework, which their code does not change.

    Args:
        module: initialised with everything inside it, from torch's global generator.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
        elif isinstance(part, nn.BatchNorm2d):
            part.eps, part.momentum = 1e-3, 0.01
            part.reset_parameters()


def pool_root(x: Tensor) -> Tensor:
    """Max-pool 3 x 3 at stride 2 with a border of zeros (Kolesnikov et al. 2019).

    torch's own border is minus infinity. Where no ReLU comes before the pool the two differ.

    Args:
        x: (B, C, H, W).

    Returns:
        (B, C, (H + 1) // 2, (W + 1) // 2).
    """
    return functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)


def pool_last(x: Tensor, has_relu: bool) -> Tensor:
    """Average the last map of a trunk with activations before the convolutions.

    Args:
        x: (B, C, H, W), after the last batch norm; overwritten by its ReLU.
        has_relu: False leaves the ReLU out: the (-) of Kolesnikov et al. 2019.

    Returns:
        (B, C).
    """
    return (functional.relu_(x) if has_relu else x).mean((2, 3))


class ChannelLRN(nn.Module):
    """Local response normalisation across channels (Krizhevsky et al. 2012, Caffe's constants).

    x / (1 + alpha / size * sum of squares over the ``size`` channels around)^beta. The same as
    ``torch.nn.LocalResponseNorm``, whose gradient (an average pool in 3D) is not deterministic on a
    GPU.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> None:
        """Set the constants.

        Args:
            size: channels in a window, odd.
            alpha: weight of the mean square.
            beta: exponent.
        """
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        channels, reach = x.shape[1], self.size // 2
        squares = functional.pad(x.square(), (0, 0, 0, 0, reach, reach))
        total = squares[:, :channels]
        for shift in range(1, self.size):
            total = total + squares[:, shift : shift + channels]
        return x * torch.pow(1 + self.alpha / self.size * total, -self.beta)
