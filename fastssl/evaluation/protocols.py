"""Whose rules an evaluation follows: what a trunk is shown, and what of it is kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..fields import Documented
from ..models import Trunk
from ..models.base import check_end_points
from ..models.pooling import Pooling, has_rule
from ..views import Filter, ViewSpec
from .extract import PRE_LOGITS

ProtocolName = Literal["own", "goyal19", "kolesnikov19"]
PATCH_GRID = 3
"""Trunks that were trained on patches look at 3 x 3 of a picture (Kolesnikov et al. 2019)."""
_PATCH_SIDE = 64


@dataclass(frozen=True)
class Showing(Documented):
    """How pictures are shown to a trunk."""

    view: ViewSpec
    """Cut and size, the same for training and test."""
    grid: int
    """Patches a side; 1 shows the picture whole."""

    def to_text(self) -> str:
        """Return all of it in one line."""
        return json.dumps({**dataclasses.asdict(self.view), "grid": self.grid})


def show(protocol: ProtocolName, trunk: Trunk, size: int = 0) -> Showing:
    """Return how a protocol shows pictures to a trunk whose features are stored.

    - ``own``: the short side resized to 8/7 of the view, the square in the centre.
    - ``goyal19``: the short side to 256, then squashed to a square (4.1 of the study's code); 224
      pixels, AlexNet 227.
    - ``kolesnikov19``: the short side to 256 by area averaging, the centre of 224.

    Trunks for patches are shown 3 x 3 patches of 64 pixels, cut from the centre of a short side of
    224, whatever the protocol.

    Args:
        protocol: its name.
        trunk: what looks.
        size: of the view in pixels; 0 is the protocol's.
    """
    if takes_patches(trunk):
        side = size or PATCH_GRID * _PATCH_SIDE
        return Showing(ViewSpec.center(round(side * 7 / 6), side, filter="area"), PATCH_GRID)
    size = size or (227 if trunk.min_side > 224 or trunk.name.startswith("alexnet") else 224)
    if protocol == "goyal19":
        return Showing(ViewSpec.resize_squash(max(256, size), size), 1)
    kind: Filter = "area" if protocol == "kolesnikov19" else "triangle"
    return Showing(ViewSpec.center(round(size * 8 / 7), size, filter=kind), 1)


def takes_patches(trunk: Trunk) -> bool:
    """Tell whether a trunk is in the form for patches, by its name."""
    return trunk.name.partition("_linear")[0].endswith("_patch")


def choose_pooling(protocol: ProtocolName) -> Pooling:
    """Return the rule by which a protocol makes features of maps."""
    return "global" if protocol == "own" else protocol


def choose_end_points(
    protocol: ProtocolName, wanted: str, trunk: Trunk, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """Return the end points that are evaluated.

    Args:
        protocol: its name.
        wanted: names with commas between them, ``all``, or "" for the protocol's: ``goyal19``
            compares the layers that its sheet has, the others take the pre-logits.
        trunk: the trunk.
        shapes: what it has.

    Raises:
        InputError: if it lacks one of those wanted.
    """
    if wanted == "all":
        return tuple(shapes)
    if wanted:
        names = [name.strip() for name in wanted.split(",") if name.strip()]
        check_end_points(trunk, names, shapes)
        return tuple(dict.fromkeys(names))
    of_sheet = tuple(name for name, shape in shapes.items() if has_rule(name, shape))
    return of_sheet if protocol == "goyal19" and of_sheet else (PRE_LOGITS,)
