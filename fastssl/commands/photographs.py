"""A folder of photographs where a dataset is asked for: made into one beside it, once."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from ..errors import InputError, StoppedBySignal
from ..shards.making.convert import ConvertConfig, convert
from ..shards.making.report import ConversionReport
from ..shards.making.sources import FolderSource
from ..shards.manifest import BUILDING_NAME, MANIFEST_NAME
from ..system.files import locked
from .frame import progress_bar
from .make_shards import describe

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "heic", "heif", "avif")


def find_dataset(place: str | Path) -> str | Path:
    """Return the dataset that a place stands for: itself, or that of a folder of photographs.

    The dataset of ``photos`` is ``photos-shards``. Of several processes that want it one makes it,
    and the others wait.

    Args:
        place: a dataset's folder or address, or a folder of photographs.

    Returns:
        A folder or an address; whether it is a dataset is not looked at.

    Raises:
        InputError: if the photographs cannot be made into a dataset.
        StoppedBySignal: on a signal; the same again goes on.
    """
    if not isinstance(place, Path) or place == Path() or not _holds_photographs(place):
        return place
    whole = Path(os.path.abspath(place))
    out = whole.with_name(f"{whole.name}-shards")
    if not (out / MANIFEST_NAME).is_file():
        if not os.access(out.parent, os.W_OK):
            raise InputError(
                f"--data.path ({place}) is a folder of photographs, and no dataset can be made of "
                f"it in {out.parent}, which you may not write to; make it elsewhere: fastssl "
                f"make-shards {place} OUT"
            )
        lock = out.with_name(f".{out.name}.lock")
        with locked(lock, "", patience_s=math.inf):
            if not (out / MANIFEST_NAME).is_file():
                _say(f"{place} is a folder of photographs: a dataset is made of it once, in {out}")
                _say(describe(_convert(whole, out), out))
                lock.unlink(missing_ok=True)  # who waits for it finds the dataset
                return out
    if os.environ.get("RANK", "0") == "0":
        _say(
            f"{place} is a folder of photographs: its dataset {out} is used; photographs that came "
            "later are not in it until you remove it"
        )
    return out


def _convert(photographs: Path, out: Path) -> ConversionReport:
    try:
        with progress_bar("shards") as advance:
            return convert(ConvertConfig(photographs, out, resume=out.exists()), advance)
    except StoppedBySignal as stop:
        number = str(stop).partition(";")[0]
        raise StoppedBySignal(
            f"{number}; what is done of {out} is kept, start the same command again to go on"
        ) from None


def _holds_photographs(folder: Path) -> bool:
    """Tell a folder of photographs from a dataset, one begun by hand, and anything else."""
    if not folder.is_dir() or folder == folder.parent:
        return False
    if (folder / MANIFEST_NAME).exists() or (folder / BUILDING_NAME).exists():
        return False
    names = (entry.name for entry in FolderSource(folder).entries())
    return any(name.rpartition(".")[2].lower() in _IMAGES for name in names)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
