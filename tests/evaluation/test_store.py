"""The feature store: filled in pieces by several ranks, never mixed, refused when damaged."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastssl.config import LoaderConfig
from fastssl.errors import InputError
from fastssl.evaluation import open_features
from fastssl.evaluation.extract import Pass, run_trunk
from fastssl.evaluation.store import FeatureKey, FeatureStore, _Filler, fill_store
from fastssl.loaders import build_loader
from fastssl.models import build_trunk
from fastssl.views import ViewSpec
from fastssl.world import World

ALONE = World(0, 1, torch.device("cpu"), None)
POINTS = ("block1", "pre_logits")
KEY = FeatureKey("t" * 64, "d" * 64, "view", "input", "", "global", "fp32", "float32", "all")
KEYS = {name: dataclasses.replace(KEY, end_point=name) for name in POINTS}
SETTING = Pass(end_points=POINTS)


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(0)
    return build_trunk("resnet9", 1)


@pytest.fixture
def open_loader(dataset_path):
    opened = []

    def build(path=dataset_path):
        config = LoaderConfig(path=path, loader="webdataset", global_batch_size=5, num_threads=1)
        opened.append(build_loader(config, ViewSpec.center(36, 32)))
        return opened[-1]

    yield build
    for loader in opened:
        loader.close()


def test_features_are_those_of_a_pass_in_memory(tmp_path: Path, open_loader, trunk) -> None:
    loader = open_loader()
    told: list[int] = []
    stored = fill_store(
        FeatureStore(tmp_path), KEYS, trunk, loader, SETTING, "cpu", ALONE,
        lambda done, _total: told.append(done),
    )  # fmt: skip
    assert sum(told) == loader.num_samples == 47
    expected = list(run_trunk(trunk, loader.one_pass(), SETTING))
    for name in POINTS:
        whole = torch.cat([batch.features[name] for batch in expected]).numpy()
        np.testing.assert_array_equal(stored[name].features, whole)
        again = open_features(tmp_path / KEYS[name].folder_name)
        np.testing.assert_array_equal(again.features, whole)
        np.testing.assert_array_equal(again.labels, loader.dataset.index["label"])
        np.testing.assert_array_equal(again.sample_ids, np.arange(47))
        assert again.key == KEYS[name]


class Stop(Exception):
    """Ends a pass in the middle, as a kill does."""


class StopsAfter:
    """A trunk that ends the process after some pictures, in evaluation mode as any other."""

    def __init__(self, trunk, num: int) -> None:
        self.trunk, self.left, self.seen = trunk, num, 0

    def __getattr__(self, name):
        return getattr(self.trunk, name)

    def forward_features(self, x):
        if self.seen + len(x) > self.left:
            raise Stop
        self.seen += len(x)
        return self.trunk.forward_features(x)


def test_a_killed_filling_goes_on_behind_its_last_shard(tmp_path: Path, open_loader, trunk) -> None:
    loader, store = open_loader(), FeatureStore(tmp_path)
    expected = fill_store(store, KEYS, trunk, loader, SETTING, "cpu", ALONE)
    expected = {name: np.array(stored.features) for name, stored in expected.items()}
    store = FeatureStore(tmp_path / "killed")
    stopped = StopsAfter(trunk, 25)  # Shards have 9, 9, 9, 9, 9 and 2 samples, or nearly so.
    with pytest.raises(Stop):
        fill_store(store, KEYS, stopped, loader, SETTING, "cpu", ALONE)
    with pytest.raises(InputError, match="is not finished"):
        open_features(store.root / KEYS["block1"].folder_name)
    rest = StopsAfter(trunk, 47)
    again = fill_store(store, KEYS, rest, open_loader(), SETTING, "cpu", ALONE)
    border = loader.dataset.manifest.shards[0].samples + loader.dataset.manifest.shards[1].samples
    assert rest.seen == 47 - border
    for name in POINTS:
        # Batches have other borders, which changes the last bits.
        np.testing.assert_allclose(again[name].features, expected[name], rtol=1e-4, atol=1e-5)
    more = {**KEYS, "block2": dataclasses.replace(KEY, end_point="block2")}
    setting = Pass(end_points=(*POINTS, "block2"))
    with pytest.raises(Stop):  # an end point more: a pass of its own, the others stay
        fill_store(store, more, StopsAfter(trunk, 0), loader, setting, "cpu", ALONE)
    fill_store(store, KEYS, StopsAfter(trunk, 0), loader, SETTING, "cpu", ALONE)


def test_ranks_fill_one_array(tmp_path: Path, open_loader, trunk) -> None:
    loader = open_loader()
    alone = fill_store(FeatureStore(tmp_path / "a"), KEYS, trunk, loader, SETTING, "cpu", ALONE)
    folders = {name: tmp_path / "b" / key.folder_name for name, key in KEYS.items()}
    for folder in folders.values():
        (folder / "filled").mkdir(parents=True)

    class Rank(World):
        """One of three that take their turns here, in a process of one."""

        def together(self, function):
            return function()

        def on_zero(self, function):
            return function() if function.__name__ != "_publish" or self.rank == 2 else None

        def gather(self, value):
            return [value]

    # Each finds only what no other has; a rank of three takes its third of what is left.
    pending = _Filler(folders, KEYS, loader, ALONE)._find_pending()
    for rank in range(3):
        filler = _Filler(folders, KEYS, loader, Rank(rank, 3, torch.device("cpu"), None))
        filler._find_pending = lambda: pending  # as rank 0 told them all
        filler.fill(trunk, SETTING, "cpu", lambda _done, _total: None)
    for name in POINTS:
        found = open_features(folders[name])
        np.testing.assert_allclose(found.features, alone[name].features, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found.labels, alone[name].labels)


def test_a_bad_sample_is_named_by_the_one_that_took_its_place(
    tmp_path: Path, open_loader, trunk, dataset_path: Path
) -> None:
    shutil.copytree(dataset_path, tmp_path / "copy")
    loader = open_loader(tmp_path / "copy")
    row = loader.dataset.index[4]
    shard = tmp_path / "copy" / loader.dataset.manifest.shards[0].name
    with shard.open("r+b") as file:
        file.seek(int(row["offset"]) + 20)
        file.write(b"damaged")
    loader.close()
    stored = fill_store(
        FeatureStore(tmp_path / "f"), KEYS, trunk, open_loader(tmp_path / "copy"), SETTING, "cpu",
        ALONE,
    )["pre_logits"]  # fmt: skip
    used = int(stored.sample_ids[4])
    assert used != 4
    assert stored.labels[4] == stored.labels[used]
    np.testing.assert_allclose(stored.features[4], stored.features[used], rtol=1e-4, atol=1e-5)


def test_half_precision_halves_the_file(tmp_path: Path, open_loader, trunk) -> None:
    keys = {"block1": dataclasses.replace(KEYS["block1"], storage="float16")}
    setting = Pass(end_points=("block1",))
    stored = fill_store(FeatureStore(tmp_path), keys, trunk, open_loader(), setting, "cpu", ALONE)
    whole = fill_store(FeatureStore(tmp_path), KEYS, trunk, open_loader(), SETTING, "cpu", ALONE)
    assert stored["block1"].features.dtype == np.float16
    np.testing.assert_array_equal(
        stored["block1"].features, whole["block1"].features.astype(np.float16)
    )


def test_a_feature_that_is_not_finite_is_refused(tmp_path: Path, open_loader) -> None:
    diverged = build_trunk("resnet9", 1)
    with torch.no_grad():
        next(diverged.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match=r"end point 'block1' of sample 0 is not finite"):
        fill_store(FeatureStore(tmp_path), KEYS, diverged, open_loader(), SETTING, "cpu", ALONE)


def test_features_of_something_else_are_refused(tmp_path: Path, open_loader, trunk) -> None:
    store = FeatureStore(tmp_path)
    fill_store(store, KEYS, trunk, open_loader(), SETTING, "cpu", ALONE)
    folder = tmp_path / KEYS["block1"].folder_name
    other = dataclasses.replace(KEYS["block1"], trunk_digest="t" * 12 + "u" * 52)
    folder.rename(tmp_path / other.folder_name)
    with pytest.raises(InputError, match=r"holds features of something else .trunk_digest"):
        store.find(other)


@pytest.mark.parametrize("name", ["features.npy", "labels.npy", "sample_ids.npy", "features.json"])
@pytest.mark.parametrize("damage", ["absent", "cut", "rubbish"])
def test_a_damaged_file_is_refused(
    tmp_path: Path, open_loader, trunk, name: str, damage: str
) -> None:
    fill_store(FeatureStore(tmp_path), KEYS, trunk, open_loader(), SETTING, "cpu", ALONE)
    folder = tmp_path / KEYS["block1"].folder_name
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "absent":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\0{" + content[2:])
    with pytest.raises(InputError, match=name):
        open_features(folder)
