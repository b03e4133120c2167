"""Boxes: integer arithmetic, golden on every machine, always inside the picture."""

import numpy as np
import pytest

from fastssl.views import ViewSpec, draw_boxes, fitted_sizes, list_views, scale_boxes

# Pictures of common, square, prime, tiny, huge and extreme shape.
WIDTHS = [500, 375, 333, 1, 65535, 100, 30]
HEIGHTS = [375, 500, 500, 1, 20000, 30, 1000]

GOLDEN = {
    ViewSpec.random_resized_crop(224): [
        [198, 123, 262, 211],
        [170, 18, 161, 193],
        [50, 151, 227, 204],
        [0, 0, 1, 1],
        [30782, 1265, 9405, 12516],
        [51, 7, 18, 23],
        [0, 480, 30, 40],
    ],
    ViewSpec.tensorflow_crop(224): [
        [255, 165, 193, 153],
        [1, 69, 373, 373],
        [20, 108, 303, 389],
        [0, 0, 1, 1],
        [42181, 5777, 15387, 14080],
        [61, 10, 21, 18],
        [0, 0, 30, 1000],
    ],
    ViewSpec.resize_crop(256, 255): [
        [29, 1, 374, 374],
        [0, 22, 374, 374],
        [1, 8, 332, 332],
        [0, 0, 1, 1],
        [23580, 46, 19922, 19922],
        [27, 0, 30, 30],
        [0, 82, 30, 30],
    ],
    ViewSpec.center(256, 224): [
        [86, 23, 328, 328],
        [23, 86, 328, 328],
        [21, 104, 291, 291],
        [0, 0, 1, 1],
        [24017, 1250, 17500, 17500],
        [37, 2, 26, 26],
        [2, 487, 26, 26],
    ],
    ViewSpec.squash_crop(292, 255): [
        [14, 43, 437, 327],
        [4, 11, 327, 437],
        [37, 3, 291, 437],
        [0, 0, 1, 1],
        [4293, 1489, 57231, 17466],
        [5, 3, 87, 26],
        [3, 10, 26, 873],
    ],
}


def draw(spec, widths=WIDTHS, heights=HEIGHTS, seed=7, epochs=3):
    return draw_boxes(list_views(spec), widths, heights, seed, epochs, np.arange(len(widths)))


@pytest.mark.parametrize("spec", GOLDEN, ids=lambda spec: spec.kind)
def test_boxes_are_golden(spec):
    assert draw(spec)[:, 0].tolist() == GOLDEN[spec]


@pytest.mark.parametrize(
    "spec",
    [
        ViewSpec.random_resized_crop(32, count=2),
        ViewSpec.random_resized_crop(32, scale=(0.9, 1.0), ratio=(2.0, 3.0), attempts=2),
        ViewSpec.random_resized_crop(32, fallback="whole", attempts=1),
        ViewSpec.tensorflow_crop(32),
        ViewSpec.tensorflow_crop(32, scale=(0.9, 1.0), ratio=(2.0, 3.0), attempts=2),
        ViewSpec.resize_crop(256, 255),
        ViewSpec.center(256, 224),
        ViewSpec.squash(32),
        ViewSpec.squash_crop(292, 255),
        ViewSpec.resize_squash(256, 224),
        ViewSpec.fit((480, 600), 1000),
    ],
    ids=lambda spec: f"{spec.kind}-{spec.attempts}",
)
def test_boxes_lie_inside_the_picture(spec):
    rng = np.random.default_rng(0)
    widths, heights = rng.integers(1, 900, 3000), rng.integers(1, 900, 3000)
    left, top, width, height = np.moveaxis(draw(spec, widths, heights), -1, 0)
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (width >= 1).all()
    assert (height >= 1).all()
    assert (left + width <= widths[:, None]).all()
    assert (top + height <= heights[:, None]).all()


def test_random_resized_crop_has_its_area_and_ratio():
    num = 20_000
    boxes = draw(ViewSpec.random_resized_crop(224), [500] * num, [375] * num)[:, 0].astype(float)
    area = boxes[:, 2] * boxes[:, 3] / (500 * 375)
    ratio = np.log(boxes[:, 2] / boxes[:, 3])
    # torchvision's rule, simulated: boxes that do not fit are drawn again, which favours small.
    rng = np.random.default_rng(1)
    wanted_area, wanted_ratio = [], []
    for _ in range(num):
        for _ in range(10):
            target = 500 * 375 * rng.uniform(0.08, 1)
            aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            w, h = round((target * aspect) ** 0.5), round((target / aspect) ** 0.5)
            if w <= 500 and h <= 375:
                break
        else:
            w, h = 500, 375
        wanted_area.append(w * h / (500 * 375))
        wanted_ratio.append(np.log(w / h))
    # Two means of 20,000 draws differ by less than four standard errors.
    for got, wanted in ((area, wanted_area), (ratio, wanted_ratio)):
        error = 4 * np.std(wanted) * (2 / num) ** 0.5
        assert np.mean(got) == pytest.approx(np.mean(wanted), abs=error)


def test_resize_crop_reaches_every_place():
    boxes = draw(ViewSpec.resize_crop(64, 60), [64] * 2000, [70] * 2000)[:, 0]
    assert set(boxes[:, 0]) == set(range(5))
    assert set(boxes[:, 1]) == set(range(11))


def test_boxes_are_those_of_the_sample_whatever_its_batch():
    spec = ViewSpec.random_resized_crop(64, count=2)
    together = draw(spec)
    for row in range(len(WIDTHS)):
        alone = draw_boxes(
            list_views(spec), WIDTHS[row : row + 1], HEIGHTS[row : row + 1], 7, 3, row
        )
        assert alone[0].tolist() == together[row].tolist()


def test_views_of_one_sample_differ():
    boxes = draw(ViewSpec.random_resized_crop(64, count=2), [500] * 50, [400] * 50)
    assert (boxes[:, 0] != boxes[:, 1]).any(axis=1).mean() > 0.95


def test_resize_squash_names_its_first_size():
    assert ViewSpec.resize_squash(256, 224).intermediate_size(500, 375) == (341, 256)
    assert ViewSpec.squash(224).intermediate_size(500, 375) is None
    assert ViewSpec.resize_squash(256, 224).intermediate_size(1, 65535) == (256, 65535)


# Of WIDTHS x HEIGHTS. The second picture's long side lies at the limit of 800 pixels exactly.
GOLDEN_SIZES = {
    ViewSpec.fit(600, 800): [
        [800, 600],
        [600, 800],
        [533, 800],
        [600, 600],
        [800, 244],
        [800, 240],
        [24, 800],
    ],
    ViewSpec.fit((480, 512, 544, 576, 600), 1000): [
        [683, 512],
        [480, 640],
        [600, 901],
        [480, 480],
        [1000, 305],
        [1000, 300],
        [30, 1000],
    ],
    ViewSpec.squash(224): [[224, 224]] * 7,
}


@pytest.mark.parametrize("spec", GOLDEN_SIZES, ids=lambda spec: f"{spec.kind}-{spec.resize}")
def test_sizes_of_what_fits_are_golden(spec):
    sizes = fitted_sizes([spec], draw(spec), 7, 3, np.arange(7))
    assert sizes[:, 0].tolist() == GOLDEN_SIZES[spec]


def test_what_fits_keeps_its_shape_and_passes_neither_side():
    rng = np.random.default_rng(0)
    widths, heights = rng.integers(1, 3000, 3000), rng.integers(1, 3000, 3000)
    spec = ViewSpec.fit(600, 1000)
    width, height = fitted_sizes([spec], draw(spec, widths, heights))[:, 0].T
    assert (np.minimum(width, height) >= 1).all()
    assert np.minimum(width, height).max() == 600
    assert np.maximum(width, height).max() == 1000
    # One of the two sides decides, and the other is right to half a pixel.
    assert ((np.minimum(width, height) == 600) | (np.maximum(width, height) == 1000)).all()
    scale = np.minimum(600 / np.minimum(widths, heights), 1000 / np.maximum(widths, heights))
    assert (np.abs(width - np.maximum(widths * scale, 0.5)) <= 0.5).all()
    assert (np.abs(height - np.maximum(heights * scale, 0.5)) <= 0.5).all()


def test_short_sides_are_drawn_evenly_and_by_the_sample_alone():
    spec = ViewSpec.fit((10, 20, 40), 50, count=2)
    views, ids = list_views(spec), np.arange(6000)
    boxes = draw_boxes(views, np.full(6000, 100), np.full(6000, 100), 1, 0, ids)
    sizes = fitted_sizes(views, boxes, 1, 0, ids)
    for v in (0, 1):
        _, counts = np.unique(sizes[:, v, 0], return_counts=True)
        assert (np.abs(counts - 2000) < 150).all()  # four standard deviations of 36.5
    assert 0.3 < (sizes[:, 0] == sizes[:, 1]).all(axis=1).mean() < 0.37
    assert (fitted_sizes(views, boxes[5:6], 1, 0, 5) == sizes[5:6]).all()
    with pytest.raises(ValueError, match=r"seed \(None\) must be the run's"):
        fitted_sizes(views, boxes)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ViewSpec.fit(600, 500),
            r"view short \(600\) must be one or several .* 1 \.\. 500",
        ),
        (lambda: ViewSpec.fit((), 500), r"view short \(\(\)\) must be"),
        (lambda: ViewSpec.fit((0, 3), 500), r"view short \(\(0, 3\)\) must be"),
        (lambda: ViewSpec("center", 8, (8, 9)), r"view resize \(8, 9\) must be one side"),
        (lambda: ViewSpec.center(224, 256), "must not exceed the side it is cut from"),
        (lambda: ViewSpec.squash(0), r"view size \(0\)"),
        (lambda: ViewSpec.squash(8, filter="trianglo"), "did you mean 'triangle'"),
        (
            lambda: ViewSpec.random_resized_crop(8, scale=(0.0, 1)),
            r"view scale \(0\.0\) must lie in 0 \.\. 1, 0 excluded$",
        ),
        (lambda: ViewSpec.random_resized_crop(8, ratio=(2, 1)), r"must be \(lowest, highest\)"),
        (lambda: ViewSpec.random_resized_crop(8, attempts=17), r"attempts \(17\)"),
        (lambda: list_views([]), "at least one"),
        (lambda: list_views([ViewSpec.squash(8), ViewSpec.squash(9)]), "must all have one size"),
    ],
)
def test_wrong_views_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_scaled_boxes_are_golden():
    boxes = np.array([[[0, 0, 500, 375], [100, 50, 3, 1], [499, 374, 1, 1]]], np.int32)
    assert scale_boxes(boxes, [500], [375], [250], [188]).tolist() == [
        [[0, 0, 250, 188], [50, 25, 2, 1], [249, 187, 1, 1]]
    ]
    assert (scale_boxes(boxes, [500], [375], [500], [375]) == boxes).all()


def test_scaled_boxes_stay_inside_and_keep_a_pixel():
    rng = np.random.default_rng(0)
    sides = rng.integers(1, 400, (500, 2))
    stored = rng.integers(1, 400, (500, 2))
    first = (rng.random((500, 2)) * sides).astype(np.int64)
    extent = 1 + (rng.random((500, 2)) * (sides - first)).astype(np.int64)
    boxes = np.concatenate([first, extent], axis=1)[:, None].astype(np.int32)
    scaled = scale_boxes(boxes, *sides.T, *stored.T)[:, 0]
    assert (scaled[:, 2:] >= 1).all()
    assert (scaled[:, :2] >= 0).all()
    assert (scaled[:, :2] + scaled[:, 2:] <= stored).all()


def draw_plainly(width, height, rng):
    """Draw a box by the rule that TensorFlow's documentation and kernel follow, in floats."""
    while True:
        ratio = rng.uniform(0.75, 4 / 3)
        highest = min(np.sqrt(width * height / ratio), width / ratio, height)
        lowest = np.sqrt(0.05 * width * height / ratio)
        box_height = rng.uniform(min(lowest, highest), highest)
        box_width = box_height * ratio
        if box_width * box_height >= 0.1 * width * height:
            return box_width, box_height


def test_boxes_of_tensorflow_have_its_areas_and_shapes():
    """The audit's figures for 500 x 375: none below a tenth of the area, mean 0.389.

    By the log-uniform rule from 5 % on, 6.9 % lie below, and the mean is 0.417.
    """
    num, whole = 40_000, 500 * 375
    sides = np.full(num, 500), np.full(num, 375)
    found = draw(ViewSpec.tensorflow_crop(224), *sides)[:, 0].astype(float)
    areas = found[:, 2] * found[:, 3] / whole
    # Three standard errors of a mean over these boxes are 0.003.
    assert areas.min() >= 0.1
    assert areas.mean() == pytest.approx(0.389, abs=0.003)
    rng = np.random.default_rng(0)
    plain = np.array([draw_plainly(500, 375, rng) for _ in range(num)])
    wanted = plain.prod(1) / whole
    steps = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(np.quantile(areas, steps), np.quantile(wanted, steps), atol=0.01)
    shapes, shapes_wanted = found[:, 2] / found[:, 3], plain[:, 0] / plain[:, 1]
    np.testing.assert_allclose(
        np.quantile(shapes, steps), np.quantile(shapes_wanted, steps), atol=0.01
    )
    old = ViewSpec.random_resized_crop(224, scale=(0.05, 1.0), attempts=16)
    boxes = draw(old, *sides)[:, 0].astype(float)
    areas = boxes[:, 2] * boxes[:, 3] / whole
    assert (areas < 0.1).mean() == pytest.approx(0.069, abs=0.005)
    assert areas.mean() == pytest.approx(0.417, abs=0.004)
