"""Hostile tars for ``index-tars``, and manifests that lie of where their tars are."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastssl.shards.making.in_place import IndexTarsConfig, index_tars

from . import sources
from .case import Case, make_victim
from .datasets import VALUES, Words, train
from .sources import list_pictures, make_photograph, write_tar


def _index(folder: Path) -> Words:
    return ("index-tars", folder / "a.tar", folder / "out", "--workers", "1")


def _members(name: str, members: dict[str, bytes]) -> Case:
    def prepare(folder: Path) -> Words:
        write_tar(folder / "a.tar", members)
        return _index(folder)

    return Case(f"a tar with {name}", prepare)


def _in_place(case: Case) -> Case:
    """Return the case of a tar that is indexed where another one converts it."""

    def prepare(folder: Path) -> Words:
        case.prepare(folder)
        return _index(folder)

    return Case(f"{case.name}, in place", prepare)


def _place(name: str, make: Callable[[Path], Any]) -> Case:
    def prepare(folder: Path) -> Words:
        make(folder / "a.tar")
        return _index(folder)

    return Case(f"a tar that is {name}", prepare)


def _picture(name: str) -> Case:
    def prepare(folder: Path) -> Words:
        ending = name.rpartition(".")[2]
        members = {f"1.{ending}": sources.list_pictures()[name](), "2.jpg": make_photograph()}
        write_tar(folder / "a.tar", members)
        return _index(folder)

    return Case(f"a tar with a picture: {name}", prepare)


def _lie(name: str, change: Callable[[dict[str, Any], Path], object]) -> Case:
    """Return the case of a manifest over good tars, changed."""

    def prepare(folder: Path) -> Words:
        make_victim(folder)
        tar, out = folder / "a.tar", folder / "dataset"
        write_tar(tar, {f"{n}.jpg": make_photograph(n, side=250) for n in range(12)})
        index_tars(IndexTarsConfig((str(tar),), out, workers=1))
        fields = json.loads((out / "manifest.json").read_bytes())
        change(fields, folder)
        (out / "manifest.json").write_text(json.dumps(fields))
        return train(out, "native")

    return Case(f"a manifest: {name}", prepare)


def _tell(address: str, fields: dict[str, Any], folder: Path) -> None:
    fields["tars"][0]["address"] = address.format(folder)


def _tell_field(name: str, value: Any, fields: dict[str, Any], _: Path) -> None:
    fields["tars"][0][name] = value


def _repeat(count: int, fields: dict[str, Any], _: Path) -> None:
    fields["tars"] *= count


PLACES = (
    *("/dev/zero", "/proc/kmsg", "/etc/passwd", "{}/victim/precious", "{}", "a.tar", "../a.tar"),
    *("", "x" * 5000, "\x1b[2J", "file:///etc/passwd", "http://127.0.0.1:1/a.tar", "s3:///", "::"),
    *("http://user:word@127.0.0.1:1/a.tar", "http://169.254.169.254/latest", "ftp://x/a.tar"),
    *("simplecache::http://127.0.0.1:1/a.tar", "{}/victim/../a.tar"),
)
"""Where no tar lies, or none that a manifest may name."""


def list_cases() -> list[Case]:
    """Return every case."""
    good = make_photograph()
    deep = "/".join("x" * 50 for _ in range(60))
    many = {f"{n}.jpg": b"x" for n in range(500)}
    return [
        *(_picture(name) for name in list_pictures()),
        *(_in_place(one) for one in sources.list_cases() if one.name.startswith("tar: ")),
        _members("a label of megabytes", {"1.jpg": good, "1.cls": b"1" * (40 << 20)}),
        _members("hundreds that are none", many),
        _members("nothing in it", {}),
        _place("a pipe", os.mkfifo),
        _place("a device", lambda path: path.symlink_to("/dev/zero")),
        _place("a folder", Path.mkdir),
        _place("a link to itself", lambda path: path.symlink_to(path.name)),
        _place("rubbish", lambda path: path.write_bytes(b"rubbish" * 100_000)),
        _place("zeros", lambda path: path.write_bytes(bytes(1 << 20))),
        _place("a megabyte of one letter", lambda path: path.write_bytes(b"0" * (1 << 20))),
        _place("below others", lambda path: write_tar(path, {f"{deep[:90]}/1.jpg": good})),
        *(_lie(f"a tar at {where[:40]!r}", functools.partial(_tell, where)) for where in PLACES),
        *(
            _lie(f"{field} = {value!r:.40}", functools.partial(_tell_field, field, value))
            for field in ("bytes", "sha256", "etag", "address")
            for value in VALUES[::3]
        ),
        _lie("a hundred thousand tars", functools.partial(_repeat, 100_000)),
        _lie("no tars", functools.partial(_repeat, 0)),
    ]
