from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
from tqdm import tqdm

from fastssl.commands.frame import AboveBars, boolean_options, parse_arguments, spell_booleans
from fastssl.errors import InputError
from fastssl.fields import Checked, Range, free
from tests.terminal import STOPPED


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
        (["--resume"], ["--resume", "true"]),
        (["--resume", "true"], ["--resume", "true"]),
        (["--resume=false"], ["--resume", "false"]),
        (["--keep_order", "src"], ["--keep-order", "true", "src"]),
        (["--resume", "--keep-order"], ["--resume", "true", "--keep-order", "true"]),
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--resum", "true", "src"], "option --resum is not known; did you mean --resume?"),
        (["src", "--data.leger", "true"], "--data.leger is not known; did you mean --data.ledger?"),
        ([], "Missing from x: SOURCE"),
        (["src", "more"], "Unrecognized options: more; x --help shows all"),
    ],
)
def test_wrong_syntax_is_one_line_that_names_it(words, said):
    with pytest.raises(InputError) as caught:
        parse_arguments(Outer, words, program="x")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isascii()


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


def test_a_bar_into_a_file_is_a_line_now_and_then():
    command = (
        "import time\n"
        "from fastssl.commands.frame import progress_bar, run_command\n"
        "def work():\n"
        "    with progress_bar('work') as advance:\n"
        "        advance(0, 100)\n"
        "        for _ in range(100):\n"
        "            advance(1, 100)\n"
        "            time.sleep(0.02)\n"
        "run_command(work)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True)
    assert b"100/100" in done.stderr
    assert done.stderr.count(b"\r") < 5  # on a terminal ten a second


@dataclass(frozen=True)
class Described(Checked):
    """What the help is made from."""

    source: Path
    """A text that is written
    in two lines."""
    share: Annotated[float, Range(0, 1)] = 0.5
    """A part."""
    size: Annotated[int, Range(1, 1024)] = 8
    """A number."""
    is_deep: bool = True
    """A boolean."""
    json: Path | None = None
    """Nothing is written without it."""
    output_dir: Path = free(Path(), is_required=True)
    """Has to be given."""
    inner: Inner = field(default_factory=Inner)
    """Nested."""


@pytest.fixture
def help_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parse_arguments(Described, ["--help"], program="fastssl describe")
    return " ".join(capsys.readouterr().out.replace("\u2502", "").split())


@pytest.mark.parametrize(
    "told",
    [
        "usage: fastssl describe [-h] [OPTIONS]",
        "SOURCE A text that is written in two lines. (required)",
        "--share FLOAT A part. (0 .. 1; default: 0.5)",
        "--size INT A number. (1 .. 1024; default: 8)",
        "--is-deep true|false A boolean. (default: true)",
        "--json PATH Nothing is written without it. --output-dir",
        "--output-dir PATH Has to be given. (required)",
        "--inner.ledger true|false A boolean below. (default: false)",
    ],
)
def test_the_help_reads_as_sentences(help_text, told):
    assert told in help_text


def test_a_boolean_that_is_none_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"--keep-order \('maybe'\) must be true or false"):
        parse_arguments(Outer, ["src", "--keep-order=maybe"])


def test_a_logged_line_does_not_begin_behind_a_bar(capsys):
    with tqdm(total=3):
        AboveBars().emit(logging.makeLogRecord({"msg": "a step took long"}))
    assert "\ra step took long\n" in capsys.readouterr().err


def test_a_bar_that_ctrl_c_left_half_built_ends_above_the_line():
    code = (
        "from fastssl.commands.frame import run_command\n"
        "from tqdm import tqdm\n"
        "def main():\n"
        "    bar = tqdm(total=3)\n"
        "    raise KeyboardInterrupt\n"
        "run_command(main)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == STOPPED
    assert "0/3" in ended.stderr
