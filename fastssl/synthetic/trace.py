"""Path-trace one scene with mitsuba: its picture, and of every pixel what, how far and which way.

The camera, the background plane and the powers of the lights are those of the study's Blender file
(Newell and Deng 2020). What differs from it, and why, stands in ``docs/synthetic.md``.

Shape legend: S height and width in pixels, V vertices, F faces, T side of a texture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .scene import COLOR_SHARE, Scene, Thing

Renderer = Literal["auto", "scalar_rgb", "cuda_ad_rgb"]
"""A form of mitsuba; ``auto`` takes the GPU if there is one."""
SCALAR: Renderer = "scalar_rgb"
CUDA: Renderer = "cuda_ad_rgb"
"""Mitsuba's variants: one core, or a GPU."""

MAX_DEPTH_M, DEPTH_LEVELS = 2.55, 100
"""Of the study's 8-bit depth: clipped to 2.55 m, centimetres."""

_CAMERA = np.array([1.0, 0.0, 0.4])
_TILT = 0.36 * math.pi
_FORWARD = np.array([-math.sin(_TILT), 0.0, -math.cos(_TILT)])
# The camera's axes: right, up, and back to whoever looks.
_AXES = np.array(
    [
        [0.0, 1.0, 0.0],
        [-math.cos(_TILT), 0.0, math.sin(_TILT)],
        [math.sin(_TILT), 0.0, math.cos(_TILT)],
    ]
)
_FIELD_OF_VIEW_DEG = math.degrees(2 * math.atan(18 / 50))
_GEOMETRY = "depth:depth,shape:shape_index,normal:sh_normal"
# Mitsuba measures a ray from this plane on.
_NEAR = 0.01
_PLANE = np.array([-3.0, 0.0, -1.2])
_PLANE_HALF_SIDE = 10.0
# The camera sees a sixth of the plane's side: a texture once over that, mirrored beyond.
_PLANE_TILES = 6.0
_LAMP_WATTS = 100.0
# The study's lamp is a sphere of radius 1 that casts no shadow itself. Ours is a body: at 1 it
# would keep the sun from the object, at 0.4 it does not, and the image has less noise.
_LAMP_RADIUS = 0.4
_SUN_IRRADIANCE = 1.0
_SKY_RADIANCE = 0.05
_EXPOSURE = 0.75

Vertices = NDArray[np.float64]
Faces = NDArray[np.uint32]
Model = tuple[Vertices, Faces]
LoadTexture = Callable[[int], NDArray[np.uint8]]


@dataclass(frozen=True)
class Rendering:
    """What is known of every pixel of a scene."""

    picture: NDArray[np.uint8]
    """(S, S, 3), sRGB."""
    segmentation: NDArray[np.uint8]
    """(S, S): 0 background, else 1 + the number of the class, at the pixel's middle."""
    instances: NDArray[np.uint8]
    """(S, S): 0 background, else 1 + the number of the object."""
    depth: NDArray[np.float16]
    """(S, S): metres along the camera's axis to what the pixel's middle shows."""
    normals: NDArray[np.uint8]
    """(S, S, 3): which way that faces, n = 2 rgb / 255 - 1, along right, up and back of the
    camera."""


def to_study_depth(depth: NDArray) -> NDArray[np.uint8]:
    """Return depth as the study stores it: centimetres, cut off below 1 and at 2.55 m.

    Args:
        depth: metres, of any shape.
    """
    return (np.clip(np.asarray(depth, np.float32), 0, MAX_DEPTH_M) * DEPTH_LEVELS).astype(np.uint8)


def to_srgb(linear: NDArray) -> NDArray[np.uint8]:
    """Encode linear radiance by the sRGB curve (IEC 61966-2-1), rounded to the nearest of 256."""
    linear = np.clip(np.asarray(linear, np.float32), 0, 1)
    curved = np.float32(1.055) * np.power(linear, np.float32(1 / 2.4)) - np.float32(0.055)
    low = np.float32(12.92) * linear
    encoded = np.where(linear <= np.float32(0.0031308), low, curved)
    return np.round(255 * encoded).astype(np.uint8)


@cache
def _to_linear() -> NDArray[np.float32]:
    """Return the linear value of each of 256 levels of sRGB."""
    level = np.arange(256) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return linear.astype(np.float32)


def load_mitsuba(variant: str) -> ModuleType:
    """Import mitsuba in one of its forms; a process keeps to one.

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
    if mitsuba.variant() != variant:
        mitsuba.set_variant(variant)
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    # The pool's processes are the parallelism; threads would also add in changing order.
    drjit.set_thread_count(1)
    return mitsuba


def choose_variant(asked: Renderer) -> Renderer:
    """Return the form of mitsuba that this machine renders with.

    Args:
        asked: ``auto`` takes the GPU if there is one; else the form itself.

    Raises:
        InputError: if a GPU is asked for and there is none.
        ImportError: if mitsuba is not installed.
    """
    if asked == SCALAR:
        return SCALAR
    load_mitsuba(SCALAR)
    import drjit

    has_gpu = drjit.has_backend(drjit.JitBackend.CUDA)
    if asked == CUDA and not has_gpu:
        raise InputError(
            f"renderer ({CUDA}) needs an NVIDIA GPU with a driver, found none; "
            f"take --renderer {SCALAR}"
        )
    return CUDA if has_gpu else SCALAR


# --- Surfaces -------------------------------------------------------------------------------------


def _paint(mi: ModuleType, rgb: tuple[float, float, float], texture: NDArray | None) -> Any:
    """Return a colour, or a texture with as much of the colour in it as colours count for."""
    if texture is None:
        return {"type": "rgb", "value": list(rgb)}
    bitmap = mi.Bitmap(np.ascontiguousarray(texture))
    return {"type": "bitmap", "bitmap": bitmap, "raw": True, "wrap_mode": "mirror"}


def _blend(
    texture: NDArray[np.uint8] | None, rgb: tuple[float, float, float], share: float
) -> NDArray[np.float32] | None:
    """Return a texture in linear light, so much of it replaced by a colour."""
    if texture is None:
        return None
    linear = _to_linear()[texture]
    return np.float32(1 - share) * linear + np.float32(share) * np.asarray(rgb, np.float32)


def _cube_coordinates(corners: Vertices) -> NDArray[np.float32]:
    """Return texture coordinates (3 F, 2): every face is seen along the axis it faces most."""
    normal = np.abs(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    axis = np.argmax(normal, axis=1)
    across, up = np.array([2, 0, 0])[axis], np.array([1, 2, 1])[axis]
    rows = np.arange(len(corners))[:, None]
    places = np.stack(
        [corners[rows, [[0, 1, 2]], across[:, None]], corners[rows, [[0, 1, 2]], up[:, None]]], -1
    )
    return (places.reshape(-1, 2) + 0.5).astype(np.float32)


def _build_mesh(mi: ModuleType, thing: Thing, model: Model, material: Any) -> Any:
    """Return an object as a mesh in world coordinates."""
    vertices, faces = model
    is_textured = thing.texture is not None
    places = thing.place(vertices)
    if is_textured:  # faces that share a vertex need not share its texture coordinates
        corners = vertices[faces]
        places, faces = places[faces.ravel()], np.arange(faces.size, dtype=np.uint32)
    properties = mi.Properties()
    properties["material"] = mi.load_dict(material)
    # Models mix flat walls and round tubes: one normal a face keeps the edges of both.
    properties["face_normals"] = True
    mesh = mi.Mesh(
        thing.group,
        len(places),
        faces.size // 3,
        props=properties,
        has_vertex_texcoords=is_textured,
    )
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = np.ravel(places).astype(np.float32)
    parameters["faces"] = np.ravel(faces)
    if is_textured:
        parameters["vertex_texcoords"] = np.ravel(_cube_coordinates(corners))
    parameters.update()
    return mesh


# --- The tracer -----------------------------------------------------------------------------------


class Tracer:
    """Renders scenes of one size; what all scenes share is made once.

    Args:
        size: S, 16 or more.
        samples: light paths a pixel, a square number.
        variant: form of mitsuba, ``scalar_rgb`` or ``cuda_ad_rgb``.
    """

    def __init__(self, size: int, samples: int, variant: str = SCALAR) -> None:
        """Load mitsuba, the camera and what does not move."""
        self._mi = mi = load_mitsuba(variant)
        self._is_scalar = variant == SCALAR
        place = mi.ScalarTransform4f().look_at
        plane = place(_PLANE.tolist(), (_PLANE - _FORWARD).tolist(), [0, 0, 1])
        self._plane_place = plane @ mi.ScalarTransform4f().scale([_PLANE_HALF_SIDE] * 2 + [1])
        # One bounce lights what lies in shadow. In Blender a lamp is not seen by the camera.
        self._path = mi.load_dict({"type": "path", "max_depth": 3, "hide_emitters": True})
        self._geometry = mi.load_dict({"type": "aov", "aovs": _GEOMETRY})
        sampling = {"type": "multijitter", "sample_count": samples}
        middles = {"type": "stratified", "sample_count": 1, "jitter": False}
        self._fixed = {
            "camera": mi.load_dict(_describe_camera(mi, size, sampling)),
            "middles": mi.load_dict(_describe_camera(mi, size, middles)),
            # The sampling weights send most shadow rays to where most light comes from: the noise
            # at 16 samples falls from 6.3 to 4.9 of 255 at no cost.
            "sun": mi.load_dict(
                {
                    "type": "directional",
                    "direction": [0, 0, -1],
                    "irradiance": {"type": "rgb", "value": _SUN_IRRADIANCE},
                    "sampling_weight": 2.0,
                }
            ),
            "sky": mi.load_dict(
                {
                    "type": "constant",
                    "radiance": {"type": "rgb", "value": _SKY_RADIANCE},
                    "sampling_weight": 0.5,
                }
            ),
        }
        # A ray's length times this is the distance along the camera's axis.
        step = (2 * (np.arange(size) + 0.5) / size - 1) * math.tan(
            math.radians(_FIELD_OF_VIEW_DEG) / 2
        )
        self._cosine = 1 / np.sqrt(1 + step[:, None] ** 2 + step[None] ** 2)
        across, down = np.meshgrid(step, step)
        self._rays = np.stack([across, -down, -np.ones_like(across)], axis=-1)

    def render(
        self, scene: Scene, models: list[Model], load_texture: LoadTexture | None = None
    ) -> Rendering:
        """Path-trace a scene.

        Args:
            scene: what to show.
            models: vertices and faces of each object.
            load_texture: gives the texture (T, T, 3) of a number; None where the scene has none.
        """
        described = self._mi.load_dict(self._describe(scene, models, load_texture))
        light = self._mi.render(described, sensor=0, integrator=self._path, seed=scene.sampler_seed)
        geometry = self._mi.render(described, sensor=1, integrator=self._geometry, seed=0)
        length, shape, *normal = np.moveaxis(np.array(geometry), -1, 0)
        instances = self._find_objects(described, len(scene.things))[shape.astype(int)]
        to_class = np.array([0, *(1 + thing.label for thing in scene.things)], np.uint8)
        return Rendering(
            picture=to_srgb(_EXPOSURE * np.array(light)),
            segmentation=to_class[instances],
            instances=instances,
            depth=(length * self._cosine + _NEAR).astype(np.float16),
            normals=self._encode_normals(np.stack(normal, axis=-1)),
        )

    def _encode_normals(self, normals: NDArray) -> NDArray[np.uint8]:
        """Return world normals (S, S, 3) by the camera's axes, as an image of them has it."""
        seen = normals.astype(np.float64) @ _AXES.T
        # Faces of models are wound either way; what is seen of one is the side that faces us.
        is_away = (seen * self._rays).sum(-1, keepdims=True) > 0
        facing = np.round(np.where(is_away, -seen, seen), 6)  # a zero is one number of two
        return np.round((facing + 1) * 127.5).astype(np.uint8)

    def _find_objects(self, described: Any, num_objects: int) -> NDArray[np.uint8]:
        """Return 1 + the number of the object by mitsuba's number of a shape; 0 for all others."""
        shapes = described.shapes()
        numbers = np.arange(1, 1 + len(shapes))
        if not self._is_scalar:  # there shapes of all scenes share one registry
            import drjit

            pointers: Any = drjit.reinterpret_array(self._mi.UInt32, described.shapes_dr())
            numbers = pointers.numpy().astype(int)
        names = {_object_name(i): 1 + i for i in range(num_objects)}
        to_object = np.zeros(1 + numbers.max(), np.uint8)
        to_object[numbers] = [names.get(shape.id(), 0) for shape in shapes]
        return to_object

    def _describe(
        self, scene: Scene, models: list[Model], load_texture: LoadTexture | None
    ) -> dict[str, Any]:
        """Return mitsuba's description of a scene."""
        mi = self._mi

        def load(number: int | None) -> NDArray[np.uint8] | None:
            if number is None:
                return None
            assert load_texture is not None
            return load_texture(number)

        share = 0.0 if scene.variant.random_color else COLOR_SHARE
        objects = {}
        for i, (thing, model) in enumerate(zip(scene.things, models, strict=True)):
            texture = _blend(load(thing.texture), thing.rgb, share)
            # Blender's default material: roughness and specular 0.5.
            surface = {
                "type": "principled",
                "base_color": _paint(mi, thing.rgb, texture),
                "roughness": 0.5,
                "specular": 0.5,
            }
            material = {"type": "twosided", "surface": surface}
            objects[_object_name(i)] = _build_mesh(mi, thing, model, material)
        background = _blend(load(scene.background_texture), scene.background_rgb, 0.0)
        paint = _paint(mi, scene.background_rgb, background)
        if background is not None:
            # Half a tile further, so that the plane's middle is a texture's middle.
            tiles = mi.ScalarTransform3f().scale([_PLANE_TILES, _PLANE_TILES])
            paint["to_uv"] = mi.ScalarTransform3f().translate([0.5, 0.5]) @ tiles
        # A Lambertian sphere of area A that gives off P watts has the radiance P / (pi A).
        radiance = _LAMP_WATTS / (4 * math.pi**2 * _LAMP_RADIUS**2)
        return {
            "type": "scene",
            **self._fixed,
            **objects,
            "background": {
                "type": "rectangle",
                "to_world": self._plane_place,
                # Matt: half of the time goes to the background, and a gloss would hardly show.
                "bsdf": {"type": "twosided", "surface": {"type": "diffuse", "reflectance": paint}},
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
        }


def _object_name(number: int) -> str:
    return f"object{number}"


def _describe_camera(mi: ModuleType, size: int, sampler: dict[str, Any]) -> dict[str, Any]:
    to_world = mi.ScalarTransform4f().look_at(
        _CAMERA.tolist(), (_CAMERA + _FORWARD).tolist(), [0, 0, 1]
    )
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
        "type": "perspective",
        "fov": _FIELD_OF_VIEW_DEG,
        "near_clip": _NEAR,
        "to_world": to_world,
        "film": film,
        "sampler": sampler,
    }
