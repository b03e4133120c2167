"""``fastssl train --list``: which recipes there are, which suit, what they take."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ..errors import InputError
from ..fields import Checked, Range
from ..sampling import MAX_SAMPLES
from ..shards import open_dataset
from ..studies.cost import measure_device
from ..studies.listing import GpuName, describe_overview, describe_recipes, list_rows
from ..system.files import publish_bytes
from .frame import check_json_path, parse_arguments, program_name

USUAL_IMAGES = 10_000
"""Photographs that the overview is for where nobody says how many there are."""


@dataclass(frozen=True)
class ListConfig(Checked):
    """Show recipes: first those that suit, or those that words choose."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="WORD")] = ()
    """Parts of a recipe's name (goyal19 resnet50 yfcc1m), a table or figure of its study (table1,
    figure2), ours for rows that no source has, 10epochs or paperbatch for other forms of cells."""
    published: bool = False
    """Only what has a published figure, each with its protocol."""
    gpu: GpuName = "a100"
    """GPU whose hours are counted."""
    images: Annotated[int, Range(0, MAX_SAMPLES)] = 0
    """Photographs that you have; 0 takes those of data, else 10000 for what suits."""
    data: Annotated[str, tyro.conf.arg(metavar="FOLDER|ADDRESS")] = ""
    """Dataset by make-shards whose photographs are counted."""
    json: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """Write all that is known of the rows to this file; - writes to the standard output alone."""

    def check(self) -> None:
        """Refuse two numbers of photographs, and a file that could not be written."""
        if self.images and self.data:
            raise InputError(
                f"--images ({self.images}) and --data ({self.data}) both say how many photographs "
                "there are; give one"
            )
        if self.json not in ("", "-"):
            check_json_path(Path(self.json))


def print_list(arguments: Sequence[str]) -> None:
    """Print what the words and options behind ``--list`` ask for.

    Args:
        arguments: the command line without ``--list``.
    """
    config = parse_arguments(ListConfig, arguments, program=f"{program_name()} --list")
    num_images = config.images
    targets: tuple[str, ...] = ()
    if config.data:
        with contextlib.closing(open_dataset(config.data)) as dataset:
            num_images, targets = dataset.num_samples, tuple(dataset.targets)
    if config.json:
        rows = list_rows(config.words, config.published, num_images)
        content = json.dumps([row.to_json(config.gpu) for row in rows], indent=1) + "\n"
        if config.json == "-":
            sys.stdout.write(content)
            return
        publish_bytes(Path(config.json), content.encode("ascii"))
    if config.words or config.published:
        print(describe_recipes(config.words, config.published, num_images, config.gpu))
    else:
        speed, device = measure_device()
        is_gpu = torch.cuda.is_available()
        print(describe_overview(num_images or USUAL_IMAGES, speed, device, is_gpu, targets))
