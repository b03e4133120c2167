"""How many dimensions features spread over: a measure that needs no labels.

Shape legend: N samples, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

_TINY = 1e-7


def effective_rank(features_ND: Tensor) -> float:
    """Return RankMe: the exponential of the entropy of the singular values' shares.

    Garrido et al. 2023, "RankMe: assessing the downstream performance of pretrained self-supervised
    representations by their rank", equation 2: p_i = s_i / sum(s) + 1e-7, exp(-sum p_i log p_i),
    of the features as they are, not centred. Features along one direction have 1; equal singular
    values give min(N, D), the most there is.

    Args:
        features_ND: float, finite, on any device.

    Returns:
        At least about 1; 0 if all features are zero.

    Raises:
        InputError: if there are none, or one is not finite.
    """
    if features_ND.dim() != 2 or not features_ND.numel():
        raise InputError(f"features {tuple(features_ND.shape)} must be (N, D) with N, D above 0")
    if not features_ND.isfinite().all():
        raise InputError("features must be finite; the trunk that they are of has diverged")
    wide = features_ND.double()
    # The smaller Gram matrix: its eigenvalues are the squares, in double for those near zero.
    gram = wide @ wide.T if len(wide) <= wide.shape[1] else wide.T @ wide
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = singular.sum()
    if total == 0:
        return 0.0
    shares = singular / total + _TINY
    return (-(shares * shares.log()).sum()).exp().item()
