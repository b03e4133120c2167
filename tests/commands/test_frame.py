from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from fastssl.commands.frame import boolean_options, parse_arguments, spell_booleans


@dataclass(frozen=True)
class Inner:
    """Inner."""

    ledger: bool = False
    """A boolean below."""


@dataclass(frozen=True)
class Outer:
    """Outer."""

    source: str
    """Positional."""
    resume: bool = False
    """A boolean."""
    keep_order: bool = True
    """Another."""
    name: str = "x"
    """No boolean."""
    data: Inner = field(default_factory=Inner)
    """Nested."""


def test_boolean_options_are_found_at_every_depth():
    assert list(boolean_options(Outer)) == ["--resume", "--keep-order", "--data.ledger"]


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        (["--resume"], ["--resume", "True"]),
        (["--resume", "true"], ["--resume", "True"]),
        (["--resume=false"], ["--resume", "False"]),
        (["--keep_order", "src"], ["--keep-order", "True", "src"]),
        (["--resume", "--keep-order"], ["--resume", "True", "--keep-order", "True"]),
        (["--name", "true"], ["--name", "true"]),
    ],
)
def test_booleans_are_spelled_in_one_way(given, spelled):
    assert spell_booleans(given, boolean_options(Outer)) == spelled


def test_arguments_become_a_config():
    parsed = parse_arguments(
        Outer, ["src", "--resume", "--keep-order=false", "--data.ledger", "true"]
    )
    assert parsed == Outer("src", True, False, "x", Inner(True))


def test_wrong_syntax_exits_with_2():
    with pytest.raises(SystemExit) as caught:
        parse_arguments(Outer, ["src", "--surprise", "1"])
    assert caught.value.code == 2


def test_an_empty_command_line_gives_the_defaults():
    assert parse_arguments(Inner, []) == Inner()


def test_a_reader_that_leaves_early_is_no_failure():
    """As head does."""
    command = (
        "from fastssl.commands.frame import run_command\n"
        "run_command(lambda: [print('row' * 1000) for _ in range(1000)])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")
