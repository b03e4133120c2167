"""Hostile results, run directories and folders of them for ``report``."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from .case import Case, make_victim
from .datasets import VALUES
from .evaluations import nest
from .runs import Words

SCRIPT = "</title></style></svg><script>alert(1)</script>\"'><img src=x onerror=alert(1)>]]>-->"
"""What would do something where it reached a page as it stands."""

GOOD: dict[str, Any] = {
    "task": "knn",
    "protocol": "own",
    "metric": "top1",
    "value": 0.5,
    "per_class": {"a": 0.4, "b": 0.6},
    "layer": "res5",
    "split": "stratified",
    "seed": 0,
    "train_digest": "a" * 64,
    "test_digest": "b" * 64,
    "trunk_digest": "c" * 64,
    "recipe": "goyal19_jigsaw_alexnet",
    "step": 9,
    "input": "{}",
    "values": [0.4, 0.6],
    "settings": {"k": 20, "label_share": 0.1, "selection": "honest"},
    "details": {"top5": 0.9, "what": "w", "meaning": "m", "protocol": "p", "is_remembered": True},
    "parts": [],
    "seconds": 1.0,
    "version": "1",
    "command": "fastssl evaluate",
    "is_published": False,
}
"""A result in which every field says something."""

LINE = {"step": 1, "epoch": 0.5, "samples": 8, "loss": 1.0, "lr": 0.1, "images_per_s": 9.0}


def changed(**fields: Any) -> bytes:
    """Return a result that says something else."""
    return json.dumps({**GOOD, **fields}).encode()


def list_varied(name: str, value: Any) -> Iterator[bytes]:
    """Yield results of one trunk whose setting goes up to a value."""
    for number, one in enumerate((1, 2, value)):
        settings = {**GOOD["settings"], name: one}
        yield changed(settings=settings, value=number / 10)


def list_fields() -> Iterator[tuple[str, bytes]]:
    """Yield results of which a field, or what is in one, is something else."""
    values = (*VALUES, 10**400, -(10**400), 1e308, -1e308, 5e-324, SCRIPT, "\ud800", nest(300))
    for name in GOOD:
        for value in values:
            yield f"{name} = {value!r:.40}", changed(**{name: value})
    for outer in ("settings", "details", "per_class"):
        for name in GOOD[outer]:
            for value in values:
                told = {**GOOD[outer], name: value}
                yield f"{outer}.{name} = {value!r:.40}", changed(**{outer: told})


def list_texts() -> dict[str, bytes | Callable[[], bytes]]:
    """Return files that are no result, by name; the larger ones are yet to be made."""
    return {
        "nothing": b"",
        "rubbish": b"\xff\x00" * 500,
        "a nest": b"[" * 200_000,
        "a nest in it": changed(details=1).replace(b'"details": 1', b'"details": ' + b"[" * 10**5),
        "a list": b"[]",
        "digits": b'{"value": ' + b"9" * 100_000 + b"}",
        "a value of NaN": changed(value=float("nan")),
        "UTF-16": changed().decode().encode("utf-16"),
        "another one behind": changed() * 2,
        "millions of lists": lambda: b'{"parts": [' + b"[]," * 20_000_000 + b"[]]}",
        "millions of classes": lambda: changed(per_class={str(i): 0.1 for i in range(10**6)}),
        "a billion of text": lambda: b'{"task": "' + b"x" * (240 << 20) + b'"}',
        "256 MB of spaces": lambda: changed() + b" " * (1 << 28),
    }


def list_sets() -> dict[str, list[bytes]]:
    """Return results that are read together, by name."""
    return {
        **{
            f"k up to {value!r:.20}": list(list_varied("k", value))
            for value in (10**400, 1e308, -1e308, 0, -1, float("nan"), float("inf"), True, "x", [])
        },
        **{
            f"shares up to {value!r:.20}": list(list_varied("label_share", value))
            for value in (10**400, 1e308, 0, -1, float("nan"), float("inf"), None)
        },
        "values of 1e308": [changed(settings={"k": k}, value=1e308 / k) for k in (1, 2, 3)],
        "values below nothing": [changed(settings={"k": k}, value=-1e308 / k) for k in (1, 2)],
        "a hundred thousand layers": [
            changed(parts=[{"value": 0.1, "layer": f"l{i}"} for i in range(100_000)])
        ],
        "ten thousand k": [
            changed(parts=[{"value": 0.1, "settings": {"k": i + 1}} for i in range(10_000)])
        ],
        "a thousand tasks": [
            changed(task=f"t{i}", settings={"k": k}) for i in range(1000) for k in (1, 2)
        ],
        "ten thousand recipes": [
            changed(recipe=f"r{i}", settings={"k": k}) for i in range(5000) for k in (1, 2)
        ],
        "a name of a megabyte": [
            changed(recipe="x" * 10**6, settings={"k": k}, value=k / 9) for k in (1, 2)
        ],
        "a layer of a megabyte": [changed(layer="x y " * 250_000, settings={"k": 1})],
        "a hundred thousand classes each": [
            changed(recipe=f"r{i}", per_class={f"{i} {j}": 0.1 for j in range(20_000)})
            for i in range(5)
        ],
        "names of surrogates": [
            changed(recipe="\ud800", layer="\udfff", settings={"k": k}, value=k / 9) for k in (1, 2)
        ],
        "names of control characters": [
            changed(recipe="\0\x1b[2J\n", settings={"k": k}, value=k / 9) for k in (1, 2)
        ],
        "names of formulas": [
            changed(recipe="$\\frac{$ %s {x} _^", settings={"k": k}, value=k / 9) for k in (1, 2)
        ],
        "published by somebody": [
            changed(is_published=True, settings={"k": k}, value=k / 9) for k in (1, 2)
        ]
        + list(list_varied("k", 3)),
        "scripts": [
            changed(**{n: SCRIPT for n in GOOD if type(GOOD[n]) is str}, settings={"k": k})
            for k in (1, 2)
        ],
    }


def list_lines() -> dict[str, bytes | Callable[[], bytes]]:
    """Return logs of a run by name; the larger ones are yet to be made."""

    def line(**fields: Any) -> bytes:
        return (json.dumps({**LINE, **fields}) + "\n").encode()

    values = (None, True, "x", SCRIPT, [], {}, -1, 1e308, float("nan"), 10**400, 10**4000, 2**63)
    return {
        **{
            f"{name} = {value!r:.20}": line(**{name: value}) * 2
            for name in (
                "samples",
                "epoch",
                "loss",
                "images_per_s",
                "substituted",
                "data_wait_share",
            )
            for value in values
        },
        "a number of each of a hundred thousand names": b"".join(
            line(**{f"n{i + 5000 * j}": 1 for i in range(5000)}) for j in range(20)
        ),
        "epochs that are next to nothing": line(epoch=1e-320, samples=2**60) * 2,
        "long lines of lists": (json.dumps({**LINE, "x": 1})[:-2] + "[").encode()
        + b"[]," * 340_000
        + b"[]]}\n",
        "many long lines of lists": lambda: (
            ((json.dumps({**LINE, "x": 1})[:-2] + "[").encode() + b"[]," * 340_000 + b"[]]}\n")
            * 200
        ),
        "a name of half a megabyte": line(**{"x" * 500_000: 1}),
        "names that are scripts": line(**{SCRIPT: 1, f"{SCRIPT}_of_x": 1}) * 2,
        "names of surrogates": line(**{"\ud800": 1}) * 2,
    }


# --- Pictures in TensorBoard's log ----------------------------------------------------------------


def make_picture(side: int) -> bytes:
    """Return a square black PNG."""
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, "PNG")
    return out.getvalue()


def write_pictures(folder: Path, pictures: Iterator[tuple[str, bytes]]) -> None:
    """Write a log of pictures by tag."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(exist_ok=True)
    with (folder / "events.out.tfevents.1").open("wb") as file:
        writer = RecordWriter(file)
        for tag, encoded in pictures:
            image = Summary.Image(height=1, width=1, colorspace=3, encoded_image_string=encoded)
            value = Summary.Value(tag=tag, image=image)
            writer.write(Event(step=1, summary=Summary(value=[value])).SerializeToString())


# --- Cases ----------------------------------------------------------------------------------------

Fill = Callable[[Path], Any]


def make_run(folder: Path, lines: bytes | Callable[[], bytes] | None = None, **config: Any) -> Path:
    """Make a run directory."""
    run = folder / "run"
    run.mkdir()
    content = (json.dumps(LINE) + "\n").encode() * 2 if lines is None else lines
    (run / "metrics.jsonl").write_bytes(content() if callable(content) else content)
    settings = {"task.name": "jigsaw", "trunk": "resnet9", "width": 1, "data.path": "x", **config}
    (run / "config.json").write_text(json.dumps({"identity": {}, "config": settings}))
    (run / "results").mkdir()
    (run / "results" / "a.json").write_bytes(changed())
    return run


def _case(name: str, fill: Fill, place: str = "in", *more: str) -> Case:
    def prepare(folder: Path) -> Words:
        (folder / "in").mkdir()
        make_victim(folder)
        fill(folder / "in")
        return ("report", folder / place, "--output", folder / "page.html", *more)

    return Case(name, prepare)


def _put(*contents: bytes | Callable[[], bytes]) -> Fill:
    def fill(folder: Path) -> None:
        for number, content in enumerate(contents):
            path = folder / f"{number}.json"
            path.write_bytes(content() if callable(content) else content)

    return fill


def _loop(folder: Path) -> None:
    for number in range(100):
        (folder / f"l{number}").symlink_to(".")
    _put(changed())(folder)


def _fan(folder: Path) -> None:
    """Make folders that are reached by a hundred million ways."""
    (folder / "z").mkdir()
    for number in range(100):
        (folder / "z" / f"l{number}").symlink_to("..")
    _put(changed())(folder)


def _in_run(change: Callable[[Path], Any]) -> Fill:
    return lambda folder: change(make_run(folder))


def _replace(name: str, make: Callable[[Path], Any]) -> Fill:
    def change(run: Path) -> None:
        path = run / name
        if path.is_file():
            path.unlink()
        make(path)

    return _in_run(change)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def _make_place(make: Callable[[Path], Any], folder: Path) -> None:
    make(folder / "x")


def _pictures(pictures: Callable[[], Iterator[tuple[str, bytes]]]) -> Fill:
    return _in_run(lambda run: write_pictures(run / "tensorboard", pictures()))


def list_cases() -> list[Case]:
    """Return every case; what a field may hold is tried in the suite, and here all at once."""
    kinds: dict[str, Callable[[Path], Any]] = {
        "a pipe": os.mkfifo,
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link out": lambda path: path.symlink_to(path.parents[-1] / "etc/passwd"),
        "a terabyte": _sparse,
    }
    configs: dict[str, dict[str, Any]] = {
        "a name of a megabyte": {"trunk": "x" * 10**6, "task.name": "y" * 10**6},
        "images of 10**400": {"data.max_samples": 10**400},
        "a width of 10**400": {"width": 10**400},
        "scripts": {"trunk": SCRIPT, "task.name": SCRIPT, "data.path": SCRIPT},
        "lists": {"trunk": [], "task.name": {}, "data.path": [], "max_steps": []},
        "a nest": {"data.path": nest(300), "task.x": nest(900)},
        "a path of zeros": {"data.path": "\0", "trunk": "\ud800"},
    }
    return [
        *(_case(f"a file: {n}", _put(text), "in/0.json") for n, text in list_texts().items()),
        *(_case(f"a folder: {n}", _put(text)) for n, text in list_texts().items()),
        *(_case(f"results: {name}", _put(*texts)) for name, texts in list_sets().items()),
        *(
            _case(f"lines: {name}", partial(make_run, lines=text))
            for name, text in list_lines().items()
        ),
        *(_case(f"settings: {name}", partial(make_run, **told)) for name, told in configs.items()),
        *(
            _case(f"{name} is {kind}", _replace(name, make))
            for kind, make in kinds.items()
            for name in ("metrics.jsonl", "config.json", "exit.json", "results/b.json")
        ),
        *(
            _case(f"a place is {kind}", partial(_make_place, make), "in/x")
            for kind, make in kinds.items()
        ),
        _case("a hundred links to the folder", _loop),
        _case("a hundred links to the folder above", _fan),
        _case(
            "an ending that is a script",
            _replace(
                "exit.json",
                lambda path: path.write_text(
                    json.dumps({"code": 1, "reason": SCRIPT * 1000, "step": 10**400})
                ),
            ),
        ),
        _case(
            "a hundred pictures of 16 million pixels",
            _pictures(lambda: ((f"t{i}", png) for png in [make_picture(4096)] for i in range(100))),
        ),
        _case(
            "a hundred thousand pictures",
            _pictures(
                lambda: ((f"t{i}", png) for png in [make_picture(2)] for i in range(100_000))
            ),
        ),
        _case(
            "a picture of 2**31 pixels a side",
            _pictures(
                lambda: iter(
                    [("t", make_picture(2)[:16] + b"\x7f\xff\xff\xff" * 2 + make_picture(2)[24:])]
                )
            ),
        ),
        _case(
            "a picture whose name is a script", _pictures(lambda: iter([(SCRIPT, make_picture(2))]))
        ),
        _case(
            "a record of 2**60 bytes",
            _in_run(
                lambda run: (
                    (run / "tensorboard").mkdir(),
                    (run / "tensorboard" / "x.tfevents.1").write_bytes(
                        (1 << 60).to_bytes(8, "little") * 9
                    ),
                )
            ),
        ),
        _case(
            "a log of a terabyte",
            _in_run(
                lambda run: (
                    (run / "tensorboard").mkdir(),
                    _sparse(run / "tensorboard" / "x.tfevents.1"),
                )
            ),
        ),
        _case("a title that is a script", _put(changed()), "in", "--title", SCRIPT),
        _case("names that are scripts", _put(changed()), "in", "--data-names", f"b={SCRIPT}"),
    ]
