"""Run directories are read whatever stands in them, in bounded memory."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from fastssl.errors import InputError
from fastssl.runs import read
from fastssl.runs.read import Ending, read_ending, read_run


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lines = [{"step": step, "loss": 4.0 / step} for step in (10, 20)]
    lines.insert(1, {"event": "resume", "step": 10})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def append(run, content):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(content)


def test_run_gives_curves_and_counts_resumes(run):
    found = read_run(run, "seed 0")
    assert (found.name, found.num_resumes) == ("seed 0", 1)
    assert found.curve("loss") == ([10, 20], [0.4, 0.2])
    assert found.names() == ["step", "loss"]


def test_steps_that_were_left_out_are_counted(run):
    append(run, b'{"event": "left_out", "step": 9, "first": 7}\n')
    append(run, b'{"event": "left_out", "step": 12, "first": 12}\n')
    append(run, b'{"event": "left_out", "step": "x", "first": 1e99}\n{"event": "left_out"}\n')
    assert read_run(run).num_left_out == 4


@pytest.mark.parametrize(
    "tail",
    [
        b'{"step": 30, "lo',
        b'{"step": 30, "loss": null}\n',
        b'{"step": 30, "loss": "high"}\n',
        b'5\n[1]\n"step"\n{}\n{"step": "x"}\n\xff\xfe\x00\n',
        b"[" * 100_000 + b"\n",
        b'{"step": 30, "loss": NaN}\n{"step": 31, "loss": Infinity}\n',
        b'{"step": 30, "loss": 1' + b"0" * 400 + b"}\n",
        b'{"step": 1' + b"0" * 400 + b', "loss": 1}\n{"step": -1, "loss": 1}\n',
    ],
    ids=["torn", "not finite", "no number", "no lines of ours", "deep", "NaN", "great", "far"],
)
def test_what_is_no_number_leaves_a_gap(run, tail):
    append(run, tail)
    assert read_run(run).curve("loss") == ([10, 20], [0.4, 0.2])


def test_a_long_tail_of_rubbish_is_passed_over_in_pieces(run):
    with (run / "metrics.jsonl").open("r+b") as file:
        file.truncate(1 << 28)
    append(run, b'\n{"step": 30, "loss": 0.1}\n')
    tracemalloc.start()
    found = read_run(run)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.curve("loss")[0] == [10, 20, 30]
    assert peak < 16 << 20


def test_of_very_many_lines_an_even_choice_is_kept(run, monkeypatch):
    monkeypatch.setattr(read, "MAX_LINES", 10)
    text = "".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in range(1, 1002))
    (run / "metrics.jsonl").write_text(text)
    steps, _ = read_run(run).curve("loss")
    assert 10 <= len(steps) <= 21
    assert (steps[0], steps[-1]) == (1, 1001)
    assert len(set(np.diff(steps[:-1]))) == 1


def test_first_and_newest_pictures_are_read_from_tensorboard(run):
    drawn = np.random.default_rng(0).integers(0, 255, (3, 12, 20, 3), np.uint8)
    with SummaryWriter(str(run / "tensorboard")) as writer:
        for step, picture in enumerate(drawn, 1):
            writer.add_image("jigsaw/0", torch.from_numpy(picture), step, dataformats="HWC")
            writer.add_scalar("train/loss", 1.0, step)
    first, newest = read_run(run).pictures
    assert [(p.tag, p.step) for p in (first, newest)] == [("jigsaw/0", 1), ("jigsaw/0", 3)]
    np.testing.assert_array_equal(first.pixels, drawn[0])
    np.testing.assert_array_equal(newest.pixels, drawn[2])


def write_picture(run, encoded, step):
    """Log bytes as if they were a picture."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    image = Summary.Image(height=1, width=1, colorspace=3, encoded_image_string=encoded)
    with SummaryWriter(str(run / "tensorboard")) as writer:
        writer._get_file_writer().add_summary(
            Summary(value=[Summary.Value(tag="jigsaw/0", image=image)]), step
        )


@pytest.mark.parametrize("kind", ["rubbish", "bomb"])
def test_pictures_that_are_none_are_left_out(run, kind):
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    write_picture(run, {"rubbish": b"rubbish", "bomb": buffer.getvalue()}[kind], 1)
    assert read_run(run).pictures == ()


@pytest.mark.parametrize("kind", ["rubbish", "pipe", "link", "a record without end"])
def test_a_log_that_is_none_is_left_out(run, kind, tmp_path):
    (run / "tensorboard").mkdir()
    path = run / "tensorboard" / "events.out.tfevents.1"
    length = (1 << 62).to_bytes(8, "little")
    masked = masked_crc32c(length)
    {
        "rubbish": lambda: path.write_bytes(b"\xff" * 100),
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(tmp_path / "nowhere"),
        "a record without end": lambda: path.write_bytes(length + masked + bytes(100)),
    }[kind]()
    assert read_run(run).pictures == ()


def masked_crc32c(content):
    """Return the check of a record's length, as TensorFlow writes it."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as masked

    return struct.pack("<I", masked(content))


def test_settings_and_ending_are_read(run):
    (run / "config.json").write_text('{"config": {"task.name": "jigsaw"}}')
    (run / "exit.json").write_text('{"code": 75, "reason": "saved", "step": 20}')
    found = read_run(run)
    assert found.settings["task.name"] == "jigsaw"
    assert found.ending == Ending(75, "saved", 20)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"code": "x"}', '{"config": 3}'])
def test_broken_files_say_nothing(run, content):
    (run / "config.json").write_text(content)
    (run / "exit.json").write_text(content)
    assert read_run(run).settings == {}
    assert read_ending(run) is None


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no metrics.jsonl"):
        read_run(tmp_path)


def test_of_a_long_log_both_ends_are_read(tmp_path, monkeypatch, caplog):
    lines = [json.dumps({"step": n, "loss": 1.0, "x": [[]] * n}) for n in range(1, 101)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(read, "MAX_LOG_BYTES", 2000)
    steps = [line["step"] for line in read.read_lines(tmp_path)]
    assert (steps[0], steps[-1]) == (1, 100)
    assert len(steps) < 50
    assert "its first and last" in caplog.text
