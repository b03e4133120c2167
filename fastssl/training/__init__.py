"""The trainer and its parts; ``trainer.py`` is the main path."""

from .trainer import Trainer, train

__all__ = ["Trainer", "train"]
