"""Permutation sets from files: three formats, a checksum, and what is no set."""

from __future__ import annotations

import dataclasses
import hashlib
import io

import numpy as np
import pytest

from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.runs.identity import identity
from fastssl.studies import build_recipe
from fastssl.tasks import Jigsaw, JigsawConfig
from fastssl.tasks.permutation_files import read_permutations
from fastssl.tasks.permutations import select_permutations

SET = select_permutations(20, 9, "mean", 3).members


def as_binary(table, count=None):
    header = np.array([len(table) if count is None else count, table.shape[1]], "<i4")
    return header.tobytes() + table.astype("<i4").tobytes()


def as_npy(table):
    file = io.BytesIO()
    np.save(file, table)
    return file.getvalue()


def as_text(table, between=" "):
    return "\n".join(between.join(map(str, row)) for row in table.tolist()).encode()


def write(folder, content):
    path = folder / "permutations"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("form", [as_binary, as_npy, as_text, lambda t: as_text(t, ", ")])
def test_every_format_gives_the_set(form, first, tmp_path):
    read = read_permutations(write(tmp_path, form(SET + first)), 20, 9)
    assert (read.members == SET).all()
    assert read.mean_distance == pytest.approx(select_permutations(20, 9, "mean", 3).mean_distance)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (as_binary(SET[:, :4].argsort(1)), r"is for 4 patches \(grid 2 x 2\), the puzzle has 9"),
        (as_npy(SET[:, :5].argsort(1)), "is for 5 patches, the puzzle has 9 patches"),
        (as_binary(SET[:7]), "holds 7 permutations, .* set --task.num-permutations 7"),
        (as_binary(np.maximum(SET, 1)), r"row 1 \[.*\] is no permutation of 9 patches"),
        (as_text(np.concatenate([SET[:19], SET[3:4]])), r"row 4 \[.*\] stands there twice"),
        (as_binary(SET, count=21), "header says 21 permutations of 9 patches, 180 entries follow"),
        (as_binary(SET)[:-3], "725 bytes are no table of int32"),
        (b"0 1 2\n0 1\n", r"lines must have one length, got \[2, 3\]"),
        (b"", "no line"),
        (as_npy(SET.astype(float)), "must be integers"),
        (as_npy(SET)[:-5], "is neither"),
        (as_npy(np.array([{}, {}])), "is neither"),
        (b"0 1 2 3 4 5 6 7 -\n", "is neither"),
    ],
)
def test_what_is_no_set_for_this_puzzle_is_refused(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_permutations(write(tmp_path, content), 20, 9)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere is not a file; name a file"):
        JigsawConfig(permutations_file=str(tmp_path / "nowhere"))


def test_the_task_uses_the_file(tmp_path):
    path = write(tmp_path, as_binary(SET + 1))
    config = JigsawConfig(num_permutations=20, permutations_file=str(path))
    task = Jigsaw(config, build_trunk("resnet9", 1))
    assert (task.permutations_QP.numpy() == SET).all()


def test_a_file_serves_a_grid_that_no_set_is_chosen_for(tmp_path):
    rng = np.random.default_rng(0)
    table = np.array([rng.permutation(16) for _ in range(5)])
    options = {"num_permutations": 5, "grid": 4, "crop": 256, "patch": 48, "jitter": 17}
    with pytest.raises(InputError, match=r"or give --task\.permutations-file"):
        Jigsaw(JigsawConfig(**options), build_trunk("resnet9", 1))
    path = write(tmp_path, as_npy(table))
    task = Jigsaw(JigsawConfig(**options, permutations_file=str(path)), build_trunk("resnet9", 1))
    assert (task.permutations_QP.numpy() == table).all()


def test_the_checksum_is_recorded_and_the_place_is_not(tmp_path):
    """A run's identity is the file's content: it may lie elsewhere when the run goes on."""
    path = write(tmp_path, as_binary(SET))
    recipe = build_recipe("goyal19_jigsaw")
    task = JigsawConfig(num_permutations=20, permutations_file=str(path))
    recorded = identity(dataclasses.replace(recipe, task=task), "digest")
    assert recorded["task.permutations_sha256"] == hashlib.sha256(as_binary(SET)).hexdigest()
    assert "task.permutations_file" not in recorded


def test_another_file_than_the_recorded_one_is_refused(tmp_path):
    config = JigsawConfig(
        num_permutations=20, permutations_file=str(write(tmp_path, as_binary(SET)))
    )
    write(tmp_path, as_binary(SET[::-1]))
    with pytest.raises(InputError, match="give the file that the run began with"):
        dataclasses.replace(config)


def test_a_checksum_without_a_file_is_refused():
    with pytest.raises(InputError, match=r"set --task\.permutations-file too"):
        JigsawConfig(permutations_sha256="ab" * 32)
