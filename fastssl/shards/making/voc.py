"""PASCAL VOC folders: pictures with several labels each, and the boxes that they come from.

``ImageSets/Main/<split>.txt`` names the pictures, ``Annotations/<id>.xml`` says what is on each. A
class is 1 on a picture with an object of it, 0 where every such object is marked difficult, and -1
elsewhere; ``ImageSets/Main/<class>_<split>.txt``, as VOC distributes them, must say the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ...errors import InputError, nearest
from ..targets import ABSENT, LABELS, NOT_COUNTED, PRESENT, TargetSpec
from .entries import Entry, Source
from .objects import describe_objects, pack_objects

DEFAULT_SPLIT = "trainval"

_PICTURES, _ANNOTATIONS, _LISTS = "JPEGImages", "Annotations", "ImageSets/Main"
_MAX_BYTES = 16 << 20
_MAX_DEPTH = 32
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocObject:
    """One object of an annotation, by the names of VOC."""

    name: str
    """Its class."""
    xmin: float
    """Left side, as the annotation counts: VOC's first pixel is 1."""
    ymin: float
    """Top side."""
    xmax: float
    """Right side, inside the box."""
    ymax: float
    """Bottom side, inside the box."""
    difficult: bool
    """Whether it is not to be counted."""
    truncated: bool
    """Whether the picture shows a part of it."""

    def to_json(self) -> dict[str, object]:
        """Return what a sample's JSON says of it."""
        fields = asdict(self)
        return {"class": fields.pop("name"), **fields}


@dataclass(frozen=True)
class Annotation:
    """What one annotation says."""

    objects: tuple[VocObject, ...]
    """The objects, in its order."""
    size: tuple[int, int] | None
    """Width and height of the picture that they were drawn on; None if it does not say."""

    def label(self, name: str) -> int:
        """Return what a class is on this picture: 1 present, 0 difficult only, -1 absent."""
        found = [one.difficult for one in self.objects if one.name == name]
        if not found:
            return ABSENT
        return NOT_COUNTED if all(found) else PRESENT


def is_voc(path: Path) -> bool:
    """Tell whether a folder is laid out as VOC: it has both pictures and annotations."""
    return (path / _PICTURES).is_dir() and (path / _ANNOTATIONS).is_dir()


# --- Annotations ----------------------------------------------------------------------------------


class _Refused(ValueError):
    """XML that is not what an annotation is."""


def _parse_xml(content: bytes) -> Element:
    """Parse XML that holds no declarations, so that nothing in it is expanded or fetched."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = 0

    def refuse(*_: object) -> None:
        raise _Refused("it has a DOCTYPE, which annotations do without")

    def begin(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise _Refused(f"its elements are nested more than {_MAX_DEPTH} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError) as error:
        raise _Refused(f"no XML: {error}") from None
    return builder.close()


def _text(parent: Element, tag: str) -> str:
    return (parent.findtext(tag) or "").strip()


def _read_number(parent: Element, tag: str) -> int | float:
    text = _text(parent, tag)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _Refused(f"its {tag} is {text!r}, wanted a number")
    return int(number) if number == int(number) else number


def _read_flag(parent: Element, tag: str) -> bool:
    text = _text(parent, tag)
    if text not in ("", "0", "1"):  # VOC2012 leaves some out
        raise _Refused(f"its {tag} is {text!r}, wanted 0 or 1")
    return text == "1"


def _read_object(element: Element) -> VocObject:
    name, box = _text(element, "name"), element.find("bndbox")
    if not name or box is None:
        raise _Refused(f"it has no {'bndbox' if name else 'name'}")
    xmin, ymin, xmax, ymax = (_read_number(box, side) for side in _SIDES)
    is_difficult, is_truncated = (_read_flag(element, tag) for tag in ("difficult", "truncated"))
    return VocObject(name, xmin, ymin, xmax, ymax, is_difficult, is_truncated)


def _read_size(root: Element) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    width, height = _read_number(size, "width"), _read_number(size, "height")
    return (int(width), int(height)) if width > 0 and height > 0 else None


def read_annotation(path: Path) -> Annotation:
    """Read one annotation.

    Args:
        path: an XML file.

    Returns:
        What it says; parts of objects, as of people's layout, are no objects.

    Raises:
        InputError: if it is no annotation, has a DOCTYPE, or is larger than 16 MiB.
    """
    where = ""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise _Refused(f"more than {_MAX_BYTES >> 20} MiB")
        root = _parse_xml(content)
        if root.tag != "annotation":
            raise _Refused(f"it begins with <{root.tag[:40]}>, wanted <annotation>")
        objects = []
        for number, element in enumerate(root.findall("object"), 1):
            where = f"object {number}: "
            objects.append(_read_object(element))
        where = "size: "
        return Annotation(tuple(objects), _read_size(root))
    except _Refused as error:
        raise InputError(f"{path}: {where}{error}; restore the annotation, or correct it") from None


# --- The source -----------------------------------------------------------------------------------


class VocSource(Source):
    """The pictures of one split, with targets ``labels`` and ``objects``."""

    root: Path

    def __init__(self, root: Path, split: str):
        """Take a folder and find the list of the split.

        Args:
            root: the folder that holds ``JPEGImages``.
            split: name of a list in ``ImageSets/Main``.

        Raises:
            InputError: if there is no such list.
        """
        super().__init__(root, "voc")
        self.options = {"--voc-split": split}
        self._split = split
        self._lists = root / _LISTS
        self._list = self._lists / f"{split}.txt"
        if not self._list.is_file():
            known = [path.stem for path in self._lists.glob("*.txt") if "_" not in path.stem]
            if not known:
                raise InputError(
                    f"{self._list}: missing, so nobody knows which pictures to take; write the "
                    f"names of the annotations into it, or name {root / _PICTURES} as SOURCE to "
                    "convert all pictures without labels"
                )
            raise InputError(f"{self._list}: no such split{nearest(split, known)} (--voc-split)")

    def entries(self) -> Iterator[Entry]:
        """Yield one entry a picture, in the order of the list."""
        pictures = self._read_list()
        self._check_annotations(pictures)
        given = self._read_class_files()
        # Of all annotations, so that every split of a folder has the same columns.
        classes, counts = self._survey(pictures)
        self.class_names = sorted(classes | set(given))
        if not self.class_names:
            raise InputError(
                f"{self.root / _ANNOTATIONS}: no annotation has an object; name "
                f"{self.root / _PICTURES} as SOURCE to convert the pictures without labels"
            )
        objects = describe_objects(self._list, counts)
        self.targets = (TargetSpec(LABELS, "int8", (len(self.class_names),)), objects)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        files = self._list_files()
        for picture in pictures:
            annotation = read_annotation(self._annotation_path(picture))
            self._compare(picture, annotation, given)
            boxes = [one.to_json() for one in annotation.objects]
            columns: dict[str, object] = {"boxes": boxes}
            if annotation.size is not None:
                columns["boxes_size"] = list(annotation.size)
            labels = [annotation.label(name) for name in self.class_names]
            name = f"{_PICTURES}/{files.get(picture, f'{picture}.jpg')}"
            rows = pack_objects(boxes, numbers, objects)
            yield Entry(name, columns=columns, targets=(labels, rows))

    def _annotation_path(self, picture: str) -> Path:
        return self.root / _ANNOTATIONS / f"{picture}.xml"

    def _read_list(self) -> list[str]:
        lines = _read_lines(self._list)
        pictures = list(dict.fromkeys(lines))
        if len(pictures) < len(lines):
            doubled = next(name for name in pictures if lines.count(name) > 1)
            raise InputError(
                f"{self._list}: names {doubled!r} twice; each picture may come once: take lines out"
            )
        return pictures

    def _check_annotations(self, pictures: list[str]) -> None:
        absent = [name for name in pictures if not self._annotation_path(name).is_file()]
        if absent:
            raise InputError(
                f"{self._annotation_path(absent[0])}: missing; {len(absent):,} of the "
                f"{len(pictures):,} pictures of {self._list.name} have no annotation: restore "
                f"them, take the pictures out of {self._list}, or name {self.root / _PICTURES} as "
                "SOURCE to convert all pictures without labels"
            )

    def _survey(self, pictures: list[str]) -> tuple[set[str], list[int]]:
        """Return the classes of all annotations, and how many objects each picture has."""
        found = (self.root / _ANNOTATIONS).glob("*.xml")
        paths = {path.stem: path for path in found if not path.name.startswith(".")}
        paths |= {picture: self._annotation_path(picture) for picture in pictures}
        classes, counts = set(), {}
        for name, path in paths.items():
            objects = read_annotation(path).objects
            classes |= {one.name for one in objects}
            counts[name] = len(objects)
        return classes, [counts[picture] for picture in pictures]

    def _list_files(self) -> dict[str, str]:
        """Return the picture's file by what the list calls it; a .jpg before any other."""
        names = sorted(os.listdir(self.root / _PICTURES), key=lambda name: name.endswith(".jpg"))
        return {os.path.splitext(name)[0]: name for name in names}

    def _read_class_files(self) -> dict[str, dict[str, str]]:
        """Return what the files of single classes say: by class, by picture."""
        found = {}
        ending = f"_{self._split}.txt"
        for path in self._lists.glob(f"*{ending}"):
            rows = [line.rsplit(maxsplit=1) for line in _read_lines(path)]
            # A list of pictures alone is another split, such as small_trainval.txt.
            if rows and all(len(row) == 2 and row[1] in ("1", "0", "-1") for row in rows):
                found[path.name.removesuffix(ending)] = dict(rows)
        return found

    def _compare(
        self, picture: str, annotation: Annotation, given: dict[str, dict[str, str]]
    ) -> None:
        for name, labels in given.items():
            ours, theirs = str(annotation.label(name)), labels.get(picture, "nothing")
            if ours != theirs:
                raise InputError(
                    f"{self._lists / f'{name}_{self._split}.txt'}: says {theirs} of {picture}, "
                    f"{self._annotation_path(picture).name} gives {ours} (1 present, 0 difficult "
                    "only, -1 absent); correct one of them, or remove the files of single classes"
                )


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: no text in UTF-8; wanted the name of a picture a line") from None
    return [line.strip() for line in lines if line.strip()]
