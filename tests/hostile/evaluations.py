"""Hostile features, parts and results in a run directory for ``evaluate``."""

from __future__ import annotations

import atexit
import functools
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, make_victim
from .datasets import NUM_SAMPLES, copy_base
from .runs import Evil, Words
from .weights import command_line, export, make_state

Change = Callable[[Path, Path], Any]
"""Changes the run directory; beside it is a folder of which nothing must change."""


@functools.cache
def make_evaluated() -> Path:
    """Make a dataset and a run whose trunk has been evaluated on it; once a process."""
    from fastssl.commands.frame import parse_arguments
    from fastssl.evaluation.evaluate import Evaluation
    from fastssl.evaluation.measures import MEASURES
    from fastssl.world import join_world

    folder = Path(tempfile.mkdtemp(prefix="hostile-evaluated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    dataset = copy_base(folder)
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    (run / "trunk.safetensors").write_bytes(export(make_state()))
    config_class, _ = MEASURES["knn"]
    words = [str(word) for word in command_line(dataset, run)][2:]
    config = parse_arguments(config_class, words, default=config_class())
    evaluation = Evaluation("knn", config, join_world("cpu"))
    try:
        evaluation.make_features()
        evaluation.run()
    finally:
        evaluation.close()
    return folder


def features_of(run: Path) -> Path:
    """Return the folder of the one end point."""
    (folder,) = (p for p in (run / "features").iterdir() if p.name != "parts")
    return folder


def part_of(run: Path) -> Path:
    """Return the file of the figures of the one end point."""
    (path,) = (run / "features" / "parts").iterdir()
    return path


def on_run(change: Change, task: str = "knn", keeps_parts: bool = False) -> Callable[[Path], Words]:
    """Return what changes an evaluated run and evaluates it again."""

    def prepare(folder: Path) -> Words:
        for name in ("run", "dataset"):
            shutil.copytree(make_evaluated() / name, folder / name)
        if not keeps_parts:
            shutil.rmtree(folder / "run" / "features" / "parts")
        change(folder / "run", make_victim(folder))
        words = command_line(folder / "dataset", folder / "run")
        return (words[0], task, *words[2:])

    return prepare


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


# --- Finished features ----------------------------------------------------------------------------


def put(name: str, make: Callable[[Path], Any]) -> Change:
    """Put something else in the place of a file of the features."""

    def change(run: Path, _: Path) -> None:
        path = features_of(run) / name
        _remove(path)
        make(path)

    return change


def put_bytes(name: str, content: bytes) -> Change:
    """Put other bytes in the place of a file of the features."""
    return put(name, lambda path: path.write_bytes(content))


def tell(**fields: Any) -> Change:
    """Have the manifest of the features say something else; ``None`` takes a field away."""

    def change(run: Path, _: Path) -> None:
        path = features_of(run) / "features.json"
        content = json.loads(path.read_bytes())
        for name, value in fields.items():
            where = content["key"] if name in content["key"] or name == "more" else content
            where[name] = value
        path.write_text(json.dumps(content))

    return change


def set_array(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Put another array in the place of one of the features."""

    def change(run: Path, _: Path) -> None:
        path = features_of(run) / name
        np.save(path, make(np.load(path)))

    return change


def _pack(text: str, content: bytes = b"") -> bytes:
    """Return an ``.npy`` with whatever header."""
    header = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def _outline(descr: str, shape: str, order: str = "False") -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}"


def _zip(path: Path) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, arr_0=np.zeros((1 << 27,), np.int8))
    path.write_bytes(content.getvalue())


def _save_objects(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Evil(path.parents[3] / "victim" / "executed")], object))


def _shrink(run: Path, _: Path) -> None:
    """Leave of the features two rows, and say so."""
    for name in ("features.npy", "labels.npy", "sample_ids.npy"):
        path = features_of(run) / name
        np.save(path, np.load(path)[:2])
    tell(num_samples=2)(run, _)


def _set_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.full_like(array, value)


def list_features() -> dict[str, Change]:
    """Return changes of finished features by name."""
    texts = {
        "nothing": b"",
        "rubbish": b"\xff" * 1000,
        "a nest": b'{"version": ' + b"[" * 200_000,
        "a list": b"[]",
        "a number": b"1",
        "digits": b'{"version": ' + b"9" * 100_000 + b"}",
        "70 MB": b'{"version": 1' + b" " * (70 << 20) + b"}",
    }
    kinds: dict[str, Callable[[Path], Any]] = {
        "a pipe": os.mkfifo,
        "a folder": Path.mkdir,
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
        "a link out": lambda path: path.symlink_to("../../../victim/precious"),
        "nothing": Path.touch,
    }
    headers = {
        "of minus signs": _pack("-" * 9000 + "1"),
        "of brackets": _pack("(" * 9000),
        "of code": _pack("__import__('os').mkdir('../../../victim/executed')"),
        "of objects": _pack(_outline("|O", "(24, 64)"), bytes(24 * 64 * 8)),
        "of Fortran's order": _pack(_outline("<f4", "(24, 64)", "True"), bytes(24 * 64 * 4)),
        "of more rows than there are": _pack(_outline("<f4", "(24, 64)"), bytes(100)),
        "of 2**60 rows": _pack(_outline("<f4", f"({1 << 60}, 64)"), bytes(100)),
        "of less than nothing": _pack(_outline("<f4", "(-24, -64)"), bytes(24 * 64 * 4)),
        "of complex numbers": _pack(_outline("<c8", "(24, 64)"), bytes(24 * 64 * 8)),
        "of other bytes' order": _pack(_outline(">f4", "(24, 64)"), bytes(24 * 64 * 4)),
        "of records": _pack("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (9,)}"),
        "of a megabyte": _pack("", b"")[:6] + b"\x02\x00" + (1 << 20).to_bytes(4, "little"),
        "of another version": b"\x93NUMPY\xff\xff" + bytes(200),
    }
    return {
        **{f"features.json of {n}": put_bytes("features.json", text) for n, text in texts.items()},
        **{
            f"{name} is {kind}": put(name, make)
            for kind, make in kinds.items()
            for name in ("features.json", "features.npy", "labels.npy", "sample_ids.npy")
        },
        **{f"an array {name}": put_bytes("features.npy", c) for name, c in headers.items()},
        **{f"labels {name}": put_bytes("labels.npy", headers[name]) for name in headers},
        "an array that is a zip": put("features.npy", _zip),
        "an array that executes": put("features.npy", _save_objects),
        "1e400 samples": lambda run, victim: put_bytes(
            "features.json",
            (features_of(run) / "features.json").read_bytes().replace(b'": 24,', b'": 1e400,'),
        )(run, victim),
        "2**100 samples": tell(num_samples=2**100),
        "less than no samples": tell(num_samples=-24),
        "samples of text": tell(num_samples="24"),
        "other features": tell(num_features=10**9),
        "a version of text": tell(version="1" * 10**6),
        "a storage that is a list": tell(storage=[]),
        "a storage that is no type": tell(storage="i1000000000"),
        "a storage of objects": tell(storage="O"),
        "a view of a megabyte": tell(view="x" * 900_000),
        "a view that moves the cursor": tell(view="\x1b[2J\n"),
        "a key of more": tell(more=1),
        "two rows of 24": _shrink,
        "features that are no numbers": set_array("features.npy", _set_value(np.nan)),
        "features without end": set_array("features.npy", _set_value(np.inf)),
        "features of 1e38": set_array("features.npy", _set_value(1e38)),
        "features of 1e17": set_array("features.npy", _set_value(1e17)),
        "features of nothing": set_array("features.npy", _set_value(0)),
        "labels of 99": set_array("labels.npy", _set_value(99)),
        "labels of 2**60": set_array("labels.npy", _set_value(1 << 60)),
        "labels below -1": set_array("labels.npy", _set_value(-7)),
        "labels of none": set_array("labels.npy", _set_value(-1)),
        "ids of 10**12": set_array("sample_ids.npy", _set_value(10**12)),
        "ids below 0": set_array("sample_ids.npy", _set_value(-5)),
    }


# --- Features that are being filled ---------------------------------------------------------------


def unfinished(change: Change) -> Change:
    """Have features be half done, then change them."""

    def change_both(run: Path, victim: Path) -> None:
        folder = features_of(run)
        for name in ("features.json", "labels.npy", "sample_ids.npy"):
            (folder / name).unlink()
        (folder / "filled").mkdir()
        (folder / "filled" / "0-8").write_text("[]")
        change(folder, victim)

    return change_both


def _link(name: str, target: str, is_hard: bool = False) -> Change:
    def change(folder: Path, victim: Path) -> None:
        _remove(folder / name)
        target_path = victim / target
        if is_hard:
            os.link(target_path, folder / name)
        else:
            (folder / name).symlink_to(target_path)

    return unfinished(change)


def _note(content: bytes, name: str = "0-8") -> Change:
    return unfinished(lambda folder, _: (folder / "filled" / name).write_bytes(content))


def _make(name: str, make: Callable[[Path], Any]) -> Change:
    def change(folder: Path, _: Path) -> None:
        _remove(folder / name)
        make(folder / name)

    return unfinished(change)


def _link_folder(name: str) -> Change:
    """Have a folder of the run lead to one that is none of its."""

    def change(run: Path, victim: Path) -> None:
        path = run / name if name else features_of(run)
        _remove(path)
        path.symlink_to(victim)

    return change


def _note_many(folder: Path, _: Path) -> None:
    for number in range(50_000):
        (folder / "filled" / f"{number}-{number + 1}").touch()


def list_unfinished() -> dict[str, Change]:
    """Return changes of features that are half done, by name."""
    zero = ("a link to a device", lambda path: path.symlink_to("/dev/zero"))
    return {
        "features.npy leads out": _link("features.npy", "precious"),
        "features.npy has another name": _link("features.npy", "precious", is_hard=True),
        "features.npy leads to nowhere": _link("features.npy", "nowhere"),
        "features.npy is a pipe": _make("features.npy", os.mkfifo),
        "features.npy is a device": _make("features.npy", zero[1]),
        "features.npy is a folder": _make("features.npy", Path.mkdir),
        "features.npy is a terabyte": unfinished(
            lambda folder, _: os.truncate(folder / "features.npy", 128 + (24 << 36))
        ),
        "features.npy is nothing": unfinished(lambda f, _: os.truncate(f / "features.npy", 0)),
        "features.npy is not there": unfinished(lambda f, _: (f / "features.npy").unlink()),
        "filled leads out": _link("filled", ""),
        "filled is a file": _make("filled", Path.touch),
        "filled is a pipe": _make("filled", os.mkfifo),
        ".lock leads out": _link(".lock", "precious"),
        ".lock leads to nowhere": _link(".lock", "nowhere"),
        ".lock is a pipe": _make(".lock", os.mkfifo),
        ".lock is a folder": _make(".lock", Path.mkdir),
        "a note of rubbish": _note(b"\xff"),
        "a note of nothing": _note(b""),
        "a note of a nest": _note(b"[" * 10**6),
        "a note of text": _note(b'"ab"'),
        "a note of rows that are none": _note(b"[[999, 0]]"),
        "a note of rows below 0": _note(b"[[-9, 0]]"),
        "a note of ids that are none": _note(b"[[0, 999]]"),
        "a note of ids beyond 2**63": _note(b"[[0, 9999999999999999999999]]"),
        "a note of all rows and more": _note(b"[]", "0-999999999999"),
        "a note of rows backwards": _note(b"[]", "9-3"),
        "a note of no end": _note(b"[" + b"[0, 0]," * 10**7 + b"[0, 0]]"),
        "a note that is a pipe": _make("filled/0-8", os.mkfifo),
        "a note that is a device": _make("filled/0-8", zero[1]),
        "a note that is a folder": _make("filled/0-8", Path.mkdir),
        "notes of all, and no rows": unfinished(
            lambda folder, _: (
                (folder / "filled" / "0-24").write_text("[]"),
                (folder / "features.npy").unlink(),
            )
        ),
        "notes of all, and a note of more": unfinished(
            lambda folder, _: (folder / "filled" / "0-25").write_text("[]")
        ),
        "fifty thousand notes": unfinished(_note_many),
    }


# --- Parts and results ----------------------------------------------------------------------------


def tell_part(**fields: Any) -> Change:
    """Have the figures of the end point say something else."""

    def change(run: Path, _: Path) -> None:
        path = part_of(run)
        content = json.loads(path.read_bytes())
        for part in content["parts"]:
            part.update({name: value for name, value in fields.items() if name != "parts"})
        content.update(fields)
        path.write_text(json.dumps(content))

    return change


def nest(depth: int) -> Any:
    """Return lists in lists."""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def put_part(make: Callable[[Path], Any]) -> Change:
    """Put something else in the place of the figures."""

    def change(run: Path, _: Path) -> None:
        path = part_of(run)
        path.unlink()
        make(path)

    return change


def list_parts() -> dict[str, Change]:
    """Return changes of what an evaluation found, by name."""
    texts = {
        "nothing": b"",
        "rubbish": b"\xff\x00" * 500,
        "a nest": b"[" * 200_000,
        "a list": b"[]",
        "millions of lists": b'{"parts": [' + b"[]," * 10_000_000 + b"[]]}",
        "a billion of text": b'{"task": "' + b"x" * (200 << 20) + b'"}',
    }
    return {
        **{
            f"figures of {name}": put_part(functools.partial(_write, text))
            for name, text in texts.items()
        },
        "figures are a pipe": put_part(os.mkfifo),
        "figures are a link to a device": put_part(lambda path: path.symlink_to("/dev/zero")),
        "figures are a link out": put_part(lambda p: p.symlink_to("../../../victim/precious")),
        "figures are a folder": put_part(Path.mkdir),
        "figures nested 300 deep": tell_part(details={"x": nest(300)}),
        "figures nested 900 deep": tell_part(details={"x": nest(900)}),
        "settings nested 900 deep": tell_part(settings={"x": nest(900)}),
        "details that are no numbers": tell_part(details={"x": float("nan")}),
        "settings that are no numbers": tell_part(settings={"k": float("inf")}),
        "settings of 10**400": tell_part(settings={"k": 10**400}),
        "seconds of text": tell_part(seconds="x"),
        "seconds that are no number": tell_part(seconds=float("nan")),
        "seconds without end": tell_part(seconds=10**400),
        "a seed of 4,000 digits": tell_part(seed=10**4000),
        "a value of 10**400": tell_part(value=10**400),
        "a value of text": tell_part(value="0.5"),
        "a value of 1e308": tell_part(value=1e308),
        "values of text": tell_part(values="123"),
        "values of 1e308": tell_part(values=[1e308, -1e308, 1e308]),
        "a layer of surrogates": tell_part(layer="\ud800"),
        "a layer that moves the cursor": tell_part(layer="\x1b[2J\n\r"),
        "a metric that moves the cursor": tell_part(metric="\x1b[2J\n\r\ud800"),
        "a setting that moves the cursor": tell_part(settings={"\x1b[2J\n": "\x1b[2J\ud800"}),
        "a class that is a list": tell_part(per_class=[["a", 1]]),
        "parts of nothing": tell_part(parts=[]),
        "parts of text": tell_part(parts="abc"),
        "a hundred thousand parts": tell_part(parts=[{"value": 0.1}] * 100_000),
        "figures of another task": tell_part(task="svm", protocol="goyal19"),
    }


def list_cases() -> list[Case]:
    """Return every case."""

    def case(name: str, change: Change, **options: Any) -> Case:
        return Case(name, on_run(change, **options))

    folders = ("features", "results", "features/parts", "")
    solvers = (
        *("features that are no numbers", "features of 1e38", "features of 1e17"),
        *("features of nothing", "labels of 99", "labels of none"),
    )
    features = list_features()
    assert NUM_SAMPLES == 24
    return [
        *(case(f"features: {name}", change) for name, change in features.items()),
        *(case(f"half done: {name}", change) for name, change in list_unfinished().items()),
        *(
            case(f"figures: {name}", change, keeps_parts=True)
            for name, change in list_parts().items()
        ),
        *(
            case(f"{name or 'an end point'} leads out, {task}", _link_folder(name), task=task)
            for name in folders
            for task in ("knn", "logistic")
        ),
        case("heads leads out", _link_folder("heads"), task="linear"),
        *(
            case(f"{task}: {name}", features[name], task=task)
            for task in ("svm", "low_shot", "logistic")
            for name in solvers
        ),
    ]
