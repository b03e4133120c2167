from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastssl.config import LoaderConfig
from fastssl.errors import InputError
from fastssl.evaluation import extract_features
from fastssl.loaders import build_loader
from fastssl.shards.convert import ConvertConfig, convert
from fastssl.views import ViewSpec

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
    result = extract_features(trunk, loader, mean=MEAN, std=STD)
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
    exact = extract_features(trunk, loader).features
    rough = extract_features(trunk, loader, precision="bf16").features
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    # bfloat16 keeps eight bits.
    torch.testing.assert_close(exact, rough, atol=0.03, rtol=0.03)


def test_several_views_are_refused(dataset):
    loader = open_loader(dataset, ViewSpec.random_resized_crop(32, count=2))
    with pytest.raises(InputError, match="2 views"):
        extract_features(ChannelMeans(), loader)
    loader.close()
