"""The manifest of a dataset: what it consists of. A folder without one is not a dataset."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ..counts import spell_number
from ..errors import InputError, nearest_beside
from ..randomness import MAX_SAMPLES
from ..system.files import read_regular, refusing_unreadable
from .entry_points import EntryPointsFile
from .index import INDEX_NAME, IndexHeader
from .targets import TargetEntry, check_entries

MANIFEST_NAME = "manifest.json"
SKIPPED_NAME = "skipped.jsonl"
BUILDING_NAME = ".building"
"""Folder in a target that holds a conversion's state until it is finished."""

PLAIN_VERSION = 1
"""Every sample of every shard is a row, under its own label."""
DERIVED_VERSION = 2
"""A dataset that says more: samples left aside, labels renumbered, images that were appended."""
TARGETS_VERSION = 3
"""A dataset with targets."""
TARS_VERSION = 4
"""A dataset over tars that stay where they are."""
ENTRY_POINTS_VERSION = 5
"""A dataset with entry points; its digest is that of the same without them."""
VERSIONS = (
    PLAIN_VERSION,
    DERIVED_VERSION,
    TARGETS_VERSION,
    TARS_VERSION,
    ENTRY_POINTS_VERSION,
)
"""What this fastssl reads."""

MAX_MANIFEST_BYTES = 1 << 26
"""Size of the longest manifest that is read: a hundred million samples take 3 MB."""

# What the file may hold: msgspec reads these types.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_NumSamples = Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES)]
_Label = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_EncodingName = Annotated[str, msgspec.Meta(pattern=r"^(keep|tiled|resized|raw|mixed)\Z")]
# No path, no hidden file, nothing that does something to a terminal.
_FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,254}\Z")]

# A whole line that does nothing to a terminal.
_Address = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,4096}\Z")]
_Etag = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,1024}\Z")]

# Where an older fastssl left the manifest that fits, if an --append stopped between two renames.
_NEXT_MANIFEST_NAME = f"{BUILDING_NAME}/next-{MANIFEST_NAME}"

# What version 1 does not have; left out of the file where there is nothing to say.
_SHARD_EXTRAS = ("stored", "label_map")
_EXTRAS = ("label_maps", "additions", "targets", "tars", "entry_points")


@dataclass(frozen=True)
class ShardEntry:
    """One shard of a dataset."""

    name: _FileName
    """File name of the tar, in the dataset's folder."""
    samples: _NumSamples
    """Samples of the dataset that lie in it, at least 1."""
    bytes: _Count
    """Size of the tar."""
    sha256: _Sha256
    """SHA-256 of the tar, 64 hex digits."""
    stored: _NumSamples | None = None
    """Samples in the tar where that is more; None: ``samples``."""
    label_map: _Count | None = None
    """Which of the manifest's ``label_maps`` leads from its ``.cls`` to the labels of the index;
    None: they are equal."""

    @property
    def num_stored(self) -> int:
        """Samples in the tar."""
        return self.samples if self.stored is None else self.stored

    @property
    def is_plain(self) -> bool:
        """Whether the tar alone says what the index says."""
        return self.num_stored == self.samples and self.label_map is None


@dataclass(frozen=True)
class TarEntry:
    """Where a shard lies that stays where it is."""

    address: _Address
    """Absolute path, or ``protocol://...``, of the tar."""
    bytes: _Count
    """Its size."""
    sha256: _Sha256
    """Its SHA-256, 64 hex digits."""
    etag: _Etag | None = None
    """What its store calls this version of it; None for a file of this machine."""


@dataclass(frozen=True)
class Manifest:
    """What a dataset consists of."""

    num_samples: _NumSamples
    """N: sample ids are 0 .. N-1, in the order of the shards."""
    digest: _Sha256
    """SHA-256 over what defines the data (``begin_digest``), 64 hex digits."""
    encoding: _EncodingName
    """How payloads were made; ``mixed`` where datasets of several were combined."""
    encoding_options: dict[str, int]
    """Options of the encoding."""
    shuffle_seed: Annotated[int, msgspec.Meta(ge=0)] | None
    """Seed of the shuffled source order; None if the order was kept."""
    samples_per_shard: _Count
    """Source entries that went into one shard; fewer samples are left where some were bad."""
    class_names: tuple[str, ...]
    """Name of each label; empty without labels."""
    num_labelled: _Count
    """Samples that have a label."""
    num_read: _Count
    """Source entries: samples and what was left out."""
    bytes_in: _Count
    """Bytes of the source files that were read."""
    skipped: dict[str, _Count]
    """How many entries were left out, by reason; ``skipped.jsonl`` lists them."""
    listing_sha256: _Sha256
    """SHA-256 over the list of source entries and their labels."""
    shards: tuple[ShardEntry, ...] = field(default=())
    """The shards, in order."""
    label_maps: tuple[tuple[_Label, ...], ...] = field(default=())
    """Labels of the index by what the ``.cls`` of some shards say."""
    additions: tuple[dict[str, _Count | str | dict[str, _Count]], ...] = field(default=())
    """What an older fastssl added in place, kept as it stands; ``num_read`` and the like count it
    too."""
    targets: tuple[TargetEntry, ...] = field(default=())
    """Arrays beside the index, sorted by name."""
    tars: tuple[TarEntry, ...] = field(default=())
    """Where the shards lie, one each in their order; empty: in the dataset's own folder."""
    entry_points: EntryPointsFile | None = None
    """The file of entry points; None where there is none."""

    @property
    def format_version(self) -> int:
        """Version of the format: the lowest that can say all this."""
        return self._data_version if self.entry_points is None else ENTRY_POINTS_VERSION

    @property
    def _data_version(self) -> int:
        """The version that enters the digest, to which entry points are nothing."""
        if self.tars:
            return TARS_VERSION
        if self.targets:
            return TARGETS_VERSION
        is_plain = all(shard.is_plain for shard in self.shards) and not self.additions
        return PLAIN_VERSION if is_plain else DERIVED_VERSION

    def begin_digest(self) -> hashlib._Hash:
        """Start the dataset's digest; the bytes of all rows of the index complete it."""
        return begin_digest(
            self.encoding,
            self.encoding_options,
            self.class_names,
            self.shards,
            self._data_version,
            self.targets,
        )

    def to_json(self) -> str:
        """Return the text of the manifest file; the same manifest gives the same bytes."""
        fields = {**asdict(self), "format_version": self.format_version}
        _drop(fields, _EXTRAS)
        for shard in fields["shards"]:
            _drop(shard, _SHARD_EXTRAS)
        for tar in fields.get("tars", ()):
            _drop(tar, ("etag",))
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _drop(fields: dict[str, Any], names: tuple[str, ...]) -> None:
    """Take out the named fields that say nothing."""
    for name in names:
        if fields[name] is None or fields[name] == ():
            del fields[name]


def begin_digest(
    encoding: str,
    encoding_options: dict[str, int],
    class_names: tuple[str, ...],
    shards: tuple[ShardEntry, ...],
    format_version: int = PLAIN_VERSION,
    targets: tuple[TargetEntry, ...] = (),
) -> hashlib._Hash:
    """Start the digest of a dataset; the rows of the index, in order, complete it.

    Args:
        encoding: name of the encoding.
        encoding_options: its options.
        class_names: name of each label.
        shards: names and sample counts enter; the payloads do by the CRC-32s of the rows.
        format_version: version of the format.
        targets: names and SHA-256s enter, if there are any.

    Returns:
        A SHA-256 that still wants the bytes of all rows.
    """
    head = {
        "format_version": format_version,
        "encoding": encoding,
        "encoding_options": encoding_options,
        "class_names": list(class_names),
        "shards": [[shard.name, shard.samples] for shard in shards],
    }
    if targets:
        head["targets"] = [[target.name, target.sha256] for target in targets]
    text = json.dumps(head, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii") + b"\n")


class _Versioned(msgspec.Struct):
    format_version: int


def _refuse_unknown(items: list[dict[str, msgspec.Raw]], known: type, more: str = "") -> None:
    """Refuse fields that no version has: what they mean would be lost."""
    names = {one.name for one in fields(known)} | {more}
    for item in items:
        if unknown := sorted(item.keys() - names):
            raise ValueError(f"unknown field {unknown[0][:80]!r}")


def _parse(content: bytes, version: int) -> Manifest:
    items = dict[str, msgspec.Raw]
    outline = msgspec.json.decode(content, type=items)
    _refuse_unknown([outline], Manifest, "format_version")
    for name, kind in (("shards", ShardEntry), ("targets", TargetEntry), ("tars", TarEntry)):
        _refuse_unknown(msgspec.json.decode(outline.get(name, b"[]"), type=list[items]), kind)
    if entry := msgspec.json.decode(outline.get("entry_points", b"null"), type=items | None):
        _refuse_unknown([entry], EntryPointsFile)
    manifest = msgspec.json.decode(content, type=Manifest)
    check_entries(manifest.targets, manifest.num_samples, len(manifest.class_names))
    if manifest.format_version > version:
        raise ValueError(f"it says more than version {version} can")
    places = [(tar.bytes, tar.sha256) for tar in manifest.tars]
    if places and places != [(shard.bytes, shard.sha256) for shard in manifest.shards]:
        raise ValueError("its tars are not those of its shards")
    for shard in manifest.shards:
        if shard.label_map is not None and shard.label_map >= len(manifest.label_maps):
            raise ValueError("a shard names a label map that is not there")
        if shard.num_stored < shard.samples:
            raise ValueError(
                f"{shard.name} holds {shard.num_stored} of its "
                f"{spell_number(shard.samples, 'sample')}"
            )
    return manifest


def parse_manifest(content: bytes, where: Path | str) -> Manifest:
    """Take the content of a manifest's file apart.

    Args:
        content: of the file.
        where: named in errors.

    Returns:
        The manifest.

    Raises:
        InputError: if it is no manifest, or one of another version.
    """
    try:
        version = msgspec.json.decode(content, type=_Versioned).format_version
    except _UNREADABLE:
        raise InputError(
            f"{where}: not a manifest of fastssl; restore it, or make the dataset again"
        ) from None
    if version not in VERSIONS:
        raise InputError(
            f"{where}: format version {version}, this fastssl reads {VERSIONS[0]} to "
            f"{VERSIONS[-1]}; make the dataset again, or use the fastssl that made it"
        )
    try:
        return _parse(content, version)
    except _UNREADABLE as error:
        raise InputError(
            f"{where}: not a whole manifest ({error}); restore it, or make the dataset again"
        ) from None


# msgspec's own errors are ValueErrors; what is nested too deeply is none.
_UNREADABLE = (ValueError, RecursionError)


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
        what, hint = "not a folder", ""
        if not folder.exists():
            what, hint = "no such folder", nearest_beside(folder, only_folders=True)
        raise InputError(
            f"{folder}: {what}{hint}; wanted a dataset, made by: fastssl make-shards SOURCE OUT"
        )
    path = folder / MANIFEST_NAME
    try:
        with refusing_unreadable(path, "restore it, or make the dataset again"):
            content = read_regular(path, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        is_begun = (folder / BUILDING_NAME).is_dir()
        remedy = f"SOURCE {folder} --resume" if is_begun else f"{folder} OUT"
        raise InputError(
            f"{folder}: no {MANIFEST_NAME}, so it is not a finished dataset; "
            f"{'finish it' if is_begun else 'make one of it'} by: "
            f"fastssl make-shards {remedy}"
        ) from None
    return parse_manifest(content, path)


def check_agreement(place: Path | str, manifest: Manifest, header: IndexHeader) -> None:
    """See that manifest and index are of one dataset.

    Args:
        place: the dataset, named in errors.
        manifest: of the dataset.
        header: of its index.

    Raises:
        InputError: if they are not, or the manifest contradicts itself.
    """
    if header.digest != manifest.digest:
        remedy = "restore them, or make the dataset again"
        if isinstance(place, Path) and (place / _NEXT_MANIFEST_NAME).exists():
            remedy = (
                "an --append of an older fastssl was stopped; finish it by: "
                f"mv {place / _NEXT_MANIFEST_NAME} {place / MANIFEST_NAME}"
            )
        raise InputError(
            f"{place}: digest {header.digest[:12]} in {INDEX_NAME}, "
            f"{manifest.digest[:12]} in {MANIFEST_NAME}; the files are of two datasets: {remedy}"
        )
    count = sum(shard.samples for shard in manifest.shards)
    if not header.count == manifest.num_samples == count:
        raise InputError(
            f"{place}: {spell_number(header.count, 'sample')} in {INDEX_NAME}, "
            f"{manifest.num_samples} in {MANIFEST_NAME}, {count} in its shards; restore the files, "
            "or make the dataset again"
        )
