"""A damaged shard is made again from its source, to the byte, or the dataset stays as it is."""

from __future__ import annotations

import shutil

import pytest

from fastssl.commands.repair import main
from fastssl.errors import InputError
from fastssl.shards.derive.repair import repair
from fastssl.shards.derive.verify import verify_dataset
from fastssl.shards.making.convert import ConvertConfig, convert

SAME_OPTIONS = {"workers": 1}


@pytest.fixture
def dataset(photographs, tmp_path):
    """Twelve photographs and a bad one in three shards, resized, with a seed of its own."""
    (photographs / "cat" / "bad.jpg").write_bytes(b"no image")
    more = {"samples_per_shard": 5, "seed": 3, "quality": 80, "resize_short": 20}
    convert(ConvertConfig(photographs, tmp_path / "out", "resized", workers=1, **more))
    return tmp_path / "out"


def spoil(dataset):
    """Damage three shards in three ways."""
    changed = bytearray((dataset / "shard-000000.tar").read_bytes())
    changed[len(changed) // 2] ^= 1
    (dataset / "shard-000000.tar").write_bytes(changed)
    (dataset / "shard-000001.tar").unlink()
    (dataset / "shard-000002.idx").unlink()


def test_damaged_shards_are_found_and_made_again_to_the_byte(
    dataset, photographs, read_tree, capsys
):
    whole = read_tree(dataset)
    spoil(dataset)
    main([str(photographs), str(dataset), "--workers", "1"])
    assert read_tree(dataset) == whole
    assert not list(dataset.glob(".repair*"))
    assert verify_dataset(dataset, workers=1).ok
    said = capsys.readouterr().out
    names = "shard-000000.tar, shard-000001.tar, shard-000002.tar"
    assert said.endswith(f"{names} were made again, byte for byte\n")
    main([str(photographs), str(dataset), "--workers", "1"])
    assert "no shard is damaged" in capsys.readouterr().out


def test_a_shard_that_is_named_is_made_alone(dataset, photographs, read_tree):
    whole = read_tree(dataset)
    spoil(dataset)
    wanted = ConvertConfig(photographs, dataset, **SAME_OPTIONS)
    assert repair(wanted, [1]) == ["shard-000001.tar"]
    assert (dataset / "shard-000001.tar").read_bytes() == whole["shard-000001.tar"]
    assert (dataset / "shard-000000.tar").read_bytes() != whole["shard-000000.tar"]
    with pytest.raises(InputError, match=r"--shard \(7\): .* no shard-000007\.tar; .* 0 \.\. 2"):
        repair(wanted, [7])


def test_a_source_that_has_changed_replaces_nothing(dataset, photographs, read_tree):
    (dataset / "shard-000001.tar").unlink()
    before = read_tree(dataset)
    wanted = ConvertConfig(photographs, dataset, **SAME_OPTIONS)
    for path in photographs.rglob("*.jpg"):
        if path.name != "image0.jpg":
            shutil.copy(photographs / "cat" / "image0.jpg", path)
    with pytest.raises(InputError, match=r"made again it has .* nothing was replaced: the source"):
        repair(wanted)
    assert read_tree(dataset) == before
    (photographs / "cat" / "image0.jpg").unlink()
    with pytest.raises(InputError, match=r"12 entries, .* was made of 13, and their names"):
        repair(wanted)
    assert read_tree(dataset) == before
