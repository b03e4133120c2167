"""augment_views: the published steps one by one, against float64, and on wrong input."""

from __future__ import annotations

import pytest
import torch

from fastssl import ops
from fastssl.ops import reference

SCALES = {
    "lab": ((38.44, 3.03, 4.77), (17.42, 9.41, 11.37)),
    "rgb": ((0.385, 0.353, 0.331), (0.172, 0.167, 0.173)),
}


def draw(num=4, copies=2, height=17, width=37, seed=0):
    """Return images, and what is done to their copies; some are shifted out of the frame."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num, height, width, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    order = torch.arange(num * copies).view(num, copies)

    def between(low, high, *last):
        return torch.randint(low, high, (num, copies, *last), generator=generator).int()

    offset, corner = between(-5, 6, 2), between(-3, height, 2)
    offset[-1, -1] = torch.tensor([height + 3, 0])
    return images, {
        "gain_BK3": 2 ** (0.25 * torch.randn(num, copies, 3, generator=generator)),
        "shift_BK3": 0.25 * torch.randn(num, copies, 3, generator=generator),
        "grey_BK": order % 4 == 1,
        "flip_BK": order % 3 == 0,
        "offset_BK2": offset,
        "corner_BK2": corner,
    }


def run_reference(images, space, drawn, cutout=5, dtype=torch.float32, is_last=False):
    scale = SCALES[space]
    copies = next(iter(drawn.values())).shape[1]
    tensors = [drawn.get(name) for name in draw(1)[1]]
    return reference.augment_views(
        images, *tensors, copies, cutout, space == "lab", *scale, dtype, is_last
    )


def exact(images, space, drawn, cutout=5):
    """Return float64 (B, K, 3, H, W), one pixel row at a time."""
    values = images.double() / 255
    if space == "lab":
        linear = torch.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
        matrix = torch.tensor(ops.reference.XYZ_OF_RGB, dtype=torch.float64)
        xyz = linear @ matrix.T / torch.tensor(ops.reference.WHITE, dtype=torch.float64)
        x, y, z = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(-1)
        values = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in SCALES[space])
    num, height, width, _ = images.shape
    copies = drawn["flip_BK"].shape[1]
    out = torch.zeros(num, copies, 3, height, width, dtype=torch.float64)
    for b in range(num):
        for k in range(copies):
            one = {name: value[b, k] for name, value in drawn.items()}
            picture = (values[b] - mean) / std
            picture = picture * one["gain_BK3"].double() + one["shift_BK3"].double()
            if one["grey_BK"]:
                picture = picture.mean(-1, keepdim=True).expand(-1, -1, 3)
            if one["flip_BK"]:
                picture = picture.flip(1)
            (dy, dx), (top, left) = one["offset_BK2"].tolist(), one["corner_BK2"].tolist()
            for y in range(height):
                for x in range(width):
                    is_inside = 0 <= y + dy < height and 0 <= x + dx < width
                    is_cut = top <= y < top + cutout and left <= x < left + cutout
                    if is_inside and not is_cut:
                        out[b, k, :, y, x] = picture[y + dy, x + dx]
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("space", ["lab", "rgb"])
def test_error_against_float64_is_at_most_twice_that_of_pytorch(dtype, is_last, space):
    images, drawn = draw()
    options = {"cutout": 5, "dtype": dtype, "channels_last": is_last}
    ours = ops.augment_views(images, space, *SCALES[space], **drawn, **options)
    theirs = run_reference(images, space, drawn, 5, dtype, is_last)
    truth = exact(images, space, drawn)
    assert ours.dtype == dtype
    assert ours.stride() == theirs.stride()
    assert (ours - truth).abs().max() <= 2 * (theirs - truth).abs().max()
    # Around 0 Lab's differences of cube roots lose digits: of 500, not of the result.
    assert (theirs - truth).abs().max() <= 40 * torch.finfo(dtype).eps * truth.abs().max()


def test_steps_come_in_the_published_order():
    """A grey, mirrored, shifted, cut picture by hand: RGB of one row, mean 0, deviation 1."""
    row = torch.tensor([[0, 51, 102], [255, 255, 0], [51, 51, 51]], dtype=torch.uint8)
    drawn = {
        "gain_BK3": torch.tensor([[[1.0, 2.0, 1.0]]]),
        "shift_BK3": torch.tensor([[[0.0, 0.0, 0.5]]]),
        "grey_BK": torch.tensor([[True]]),
        "flip_BK": torch.tensor([[True]]),
        "offset_BK2": torch.tensor([[[0, 1]]], dtype=torch.int32),
        "corner_BK2": torch.tensor([[[0, 1]]], dtype=torch.int32),
    }
    found = ops.augment_views(row[None, None], "rgb", (0, 0, 0), (1, 1, 1), **drawn, cutout=1)
    # Mirrored: 51, 255, 0; shifted by one: the second comes first, nothing last; the middle is cut.
    grey = (1.0 + 2.0 + 0.5) / 3
    wanted = torch.tensor([grey, 0.0, 0.0]).expand(1, 1, 3, 1, 3)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("space", ["lab", "rgb"])
@pytest.mark.parametrize("left_out", ["gain_BK3", "grey_BK", "flip_BK", "offset_BK2", "corner_BK2"])
def test_what_is_not_given_does_nothing(space, left_out):
    images, drawn = draw()
    neutral = {
        "gain_BK3": torch.ones(4, 2, 3),
        "grey_BK": torch.zeros(4, 2).bool(),
        "flip_BK": torch.zeros(4, 2).bool(),
        "offset_BK2": torch.zeros(4, 2, 2).int(),
        "corner_BK2": torch.full((4, 2, 2), 1000).int(),
    }
    given = drawn | {left_out: neutral[left_out]}
    without = {name: value for name, value in drawn.items() if name != left_out}
    if left_out == "gain_BK3":
        given["shift_BK3"] = torch.zeros(4, 2, 3)
        del without["shift_BK3"]
    scale = SCALES[space]
    cutout = {} if left_out == "corner_BK2" else {"cutout": 5}
    ours = ops.augment_views(images, space, *scale, **without, **cutout)
    wanted = ops.augment_views(images, space, *scale, **given, cutout=5)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6)


def test_without_changes_there_is_one_normalised_copy():
    images, _ = draw()
    mean, std = SCALES["rgb"]
    plain = ops.augment_views(images, "rgb", mean, std)
    assert plain.shape == (4, 1, 3, 17, 37)
    torch.testing.assert_close(plain[:, 0], ops.normalize(images, mean, std), rtol=0, atol=1e-6)
    lab = ops.augment_views(images, "lab", (0, 0, 0), (1, 1, 1))[:, 0]
    torch.testing.assert_close(lab, ops.rgb_to_lab(images), rtol=0, atol=1e-4)


def test_every_copy_is_what_it_is_alone():
    images, drawn = draw(3, 4)
    together = ops.augment_views(images, "lab", *SCALES["lab"], **drawn, cutout=5)
    for k in range(4):
        alone = {name: value[:, k : k + 1] for name, value in drawn.items()}
        found = ops.augment_views(images, "lab", *SCALES["lab"], **alone, cutout=5)
        assert torch.equal(found[:, 0], together[:, k])


def test_a_strided_view_gives_what_its_copy_gives():
    images, drawn = draw()
    view = images[:, 2:15, 3:30]
    found = ops.augment_views(view, "lab", *SCALES["lab"], **drawn, cutout=5)
    copied = ops.augment_views(view.contiguous(), "lab", *SCALES["lab"], **drawn, cutout=5)
    assert torch.equal(found, copied)


@pytest.mark.parametrize("shape", [(0, 8, 9), (2, 0, 9), (2, 8, 0)])
@pytest.mark.parametrize("space", ["lab", "rgb"])
def test_empty_images_give_empty_results(shape, space):
    num, height, width = shape
    images = torch.zeros(num, height, width, 3, dtype=torch.uint8)
    _, drawn = draw(num or 1)
    drawn = {name: value[:num] for name, value in drawn.items()}
    found = ops.augment_views(images, space, *SCALES[space], **drawn, cutout=5)
    assert found.shape == (num, 2, 3, height, width)


def test_threads_do_not_change_the_result():
    images, drawn = draw()
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            results.append(ops.augment_views(images, "lab", *SCALES["lab"], **drawn, cutout=5))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("is_lab", [False, True])
def test_opcheck(dtype, is_last, is_lab):
    images, drawn = draw()
    scale = SCALES["lab" if is_lab else "rgb"]
    given = (images[:, 1:9, 2:9], *drawn.values(), 2, 5, is_lab, *scale, dtype, is_last)
    torch.library.opcheck(torch.ops.fastssl.augment_views.default, given)


def test_a_compiled_graph_is_whole_and_gives_what_eager_gives():
    images, drawn = draw()

    def prepare(images, drawn):
        options = {"cutout": 5, "channels_last": True}
        return ops.augment_views(images, "lab", *SCALES["lab"], **drawn, **options) * 2

    compiled = torch.compile(prepare, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images, drawn), prepare(images, drawn))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images_BHWC": torch.zeros(4, 8, 9, 3)}, r"images must be uint8, 0 \.\. 255"),
        ({"images_BHWC": torch.zeros(4, 1, 8, 9, 3).byte()}, r"images must be \(B, H, W, 3\)"),
        ({"space": "hsv"}, "space must be 'lab' or 'rgb', got 'hsv'"),
        ({"gain_BK3": torch.ones(4, 2)}, r"gain_BK3 must have shape \(B, K, 3\) = \(4, 2, 3\)"),
        ({"gain_BK3": None}, "gain_BK3 and shift_BK3 must be given together"),
        ({"corner_BK2": None}, "corner_BK2 and cutout must be given together"),
        ({"cutout": 0}, "corner_BK2 and cutout must be given together"),
        ({"cutout": -1}, "cutout must be 0 or a side in pixels, got -1"),
        ({"grey_BK": torch.ones(4, 3).bool()}, r"grey_BK must have shape \(B, K\) = \(4, 2\)"),
        ({"flip_BK": torch.ones(4, 2)}, r"flip_BK must be torch\.bool"),
        ({"offset_BK2": torch.ones(4, 2, 2)}, r"offset_BK2 must be torch\.int32"),
        ({"std": (1, 0, 1)}, "std must be above 0"),
        ({"dtype": torch.uint8}, "dtype must be float32, float16 or bfloat16"),
    ],
)
def test_wrong_input_is_refused(change, match):
    images, drawn = draw()
    mean, std = SCALES["lab"]
    given = {"images_BHWC": images, "space": "lab", "mean": mean, "std": std, "cutout": 5}
    with pytest.raises(ValueError, match=match):
        ops.augment_views(**given | drawn | change)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_targets_go_where_their_pixels_go(dtype):
    images, drawn = draw(height=9, width=9)
    where = {name: drawn[name] for name in ("flip_BK", "offset_BK2")}
    # Mean 0: what comes from outside is black, as a target's 0.
    views = ops.augment_views(images, "rgb", (0, 0, 0), (1, 1, 1), **where)
    pixels = (255 * views).round()
    for channel in range(3):
        targets = images[..., channel].to(dtype)
        moved = ops.augment_targets(targets, **where)
        assert moved.dtype == dtype
        assert torch.equal(moved.float(), pixels[:, :, channel])
    both = ops.augment_targets(images.movedim(-1, 1).to(dtype), **where)
    assert torch.equal(both.float(), pixels)


def test_targets_of_another_batch_are_refused():
    _, drawn = draw()
    with pytest.raises(ValueError, match=r"flip_BK must have shape \(B, K\) = \(3, 2\)"):
        ops.augment_targets(torch.zeros(3, 8, 8), drawn["flip_BK"])
    with pytest.raises(ValueError, match=r"targets must be \(B, H, W\) or \(B, C, H, W\)"):
        ops.augment_targets(torch.zeros(3, 8))
