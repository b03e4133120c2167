"""How well vectors of one view match places of another: AMDIM's scores and what they cost.

Bachman et al. 2019 in the form of Newell and Deng 2020.

Shape legend: M images of this rank, N images of all ranks, L places of each, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def score_places(sources_MD: Tensor, targets_NLD: Tensor) -> Tensor:
    """Return the scores of vectors and places, (M, N, L): inner products over sqrt(D).

    Args:
        sources_MD: floating, one vector an image.
        targets_NLD: of the other view of all images.
    """
    flat = sources_MD @ targets_NLD.flatten(0, 1).mT
    return (flat * sources_MD.shape[1] ** -0.5).unflatten(1, targets_NLD.shape[:2])


def clip_scores(scores: Tensor, limit: float) -> Tensor:
    """Bring scores softly into -limit .. limit: limit * tanh(s / limit); 0 leaves them alone."""
    return limit * torch.tanh(scores / limit) if limit else scores


def take_own(scores_MNL: Tensor, first: int) -> Tensor:
    """Return the scores of each image's own places, (M, L).

    Args:
        scores_MNL: from ``score_places``.
        first: place of this rank's first image among all.
    """
    return scores_MNL.narrow(1, first, len(scores_MNL)).diagonal(dim1=0, dim2=1).mT


def contrast_places(scores_MNL: Tensor, is_same_MN: Tensor, first: int) -> Tensor:
    """Return what it costs that other images' places match as well as an image's own.

    The mean over images and own places of -log(e^s / (e^s + sum of e^t)), where t are the scores
    of all places of all other images. Without any other image it is 0.

    Args:
        scores_MNL: floating, clipped or not.
        is_same_MN: bool; images that are no others: the image itself, and copies of it.
        first: place of this rank's first image among all.

    Returns:
        Scalar.
    """
    # The least finite number: of minus infinity alone a gradient would be NaN.
    least = torch.finfo(scores_MNL.dtype).min
    others_M = scores_MNL.masked_fill(is_same_MN[..., None], least).flatten(1).logsumexp(1)
    return -functional.logsigmoid(take_own(scores_MNL, first) - others_M[:, None]).mean()


def pool_places(maps_BCHW: Tensor, places: int) -> Tensor:
    """Average a map over places x places windows, as ``adaptive_avg_pool2d`` has them.

    As two products of matrices: torch's own gradient is not deterministic on a GPU.

    Args:
        maps_BCHW: square.
        places: a side; also more than the map has pixels.

    Returns:
        (B, C, places, places).
    """
    side = maps_BCHW.shape[-1]
    if side == places:
        return maps_BCHW
    numbers = torch.arange(places, device=maps_BCHW.device)[:, None]
    begin, end = numbers * side // places, -(-(numbers + 1) * side // places)
    pixels = torch.arange(side, device=maps_BCHW.device)
    window = (begin <= pixels) & (pixels < end)
    share = (window / (end - begin)).to(maps_BCHW.dtype)
    return share @ maps_BCHW @ share.mT
