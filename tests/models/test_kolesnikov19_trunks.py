"""The trunks of Kolesnikov et al. 2019: counts, maps, and networks written down a second time."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from fastssl.errors import InputError
from fastssl.models import build_trunk, load_trunk, save_trunk
from fastssl.models.layers import pool_root
from fastssl.models.memory import estimate_training_memory

WIDTHS = (4, 8, 12, 16)
PARAMETERS = {
    "revnet50": (5_408_640, 21_505_792, 48_291_456, 85_765_632),
    "resnet50_v1": (23_508_032, 93_907_072, 211_197_120, 375_378_176),
    "resnet50_v2": (23_500_352, 93_891_712, 211_174_080, 375_347_456),
    "vgg19_bn": (34_903_264, 139_583_936, 314_042_016, 558_277_504),
}
FAMILIES = ("resnet50_v1", "resnet50_v2", "revnet50", "vgg19_bn")


def build(name, width=1):
    torch.manual_seed(0)
    return build_trunk(name, width)


def count_parameters(name, width):
    with torch.device("meta"):
        return sum(p.numel() for p in build_trunk(name, width).parameters())


def measure_points(name, width, side):
    with torch.device("meta"):
        points = build_trunk(name, width).forward_features(torch.empty(2, 3, side, side))
    return {point: tuple(value.shape[1:]) for point, value in points.items()}


def stir(trunk):
    """Give batch norms scales, shifts and statistics that show."""
    generator = torch.Generator().manual_seed(3)
    for part in trunk.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight.data, part.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (part.bias.data, part.running_mean):
                tensor.normal_(0, 0.3, generator=generator)
    return trunk.double().eval()


# ---------------------------------------------------------------------- counts and maps


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("place", range(len(WIDTHS)))
def test_parameters_are_those_of_the_table(name, place):
    assert count_parameters(name, WIDTHS[place]) == PARAMETERS[name][place]


@pytest.mark.parametrize(
    ("variant", "original"),
    [
        ("resnet50_v1_patch", "resnet50_v1"),
        ("resnet50_v2_minus", "resnet50_v2"),
        ("resnet50_v2_minus_patch", "resnet50_v2"),
        ("resnet50_v2_patch", "resnet50_v2"),
        ("revnet50_minus", "revnet50"),
        ("revnet50_minus_patch", "revnet50"),
        ("revnet50_patch", "revnet50"),
    ],
)
def test_forms_share_their_weights(variant, original):
    build(variant).load_state_dict(build(original).state_dict())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", FAMILIES)
def test_pre_logits_have_512_features_for_each_width(name, width):
    assert measure_points(name, width, 224)["pre_logits"] == (512 * width,)


@pytest.mark.parametrize("name", ["resnet50_v1", "resnet50_v2", "revnet50"])
def test_end_points_of_residual_trunks(name):
    root = 256 if name == "revnet50" else 64
    assert measure_points(name, 4, 224) == {
        "after_root": (root, 56, 56),
        "block1": (256, 56, 56),
        "block2": (512, 28, 28),
        "block3": (1024, 14, 14),
        "block4": (2048, 7, 7),
        "pre_logits": (2048,),
    }


@pytest.mark.parametrize("name", ["resnet50_v1_patch", "resnet50_v2_patch", "revnet50_patch"])
def test_a_patch_keeps_its_places(name):
    points = measure_points(name, 4, 64)
    sides = [points[point][-1] for point in ("after_root", "block1", "block2", "block3", "block4")]
    assert sides == [32, 32, 16, 8, 8]
    assert points["block4"][0] == 2048


@pytest.mark.parametrize(("name", "side"), [("vgg19_bn", 224), ("vgg19_bn_patch", 64)])
def test_end_points_of_vgg(name, side):
    assert measure_points(name, 8, side) == {
        "block1": (64, side, side),
        "block2": (128, side // 2, side // 2),
        "block3": (256, side // 4, side // 4),
        "block4": (512, side // 8, side // 8),
        "block5": (512, side // 16, side // 16),
        "fc6": (4096, 1, 1),
        "pre_logits": (4096,),
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_forward_is_the_last_end_point(name):
    name = "vgg19_bn_patch" if name == "vgg19_bn" else name
    trunk, images = build(name).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        points = trunk.forward_features(images)
        assert torch.equal(trunk(images), points["pre_logits"])
    assert points["pre_logits"].shape == (2, trunk.num_features)


# ---------------------------------------------------------------------- the networks, once more


def norm(state, key, x):
    values = [state[f"{key}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
    return functional.batch_norm(x, *values, eps=1e-3)


def branch(state, key, x, stride):
    for number, (padding, step) in enumerate(((0, 1), (1, stride), (0, 1)), 1):
        x = norm(state, f"{key}.bn{number}", x).relu()
        x = functional.conv2d(x, state[f"{key}.conv{number}.weight"], None, step, padding)
    return x


def run_root(state, x, stride):
    x = functional.conv2d(x, state["conv1.weight"], None, stride, 3)
    return functional.max_pool2d(functional.pad(x, (1, 1, 1, 1), value=0.0), 3, 2)


def run_resnet_v2(state, x, strides, last_relu):
    x = run_root(state, x, strides[0])
    for stage, (num_units, stride) in enumerate(zip((3, 4, 6, 3), (1, *strides[1:]), strict=True)):
        for unit in range(num_units):
            key = f"layer{stage + 1}.{unit}"
            if unit == 0:
                active = norm(state, f"{key}.bn1", x).relu()
                shortcut = functional.conv2d(active, state[f"{key}.project.weight"], None, stride)
                x = shortcut + branch(state, key, x, stride)
            else:
                x = x + branch(state, key, x, 1)
    x = norm(state, "bn", x)
    return (x.relu() if last_relu else x).mean((2, 3))


def run_revnet(state, x, strides, last_relu):
    x = run_root(state, x, strides[0])
    for stage, (num_units, stride) in enumerate(
        zip((3, 4, 6, 3), (None, *strides[1:]), strict=True)
    ):
        if stride is not None:
            quarter = x.shape[1] // 2
            x = functional.avg_pool2d(x, 2) if stride == 2 else x
            x = functional.pad(x, (0, 0, 0, 0, quarter, quarter))
        for unit in range(num_units):
            x1, x2 = x.chunk(2, 1)
            y1, y2 = x1 + branch(state, f"layer{stage + 1}.{unit}", x2, 1), x2
            x = torch.cat([y2, y1], 1)
    x = norm(state, "bn", x)
    return (x.relu() if last_relu else x).mean((2, 3))


@pytest.mark.parametrize("form", ["", "_minus", "_patch", "_minus_patch"])
@pytest.mark.parametrize(
    ("family", "run"), [("resnet50_v2", run_resnet_v2), ("revnet50", run_revnet)]
)
def test_the_network_is_the_one_of_the_paper(family, run, form):
    trunk = stir(build(family + form))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    strides = (1, 2, 2, 1) if "patch" in form else (2, 2, 2, 2)
    with torch.no_grad():
        wanted = run(trunk.state_dict(), images, strides, "minus" not in form)
        torch.testing.assert_close(trunk(images), wanted, rtol=1e-10, atol=1e-10)
    assert (wanted < 0).any() == ("minus" in form)


def test_v1_is_torchvisions_network_with_another_epsilon():
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    theirs = torchvision.models.resnet50(weights=None)
    theirs.fc = nn.Identity()
    theirs = stir(theirs)
    ours = build("resnet50_v1", 4).double().eval()
    ours.load_state_dict(theirs.state_dict())
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 1e-3
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-10, atol=1e-10)


def test_vgg_has_the_convolutions_of_torchvision():
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    with torch.device("meta"):
        theirs = torchvision.models.vgg19_bn(weights=None).features
        ours = build_trunk("vgg19_bn", 8)
    kernels = [[p.shape for p in part.parameters() if p.dim() == 4] for part in (ours, theirs)]
    assert kernels[0][:16] == kernels[1]
    assert kernels[0][16:] == [(4096, 512, 7, 7), (4096, 4096, 1, 1)]


def test_pools_of_vgg_halve_what_the_end_points_are():
    trunk, images = stir(build("vgg19_bn_patch")), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    points = trunk.forward_features(images)
    x = functional.max_pool2d(points["block5"], 2)
    fc6 = functional.conv2d(x, trunk.fc6[0].weight)
    torch.testing.assert_close(norm(trunk.state_dict(), "fc6.1", fc6).relu(), points["fc6"])
    x = functional.max_pool2d(points["block2"], 2)
    torch.testing.assert_close(trunk.group3(x), points["block3"])


def test_the_root_pool_has_a_border_of_zeros():
    x = -1 - torch.rand(1, 2, 6, 5)
    pooled = pool_root(x)
    assert pooled.shape == (1, 2, 3, 3)
    assert (pooled[..., 0, :] == 0).all()
    assert (pooled[..., 0] == 0).all()
    assert torch.equal(pooled[..., 1, 1], x[..., 1:4, 1:4].amax((-2, -1)))


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_and_norms_begin_as_in_the_paper(name):
    trunk = build(name, 2)
    for part in trunk.modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() > 10_000:
            area = part.weight[0, 0].numel()
            bound = (6 / (area * (part.in_channels + part.out_channels))) ** 0.5
            assert part.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
            assert part.bias is None
        elif isinstance(part, nn.BatchNorm2d):
            assert (part.eps, part.momentum) == (1e-3, 0.01)


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize("name", ["resnet50_v1", "resnet50_v2"])
def test_without_skip_connections_a_silent_branch_ends_all(name):
    images = torch.randn(2, 3, 64, 64)
    for form, is_silent in (("", False), ("_noskip", True)):
        trunk = build(name + form).eval()
        nn.init.zeros_(trunk.layer2[1].conv3.weight)
        block = trunk.forward_features(images)["block3"]
        assert (block.std((0, 2, 3)).max() < 1e-6) == is_silent
    names = [key for key, _ in trunk.named_parameters()]
    assert not any("downsample" in key or "project" in key for key in names)


@pytest.mark.parametrize("name", ["revnet50", "resnet9"])
def test_the_representation_has_the_size_that_the_name_says(name, tmp_path):
    trunk, images = build(f"{name}_linear48", 1).eval(), torch.randn(2, 3, 32, 32)
    points = trunk.forward_features(images)
    pooled = build(name, 1).num_features
    assert (points["pooled"].shape, points["pre_logits"].shape) == ((2, pooled), (2, 48))
    assert trunk.num_features == 48
    wanted = points["pooled"] @ trunk.linear.weight.T + trunk.linear.bias
    torch.testing.assert_close(points["pre_logits"], wanted)
    assert list(points)[-1] == "pre_logits"
    save_trunk(trunk, tmp_path / "trunk.safetensors", {})
    loaded, metadata = load_trunk(tmp_path / "trunk.safetensors")
    assert metadata["name"] == f"{name}_linear48"
    assert torch.equal(loaded.eval()(images), trunk(images))


def test_a_larger_image_is_an_average_over_the_places_of_vgg():
    trunk = build("vgg19_bn_patch").eval()
    points = trunk.forward_features(torch.randn(1, 3, 96, 70))
    assert points["fc6"].shape[-2:] == (2, 1)
    torch.testing.assert_close(points["pre_logits"], trunk.fc7(points["fc6"]).mean((2, 3)))


@pytest.mark.slow
def test_vgg_compiles_without_a_break():
    trunk, images = build("vgg19_bn_patch"), torch.randn(2, 3, 64, 64)
    compiled = torch.compile(copy.deepcopy(trunk), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), trunk(images))


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize("side", [(63, 64), (64, 40)])
def test_images_too_small_for_vgg_are_refused(side):
    with pytest.raises(ValueError, match=f"at least 64 pixels .* got {side[0]} x {side[1]}"):
        build("vgg19_bn_patch")(torch.randn(1, 3, *side))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("revnet50_noskip", "cannot be: a reversible unit is its skip connection"),
        ("revnet50_noskip_linear8", "cannot be: a reversible unit is its skip connection"),
        ("resnet50_minus", "cannot be: the units of v1 end with a ReLU; take resnet50_v2_minus"),
        ("revnet51", "is not known; did you mean 'revnet50'.* known: alexnet, .*, vgg19_bn_patch$"),
        ("revnet51_linear8", "is not known; did you mean 'revnet50'"),
        ("revnet50_linear", r"whole number in 1 \.\. 65536, .* got ''; say revnet50_linear2048"),
        ("revnet50_linear08", r"whole number in 1 \.\. 65536, .* got '08'"),
        ("revnet50_linear0", r"whole number in 1 \.\. 65536, .* got '0'"),
        ("revnet50_linear65537", r"whole number in 1 \.\. 65536, .* got '65537'"),
        ("revnet50_linear8_linear8", r"whole number in 1 \.\. 65536, .* got '8_linear8'"),
    ],
)
def test_names_that_are_no_trunk_are_refused(name, match):
    with pytest.raises(InputError, match=match):
        build_trunk(name, 1)


def test_the_standard_width_of_vgg_is_named():
    with pytest.raises(InputError, match="8 is the standard vgg19_bn"):
        build_trunk("vgg19_bn", 0)


# ---------------------------------------------------------------------- memory before the start


def test_estimate_of_memory_grows_with_the_batch_alone():
    small, large = (estimate_training_memory("resnet50_v2", 4, size, 224) for size in (2, 6))
    parameters = PARAMETERS["resnet50_v2"][0]
    assert small.gradients == small.optimizer == 4 * parameters
    assert 4 * parameters < small.weights == large.weights < 4.1 * parameters
    assert large.activations == pytest.approx(3 * small.activations, rel=0.001)
    assert large.total == large.activations + small.total - small.activations


def test_adam_takes_two_tensors_for_each_parameter():
    sgd, adam = (estimate_training_memory("resnet9", 1, 1, 32, momentums=n) for n in (1, 2))
    assert adam.optimizer == 2 * sgd.optimizer


@pytest.mark.parametrize(("form", "side"), [("", 224), ("_patch", 64)])
def test_a_revnet_keeps_a_fraction_of_what_a_resnet_keeps(form, side):
    reversible, plain = (
        estimate_training_memory(f"{name}{form}", 4, 8, side).activations
        for name in ("revnet50", "resnet50_v2")
    )
    assert reversible < 0.15 * plain
