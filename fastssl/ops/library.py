"""The operators as torch sees them: schemas, fake kernels, and where the reference stands in.

The extension defines the schemas in C++ and brings the kernels of the CPU. Without it the same
schemas are defined here. Every device that has no kernel of its own runs the reference, which warns
once. No operator is differentiable: all of them take uint8.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ..extension import REBUILD, load_extension
from . import reference

SCHEMAS = {
    "extract_patches": "(Tensor images, Tensor corners, int size, Tensor? flip, Tensor? grey, "
    "Tensor? order, float[]? mean, float[]? std, bool standardize, ScalarType dtype, "
    "bool channels_last) -> Tensor",
    "normalize": "(Tensor images, Tensor? flip, Tensor? grey, float[] mean, float[] std, "
    "ScalarType dtype, bool channels_last) -> Tensor",
}

# torch forgets what a library registered when the library object dies.
_library = torch.library.Library("fastssl", "FRAGMENT")


@functools.cache
def _warn_once(device_type: str) -> None:
    """Say that operators on a type of device run without a kernel."""
    if device_type == "cpu":
        reason = "fastssl was installed without its extension"
        remedy = "install a C++ compiler and run pip install --no-build-isolation -e ."
    else:
        reason = f"this version of fastssl has no kernels for {device_type}"
        remedy = "the results are the same"
    warnings.warn(
        f"{reason}; fastssl.ops run their slower PyTorch reference ({remedy})",
        RuntimeWarning,
        stacklevel=2,
    )


def _stand_in(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap a reference so that its first use on a type of device warns."""

    @functools.wraps(function)
    def run(images: Tensor, *args: object) -> Tensor:
        _warn_once(images.device.type)
        return function(images, *args)

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
