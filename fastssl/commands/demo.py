"""A first look: render or take images, shard them, pretrain on jigsaw, and see what it is worth.

    fastssl demo --output-dir runs/demo
    fastssl demo --data /my/photos --output-dir runs/demo-photos

An interrupted demo goes on where it was when the same command is given again.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from tqdm import tqdm

import fastssl

from ..counts import spell_number
from ..errors import InputError, nearest_beside
from ..evaluation.report import Report, write_report
from ..fields import Checked, Range
from ..runs.launch import describe_command, run_child, training_command
from ..runs.read import read_ending, read_run
from ..shards import ShardDataset, open_dataset
from ..shards.making.convert import ConvertConfig, convert
from ..shards.making.sources import FolderSource, open_source
from ..studies import build_recipe
from ..system.cpus import available_cpus
from ..system.files import make_folder, publish_bytes
from ..system.machine import read_processor
from ..system.signals import stopping_on_signals
from ..views import ViewSpec
from .demo_worth import RECIPE, Worth, cut_tile, measure_worth
from .frame import parse_arguments

MIN_IMAGES = 16
LONGER = 4
"""Times the steps that are offered next."""
TRAIN_FAILURES = {2: "its input is wrong", 75: "it was stopped by a signal"}


@dataclass(frozen=True)
class Demo(Checked):
    """Pretrain a small trunk on jigsaw and compare it with a random one."""

    output_dir: Path = Path("runs/demo")
    """Folder for everything: images, shards, runs, report.html. A demo found there goes on."""
    data: Path | None = None
    """Photographs (anything make-shards reads, or a dataset it made; first-level folders are the
    labels, if any); None renders the synthetic set."""
    images: Annotated[int | None, Range(MIN_IMAGES, 1_000_000_000)] = None
    """Images to render (1600), or to take of the photographs at most (3000)."""
    steps: Annotated[int | None, Range(1, 1_000_000_000)] = None
    """Training steps of each seed; 150, on photographs 300: their puzzles are harder."""
    seeds: Annotated[int, Range(1, 1000)] = 3
    """Trunks to train; each with its random twin."""

    def check(self) -> None:
        """Check the values.

        Raises:
            InputError: if one is out of range, or the photographs are not there.
        """
        if self.data is not None and not self.data.exists():
            close = nearest_beside(self.data)
            raise InputError(
                f"data ({self.data}) is not there{close}; give a folder of photographs"
            )

    @property
    def num_images(self) -> int:
        """Images to render, or to take at most."""
        if self.images is not None:
            return self.images
        return 1600 if self.data is None else 3000

    @property
    def num_steps(self) -> int:
        """Training steps of each seed."""
        if self.steps is not None:
            return self.steps
        return 150 if self.data is None else 300

    @property
    def view(self) -> ViewSpec:
        """What the classifier's trunk sees: the renderings' own size, photographs as trained."""
        side = 64 if self.data is None else 96
        return ViewSpec.center(side, side)

    def run_dir(self, seed: int) -> Path:
        """Return the run directory of a seed."""
        return self.output_dir / f"seed{seed}"


def main(arguments: Sequence[str]) -> None:
    """Run the five stages."""
    demo = parse_arguments(Demo, arguments)
    with stopping_on_signals("what is done is kept, the same command goes on"):
        run_stages(demo)


def run_stages(demo: Demo) -> None:
    """Go from images to the page."""
    seconds: dict[str, float] = {}
    check_output(demo)
    with stage("data", seconds):
        source = demo.data or render(demo)
    with stage("shards", seconds):
        dataset = open_dataset(shard(demo, source))
    with stage(f"pretrain {spell_number(demo.seeds, 'trunk')} on jigsaw", seconds):
        for seed in range(demo.seeds):
            pretrain(demo, dataset, seed)
    with stage("k nearest neighbours", seconds):
        num = min(len(dataset), demo.num_images)
        groups = [model_of(dataset, i) for i in range(num)] if demo.data is None else None
        runs = [demo.run_dir(seed) for seed in range(demo.seeds)]
        worth = measure_worth(dataset, num, demo.view, runs, groups)
    with stage("report", seconds):
        report = demo.output_dir / "report.html"
        write_report(report, describe(demo, dataset, worth, seconds))
    print()
    print_result(demo, worth)
    print(f"report:      {report.resolve()}")
    print(f"tensorboard: tensorboard --logdir {quote(demo.output_dir)}")


def print_result(demo: Demo, worth: Worth) -> None:
    """Say in a line or two what was found."""
    if worth.comparison is None:
        print(worth.reason)
        return
    print(worth.comparison.headline().replace("\u00b1", "+-"))
    if not worth.comparison.is_clear:
        for purpose, command in list_longer(demo).items():
            print(f"{purpose}: {command}")


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Announce a stage and note how long it took."""
    print(f"== {name}", flush=True)
    begin = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begin


def check_output(demo: Demo) -> None:
    """Make the folder, or check that the demo found there is this one.

    Raises:
        InputError: if other settings, or other files, stand there.
    """
    out = demo.output_dir
    settings = {
        "data": None if demo.data is None else str(demo.data.resolve()),
        "images": demo.num_images,
        "steps": demo.num_steps,
    }
    record = out / "demo.json"
    if record.is_file():
        found = json.loads(record.read_text())
        if found != settings:
            raise InputError(
                f"output_dir ({out}) holds a demo with {found}, this one has {settings}; "
                "choose another --output-dir or remove that one"
            )
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"output_dir ({out}) holds other files; choose another --output-dir")
    make_folder(out, "--output-dir")
    publish_bytes(record, json.dumps(settings).encode())


def quote(path: Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(path))


# --- Data -----------------------------------------------------------------------------------------


def render(demo: Demo) -> Path:
    """Render the synthetic set, or what is missing of it; return its folder."""
    from ..synthetic import RenderConfig, render_set

    out = demo.output_dir / "images"
    if not (out / "metadata.jsonl").exists():
        config = RenderConfig(images=demo.num_images)
        with tqdm(total=config.images, unit="img", desc="render") as bar:
            render_set(out, config, available_cpus(), bar.update)
    return out


def shard(demo: Demo, source: Path) -> Path:
    """Convert the images into shards, or what is missing of them; return the dataset's folder."""
    if (source / "manifest.json").is_file():
        return source
    out = demo.output_dir / "shards"
    options: dict[str, Any] = {}
    if demo.data is not None:
        source = thin_out(source, demo)
        # The puzzles are 96 px: decoding whole photographs would only keep the trunk waiting.
        options = {"encode": "resized", "resize_short": 128}
    report = convert(ConvertConfig(source=source, out=out, resume=out.exists(), **options))
    left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(report.skipped.items()))
    written = spell_number(report.written, "image")
    print(written + (f"; left out: {left_out}" if left_out else ""))
    if report.written < MIN_IMAGES:
        raise InputError(
            f"data ({demo.data}) gives {spell_number(report.written, 'image')}, a demo needs "
            f"{MIN_IMAGES}; give a folder with more photographs"
        )
    return out


def thin_out(source: Path, demo: Demo) -> Path:
    """Return the source, or where a folder holds too many images a list of evenly spaced ones."""
    opened = open_source(source)
    if not isinstance(opened, FolderSource):
        return source
    # A tab or a line's end in a name cannot stand in a list.
    entries = [e for e in opened.entries() if not {"\t", "\n", "\r"} & set(e.name)]
    if len(entries) <= demo.num_images:
        return source
    chosen = [entries[i * len(entries) // demo.num_images] for i in range(demo.num_images)]
    print(f"{spell_number(len(entries), 'file')} found, {len(chosen):,} taken (--images)")
    lines = []
    for entry in chosen:
        label = f"\t{opened.class_names[entry.label]}" if entry.label >= 0 else ""
        lines.append(os.fsencode(f"{source.resolve() / entry.name}{label}\n"))
    path = demo.output_dir / "photographs.txt"
    path.write_bytes(b"".join(lines))
    return path


# --- Training -------------------------------------------------------------------------------------


def pretrain(demo: Demo, dataset: ShardDataset, seed: int) -> None:
    """Train one trunk in a process of its own; a run found there goes on."""
    run = demo.run_dir(seed)
    ending = read_ending(run)
    if (run / "trunk.safetensors").exists() and ending is not None and ending.code == 0:
        return
    num = min(len(dataset), demo.num_images)
    batch = min(build_recipe(RECIPE).data.global_batch_size, num // 2)
    options = ["--data.path", str(dataset.address), "--output-dir", str(run), "--seed", str(seed)]
    options += ["--data.max-samples", str(num), "--data.global-batch-size", str(batch)]
    # The recipe counts epochs; a demo takes as long on a hundred photographs as on a million.
    options += ["--schedule.epochs", repr(demo.num_steps * batch / num)]
    options += ["--schedule.warmup-epochs", repr(demo.num_steps * batch / num / 10)]
    options += ["--checkpoint.every-steps", str(max(10, demo.num_steps // 5))]
    options += ["--log.every-steps", str(max(1, min(10, demo.num_steps // 10)))]
    code, _ = run_child(training_command(RECIPE, *options))
    if code:
        print(f"error: training stopped: {TRAIN_FAILURES.get(code, f'exit {code}')}; see {run}")
        raise SystemExit(code)


def model_of(dataset: ShardDataset, sample_id: int) -> str:
    """Return the model that a rendered image shows; its file is named <model>_<index>.png."""
    return Path(dataset.read_metadata(sample_id)["source"]).stem.rpartition("_")[0]


# --- The report -----------------------------------------------------------------------------------


def describe(
    demo: Demo,
    dataset: ShardDataset,
    worth: Worth,
    seconds: dict[str, float],
) -> Report:
    """Gather what stands in the report."""
    recipe = build_recipe(RECIPE)
    num = min(len(dataset), demo.num_images)
    kind = "rendered images of ten classes" if demo.data is None else f"images of {demo.data}"
    times = "" if demo.seeds == 1 else f"{demo.seeds} times with other weights, "
    sheet, caption = draw_sheet(demo, dataset, num)
    return Report(
        title="fastssl demo",
        lead=f"A small {recipe.trunk} learnt to solve jigsaw puzzles made of {num:,} {kind}, "
        f"{times}{spell_number(demo.num_steps, 'step')}{' each' if times else ''}, without any "
        "label.",
        runs=[read_run(demo.run_dir(seed), f"seed {seed}") for seed in range(demo.seeds)],
        comparison=worth.comparison,
        no_comparison=worth.reason,
        clearer=list_longer(demo),
        neighbours=worth.neighbours,
        neighbours_caption=worth.caption,
        samples=sheet,
        samples_caption=caption,
        commands=list_commands(demo, dataset),
        environment={
            "fastssl": fastssl.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "processor": f"{read_processor()}, {spell_number(available_cpus(), 'usable core')}",
            "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            "data set": f"{dataset.path}, digest {dataset.digest[:16]}",
            "seconds, this call": ", ".join(
                f"{name} {value:.0f}" for name, value in seconds.items()
            ),
        },
    )


def list_longer(demo: Demo) -> dict[str, str]:
    """Return the demo again with more steps than this one had, by purpose."""
    options = [] if demo.data is None else ["--data", str(demo.data)]
    if demo.images is not None:
        options += ["--images", str(demo.images)]
    steps = LONGER * demo.num_steps
    place = demo.output_dir.with_name(f"{demo.output_dir.name}-{steps}-steps")
    options += ["--steps", str(steps), "--seeds", str(demo.seeds), "--output-dir", str(place)]
    return {f"The same with {LONGER} times the steps": describe_command("demo", *options)}


def list_commands(demo: Demo, dataset: ShardDataset) -> dict[str, str]:
    """Return what to run next, by purpose; nothing that was just done."""
    num = min(len(dataset), demo.num_images)
    batch = min(build_recipe(RECIPE).data.global_batch_size, num // 2)
    epochs = f"{10 * demo.num_steps * batch / num:.0f}"
    commands = {
        "Curves and pictures in TensorBoard": f"tensorboard --logdir {quote(demo.output_dir)}",
        **list_longer(demo),
    }
    if demo.data is None:
        commands["The same with your own photographs"] = describe_command(
            "demo", "--data", "/my/photos", "--output-dir", "runs/demo-photos"
        )
    train = ["train", RECIPE, "--data.path", str(dataset.path), "--schedule.epochs", epochs]
    commands["One of these runs by hand, ten times as long"] = describe_command(
        *train, "--output-dir", "runs/longer"
    )
    commands["Goyal et al. 2019 on a folder of images, on eight GPUs"] = (
        describe_command("make-shards", "/my/photos", "/my/shards", "--encode", "resized")
        + "\ntorchrun --nproc-per-node 8 -m fastssl train goyal19_jigsaw --data.path /my/shards "
        "--output-dir runs/jigsaw"
    )
    return commands


def draw_sheet(demo: Demo, dataset: ShardDataset, num: int) -> tuple[np.ndarray, str]:
    """Lay out images of the data set: a row a class for the rendered ones, else any."""
    if demo.data is None:
        labels = dataset.index["label"][:num]
        rows = [np.flatnonzero(labels == label)[:16] for label in np.unique(labels)]
        caption = f"{len(rows)} classes; colours are random, shapes are procedural"
    else:
        chosen = np.linspace(0, num - 1, min(num, 40)).astype(int)
        rows = [chosen[i : i + 10] for i in range(0, len(chosen), 10)]
        caption = f"{len(chosen)} of {spell_number(num, 'image')}, cut square"
    side = 64 if demo.data is None else 96
    sheet = np.full((side * len(rows), side * max(map(len, rows)), 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, sample_id in enumerate(row):
            tile = cut_tile(dataset, int(sample_id), side)
            sheet[y * side : (y + 1) * side, x * side : (x + 1) * side] = tile
    return sheet, caption
