"""The variational autoencoder: published loss, decoder, pictures, and that it learns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.models.decoder import PictureDecoder
from fastssl.tasks import VaeConfig, build_task
from fastssl.tasks.newell_views import to_pictures
from fastssl.tasks.vae import VaeHead, sum_divergence


def build(trunk="resnet9", width=1, **changes):
    torch.manual_seed(0)
    sizes = {"size": 16, "output": 16, "kl_batch_size": 6}
    return build_task(VaeConfig(**sizes | changes), build_trunk(trunk, width))


def make_batch(num=6, size=16, epoch=0):
    generator = torch.Generator().manual_seed(1)
    shape = (num, 1, size, size, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    ids = torch.arange(num)
    return Batch(images, ids, torch.full_like(ids, epoch), None)


def loss_of_plain_loops(painted, target, mean, log_variance, weight):
    """The published loss, a number after the other: mean squared error, and summed divergence."""
    squares = [(p - t) ** 2 for p, t in zip(painted.flatten(), target.flatten(), strict=True)]
    error = torch.stack(squares).sum() / len(squares)
    divergence = torch.zeros((), dtype=torch.float64)
    for row, logs in zip(mean, log_variance, strict=True):
        for m, s in zip(row, logs, strict=True):
            divergence = divergence + 0.5 * (m * m + torch.exp(s) - s - 1)
    return error + weight * divergence


@pytest.mark.parametrize(("size", "output"), [(16, 16), (32, 16)])
def test_loss_and_gradient_are_those_of_the_published_equation(size, output):
    task = build(size=size, output=output, kl_weight=1e-3).double()
    inputs = task.prepare(make_batch(6, size), 3, torch.float32)
    images = inputs["images"].double()
    torch.manual_seed(7)
    ours = task({"images": images})["loss"]
    gradients = torch.autograd.grad(ours, task.parameters())
    # The same draw of the latent numbers, written out; batch norms see the same batch again.
    features = task.trunk(images)
    mean, log_variance = task.head.mean(features), task.head.log_variance(features)
    torch.manual_seed(7)
    latent = mean + torch.randn_like(mean) * torch.sqrt(torch.exp(log_variance))
    painted = task.head.decoder(latent)
    step = size // output
    target = images[:, :, ::step, ::step]
    wanted = loss_of_plain_loops(painted, target, mean, log_variance, 1e-3)
    assert ours.item() == pytest.approx(wanted.item(), rel=1e-9)
    for found, published in zip(
        gradients, torch.autograd.grad(wanted, task.parameters()), strict=True
    ):
        torch.testing.assert_close(found, published, rtol=1e-6, atol=1e-9)


def test_the_divergence_is_torchs():
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    ours = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    wanted = torch.distributions.kl_divergence(ours, standard).sum(-1)
    torch.testing.assert_close(sum_divergence(mean, log_variance), wanted)


def test_the_divergence_counts_the_same_in_parts_of_a_batch():
    """Ranks and micro-batches average losses: the mean of the parts is the whole."""
    task = build(kl_weight=0.5)
    images = task.prepare(make_batch(), 3, torch.float32)["images"]
    task.eval()
    whole = task({"images": images})["loss"]
    parts = torch.stack([task({"images": part})["loss"] for part in images.split(2)]).mean()
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize(
    ("side", "channels"),
    [
        (4, [64]),
        (32, [256, 256, 128, 64]),
        (64, [256, 256, 256, 128, 64]),
        (128, [256, 256, 256, 256, 128, 64]),
    ],
)
def test_the_decoder_has_the_published_layers(side, channels):
    decoder = PictureDecoder(10, side)
    ups = [layer for layer in decoder.layers if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in ups] == channels
    assert [layer.padding for layer in ups] == [(0, 0)] + [(1, 1)] * (len(channels) - 1)
    assert all((layer.kernel_size, layer.stride) == ((4, 4), (2, 2)) for layer in ups)
    assert decoder(torch.zeros(2, 10)).shape == (2, 3, side, side)
    assert decoder.layers[-1].kernel_size == (1, 1)


def test_a_narrow_trunk_gets_a_decoder_as_narrow():
    head = build_task(VaeConfig(), build_trunk("resnet9", width=1)).head
    ups = [layer for layer in head.decoder.layers if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in ups] == [64, 64, 64, 32, 16]


def test_as_many_latent_numbers_as_features_are_drawn_while_training_alone():
    torch.manual_seed(0)
    head = VaeHead(12, 8)
    features = torch.randn(4, 12)
    painted, mean, log_variance = head(features)
    assert mean.shape == log_variance.shape == (4, 12)
    assert not torch.equal(head(features)[0], painted)
    head.eval()
    assert torch.equal(head(features)[0], head(features)[0])


def test_there_is_no_cutout_and_the_study_is_the_default():
    config = VaeConfig()
    assert (config.cutout, config.kl_weight, config.output, config.size) == (0, 1e-5, 64, 64)
    assert (config.jitter_probability, config.grey_probability) == (0.8, 0.25)


def test_it_learns_a_batch():
    task, batch = build(kl_weight=1e-6), make_batch()
    inputs = task.prepare(batch, 3, torch.float32)
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3, betas=(0.8, 0.999))
    first = task(inputs)["reconstruction"]
    for _ in range(60):
        optimizer.zero_grad()
        outputs = task(inputs)
        outputs["loss"].backward()
        optimizer.step()
    assert outputs["reconstruction"] < 0.5 * first
    assert outputs["kl"] > 0


def test_pictures_are_the_target_beside_what_is_painted():
    task, batch = build(size=32), make_batch(3, 32)
    pictures = task.draw_pictures(batch, 3, 2)
    assert [(p.pixels.shape, p.pixels.dtype) for p in pictures] == [((24, 48, 3), np.uint8)] * 2
    seen = task.prepare(batch, 3, torch.float32)["images"]
    wanted = to_pictures(seen[:, :, ::2, ::2], task.config)
    task.eval()
    painted = to_pictures(task.head(task.trunk(seen[:2]))[0], task.config)
    for number, picture in enumerate(pictures):
        np.testing.assert_array_equal(picture.pixels[4:20, 4:20], wanted[number])
        np.testing.assert_array_equal(picture.pixels[4:20, 28:44], painted[number])
        assert "mean squared error" in picture.words


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": 48, "size": 64}, r"task\.output \(48\) must be 4 px doubled .*; take 32 or 64"),
        ({"output": 64, "size": 32}, r"task\.output \(64\) must be at most task\.size \(32\)"),
        ({"size": 16, "trunk": "alexnet"}, r"task\.size \(16\) must be at least \d+ px for trunk"),
        (
            {"trunk": "alexnet_color", "size": 128, "output": 64},
            r"takes images of 1 channel, task vae has",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)


@pytest.mark.parametrize("trunk", ["resnet9_dense", "resnet50_newell", "resnet50_v1"])
def test_any_trunk_of_features_has_a_decoder(trunk):
    size = max(32, build_trunk(trunk, 1).min_side)
    task = build(trunk, size=size)
    task(task.prepare(make_batch(2, size), 3, torch.float32))["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters())


def test_half_precision_keeps_the_loss_in_float32():
    task = build()
    inputs = task.prepare(make_batch(), 3, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = task(inputs)
    assert {value.dtype for value in outputs.values()} == {torch.float32}


def test_colours_may_be_rgb():
    task = build(space="rgb", statistics="cifar10")
    assert task.input_spec.kind == "scaled"
    assert dataclasses.replace(task.config, space="lab").input_spec.kind == "lab"
