"""Results over label counts, made for tests by a stated formula: nothing here was ever measured.

From scratch n labels reach ``learn(n)``. A pretrained trunk with n labels is as good as a fresh one
with (1 + u) n, where u = ``gain / (1 + n / fades)``: u is its utility. Seeds lie around that by
``spread``, the same for every trunk.
"""

from __future__ import annotations

import hashlib

import numpy as np

from fastssl.runs.result import Result

COUNTS = (100, 250, 1000, 4000, 20_000, 50_000, 100_000)
MADE = "made for a test"


def name_digest(name):
    return hashlib.sha256(name.encode()).hexdigest()


def learn(labels, top=0.9, low=0.2, knee=1500.0):
    """Return the accuracy that a fresh trunk has."""
    return top - (top - low) / (1 + np.asarray(labels, float) / knee)


def make_result(
    num_labels,
    value,
    seed=0,
    start="scratch",
    recipe="newell20_cmc_resnet9",
    variant="TCVL",
    pretrained_on="TCVL",
    trunk="resnet9",
    frozen=0,
    step=1000,
    task="finetune",
    details=None,
    settings=None,
    **fields,
):
    """Return the result of one training."""
    is_scratch = start == "scratch"
    metric = {"finetune": "top1", "depth": "delta_1.25"}.get(task, "accuracy")
    weights = name_digest(f"{recipe} {pretrained_on} {trunk} {step} {details}")
    content = {
        "split": "a dataset each",
        "train_digest": name_digest(variant),
        "test_digest": name_digest(f"{variant} tested"),
        "trunk_digest": "" if is_scratch else weights,
        "recipe": "scratch" if is_scratch else recipe,
        "step": 0 if is_scratch else step,
        "version": MADE,
    }
    settings = {
        "start": start,
        "num_labels": num_labels,
        "frozen_stages": frozen,
        "head": "linear",
        "trunk": trunk,
        "width": 4,
        "epochs": 200.0 if num_labels < 20_000 else 600.0,
        **(settings or {}),
    }
    told = {} if is_scratch else {"pretrain_data": name_digest(pretrained_on)}
    details = {"num_train": num_labels, "num_test": 5000, **told, **(details or {})}
    return Result(
        task,
        "newell20",
        metric,
        float(value),
        seed=seed,
        settings=settings,
        details=details,
        **{**content, **fields},
    )


def make_curve_results(
    gain=0.0, fades=2000.0, counts=COUNTS, seeds=3, spread=0.01, learns=None, **of
):
    """Return a curve's results: from scratch where ``start`` says nothing else."""
    learns = learns or {}
    found = []
    for count in counts:
        value = learn(count * (1 + gain / (1 + count / fades)), **learns)
        for seed in range(seeds):
            off = spread * (seed - (seeds - 1) / 2) / (1 + count / 1000)
            found.append(make_result(count, value + off, seed, **of))
    return found
