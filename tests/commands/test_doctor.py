"""fastssl doctor: tells what is there, and works where little is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from fastssl import __version__
from fastssl.extension import load_extension

ROOT = Path(__file__).parents[2]


def examine(tmp_path, *python, before="", **environment):
    """Run the doctor, behind a line of Python; return its exit code, what it said and its file."""
    path = tmp_path / "doctor.json"
    code = f"{before}; from fastssl.__main__ import main; main()".removeprefix("; ")
    done = subprocess.run(
        [sys.executable, *python, "-c", code, "doctor", "--json", str(path)],
        env={**os.environ, "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, json.loads(path.read_text()) if path.exists() else None


def by_name(found, group):
    return {finding["name"]: finding for finding in found[group]}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return examine(tmp_path_factory.mktemp("doctor"))


def test_all_is_told_of_this_environment(here):
    done, found = here
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert found["ok"] is True
    assert found["version"] == __version__
    package = by_name(found, "fastssl")
    assert package["torch"]["said"].startswith(torch.__version__)
    loaders = by_name(found, "loaders")
    assert [*loaders] == ["native", "webdataset", "dali", "ffcv"]
    assert loaders["webdataset"]["said"].startswith("works")
    assert "usable of" in by_name(found, "machine")["CPUs"]["said"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert by_name(found, "used")["device"]["said"] == device


def test_it_is_read_in_80_columns_but_for_what_is_to_be_copied(here):
    done, _ = here
    assert all(len(line) <= 80 or "> " in line for line in done.stdout.splitlines())


@pytest.mark.skipif(not load_extension(), reason="the extension was not built")
def test_the_extension_is_told_with_what_it_was_built_for(here):
    _, found = here
    package = by_name(found, "fastssl")
    version = torch.__version__.split("+")[0]
    assert package["extension"]["said"].startswith(f"for torch {version}")
    assert not package["extension"]["remedy"]
    assert {"cpu kernels", "cuda kernels", "jpeg"} <= {*package}


def test_what_is_missing_comes_with_the_line_that_installs_it(here):
    _, found = here
    for finding in [*found["loaders"], *found["optional"]]:
        if finding["said"].startswith("missing") and finding["name"] != "apex":
            assert "install" in finding["remedy"]


def test_a_missing_extension_is_one_finding_with_the_command_that_builds_it(tmp_path):
    # Python's own way to say that a module cannot be imported.
    done, found = examine(tmp_path, before='import sys; sys.modules["fastssl._C"] = None')
    assert (done.returncode, done.stderr) == (0, "")  # the reference trains too
    extension = by_name(found, "fastssl")["extension"]
    assert extension["said"].startswith("missing: operators run their slower PyTorch reference")
    assert extension["remedy"] == "pip install --no-build-isolation -e ."
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines.count("> pip install --no-build-isolation -e .") == 1
    assert by_name(found, "loaders")["native"]["said"] == "missing"
    assert by_name(found, "used")["loader"]["said"].startswith("webdataset")


def test_a_damaged_extension_is_named_and_cannot_train(tmp_path):
    (tmp_path / "_C.abi3.so").write_bytes(b"no library")
    before = f"import fastssl; fastssl.__path__.insert(0, {str(tmp_path)!r})"
    done, found = examine(tmp_path, before=before)
    assert (done.returncode, done.stderr) == (1, "")
    extension = by_name(found, "fastssl")["extension"]
    assert f"damaged: {tmp_path}/_C.abi3.so does not tell" in extension["said"]
    assert extension["remedy"] == "pip install --no-build-isolation -e ."
    assert "cannot train before what is needed is mended" in done.stdout


def test_without_torch_it_says_how_to_get_it_and_ends_with_1(tmp_path):
    # Only what parses a command line; -S leaves the environment's packages out.
    for name in ("tyro", "docstring_parser", "typeguard", "typing_extensions.py", "rich"):
        for place in {*sys.path, sysconfig.get_path("purelib")}:
            if (Path(place) / name).exists():
                (tmp_path / name).symlink_to(Path(place) / name)
                break
    (tmp_path / "fastssl").symlink_to(ROOT / "fastssl")
    done, found = examine(tmp_path, "-S", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "cannot train" in done.stdout
    packages = by_name(found, "fastssl")["packages"]
    assert packages["is_needed"]
    assert packages["remedy"].startswith("pip install torch numpy webdataset")
    assert "loaders" not in found
