"""Write a dataset's pictures to FFCV's file format."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from ..counts import spell_number
from ..fields import NumThreads
from ..shards import open_dataset
from ..shards.beton import BETON_NAME, BetonOptions, write_beton
from ..system.cpus import available_cpus
from ..system.files import check_file_place
from .frame import check_json_path, parse_arguments


@dataclass(frozen=True)
class MakeBeton(BetonOptions):
    """Write a dataset's pictures to a beton for --data.loader ffcv."""

    dataset: tyro.conf.Positional[Path] = Path()
    """The folder that make-shards wrote."""
    out: Path = Path()
    """The file to write; without it dataset.beton in the dataset's folder."""
    workers: NumThreads = 0
    """Processes that encode; 0 takes all usable cores."""
    json: Annotated[Path | None, tyro.conf.arg(name="json")] = None
    """File for a report: samples, jpg, raw, bytes_in, bytes, seconds."""


def main(arguments: Sequence[str]) -> None:
    """Write the beton and say what it holds."""
    config = parse_arguments(MakeBeton, arguments)
    check_json_path(config.json)
    began = time.perf_counter()
    with closing(open_dataset(config.dataset)) as dataset:
        out = dataset.folder / BETON_NAME if config.out == Path() else config.out
        check_file_place(out, "--out")
        with tqdm(total=dataset.num_samples, unit="img", desc="beton") as bar:
            report: dict[str, float] = dict(
                write_beton(dataset, out, config, config.workers or available_cpus(), bar.update)
            )
        bytes_in = sum(shard.bytes for shard in dataset.manifest.shards)
    report |= {"bytes_in": bytes_in, "seconds": round(time.perf_counter() - began, 3)}
    samples = spell_number(int(report["samples"]), "sample")
    print(
        f"{out}: {samples} ({report['jpg']} jpg, {report['raw']} raw), "
        f"{report['bytes'] / 1e6:.1f} MB from {bytes_in / 1e6:.1f} MB of shards, "
        f"{report['seconds']:.1f} s"
    )
    if config.json is not None:
        config.json.write_text(json.dumps(report, indent=1) + "\n", encoding="ascii")
