"""Optimisers, and the guard that keeps a non-finite loss out of the weights."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..config import OptimConfig
from ..errors import InputError
from ..models import Trunk
from .lars import LARS

MAX_NONFINITE_IN_A_ROW = 2
"""A run stops after this many steps in a row whose loss is not finite."""


def build_optimizer(config: OptimConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser, fused where torch has it so, with its momentum in place.

    Args:
        config: what to build.
        network: whose parameters learn, but for the frozen ones; normalisation layers and biases
            form their own groups, and so does its ``head`` where it has a decay or rate of its own.

    Returns:
        An optimiser; those of torch honour ``found_inf`` on the device.

    Raises:
        InputError: if a network without a head is to decay it or to let it learn by itself.
        ImportError: if an optimiser of NVIDIA apex is asked for and apex is absent, or is the
            unrelated package of that name.
    """
    groups = _group_parameters(config, network)
    betas = (config.beta1, config.beta2)
    optimizer: torch.optim.Optimizer
    if config.name == "sgd":
        optimizer = torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True
        )
    elif config.name == "lars":
        optimizer = LARS(
            groups, config.lr, config.momentum, config.nesterov, config.trust_coefficient
        )
    elif config.name in ("adam", "adamw"):
        kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
        optimizer = kind(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)
    elif config.name == "apex_fused_sgd":
        optimizer = load_apex_optimizers().FusedSGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov
        )
    else:
        optimizer = load_apex_optimizers().FusedLAMB(
            groups, lr=config.lr, betas=betas, eps=config.eps
        )
    if config.name in ("sgd", "lars") and config.momentum > 0:
        # The fused kernel takes the first gradient as momentum without asking whether the step is
        # masked; zeros give the same first step, and a checkpoint always has the same keys.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _group_parameters(config: OptimConfig, network: nn.Module) -> list[dict[str, Any]]:
    """Sort parameters by (weight decay, whether LARS adapts them, rate over that of weights)."""
    groups: dict[tuple[float, bool, float], list[nn.Parameter]] = {}
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    own: dict[nn.Parameter, float] = {}
    if config.head_weight_decay is not None:
        head = _find_head(network, "head_weight_decay", "None")
        own = dict.fromkeys(getattr(head, "own_decay", head).parameters(), config.head_weight_decay)
    if not config.decay_root:
        own |= dict.fromkeys(_list_root(network), 0.0)
    of_head: set[nn.Parameter] = set()
    if config.head_lr_factor != 1:
        of_head = {*_find_head(network, "head_lr_factor", "1").parameters()}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:  # frozen
                continue
            is_norm, is_bias = isinstance(module, norms), name.endswith("bias")
            is_exempt = not config.decay_norm if is_norm else is_bias and not config.decay_bias
            decay = 0.0 if is_exempt else own.get(parameter, config.weight_decay)
            if is_norm and config.norm_weight_decay is not None:
                decay = config.norm_weight_decay
            factor = config.bias_lr_factor if is_bias and not is_norm else 1.0
            factor *= config.head_lr_factor if parameter in of_head else 1.0
            key = (decay, not (is_norm or is_bias), factor)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": decay,
            "is_adapted": is_adapted,
            "lr_factor": factor,
        }
        for (decay, is_adapted, factor), parameters in groups.items()
    ]


def _list_root(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that ``optim.decay_root`` is for."""
    trunk = getattr(network, "trunk", None)
    if not isinstance(trunk, Trunk):
        raise InputError(
            f"optim.decay_root (false) needs a trunk, {type(network).__name__} has none; set "
            "--optim.decay-root true"
        )
    first = next(iter(trunk.stages().values()))
    return [parameter for module in first for parameter in module.parameters()]


def _find_head(network: nn.Module, option: str, usual: str) -> nn.Module:
    """Return the head that an option is for.

    Args:
        network: has it.
        option: name of it in ``OptimConfig``.
        usual: its value that needs no head.
    """
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Module):
        raise InputError(
            f"optim.{option} needs a head, {type(network).__name__} has none; set "
            f"--optim.{option.replace('_', '-')} {usual}"
        )
    return head


_APEX_REMEDY = (
    "install NVIDIA apex from its source against this torch (APEX_CPP_EXT=1 APEX_CUDA_EXT=1 "
    "pip install --no-build-isolation ./apex in a checkout of github.com/NVIDIA/apex), or set "
    "--optim.name to sgd, lars, adam or adamw"
)


def load_apex_optimizers() -> ModuleType:
    """Import the optimisers of NVIDIA apex.

    Raises:
        ImportError: if apex is absent, or is PyPI's package of that name, which is another thing.
    """
    if importlib.util.find_spec("apex") is None:
        raise ImportError(f"optim.name needs NVIDIA apex, which is absent; {_APEX_REMEDY}")
    try:
        optimizers = importlib.import_module("apex.optimizers")
        if not (hasattr(optimizers, "FusedSGD") and hasattr(optimizers, "FusedLAMB")):
            raise ImportError("apex.optimizers has no FusedSGD and FusedLAMB")
    except Exception as error:
        raise ImportError(
            f"the installed package apex is not NVIDIA's ({error}); PyPI's apex is an unrelated "
            f"web toolkit: pip uninstall apex, then {_APEX_REMEDY}"
        ) from error
    return optimizers


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of weights; that of a group with a factor follows."""
    for group in optimizer.param_groups:
        # The groups of a checkpoint from before there were factors have none.
        group["lr"] = lr * group.get("lr_factor", 1.0)


def list_statistics(network: nn.Module) -> dict[str, Tensor]:
    """Return by name what a forward pass changes: running statistics of batch norms that train.

    Other buffers, such as tables of any size, are no concern of a step.
    """
    return {
        name: buffer
        for prefix, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.training
        for name, buffer in module.named_buffers(prefix, recurse=False)
    }


class UpdateGuard:
    """Masks updates on the device, so that no step waits for the host to look at a loss.

    A step with a non-finite loss or gradient is masked and counted; so is what a GradScaler skips.
    After ``MAX_NONFINITE_IN_A_ROW`` in a row everything is masked until the host reads it and
    stops: the weights stay those that the bad batch met. Running statistics of batch normalisation,
    which the forward pass has touched already, go back to what they were.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, network: nn.Module, device: torch.device
    ) -> None:
        """Stand before every step of an optimiser.

        Args:
            optimizer: whose updates are masked.
            network: whose running statistics are guarded.
            device: of both.
        """
        self._network = network
        self._statistics: list[Tensor] = []
        self._kept: Tensor | None = None
        self._is_bad = torch.zeros((), dtype=torch.bool, device=device)
        self._streak = torch.zeros((), dtype=torch.int64, device=device)
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)
        self._tripped_at = torch.zeros((), dtype=torch.int64, device=device)
        optimizer.register_step_pre_hook(self._mask)

    def remember(self) -> None:
        """Keep the running statistics as they are before the forward pass."""
        buffers = list_statistics(self._network).values()
        self._statistics = [b.view(-1) for b in buffers if b.is_floating_point()]
        self._kept = torch.cat(self._statistics) if self._statistics else None

    def observe(
        self, mean_loss: Tensor, step: int, gradients: list[Tensor] | tuple[Tensor, ...] = ()
    ) -> Tensor:
        """Look at the loss and the gradients of a step before its update.

        Args:
            mean_loss: over all ranks, a scalar on the device.
            step: from 1.
            gradients: over all ranks; none where a GradScaler looks at them.

        Returns:
            bool scalar on the device: whether all is finite.
        """
        is_finite = torch.isfinite(mean_loss)
        if gradients:
            # Lengths: on two cores 3 ms for a ResNet-50, where the largest element takes 200 ms. A
            # length that overflows float32 is no gradient to follow either.
            lengths = torch.stack(torch._foreach_norm(gradients))
            is_finite = is_finite & torch.isfinite(lengths).all()
        self._is_bad = ~is_finite
        self._streak = torch.where(is_finite, 0, self._streak + 1)
        trips = (self._streak >= MAX_NONFINITE_IN_A_ROW) & (self._tripped_at == 0)
        self._tripped_at = torch.where(trips, step, self._tripped_at)
        self._restore_statistics(self.is_masked())
        return is_finite

    def take_step(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Update the weights, unless the step is masked.

        Args:
            optimizer: the one that the guard stands before.
            scaler: of the loss; may be switched off.
        """
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.step(optimizer)  # the hook below masks it on the device
        elif bool(self.is_masked()):  # apex knows no mask: here the host has to wait
            self._skipped = self._skipped + 1
        else:
            scaler.step(optimizer)

    def read(self) -> tuple[int, int]:
        """Wait for the device; return the steps skipped so far and the step that tripped, or 0."""
        skipped, tripped_at = torch.stack([self._skipped, self._tripped_at]).tolist()
        return skipped, tripped_at

    def state_dict(self) -> dict[str, int]:
        """Return the counters as plain values."""
        return {"skipped": int(self._skipped), "streak": int(self._streak)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set the counters."""
        self._skipped.fill_(state["skipped"])
        self._streak.fill_(state["streak"])
        self._tripped_at.zero_()

    def is_masked(self) -> Tensor:
        """Return whether the step observed last does not count: bool scalar on the device."""
        return self._is_bad | (self._tripped_at > 0)

    @torch.no_grad()
    def _restore_statistics(self, is_masked: Tensor) -> None:
        """Five launches whatever the number of layers."""
        if self._kept is None:
            return
        buffers = self._statistics
        kept = torch.where(is_masked, self._kept, torch.cat(buffers))
        torch._foreach_copy_(buffers, kept.split([len(buffer) for buffer in buffers]))

    def _mask(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        skip = self.is_masked().float()
        # A GradScaler puts its own finding here and takes it away after the step.
        if hasattr(optimizer, "grad_scale"):
            skip = torch.maximum(skip, optimizer.found_inf)  # type: ignore[attr-defined]
        optimizer.found_inf = skip  # type: ignore[attr-defined]
        self._skipped = self._skipped + (skip > 0)
