from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mitsuba", reason="mitsuba renders the set: pip install 'fastssl[synthetic]'")

from fastssl.commands.render_synthetic import join_variant
from fastssl.errors import InputError
from fastssl.synthetic import CLASSES, RenderConfig, render_set
from fastssl.synthetic.render import list_jobs, render_scene

TOOL = Path(__file__).parents[2] / "tools" / "render_synthetic.py"
SMALL = RenderConfig(images=22, size=16, samples=1, variant="1100")

# Mitsuba's threads do not survive a fork.
pytestmark = pytest.mark.usefixtures("fresh_workers")


def read_all(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    out = tmp_path_factory.mktemp("set") / "out"
    render_set(out, SMALL)
    return out


def leave_unfinished(rendered, out):
    """Copy a set as it is while it is rendered."""
    shutil.copytree(rendered, out)
    (out / "metadata.jsonl").unlink()
    for name in ("segmentation", "depth"):
        (out / f"{name}.npy").rename(out / f".{name}.npy.part")


def test_set_holds_every_image_in_the_folder_of_its_class(rendered):
    counts = {name: len(list((rendered / name).glob("*.png"))) for name in CLASSES}
    assert counts == {name: 3 if i < 2 else 2 for i, name in enumerate(CLASSES)}


def test_metadata_describes_every_image(rendered):
    records = [json.loads(line) for line in (rendered / "metadata.jsonl").open()]
    assert [r["index"] for r in records] == list(range(22))
    assert all((rendered / r["file"]).is_file() for r in records)
    assert all(r["file"].startswith(f"{r['class']}/{r['group']}_") for r in records)


def test_record_names_renderer_machine_and_the_colours_of_the_classes(rendered):
    import mitsuba

    record = json.loads((rendered / "render.json").read_text())
    assert record["renderer"].startswith(f"mitsuba {mitsuba.__version__} ")
    assert len(record["machines"]) == 1
    assert np.shape(record["class_hsv"]) == (10, 3)
    assert (record["variant"], record["seed"], record["images"]) == ("1100", 0, 22)


def test_arrays_have_a_row_an_image(rendered):
    segmentation, depth = (np.load(rendered / f"{n}.npy") for n in ("segmentation", "depth"))
    rendering = render_scene(SMALL, 13)
    np.testing.assert_array_equal(segmentation[13], rendering.segmentation)
    np.testing.assert_array_equal(depth[13], rendering.depth)
    labels = np.arange(22) % 10
    assert all(set(np.unique(s)) == {0, 1 + n} for s, n in zip(segmentation, labels, strict=True))


def test_bytes_do_not_depend_on_the_workers(rendered, tmp_path):
    render_set(tmp_path / "out", SMALL, workers=2)
    assert read_all(tmp_path / "out") == read_all(rendered)


def test_unfinished_set_goes_on_and_keeps_what_is_there(rendered, tmp_path):
    out = tmp_path / "out"
    leave_unfinished(rendered, out)
    kept, lost = sorted(out.rglob("*.png"))[:2]
    before = kept.stat().st_mtime_ns
    lost.unlink()
    with (out / ".depth.npy.part").open("r+b") as file:  # its row was never written
        index = int(lost.stem.rpartition("_")[2])
        file.seek(128 + index * 16 * 16 * 2)
        file.write(bytes(16 * 16 * 2))
    (out / "car" / ".car.png.1.tmp").write_bytes(b"half")
    render_set(out, SMALL)
    assert read_all(out) == read_all(rendered)
    assert kept.stat().st_mtime_ns == before


def test_set_that_was_stopped_before_its_metadata_goes_on(rendered, tmp_path):
    out = tmp_path / "out"
    leave_unfinished(rendered, out)
    (out / ".depth.npy.part").rename(out / "depth.npy")
    render_set(out, SMALL)
    assert read_all(out) == read_all(rendered)


def test_another_seed_gives_other_pictures(rendered):
    other = render_scene(replace(SMALL, seed=1), 0).picture
    (path,) = (rendered / "airplane").glob("*_000000.png")
    assert (np.asarray(Image.open(path)) != other).mean() > 0.5


def test_finished_set_is_refused(rendered):
    with pytest.raises(InputError, match="holds a finished set"):
        render_set(rendered, SMALL)


def test_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="got other files"):
        render_set(tmp_path, SMALL)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 9}, "seed was 0, now 9"),
        ({"variant": "1111"}, "variant was 1100, now 1111"),
        ({"models_per_class": 24}, "models_per_class was"),
    ],
)
def test_half_a_set_of_another_config_is_refused_with_what_differs(
    rendered, tmp_path, change, what
):
    leave_unfinished(rendered, tmp_path / "out")
    with pytest.raises(InputError, match=f"unfinished set of other settings: {what}"):
        render_set(tmp_path / "out", replace(SMALL, **change))


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file, wanted a folder"):
        render_set(tmp_path / "out", SMALL)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("size", 15, "16 .. 1,024"),
        ("images", 0, "images"),
        ("samples", 5, "set --samples to 4"),
        ("variant", "VCTL", "did you mean 'TCVL'"),
        ("seed", -1, "seed"),
        ("textures", Path("dtd"), "set --variant 1100"),
    ],
)
def test_config_out_of_range_is_refused(field, value, match):
    with pytest.raises(InputError, match=match):
        RenderConfig(**{field: value})


def test_several_objects_take_models_of_every_split():
    with pytest.raises(InputError, match="set --models-per-class 12"):
        RenderConfig(variant="TCVL-multi", models_per_class=11)


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(InputError, match="workers"):
        render_set(tmp_path / "out", SMALL, workers=0)


@pytest.mark.parametrize("variant", ["0000", "0000-multi"])
@pytest.mark.parametrize("images", [1, 37, 100, 243])
def test_jobs_hold_every_image_once(variant, images):
    jobs = list(list_jobs(RenderConfig(variant=variant, images=images)))
    assert sorted(index for job in jobs for index in job) == list(range(images))


def test_letters_that_begin_with_a_dash_reach_the_command():
    given = ["OUT", "--variant", "-C-L", "--images", "4"]
    assert join_variant(given) == ["OUT", "--variant=-C-L", "--images", "4"]
    assert join_variant(["OUT", "--variant", "0100"]) == ["OUT", "--variant", "0100"]


def test_command_answers_wrong_input_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOL, tmp_path / "out", "--variant", "1112"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: variant ('1112')")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
