"""PASCAL VOC folders: labels by VOC's own rule, boxes as annotated, nothing expanded or guessed."""

from __future__ import annotations

import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.making.voc import Annotation, read_annotation

# Picture -> its objects: class, xmin, ymin, xmax, ymax, difficult, truncated.
OBJECTS = {
    "000005": [
        ("chair", 1, 2, 30, 28, 0, 0),
        ("chair", 5, 5, 9, 9, 1, 1),
        ("dog", 2, 2, 4, 4, 1, 0),
    ],
    "000007": [("dog", 1, 1, 40, 30, 0, 1)],
    "000009": [],
    "000012": [("cow", 3.5, 4, 20.25, 25, 1, 0), ("cow", 1, 1, 9, 9, 1, 0)],
    "000016": [("aeroplane", 1, 1, 9, 9, 0, 0)],
}
SPLITS = {
    "trainval": ["000012", "000005", "000009", "000007"],
    "train": ["000012", "000005"],
    "test": ["000016"],
}
CLASSES = ("aeroplane", "chair", "cow", "dog")
LABELS = {
    "000005": [-1, 1, -1, 0],
    "000007": [-1, -1, -1, 1],
    "000009": [-1, -1, -1, -1],
    "000012": [-1, -1, 0, -1],
    "000016": [1, -1, -1, -1],
}


def write_xml(path, objects, extra=""):
    text = "<annotation><folder>VOC2007</folder><source><database>x</database></source>"
    text += "<size><width>40</width><height>30</height><depth>3</depth></size>"
    for name, xmin, ymin, xmax, ymax, difficult, truncated in objects:
        text += (
            f"<object>\n<name>{name}</name><pose>Left</pose><truncated>{truncated}</truncated>"
            f"<difficult>{difficult}</difficult><bndbox><xmax>{xmax}</xmax><xmin>{xmin}</xmin>"
            f"<ymin>{ymin}</ymin><ymax>{ymax}</ymax></bndbox>{extra}</object>"
        )
    path.write_text(text + "</annotation>")


@pytest.fixture
def voc(tmp_path, draw_photograph, encode):
    """Five pictures of four classes as VOC lays them out, with VOC's line ends."""
    root = tmp_path / "VOC2007"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for number, (picture, objects) in enumerate(OBJECTS.items()):
        (root / f"JPEGImages/{picture}.jpg").write_bytes(encode(draw_photograph(number)))
        write_xml(root / f"Annotations/{picture}.xml", objects)
    for split, pictures in SPLITS.items():
        text = "".join(f"{picture}\r\n" for picture in pictures)
        (root / f"ImageSets/Main/{split}.txt").write_text(text)
    return root


def write_class_file(voc, name, split="trainval", **changes):
    labels = {picture: LABELS[picture][CLASSES.index(name)] for picture in SPLITS[split]}
    lines = [f"{picture} {label:2}\r\n" for picture, label in (labels | changes).items()]
    (voc / f"ImageSets/Main/{name}_{split}.txt").write_text("".join(lines))


def labels_of(dataset):
    names = [dataset.read_metadata(i)["source"][-10:-4] for i in range(len(dataset))]
    return dict(zip(names, dataset.targets["labels"].tolist(), strict=True))


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_present_difficult_only_and_absent(voc, make_dataset, split):
    dataset = open_dataset(make_dataset(voc, voc_split=split)[0])
    assert dataset.class_names == CLASSES  # of all splits, so that columns are the same
    assert dataset.targets["labels"].dtype == "int8"
    assert labels_of(dataset) == {picture: LABELS[picture] for picture in SPLITS[split]}
    assert not dataset.has_labels
    assert verify_dataset(dataset.folder, workers=1).ok


def test_boxes_stand_in_each_samples_json(voc, make_dataset):
    dataset = open_dataset(make_dataset(voc, keep_order=True)[0])
    assert dataset.read_metadata(0) == {
        "source": "JPEGImages/000012.jpg",
        "orientation": 1,
        "boxes_size": [40, 30],
        "boxes": [
            {
                "class": "cow",
                "xmin": xmin,
                "ymin": ymin,
                "xmax": xmax,
                "ymax": ymax,
                "difficult": True,
                "truncated": False,
            }
            for _, xmin, ymin, xmax, ymax, _, _ in OBJECTS["000012"]
        ],
    }
    assert dataset.read_metadata(2)["boxes"] == []
    assert [box["truncated"] for box in dataset.read_metadata(1)["boxes"]] == [False, True, False]


def test_parts_of_an_object_are_no_objects_and_absent_flags_are_no(tmp_path):
    path = tmp_path / "a.xml"
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    write_xml(path, [("person", 1, 1, 9, 9, 0, 0)], part)
    path.write_text(path.read_text().replace("<difficult>0</difficult>", ""))
    (person,) = read_annotation(path).objects
    assert (person.name, person.difficult) == ("person", False)
    path.write_text("<annotation></annotation>")
    assert read_annotation(path) == Annotation((), None)


def test_the_class_files_say_the_same_or_are_told(voc, make_dataset):
    for name in CLASSES:
        write_class_file(voc, name)
    (voc / "ImageSets/Main/small_trainval.txt").write_text("000005\n")  # another split's list
    assert open_dataset(make_dataset(voc)[0]).class_names == CLASSES
    write_class_file(voc, "dog", **{"000005": 1})
    with pytest.raises(
        InputError, match=r"dog_trainval\.txt: says 1 of 000005, 000005\.xml gives 0"
    ):
        make_dataset(voc, "other")
    (voc / "ImageSets/Main/dog_trainval.txt").write_text("000005 0\n")
    with pytest.raises(InputError, match="says nothing of 000012"):
        make_dataset(voc, "other")


def test_a_class_without_objects_has_a_column_if_it_has_a_file(voc, make_dataset):
    text = "".join(f"{picture} -1\n" for picture in SPLITS["trainval"])
    (voc / "ImageSets/Main/zebra_trainval.txt").write_text(text)
    dataset = open_dataset(make_dataset(voc)[0])
    assert dataset.class_names == (*CLASSES, "zebra")
    assert (dataset.targets["labels"][:, -1] == -1).all()


def test_a_missing_annotation_is_told_before_anything_is_written(voc, make_dataset):
    for picture in ("000005", "000009"):
        (voc / f"Annotations/{picture}.xml").unlink()
    with pytest.raises(
        InputError, match=r"000005\.xml: missing; 2 of the 4 pictures of trainval\.txt have no ann"
    ):
        make_dataset(voc)
    assert not (voc.parent / "dataset").exists()


def test_a_picture_that_is_not_there_or_no_image_is_left_out_with_its_labels(voc, make_dataset):
    (voc / "JPEGImages/000005.jpg").unlink()
    (voc / "JPEGImages/000009.jpg").write_bytes(b"no image")
    folder, report = make_dataset(voc)
    assert report.skipped == {"missing": 1, "non-image": 1}
    assert labels_of(open_dataset(folder)) == {p: LABELS[p] for p in ("000007", "000012")}


def test_pictures_may_be_of_another_format(voc, make_dataset, draw_photograph):
    (voc / "JPEGImages/000005.jpg").unlink()
    draw_photograph(1).save(voc / "JPEGImages/000005.png")
    dataset = open_dataset(make_dataset(voc, keep_order=True)[0])
    assert dataset.read_metadata(1)["source"] == "JPEGImages/000005.png"


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("trainvall", "no such split; did you mean 'trainval'"),
        ("all", "no such split; known: test, train, trainval"),
    ],
)
def test_an_unknown_split_is_told(voc, make_dataset, split, message):
    with pytest.raises(InputError, match=message):
        make_dataset(voc, voc_split=split)


def test_a_folder_without_lists_is_told(voc, make_dataset):
    for path in (voc / "ImageSets/Main").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"trainval\.txt: missing, .* name .*JPEGImages as SOURCE"):
        make_dataset(voc)
    assert make_dataset(voc / "JPEGImages")[1].written == 5


def test_a_doubled_picture_is_told(voc, make_dataset):
    with (voc / "ImageSets/Main/trainval.txt").open("a") as file:
        file.write("000009\n")
    with pytest.raises(InputError, match="names '000009' twice"):
        make_dataset(voc)


def test_a_split_is_of_the_conversion_that_is_continued(voc, tmp_path, make_dataset):
    out = tmp_path / "dataset"
    (out / ".building").mkdir(parents=True)
    (out / "index.bin/x").mkdir(parents=True)
    with pytest.raises(OSError, match=r"index\.bin"):
        make_dataset(voc, resume=True)
    with pytest.raises(InputError, match="--voc-split was trainval, now test"):
        make_dataset(voc, resume=True, voc_split="test")


def test_a_split_of_what_is_no_voc_folder_is_ignored_aloud(photographs, make_dataset):
    with pytest.warns(UserWarning, match="--voc-split is ignored"):
        make_dataset(photographs, voc_split="test")


# --- Annotations that are none --------------------------------------------------------------------

BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'
ONE = "<annotation><object>{}</object></annotation>"
BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>2</ymax></bndbox>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB.encode(), "it has a DOCTYPE"),
        (BOMB.encode("utf-16"), "it has a DOCTYPE"),
        (b"<!DOCTYPE annotation SYSTEM 'file:///etc/passwd'><annotation/>", "it has a DOCTYPE"),
        (b"<annotation>&amp;&other;</annotation>", "no XML: undefined entity"),
        (b"<a>" * 1000, "nested more than 32 deep"),
        (b" " * (16 << 20) + b"<annotation/>", "more than 16 MiB"),
        (b"", "no XML"),
        (b"<annotation><object>", "no XML"),
        (b"\xff\xfe<", "no XML"),
        (b"<html/>", "begins with <html>"),
        (ONE.format("<name>a</name>").encode(), "object 1: it has no bndbox"),
        (ONE.format(BOX.format(2)).encode(), "object 1: it has no name"),
        (ONE.format("<name>a</name>" + BOX.format("x")).encode(), "its xmax is 'x', wanted a num"),
        (ONE.format("<name>a</name>" + BOX.format("inf")).encode(), "its xmax is 'inf'"),
        (
            ONE.format("<name>a</name><difficult>maybe</difficult>" + BOX.format(2)).encode(),
            "its difficult is 'maybe', wanted 0 or 1",
        ),
        (b"<annotation><size><width>x</width></size></annotation>", "size: its width is 'x'"),
    ],
)
def test_what_is_no_annotation_is_told_by_its_name(voc, make_dataset, content, message):
    (voc / "Annotations/000007.xml").write_bytes(content)
    with pytest.raises(InputError, match=rf"000007\.xml: .*{message}"):
        make_dataset(voc)


# --- Converted again ------------------------------------------------------------------------------


def test_a_dataset_that_is_converted_again_keeps_targets_and_boxes(voc, make_dataset):
    first = open_dataset(make_dataset(voc)[0])
    again = open_dataset(
        make_dataset(first.folder, "again", encode="raw", seed=3, samples_per_shard=2)[0]
    )
    sources = [[d.read_metadata(i)["source"] for i in range(4)] for d in (first, again)]
    assert sources[0] != sources[1]
    assert again.class_names == CLASSES
    assert labels_of(again) == labels_of(first)
    place = sources[1].index("JPEGImages/000012.jpg")
    assert len(again.read_metadata(place)["boxes"]) == 2
