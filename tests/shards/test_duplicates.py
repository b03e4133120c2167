"""Blank pictures and repeated ones are left out by option, counted, and the first one stays."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.making import duplicates
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.duplicates import PRINT, find_repeated, look_at


def test_a_blank_picture_is_one_whose_pixels_are_all_nearly_equal(encode, draw_photograph):
    white = Image.new("RGB", (400, 300), "white")
    assert look_at(encode(white)).is_blank
    assert look_at(encode(Image.new("L", (40, 30), 3), "PNG")).is_blank
    assert not look_at(encode(draw_photograph(0))).is_blank
    white.paste((0, 0, 0), (200, 100, 240, 130))
    assert not look_at(encode(white)).is_blank


def test_a_picture_looks_the_same_smaller_and_at_another_quality(encode, draw_photograph):
    def look(data):
        return np.frombuffer(look_at(data).print, PRINT)["look"]

    picture = draw_photograph(1, 400, 300)
    one = look(encode(picture, quality=95))
    for other in (encode(picture, quality=40), encode(picture.resize((200, 150)))):
        assert duplicates._count_bits(one ^ look(other))[0] <= duplicates.NEAR_BITS
    assert duplicates._count_bits(one ^ look(encode(draw_photograph(2, 400, 300))))[0] > 10


def brute_force(prints, with_near):
    """Compare every sample with every earlier one that stays."""
    repeats = []
    for this in range(len(prints)):
        same = [
            i for i in range(this) if prints[i][["high", "low"]] == prints[this][["high", "low"]]
        ]
        repeats.append(same[0] if same else -1)
    if with_near:
        for this, looks in enumerate(prints["look"].tolist()):
            if repeats[this] < 0 and 8 <= looks.bit_count() <= 56:
                for i in range(this):
                    other = int(prints["look"][i])
                    is_near = (other ^ looks).bit_count() <= 2 and 8 <= other.bit_count() <= 56
                    if is_near and repeats[i] < 0:
                        repeats[this] = i
                        break
    return repeats


@pytest.mark.parametrize("with_near", [False, True])
def test_what_repeats_an_earlier_sample_is_what_a_search_of_all_pairs_finds(with_near):
    rng = np.random.default_rng(5)
    prints = np.zeros(300, PRINT)
    prints["high"] = rng.integers(0, 150, 300)
    looks = rng.integers(0, 2**63, 60, np.uint64)
    looks[:4] = (0, 1, 2**64 - 1, 255)  # next to nothing to see, but for the last
    flips = [
        sum(1 << int(b) for b in rng.choice(64, rng.integers(0, 4), False)) for _ in range(300)
    ]
    prints["look"] = looks[rng.integers(0, 60, 300)] ^ np.array(flips, np.uint64)
    found, is_same = find_repeated(prints, with_near)
    wanted = brute_force(prints, with_near)
    assert ((found >= 0) == (np.array(wanted) >= 0)).all()
    if not with_near:
        assert found.tolist() == wanted
    same = prints[["high", "low"]]
    assert (same[is_same] == same[found[is_same]]).all()
    assert (found[found[found >= 0]] < 0).all()  # it is one that stays
    assert (found < np.arange(300)).all()


@pytest.fixture
def doubled(photographs, encode, draw_photograph):
    """Twelve photographs, two of them once more, one at another quality, and a white one."""
    shutil.copy(photographs / "cat" / "image0.jpg", photographs / "dog" / "same0.jpg")
    shutil.copy(photographs / "dog" / "image1.jpg", photographs / "dog" / "same1.jpg")
    (photographs / "dog" / "zz.jpg").write_bytes(encode(draw_photograph(2), quality=60))
    (photographs / "cat" / "white.jpg").write_bytes(encode(Image.new("RGB", (40, 30), "white")))
    return photographs


def test_what_is_dropped_is_counted_and_the_rest_stays(doubled, tmp_path):
    drop = ("blank", "duplicates", "near-duplicates")
    common = {"samples_per_shard": 5, "keep_order": True, "workers": 1}
    report = convert(ConvertConfig(doubled, tmp_path / "out", drop=drop, **common))
    assert (report.read, report.written) == (16, 12)
    assert report.skipped == {"blank": 1, "duplicate": 2, "near-duplicate": 1}
    lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert [(one["source"], one["detail"]) for one in map(json.loads, lines)] == [
        ("cat/white.jpg", "all pixels within 8 levels of 255"),
        ("dog/same0.jpg", "the same file as cat/image0.jpg"),
        ("dog/same1.jpg", "the same file as dog/image1.jpg"),
        ("dog/zz.jpg", "looks like cat/image2.jpg"),
    ]
    assert verify_dataset(tmp_path / "out", deep=True, workers=1).ok
    dataset = open_dataset(tmp_path / "out")
    assert len({dataset.read_payload(number) for number in range(12)}) == 12
    assert [dataset.class_names[i] for i in dataset.index["label"]] == ["cat"] * 6 + ["dog"] * 6


def test_a_shard_of_nothing_but_duplicates_is_no_shard(photographs, tmp_path):
    lines = [f"{photographs}/cat/image0.jpg"] * 2 + [f"{photographs}/dog/image1.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    wanted = ConvertConfig(
        tmp_path / "list.txt",
        tmp_path / "out",
        samples_per_shard=1,
        keep_order=True,
        workers=1,
        drop=("duplicates",),
    )
    assert convert(wanted).num_shards == 2
    assert sorted(one.name for one in (tmp_path / "out").glob("shard-*")) == [
        "shard-000000.idx",
        "shard-000000.tar",
        "shard-000002.idx",
        "shard-000002.tar",
    ]
    assert verify_dataset(tmp_path / "out", workers=1).ok


def test_an_unknown_thing_to_drop_is_refused(photographs, tmp_path):
    with pytest.raises(InputError, match=r"--drop \('blnak'\) is not known; did you mean 'blank'"):
        ConvertConfig(photographs, tmp_path / "out", drop=("blnak",))
