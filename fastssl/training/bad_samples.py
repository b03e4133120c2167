"""Counts bad samples over all ranks and stops a run whose data is going (law 3)."""

from __future__ import annotations

from dataclasses import dataclass

from ..batch import Batch
from ..errors import RunFailed

MIN_BAD_TO_STOP = 10
_SHOWN = 10


@dataclass(frozen=True)
class BadSample:
    """One sample that another took the place of."""

    step: int
    """Step that used it, from 1."""
    epoch: int
    """Epoch of the sample."""
    planned: int
    """Id that the order asked for."""
    used: int
    """Id whose pixels and label were used."""
    reason: str
    """Why."""


def list_bad(batch: Batch, step: int) -> list[BadSample]:
    """List a batch's bad samples."""
    return [
        BadSample(step, int(batch.epochs[s.row]), s.planned, s.used, s.reason)
        for s in batch.substitutions
    ]


class BadSampleAccount:
    """What was bad in the epochs that the stream is in; equal on every rank."""

    def __init__(self, num_samples: int, max_share: float) -> None:
        """Open the account.

        Args:
            num_samples: N, samples in an epoch.
            max_share: of an epoch's samples so far that may be bad.
        """
        self._num_samples = num_samples
        self._max_share = max_share
        self._bad: dict[int, list[int]] = {}
        self.total = 0
        """Bad samples met since the run began."""

    def add(self, bad: list[BadSample], position: int) -> None:
        """Add one step's bad samples of all ranks and judge.

        Args:
            bad: of all ranks.
            position: of the stream after the step.

        Raises:
            RunFailed: with the list, if an epoch has too many.
        """
        for sample in bad:
            self._bad.setdefault(sample.epoch, []).append(sample.planned)
        self.total += len(bad)
        for epoch, planned in self._bad.items():
            so_far = min(position - epoch * self._num_samples, self._num_samples)
            if len(planned) >= MIN_BAD_TO_STOP and len(planned) > self._max_share * so_far:
                shown = ", ".join(map(str, planned[-_SHOWN:]))
                reasons = "; ".join(sorted({s.reason for s in bad}))
                raise RunFailed(
                    f"{len(planned)} of {so_far} samples of epoch {epoch} are bad (allowed: "
                    f"--data.max-bad-share {self._max_share}); the last: {shown} ({reasons}); "
                    "all stand in bad_samples.jsonl; mend the data (fastssl check-shards) and "
                    "start again: the run goes on from its last checkpoint"
                )
        current = position // self._num_samples
        self._bad = {e: ids for e, ids in self._bad.items() if e >= current}

    def state_dict(self) -> dict:
        """Return the account as plain values."""
        return {"bad": {str(e): list(ids) for e, ids in self._bad.items()}, "total": self.total}

    def load_state_dict(self, state: dict) -> None:
        """Set the account."""
        self._bad = {int(epoch): list(ids) for epoch, ids in state["bad"].items()}
        self.total = state["total"]
