"""Files of ``torch.save`` as somebody else may have written them, looked at before torch opens one.

torch unpickles plain values and tensors alone. What is left to harm is size: a member that is
compressed may be a thousand times as large, and a byte of a pickle may make an object of a hundred.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

MAX_OUTLINE_BYTES = 1 << 25
"""A state without its tensors' content has at most so many; a ResNet-50's has 60 KB."""
MAX_HEADER_BYTES = 1 << 22
"""Of safetensors; a trunk's has some hundred bytes a tensor."""
MAX_STEPS = 1 << 20
"""Of the pickle that describes weights, each of which may make an object."""

# Of the format before 1.6: three small ones, the state, and the names of its storages.
_NUM_PICKLES = 5


def find_wrong_archive(
    path: Path, max_steps: int = MAX_STEPS, is_known: Callable[[str], bool] | None = None
) -> str | None:
    """Return what of an archive is not as torch.save writes it, or None if it may be opened.

    Args:
        path: of the file.
        max_steps: that its pickle may have.
        is_known: tells whether something that a pickle names may be in it; None leaves that to
            torch.

    Raises:
        Exception: zipfile's and pickletools' own, for what is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            return "holds compressed members, which torch.save does not write"
        outlines = [member for member in members if member.filename.endswith("data.pkl")]
        if len(outlines) != 1 or len({member.filename for member in members}) != len(members):
            return "is no archive of torch.save"
        if outlines[0].file_size > MAX_OUTLINE_BYTES:
            return f"describes its content in more than {MAX_OUTLINE_BYTES:,} bytes"
        for number, (operation, argument) in enumerate(_walk(archive.read(outlines[0]))):
            if number >= max_steps:
                return f"describes its content in more than {max_steps:,} steps"
            names = "GLOBAL" in operation or operation in ("INST", "EXT1", "EXT2", "EXT4")
            if names and is_known is not None and not is_known(str(argument)):
                return f"names {str(argument)[:80]!r}, which no state of a run does"
    return None


def find_long_header(path: Path) -> int | None:
    """Return the bytes of a header of safetensors that is longer than any trunk's, else None."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    return size if MAX_HEADER_BYTES < size <= path.stat().st_size else None


def is_archive(path: Path) -> bool:
    """Tell whether a file is a zip archive, as torch.save writes them since 1.6."""
    return zipfile.is_zipfile(path)


def is_too_long(path: Path) -> bool:
    """Tell whether a file of the format before 1.6 describes its content in too many steps."""
    num = 0
    with path.open("rb") as file:
        for _ in range(_NUM_PICKLES):
            for _ in _walk(file):
                num += 1
                if num > MAX_STEPS:
                    return True
    return False


def _walk(pickle: bytes | IO[bytes]) -> Iterator[tuple[str, object]]:
    for operation, argument, _ in pickletools.genops(pickle):
        yield operation.name, argument
