"""Outputs where nothing can be made are one line, from every command, before the work."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from fastssl.errors import InputError
from fastssl.models import InputSpec, build_trunk, save_trunk
from fastssl.runs.result import Result, write_result
from fastssl.system.files import check_file_place, make_folder

NOWHERE = Path("/proc/x")
GRID = "stages: {{a: {{command: train demo_smoke, options: {{data.path: {data}, max-steps: 1}}}}}}"


@pytest.fixture
def given(dataset_path, tmp_path):
    """What the commands read, by name."""
    (tmp_path / "grid.yaml").write_text(GRID.format(data=dataset_path))
    about = {"input": InputSpec().to_text()}
    save_trunk(build_trunk("resnet9", width=1), tmp_path / "trunk.safetensors", about)
    write_result(tmp_path / "result.json", Result("knn", "own", "top1", 0.5))
    return {
        "data": dataset_path,
        "photos": dataset_path.parent / "photos",
        "tar": dataset_path / "shard-000000.tar",
        "grid": tmp_path / "grid.yaml",
        "trunk": tmp_path / "trunk.safetensors",
        "result": tmp_path / "result.json",
        "rates": tmp_path / "rates.json",
    }


@pytest.mark.parametrize(
    ("command", "arguments", "option"),
    [
        ("commands.study", "newell20-small --output-dir /proc/x", "--output-dir"),
        ("commands.make_shards", "{photos} /proc/x", "OUT"),
        ("commands.index_tars", "{tar} /proc/x", "OUT"),
        ("commands.combine_shards", "/proc/x {data}", "OUT"),
        ("commands.sweep", "{grid} --output-dir /proc/x", "--output-dir"),
        ("commands.run_recipes", "--output-dir /proc/x", "--output-dir"),
        ("commands.demo", "--output-dir /proc/x", "--output-dir"),
        ("commands.train", "demo_smoke --data.path {data} --output-dir /proc/x", "--output-dir"),
        ("commands.report", "{result} --output /proc/x", "--output"),
        (
            "commands.evaluate",
            "knn --checkpoint {trunk} --data.path {data} --json /proc/x",
            "--json",
        ),
        (
            "commands.evaluate",
            "finetune --checkpoint {trunk} --data.path {data} --protocol own --output-dir /proc/x",
            "--output-dir",
        ),
        ("commands.make_beton", "{data} --out /proc/x", "--out"),
        ("commands.color_prior", "{data} /proc/x", "OUT"),
        ("commands.plan", "{rates} --images 9 --json /proc/x", "--json"),
        ("commands.plan", "/proc/x --measure {photos}", "RATES"),
        ("benchmarks.loaders", "{data} --json /proc/x", "--json"),
    ],
)
def test_an_output_where_nothing_can_be_is_one_line(given, command, arguments, option):
    main = importlib.import_module(f"fastssl.{command}").main
    words = [word.format(**given) for word in arguments.split()]
    with pytest.raises(InputError, match=rf"^{option} \(/proc/x\) cannot be made .*, wanted a f"):
        main(words)


def test_synthetic_sets_are_rendered_where_a_folder_can_be():
    pytest.importorskip("mitsuba", reason="rendering needs mitsuba")
    from fastssl.commands.render_synthetic import main

    with pytest.raises(InputError, match=r"^OUT \(/proc/x\) cannot be made"):
        main([str(NOWHERE), "--images", "8"])


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"OUT \(.*file\) is a file, wanted a folder"):
        make_folder(tmp_path / "file", "OUT")
    with pytest.raises(InputError, match=r"OUT \(.*file/run\) cannot be made \(Not a directory\)"):
        make_folder(tmp_path / "file" / "run", "OUT")
    with pytest.raises(InputError, match=r"--json \(.*\) is a folder, wanted a file"):
        check_file_place(tmp_path, "--json")
    with pytest.raises(InputError, match=r"--json \(.*a\) lies in no folder"):
        check_file_place(tmp_path / "none" / "a", "--json")


def test_to_look_at_a_files_place_leaves_nothing_there(tmp_path):
    check_file_place(tmp_path / "a.json", "--json")
    assert list(tmp_path.iterdir()) == []
