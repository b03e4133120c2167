"""Make damaged shards of a dataset again from its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..randomness import Seed
from ..shards.derive.repair import repair
from ..shards.making.convert import ConvertConfig
from ..shards.making.encode import EncodingName
from .frame import parse_arguments, progress_bar


@dataclass(frozen=True)
class Repair(ConvertConfig):
    """Make damaged shards of a dataset again: the same bytes, or none are replaced."""

    source: Path
    """What the dataset was made of, as make-shards took it; options of the source, such as
    --label-column or --max-pixels, have to be repeated."""
    out: Path
    """Folder of the dataset."""
    # How payloads are made and in which order stands in the dataset.
    encode: Annotated[EncodingName, tyro.conf.Suppress] = "keep"
    resize_short: Annotated[int, tyro.conf.Suppress] = 256
    quality: Annotated[int, tyro.conf.Suppress] = 90
    samples_per_shard: Annotated[int | None, tyro.conf.Suppress] = None
    seed: Annotated[Seed, tyro.conf.Suppress] = 0
    keep_order: Annotated[bool, tyro.conf.Suppress] = False
    resume: Annotated[bool, tyro.conf.Suppress] = False
    ray: Annotated[str, tyro.conf.Suppress] = ""
    shard: tuple[int, ...] = ()
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
