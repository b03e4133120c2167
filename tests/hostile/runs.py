"""Hostile run directories, checkpoints and exported trunks for ``train``."""

from __future__ import annotations

import atexit
import functools
import hashlib
import io
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from .case import Case, make_victim
from .sources import make_photograph

Words = Sequence[str | Path]
RECIPE = "kolesnikov19_rotation_smoke"
LINE = b'{"step": 9, "loss": 1.0}\n'


class Evil:
    """What a pickle would execute."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def command_line(folder: Path, *more: str, steps: int = 4) -> Words:
    """Return the command that goes on with the run in a case's folder."""
    places = ("--data.path", folder / "data", "--output-dir", folder / "run")
    numbers = ("--data.global-batch-size", "4", "--max-steps", str(steps))
    quick = ("--task.size", "16", "--data.num-threads", "1", "--log.tensorboard", "false")
    rest = ("--data.ledger", "true", "--checkpoint.every-steps", "1", "--log.progress", "false")
    return ("train", RECIPE, *places, *numbers, *quick, *rest, *more)


@functools.cache
def make_master() -> Path:
    """Make a dataset, and a run on it that has stopped after two steps; once a process."""
    from fastssl.commands.train import read_command_line
    from fastssl.shards.making.convert import ConvertConfig, convert
    from fastssl.training import train

    master = Path(tempfile.mkdtemp(prefix="hostile-master-"))
    atexit.register(shutil.rmtree, master, ignore_errors=True)
    (master / "photographs").mkdir()
    for number in range(8):
        (master / "photographs" / f"{number}.jpg").write_bytes(make_photograph(number, 32))
    convert(ConvertConfig(master / "photographs", master / "data", workers=1))
    words = [str(word) for word in command_line(master, steps=2)][1:]
    train(read_command_line(words))
    return master


def copy_run(folder: Path) -> tuple[Path, Path]:
    """Put the stopped run into a case's folder; return it, and a folder that is none of its."""
    for name in ("data", "run"):
        shutil.copytree(make_master() / name, folder / name)
    return folder / "run", make_victim(folder)


def replace_state(run: Path, content: bytes, step: int = 2) -> None:
    """Put another state into a checkpoint and make its checksum fit."""
    place = run / "checkpoints" / f"{step:09d}"
    (place / "state.pt").write_bytes(content)
    manifest = json.loads((place / "manifest.json").read_bytes())
    del manifest["sha256"]
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"]["state.pt"] = {"sha256": digest, "bytes": len(content)}
    (place / "manifest.json").write_text(json.dumps(manifest))


def save_bytes(state: Any) -> bytes:
    """Return the file that torch makes of a state."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def load_state(run: Path) -> dict[str, Any]:
    """Return the newest state of the stopped run."""
    return torch.load(run / "checkpoints" / "000000002" / "state.pt", weights_only=True)


# --- Links, pipes, long files ---------------------------------------------------------------------

Prepare = Callable[[Path], Words]


def on_run(change: Callable[[Path, Path], Any]) -> Prepare:
    """Return what changes the run directory and goes on with it."""

    def prepare(folder: Path) -> Words:
        change(*copy_run(folder))
        return command_line(folder)

    return prepare


def put_link(name: str) -> Prepare:
    def change(run: Path, victim: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(victim / "precious")

    return on_run(change)


def put_folder_link(name: str) -> Prepare:
    def change(run: Path, victim: Path) -> None:
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).symlink_to(victim)

    return on_run(change)


def put_pipe(name: str) -> Prepare:
    def change(run: Path, _: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return on_run(change)


def put_bytes(name: str, content: bytes) -> Prepare:
    return on_run(lambda run, _: (run / name).write_bytes(content))


def put_tail(name: str, size: int) -> Prepare:
    def change(run: Path, _: Path) -> None:
        os.truncate(run / name, (run / name).stat().st_size + size)

    return on_run(change)


def point_to(named: str) -> Prepare:
    def change(run: Path, victim: Path) -> None:
        (run / "checkpoints" / "latest").write_text(named.format(victim=victim))

    return on_run(change)


def list_directories() -> list[Case]:
    """List cases of files and folders."""
    logs = ("metrics.jsonl", "bad_samples.jsonl", "ledger.rank0.jsonl", "ledger.rank77.jsonl")
    cases = [Case(f"a link as {name}", put_link(name), 2, "symbolic link") for name in logs]
    cases += [
        Case(f"a link as {name}", put_folder_link(name), 2, "symbolic link")
        for name in ("checkpoints", "tensorboard", "nonfinite")
    ]
    cases += [
        Case(f"a pipe as {name}", put_pipe(name))
        for name in ("metrics.jsonl", "config.json", "exit.json", "checkpoints/latest")
    ]
    cases += [
        Case(f"latest is {named[:30]!r}", point_to(named), 0)
        for named in ("../../victim/precious", "{victim}", "..", "x" * 10**6, "\0", "-00000001")
    ]
    cases += [Case(f"{name} with 8 GB behind", put_tail(name, 8 << 30), 0) for name in logs[:1]]
    contents = {
        "nothing": b"",
        "rubbish": b"\xff" * 1000,
        "a nest": b'{"identity": ' + b"[" * 200_000,
        "a list": b"[]",
        "a number": b'{"identity": 3}',
        "great numbers": b'{"identity": {"seed": ' + b"9" * 100_000 + b"}}",
    }
    cases += [
        Case(f"config.json of {kind}", put_bytes("config.json", content), 2)
        for kind, content in contents.items()
    ]
    cases += [
        Case(f"{name} of {kind}", put_bytes(name, content), 0)
        for kind, content in contents.items()
        for name in ("exit.json", "exit.rank1.json")
    ]
    cases += [
        Case(f"metrics.jsonl of {kind}", put_bytes("metrics.jsonl", content), 0)
        for kind, content in {**contents, "later lines": LINE * 300_000}.items()
    ]
    return cases


# --- Checkpoints ----------------------------------------------------------------------------------


def put_state(make: Callable[[dict[str, Any], Path], bytes]) -> Prepare:
    return on_run(lambda run, victim: replace_state(run, make(load_state(run), victim)))


def put_value(value: Any, *keys: Any) -> Prepare:
    """Change one value of the newest state."""

    def make(state: dict[str, Any], _: Path) -> bytes:
        part = state
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        return save_bytes(state)

    return put_state(make)


def compress(archive: bytes) -> bytes:
    """Return an archive with a gigabyte of zeros in a megabyte."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        name = zipfile.ZipInfo("archive/data/1000")
        name.compress_type = zipfile.ZIP_DEFLATED
        with new.open(name, "w") as bomb:
            for _ in range(1000):
                bomb.write(bytes(1 << 20))
    return out.getvalue()


def put_manifest(make: Callable[[dict[str, Any]], Any]) -> Prepare:
    def change(run: Path, _: Path) -> None:
        path = run / "checkpoints" / "000000002" / "manifest.json"
        made = make(json.loads(path.read_bytes()))
        path.write_text(made if isinstance(made, str) else json.dumps(made))

    return on_run(change)


def list_checkpoints() -> list[Case]:
    """List cases of states and their manifests."""
    passed_over = {
        "nothing": lambda *_: b"",
        "rubbish": lambda *_: b"rubbish" * 1000,
        "a pickle": lambda state, _: pickle.dumps(state["guard"]),
        "a pickle that executes": lambda _, victim: pickle.dumps(Evil(victim / "executed")),
        "a state that executes": lambda state, victim: save_bytes(
            {**state, "task": Evil(victim / "executed")}
        ),
        "a module": lambda *_: save_bytes(nn.Linear(1, 1)),
        "a list": lambda state, _: save_bytes([state]),
        "a tensor": lambda *_: save_bytes(torch.zeros(3)),
        "another step": lambda state, _: save_bytes({**state, "step": 7}),
        "a step of text": lambda state, _: save_bytes({**state, "step": "2"}),
        "a zip bomb": lambda state, _: compress(save_bytes(state)),
    }
    cases = [
        Case(f"a state of {kind}", put_state(make), 0, "passed over")
        for kind, make in passed_over.items()
    ]
    big = torch.zeros(1).expand(10**6, 10**6)
    values: list[tuple[Any, ...]] = [
        ({}, "task"),
        ([], "optimizer"),
        ({}, "optimizer", "param_groups"),
        (big, "task", "head.weight"),
        (big, "optimizer", "state", 0, "momentum_buffer"),
        ("x", "optimizer", "param_groups", 0, "lr"),
        (10**30, "guard", "skipped"),
        ({"x": 1}, "bad_samples", "bad"),
        ([[]], "meter", "names"),
        (["never heard of"], "meter", "names"),
        (-1, "loader", "position"),
        ({}, "identity"),
        (None, "identity"),
        (torch.zeros(3), "identity", "seed"),
        ([], "machine"),
    ]
    for value, *keys in values:
        name = f"a state whose {'.'.join(map(str, keys))} is {str(value)[:20]!r}"
        cases.append(Case(name.replace("\n", " "), put_value(value, *keys), 2))
    manifests: dict[str, Callable[[dict[str, Any]], Any]] = {
        "nothing": lambda _: "",
        "a nest": lambda _: "[" * 200_000,
        "a list": lambda _: [],
        "files as a list": lambda _: {"files": ["state.pt"]},
        "an entry as a list": lambda _: {"files": {"state.pt": [1]}},
        "a file outside": lambda found: {
            "files": {**found["files"], "../../../victim/precious": {"bytes": 8, "sha256": ""}}
        },
        "a number of bytes of text": lambda _: {"files": {"state.pt": {"bytes": "x"}}},
    }
    cases += [
        Case(f"a manifest of {kind}", put_manifest(make), 0, "passed over")
        for kind, make in manifests.items()
    ]
    return cases


# --- Exported trunks ------------------------------------------------------------------------------


def put_trunk(content: bytes | Callable[[], bytes]) -> Prepare:
    def prepare(folder: Path) -> Words:
        shutil.copytree(make_master() / "data", folder / "data")
        path = folder / "trunk.safetensors"
        path.write_bytes(content() if callable(content) else content)
        return command_line(folder, "--trunk-from", str(path))

    return prepare


def name_trunk(name: str, width: str, **tensors: torch.Tensor) -> Prepare:
    """Return a small file that says it holds some trunk."""
    tensors = tensors or {"conv1.weight": torch.zeros(3)}
    return put_trunk(lambda: safetensors.torch.save(tensors, {"name": name, "width": width}))


def list_trunks() -> list[Case]:
    """List cases of trunks to start from."""
    header = (1 << 60).to_bytes(8, "little")
    lying = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
    prepared = {
        "nothing": put_trunk(b""),
        "a header without end": put_trunk(header + b"{}"),
        "a tensor beyond the file": put_trunk(len(lying).to_bytes(8, "little") + lying.encode()),
        "9 GB by name": name_trunk("resnet50_linear65536", "64"),
        "a width of a thousand digits": name_trunk("resnet9", "9" * 1000),
        "a name of a megabyte": name_trunk("x" * 10**6, "1"),
        "an unknown name": name_trunk("resnet9\n\x1b[31m", "1"),
        "no tensors of it": name_trunk("resnet9", "1"),
    }
    return [Case(f"a trunk of {kind}", prepare, 2) for kind, prepare in prepared.items()]


# --- Runs that another one begins with -----------------------------------------------------------


def begin_with(case: Case) -> Case:
    """Return the case of a new run that begins with the one that lies in a case's folder."""

    def prepare(folder: Path) -> Words:
        words = [str(word) for word in case.prepare(folder)]
        place = words.index("--output-dir")
        longer = ("--output-dir", str(folder / "longer"), "--continue-from", str(folder / "run"))
        return [*words[:place], *longer, *words[place + 2 :]]

    return Case(f"another run begins with {case.name}", prepare)


def list_cases() -> list[Case]:
    """List all of them."""
    own = [*list_directories(), *list_checkpoints()]
    return [*own, *list_trunks(), *map(begin_with, own)]
