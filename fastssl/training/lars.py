"""LARS (You et al. 2017, "Large batch training of convolutional networks") on torch's fused SGD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.SGD):
    """Scale each tensor's gradient to the length of its weights, then take an SGD step.

    The local rate is ``trust * |w| / (|g| + decay * |w|)``, where both lengths are above zero and
    else 1; momentum runs over the scaled gradients. Groups with ``is_adapted`` False (biases,
    normalisation) take plain SGD steps. ``found_inf`` masks the step on the device, as in SGD.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        nesterov: bool = False,
        trust_coefficient: float = 0.001,
    ) -> None:
        """Build the optimiser.

        Args:
            params: groups with ``weight_decay`` and ``is_adapted``.
            lr: learning rate.
            momentum: momentum.
            nesterov: Nesterov's form of it.
            trust_coefficient: length of an update over the length of its weights.
        """
        super().__init__(params, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)
        self._trust = trust_coefficient
        self._decays: list[float] = []
        # Hooks, so that the step itself stays the fused one and other hooks run once.
        self.register_step_pre_hook(self._adapt_gradients)
        self.register_step_post_hook(self._restore_decays)

    @torch.no_grad()
    def _adapt_gradients(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        if getattr(self, "grad_scale", None) is not None:
            self._unscale()
        self._decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["is_adapted"] and parameters:
                self._adapt(parameters, group["weight_decay"])
                group["weight_decay"] = 0.0  # it is in the gradients now

    def _restore_decays(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        for group, decay in zip(self.param_groups, self._decays, strict=True):
            group["weight_decay"] = decay

    def _unscale(self) -> None:
        """Take a GradScaler's factor out first: lengths must be those of the true gradients."""
        inverse = 1.0 / self.grad_scale  # type: ignore[has-type]
        gradients = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, inverse)
        self.grad_scale = None

    def _adapt(self, parameters: list[Tensor], decay: float) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        w = torch.stack(torch._foreach_norm(parameters))
        g = torch.stack(torch._foreach_norm(gradients))
        rate = self._trust * w / (g + decay * w)
        rate = torch.where((w > 0) & (g > 0), rate, 1.0)
        if decay:
            torch._foreach_add_(gradients, parameters, alpha=decay)
        rates: Any = rate.unbind()
        torch._foreach_mul_(gradients, list(rates))
