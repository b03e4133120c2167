"""Target ``objects``: boxes in pixels of each picture as it is stored, whatever was annotated."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fastssl.errors import InputError
from fastssl.shards import decode_picture, open_dataset
from fastssl.shards.derive.combine import CombineConfig, combine
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.making import objects as rules

EMPTY = [0, 0, 0, 0, -1, 0]


def lay_out_voc(root, pictures, sizes=None):
    """Picture's bytes and its objects, (class, xmin, ymin, xmax, ymax, difficult), by name."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for name, (content, objects) in pictures.items():
        (root / f"JPEGImages/{name}.jpg").write_bytes(content)
        text = "<annotation>"
        if sizes and name in sizes:
            width, height = sizes[name]
            text += f"<size><width>{width}</width><height>{height}</height></size>"
        for kind, xmin, ymin, xmax, ymax, difficult in objects:
            text += (
                f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox>"
                f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
                "</bndbox></object>"
            )
        (root / f"Annotations/{name}.xml").write_text(text + "</annotation>")
    (root / "ImageSets/Main/trainval.txt").write_text("\n".join(pictures))
    return root


@pytest.fixture
def voc(tmp_path, draw_photograph, encode):
    """Three pictures of 40 x 30 pixels with two objects, none, and one."""
    pixels = [encode(draw_photograph(number)) for number in range(3)]
    return lay_out_voc(
        tmp_path / "voc",
        {
            "a": (pixels[0], [("dog", 1, 1, 40, 30, 0), ("cat", 3.5, 2, 10, 9, 1)]),
            "b": (pixels[1], []),
            "c": (pixels[2], [("dog", 11, 21, 20, 30, 0)]),
        },
    )


def objects_of(dataset):
    """Rows of each picture by the name of its file."""
    names = [dataset.read_metadata(i)["source"][-5:-4] for i in range(len(dataset))]
    return dict(zip(names, dataset.targets["objects"].tolist(), strict=True))


def test_corners_count_from_0_and_end_behind_the_box(voc, make_dataset):
    folder, report = make_dataset(voc)
    dataset = open_dataset(folder)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.targets["objects"].dtype == "float32"
    assert objects_of(dataset) == {
        "a": [[0, 0, 40, 30, 1, 0], [2.5, 1, 10, 9, 0, 1]],
        "b": [EMPTY, EMPTY],
        "c": [[10, 20, 20, 30, 1, 0], EMPTY],
    }
    assert report.objects == {"kept": 3}
    assert json.loads(report.to_json())["objects"] == {"kept": 3}
    assert verify_dataset(folder, workers=1).ok


@pytest.mark.parametrize("form", ["resized", "raw"])
def test_a_smaller_copy_scales_its_boxes(voc, make_dataset, form):
    dataset = open_dataset(make_dataset(voc, encode=form, resize_short=15)[0])
    assert (dataset.index["width"] == 20).all()
    assert objects_of(dataset)["a"] == [[0, 0, 20, 15, 1, 0], [1.25, 0.5, 5, 4.5, 0, 1]]
    # What is converted again is scaled again, and knows nothing of the size first annotated.
    again = open_dataset(make_dataset(dataset.folder, "again", encode="raw", resize_short=5)[0])
    rows = objects_of(again)["c"]
    np.testing.assert_allclose(rows[0], [10 * 7 / 40, 20 / 6, 20 * 7 / 40, 5, 1, 0], rtol=1e-6)
    assert rows[1] == EMPTY


def test_boxes_are_cut_at_the_border_or_left_out_and_counted(
    tmp_path, make_dataset, draw_photograph, encode
):
    boxes = [
        ("dog", -3, 0, 5, 6, 0),  # passes the upper left corner
        ("dog", 41, 1, 50, 9, 0),  # right of the picture
        ("dog", 30, 20, 99, 99, 1),
        ("dog", 9, 9, 8, 20, 0),  # no width
        ("dog", 2, 2, 1e300, 3, 0),
    ]
    source = lay_out_voc(tmp_path / "voc", {"a": (encode(draw_photograph(0)), boxes)})
    folder, report = make_dataset(source)
    assert objects_of(open_dataset(folder))["a"] == [
        [0, 0, 5, 6, 0, 0],
        [29, 19, 40, 30, 0, 1],
        [1, 1, 40, 3, 0, 0],
        EMPTY,
        EMPTY,
    ]
    assert report.objects == {"kept": 3, "clipped": 3, "empty": 2}


@pytest.mark.parametrize("keep", ["keep", "raw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_follow_a_picture_that_lies_where_the_annotation_says_so(
    tmp_path, make_dataset, orientation, keep, exif_block
):
    """A white box is where the pixels are white, in the picture lying and upright."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[4:10, 7:25] = 255
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif_block(orientation))
    boxes = {"a": (path.read_bytes(), [("box", 8, 5, 25, 10, 0)])}
    source = lay_out_voc(tmp_path / "voc", boxes, {"a": (40, 30)})
    folder, report = make_dataset(source, encode=keep)
    dataset = open_dataset(folder)
    x1, y1, x2, y2, _, _ = dataset.targets["objects"][0, 0].astype(int)
    shown = decode_picture(dataset.read_payload(0))[..., 0] > 128
    is_inside = np.zeros_like(shown)
    is_inside[y1:y2, x1:x2] = True
    # Orientations 2 to 4 keep the sides: nothing tells that a box was drawn on the picture lying.
    assert (is_inside == shown).all() == (orientation in (1, 5, 6, 7, 8))
    assert report.objects == {"kept": 1}


def test_a_picture_of_another_size_is_counted(make_dataset, tmp_path, draw_photograph, encode):
    content = encode(draw_photograph(0))
    source = lay_out_voc(
        tmp_path / "other", {"a": (content, [("dog", 1, 1, 9, 9, 0)])}, {"a": (80, 60)}
    )
    assert make_dataset(source)[1].objects == {"kept": 1, "other_size": 1}


def test_coco_counts_crowds_as_difficult(tmp_path, make_dataset, draw_photograph, encode):
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"pictures/{name}.jpg").write_bytes(encode(draw_photograph(ord(name))))
    boxes = [
        {"image_id": 2, "category_id": 9, "bbox": [1.5, 2, 10, 8.25], "iscrowd": 0},
        {"image_id": 2, "category_id": 4, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        {"image_id": 2, "category_id": 4, "iscrowd": 0},  # no box: a label, no object
    ]
    content = {
        "images": [{"id": 2, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}],
        "annotations": boxes,
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
    }
    path = tmp_path / "pictures/instances.json"
    path.write_text(json.dumps(content))
    dataset = open_dataset(make_dataset(path)[0])
    assert dataset.class_names == ("cat", "dog")
    assert objects_of(dataset) == {
        "a": [[1.5, 2, 11.5, 10.25, 1, 0], [0, 0, 40, 30, 0, 1]],
        "b": [EMPTY, EMPTY],
    }
    boxes[0]["bbox"][0] = 1e999
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"no file of COCO's instances"):
        make_dataset(path, "other")


def test_too_many_objects_are_refused_before_anything_is_written(voc, make_dataset, monkeypatch):
    monkeypatch.setattr(rules, "MAX_OBJECTS", 1)
    with pytest.raises(InputError, match=r"trainval\.txt: 2 boxes on one picture, up to 1"):
        make_dataset(voc)
    monkeypatch.setattr(rules, "MAX_OBJECTS", 10)
    monkeypatch.setattr(rules, "_MAX_NUMBERS", 35)
    with pytest.raises(InputError, match=r"3 pictures, up to 2 boxes each"):
        make_dataset(voc)


def test_a_table_cannot_take_the_name(photographs, make_dataset):
    (photographs / "t.csv").write_text("path,objects\n")
    with pytest.raises(InputError, match="'objects' is the target with a row an object"):
        make_dataset(photographs / "t.csv", targets=("objects:int64",))


def test_merging_gives_every_picture_the_same_room_and_classes_their_numbers(
    voc, make_dataset, tmp_path, draw_photograph, encode
):
    first = make_dataset(voc, "first", keep_order=True)[0]
    content = encode(draw_photograph(7))
    boxes = [("cow", 1, 1, number + 2, 9, 0) for number in range(3)] + [("dog", 2, 2, 3, 3, 1)]
    other = lay_out_voc(tmp_path / "other", {"d": (content, boxes)})
    second = make_dataset(other, "second")[0]
    combine(CombineConfig((first, second), tmp_path / "both", merge_classes=True))
    both = open_dataset(tmp_path / "both")
    assert both.class_names == ("cat", "dog", "cow")
    assert both.targets["objects"].shape == (4, 4, 6)
    rows = objects_of(both)
    assert rows["a"] == [[0, 0, 40, 30, 1, 0], [2.5, 1, 10, 9, 0, 1], EMPTY, EMPTY]
    assert [row[4] for row in rows["d"]] == [2, 2, 2, 1]
    assert verify_dataset(both.folder, deep=True, workers=1).ok


def test_objects_of_a_class_that_is_dropped_go_with_it(voc, make_dataset, tmp_path):
    whole = make_dataset(voc, "whole", keep_order=True)[0]
    # The only cat is difficult: no sample of the class is left that counts.
    combine(CombineConfig((whole,), tmp_path / "part", drop_empty_classes=True))
    part = open_dataset(tmp_path / "part")
    assert part.class_names == ("dog",)
    assert objects_of(part) == {
        "a": [[0, 0, 40, 30, 0, 0], EMPTY],
        "b": [EMPTY, EMPTY],
        "c": [[10, 20, 20, 30, 0, 0], EMPTY],
    }


def test_a_stopped_conversion_has_the_same_objects(voc, make_dataset, read_tree, tmp_path):
    wanted, _ = make_dataset(voc, "wanted", samples_per_shard=1)
    out = tmp_path / "out"
    (out / ".building").mkdir(parents=True)
    (out / "index.bin/x").mkdir(parents=True)  # in the way of the last step
    with pytest.raises(OSError, match=r"index\.bin"):
        make_dataset(voc, "out", samples_per_shard=1, resume=True)
    (out / "index.bin/x").rmdir()
    (out / "index.bin").rmdir()
    _, report = make_dataset(voc, "out", samples_per_shard=1, resume=True)
    assert report.objects == {"kept": 3}
    assert read_tree(out) == read_tree(wanted)
