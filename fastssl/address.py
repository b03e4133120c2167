"""Where a dataset lies: a folder of this machine, or an address in an object store."""

from __future__ import annotations

import os
import re
from pathlib import Path

# The name of a protocol has two letters at least, so that C:/data stays a folder. fsspec chains
# several by `::`. A Path has merged the two slashes into one.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+(?:::[a-z][a-z0-9+.-]+)*):(/+)(.*)", re.IGNORECASE)


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
