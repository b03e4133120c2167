"""Path-trace scenes with mitsuba and write a set of images.

The camera, the background plane and the powers of the lights are those of the study's Blender file
(Newell and Deng 2020). What differs from it, and why, stands in ``docs/synthetic.md``.

Shape legend: H W pixels.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..fields import Checked, Count, Range
from ..randomness import Seed
from ..system.files import publish_bytes, published
from ..system.workers import Report, run_jobs, say_nothing
from .scene import Scene, Variant, draw_scene
from .shapes import CLASSES, build_model

_CAMERA = np.array([1.0, 0.0, 0.4])
_TILT = 0.36 * math.pi
_FORWARD = np.array([-math.sin(_TILT), 0.0, -math.cos(_TILT)])
_FIELD_OF_VIEW_DEG = math.degrees(2 * math.atan(18 / 50))
_PLANE = np.array([-3.0, 0.0, -1.2])
_PLANE_HALF_SIDE = 10.0
_LAMP_WATTS = 100.0
# The study's lamp is a sphere of radius 1 that casts no shadow itself. Ours is a body: at 1 it
# would keep the sun from the object, at 0.4 it does not, and the image has less noise.
_LAMP_RADIUS = 0.4
_SUN_IRRADIANCE = 1.0
_SKY_RADIANCE = 0.05
_EXPOSURE = 0.75
_IMAGES_PER_JOB = 20
# Hidden, so that make-shards passes it over.
_SETTINGS_FILE, _METADATA_FILE = ".render.json", "metadata.jsonl"


@dataclass(frozen=True)
class RenderConfig(Checked):
    """A set of synthetic images."""

    variant: str = "0100"
    """Hard factors TCVL: texture, colour, viewpoint, light; 1 is random."""
    images: Count = 1600
    """Number of images, classes in equal shares."""
    size: Annotated[int, Range(16, 1024)] = 64
    """Height and width in pixels, 16 .. 1024."""
    seed: Seed = 0
    """Seed of all scenes."""
    samples: Annotated[int, Range(1, 4096)] = 16
    """Light paths a pixel, a square number; time grows with it, noise falls with its root."""
    models: Annotated[int, Range(1, 1_000_000)] = 24
    """Models that each class cycles through."""

    def check(self) -> None:
        """Refuse a variant of no such name, and samples that are no square."""
        Variant.parse(self.variant)
        root = math.isqrt(self.samples)
        if root**2 != self.samples:
            raise InputError(
                f"samples ({self.samples}) must be a square number; set --samples to {root**2}"
            )


@cache
def _mitsuba() -> ModuleType:
    """Import mitsuba in its scalar form, one thread.

    Raises:
        ImportError: with the line that installs it.
    """
    try:
        import drjit
        import mitsuba
    except ImportError as error:
        raise ImportError(
            "mitsuba, which renders the synthetic set, is not installed; "
            "run: pip install 'fastssl[synthetic]'"
        ) from error
    # The LLVM variants crash on machines without a matching libLLVM; the scalar one runs anywhere.
    mitsuba.set_variant("scalar_rgb")
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    # The pool's processes are the parallelism; threads would also add in changing order.
    drjit.set_thread_count(1)
    return mitsuba


def _material(rgb: tuple[float, float, float]) -> dict:
    """Return Blender's default material (roughness and specular 0.5) in a colour."""
    surface = {
        "type": "principled",
        "base_color": {"type": "rgb", "value": list(rgb)},
        "roughness": 0.5,
        "specular": 0.5,
    }
    return {"type": "twosided", "surface": surface}


def _object(mi: ModuleType, scene: Scene) -> object:
    """Return the scene's object as a mesh in world coordinates."""
    vertices = scene.vertices() @ scene.rotation().T
    faces = build_model(scene.class_name, scene.model)[1]
    properties = mi.Properties()
    properties["material"] = mi.load_dict(_material(scene.object_rgb))
    # Models mix flat walls and round tubes: one normal a face keeps the edges of both.
    properties["face_normals"] = True
    mesh = mi.Mesh(scene.group, len(vertices), len(faces), props=properties)
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = np.ravel(vertices).astype(np.float32)
    parameters["faces"] = np.ravel(faces)
    parameters.update()
    return mesh


def _describe(mi: ModuleType, scene: Scene, size: int, samples: int) -> dict:
    """Return mitsuba's description of a scene.

    The sampling weights send most shadow rays to where most light comes from: the noise at 16
    samples falls from 6.3 to 4.9 of 255 at no cost, the picture's expectation stays.
    """
    place = mi.ScalarTransform4f().look_at
    camera = place(_CAMERA.tolist(), (_CAMERA + _FORWARD).tolist(), [0, 0, 1])
    plane = place(_PLANE.tolist(), (_PLANE - _FORWARD).tolist(), [0, 0, 1])
    # A Lambertian sphere of area A that gives off P watts has the radiance P / (pi A).
    radiance = _LAMP_WATTS / (4 * math.pi**2 * _LAMP_RADIUS**2)
    film = {
        "type": "hdrfilm",
        "width": size,
        "height": size,
        "pixel_format": "rgb",
        "component_format": "float32",
        # A box touches one pixel only: no sum depends on the order of blocks.
        "rfilter": {"type": "box"},
    }
    return {
        "type": "scene",
        # One bounce lights what lies in shadow. In Blender a lamp is not seen by the camera.
        "integrator": {"type": "path", "max_depth": 3, "hide_emitters": True},
        "sensor": {
            "type": "perspective",
            "fov": _FIELD_OF_VIEW_DEG,
            "to_world": camera,
            "film": film,
            "sampler": {"type": "multijitter", "sample_count": samples},
        },
        "object": _object(mi, scene),
        "background": {
            "type": "rectangle",
            "to_world": plane @ mi.ScalarTransform4f().scale([_PLANE_HALF_SIDE] * 2 + [1]),
            "bsdf": _material(scene.background_rgb),
        },
        "lamp": {
            "type": "sphere",
            "center": list(scene.light),
            "radius": _LAMP_RADIUS,
            "emitter": {
                "type": "area",
                "radiance": {"type": "rgb", "value": radiance},
                "sampling_weight": 4.0,
            },
        },
        "sun": {
            "type": "directional",
            "direction": [0, 0, -1],
            "irradiance": {"type": "rgb", "value": _SUN_IRRADIANCE},
            "sampling_weight": 2.0,
        },
        "sky": {
            "type": "constant",
            "radiance": {"type": "rgb", "value": _SKY_RADIANCE},
            "sampling_weight": 0.5,
        },
    }


def to_srgb(linear: NDArray) -> NDArray[np.uint8]:
    """Encode linear radiance by the sRGB curve (IEC 61966-2-1), rounded to the nearest of 256."""
    linear = np.clip(np.asarray(linear, np.float64), 0, 1)
    curved = 1.055 * np.power(linear, 1 / 2.4) - 0.055
    return np.round(255 * np.where(linear <= 0.0031308, 12.92 * linear, curved)).astype(np.uint8)


def render_scene(scene: Scene, size: int = 64, samples: int = 16) -> NDArray[np.uint8]:
    """Path-trace one scene.

    Args:
        scene: what to show.
        size: height and width in pixels.
        samples: light paths a pixel, a square number.

    Returns:
        uint8 (H, W, 3), sRGB.

    Raises:
        ImportError: if mitsuba is not installed.
    """
    mi = _mitsuba()
    described = mi.load_dict(_describe(mi, scene, size, samples))
    return to_srgb(_EXPOSURE * np.array(mi.render(described, seed=scene.sampler_seed)))


def _scene_at(config: RenderConfig, index: int) -> Scene:
    return draw_scene(config.seed, index, Variant.parse(config.variant), config.models)


def _render_job(start: int, report: Report, out: Path, config: RenderConfig) -> None:
    """Render the images of one job that are not there yet."""
    for index in range(start, min(start + _IMAGES_PER_JOB, config.images)):
        scene = _scene_at(config, index)
        path = out / scene.file_name
        if not path.exists():
            picture = Image.fromarray(render_scene(scene, config.size, config.samples))
            with published(path) as file:
                picture.save(file, format="PNG")
        report(1)


def _prepare_folder(out: Path, config: RenderConfig) -> None:
    """Make the folder, or check that what stands there is an unfinished set of this very config."""
    settings = asdict(config)
    record = out / _SETTINGS_FILE
    if out.exists() and not out.is_dir():
        raise InputError(f"output ({out}) must be a folder, got a file; choose another path")
    if out.is_dir() and any(out.iterdir()):
        is_same = record.is_file() and record.read_text() == json.dumps(settings)
        if not is_same or (out / _METADATA_FILE).exists():
            state = "a finished set" if (out / _METADATA_FILE).exists() else "other files"
            raise InputError(
                f"output ({out}) must be an empty folder or one that this command left unfinished, "
                f"got {state}; choose another folder or remove this one"
            )
    out.mkdir(parents=True, exist_ok=True)
    publish_bytes(record, json.dumps(settings).encode())


def render_set(
    out: Path,
    config: RenderConfig,
    workers: int = 1,
    on_progress: Report = say_nothing,
) -> None:
    """Render a set: ``OUT/<class>/<class>_m<model>_<index>.png`` and ``OUT/metadata.jsonl``.

    Each image is a pure function of the config and its index, so the bytes do not depend on the
    workers. A run that was stopped goes on where it was; ``metadata.jsonl`` is written last, and a
    folder with it is finished.

    Args:
        out: folder to make; empty, absent, or left unfinished by the same config.
        config: what to render.
        workers: processes, at least 1; each takes about 150 MB.
        on_progress: called in this process with the number of images just done.

    Raises:
        InputError: if the folder holds anything else or the workers are less than 1.
        ImportError: if mitsuba is not installed.
    """
    if workers < 1:
        raise InputError(f"workers ({workers}) must be 1 or more; set --workers 1")
    _mitsuba()
    _prepare_folder(out, config)
    for name in CLASSES[: config.images]:
        (out / name).mkdir(exist_ok=True)
    job = partial(_render_job, out=out, config=config)
    list(run_jobs(job, range(0, config.images, _IMAGES_PER_JOB), workers, on_progress))
    for leftover in out.glob("**/.*.tmp"):
        leftover.unlink()
    _write_metadata(out / _METADATA_FILE, config)


def _write_metadata(path: Path, config: RenderConfig) -> None:
    with published(path) as file:
        for index in range(config.images):
            record = {"variant": config.variant, **_scene_at(config, index).metadata()}
            file.write(json.dumps(record).encode() + b"\n")
