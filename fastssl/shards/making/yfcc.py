"""YFCC-100M: its metadata, and pictures named by a hash in a bucket, a mirror of it or a folder.

The metadata come as they are published: the SQLite file of the bucket, the table of text with or
without the columns of line number and hash, also compressed by bzip2, or a subset of its first
three columns. Videos are no entries.
"""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ...address import hide_credentials
from ...counts import spell_number
from ...errors import InputError
from ..store import StoreError
from .entries import Entry, Source

_SQLITE_MAGIC = b"SQLite format 3\0"
_TABLE = "yfcc100m_dataset"
_QUERY = (
    f"SELECT photoid, unickname, pageurl, licenseurl, downloadurl FROM {_TABLE} "
    "WHERE marker = 0 OR marker = '0' ORDER BY rowid"
)
_ASKED = 8  # photographs, at most, that are asked for before anything is listed
_NUM_COLUMNS = 23
_NUM_WITH_HASH = 25  # line number, identifier, hash, and then as the other
_NUM_OF_SUBSET = 3
_PHOTO = "0"
# Of the columns of the form without line number and hash.
_ID, _NICKNAME, _PAGE, _DOWNLOAD, _LICENSE, _MARKER = 0, 2, 13, 14, 16, 22
_HEX = frozenset("0123456789abcdef")


class Photograph(NamedTuple):
    """What the metadata say of a photograph."""

    hash: str
    """That its file is named by."""
    columns: dict[str, Any]
    """What its JSON keeps: ``photoid``, and what its licence asks to be named."""


def hash_of(download_url: str) -> str:
    """Return the name of a photograph's file in the bucket.

    Args:
        download_url: of the metadata.

    Returns:
        The MD5 of it, each byte in hexadecimal without a leading zero: 16 .. 32 digits.
    """
    digest = hashlib.md5(download_url.encode(), usedforsecurity=False).digest()
    return "".join(f"{byte:x}" for byte in digest)


def name_of(photograph_hash: str) -> str:
    """Return where a photograph lies below the bucket: ``data/images/xxx/yyy/<hash>.jpg``."""
    prefix, middle = photograph_hash[:3], photograph_hash[3:6]
    return f"data/images/{prefix}/{middle}/{photograph_hash}.jpg"


class YfccSource(Source):
    """Photographs of YFCC-100M, in the order of the metadata; there are no labels."""

    def __init__(self, metadata: Path | str, images: Path | str) -> None:
        """Take metadata and pictures.

        Args:
            metadata: the file.
            images: folder or address that holds ``data/images``.

        Raises:
            InputError: if the metadata are none of YFCC-100M, or none of their first pictures is
                there.
        """
        super().__init__(images, "yfcc")
        self._metadata = Path(metadata)
        self.options["--yfcc-images"] = hide_credentials(str(images))
        if isinstance(metadata, str):
            raise InputError(f"{metadata}: an address; fetch YFCC-100M's metadata first, as a file")
        if not metadata.is_file():
            raise InputError(f"{metadata}: no such file; wanted metadata of YFCC-100M")
        with metadata.open("rb") as file:
            self._is_database = file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
        first = [one.hash for one in itertools.islice(self._photographs(), _ASKED)]
        if not first:
            raise InputError(f"{metadata}: no photographs in it; wanted metadata of YFCC-100M")
        _check_images(images, [name_of(one) for one in first])

    def entries(self) -> Iterator[Entry]:
        """Yield one entry a photograph."""
        for photograph in self._photographs():
            yield Entry(name_of(photograph.hash), columns=photograph.columns)

    def _photographs(self) -> Iterator[Photograph]:
        return self._read_database() if self._is_database else self._read_text()

    def _read_database(self) -> Iterator[Photograph]:
        place = f"{self._metadata.absolute().as_uri()}?mode=ro&immutable=1"
        try:
            with contextlib.closing(sqlite3.connect(place, uri=True)) as connection:
                ((page_bytes,),) = connection.execute("PRAGMA page_size")
                # SQLite takes what is missing of its last page for zeros.
                if self._metadata.stat().st_size % page_bytes:
                    raise sqlite3.DatabaseError("it is cut off")
                for photo_id, nickname, page, licence, download in connection.execute(_QUERY):
                    yield Photograph(
                        hash_of(str(download)), _keep(photo_id, nickname, page, licence)
                    )
        except sqlite3.Error as error:
            raise InputError(
                f"{self._metadata}: cannot be read as YFCC-100M's SQLite file ({error}); fetch it "
                f"again, or name one with a table {_TABLE} of photoid, unickname, pageurl, "
                "licenseurl, downloadurl, marker"
            ) from None

    def _read_text(self) -> Iterator[Photograph]:
        is_packed = self._metadata.suffix == ".bz2"
        opened = bz2.open(self._metadata) if is_packed else self._metadata.open("rb")
        with opened as file:
            try:
                for number, line in enumerate(file, 1):
                    fields = line.rstrip(b"\r\n").decode("utf-8", "replace").split("\t")
                    photograph = self._parse(number, fields)
                    if photograph is not None:
                        yield photograph
            except (OSError, EOFError) as error:
                if not is_packed:
                    raise
                raise InputError(
                    f"{self._metadata}: damaged bzip2 ({error}); fetch it again"
                ) from None

    def _parse(self, number: int, fields: list[str]) -> Photograph | None:
        """Return what a line says; None of a video."""
        if len(fields) == _NUM_OF_SUBSET:
            return Photograph(self._check_hash(number, fields[2]), {"photoid": fields[1]})
        if len(fields) not in (_NUM_COLUMNS, _NUM_WITH_HASH):
            raise InputError(
                f"{self._metadata}: line {number} has {spell_number(len(fields), 'field')}, wanted "
                f"{_NUM_COLUMNS}, {_NUM_WITH_HASH} (with line number and hash) or "
                f"{_NUM_OF_SUBSET} (line number, identifier, hash), with tabs between them, as "
                "YFCC-100M's metadata have"
            )
        given = None
        if len(fields) == _NUM_WITH_HASH:
            given = self._check_hash(number, fields[2])
            fields = [fields[1], *fields[3:]]
        if fields[_MARKER] != _PHOTO:
            return None
        kept = _keep(fields[_ID], fields[_NICKNAME], fields[_PAGE], fields[_LICENSE])
        return Photograph(given or hash_of(fields[_DOWNLOAD]), kept)

    def _check_hash(self, number: int, text: str) -> str:
        if not 16 <= len(text) <= 32 or not _HEX.issuperset(text):
            raise InputError(
                f"{self._metadata}: line {number} has {text[:40]!r} where the hash stands, wanted "
                "16 .. 32 hexadecimal digits"
            )
        return text


def _keep(photo_id: Any, nickname: Any, page: Any, licence: Any) -> dict[str, Any]:
    names = ("photoid", "unickname", "pageurl", "licenseurl")
    values = (str(photo_id), nickname, page, licence)
    return {name: value for name, value in zip(names, values, strict=True) if value}


def _check_images(images: Path | str, names: list[str]) -> None:
    """Ask for some photographs: what is no place of theirs is told before the listing is made.

    Args:
        images: folder or address.
        names: of photographs; one that is there is enough, as some are gone, and buckets whose
            objects may not be listed deny what is not there, too.
    """
    if isinstance(images, Path):
        if not any((images / name).is_file() for name in names):
            _refuse_place(str(images), names)
        return
    from ..remote import RemoteStore

    with contextlib.closing(RemoteStore(images)) as store:
        for name in names:
            try:
                store.state(name)
                return
            except StoreError as error:
                last = error
                if error.kind not in ("denied", "missing"):
                    break
        if last.kind == "missing":
            _refuse_place(store.place, names)
        keys = "AWS_PROFILE or AWS_ACCESS_KEY_ID"
        denied = (
            f"give rights to read it ({keys}; of a public bucket its https:// address)"
            if images.startswith("s3://")
            else f"give rights to read it, or its s3:// address and {keys}"
        )
        remedy = denied if last.kind == "denied" else "see that it can be reached, and start again"
        raise InputError(f"--yfcc-images {store.place}/{name}: {last}; {remedy}")


def _refuse_place(place: str, names: list[str]) -> NoReturn:
    raise InputError(
        f"--yfcc-images {place}: none of the first {len(names)} photographs is there, as "
        f"{names[0]}; name the bucket or folder that holds data/images, or take a list of the "
        "photographs that are there"
    )
