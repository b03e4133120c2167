"""Sets that ``fastssl render-synthetic`` made: pictures, and of each what is known by construction.

``render.json`` says what the set is, ``metadata.jsonl`` has a line an image, ``segmentation.npy``,
``depth.npy``, ``normals.npy`` and, of scenes with several objects, ``instances.npy`` have a row an
image. All of it becomes targets.

Shape legend: N images, S height and width in pixels, K objects of a scene.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...counts import spell_number
from ...errors import InputError
from ..targets import DTYPES, TargetEntry, TargetSpec, check_target
from .entries import Entry, Source

RECORD_NAME, METADATA_NAME = "render.json", "metadata.jsonl"
MADE_BY = "fastssl render-synthetic"
"""What ``render.json`` says first, under ``made_by``."""

SplitName = Literal["all", "train", "val", "test"]
SPLITS = ("train", "val", "test")
"""Parts of a set by model, as target ``split`` numbers them."""

ARRAYS = {"segmentation": "uint8", "depth": "float16", "instances": "uint8", "normals": "uint8"}
"""Targets that lie in a file of their own, (N, S, S), normals (N, S, S, 3), and their types."""
NORMALS_FORMAT = 3
"""Of the first sets with normals, as their record says it."""

# Of an object's record: name, target, type. Several objects have a row each.
_OF_OBJECTS = (
    ("label", "class", "int64", ()),
    ("group_number", "group", "int64", ()),
    ("pose", "pose", "int64", ()),
    ("rot_mat", "rotation", "float32", (3, 3)),
)
_REMEDY = "render the set again, or restore it"


def array_path(root: Path, name: str) -> Path:
    """Return where an array of a set lies."""
    return root / f"{name}.npy"


def array_shape(name: str, size: int) -> tuple[int, ...]:
    """Return the shape of an image's row of an array.

    Args:
        name: in ``ARRAYS``.
        size: S.
    """
    return (size, size, 3) if name == "normals" else (size, size)


def read_record(root: Path) -> dict[str, Any] | None:
    """Return what a set's ``render.json`` says; None if the folder is no such set."""
    try:
        record = json.loads((root / RECORD_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    is_ours = isinstance(record, dict) and record.get("made_by") == MADE_BY
    return record if is_ours else None


def is_rendered(root: Path) -> bool:
    """Tell whether a folder is a rendered set, finished or not."""
    return read_record(root) is not None


class RenderedSource(Source):
    """The images of a rendered set, or of one part of it, with their targets.

    Targets are ``class``, ``group`` (the model), ``pose``, ``rotation``, ``split``,
    ``segmentation``, ``depth``, ``normals`` and, of several objects, ``instances``.
    """

    root: Path

    def __init__(self, root: Path, split: SplitName = "all") -> None:
        """Take a finished set.

        Args:
            root: its folder.
            split: which part; ``all`` takes every image.

        Raises:
            InputError: if it is not finished, or not what its record says.
        """
        super().__init__(root, "rendered")
        record = read_record(root)
        assert record is not None
        self._metadata = root / METADATA_NAME
        if not self._metadata.is_file():
            raise InputError(
                f"{root}: an unfinished set, {METADATA_NAME} is missing; give the command that "
                "began it (fastssl render-synthetic) once more, it goes on where it was"
            )
        self.options = {"--synthetic-split": split}
        self._split = split
        try:
            self._classes = [str(name) for name in record["classes"]]
            self._num_objects = int(record["objects"])
            self._num_images, self._size = int(record["images"]), int(record["size"])
            has_normals = int(record.get("format", 0)) >= NORMALS_FORMAT
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{root / RECORD_NAME}: classes, objects, images or size are missing or no "
                f"numbers; {_REMEDY}"
            ) from None
        self._is_multi = self._num_objects > 1
        lacking = {"instances": not self._is_multi, "normals": not has_normals}
        names = [name for name in ARRAYS if not lacking.get(name)]
        self._arrays = {name: self._open(name) for name in names}

    def _open(self, name: str) -> np.ndarray:
        path = array_path(self.root, name)
        shape = (self._num_images, *array_shape(name, self._size))
        entry = TargetEntry(name, ARRAYS[name], shape, "0" * 64)
        check_target(path, entry)
        return np.memmap(path, DTYPES[entry.dtype], "r", len(entry.header), entry.shape)

    def _list_specs(self) -> dict[str, TargetSpec]:
        """Return what targets there are, sorted by name."""
        objects = (self._num_objects,) if self._is_multi else ()
        specs = [TargetSpec("split", "uint8")]
        specs += [TargetSpec(name, dtype, objects + shape) for _, name, dtype, shape in _OF_OBJECTS]
        specs += [
            TargetSpec(name, ARRAYS[name], array_shape(name, self._size)) for name in self._arrays
        ]
        return {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.name)}

    def entries(self) -> Iterator[Entry]:
        """Yield one entry an image of the split, in the order of their index."""
        self.class_names = list(self._classes)
        specs = self._list_specs()
        self.targets = tuple(specs.values())
        count = num_taken = 0
        with self._metadata.open("rb") as file:
            for index, line in enumerate(file):
                count += 1
                try:
                    record = json.loads(line)
                    name, split = record.pop("file"), SPLITS.index(record["split"])
                    label = -1 if self._is_multi else int(record["label"])
                    values = self._read_values(record, index)
                    targets = tuple(
                        np.asarray({**values, "split": split}[spec.name], DTYPES[spec.dtype])
                        for spec in self.targets
                    )
                    fits = all(
                        np.shape(target) == spec.row_shape
                        for target, spec in zip(targets, self.targets, strict=True)
                    )
                except (ValueError, KeyError, TypeError, IndexError):
                    fits = False
                if not fits:
                    raise InputError(
                        f"{self._metadata}: line {index + 1} is not the record of an image; "
                        f"{_REMEDY}"
                    )
                if self._split in ("all", record["split"]):
                    num_taken += 1
                    yield Entry(name, label, columns=record, targets=targets)
        if count != self._num_images:
            raise InputError(
                f"{self._metadata}: {spell_number(count, 'line')}, {RECORD_NAME} says "
                f"{spell_number(self._num_images, 'image')}; {_REMEDY}"
            )
        if not num_taken:
            raise InputError(
                f"{self.root}: none of its {spell_number(count, 'image')} is in split "
                f"{self._split!r}; render more images, so that every twelfth model is met"
            )

    def _read_values(self, record: dict[str, Any], index: int) -> dict[str, Any]:
        """Return the rows of the targets by name, but for the split."""
        objects = record["objects"] if self._is_multi else [record]
        values: dict[str, Any] = {name: array[index] for name, array in self._arrays.items()}
        for key, name, _, _ in _OF_OBJECTS:
            rows = [one[key] for one in objects]
            values[name] = rows if self._is_multi else rows[0]
        return values
