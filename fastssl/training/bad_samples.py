"""Counts bad samples over all ranks and stops a run whose data is going (law 3)."""

from __future__ import annotations

from collections.abc import Sequence

from ..batch import Substitution
from ..errors import RunFailed

MIN_BAD_TO_STOP = 10
_SHOWN = 10


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

    def add(self, bad: Sequence[Substitution], position: int) -> None:
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
