"""The on-disk format: tar shards, an index that is memory-mapped, a manifest (docs/shards.md)."""

from .index import Payload, SampleFlags
from .jpeg import Sampling
from .manifest import Manifest, ShardEntry
from .picture import PictureError, decode_picture, open_picture, read_orientation, to_upright_rgb
from .reader import BadSample, ShardDataset, open_dataset

__all__ = [
    "BadSample",
    "Manifest",
    "Payload",
    "PictureError",
    "SampleFlags",
    "Sampling",
    "ShardDataset",
    "ShardEntry",
    "decode_picture",
    "open_dataset",
    "open_picture",
    "read_orientation",
    "to_upright_rgb",
]
