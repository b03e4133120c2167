"""Law 3 for every back end: the bytes of a plan's samples, or those of their substitutes.

Shape legend: B samples of this rank in a step, V views of each, S side of a view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..batch import Batch, Substitution
from ..errors import RunFailed
from ..sampling import SampleOrder
from ..shards import BadSample, ShardDataset
from ..shards.picture import open_picture
from ..stages import CacheUse, StageClock
from ..system.files import check_mapped
from ..views import ViewSpec, draw_boxes, fitted_sizes
from .plan import BatchPlan
from .reference import cut_views

MAX_SUBSTITUTES = 20
"""Substitutes tried for one bad sample before the data is called unreadable."""


@dataclass(frozen=True)
class Outcome:
    """What became of a plan, beside its pixels; small enough to cross between processes."""

    sample_ids: NDArray[np.int64]
    """(B,) ids whose pixels and labels the batch holds."""
    boxes: NDArray[np.int32]
    """(B, V, 4) boxes on the pictures of ``sample_ids``."""
    substitutions: tuple[Substitution, ...]
    """Samples that were bad and what took their place, by row."""
    fallback_decodes: int
    """Samples that the reference decoder took."""
    stage_s: dict[str, float]
    """Seconds of work at each stage."""
    entropy_decoded_mcus: int
    """Minimum coded units of JPEGs whose bits were decoded."""
    total_mcus: int
    """Those that the JPEGs have."""
    cache: CacheUse
    """What the cache did in the process that says so, since it last did."""


class Done(NamedTuple):
    """A plan whose pixels are there."""

    plan: BatchPlan
    outcome: Outcome
    number: int
    """Of the buffer that holds the pixels."""


class SampleReader:
    """Reads what plans ask for. May be used by several threads; lives through fork."""

    def __init__(
        self,
        dataset: ShardDataset,
        views: tuple[ViewSpec, ...],
        order: SampleOrder,
        targets: tuple[str, ...] = (),
        files: Mapping[str, np.memmap] | None = None,
    ) -> None:
        """Remember where samples come from.

        Args:
            dataset: the shards.
            views: V specs of equal size S.
            order: names the substitutes of bad samples.
            targets: names of the dataset's targets that batches carry.
            files: those from outside the dataset, by name.
        """
        self.dataset = dataset
        self.views = views
        self.order = order
        self.targets = targets
        self.files = files or {}

    def begin(self, plan: BatchPlan) -> PlanReading:
        """Begin a plan; each of its rows is then read, or replaced, in any order."""
        return PlanReading(self, plan)

    def to_batch(self, plan: BatchPlan, outcome: Outcome, images: Tensor) -> Batch:
        """Put a batch together.

        Args:
            plan: what it was to hold.
            outcome: what became of it.
            images: uint8 (B, V, S, S, 3).
        """
        used = outcome.sample_ids
        labels = self.dataset.index["label"][used].astype(np.int64)
        for mapped in self.files.values():
            check_mapped(mapped)
        arrays = {**{name: self.dataset.targets[name] for name in self.targets}, **self.files}
        # Of plain arrays: picking 64 rows of a memmap takes NumPy 11 us instead of 7.
        targets = {name: np.asarray(array)[used] for name, array in arrays.items()}
        return Batch(
            images=images,
            sample_ids=torch.from_numpy(plan.sample_ids),
            epochs=torch.from_numpy(plan.epochs),
            labels=torch.from_numpy(labels) if self.dataset.has_labels else None,
            targets={name: torch.from_numpy(rows) for name, rows in targets.items()},
            boxes=torch.from_numpy(outcome.boxes),
            substitutions=outcome.substitutions,
            fallback_decodes=outcome.fallback_decodes,
            stage_s=outcome.stage_s,
            entropy_decoded_mcus=outcome.entropy_decoded_mcus,
            total_mcus=outcome.total_mcus,
            # Of the look-ahead, in this process, and of the back end, perhaps in another.
            cache=outcome.cache + self.take_cache_use(),
        )

    def take_cache_use(self) -> CacheUse:
        """Return what the dataset's cache did in this process since the last call."""
        cache = self.dataset.cache
        return CacheUse() if cache is None else cache.take_use()


class PlanReading:
    """One plan while it becomes a batch."""

    def __init__(self, reader: SampleReader, plan: BatchPlan) -> None:
        """Begin with the plan as it is.

        Args:
            reader: where samples come from.
            plan: what the batch shall hold.
        """
        self.plan = plan
        self.clock = StageClock()
        self.fallback_decodes = 0
        self.entropy_decoded_mcus = self.total_mcus = 0
        self.sample_ids: NDArray[np.int64] = plan.sample_ids.copy()
        """(B,) ids whose pixels and labels the batch shall hold: planned ids or substitutes."""
        self.boxes: NDArray[np.int32] = plan.boxes.copy()
        """(B, V, 4) boxes on the pictures of ``sample_ids``."""
        self.views = reader.views
        self._reader = reader
        self.sizes: NDArray[np.int32] = self._fit(np.arange(len(plan)))
        """(B, V, 2) width and height of what each box is resized to."""
        self._substitutions: dict[int, Substitution] = {}
        self._attempts: Counter[int] = Counter()
        for row in np.flatnonzero(plan.faults).tolist():
            self.replace(row, reader.dataset.describe_fault(int(plan.sample_ids[row])))

    def _fit(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        plan, seed = self.plan, self._reader.order.seed
        draws = plan.epochs[rows], plan.sample_ids[rows]
        return fitted_sizes(self.views, self.boxes[rows], seed, *draws)

    @cached_property
    def _ahead(self) -> dict[int, Future[bytes]]:
        """Answers under way by row: a remote store is asked for all, but what a cache will have."""
        return self._reader.dataset.fetch_ahead(self.plan.sample_ids)

    def read(self, row: int) -> bytes:
        """Read the sample of a row and check it; a bad one is replaced until one is good.

        Returns:
            The bytes of ``sample_ids[row]``.

        Raises:
            RunFailed: if ``MAX_SUBSTITUTES`` substitutes are bad too.
        """
        dataset = self._reader.dataset
        while True:
            sample_id = int(self.sample_ids[row])
            try:
                with self.clock.time("read"):
                    ahead = self._ahead.pop(row, None)
                    payload = ahead.result() if ahead else dataset.fetch_payload(sample_id)
                with self.clock.time("check"):
                    return dataset.mend(sample_id, payload)
            except BadSample as bad:
                self.replace(row, bad.reason)

    def read_reference(
        self, row: int, open_payload: Callable[[bytes], Image.Image] = open_picture
    ) -> NDArray[np.uint8]:
        """Read the sample of a row and have the reference decoder cut its views, until one is good.

        Args:
            row: of the batch.
            open_payload: opens the bytes of an image.

        Returns:
            uint8 (V, S, S, 3).

        Raises:
            RunFailed: if ``MAX_SUBSTITUTES`` substitutes are bad too.
        """
        while True:
            payload = self.read(row)
            try:
                return self.decode_reference(row, payload, open_payload)
            except BadSample as bad:
                self.replace(row, bad.reason)

    def replace(self, row: int, reason: str) -> int:
        """Put the next substitute in the place of a sample that is bad (law 3).

        Args:
            row: of the batch.
            reason: why its sample cannot be used; the first one is kept.

        Returns:
            The id of the substitute. Its row of the index is good; its bytes may be bad too.

        Raises:
            RunFailed: after ``MAX_SUBSTITUTES``.
        """
        reader, plan = self._reader, self.plan
        epoch, planned = int(plan.epochs[row]), int(plan.sample_ids[row])
        if row in self._substitutions:
            reason = self._substitutions[row].reason
        is_good = False
        while not is_good:
            attempt = self._attempts[row]
            if attempt == MAX_SUBSTITUTES:
                raise RunFailed(
                    f"sample {planned} ({reason}) and its {MAX_SUBSTITUTES} substitutes cannot be "
                    f"read; see that {reader.dataset.path} is whole: fastssl check-shards"
                )
            self._attempts[row] += 1
            used = reader.order.substitute(epoch, planned, attempt)
            is_good = not reader.dataset.find_faults([used]).any()
        self._substitutions[row] = Substitution(row, epoch, planned, used, reason)
        self.sample_ids[row] = used
        # The planned sample's draws, on the substitute's picture.
        size = reader.dataset.index[[used]]
        self.boxes[row] = draw_boxes(
            reader.views,
            size["width"],
            size["height"],
            reader.order.seed,
            plan.epochs[[row]],
            plan.sample_ids[[row]],
        )[0]
        self.sizes[row] = self._fit(np.array([row]))[0]
        return used

    def decode_reference(
        self,
        row: int,
        payload: bytes,
        open_payload: Callable[[bytes], Image.Image] = open_picture,
    ) -> NDArray[np.uint8]:
        """Decode the sample of a row with the reference decoder and cut its views.

        Args:
            row: of the batch.
            payload: the bytes of its image.
            open_payload: opens them.

        Returns:
            uint8 (V, S, S, 3).

        Raises:
            BadSample: if they are no picture, or one of another size than the index says.
        """
        dataset = self._reader.dataset
        with self.clock.time("decode"):
            picture = dataset.decode(int(self.sample_ids[row]), payload, open_payload)
            return cut_views(picture, self.views, self.boxes[row], self.sizes[row])

    def fall_back(self, row: int, payload: bytes) -> NDArray[np.uint8]:
        """Do the same for bytes that the back end's own decoder refused; count those that are good.

        Raises:
            BadSample: as ``decode_reference``.
        """
        pixels = self.decode_reference(row, payload)
        self.fallback_decodes += 1
        return pixels

    def outcome(self) -> Outcome:
        """Return what became of the plan so far."""
        return Outcome(
            self.sample_ids,
            self.boxes,
            tuple(self._substitutions[row] for row in sorted(self._substitutions)),
            self.fallback_decodes,
            self.clock.seconds,
            self.entropy_decoded_mcus,
            self.total_mcus,
            self._reader.take_cache_use(),
        )

    def done(self, number: int) -> Done:
        """Say that every row's pixels are in a buffer."""
        return Done(self.plan, self.outcome(), number)
