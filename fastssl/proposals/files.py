"""Files of proposals that others computed: as Fast R-CNN's authors publish them, and plain ones.

Shape legend: P proposals of a picture.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..counts import spell_number
from ..errors import InputError

Found = dict[str, NDArray[np.float32]]
"""By a picture's name float32 (P, 4) ``x1 y1 x2 y2``, pixels from 0, x2 and y2 behind the box."""

_MAX_BYTES = 1 << 32
_COLUMNS = ("picture", "x1", "y1", "x2", "y2")
_SCORE = "score"


class _Refused(ValueError):
    """A file that is not what its ending says."""


def read_proposals(path: Path) -> Found:
    """Read a file of proposals.

    Args:
        path: ``.mat``: cell arrays ``boxes`` (of (P, 4) ``y1 x1 y2 x2``, pixels from 1, the last
            ones belong to the box) and ``images`` (names), as the selective search data of Fast
            R-CNN has them. ``.json``: an object, by the picture's name a list of boxes
            ``[x1, y1, x2, y2]``, or with a score behind. ``.csv``: columns ``picture x1 y1 x2 y2``
            and, if there is one, ``score``. Corners of the last two count from 0, and x2 and y2 lie
            behind the box. Best first, or by the score.

    Returns:
        The proposals by the picture's name as the file has it, best first.

    Raises:
        InputError: if it is no such file.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"--file {path}: ends in none of {', '.join(_READERS)}")
    if not path.is_file():
        what = "not a regular file" if path.exists() else "no such file"
        raise InputError(f"--file {path}: {what}; wanted {' or '.join(_READERS)}")
    try:
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise _Refused(f"{size:,} bytes; up to {_MAX_BYTES:,} are read")
        return reader(path)
    except _Refused as error:
        raise InputError(f"--file {path}: {error}; see docs/shards.md, Proposals") from None


def _order(name: str, rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the boxes of rows (P, 4), or (P, 5) with a score, best first."""
    if not np.isfinite(rows).all():
        raise _Refused(f"a box of {name[:80]!r} is no number")
    if rows.shape[1] == 5:
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    return rows[:, :4].astype(np.float32)


def _read_mat(path: Path) -> Found:
    from scipy.io import loadmat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = loadmat(path, variable_names=["boxes", "images"])
    except NotImplementedError:
        raise _Refused("a .mat of version 7.3, which is HDF5; save it with -v7 in MATLAB") from None
    except MemoryError:
        raise
    except Exception as error:  # what scipy's readers say of bytes that are no .mat
        raise _Refused(f"no .mat ({' '.join(str(error).split())[:200]})") from None
    missing = [name for name in ("boxes", "images") if name not in content]
    if missing:
        raise _Refused(f"it has no variable {missing[0]!r}; wanted boxes and images")
    boxes, images = (np.asarray(content[name]).ravel() for name in ("boxes", "images"))
    if boxes.dtype != object or images.dtype != object or len(boxes) != len(images):
        raise _Refused(
            f"boxes ({boxes.dtype}, {len(boxes)}) and images ({images.dtype}, {len(images)}) must "
            "be cell arrays, a cell a picture"
        )
    found: Found = {}
    for cell, rows in zip(images, boxes, strict=True):
        name = str(np.asarray(cell).ravel()[0]) if np.asarray(cell).size == 1 else ""
        table = np.asarray(rows)
        if not name or name in found:
            raise _Refused(f"picture {name[:80]!r} stands twice in it" if name else "no names")
        if table.size == 0:
            table = np.empty((0, 4))
        if table.ndim != 2 or table.shape[1] != 4 or table.dtype.kind not in "fiu":
            raise _Refused(
                f"the boxes of {name[:80]!r} are {table.dtype} {table.shape}, wanted numbers (P, 4)"
            )
        corners = table.astype(np.float64)[:, [1, 0, 3, 2]] - (1, 1, 0, 0)
        found[name] = _order(name, corners)
    return found


def _read_json(path: Path) -> Found:
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, list[list[float]]])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise _Refused(f"not an object of lists of boxes ({error})") from None
    found: Found = {}
    for name, boxes in content.items():
        widths = {len(box) for box in boxes}
        if len(widths) > 1 or not widths <= {4, 5}:
            raise _Refused(
                f"a box of {name[:80]!r} has {spell_number(max(widths), 'number')}, wanted x1, y1, "
                "x2, y2 and perhaps a score"
            )
        rows = np.array(boxes, np.float64).reshape(len(boxes), widths.pop() if widths else 4)
        found[name] = _order(name, rows)
    return found


def _read_csv(path: Path) -> Found:
    rows: dict[str, list[list[float]]] = {}
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        try:
            table = csv.DictReader(file)
            columns = list(table.fieldnames or ())
            missing = [name for name in _COLUMNS if name not in columns]
            if missing:
                raise _Refused(
                    f"no column {missing[0]!r}; wanted {', '.join(_COLUMNS)} and perhaps {_SCORE}"
                )
            wanted = [*_COLUMNS[1:], *([_SCORE] if _SCORE in columns else [])]
            for row in table:
                try:
                    numbers = [float(row[name]) for name in wanted]
                except (TypeError, ValueError):
                    raise _Refused(f"line {table.line_num}: no number where one belongs") from None
                rows.setdefault(row[_COLUMNS[0]] or "", []).append(numbers)
        except csv.Error as error:
            raise _Refused(f"no CSV ({error})") from None
    return {name: _order(name, np.array(boxes, np.float64)) for name, boxes in rows.items()}


_READERS: dict[str, Callable[[Path], Found]] = {
    ".mat": _read_mat,
    ".json": _read_json,
    ".csv": _read_csv,
}
