"""Make damaged shards of a dataset again from its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from ..fields import Range
from ..randomness import Seed
from ..shards.derive.repair import repair
from ..shards.jpeg import Quality
from ..shards.making.convert import ConvertConfig
from ..shards.making.encode import EncodingName
from ..views import MAX_SIDE
from .frame import parse_arguments, progress_bar

_Option = TypeVar("_Option")
_Told = Annotated[_Option, tyro.conf.Suppress, tyro.conf.Fixed]  # no option of this command


@dataclass(frozen=True)
class Repair(ConvertConfig):
    """Make damaged shards of a dataset again: the same bytes, or none are replaced."""

    source: Path
    """What the dataset was made of, as make-shards took it; options of the source, such as
    --label-column or --max-pixels, have to be repeated."""
    out: Path
    """Folder of the dataset."""
    # How payloads are made and in which order stands in the dataset.
    encode: _Told[EncodingName] = "keep"
    resize_short: _Told[Annotated[int, Range(1, MAX_SIDE)]] = 256
    quality: _Told[Quality] = 90
    samples_per_shard: _Told[Annotated[int | None, Range(1, 1_000_000)]] = None
    seed: _Told[Seed] = 0
    keep_order: _Told[bool] = False
    resume: _Told[bool] = False
    ray: _Told[str] = ""
    shard: Annotated[tuple[int, ...], Range(0, 999_999)] = ()
    """Numbers of the shards to make, as they stand in their names; none: all that are missing or
    not the bytes that were written, for which every shard is read."""


def main(arguments: Sequence[str]) -> None:
    """Repair, with a progress bar, and say what was replaced."""
    command = parse_arguments(Repair, arguments)
    with progress_bar("repair") as advance:
        names = repair(command, command.shard, advance)
    if not names:
        print(f"{command.out}: no shard is damaged; nothing to do")
        return
    made = "was" if len(names) == 1 else "were"
    print(f"{command.out}: {', '.join(names)} {made} made again, byte for byte")
