"""Pretrain vision trunks on pretext tasks at the speed of the GPU."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import LoaderConfig as LoaderConfig
    from .loaders import build_loader as build_loader
    from .models import build_trunk as build_trunk
    from .models import load_trunk as load_trunk
    from .views import ViewSpec as ViewSpec

__version__ = "0.1.0"

# Imported when they are asked for: `import fastssl` alone loads nothing heavy.
_HOMES = {
    "LoaderConfig": ".config",
    "ViewSpec": ".views",
    "build_loader": ".loaders",
    "build_trunk": ".models",
    "load_trunk": ".models",
}
__all__ = ["LoaderConfig", "ViewSpec", "build_loader", "build_trunk", "load_trunk"]


def __getattr__(name: str) -> Any:
    """Import a public name from its home at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fastssl' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    """Return the module's names with the public ones that are not imported yet."""
    return sorted({*globals(), *__all__})
