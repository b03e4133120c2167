"""Proposals: searched or taken from files, a row a sample, of this dataset and no other."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from scipy.io import savemat

from fastssl.commands.proposals import describe, main
from fastssl.errors import InputError
from fastssl.proposals import make
from fastssl.proposals.make import find_target, search_dataset, search_part, take_from_files
from fastssl.proposals.search import SearchSettings, search_picture
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.target_files import open_target_file
from tests.conftest import save_photograph

try:
    from cv2 import ximgproc  # noqa: F401

    LACKS_SEARCH = False
except ImportError:
    LACKS_SEARCH = True
needs_search = pytest.mark.skipif(LACKS_SEARCH, reason="OpenCV has no contrib modules here")

NUM = 20
SETTINGS = SearchSettings(side=0, max_proposals=30)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Twenty photographs in the order of their names."""
    root = tmp_path_factory.mktemp("proposals")
    for number in range(NUM):
        save_photograph(root / "photos" / f"{number:03d}.jpg", number)
    convert(ConvertConfig(root / "photos", root / "shards", keep_order=True, workers=1))
    return root / "shards"


# ---------------------------------------------------------------- searched


@pytest.fixture(scope="module")
def searched(path, tmp_path_factory):
    out = tmp_path_factory.mktemp("searched") / "proposals.npy"
    return out, search_dataset(path, out, SETTINGS, workers=1)


@needs_search
def test_every_picture_has_its_own_proposals_inside_it_and_best_first(path, searched):
    out, report = searched
    dataset = open_dataset(path)
    found = open_target_file(out, dataset)
    assert found.dtype == np.float32
    assert found.shape == (NUM, report.most, 4)
    assert 1 < report.most <= 30
    for sample_id in (0, 7, NUM - 1):
        picture = dataset.decode(sample_id, dataset.read_payload(sample_id))
        wanted = search_picture(picture, SETTINGS)
        assert found[sample_id, : len(wanted)].tolist() == wanted.tolist()
        assert not found[sample_id, len(wanted) :].any()
        assert (wanted[:, :2] < wanted[:, 2:]).all()
        assert (wanted >= 0).all()
        assert (wanted[:, 2:] <= picture.size).all()
        assert len(np.unique(wanted, axis=0)) == len(wanted)
    said = json.loads(out.with_suffix(".json").read_text())
    assert (said["method"], said["side"], said["max_proposals"]) == ("selective_search", 0, 30)
    assert not list(out.parent.glob(".*"))


@needs_search
def test_a_search_at_another_size_gives_pixels_of_the_stored_picture(path):
    dataset = open_dataset(path)
    picture = dataset.decode(0, dataset.read_payload(0))
    found = search_picture(picture, SearchSettings(side=100))
    assert (found <= [*picture.size] * 2).all()
    assert found[:, 2:].max() > max(picture.size) / 2


@needs_search
def test_what_was_searched_is_not_searched_again(path, searched, tmp_path):
    out = tmp_path / "proposals.npy"
    building = tmp_path / ".proposals.building"
    dataset = open_dataset(path)
    building.mkdir()
    search_part(
        range(16), lambda _: None, dataset, building, SearchSettings(side=0, max_proposals=1)
    )
    said = json.loads(searched[0].with_suffix(".json").read_text())
    plan = {name: value for name, value in said.items() if name != "sha256"}
    (building / "plan.json").write_text(json.dumps({**plan, "side": 3}))
    with pytest.raises(InputError, match=r"cannot be gone on with: side was 3, now 0"):
        search_dataset(path, out, SETTINGS, workers=1)
    (building / "plan.json").write_text(json.dumps(plan))
    told = []
    search_dataset(path, out, SETTINGS, 1, lambda *counts: told.append(counts))
    assert told[0] == (16, NUM)
    found, whole = (np.load(file) for file in (out, searched[0]))
    assert (found[:16, 1:] == 0).all()
    assert (found[16:] == whole[16:, : found.shape[1]]).all()


@needs_search
def test_what_is_finished_is_left_alone_and_another_method_refused(path, searched):
    out, report = searched
    before = out.stat().st_mtime_ns
    assert search_dataset(path, out, SETTINGS, workers=1) == report
    assert out.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="is there already, of another dataset, method or option"):
        search_dataset(path, out, SearchSettings(side=1))


def test_an_array_of_somebody_elses_is_not_written_over(path, tmp_path):
    out = tmp_path / "proposals.npy"
    np.save(out, np.zeros(3))
    (tmp_path / "p.json").write_text(json.dumps({"000": [[0, 0, 1, 1]]}))
    with pytest.raises(InputError, match="is there already"):
        take_from_files(path, out, [tmp_path / "p.json"], 9)
    assert np.load(out).shape == (3,)


def test_without_contrib_modules_the_line_says_what_to_install(path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        InputError, match=r'cannot be imported .* pip install "fastssl\[detection\]"'
    ):
        search_dataset(path, tmp_path / "proposals.npy", SETTINGS)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- from files


def save_mat(path, boxes):
    """Write proposals as the authors of Fast R-CNN publish them: y1 x1 y2 x2 from 1."""
    cells = np.empty((1, len(boxes)), object)
    names = np.empty((len(boxes), 1), object)
    for number, (name, rows) in enumerate(boxes.items()):
        table = np.array(rows, np.float64).reshape(-1, 4)
        cells[0, number] = table[:, [1, 0, 3, 2]] + (1, 1, 0, 0)
        names[number, 0] = name
    savemat(path, {"boxes": cells, "images": names})


BOXES = {f"{number:03d}": [[number, 1, 20, 30], [0, 0, 9, 9]] for number in range(NUM)}
BOXES["003"] = []


def save_csv(path, boxes):
    lines = [f"{name},{','.join(map(str, box))}\n" for name, rows in boxes.items() for box in rows]
    path.write_text("picture,x1,y1,x2,y2\n" + "".join(lines))


WRITERS = {
    "p.mat": save_mat,
    "p.json": lambda path, boxes: path.write_text(json.dumps(boxes)),
    "p.csv": save_csv,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_rows(path, tmp_path, name):
    WRITERS[name](tmp_path / name, BOXES)
    out = tmp_path / "proposals.npy"
    report = take_from_files(path, out, [tmp_path / name], 2000)
    found = open_target_file(out, open_dataset(path))
    for number in range(NUM):
        rows = BOXES[f"{number:03d}"]
        assert found[number, : len(rows)].tolist() == rows
        assert not found[number, len(rows) :].any()
    assert (report.pictures, report.proposals, report.most) == (NUM, 2 * NUM - 2, 2)
    assert (report.without, report.unknown, report.clipped, report.empty) == (1, 0, 0, 0)
    assert take_from_files(path, out, [tmp_path / name], 2000).proposals == report.proposals


def test_scores_order_and_the_first_are_kept(path, tmp_path):
    rows = {"000.jpg": [[0, 0, 1, 1, 0.2], [0, 0, 2, 2, 0.9], [0, 0, 3, 3, 0.2]]}
    (tmp_path / "p.json").write_text(json.dumps(rows))
    (tmp_path / "p.csv").write_text(
        "score,picture,x1,y1,x2,y2\n0.2,001,0,0,1,1\n0.9,001,0,0,2,2\n0.5,001,0,0,3,3\n"
    )
    out = tmp_path / "proposals.npy"
    report = take_from_files(path, out, [tmp_path / "p.json", tmp_path / "p.csv"], 2)
    found = np.load(out)
    assert found[0].tolist() == [[0, 0, 2, 2], [0, 0, 1, 1]]
    assert found[1].tolist() == [[0, 0, 2, 2], [0, 0, 3, 3]]
    assert report.without == NUM - 2


def test_what_is_odd_is_counted_and_said(path, tmp_path):
    width, height = (int(open_dataset(path).index[side][0]) for side in ("width", "height"))
    rows = {
        "000": [[-4, 0, 9, 9], [width, 0, width + 5, 9], [5, 5, 5, 9], [1, 1, 999, 999]],
        "elsewhere": [[0, 0, 1, 1]],
    }
    (tmp_path / "p.json").write_text(json.dumps(rows))
    report = take_from_files(path, tmp_path / "proposals.npy", [tmp_path / "p.json"], 2000)
    assert np.load(tmp_path / "proposals.npy")[0].tolist() == [[0, 0, 9, 9], [1, 1, width, height]]
    assert (report.clipped, report.empty, report.unknown, report.without) == (2, 2, 1, NUM - 1)
    text = describe(report, tmp_path)
    for said in (
        "19 pictures have none",
        "2 proposals were cut",
        "2 were left out",
        "1 pictures of",
    ):
        assert said in text


def write_other(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "p.json",
            {"other": [[0, 0, 1, 1]]},
            r"none of 1 picture in it .* are they of another set",
        ),
        ("p.json", {}, "none of 0 pictures in it"),
        ("p.json", {"000": [[0, 0, 1]]}, "a box of '000' has 3 numbers"),
        ("p.json", {"000": [[0, 0, 1, 1], [0, 0, 1, 1, 1]]}, "has 5 numbers"),
        ("p.json", {"000": [[0, 0, 1, None]]}, "not an object of lists of boxes"),
        ("p.json", b"[1, 2", "not an object of lists of boxes"),
        ("p.csv", b"picture,x1,y1,x2\n", "no column 'y2'"),
        ("p.csv", b"picture,x1,y1,x2,y2\n000,1,2,3\n", "line 2: no number where one belongs"),
        ("p.csv", b"picture,x1,y1,x2,y2\n000,1,2,3,nan\n", "a box of '000' is no number"),
        ("p.csv", b"", "no column 'picture'"),
        ("p.mat", b"no mat" * 99, r"no \.mat"),
        ("p.txt", b"", r"ends in none of \.mat, \.json, \.csv"),
    ],
)
def test_files_that_are_none_are_refused(path, tmp_path, name, content, message):
    write_other(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        take_from_files(path, tmp_path / "proposals.npy", [tmp_path / name], 2000)
    assert not (tmp_path / "proposals.npy").exists()


def test_mats_that_are_none_are_refused(path, tmp_path):
    cells = np.empty((1, 1), object)
    cells[0, 0] = np.zeros((3, 5))
    names = np.array([["000"]], object)
    for content, message in (
        ({"boxes": cells}, "no variable 'images'"),
        ({"boxes": np.zeros((3, 4)), "images": names}, "must be cell arrays"),
        ({"boxes": cells, "images": names}, r"the boxes of '000' are float64 \(3, 5\)"),
    ):
        savemat(tmp_path / "p.mat", content)
        with pytest.raises(InputError, match=message):
            take_from_files(path, tmp_path / "proposals.npy", [tmp_path / "p.mat"], 2000)
    (tmp_path / "p.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400))
    with pytest.raises(InputError, match=r"version 7\.3"):
        take_from_files(path, tmp_path / "proposals.npy", [tmp_path / "p.mat"], 2000)


def test_two_pictures_of_one_name_are_told_apart_by_their_paths(tmp_path):
    for number, folder in enumerate("ab"):
        save_photograph(tmp_path / "photos" / folder / "000.jpg", number)
    convert(ConvertConfig(tmp_path / "photos", tmp_path / "shards", keep_order=True, workers=1))
    out = tmp_path / "proposals.npy"
    (tmp_path / "p.json").write_text(json.dumps({"000": [[0, 0, 1, 1]]}))
    with pytest.raises(InputError, match="two pictures that the proposals of '000' fit"):
        take_from_files(tmp_path / "shards", out, [tmp_path / "p.json"], 9)
    rows = {"a/000.jpg": [[0, 0, 1, 1]], "b/000.jpg": [[0, 0, 2, 2]]}
    (tmp_path / "p.json").write_text(json.dumps(rows))
    take_from_files(tmp_path / "shards", out, [tmp_path / "p.json"], 9)
    assert np.load(out)[:, 0].tolist() == [[0, 0, 1, 1], [0, 0, 2, 2]]


def test_smaller_copies_are_refused_unless_they_say_of_what(path, tmp_path):
    convert(ConvertConfig(path, tmp_path / "small", encode="raw", resize_short=20, workers=1))
    (tmp_path / "p.json").write_text(json.dumps(BOXES))
    with pytest.raises(InputError, match=r"holds copies of other sizes \(raw\)"):
        take_from_files(tmp_path / "small", tmp_path / "o.npy", [tmp_path / "p.json"], 9)


def test_the_command_takes_files_and_names_what_is_wrong(path, tmp_path, capsys):
    (tmp_path / "p.json").write_text(json.dumps(BOXES))
    arguments = [str(path), str(tmp_path / "out"), "--method", "file", "--file"]
    main([*arguments, str(tmp_path / "p.json")])
    assert "38 proposals of 20 pictures" in capsys.readouterr().out
    assert (tmp_path / "out/proposals.npy").exists()
    with pytest.raises(InputError, match="--method file and --file: the method names no file"):
        main(arguments[:4])
    with pytest.raises(InputError, match=r"must be named proposals\.npy"):
        find_target(tmp_path / "other.npy")
    with pytest.raises(InputError, match="no such file"):
        main([str(path), str(tmp_path / "new"), *arguments[2:], str(tmp_path / "none.mat")])
    assert make.NAME == "proposals"
