"""A task's tables in a checkpoint: each rank's rows are a file of its own, read at any world size.

Rows go to disk and back a part at a time, so that memory does not grow with the table; the step
waits for it meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..system.files import published
from ..tasks import DividedTable
from ..world import World
from .checkpoint import CheckpointStore

PART_BYTES = 1 << 24
"""Bytes of a table that are in memory a second time, at most, or a row if that is more."""


def save_tables(
    tables: Mapping[str, DividedTable], store: CheckpointStore, step: int, world: World
) -> dict[str, Any] | None:
    """Write the tables into the draft of a checkpoint; a collective call where there are any.

    Args:
        tables: by name.
        store: of the run.
        step: of the checkpoint.
        world: the ranks.

    Returns:
        For ``CheckpointStore.save``: what the manifest says of every rank's files; None where
        nothing is to be saved, as the step is saved already or a rank could not write.
    """
    if not tables:
        return {}
    draft = world.on_zero(lambda: store.open_draft(step))
    if draft is None:
        return None
    try:
        mine = world.together(lambda: _write_all(tables, draft, world.rank))
    except OSError as error:
        if world.is_zero:
            store.give_up(step, error)
        return None
    return {name: entry for entries in world.gather(mine) for name, entry in entries.items()}


def load_tables(tables: Mapping[str, DividedTable], folder: Path, files: Mapping[str, Any]) -> None:
    """Read this rank's rows of every table.

    Args:
        tables: by name; their rows are overwritten.
        folder: of the checkpoint.
        files: what its manifest says of its files.

    Raises:
        InputError: if the checkpoint does not hold such a table.
    """
    for name, table in tables.items():
        parts = {file: entry for file, entry in files.items() if entry.get("table") == name}
        found = next((entry["whole"] for entry in parts.values()), None)
        if found != table.describe():
            raise InputError(
                f"{folder} holds of table '{name}' {found}, the task wants {table.describe()}; "
                "choose another --output-dir"
            )
        num_read = 0
        for file, entry in parts.items():
            begin, end = _read_bounds(folder / file, entry, table)
            low, high = max(begin, table.first), min(end, table.stop)
            if low < high:
                rows = table.rows[low - table.first : high - table.first]
                _read_rows(folder / file, low - begin, rows)
                num_read += high - low
        if num_read != len(table.rows):
            raise InputError(
                f"{folder} holds {num_read} of the rows {table.first} .. {table.stop - 1} of table "
                f"'{name}'; restore its files, or choose another --output-dir"
            )


def _read_bounds(path: Path, entry: Mapping[str, Any], table: DividedTable) -> tuple[int, int]:
    """Return the rows that a file says it holds, as many as it has bytes for."""
    match entry.get("rows"):
        case [int(begin), int(end)] if 0 <= begin <= end <= table.num_rows:
            if entry["bytes"] == (end - begin) * _row_bytes(table.rows):
                return begin, end
    raise InputError(
        f"{path} has {entry['bytes']} bytes for the rows {str(entry.get('rows'))[:80]} of "
        f"{table.num_rows}; restore the checkpoint, or choose another --output-dir"
    )


def _write_all(tables: Mapping[str, DividedTable], folder: Path, rank: int) -> dict[str, Any]:
    entries = {}
    for name, table in tables.items():
        file_name, digest, size = f"{name}.{rank:05d}.rows", hashlib.sha256(), 0
        with published(folder / file_name) as file:
            for part in table.rows.split(_rows_at_once(table.rows)):
                content = part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
                file.write(content.data)
                digest.update(content.data)
                size += content.nbytes
        entries[file_name] = {
            "sha256": digest.hexdigest(),
            "bytes": size,
            "table": name,
            "rows": [table.first, table.stop],
            "whole": table.describe(),
        }
    return entries


def _read_rows(path: Path, skipped: int, rows: Tensor) -> None:
    with path.open("rb") as file:
        file.seek(skipped * _row_bytes(rows))
        for part in rows.split(_rows_at_once(rows)):
            content = bytearray(part.numel() * part.element_size())
            file.readinto(content)
            part.copy_(torch.frombuffer(content, dtype=rows.dtype).view(part.shape))


def _row_bytes(rows: Tensor) -> int:
    return rows[:0].element_size() * rows.shape[1:].numel()


def _rows_at_once(rows: Tensor) -> int:
    return max(1, PART_BYTES // _row_bytes(rows))
