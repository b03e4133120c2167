"""Where a dataset lies: a folder of this machine, or an address in an object store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# The name of a protocol has two letters at least, so that C:/data stays a folder. fsspec chains
# several by `::`. A Path has merged the two slashes into one.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+(?:::[a-z][a-z0-9+.-]+)*):(/+)(.*)", re.IGNORECASE)


# Whatever stands before the host; what stands behind a question mark, where tokens are.
_USER = re.compile(r"(:/{1,2})[^/\s?#]*@")
_QUERY = re.compile(r"([a-z][a-z0-9+.-]{1,40}:/{1,2}[^\s?#]*)\?[^\s'\"),;]+", re.IGNORECASE)


def hide_credentials(text: str) -> str:
    """Return a text with what its addresses say of users, passwords and tokens left out.

    Args:
        text: an address, or a message that holds some.
    """
    return _QUERY.sub(r"\1?...", _USER.sub(r"\1", text))


def parse_place(given: str | os.PathLike[str]) -> Path | str:
    """Tell folders and addresses apart.

    Args:
        given: a folder, or an address such as ``https://host/folder`` or ``s3://bucket/prefix``;
            an address that went through a ``Path``, and so lost a slash, is mended.

    Returns:
        A Path for a folder (``file://`` is one too), the address without a slash at its end
        otherwise.
    """
    text = os.fspath(given)
    match = _ADDRESS.fullmatch(text)
    # A single slash in a string, or a folder that is really called `s3:`, is what it looks like.
    if match is None or (match[2] == "/" and (isinstance(given, str) or os.path.exists(text))):
        return Path(text)
    protocol, rest = match[1].lower(), match[3].rstrip("/")
    if protocol in ("file", "local"):
        return Path(f"/{rest}")
    return f"{protocol}://{rest}"


@dataclass(frozen=True)
class CachePlace:
    """Where the bytes of datasets in object stores are kept on this machine."""

    folder: Path
    """The folder, for datasets of any number; a dataset has one of its own in it."""
    num_bytes: int
    """What the bytes of one may take."""

    @classmethod
    def of(cls, folder: str | Path, gigabytes: float) -> CachePlace | None:
        """Return the place that the options of a cache name; None for an empty path."""
        folder = Path(folder)
        return None if folder == Path() else cls(folder.absolute(), int(gigabytes * 1e9))
