"""What a conversion tells when it has ended."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ..manifest import Manifest
from ..targets import LABELS


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did."""

    read: int
    """Entries of the source."""
    written: int
    """Samples of the dataset."""
    skipped: dict[str, int]
    """Entries that were left out, by reason."""
    bytes_in: int
    """Bytes of the source's files."""
    bytes_out: int
    """Bytes of the shards."""
    seconds: float
    """Wall time of this call."""
    num_shards: int = 0
    """Shards of the dataset."""
    num_classes: int = 0
    """Classes of the dataset."""
    num_labelled: int = 0
    """Samples with a label."""
    has_several_labels: bool = False
    """Whether the labels are a target instead: several an image."""
    was_finished: bool = field(default=False)
    """Whether there was nothing left to do."""
    tiling: dict[str, int] = field(default_factory=dict)
    """With --encode tiled: ``tiled`` JPEGs, ``bytes_before`` and ``bytes_after`` of them, and by
    reason how many were kept as they are."""

    objects: dict[str, int] = field(default_factory=dict)
    """Of a source with boxes: objects that were ``kept``; of these ``clipped`` at a border;
    ``empty`` ones that were not; pictures of an ``other_size`` than their annotation says."""

    def to_json(self) -> str:
        """Return the contract's report: read, written, skipped, bytes_in, bytes_out, seconds.

        One of ``--encode tiled`` has ``tiling`` too, one of a source with boxes ``objects``.
        """
        names = ["read", "written", "skipped", "bytes_in", "bytes_out", "seconds"]
        names += [name for name in ("tiling", "objects") if getattr(self, name)]
        return json.dumps({name: getattr(self, name) for name in names}, indent=1) + "\n"


def report_dataset(manifest: Manifest) -> ConversionReport:
    """Return what a manifest says of the conversion that made it, but for its seconds."""
    return ConversionReport(
        read=manifest.num_read,
        written=manifest.num_samples,
        skipped=manifest.skipped,
        bytes_in=manifest.bytes_in,
        bytes_out=sum(shard.bytes for shard in manifest.shards),
        seconds=0.0,
        num_shards=len(manifest.shards),
        num_classes=len(manifest.class_names),
        num_labelled=manifest.num_labelled,
        has_several_labels=any(target.name == LABELS for target in manifest.targets),
    )
