from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mitsuba", reason="mitsuba renders the set: pip install 'fastssl[synthetic]'")

from fastssl.errors import InputError
from fastssl.synthetic import CLASSES, RenderConfig, Variant, draw_scene, render_scene, render_set
from fastssl.synthetic.render import to_srgb

TOOL = Path(__file__).parents[2] / "tools" / "render_synthetic.py"
SMALL = RenderConfig(images=22, size=16, samples=1)


def read_all(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    out = tmp_path_factory.mktemp("set") / "out"
    render_set(out, SMALL)
    return out


def test_set_holds_every_image_in_the_folder_of_its_class(rendered):
    counts = {name: len(list((rendered / name).glob("*.png"))) for name in CLASSES}
    assert counts == {name: 3 if i < 2 else 2 for i, name in enumerate(CLASSES)}


def test_metadata_describes_every_image(rendered):
    records = [json.loads(line) for line in (rendered / "metadata.jsonl").open()]
    assert [r["index"] for r in records] == list(range(22))
    assert all((rendered / r["file"]).is_file() for r in records)
    assert all(r["file"].startswith(f"{r['class']}/{r['group']}_") for r in records)


def test_bytes_do_not_depend_on_the_workers(rendered, tmp_path):
    render_set(tmp_path / "out", SMALL, workers=2)
    assert read_all(tmp_path / "out") == read_all(rendered)


def test_unfinished_set_goes_on_and_keeps_what_is_there(rendered, tmp_path):
    out = tmp_path / "out"
    render_set(out, SMALL)
    (out / "metadata.jsonl").unlink()
    kept, lost = sorted(out.rglob("*.png"))[:2]
    before = kept.stat().st_mtime_ns
    lost.unlink()
    (out / "car" / ".car.png.1.tmp").write_bytes(b"half")
    render_set(out, SMALL)
    assert read_all(out) == read_all(rendered)
    assert kept.stat().st_mtime_ns == before


def test_another_seed_gives_other_pictures(rendered, tmp_path):
    render_set(tmp_path / "out", replace(SMALL, seed=1, images=1))
    name = next((tmp_path / "out").rglob("*.png")).name
    other = np.asarray(Image.open(tmp_path / "out" / "airplane" / name))
    assert (np.asarray(Image.open(rendered / "airplane" / name)) != other).mean() > 0.5


def test_finished_set_is_refused(rendered):
    with pytest.raises(InputError, match="got a finished set"):
        render_set(rendered, SMALL)


def test_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="got other files"):
        render_set(tmp_path, SMALL)


def test_unfinished_set_of_another_config_is_refused(tmp_path):
    (tmp_path / ".render.json").write_text(json.dumps({"seed": 9}))
    with pytest.raises(InputError, match="left unfinished"):
        render_set(tmp_path, SMALL)


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="must be a folder"):
        render_set(tmp_path / "out", SMALL)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("size", 15, "16 .. 1,024"),
        ("images", 0, "images"),
        ("samples", 5, "set --samples to 4"),
        ("variant", "1000", "textures"),
        ("seed", -1, "seed"),
    ],
)
def test_config_out_of_range_is_refused(field, value, match):
    with pytest.raises(InputError, match=match):
        RenderConfig(**{field: value})


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(InputError, match="workers"):
        render_set(tmp_path / "out", SMALL, workers=0)


def test_object_stands_in_the_middle_on_its_background():
    scene = replace(
        draw_scene(0, 2, Variant.parse("0100"), 24),
        object_rgb=(1.0, 0.0, 0.0),
        background_rgb=(0.0, 0.0, 1.0),
    )
    picture = render_scene(scene, size=32, samples=4).astype(int)
    is_red = picture[..., 0] > picture[..., 2]
    assert is_red[12:20, 13:19].mean() > 0.9
    assert not is_red[:, 0].any()
    assert not is_red[:, -1].any()


def test_light_comes_from_where_the_scene_says():
    scene = draw_scene(0, 9, Variant.parse("0100"), 24)

    def balance(y):
        lit = render_scene(replace(scene, light=(0.5, y, 0.6)), size=32, samples=4).astype(float)
        return lit[:, 16:].mean() - lit[:, :16].mean()

    # The camera's right is +y.
    assert balance(1.2) > balance(-1.2) + 10


def test_srgb_curve_has_the_standards_values():
    linear = np.array([-1, 0, 0.0031308, 0.18, 0.5, 1, 7])
    assert to_srgb(linear).tolist() == [0, 0, 10, 118, 188, 255, 255]


def test_command_answers_wrong_input_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOL, tmp_path / "out", "--variant", "1111"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: variant ('1111')")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
