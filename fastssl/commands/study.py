"""A study from end to end in a form for a small machine: its data, all its runs, and the page.

    fastssl study newell20-small --output-dir runs/newell20-small

Killed or stopped, the same command goes on: every image and every run that is done is kept. The
folder holds ``<variant>/images`` and datasets, ``sweep/`` with a run directory each, the results as
JSON, and ``report.html``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from ..errors import InputError
from ..fields import Checked, CountOrZero
from ..runs.result import RESULTS_NAME
from ..runs.sweep import list_left, run_trials
from ..shards.making.convert import ConvertConfig, convert
from ..shards.manifest import read_manifest
from ..studies.newell20_small import SIZE_PX, Newell20Small
from ..synthetic import RenderConfig, render_set
from ..synthetic.variants import Variant
from ..system.cpus import available_cpus
from ..system.files import make_folder
from ..system.signals import stopping_on_signals
from . import report
from .frame import parse_arguments
from .trials import complete_trials

SWEEP_NAME = "sweep"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class StudyCommand(Checked):
    """Run a study from end to end, small: render, pretrain, fine-tune, report."""

    study: Annotated[Literal["newell20-small"], tyro.conf.Positional]
    """Which one."""
    output_dir: Path = field(default=Path(), metadata={"required": True})
    """Folder of everything that it makes."""
    of: Annotated[Newell20Small, tyro.conf.arg(name="")] = field(default_factory=Newell20Small)
    """Its size."""
    workers: CountOrZero = 0
    """Runs at the same time, which share the cores; 0 is one a core."""
    dry_run: bool = False
    """List the runs that are not done yet, and stop."""

    def check(self) -> None:
        """Refuse a study without a place."""
        if self.output_dir == Path():
            raise InputError("--output-dir is missing; name a folder for the study")


def main(arguments: Sequence[str]) -> None:
    """Parse the command line and run."""
    command = parse_arguments(StudyCommand, arguments)
    home, study = command.output_dir, command.of
    data = {v: (home / v / "train", home / v / "test") for v in study.variants}
    trials = complete_trials(study.list_trials(data))
    if command.dry_run:
        left = list_left(trials, home / SWEEP_NAME)
        print(*(f"{trial.name}: fastssl {' '.join(trial.command)}" for trial in left), sep="\n")
        print(f"{len(left)} of {len(trials)} runs are to be done")
        return
    workers = command.workers or available_cpus()
    make_folder(home, "--output-dir")
    with stopping_on_signals("every finished image and run is kept; the same command goes on"):
        for variant in study.variants:
            make_data(home / variant, variant, study.images, workers)
    run_trials(trials, home / SWEEP_NAME, at_once=workers)
    write_page(home, study)


def make_data(folder: Path, variant: str, images: int, workers: int) -> None:
    """Render a variant and make its datasets, as far as they are not there.

    Args:
        folder: of the variant.
        variant: four digits TCVL.
        images: to render.
        workers: processes.
    """
    rendered = folder / "images"
    if not (rendered / "metadata.jsonl").exists():
        with tqdm(total=images, unit="img", desc=f"render {variant}", dynamic_ncols=True) as bar:
            wanted = RenderConfig(variant=variant, images=images, size=SIZE_PX)
            render_set(rendered, wanted, workers, bar.update)
    for part in ("train", "test"):
        if not (folder / part / _MANIFEST).exists():
            resume = (folder / part).exists()
            config = ConvertConfig(rendered, folder / part, synthetic_split=part, resume=resume)
            convert(config)


def write_page(home: Path, study: Newell20Small) -> None:
    """Write the page of what was found, with the sets under the study's own names.

    Args:
        home: folder of the study, whose runs are done.
        study: its size.
    """
    named = []
    for variant in study.variants:
        for part in ("train", "test"):
            digest = read_manifest(home / variant / part).digest
            named.append(f"{digest}={Variant.parse(variant).letters}")
    places = [str(home / SWEEP_NAME / RESULTS_NAME), "--output", str(home / "report.html")]
    title = "How many labels pretraining saves: Newell and Deng 2020 in small"
    report.main([*places, "--title", title, "--data-names", *named])
