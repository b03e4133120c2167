"""The embedded synthetic set: ten classes of procedural models, path-traced (Newell and Deng 2020).

``fastssl render-synthetic`` is the command; ``docs/synthetic.md`` says what is shown and why.
"""

from __future__ import annotations

from .render import RenderConfig, render_scene, render_set
from .scene import Scene, Variant, draw_scene
from .shapes import CLASSES, build_model

__all__ = [
    "CLASSES",
    "RenderConfig",
    "Scene",
    "Variant",
    "build_model",
    "draw_scene",
    "render_scene",
    "render_set",
]
