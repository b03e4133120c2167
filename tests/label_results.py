"""Results over label counts, made for tests by a stated formula: nothing here was ever measured.

From scratch n labels reach ``learn(n)``. A pretrained trunk with n labels is as good as a fresh one
with (1 + u) n, where u = ``gain / (1 + n / fades)``: u is its utility. Seeds lie around that by
``spread``, the same for every trunk.
"""

from __future__ import annotations

import dataclasses
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


def make_linear(value, recipe, pretrained_on="TCVL", **of):
    """Return the result of a linear classifier on a trunk of ``make_curve_results``."""
    tuned = make_result(100, value, 0, "pretrained", recipe, pretrained_on=pretrained_on, **of)
    return dataclasses.replace(
        tuned, task="linear", metric="top1", layer="pre_logits", settings={}, details={}
    )


METHODS = {
    "newell20_cmc_resnet9": (3.0, 3000.0, "resnet9_halves", 0.60),
    "newell20_amdim_resnet9": (1.8, 6000.0, "resnet9", 0.66),
    "newell20_rotation_resnet9": (2.4, 2500.0, "resnet9", 0.31),
    "newell20_vae_resnet9": (0.2, 800.0, "resnet9", 0.28),
}
"""Recipe -> gain, where it fades, trunk, and what a linear classifier reaches; made up."""


def make_study(counts=COUNTS, seeds=3):
    """Return the results of a whole study: every one of its pictures has what it needs."""
    of = {"counts": counts, "seeds": seeds}
    pretrained = {**of, "start": "pretrained"}
    cmc, amdim = "newell20_cmc_resnet9", "newell20_amdim_resnet9"
    found = make_curve_results(**of) + make_curve_results(task="pose", learns={"top": 0.8}, **of)
    found += make_curve_results(trunk="resnet9_halves", learns={"top": 0.87}, **of)
    found += make_curve_results(trunk="resnet50_newell", learns={"knee": 2500.0}, **of)
    for number, (recipe, (gain, fades, trunk, linear)) in enumerate(METHODS.items()):
        own = {"recipe": recipe, "trunk": trunk, **pretrained}
        found += make_curve_results(gain, fades, **own)
        # Beyond what scratch reaches with all labels: the grey region.
        best = {"top": 0.8 + 0.03 * number}
        found += make_curve_results(gain, fades, task="pose", learns=best, **own)
        found += make_curve_results(
            1.5 * gain,
            fades,
            **{**own, "recipe": recipe.replace("resnet9", "resnet50"), "trunk": "resnet50_newell"},
            learns={"knee": 2500.0},
        )
        found.append(make_linear(linear, recipe, trunk=trunk))
    for stages in (1, 2, 3):
        own = {"recipe": amdim, "frozen": stages, **pretrained}
        top = {"top": 0.9 - 0.05 * stages}
        found += make_curve_results(1.8 + 0.4 * stages, 6000.0, learns=top, **own)
    for steps, images, gain in ((500, 0, 2.7), (1000, 50_000, 2.9)):
        own = {"recipe": cmc, "trunk": "resnet9_halves", "step": steps, **pretrained}
        details = {"pretrain_images": images} if images else None
        found += make_curve_results(gain, 3000.0, details=details, **own)
    for target in ("----", "-CV-"):
        found += make_curve_results(variant=target, **of)
    for source, target, gain in (
        *(("----", "----", 2.0), ("-CV-", "----", 1.5), ("TCVL", "----", 1.2)),
        *(("----", "-CV-", 0.2), ("-CV-", "-CV-", 1.9), ("TCVL", "-CV-", 1.6)),
        *(("----", "TCVL", 0.1), ("-CV-", "TCVL", 1.1)),
    ):
        own = {"recipe": amdim, "pretrained_on": source, "variant": target, **pretrained}
        found += make_curve_results(gain, 6000.0, **own)
    return found


NAMES = {
    name_digest(f"{name}{tested}"): name
    for name in ("TCVL", "----", "-CV-")
    for tested in ("", " tested")
}
"""What the data sets are called."""
