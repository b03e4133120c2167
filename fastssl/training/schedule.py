"""The learning rate as a function of the samples seen, whatever batch and world size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import OptimConfig, ScheduleConfig


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a run."""

    config: ScheduleConfig
    """The course."""
    peak_lr: float
    """Rate after the warm-up."""
    num_samples: int
    """N, samples that an epoch of the schedule counts."""
    global_batch_size: int
    """B."""

    @property
    def total_steps(self) -> int:
        """Steps of the run: ceil(E N / B)."""
        # A hair off, for epochs such as 0.1 that no float holds exactly.
        samples = math.ceil(self.config.epochs * self.num_samples - 1e-6)
        return -(-samples // self.global_batch_size)

    def lr_at(self, samples: int) -> float:
        """Return the learning rate of the step that begins after this many samples.

        Args:
            samples: seen before the step.
        """
        config, epoch = self.config, samples / self.num_samples
        if epoch < config.warmup_epochs:
            share = epoch / config.warmup_epochs
            return self.peak_lr * (config.warmup_start + (1 - config.warmup_start) * share)
        if config.kind == "step":
            return self.peak_lr * config.gamma ** sum(epoch >= m for m in config.milestones)
        span = max(config.epochs - config.warmup_epochs, 1e-12)
        done = min((epoch - config.warmup_epochs) / span, 1.0)
        left = 0.5 * (1 + math.cos(math.pi * done)) if config.kind == "cosine" else 1 - done
        lr = self.peak_lr * (config.final_share + (1 - config.final_share) * left)
        if not config.exponent:
            return lr
        # Of the last step its own share is left; behind it no power below 0 has a value.
        last = min(self.global_batch_size / (span * self.num_samples), 1.0)
        return lr * max(1 - done, last) ** config.exponent


def build_schedule(
    config: ScheduleConfig, optim: OptimConfig, num_samples: int, global_batch_size: int
) -> Schedule:
    """Scale the peak rate linearly with the batch (Goyal et al. 2017) and set the course.

    Args:
        config: the course.
        optim: has the rate, and the batch that it is for.
        num_samples: of the dataset, for a schedule whose epochs are the dataset's.
        global_batch_size: B.
    """
    scale = global_batch_size / optim.lr_batch_size if optim.lr_batch_size else 1.0
    num_samples = config.epoch_samples or num_samples
    return Schedule(config, optim.lr * scale, num_samples, global_batch_size)
