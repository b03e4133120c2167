"""Trunks by name, their export, and the heads that stand on them."""

from .heads import ConcatHead, FullyConnectedHead, JointHead
from .towers import split_batch_norms
from .trunks import Trunk, build_trunk, load_trunk, save_trunk, trunk_names

__all__ = [
    "ConcatHead",
    "FullyConnectedHead",
    "JointHead",
    "Trunk",
    "build_trunk",
    "load_trunk",
    "save_trunk",
    "split_batch_norms",
    "trunk_names",
]
