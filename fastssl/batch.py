"""The one thing that crosses the seam between loaders and tasks.

Shape legend: B samples, V views of each, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor

from .fields import Documented
from .stages import CacheUse


@dataclass(frozen=True)
class Substitution(Documented):
    """One sample that was bad while training, and what took its place.

    The planned id keeps its place in ``Batch.sample_ids``; pixels, label, targets and boxes are the
    substitute's.
    """

    row: int
    """Row of the batch."""
    epoch: int
    """Epoch of the sample."""
    planned: int
    """Sample id that the order asked for."""
    used: int
    """Sample id whose pixels and label stand there."""
    reason: str
    """Why the planned sample could not be used."""


@dataclass(frozen=True)
class Batch(Documented):
    """Pixels of B samples in V views, and what they are.

    A batch stays as it is for as long as anybody refers to its pixels, by the batch, by a slice or
    by an array of them; closing the loader does not change that. Only then their memory serves
    another batch. On the CPU the loader lends two batches at a time; who holds more gets copies.
    """

    images: Tensor
    """uint8 (B, V, H, W, 3), RGB."""
    sample_ids: Tensor
    """int64 (B,) on the CPU: the ids that the order planned."""
    epochs: Tensor
    """int64 (B,) on the CPU: the epoch of each sample; a batch may cross an epoch's border."""
    labels: Tensor | None
    """int64 (B,) on the CPU, -1 where a sample has none; None if the dataset has no labels."""
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    """(B, ...) on the CPU by name, of those that ``LoaderConfig.targets`` and ``target_files`` ask
    for; rows of the samples used."""
    boxes: Tensor | None = None
    """int32 (B, V, 4) on the CPU: left, top, width, height of each view in upright pixels of the
    sample used; None in a batch that no loader made."""
    substitutions: tuple[Substitution, ...] = field(default=())
    """Samples that were bad and what took their place."""
    fallback_decodes: int = 0
    """Samples that the back end's own decoder refused and the reference decoder took."""
    stage_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of work that each stage of the loader took, summed over its workers."""
    entropy_decoded_mcus: int = 0
    """Minimum coded units of its JPEGs whose bits were decoded; 0 where nobody counts."""
    total_mcus: int = 0
    """Those that its JPEGs have."""
    cache: CacheUse = field(default_factory=CacheUse)
    """What the cache of a remote dataset did since the batch before; nothing without one."""

    def __len__(self) -> int:
        """Return B, the number of samples."""
        return self.images.shape[0]

    def __repr__(self) -> str:
        """Return what it is without its pixels: the shapes, and names of the targets."""
        images = f"images={self.images.dtype} {tuple(self.images.shape)} on {self.images.device}"
        labels = "None" if self.labels is None else f"{tuple(self.labels.shape)}"
        targets = {name: tuple(rows.shape) for name, rows in self.targets.items()}
        return f"Batch({images}, labels={labels}, targets={targets})"

    @property
    def used_ids(self) -> Tensor:
        """int64 (B,) on the CPU: the ids whose pixels these are; one that is bad is its substitute.

        What tells samples apart tells them apart by these: a batch may cross an epoch's border, and
        two copies of one sample have one id.
        """
        used = self.sample_ids.clone()
        for substitution in self.substitutions:
            used[substitution.row] = substitution.used
        return used

    def rows(self, start: int, stop: int) -> Batch:
        """Return the samples of rows start..stop-1 as a batch that shares their memory."""
        cut: dict[str, Any] = {
            f.name: getattr(self, f.name)[start:stop]
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        cut["targets"] = {name: rows[start:stop] for name, rows in self.targets.items()}
        kept = tuple(
            replace(s, row=s.row - start) for s in self.substitutions if start <= s.row < stop
        )
        part = replace(self, **cut, substitutions=kept)
        if start == 0:
            return part
        # What was measured is the whole batch's; the first part carries it.
        return replace(
            part,
            fallback_decodes=0,
            stage_s={},
            entropy_decoded_mcus=0,
            total_mcus=0,
            cache=CacheUse(),
        )
