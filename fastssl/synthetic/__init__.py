"""The embedded synthetic benchmark: ten classes of models, path-traced (Newell and Deng 2020).

``fastssl render-synthetic`` is the command; ``docs/synthetic.md`` says what is shown and why.
"""

from __future__ import annotations

from .render import RenderConfig, render_scene, render_set
from .scene import POSES, SPLITS, Scene, draw_scene, pose_bin, split_of
from .shapes import CLASSES, build_model
from .textures import draw_texture
from .trace import Rendering, to_study_depth
from .variants import STUDY_VARIANTS, Variant

__all__ = [
    "CLASSES",
    "POSES",
    "SPLITS",
    "STUDY_VARIANTS",
    "RenderConfig",
    "Rendering",
    "Scene",
    "Variant",
    "build_model",
    "draw_scene",
    "draw_texture",
    "pose_bin",
    "render_scene",
    "render_set",
    "split_of",
    "to_study_depth",
]
