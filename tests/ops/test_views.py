"""normalize: against the formula written out, and on wrong input."""

from __future__ import annotations

import pytest
import torch

from fastssl import ops
from fastssl.ops import reference

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


def exact(images, flip=None, grey=None):
    """Return float64 (B, 3, H, W), every step written out for one image at a time."""
    rows = []
    for b, image in enumerate(images):
        if flip is not None and flip[b]:
            image = image.flip(1)
        if grey is not None and grey[b]:
            image = reference.luma(image)[..., None].expand(-1, -1, 3)
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (MEAN, STD))
        rows.append(((image.double() / 255 - mean) / std).permute(2, 0, 1))
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_error_against_float64_is_at_most_twice_that_of_pytorch(dtype, channels_last):
    images = random_images(4, 17, 23)
    flip, grey = torch.tensor([0, 1, 0, 1]).bool(), torch.tensor([0, 0, 1, 1]).bool()
    ours = ops.normalize(images, MEAN, STD, flip, grey, dtype, channels_last)
    theirs = reference.normalize(images, flip, grey, MEAN, STD, dtype, channels_last)
    truth = exact(images, flip, grey)
    assert ours.dtype == dtype
    assert ours.stride() == theirs.stride()
    assert (ours - truth).abs().max() <= 2 * (theirs - truth).abs().max()
    assert (theirs - truth).abs().max() <= 4 * torch.finfo(dtype).eps * truth.abs().max()


def test_channels_last_is_torch_channels_last():
    out = ops.normalize(random_images(2, 8, 9), MEAN, STD, channels_last=True)
    assert out.shape == (2, 3, 8, 9)
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels_last", [False, True])
def test_views_are_normalized_like_images(channels_last):
    images = random_images(3, 2, 8, 9)
    out = ops.normalize(images, MEAN, STD, channels_last=channels_last)
    assert out.shape == (3, 2, 3, 8, 9)
    assert torch.equal(out[:, 1], ops.normalize(images[:, 1], MEAN, STD))


def test_flags_of_samples_hold_for_all_their_views():
    images, flip = random_images(3, 2, 8, 9), torch.tensor([True, False, True])
    out = ops.normalize(images, MEAN, STD, flip_B=flip)
    for v in range(2):
        assert torch.equal(out[:, v], ops.normalize(images[:, v], MEAN, STD, flip_B=flip))


def test_flags_of_views_hold_for_each_view():
    images = random_images(3, 2, 8, 9)
    grey = torch.tensor([[True, False], [False, True], [True, True]])
    out = ops.normalize(images, MEAN, STD, grey_B=grey)
    for v in range(2):
        assert torch.equal(out[:, v], ops.normalize(images[:, v], MEAN, STD, grey_B=grey[:, v]))


def test_one_of_several_views_gives_what_its_copy_gives():
    view = random_images(3, 2, 8, 9)[:, 1, 1:7, 2:8]
    copied = ops.normalize(view.contiguous(), MEAN, STD)
    assert torch.equal(ops.normalize(view, MEAN, STD), copied)


@pytest.mark.parametrize("shape", [(0, 8, 9), (2, 0, 9), (2, 8, 0)])
def test_empty_images_give_empty_results(shape):
    num, height, width = shape
    assert ops.normalize(random_images(*shape), MEAN, STD).shape == (num, 3, height, width)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": torch.zeros(2, 8, 9, 3)}, r"images must be uint8, 0 \.\. 255, got"),
        ({"images": torch.zeros(8, 9, 3).byte()}, r"\(B, H, W, 3\) or \(B, V, H, W, 3\)"),
        ({"flip_B": torch.zeros(3).bool()}, r"flip_B must have shape \(B,\) = \(2,\), got \(3,\)"),
        ({"grey_B": torch.zeros(2)}, r"grey_B must be torch\.bool"),
        ({"std": (0.2, -1, 0.2)}, "std must be above 0"),
        ({"dtype": torch.uint8}, "dtype must be float32, float16 or bfloat16"),
    ],
)
def test_wrong_input_is_refused(change, match):
    arguments = {"images": random_images(2, 8, 9), "mean": MEAN, "std": STD} | change
    with pytest.raises(ValueError, match=match):
        ops.normalize(**arguments)
