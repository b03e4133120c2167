"""The short form of ``runs.py`` and ``stores.py``: a case of each kind, in this process."""

from __future__ import annotations

import contextlib
import logging

import pytest

from fastssl.commands.train import read_command_line
from fastssl.errors import InputError
from fastssl.training import train

from . import runs, stores

WANTED = (
    "a link as ledger.rank77.jsonl",
    "latest is '../../victim/precious'",
    "metrics.jsonl of rubbish",
    "a state of a zip bomb",
    "a state whose optimizer.state.0.momentum_buffer is",
    "a trunk of 9 GB by name",
    "chunks without end for manifest.json",
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("FASTSSL_CACHE", str(tmp_path / "cache"))


def find_case(wanted):
    (case,) = [
        case for case in (*runs.list_cases(), *stores.list_cases()) if case.name.startswith(wanted)
    ]
    return case


@pytest.mark.parametrize("wanted", WANTED)
def test_a_run_goes_on_or_says_why_not_in_a_line(tmp_path, wanted, caplog):
    case = find_case(wanted)
    words = [str(word) for word in case.prepare(tmp_path)]
    assert words[0] == "train"
    refused = pytest.raises(InputError) if case.code else contextlib.nullcontext()
    with caplog.at_level(logging.WARNING), refused as caught:
        train(read_command_line(words[1:]))
    said = caplog.text if caught is None else str(caught.value)
    assert case.says in said
    assert caught is None or "\n" not in said
    victim = tmp_path / "victim"
    if victim.exists():
        assert [path.name for path in victim.iterdir()] == ["precious"]
        assert (victim / "precious").read_text() == "precious"


def test_every_case_has_a_name_of_its_own():
    names = [case.name for case in (*runs.list_cases(), *stores.list_cases())]
    assert len(names) > 100
    assert len(set(names)) == len(names)
