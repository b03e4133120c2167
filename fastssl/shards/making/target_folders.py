"""Targets that lie in folders: a PNG or an ``.npy`` for each image, as masks, depth and normals do.

They are read while the source is listed, so that each conversion has one listing of all that it
stores, and a continued one sees that they are what they were.

Shape legend: H W pixels of a target, C channels.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...counts import spell_number
from ...errors import InputError
from ...system.files import read_regular, refusing_unreadable
from ..npy import MAGIC, MAX_HEADER_BYTES, PREFIX_BYTES, NpyError, parse_header
from ..targets import DTYPES, LABELS, MAX_ROW_BYTES, OBJECTS, TargetSpec
from .entries import Entry, Source

ENDINGS = (".png", ".npy")
"""Of the files that are looked for, in this order."""

NO_TARGET = "no-target"
"""What an image without its file is left out as."""

_OPTION = "--target-folders"
_MAX_FILE_BYTES = MAX_ROW_BYTES + PREFIX_BYTES + MAX_HEADER_BYTES
_BIT_DEPTH_AT = 24
"""In a PNG."""
_REMEDY = "restore it, or take it out: its image is then left out"


@dataclass(frozen=True)
class TargetFolder:
    """A folder that becomes a target."""

    name: str
    """Of the target."""
    path: Path
    """The folder."""

    @property
    def text(self) -> str:
        """What the command line says of it."""
        return f"{self.name}={self.path}"


def parse_target_folders(texts: Sequence[str]) -> tuple[TargetFolder, ...]:
    """Read what ``--target-folders`` says.

    Args:
        texts: each ``NAME=FOLDER``.

    Returns:
        The folders, sorted by name.

    Raises:
        InputError: for another form, a name that no target can have or that comes twice, or what is
            no folder.
    """
    folders: list[TargetFolder] = []
    for text in texts:
        name, has_folder, path = text.partition("=")
        if not (name and has_folder and path):
            raise InputError(f"{_OPTION} {text!r} is not NAME=FOLDER, as normals=nyu/normals")
        try:
            TargetSpec(name, "uint8")
        except ValueError as error:
            raise InputError(f"{_OPTION} {text!r}: {error}; name it otherwise") from None
        if name in (LABELS, OBJECTS):
            raise InputError(
                f"{_OPTION} {text!r}: target {name!r} holds something else; name it otherwise"
            )
        if name in (folder.name for folder in folders):
            raise InputError(f"{_OPTION} names {name!r} twice; name one of them otherwise")
        if not Path(path).is_dir():
            raise InputError(
                f"{_OPTION} {text!r}: {path} is not a folder; wanted one with a .png or .npy for "
                "each image"
            )
        folders.append(TargetFolder(name, Path(path)))
    return tuple(sorted(folders, key=lambda folder: folder.name))


def read_target_file(path: Path) -> NDArray:
    """Read the target of one image.

    Args:
        path: a PNG: 8 bits a channel, grey or classes of a palette (H, W), RGB (H, W, 3); 16 bits
            of grey become int32, 1 bit bool. Or an ``.npy`` of a type that targets have.

    Raises:
        InputError: if it is something else, or cannot be read.
    """
    with refusing_unreadable(path, _REMEDY):
        content = read_regular(path, _MAX_FILE_BYTES)
    try:
        rows = _read_npy(content) if path.suffix.lower() == ".npy" else _read_png(content)
    except NpyError as error:
        raise InputError(f"{path}: {error.detail}; {_REMEDY}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; write it so, or take it out") from None
    return rows


def _read_npy(content: bytes) -> NDArray:
    if not content.startswith(MAGIC):
        raise ValueError("no .npy, wanted an array of numbers")
    header = parse_header(content)
    if header.descr not in DTYPES.values():
        raise ValueError(f"an .npy of {header.text}, wanted one of {', '.join(DTYPES)} in C order")
    dtype = np.dtype(header.descr)
    found, wanted = len(content) - header.start, dtype.itemsize * int(np.prod(header.shape))
    if found != wanted:
        raise ValueError(f"{found:,} bytes of numbers, its header says {wanted:,}")
    return np.frombuffer(content, dtype, offset=header.start).reshape(header.shape)


def _read_png(content: bytes) -> NDArray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=("PNG",))
            if image.width * image.height > MAX_ROW_BYTES:
                raise ValueError(f"{image.width} x {image.height} pixels")
            image.load()
    except Exception as error:  # Pillow's plugins raise whatever damage leads to
        what = str(error).partition("<")[0].strip() or type(error).__name__
        raise ValueError(f"no PNG that can be read ({what}), wanted one") from None
    bits = content[_BIT_DEPTH_AT]
    fits = image.mode in ("1", "P") or (image.mode in ("L", "RGB") and bits == 8)
    if image.mode in ("I;16", "I"):
        return np.asarray(image).astype(np.int32)
    if not fits:
        raise ValueError(
            f"a PNG of mode {image.mode} and {bits} bits, wanted grey of 1, 8 or 16 bits, a "
            "palette, or RGB of 8 bits"
        )
    return np.asarray(image)


class FolderTargets(Source):
    """Another source, each entry of which has its file in some folders beside.

    The file lies in its folder where the image does below its source, with another ending; or as
    the end of the image's path says, the longest that is there, at least its name. An entry without
    one is left out.
    """

    def __init__(self, inner: Source, folders: Sequence[TargetFolder]) -> None:
        """Find out what the targets are: the first file of each folder says it.

        Args:
            inner: the source.
            folders: sorted by name.

        Raises:
            InputError: if a folder has no such file, or cannot be told from the images.
        """
        super().__init__(inner.root, inner.kind)
        self._inner, self._folders = inner, folders
        self.options = {**inner.options, _OPTION: " ".join(folder.text for folder in folders)}
        for folder in folders:
            if inner.kind == "folder" and folder.path.resolve().is_relative_to(
                Path(inner.root).resolve()
            ):
                raise InputError(
                    f"{_OPTION} {folder.text}: it lies inside the source {inner.root}, and its "
                    "files would be taken for images; name the folder of the images alone"
                )
        self._firsts = {folder.name: _find_first(folder) for folder in folders}
        self._specs = {folder.name: self._find_spec(folder) for folder in folders}

    def _find_spec(self, folder: TargetFolder) -> TargetSpec:
        path = self._firsts[folder.name]
        rows = read_target_file(path)
        try:
            return TargetSpec(folder.name, rows.dtype.name, rows.shape)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None

    def first_path(self) -> str | None:
        """Return the first path that a list or table names; None of other sources."""
        return self._inner.first_path()

    def describe_labels(self) -> str | None:
        """Return what is odd about the labels, after ``entries``; None if nothing is."""
        return self._inner.describe_labels()

    def entries(self) -> Iterator[Entry]:
        """Yield the source's entries, with the rows of the folders among their targets."""
        used: dict[Path, str] = {}
        num, lacking = 0, ""
        for entry in self._inner.entries():
            if not num:
                self._merge_targets()
            num += 1
            found = {folder.name: _find_file(folder, entry) for folder in self._folders}
            problem = self._describe_missing(entry, found)
            if entry.problem is None and problem is not None:
                lacking = lacking or problem
                entry = replace(entry, problem=problem, reason=NO_TARGET)
            rows = dict(zip((t.name for t in self._inner.targets), entry.targets, strict=True))
            for name, spec in self._specs.items():
                path = found[name]
                if entry.problem is not None or path is None:
                    rows[name] = np.zeros(spec.row_shape, DTYPES[spec.dtype])
                    continue
                if used.setdefault(path, entry.name) != entry.name:
                    raise InputError(
                        f"{path} would be {name!r} of both {used[path]} and {entry.name}; lay the "
                        "folder out as the images are"
                    )
                rows[name] = self._read(path, spec)
            yield replace(entry, targets=tuple(rows[spec.name] for spec in self.targets))
        if num and not used:
            first = lacking or "none could be read"
            raise InputError(
                f"{_OPTION}: none of the {spell_number(num, 'image')} of {self.root} has its files "
                f"(the first: {first}); name folders that are laid out as the images are"
            )
        self.class_names, self.blocks = self._inner.class_names, self._inner.blocks

    def _merge_targets(self) -> None:
        names = [spec.name for spec in self._inner.targets]
        for name in self._specs:
            if name in names:
                raise InputError(
                    f"{_OPTION}: the source has a target {name!r} of its own; name the folder's "
                    "otherwise"
                )
        specs = [*self._inner.targets, *self._specs.values()]
        self.targets = tuple(sorted(specs, key=lambda spec: spec.name))

    def _describe_missing(self, entry: Entry, found: dict[str, Path | None]) -> str | None:
        for folder in self._folders:
            if found[folder.name] is None:
                name = PurePosixPath(_name_of(entry)).stem
                return f"no {folder.name!r} of it: {folder.path} has no {name}.png or .npy"
        return None

    def _read(self, path: Path, spec: TargetSpec) -> NDArray:
        rows = read_target_file(path)
        if (rows.dtype.name, rows.shape) != (spec.dtype, spec.row_shape):
            first = self._firsts[spec.name]
            raise InputError(
                f"{path}: {rows.dtype} {rows.shape}, the first file, {first}, is {spec.dtype} "
                f"{spec.row_shape}; bring all of target {spec.name!r} to one size and type"
            )
        return rows


def _find_first(folder: TargetFolder) -> Path:
    """Return the first file of a folder that is of a target."""
    for place, folders, files in os.walk(folder.path):
        folders.sort()
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(ENDINGS):
                return Path(place) / name
    raise InputError(
        f"{_OPTION} {folder.text}: no .png and no .npy in it; wanted one for each image"
    )


def _name_of(entry: Entry) -> str:
    """Return the path of an image below its source, or in its tar."""
    return entry.name if entry.tar is None else entry.name.removeprefix(f"{entry.tar}/")


def _find_file(folder: TargetFolder, entry: Entry) -> Path | None:
    """Return the file of an image; None if there is none."""
    parts = [part for part in PurePosixPath(_name_of(entry)).parts if part not in ("/", "..")]
    names = ["/".join(parts[start:]) for start in range(len(parts))]
    for name in names:
        for ending in ENDINGS:
            try:
                path = folder.path / PurePosixPath(name).with_suffix(ending)
                if path.is_file():
                    return path
            except (ValueError, OSError):  # a name that no file can have
                continue
    return None
