"""Hostile datasets and betons for ``train`` and ``check-shards``."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastssl.shards import open_dataset
from fastssl.shards.beton import BETON_NAME, BetonOptions, write_beton
from fastssl.shards.index import INDEX_NAME
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.manifest import MANIFEST_NAME

from . import lies
from .case import Case
from .sources import make_photograph, set_size

Words = Sequence[str | Path]
LOADERS = ("webdataset", "native", "dali", "ffcv")
NUM_SAMPLES = 24
SHARD = "shard-000001.tar"


@functools.cache
def _make_base() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hostile-base-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for number in range(NUM_SAMPLES):
        path = folder / "photographs" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_photograph(number, side=250 + number))
    out = folder / "dataset"
    convert(ConvertConfig(folder / "photographs", out, samples_per_shard=8, workers=1))
    with contextlib.closing(open_dataset(out)) as dataset:
        write_beton(dataset, out / BETON_NAME, BetonOptions("keep"), workers=1)
    return out


def copy_base(folder: Path) -> Path:
    """Copy a small good dataset with a beton into a folder; return it."""
    return shutil.copytree(_make_base(), folder / "dataset")


# --- Manifests ------------------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, float("nan"), float("inf"), 2**31, 2**63, 10**23),
    *("", "x" * 300, "\u202e\x1b[2J", "../../x", [], {}, [[[]]], {"a": {"b": 1}}, [None]),
)
"""What a field may hold instead."""

NAMES = (
    *("../victim.tar", "/etc/passwd", "a/b.tar", "..", ".", "", ".hidden.tar", "x\0.tar"),
    *("x\n.tar", "\x1b[2J.tar", "x" * 300, "shard-000001.tar/", "targets", "\ud800.tar"),
)
"""Names of shards that are none."""

TEXTS: dict[str, Callable[[str], bytes]] = {
    "nothing": lambda _: b"",
    "half": lambda text: text[: len(text) // 2].encode(),
    "another one behind": lambda text: (text + text).encode(),
    "a list": lambda _: b"[1]",
    "nested": lambda _: b"[" * 100_000,
    "nested in a field": lambda text: text.replace("{", '{"x": ' + "[" * 100_000, 1).encode(),
    "nested and closed": lambda text: text.replace(
        "{", '{"additions": ' + "[" * 90_000 + "]" * 90_000 + ",", 1
    ).encode(),
    "digits": lambda text: text.replace("{", '{"x": ' + "9" * 100_000 + ",", 1).encode(),
    "a version of digits": lambda _: b'{"format_version": ' + b"9" * 100_000 + b"}",
    "UTF-16": lambda text: text.encode("utf-16"),
    "a byte order mark": lambda text: text.encode("utf-8-sig"),
    "Latin 1": lambda text: text.replace("keep", "k\xe9\xe9p").encode("latin-1"),
    "zeros": lambda text: text.encode() + bytes(1000),
    "70 MB": lambda text: text.encode() + b" " * (70 << 20),
    "millions of classes": lambda text: text.replace("{", '{"a": [' + "[]," * 10**6, 1).encode(),
}
"""Texts that are no manifest."""


def list_manifests(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield mutations of a manifest's text, each with its name."""
    for name, change in TEXTS.items():
        yield f"text {name}", change(text)

    def edited(change: Callable[[dict], object]) -> bytes:
        fields = json.loads(text)
        change(fields)
        return json.dumps(fields).encode()

    for field in sorted(json.loads(text)):
        for value in VALUES:
            yield f"{field} = {value!r:.40}", edited(lambda f: f.update({field: value}))  # noqa: B023
        yield f"no {field}", edited(lambda f: f.pop(field))  # noqa: B023
    for value in NAMES:
        yield f"shard {value!r:.40}", edited(lambda f: f["shards"][1].update(name=value))  # noqa: B023
    for field in ("samples", "bytes", "sha256", "stored", "label_map", "more"):
        for value in VALUES:
            yield (
                f"shard's {field} = {value!r:.40}",
                edited(lambda f: f["shards"][1].update({field: value})),  # noqa: B023
            )


# --- Files ----------------------------------------------------------------------------------------


def _replace_by(make: Callable[[Path], object], name: str) -> Callable[[Path], None]:
    def change(dataset: Path) -> None:
        path = dataset / name
        path.rename(dataset.parent / "moved")
        make(path)

    return change


def list_files() -> dict[str, Callable[[Path], None]]:
    """Return changes of a dataset's files by name."""
    kinds: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "link out": lambda path: path.symlink_to("../moved"),
        "link to a device": lambda path: path.symlink_to("/dev/zero"),
        "link to itself": lambda path: path.symlink_to(path.name),
        "link to nowhere": lambda path: path.symlink_to("nowhere"),
        "empty file": Path.touch,
    }
    return {
        f"{name} is a {kind}": _replace_by(make, name)
        for kind, make in kinds.items()
        for name in (MANIFEST_NAME, INDEX_NAME, SHARD)
    }


# --- Cases ----------------------------------------------------------------------------------------


def train(dataset: Path, loader: str) -> Words:
    """Return the command line of a run of two steps."""
    run = dataset.parent / "run"
    words = ("train", "demo_smoke", "--data.path", dataset, "--output-dir", run, "--device", "cpu")
    sizes = ("--data.global-batch-size", "12", "--max-steps", "2", "--data.num-threads", "1")
    return (*words, *sizes, "--data.loader", loader, "--log.tensorboard", "false")


def probe(dataset: Path) -> Words:
    """Return the command line of a run on a dataset that is whole, probed on this one."""
    whole = dataset.parent / "whole"
    whole.mkdir()
    words = train(copy_base(whole), "native")
    return (*words, "--probe.data-path", dataset, "--probe.every-steps", "1")


def _case(
    name: str, change: Callable[[Path], object], command: Callable[[Path], Words], says: str = ""
) -> Case:
    def prepare(folder: Path) -> Words:
        dataset = copy_base(folder)
        change(dataset)
        return command(dataset)

    return Case(name, prepare, says=says)


def _tell(dataset: Path, names: Sequence[str]) -> None:
    for sample_id, name in enumerate(names):
        lies.tell_row_lie(dataset, sample_id, name)


def _show(dataset: Path, names: Sequence[str]) -> None:
    with contextlib.closing(open_dataset(dataset)) as opened:
        old = [opened.read_payload(i) for i in range(len(names))]
    for sample_id, name in enumerate(names):
        payload = lies.PICTURES[name][0](old[sample_id])
        lies.replace_payload(dataset, sample_id, payload)
        lies.replace_stored(dataset / BETON_NAME, sample_id, payload)


def list_cases() -> list[Case]:
    """Return every case: each lie by itself for one loader, all at once for every loader."""

    def check(dataset: Path) -> Words:
        return ("check-shards", dataset, "--deep", "--workers", "1")

    def runs(loader: str) -> Callable[[Path], Words]:
        return lambda dataset: train(dataset, loader)

    def manifest(name: str) -> Callable[[Path], None]:
        def change(dataset: Path) -> None:
            path = dataset / MANIFEST_NAME
            path.write_bytes(dict(list_manifests(path.read_text()))[name])

        return change

    def beton(names: Sequence[str]) -> Callable[[Path], None]:
        def change(dataset: Path) -> None:
            for sample_id, name in enumerate(names):
                lies.edit_beton_row(dataset / BETON_NAME, sample_id, lies.BETON_ROWS[name])

        return change

    texts = [f"text {name}" for name in TEXTS]
    cases = [
        *(_case(f"manifest: {name}", manifest(name), runs("native")) for name in texts),
        *(
            _case(f"file: {name}", change, runs("webdataset"))
            for name, change in list_files().items()
        ),
        *(_case(f"file: {name}, checked", change, check) for name, change in list_files().items()),
        *(_case(f"manifest: {name}, probed", manifest(name), probe) for name in texts),
        *(_case(f"file: {name}, probed", change, probe) for name, change in list_files().items()),
        _case("tar: negative size", lambda d: set_size(d / SHARD, b"-0000001000"), check),
    ]
    for kind, told, tell in (("row", lies.ROWS, _tell), ("picture", lies.PICTURES, _show)):
        names = list(told)
        for name in names:
            change = functools.partial(tell, names=[name])
            cases.append(_case(f"{kind}: {name}, native", change, runs("native")))
        change = functools.partial(tell, names=names[:9])
        cases += [_case(f"{kind}: nine, {loader}", change, runs(loader)) for loader in LOADERS]
        change = functools.partial(tell, names=names)
        cases += [_case(f"{kind}: all, {loader}", change, runs(loader)) for loader in LOADERS]
        cases.append(_case(f"{kind}: all, checked", change, check))
        cases.append(_case(f"{kind}: all, probed", change, probe))
    beton_names = list(lies.BETON_ROWS)
    cases += [_case(f"beton: {n}", beton([n]), runs("ffcv")) for n in beton_names]
    cases += [_case("beton: all", beton(beton_names), runs("ffcv"))]
    return cases
