from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl.commands import demo as demo_command
from fastssl.commands import demo_worth
from fastssl.errors import InputError
from fastssl.models import InputSpec, load_trunk, save_trunk
from fastssl.models.input_spec import INPUT_KEY
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.tasks.pictures import RIGHT, WRONG
from fastssl.views import ViewSpec
from tests.nursery import run_child

TOOLS = Path(__file__).parents[2] / "tools"


def run_demo(out, *options):
    return run_child(TOOLS / "demo.py", "--output-dir", out, *options)


def make_photographs(folder, classes=2, each=20, side=60):
    """Stripes in one class, noise in the other; a file that is no picture beside them."""
    generator = np.random.default_rng(0)
    for name in range(classes):
        place = folder / f"class{name}" if classes > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        for i in range(each):
            pixels = generator.integers(0, 255, (side, side + 10, 3), np.uint8)
            pixels[:: name + 2] //= 4
            Image.fromarray(pixels).save(place / f"{i:03d}.jpg")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A demo on labelled photographs, stopped nowhere."""
    root = tmp_path_factory.mktemp("labelled")
    photographs = make_photographs(root / "photographs")
    out = root / "out"
    options = ["--data", photographs, "--steps", 3, "--seeds", 1]
    return out, options, run_demo(out, *options)


@pytest.mark.slow
def test_demo_on_labelled_photographs_compares_trunks(labelled):
    out, _, done = labelled
    assert done.returncode == 0, done.stderr
    assert "seed 0, pretrained" in done.stdout
    page = (out / "report.html").read_text()
    assert "k nearest neighbours by cosine" in page
    assert "split by image" in page
    shown = page.split("<details>")[0]
    assert "Nearest neighbours" in shown
    assert "loader_" not in shown
    assert "Pretext" not in page
    assert "your own photographs" not in page  # that is what was just done
    assert "--steps 12" in page  # more than this demo had
    assert list((out / "seed0" / "tensorboard").iterdir())


@pytest.mark.slow
def test_demo_goes_on_without_training_again(labelled):
    out, options, _ = labelled
    trunk = out / "seed0" / "trunk.safetensors"
    before = trunk.stat().st_mtime_ns
    (out / "report.html").unlink()
    done = run_demo(out, *options)
    assert done.returncode == 0, done.stderr
    assert trunk.stat().st_mtime_ns == before
    assert (out / "report.html").exists()


@pytest.mark.slow
def test_demo_of_other_settings_is_refused(labelled):
    out, options, _ = labelled
    done = run_demo(out, *options[:2], "--steps", 4, "--seeds", 1)
    assert done.returncode == 2
    assert "holds a demo with" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_demo_without_labels_shows_curves_and_says_why_not_more(tmp_path):
    photographs = make_photographs(tmp_path / "photographs", classes=1)
    out = tmp_path / "out"
    done = run_demo(out, "--data", photographs, "--steps", 3, "--seeds", 1)
    assert done.returncode == 0, done.stderr
    page = (out / "report.html").read_text()
    assert "The images have no labels" in page
    assert "Nearest neighbours" in page
    assert 'aria-label="Loss"' in page


def test_neighbours_have_no_frames_where_no_class_has_two_images(tmp_path):
    photographs = make_photographs(tmp_path / "photographs", classes=16, each=1)
    convert(ConvertConfig(source=photographs, out=tmp_path / "shards", workers=1))
    trunk = demo_worth.build_random_twin(0)
    save_trunk(
        trunk, tmp_path / "trunk.safetensors", {INPUT_KEY: InputSpec.named("imagenet").to_text()}
    )
    view = ViewSpec.center(36, 32)
    with contextlib.closing(open_dataset(tmp_path / "shards")) as dataset:
        worth = demo_worth.measure_worth(dataset, 16, view, [tmp_path], None)
    assert worth.comparison is None
    assert "16 samples to train on and 0 to test on; label more samples" in worth.reason
    assert "frame" not in worth.caption
    for sheet in worth.neighbours:
        for color in (RIGHT, WRONG):
            assert not (sheet[1] == color).all(-1).any()  # a row of frames


@pytest.mark.slow
def test_random_twin_is_where_a_run_starts(tmp_path):
    """With a learning rate of zero the run's trunk is still the one it began with."""
    photographs = make_photographs(tmp_path / "photographs", each=10)
    convert(ConvertConfig(source=photographs, out=tmp_path / "shards", workers=1))
    words = [TOOLS / "train.py", "demo_smoke", "--max-steps", "1"]
    words += ["--data.path", tmp_path / "shards", "--output-dir", tmp_path / "run"]
    words += ["--optim.lr", "0", "--seed", "7", "--log.tensorboard", "false"]
    run_child(*words, check=True)
    trained, _ = load_trunk(tmp_path / "run" / "trunk.safetensors")
    twin = demo_worth.build_random_twin(7)
    for (name, a), b in zip(trained.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_too_many_photographs_are_thinned_out_evenly(tmp_path):
    photographs = make_photographs(tmp_path / "photographs", each=30)
    (photographs / "notes.txt").unlink()
    demo = demo_command.Demo(output_dir=tmp_path, data=photographs, images=20)
    path = demo_command.thin_out(photographs, demo)
    report = convert(ConvertConfig(source=path, out=tmp_path / "shards", workers=1))
    assert report.written == 20
    labels = [line.split("\t")[1] for line in path.read_text().splitlines()]
    assert labels == ["class0"] * 10 + ["class1"] * 10


def test_few_photographs_are_all_taken(tmp_path):
    photographs = make_photographs(tmp_path / "photographs")
    demo = demo_command.Demo(output_dir=tmp_path, data=photographs)
    assert demo_command.thin_out(photographs, demo) == photographs


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"images": 3}, r"images \(3\) must lie in 16 \.\. 1,000,000,000; set --images"),
        ({"steps": 0}, r"steps \(0\)"),
        ({"seeds": 0}, r"seeds \(0\)"),
        ({"data": Path("/nowhere/at/all")}, r"data \(/nowhere/at/all\) is not there"),
    ],
)
def test_wrong_input_is_refused(options, match):
    with pytest.raises(InputError, match=match):
        demo_command.Demo(**options)


def test_wrong_input_is_answered_in_one_line(tmp_path):
    done = run_demo(tmp_path / "out", "--data", tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: data (")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        demo_command.check_output(demo_command.Demo(output_dir=tmp_path))


@pytest.mark.parametrize("steps", [None, 40])
def test_what_is_offered_next_has_more_steps_than_this_demo(tmp_path, steps):
    demo = demo_command.Demo(output_dir=tmp_path / "out", steps=steps, seeds=2)
    (command,) = demo_command.list_longer(demo).values()
    words = shlex.split(command)
    longer = int(words[words.index("--steps") + 1])
    assert longer == 4 * demo.num_steps
    assert words[words.index("--output-dir") + 1] == str(tmp_path / f"out-{longer}-steps")


def test_too_few_photographs_are_refused(tmp_path):
    photographs = make_photographs(tmp_path / "photographs", each=4)
    demo = demo_command.Demo(output_dir=tmp_path, data=photographs)
    with pytest.raises(InputError, match="gives 8 images, a demo needs 16"):
        demo_command.shard(demo, photographs)


def test_settings_are_kept_for_the_next_call(tmp_path):
    demo_command.check_output(demo_command.Demo(output_dir=tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert found == {"data": None, "images": 1600, "steps": 150}
