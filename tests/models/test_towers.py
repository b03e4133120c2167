"""Batch norm by tower: statistics apart, weights shared, the first one exported."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastssl.models import build_trunk, load_trunk, save_trunk, split_batch_norms
from fastssl.models.towers import TowerNorm


def build(name="resnet9", num_towers=3):
    torch.manual_seed(0)
    trunk = build_trunk(name, 1)
    split_batch_norms(trunk, num_towers)
    return trunk


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_each_tower_is_a_batch_norm_of_its_own(memory_format):
    torch.manual_seed(0)
    alone = [nn.BatchNorm2d(4) for _ in range(3)]
    norm = TowerNorm(nn.BatchNorm2d(4), 3)
    scale = torch.tensor([1.0, 5.0, 0.2])[:, None, None, None]
    x = (torch.randn(6, 3, 4, 5, 5) * scale).flatten(0, 1).to(memory_format=memory_format)
    y = norm(x)
    for tower, single in enumerate(alone):
        torch.testing.assert_close(y[tower::3], single(x[tower::3]))
    wanted = torch.cat([single.running_var for single in alone])
    torch.testing.assert_close(norm.norm.running_var, wanted)


def test_convolutions_are_shared():
    whole = build_trunk("resnet9", 1)
    names = {key for key, _ in whole.named_parameters() if "bn" not in key}
    split = dict(build().named_parameters())
    assert all(split[key].shape == dict(whole.named_parameters())[key].shape for key in names)


@pytest.mark.parametrize("name", ["resnet9", "resnet50", "alexnet"])
def test_the_first_tower_is_exported(name, tmp_path):
    trunk = build(name)
    with torch.no_grad():
        for part in trunk.modules():
            if isinstance(part, TowerNorm):
                nn.init.uniform_(part.norm.weight, 0.5, 1.5)
                nn.init.normal_(part.norm.running_mean, std=0.1)
    save_trunk(trunk, tmp_path / "trunk.safetensors", {})
    loaded, metadata = load_trunk(tmp_path / "trunk.safetensors")
    assert metadata["batch_norm"] == "tower 1 of 3"
    images = torch.randn(6, 3, 64, 64)
    with torch.no_grad():
        first, theirs = loaded.eval()(images[::3]), trunk.eval()(images)[::3]
    # Wider batches are summed in other blocks.
    torch.testing.assert_close(first, theirs, rtol=1e-4, atol=1e-4)


def test_a_batch_that_is_not_whole_images_is_refused():
    with pytest.raises(ValueError, match="takes 3 patches of every image, got 4 rows"):
        build()(torch.randn(4, 3, 32, 32))


def test_towers_without_scale_and_shift_are_exported(tmp_path):
    trunk = build("alexnet_color")
    save_trunk(trunk, tmp_path / "trunk.safetensors", {})
    loaded, _ = load_trunk(tmp_path / "trunk.safetensors")
    assert torch.equal(loaded.conv1.weight, trunk.conv1.weight)
    assert not any("bn" in key for key, _ in trunk.named_parameters())
