"""Sources of single files: a folder tree of images, and a text list of their paths."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from .entries import Entry, Source
from .hints import describe_folders

# Of a folder that cannot be looked into and is no reason to end: nothing there can be read.
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


class FolderSource(Source):
    """A folder tree: the label of an image is the first-level folder that it lies in."""

    root: Path

    def __init__(self, root: Path):
        """Take the folder."""
        super().__init__(root, "folder")
        self._real_root = os.path.realpath(root)

    def entries(self) -> Iterator[Entry]:
        """Yield files in sorted order, those of a folder before its subfolders."""
        self.class_names = []
        self._visited: set[tuple[int, int]] = set()
        self._num_nested, self._first_nested = 0, ""
        waiting = [""]
        while waiting:  # no recursion: somebody may have nested folders by the thousand
            relative = waiting.pop()
            try:
                files, folders = self._scan(relative)
            except OSError as error:
                if not relative or error.errno not in _NO_FOLDER:
                    raise
                problem = f"a folder that cannot be read: {error.strerror}"
                yield Entry(relative.rstrip("/"), self._label_of(relative), problem=problem)
                continue
            if files and relative.count("/") > 1:
                self._num_nested += len(files)
                self._first_nested = self._first_nested or relative + files[0]
            for name in files:
                yield Entry(relative + name, self._label_of(relative))
            waiting += [f"{relative}{name}/" for name in reversed(folders)]

    def describe_labels(self) -> str | None:
        """Say whether the folders look like no classes."""
        return describe_folders(self.root, self.class_names, self._num_nested, self._first_nested)

    def _label_of(self, relative: str) -> int:
        first = relative.partition("/")[0]
        if not first:
            return -1
        if not self.class_names or self.class_names[-1] != first:
            self.class_names.append(first)  # sorted: that is the order of the walk
        return len(self.class_names) - 1

    def _scan(self, relative: str) -> tuple[list[str], list[str]]:
        files, folders = [], []
        folder = self.root / relative
        status = folder.stat()
        if (status.st_dev, status.st_ino) in self._visited:
            _warn_not_followed(folder)
            return [], []
        self._visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as found:
            for item in found:
                if item.name.startswith("."):
                    continue
                if not _is_folder(item):
                    files.append(item.name)
                elif not item.is_symlink() or self._may_follow(item):
                    folders.append(item.name)
        return sorted(files), sorted(folders)

    def _may_follow(self, item: os.DirEntry) -> bool:
        """Whether a link to a folder leads to images that are reached no other way.

        A folder inside the source is reached by its own path, and one outside is entered once:
        links that form loops come to an end, and no image is taken twice.
        """
        real = os.path.realpath(item.path)
        common = os.path.commonpath([real, self._real_root])
        if common in (real, self._real_root):  # above the source, or inside it
            _warn_not_followed(item.path)
            return False
        return True


def _warn_not_followed(path: str | Path) -> None:
    message = f"{path}: this folder is read by another path; not entered again"
    warnings.warn(message, stacklevel=2)


def _is_folder(item: os.DirEntry) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link that leads to itself: reported when the entry is read
        return False


class ListSource(Source):
    """A text list: one path a line, with a tab and a label name behind it if there are labels."""

    def __init__(self, path: Path):
        """Take the list; paths in it are relative to its folder."""
        super().__init__(path.parent, "list")
        self._path = path

    def _lines(self) -> Iterator[tuple[str, str | None]]:
        with self._path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                line = os.fsdecode(raw.rstrip(b"\r\n"))
                if number == 1:
                    line = line.removeprefix("\ufeff")
                if not line.strip():
                    continue
                path, has_label, label = line.partition("\t")
                yield path, label if has_label and label else None

    def first_path(self) -> str | None:
        """Return the path in the first line."""
        return next((path for path, _ in self._lines()), None)

    def entries(self) -> Iterator[Entry]:
        """Yield one entry a line, in the order of the list."""
        self.class_names = sorted({label for _, label in self._lines() if label is not None})
        labels: dict[str | None, int] = {name: i for i, name in enumerate(self.class_names)}
        labels[None] = -1
        for path, label in self._lines():
            yield Entry(path, labels[label])
