"""Views by the extension's decoder against Pillow's decode of the whole picture."""

from __future__ import annotations

import io
import os
import platform
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from fastssl.loaders.reference import cut_views
from fastssl.ops import jpeg
from fastssl.shards.picture import decode_picture
from fastssl.views import ViewSpec

pytestmark = pytest.mark.skipif(
    not jpeg.has_jpeg(), reason="needs the extension with libjpeg-turbo (libjpeg-dev)"
)

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
# Horizontal and vertical sampling factors of the components.
SAMPLINGS = {
    "444": ((1, 1), (1, 1), (1, 1)),
    "422": ((2, 1), (1, 1), (1, 1)),
    "420": ((2, 2), (1, 1), (1, 1)),
    "440": ((1, 2), (1, 1), (1, 1)),
    "411": ((4, 1), (1, 1), (1, 1)),
    "grey": ((1, 1),),
    "grey in large units": ((2, 2),),
    "444 in large units": ((2, 1), (2, 1), (2, 1)),
    "mixed": ((2, 2), (1, 2), (2, 1)),
    "410": ((4, 2), (1, 1), (1, 1)),
}
# Small, odd, of a prime number of units, and one that ends with whole units.
SIZES = ((1, 1), (5, 3), (17, 9), (67, 41), (96, 64))


class BitWriter:
    """Bits to bytes, with 0x00 stuffed behind each 0xFF."""

    def __init__(self):
        self.bits: list[str] = []

    def write(self, value: int, count: int):
        if count:
            self.bits.append(format(value, f"0{count}b"))

    def take(self) -> bytes:
        text = "".join(self.bits)
        text += "1" * (-len(text) % 8)
        self.bits = []
        return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)).replace(
            b"\xff", b"\xff\x00"
        )


class JpegWriter:
    """Baseline JPEG of random coefficients: any sampling, any restart interval, any damage.

    Codes are as long as 4 bits (DC), 7 and 15 bits (AC), so that every way to look one up is taken.
    """

    AC_SYMBOLS = (0x00, 0xF0, *(16 * run + size for size in range(1, 11) for run in range(16)))
    NUM_SHORT = 60

    def __init__(self, size, factors, interval, seed, amplitude=60, max_step=12):
        self.width, self.height = size
        self.factors = factors
        self.interval = interval
        self.rng = np.random.default_rng(seed)
        self.amplitude = amplitude
        self.steps = self.rng.integers(1, max_step + 1, 64)
        single = len(factors) == 1
        self.blocks_of = [1] if single else [h * v for h, v in factors]
        unit_width = 8 if single else 8 * max(h for h, _ in factors)
        unit_height = 8 if single else 8 * max(v for _, v in factors)
        self.num_columns = -(-self.width // unit_width)
        self.num_mcus = self.num_columns * -(-self.height // unit_height)
        self.predictors = [0] * len(factors)
        self.writer = BitWriter()

    def write_value(self, value: int, size: int):
        self.writer.write(value if value > 0 else value + (1 << size) - 1, size)

    def write_ac(self, symbol: int):
        index = self.AC_SYMBOLS.index(symbol)
        if index < self.NUM_SHORT:
            self.writer.write(index, 7)
        else:
            self.writer.write((self.NUM_SHORT << 8) + index - self.NUM_SHORT, 15)

    def write_block(self, component: int):
        rng = self.rng
        dc = int(rng.integers(-self.amplitude, self.amplitude + 1))
        difference = dc - self.predictors[component]
        self.predictors[component] = dc
        size = abs(difference).bit_length()
        self.writer.write(size, 4)
        self.write_value(difference, size)
        num = int(rng.choice([0, 1, 2, 5, 20, 63]))
        places = np.sort(rng.permutation(63)[:num] + 1)
        last = 0
        for k in places.tolist():
            run, last = k - last - 1, k
            bound = max(2, int(self.amplitude / (1 + k / 4)))
            value = int(rng.integers(1, bound)) * int(rng.choice([-1, 1]))
            for _ in range(run // 16):
                self.write_ac(0xF0)
            size = abs(value).bit_length()
            self.write_ac(16 * (run % 16) + size)
            self.write_value(value, size)
        if last < 63:
            self.write_ac(0x00)

    def write_segments(self) -> list[bytes]:
        segments = []
        for mcu in range(self.num_mcus):
            if self.interval and mcu and mcu % self.interval == 0:
                segments.append(self.writer.take())
                self.predictors = [0] * len(self.factors)
            for component, num in enumerate(self.blocks_of):
                for _ in range(num):
                    self.write_block(component)
        return [*segments, self.writer.take()]

    def header(self) -> bytes:
        def segment(marker: int, body: bytes) -> bytes:
            return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

        num = len(self.factors)
        frame = bytes([8]) + self.height.to_bytes(2, "big") + self.width.to_bytes(2, "big")
        frame += bytes([num])
        for i, (h, v) in enumerate(self.factors):
            frame += bytes([i + 1, 16 * h + v, 0])
        dc_counts = [0, 0, 0, 12] + [0] * 12
        ac_counts = [0] * 16
        ac_counts[6], ac_counts[14] = self.NUM_SHORT, len(self.AC_SYMBOLS) - self.NUM_SHORT
        scan = bytes([num, *(byte for i in range(num) for byte in (i + 1, 0)), 0, 63, 0])
        return b"".join(
            (
                b"\xff\xd8",
                segment(0xDB, b"\x00" + bytes(self.steps.tolist())),
                segment(0xC0, frame),
                segment(0xC4, bytes([0x00, *dc_counts, *range(12)])),
                segment(0xC4, bytes([0x10, *ac_counts, *self.AC_SYMBOLS])),
                segment(0xDD, self.interval.to_bytes(2, "big")),
                segment(0xDA, scan),
            )
        )

    def join(self, segments: list[bytes]) -> bytes:
        out = self.header()
        for i, segment in enumerate(segments):
            marker = bytes([0xFF, 0xD0 + i % 8]) if i + 1 < len(segments) else b"\xff\xd9"
            out += segment + marker
        return out

    def write(self) -> bytes:
        return self.join(self.write_segments())


def draw_boxes(rng, width: int, height: int, num: int):
    boxes = []
    for _ in range(num):
        w, h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
        boxes.append([rng.integers(0, width - w + 1), rng.integers(0, height - h + 1), w, h])
    return np.array(boxes, np.int32)


def assert_like_reference(payload: bytes, specs, boxes) -> jpeg.DecodedViews:
    found = jpeg.decode_views(payload, specs, boxes)
    picture = Image.fromarray(decode_picture(payload))
    wanted = cut_views(picture, specs, boxes)
    # Pillow 13 changed the order of its two passes; each order rounds in its own way.
    tolerance = 0 if int(PIL.__version__.split(".")[0]) >= 13 else 1
    np.testing.assert_allclose(found.images.astype(int), wanted, rtol=0, atol=tolerance)
    return found


def turn(payload: bytes, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    block = exif.tobytes()
    return payload[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + payload[2:]


@pytest.mark.parametrize("interval", [0, 1, 3, 7])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_views_equal_the_reference(sampling, interval):
    rng = np.random.default_rng(0)
    for seed, size in enumerate(SIZES):
        payload = JpegWriter(size, SAMPLINGS[sampling], interval, seed).write()
        for side in (3, 24):
            specs = [ViewSpec.squash(side), ViewSpec.squash(side, filter="area")]
            found = assert_like_reference(payload, specs, draw_boxes(rng, *size, 2))
            assert 0 < found.entropy_decoded_mcus <= found.total_mcus


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_tiles_are_upright(orientation):
    rng = np.random.default_rng(orientation)
    payload = turn(JpegWriter((67, 41), SAMPLINGS["420"], 2, 0).write(), orientation)
    height, width, _ = decode_picture(payload).shape
    boxes = draw_boxes(rng, width, height, 3)
    assert_like_reference(payload, [ViewSpec.squash(16)] * 3, boxes)


@pytest.mark.parametrize("sampling", ["420", "440", "mixed"])
def test_every_edge_of_a_box_sees_its_neighbours(sampling):
    # A box of one pixel needs what its upsampling reads, wherever it lies in its unit.
    payload = JpegWriter((40, 36), SAMPLINGS[sampling], 1, 3).write()
    places = [(x, y) for x in range(0, 40, 3) for y in range(0, 36, 3)] + [(15, 15), (16, 16)]
    picture = decode_picture(payload)
    for x, y in places:
        found = jpeg.decode_views(payload, [ViewSpec.squash(1)], np.array([[x, y, 1, 1]], np.int32))
        np.testing.assert_array_equal(found.images[0, 0, 0], picture[y, x])


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="what overflows is told apart only by the vector code of one kind of processor",
)
def test_coefficients_that_overflow_end_as_in_libjpeg():
    for seed in range(6):
        writer = JpegWriter((64, 48), SAMPLINGS["grey"], 5, seed, amplitude=1000, max_step=255)
        payload = writer.write()
        assert_like_reference(payload, [ViewSpec.squash(64)], np.array([[0, 0, 64, 48]], np.int32))


def test_a_progressive_file_equals_the_reference():
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)).resize((50, 37))
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", progressive=True)
    boxes = draw_boxes(rng, 50, 37, 2)
    found = assert_like_reference(buffer.getvalue(), [ViewSpec.squash(10)] * 2, boxes)
    assert found.entropy_decoded_mcus == found.total_mcus


@pytest.mark.parametrize(
    ("boxes", "wanted"),
    [
        # Units of 8 pixels, 10 in a row, 6 rows, segments of 5. A pixel in the middle of unit 2:
        # units 0 to 2 of its segment.
        ([[20, 4, 1, 1]], 3),
        # At the left edge of unit 3 its neighbour is in unit 2; unit 3 is the last one wanted.
        ([[24, 4, 1, 1]], 4),
        # Both halves of rows 0 to 2: the left to its end, of the right units 5 and 6.
        ([[0, 4, 50, 14]], 3 * (5 + 2)),
        # Twice the same costs no more; what lies between two boxes is not read.
        ([[20, 4, 1, 1], [20, 4, 1, 1]], 3),
        ([[20, 4, 1, 1], [60, 44, 1, 1]], 3 + 3),
        ([[0, 0, 80, 48]], 60),
    ],
)
def test_only_segments_of_the_views_are_read(boxes, wanted):
    payload = JpegWriter((80, 48), SAMPLINGS["444"], 5, 0).write()
    specs = [ViewSpec.squash(4)] * len(boxes)
    found = assert_like_reference(payload, specs, np.array(boxes, np.int32))
    assert (found.entropy_decoded_mcus, found.total_mcus) == (wanted, 60)


def test_no_byte_is_copied_twice():
    writer = JpegWriter((80, 48), SAMPLINGS["444"], 5, 0)
    segments = writer.write_segments()
    sizes = [len(segment.replace(b"\xff\x00", b"\xff")) for segment in segments]
    payload = writer.join(segments)
    specs = [ViewSpec.squash(4)] * 2
    one = assert_like_reference(payload, specs, np.array([[20, 4, 1, 1]] * 2, np.int32))
    whole = assert_like_reference(payload, specs, np.array([[0, 0, 80, 48]] * 2, np.int32))
    assert (one.bytes_copied, whole.bytes_copied) == (sizes[0], sum(sizes))


def decode_whole(payload: bytes, size=(80, 48)) -> jpeg.DecodedViews:
    return jpeg.decode_views(payload, [ViewSpec.squash(4)], np.array([[0, 0, *size]], np.int32))


def damage(kind: str) -> bytes:
    writer = JpegWriter((80, 48), SAMPLINGS["444"], 5, 0)
    segments = writer.write_segments()
    if kind == "a segment ends early":
        segments[3] = segments[3][: len(segments[3]) // 2].rstrip(b"\xff")
    elif kind == "a segment ends late":
        segments[3] += b"\x55\x55"
    elif kind == "a segment is missing":
        del segments[3]
    elif kind == "a segment comes twice":
        segments.insert(3, segments[3])
    elif kind == "no code":
        segments[3] = b"\xff\x00" * len(segments[3])
    whole = writer.join(segments)
    if kind == "restarts out of order":
        return whole.replace(b"\xff\xd2", b"\xff\xd5")
    return whole[:-2] if kind == "no end" else whole


@pytest.mark.parametrize(
    "kind",
    [
        "a segment ends early",
        "a segment ends late",
        "a segment is missing",
        "a segment comes twice",
        "restarts out of order",
        "no code",
    ],
)
def test_damaged_tiles_are_refused(kind):
    with pytest.raises(jpeg.JpegDecodeError) as caught:
        decode_whole(damage(kind))
    assert caught.value.status == "corrupt"


def test_tiles_without_an_end_are_refused():
    with pytest.raises(jpeg.JpegDecodeError) as caught:
        decode_whole(damage("no end"))
    assert caught.value.status == "truncated"


def test_a_size_that_the_bytes_cannot_hold_takes_no_memory():
    payload = JpegWriter((80, 48), SAMPLINGS["444"], 0, 0).write()
    # Height and width follow the precision in the frame's segment.
    at = payload.index(b"\xff\xc0") + 5
    lying = payload[:at] + (8000).to_bytes(2, "big") + (16000).to_bytes(2, "big")
    lying += payload[at + 4 :]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(jpeg.JpegDecodeError) as caught:
        decode_whole(lying, (16000, 8000))
    assert caught.value.status == "corrupt"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_decoder_forgets_what_it_refused():
    good = JpegWriter((80, 48), SAMPLINGS["444"], 5, 0).write()
    wanted = decode_whole(good).images
    for kind in ("a segment ends early", "no code"):
        with pytest.raises(jpeg.JpegDecodeError):
            decode_whole(damage(kind))
        np.testing.assert_array_equal(decode_whole(good).images, wanted)


def test_tables_of_another_file_are_not_used():
    # The second file brings no Huffman tables; libjpeg takes the standard's then.
    writer = JpegWriter((80, 48), SAMPLINGS["444"], 5, 0)
    decode_whole(writer.write())
    header = writer.header()
    begin, end = header.index(b"\xff\xc4"), header.index(b"\xff\xdd")
    with pytest.raises(jpeg.JpegDecodeError):
        decode_whole(header[:begin] + header[end:] + writer.write()[len(header) :])


def test_bytes_cut_anywhere_are_refused():
    payload = JpegWriter((40, 24), SAMPLINGS["420"], 2, 0).write()
    for size in range(0, len(payload), 7):
        with pytest.raises(jpeg.JpegDecodeError):
            decode_whole(payload[:size], (40, 24))


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 45, 4, 4), (0, 0, 81, 4), (0, 0, 0, 4)])
def test_a_box_that_passes_the_picture_is_refused(box):
    payload = JpegWriter((80, 48), SAMPLINGS["444"], 5, 0).write()
    with pytest.raises(jpeg.JpegDecodeError):
        jpeg.decode_views(payload, [ViewSpec.squash(4)], np.array([box], np.int32))


def test_four_colours_are_left_to_the_reference():
    buffer = io.BytesIO()
    Image.new("CMYK", (20, 20)).save(buffer, "JPEG")
    with pytest.raises(jpeg.JpegDecodeError) as caught:
        decode_whole(buffer.getvalue(), (20, 20))
    assert caught.value.status == "unsupported"


def test_two_resamplings_equal_the_reference():
    payload = JpegWriter((80, 48), SAMPLINGS["420"], 5, 0).write()
    spec = ViewSpec.resize_squash(40, 16)
    boxes = np.array([[3, 4, 60, 40]], np.int32)
    assert_like_reference(payload, [spec], boxes)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_what_fits_lies_in_the_upper_left_corner_on_black(orientation):
    payload = turn(JpegWriter((67, 41), SAMPLINGS["420"], 2, 0).write(), orientation)
    height, width, _ = decode_picture(payload).shape
    whole = np.array([[0, 0, width, height]], np.int32)
    for short, long in ((1, 1), (5, 60), (41, 67), (30, 31), (100, 200)):
        found = assert_like_reference(payload, [ViewSpec.fit(short, long)], whole)
        assert found.entropy_decoded_mcus == found.total_mcus


def test_a_view_that_passes_its_square_is_refused():
    content = bytearray(JpegWriter((9, 8), SAMPLINGS["444"], 0, 0).write())
    payload = torch.frombuffer(content, dtype=torch.uint8)
    for size in ([0, 4], [4, 0], [5, 4], [4, 5]):
        views = torch.tensor([[0, 0, 9, 8, 0, 0, 0, *size]], dtype=torch.int32)
        no_record = torch.empty(0, dtype=torch.uint8)
        _, (status, *_) = torch.ops.fastssl.decode_views(payload, views, 4, False, no_record)
        assert jpeg.STATUSES[status] == "corrupt"


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
def test_vector_code_equals_plain_code(tmp_path):
    program = tmp_path / "jpeg_vectors"
    names = ("color", "idct", "idct_four", "idct_reduced", "resample", "resample_passes", "simd")
    sources = [ROOT / "csrc" / "jpeg" / f"{name}.cpp" for name in names]
    command = [COMPILER, "-std=c++17", "-O1", f"-I{ROOT / 'csrc'}", *sources]
    command += [ROOT / "tests" / "ops" / "jpeg_vectors.cpp", "-o", program]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
