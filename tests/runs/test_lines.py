"""Files that grow by a line at a time: cut to a step, whatever stands in them."""

import json
import os
import tracemalloc

import pytest

from fastssl.errors import InputError
from fastssl.runs import lines as run_lines
from fastssl.runs.directory import cut_logs
from fastssl.runs.lines import JsonLines, find_cut


def test_logs_are_cut_to_the_checkpoint_and_torn_lines_go(tmp_path):
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in range(1, 6)]
    event = json.dumps({"event": "resume", "step": 2})
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines[:2], event, *lines[2:]]) + "\n")
    (tmp_path / "ledger.rank0.jsonl").write_text("\n".join(lines) + '\n{"step": 3, "ep')
    (tmp_path / "ledger.rank7.jsonl").write_text("\n".join(lines) + "\n")
    cut_logs(tmp_path, 3)
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in kept] == [1, 2, 2, 3]
    for rank in (0, 7):
        text = (tmp_path / f"ledger.rank{rank}.jsonl").read_text()
        assert [json.loads(line)["step"] for line in text.splitlines()] == [1, 2, 3]
        assert text.endswith("\n")


@pytest.mark.parametrize("num_lines", [0, 1, 7, 3000])
@pytest.mark.parametrize("step", [0, 1, 2, 2500, 9999])
def test_cuts_are_found_wherever_they_are(tmp_path, monkeypatch, num_lines, step):
    """Lines of uneven length, longer together than what is read at once."""
    lines = [
        json.dumps({"step": s + 1, "ids": list(range(s % 50))}) + "\n" for s in range(num_lines)
    ]
    monkeypatch.setattr(run_lines, "_BLOCK_BYTES", 1000)
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    (tmp_path / "bad_samples.jsonl").write_text("".join(lines))
    cut_logs(tmp_path, step)
    for name in ("metrics.jsonl", "bad_samples.jsonl"):
        assert (tmp_path / name).read_text() == "".join(lines[:step])


def write_line(step):
    return json.dumps({"step": step, "loss": 1.0}).encode() + b"\n"


RUBBISH = {
    "zeros": b"\0" * 5000,
    "newlines": b"\n" * 5000,
    "words": b'"step" ' * 700,
    "no step": b'{"step": "three"}\n{"step": null}\n[{"step": 1}]\n{"step": 1.5}\n',
    "nested": b'{"step": ' + b"[" * 100_000 + b"\n",
    "torn": write_line(9)[:-4],
    "later": b"".join(map(write_line, range(4, 300))),
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
def test_what_is_no_line_of_ours_goes(tmp_path, monkeypatch, rubbish):
    monkeypatch.setattr(run_lines, "_BLOCK_BYTES", 100)
    good = b"".join(map(write_line, (1, 2, 3)))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(good + rubbish)
    cut_logs(tmp_path, 3)
    assert path.read_bytes() == good


def test_a_long_tail_takes_no_memory(tmp_path):
    """What a file system gave back as zeros."""
    good = b"".join(map(write_line, (1, 2, 3)))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(good)
    os.truncate(path, 1 << 27)
    tracemalloc.start()
    with path.open("rb") as file:
        cut = find_cut(file, 2)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cut == 2 * len(good) // 3
    assert most < 8 << 20


def test_a_link_is_not_cut_and_not_written_to(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_bytes(write_line(5))
    (run / "ledger.rank77.jsonl").symlink_to(outside)
    with pytest.raises(InputError, match=r"ledger\.rank77\.jsonl is a symbolic link"):
        cut_logs(run, 1)
    with pytest.raises(InputError, match="is a symbolic link"):
        JsonLines(run / "ledger.rank77.jsonl")
    assert outside.read_text() == "precious"
    assert (run / "metrics.jsonl").read_bytes() == write_line(5)  # none is cut
