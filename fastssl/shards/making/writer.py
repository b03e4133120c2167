"""One shard: its tar, its rows of the index, and DALI's index of it."""

from __future__ import annotations

import hashlib
import json
from typing import BinaryIO

import numpy as np

from ..checksum import crc32
from ..index import ROW
from ..tar import END, build_header, padding
from .encode import EncodedPicture

MAX_NUMBER = 10**9 - 1
"""Largest number that nine digits hold."""

DALI_INDEX_VERSION = "v1.2"


def shard_name(number: int) -> str:
    """Return the file name of a shard's tar."""
    return f"shard-{number:06d}.tar"


def dali_index_name(tar_name: str) -> str:
    """Return the file name of DALI's index of a shard."""
    return tar_name.removesuffix(".tar") + ".idx"


def dali_index(samples: list[list[tuple[str, int, int, str]]]) -> bytes:
    """Return the text of DALI's index of a tar (``wds2idx``, version 1.2).

    Args:
        samples: for each sample its members as (extension, offset of the bytes, size, name).

    Returns:
        ASCII: a line ``v1.2 <samples>``, then a line a sample.
    """
    lines = [f"{DALI_INDEX_VERSION} {len(samples)}"]
    lines += [" ".join(f"{e} {o} {s} {n}" for e, o, s, n in members) for members in samples]
    return ("\n".join(lines) + "\n").encode("ascii")


class ShardWriter:
    """Writes the samples of one shard to an opened file, and keeps what the index needs."""

    def __init__(self, file: BinaryIO):
        """Begin a tar.

        Args:
            file: opened for writing, at its beginning.
        """
        self._file = file
        self._hash = hashlib.sha256()
        self._position = 0
        self._rows: list[tuple] = []
        self._members: list[list[tuple[str, int, int, str]]] = []

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self._position += len(content)

    def _add_member(self, number: int, extension: str, content: bytes) -> tuple:
        name = f"{number:09d}.{extension}"
        self._write(build_header(name, len(content)))
        member = (extension, self._position, len(content), name)
        self._write(content)
        self._write(bytes(padding(len(content))))
        return member

    def add(self, number: int, picture: EncodedPicture, label: int, metadata: dict) -> None:
        """Add a sample: image, then label if it has one, then its JSON.

        Args:
            number: the sample's number, 0 .. ``MAX_NUMBER``, larger than the one before.
            picture: the encoded image.
            label: its label; -1 for none.
            metadata: what its JSON says.
        """
        start = self._position
        members = [self._add_member(number, picture.extension, picture.payload)]
        if label >= 0:
            members.append(self._add_member(number, "cls", b"%d" % label))
        text = json.dumps(metadata, sort_keys=True).encode("ascii")
        members.append(self._add_member(number, "json", text))
        self._members.append(members)
        _, last_offset, last_size, _ = members[-1]
        self._rows.append(
            (
                members[0][1],
                len(picture.payload),
                crc32(picture.payload),
                picture.width,
                picture.height,
                picture.flags.pack(),
                label,
                last_offset + last_size - start,
            )
        )

    def finish(self) -> tuple[int, str]:
        """End the tar.

        Returns:
            Its size in bytes and its SHA-256.
        """
        self._write(END)
        return self._position, self._hash.hexdigest()

    @property
    def rows(self) -> np.ndarray:
        """The rows of the index so far, dtype ``ROW``."""
        return np.array(self._rows, ROW)

    @property
    def dali_index(self) -> bytes:
        """DALI's index so far."""
        return dali_index(self._members)
