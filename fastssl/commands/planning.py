"""What a job of a given size takes: the arithmetic of ``fastssl plan``, and no constant of its own.

A conversion and a training run are chains of things that work at the same time: the slowest one
sets the rate. Rates a core come from a measurement; more cores are taken to do as much more each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..counts import spell_number
from ..errors import InputError
from ..shards.index import HEADER_BYTES, ROW
from ..shards.making.plan import choose_samples_per_shard

FAITHFUL_FIRST = ("keep", "tiled", "resized", "raw")
"""Encodings: those whose pixels are their source's first, the plainest of them first of all."""
WORTH_IT = 0.05
"""Share of the hours that an encoding has to save before it is taken instead of one before it."""


@dataclass(frozen=True)
class EncodingRates:
    """What was measured of an encoding."""

    stored_kb: float
    """Of an image in a shard, with all that stands beside it in the tar; 1 kB is 1000 bytes."""
    convert_img_per_s: float
    """Images that a core converts in a second of its time."""
    load_img_per_s: float
    """Images that a core decodes and crops for a training run in a second of its time."""


@dataclass(frozen=True)
class Job:
    """What there is to do, and with what."""

    images: int
    """Of the dataset."""
    source_kb: float
    """Mean bytes of an image in the source, in kB."""
    epochs: float
    """Of the training run."""
    gpus: int
    """That train."""
    gpu_img_per_s: float
    """Images a second that a GPU trains on when it never waits."""
    cores: int
    """Of all machines together, for converting as for loading."""
    storage_mb_per_s: float | None = None
    """Bandwidth of where the shards lie; None is no limit that is known."""
    network_mb_per_s: float | None = None
    """Bandwidth from where the source lies; None is no limit that is known."""


@dataclass(frozen=True)
class Stage:
    """A chain of things that work at the same time."""

    limits: Mapping[str, float]
    """Images a second that each could do, by name."""
    images: float
    """That go through."""

    @property
    def bottleneck(self) -> str:
        """The name of the slowest."""
        return min(self.limits, key=self.limits.__getitem__)

    @property
    def img_per_s(self) -> float:
        """What all of them together do."""
        return self.limits[self.bottleneck]

    @property
    def next_img_per_s(self) -> float | None:
        """What they would do if the slowest were no limit; None if nothing else is one."""
        rest = [rate for name, rate in self.limits.items() if name != self.bottleneck]
        return min(rest, default=None)

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.images / self.img_per_s


@dataclass(frozen=True)
class Estimate:
    """What a job takes with one encoding."""

    encoding: str
    rates: EncodingRates
    conversion: Stage
    training: Stage
    samples_per_shard: int
    num_shards: int
    disk_bytes: float
    """Of shards and index."""
    feeding_cores: int
    """Cores that decode as fast as the GPUs train."""
    feeding_mb_per_s: float
    """What is read from the shards then."""
    fetching_mb_per_s: float
    """What is read from the source when the cores convert without waiting for it."""

    @property
    def hours(self) -> float:
        """Of conversion and training."""
        return (self.conversion.seconds + self.training.seconds) / 3600


def estimate(job: Job, encoding: str, rates: EncodingRates) -> Estimate:
    """Say what a job takes with one encoding.

    Args:
        job: what there is to do.
        encoding: its name.
        rates: what was measured of it.
    """
    samples_per_shard = choose_samples_per_shard(job.images)
    gpus, converting = job.gpus * job.gpu_img_per_s, job.cores * rates.convert_img_per_s
    conversion = {"cores": converting}
    training = {"GPUs": gpus, "cores": job.cores * rates.load_img_per_s}
    if job.network_mb_per_s is not None:
        conversion["network"] = job.network_mb_per_s * 1e3 / job.source_kb
    if job.storage_mb_per_s is not None:
        conversion["storage"] = training["storage"] = job.storage_mb_per_s * 1e3 / rates.stored_kb
    return Estimate(
        encoding=encoding,
        rates=rates,
        conversion=Stage(conversion, job.images),
        training=Stage(training, job.images * job.epochs),
        samples_per_shard=samples_per_shard,
        num_shards=-(-job.images // samples_per_shard),
        disk_bytes=job.images * (rates.stored_kb * 1e3 + ROW.itemsize) + HEADER_BYTES,
        feeding_cores=math.ceil(gpus / rates.load_img_per_s),
        feeding_mb_per_s=gpus * rates.stored_kb / 1e3,
        fetching_mb_per_s=converting * job.source_kb / 1e3,
    )


def choose(estimates: Sequence[Estimate], disk_tb: float | None) -> Estimate:
    """Return the encoding to take: of those that fit, the plainest that costs few hours more.

    Args:
        estimates: one of each encoding.
        disk_tb: room for the dataset in 10^12 bytes; None is no limit.

    Raises:
        InputError: if none fits.
    """
    fitting = [e for e in estimates if disk_tb is None or e.disk_bytes <= disk_tb * 1e12]
    if not fitting:
        least = min(estimates, key=lambda e: e.disk_bytes)
        raise InputError(
            f"--disk-tb ({disk_tb:g}) is too little for any encoding that was measured; the "
            f"smallest, {least.encoding}, takes {least.disk_bytes / 1e12:,.2f} TB"
        )
    fitting.sort(key=lambda e: FAITHFUL_FIRST.index(e.encoding))
    enough = min(e.hours for e in fitting) / (1 - WORTH_IT)
    return next(e for e in fitting if e.hours <= enough)


def explain_conversion(job: Job, chosen: Estimate) -> str:
    """Return what limits the conversion, and what would remove it."""
    stage, rates = chosen.conversion, chosen.rates
    wanted = stage.next_img_per_s
    if stage.bottleneck == "cores":
        if wanted is None:
            return f"cores: each more converts {rates.convert_img_per_s:,.0f} images/s"
        cores = math.ceil(wanted / rates.convert_img_per_s)
        return f"cores: {cores:,} would do as much as the rest, {wanted:,.0f} images/s"
    assert wanted is not None  # cores are always there
    if stage.bottleneck == "network":
        needed = wanted * job.source_kb / 1e3
        return f"network: {needed:,.0f} MB/s from the source would do as much as the rest"
    needed = wanted * rates.stored_kb / 1e3
    return f"storage: {needed:,.0f} MB/s to the shards would do as much as the rest"


def explain_training(chosen: Estimate, estimates: Sequence[Estimate]) -> str:
    """Return what limits the training, and what would remove it."""
    stage, rates = chosen.training, chosen.rates
    gpus = stage.limits["GPUs"]
    if stage.bottleneck == "GPUs":
        wanted = stage.next_img_per_s
        assert wanted is not None  # cores are always there
        return f"GPUs, as it should be: the rest would feed {wanted / gpus:.1f} times as many"
    if stage.bottleneck == "cores":
        remedy = f"{spell_number(chosen.feeding_cores, 'core')} would feed the GPUs"
        least = min(estimates, key=lambda e: e.feeding_cores)
        if least is not chosen:
            remedy += f", or --encode {least.encoding}, which takes {least.feeding_cores:,}"
        return f"cores: {remedy}"
    remedy = f"{gpus * rates.stored_kb / 1e3:,.0f} MB/s from the shards would feed the GPUs"
    smaller = min(estimates, key=lambda e: e.rates.stored_kb)
    if smaller is not chosen:
        remedy += f", or --encode {smaller.encoding}, which takes {smaller.feeding_mb_per_s:,.0f}"
    return f"storage: {remedy}"
