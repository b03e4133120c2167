"""Where models and textures come from: procedural ones, or folders of ShapeNetCore and of pictures.

What a folder gives is fixed by its names and bytes alone, never by who reads it first: in the place
of a mesh or picture that cannot be used comes the next one, of a mesh the next in its bucket, so
that no split changes.

Shape legend: V vertices, F faces, T side of a texture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..counts import spell_number
from ..errors import InputError
from .scene import BUCKETS
from .shapes import CLASSES, LIBRARY, build_model, normalise
from .textures import NUM_TEXTURES, draw_texture
from .trace import Model

SYNSETS = {
    "airplane": "02691156",
    "bench": "02828884",
    "cabinet": "02933112",
    "car": "02958343",
    "chair": "03001627",
    "lamp": "03636649",
    "sofa": "04256520",
    "table": "04379243",
    "watercraft": "04530566",
    "motorcycle": "03790512",
}
"""Folder of each class in ShapeNetCore."""
MESH_NAME = "models/model_normalized.obj"

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_KEPT = 32

Item = TypeVar("Item")
Texture = NDArray[np.uint8]


class Unusable(ValueError):
    """A mesh or picture that cannot be used; the message says why."""


class Library:
    """Numbered models or textures.

    ``unusable`` names what could not be used so far, and why.
    """

    digest = LIBRARY
    """Of the names in a folder; of what is procedural the library's name."""

    def __init__(self) -> None:
        """Begin with nothing found wrong."""
        self.unusable: dict[str, str] = {}

    def _first_usable(
        self, numbers: Iterable[int], read: Callable[[int], Item], path: Callable[[int], Path]
    ) -> tuple[int, Item] | None:
        """Return the first item that can be read, and its number."""
        for number in numbers:
            try:
                return number, read(number)
            except Unusable as error:
                self.unusable[str(path(number))] = str(error)
        return None


class ProceduralModels(Library):
    """Models built from their numbers.

    Args:
        per_class: models of each class.
    """

    def __init__(self, per_class: int) -> None:
        """Take the number."""
        super().__init__()
        self.counts: tuple[int, ...] = (per_class,) * len(CLASSES)

    def find(self, class_name: str, number: int) -> tuple[int, Model]:
        """Return a model and its number."""
        return number, build_model(class_name, number)

    def name(self, class_name: str, number: int) -> str | None:
        """Return None: the number says all."""


class ShapeNetModels(Library):
    """Models of a folder laid out as ShapeNetCore, ``<synset>/<model>/`` and ``MESH_NAME``.

    Args:
        root: the folder.
        most: models of each class at the most, the first by name; None takes all.

    Raises:
        InputError: if a class is missing, or has fewer than twelve models.
    """

    def __init__(self, root: Path, most: int | None = None) -> None:
        """List the models; nothing is read yet."""
        super().__init__()
        if not root.is_dir():
            raise InputError(
                f"models ({root}) must be a folder of ShapeNetCore, "
                f"{'got a file' if root.exists() else 'there is none'}; the number of procedural "
                "models is --models-per-class"
            )
        absent = [f"{offset} ({name})" for name, offset in SYNSETS.items() if not _has(root, name)]
        if absent:
            raise InputError(
                f"models ({root}) lacks {len(absent)} of the ten classes: {', '.join(absent)}; "
                f"wanted <synset>/<model>/{MESH_NAME} for each, as ShapeNetCore.v2 unpacks"
            )
        self._root = root
        self._names = {}
        for name in CLASSES:
            found = sorted(path.parents[1].name for path in _meshes(root, name))
            if len(found) < BUCKETS:
                raise InputError(
                    f"models ({root / SYNSETS[name]}): {len(found)} of class {name}, wanted "
                    f"{BUCKETS} or more folders with {MESH_NAME}: splits are made by model"
                )
            self._names[name] = found[:most]
        self.counts = tuple(len(self._names[name]) for name in CLASSES)
        self.digest = _digest(name for names in self._names.values() for name in names)
        self._read = lru_cache(_KEPT)(read_mesh)

    def find(self, class_name: str, number: int) -> tuple[int, Model]:
        """Return a model and its number; of an unusable one the next in its bucket.

        Raises:
            InputError: if no model of the bucket can be used.
        """
        names = self._names[class_name]
        bucket = range(number % BUCKETS, len(names), BUCKETS)
        start = bucket.index(number)

        def path(number: int) -> Path:
            return self._root / SYNSETS[class_name] / names[number] / MESH_NAME

        numbers = [*bucket[start:], *bucket[:start]]
        found = self._first_usable(numbers, lambda number: self._read(path(number)), path)
        if found is None:
            raise InputError(
                f"models ({path(number)}): this mesh and the {len(bucket) - 1} others of its "
                f"bucket cannot be used ({self.unusable[str(path(number))]}); restore the folder"
            )
        return found

    def name(self, class_name: str, number: int) -> str | None:
        """Return the folder's name of a model."""
        return self._names[class_name][number]


def read_mesh(path: Path) -> Model:
    """Read a mesh in Wavefront's format; materials and textures are passed over.

    Raises:
        Unusable: if it has no faces, numbers that are none, or no extent.
    """
    import trimesh

    try:
        mesh = trimesh.load_mesh(path, process=False, skip_materials=True, maintain_order=True)
        if isinstance(mesh, trimesh.Scene):
            mesh = mesh.to_geometry()
        vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)
    except MemoryError:
        raise
    except Exception as error:  # its parser knows no error of its own
        raise Unusable(f"cannot be read ({type(error).__name__})") from None
    if not len(faces):
        raise Unusable("no faces")
    if not np.isfinite(vertices).all() or not np.ptp(vertices, axis=0).max() > 0:
        raise Unusable("vertices that are no numbers, or all in one place")
    return normalise(vertices, faces)


def _has(root: Path, class_name: str) -> bool:
    return (root / SYNSETS[class_name]).is_dir()


def _meshes(root: Path, class_name: str) -> Iterator[Path]:
    return (root / SYNSETS[class_name]).glob(f"*/{MESH_NAME}")


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


# --- Textures -------------------------------------------------------------------------------------


class ProceduralTextures(Library):
    """Textures drawn from their numbers.

    Args:
        side: T.
    """

    def __init__(self, side: int) -> None:
        """Take the side."""
        super().__init__()
        self._side = side
        self.count = NUM_TEXTURES

    def find(self, number: int) -> tuple[int, Texture]:
        """Return a texture and its number."""
        return number, draw_texture(number, self._side)

    def name(self, number: int) -> str | None:
        """Return None: the number says all."""


class PictureTextures(Library):
    """Pictures of a folder and its subfolders, the middle square of each.

    Args:
        root: the folder.
        side: T.
        least: pictures that a scene takes.

    Raises:
        InputError: if there are fewer.
    """

    def __init__(self, root: Path, side: int, least: int) -> None:
        """List the pictures; nothing is read yet."""
        super().__init__()
        if not root.is_dir():
            what = "got a file" if root.exists() else "there is none"
            raise InputError(f"textures ({root}) must be a folder of pictures, {what}")
        self._names = sorted(
            str(path.relative_to(root))
            for path in root.rglob("*")
            if path.suffix.lower() in _PICTURES and not path.name.startswith(".")
        )
        if len(self._names) < least:
            raise InputError(
                f"textures ({root}): {spell_number(len(self._names), 'picture')} "
                f"({', '.join(_PICTURES)}), a scene takes {least}; name the folder that holds "
                "them, of DTD dtd/images"
            )
        self._root, self._side = root, side
        self.count, self.digest = len(self._names), _digest(self._names)

    def find(self, number: int) -> tuple[int, Texture]:
        """Return a texture and its number; of an unusable one the next.

        Raises:
            InputError: if no picture can be used.
        """

        def path(number: int) -> Path:
            return self._root / self._names[number]

        numbers = [*range(number, self.count), *range(number)]
        found = self._first_usable(
            numbers, lambda number: read_picture(path(number), self._side), path
        )
        if found is None:
            raise InputError(f"textures ({self._root}): no picture can be read; restore the folder")
        return found

    def name(self, number: int) -> str | None:
        """Return the path of a picture below the folder."""
        return self._names[number]


def read_picture(path: Path, side: int) -> Texture:
    """Read the middle square of a picture, reduced.

    Args:
        path: the picture.
        side: T.

    Raises:
        Unusable: if it does not decode.
    """
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (2 * side, 2 * side))
            middle = picture.convert("RGB")
        shorter = min(middle.size)
        left, top = ((full - shorter) // 2 for full in middle.size)
        square = middle.crop((left, top, left + shorter, top + shorter))
        return np.asarray(square.resize((side, side), Image.Resampling.BILINEAR))
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like
        raise Unusable(f"cannot be read ({type(error).__name__})") from None
