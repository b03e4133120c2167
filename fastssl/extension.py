"""Loads ``fastssl._C``, which registers the C++ operators, if it was built.

Every user of an operator imports this first; torch must be loaded before the extension, or its
symbols are not found.
"""

from __future__ import annotations

import importlib

import torch

LOAD_ERROR: str | None = None
"""Why the extension could not be loaded; None if it was."""

try:
    importlib.import_module("fastssl._C")
except ImportError as error:
    LOAD_ERROR = str(error)


def has_operator(name: str) -> bool:
    """Return whether the extension registered ``fastssl::name``."""
    return hasattr(torch.ops.fastssl, name)
