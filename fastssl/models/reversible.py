"""Reversible units: activations are computed again from the outputs while gradients flow back.

Gomez et al. 2017. A unit maps two halves of the channels, x1 and x2, to x2 and x1 + F(x2); the
halves change places so that the next unit changes the other one. Of a stage of units only the
output is kept, whatever their number.

Shape legend: B images, C channels of a half, H W pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _NormBase


class ReversibleStage(nn.ModuleList):
    """Reversible units one after the other, without memory for what lies between them.

    The backward pass goes through the units from the last to the first: each is inverted,
    evaluated a second time, and differentiated. Batch norms take the statistics of the batch both
    times and note them once. Gradients of parameters are returned to autograd, so that hooks on
    them (DDP's) see them as any other. Second derivatives are not to be had.
    """

    def __init__(
        self, branches: Iterable[nn.Module], enter: Callable[[Tensor, int], Tensor] | None = None
    ) -> None:
        """Build the stage.

        Args:
            branches: F of each unit; maps (B, C, H, W) to the same shape, without dropout or any
                other draw, which the second evaluation would draw anew.
            enter: what a half goes through before the units, by its number (0, 1); no parameters.
                The first unit is then differentiated at what it has seen itself and not at what the
                inversion says: a channel of zeros comes back as rounding errors, and half of them
                pass a ReLU that had stopped them all.
        """
        super().__init__(branches)
        self.enter = enter
        self.recomputes = True
        """Set to False for plain autograd: about a quarter less arithmetic, much more memory."""

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Map two halves (B, C, H, W) to two of one shape.

        Raises:
            ValueError: if the halves differ in shape.
        """
        if first.shape != second.shape:
            raise ValueError(
                f"the halves of a reversible stage must have one shape, got {tuple(first.shape)} "
                f"and {tuple(second.shape)}; the channels must be even in number"
            )
        source = None
        if self.enter is not None:
            source = second
            first, second = self.enter(first, 0), self.enter(second, 1)
        if not (self.recomputes and torch.is_grad_enabled()):
            return _run(self, first, second)
        return _Reversible.apply(first, second, source, self, *_learning(self))

    @torch.no_grad()
    def invert(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the first unit saw (B, C, H, W) if these are the outputs of the last.

        Statistics stay as they are.
        """
        for branch in reversed(self):
            with _frozen_statistics(branch):
                first, second = second - branch(first), first
        return first, second


def _run(branches: Iterable[nn.Module], first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    for branch in branches:
        first, second = second, first + branch(second)
    return first, second


def _learning(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


@contextlib.contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms use the batch's statistics, where they train, without noting them.

    A batch norm that evaluates goes on to use those that it has noted.
    """
    norms = [part for part in module.modules() if isinstance(part, _NormBase)]
    kept = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, value in zip(norms, kept, strict=True):
            norm.track_running_stats = value


def _pull_back(
    branch: nn.Module, x: Tensor, grad: Tensor, autocast: contextlib.AbstractContextManager
) -> tuple[Tensor, list[Tensor]]:
    """Evaluate a branch again, as it was the first time, and pull a gradient back through it.

    Returns:
        The branch's output, and the gradients of x and of the parameters that learn.
    """
    parameters = _learning(branch)
    with _frozen_statistics(branch):
        if torch.compiler.is_compiling():
            # Dynamo traces vjp but not autograd.grad; vjp in turn cannot go through SyncBN.
            names = [name for name, part in branch.named_parameters() if part.requires_grad]

            def evaluate(x: Tensor, *values: Tensor) -> Tensor:
                state = dict(zip(names, values, strict=True))
                return torch.func.functional_call(branch, state, (x,))

            with autocast:
                # Its annotation tells of auxiliary outputs too.
                out, pull = cast(Any, torch.func.vjp(evaluate, x, *parameters))
            return out, list(pull(grad.to(out.dtype)))
        with torch.enable_grad(), autocast:
            x = x.detach().requires_grad_()
            out = branch(x)
    grads = torch.autograd.grad(out, [x, *parameters], grad.to(out.dtype))
    return out.detach(), list(grads)


def is_autocast(device_type: str) -> bool:
    """Tell whether autocast is on for a kind of device ("cpu", "cuda")."""
    # Of meta there is none, and asking torch whether there is breaks a graph (torch 2.6).
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def _again(device_type: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Return the autocast of the forward pass.

    Without its cache: the weights that the forward pass has left there carry no gradient.
    """
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype, cache_enabled=False)


class _Reversible(torch.autograd.Function):
    """The stage as one step of autograd; parameters are arguments so that theirs is a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        second: Tensor,
        source: Tensor | None,
        stage: ReversibleStage,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        device = first.device.type
        ctx.stage, ctx.was_training = stage, stage.training
        ctx.autocast = (device, torch.get_autocast_dtype(device) if is_autocast(device) else None)
        first, second = _run(stage, first, second)
        # source is what the stage before has kept already. The parameters are kept for autograd's
        # check that nobody has changed them since.
        ctx.save_for_backward(first, second, source, *parameters)
        return first, second

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.stage.training != ctx.was_training:
            raise RuntimeError(
                "a reversible stage went from train() to eval() or back between the forward and "
                "the backward pass; call backward first"
            )
        first, second, source = ctx.saved_tensors[:3]
        grad_first, grad_second = grads
        parameter_grads: list[Tensor] = []
        for number in reversed(range(len(ctx.stage))):
            if number == 0 and source is not None:
                first = ctx.stage.enter(source, 1)
            out, (grad_x, *new) = _pull_back(
                ctx.stage[number], first, grad_second, _again(*ctx.autocast)
            )
            parameter_grads = new + parameter_grads
            first, second = second - out, first
            grad_first, grad_second = grad_second, grad_first + grad_x
        return grad_first, grad_second, None, None, *parameter_grads
