"""Which tars are meant: paths, folders, addresses and braces, each tar once, as it stands."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...address import hide_credentials, parse_place
from ...errors import InputError
from ..places import look_at, open_places, split_address
from .file_list import MAX_FILES, expand_braces


@dataclass(frozen=True)
class PlacedTar:
    """A tar as it was found before it is read."""

    address: str
    """Absolute path, or ``protocol://...``."""
    size: int
    """Its bytes."""
    etag: str | None
    """What its store calls this version of it."""


def list_tars(given: Sequence[str]) -> list[str]:
    """Return the addresses of tars, in the order in which they were named.

    Args:
        given: paths, folders (all ``*.tar`` and ``*.zip`` in them, sorted) and addresses, with
            braces as WebDataset writes them: ``s3://bucket/{000000..000041}.tar``.

    Raises:
        InputError: if one is none, or named twice.
    """
    found: list[str] = []
    for name in given:
        for one in expand_braces(name):
            place = parse_place(one)
            if isinstance(place, Path) and place.is_dir():
                tars = sorted(map(os.path.realpath, [*place.glob("*.tar"), *place.glob("*.zip")]))
                if not tars:
                    raise InputError(f"{place}: a folder without a .tar or .zip; name tars or zips")
                found += tars
            else:
                # Path.resolve dislikes links that lead to themselves.
                found.append(os.path.realpath(place) if isinstance(place, Path) else place)
            if len(found) > MAX_FILES:
                raise InputError(f"{name}: more than {MAX_FILES:,} tars; name fewer at once")
    twice = [address for address, count in Counter(found).items() if count > 1]
    if twice:
        raise InputError(f"{hide_credentials(twice[0])}: named twice; name every tar once")
    return found


def look_at_tars(addresses: list[str]) -> list[PlacedTar]:
    """Return tars as they stand in their places.

    Args:
        addresses: from ``list_tars``.

    Raises:
        InputError: if one is missing, or its size is not told.
    """
    places, found = open_places(addresses), []
    try:
        for address, state in zip(addresses, look_at(places), strict=True):
            if state.size is None:
                raise InputError(f"{address}: its store does not tell its size; copy it to another")
            found.append(PlacedTar(address, state.size, state.etag))
    finally:
        for store in {store for store, _ in places}:
            store.close()
    return found


def name_shards(addresses: list[str]) -> list[str]:
    """Return names of shards: the tars' own, with their number where two have the same.

    Args:
        addresses: of the tars.
    """
    names = [split_address(address)[1].lstrip(".")[:200] for address in addresses]
    if len(set(names)) == len(names):
        return names
    return [f"{number:06d}-{name}" for number, name in enumerate(names)]
