"""States that somebody else wrote, their checksums made to fit: named in a line, never executed."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from fastssl.errors import InputError
from fastssl.training.checkpoint import CheckpointStore, find_damage
from fastssl.training.stored_state import check_fit, find_foreign, open_state

STEP = 5


def build():
    """A run of one layer, after a step."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return layer, optimizer


def make_state(layer, optimizer):
    return {
        "step": STEP,
        "task": dict(layer.state_dict()),
        "optimizer": optimizer.state_dict(),
        "scaler": {},
        "guard": {"skipped": 0, "streak": 0},
        "bad_samples": {"bad": {"0": [4, 9]}, "total": 2},
        "meter": {"names": ["loss"], "sums": [3.0, 1.5], "fallbacks": 0},
        "loader": {"seed": 2**64 - 1, "order": "global", "position": 40},
        "identity": {"seed": 1, "schedule.milestones": [1.0]},
        "machine": {"world_size": 1},
    }


def save_bytes(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def exchange(archive, change=None, outline=None, compression=zipfile.ZIP_STORED, extra=()):
    """Write an archive of torch anew, with another outline."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("data.pkl"):
                content = change(content) if outline is None else outline
            new.writestr(member.filename, content, compression)
        for name, content in extra:
            new.writestr(name, content, compression)
    return out.getvalue()


class Evil:
    """What a pickle would execute."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def damages(canary):
    """Files that are no state of a step, by what is wrong with them."""
    state = make_state(*build())
    whole = save_bytes(state)
    same = lambda content: content  # noqa: E731
    return {
        "nothing": b"",
        "rubbish": b"rubbish" * 100,
        "a pickle": pickle.dumps(state["guard"]),
        "an executing pickle": pickle.dumps(Evil(canary)),
        "an executing state": save_bytes({**state, "task": Evil(canary)}),
        "an executing outline": exchange(whole, outline=pickle.dumps(Evil(canary), 2)),
        "a module": save_bytes(nn.Linear(1, 1)),
        "a list": save_bytes([state]),
        "a tensor": save_bytes(torch.zeros(3)),
        "no step": save_bytes({k: v for k, v in state.items() if k != "step"}),
        "a step of text": save_bytes({**state, "step": "5"}),
        "a true step": save_bytes({**state, "step": True}),
        "a step of fractions": save_bytes({**state, "step": 5.0}),
        "a tensor for a step": save_bytes({**state, "step": torch.tensor(5)}),
        "another step": save_bytes({**state, "step": 6}),
        "the older format": _save_old(state),
        "a zip bomb": exchange(
            whole, same, None, zipfile.ZIP_DEFLATED, [("archive/data/99", bytes(1 << 20))]
        ),
        "cut outline": exchange(whole, lambda content: content[:-20]),
        "empty outline": exchange(whole, outline=b""),
        "two outlines": exchange(whole, same, extra=[("b/data.pkl", b"x")]),
        "an archive of nothing": exchange(whole, same)[-22:],
        "much memory": exchange(
            whole, outline=b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x10\x85R."
        ),
        "a tensor beyond the file": exchange(
            whole,
            lambda content: content.replace(b"K\x06t", b"J\xff\xff\xff\x3ft", 1).replace(
                b"K\x02K\x03\x86", b"J\xff\xff\xff\0K\x03\x86", 1
            ),
        ),
        "a deep nest": exchange(whole, outline=b"\x80\x02" + b"(" * 100_000 + b"t" * 99_999 + b"."),
    }


def _save_old(state):
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def test_what_is_no_state_is_named_in_a_line_and_never_executed(tmp_path):
    canary, path = tmp_path / "executed", tmp_path / "state.pt"
    for kind, content in damages(canary).items():
        path.write_bytes(content)
        reason = find_foreign(path, STEP)
        assert reason is not None, kind
        assert "\n" not in reason, kind
        assert len(reason) < 300, kind
        assert not canary.exists(), kind
    path.write_bytes(save_bytes(make_state(*build())))
    assert find_foreign(path, STEP) is None


def test_the_one_before_a_foreign_state_is_taken(tmp_path):
    store = CheckpointStore(tmp_path, 2)
    for step in (4, STEP):
        store.save(step, {**make_state(*build()), "step": step})
    store.wait()
    replace_state(tmp_path / f"{STEP:09d}", save_bytes(["another", "run"]))
    assert find_damage(tmp_path / f"{STEP:09d}", STEP) == (
        "state.pt holds a list, wanted the parts of a run"
    )
    assert CheckpointStore(tmp_path, 2).find_newest() == 4


def replace_state(folder, content):
    """Put another state into a checkpoint and make its checksum fit."""
    (folder / "state.pt").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["sha256"]
    manifest["files"]["state.pt"] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


# ------------------------------------------------------------------ states of other runs


def attempt(tmp_path, change):
    """Change a state, save it, and see whether it fits the run that it was of."""
    layer, optimizer = build()
    own = make_state(layer, optimizer)
    state = copy.deepcopy(own)
    change(state)
    path = tmp_path / "state.pt"
    path.write_bytes(save_bytes(state))
    own["bad_samples"] = {"bad": {}, "total": 0}
    own["meter"] = {"names": [], "sums": [], "fallbacks": 0}
    return check_fit(open_state(path), own, optimizer, path), state


def test_a_state_comes_back_as_it_was_and_in_memory_of_its_own(tmp_path):
    found, state = attempt(tmp_path, lambda state: None)  # noqa: ARG005
    (tmp_path / "state.pt").write_bytes(b"")  # what is still mapped would be lost
    assert torch.equal(found["task"].pop("weight"), state["task"].pop("weight"))
    assert torch.equal(found["task"].pop("bias"), state["task"].pop("bias"))
    momentums, wanted = (one["optimizer"].pop("state") for one in (found, state))
    for number in (0, 1):
        assert torch.equal(momentums[number]["momentum_buffer"], wanted[number]["momentum_buffer"])
    assert found == state


def test_settings_that_an_older_torch_did_not_have_are_the_runs(tmp_path):
    found, _ = attempt(
        tmp_path, lambda state: state["optimizer"]["param_groups"][0].pop("differentiable")
    )
    assert found["optimizer"]["param_groups"][0]["differentiable"] is False


def put(value, *keys):
    def change(state):
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


BIG = torch.zeros(1).expand(10**6, 10**6)  # a terabyte, of four bytes in the file
MISFITS = [
    (lambda state: state.pop("guard"), "guard is nothing"),
    (put([], "task"), "task is a list of 0"),
    (put(torch.zeros(2), "task", "more"), r"task is other names than the run's: more"),
    (lambda state: state["task"].pop("bias"), "other names than the run's: bias"),
    (put(torch.zeros(2, 4), "task", "weight"), r"weight is float32 \(2, 4\), wanted .*2, 3"),
    (put(torch.zeros(2, 3).half(), "task", "weight"), r"is float16 \(2, 3\), wanted float32"),
    (put(BIG, "task", "weight"), r"is float32 \(1000000, 1000000\)"),
    (put("x", "task", "weight"), "is 'x', wanted float32"),
    (put(None, "optimizer"), "optimizer is 'None', wanted state and param_groups"),
    (put([], "optimizer", "param_groups"), "is 0 groups of parameters, wanted 1"),
    (put({}, "optimizer", "param_groups"), "is a dict of 0, wanted a list of settings"),
    (put("high", "optimizer", "param_groups", 0, "lr"), r"0\.lr is 'high', wanted a number"),
    (put([0], "optimizer", "param_groups", 0, "params"), "params is a list of 1, wanted 2 values"),
    (put([1, 0], "optimizer", "param_groups", 0, "params"), "params is others"),
    (put([], "optimizer", "state"), "wanted values by the parameters' numbers"),
    (put({}, "optimizer", "state", 7), r"state\.7 is a dict of 0, wanted a parameter's values"),
    (put(BIG, "optimizer", "state", 0, "momentum_buffer"), r"1000000\), wanted float32 \(2, 3\)"),
    (put([BIG], "optimizer", "state", 0, "momentum_buffer"), "wanted a plain value"),
    (put(10**30, "guard", "skipped"), "wanted a whole number of 64 bits"),
    (put(1.5, "guard", "streak"), "wanted a whole number of 64 bits"),
    (put({"scale": 1.0}, "scaler", "x"), "scaler.x is a dict of 1, wanted a plain value"),
    (put([1], "bad_samples", "bad", "x"), r"bad_samples\.bad\.x is a list of 1"),
    (put(["x"], "bad_samples", "bad", "3"), "wanted ids of samples"),
    (put([1.0] * 9, "meter", "sums"), "meter.sums is a list of 9, wanted 2 numbers"),
    (put(["x", 1.0], "meter", "sums"), "meter.sums is a list of 2, wanted 2 numbers"),
    (put("x", "meter", "names"), "meter.names is 'x'"),
    (put(41, "loader", "position"), "loader.position is 41, wanted 40"),
    (put([], "loader"), "loader is a list of 0"),
    (put(3, "identity"), "identity is '3'"),
    (put({"a": {"b": 1}}, "identity"), r"identity\.a is a dict of 1, wanted a plain value"),
    (put([], "machine"), "machine is a list of 0"),
]


@pytest.mark.parametrize(("change", "message"), MISFITS, ids=[message for _, message in MISFITS])
def test_what_does_not_fit_is_refused_by_its_name(tmp_path, change, message):
    with pytest.raises(
        InputError, match=rf"state\.pt does not fit this run: .*{message}"
    ) as caught:
        attempt(tmp_path, change)
    assert "\n" not in str(caught.value)
