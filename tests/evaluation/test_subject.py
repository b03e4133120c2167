"""The trunk to evaluate: ours, another library's, somebody's weights; what fits none is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from fastssl.errors import InputError
from fastssl.evaluation import subject as subjects
from fastssl.evaluation.extract import find_end_points
from fastssl.evaluation.subject import open_subject
from fastssl.models import build_trunk, digest_trunk, save_trunk
from fastssl.models.base import check_end_points
from fastssl.models.foreign import outline_foreign
from fastssl.models.input_spec import INPUT_KEY, InputSpec

PICTURES = torch.rand(2, 3, 64, 64)


def outputs(trunk, x=PICTURES):
    with torch.inference_mode():
        return trunk.eval()(x)


def test_an_exported_trunk_says_all_by_itself(tmp_path: Path) -> None:
    trunk, spec = build_trunk("resnet9", 1), InputSpec.named("inception")
    metadata = {"recipe": "goyal19_jigsaw_smoke", "step": "7", INPUT_KEY: spec.to_text()}
    metadata["max_samples"] = "50"
    save_trunk(trunk, tmp_path / "trunk.safetensors", metadata)
    subject = open_subject(tmp_path / "trunk.safetensors")
    assert (subject.recipe, subject.step, subject.spec) == ("goyal19_jigsaw_smoke", 7, spec)
    assert subject.max_samples == 50
    assert subject.digest == digest_trunk(trunk)
    assert torch.equal(outputs(subject.trunk), outputs(trunk))
    assert open_subject(tmp_path / "trunk.safetensors", scale="caffe").spec.std[0] == 1 / 255


def test_an_exported_trunk_that_does_not_say_its_input_is_refused(tmp_path: Path) -> None:
    save_trunk(build_trunk("resnet9", 1), tmp_path / "trunk.safetensors", {})
    with pytest.raises(InputError, match="--scale"):
        open_subject(tmp_path / "trunk.safetensors")
    assert open_subject(tmp_path / "trunk.safetensors", scale="imagenet").spec == InputSpec()


@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder_q."])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_are_found_under_what_wrapped_them(
    tmp_path: Path, prefix: str, suffix: str
) -> None:
    trunk = build_trunk("resnet9", 1)
    state = {prefix + key: value.clone() for key, value in trunk.state_dict().items()}
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        state[f"{prefix}head.weight"] = torch.zeros(10, 64)
        torch.save({"epoch": 3, "model": state, "optimizer": {"lr": 0.1}}, path)
    else:
        safetensors.torch.save_file(state, path)
    subject = open_subject(path, "resnet9", 1)
    assert torch.equal(outputs(subject.trunk), outputs(trunk))
    assert subject.recipe == "resnet9"


def test_weights_of_torchvision_give_torchvisions_features(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    network = models.resnet18(weights=None)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    subject = open_subject(tmp_path / "resnet18.pth", "torchvision:resnet18")
    found = outputs(subject.trunk)
    network.fc = torch.nn.Identity()
    assert torch.equal(found, outputs(network))
    shapes = find_end_points(subject.trunk, 64)
    assert shapes["layer4"] == (512, 2, 2)
    assert shapes["pre_logits"] == (512,)


def test_weights_of_timm_give_timms_features(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    subject = open_subject(tmp_path / "vit.pth", "timm:vit_tiny_patch16_224")
    pictures = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        expected = network.eval().forward_head(network.forward_features(pictures), pre_logits=True)
    assert torch.equal(outputs(subject.trunk, pictures), expected)
    assert subject.spec.mean == (0.5, 0.5, 0.5)


def test_weights_that_fit_no_trunk_are_named_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(build_trunk("resnet9").state_dict(), path)
    with pytest.raises(InputError, match=r"does not fit trunk 'resnet50'.*conv1.*--trunk resnet9,"):
        open_subject(path, "resnet50")
    with pytest.raises(InputError, match="does not say what network"):
        open_subject(path)
    with pytest.raises(InputError, match="known"):
        open_subject(path, "resnet99")


def test_a_trunk_of_which_half_is_there_is_not_named(tmp_path: Path) -> None:
    half = list(build_trunk("resnet9").state_dict().items())[::2]
    torch.save(dict(half), tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"fit trunk 'resnet50'.*no trunk of fastssl fits"):
        open_subject(tmp_path / "weights.pth", "resnet50")


def test_a_network_that_torchvision_lacks_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torchvision.models")
    torch.save(build_trunk("resnet9").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match="torchvision has no network"):
        open_subject(tmp_path / "weights.pth", "torchvision:resnet99")


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\3\4"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"weights"):
        open_subject(tmp_path / name, "resnet9", 1)


def test_a_pickle_that_executes_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"weight": Bomb()}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="cannot be read as weights"):
        open_subject(tmp_path / "weights.pth", "resnet9")
    assert not (tmp_path / "executed").exists()


def test_a_run_that_went_on_since_it_exported_its_trunk_is_told_of(tmp_path: Path, caplog) -> None:
    metadata = {"recipe": "demo", "step": "60", INPUT_KEY: InputSpec().to_text()}
    save_trunk(build_trunk("resnet9", 1), tmp_path / "trunk.safetensors", metadata)
    (tmp_path / "config.json").touch()
    for step, is_told in ((60, False), (400, True)):
        (tmp_path / "checkpoints" / f"{step:09}").mkdir(parents=True)
        caplog.clear()
        assert open_subject(tmp_path).step == 60
        said = "is that of step 60, and the run is at step 400 or later"
        assert (said in caplog.text) == is_told


def test_places_without_a_trunk_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder without trunk.safetensors"):
        open_subject(tmp_path)
    with pytest.raises(InputError, match="is not there"):
        open_subject(tmp_path / "absent")


def test_an_end_point_that_is_not_there_lists_those_that_are() -> None:
    trunk = build_trunk("resnet9", 1)
    with pytest.raises(InputError, match=r"no end point 'res5'; it has stem, block1"):
        check_end_points(trunk, ("res5",), find_end_points(trunk, 32))
    with pytest.raises(InputError, match="does not take pictures of 8 pixels"):
        find_end_points(build_trunk("alexnet", 1), 8)


def test_weights_that_do_not_fit_cost_no_memory_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision.models")
    torch.save({"x.weight": torch.zeros(3)}, tmp_path / "weights.pt")
    outline = outline_foreign("torchvision:vit_h_14")
    assert {tensor.device.type for tensor in outline.network.state_dict().values()} == {"meta"}
    assert outline_foreign("torchvision:regnet_x_400mf") is None  # it looks at its numbers
    monkeypatch.setattr(subjects, "build_foreign", lambda _: pytest.fail("it was built"))
    with pytest.raises(InputError, match="does not fit trunk 'torchvision:vit_h_14'"):
        open_subject(tmp_path / "weights.pt", "torchvision:vit_h_14")
