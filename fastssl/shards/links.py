"""What stands in a dataset's folder: files of its own, or links that lead to no place but a shard.

A dataset that somebody else made may hold links, pipes and devices under the names of its files.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from ..system.files import open_regular, refusing_unreadable
from .manifest import Manifest, ShardEntry, read_manifest

ShardsOf = Callable[[Path], set[tuple[str, int, str]]]
"""Gives name, size and digest of the shards of a folder."""

_REMEDY = "restore it, or make the dataset again"


def check_files(folder: Path, names: list[str]) -> None:
    """See that files lie in a folder, whatever links lead there.

    Args:
        folder: the dataset's.
        names: relative to it; files that are missing are somebody else's to name.

    Raises:
        InputError: if one lies elsewhere.
    """
    home = os.path.realpath(folder)
    for name in names:
        real = Path(os.path.realpath(folder / name))  # Path.resolve dislikes loops
        if not real.is_relative_to(home):
            raise _leads_out(folder / name, real)


def check_shards(folder: Path, manifest: Manifest) -> None:
    """See that every shard is a file of the size that the manifest says.

    Raises:
        InputError: as ``find_shard``, and if one is of another size.
    """
    shards_of = functools.cache(list_shards)
    for shard in manifest.shards:
        size = find_shard(folder, shard, shards_of).st_size
        if size != shard.bytes:
            raise InputError(
                f"{folder / shard.name}: {size} bytes, {shard.bytes} were written; the shard is "
                f"truncated or changed: {_REMEDY}"
            )


def find_shard(folder: Path, shard: ShardEntry, shards_of: ShardsOf) -> os.stat_result:
    """Return what stands under a shard's name.

    A link may lead out of the folder only to a shard of another dataset that lists the same bytes,
    as ``fastssl combine-shards --link symbolic`` makes them.

    Args:
        folder: the dataset's.
        shard: one of its shards.
        shards_of: ``list_shards``, or something that remembers what it gave.

    Raises:
        InputError: if it is missing, no regular file, or a link to elsewhere.
    """
    path = folder / shard.name
    try:
        with refusing_unreadable(path, _REMEDY):
            found = os.lstat(path)
            return found if stat.S_ISREG(found.st_mode) else _follow(path, shard, shards_of)
    except FileNotFoundError:
        raise InputError(f"{path}: the shard is missing; {_REMEDY}") from None


def list_shards(folder: Path) -> set[tuple[str, int, str]]:
    """Return name, size and digest of the shards of a dataset; none of any other folder."""
    try:
        return {(shard.name, shard.bytes, shard.sha256) for shard in read_manifest(folder).shards}
    except InputError:
        return set()


def _follow(path: Path, shard: ShardEntry, shards_of: ShardsOf) -> os.stat_result:
    """Return what a link leads to; what is neither a file nor a link is refused as it is opened."""
    descriptor = open_regular(path)
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    real = Path(os.path.realpath(path))
    is_inside = real.is_relative_to(os.path.realpath(path.parent))
    if not is_inside and (real.name, shard.bytes, shard.sha256) not in shards_of(real.parent):
        raise _leads_out(path, real)
    return found


def _leads_out(path: Path, real: Path) -> InputError:
    return InputError(
        f"{path}: a link out of the dataset's folder, to {real}; put the file itself there, or "
        "link whole datasets: fastssl combine-shards OUT DATASET --link symbolic"
    )
