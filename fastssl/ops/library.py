"""The operators as torch sees them: schemas, fake kernels, and where the reference stands in.

The extension defines the schemas in C++ and brings the kernels of the CPU, and those of CUDA where
it was built with them. Without it the same schemas are defined here. Every device that has no
kernel of its own runs the reference, which warns once. Only ``color_loss`` is differentiable, and
only in the logits: all others take uint8.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..extension import REBUILD, find_binary, load_extension, read_build
from . import reference

SCHEMAS = {
    "extract_patches": "(Tensor images, Tensor corners, int size, Tensor? flip, Tensor? grey, "
    "Tensor? order, float[]? mean, float[]? std, bool standardize, ScalarType dtype, "
    "bool channels_last) -> Tensor",
    "normalize": "(Tensor images, Tensor? flip, Tensor? grey, float[] mean, float[] std, "
    "ScalarType dtype, bool channels_last) -> Tensor",
    "color_jitter": "(Tensor images, Tensor brightness, Tensor saturation, "
    "Tensor brightness_first, Tensor? flip, Tensor? grey, bool mean_grey, float[]? mean, "
    "float[]? std, bool standardize, ScalarType dtype, bool channels_last) -> Tensor",
    "augment_views": "(Tensor images, Tensor? gain, Tensor? shift, Tensor? grey, Tensor? flip, "
    "Tensor? offset, Tensor? corner, int copies, int cutout, bool is_lab, float[] mean, "
    "float[] std, ScalarType dtype, bool channels_last) -> Tensor",
    "rgb_to_lab": "(Tensor images, bool eight_bit) -> Tensor",
    "split_lab": "(Tensor images, Tensor? flip, int stride, bool mean, bool eight_bit, "
    "ScalarType dtype) -> (Tensor, Tensor)",
    "color_loss": "(Tensor logits, Tensor ab, Tensor bins, Tensor offsets, Tensor candidates, "
    "Tensor? weights, Tensor? counted, int num_neighbors, float sigma) -> (Tensor, Tensor)",
    "color_loss_backward": "(Tensor grads, Tensor log_sums, Tensor logits, Tensor ab, "
    "Tensor bins, Tensor offsets, Tensor candidates, Tensor? weights, Tensor? counted, "
    "int num_neighbors, float sigma) -> Tensor",
}

# torch forgets what a library registered when the library object dies.
_library = torch.library.Library("fastssl", "FRAGMENT")


def explain_reference(
    device_type: str, capability: tuple[int, int] | None, build: dict[str, str]
) -> str:
    """Say why operators on a device run their reference, and what to do about it.

    Args:
        device_type: ``cpu``, ``cuda`` or another.
        capability: of a CUDA device, (major, minor).
        build: what the extension that is loaded was built with; empty without one.
    """
    rebuild = "pip install --no-build-isolation -e ."
    if device_type not in ("cpu", "cuda"):
        reason, remedy = f"fastssl has no kernels for {device_type}", "the results are the same"
    elif not build:
        reason = "fastssl runs without its extension"
        remedy = f"install a C++ compiler and run {rebuild}"
    elif not build["cuda_archs"]:
        reason = "fastssl._C was built without CUDA kernels"
        remedy = f"FASTSSL_CUDA=1 {rebuild} builds them or says what is missing"
    else:
        here = ".".join(map(str, capability or ()))
        reason = (
            f"the CUDA kernels of fastssl._C are for compute capability {build['cuda_archs']}, "
            f"and this device has {here}"
        )
        remedy = f'FASTSSL_CUDA_ARCHS="{here}" {rebuild}'
    return f"{reason}; fastssl.ops run their slower PyTorch reference ({remedy})"


@functools.cache
def _warn_once(device: torch.device) -> None:
    """Say that operators on a device run without a kernel."""
    if not load_extension() and find_binary() is not None:
        return  # a binary for another torch: named when it was passed over
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    text = explain_reference(device.type, capability, read_build())
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def _stand_in(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a reference so that its first use on a device warns."""

    @functools.wraps(function)
    def run(first: Tensor, *args: object) -> Any:
        _warn_once(first.device)
        return function(first, *args)

    return run


def check_schemas(schemas: dict[str, str]) -> None:
    """Raise unless the extension that is loaded was built from the sources beside this file.

    Args:
        schemas: name of each operator to its schema.

    Raises:
        ImportError: if an operator is missing or has another schema, as after an update of the
            sources without a build.
    """
    for name, schema in schemas.items():
        packet = getattr(torch.ops.fastssl, name, None)
        found = str(packet.default._schema) if packet is not None else "nothing"
        if found != f"fastssl::{name}{schema}":
            raise ImportError(
                f"fastssl._C was built from other sources: {name} is {found}, wanted {schema}; "
                f"build it again: {REBUILD}"
            )


def _register() -> None:
    """Define what the extension did not, and register the reference for all other devices."""
    has_kernels = load_extension()
    if has_kernels:
        check_schemas(SCHEMAS)
    for name, schema in SCHEMAS.items():
        if not has_kernels:
            _library.define(name + schema)
        function = _stand_in(getattr(reference, name))
        _library.impl(name, function, "CompositeExplicitAutograd")
        # What a CUDA kernel calls on a device that its binary holds no code for.
        _library.define(f"reference_{name}{schema}")
        _library.impl(f"reference_{name}", function, "CompositeExplicitAutograd")


_register()


@torch.library.register_fake("fastssl::extract_patches")
def _fake_extract_patches(
    images: Tensor,
    corners: Tensor,
    size: int,
    flip: Tensor | None,
    grey: Tensor | None,
    order: Tensor | None,
    mean: list[float] | None,
    std: list[float] | None,
    standardize: bool,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Return an empty result of the right shape, type and strides."""
    num_images, num_patches = corners.shape[:2]
    interleaved = (num_images, num_patches, size, size, 3)
    if dtype == torch.uint8:
        return images.new_empty(interleaved)
    if channels_last:
        return images.new_empty(interleaved, dtype=dtype).permute(0, 1, 4, 2, 3)
    return images.new_empty((num_images, num_patches, 3, size, size), dtype=dtype)


@torch.library.register_fake("fastssl::normalize")
def _fake_normalize(
    images: Tensor,
    flip: Tensor | None,
    grey: Tensor | None,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Return an empty result of the right shape, type and strides."""
    num, height, width = images.shape[:3]
    if channels_last:
        return images.new_empty((num, height, width, 3), dtype=dtype).permute(0, 3, 1, 2)
    return images.new_empty((num, 3, height, width), dtype=dtype)


@torch.library.register_fake("fastssl::color_jitter")
def _fake_color_jitter(images: Tensor, *rest: Any) -> Tensor:
    """Return an empty result of the right shape, type and strides."""
    return _fake_normalize(images, None, None, [], [], *rest[-2:])


@torch.library.register_fake("fastssl::augment_views")
def _fake_augment_views(images: Tensor, *rest: Any) -> Tensor:
    """Return an empty result of the right shape, type and strides."""
    copies, dtype, channels_last = rest[6], *rest[-2:]
    num, height, width = images.shape[:3]
    if channels_last:
        interleaved = images.new_empty((num, copies, height, width, 3), dtype=dtype)
        return interleaved.permute(0, 1, 4, 2, 3)
    return images.new_empty((num, copies, 3, height, width), dtype=dtype)


@torch.library.register_fake("fastssl::rgb_to_lab")
def _fake_rgb_to_lab(images: Tensor, eight_bit: bool) -> Tensor:
    """Return an empty result of the right shape, type and strides."""
    num, height, width = images.shape[:3]
    return images.new_empty((num, 3, height, width), dtype=torch.float32)


@torch.library.register_fake("fastssl::split_lab")
def _fake_split_lab(
    images: Tensor,
    flip: Tensor | None,
    stride: int,
    mean: bool,
    eight_bit: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return empty results of the right shape, type and strides."""
    num, height, width = images.shape[:3]
    ab = (num, 2, height // stride, width // stride)
    return (
        images.new_empty((num, 1, height, width), dtype=dtype),
        images.new_empty(ab, dtype=torch.float32),
    )


@torch.library.register_fake("fastssl::color_loss")
def _fake_color_loss(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """Return empty results of the right shape, type and strides."""
    losses = logits.new_empty((len(logits), *logits.shape[2:]), dtype=torch.float32)
    return losses, torch.empty_like(losses)


@torch.library.register_fake("fastssl::color_loss_backward")
def _fake_color_loss_backward(grads: Tensor, log_sums: Tensor, logits: Tensor, *_: Any) -> Tensor:
    """Return an empty result of the right shape, type and strides."""
    return torch.empty_like(reference.dense_logits(logits))


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep what the gradient needs: all inputs, and the logarithms of sums."""
    *tensors, num_neighbors, sigma = inputs
    ctx.save_for_backward(output[1], *tensors)
    ctx.mark_non_differentiable(output[1])
    ctx.numbers = (num_neighbors, sigma)


def _pull_color_loss(ctx: Any, grads: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the gradient of the logits."""
    log_sums, *tensors = ctx.saved_tensors
    grad = torch.ops.fastssl.color_loss_backward.default(grads, log_sums, *tensors, *ctx.numbers)
    return grad, *(None for _ in range(8))


torch.library.register_autograd(
    "fastssl::color_loss", _pull_color_loss, setup_context=_keep_for_backward
)
