"""The published forms of jigsaw: their figures, their colours, their heads, batch norm by tower."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import FullyConnectedHead, JointHead, build_trunk
from fastssl.models.input_spec import IMAGENET_STD
from fastssl.models.towers import TowerNorm
from fastssl.tasks import Jigsaw, JigsawConfig, build_task
from fastssl.tasks.jigsaw import draw_distinct
from fastssl.tasks.patch_look import FusedPatches, PaintedPatches
from fastssl.views import ViewSpec

SMALL = {
    "num_permutations": 12,
    "resize_short": 36,
    "crop": 36,
    "patch": 10,
    "jitter": 3,
    "hidden": 8,
    "joint_hidden": 16,
}
# What the forms that take no deviation of the patch divide 0 .. 255 by.
ONE_STD = 255 * np.mean(IMAGENET_STD)
FORMS = {
    "goyal": JigsawConfig,
    "noroozi": JigsawConfig.noroozi,
    "kolesnikov": JigsawConfig.kolesnikov,
}


def build(form="goyal", trunk="resnet9", **changes) -> Jigsaw:
    torch.manual_seed(0)
    return build_task(FORMS[form](**SMALL | changes), build_trunk(trunk, 1))


def make_batch(num=6, size=36):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num, 1, size, size, 3), generator=generator, dtype=torch.uint8)
    return Batch(images, torch.arange(num), torch.zeros(num, dtype=torch.int64), None)


def cut_by_hand(task, batch, seed):
    """Cut with NumPy what Noroozi's form asks for: shift, grey by mean or projection."""
    config, puzzles = task.config, task.draw(batch, seed)
    size, last = config.patch, config.crop - config.patch
    matrix = np.array(
        [[0.8333, 0.3333, -0.1667], [0.3333, 0.3333, 0.3333], [-0.1667, 0.3333, 0.8333]]
    )
    patches = np.empty((len(batch), config.num_patches, size, size, 3))
    for b in range(len(batch)):
        image = batch.images[b, 0].numpy().astype(float)
        for p in range(config.num_patches):
            for c in range(3):
                corner = puzzles.corners_BP2[b, p] + puzzles.shifts_BPC2[b, p, c]
                y, x = corner.clamp(max=last).tolist()
                patches[b, p, ..., c] = image[y : y + size, x : x + size, c]
        if puzzles.grey[b]:
            patches[b] = patches[b].mean(-1, keepdims=True)
        elif puzzles.is_projected_B[b]:
            patches[b] = patches[b] @ matrix.T
    return torch.from_numpy((patches - [123, 117, 104]) / ONE_STD).permute(0, 1, 4, 2, 3)


def test_figures_of_noroozis_form():
    config = JigsawConfig.noroozi()
    assert (config.cell, config.patch, config.num_permutations) == (85, 64, 100)
    assert (config.flip_probability, config.grey_probability) == (0.0, 0.5)
    task = Jigsaw(config, build_trunk("resnet9", 1))
    assert task.views == (ViewSpec.center(256, 255),)
    assert isinstance(task.head, FullyConnectedHead)
    puzzles = task.draw(make_batch(2000, 1), 0)
    offsets = puzzles.corners_BP2.numpy()[:, 0]
    assert (offsets.min(), offsets.max()) == (0, 21)
    assert puzzles.shifts_BPC2.unique().tolist() == [0, 1, 2]
    assert not puzzles.flip_B.any()
    assert float(puzzles.grey.float().mean()) == pytest.approx(0.5, abs=0.03)
    # Half of the other half.
    assert float(puzzles.is_projected_B.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert not (puzzles.is_projected_B & puzzles.grey).any()


def test_figures_of_kolesnikovs_form():
    config = JigsawConfig.kolesnikov()
    assert (config.cell, config.patch, config.permutations_per_image) == (85, 64, 8)
    task = Jigsaw(config, build_trunk("resnet9", 1))
    assert task.views == (ViewSpec.squash_crop(292, 255),)
    assert isinstance(task.head, JointHead)
    puzzles = task.draw(make_batch(2000, 1), 0)
    offsets = puzzles.corners_BP2.numpy()[:, 0]
    assert (offsets.min(), offsets.max()) == (0, 21)
    assert not puzzles.flip_B.any()
    assert float(puzzles.grey.float().mean()) == pytest.approx(0.66, abs=0.03)


def test_noroozis_patches_are_those_cut_by_hand():
    task, batch = build("noroozi"), make_batch(12)
    puzzles = task.draw(batch, 5)
    kinds = puzzles.grey.int() + 2 * puzzles.is_projected_B.int()
    assert kinds.unique().tolist() == [0, 1, 2]
    patches = task.prepare(batch, 5, torch.float32)["patches"]
    # The published matrix has four digits: 5e-5 of 255, three times, of a deviation of 58.
    assert (patches.double() - cut_by_hand(task, batch, 5)).abs().max() < 7e-4


def test_channels_that_would_leave_the_picture_stay_at_its_border():
    task, batch = build("noroozi", grey_probability=0.0, projection_probability=0.0), make_batch(40)
    puzzles = task.draw(batch, 5)
    ends = puzzles.corners_BP2[:, :, None] + puzzles.shifts_BPC2 + 10
    assert int(ends.max()) > 36  # the case is there
    patches = task.prepare(batch, 5, torch.float32)["patches"]
    assert (patches.double() - cut_by_hand(task, batch, 5)).abs().max() < 1e-6


def test_kolesnikovs_patches_are_standardised_and_some_are_grey():
    task, batch = build("kolesnikov"), make_batch(20)
    patches = task.prepare(batch, 5, torch.float32)["patches"]
    assert patches.mean((2, 3, 4)).abs().max() < 1e-5
    assert (patches.square().mean((2, 3, 4)) - 1).abs().max() < 1e-5
    is_grey = (patches[:, :, 0] - patches[:, :, 1]).abs().amax((1, 2, 3)) < 1e-5
    assert torch.equal(is_grey, task.draw(batch, 5).grey)
    assert 0 < int(is_grey.sum()) < 20


@pytest.mark.parametrize("normalize", ["imagenet", "patch", "mean", "none"])
@pytest.mark.parametrize("batch_norm", ["shared", "tower"])
def test_what_is_not_fused_equals_what_is(normalize, batch_norm):
    """A projection of next to no image takes the plain path and changes nothing."""
    options = {"normalize": normalize, "batch_norm": batch_norm}
    fused, plain = build(**options), build(projection_probability=1e-9, **options)
    assert isinstance(fused._look, FusedPatches)
    assert isinstance(plain._look, PaintedPatches)
    batch = make_batch()
    one, other = (t.prepare(batch, 5, torch.float32)["patches"] for t in (fused, plain))
    assert one.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_mean_and_none_differ_by_the_channel_means():
    batch = make_batch()
    raw, centred = (
        build(normalize=n).prepare(batch, 5, torch.float32)["patches"] for n in ("none", "mean")
    )
    assert raw.min() >= 0
    assert raw.max() == pytest.approx(255 / ONE_STD, abs=0.1)
    taken = ONE_STD * (raw - centred).mean((0, 1, 3, 4))
    torch.testing.assert_close(taken, torch.tensor([123.0, 117.0, 104.0]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("channel_shift", [0, 2])
@pytest.mark.parametrize("grey", ["luma", "mean"])
def test_grey_images_are_grey_in_every_form(grey, channel_shift):
    task = build(grey=grey, channel_shift=channel_shift, grey_probability=1.0, normalize="none")
    patches = task.prepare(make_batch(), 5, torch.float32)["patches"]
    assert (patches[:, :, 0] - patches[:, :, 2]).abs().max() < 1e-3


def test_grey_by_patch_tosses_a_coin_for_each():
    task = build(grey_per_patch=True, normalize="none")
    batch = make_batch(50)
    patches = task.prepare(batch, 5, torch.float32)["patches"]
    is_grey_BP = (patches[:, :, 0] - patches[:, :, 2]).abs().amax((2, 3)) < 1e-3
    assert torch.equal(is_grey_BP, task.draw(batch, 5).grey)
    assert float(is_grey_BP.float().mean()) == pytest.approx(0.66, abs=0.08)
    assert not is_grey_BP.all(1).all()


def test_puzzles_of_one_image_are_all_different():
    words = np.random.default_rng(0).integers(0, 2**32, (4000, 5), np.uint32)
    chosen = draw_distinct(words, 6)
    assert all(len(set(row)) == 5 for row in chosen.tolist())
    # Every place has every value equally often: chi-square, 5 degrees of freedom, 1 in 1000.
    for column in chosen.T:
        counts = np.bincount(column, minlength=6)
        assert ((counts - 4000 / 6) ** 2 / (4000 / 6)).sum() < 20.5


@pytest.mark.parametrize("form", FORMS)
def test_each_form_learns_a_batch(form):
    wide = {"hidden": 32, "joint_hidden": 64, "permutations_per_image": 1}
    task, batch = build(form, **wide), make_batch(12)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.01, momentum=0.9)
    inputs = task.prepare(batch, 5, torch.float32)
    for _ in range(80):
        optimizer.zero_grad()
        task(inputs)["loss"].backward()
        optimizer.step()
    for part in task.modules():
        if isinstance(part, torch.nn.Dropout):
            part.eval()
    assert task(inputs)["accuracy"] > 0.8


@pytest.mark.parametrize("form", FORMS)
def test_each_form_shows_its_puzzles(form):
    pictures = [picture.pixels for picture in build(form).draw_pictures(make_batch(), 5, 2)]
    assert [(p.shape, p.dtype) for p in pictures] == [((54, 113, 3), np.uint8)] * 2


def test_towers_see_the_slots_of_the_puzzle_not_the_places_in_the_picture():
    """Else the batch norm of a tower would tell where its patch comes from."""
    apart, shared = build(batch_norm="tower"), build()
    batch = make_batch()
    inputs, plain = (t.prepare(batch, 5, torch.float32) for t in (apart, shared))
    for b, label in enumerate(inputs["labels"][:, 0]):
        order = shared.permutations_QP[label]
        assert torch.equal(inputs["patches"][b], plain["patches"][b][order])
    assert any(isinstance(part, TowerNorm) for part in apart.trunk.modules())


def test_equal_towers_answer_as_a_shared_batch_norm_does():
    apart, shared = build(batch_norm="tower").eval(), build().eval()
    shared.head.load_state_dict(apart.head.state_dict())
    batch = make_batch()
    answers = [t._logits(t.prepare(batch, 5, torch.float32)) for t in (apart, shared)]
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("form", "changes", "message"),
    [
        ("kolesnikov", {"batch_norm": "tower"}, r"permutations_per_image \(8\) must be 1 with"),
        ("goyal", {"permutations_per_image": 13}, r"must not exceed task\.num_permutations \(12\)"),
        ("noroozi", {"channel_shift": -1}, r"task\.channel_shift \(-1\)"),
        ("noroozi", {"projection_probability": 2.0}, r"task\.projection_probability \(2\.0\)"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(form, changes, message):
    with pytest.raises(InputError, match=message):
        FORMS[form](**SMALL | changes)


def test_a_patch_too_small_for_the_trunk_is_refused():
    with pytest.raises(InputError, match=r"task\.patch \(10\) must be at least 55 px for trunk"):
        build(trunk="alexnet")


def test_towers_without_batch_norms_are_refused():
    config = JigsawConfig(batch_norm="tower", num_permutations=10)
    with pytest.raises(
        InputError, match=r"'alexnet_no_bn' has none; set --task\.batch-norm shared"
    ):
        Jigsaw(config, build_trunk("alexnet_no_bn", 1))


def test_more_permutations_than_there_are_are_refused():
    with pytest.raises(InputError, match=r"num_permutations \(362881\) must lie in 1 \.\. 9!"):
        build(num_permutations=362_881)
