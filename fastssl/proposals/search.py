"""Selective search (Uijlings et al. 2013), as OpenCV's contrib modules have it."""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..fields import Checked, Range
from ..views import ViewSpec, fitted_sizes

MAX_PROPOSALS = 100_000
"""Proposals of a picture."""

INSTALL = (
    "pip uninstall opencv-python opencv-python-headless opencv-contrib-python, then pip install "
    '"fastssl[detection]", the last of all: it brings opencv-contrib-python-headless, and all four '
    "are one module, cv2, of which the last one installed stays"
)
"""How to get what the search needs."""

Mode = Literal["fast", "quality"]


@dataclass(frozen=True)
class SearchSettings(Checked):
    """What decides the proposals of a picture, but for its pixels."""

    mode: Mode = "fast"
    """Strategies that are united, as their authors named them."""
    side: Annotated[int, Range(0, 4096)] = 500
    """Longer side that pictures are brought to before the search, in pixels; 0 leaves them as they
    are."""
    max_proposals: Annotated[int, Range(1, MAX_PROPOSALS)] = 2000
    """Proposals of a picture that are kept, the best."""


def require_search() -> str:
    """See that the search can be done here.

    Returns:
        The version of OpenCV.

    Raises:
        InputError: with how to get it.
    """
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            f"--method selective_search needs OpenCV with its contrib modules, which cannot be "
            f"imported ({error}); {INSTALL}"
        ) from None
    if not hasattr(cv2, "ximgproc"):
        raise InputError(
            f"--method selective_search needs OpenCV with its contrib modules, and OpenCV "
            f"{cv2.__version__} here has none; {INSTALL}"
        )
    return str(cv2.__version__)


def search_picture(picture: Image.Image, settings: SearchSettings) -> NDArray[np.float32]:
    """Find proposals.

    Args:
        picture: upright RGB.
        settings: how.

    Returns:
        float32 (P, 4), best first, each once, inside the picture: a function of its pixels and the
        settings alone.
    """
    cv2: Any = importlib.import_module("cv2")
    width, height = picture.size
    if settings.side:
        size = _fit(width, height, settings.side)
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    cv2.setNumThreads(1)  # as many pictures are searched as there are workers
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(np.asarray(picture)[..., ::-1]))
    if settings.mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    # Ranks are drawn from the C library's generator, which whoever else draws from would move.
    ctypes.CDLL(None).srand(1)
    found = np.asarray(search.process(), np.float64).reshape(-1, 4)
    corners = np.concatenate((found[:, :2], found[:, :2] + found[:, 2:]), axis=1)
    kept = list(dict.fromkeys(map(tuple, corners.tolist())))[: settings.max_proposals]
    scale = np.array([width, height] * 2) / (picture.size * 2)
    return (np.array(kept).reshape(-1, 4) * scale).astype(np.float32)


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the size of a picture whose longer side is brought to ``side``, by the rule of fit."""
    sizes = fitted_sizes([ViewSpec.fit(side, side)], np.array([[[0, 0, width, height]]]))
    return int(sizes[0, 0, 0]), int(sizes[0, 0, 1])
