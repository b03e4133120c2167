"""Networks of torchvision and timm as trunks: end points by hooks, weights under their own names.

Shape legend: B images, C channels, H W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError, nearest
from .base import Layers, Trunk
from .input_spec import InputSpec

LIBRARIES = ("torchvision", "timm")
"""Libraries whose networks are known by ``LIBRARY:NAME``."""
CLASSIFIERS = ("fc.", "classifier.", "head.", "heads.", "AuxLogits.", "aux")
"""How the names of weights begin that classify; a trunk does without them."""
# Containers that hold the whole network have no end point of their own; their children have.
_CONTAINERS = ("features", "blocks")


class ForeignTrunk(Trunk):
    """A network of another library: images in, what its classifier sees out."""

    layers: ClassVar[Layers] = {}

    def __init__(self, network: nn.Module, name: str, classifier: nn.Linear | None) -> None:
        """Watch a network's parts.

        Args:
            network: maps (B, 3, H, W) to whatever it likes.
            name: ``LIBRARY:NAME``.
            classifier: whose input are the pre-logits; None takes the network's own output.
        """
        super().__init__()
        self.network = network
        self.name = name
        self.width = 1
        self.min_side = 32
        self._points: dict[str, Tensor] = {}
        for point, module in _list_parts(network):
            module.register_forward_hook(self._keep(point))
        if classifier is not None:
            classifier.register_forward_pre_hook(self._keep_input)
        self.num_features = 0

    def _keep(self, point: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) >= 1:
                self._points[point] = output

        return hook

    def _keep_input(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._points["pre_logits"] = inputs[0].flatten(1)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps of the network's parts, (B, C, H, W), and pre_logits (B, D).

        Args:
            x: normalised images (B, 3, H, W).
        """
        self._points = {}
        output = self.network(x)
        points, self._points = self._points, {}
        last = points.pop("pre_logits", None)
        if last is None:
            if not isinstance(output, Tensor):
                raise InputError(f"trunk '{self.name}' gives {type(output).__name__}, no features")
            last = output.mean((2, 3)) if output.dim() == 4 else output.flatten(1)
        return {**points, "pre_logits": last}


def _list_parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts whose maps are end points, in the network's order."""
    for name, child in network.named_children():
        if name in _CONTAINERS:
            yield from ((f"{name}.{number}", part) for number, part in child.named_children())
        else:
            yield name, child


def is_foreign(name: str) -> bool:
    """Tell whether a name is of another library's network."""
    return name.partition(":")[0] in LIBRARIES and ":" in name


def build_foreign(name: str) -> tuple[ForeignTrunk, InputSpec]:
    """Build a network of another library with fresh weights.

    Args:
        name: ``torchvision:resnet50`` or ``timm:vit_small_patch16_224``.

    Returns:
        The trunk, and what it takes.

    Raises:
        InputError: for an unknown name; offers the nearest.
        ImportError: if the library is not installed; says how it is.
    """
    library, _, network = name.partition(":")
    return (_build_torchvision if library == "torchvision" else _build_timm)(network)


def outline_foreign(name: str) -> ForeignTrunk | None:
    """Return a network of another library without its weights' memory.

    Args:
        name: as ``build_foreign`` takes it.

    Returns:
        The trunk on the device "meta"; None where building it looks at numbers, of which there are
        none there.

    Raises:
        InputError: for an unknown name.
        ImportError: if the library is not installed.
    """
    try:
        with torch.device("meta"):
            return build_foreign(name)[0]
    except (NotImplementedError, RuntimeError):
        return None


def _build_torchvision(name: str) -> tuple[ForeignTrunk, InputSpec]:
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError(
            "networks of torchvision need it: pip install torchvision, from the place that torch "
            "came from"
        ) from error
    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"torchvision has no network '{name}'{nearest(name, known)}")
    network = models.get_model(name, weights=None)
    linear = [
        part
        for path, part in network.named_modules()
        if isinstance(part, nn.Linear) and "aux" not in path.lower()
    ]
    return ForeignTrunk(network, f"torchvision:{name}", linear[-1] if linear else None), InputSpec()


def _build_timm(name: str) -> tuple[ForeignTrunk, InputSpec]:
    try:
        import timm
    except ImportError as error:
        raise ImportError("networks of timm need it: pip install timm") from error
    known = timm.list_models()
    if name not in known:
        raise InputError(f"timm has no network '{name}'{nearest(name, known)}")
    network: Any = timm.create_model(name, pretrained=False, num_classes=0)
    scale: Mapping[str, Any] = network.pretrained_cfg
    spec = InputSpec(
        "scaled", tuple(scale.get("mean", InputSpec.mean)), tuple(scale.get("std", InputSpec.std))
    )
    return ForeignTrunk(network, f"timm:{name}", None), spec
