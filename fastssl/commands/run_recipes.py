"""Run the recipes' small forms and cells of the studies through fastssl train.

Each smoke form runs as long as it says; of the studies' cells one of each task and family of trunks
takes a step, at the study's smallest width, with few images. ``fastssl run-recipes [--data
shards/] [--only WORD]``; the same command goes on with smoke forms that were interrupted.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from tqdm import tqdm

from ..config import RunConfig
from ..counts import spell_number
from ..errors import InputError, RunFailed
from ..fields import Checked, Count, CountOrZero, Range
from ..runs.launch import run_child, training_command
from ..runs.read import read_run
from ..shards import open_dataset
from ..shards.making.convert import ConvertConfig, convert
from ..studies import build_recipe, recipe_names
from ..studies.newell20 import METHODS
from ..studies.newell20_downstream import DOWNSTREAM
from ..synthetic import RenderConfig, render_set
from ..system.cpus import available_cpus
from ..system.files import make_folder
from ..system.signals import stopping_on_signals
from .frame import parse_arguments

NUM_RENDERED = 64
CELLS = (
    *(f"goyal19_jigsaw_{trunk}_p2000_imagenet1k" for trunk in ("alexnet", "resnet50")),
    *(f"goyal19_colorization_{trunk}_k10_imagenet1k" for trunk in ("alexnet", "resnet50")),
    *(f"goyal19_supervised_{trunk}_imagenet1k" for trunk in ("alexnet", "resnet50")),
    *(
        f"kolesnikov19_{task}_{trunk}_4x"
        for task in ("rotation", "exemplar", "jigsaw", "relative_location", "supervised")
        for trunk in ("resnet50_v1", "resnet50_v2", "revnet50", "vgg19_bn")
    ),
    *(f"newell20_{name}_{form}" for name, method in METHODS.items() for form in method.courses),
    *(f"newell20_{name}_{form}" for name, row in DOWNSTREAM.items() for form in row.forms),
)
"""One of each task and family of trunks."""


@dataclass(frozen=True)
class RecipesConfig(Checked):
    """Which recipes to run, on what."""

    data: Path | None = None
    """Dataset by make-shards, or anything that make-shards reads, with labels, and for the tasks
    that learn them with pose, segmentation and depth; None renders the synthetic set."""
    output_dir: Path = Path("runs/recipes")
    """Folder of the runs, one a recipe. A smoke form found there goes on; a cell is removed once
    its figures are read, for it weighs hundreds of megabytes."""
    only: str = ""
    """Run the recipes with this in their name; empty runs all."""
    smoke_steps: CountOrZero = 0
    """Steps of each smoke form; 0 takes its own number."""
    cell_steps: Count = 1
    """Steps of each cell."""
    cell_images: Annotated[int, Range(2, 1_000_000)] = 2
    """Images a step of each cell."""

    def check(self) -> None:
        """Refuse data that are not there and a name of no recipe."""
        if self.data is not None and not self.data.exists():
            raise InputError(f"data ({self.data}) is not there; give a dataset or photographs")
        if not list_names(self.only):
            raise InputError(
                f"only ('{self.only}') is in the name of no recipe that is run; known: "
                f"{', '.join(list_names(''))}"
            )


def list_names(word: str) -> list[str]:
    """Return the recipes that are run and have a word in their name: smoke forms, then cells."""
    smoke = [name for name in recipe_names(has_cells=False) if name.endswith("_smoke")]
    return [name for name in (*smoke, *CELLS) if word in name]


def prepare_data(config: RecipesConfig) -> Path:
    """Render or convert what is not yet a dataset; return the dataset's folder.

    Raises:
        InputError: if the folder of the runs holds those on other data.
    """
    source = config.data
    told, given = config.output_dir / "data.txt", str(source.resolve() if source else "synthetic")
    if told.is_file() and told.read_text() != given:
        raise InputError(
            f"output_dir ({config.output_dir}) holds runs on {told.read_text()}, data is {given}; "
            "name another --output-dir, or remove it"
        )
    told.write_text(given)
    if source is not None and (source / "manifest.json").is_file():
        return source
    out = config.output_dir / "shards"
    if (out / "manifest.json").is_file():
        return out
    if source is None:
        source = config.output_dir / "images"
        if not (source / "metadata.jsonl").exists():
            # A hard viewpoint, or all poses would be one.
            rendered = RenderConfig(variant="0110", images=NUM_RENDERED)
            render_set(source, rendered, available_cpus())
    convert(ConvertConfig(source, out, resume=out.exists()))
    return out


def choose_options(config: RecipesConfig, name: str, recipe: RunConfig[Any]) -> list[str]:
    """Return what makes a recipe small."""
    # Every step's figures, and no bar inside the bar.
    options = ["--log.every-steps", "1", "--log.progress", "false"]
    if name.endswith("_smoke"):
        return options + (["--max-steps", str(config.smoke_steps)] if config.smoke_steps else [])
    options += ["--max-steps", str(config.cell_steps)]
    options += ["--data.global-batch-size", str(config.cell_images)]
    options += ["--data.hold-out", "0"]  # of any few images nothing is left to hold out
    if recipe.task.name == "exemplar":
        options += ["--task.group-images", str(config.cell_images)]
    return options


def run_one(config: RecipesConfig, name: str, data: Path) -> tuple[str, ...]:
    """Run a recipe in a process of its own; return its row of the table."""
    recipe = build_recipe(name)
    folder = config.output_dir / name
    options = ["--data.path", str(data), "--output-dir", str(folder)]
    options += choose_options(config, name, recipe)
    began = time.monotonic()
    code, said_all = run_child(training_command(name, *options), is_quiet=True)
    seconds = f"{time.monotonic() - began:.0f}"
    trunk = f"{recipe.trunk} x{recipe.width}"
    if code:
        said = said_all.strip().splitlines() or ["(nothing said)"]
        return name, trunk, "", "", "", "", seconds, f"exit {code}: {said[-1]}"
    run = read_run(folder)
    losses, accuracies = run.curve("loss")[1], run.curve("accuracy")[1]

    def last(values: list[float]) -> str:
        # The last tenth: a single step of few images says little.
        tail = values[-max(1, len(values) // 10) :]
        return f"{fmean(tail):.3f}" if tail else ""

    if name in CELLS:
        shutil.rmtree(folder)
    first = f"{losses[0]:.3f}" if losses else "not finite"
    numbers = (str(len(run.lines)), first, last(losses), last(accuracies))
    return name, trunk, *numbers, seconds, "done"


def main(arguments: Sequence[str]) -> None:
    """Run the recipes one after the other and print the table."""
    config = parse_arguments(RecipesConfig, arguments)
    with stopping_on_signals("smoke forms are kept, the same command goes on"):
        run_all(config)


def run_all(config: RecipesConfig) -> None:
    """Run the recipes that a config chooses."""
    make_folder(config.output_dir, "--output-dir")
    data = prepare_data(config)
    dataset = open_dataset(data)
    header = ("recipe", "trunk", "steps", "first loss", "last", "accuracy", "seconds", "outcome")
    table: list[tuple[str, ...]] = [header]
    for name in (bar := tqdm(list_names(config.only), unit="recipe")):
        bar.set_postfix_str(name)
        table.append(run_one(config, name, data))
    print(
        f"{spell_number(dataset.num_samples, 'sample')} of {dataset.path}; last: mean of the last "
        "tenth"
    )
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for row in table:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    failed = [row[0] for row in table[1:] if row[-1] != "done"]
    if failed:
        raise RunFailed(
            f"{len(failed)} of {spell_number(len(table) - 1, 'recipe')} failed: {', '.join(failed)}"
        )
