"""Weights that somebody else saved: a dict of tensors in a file, matched to a trunk's names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from ..errors import InputError
from .archives import MAX_STEPS, find_wrong_archive, is_archive, is_too_long
from .trunks import build_trunk, trunk_names

_MAX_DEPTH = 4
_MAX_TENSORS = 20_000
_MAX_PREFIX = 4  # Parts of a name.


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the weights in a file of torch.save or safetensors.

    Of a checkpoint that nests them, beside an optimiser's state for instance, the dict with the
    most named tensors is taken.

    Args:
        path: the file; of torch.save tensors and plain containers alone are loaded.

    Raises:
        InputError: if it cannot be read or holds no named tensors.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; give a checkpoint")
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except Exception as error:  # the reader of pickles raises whatever rubbish leads it to
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{path} cannot be read as weights ({said[0][:200]}); save the network's state_dict() "
            "alone, with torch.save or safetensors"
        ) from None
    states = list(_find_states(content, 0, set()))
    if not states:
        raise InputError(f"{path} holds no named tensors; save the network's state_dict()")
    return max(states, key=len)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safetensors.safe_open(path, "pt") as file:
        names = list(file.keys())
        if len(names) > _MAX_TENSORS:
            raise ValueError(f"{len(names):,} tensors, at most {_MAX_TENSORS:,} are read")
        return {name: file.get_tensor(name) for name in names}


def _read_pickle(path: Path) -> Any:
    if is_archive(path):
        if reason := find_wrong_archive(path):
            raise ValueError(f"it {reason}")
        # Mapped: a tensor that claims more than the file has would be read from beyond it else.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if is_too_long(path):
        raise ValueError(f"it describes its content in more than {MAX_STEPS:,} steps")
    return torch.load(path, map_location="cpu", weights_only=True)


def _find_states(content: Any, depth: int, seen: set[int]) -> Iterator[dict[str, Tensor]]:
    """Yield every dict of named tensors inside a checkpoint, each once."""
    if not isinstance(content, Mapping) or depth > _MAX_DEPTH or id(content) in seen:
        return
    seen.add(id(content))
    state = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor) and _is_dense(value)
    }
    if len(state) > _MAX_TENSORS:
        return
    if state:
        yield state
    for value in content.values():
        yield from _find_states(value, depth + 1, seen)


def _is_dense(value: Tensor) -> bool:
    """Tell whether a tensor is of plain numbers that weights can be made of."""
    is_odd = value.is_complex() or value.is_quantized or value.is_nested
    return value.layout == torch.strided and value.device.type == "cpu" and not is_odd


def fit_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a state that a network takes, under its own names.

    What wrapped the network put a prefix before its names (``module.``, ``encoder_q.``): the one
    under which the most tensors fit by name and shape is taken off.

    Args:
        state: names and tensors.
        wanted: of the network.

    Returns:
        Those that fit; a network is whole if none of ``find_missing`` is left.
    """
    fitting: Counter[str] = Counter()
    for key, tensor in state.items():
        prefix = ""
        for part in ("", *key.split(".", _MAX_PREFIX)[:-1]):
            prefix += f"{part}." if part else ""
            name = key[len(prefix) :]
            fitting[prefix] += name in wanted and wanted[name].shape == tensor.shape
    prefix = max(sorted(fitting), key=fitting.__getitem__, default="")
    return {
        name: state[prefix + name]
        for name, tensor in wanted.items()
        if prefix + name in state and state[prefix + name].shape == tensor.shape
    }


def find_missing(fitted: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return the names without which a network is not whole; batch counters may be missing."""
    return [n for n in wanted if n not in fitted and not n.endswith("num_batches_tracked")]


def fit_file(
    network: nn.Module, name: str, path: Path, optional: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read somebody's weights, and see that a network takes them.

    Args:
        network: takes them; of its tensors names and shapes are enough.
        name: of the trunk that it is.
        path: the file.
        optional: beginnings of names that may be missing, such as a classifier's.

    Returns:
        All tensors of the file, and those that the network takes under its own names.

    Raises:
        InputError: if tensors are missing or of another shape; names them and the trunk of ours
            that fits best.
    """
    state, wanted = read_state_dict(path), network.state_dict()
    fitted = fit_state(state, wanted)
    missing = [n for n in find_missing(fitted, wanted) if not n.startswith(optional)]
    if missing:
        share = 1 - len(missing) / len(wanted)
        raise InputError(
            f"{path} does not fit trunk '{name}': {len(missing)} of its {len(wanted)} tensors are "
            f"missing, of another shape or no dense numbers ({_first_few(missing)}); the file has "
            f"{len(state)}, such as {_first_few(list(state))}; {_suggest(state, share)}"
        )
    return state, fitted


def load_state(
    network: nn.Module, name: str, path: Path, optional: tuple[str, ...] = ()
) -> list[str]:
    """Load somebody's weights into a network.

    Args:
        network: takes them.
        name: as ``fit_file`` takes it, and what follows too.
        path: the file.
        optional: beginnings of names that may be missing.

    Returns:
        Names in the file that the network has no use for, such as those of a head.

    Raises:
        InputError: as of ``fit_file``.
    """
    state, fitted = fit_file(network, name, path, optional)
    network.load_state_dict({**network.state_dict(), **fitted})
    used = {id(tensor) for tensor in fitted.values()}
    return [key for key, tensor in state.items() if id(tensor) not in used]


_NEAR = 0.8
"""Networks that share fewer of their names and shapes are no relatives worth naming."""


def _suggest(state: Mapping[str, Tensor], share: float) -> str:
    """Name the trunk of ours that a state fits best, and how well."""
    shares = {}
    for name in trunk_names():
        with torch.device("meta"):
            wanted = build_trunk(name).state_dict()
        shares[name] = 1 - len(find_missing(fit_state(state, wanted), wanted)) / len(wanted)
    best = max(shares, key=lambda name: (shares[name], -len(name)))
    if shares[best] < 1 and shares[best] <= max(share, _NEAR):
        return "no trunk of fastssl fits better; take --trunk torchvision:NAME or timm:NAME"
    if shares[best] == 1:
        return f"take --trunk {best}, which it fits whole"
    return f"nearest is --trunk {best}, of which it has {100 * shares[best]:.0f} %"


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
