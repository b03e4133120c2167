"""Draw the contact sheets of the synthetic benchmark into ``docs/images/``.

``.venv/bin/python tools/draw_synthetic.py`` renders every variant of the study at 16 samples: about
twenty minutes on one core. The same scenes are shown in each row, so that a column shows what a
factor does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fastssl.synthetic import STUDY_VARIANTS, RenderConfig, Variant, render_scene, to_study_depth
from fastssl.synthetic.scene import FRAMES_PER_MODEL
from fastssl.synthetic.shapes import CLASSES

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MARGIN = 78
"""Room for the names, in pixels."""
MODEL_ROWS = 5


def lay_out(rows: dict[str, list[np.ndarray]]) -> Image.Image:
    """Put pictures of equal size in named rows."""
    side = len(next(iter(rows.values()))[0])
    width = MARGIN + side * max(map(len, rows.values()))
    sheet = Image.new("RGB", (width, side * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows.items()):
        draw.text((4, row * side + side // 2 - 6), name, fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (MARGIN + column * side, row * side))
    return sheet


def main() -> None:
    """Draw the sets of one object, those of several with their targets, and models."""
    single, multi = {}, {}
    for name in STUDY_VARIANTS:
        variant = Variant.parse(name)
        if not variant.is_multi:
            config = RenderConfig(variant=name)
            single[f"{variant} {variant.letters}"] = [
                render_scene(config, 100 * i + i).picture for i in range(len(CLASSES))
            ]
            continue
        config = RenderConfig(variant=name, size=128)
        renderings = [render_scene(config, 20 * i) for i in range(5)]
        multi[str(variant)] = [rendering.picture for rendering in renderings]
    # Of the hardest set, what its pixels are: the classes in even steps of grey, and the depth.
    hardest = {
        "classes": [r.segmentation * np.uint8(25) for r in renderings],
        "depth": [to_study_depth(r.depth) for r in renderings],
    }
    multi |= {name: [np.stack([p] * 3, -1) for p in rows] for name, rows in hardest.items()}
    config = RenderConfig(variant="0000")
    models = {f"models {row}": [] for row in range(MODEL_ROWS)}
    for row, pictures in enumerate(models.values()):
        first = row * FRAMES_PER_MODEL * len(CLASSES)
        pictures += [render_scene(config, first + i).picture for i in range(len(CLASSES))]
    for name, rows in (("single", single), ("multi", multi), ("models", models)):
        lay_out(rows).save(IMAGES / f"synthetic-{name}.jpg", quality=80, optimize=True)


if __name__ == "__main__":
    main()
