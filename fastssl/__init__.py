"""Pretrain vision trunks on pretext tasks at the speed of the GPU."""

__version__ = "0.1.0"
