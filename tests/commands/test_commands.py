"""The list of commands, their shims and their completion in a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastssl.commands import COMMANDS, describe_commands
from fastssl.commands.completion import ZSH_BEGIN

ROOT = Path(__file__).parents[2]


def fastssl(*arguments):
    command = [sys.executable, "-m", "fastssl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_list_names_every_command_in_80_columns():
    lines = describe_commands().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.startswith("  ")] == [*COMMANDS]


def test_every_command_has_its_script_for_a_checkout():
    for name in COMMANDS:
        script = ROOT / "tools" / f"{name.replace('-', '_')}.py"
        assert f'run("{name}")' in script.read_text()


def test_an_unknown_command_is_answered_with_the_nearest():
    done = fastssl("make-shard")
    assert done.returncode == 2
    assert done.stderr == (
        "error: command ('make-shard') is not known; did you mean 'make-shards'?\n"
    )


@pytest.mark.parametrize("spelled", ["check-shards", "check_shards"])
def test_help_shows_what_was_called(spelled):
    assert fastssl(spelled, "--help").stdout.startswith("usage: fastssl check-shards ")
    script = [sys.executable, str(ROOT / "tools" / "check_shards.py"), "--help"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("usage: check_shards.py ")


@pytest.fixture(scope="module")
def completion(tmp_path_factory):
    """Write the completion for bash."""
    path = tmp_path_factory.mktemp("completion") / "fastssl"
    path.write_text(fastssl("completion", "bash").stdout)
    return path


@pytest.fixture(scope="module")
def complete(completion):
    """Ask bash what it would offer behind the words."""

    def ask(*words):
        code = (
            'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fastssl; '
            'printf "%s\\n" "${COMPREPLY[@]}"; complete -p fastssl >&2'
        )
        command = ["bash", "--norc", "-c", code, "bash", str(completion), "fastssl", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "-o default -F _fastssl fastssl" in done.stderr
        return done.stdout.split()

    return ask


@pytest.mark.slow
def test_bash_completes_commands_options_and_their_words(complete):
    assert complete("mak") == ["make-shards", "make-beton"]
    assert complete("make-shards", "a", "b", "--enc") == ["--encode"]
    assert complete("make-shards", "--encode", "") == ["keep", "raw", "resized", "tiled"]
    assert complete("make-shards", "--resume", "") == ["false", "true"]
    assert complete("train", "supervised") == ["supervised", "supervised_smoke"]
    assert complete("train", "demo", "--data.loader", "n") == ["native"]
    # Of every task; and files where no words are known.
    assert "--task.num-permutations" in complete("train", "demo", "--task.num-")
    assert complete("make-shards", "--json", "") == complete("make-shards", "photos") == []
    assert complete("completion", "") == ["bash", "zsh"]
    assert complete("evaluate", "det") == ["detect"]
    assert complete("evaluate", "detect", "--pooling", "") == ["roi_align", "roi_pool"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_a_zsh_without_start_up_files_takes_the_completion(completion, tmp_path):
    path = tmp_path / "fastssl.zsh"
    path.write_text(ZSH_BEGIN + completion.read_text())
    done = subprocess.run(
        ["zsh", "-f", "-c", 'source "$1"; print -r -- $_comps[fastssl]', "zsh", str(path)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", "_bash_complete -o default -F _fastssl\n")
