"""The trainer and its parts; ``trainer.py`` is the main path."""

from .life import train
from .trainer import Trainer

__all__ = ["Trainer", "train"]
