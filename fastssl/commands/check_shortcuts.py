"""Show what low-level cues give away of a jigsaw's answer, defence by defence.

``fastssl check-shortcuts DATASET``: for each published form, and for each with a defence switched
off, how often a linear classifier on brightness, colour shift or borders alone is right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from tqdm import tqdm

from ..config import LoaderConfig
from ..evaluation.shortcuts import CUES, measure_cue
from ..fields import Checked, Range
from ..loaders import build_loader
from ..models import build_trunk
from ..randomness import Seed
from ..tasks import Jigsaw, JigsawConfig
from ..views import list_views
from .frame import check_json_path, parse_arguments

_BATCH = 50
_COLOUR = {"grey_probability": 0.0}


@dataclass(frozen=True)
class ShortcutConfig(Checked):
    """What to check."""

    path: Path
    """Dataset: the folder that make-shards wrote."""
    images: Annotated[int, Range(4, 1_000_000_000)] = 400
    """Images to look at; half of them fit the classifiers, the others test them."""
    seed: Seed = 0
    """Seed of the puzzles."""
    json: Path | None = None
    """Write the figures to this file."""


def list_forms() -> dict[str, JigsawConfig]:
    """Return the published forms, and each with a defence switched off."""
    goyal, noroozi, kolesnikov = JigsawConfig(), JigsawConfig.noroozi(), JigsawConfig.kolesnikov()
    full_cells: dict[str, Any] = {"patch": 85, "jitter": 1}
    change = dataclasses.replace
    return {
        "goyal": goyal,
        "goyal, no grey": change(goyal, **_COLOUR),
        "goyal, all grey": change(goyal, grey_probability=1.0),
        "goyal, no gap": change(goyal, **full_cells),
        "noroozi": noroozi,
        "noroozi, colours as they are": change(
            noroozi, projection_probability=0.0, channel_shift=0, **_COLOUR
        ),
        "noroozi, channel shifts alone": change(noroozi, projection_probability=0.0, **_COLOUR),
        "kolesnikov": kolesnikov,
        "kolesnikov, not standardised": change(kolesnikov, normalize="imagenet"),
        "kolesnikov, no grey": change(kolesnikov, **_COLOUR),
        "kolesnikov, all grey": change(kolesnikov, grey_probability=1.0),
        "kolesnikov, no gap": change(kolesnikov, **full_cells),
    }


def measure(form: JigsawConfig, config: ShortcutConfig) -> dict[str, float]:
    """Return the accuracy of each cue on puzzles of one form."""
    task = Jigsaw(form, build_trunk("resnet9", 1))
    loading = LoaderConfig(path=config.path, global_batch_size=_BATCH, seed=config.seed)
    loader = build_loader(loading, list_views(task.views))
    with contextlib.closing(loader):
        patches: list[torch.Tensor] = []
        for batch in loader:
            prepared = task.prepare(batch, config.seed, torch.float32)["patches"]
            patches.append(prepared.half())
            if len(patches) * _BATCH >= config.images:
                break
    seen = torch.cat(patches)[: config.images].numpy()
    return {cue: measure_cue(cue, seen).accuracy for cue in CUES}


def main(arguments: Sequence[str]) -> None:
    """Print a row for each form."""
    config = parse_arguments(ShortcutConfig, arguments)
    check_json_path(config.json)
    rows = {}
    for name, form in tqdm(list_forms().items(), unit="form"):
        rows[name] = measure(form, config)
    print(f"{'form':<32}" + "".join(f"{cue:>14}" for cue in CUES))
    print(f"{'chance':<32}{1 / 9:>14.3f}{1 / 9:>14.3f}{1 / 2:>14.3f}")
    for name, row in rows.items():
        print(f"{name:<32}" + "".join(f"{row[cue]:>14.3f}" for cue in CUES))
    if config.json is not None:
        config.json.write_text(json.dumps({"images": config.images, "rows": rows}, indent=2))
