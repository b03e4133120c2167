"""Contrastive multiview coding: what it is fed, what it refuses and shows, and that it learns."""

from __future__ import annotations

import dataclasses
import logging
import re

import numpy as np
import pytest
import torch

from fastssl.batch import Batch, Substitution
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.tasks import CMCConfig, build_task
from fastssl.tasks.newell_views import augment, draw_augmentation
from fastssl.training import train
from fastssl.training.memory import Capacity, check_memory, outline_task
from fastssl.world import World
from tests.small_runs import make_config, read_lines

ALONE = World(0, 1, torch.device("cpu"), None)
SMALL = {"size": 16, "num_negatives": 12}


def build(trunk="resnet9_halves", opened=40, **changes):
    torch.manual_seed(0)
    task = build_task(CMCConfig(**SMALL | changes), build_trunk(trunk, 1))
    if opened:
        task.open_tables(opened, ALONE)
    return task


def make_batch(ids, substitutions=()):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (len(ids), 1, 16, 16, 3), generator=generator).to(torch.uint8)
    zeros = torch.zeros(len(ids), dtype=torch.int64)
    return Batch(images, torch.tensor(ids), zeros, None, substitutions=substitutions)


def test_figures_of_the_study():
    config = CMCConfig()
    assert (config.num_negatives, config.temperature, config.momentum) == (8192, 0.1, 0.2)
    assert (config.size, config.space, config.jitter_probability) == (64, "lab", 0.0)
    assert (config.grey_probability, config.cutout_px, config.padding_px) == (0.25, 16, 8)
    task = build_task(config, build_trunk("resnet9_halves"))
    assert task.bank.row_shape == (2, 128)
    assert task.chance() == {"accuracy": 1 / 8193}


def test_pictures_are_augmented_and_a_substitute_counts_as_itself():
    task = build()
    batch = make_batch([3, 5, 3], (Substitution(1, 0, planned=5, used=22, reason="x"),))
    inputs = task.prepare(batch, 7, torch.float32)
    drawn = draw_augmentation(task.config, batch, 7, 1)
    wanted = augment(batch.images[:, 0], drawn, task.config, torch.float32)[:, 0]
    assert torch.equal(inputs["images"], wanted)
    assert inputs["ids"].tolist() == [[3], [22], [3]]
    assert inputs["negatives"].shape == (3, 1, 12)


def test_a_step_moves_the_rows_of_its_samples_alone():
    task = build()
    before = task.bank.table.rows.clone()
    task(task.prepare(make_batch([3, 22]), 0, torch.float32))
    task.end_step(torch.tensor(True))
    moved = (task.bank.table.rows != before).flatten(1).any(1).nonzero().flatten()
    assert moved.tolist() == [3, 22]


def test_each_half_learns_from_the_memory_of_the_other():
    """Of the loss of lightness nothing reaches colour's half, and the other way round."""
    task = build()
    inputs = task.prepare(make_batch([3, 22]), 0, torch.float32)
    features = task._look(inputs["images"])
    task.bank.contrast(features, inputs["ids"], inputs["negatives"]).losses_BV[
        :, 0
    ].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in task.trunk.lightness.fc.parameters())
    assert all(p.grad is None or not p.grad.any() for p in task.trunk.colour.parameters())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"trunk": "resnet9"}, r"trunk \('resnet9'\) must have two halves .* resnet9_halves"),
        ({"trunk": "resnet9_halves_linear8"}, "must have two halves"),
        ({"space": "rgb"}, r"task.space \('rgb'\) must be 'lab'"),
        ({"size": 4}, r"task.size \(4\) must be at least 8 px"),
        ({"num_negatives": 0}, "num_negatives"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_what_cannot_be_is_refused(changes, match):
    with pytest.raises(InputError, match=match):
        build(**changes)


def make_run(dataset_path, folder, **changes):
    config = make_config(dataset_path, folder, nested={"log": {"every_steps": 1}})
    task = CMCConfig(**SMALL | changes)
    return dataclasses.replace(config, task=task, trunk="resnet9_halves", width=1)


def test_the_memory_is_counted_before_the_start(dataset_path, tmp_path, caplog):
    config = make_run(dataset_path, tmp_path)
    outline = outline_task(config, 0)
    num_bytes = 2 * 32 * 4 * 1_000_000
    assert outline.count_table_bytes(1_000_000, 1) == num_bytes
    assert outline.count_table_bytes(1_000_001, 4) == 250_001 * 2 * 32 * 4
    half = Capacity(num_bytes // 2, "the machine")
    with caplog.at_level(logging.INFO), pytest.raises(InputError) as refused:
        check_memory(outline, config, 8, 1, half, 1_000_000)
    assert "task cmc keeps 0.2 GiB a rank for 1,000,000 samples" in str(refused.value)
    fits = int(re.search("max-samples to ([0-9,]+),", str(refused.value))[1].replace(",", ""))
    assert 300_000 < fits < 500_000
    check_memory(outline, config, 8, 1, half, fits)
    assert "the task's tables 0.24" in caplog.text


def test_the_memory_is_no_part_of_the_state_of_a_module():
    task = build(opened=1000)
    assert not any(value.shape[:1] == (1000,) for value in task.state_dict().values())
    assert sum(p.numel() for p in task.parameters()) == sum(
        p.numel() for p in task.trunk.parameters()
    )


def test_it_learns_and_shows_the_nearest_in_the_memory(dataset_path, tmp_path):
    config = make_run(dataset_path, tmp_path / "run", grey_probability=0.0, cutout=0.0)
    schedule = dataclasses.replace(config.schedule, epochs=12)
    log = dataclasses.replace(config.log, pictures_every_steps=10**6)
    optim = dataclasses.replace(config.optim, name="adam", lr=2e-3)
    train(dataclasses.replace(config, schedule=schedule, log=log, optim=optim))
    lines = [line for line in read_lines(config.output_dir / "metrics.jsonl") if "loss" in line]
    first, last = (np.mean([line["loss"] for line in part]) for part in (lines[:6], lines[-6:]))
    assert last < first - 0.5
    assert lines[-1]["accuracy_of_chance"] == pytest.approx(1 / 13)


def test_pictures_show_whose_rows_are_nearest():
    task = build(opened=3)
    batch = make_batch([0, 1, 2])
    task.read_samples = lambda ids: [batch.rows(i, i + 1) for i in ids.tolist()]
    task(task.prepare(batch, 0, torch.float32))
    task.end_step(torch.tensor(True))
    pictures = task.draw_pictures(batch, 0, 2)
    assert len(pictures) == 2
    for number, picture in enumerate(pictures):
        assert picture.pixels.shape == (24, 3 * 24, 3)
        own, *others = (picture.pixels[4:20, begin : begin + 16] for begin in (4, 28, 52))
        assert np.array_equal(own, batch.images[number, 0])
        named = [int(part.split()[0]) for part in picture.words.split("sample ")[1:]]
        assert sorted(named) == sorted({0, 1, 2} - {number})
        for shown, name in zip(others, named, strict=True):
            assert np.array_equal(shown, batch.images[name, 0])


def test_pictures_without_a_memory_show_no_neighbours():
    (picture,) = build(opened=0).draw_pictures(make_batch([0]), 0, 1)
    assert picture.pixels.shape == (24, 24, 3)
    assert picture.words.endswith("none")
