"""Trunks: torchvision's network, the paper's network, names, export."""

from __future__ import annotations

import subprocess
import sys

import pytest
import safetensors.torch
import torch

from fastssl.errors import InputError
from fastssl.models import build_trunk, load_trunk, save_trunk, trunk_names


def build(name, width=4, seed=0):
    torch.manual_seed(seed)
    return build_trunk(name, width)


@pytest.fixture
def small_file(tmp_path):
    """A trunk of width 1 and the file that it was exported to."""
    trunk, path = build("resnet9", width=1), tmp_path / "trunk.safetensors"
    save_trunk(trunk, path, {"recipe": "demo"})
    return trunk, path


def test_a_torchvision_state_dict_loads_and_gives_equal_features():
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    torch.manual_seed(1)
    theirs = torchvision.models.resnet50(weights=None)
    for part in theirs.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.running_mean, std=0.1)
    theirs.fc = torch.nn.Identity()
    ours = build("resnet50")
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def test_resnet9_has_the_number_of_parameters_of_the_paper():
    assert sum(p.numel() for p in build("resnet9").parameters()) == 6_699_328


def test_resnet50_has_the_number_of_parameters_of_torchvision_without_fc():
    assert sum(p.numel() for p in build("resnet50").parameters()) == 25_557_032 - 2_049_000


@pytest.mark.parametrize(("name", "side"), [("resnet50", 64), ("resnet9", 32)])
def test_forward_is_the_last_end_point(name, side):
    trunk = build(name, width=1).eval()
    images = torch.randn(2, 3, side, side)
    points = trunk.forward_features(images)
    assert list(points)[-1] == "pre_logits"
    assert torch.equal(trunk(images), points["pre_logits"])
    assert points["pre_logits"].shape == (2, trunk.num_features)


def test_end_points_of_resnet50():
    with torch.no_grad():
        points = build("resnet50").eval().forward_features(torch.randn(1, 3, 224, 224))
    assert {name: tuple(point.shape[1:]) for name, point in points.items()} == {
        "conv1": (64, 112, 112),
        "res2": (256, 56, 56),
        "res3": (512, 28, 28),
        "res4": (1024, 14, 14),
        "res5": (2048, 7, 7),
        "pre_logits": (2048,),
    }


def test_strides_of_the_patch_form():
    """Kolesnikov et al. 2019: a patch of 64 px gives maps of 64, 32, 32, 16, 8 and 8 px."""
    trunk = build("resnet50_patch", width=1).eval()
    kept = []
    trunk.maxpool.register_forward_hook(lambda _m, _i, out: kept.append(out.shape[-1]))
    with torch.no_grad():
        points = trunk.forward_features(torch.randn(1, 3, 64, 64))
    sides = [points[name].shape[-1] for name in ("conv1", "res2", "res3", "res4", "res5")]
    assert (sides, kept) == ([64, 32, 16, 8, 8], [32])
    assert trunk.state_dict().keys() == build("resnet50", width=1).state_dict().keys()


def test_end_points_of_resnet9():
    points = build("resnet9").eval().forward_features(torch.randn(1, 3, 64, 64))
    assert {name: tuple(point.shape[1:]) for name, point in points.items()} == {
        "stem": (64, 64, 64),
        "block1": (128, 32, 32),
        "block2": (256, 16, 16),
        "block3": (512, 8, 8),
        "fc": (256, 8, 8),
        "pre_logits": (256,),
    }


@pytest.mark.parametrize("name", ["resnet9", "resnet50"])
def test_later_layers_do_not_overwrite_end_points(name):
    trunk = build(name, width=1).eval()
    images = torch.randn(1, 3, 64, 64)
    kept = {}
    layers = dict(trunk.named_children())
    watched = {"resnet9": ("block1", "block2"), "resnet50": ("layer1", "layer2")}[name]
    for layer in watched:
        layers[layer].register_forward_hook(
            lambda _m, _i, out, layer=layer: kept.update({layer: out.clone()})
        )
    points = list(trunk.forward_features(images).values())
    assert torch.equal(points[1], kept[watched[0]])
    assert torch.equal(points[2], kept[watched[1]])


@pytest.mark.parametrize("name", ["resnet9", "resnet50"])
def test_doubling_the_width_doubles_every_channel_count(name):
    narrow = dict(build(name, width=1).named_parameters())
    for key, wide in build(name, width=2).named_parameters():
        in_and_out = [
            side if key == "conv1.weight" and axis == 1 else side * 2
            for axis, side in enumerate(narrow[key].shape[:2])
        ]
        assert list(wide.shape[:2]) == in_and_out


def test_convolutions_are_he_normal_by_fan_out():
    weight = build("resnet50").layer4[2].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert abs(weight.mean().item()) < 1e-4


def test_equal_seeds_give_equal_weights():
    first, second = build("resnet9", seed=3).state_dict(), build("resnet9", seed=3).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_trunk_trains_in_channels_last():
    trunk = build("resnet9", width=1).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    trunk(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trunk.parameters())


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(
        InputError, match=r"trunk \('resnet5'\) is not known; did you mean 'resnet50'"
    ):
        build_trunk("resnet5")


@pytest.mark.parametrize("width", [0, -4, 65, 4.0, True])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(InputError, match=r"width \(.*\) must be a whole number in 1 \.\. 64"):
        build_trunk("resnet9", width)


@pytest.mark.parametrize("name", trunk_names())
def test_a_trunk_survives_export_and_import(name, tmp_path):
    trunk = build(name, width=2)
    with torch.no_grad():
        for buffer in trunk.buffers():
            buffer.add_(1)
    save_trunk(trunk, tmp_path / "trunk.safetensors", {"step": "12"})
    loaded, metadata = load_trunk(tmp_path / "trunk.safetensors")
    assert metadata == {"name": name, "width": "2", "step": "12"}
    assert (loaded.name, loaded.width) == (name, 2)
    wanted = trunk.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in loaded.state_dict().items())


def test_export_in_another_process_gives_equal_bytes(tmp_path):
    script = (
        "import sys, torch; from fastssl.models import build_trunk, save_trunk;"
        "torch.manual_seed(0);"
        "save_trunk(build_trunk('resnet9', 1), sys.argv[1], {k: k for k in 'abcdefgh'})"
    )
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        subprocess.run([sys.executable, "-c", script, str(file)], check=True)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_export_is_plain_safetensors_with_the_names_of_the_modules(small_file):
    trunk, path = small_file
    assert safetensors.torch.load_file(path).keys() == trunk.state_dict().keys()


def test_export_leaves_no_draft_behind(small_file):
    assert [file.name for file in small_file[1].parent.iterdir()] == ["trunk.safetensors"]


def test_export_refuses_metadata_that_contradicts_the_trunk(tmp_path):
    with pytest.raises(ValueError, match=r"metadata\['width'\] \(8\) must be the trunk's own, 1"):
        save_trunk(build("resnet9", width=1), tmp_path / "trunk", {"width": "8"})


def test_export_refuses_metadata_that_is_no_text(tmp_path):
    with pytest.raises(ValueError, match=r"metadata\['step'\] must be text, got 12"):
        save_trunk(build("resnet9", width=1), tmp_path / "trunk", {"step": 12})


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"trunk\.safetensors is not a file"):
        load_trunk(tmp_path / "trunk.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(small_file, keep):
    path = small_file[1]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        load_trunk(path)


def test_a_file_that_does_not_name_its_trunk_is_refused(small_file):
    trunk, path = small_file
    safetensors.torch.save_file(trunk.state_dict(), path, {"width": "1"})
    with pytest.raises(InputError, match=r"must hold name and width, got \['width'\]"):
        load_trunk(path)


def test_missing_and_unexpected_weights_are_named(small_file):
    trunk, path = small_file
    state = trunk.state_dict()
    state["head.weight"] = state.pop("fc.weight")
    state["fc.bias"] = torch.zeros(3)
    safetensors.torch.save_file(state, path, {"name": "resnet9", "width": "1"})
    match = (
        r"resnet9 of width 1: missing: fc\.weight; unexpected: head\.weight; "
        r"of another shape: fc\.bias \(3,\) instead of \(64,\)"
    )
    with pytest.raises(InputError, match=match):
        load_trunk(path)
