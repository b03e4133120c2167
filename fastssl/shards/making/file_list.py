"""Which files a source names that is a pattern of paths, or an address with braces."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import braceexpand

from ...address import hide_credentials
from ...errors import InputError
from ..places import split_address

MAX_FILES = 1_000_000
"""Files that one source, or one list of tars, may name."""


@dataclass(frozen=True)
class FileList:
    """Files below one root."""

    root: Path | str
    """A folder, or an address."""
    names: list[str]
    """Of the files below it, in order."""

    def end_with(self, *endings: str) -> bool:
        """Tell whether all names have one of these endings, in any case of letters."""
        return all(name.lower().endswith(endings) for name in self.names)


def expand_braces(name: str) -> Iterator[str]:
    """Yield what braces stand for, as WebDataset writes them: ``{000..041}``, ``{a,b}``.

    Raises:
        InputError: if they cannot be expanded.
    """
    try:
        yield from itertools.islice(braceexpand.braceexpand(name), MAX_FILES + 1)
    except ValueError as error:
        raise InputError(f"{name}: its braces cannot be expanded ({error})") from None


def is_pattern(path: Path) -> bool:
    """Tell whether a path is no file but stands for several: by ``*``, ``?`` or braces."""
    return any(mark in str(path) for mark in "*?{") and not path.exists()


def list_files(given: Path | str) -> FileList:
    """Return the files that an address, or a path with a pattern, stands for.

    Args:
        given: an address, in which braces count, or a path, in whose last part ``*`` and ``?``
            count too.

    Raises:
        InputError: if it stands for none, for one twice, or for an address that is refused.
    """
    names = list(expand_braces(str(given)))
    if isinstance(given, Path):
        names = [found for name in names for found in _match(Path(name))]
    else:
        for name in names:
            split_address(name)
    if not names:
        raise InputError(f"{given}: no such file")
    if len(names) > MAX_FILES:
        raise InputError(f"{given}: more than {MAX_FILES:,} files; name fewer at once")
    if len(set(names)) < len(names):
        raise InputError(f"{hide_credentials(str(given))}: names a file twice")
    folders = {posixpath.dirname(name) for name in names}
    if isinstance(given, Path):
        shared = posixpath.commonpath(folders)
        return FileList(Path(shared), [posixpath.relpath(name, shared or ".") for name in names])
    root = _common_address(folders)
    return FileList(root, [name[len(root) + 1 :] for name in names])


def _match(path: Path) -> list[str]:
    if not any(mark in path.name for mark in "*?"):
        return [str(path)]
    # Not a pattern of the whole path: folders may have names with brackets.
    return sorted(map(str, path.parent.glob(path.name.replace("[", "[[]"))))


def _common_address(folders: set[str]) -> str:
    """Return the address that all folders lie below: the host or bucket at the least."""
    shared: list[str] = []
    for parts in zip(*(folder.split("/") for folder in folders), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    if len(shared) < 3:  # protocol, nothing, host
        raise InputError(
            f"{sorted(folders)[0]}, ...: files of several hosts; convert each by itself"
        )
    return "/".join(shared)
