"""Pictures show the same samples each time."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch

from fastssl.batch import Batch
from fastssl.models import build_trunk
from fastssl.tasks import ExemplarConfig, PoseConfig, RotationConfig, SupervisedConfig, build_task
from fastssl.training.shown import is_due, keep_shown


def make_batch(seed, size=16):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (size, 1, 8, 8, 3), generator=generator, dtype=torch.uint8)
    ids = torch.arange(size) + 100 * seed
    return Batch(images, ids, torch.zeros(size, dtype=torch.int64), ids % 3)


def make_task(config):
    return build_task(config, build_trunk("resnet9", 1), 3)


def test_pictures_come_early_in_long_runs():
    assert [s for s in range(1, 3001) if is_due(s, 1000)] == [1, 10, 100, 1000, 2000, 3000]
    assert [s for s in range(1, 61) if is_due(s, 20)] == [1, 10, 20, 40, 60]
    assert [s for s in range(1, 4) if is_due(s, 1)] == [1, 2, 3]


def test_later_batches_do_not_change_what_is_shown(tmp_path):
    task = make_task(RotationConfig(size=32))
    batch = make_batch(1)
    first = keep_shown(tmp_path / "shown", batch, task)
    assert torch.equal(first.images, batch.images[:4])
    assert first.labels is None  # labels do not reach a pretext task
    batch.images.zero_()  # the loader uses its memory again
    again = keep_shown(tmp_path / "shown", make_batch(2), task)
    for name in ("images", "sample_ids", "epochs"):
        assert torch.equal(getattr(again, name), getattr(first, name))
    assert first.images.any()


def test_images_that_belong_together_and_labels_are_kept(tmp_path):
    exemplar = keep_shown(tmp_path / "a", make_batch(1), make_task(ExemplarConfig(size=32)))
    assert len(exemplar) == 8
    supervised = keep_shown(tmp_path / "b", make_batch(1), make_task(SupervisedConfig(size=32)))
    assert supervised.labels.tolist() == (make_batch(1).labels[:4]).tolist()


def test_targets_are_kept_and_those_of_a_pretext_task_are_not(tmp_path):
    batch = dataclasses.replace(make_batch(1), targets={"pose": torch.arange(16) % 5})
    config = PoseConfig(size=32)
    for number in (1, 2):  # as it is kept, and as it is read again
        later = dataclasses.replace(batch, targets={"pose": batch.targets["pose"] * (2 - number)})
        shown = keep_shown(tmp_path / "shown", later, make_task(config))
        assert shown.targets["pose"].tolist() == [0, 1, 2, 3]
    pretext = keep_shown(tmp_path / "other", batch, make_task(RotationConfig(size=32)))
    assert pretext.targets == {}


@pytest.mark.parametrize("content", [b"", b"rubbish that is no file of tensors"])
def test_a_broken_file_costs_the_comparison_and_no_more(tmp_path, caplog, content):
    (tmp_path / "shown").write_bytes(content)
    task = make_task(RotationConfig(size=32))
    with caplog.at_level(logging.WARNING):
        shown = keep_shown(tmp_path / "shown", make_batch(2), task)
    assert "the pictures show other samples now" in caplog.text
    assert torch.equal(shown.images, make_batch(2).images[:4])
    assert torch.equal(keep_shown(tmp_path / "shown", make_batch(3), task).images, shown.images)
