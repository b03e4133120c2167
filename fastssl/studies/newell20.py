"""Newell and Deng 2020: four pretext methods on synthetic images, and what they save of labels.

One row a method in ``METHODS``. Adam with betas of 0.8 and 0.999 and a coupled decay of all
parameters; the rate climbs from 0 to its peak over five rounds and falls along a line to its end.
A round is a number of images, not an epoch: 50,000, or 10,000 of dense forms, whatever the data
set's size. The study trains in mixed precision: ``--precision bf16`` (or ``fp16``, as it did).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..config import (
    CheckpointConfig,
    LoaderConfig,
    LogConfig,
    RunConfig,
    ScheduleConfig,
)
from ..errors import InputError, nearest
from ..tasks import AmdimConfig, CMCConfig, NewellRotationConfig, VaeConfig
from ..training.courses import Length, build_adam, rise_and_fall
from .cells import SYNTHETIC, Cell
from .newell20_figures import list_linear
from .operations import GIGAFLOPS

SMOKE_STEPS = 200
"""Of small forms, which learn on a CPU."""


@dataclass(frozen=True)
class Form:
    """A trunk of the study and the images that it is for."""

    trunk: str
    """As ``build_trunk`` names it."""
    size: int
    """Side of its images in pixels."""
    round_images: int
    """Images of a round."""


FORMS = {
    "resnet9": Form("resnet9", 64, 50_000),
    "resnet50": Form("resnet50_newell", 64, 50_000),
    "resnet50_dense": Form("resnet50_newell_dense", 128, 10_000),
    "amdim_encoder": Form("amdim_encoder", 64, 50_000),
}
"""By the names that cells have them under; no dense ResNet9 of the study is known. The last is
AMDIM's own network, of ResNet-50's size; how it was trained is not known, here as the ResNet-50."""


@dataclass(frozen=True)
class Course:
    """How long a method trains a trunk, and at which rate."""

    peak_lr: float
    """Rate after five rounds."""
    final_lr: float
    """Rate at the end."""
    weight_decay: float
    """Of all parameters, in the gradient."""
    batch_size: int
    """Images a step."""
    rounds: int
    """Length."""


@dataclass(frozen=True)
class Method:
    """A row of the study: its task, and how it is trained on each trunk."""

    make_task: Callable[[str, Course], Any]
    """Makes the task's config from the form's name and the course."""
    courses: Mapping[str, Course]
    """By form."""
    trunks: Mapping[str, str] = field(default_factory=dict)
    """Form, or ``resnet9_dense`` of small forms -> trunk, where the method has one of its own."""
    views_per_image: int = 1
    """Views of an image that the study counts as images of a round."""


def _make_rotation(form: str, _course: Course) -> NewellRotationConfig:
    return NewellRotationConfig(size=FORMS[form].size)


def _make_vae(form: str, course: Course) -> VaeConfig:
    return VaeConfig(size=FORMS[form].size, kl_batch_size=course.batch_size)


def _make_amdim(form: str, _course: Course) -> AmdimConfig:
    config = AmdimConfig(size=FORMS[form].size)
    return dataclasses.replace(config, projection="residual") if form == "amdim_encoder" else config


def _make_cmc(form: str, _course: Course) -> CMCConfig:
    own: dict[str, dict[str, Any]] = {
        "resnet9": {},
        "resnet50": {"num_negatives": 4086, "momentum": 0.4},
        "resnet50_dense": {"num_negatives": 16384, "momentum": 0.4, "jitter_probability": 0.8},
    }
    return CMCConfig(size=FORMS[form].size, **own[form])


METHODS: dict[str, Method] = {
    "cmc": Method(
        _make_cmc,
        {
            "resnet9": Course(1e-3, 1e-6, 1e-5, 256, 800),
            "resnet50": Course(5e-3, 1e-6, 1e-5, 384, 1600),
            "resnet50_dense": Course(1e-3, 1e-6, 1e-5, 64, 1600),
        },
        {
            "resnet9": "resnet9_halves",
            "resnet9_dense": "resnet9_dense_halves",
            "resnet50": "resnet50_newell_halves",
            "resnet50_dense": "resnet50_newell_dense_halves",
        },
    ),
    "vae": Method(
        _make_vae,
        {
            "resnet9": Course(1e-3, 1e-5, 1e-5, 512, 800),
            "resnet50": Course(1e-3, 1e-5, 1e-5, 384, 800),
            "resnet50_dense": Course(1e-3, 1e-5, 1e-5, 96, 1200),
        },
    ),
    "rotation": Method(
        _make_rotation,
        {
            "resnet9": Course(5e-4, 1e-5, 1e-4, 512, 400),
            "resnet50": Course(5e-4, 1e-5, 1e-4, 384, 400),
            "resnet50_dense": Course(5e-4, 1e-5, 1e-4, 64, 900),
        },
    ),
    "amdim": Method(
        _make_amdim,
        {
            "resnet9": Course(1e-3, 1e-6, 1e-5, 384, 800),
            "resnet50": Course(1e-3, 1e-6, 1e-5, 192, 1600),
            "resnet50_dense": Course(5e-4, 1e-6, 1e-5, 32, 1600),
            "amdim_encoder": Course(1e-3, 1e-6, 1e-5, 192, 1600),
        },
        views_per_image=2,
    ),
}
"""Method -> its row."""

WARMUP_ROUNDS = 5


def newell20(method: str, form: str) -> RunConfig[Any]:
    """Return one cell of the study: a method on a trunk.

    Args:
        method: one of ``METHODS``.
        form: one of ``FORMS`` that the method has.

    Returns:
        The config; its recipe is named ``newell20_<method>_<form>``.

    Raises:
        InputError: for a method or form that the study does not have.
    """
    row = _find("method", method, METHODS)
    course, images = _find("form", form, row.courses), FORMS[form]
    return RunConfig(
        recipe=f"newell20_{method}_{form}",
        task=row.make_task(form, course),
        trunk=row.trunks.get(form, images.trunk),
        data=LoaderConfig(global_batch_size=course.batch_size),
        optim=build_adam(course.peak_lr, course.weight_decay),
        schedule=rise_and_fall(
            Length(course.rounds, images.round_images // row.views_per_image),
            WARMUP_ROUNDS,
            course.final_lr / course.peak_lr,
        ),
    )


def _find(what: str, given: str, known: Mapping[str, Any]) -> Any:
    if given not in known:
        hint = nearest(given, known, lists_all=True)
        raise InputError(f"{what} ('{given}') is not of Newell and Deng 2020{hint}")
    return known[given]


def list_cells() -> dict[str, Cell]:
    """Return every cell by the name of its recipe."""
    cells = {}
    for method, row in METHODS.items():
        for number, form in enumerate(row.courses):
            known = list_linear(method) if form == "resnet9" else ()
            cells[f"newell20_{method}_{form}"] = Cell(
                partial(newell20, method, form),
                SYNTHETIC,
                GIGAFLOPS[f"newell20_{method}"][number],
                known,
                ("table1",) if known else (),
            )
    return cells


def cmc_smoke() -> RunConfig[CMCConfig]:
    """A trial of 200 steps, 30 s of one core: match pictures' lightness and colours, 32 px.

    Command: ``fastssl train newell20_cmc_smoke --data.path shards/ --output-dir runs/smoke``.
    """
    return _shrink("cmc", "resnet9", size=32, num_negatives=1024)


def cmc_dense_smoke() -> RunConfig[CMCConfig]:
    """A trial of 200 steps, 75 s of one core: match lightness and colours, dense, 64 px.

    Command: ``fastssl train newell20_cmc_dense_smoke --data.path shards/ --output-dir runs/smoke``.
    """
    return _shrink("cmc", "resnet50_dense", size=64, num_negatives=1024)


def vae_smoke() -> RunConfig[VaeConfig]:
    """A trial of 200 steps, 30 s of one core: paint a picture again from few numbers, 32 px.

    Command: ``fastssl train newell20_vae_smoke --data.path shards/ --output-dir runs/smoke``.
    """
    return _shrink("vae", "resnet9", size=32, output=32)


def vae_dense_smoke() -> RunConfig[VaeConfig]:
    """A trial of 200 steps, 65 s of one core: paint a 64 px picture at 32 px, dense.

    Command: ``fastssl train newell20_vae_dense_smoke --data.path shards/ --output-dir runs/smoke``.
    """
    return _shrink("vae", "resnet50_dense", size=64, output=32)


def rotation_smoke() -> RunConfig[NewellRotationConfig]:
    """A trial of 200 steps, 25 s of one core: tell by how much a picture was turned, 32 px.

    Command: ``fastssl train newell20_rotation_smoke --data.path shards/ --output-dir runs/smoke``.
    """
    return _shrink("rotation", "resnet9", size=32)


def rotation_dense_smoke() -> RunConfig[NewellRotationConfig]:
    """A trial of 200 steps, 70 s of one core: tell how a picture was turned, dense, 64 px.

    Command: ``fastssl train newell20_rotation_dense_smoke --data.path shards/ --output-dir
    runs/smoke``.
    """
    return _shrink("rotation", "resnet50_dense", size=64)


def amdim_smoke() -> RunConfig[AmdimConfig]:
    """A trial of 200 steps, 45 s of one core: find a picture's other view by its places, 32 px.

    Command: ``fastssl train newell20_amdim_smoke --data.path shards/ --output-dir runs/smoke``.
    """
    return _shrink("amdim", "resnet9", size=32)


def amdim_dense_smoke() -> RunConfig[AmdimConfig]:
    """A trial of 200 steps, 165 s of one core: find a picture's other view, dense, 64 px.

    Command: ``fastssl train newell20_amdim_dense_smoke --data.path shards/ --output-dir
    runs/smoke``.
    """
    return _shrink("amdim", "resnet50_dense", size=64)


def _shrink(method: str, form: str, **changes: Any) -> RunConfig[Any]:
    """Shrink a cell to 200 steps of a narrow ResNet9.

    Args:
        method: one of ``METHODS``.
        form: one of ``FORMS``; a dense one becomes the dense ResNet9.
        changes: fields of the task.
    """
    config = newell20(method, form)
    is_dense = form.endswith("_dense")
    own = "resnet9_dense" if is_dense else "resnet9"
    small = dataclasses.replace(
        config,
        recipe=f"newell20_{method}{'_dense' if is_dense else ''}_smoke",
        task=dataclasses.replace(config.task, **changes),
        trunk=METHODS[method].trunks.get(own, own),
    )
    return shrink_course(small)


def shrink_course(config: RunConfig[Any]) -> RunConfig[Any]:
    """Return a run of 200 steps of 32 pictures on a narrow trunk."""
    return dataclasses.replace(
        config,
        width=1,
        max_steps=SMOKE_STEPS,
        data=dataclasses.replace(config.data, global_batch_size=32),
        optim=dataclasses.replace(config.optim, lr=1e-3),
        schedule=ScheduleConfig(epochs=1000.0, kind="linear", milestones=(), warmup_epochs=0.0),
        checkpoint=CheckpointConfig(every_steps=100),
        log=LogConfig(every_steps=20, pictures_every_steps=100),
    )
