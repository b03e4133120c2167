"""What a user probably did not mean by a source: said before hours of work, not after."""

from __future__ import annotations

import os
from pathlib import Path

from ...address import hide_credentials
from ...counts import spell_number
from ...errors import InputError
from .entries import Source

_SPLITS = frozenset("train training val valid validation test testing dev".split())
_SEPARATORS = (",", ";", "|", " ")


def check_first_path(path: Path | str, source: Source) -> None:
    """See whether the first path of a list or table leads to a file.

    Args:
        path: of the list or table.
        source: what was made of it.

    Raises:
        InputError: if it does not, but would from the current folder, or up to another separator
            than a tab. A file that is just not there is left out like any other.
    """
    first = source.first_path()
    if first is not None and first.startswith(("http://", "https://")):
        raise InputError(
            f"{path}: holds addresses of images, the first is {hide_credentials(first)}, and no "
            "images; fetch them first (img2dataset writes tars that make-shards takes), then "
            "convert what was fetched"
        )
    if first is None or not isinstance(source.root, Path) or _is_there(source.root / first):
        return
    if not os.path.isabs(first) and _is_there(Path(first)):
        raise InputError(
            f"{path}: begins with {first!r}, which lies in the current folder and not in "
            f"{source.root.absolute()}: relative paths begin at the folder of the list or table; "
            "move it, or write absolute paths"
        )
    for separator in _SEPARATORS:
        shorter = first.rpartition(separator)[0].rstrip()
        if source.kind == "list" and shorter and _is_there(source.root / shorter):
            raise InputError(
                f"{path}: begins with {first!r}, which is no file, but {shorter!r} is: path and "
                f"label have a tab between them in a list, not {separator!r}; write tabs, or a "
                "table: .csv with the first line path,label"
            )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no name that a file can have
        return False


def describe_folders(
    path: Path, class_names: list[str], num_nested: int, first_nested: str
) -> str | None:
    """Say where the folders of a tree are probably no classes.

    Args:
        path: of the tree.
        class_names: its first-level folders.
        num_nested: files in folders below those.
        first_nested: the first of these.

    Returns:
        A sentence; None where nothing is odd.
    """
    splits = [name for name in class_names if name.lower() in _SPLITS]
    if splits and (len(splits) > 1 or len(class_names) == 1):
        commands = ", ".join(f"fastssl make-shards {path / name} OUT-{name}" for name in splits)
        return (
            f"{path}: {', '.join(splits)} are parts of a data set by their names, and classes "
            f"here; convert each by itself: {commands}"
        )
    if len(class_names) == 1:
        return (
            f"{path}: its only folder is {class_names[0]}, so there is one class; if the folders "
            f"in that are the classes, name {path / class_names[0]} as SOURCE"
        )
    if class_names and num_nested:
        return (
            f"{path}: {spell_number(num_nested, 'file')} in folders within their class's (the "
            f"first: {first_nested}); the first level is the class, and those folders are not told "
            "apart"
        )
    return None


def describe_zip_folders(place: str, path: str, class_names: list[str]) -> str | None:
    """Say where the folders in zips are probably no classes.

    Args:
        place: of the zip, if there is one only.
        path: folder in it that holds those of the classes.
        class_names: of the classes.

    Returns:
        A sentence; None where nothing is odd.
    """
    splits = [name for name in class_names if name.lower() in _SPLITS]
    if not splits or (len(splits) == 1 < len(class_names)):
        return None
    inner = f"{path}/{splits[0]}".lstrip("/")
    remedy = f"name {place}/{inner} as SOURCE" if place else "unpack them"
    return (
        f"{', '.join(splits)} are parts of a data set by their names, and classes here; convert "
        f"each by itself: {remedy}"
    )
