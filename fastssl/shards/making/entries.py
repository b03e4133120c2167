"""What a source consists of: entries, each of which becomes a sample or is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...system.limited import Ended
from ..targets import TargetSpec

MAX_FILE_BYTES = 2**30
"""Size of the largest file that is read as an image."""

IMAGE_ENDINGS = frozenset(
    "jpg jpeg jpe png webp bmp gif tif tiff ppm pgm pnm jp2 avif jfif".split()
)
"""Extensions of images in archives."""


TAR_PIXELS = "npy"
"""Of raw datasets; elsewhere often something else that goes with the image: images come first."""


class LeftOut(Exception):
    """An entry that cannot become a sample."""

    def __init__(self, reason: str, detail: str):
        """Keep the reason (few different ones, they are counted) and a sentence that says more."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def describe_end(ended: Ended, max_seconds: float) -> LeftOut:
    """Say why an entry that ended the process which was at it becomes no sample.

    Args:
        ended: how.
        max_seconds: of the CPU that it had.
    """
    if ended.was_too_slow:
        return LeftOut("too-slow", f"more than {max_seconds} s of the CPU")
    return LeftOut("crashed", f"its decoder ended by {ended.number.name}")


def absolute_place(place: Path | str) -> str:
    """Return an absolute path, or an address as it is."""
    return str(place.absolute() if isinstance(place, Path) else place)


@dataclass(frozen=True)
class Entry:
    """One candidate of a source."""

    name: str
    """Where it is from: a path below the source, a line of the list, a path of the
    table, or ``tar/member``."""
    label: int = -1
    """Its label; -1 for none, or not known before its tar member is read."""
    tar: str | None = None
    """Name of the tar, zip or Parquet that it lies in; None for a file."""
    members: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of a tar: (offset, size) of its ``image``, ``cls`` and ``json`` members; of a zip:
    ``zip_source.MEMBER``; of Parquet: ``parquet_table.ROW``."""
    columns: dict[str, Any] = field(default_factory=dict)
    """What a sample's JSON says beside: further columns of a table, boxes."""
    problem: str | None = None
    """Why there is nothing to read, where the listing knows it already."""
    reason: str = "missing"
    """What such an entry counts as."""
    targets: tuple[Any, ...] = ()
    """A row of each of the source's targets, in their order; kept beside the listing, not in it."""

    def to_json(self) -> str:
        """Return one line of JSON, ASCII."""
        fields: list[Any] = [self.name, self.label]
        if self.tar is not None or self.columns or self.problem:
            fields += [self.tar, self.members]
        if self.columns or self.problem:
            fields += [self.columns, self.problem]
        if self.reason != "missing":
            fields.append(self.reason)
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: bytes) -> Entry:
        """Read what ``to_json`` wrote."""
        return cls(*json.loads(line))


class Source:
    """What a conversion reads.

    ``class_names`` is complete when ``entries`` has been walked, ``targets`` when it has yielded
    its first entry.
    """

    kind: str
    """``folder``, ``list``, ``table``, ``voc``, ``coco``, ``rendered``, ``tars``,
    ``zips``, ``images`` (of Parquet) or ``yfcc``."""

    def __init__(self, root: Path | str, kind: str):
        """Keep where names are relative to: a folder, or an address in a store."""
        self.root = root
        self.kind = kind
        self.class_names: list[str] = []
        self.targets: tuple[TargetSpec, ...] = ()
        self.options: dict[str, str] = {}
        """What of the command line shaped the listing; a continued conversion has to repeat it."""
        self.blocks: list[tuple[int, int]] = []
        """Entries and bytes of each stretch of them that is read as a whole; none where an entry is
        read by itself. Complete when ``entries`` has been walked."""

    @property
    def place(self) -> str:
        """The root as an absolute path, or its address."""
        return absolute_place(self.root)

    def first_path(self) -> str | None:
        """Return the first path that a list or table names; None of other sources."""
        return None

    def describe_labels(self) -> str | None:
        """Return what is odd about the labels, after ``entries``; None if nothing is."""
        return None

    def entries(self) -> Iterator[Entry]:
        """Yield the candidates in the source's own order, which is the same every time."""
        raise NotImplementedError


@dataclass(frozen=True)
class SourceSample:
    """The bytes of an entry."""

    data: bytes
    """The image file."""
    label: int
    """Its label; -1 for none."""
    metadata: dict
    """What came along: JSON of a tar, further columns of a table."""
