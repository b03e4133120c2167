"""Trunks by name, their export, and the heads that stand on them."""

from .heads import ConcatHead
from .trunks import Trunk, build_trunk, load_trunk, save_trunk, trunk_names

__all__ = ["ConcatHead", "Trunk", "build_trunk", "load_trunk", "save_trunk", "trunk_names"]
