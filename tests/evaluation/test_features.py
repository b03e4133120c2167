from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastssl.config import LoaderConfig, LogConfig
from fastssl.errors import InputError
from fastssl.evaluation import evaluate_knn, extract_features
from fastssl.loaders import build_loader
from fastssl.models import InputSpec, build_trunk, load_trunk
from fastssl.ops import split_lab
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.studies import build_recipe
from fastssl.training import train
from fastssl.views import ViewSpec
from tests.conftest import NUM_SAMPLES

MEAN, STD = (0.5, 0.25, 0.5), (0.5, 0.5, 0.25)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Eleven flat pictures in two classes; the colour tells the sample."""
    root = tmp_path_factory.mktemp("features")
    for i in range(11):
        folder = root / "source" / ("left" if i < 5 else "right")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * i, 100, 255 - 20 * i)).save(folder / f"{i:02d}.png")
    convert(ConvertConfig(source=root / "source", out=root / "shards", workers=1))
    return root / "shards"


def open_loader(path, views):
    return build_loader(LoaderConfig(path=path, global_batch_size=4, num_threads=1), views)


class ChannelMeans(nn.Module):
    """A trunk whose features are known: the mean of each channel."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)

    def forward(self, x):
        return self.norm(x).mean((2, 3))


@pytest.fixture
def loader(dataset):
    loader = open_loader(dataset, ViewSpec.center(32, 32))
    yield loader
    loader.close()


def test_rows_are_the_features_of_each_sample(loader):
    trunk = ChannelMeans()
    result = extract_features(trunk, loader, InputSpec("scaled", MEAN, STD))
    assert result.sample_ids.tolist() == list(range(11))
    index = [int(loader.dataset.read_metadata(i)["source"].split("/")[1][:2]) for i in range(11)]
    expected = np.array([[20 * i, 100, 255 - 20 * i] for i in index]) / 255
    expected = (expected - MEAN) / STD / np.sqrt(1 + trunk.norm.eps)
    assert result.features.dtype == torch.float32
    np.testing.assert_allclose(result.features, expected, atol=1e-5)
    assert result.labels.tolist() == [0 if i < 5 else 1 for i in index]


def test_trunk_keeps_its_mode_and_its_statistics(loader):
    trunk = ChannelMeans().train()
    extract_features(trunk, loader)
    assert trunk.training
    assert trunk.norm.running_mean.tolist() == [0, 0, 0]


def test_memory_order_does_not_change_features(loader):
    one = extract_features(ChannelMeans(), loader, channels_last=True).features
    two = extract_features(ChannelMeans(), loader, channels_last=False).features
    # Sums run in another order.
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_low_precision_gives_float32_features_near_the_exact_ones(loader):
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    exact = extract_features(trunk, loader, InputSpec()).features
    rough = extract_features(trunk, loader, InputSpec(), precision="bf16").features
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    # bfloat16 keeps eight bits.
    torch.testing.assert_close(exact, rough, atol=0.03, rtol=0.03)


def test_several_views_are_refused(dataset):
    loader = open_loader(dataset, ViewSpec.random_resized_crop(32, count=2))
    with pytest.raises(InputError, match="2 views"):
        extract_features(ChannelMeans(), loader, InputSpec())
    loader.close()


def test_a_trunk_of_other_channels_is_refused(loader):
    with pytest.raises(InputError, match=r"spec \(scaled\) gives 3 channel.* takes 1; give"):
        extract_features(build_trunk("resnet50_color", 1), loader, InputSpec())


def test_a_run_of_colorization_ends_with_a_trunk_that_neighbours_can_judge(dataset_path, tmp_path):
    recipe = build_recipe("goyal19_colorization_smoke")
    config = dataclasses.replace(
        recipe,
        output_dir=tmp_path / "run",
        max_steps=2,
        task=dataclasses.replace(recipe.task, resize_short=36, crop=32, hidden=8),
        data=dataclasses.replace(
            recipe.data, path=dataset_path, global_batch_size=4, num_threads=1
        ),
        log=LogConfig(progress=False, tensorboard=False),
    )
    train(config)
    trunk, metadata = load_trunk(tmp_path / "run" / "trunk.safetensors")
    spec = InputSpec.from_metadata(metadata)
    assert spec == InputSpec("lightness", eight_bit=True)
    loader = open_loader(dataset_path, ViewSpec.center(36, 32))
    found = extract_features(trunk, loader, spec)
    first = next(iter(loader.one_pass()))
    loader.close()
    lightness, _ = split_lab(first.images[:, 0], 16, eight_bit=True)
    with torch.no_grad():
        wanted = trunk.eval()(lightness)
    torch.testing.assert_close(found.features[: len(first)], wanted, rtol=1e-4, atol=1e-5)
    result = evaluate_knn(found.features, found.labels, found.sample_ids, k=5)
    assert result.num_train + result.num_test == NUM_SAMPLES
    assert 0 <= result.accuracy <= 1
