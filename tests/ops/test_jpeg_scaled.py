"""Scaled DCT against Pillow's reduced decode, and how far it is from the reference picture."""

from __future__ import annotations

import io
import platform

import numpy as np
import PIL
import pytest
from PIL import Image, ImageOps

from fastssl.ops import jpeg
from fastssl.views import ViewSpec
from tests.ops.test_jpeg import SAMPLINGS, JpegWriter, draw_boxes, turn

pytestmark = pytest.mark.skipif(
    not jpeg.has_jpeg(), reason="needs the extension with libjpeg-turbo (libjpeg-dev)"
)

ORIENTATION = 0x0112
# Odd, of a prime number of units, and one that ends with whole units.
SIZES = ((67, 41), (17, 33), (130, 75), (96, 64))
WHOLE = np.array([[0, 0, 80, 48]], np.int32)
# Orientations that turn the stored columns or rows about, upright.
MIRRORED = {2: (1, 0), 3: (1, 1), 4: (0, 1), 6: (1, 0), 7: (1, 1), 8: (0, 1)}


def reduce_picture(payload: bytes, factor: int) -> tuple[Image.Image, tuple[int, int]]:
    """Return the upright reduced picture, and what its upright grid begins with.

    Where orientation turns a picture about, the pixel that its stored edge cuts comes first.
    """
    picture = Image.open(io.BytesIO(payload))
    width, height = picture.size
    orientation = picture.getexif().get(ORIENTATION, 1)
    picture.draft(picture.mode, (max(1, width // factor), max(1, height // factor)))
    assert picture.size == (-(-width // factor), -(-height // factor))
    upright = ImageOps.exif_transpose(picture).convert("RGB")
    if orientation >= 5:
        width, height = height, width
    by_x, by_y = MIRRORED.get(orientation, (0, 0))
    return upright, (-width % factor * by_x, -height % factor * by_y)


def cut_reduced(payload: bytes, specs, boxes, factor: int) -> np.ndarray:
    picture, offset = reduce_picture(payload, factor)
    views = []
    for spec, box in zip(specs, np.asarray(boxes).tolist(), strict=True):
        begin = [(box[axis] + offset[axis]) / factor for axis in (0, 1)]
        end = [begin[axis] + box[2 + axis] / factor for axis in (0, 1)]
        first = [int(edge) for edge in begin]
        crop = picture.crop((*first, *(-int(-edge // 1) for edge in end)))
        window = [edge - first[i % 2] for i, edge in enumerate((*begin, *end))]
        kind = Image.Resampling.BILINEAR if spec.filter == "triangle" else Image.Resampling.BOX
        middle = spec.intermediate_size(*box[2:])
        view = crop.resize(middle or (spec.size, spec.size), kind, box=window)
        views.append(np.asarray(view.resize((spec.size, spec.size), kind)))
    return np.stack(views)


def assert_like_pillow(payload: bytes, specs, boxes) -> jpeg.DecodedViews:
    found = jpeg.decode_views(payload, specs, boxes, "scaled")
    wanted = cut_reduced(payload, specs, boxes, found.factor)
    # Pillow 13 changed the order of its two passes; each order rounds in its own way.
    tolerance = 0 if int(PIL.__version__.split(".")[0]) >= 13 else 1
    np.testing.assert_allclose(found.images.astype(int), wanted, rtol=0, atol=tolerance)
    return found


def draw_large_boxes(rng, width: int, height: int, side: int, num: int):
    """Boxes of at least twice a side, where the picture has it."""
    boxes = draw_boxes(rng, width, height, num)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], np.minimum((width, height), 2 * side))
    boxes[:, :2] = np.minimum(boxes[:, :2], np.array((width, height)) - boxes[:, 2:])
    return boxes


# An extended frame is libjpeg-turbo's to decode here, with its own crops.
@pytest.mark.parametrize("frame", [b"\xff\xc0", b"\xff\xc1"], ids=["ours", "turbo"])
@pytest.mark.parametrize("interval", [0, 3])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_scaled_views_are_cut_from_pillows_reduced_picture(sampling, interval, frame):
    rng = np.random.default_rng(0)
    factors = set()
    for seed, size in enumerate(SIZES):
        payload = JpegWriter(size, SAMPLINGS[sampling], interval, seed).write()
        payload = payload.replace(b"\xff\xc0", frame, 1)
        for side in (1, 4, 8, 11):
            specs = [ViewSpec.squash(side), ViewSpec.squash(side, filter="area")]
            boxes = draw_large_boxes(rng, *size, side, 2)
            found = assert_like_pillow(payload, specs, boxes)
            assert 0 < found.entropy_decoded_mcus <= found.total_mcus
            factors.add(found.factor)
    assert factors >= {2, 4, 8}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_scaled_boxes_are_upright(orientation):
    rng = np.random.default_rng(orientation)
    payload = turn(JpegWriter((67, 41), SAMPLINGS["422"], 2, 0).write(), orientation)
    width, height = (67, 41) if orientation < 5 else (41, 67)
    for side in (2, 5, 10):
        boxes = draw_large_boxes(rng, width, height, side, 3)
        specs = [ViewSpec.squash(side), ViewSpec.resize_squash(side, side), ViewSpec.squash(side)]
        assert_like_pillow(payload, specs, boxes)


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="what overflows is told apart only by the vector code of one kind of processor",
)
def test_scaled_coefficients_that_overflow_end_as_in_libjpeg():
    for seed in range(6):
        writer = JpegWriter((64, 48), SAMPLINGS["grey"], 5, seed, amplitude=1000, max_step=255)
        payload = writer.write()
        for side in (6, 12, 24):
            assert_like_pillow(
                payload, [ViewSpec.squash(side)], np.array([[0, 0, 64, 48]], np.int32)
            )


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_progressive_file_is_scaled_alike(subsampling):
    rng = np.random.default_rng(subsampling)
    pixels = Image.fromarray(rng.integers(0, 256, (20, 27, 3), dtype=np.uint8)).resize((107, 83))
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", progressive=True, subsampling=subsampling)
    for side in (2, 5, 13, 30):
        boxes = draw_large_boxes(rng, 107, 83, side, 2)
        found = assert_like_pillow(buffer.getvalue(), [ViewSpec.squash(side)] * 2, boxes)
        assert found.entropy_decoded_mcus == found.total_mcus


@pytest.mark.parametrize(
    ("boxes", "spec", "wanted"),
    [
        ([[0, 0, 80, 80]], ViewSpec.squash(10), 8),
        ([[0, 0, 80, 79]], ViewSpec.squash(10), 4),
        ([[0, 0, 39, 80]], ViewSpec.squash(10), 2),
        ([[0, 0, 19, 80]], ViewSpec.squash(10), 1),
        # The view that needs most decides.
        ([[0, 0, 80, 80], [3, 3, 20, 20]], ViewSpec.squash(10), 2),
        ([[0, 0, 80, 80], [3, 3, 10, 20]], ViewSpec.squash(10), 1),
        # The first of two resamplings counts too.
        ([[0, 0, 80, 80]], ViewSpec.resize_squash(40, 10), 2),
        ([[0, 0, 80, 80]], ViewSpec.resize_squash(5, 10), 8),
        # What the picture is resized to, not the square that it lies in.
        ([[0, 0, 80, 40]], ViewSpec.fit(10, 30), 4),
        ([[0, 0, 80, 20]], ViewSpec.fit(10, 30), 2),
    ],
)
def test_no_view_has_to_be_enlarged(boxes, spec, wanted):
    payload = JpegWriter((80, 80), SAMPLINGS["420"], 5, 0).write()
    found = jpeg.decode_views(payload, [spec] * len(boxes), np.array(boxes, np.int32), "scaled")
    assert found.factor == wanted


def test_pictures_that_are_too_small_to_reduce_stay_exact():
    payload = JpegWriter((80, 48), SAMPLINGS["420"], 5, 0).write()
    specs, boxes = [ViewSpec.squash(30)] * 2, np.array([[0, 0, 80, 48], [3, 5, 59, 41]], np.int32)
    exact = jpeg.decode_views(payload, specs, boxes)
    scaled = jpeg.decode_views(payload, specs, boxes, "scaled")
    assert scaled.factor == 1
    np.testing.assert_array_equal(scaled.images, exact.images)


@pytest.mark.parametrize("sampling", ["444", "420", "grey"])
def test_scaling_reads_no_more_than_the_exact_decode(sampling):
    # Neither upsamples what is reduced, so it needs no neighbours.
    rng = np.random.default_rng(0)
    payload = JpegWriter((130, 75), SAMPLINGS[sampling], 4, 0).write()
    for side in (2, 6, 12):
        specs, boxes = [ViewSpec.squash(side)], draw_large_boxes(rng, 130, 75, side, 1)
        exact = jpeg.decode_views(payload, specs, boxes)
        scaled = jpeg.decode_views(payload, specs, boxes, "scaled")
        assert scaled.entropy_decoded_mcus <= exact.entropy_decoded_mcus
        assert scaled.total_mcus == exact.total_mcus
        assert scaled.bytes_copied <= exact.bytes_copied


def draw_photograph(seed: int, width: int, height: int) -> Image.Image:
    """Colours that change slowly, and less and less of what changes fast, as lenses see it."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128.0)
    for scale, contrast in ((64, 60), (24, 30), (10, 14), (4, 6)):
        size = (-(-width // scale) + 1, -(-height // scale) + 1)
        for channel in range(3):
            coarse = Image.fromarray(rng.normal(0, contrast, size[::-1]).astype(np.float32))
            total[..., channel] += np.asarray(coarse.resize((width, height), 3))
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_scaled_views_lie_where_exact_ones_do(subsampling, orientation):
    """Within 1.5 of 255 in the mean: 0.3 to 1.4 is seen, half a pixel beside it 2.2 and more."""
    buffer = io.BytesIO()
    picture = draw_photograph(orientation, 437, 331)
    picture.save(buffer, "JPEG", quality=90, subsampling=subsampling)
    payload = turn(buffer.getvalue(), orientation)
    size = (437, 331) if orientation < 5 else (331, 437)
    rng = np.random.default_rng(orientation)
    for side in (24, 48, 90):
        specs = [ViewSpec.squash(side)] * 3
        boxes = draw_large_boxes(rng, *size, side, 3)
        exact = jpeg.decode_views(payload, specs, boxes).images.astype(int)
        scaled = jpeg.decode_views(payload, specs, boxes, "scaled")
        assert scaled.factor >= 2
        assert np.abs(scaled.images - exact).mean() < 1.5
        assert abs((scaled.images - exact).mean()) < 0.3


def test_damage_is_refused_at_every_size():
    payload = JpegWriter((80, 48), SAMPLINGS["420"], 2, 0).write()
    for side in (2, 6, 12):
        for size in range(0, len(payload), 97):
            with pytest.raises(jpeg.JpegDecodeError):
                jpeg.decode_views(payload[:size], [ViewSpec.squash(side)], WHOLE, "scaled")


def test_an_unknown_dct_is_refused():
    payload = JpegWriter((80, 48), SAMPLINGS["420"], 2, 0).write()
    with pytest.raises(ValueError, match="must be one of exact, scaled"):
        jpeg.decode_views(payload, [ViewSpec.squash(8)], WHOLE, "fast")
