"""A checkpoint's ``state.pt`` as somebody else may have written it, its checksum made to fit.

Nothing in it is executed: torch reads it by its own unpickler of plain values and tensors, once it
names nothing but the few things that our states do. Nothing in it takes more memory than the file
has bytes: no member of the archive is compressed, tensors are views of the mapped file, and each is
compared with what the run has in its place before it is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..counts import spell_number
from ..errors import InputError
from ..models.archives import find_wrong_archive

_YOUNGER = ("spikes", "left_out")  # states from before there were these begin with the run's own
_GLOBALS = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"}
_CONTAINERS = (dict, list, tuple)
_MAX_STEPS = 1 << 22  # A run of a hundred million images may know a million bad ones.
_INT64 = range(-(2**63), 2**63)


def find_foreign(path: Path, step: int) -> str | None:
    """Return why a file is no state of a step of any run, or None if it is one.

    Args:
        path: of the file; its size and checksum are good.
        step: that it is to be of.
    """
    try:
        reason = find_wrong_archive(path, _MAX_STEPS, _is_known)
        if reason is not None:
            return f"{path.name} {reason}"
        state = open_state(path)
    except Exception as error:  # torch, pickle and zip have their own for each kind of damage
        told = str(error).partition("\n")[0] or type(error).__name__
        return f"{path.name} is no state of a run ({told[:200]})"
    if not isinstance(state, dict):
        return f"{path.name} holds a {type(state).__name__}, wanted the parts of a run"
    found = state.get("step")
    if type(found) is not int or found != step:
        return f"{path.name} is of step {str(found)[:40]!r}, wanted {step}"
    return None


def open_state(path: Path) -> Any:
    """Return what a state holds; its tensors are views of the mapped file.

    Args:
        path: of a file that ``find_foreign`` has nothing against.
    """
    # Mapped, for a tensor that claims more than the file has would be read from beyond it else.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _is_known(name: str) -> bool:
    """Tell whether states of runs name something."""
    return name in _GLOBALS or (name.startswith("torch ") and name.endswith("Storage"))


def check_fit(
    state: Mapping[str, Any], own: Mapping[str, Any], optimizer: torch.optim.Optimizer, path: Path
) -> dict[str, Any]:
    """See that a state fits a run, part by part, before anything of the run is changed.

    Args:
        state: from ``open_state``.
        own: what the run would save before its first step.
        optimizer: of the run.
        path: of the file.

    Returns:
        Its parts, copied into memory.

    Raises:
        InputError: names the first part that does not fit.
    """
    parts = {}
    for name, wanted in own.items():
        saved = wanted if name in _YOUNGER and name not in state else take_part(state, name, path)
        if name == "optimizer":
            saved = _check_optimizer(saved, optimizer, path)
        else:
            # Another run's settings, and another machine, are compared elsewhere.
            check_like(saved, {} if name in ("identity", "machine") else wanted, name, path)
        parts[name] = saved
    position, wanted = parts["loader"]["position"], own["loader"]["position"]
    if position != wanted:
        _refuse(path, "loader.position", str(position), str(wanted))
    _check_counts(parts, path)
    return snapshot(parts)


def snapshot(value: Any) -> Any:
    """Return a copy on the CPU that nothing else changes: tensors and what they are nested in."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [snapshot(item) for item in value]
    return value


def _check_counts(parts: Mapping[str, Any], path: Path) -> None:
    """See that the lists of the journal are of what they are to be."""
    bad, meter = parts["bad_samples"]["bad"], parts["meter"]
    for epoch, ids in bad.items():
        is_list = isinstance(ids, list) and all(type(i) is int and i in _INT64 for i in ids)
        if not (is_list and str(epoch).isdecimal() and len(str(epoch)) < 19):
            _refuse(path, f"bad_samples.bad.{str(epoch)[:40]}", _describe(ids), "ids of samples")
    names, sums = meter["names"], meter["sums"]
    are_numbers = all(isinstance(value, float) for value in sums)
    if not are_numbers or (sums and len(sums) != len(names) + 1):
        _refuse(path, "meter.sums", _describe(sums), f"{len(names) + 1} numbers")


def check_like(saved: Any, own: Any, name: str, path: Path) -> None:
    """See that a part of a state has the form of the run's own, all the way down.

    Args:
        saved: from the file.
        own: what the run has in its place; what is empty says nothing of what may be there.
        name: of the part.
        path: of the file.

    Raises:
        InputError: names the first part that does not fit.
    """
    if isinstance(own, Tensor):
        if not isinstance(saved, Tensor):
            _refuse(path, name, _describe(saved), _describe(own))
        if (saved.shape, saved.dtype) != (own.shape, own.dtype):
            _refuse(path, name, _describe(saved), _describe(own))
    elif isinstance(own, dict):
        if not isinstance(saved, dict):
            _refuse(path, name, _describe(saved), "names with values")
        if not own:
            own = {key: [] if isinstance(item, list) else None for key, item in saved.items()}
        if saved.keys() != own.keys():
            wrong = sorted(map(str, saved.keys() ^ own.keys()))
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            what = f"other names than the run's: {', '.join(w[:60] for w in wrong[:3])}{more}"
            _refuse(path, name, what, "those alone")
        for key, value in own.items():
            check_like(saved[key], value, f"{name}.{key}", path)
    elif isinstance(own, list | tuple):
        if not isinstance(saved, list | tuple) or (own and len(saved) != len(own)):
            _refuse(path, name, _describe(saved), f"{len(own) or ''} values".strip())
        for number, item in enumerate(saved):
            check_like(item, own[number] if own else None, f"{name}.{number}", path)
    else:
        _check_plain(saved, own, name, path)


def _check_plain(saved: Any, own: Any, name: str, path: Path) -> None:
    """See that a value is plain, and of a number's kind where the run has a number."""
    is_number = isinstance(saved, int | float) and not isinstance(saved, bool)
    wants_number = isinstance(own, int | float) and not isinstance(own, bool)
    if isinstance(saved, (Tensor, *_CONTAINERS)) or (wants_number and not is_number):
        _refuse(path, name, _describe(saved), "a number" if wants_number else "a plain value")
    is_whole = isinstance(saved, int) and (saved in _INT64 or saved == own)
    if isinstance(own, int) and wants_number and not is_whole:
        _refuse(path, name, str(saved)[:40], "a whole number of 64 bits")


def _check_optimizer(saved: Any, optimizer: torch.optim.Optimizer, path: Path) -> dict[str, Any]:
    """See that a state fits the run's optimiser, and return it.

    Settings of a group that an older torch did not have stand as the run has them.
    """
    own = optimizer.state_dict()
    name = "optimizer"
    if not isinstance(saved, dict) or not {"state", "param_groups"} <= saved.keys():
        _refuse(path, name, _describe(saved), "state and param_groups")
    groups = saved["param_groups"]
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        _refuse(path, f"{name}.param_groups", _describe(groups), "a list of settings")
    if len(groups) != len(own["param_groups"]):
        what = f"{spell_number(len(groups), 'group')} of parameters"
        _refuse(path, f"{name}.param_groups", what, str(len(own["param_groups"])))
    whole = []
    for number, (group, wanted) in enumerate(zip(groups, own["param_groups"], strict=True)):
        filled = {**wanted, **{key: group[key] for key in wanted.keys() & group.keys()}}
        check_like(filled, wanted, f"{name}.param_groups.{number}", path)
        if filled["params"] != wanted["params"]:
            _refuse(path, f"{name}.param_groups.{number}.params", "others", "the run's own")
        whole.append(filled)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    _check_momentums(saved["state"], parameters, path)
    return {"state": saved["state"], "param_groups": whole}


def _check_momentums(saved: Any, parameters: list[Tensor], path: Path) -> None:
    name = "optimizer.state"
    if not isinstance(saved, dict):
        _refuse(path, name, _describe(saved), "values by the parameters' numbers")
    for number, values in saved.items():
        is_known = type(number) is int and 0 <= number < len(parameters)
        if not is_known or not isinstance(values, dict):
            _refuse(path, f"{name}.{str(number)[:40]}", _describe(values), "a parameter's values")
        for key, value in values.items():
            where = f"{name}.{number}.{str(key)[:40]}"
            if not isinstance(value, Tensor):
                check_like(value, None, where, path)
            elif value.dim() and value.shape != parameters[number].shape:
                _refuse(path, where, _describe(value), _describe(parameters[number]))
    # One that lacks what all others have fails in the middle of the first step.
    wanted = {key for values in saved.values() for key in values}
    for number, parameter in enumerate(parameters):
        missing = wanted - saved.get(number, {}).keys() if parameter.requires_grad else set()
        for key in sorted(missing, key=str):
            where = f"{name}.{number}.{str(key)[:40]}"
            _refuse(path, where, "nothing", "a value, as other parameters have")


def take_part(state: Mapping[str, Any], name: str, path: Path) -> Any:
    """Return a part of a state.

    Raises:
        InputError: if it has none of this name.
    """
    if name not in state:
        _refuse(path, name, "nothing", "a part of this name")
    return state[name]


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, _CONTAINERS):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{str(value)[:40]!r}"


def _refuse(path: Path, name: str, got: str, wanted: str) -> None:
    raise InputError(
        f"{path} does not fit this run: {name} is {got}, wanted {wanted}; restore the checkpoint, "
        "remove its folder to go on from the one before, or choose another --output-dir"
    )
