"""Say what a job of a given size takes: encoding, shards, cores, network, disk, hours."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..config import RunConfig
from ..counts import spell_number
from ..errors import InputError, nearest
from ..fields import Checked, Count, Range
from ..sampling import MAX_SAMPLES
from ..shards.making.encode import ENCODINGS
from ..studies import build_recipe
from ..studies.cost import count_operations
from ..system.files import check_file_place, publish_bytes
from .frame import check_json_path, parse_arguments, progress_bar
from .plan_rates import Rates, measure_rates, spell_views
from .planning import (
    Estimate,
    Job,
    choose,
    estimate,
    explain_conversion,
    explain_training,
)

LIKE = 1.25
"""Photographs whose mean sizes differ by more than this factor take other times, too."""

Positive = Annotated[float | None, Range(0, 1e12, without=0)]


@dataclass(frozen=True)
class Plan(Checked):
    """What a job of a given size takes, reckoned from rates that were measured."""

    rates: tyro.conf.Positional[Path]
    """JSON file of measured rates: --measure writes it, without it is read."""
    measure: Path | None = None
    """Measure this machine first, on these photographs (anything that make-shards takes)."""
    encodings: str = "keep,tiled,resized"
    """With --measure: encodings to measure, comma-separated."""
    seconds: Annotated[float, Range(0, 600, without=0)] = 5.0
    """With --measure: seconds of each measurement, of which every encoding has two."""
    images: Annotated[int, Range(0, MAX_SAMPLES)] = 0
    """Images of the job; 0 with --measure only measures."""
    mean_kb: Positive = None
    """Mean size of an image of the source in kB (1000 bytes); None: as measured."""
    recipe: str = "goyal19_jigsaw_yfcc"
    """Recipe that trains: its views are loaded, its epochs and its arithmetic count."""
    epochs: Positive = None
    """Length of the training; None: the recipe's."""
    gpus: Count = 1
    """GPUs in all."""
    img_per_s: Positive = None
    """Images a second that one GPU trains on (fastssl bench-training measures it); None: the
    recipe's arithmetic at what the machine of the rates computes."""
    cores: Annotated[int, Range(0, 1_000_000)] = 0
    """Cores of all machines together; 0: those that were measured."""
    storage_mb_per_s: Positive = None
    """Bandwidth of where the shards lie, of all machines together, 10^6 bytes a second; None: no
    limit."""
    network_mb_per_s: Positive = None
    """Bandwidth from where the source lies; None: no limit."""
    disk_tb: Positive = None
    """Room for the dataset in 10^12 bytes; None: no limit."""
    json: Path | None = None
    """Write all figures to this file."""

    def check(self) -> None:
        """Refuse encodings that are not known, and nothing to do."""
        for name in self.names:
            if name not in ENCODINGS:
                raise InputError(f"--encodings ('{name}') is not known{nearest(name, ENCODINGS)}")
        if not self.names:
            raise InputError(f"--encodings ('{self.encodings}') names none{nearest('', ENCODINGS)}")

    @property
    def names(self) -> list[str]:
        """The encodings to measure."""
        return [name.strip() for name in self.encodings.split(",") if name.strip()]


# --- From options to a job ------------------------------------------------------------------------


def get_rates(config: Plan, recipe: RunConfig[Any]) -> Rates:
    """Measure the rates or read them."""
    if config.measure is not None:
        with progress_bar("measure", "encoding") as advance:
            rates = measure_rates(config.measure, recipe, config.names, config.seconds, advance)
        rates.save(config.rates)
        return rates
    rates = Rates.load(config.rates)
    if rates.views != spell_views(recipe):
        raise InputError(
            f"RATES ({config.rates}) were measured with the views of {rates.recipe}, those of "
            f"{recipe.recipe} are others: measure again, fastssl plan FILE --recipe "
            f"{recipe.recipe} --measure PHOTOGRAPHS"
        )
    return rates


@dataclass(frozen=True)
class Given:
    """A figure that goes in, and where it is from."""

    value: float
    """The figure."""
    origin: str
    """``given``, ``measured`` or how it follows from such."""


def gather_inputs(config: Plan, recipe: RunConfig[Any], rates: Rates) -> dict[str, Given]:
    """Return what the job consists of, each with where it is from."""

    def pick(value: float | None, other: float, origin: str) -> Given:
        return Given(other, origin) if not value else Given(value, "given")

    measured = f"measured, {config.rates}"
    inputs = {
        "images": Given(config.images, "given"),
        "source_kb": pick(config.mean_kb, rates.source_kb, measured),
        "epochs": pick(config.epochs, recipe.schedule.epochs, f"recipe {recipe.recipe}"),
        "gpus": Given(config.gpus, "given"),
        "cores": pick(config.cores, rates.cores, measured),
    }
    if config.img_per_s is None:
        if "CPU" in rates.device:
            warnings.warn(
                f"RATES ({config.rates}) were measured on a CPU, so the images/s a GPU are that "
                "CPU's; give a GPU's by --img-per-s (fastssl bench-training measures it)",
                stacklevel=2,
            )
        speed = rates.gflops / count_operations(recipe)
        how = f"arithmetic of {recipe.recipe} at the speed of {rates.device}, {measured}"
        inputs["gpu_img_per_s"] = Given(speed, how)
    else:
        inputs["gpu_img_per_s"] = Given(config.img_per_s, "given")
    for name in ("storage_mb_per_s", "network_mb_per_s"):
        if (value := getattr(config, name)) is not None:
            inputs[name] = Given(value, "given")
    return inputs


def reckon(inputs: dict[str, Given], rates: Rates) -> tuple[Job, list[Estimate]]:
    """Return the job and what it takes, by encoding.

    Images of another size than those measured have stored bytes in proportion, but for what is
    resized; how fast they are decoded does not follow from their size, and stays as measured.
    """
    figures: dict[str, Any] = {name: given.value for name, given in inputs.items()}
    job = Job(**figures)
    ratio = job.source_kb / rates.source_kb
    if max(ratio, 1 / ratio) > LIKE:
        warnings.warn(
            f"--mean-kb ({job.source_kb:g}) is far from the {rates.source_kb:.3g} kB of the "
            "photographs that were measured: cores and hours hold for such as those; measure "
            "photographs of the job's kind",
            stacklevel=2,
        )
    estimates = []
    for name, found in rates.encodings.items():
        if name in ("keep", "tiled"):
            found = replace(found, stored_kb=found.stored_kb * ratio)
        estimates.append(estimate(job, name, found))
    return job, estimates


# --- What is said ---------------------------------------------------------------------------------


def spell_hours(seconds: float) -> str:
    """Return a time as hours, or as seconds where it is short."""
    hours = seconds / 3600
    if hours < 0.1:
        return f"{seconds:.1f} s"
    return f"{hours:,.1f} h" if hours < 1000 else f"{hours:,.0f} h ({hours / 24:,.0f} days)"


def describe_inputs(inputs: dict[str, Given], rates: Rates) -> list[str]:
    """Return the figures that go in, a line each."""
    units = {
        "images": "images",
        "source_kb": "kB an image of the source",
        "epochs": "epochs",
        "gpus": "GPUs",
        "gpu_img_per_s": "images/s a GPU",
        "cores": "cores",
        "storage_mb_per_s": "MB/s of the shards' storage",
        "network_mb_per_s": "MB/s from the source",
    }
    lines = []
    for name, unit in units.items():
        if name in inputs:
            value = inputs[name].value
            shown = f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:,.3g}"
            unit = unit.removesuffix("s") if value == 1 else unit
            lines.append(f"{shown:>14} {unit} ({inputs[name].origin})")
        else:
            lines.append(f"{'?':>14} {unit} (not given: no limit here)")
    lines.append(
        f"rates: of a second of a core's time, {rates.date}, {rates.machine}, "
        f"{spell_number(rates.cores, 'core')} at work, "
        f"{spell_number(rates.photographs, 'photograph')} of {rates.source}, views of "
        f"{rates.recipe}; more cores are taken to do as much each"
    )
    return lines


def describe_table(estimates: Sequence[Estimate]) -> list[str]:
    """Return the table of encodings: measured columns, then reckoned ones."""
    head = ("", "measured: kB", "convert/s", "load/s", "reckoned: TB", "convert", "cores", "MB/s")
    lines = ["".join(f"{cell:>14}" for cell in (*head, "train"))]
    for e in estimates:
        cells = (
            e.encoding,
            f"{e.rates.stored_kb:.1f}",
            f"{e.rates.convert_img_per_s:,.0f}",
            f"{e.rates.load_img_per_s:,.0f}",
            f"{e.disk_bytes / 1e12:,.3f}",
            spell_hours(e.conversion.seconds),
            f"{e.feeding_cores:,}",
            f"{e.feeding_mb_per_s:,.0f}",
            spell_hours(e.training.seconds),
        )
        lines.append("".join(f"{cell:>14}" for cell in cells))
    lines.append(
        "kB: of an image in its shard; convert/s and load/s: images a core; cores and MB/s: what "
        "feeding the GPUs at full speed takes"
    )
    return lines


def describe_choice(job: Job, chosen: Estimate, estimates: Sequence[Estimate]) -> list[str]:
    """Return what to do, and what limits it."""
    return [
        f"take --encode {chosen.encoding}: {spell_number(chosen.num_shards, 'shard')} of "
        f"{chosen.samples_per_shard:,} images, "
        f"{chosen.samples_per_shard * chosen.rates.stored_kb / 1e3:,.0f} MB each "
        f"(make-shards' own choice), {chosen.disk_bytes / 1e12:,.3f} TB in all",
        f"conversion {spell_hours(chosen.conversion.seconds)} at "
        f"{chosen.conversion.img_per_s:,.0f} images/s, {chosen.fetching_mb_per_s:,.0f} MB/s from "
        f"the source if the cores never wait; limited by {explain_conversion(job, chosen)}",
        f"training {spell_hours(chosen.training.seconds)} at {chosen.training.img_per_s:,.0f} "
        f"images/s; limited by {explain_training(chosen, estimates)}",
    ]


def to_json(
    inputs: dict[str, Given], rates: Rates, chosen: Estimate, estimates: Sequence[Estimate]
) -> str:
    """Return all figures, each input with its origin."""
    rows = [
        {
            **asdict(e),
            "conversion": {**asdict(e.conversion), "seconds": e.conversion.seconds},
            "training": {**asdict(e.training), "seconds": e.training.seconds},
            "conversion_bottleneck": e.conversion.bottleneck,
            "training_bottleneck": e.training.bottleneck,
        }
        for e in estimates
    ]
    said = {name: asdict(given) for name, given in inputs.items()}
    whole = {"inputs": said, "rates": asdict(rates), "chosen": chosen.encoding, "rows": rows}
    return json.dumps(whole, indent=1) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure if asked to, reckon, print."""
    config = parse_arguments(Plan, arguments)
    check_json_path(config.json)
    if not config.images and config.measure is None:
        raise InputError("--images (0) must say how many the job has; or --measure PHOTOGRAPHS")
    if config.measure is not None:
        check_file_place(config.rates, "RATES")
    recipe = build_recipe(config.recipe)
    rates = get_rates(config, recipe)
    if not config.images:
        for name, found in rates.encodings.items():
            figures = ", ".join(f"{key} {value:,.1f}" for key, value in asdict(found).items())
            print(f"{name}: {figures} (a core)")
        return
    inputs = gather_inputs(config, recipe, rates)
    job, estimates = reckon(inputs, rates)
    chosen = choose(estimates, config.disk_tb)
    lines = describe_inputs(inputs, rates) + describe_table(estimates)
    print("\n".join(lines + describe_choice(job, chosen, estimates)))
    if config.json is not None:
        text = to_json(inputs, rates, chosen, estimates)
        publish_bytes(config.json, text.encode("ascii"))
