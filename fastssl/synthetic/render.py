"""Render a set: jobs for processes, what they leave on disk, and how an interrupted one goes on.

A job is the frames of one model, or the scenes of one group of models: it builds them once. Its
arrays are on disk before its pictures take their names, so a picture that is there is done. The
metadata comes last; a folder with it is finished.

Shape legend: N images, S height and width in pixels.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import InputError
from ..fields import Checked, Count, Range
from ..randomness import Seed
from ..shards.making.rendered import (
    ARRAYS,
    MADE_BY,
    METADATA_NAME,
    NORMALS_FORMAT,
    RECORD_NAME,
    array_path,
    array_shape,
    read_record,
)
from ..shards.npy import pack_header
from ..shards.targets import DTYPES
from ..system.files import locked, make_folder, publish_bytes, published
from ..system.machine import read_processor
from ..system.workers import Report, run_jobs, say_nothing
from .libraries import PictureTextures, ProceduralModels, ProceduralTextures, ShapeNetModels
from .scene import (
    BUCKETS,
    FRAMES_PER_GROUP,
    FRAMES_PER_MODEL,
    OBJECTS,
    Scene,
    class_color,
    draw_scene,
)
from .shapes import CLASSES
from .textures import LARGEST_SIDE_PX
from .trace import Model, Renderer, Rendering, Tracer, choose_variant, load_mitsuba
from .variants import Variant

_SKIPPED_NAME = "skipped.jsonl"
_MODELS = 240
_FORMAT = NORMALS_FORMAT


@dataclass(frozen=True)
class RenderConfig(Checked):
    """A set of synthetic images."""

    variant: str = "0100"
    """Hard factors TCVL: texture, colour, viewpoint, light; 1 is hard, as in 0110 or -CV-. With
    -multi behind: four objects a scene."""
    images: Count = 1600
    """Number of images, classes in equal shares."""
    size: Annotated[int, Range(16, 1024)] = 64
    """Height and width in pixels, 16 .. 1024."""
    seed: Seed = 0
    """Seed of all scenes."""
    samples: Annotated[int, Range(1, 4096)] = 16
    """Light paths a pixel, a square number; time grows with it, noise falls with its root."""
    models_per_class: Annotated[int | None, Range(1, 1_000_000)] = None
    """Models that each class cycles through; None: 240, of a folder all."""
    models: Path | None = None
    """Folder of ShapeNetCore to take models from; None builds them."""
    textures: Path | None = None
    """Folder of pictures, as DTD's, to take textures from; None draws them."""
    renderer: Renderer = "auto"
    """Form of mitsuba: one core a process, or a GPU; auto takes a GPU if there is one."""

    def check(self) -> None:
        """Refuse a variant of no such name, samples that are no square, and too few models."""
        variant = Variant.parse(self.variant)
        root = math.isqrt(self.samples)
        if root**2 != self.samples:
            raise InputError(
                f"samples ({self.samples}) must be a square number; set --samples to {root**2}"
            )
        fewest = BUCKETS if variant.is_multi or self.models is not None else 1
        if self.models_per_class is not None and self.models_per_class < fewest:
            raise InputError(
                f"models_per_class ({self.models_per_class}) must be {fewest} or more, so that "
                f"every split has models; set --models-per-class {fewest}"
            )
        if self.textures is not None and not variant.random_texture:
            raise InputError(
                f"textures ({self.textures}): variant {variant} has none; set --variant "
                f"{replace(variant, random_texture=True)}, or leave --textures out"
            )

    def open_models(self) -> ProceduralModels | ShapeNetModels:
        """Return the models; a folder is listed.

        Raises:
            InputError: if the folder is none of ShapeNetCore.
        """
        if self.models is not None:
            return ShapeNetModels(self.models, self.models_per_class)
        return ProceduralModels(self.models_per_class or _MODELS)

    def open_textures(self) -> ProceduralTextures | PictureTextures:
        """Return the textures; a folder is listed.

        Raises:
            InputError: if the folder has too few pictures.
        """
        side = min(self.size, LARGEST_SIDE_PX)
        if self.textures is None:
            return ProceduralTextures(side)
        is_multi = Variant.parse(self.variant).is_multi
        return PictureTextures(self.textures, side, 1 + (OBJECTS if is_multi else 1))


class SceneMaker:
    """Makes the scenes of a set, with the models and textures that they show.

    Args:
        config: the set.
    """

    def __init__(self, config: RenderConfig) -> None:
        """Open models and textures."""
        self._config = config
        self._variant = Variant.parse(config.variant)
        self.models, self.textures = config.open_models(), config.open_textures()

    @property
    def unusable(self) -> dict[str, str]:
        """Files that could not be used so far, and why."""
        return self.models.unusable | self.textures.unusable

    def make(self, index: int) -> tuple[Scene, list[Model], dict[int, np.ndarray]]:
        """Return a scene, the models of its objects, and its textures by number."""
        config = self._config
        scene = draw_scene(
            config.seed, index, self._variant, self.models.counts, self.textures.count
        )
        found = [self.models.find(thing.class_name, thing.model) for thing in scene.things]
        textures: dict[int, np.ndarray] = {}

        def find(number: int | None) -> int | None:
            if number is not None:
                number, textures[number] = self.textures.find(number)
            return number

        things = [
            replace(thing, model=number, texture=find(thing.texture))
            for thing, (number, _) in zip(scene.things, found, strict=True)
        ]
        background = find(scene.background_texture)
        scene = replace(scene, things=tuple(things), background_texture=background)
        return scene, [model for _, model in found], textures

    def describe(self, scene: Scene, models: Sequence[Model]) -> dict[str, Any]:
        """Return the record of an image, ready for JSON, with the names that folders give."""
        record = scene.metadata([vertices for vertices, _ in models])
        objects = record["objects"] if scene.variant.is_multi else [record]
        for one in objects:
            one["model_name"] = self.models.name(one["class"], one["model"])
        numbers = [scene.background_texture, *(thing.texture for thing in scene.things)]
        names = [None if n is None else self.textures.name(n) for n in numbers]
        record["texture_names"] = names if any(names) else None
        return record


@cache
def _opened(config: RenderConfig) -> SceneMaker:
    """Return what a process makes scenes with; a folder is listed once."""
    return SceneMaker(config)


@cache
def _tracer(size: int, samples: int, variant: str) -> Tracer:
    return Tracer(size, samples, variant)


def render_scene(config: RenderConfig, index: int) -> Rendering:
    """Path-trace one image of a set.

    Args:
        config: the set.
        index: number of the image.

    Raises:
        ImportError: if mitsuba is not installed.
    """
    scene, models, textures = _opened(config).make(index)
    tracer = _tracer(config.size, config.samples, choose_variant(config.renderer))
    return tracer.render(scene, models, textures.__getitem__)


# --- Jobs -----------------------------------------------------------------------------------------


def list_jobs(config: RenderConfig) -> Iterator[range]:
    """Yield the indices of the images that are rendered together; each image is in one job."""
    if Variant.parse(config.variant).is_multi:
        for start in range(0, config.images, FRAMES_PER_GROUP):
            yield range(start, min(start + FRAMES_PER_GROUP, config.images))
        return
    step = len(CLASSES)
    for start in range(0, config.images, step * FRAMES_PER_MODEL):
        stop = min(start + step * FRAMES_PER_MODEL, config.images)
        for first in range(start, min(start + step, stop)):
            yield range(first, stop, step)


def _unfinished(out: Path, name: str) -> Path:
    """Return where an array lies while the set is rendered; hidden."""
    return out / f".{name}.npy.part"


def _list_arrays(config: RenderConfig) -> dict[str, str]:
    """Return the names and types of the set's arrays."""
    is_multi = Variant.parse(config.variant).is_multi
    return {name: dtype for name, dtype in ARRAYS.items() if is_multi or name != "instances"}


def _array_header(config: RenderConfig, name: str) -> bytes:
    shape = (config.images, *array_shape(name, config.size))
    return pack_header(DTYPES[ARRAYS[name]], shape)


def _write_rows(out: Path, config: RenderConfig, renderings: dict[int, Rendering]) -> None:
    """Write the rows of some images into the set's arrays, and have the disk take them."""
    for name, dtype in _list_arrays(config).items():
        start = len(_array_header(config, name))
        with _unfinished(out, name).open("r+b") as file:
            for index, rendering in renderings.items():
                row = getattr(rendering, name).astype(DTYPES[dtype]).tobytes()
                file.seek(start + index * len(row))
                file.write(row)
            file.flush()
            os.fdatasync(file.fileno())


def _render_job(
    indices: range, report: Report, out: Path, config: RenderConfig
) -> tuple[dict[int, str], dict[str, str]]:
    """Render the images of one job that are not there yet.

    Returns:
        The line of each image's metadata, and the files that could not be used.
    """
    maker = _opened(config)
    lines: dict[int, str] = {}
    paths: dict[int, Path] = {}
    renderings: dict[int, Rendering] = {}
    for index in indices:
        scene, models, textures = maker.make(index)
        lines[index] = json.dumps(maker.describe(scene, models))
        path = out / scene.file_name
        if not path.exists():
            tracer = _tracer(config.size, config.samples, config.renderer)
            renderings[index] = tracer.render(scene, models, textures.__getitem__)
            paths[index] = path
        report(1)
    if renderings:
        _write_rows(out, config, renderings)
        with contextlib.ExitStack() as files:
            for index, path in paths.items():
                file: BinaryIO = files.enter_context(published(path))
                # Noise and textures hardly shrink: the quickest level is the smallest too.
                Image.fromarray(renderings[index].picture).save(file, "PNG", compress_level=1)
    return lines, maker.unusable


# --- The folder -----------------------------------------------------------------------------------


def _describe_set(config: RenderConfig, maker: SceneMaker) -> dict[str, Any]:
    """Return what makes the set what it is: settings, what folders hold, renderer."""
    mitsuba = load_mitsuba(config.renderer)
    settings = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(config).items()
    }
    variant = Variant.parse(config.variant)
    return {
        "made_by": MADE_BY,
        "format": _FORMAT,
        **settings,
        "variant": str(variant),
        "models_per_class": list(maker.models.counts),
        "models_digest": maker.models.digest,
        "textures_digest": maker.textures.digest,
        "renderer": f"mitsuba {mitsuba.__version__} {config.renderer}",
        "objects": OBJECTS if variant.is_multi else 1,
        "classes": list(CLASSES),
        "class_hsv": [[round(x, 6) for x in class_color(config.seed, i)] for i in range(10)],
    }


def _check_folder(out: Path, described: dict[str, Any]) -> list[str]:
    """See that a folder is empty or an unfinished set of this very config.

    Returns:
        The machines that have worked on it.
    """
    if not out.is_dir() or not any(out.iterdir()):
        return []
    found = read_record(out)
    remedy = "choose another folder or remove this one"
    if found is None:
        raise InputError(
            f"output ({out}) must be an empty folder or one that this command left unfinished, "
            f"got other files; {remedy}"
        )
    if (out / METADATA_NAME).exists():
        raise InputError(f"output ({out}) holds a finished set; {remedy}")
    machines = found.pop("machines", [])
    differences = [
        f"{name} was {found.get(name)}, now {described.get(name)}"
        for name in dict.fromkeys([*described, *found])
        if found.get(name) != described.get(name)
    ]
    if differences:
        raise InputError(
            f"output ({out}) holds an unfinished set of other settings: {'; '.join(differences)}; "
            f"give the same ones to go on with it, or {remedy}"
        )
    return machines


def _prepare_folder(out: Path, config: RenderConfig, machines: list[str], described: dict) -> None:
    """Make the folders and the arrays, and write down what the set is."""
    machine = f"{read_processor()}, {os.uname().sysname} {os.uname().machine}"
    record = {**described, "machines": list(dict.fromkeys([*machines, machine]))}
    publish_bytes(out / RECORD_NAME, (json.dumps(record, indent=1) + "\n").encode())
    is_multi = Variant.parse(config.variant).is_multi
    for name in ("scenes",) if is_multi else CLASSES[: config.images]:
        (out / name).mkdir(exist_ok=True)
    for leftover in out.glob("**/.*.tmp"):
        leftover.unlink()
    for name, dtype in _list_arrays(config).items():
        header = _array_header(config, name)
        num = config.images * math.prod(array_shape(name, config.size))
        size = len(header) + num * np.dtype(DTYPES[dtype]).itemsize
        path = _unfinished(out, name)
        if array_path(out, name).exists():  # stopped between this name and the metadata
            array_path(out, name).replace(path)
        if not path.exists():
            with published(path) as file:
                file.write(header)
                file.truncate(size)


def _finish(
    out: Path,
    config: RenderConfig,
    jobs: Iterator[tuple[dict[int, str], dict[str, str]]],
) -> dict[str, str]:
    """Gather what the jobs say, and give the arrays and the metadata their names.

    Returns:
        The files that could not be used, and why.
    """
    waiting: dict[int, str] = {}
    unusable: dict[str, str] = {}
    with published(out / METADATA_NAME) as file:
        number = 0
        for lines, found in jobs:
            waiting |= lines
            unusable |= found
            while number in waiting:
                file.write(waiting.pop(number).encode() + b"\n")
                number += 1
        assert number == config.images
        for name in _list_arrays(config):
            _unfinished(out, name).replace(array_path(out, name))
        if unusable:
            rows = [{"file": path, "reason": unusable[path]} for path in sorted(unusable)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            publish_bytes(out / _SKIPPED_NAME, text.encode())
    return unusable


def render_set(
    out: Path,
    config: RenderConfig,
    workers: int = 1,
    on_progress: Report = say_nothing,
) -> dict[str, str]:
    """Render a set into a folder, as ``docs/synthetic.md`` lists it.

    Each image is a pure function of the config and its index, so the bytes do not depend on the
    workers. A run that was stopped goes on where it was; ``metadata.jsonl`` is written last, and a
    folder with it is finished.

    Args:
        out: folder to make; empty, absent, or left unfinished by the same config.
        config: what to render.
        workers: processes, at least 1; each takes about 150 MB.
        on_progress: called in this process with the number of images just done.

    Returns:
        Meshes and pictures of the given folders that could not be used, and why.

    Raises:
        InputError: if the folder holds anything else, the workers are less than 1, or a folder of
            models or textures is none.
        ImportError: if mitsuba is not installed.
    """
    if workers < 1:
        raise InputError(f"workers ({workers}) must be 1 or more; set --workers 1")
    config = replace(config, renderer=choose_variant(config.renderer))
    described = _describe_set(config, SceneMaker(config))
    make_folder(out, "OUT")
    _check_folder(out, described)
    busy = f"output ({out}): another render-synthetic is at work in it; wait for it or stop it"
    with locked(out, busy):
        _prepare_folder(out, config, _check_folder(out, described), described)
        job = partial(_render_job, out=out, config=config)
        jobs = run_jobs(job, list_jobs(config), workers, on_progress, _name_job)
        with contextlib.closing(jobs):
            return _finish(out, config, jobs)


def _name_job(indices: range) -> str:
    return f"images {indices[0]} .. {indices[-1]}"
