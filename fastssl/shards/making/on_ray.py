"""A conversion on the machines of a Ray cluster: the same slices, each under a lease.

A slice is the unit of work. Whoever converts it holds its lease, a lock on a file in the target.
The system takes it back when the holder dies, whatever the clocks say; who has it next takes what
the other has finished, or begins anew. So a unit that Ray starts twice is made once.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...address import parse_place
from ...errors import InputError
from ...system.files import locked
from ...system.machine import describe_code
from ...system.ray_jobs import Node, RayJobs
from ...system.workers import Report
from ..manifest import BUILDING_NAME
from .entries import LeftOut
from .plan import PLAN, ConversionPlan, PlannedEntries
from .slices import SliceRecord, convert_slice, load_record
from .sources import EntryReader
from .writer import shard_name

_PROBED_ENTRIES = 8


@dataclass(frozen=True)
class Sight:
    """What a machine sees that is to convert."""

    code: str
    """SHA-256 of the package's Python, and the versions of what decodes and encodes."""
    plan: str
    """SHA-256 of the plan in the target; empty where there is none."""
    source: tuple[tuple[str, str], ...]
    """Name of some entries, and SHA-256 of their bytes, or why they cannot be had."""


def look(out: Path, positions: Sequence[int]) -> Sight:
    """Say what this machine sees; runs on every machine of the cluster.

    Args:
        out: the target.
        positions: of the plan, whose entries are read.
    """
    building = out / BUILDING_NAME
    try:
        text = (building / PLAN).read_bytes()
    except OSError:
        return Sight(describe_code(), "", ())
    seen = []
    plan = ConversionPlan.parse(text)
    entries, reader = PlannedEntries(building), EntryReader(parse_place(plan.root))
    for position in positions:
        (entry,) = entries.read(position, position + 1)
        try:
            data = reader.begin(entry)().data
            seen.append((entry.name, hashlib.sha256(data).hexdigest()))
        except LeftOut as error:
            seen.append((entry.name, error.reason))
    return Sight(describe_code(), hashlib.sha256(text).hexdigest(), tuple(seen))


def check_sights(out: Path, here: Sight, others: dict[Node, Sight]) -> None:
    """Make sure that all machines convert the same source with the same code into one place.

    Raises:
        InputError: names the first that does not, and in what.
    """
    for node, sight in others.items():
        if sight.code != here.code:
            raise InputError(
                f"{node.name} runs {sight.code}; here runs {here.code}: install the same on both"
            )
        if sight.plan != here.plan:
            what = "another conversion in" if sight.plan else "nothing of the conversion in"
            raise InputError(
                f"{node.name} sees {what} {out}; the machines have to share that folder, at that "
                "path"
            )
        for (name, content), (_, wanted) in zip(sight.source, here.source, strict=True):
            if content != wanted:
                raise InputError(
                    f"{node.name} reads other bytes of {name} than this machine ({content[:12]}, "
                    f"here {wanted[:12]}); the machines have to share SOURCE, at the same path"
                )


def convert_leased(number: int, report: Report, out: Path, plan: ConversionPlan) -> SliceRecord:
    """Convert a slice, unless whoever held its lease before has done so; see ``convert_slice``."""
    lease = out / BUILDING_NAME / f"slice-{number:06d}.lease"
    with locked(lease, f"{shard_name(number)} is being made", math.inf):
        record = load_record(out, number)
        if record is None:
            return convert_slice(number, report, out, plan)
        start, stop = plan.slice_bounds(number)
        report(stop - start)
        return record


def convert_on_ray(
    out: Path,
    plan: ConversionPlan,
    numbers: Iterable[int],
    cluster: RayJobs,
    on_progress: Report,
) -> list[SliceRecord]:
    """Convert slices on a cluster, or by Ray on this machine.

    Args:
        out: the target.
        plan: the plan in it.
        numbers: of the slices.
        cluster: the machines.
        on_progress: told of the entries of finished slices.

    Returns:
        The record of each slice.

    Raises:
        InputError: if the cluster's machines see something else.
        RunFailed: if a slice was lost again and again.
        OSError: if no machine can write.
    """
    out = out.absolute()  # the workers of a cluster begin in another folder
    step = max(1, plan.num_entries // _PROBED_ENTRIES)
    positions = range(0, plan.num_entries, step)[:_PROBED_ENTRIES]
    check_sights(out, look(out, positions), cluster.ask_each(look, out, positions))
    convert_one = functools.partial(convert_leased, out=out, plan=plan)
    return list(cluster.run(convert_one, numbers, on_progress, shard_name))
