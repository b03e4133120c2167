"""Hostile weights for ``evaluate --checkpoint``: exported trunks, and state dicts of others."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fastssl.models import build_trunk
from fastssl.models.input_spec import INPUT_KEY, InputSpec

from .case import Case, make_victim
from .datasets import copy_base
from .runs import Evil, Words, compress, save_bytes

Make = Callable[[Path], Any]
"""Writes a file; beside it stands the folder of which nothing must change."""


def command_line(dataset: Path, checkpoint: Path, *more: str) -> Words:
    """Return the command that evaluates some weights on a dataset."""
    words = ("evaluate", "knn", "--checkpoint", checkpoint, "--data.path", dataset)
    quick = ("--view-size", "32", "--data.num-threads", "1", "--end-points", "pre_logits")
    return (*words, *quick, "--device", "cpu", *more)


def make_state() -> dict[str, Tensor]:
    """Return the good weights that all others are made of."""
    torch.manual_seed(0)
    return build_trunk("resnet9", 1).state_dict()


METADATA = {"name": "resnet9", "width": "1", "recipe": "r", "step": "5"}
METADATA[INPUT_KEY] = InputSpec().to_text()


# --- Exported trunks ------------------------------------------------------------------------------


def export(state: Mapping[str, Tensor], **metadata: str) -> bytes:
    """Return an exported trunk whose metadata say something else."""
    return safetensors.torch.save(dict(state), {**METADATA, **metadata})


def write_header(header: Any, size: int | None = None, content: bytes = b"") -> bytes:
    """Return a file of safetensors with whatever header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + content


def _retype(dtype: str, bits: int) -> bytes:
    """Return the trunk with tensors of zeros that say they are of another type."""
    header: dict[str, Any] = {"__metadata__": METADATA}
    place = 0
    for name, value in make_state().items():
        size = -(-value.numel() * bits // 8)
        header[name] = {"dtype": dtype, "shape": [*value.shape]}
        header[name]["data_offsets"] = [place, place + size]
        place += size
    return write_header(header, content=bytes(place))


def _spell_input(**fields: Any) -> str:
    return json.dumps({**json.loads(METADATA[INPUT_KEY]), **fields})


METADATA_LIES: dict[str, dict[str, str]] = {
    "a step of 5,000 digits": {"step": "9" * 5000},
    "a step of 4,000 digits": {"step": "9" * 4000},
    "a step of other digits": {"step": "\u0663\u00b2"},
    "a step below zero": {"step": "-1"},
    "a recipe of a megabyte": {"recipe": "x" * 10**6},
    "a recipe that moves the cursor": {"recipe": "\x1b[2J\x1b[31m\n\r"},
    "an input of nothing": {INPUT_KEY: ""},
    "an input nested without end": {INPUT_KEY: "[" * 10**6},
    "an input that is a list": {INPUT_KEY: "[]"},
    "an input of a megabyte": {INPUT_KEY: json.dumps({"kind": "x" * 10**6})},
    "an input of a kind that is a list": {INPUT_KEY: '{"kind": []}'},
    "an input without a scale": {INPUT_KEY: '{"kind": "scaled"}'},
    "an input with a mean beyond floats": {INPUT_KEY: _spell_input(mean=[10**400] * 3)},
    "an input with a mean of digits": {INPUT_KEY: _spell_input(mean=["1" * 10**5] * 3)},
    "an input with an endless mean": {
        INPUT_KEY: json.dumps({"kind": "scaled", "mean": [0] * 10**6, "std": [1, 1, 1]})
    },
    "an input with a mean of text": {INPUT_KEY: _spell_input(mean="abc")},
    "an input divided by nothing": {INPUT_KEY: _spell_input(std=[0, 0, 0])},
    "an input divided by next to nothing": {INPUT_KEY: _spell_input(std=[1e-308] * 3)},
    "an input of NaN": {INPUT_KEY: _spell_input(mean=[float("nan")] * 3)},
    "an input of 1e308": {INPUT_KEY: _spell_input(mean=[1e308] * 3)},
    "an input of one channel": {INPUT_KEY: '{"kind": "lightness", "eight_bit": "x"}'},
    "an input of Lab": {INPUT_KEY: _spell_input(kind="lab")},
    "the trunk of 9 GB": {"name": "resnet50_linear65536", "width": "64"},
    "a trunk of another name": {"name": "resnet50_newell_dense"},
    "a trunk of one feature": {"name": "resnet9_linear1"},
    "a trunk that climbs": {"name": "../../resnet9"},
    "a trunk of another library": {"name": "timm:resnet18"},
    "a width of nothing": {"width": "0"},
    "a width of 999": {"width": "999"},
}
"""What the metadata of a trunk may say, by name."""


def _fill(value: float, dtype: torch.dtype = torch.float32) -> bytes:
    state = make_state()
    floats = {k: v for k, v in state.items() if v.is_floating_point()}
    return export(state | {k: torch.full_like(v, value).to(dtype) for k, v in floats.items()})


def list_exports() -> dict[str, Make]:
    """Return hostile exported trunks by name."""
    good = partial(export, make_state())
    made: dict[str, Callable[[], bytes]] = {
        **{name: partial(good, **told) for name, told in METADATA_LIES.items()},
        "a header of 2**60 bytes": lambda: write_header({}, 1 << 60),
        "a header of less than nothing": lambda: write_header({}, (1 << 64) - 8),
        "a header nested without end": lambda: write_header(b'{"x":' + b"[" * 10**6),
        "a header of digits": lambda: write_header(b'{"x":' + b"9" * 10**6),
        "a header of zeros": lambda: write_header(bytes(10**6)),
        "a header that is a list": lambda: write_header([]),
        "a header twice": lambda: write_header(b'{"__metadata__":{},"__metadata__":{}}'),
        "a million metadata": lambda: good(**{str(i): "" for i in range(10**6)}),
        "a million tensors": lambda: write_header(
            {
                "__metadata__": METADATA,
                **{
                    str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                    for i in range(700_000)
                },
            }
        ),
        "tensors of one another": lambda: write_header(
            {
                "__metadata__": METADATA,
                **{
                    name: {"dtype": "F32", "shape": [*v.shape], "data_offsets": [0, v.numel() * 4]}
                    for name, v in make_state().items()
                },
            },
            content=bytes(10**6),
        ),
        "a tensor of 2**63 x 2**63": lambda: write_header(
            {"x": {"dtype": "F32", "shape": [1 << 63, 1 << 63], "data_offsets": [0, 0]}}
        ),
        "a tensor of no size": lambda: write_header(
            {"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}
        ),
        "weights that are no numbers": lambda: _fill(float("nan")),
        "weights without end": lambda: _fill(float("inf")),
        "weights of 1e38": lambda: _fill(1e38),
        "weights of zeros": lambda: _fill(0),
        "weights of doubles": lambda: _fill(0.1, torch.float64),
        "weights of whole numbers": lambda: _fill(1, torch.int64),
        "weights of truths": lambda: _fill(1, torch.bool),
        **{
            f"weights of {dtype}": partial(_retype, dtype, bits)
            for dtype, bits in (
                *(("F8_E4M3", 8), ("F8_E8M0", 8), ("F4", 4), ("F6_E2M3", 6)),
                *(("U64", 64), ("C64", 64), ("BF16", 16), ("X", 8)),
            )
        },
    }

    def write(make: Callable[[], bytes], path: Path) -> None:
        path.write_bytes(make())

    return {name: partial(write, make) for name, make in made.items()}


# --- State dicts ----------------------------------------------------------------------------------


def _save_state(change: Callable[[Tensor], Any], path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # of formats that torch means to change
        path.write_bytes(save_bytes({key: change(value) for key, value in make_state().items()}))


def _quantize(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)


def _cut_storages(path: Path) -> None:
    """Leave of each storage one byte, and what it is told to have as it was."""
    path.write_bytes(save_bytes(make_state()))
    old = path.with_suffix(".old")
    path.rename(old)
    with zipfile.ZipFile(old) as before, zipfile.ZipFile(path, "w") as after:
        for member in before.infolist():
            content = before.read(member)
            after.writestr(member.filename, content[:1] if "/data/" in member.filename else content)


def _lie_of_sizes(path: Path) -> None:
    """Have the pickle speak of larger storages than there are, as many digits long."""
    path.write_bytes(save_bytes({"block1.conv1.weight": torch.zeros(1000)}))
    old = path.with_suffix(".old")
    path.rename(old)
    with zipfile.ZipFile(old) as before, zipfile.ZipFile(path, "w") as after:
        for member in before.infolist():
            content = before.read(member)
            if member.filename.endswith("data.pkl"):
                content = content.replace(
                    (1000).to_bytes(2, "little"), (65535).to_bytes(2, "little")
                )
            after.writestr(member.filename, content)


def _save_legacy(path: Path, state: Any = None) -> None:
    torch.save(make_state() if state is None else state, path, _use_new_zipfile_serialization=False)


def _lie_in_legacy(path: Path) -> None:
    """Have a file of the old format speak of a storage of 2**40 numbers."""
    _save_legacy(path, {"block1.conv1.weight": torch.zeros(70_000)})
    content = path.read_bytes()
    # BININT of 70,000 becomes LONG1 of 2**40.
    wanted = b"J" + (70_000).to_bytes(4, "little")
    assert wanted in content
    path.write_bytes(content.replace(wanted, b"\x8a\x06" + (1 << 40).to_bytes(6, "little")))


def _nest(depth: int, width: int) -> dict[str, Any]:
    """Return dicts that all refer to the same one below them."""
    inside: dict[str, Any] = {"x": torch.zeros(1)}
    for _ in range(depth):
        inside = {str(number): inside for number in range(width)}
    return inside


def _make_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name in ("pickle", "storages", "tensors", "../../victim/executed"):
            member = tarfile.TarInfo(name)
            tar.addfile(member)


def _write_pickle(content: bytes, path: Path) -> None:
    """Write an archive of torch's whose pickle is whatever it is."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


def list_states() -> dict[str, Make]:
    """Return hostile state dicts by name."""

    def save(make: Callable[[Path], bytes], path: Path) -> None:
        path.write_bytes(make(path.parent / "victim"))

    saved: dict[str, Callable[[Path], bytes]] = {
        "nothing": lambda _: b"",
        "rubbish": lambda _: b"rubbish" * 1000,
        "zeros": lambda _: bytes(10**6),
        "a pickle": lambda _: pickle.dumps({"x": 1}),
        "a pickle that executes": lambda victim: pickle.dumps(Evil(victim / "executed")),
        "a state that executes": lambda victim: save_bytes(
            {**make_state(), "x": Evil(victim / "executed")}
        ),
        "a zip bomb": lambda _: compress(save_bytes(make_state())),
        "a module": lambda _: save_bytes(nn.Linear(1, 1)),
        "a list": lambda _: save_bytes([make_state()]),
        "a tensor": lambda _: save_bytes(torch.zeros(3)),
        "no tensors": lambda _: save_bytes({"epoch": 3}),
        "one weight of 10**12 numbers": lambda _: save_bytes(
            {**make_state(), "x": torch.zeros(1).expand(10**6, 10**6)}
        ),
        "the weights as one number": lambda _: save_bytes(
            {k: torch.zeros(()).expand(v.shape) for k, v in make_state().items()}
        ),
        "dicts in dicts by the thousand": lambda _: save_bytes(_nest(4, 3000)),
        "a hundred thousand prefixes": lambda _: save_bytes(
            {f"a{n}.b{n}.c{n}.d{n}.e": torch.zeros(()) for n in range(60_000)}
        ),
        "a hundred thousand networks": lambda _: save_bytes(
            {f"a{n}.block1.conv1.weight": torch.zeros(()) for n in range(60_000)}
        ),
        "a name of a megabyte": lambda _: save_bytes({"x." * 10**6: torch.zeros(1)}),
        "names that move the cursor": lambda _: save_bytes({"\x1b[2J\n": torch.zeros(1)}),
        "an archive of text": lambda _: b"PK\x03\x04" + bytes(1000),
    }
    changes: dict[str, Callable[[Tensor], Any]] = {
        "complex weights": lambda value: value.to(torch.complex64),
        "sparse weights": lambda value: value.to_sparse(),
        "weights without memory": lambda value: value.to("meta"),
        "weights of whole numbers": lambda value: value.long(),
        "weights of truths": lambda value: value.bool(),
        "weights that are no numbers": lambda value: (
            torch.full_like(value, torch.nan) if value.is_floating_point() else value
        ),
        "quantized weights": _quantize,
        "weights of eight bits": lambda value: value.to(torch.float8_e4m3fn),
        "parameters": lambda value: nn.Parameter(value, requires_grad=value.is_floating_point()),
    }
    pickles = {
        "a pickle without an end": b"\x80\x02" + b"]" * 10**6,
        "30 million empty dicts": b"\x80\x02" + b"}" * (30 << 20) + b".",
        "lists in lists without end": b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
        "text of 2**32 bytes": b"\x80\x02X\xff\xff\xff\xff.",
        "a foreign name": b"\x80\x02cposix\nsystem\n(X\x04\x00\x00\x00truetR.",
    }
    return {
        **{name: partial(save, make) for name, make in saved.items()},
        **{name: partial(_save_state, change) for name, change in changes.items()},
        **{name: partial(_write_pickle, content) for name, content in pickles.items()},
        "30 million empty dicts, as they were saved once": lambda path: path.write_bytes(
            pickle.dumps(119547037146038801333356, 2)
            + pickle.dumps(1001, 2)
            + pickle.dumps({"little_endian": True}, 2)
            + pickles["30 million empty dicts"]
        ),
        "storages of a byte": _cut_storages,
        "storages that lie": _lie_of_sizes,
        "weights as they were saved once": _save_legacy,
        "a storage of 2**40 as it was saved once": _lie_in_legacy,
        "a tar": _make_tar,
        "a pipe": os.mkfifo,
        "a folder": Path.mkdir,
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a terabyte of nothing": lambda path: _make_sparse(path),
    }


def _make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


NETWORKS = (
    *(
        "timm:hf-hub:x/y",
        "timm:hf_hub:x/y",
        "timm:../../x",
        "timm:",
        "timm:\x1b[2J",
        "timm:local-dir:/",
    ),
    *("torchvision:../..", "torchvision:", "torchvision:__init__", "torchvision:get_model"),
    *("torchvision:resnet18_linear5", "torchvision:quantized_resnet18", "keras:x", ":", "::"),
    *("resnet9_linear", "resnet9_linear0", "resnet9_linear" + "9" * 5000, "resnet9_linear\u0663"),
    *("resnet50_linear65536", "x" * 100_000, "resnet9\n", "../resnet9", "torchvision:vit_h_14"),
)
"""Names for ``--trunk`` that are none, or not of these weights."""


def _case(name: str, file: str, make: Make, *more: str) -> Case:
    def prepare(folder: Path) -> Words:
        dataset = copy_base(folder)
        make_victim(folder)
        make(folder / file)
        return command_line(dataset, folder / file, *more)

    return Case(name, prepare)


def _name_networks() -> Iterator[Case]:
    for network in NETWORKS:
        make = partial(_save_state, lambda value: value)
        yield _case(f"--trunk {network[:40]!r}", "weights.pt", make, "--trunk", network)


def list_cases() -> list[Case]:
    """Return every case."""
    ours = ("--trunk", "resnet9", "--width", "1")
    exports = list_exports()
    states = list_states()
    kinds = (
        "a pipe",
        "a folder",
        "a link to a device",
        "a link to itself",
        "a terabyte of nothing",
    )
    return [
        *(_case(f"a trunk: {name}", "x.safetensors", make) for name, make in exports.items()),
        *(_case(f"a trunk: {name}", "x.safetensors", states[name]) for name in kinds),
        *(_case(f"a state dict: {name}", "x.pt", make, *ours) for name, make in states.items()),
        *(
            _case(f"a state dict of safetensors: {name}", "x.safetensors", make, *ours)
            for name, make in exports.items()
            if not name.startswith(("a step", "a recipe", "an input", "a width", "a trunk"))
        ),
        *_name_networks(),
    ]
