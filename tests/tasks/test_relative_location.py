"""Relative patch location: the patches, the pairs, and that they learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import JointHead, build_trunk
from fastssl.tasks import Jigsaw, JigsawConfig, RelativeLocationConfig, build_task
from fastssl.tasks.relative_location import PAIRS
from fastssl.views import ViewSpec

SMALL = {
    "resize_short": 40,
    "crop": 36,
    "patch": 10,
    "jitter": 3,
    "hidden": 32,
    "joint_hidden": 64,
}


def build(trunk="resnet9", **changes):
    torch.manual_seed(0)
    return build_task(RelativeLocationConfig(**SMALL | changes), build_trunk(trunk, 1))


def make_batch(num=6, size=36):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num, 1, size, size, 3), generator=generator, dtype=torch.uint8)
    return Batch(images, torch.arange(num), torch.zeros(num, dtype=torch.int64), None)


def test_figures_of_the_study():
    task = build_task(RelativeLocationConfig(), build_trunk("resnet9", 1))
    assert task.views == (ViewSpec.squash_crop(292, 255),)
    assert isinstance(task.head, JointHead)
    assert task.head.classify[0].weight.shape == (4096, 2000)
    assert task.head.classify[-1].weight.shape == (8, 4096)
    places = task.draw(make_batch(2000, 1), 0)
    offsets = places.corners_BP2.numpy() - 85 * np.stack(np.divmod(np.arange(9), 3), -1)
    assert (offsets.min(), offsets.max()) == (0, 21)
    assert float(places.grey.float().mean()) == pytest.approx(0.66, abs=0.03)
    assert not places.flip_B.any()


def test_the_eight_pairs_come_in_raster_order_and_end_with_the_centre():
    assert PAIRS == ((0, 4), (1, 4), (2, 4), (3, 4), (5, 4), (6, 4), (7, 4), (8, 4))


def test_patches_lie_where_jigsaws_do():
    batch = make_batch()
    config = JigsawConfig.kolesnikov(**SMALL, num_permutations=10)
    jigsaw = Jigsaw(config, build_trunk("resnet9", 1))
    here = build().prepare(batch, 5, torch.float32)["patches"]
    assert torch.equal(here, jigsaw.prepare(batch, 5, torch.float32)["patches"])


def test_patches_are_standardised_and_some_images_are_grey():
    task, batch = build(), make_batch(20)
    patches = task.prepare(batch, 5, torch.float32)["patches"]
    assert patches.shape == (20, 9, 3, 10, 10)
    assert patches.mean((2, 3, 4)).abs().max() < 1e-5
    assert (patches.square().mean((2, 3, 4)) - 1).abs().max() < 1e-5
    is_grey = (patches[:, :, 0] - patches[:, :, 1]).abs().amax((1, 2, 3)) < 1e-5
    assert torch.equal(is_grey, task.draw(batch, 5).grey)
    assert 0 < int(is_grey.sum()) < 20


@pytest.mark.parametrize("normalize", ["imagenet", "patch"])
def test_what_is_not_fused_equals_what_is(normalize):
    options = {"normalize": normalize, "flip_probability": 0.5}
    fused, plain = (build(grey_probability=p, **options) for p in (0.0, 1e-9))
    one, other = (
        t.prepare(make_batch(), 5, torch.float32)["patches"].flatten(0, 1) for t in (fused, plain)
    )
    assert one.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_grey_by_patch_tosses_a_coin_for_each():
    task = build(grey_per_patch=True, grey="luma")
    patches = task.prepare(make_batch(50), 5, torch.float32)["patches"]
    is_grey_BP = (patches[:, :, 0] - patches[:, :, 2]).abs().amax((2, 3)) < 1e-3
    assert torch.equal(is_grey_BP, task.draw(make_batch(50), 5).grey)
    assert not is_grey_BP.all(1).all()


def test_the_trunk_sees_each_patch_once_and_the_head_each_pair():
    task, batch = build().eval(), make_batch()
    inputs = task.prepare(batch, 5, torch.float32)
    seen = []
    task.trunk.register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))
    logits_BKQ = task._logits(inputs)
    assert seen == [6 * 9]
    assert logits_BKQ.shape == (6, 8, 8)
    for k, pair in enumerate(PAIRS):
        alone = task.trunk(inputs["patches"][:, list(pair)].flatten(0, 1)).unflatten(0, (6, 2))
        torch.testing.assert_close(logits_BKQ[:, k], task.head(alone), rtol=1e-4, atol=1e-6)


def test_loss_and_accuracy_are_those_of_all_pairs():
    task, batch = build().eval(), make_batch()
    inputs = task.prepare(batch, 5, torch.float32)
    logits = task._logits(inputs).detach().double()
    labels = torch.arange(8).repeat(6)
    wanted = -logits.log_softmax(-1).flatten(0, 1)[torch.arange(48), labels].mean()
    outputs = task(inputs)
    assert outputs["loss"].item() == pytest.approx(float(wanted), rel=1e-5)
    right = (logits.argmax(-1).flatten() == labels).double().mean()
    assert float(outputs["accuracy"]) == pytest.approx(float(right))


def test_it_learns_a_batch():
    task, batch = build(), make_batch(8)
    inputs = task.prepare(batch, 5, torch.float32)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.02, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        task(inputs)["loss"].backward()
        optimizer.step()
    for part in task.modules():
        if isinstance(part, torch.nn.Dropout):
            part.eval()
    assert task(inputs)["accuracy"] > 0.9


def test_pictures_show_the_patches_and_a_map_of_each_answer():
    task, batch = build(grey_probability=0.0), make_batch(3)
    with torch.no_grad():  # a head that always answers class 2, above right of the centre
        task.head.classify[-1].weight.zero_()
        task.head.classify[-1].bias.copy_(torch.eye(8)[2])
    pictures = [picture.pixels for picture in task.draw_pictures(batch, 5, 2)]
    assert len(pictures) == 2
    assert pictures[0].dtype == np.uint8
    y, x = task.draw(batch, 5).corners_BP2[0, 0].tolist()
    patch = batch.images[0, 0, y : y + 10, x : x + 10].numpy()
    np.testing.assert_array_equal(pictures[0][4:14, 4:14], patch)
    # Pair 0, whose patch lies above left: that cell is green, the answered one red.
    pair = pictures[0][:18, 54 + 5 : 54 + 5 + 18 + 18 + 14]
    np.testing.assert_array_equal(pair[4:14, 4:14], patch)
    icon = pair[:, 36:].astype(int)
    green, red = icon[6, 4], icon[6, 8]
    assert green[1] > green[0]
    assert red[0] > red[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 13}, r"task\.patch \(13\) must fit a cell of 12 px"),
        ({"jitter": 4}, "lower the jitter to 3"),
        ({"jitter": 0}, r"task\.jitter \(0\) must lie in 1 \.\. 1,024; set --task\.jitter"),
        ({"grey_probability": 2.0}, r"task\.grey_probability \(2\.0\) must lie in 0 \.\. 1"),
    ],
)
def test_pairs_that_cannot_be_made_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        RelativeLocationConfig(**SMALL | changes)


def test_a_patch_too_small_for_the_trunk_is_refused():
    with pytest.raises(InputError, match=r"task\.patch \(10\) must be at least 55 px for trunk"):
        build("alexnet")


@pytest.mark.parametrize(
    "trunk", ["resnet50_v1_patch", "resnet50_v2_minus_patch", "revnet50_patch", "vgg19_bn_patch"]
)
def test_one_step_on_every_family_of_trunks(trunk):
    side = max(16, build_trunk(trunk, 1).min_side)
    task = build(trunk, resize_short=3 * side, crop=3 * side, patch=side, jitter=1)
    batch = make_batch(2, task.config.crop)
    task(task.prepare(batch, 5, torch.float32))["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters())
