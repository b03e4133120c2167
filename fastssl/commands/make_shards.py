"""Turn a folder of images, a list, a table or tars into a dataset of shards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..counts import spell_number
from ..errors import InputError
from ..shards.making.convert import ConvertConfig, convert
from ..shards.making.objects import CLIPPED, EMPTY, KEPT, OTHER_SIZE
from ..shards.making.report import ConversionReport
from .frame import check_json_path, parse_arguments, progress_bar, refuse_repeated


@dataclass(frozen=True)
class MakeShards(ConvertConfig):
    """Turn images into a dataset of shards (docs/shards.md)."""

    json: Path | None = None
    """Write the report as JSON to this file."""


def describe_tiling(tiling: dict[str, int]) -> str:
    """Return how many JPEGs became tiles, what that cost, and why others were kept."""
    counts = dict(tiling)
    before, after = counts.pop("bytes_before", 0), counts.pop("bytes_after", 0)
    text = f"tiled: {spell_number(counts.pop('tiled', 0), 'JPEG')}"
    if before:
        text += f", {100 * (after / before - 1):+.1f} % bytes"
    kept = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return f"{text}; kept as they are: {kept}" if kept else text


def describe_objects(objects: dict[str, int]) -> str:
    """Return how many objects there are, and what became of boxes that were not as they should."""
    odd = [
        (CLIPPED, "cut at the border of their picture"),
        (EMPTY, "left out: no pixel of theirs lies in the picture"),
        (OTHER_SIZE, "pictures of another size than their annotation says: see that boxes fit"),
    ]
    told = [f"{objects[name]:,} {what}" for name, what in odd if name in objects]
    return "; ".join([spell_number(objects.get(KEPT, 0), "object"), *told])


def describe_labels(report: ConversionReport) -> str:
    """Return how many classes there are, and how many samples have one."""
    classes = spell_number(report.num_classes, "class", "classes")
    if report.has_several_labels:
        return f"{classes}, several labels an image"
    if not report.num_labelled:
        return "no labels, which pretext tasks do without"
    without = report.written - report.num_labelled
    return f"{classes}, {report.num_labelled:,} labelled, {without:,} without"


def describe(report: ConversionReport, out: Path) -> str:
    """Return the summary for the screen."""
    left_out = ", ".join(f"{reason} {count}" for reason, count in sorted(report.skipped.items()))
    lines = [
        f"{out}: {spell_number(report.written, 'sample')} in {report.num_shards} "
        f"{'shard' if report.num_shards == 1 else 'shards'}, "
        f"{report.bytes_out / 1e6:,.1f} MB",
        describe_labels(report),
        f"{report.read:,} read = {report.written:,} written + {sum(report.skipped.values()):,} "
        + (f"left out: {left_out} (skipped.jsonl)" if left_out else "left out"),
    ]
    if report.objects:
        lines.append(describe_objects(report.objects))
    if report.tiling:
        lines.append(describe_tiling(report.tiling))
    if report.was_finished:
        lines.insert(0, "it was finished already; nothing to do")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Convert, with a progress bar, and report."""
    if any(word.partition("=")[0] == "--append" for word in arguments):
        raise InputError(
            "--append is gone: a finished dataset never changes; convert the new images into a "
            "folder of their own and link both into a third, which takes no space: fastssl "
            "make-shards MORE NEW, then fastssl combine-shards ALL OLD NEW"
        )
    command = parse_arguments(MakeShards, arguments)
    refuse_repeated(arguments, "--targets")
    refuse_repeated(arguments, "--target-folders")
    check_json_path(command.json)
    with progress_bar("shards") as advance:
        report = convert(command, advance)
    if command.json is not None:
        command.json.write_text(report.to_json())
    print(describe(report, command.out), file=sys.stdout)
