"""Draw the README's pictures of a run: ``make demo STEPS=300 SEEDS=1``, then this script.

``.venv/bin/python tools/draw_images.py runs/demo-300-steps/seed0 jigsaw/3`` writes the last picture
of that place in TensorBoard and the curve of the accuracy into ``docs/images/``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from PIL import Image

from fastssl.evaluation.report.charts import draw_curves
from fastssl.evaluation.report.style import STYLE
from fastssl.runs.read import read_run
from fastssl.tasks.pictures import GAP

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
TILES = 3 * (24 + 2 * GAP)
"""Height of the demo's puzzles, without the words below."""
SCALE = 3
"""Puzzles are small; their pixels are shown larger, as they are."""


def main() -> None:
    """Draw both."""
    run = read_run(Path(sys.argv[1]))
    # The first and the newest picture of each place are kept.
    pixels = [p.pixels for p in run.pictures if p.tag == sys.argv[2]][-1]
    puzzle = Image.fromarray(pixels[:TILES])
    size = (SCALE * puzzle.width, SCALE * puzzle.height)
    puzzle.resize(size, Image.Resampling.NEAREST).save(IMAGES / "puzzle.png", optimize=True)

    curves = {"trained": run.curve("accuracy")}
    chance = {"a guess": run.curve("accuracy_of_chance")}
    chart = draw_curves("Puzzles whose order is found", curves, chance, is_share=True)
    # The report's colours by day, on paper of its own: it is read on dark pages too.
    for name, value in dict(re.findall(r"(--[\w-]+): ([^;]+);", STYLE)[::-1]).items():
        chart = chart.replace(f"var({name})", value.replace('"', "'"))
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    chart = re.sub(r"<svg([^>]*>)", rf'<svg width="541" height="288"\1{paper}', chart, count=1)
    (IMAGES / "curve.svg").write_text(chart + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
