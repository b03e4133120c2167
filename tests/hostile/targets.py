"""Hostile targets of datasets for ``check-shards`` and ``combine-shards``, and COCO's instances."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fastssl.shards.manifest import MANIFEST_NAME
from fastssl.shards.npy import pack_header

from .case import Case, make_victim
from .datasets import NUM_SAMPLES, VALUES, copy_base, train
from .runs import Evil, Words
from .sources import make_photograph

NAME = "depth"


def add_target(
    dataset: Path,
    shape: tuple[int, ...] = (NUM_SAMPLES, 4),
    told: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Give a dataset a target that its manifest lists, its SHA-256 made to fit; return the file.

    Args:
        dataset: the folder.
        shape: of the array of float32.
        told: what the manifest says instead.
    """
    import hashlib

    content = pack_header("<f4", shape)
    path = dataset / "targets" / f"{NAME}.npy"
    path.parent.mkdir(exist_ok=True)
    size = int(np.prod(shape, dtype=object)) * 4
    path.write_bytes(content)
    os.truncate(path, len(content) + min(size, 1 << 40))
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if size < 1 << 20 else "0" * 64
    manifest = dataset / MANIFEST_NAME
    fields = json.loads(manifest.read_bytes())
    entry = {"name": NAME, "dtype": "float32", "shape": list(shape), "sha256": digest}
    fields["targets"] = [{**entry, **told}]
    manifest.write_text(json.dumps(fields))
    return path


def _replace(make: Callable[[Path], Any], dataset: Path) -> None:
    path = add_target(dataset)
    path.unlink()
    make(path)


def _link_folder(dataset: Path) -> None:
    add_target(dataset)
    (dataset / "targets").rename(dataset.parent / "moved")
    (dataset / "targets").symlink_to("../moved")


def _save_objects(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Evil(path.parents[2] / "victim" / "executed")], object))


def list_targets() -> dict[str, Callable[[Path], Any]]:
    """Return changes of a dataset's targets by name."""
    headers = {
        "of objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (24, 4), }",
        "of Fortran's order": b"{'descr': '<f4', 'fortran_order': True, 'shape': (24, 4), }",
        "of more rows": b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999, 4), }",
        "of minus signs": b"-" * 3000,
        "of code": b"__import__('os').mkdir('../victim/executed')",
    }
    kinds: dict[str, Callable[[Path], Any]] = {
        "a pipe": os.mkfifo,
        "a folder": Path.mkdir,
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
        "a link out": lambda path: path.symlink_to("../../victim/precious"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "nothing": Path.touch,
        "not there": lambda _: None,
        "a pickle": _save_objects,
        **{
            f"an array {name}": partial(
                lambda header, path: path.write_bytes(
                    b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
                ),
                header,
            )
            for name, header in headers.items()
        },
    }
    shapes = (
        *((NUM_SAMPLES, 1 << 33), (NUM_SAMPLES, 1 << 60), (NUM_SAMPLES, 1 << 24), (1 << 40,)),
        *((NUM_SAMPLES, *[1] * 30), (NUM_SAMPLES, 10**40)),
    )
    return {
        **{f"a target is {kind}": partial(_replace, make) for kind, make in kinds.items()},
        **{f"a target of {shape!s:.40}": partial(add_target, shape=shape) for shape in shapes},
        **{
            f"a target's {field} = {value!r:.30}": partial(add_target, told={field: value})
            for field in ("name", "dtype", "shape", "sha256")
            for value in VALUES[::3]
        },
        "a target called ../victim": partial(add_target, told={"name": "../victim/precious"}),
        "labels of floats": partial(add_target, told={"name": "labels"}),
        "targets lead out": _link_folder,
    }


# --- COCO's instances -----------------------------------------------------------------------------

IMAGES = [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 64}]
CATEGORIES = [{"id": 1, "name": "cat"}]
BOXES = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]


def list_instances() -> dict[str, bytes | Callable[[], bytes]]:
    """Return files of instances that are none, or harmful; the larger ones are yet to be made."""

    def told(**fields: Any) -> bytes:
        parts = {"images": IMAGES, "annotations": BOXES, "categories": CATEGORIES}
        return json.dumps({**parts, **fields}).encode()

    def image(**fields: Any) -> bytes:
        return told(images=[{**IMAGES[0], **fields}])

    def box(**fields: Any) -> bytes:
        return told(annotations=[{**BOXES[0], **fields}])

    names = ("", ".", "..", "/", "/etc/passwd", "../victim/precious", "x" * 1000, "a.jpg/", "\0")
    names += ("/dev/zero", "/proc/kmsg", "\x1b[2J.jpg", "\ud800.jpg", "a.jpg\n", "pipe")
    return {
        "nothing in it": b"{}",
        "a nest": b'{"images": ' + b"[" * 10**6,
        "a nest in it": told().replace(b'"images"', b'"x": ' + b"[" * 10**5, 1),
        "digits": b'{"images": ' + b"9" * 10**6 + b"}",
        "a byte order mark": b"\xef\xbb\xbf" + told(),
        "half": told()[:40],
        "UTF-16 behind": b"{" + told().decode().encode("utf-16"),
        "rubbish behind": b"{" + b"\xff" * 10**6,
        "the same key twice": told().replace(b'"annotations"', b'"images"'),
        "millions of lists": lambda: b'{"x": [' + b"[]," * 50_000_000 + b"[]]}",
        "millions of boxes": lambda: told().replace(
            json.dumps(BOXES[0]).encode(), b",".join([json.dumps(BOXES[0]).encode()] * 1_000_000)
        ),
        "ten billion labels": lambda: told(
            images=[{"id": i, "file_name": f"{i}.jpg"} for i in range(100_000)],
            categories=[{"id": i, "name": f"c{i}"} for i in range(100_000)],
        ),
        "a thousand million labels": lambda: told(
            images=[{"id": i, "file_name": f"{i}.jpg"} for i in range(10_000)],
            categories=[{"id": i, "name": f"c{i}"} for i in range(100_000)],
        ),
        "a box of 1e308": box(bbox=[1e308] * 4),
        "a box of NaN": box(bbox=[float("nan")] * 4),
        "a box of 10**400": box(bbox=[10**400] * 4),
        "a box of 1e999": box().replace(b"[1, 2, 3, 4]", b"[1e999, 1, 1, 1]"),
        "a box of nothing": box(bbox=[]),
        "a crowd of 5": box(iscrowd=5),
        "an id of 10**30": box(image_id=10**30),
        "an id of 1.5": image(id=1.5),
        "a width of 2**62": image(width=2**62),
        "a width of nothing": image(width=0),
        "a name of a megabyte": told(categories=[{"id": 1, "name": "x" * 10**6}]),
        "a name that moves the cursor": told(categories=[{"id": 1, "name": "\x1b[2J\n\0"}]),
        "a category of surrogates": told(categories=[{"id": 1, "name": "\ud800"}]),
        **{f"a picture called {name!r:.30}": image(file_name=name) for name in names},
    }


def _coco(text: bytes | Callable[[], bytes]) -> Callable[[Path], Words]:
    def prepare(folder: Path) -> Words:
        make_victim(folder)
        (folder / "in").mkdir()
        (folder / "in" / "a.jpg").write_bytes(make_photograph())
        os.mkfifo(folder / "in" / "pipe")
        content = text() if callable(text) else text
        (folder / "in" / "instances_x.json").write_bytes(content)
        words = ("make-shards", folder / "in" / "instances_x.json", folder / "out")
        return (*words, "--workers", "1")

    return prepare


def _kind(make: Callable[[Path], Any]) -> Callable[[Path], Words]:
    def prepare(folder: Path) -> Words:
        make(folder / "instances_x.json")
        return ("make-shards", folder / "instances_x.json", folder / "out", "--workers", "1")

    return prepare


def _sparse(path: Path) -> None:
    path.write_bytes(b"{")
    os.truncate(path, 1 << 40)


def list_kinds() -> dict[str, Callable[[Path], Any]]:
    """Return what stands in a file's place, by name."""
    return {
        "a pipe": os.mkfifo,
        "a link": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a terabyte": _sparse,
    }


def _put_skipped(make: Callable[[Path], Any], dataset: Path) -> None:
    (dataset / "skipped.jsonl").unlink(missing_ok=True)
    make(dataset / "skipped.jsonl")


def _stage(dataset: Path) -> None:
    (dataset.parent / ".out.combining").symlink_to("victim")


def _beside(make: Callable[[Path], Any]) -> Callable[[Path], Words]:
    """Train on a folder of photographs beside which something stands in its dataset's place."""

    def prepare(folder: Path) -> Words:
        make_victim(folder)
        (folder / "photos").mkdir()
        (folder / "photos" / "a.jpg").write_bytes(make_photograph())
        make(folder / "photos-shards")
        return train(folder / "photos", "native")

    return prepare


def _nest_folders(path: Path) -> None:
    inside = path.parent / "photos"
    for _ in range(300):
        inside = inside / ("x" * 200)
        try:
            inside.mkdir()
        except OSError:
            return


def list_cases() -> list[Case]:
    """Return every case."""

    def case(name: str, change: Callable[[Path], Any], words: Callable[[Path], Words]) -> Case:
        def prepare(folder: Path) -> Words:
            dataset = copy_base(folder)
            make_victim(folder)
            change(dataset)
            return words(dataset)

        return Case(name, prepare)

    def check(dataset: Path) -> Words:
        return ("check-shards", dataset, "--workers", "1")

    def combine(dataset: Path) -> Words:
        return ("combine-shards", dataset.parent / "out", dataset)

    beside: dict[str, Callable[[Path], Any]] = {
        "a pipe": os.mkfifo,
        "a file": Path.touch,
        "a link out": lambda path: path.symlink_to("victim"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "an empty folder": Path.mkdir,
        "a folder of something else": lambda path: (path.mkdir(), (path / "x").touch()),
        "not there, folders nested in it": _nest_folders,
        "not there, a lock that leads out": lambda path: path.with_name(
            f".{path.name}.lock"
        ).symlink_to("victim/precious"),
        "not there, a lock that is a pipe": lambda path: os.mkfifo(
            path.with_name(f".{path.name}.lock")
        ),
    }
    return [
        *(case(f"{name}, checked", change, check) for name, change in list_targets().items()),
        *(case(f"{name}, combined", change, combine) for name, change in list_targets().items()),
        *(Case(f"instances: {name}", _coco(text)) for name, text in list_instances().items()),
        *(Case(f"instances are {name}", _kind(make)) for name, make in list_kinds().items()),
        *(
            case(f"skipped.jsonl is {name}, combined", partial(_put_skipped, make), combine)
            for name, make in list_kinds().items()
        ),
        case("the folder to combine in leads out", _stage, combine),
        *(Case(f"photos-shards is {name}", _beside(make)) for name, make in beside.items()),
    ]
