"""A run's trunk is probed while it trains, and the run is the one that it would have been."""

from __future__ import annotations

import contextlib
import dataclasses
import random

import numpy as np
import pytest
import torch

from fastssl.config import LoaderConfig, ProbeConfig
from fastssl.errors import InputError
from fastssl.evaluation import (
    effective_rank,
    evaluate_knn,
    extract_features,
    open_probe,
    split_by_group,
)
from fastssl.evaluation.probe import choose_showing
from fastssl.evaluation.protocols import Showing
from fastssl.loaders import build_loader
from fastssl.models import build_trunk, load_trunk
from fastssl.models.input_spec import InputSpec, cut_grid
from fastssl.models.trunks import trunk_names
from fastssl.sampling import HoldOut
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.studies import build_recipe
from fastssl.tasks import build_task
from fastssl.training import train
from fastssl.views import ViewSpec
from fastssl.world import World
from tests.conftest import save_photograph
from tests.small_runs import assert_equal_states, configure, load_state, read_lines

__all__ = ["configure"]

KEYS = {
    "probe_knn_accuracy",
    "probe_knn_accuracy_of_chance",
    "probe_effective_rank",
    "probe_ms",
}
ALONE = World(0, 1, torch.device("cpu"), None)


def make_probe(recipe, dataset_path, world=ALONE, **changes):
    """Return a task and a probe of its trunk."""
    config = build_recipe(recipe)
    data = dataclasses.replace(config.data, global_batch_size=8, num_threads=1)
    probe = ProbeConfig(dataset_path, **changes)
    config = dataclasses.replace(config, data=data, probe=probe)
    trunk = build_trunk(config.trunk, config.width)
    task = build_task(config.task, trunk, 3)
    return task, open_probe(config, world, task)


def test_lines_hold_the_probe_and_the_run_is_not_touched(configure, dataset_path):
    changes = {"nested": {"optim": {"weight_decay": 1e-3}}, "frozen_stages": 1, "max_steps": 6}
    plain = configure("plain", **changes)
    probed = configure("probed", probe=ProbeConfig(dataset_path, every_steps=4, k=3), **changes)
    train(plain)
    generators = random.getstate(), str(np.random.get_state())
    flags = torch.backends.cudnn.benchmark, torch.get_num_threads(), torch.is_grad_enabled()
    train(probed, open_probe=open_probe)
    assert generators == (random.getstate(), str(np.random.get_state()))
    assert flags == (
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )
    assert_equal_states(load_state(plain), load_state(probed))
    trunks = [(config.output_dir / "trunk.safetensors").read_bytes() for config in (plain, probed)]
    assert trunks[0] == trunks[1]
    lines = [read_lines(config.output_dir / "metrics.jsonl") for config in (plain, probed)]
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    assert [line["step"] for line in lines[1]] == [2, 4, 6]
    assert [KEYS & line.keys() for line in lines[1]] == [set(), KEYS, KEYS]

    # The same by hand, from the trunk that was exported.
    trunk, metadata = load_trunk(probed.output_dir / "trunk.safetensors")
    config = LoaderConfig(path=dataset_path, global_batch_size=47, num_threads=1)
    with contextlib.closing(build_loader(config, ViewSpec.center(41, 36))) as loader:
        found = extract_features(trunk, loader, InputSpec.from_metadata(metadata))
    split = split_by_group(found.labels.numpy(), range(47))
    knn = evaluate_knn(found.features, found.labels, [], 3, split=split)
    last = lines[1][-1]
    assert last["probe_knn_accuracy"] == knn.accuracy
    assert last["probe_knn_accuracy_of_chance"] == pytest.approx(3 / 9)
    # Another batch size, other sums.
    assert last["probe_effective_rank"] == pytest.approx(effective_rank(found.features), rel=1e-4)
    assert last["probe_ms"] > 0


def test_generators_and_modes_stay_as_they_are(dataset_path):
    task, probe = make_probe("kolesnikov19_supervised_smoke", dataset_path)
    task.trunk.train()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    kept = {name: value.clone() for name, value in task.state_dict().items()}
    with contextlib.closing(probe):
        probe.measure()
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for module in task.modules())
    assert all(torch.equal(value, task.state_dict()[name]) for name, value in kept.items())


def test_settings_of_the_probe_may_change_between_stops(configure, dataset_path):
    config = configure(max_steps=2)
    train(config)
    probe = ProbeConfig(dataset_path, every_steps=2, max_samples=30)
    train(dataclasses.replace(config, probe=probe, max_steps=4), open_probe=open_probe)
    lines = read_lines(config.output_dir / "metrics.jsonl")
    assert [KEYS <= line.keys() for line in lines if "loss" in line] == [False, True]


def test_ranks_share_the_images(dataset_path):
    parts = []
    for rank, size in ((0, 1), (0, 3), (1, 3), (2, 3)):
        torch.manual_seed(0)
        world = World(rank, size, torch.device("cpu"), None)
        _, probe = make_probe("demo_smoke", dataset_path, world, max_samples=20)
        with contextlib.closing(probe):
            parts.append(probe._extract())
    assert [len(part.labels) for part in parts] == [20, 6, 7, 7]
    assert torch.equal(parts[0].labels, torch.cat([part.labels for part in parts[1:]]))
    joined = torch.cat([part.features for part in parts[1:]])
    assert torch.allclose(parts[0].features, joined, atol=1e-5)  # other batch sizes, other sums


def test_a_probe_ends_without_numbers_when_its_rank_has_to_stop(dataset_path):
    answers = iter([False, True])
    _, probe = make_probe("demo_smoke", dataset_path)
    with contextlib.closing(probe):
        assert probe.measure(lambda: next(answers)) == {}
        assert KEYS == probe.measure().keys()


def test_images_are_drawn_from_the_whole_dataset(dataset_path):
    dataset = open_dataset(dataset_path)
    _, probe = make_probe("demo_smoke", dataset_path, max_samples=20, seed=5)
    with contextlib.closing(probe):
        ids = HoldOut(dataset.digest, 47, 20, 5).ids
        assert ids[-1] > 30
        assert probe._extract().labels.tolist() == dataset.index["label"][ids].tolist()


def test_a_trunk_of_single_patches_looks_at_patches(dataset_path):
    task, probe = make_probe("kolesnikov19_jigsaw_smoke", dataset_path)
    patch = task.config.patch
    view = ViewSpec.center(round(3 * patch * 7 / 6), 3 * patch, filter="area")
    assert choose_showing(task) == Showing(view, 3)
    config = LoaderConfig(path=dataset_path, global_batch_size=1, num_threads=1)
    with contextlib.closing(probe), contextlib.closing(build_loader(config, view)) as loader:
        batch = next(loader.one_pass())
        image = batch.images[0, 0].float()
        rows = []
        for y in range(0, 3 * patch, patch):
            for x in range(0, 3 * patch, patch):
                cut = image[y : y + patch, x : x + patch]
                rows.append((cut - cut.mean()) / cut.std(unbiased=False))
        patches = torch.stack(rows).permute(0, 3, 1, 2)
        with torch.no_grad():
            expected = task.trunk.eval()(patches).mean(0)
        assert torch.allclose(probe._extract().features[0], expected, atol=1e-3, rtol=1e-3)


def test_a_grid_is_cut_row_by_row():
    images = torch.arange(2 * 4 * 4).reshape(2, 4, 4, 1)
    patches = cut_grid(images, 2)
    assert patches.shape == (8, 2, 2, 1)
    assert patches[1].flatten().tolist() == [2, 3, 6, 7]
    assert patches[4].flatten().tolist() == [16, 17, 20, 21]
    assert cut_grid(images, 1) is images


def test_a_trunk_with_towers_is_probed_as_it_is_exported(dataset_path):
    config = build_recipe("goyal19_jigsaw_smoke")
    task = dataclasses.replace(config.task, batch_norm="tower")
    data = dataclasses.replace(config.data, global_batch_size=8, num_threads=1)
    config = dataclasses.replace(config, task=task, data=data, probe=ProbeConfig(dataset_path))
    task = build_task(task, build_trunk(config.trunk, config.width))
    with contextlib.closing(open_probe(config, ALONE, task)) as probe:
        assert probe.measure()["probe_effective_rank"] > 0


@pytest.mark.parametrize("name", trunk_names())
def test_every_trunk_has_a_twin_without_memory_of_its_own(name):
    trunk = build_trunk(name, 1)
    with torch.device("meta"):
        twin = build_trunk(name, 1)
    twin.load_state_dict(trunk.state_dict(), assign=True)
    own = {name: value.data_ptr() for name, value in trunk.state_dict().items()}
    assert {name: value.data_ptr() for name, value in twin.state_dict().items()} == own
    assert not any(value.is_meta for value in [*twin.parameters(), *twin.buffers()])


def test_a_trunk_that_has_diverged_has_no_numbers(dataset_path):
    task, probe = make_probe("demo_smoke", dataset_path)
    with torch.no_grad():
        next(task.trunk.parameters()).fill_(float("nan"))
    with contextlib.closing(probe):
        measured = probe.measure()
    assert measured["probe_knn_accuracy"] is None
    assert measured["probe_effective_rank"] is None


def make_dataset(root, names):
    for number, name in enumerate(names):
        save_photograph(root / "photos" / name, number)
    convert(ConvertConfig(root / "photos", root / "shards", workers=1))
    return root / "shards"


def test_data_that_cannot_be_probed_is_refused(configure, dataset_path, tmp_path):
    bare = make_dataset(tmp_path / "bare", [f"{number}.jpg" for number in range(3)])
    pair = make_dataset(tmp_path / "pair", ["a/0.jpg", "b/1.jpg"])
    for path, message in (
        (bare, r"has labels of 0 classes in 3 images, wanted 2 or more; give a dataset"),
        (pair, r"probe.data_path .*: the split has 2 samples to train on and 0 to test on"),
        (tmp_path / "nowhere", "nowhere"),
    ):
        config = configure(probe=ProbeConfig(path))
        with pytest.raises(InputError, match=message):
            train(config, open_probe=open_probe)
        assert not (config.output_dir / "checkpoints").exists()
    with pytest.raises(InputError, match=r"fewer than the 64 ranks"):
        make_probe("demo_smoke", dataset_path, World(0, 64, torch.device("cpu"), None))


def test_a_probe_that_nobody_opens_is_refused(configure, dataset_path):
    with pytest.raises(InputError, match=r"open_probe=fastssl.evaluation.open_probe"):
        train(configure(probe=ProbeConfig(dataset_path)))


def test_settings_without_data_are_refused(configure):
    with pytest.raises(InputError, match=r"probe.data_path \(none given\) must name"):
        configure(probe=ProbeConfig(every_steps=5))
