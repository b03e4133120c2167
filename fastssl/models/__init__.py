"""Trunks by name, their export, and the heads that stand on them."""

from .base import RegionTrunk, Trunk
from .export import digest_trunk, load_trunk, save_trunk
from .heads import ConcatHead, FullyConnectedHead, JointHead
from .input_spec import InputSpec, make_inputs
from .towers import split_batch_norms
from .trunks import build_trunk, is_one_network, trunk_names

__all__ = [
    "ConcatHead",
    "FullyConnectedHead",
    "InputSpec",
    "JointHead",
    "RegionTrunk",
    "Trunk",
    "build_trunk",
    "digest_trunk",
    "is_one_network",
    "load_trunk",
    "make_inputs",
    "save_trunk",
    "split_batch_norms",
    "trunk_names",
]
