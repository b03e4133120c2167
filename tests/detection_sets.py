"""Small sets in PASCAL VOC's layout: shapes drawn on noise, and windows that may hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.target_files import write_target_file
from fastssl.shards.targets import TargetSpec

WIDTH, HEIGHT = 64, 48
KINDS = ("disc", "square")
_COLOURS = {"disc": (230, 120, 40), "square": (60, 110, 220), "star": (60, 200, 90)}
_SIDES = (16, 22)


def draw_set(root: Path, num: int, seed: int, kinds=KINDS) -> Path:
    """Draw pictures with one or two shapes each, and convert them.

    Returns:
        The dataset; the folder in VOC's layout is beside it, ``<name>-voc``.
    """
    voc, rng = root.with_name(f"{root.name}-voc"), np.random.default_rng(seed)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / name).mkdir(parents=True)
    count = 0
    for number in range(num):
        noise = rng.integers(90, 150, (HEIGHT, WIDTH, 3), np.uint8)
        picture = Image.fromarray(noise)
        pen = ImageDraw.Draw(picture)
        text = "<annotation>"
        for left in (0, WIDTH // 2)[: rng.integers(1, 3)]:
            kind = kinds[count % len(kinds)] if count < len(kinds) else str(rng.choice(kinds))
            count, side = count + 1, int(rng.integers(*_SIDES))
            x = left + int(rng.integers(0, WIDTH // 2 - side))
            y = int(rng.integers(0, HEIGHT - side))
            draw = pen.ellipse if kind == "disc" else pen.rectangle
            draw((x, y, x + side - 1, y + side - 1), fill=_COLOURS[kind])
            text += (
                f"<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>"
                f"<ymin>{y + 1}</ymin><xmax>{x + side}</xmax><ymax>{y + side}</ymax></bndbox>"
                "</object>"
            )
        picture.save(voc / f"JPEGImages/{number:04d}.jpg", quality=95)
        (voc / f"Annotations/{number:04d}.xml").write_text(f"{text}</annotation>")
    listed = "\n".join(f"{number:04d}" for number in range(num))
    (voc / "ImageSets/Main/trainval.txt").write_text(listed)
    convert(ConvertConfig(voc, root, workers=1))
    return root


def slide_windows(dataset_path: Path, out: Path) -> Path:
    """Write the same square windows as proposals of every picture of a set by ``draw_set``."""
    rows = [
        (x, y, x + side, y + side)
        for side in (16, 22)
        for y in range(0, HEIGHT - side + 1, 8)
        for x in range(0, WIDTH - side + 1, 8)
    ]
    windows = np.array(rows, np.float32)
    dataset = open_dataset(dataset_path)
    spec = TargetSpec("proposals", "float32", windows.shape)
    out.mkdir()
    parts = [np.repeat(windows[None], dataset.num_samples, 0)]
    write_target_file(out / "proposals.npy", spec, dataset, parts, {"method": "windows"})
    dataset.close()
    return out / "proposals.npy"
