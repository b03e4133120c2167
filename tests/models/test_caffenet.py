"""CaffeNet: parameters by hand, the study's maps, the order of its layers, how it begins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastssl.models import build_trunk, load_trunk, save_trunk
from fastssl.models.input_spec import InputSpec, make_inputs
from fastssl.tasks import SupervisedConfig


def build_on_meta(width=4):
    with torch.device("meta"):
        return build_trunk("caffenet", width)


@pytest.fixture
def narrow():
    torch.manual_seed(0)
    return build_trunk("caffenet", 1)


@pytest.mark.parametrize("width", [4, 8, 12, 16])
def test_parameters_are_those_counted_by_hand(width):
    sizes = [24 * width, 64 * width, 96 * width, 96 * width, 64 * width]
    seen = [3, 12 * width, 64 * width, 48 * width, 48 * width]
    areas = (121, 25, 9, 9, 9)
    wanted = sum(o * (i * a + 1) for o, i, a in zip(sizes, seen, areas, strict=True))
    full = 1024 * width
    wanted += full * (64 * width * 36 + 1) + full * (full + 1)
    assert sum(p.numel() for p in build_on_meta(width).parameters()) == wanted
    # With the last layer of 1000 classes it is the published network.
    assert (wanted + 1000 * (full + 1) == 60_965_224) == (width == 4)


def test_it_has_no_batch_norm_and_groups_on_three_layers():
    parts = dict(build_on_meta().named_modules())
    assert not [part for part in parts.values() if isinstance(part, nn.BatchNorm2d)]
    assert [parts[f"conv{n}"].groups for n in range(1, 6)] == [1, 2, 1, 2, 2]
    assert (parts["conv1"].stride, parts["conv1"].padding) == ((4, 4), (0, 0))


def test_it_has_the_maps_of_the_study():
    points = build_on_meta().forward_features(torch.empty(2, 3, 227, 227, device="meta"))
    assert {name: tuple(point.shape[1:]) for name, point in points.items()} == {
        "conv1": (96, 55, 55),
        "pool1": (96, 27, 27),
        "conv2": (256, 27, 27),
        "pool2": (256, 13, 13),
        "conv3": (384, 13, 13),
        "conv4": (384, 13, 13),
        "conv5": (256, 13, 13),
        "pool5": (256, 6, 6),
        "fc6": (4096, 1, 1),
        "pre_logits": (4096,),
    }


def test_it_normalises_between_relu_and_pool(narrow):
    """The network written out with torch's own layers."""
    trunk = narrow.eval()
    norm, pool, relu = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75), nn.MaxPool2d(3, 2), nn.ReLU()
    images = 60 * torch.randn(2, 3, 227, 227)
    with torch.no_grad():
        maps = pool(norm(relu(trunk.conv1(images))))
        maps = pool(norm(relu(trunk.conv2(maps))))
        maps = relu(trunk.conv4(relu(trunk.conv3(maps))))
        maps = pool(relu(trunk.conv5(maps)))
        full = [nn.Linear(maps[0].numel(), 1024), nn.Linear(1024, 1024)]
        for layer, ours in zip(full, (trunk.fc6, trunk.fc7), strict=True):
            layer.weight.copy_(ours.weight.flatten(1))
            layer.bias.copy_(ours.bias)
        wanted = relu(full[1](relu(full[0](maps.flatten(1)))))
        # Sums in another order.
        torch.testing.assert_close(trunk(images), wanted, rtol=1e-4, atol=1e-4)


def test_it_begins_as_caffe_does():
    torch.manual_seed(0)
    trunk = build_trunk("caffenet", 2)
    names = [*(f"conv{n}" for n in range(1, 6)), "fc6", "fc7"]
    layers = [trunk.get_submodule(name) for name in names]
    assert [layer.bias.unique().item() for layer in layers] == [0, 1, 0, 1, 1, 1, 1]
    for layer, std in zip(layers, [0.01] * 5 + [0.005] * 2, strict=True):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.02)


def test_its_dropout_ends_with_evaluation_and_with_freezing(narrow):
    images = torch.randn(1, 3, 227, 227)
    assert not torch.equal(narrow(images), narrow(images))
    narrow.freeze(7)
    narrow.train()
    assert torch.equal(narrow(images), narrow(images))


def test_every_weight_learns(narrow):
    narrow(60 * torch.randn(2, 3, 227, 227)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in narrow.parameters())


def test_smaller_images_are_refused(narrow):
    with pytest.raises(ValueError, match=r"at least 227 pixels for CaffeNet, got 226 x 300"):
        narrow(torch.zeros(1, 3, 226, 300))


def test_a_larger_image_is_a_mean_over_the_places_where_it_fits(narrow):
    narrow.eval()
    points = narrow.forward_features(60 * torch.randn(1, 3, 259, 227))
    assert points["fc6"].shape[-2:] == (2, 1)
    wanted = torch.relu(narrow.fc7(points["fc6"])).mean((2, 3))
    assert torch.equal(points["pre_logits"], wanted)


def test_export_keeps_it(narrow, tmp_path):
    trunk, images = narrow.eval(), torch.randn(1, 3, 227, 227)
    save_trunk(trunk, tmp_path / "trunk.safetensors", {})
    loaded = load_trunk(tmp_path / "trunk.safetensors")[0].eval()
    assert torch.equal(loaded(images), trunk(images))


def test_its_images_are_bytes_less_the_means():
    config = SupervisedConfig.caffenet()
    (view,) = config.list_views(1)
    assert (view.kind, view.resize, view.size) == ("squash_crop", 256, 227)
    images = torch.full((1, 4, 4, 3), 200, dtype=torch.uint8)
    found = make_inputs(images, InputSpec.named(config.normalize))[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([77.0, 83.0, 96.0]), rtol=0, atol=1e-4)
