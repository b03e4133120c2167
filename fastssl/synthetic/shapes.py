"""The ten classes and their models: a library of procedural meshes in place of ShapeNet's.

Newell and Deng 2020 took ten classes of ShapeNetCore v2. Models here carry the same names and stand
the same way (y up, front at -z), so the scene's placement rules apply to them unchanged.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, nearest
from .draws import Proportions
from .furniture import build_cabinet, build_lamp, build_table
from .seats import build_bench, build_chair, build_sofa
from .vehicles import build_car, build_motorcycle
from .vessels import build_airplane, build_watercraft

_BUILDERS = {
    "airplane": build_airplane,
    "bench": build_bench,
    "cabinet": build_cabinet,
    "car": build_car,
    "chair": build_chair,
    "lamp": build_lamp,
    "sofa": build_sofa,
    "table": build_table,
    "watercraft": build_watercraft,
    "motorcycle": build_motorcycle,
}

LIBRARY = "procedural 2"
"""Name of the models and textures as they are built; a change of any of them is another one."""

CLASSES = tuple(_BUILDERS)
"""Class names in the study's order; the index is the label."""


@lru_cache(maxsize=64)
def build_model(class_name: str, model: int) -> tuple[NDArray[np.float64], NDArray[np.uint32]]:
    """Build one model of a class; the same on every machine, whatever the seed of a set.

    Args:
        class_name: one of ``CLASSES``.
        model: number of the model, from 0; there is no last one.

    Returns:
        Vertices float64 (V, 3), rounded to six decimals, the bounding box centred on the origin and
        its largest side 1; faces uint32 (F, 3). Both read-only.

    Raises:
        InputError: if the class is unknown or the number negative.
    """
    if class_name not in _BUILDERS:
        raise InputError(f"class '{class_name}' is unknown{nearest(class_name, CLASSES)}")
    if model < 0:
        raise InputError(f"model ({model}) must be 0 or more; models are numbered from 0")
    parts = _BUILDERS[class_name](Proportions(CLASSES.index(class_name), model))
    # Vertices of a part come after those of the parts before it.
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + n for part, n in zip(parts, starts, strict=True)])
    return normalise(vertices, faces)


def normalise(vertices: NDArray, faces: NDArray) -> tuple[NDArray[np.float64], NDArray[np.uint32]]:
    """Centre a mesh's bounding box and make its largest side 1.

    Args:
        vertices: (V, 3).
        faces: (F, 3) of whole numbers.

    Returns:
        As ``build_model`` does.
    """
    low, high = vertices.min(0), vertices.max(0)
    vertices = (vertices - (low + high) / 2) / (high - low).max()
    # The last bits of cos and pow depend on the C library; what is drawn must not.
    vertices = np.round(vertices, 6)
    faces = faces.astype(np.uint32)
    vertices.flags.writeable = faces.flags.writeable = False
    return vertices, faces
