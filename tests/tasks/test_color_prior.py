"""The prior of colours: counting, the file, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastssl.errors import InputError
from fastssl.ops import ColorLoss, color_bins
from fastssl.ops.color_grid import lab_of_rgb
from fastssl.tasks.color_prior import count_colors, read_prior, write_prior
from tests.nursery import run_child

TOOL = Path(__file__).parents[2] / "tools" / "color_prior.py"


@pytest.mark.parametrize("grid", [10, 20])
def test_every_pixel_counts_for_its_nearest_bin(grid):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 9, 11, 3), dtype=torch.uint8, generator=generator)
    ab = lab_of_rgb(images.numpy())[..., 1:].round().reshape(-1, 2)
    bins = color_bins(grid)
    nearest = ((ab[:, None] - bins) ** 2).sum(-1).argmin(1)
    assert (count_colors(images, grid) == np.bincount(nearest, minlength=len(bins))).all()


def test_grey_pixels_count_for_the_bin_in_the_middle():
    counts = count_colors(
        torch.arange(256, dtype=torch.uint8).expand(1, 3, 256).movedim(1, -1)[None]
    )
    assert counts.sum() == 256
    assert counts[int((color_bins(10) == 0).all(1).argmax())] == 256


def test_the_command_counts_all_pixels_and_its_file_serves_the_loss(dataset_path, tmp_path):
    out = tmp_path / "prior.json"
    options = ("--size", "16", "--num-threads", "1", "--loader", "webdataset")
    done = run_child(TOOL, dataset_path, out, *options)
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert (content["images"], sum(content["counts"])) == (47, 47 * 16 * 16)
    assert len(content["dataset"]) == 64
    weights = ColorLoss(10, prior_Q=read_prior(out)).weights_Q
    counts = np.array(content["counts"])
    assert (counts / counts.sum()) @ weights.numpy() == pytest.approx(1, rel=1e-5)
    assert weights[counts.argmax()] < 0.5 * weights.max()


def test_a_dataset_of_one_image_is_counted(dataset_path, tmp_path):
    done = run_child(
        TOOL, dataset_path, tmp_path / "prior.json", "--size", "4", "--max-samples", "1"
    )
    assert done.returncode == 0, done.stderr
    assert "1 image, " in done.stdout


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "is not a file; count again with fastssl color-prior"),
        ("{", "is damaged"),
        ('{"grid": 10}', "is damaged .*counts"),
        (
            '{"grid": 20, "counts": [1, 2]}',
            "of 2 bins of step 20, wanted 313 of step 10; .* --grid",
        ),
        ('{"grid": 10, "counts": [1, 2]}', "of 2 bins of step 10, wanted 313"),
        (json.dumps({"grid": 10, "counts": [0] * 313}), "one of them above 0"),
        (json.dumps({"grid": 10, "counts": [-1] * 313}), "must hold counts"),
    ],
)
def test_files_that_are_no_prior_are_refused(text, match, tmp_path):
    if text is not None:
        (tmp_path / "prior.json").write_text(text)
    with pytest.raises(InputError, match=match):
        read_prior(tmp_path / "prior.json")


def test_a_prior_comes_back(tmp_path):
    write_prior(tmp_path / "prior.json", np.arange(101), 20, "0" * 64, 3)
    assert (read_prior(tmp_path / "prior.json", 20) == np.arange(101)).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--grid", "1"], "grid (1) must lie in 2 .. 50"),
        (["--size", "0"], "size (0) must lie in 1 .. 1,024"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, match, tmp_path):
    done = run_child(TOOL, tmp_path, tmp_path / "prior.json", *options)
    assert done.returncode == 2
    assert match in done.stderr
    assert done.stderr.count("\n") == 1
