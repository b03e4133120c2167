"""How the studies train networks on labels and targets: optimiser, rate, length and batch.

What recipes and evaluations share, so that both are the same training.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import OptimConfig, ScheduleConfig
from ..fields import Documented

NEWELL20_PEAK_LR, NEWELL20_FINAL_LR = 1e-3, 1e-6
NEWELL20_WEIGHT_DECAY = 1e-4
NEWELL20_WARMUP_SHARE = 5 / 200
"""Of the length: five rounds of 200."""
OWN_EPOCHS, OWN_STEPS = 20, 1000
"""Length of ``follow_own``: so many epochs, and more of few images."""
_FEW = 20_000
"""Labels below which a course of Newell and Deng 2020 is short."""


@dataclass(frozen=True)
class Length(Documented):
    """How long a training is."""

    epochs: float
    """Passes over ``epoch_samples`` samples."""
    epoch_samples: int
    """Samples of a pass."""


@dataclass(frozen=True)
class Wishes(Documented):
    """What takes the place of a course's own; 0 leaves that."""

    batch: int = 0
    """Images a step over all ranks."""
    lr: float = 0.0
    """Peak of the learning rate."""
    epochs: float = 0.0
    """Passes over what is learnt from."""
    max_steps: int = 0
    """Steps instead, over which the whole course goes."""

    def choose_length(self, num_labels: int, batch: int, usual: Length) -> Length:
        """Return the length that is wished for, or the usual one."""
        if self.max_steps:
            return Length(self.max_steps, batch)
        return Length(self.epochs, num_labels) if self.epochs else usual


@dataclass(frozen=True)
class Course(Documented):
    """How a network is trained, whatever it learns."""

    optim: OptimConfig
    """The optimiser."""
    schedule: ScheduleConfig
    """The learning rate."""
    batch: int
    """Images a step over all ranks."""


# ------------------------------------------------------------------ Newell and Deng 2020


def build_adam(lr: float, weight_decay: float) -> OptimConfig:
    """Return the optimiser of Newell and Deng 2020.

    Args:
        lr: peak rate, whatever the batch.
        weight_decay: L2 in the gradient of all parameters.
    """
    return OptimConfig(
        name="adam",
        lr=lr,
        lr_batch_size=0,
        beta1=0.8,
        beta2=0.999,
        weight_decay=weight_decay,
        decay_norm=True,
    )


def rise_and_fall(length: Length, warmup_epochs: float, final_share: float) -> ScheduleConfig:
    """Return the rate of Newell and Deng 2020: along a line from 0 to its peak, and to its end.

    Args:
        length: of the whole.
        warmup_epochs: of the rise.
        final_share: of the peak, at the end.
    """
    return ScheduleConfig(
        epochs=float(length.epochs),
        epoch_samples=length.epoch_samples,
        kind="linear",
        milestones=(),
        warmup_epochs=warmup_epochs,
        warmup_start=0.0,
        final_share=final_share,
    )


def count_round(num_labels: int, is_dense: bool = False) -> int:
    """Return the samples of a round of Newell and Deng 2020, which repeats few labels.

    10,000 or a little more; from 4,000 labels on 20,000 or more; at most 50,000, or 10,000 of dense
    tasks.

    Args:
        num_labels: that are learnt from.
        is_dense: whether it is of segmentation or depth.
    """
    most = 10_000 if is_dense else 50_000
    least = 10_000 if is_dense or num_labels < 4_000 else 20_000
    return min(-(-least // num_labels) * num_labels, max(most, least))


def count_rounds(num_labels: int, trunk: str, is_dense: bool = False) -> int:
    """Return the rounds of a training of Newell and Deng 2020.

    Args:
        num_labels: that are learnt from.
        trunk: the network's name.
        is_dense: whether it is of segmentation or depth.
    """
    if num_labels < _FEW:
        return 200
    return 600 if trunk.startswith("resnet9") and not is_dense else 800


def follow_newell20(
    trunk: str, num_labels: int, is_dense: bool = False, wishes: Wishes | None = None
) -> Course:
    """Return how Newell and Deng 2020 train a downstream task.

    Args:
        trunk: the network's name.
        num_labels: that are learnt from.
        is_dense: whether it is of segmentation or depth.
        wishes: what takes the place of the study's.
    """
    rounds = count_rounds(num_labels, trunk, is_dense)
    usual = Length(rounds, count_round(num_labels, is_dense))
    batch = 64 if is_dense else 512 if trunk.startswith("resnet9") else 384
    return _rise_and_fall(num_labels, batch, usual, wishes or Wishes())


def follow_own(num_labels: int, wishes: Wishes | None = None) -> Course:
    """Return the same for photographs: batches of 64 and a length that suits few and many.

    Args:
        num_labels: that are learnt from.
        wishes: what takes its place.
    """
    wishes, batch = wishes or Wishes(), 64
    epochs = max(OWN_EPOCHS, OWN_STEPS * (wishes.batch or batch) / num_labels)
    return _rise_and_fall(num_labels, batch, Length(epochs, num_labels), wishes)


def _rise_and_fall(num_labels: int, batch: int, usual: Length, wishes: Wishes) -> Course:
    batch = wishes.batch or batch
    length = wishes.choose_length(num_labels, batch, usual)
    final_share = NEWELL20_FINAL_LR / NEWELL20_PEAK_LR
    return Course(
        build_adam(wishes.lr or NEWELL20_PEAK_LR, NEWELL20_WEIGHT_DECAY),
        rise_and_fall(length, NEWELL20_WARMUP_SHARE * length.epochs, final_share),
        batch,
    )


# ------------------------------------------------------------------ Goyal et al. 2019


@dataclass(frozen=True)
class _Voc07:
    """A column of the full fine-tuning on VOC07, legacy of the authors' code."""

    batch: int
    lr: float
    steps: int
    drops: tuple[int, ...]
    gamma: float
    weight_decay: float
    norm_weight_decay: float


_ALEXNET_DROPS = tuple(range(10_000, 80_000, 10_000))
_VOC07 = {
    "alexnet": _Voc07(16, 0.001, 80_000, _ALEXNET_DROPS, 0.5, 1e-6, 1e-4),
    "alexnet_color": _Voc07(16, 0.005, 80_000, _ALEXNET_DROPS, 0.5, 5e-4, 0.0),
    "resnet": _Voc07(128, 0.01, 3_000, (1_600,), 0.1, 1e-6, 0.0),
    "resnet_color": _Voc07(128, 0.15, 3_000, (1_600,), 0.1, 1e-6, 0.0),
    "resnet_scratch": _Voc07(128, 0.1, 12_000, (4_000, 8_000), 0.1, 1e-6, 0.0),
}


def is_alexnet(trunk: str) -> bool:
    """Tell whether a trunk, by its name, is of AlexNet's kind for Goyal et al. 2019."""
    return trunk.startswith(("alexnet", "caffenet"))


def follow_goyal19(
    trunk: str,
    num_labels: int,
    takes_lightness: bool = False,
    from_scratch: bool = False,
    wishes: Wishes | None = None,
) -> Course:
    """Return how Goyal et al. 2019 fine-tune on VOC07: SGD with drops of the rate.

    A trunk is taken for an AlexNet (jigsaw, or CaffeNet) or a ResNet-50 by its name, for one of
    colorization by its input. A ResNet from scratch has a course of its own, an AlexNet has not.
    Another length moves the drops in proportion.

    Args:
        trunk: the network's name.
        num_labels: images that are learnt from.
        takes_lightness: whether its input is lightness alone.
        from_scratch: whether it begins with fresh weights.
        wishes: what takes the place of the study's.
    """
    wishes = wishes or Wishes()
    own = "_color" if takes_lightness else ""
    if from_scratch and not is_alexnet(trunk):
        own = "_scratch"
    row = _VOC07[("alexnet" if is_alexnet(trunk) else "resnet") + own]
    batch = wishes.batch or row.batch
    length = wishes.choose_length(num_labels, batch, Length(row.steps, batch))
    return Course(
        OptimConfig(
            lr=wishes.lr or row.lr,
            lr_batch_size=0,
            nesterov=True,
            weight_decay=row.weight_decay,
            norm_weight_decay=row.norm_weight_decay,
        ),
        ScheduleConfig(
            epochs=float(length.epochs),
            epoch_samples=length.epoch_samples,
            milestones=tuple(length.epochs * drop / row.steps for drop in row.drops),
            gamma=row.gamma,
            warmup_epochs=0.0,
        ),
        batch,
    )
