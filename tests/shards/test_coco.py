"""COCO's instances: labels of several categories, crowds not counted, boxes as VOC's."""

from __future__ import annotations

import json

import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.derive.verify import verify_dataset

# Ids have gaps and no order, as COCO's have.
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}]
IMAGES = [
    {"id": 7, "file_name": "000007.jpg", "width": 40, "height": 30, "license": 3},
    {"id": 3, "file_name": "000003.jpg", "width": 40, "height": 30},
    {"id": 5, "file_name": "000005.jpg"},
]
ANNOTATIONS = [
    {"image_id": 7, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 40, 30], "segmentation": {}},
    {"image_id": 7, "category_id": 90, "iscrowd": 0, "bbox": [1.5, 2, 10, 8.25]},
    {"image_id": 3, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 9, 9]},
    {"image_id": 3, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 5, 5]},
    {"image_id": 3, "category_id": 1, "iscrowd": 1, "bbox": [3, 3, 5, 5]},
]
LABELS = {"000007.jpg": [0, 1], "000003.jpg": [1, -1], "000005.jpg": [-1, -1]}


@pytest.fixture
def write_coco(tmp_path, draw_photograph, encode):
    """(**changes of the file) -> its path, in COCO's layout."""
    pictures, folder = tmp_path / "coco/train2017", tmp_path / "coco/annotations"
    for made in (pictures, folder):
        made.mkdir(parents=True)
    for number, image in enumerate(IMAGES):
        (pictures / image["file_name"]).write_bytes(encode(draw_photograph(number)))

    def write(**changes):
        found = {"images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES}
        path = folder / "instances_train2017.json"
        path.write_text(json.dumps(found | changes))
        return path

    return write


def test_labels_are_present_crowds_only_and_absent(write_coco, make_dataset):
    dataset = open_dataset(make_dataset(write_coco())[0])
    assert dataset.class_names == ("person", "toothbrush")
    sources = [dataset.read_metadata(i)["source"] for i in range(len(dataset))]
    assert dict(zip(sources, dataset.targets["labels"].tolist(), strict=True)) == LABELS
    assert verify_dataset(dataset.folder, workers=1).ok


def test_boxes_count_pixels_as_those_of_voc_do(write_coco, make_dataset):
    dataset = open_dataset(make_dataset(write_coco(), keep_order=True)[0])
    said = dataset.read_metadata(0)
    assert said["boxes_size"] == [40, 30]
    crowd, brush = said["boxes"]
    assert (crowd["class"], crowd["difficult"]) == ("person", True)
    assert brush == {
        "class": "toothbrush",
        "xmin": 2.5,
        "ymin": 3,
        "xmax": 11.5,
        "ymax": 10.25,
        "difficult": False,
        "truncated": False,
    }
    assert dataset.read_metadata(2)["boxes"] == []


def test_pictures_may_lie_elsewhere(write_coco, make_dataset):
    path = write_coco()
    moved = path.parent.parent.parent / "pictures"
    (path.parent.parent / "train2017").rename(moved)
    with pytest.raises(InputError, match=r"sought in \S*annotations: say --coco-images FOLDER"):
        make_dataset(path, "beside")
    _, report = make_dataset(path, coco_images=moved)
    assert report.written == 3
    with pytest.raises(InputError, match=r"--coco-images .*nowhere.*no such folder"):
        make_dataset(path, "other", coco_images=moved / "nowhere")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"categories": None}, "categories"),
        ({"images": [{"id": -1, "file_name": "a.jpg"}]}, r"images\[0\]\.id"),
        ({"images": []}, "it has no images"),
        ({"categories": [], "annotations": []}, "it has no categories"),
        ({"images": [*IMAGES, IMAGES[0]]}, "image's id 7 stands twice"),
        ({"images": [*IMAGES, {**IMAGES[0], "id": 8}]}, "file_name '000007.jpg' stands twice"),
        ({"categories": [*CATEGORIES, CATEGORIES[0]]}, "category's id 90 stands twice"),
        ({"annotations": [{"image_id": 4, "category_id": 1}]}, r"annotations\[0\] is of an image"),
        ({"annotations": [{"image_id": 7, "category_id": 2}]}, r"\[0\] is of a category that"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2]}]}, "bbox"),
    ],
)
def test_what_is_no_file_of_instances_is_refused(write_coco, make_dataset, changes, said):
    with pytest.raises(InputError, match=said):
        make_dataset(write_coco(**changes))
