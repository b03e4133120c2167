"""The manifest of a dataset: what it consists of. A folder without one is not a dataset."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import InputError

MANIFEST_NAME = "manifest.json"
SKIPPED_NAME = "skipped.jsonl"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ShardEntry:
    """One shard of a dataset."""

    name: str
    """File name of the tar, in the dataset's folder."""
    samples: int
    """Samples in it, at least 1."""
    bytes: int
    """Size of the tar."""
    sha256: str
    """SHA-256 of the tar, 64 hex digits."""


@dataclass(frozen=True)
class Manifest:
    """What a dataset consists of."""

    num_samples: int
    """N: sample ids are 0 .. N-1, in the order of the shards."""
    digest: str
    """SHA-256 over what defines the data (``begin_digest``), 64 hex digits."""
    encoding: str
    """``keep``, ``resized`` or ``raw``."""
    encoding_options: dict[str, int]
    """Options of the encoding."""
    shuffle_seed: int | None
    """Seed of the shuffled source order; None if the order was kept."""
    samples_per_shard: int
    """Source entries that went into one shard; fewer samples are left where some were bad."""
    class_names: tuple[str, ...]
    """Name of each label; empty without labels."""
    num_labelled: int
    """Samples that have a label."""
    num_read: int
    """Source entries: samples and what was left out."""
    bytes_in: int
    """Bytes of the source files that were read."""
    skipped: dict[str, int]
    """How many entries were left out, by reason; ``skipped.jsonl`` lists them."""
    listing_sha256: str
    """SHA-256 over the list of source entries and their labels."""
    shards: tuple[ShardEntry, ...] = field(default=())
    """The shards, in order."""
    format_version: int = FORMAT_VERSION
    """Version of the format."""

    def to_json(self) -> str:
        """Return the text of the manifest file; the same manifest gives the same bytes."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, allow_nan=False) + "\n"


def begin_digest(
    encoding: str,
    encoding_options: dict[str, int],
    class_names: tuple[str, ...],
    shards: tuple[ShardEntry, ...],
) -> hashlib._Hash:
    """Start the digest of a dataset; the rows of the index, in order, complete it.

    Args:
        encoding: name of the encoding.
        encoding_options: its options.
        class_names: name of each label.
        shards: names and sample counts enter; the payloads do by the CRC-32s of the rows.

    Returns:
        A SHA-256 that still wants the bytes of all rows.
    """
    head = {
        "format_version": FORMAT_VERSION,
        "encoding": encoding,
        "encoding_options": encoding_options,
        "class_names": list(class_names),
        "shards": [[shard.name, shard.samples] for shard in shards],
    }
    text = json.dumps(head, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii") + b"\n")


def _parse(text: str) -> Manifest:
    fields = json.loads(text)
    fields["shards"] = tuple(ShardEntry(**shard) for shard in fields["shards"])
    fields["class_names"] = tuple(fields["class_names"])
    return Manifest(**fields)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a dataset.

    Args:
        folder: the dataset.

    Returns:
        The manifest.

    Raises:
        InputError: if the folder is no dataset, or one of another version.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; wanted a "
            "dataset, made by: python tools/make_shards.py SOURCE OUT"
        )
    path = folder / MANIFEST_NAME
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no {MANIFEST_NAME}, so it is not a finished dataset; finish it by: "
            f"python tools/make_shards.py SOURCE {folder} --resume"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}); make the dataset again") from None
    try:
        version = json.loads(text)["format_version"]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: not a manifest of fastssl; restore it, or make the dataset again"
        ) from None
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {version}, this fastssl reads version {FORMAT_VERSION}; "
            "make the dataset again, or use the fastssl that made it"
        )
    try:
        return _parse(text)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a whole manifest ({error}); restore it, or make the dataset again"
        ) from None
