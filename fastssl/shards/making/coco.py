"""COCO's instances: pictures with several labels each, and the boxes that they come from.

One JSON file (``annotations/instances_train2017.json``) names pictures, categories and annotations.
A category is 1 on a picture with an object of it, 0 where it has crowds of it alone (``iscrowd``),
and -1 elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from ...errors import InputError
from ..targets import ABSENT, LABELS, NOT_COUNTED, PRESENT, TargetSpec
from .entries import Entry, Source
from .objects import MAX_OBJECTS, describe_objects, pack_objects

ENDING = ".json"

_MAX_BYTES = 3 << 29
_MAX_LABELS = 1 << 31
_PREFIX = "instances_"

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class _Image(msgspec.Struct):
    id: _Id
    file_name: _Name
    width: _Side | None = None
    height: _Side | None = None


class _Category(msgspec.Struct):
    id: _Id
    name: _Name


class _Instance(msgspec.Struct):
    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0


class _Instances(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Instance]
    categories: list[_Category]


class CocoSource(Source):
    """The pictures of a file of instances, with targets ``labels`` and ``objects``."""

    def __init__(self, path: Path, images: Path | None = None) -> None:
        """Take a file and find its pictures.

        Args:
            path: the JSON file.
            images: folder that its ``file_name`` are relative to; None takes the folder of COCO's
                layout (``../train2017`` of ``instances_train2017.json``), else the file's own.

        Raises:
            InputError: if ``images`` is no folder.
        """
        if images is not None and not images.is_dir():
            raise InputError(f"--coco-images ({images}): no such folder; wanted COCO's pictures")
        beside = path.parent.parent / path.stem.removeprefix(_PREFIX)
        is_usual = path.stem.startswith(_PREFIX) and beside.is_dir()
        super().__init__(images or (beside if is_usual else path.parent), "coco")
        if images is not None:
            self.options = {"--coco-images": str(images.resolve())}
        self._path = path

    def entries(self) -> Iterator[Entry]:
        """Yield one entry a picture, in the order of the file.

        Raises:
            InputError: if it is no such file, an id or a picture stands twice in it, or an
                annotation is of a picture or category that it lacks.
        """
        found = self._read()
        # By number, as COCO's own tools count them: ids have gaps.
        categories = sorted(found.categories, key=lambda category: category.id)
        columns = self._number("category", [category.id for category in categories])
        rows = self._number("image", [image.id for image in found.images])
        self._check_twice("file_name", [image.file_name for image in found.images])
        self._check_twice("category's name", [category.name for category in categories])
        if not categories or not rows:
            raise self._refuse(f"it has no {'images' if categories else 'categories'}")
        if len(rows) * len(categories) > _MAX_LABELS:
            what = f"{len(rows):,} images x {len(categories):,} categories"
            raise self._refuse(f"{what}; up to {_MAX_LABELS:,} labels are read")
        self.class_names = [category.name for category in categories]
        signs: list[dict[int, int]] = [{} for _ in rows]
        objects: list[list[dict[str, object]]] = [[] for _ in rows]
        for number, instance in enumerate(found.annotations):
            row, column = rows.get(instance.image_id), columns.get(instance.category_id)
            if row is None or column is None:
                what = "an image" if row is None else "a category"
                raise self._refuse(f"annotations[{number}] is of {what} that it does not list")
            if not instance.iscrowd:
                signs[row][column] = PRESENT
            else:
                signs[row].setdefault(column, NOT_COUNTED)
            if len(objects[row]) >= MAX_OBJECTS:
                raise self._refuse(f"more than {MAX_OBJECTS:,} boxes on one picture")
            if instance.bbox is not None:
                if not np.isfinite(instance.bbox).all():
                    raise self._refuse(f"annotations[{number}] has a bbox that is no number")
                name = self.class_names[column]
                objects[row].append(_to_box(name, instance.bbox, bool(instance.iscrowd)))
        spec = describe_objects(self._path, [len(boxes) for boxes in objects])
        self.targets = (TargetSpec(LABELS, "int8", (len(categories),)), spec)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        for image, boxes, known in zip(found.images, objects, signs, strict=True):
            labels = np.full(len(categories), ABSENT, np.int8)
            labels[list(known)] = list(known.values())
            said: dict[str, object] = {"boxes": boxes}
            if image.width and image.height:
                said["boxes_size"] = [image.width, image.height]
            packed = pack_objects(boxes, numbers, spec)
            yield Entry(image.file_name, columns=said, targets=(labels, packed))

    def _read(self) -> _Instances:
        size = self._path.stat().st_size
        if size > _MAX_BYTES:
            raise self._refuse(f"{size:,} bytes; up to {_MAX_BYTES:,} are read")
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Instances)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise self._refuse(str(error)) from None

    def _number(self, what: str, ids: list[int]) -> dict[int, int]:
        """Return the place of each id."""
        self._check_twice(f"{what}'s id", ids)
        return {one: place for place, one in enumerate(ids)}

    def _check_twice(self, what: str, values: list[int] | list[str]) -> None:
        seen: set[int | str] = set()
        for value in values:
            if value in seen:
                raise self._refuse(f"the {what} {value!r} stands twice in it")
            seen.add(value)

    def _refuse(self, what: str) -> InputError:
        return InputError(
            f"{self._path}: no file of COCO's instances ({what}); wanted images, annotations and "
            "categories, as instances_train2017.json has them"
        )


def is_coco(path: Path) -> bool:
    """Tell whether a file is to be read as COCO's: a JSON file that holds an object."""
    if path.suffix.lower() != ENDING:
        return False
    with path.open("rb") as file:
        return re.match(rb"(\xef\xbb\xbf)?\s*\{", file.read(4096)) is not None


def _to_box(name: str, bbox: tuple[float, float, float, float], is_crowd: bool) -> dict:
    """Return a box as those of PASCAL VOC are: pixels from 1, the last ones belong to it."""
    left, top, width, height = bbox
    return {
        "class": name,
        "xmin": left + 1,
        "ymin": top + 1,
        "xmax": left + width,
        "ymax": top + height,
        "difficult": is_crowd,
        "truncated": False,
    }
