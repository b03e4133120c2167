"""The one thing that crosses the seam between loaders and tasks.

Shape legend: B samples, V views of each, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Substitution:
    """One sample that was bad while training, and what took its place.

    The planned id keeps its place in ``Batch.sample_ids``; pixels, label, targets and boxes are the
    substitute's.
    """

    row: int
    """Row of the batch."""
    planned: int
    """Sample id that the order asked for."""
    used: int
    """Sample id whose pixels and label stand there."""
    reason: str
    """Why the planned sample could not be used."""


@dataclass(frozen=True)
class Batch:
    """Pixels of B samples in V views, and what they are.

    Valid until the second next batch of the same loader is asked for.
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
    """(B, ...) on the CPU by name, of those that ``LoaderConfig.targets`` asks for; rows of the
    samples used."""
    boxes: Tensor | None = None
    """int32 (B, V, 4) on the CPU: left, top, width, height of each view in upright pixels of the
    sample used; None in a batch that no loader made."""
    substitutions: tuple[Substitution, ...] = field(default=())
    """Samples that were bad and what took their place."""
    fallback_decodes: int = 0
    """Samples that the back end's own decoder refused and the reference decoder took."""
    stage_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of work that each stage of the loader took, summed over its workers."""

    def __len__(self) -> int:
        """Return B, the number of samples."""
        return self.images.shape[0]

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
        # Fallback decodes and seconds belong to the whole batch; the first part carries them.
        return replace(
            self,
            **cut,
            substitutions=kept,
            fallback_decodes=self.fallback_decodes if start == 0 else 0,
            stage_s=self.stage_s if start == 0 else {},
        )
