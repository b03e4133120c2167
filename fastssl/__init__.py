"""Pretrain vision trunks on pretext tasks at the speed of the GPU."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # known to type checkers; `typing` itself takes longer than all else here
if TYPE_CHECKING:
    from typing import Any

    from .batch import Batch as Batch
    from .config import LoaderConfig as LoaderConfig
    from .loaders import build_loader as build_loader
    from .models import build_trunk as build_trunk
    from .models import load_trunk as load_trunk
    from .views import ViewSpec as ViewSpec

__version__ = "0.1.0"

# Imported when they are asked for: `import fastssl` alone loads nothing heavy.
_HOMES = {
    "Batch": ".batch",
    "LoaderConfig": ".config",
    "ViewSpec": ".views",
    "build_loader": ".loaders",
    "build_trunk": ".models",
    "load_trunk": ".models",
}
_ROOMS = ("evaluation", "loaders", "models", "ops", "shards", "studies", "tasks", "training")
__all__ = ["Batch", "LoaderConfig", "ViewSpec", "build_loader", "build_trunk", "load_trunk"]


def __getattr__(name: str) -> Any:
    """Import a public name from its home, or a room of the package, at its first use."""
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'fastssl' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    """Return the public names, imported or not, and what every module has."""
    own = (name for name in globals() if name.startswith("__"))
    return sorted({*own, *__all__, *_ROOMS})
