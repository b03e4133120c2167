"""Classifiers on the end points of a frozen trunk: their course, their run, their scores."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch

from fastssl.config import LoaderConfig, LogConfig
from fastssl.errors import InputError
from fastssl.evaluation.linear import choose_course, read_scores, train_heads
from fastssl.loaders import build_loader
from fastssl.models import build_trunk
from fastssl.models.foreign import build_foreign
from fastssl.models.input_spec import InputSpec
from fastssl.tasks import build_task
from fastssl.tasks.linear import LinearConfig
from fastssl.training.schedule import build_schedule
from fastssl.views import ViewSpec
from tests.small_runs import read_lines

SMALL = {"epochs": 6.0, "size": 32}
QUIET = LogConfig(every_steps=5, pictures_every_steps=0, progress=False, tensorboard=False)


def make_trunk(name="resnet9", width=1):
    torch.manual_seed(1)
    trunk = build_trunk(name, width)
    # Statistics that tell evaluation mode from training mode.
    for part in trunk.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return trunk


def make_data(dataset_path, **changes):
    data = LoaderConfig(path=dataset_path, global_batch_size=16, num_threads=1, hold_out=12)
    return dataclasses.replace(data, **changes)


def train_small(trunk, dataset_path, folder, course=None, **changes):
    if course is None:
        course = choose_course("linear", "goyal19", trunk, InputSpec(), **SMALL)
    return train_heads(
        trunk,
        course,
        make_data(dataset_path),
        make_data(dataset_path, part="held_out"),
        folder,
        device="cpu",
        log=QUIET,
        **changes,
    )


@pytest.fixture(scope="module")
def trained(dataset_path, tmp_path_factory):
    """Heads that were trained, their trunk, and their scores."""
    folder = tmp_path_factory.mktemp("linear") / "run"
    trunk = make_trunk()
    return folder, trunk, train_small(trunk, dataset_path, folder)


def test_every_end_point_has_scores(trained):
    folder, trunk, scores = trained
    with torch.no_grad():
        points = trunk.eval().forward_features(torch.zeros(1, 3, 32, 32))
    assert list(scores) == list(points)
    lines = read_lines(folder / "metrics.jsonl")
    for name, score in scores.items():
        assert score.num_samples == 12
        assert score.top5 is None  # of three classes
        assert lines[-1][f"test_accuracy_{name}"] == score.top1
        assert f"accuracy_{name}" in lines[0]


def test_the_trunk_does_not_learn_and_keeps_its_statistics(trained):
    folder, trunk, _ = trained
    for name, value in make_trunk().state_dict().items():
        assert torch.equal(value, trunk.state_dict()[name])
    # Nor is it written down once more.
    assert not (folder / "trunk.safetensors").exists()
    newest = max((folder / "checkpoints").glob("0*"))
    state = torch.load(newest / "state.pt", weights_only=True)["task"]
    assert not [name for name in state if name.startswith("trunk.")]


def test_scores_are_those_of_the_heads_by_hand(trained, dataset_path):
    folder, trunk, scores = trained
    course = choose_course("linear", "goyal19", trunk, InputSpec(), **SMALL)
    task = build_task(course.task, make_trunk(), 3)
    newest = max((folder / "checkpoints").glob("0*"))
    task.load_state_dict(torch.load(newest / "state.pt", weights_only=True)["task"])
    task.eval()
    data = make_data(dataset_path, part="held_out", global_batch_size=12)
    with contextlib.closing(build_loader(data, ViewSpec.center(37, 32))) as loader:
        (batch,) = loader.one_pass()
        labels = batch.labels.tolist()
        answers = task.classify(task.make_images(batch.images, torch.float32))
    for point, score in scores.items():
        guesses = answers[point].argmax(1).tolist()
        right = [guess == label for guess, label in zip(guesses, labels, strict=True)]
        assert score.top1 == sum(right) / 12
        for number in range(3):
            of_class = [ok for ok, label in zip(right, labels, strict=True) if label == number]
            assert score.per_class[number] == sum(of_class) / len(of_class)


def test_a_stopped_run_goes_on_and_ends_with_the_same_heads(trained, dataset_path, tmp_path):
    folder, _, scores = trained
    trunk = make_trunk()
    train_small(trunk, dataset_path, tmp_path / "run", max_steps=4)
    again = train_small(trunk, dataset_path, tmp_path / "run")
    assert again == scores
    ends = [max((f / "checkpoints").glob("0*")) for f in (folder, tmp_path / "run")]
    one, other = (torch.load(end / "state.pt", weights_only=True)["task"] for end in ends)
    assert all(torch.equal(one[name], other[name]) for name in one)
    # At its end already: nothing to train, and the scores stand.
    assert train_small(trunk, dataset_path, tmp_path / "run") == scores


def test_another_trunk_in_the_same_directory_is_refused(trained, dataset_path):
    folder, _, _ = trained
    other = make_trunk()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(InputError, match="trunk_from"):
        train_small(other, dataset_path, folder)


def test_an_mlp_on_patches_of_a_trunk_is_trained(dataset_path, tmp_path):
    trunk, spec = make_trunk(), InputSpec("standardized")
    course = choose_course(
        "mlp", "kolesnikov19", trunk, spec, grid=3, epochs=2, size=48, end_points=("pre_logits",)
    )
    course = dataclasses.replace(course, task=dataclasses.replace(course.task, hidden=16))
    scores = train_small(trunk, dataset_path, tmp_path / "run", course)
    assert list(scores) == ["pre_logits"]
    assert read_scores(tmp_path / "run") == scores


def test_a_trunk_of_torchvision_is_classified_by(dataset_path, tmp_path):
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    trunk, spec = build_foreign("torchvision:resnet18")
    kept = {name: value.clone() for name, value in trunk.state_dict().items()}
    course = choose_course(
        "linear", "goyal19", trunk, spec, epochs=1, size=64, end_points=("layer2", "pre_logits")
    )
    scores = train_small(trunk, dataset_path, tmp_path / "run", course)
    assert list(scores) == ["layer2", "pre_logits"]
    assert all(torch.equal(kept[name], value) for name, value in trunk.state_dict().items())


def test_features_of_patches_are_pooled_before_their_mean():
    trunk = make_trunk()
    config = LinearConfig(
        size=96, resize=112, grid=3, flip_probability=0.0, pooling="kolesnikov19", norm="none"
    )
    task = build_task(config, trunk, 3)
    images = torch.randint(256, (2, 1, 96, 96, 3), dtype=torch.uint8)
    points = task.pool_points(task.make_images(images, torch.float32))
    with torch.no_grad():
        rows = []
        for y in (0, 32, 64):
            for x in (0, 32, 64):
                patch = task.make_images(
                    images[:, :, y : y + 32, x : x + 32].repeat(1, 1, 3, 3, 1), torch.float32
                )[:, 0]
                rows.append(trunk.forward_features(patch)["pre_logits"])
    assert torch.allclose(points["pre_logits"], torch.stack(rows).mean(0), atol=1e-5)


def test_each_head_learns_as_if_it_were_alone():
    trunk = make_trunk()
    task = build_task(LinearConfig(size=32, resize=37), trunk, 3)
    inputs = {
        "images": torch.randn(8, 1, 3, 32, 32),
        "labels": torch.tensor([0, 1, 2, 0, 1, 2, -1, 0]),
    }
    losses = task.train()(inputs)
    losses["loss"].backward()
    features = task.pool_points(inputs["images"])
    for name, head in zip(task.end_points, task.heads, strict=True):
        found = [parameter.grad.clone() for parameter in head.parameters()]
        head.zero_grad()
        is_labelled = inputs["labels"] >= 0
        logits = head(features[name])[is_labelled]
        torch.nn.functional.cross_entropy(logits, inputs["labels"][is_labelled]).backward()
        for got, parameter in zip(found, head.parameters(), strict=True):
            assert torch.allclose(got, parameter.grad, atol=1e-5)
    assert all(parameter.grad is None for parameter in task.trunk.parameters())


@pytest.mark.parametrize("hidden", [0, 100])
def test_heads_learn_what_features_tell(hidden):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 3
    images = torch.randn(30, 1, 3, 32, 32, generator=generator)
    images[:, 0, 0] += 3.0 * labels[:, None, None]
    config = LinearConfig(size=32, resize=37, hidden=hidden, end_points=("block2", "pre_logits"))
    task = build_task(config, make_trunk(), 3).train()
    optimizer = torch.optim.SGD(task.heads.parameters(), lr=0.003, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        task({"images": images, "labels": labels})["loss"].backward()
        optimizer.step()
    answers = task.eval().classify(images)
    for name in task.end_points:
        assert (answers[name].argmax(1) == labels).float().mean() > 0.9, name


def test_goyal19_heads_normalise_channels_and_begin_small():
    trunk = build_trunk("resnet50", 1)
    course = choose_course("linear", "goyal19", trunk, InputSpec())
    task = build_task(course.task, trunk, 10)
    res2 = task.heads[task.end_points.index("res2")]
    assert (res2.channels, res2.classify[0].in_features) == (64, 64 * 36)
    assert not res2.norm.affine
    assert res2.classify[0].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not res2.classify[0].bias.any()
    maps = torch.randn(6, 64, 36) * 3 + 1
    expected = torch.nn.functional.batch_norm(maps, None, None, training=True)
    assert torch.allclose(res2.norm(maps), expected, atol=1e-5)


# Goyal et al. 2019's sheet, 4.3: trunk, input -> views, side, rate, Nesterov, decay, affine norm.
GOYAL19 = {
    "alexnet": ("center", 227, False, 5e-4, "plain", 0.001),
    "caffenet": ("squash", 227, False, 5e-4, "plain", 0.001),
    "alexnet_color": ("resize_crop", 227, True, 5e-4, "plain", 0.1),
    "resnet50": ("random_resized_crop", 224, True, 1e-4, "plain", 0.1),
    "resnet50_color": ("resize_crop", 224, True, 1e-4, "affine", 0.1),
}


@pytest.mark.parametrize("name", GOYAL19)
def test_goyal19_has_the_sheets_course(name):
    trunk = build_trunk(name, 1)
    spec = InputSpec("lightness") if trunk.in_channels == 1 else InputSpec()
    course = choose_course("linear", "goyal19", trunk, spec)
    task, optim = course.task, course.optim
    found = (
        task.view,
        task.size,
        optim.nesterov,
        optim.weight_decay,
        task.norm,
        task.norm_momentum,
    )
    assert found == GOYAL19[name]
    assert (task.resize, task.flip_probability, task.pooling) == (256, 0.5, "goyal19")
    assert (optim.lr, optim.momentum, optim.lr_batch_size) == (0.01, 0.9, 256)
    # 140,000 steps of 256 on ImageNet, drops at 40, 80 and 120 thousand: 28 epochs.
    schedule = build_schedule(course.schedule, optim, 1_280_000, 256)
    assert schedule.total_steps == 140_000
    rates = [schedule.lr_at(256 * step) for step in (0, 39_999, 40_000, 80_000, 120_000)]
    assert rates == pytest.approx([0.01, 0.01, 1e-3, 1e-4, 1e-5])


def test_goyal19_on_places_is_half_as_long():
    course = choose_course("linear", "goyal19", build_trunk("resnet50", 1), InputSpec(), epochs=14)
    assert course.schedule.milestones == (4, 8, 12)


def test_the_default_learns_faster_from_fewer_features():
    trunk = build_trunk("resnet50", 1)
    own, study = (choose_course("linear", name, trunk, InputSpec()) for name in ("own", "goyal19"))
    assert (own.task.pooling, own.optim.lr) == ("global", 0.1)
    assert dataclasses.replace(own.task, pooling="goyal19") == study.task
    assert own.schedule == study.schedule


def test_kolesnikov19_has_the_sheets_course():
    trunk, spec = build_trunk("resnet50_v2", 1), InputSpec.named("inception")
    for epochs, milestones in ((70, (30, 50)), (160, (120, 140)), (520, (480, 500))):
        course = choose_course("linear", "kolesnikov19", trunk, spec, epochs=epochs)
        assert course.schedule.milestones == milestones
    assert choose_course("linear", "kolesnikov19", trunk, spec).schedule.epochs == 520
    task, optim = course.task, course.optim
    assert task.train_view == ViewSpec.resize_crop(256, 224, filter="area")
    assert task.test_view == ViewSpec.center(256, 224, filter="area")
    assert (task.flip_probability, task.norm, task.pooling) == (0, "none", "kolesnikov19")
    assert (optim.lr, optim.lr_batch_size, optim.weight_decay) == (0.1, 256, 0)
    patches = choose_course("linear", "kolesnikov19", trunk, spec, grid=3).task
    assert patches.train_view == ViewSpec.resize_crop(224, 192, filter="area")
    mlp = choose_course("mlp", "kolesnikov19", trunk, spec)
    assert (mlp.task.hidden, mlp.optim.lr, mlp.optim.lr_batch_size) == (1000, 0.01, 512)
    assert (mlp.schedule.epochs, mlp.schedule.milestones) == (180, (60, 120))


def test_caffenet_sees_the_centre_of_the_squashed_image():
    task = build_task(LinearConfig(view="squash", size=32, resize=40), make_trunk(), 3)
    assert task.views == (ViewSpec.squash(40),)
    images = torch.randint(256, (1, 1, 40, 40, 3), dtype=torch.uint8)
    whole = build_task(LinearConfig(view="center", size=32, resize=40), make_trunk(), 3)
    middle = images[:, :, 4:36, 4:36]
    assert torch.equal(
        task.make_images(images, torch.float32), whole.make_images(middle, torch.float32)
    )


def test_what_cannot_be_trained_is_refused(tmp_path):
    trunk = make_trunk()
    with pytest.raises(InputError, match=r"has no end point 'res9'; it has stem, .*pre_logits"):
        build_task(LinearConfig(size=32, resize=37, end_points=("res9",)), trunk, 3)
    with pytest.raises(InputError, match=r"needs labels of at least 2 classes, .* has 1"):
        build_task(LinearConfig(size=32, resize=37), trunk, 1)
    with pytest.raises(InputError, match="flip_probability must be 0"):
        LinearConfig(size=96, grid=3)
    with pytest.raises(InputError, match=r"resize \(20\) must be at least"):
        LinearConfig(size=32, resize=20, view="center")
    with pytest.raises(InputError, match=r"goyal19.*has no task mlp"):
        choose_course("mlp", "goyal19", trunk, InputSpec())
    with pytest.raises(InputError, match="start the command again"):
        read_scores(tmp_path)
