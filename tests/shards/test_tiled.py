"""make_shards --encode tiled, and what check_shards says of the result."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastssl.errors import InputError
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.index import HEADER_BYTES, INDEX_NAME, ROW, map_index
from fastssl.shards.making.encode import Encoding, encode_picture
from fastssl.shards.making.tiled import tile_jpeg
from fastssl.shards.picture import PictureError, decode_picture
from fastssl.shards.reader import open_dataset
from tests.jpeg_layout import needs_transcoder, parse_layout

ROOT = Path(__file__).parents[2]


@needs_transcoder
def test_tiles_show_the_pixels_of_their_source(photographs, make_dataset):
    folder, report = make_dataset(photographs, encode="tiled")
    assert report.tiling["tiled"] == 12
    with closing(open_dataset(folder)) as dataset:
        for number in range(12):
            payload = dataset.read_payload(number)
            source = dataset.read_metadata(number)["source"]
            np.testing.assert_array_equal(
                decode_picture(payload), decode_picture((photographs / source).read_bytes())
            )


@needs_transcoder
@pytest.mark.parametrize("progressive", [False, True])
def test_damaged_files_are_judged_and_shown_as_the_reference_decoder_does(
    draw_photograph, encode, progressive
):
    sound = np.frombuffer(encode(draw_photograph(1, 64, 48), progressive=progressive), np.uint8)
    rng = np.random.default_rng(5)
    verdicts = []
    for number in range(150):
        damaged = sound.copy()
        # Headers and tables are the first bytes; damage to the rest is mostly seen as such.
        damaged[rng.integers(2, 700 if number % 3 else len(sound))] ^= 1 << rng.integers(8)
        payload = damaged[: rng.integers(len(sound) // 2, len(sound) + 1)].tobytes()
        if number % 5:
            payload = damaged.tobytes()
        try:
            wanted = decode_picture(payload)
        except PictureError:
            wanted = None
        verdicts.append(wanted is None)
        if wanted is None:
            with pytest.raises(PictureError):
                encode_picture(payload, Encoding("tiled"))
        else:
            tiled = encode_picture(payload, Encoding("tiled")).payload
            np.testing.assert_array_equal(decode_picture(tiled), wanted)
    assert 0 < sum(verdicts) < len(verdicts)


@needs_transcoder
def test_the_index_knows_the_restart_interval(photographs, make_dataset):
    folder, _ = make_dataset(photographs, encode="tiled")
    rows = map_index(folder / INDEX_NAME)
    with closing(open_dataset(folder)) as dataset:
        for number in range(12):
            layout = parse_layout(dataset.read_payload(number))
            assert layout.restart_interval > 0
            assert int(rows[number]["flags"]) >> 16 == layout.restart_interval


@needs_transcoder
def test_the_result_does_not_depend_on_the_number_of_workers(photographs, make_dataset, read_tree):
    one, _ = make_dataset(photographs, "one", encode="tiled", workers=1)
    two, _ = make_dataset(photographs, "two", encode="tiled", workers=2)
    assert read_tree(one) == read_tree(two)


@needs_transcoder
def test_what_cannot_be_tiled_is_kept_and_counted(photographs, make_dataset, draw_photograph):
    progressive = photographs / "cat" / "unfinished.jpg"
    draw_photograph(50).save(progressive, progressive=True)
    data = progressive.read_bytes()
    cut = data[: data.rindex(b"\xff\xda")] + b"\xff\xd9"
    progressive.write_bytes(cut)
    draw_photograph(51).save(photographs / "cat" / "drawing.png")
    folder, report = make_dataset(photographs, encode="tiled")
    assert {k: v for k, v in report.tiling.items() if "bytes" not in k} == {
        "tiled": 12,
        "unsupported": 1,
    }
    assert json.loads(report.to_json())["tiling"] == report.tiling
    with closing(open_dataset(folder)) as dataset:
        stored = [dataset.read_payload(number) for number in range(14)]
    assert cut in stored
    assert (photographs / "cat" / "drawing.png").read_bytes() in stored


@needs_transcoder
def test_a_truncated_file_is_left_out_for_its_reason(photographs, make_dataset):
    victim = photographs / "cat" / "image0.jpg"
    victim.write_bytes(victim.read_bytes()[:-200])
    _, report = make_dataset(photographs, encode="tiled")
    assert report.skipped == {"truncated": 1}
    assert report.written == 11


@needs_transcoder
def test_large_photographs_grow_little(draw_photograph, encode):
    noise = np.random.default_rng(0).normal(0, 6, (480, 640, 3))
    pixels = np.asarray(draw_photograph(1, 640, 480), float) + noise
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    plain = encode(picture, quality=90, optimize=True)
    layout = parse_layout(tile_jpeg(plain))
    assert len(tile_jpeg(plain)) <= 1.02 * len(plain)
    # And small segments are what the bytes were spent for.
    assert layout.restart_interval < layout.mcus_per_row / 2


@needs_transcoder
@pytest.mark.parametrize("deep", [False, True])
def test_an_interval_that_is_not_the_files_is_found(photographs, make_dataset, deep):
    folder, _ = make_dataset(photographs, encode="tiled")
    path = folder / INDEX_NAME
    rows = np.frombuffer(path.read_bytes()[HEADER_BYTES:], ROW).copy()
    rows["flags"][3] ^= 5 << 16
    with closing(open_dataset(folder)) as dataset:
        manifest = dataset.manifest
    # A tool that lies all the way: the digest is the lying index's.
    digest = manifest.begin_digest()
    digest.update(rows.tobytes())
    old, new = manifest.digest, digest.hexdigest()
    header = path.read_bytes()[:HEADER_BYTES].replace(bytes.fromhex(old), bytes.fromhex(new))
    path.write_bytes(header + rows.tobytes())
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace(old, new))
    report = verify_dataset(folder, deep=deep, workers=1)
    assert not report.ok
    assert {fault.shard for fault in report.errors} == {manifest.shards[0].name}
    assert all("restart interval" in fault.reason.replace("_", " ") for fault in report.errors)


WITHOUT_EXTENSION = """
import sys
from contextlib import closing
sys.modules["fastssl._C_jpeg"] = None
sys.argv[0] = sys.argv.pop(1)
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_without_the_extension_the_command_says_how_to_get_it(photographs, tmp_path):
    tool = ROOT / "tools" / "make_shards.py"
    arguments = [tool, photographs, tmp_path / "out", "--encode", "tiled"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTENSION, *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --encode tiled needs the extension fastssl._C_jpeg")
    assert "apt-get install libjpeg-dev" in done.stderr
    assert not (tmp_path / "out").exists()


@needs_transcoder
def test_tiles_need_no_torch():
    code = (
        "import sys; from fastssl.shards.making.tiled import require_transcoder; "
        "require_transcoder(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@needs_transcoder
def test_a_picture_that_is_no_jpeg_is_stored_as_keep_does(draw_photograph, encode):
    data = encode(draw_photograph(0), "PNG")
    assert encode_picture(data, Encoding("tiled")) == encode_picture(data, Encoding("keep"))


@needs_transcoder
@pytest.mark.parametrize("interval", [-1, 65_536])
def test_a_wrong_interval_is_named(draw_photograph, encode, interval):
    with pytest.raises(InputError, match=f"interval .{interval}. must lie in 0 .. 65535"):
        tile_jpeg(encode(draw_photograph(0)), interval)
