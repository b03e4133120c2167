"""The only reader of run directories: curves, pictures, settings, how a run ended.

Whatever stands in a directory is read in pieces of bounded size: a killed run may leave a torn last
line, a full disk or a crash a long tail of rubbish.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..fields import Documented
from ..system.files import open_own, read_own
from .directory import CONFIG_NAME, EXIT_NAME, MAX_JSON_BYTES, METRICS_NAME, TENSORBOARD_NAME
from .result import check_plain, is_name

MAX_LINE_BYTES = 1 << 16
"""A longer line is none of ours."""
MAX_LOG_BYTES = 1 << 28
"""Of a longer log no more is read, half at each end: more than a million lines."""
_MAX_ODD_LINE = 4096
_MOST = 1e30
MAX_LINES = 10_000
"""Of a run with more than twice as many lines every second one is kept, and again."""


MAX_NAMES = 1000
"""Numbers of different names that are read of a run."""
MAX_PICTURE_PIXELS = 1 << 24
"""A larger picture is none of ours."""
_MAX_PICTURE_BYTES = 1 << 22
_MAX_PIXELS_IN_ALL = 1 << 26
_MAX_TAGS = 64

_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending(Documented):
    """How a run's last life ended."""

    code: int
    """Exit code; 0 done, 75 stopped by a signal after saving."""
    reason: str
    """In a line."""
    step: int
    """Steps done."""


@dataclass(frozen=True)
class LoggedPicture(Documented):
    """One of TensorBoard's pictures."""

    tag: str
    """Its place, such as ``jigsaw/0``."""
    step: int
    """Steps done when it was drawn."""
    pixels: NDArray[np.uint8]
    """uint8 (H, W, 3)."""


@dataclass(frozen=True)
class Run(Documented):
    """One run directory, read."""

    name: str
    """Name to show, such as ``seed 0``."""
    lines: tuple[dict[str, Any], ...]
    """The logged steps of ``metrics.jsonl``, in order; of very many an even choice."""
    num_resumes: int = 0
    """How often the run went on after a stop."""
    num_left_out: int = 0
    """Steps that it passed over for a loss that leapt there."""
    pictures: tuple[LoggedPicture, ...] = ()
    """The first and the newest picture of each place in TensorBoard's log."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The config of the last start, by dotted name; empty if it cannot be read."""
    ending: Ending | None = None
    """How it ended; None while it runs, and after a kill."""
    dataset_digest: str = ""
    """Of the dataset that it trains on; empty if it cannot be read."""

    def curve(self, key: str) -> tuple[list[float], list[float]]:
        """Return (steps, values) of a number, without the lines that lack it."""
        found = [(line["step"], line.get(key)) for line in self.lines]
        # NaN compares with nothing, and what is larger fits on no axis.
        points = [(x, y) for x, y in found if isinstance(y, (int, float)) and abs(y) < _MOST]
        return [x for x, _ in points], [y for _, y in points]

    def names(self) -> list[str]:
        """Return the names of all numbers that stand in its lines, in their order."""
        return list(dict.fromkeys(key for line in self.lines for key in line))


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read a run directory, also one that is still at work or was killed.

    Args:
        folder: the run directory.
        name: to show; the folder's own if None.

    Returns:
        What it tells.

    Raises:
        InputError: if there is no ``metrics.jsonl``.
    """
    lines: list[dict[str, Any]] = []
    names: set[str] = set()
    last: dict[str, Any] | None = None
    num_resumes, num_left_out, stride, number = 0, 0, 1, 0
    for line in read_lines(folder):
        if "event" in line:
            num_resumes += line["event"] == "resume"
            num_left_out += _count_left_out(line)
            continue
        names.update([key for key in line if key not in names][: MAX_NAMES - len(names)])
        last = line = {key: value for key, value in line.items() if key in names}
        if number % stride == 0:
            lines.append(line)
        number += 1
        if len(lines) == 2 * MAX_LINES:
            lines, stride = lines[::2], 2 * stride
    if last is not None and lines[-1] is not last:
        lines.append(last)
    # A folder may have a name that is no text.
    shown = (name or folder.name).encode(errors="replace").decode()
    return Run(
        shown,
        tuple(lines),
        num_resumes,
        num_left_out,
        tuple(_read_pictures(folder / TENSORBOARD_NAME)),
        _read_settings(folder / CONFIG_NAME),
        read_ending(folder),
        _read_digest(folder / CONFIG_NAME),
    )


def _count_left_out(line: dict[str, Any]) -> int:
    first, last = line.get("first"), line.get("step")
    if line["event"] != "left_out" or not isinstance(first, int) or not isinstance(last, int):
        return 0
    return last + 1 - first if 0 < first <= last < 2**63 else 0


def _read_digest(path: Path) -> str:
    identity = _read_object(path).get("identity")
    digest = identity.get("dataset_digest") if isinstance(identity, dict) else ""
    return digest if isinstance(digest, str) and is_name(digest) else ""


def _read_settings(path: Path) -> dict[str, Any]:
    settings = _read_object(path).get("config", {})
    try:
        check_plain(settings)
    except ValueError:
        return {}
    return settings if isinstance(settings, dict) else {}


def read_ending(folder: Path, name: str = EXIT_NAME) -> Ending | None:
    """Return how a run's last life ended, or None if it has not, or was killed.

    Args:
        folder: the run directory.
        name: of the file, where it is one that a rank left.
    """
    found = _read_object(folder / name)
    try:
        return Ending(int(found["code"]), str(found["reason"]), int(found["step"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of metrics.jsonl that are ours, an object with an event or a step.

    Args:
        folder: the run directory.

    Raises:
        InputError: if there is none.
    """
    path = folder / METRICS_NAME
    if not path.is_file():
        raise InputError(f"run ({folder}) has no {METRICS_NAME}; give the folder of a training run")
    with open_own(path) as file:
        for text in _read_texts(file, path):
            line = _parse_line(text)
            step = line.get("step")
            if "event" in line:
                yield line
            elif type(step) is int and 0 <= step < 2**63:
                yield _take_numbers(line)


def _read_texts(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that are not too long; of a long file its two ends."""
    size, half = file.seek(0, io.SEEK_END), MAX_LOG_BYTES // 2
    parts = [(0, size)]
    if size > MAX_LOG_BYTES:
        _log.warning("%s: its first and last %d MiB are read", path, half >> 20)
        parts = [(0, half), (size - half, size)]
    for begin, stop in parts:
        file.seek(begin)
        is_inside = begin > 0  # a line that is not read whole
        while file.tell() < stop and (text := file.readline(MAX_LINE_BYTES)):
            was_inside, is_inside = is_inside, not text.endswith(b"\n")
            if not was_inside and not (is_inside and len(text) == MAX_LINE_BYTES):
                yield text


def _parse_line(text: bytes) -> dict[str, Any]:
    """Return what a line says by name, lists and objects in it unread, whatever they hold."""
    try:
        found = _DECODER.decode(text)
    except (ValueError, RecursionError):
        # NaN, which Python's own JSON has.
        return _parse_object(text) if len(text) <= _MAX_ODD_LINE else {}
    return {
        key: json.loads(text)
        for key, raw in found.items()
        if (text := bytes(raw))[:1] not in (b"[", b"{")
    }


def _take_numbers(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a line by name; None in place of one that is not finite or too great.

    Nothing else is drawn, and what else stands there may be as large as it likes.
    """
    return {
        key: value if value is not None and -_MOST < value < _MOST else None
        for key, value in line.items()
        if (value is None or type(value) in (int, float)) and is_name(key)
    }


def _read_object(path: Path) -> dict[str, Any]:
    """Return what stands in a small JSON file, empty if it is not there or is no object."""
    try:
        return _parse_object(read_own(path, MAX_JSON_BYTES))
    except (OSError, InputError):
        return {}


def _parse_object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_pictures(folder: Path) -> list[LoggedPicture]:
    """Return the first and the newest picture of each tag; none without a log.

    What a lost life left behind has a lower step than the newest.
    """
    if not folder.is_dir():
        return []
    # Slow to import, and only a report needs it.
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    ends: dict[str, dict[int, bytes]] = {}
    for path in sorted(folder.glob("*tfevents*")):
        try:
            open_own(path).close()  # a pipe would be waited for
            for event in LegacyEventFileLoader(str(path)).Load():
                for value in event.summary.value:
                    if value.HasField("image"):
                        encoded = value.image.encoded_image_string
                        is_new = value.tag not in ends
                        if len(encoded) > _MAX_PICTURE_BYTES or (is_new and len(ends) >= _MAX_TAGS):
                            continue
                        steps = ends.get(value.tag, {}) | {event.step: encoded}
                        ends[value.tag] = {s: steps[s] for s in (min(steps), max(steps))}
        except Exception as error:  # TensorBoard's own for each kind of damage
            _log.warning("%s cannot be read: %s: %s", path, type(error).__name__, error)
    found: list[LoggedPicture] = []
    num_left = _MAX_PIXELS_IN_ALL
    for tag, steps in sorted(ends.items()):
        for step, encoded in steps.items():
            pixels = _decode(encoded, min(num_left, MAX_PICTURE_PIXELS))
            if pixels is not None:
                found.append(LoggedPicture(tag, step, pixels))
                num_left -= pixels.shape[0] * pixels.shape[1]
    return found


def _decode(encoded: bytes, max_pixels: int) -> NDArray[np.uint8] | None:
    """Return a picture's pixels, or None if it is none, or too large to be one of ours."""
    try:
        with Image.open(io.BytesIO(encoded), formats=["PNG"]) as image:
            if image.width * image.height > max_pixels:
                return None
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
