"""A run that takes long on a CPU says so before its first step, and when that was slow."""

from __future__ import annotations

import logging

import pytest
import torch

from fastssl.training import pace, train


def test_a_long_run_is_announced_with_smaller_ones(configure, caplog, monkeypatch):
    monkeypatch.setattr(pace, "FEW_IMAGES", 0)
    # A thousand operations a second.
    monkeypatch.setattr(pace, "measure_speed", lambda _device: 1e-6)
    with caplog.at_level(logging.WARNING):
        train(configure(max_steps=2), smaller_recipes=["quickstart", "demo_smoke"])
    (line,) = [text for text in caplog.messages if text.startswith("on this CPU a step")]
    assert "step of 8 images takes about" in line
    assert ", 2 steps about " in line
    assert line.endswith("; smaller: fastssl train quickstart or demo_smoke")


def test_a_short_run_says_nothing(configure, caplog):
    with caplog.at_level(logging.WARNING):
        train(configure(max_steps=2), smaller_recipes=["quickstart"])
    assert caplog.messages == []


def test_a_slow_first_step_is_said_once_with_the_time_to_come(configure, caplog, monkeypatch):
    monkeypatch.setattr(pace, "SLOW_STEP_S", 0.0)
    with caplog.at_level(logging.WARNING):
        train(configure(max_steps=4), smaller_recipes=["quickstart"])
    (line,) = caplog.messages
    assert line.startswith("a step took ")
    assert ": 3 more take about " in line
    assert line.endswith("; smaller: fastssl train quickstart")


@pytest.mark.parametrize(("billions_a_second", "num_lines"), [(1e-9, 1), (1e3, 2)])
def test_a_slow_step_that_was_announced_is_no_news(
    configure, caplog, monkeypatch, billions_a_second, num_lines
):
    monkeypatch.setattr(pace, "FEW_IMAGES", 0)
    monkeypatch.setattr(pace, "LONG_RUN_S", 0.0)
    monkeypatch.setattr(pace, "SLOW_STEP_S", 0.0)
    monkeypatch.setattr(pace, "measure_speed", lambda _device: billions_a_second)
    with caplog.at_level(logging.WARNING):
        train(configure(max_steps=2))
    assert len(caplog.messages) == num_lines


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.26, "0.3 seconds"),
        (107, "107 seconds"),
        (601, "10 minutes"),
        (400_000, "5 days"),
        (9000, "2 hours"),
        (86_400 * 2000, "2,000 days"),
    ],
)
def test_lengths_are_said_as_people_say_them(seconds, said):
    assert pace.describe_seconds(seconds) == said


def test_a_cpu_does_some_operations():
    assert 0.1 < pace.measure_speed(torch.device("cpu")) < 1e5
