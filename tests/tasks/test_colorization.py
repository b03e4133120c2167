"""Colorization: what is seen, what is asked, what counts, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fastssl import ops
from fastssl.batch import Batch
from fastssl.config import LoaderConfig, RunConfig
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.models.heads import ColorHead
from fastssl.ops.color_grid import lab_of_rgb
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.studies import build_recipe
from fastssl.tasks import ColorizationConfig, build_task
from fastssl.tasks.color_prior import SHIPPED_PRIOR, write_prior
from fastssl.training import train

SMALL = {"resize_short": 32, "crop": 32, "hidden": 8}


def build(trunk="resnet50_color", **changes):
    torch.manual_seed(0)
    return build_task(ColorizationConfig(**SMALL | changes), build_trunk(trunk, 1))


def make_batch(num=4, size=32, epoch=0):
    """Photographs of smooth colours; ids from 0."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(num, 3, 5, 5, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    images = smooth.to(torch.uint8).movedim(1, -1)[:, None].contiguous()
    ids = torch.arange(num)
    return Batch(images, ids, torch.full_like(ids, epoch), None)


def make_grey(batch, rows):
    images = batch.images.clone()
    images[rows] = images[rows, ..., :1].expand(*images[rows].shape)
    return dataclasses.replace(batch, images=images)


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("targets", ["point", "mean"])
def test_targets_are_those_of_lab_written_out(stride, targets):
    task = build(head_stride=stride, targets=targets, flip_probability=1.0)
    batch = make_batch()
    inputs = task.prepare(batch, 3, torch.float32)
    lab = lab_of_rgb(batch.images[:, 0].numpy()[:, :, ::-1])  # mirrored
    side = 32 // stride
    cells = lab[..., 1:].reshape(4, side, stride, side, stride, 2)
    wanted = cells[:, :, 0, :, 0] if targets == "point" else cells.mean((2, 4))
    np.testing.assert_allclose(inputs["ab"].movedim(1, -1).numpy(), wanted, atol=2e-3)
    assert inputs["lightness"].shape == (4, 1, 32, 32)
    np.testing.assert_allclose(inputs["lightness"][:, 0].numpy(), lab[..., 0] - 50, atol=2e-3)


def test_eight_bits_are_whole_numbers():
    ab = build(eight_bit=True).prepare(make_batch(), 3, torch.float32)["ab"]
    assert torch.equal(ab, ab.round())
    assert (build().prepare(make_batch(), 3, torch.float32)["ab"] - ab).abs().max() < 0.51


def test_what_a_sample_looks_like_depends_on_it_alone():
    """Law 2: the same on every rank, and in every micro-batch; another seed mirrors others."""
    task, batch = build(), make_batch(40)
    whole = task.prepare(batch, 7, torch.float32)
    part = task.prepare(batch.rows(30, 40), 7, torch.float32)
    assert whole.keys() == part.keys()
    for key, value in part.items():
        assert torch.equal(value, whole[key][30:])
    flips = task.draw_flips(batch, 7)
    assert 8 < int(flips.sum()) < 32
    assert not torch.equal(task.draw_flips(batch, 8), flips)
    assert not torch.equal(task.draw_flips(make_batch(40, epoch=1), 7), flips)


def test_a_grey_image_teaches_nothing():
    task = build()
    batch = make_grey(make_batch(), [1, 3])
    inputs = task.prepare(batch, 3, torch.float32)
    assert inputs["is_counted"].tolist() == [True, False, True, False]
    # Its targets may be anything: the loss does not look at them.
    other = {**inputs, "ab": inputs["ab"].clone()}
    other["ab"][1] += 60
    task.eval()
    assert task(inputs)["loss"].item() == task(other)["loss"].item()
    other["ab"][0] += 60
    assert task(inputs)["loss"].item() != task(other)["loss"].item()


def test_threshold_zero_lets_every_image_teach():
    batch = make_grey(make_batch(), [1])
    assert build(grey_threshold=0.0).prepare(batch, 3, torch.float32)["is_counted"].all()


def soft_cross_entropy(logits_Qhw, ab_2hw, num_neighbors, sigma=5.0):
    """The published rule, place by place, in float64."""
    bins = ops.color_bins(10).astype(np.float64)
    total, (_, height, width) = 0.0, ab_2hw.shape
    for y in range(height):
        for x in range(width):
            distances = ((bins - ab_2hw[:, y, x]) ** 2).sum(1)
            nearest = np.argsort(distances, kind="stable")[:num_neighbors]
            weights = np.exp(-(distances[nearest] - distances.min()) / (2 * sigma**2))
            row = logits_Qhw[:, y, x]
            log_shares = row - row.max() - np.log(np.exp(row - row.max()).sum())
            total -= (weights / weights.sum() * log_shares[nearest]).sum()
    return total / (height * width)


@pytest.mark.parametrize("num_neighbors", [1, 10, 313])
def test_loss_is_the_published_rule(num_neighbors):
    task = build(num_neighbors=num_neighbors, head_stride=8)
    inputs = task.prepare(make_batch(2), 3, torch.float32)
    with torch.no_grad():
        task.head.classify.weight.mul_(100)  # far from an even guess
        logits = []
        task.head.register_forward_hook(lambda _m, _i, out: logits.append(out))
        loss = task(inputs)["loss"].item()
    pairs = zip(logits[0].double().numpy(), inputs["ab"].double().numpy(), strict=True)
    wanted = np.mean([soft_cross_entropy(row, ab, num_neighbors) for row, ab in pairs])
    assert loss == pytest.approx(wanted, rel=1e-4)


def test_rare_colours_count_more_with_a_prior(tmp_path):
    counts = np.ones(313)
    grey = int((ops.color_bins(10) ** 2).sum(1).argmin())
    counts[grey] = 10_000
    path = tmp_path / "prior.json"
    content = {"grid": 10, "dataset": "0", "images": 1, "counts": [int(c) for c in counts]}
    path.write_text(json.dumps(content))
    weights = build(prior_file=str(path)).criterion.weights_Q
    assert weights.argmin() == grey
    assert weights.max() > 1.5 * weights[grey]
    assert build().criterion.weights_Q is None


def test_figures_of_a_network_that_knows_and_of_one_that_says_grey():
    task = build(head_stride=16, targets="point", flip_probability=0.0)
    inputs = task.prepare(make_batch(), 3, torch.float32)
    bins = torch.from_numpy(ops.color_bins(10))
    distances = (inputs["ab"][:, None] - bins[..., None, None]).square().sum(2)
    grey_bin = int(bins.square().sum(1).argmin())
    grey = torch.zeros_like(distances)
    grey[:, grey_bin] = 50
    knowing = task._measure(-50 * distances, inputs["ab"])
    saying_grey = task._measure(grey, inputs["ab"])
    assert knowing["accuracy"] == 1
    assert knowing["error"] < 10 / math.sqrt(2)  # half a cell's diagonal
    assert saying_grey["accuracy"] == saying_grey["accuracy_of_grey"]
    wanted = inputs["ab"].square().sum(1).sqrt().mean()
    assert saying_grey["error"].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert saying_grey["error_of_grey"].item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("stride", [4, 16])
def test_figures_look_at_the_same_places_whatever_the_stride(stride):
    inputs = build(head_stride=stride).prepare(make_batch(), 3, torch.float32)
    found = build(head_stride=stride)(inputs)["error_of_grey"].item()
    points = lab_of_rgb(make_batch().images[:, 0].numpy())[..., 1:]
    flips = build().draw_flips(make_batch(), 3).numpy()
    points[flips] = points[flips][:, :, ::-1]
    wanted = np.linalg.norm(points[:, ::16, ::16], axis=-1).mean()
    assert found == pytest.approx(wanted, rel=1e-4)


def test_it_learns_a_batch():
    task = build(head_stride=8, hidden=32)
    inputs = task.prepare(make_batch(), 3, torch.float32)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        outputs = task(inputs)
        outputs["loss"].backward()
        optimizer.step()
    assert outputs["error"] < 0.5 * outputs["error_of_grey"]


@pytest.mark.parametrize(("trunk", "crop"), [("resnet50_color", 32), ("alexnet_color", 112)])
@pytest.mark.parametrize("stride", [4, 16])
def test_one_step_on_both_trunks(trunk, crop, stride):
    task = build(trunk, crop=crop, resize_short=crop, head_stride=stride)
    inputs = task.prepare(make_batch(2, crop), 3, torch.float32)
    outputs = task(inputs)
    outputs["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters())
    assert outputs["loss"].item() == pytest.approx(math.log(313), rel=0.02)  # an even guess
    assert task.chance() == {"accuracy": 1 / 313}


def test_bfloat16_gives_nearly_the_same_loss():
    task = build()
    exact = task(task.prepare(make_batch(), 3, torch.float32))["loss"].item()
    inputs = task.prepare(make_batch(), 3, torch.bfloat16)
    assert inputs["lightness"].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert task(inputs)["loss"].item() == pytest.approx(exact, rel=0.01)


def test_ranks_can_send_each_other_every_buffer():
    # DistributedDataParallel does, and gloo knows no int16.
    task = build()
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        for buffer in task.buffers():
            torch.distributed.broadcast(buffer, 0)
    finally:
        torch.distributed.destroy_process_group()


def test_a_map_of_fewer_places_stands_in_the_middle():
    """AlexNet has no padding: place i of conv5 sees the pixels around 16 i + 17, cell i + 1."""
    torch.manual_seed(0)
    head = ColorHead(3, 4, 5, 0).eval()
    with torch.no_grad():
        out = head(torch.zeros(1, 3, 5, 5), 7)
        maps = torch.zeros(1, 3, 5, 5)
        maps[0, :, 0, 0] = 1
        seen = (head(maps, 7) - out).abs().sum(1)[0] > 0
    assert out.shape == (1, 5, 7, 7)
    # Two convolutions of 3 x 3 reach two places around cell (1, 1).
    rows, columns = torch.nonzero(seen, as_tuple=True)
    assert (rows.max().item(), columns.max().item()) == (3, 3)


def test_pictures_are_grey_original_and_painted_side_by_side():
    task, batch = build(flip_probability=1.0), make_batch(3)
    red = int(
        ((torch.from_numpy(ops.color_bins(10)) - torch.tensor([60, 40])) ** 2).sum(1).argmin()
    )
    with torch.no_grad():  # a head that always answers "red"
        task.head.classify.weight.zero_()
        task.head.classify.bias.zero_()
        task.head.classify.bias[red] = 50
    pictures = [picture.pixels for picture in task.draw_pictures(batch, 3, 2)]
    assert [(p.shape, p.dtype) for p in pictures] == [((40, 120, 3), np.uint8)] * 2
    grey, original, painted = (pictures[0][4:36, 40 * i + 4 : 40 * i + 36] for i in range(3))
    assert int(np.ptp(grey.astype(int), axis=-1).max()) <= 1
    np.testing.assert_array_equal(original, batch.images[0, 0].numpy()[:, ::-1])
    assert (painted[..., 0] > painted[..., 2]).all()
    assert task.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_neighbors": 0}, r"task\.num_neighbors \(0\) must lie in 1 \.\. 10,000"),
        ({"num_neighbors": 314}, r"num_neighbors \(314\) must lie in 1 \.\. 313"),
        ({"bin_grid": 60}, r"grid \(60\) must lie in 2 \.\. 50"),
        ({"sigma": 0.0}, r"task\.sigma \(0\.0\) must lie in 0 \.\. 1,000, 0 excluded"),
        ({"crop": 100, "resize_short": 128}, r"task\.crop \(100\).*set --task\.crop to 96 or 112"),
        ({"crop": 48}, r"task\.resize_short \(32\) must be at least task\.crop \(48\)"),
        ({"head_stride": 2}, r"task\.head_stride \(2\) must be one of 4, 8, 16"),
        ({"flip_probability": 1.5}, r"task\.flip_probability \(1\.5\) must lie in 0 \.\. 1"),
        ({"grey_threshold": -1.0}, r"task\.grey_threshold \(-1\.0\)"),
        ({"prior_file": "none.json"}, r"prior_file none\.json is not a file.*fastssl color-prior"),
        ({"prior_sha256": "ab"}, r"set --task\.prior-file too"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)


def test_a_prior_of_other_bins_or_another_checksum_is_refused(tmp_path):
    path = tmp_path / "prior.json"
    num_bins = len(ops.color_bins(20))
    path.write_text(json.dumps({"grid": 20, "dataset": "0", "images": 1, "counts": [1] * num_bins}))
    with pytest.raises(InputError, match=rf"is of {num_bins} bins of step 20, wanted 313 of step"):
        build(prior_file=str(path))
    with pytest.raises(InputError, match=r"has SHA-256 .* wants abc; give the file"):
        build(prior_file=str(path), prior_sha256="abc", bin_grid=20)
    noted = ColorizationConfig(prior_file=str(path), bin_grid=20).prior_sha256
    assert build(prior_file=str(path), prior_sha256=noted, bin_grid=20).criterion.num_bins < 313


@pytest.mark.parametrize("trunk", ["resnet50", "resnet50_color_linear64"])
def test_a_trunk_that_is_none_for_colour_is_refused(trunk):
    with pytest.raises(InputError, match=r"set --trunk to alexnet_color or resnet50_color"):
        build(trunk)


def test_a_crop_too_small_for_the_trunk_is_refused():
    with pytest.raises(InputError, match=r"task\.crop \(32\) must be at least 99 px for trunk"):
        build("alexnet_color")


@pytest.fixture(scope="module")
def grey_path(tmp_path_factory):
    """Three grey images, then one of colour; manifest order is that of names."""
    root = tmp_path_factory.mktemp("grey")
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        shape = (40, 40, 3) if number == 3 else (40, 40)
        picture = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        picture.save(root / "photos" / f"{number}.jpg")
    convert(ConvertConfig(root / "photos", root / "shards", workers=1, keep_order=True))
    return root / "shards"


def test_grey_images_alone_are_refused_before_the_run(grey_path, tmp_path):
    config = RunConfig(
        recipe="test",
        task=ColorizationConfig(**SMALL),
        trunk="resnet50_color",
        width=1,
        output_dir=tmp_path / "run",
        data=LoaderConfig(path=grey_path, global_batch_size=2, max_samples=3, num_threads=1),
    )
    with pytest.raises(InputError, match=r"holds grey images alone \(3 of 3\).*choose another"):
        train(config)


def test_one_image_of_colour_will_do(grey_path):
    dataset = open_dataset(grey_path)
    build().check_data(dataset, 4)
    dataset.close()


def test_the_shipped_prior_weighs_rare_colours_more_and_can_be_switched_off():
    """docs/tasks.md: between 0.10 and 7.5; 221 of 313 bins were met, most often the grey one."""
    content = json.loads(SHIPPED_PRIOR.read_text())
    counts = np.array(content["counts"])
    assert (content["images"], len(counts), (counts > 0).sum()) == (300, 313, 221)
    weights = build(prior="imagenet").criterion.weights_Q
    assert float(weights.min()) == pytest.approx(0.10, abs=0.005)
    assert float(weights.max()) == pytest.approx(7.5, abs=0.05)
    greyest = int(np.square(ops.color_bins(10), dtype=float).sum(1).argmin())
    assert int(weights.argmin()) == int(counts.argmax()) == greyest
    # Under the prior a pixel counts 1 in the mean, so the loss keeps its scale.
    shares = counts / counts.sum()
    assert float((shares * weights.numpy()).sum()) == pytest.approx(1, abs=1e-3)
    assert build().criterion.weights_Q is None


def test_numbers_of_ones_own_images_take_the_place_of_the_shipped_ones(tmp_path):
    counts = np.arange(1, 314)
    write_prior(tmp_path / "own.json", counts, 10, "ab" * 32, 5)
    own = build(prior="imagenet", prior_file=str(tmp_path / "own.json")).criterion.weights_Q
    np.testing.assert_array_equal(own.numpy(), ops.rebalance_bins(counts))


def test_the_shipped_prior_is_refused_for_other_bins():
    with pytest.raises(
        InputError, match=r"is of bins of step 10, task\.bin_grid is 5; give --task"
    ):
        ColorizationConfig(prior="imagenet", bin_grid=5)


@pytest.mark.parametrize(
    "name",
    ["goyal19_colorization", "goyal19_colorization_alexnet_k313_yfcc1m"],
)
def test_the_studys_colours_are_rebalanced(name):
    assert build_recipe(name).task.prior == "imagenet"
