"""Turn a heap of image files into a dataset: plan, shards in parallel, index, manifest last.

Whatever ends a conversion, ``resume`` goes on after the last finished shard, and the result is the
same bytes as if nothing had happened, whatever the number of workers.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

import tyro

from ...address import parse_place
from ...counts import spell_number
from ...errors import EXIT_ELSE, InputError, RunFailed, describe_failure, nearest
from ...fields import Checked, NumWorkers, Range
from ...randomness import Seed
from ...system.cpus import available_cpus
from ...system.files import make_folder, naming_file
from ...system.ray_jobs import RayJobs
from ...system.signals import stopping_on_signals
from ...system.workers import Progress, run_jobs, say_nothing
from ...views import MAX_SIDE
from ..jpeg import Quality
from ..manifest import BUILDING_NAME, MANIFEST_NAME, Manifest, read_manifest
from ..picture import MAX_PIXELS, MAX_SCANS, DecodeLimits
from ..targets import TargetEntry, TargetSpec
from .duplicates import Drop
from .encode import Encoding, EncodingName
from .entries import Source, absolute_place
from .entry_points import settle_entry_points
from .finish import finish
from .hints import check_first_path
from .on_ray import convert_on_ray
from .plan import (
    MAX_SECONDS,
    ConversionPlan,
    check_same_listing,
    list_differences,
    load_plan,
    lock_building,
    make_plan,
    remove_building,
)
from .rendered import SplitName
from .report import ConversionReport, report_dataset
from .slices import SliceRecord, convert_slice, load_record
from .sources import open_source
from .tables import TableColumns
from .target_columns import TargetColumn, parse_target_columns
from .target_folders import FolderTargets, parse_target_folders
from .tiled import require_transcoder
from .voc import DEFAULT_SPLIT
from .writer import shard_name
from .yfcc import YfccSource

MAX_SOURCE_PIXELS = 2**29
"""Most that --max-pixels takes: as RGB 1.5 GiB."""


@dataclass(frozen=True)
class ConvertConfig(Checked):
    """Turn a folder of images, a list, a table or tars into a dataset of shards."""

    source: Annotated[Path | str, tyro.conf.arg(metavar="SOURCE")]
    """Folder tree (label = first-level folder), text list (a path a line, relative to the list's
    folder, optional tab and label name), table (.csv, .tsv, .parquet; paths relative to its
    folder), PASCAL VOC folder or COCO's instances_*.json (several labels an image, boxes), set of
    render-synthetic (all that is known of it), tar, zip, Parquet with images in it, or a folder of
    one of these; zips and Parquet by address too (https://, s3://), where braces count."""
    out: Path
    """Folder of the dataset; new or empty, with --resume an unfinished one."""
    encode: EncodingName = "keep"
    """keep stores JPEG and PNG as they are; resized makes upright baseline JPEG with the short side
    brought down to --resize-short; raw makes upright pixels (.npy) of that size, for loaders that
    shall not decode at all; tiled writes JPEG again without loss, so that the native loader decodes
    no more than a crop needs."""
    resize_short: Annotated[int, Range(1, MAX_SIDE)] = 256
    """Short side of resized and raw images in pixels; smaller images are never enlarged."""
    quality: Quality = 90
    """JPEG quality of resized images, 1..100."""
    samples_per_shard: Annotated[int | None, Range(1, 1_000_000)] = None
    """Source images that go into one shard; None: 1/64 of them, at least 256, at most 8192."""
    workers: NumWorkers = None
    """Worker processes; None: the CPUs that this process may use. The result does not depend on
    it."""
    seed: Seed = 0
    """Seed of the shuffled order."""
    keep_order: bool = False
    """Keep the order of the source instead of shuffling it."""
    path_column: str = "path"
    """Column of a table that holds the images' paths, relative to the table's folder."""
    image_column: str | None = None
    """Column of Parquet that holds images; None finds it."""
    label_column: str = "label"
    """Column of a table that holds labels: text names classes, integers are the labels; further
    columns go into each sample's JSON."""
    targets: tuple[str, ...] = ()
    """Columns of a table that become arrays beside the index, each COLUMN:TYPE, as age:float32;
    COLUMN:TYPE:MISSING says what stands for an empty value, NAME=COLUMN:TYPE names the array."""
    target_folders: tuple[str, ...] = ()
    """Folders that become arrays beside the index, each NAME=FOLDER: a .png or .npy for each image,
    laid out as they are or by name alone, all of one size; images without one are left out."""
    voc_split: str = DEFAULT_SPLIT
    """List of a PASCAL VOC folder to take: ImageSets/Main/<this>.txt."""
    coco_images: Path | None = None
    """Folder of the pictures that COCO's instances_*.json names; None takes ../train2017 of
    instances_train2017.json and so on, or the file's own folder."""
    yfcc_images: Annotated[str, tyro.conf.arg(metavar="FOLDER|ADDRESS")] = ""
    """SOURCE is metadata of YFCC-100M (SQLite, text, or text in bzip2), and here lie its pictures,
    as data/images/xxx/yyy/<hash>.jpg below: the bucket (s3://, https://), a mirror, a folder."""
    synthetic_split: SplitName = "all"
    """Part of a set of render-synthetic to take; no model is in two parts."""
    max_pixels: Annotated[int, Range(1, MAX_SOURCE_PIXELS)] = MAX_PIXELS
    """Pixels of the largest image that is decoded; larger ones are left out as too-large. A worker
    takes about 12 bytes for each. More than the default needs --encode resized or raw: it is what
    loaders decode."""
    max_scans: Annotated[int, Range(1, 1_000_000)] = MAX_SCANS
    """Scans of a JPEG; one that has more is left out as too-many-scans."""
    max_seconds: Annotated[int, Range(1, 86_400)] = MAX_SECONDS
    """Seconds of the CPU that an image may take; one that takes more is left out as too-slow."""
    drop: tuple[Drop, ...] = ()
    """Leave out blank pictures, duplicates (the same file again) or near-duplicates (which look the
    same, smaller or at another quality, too); one or several of them. The first one stays."""
    entry_points: bool = True
    """Note from where on JPEGs can be decoded, so that crops cost less; <= 1.5 % of their bytes."""
    resume: bool = False
    """Go on with a conversion that was stopped."""
    ray: Annotated[str, tyro.conf.arg(metavar="local|auto|ADDRESS")] = ""
    """Convert on Ray: on this machine (local), the cluster that it belongs to (auto), or one by its
    address, whose machines have SOURCE and OUT at the same paths; --workers then says how many
    shards are made at once, None as many as there are CPUs. The result does not depend on it."""

    def __post_init__(self) -> None:
        """Tell paths and addresses apart."""
        object.__setattr__(self, "source", parse_place(self.source))
        super().__post_init__()

    @property
    def shuffle_seed(self) -> int | None:
        """The seed; None if the order is kept."""
        return None if self.keep_order else self.seed

    @property
    def encoding(self) -> Encoding:
        """How payloads are made."""
        return Encoding(self.encode, self.resize_short, self.quality)

    @property
    def limits(self) -> DecodeLimits:
        """How much work an image may make."""
        return DecodeLimits(self.max_pixels, self.max_scans)

    def open_source(self) -> Source:
        """Find out what the source is.

        Raises:
            InputError: if it is nothing that can be converted.
        """
        targets = parse_target_columns(self.targets)
        columns = TableColumns(self.path_column, self.label_column, self.image_column, targets)
        source = (
            YfccSource(self.source, parse_place(self.yfcc_images))
            if self.yfcc_images
            else open_source(
                self.source, columns, self.voc_split, self.coco_images, self.synthetic_split
            )
        )
        is_table = source.kind in ("table", "images")
        if not is_table and targets:
            raise InputError(
                f"--targets {targets[0].text}: {self.source} is no table; wanted a .csv, .tsv or "
                ".parquet with that column"
            )
        if source.kind != "voc" and self.voc_split != DEFAULT_SPLIT:
            warnings.warn(
                f"--voc-split is ignored: {self.source} is no PASCAL VOC folder", stacklevel=2
            )
        if source.kind != "coco" and self.coco_images is not None:
            warnings.warn(
                f"--coco-images is ignored: {self.source} is no file of COCO's instances",
                stacklevel=2,
            )
        if source.kind != "rendered" and self.synthetic_split != "all":
            raise InputError(
                f"--synthetic-split {self.synthetic_split}: {self.source} is no set of "
                "render-synthetic; leave it out"
            )
        if not is_table and columns != TableColumns():
            warnings.warn(
                f"--path-column and --label-column are ignored: {self.source} is no table",
                stacklevel=2,
            )
        check_first_path(self.source, source)
        folders = parse_target_folders(self.target_folders)
        return FolderTargets(source, folders) if folders else source

    def check(self) -> None:
        """Check the values.

        Raises:
            InputError: if one is out of range.
        """
        for name in self.drop:
            if name not in get_args(Drop):
                raise InputError(f"--drop ({name!r}) is not known{nearest(name, get_args(Drop))}")
        if self.encode == "tiled":
            require_transcoder()
        if self.encode in ("keep", "tiled") and self.max_pixels > MAX_PIXELS:
            raise InputError(
                f"--max-pixels ({self.max_pixels}): --encode {self.encode} changes no size, and "
                f"loaders decode up to {MAX_PIXELS} pixels; stay below, or make larger images "
                "smaller by --encode resized or raw"
            )
        if self.encode in ("keep", "tiled") and (self.resize_short, self.quality) != (256, 90):
            warnings.warn(
                f"--resize-short and --quality are ignored: --encode {self.encode} changes no "
                "pixel",
                stacklevel=2,
            )
        if self.encode == "raw" and self.quality != 90:
            warnings.warn("--quality is ignored: --encode raw stores pixels", stacklevel=2)
        if self.keep_order and self.seed:
            warnings.warn("--seed is ignored: --keep-order shuffles nothing", stacklevel=2)


# --- The target -----------------------------------------------------------------------------------


def _check_target(config: ConvertConfig) -> Manifest | None:
    """Look at the target before anything is written; return the manifest if it is finished."""
    out = config.out
    if not out.exists():
        return None
    if not out.is_dir():
        raise InputError(f"{out}: not a folder; choose a new folder for the dataset")
    if (out / MANIFEST_NAME).exists():
        manifest = read_manifest(out)
        if not config.resume:
            raise InputError(
                f"{out}: holds a finished dataset of "
                f"{spell_number(manifest.num_samples, 'sample')}; choose a new folder (fastssl "
                "combine-shards links several datasets into one), or remove it first"
            )
        return manifest
    if (out / BUILDING_NAME).is_dir():
        if not config.resume:
            # Of a folder that another conversion is filling nobody shall hear "remove it".
            with contextlib.suppress(OSError), lock_building(out / BUILDING_NAME):
                pass
            raise InputError(
                f"{out}: holds an unfinished conversion; add --resume to go on with it, or remove "
                "the folder"
            )
        return None
    if any(out.iterdir()):
        raise InputError(f"{out}: not empty, and not a conversion of ours; choose a new folder")
    return None


def _describe_targets(targets: Sequence[TargetEntry | TargetSpec | TargetColumn]) -> str:
    return " ".join(f"{target.name}:{target.dtype}" for target in targets)


def _describe_order(seed: int | None) -> str:
    return "--keep-order" if seed is None else f"--seed {seed}"


def _check_same_options(
    config: ConvertConfig, before: ConversionPlan | Manifest, source: Source | None = None
) -> None:
    """Make sure that --resume means the conversion that was begun."""
    options = config.encoding.options
    pairs: dict[str, tuple[object, object]] = {
        "--encode": (before.encoding, config.encode),
        "order": (_describe_order(before.shuffle_seed), _describe_order(config.shuffle_seed)),
    }
    if before.encoding == config.encode:
        for name, old in before.encoding_options.items():
            pairs[f"--{name.replace('_', '-')}"] = (old, options[name])
    if config.samples_per_shard is not None:
        pairs["--samples-per-shard"] = (before.samples_per_shard, config.samples_per_shard)
    if isinstance(before, ConversionPlan) and source is not None:
        settings = {n: getattr(before, n) for n in ("max_seconds", "entry_points")}
        for name, old in {**asdict(before.limits), **settings}.items():
            pairs[f"--{name.replace('_', '-')}"] = (old, getattr(config, name))
        pairs["--drop"] = (" ".join(before.drop), " ".join(sorted({*config.drop})))
        pairs["SOURCE"] = (before.source, absolute_place(config.source))
        for name in before.source_options | source.options:
            pairs[name] = (before.source_options.get(name), source.options.get(name))
    else:
        folders = [folder.name for folder in parse_target_folders(config.target_folders)]
        had = {target.name: target for target in before.targets}
        if config.targets:
            of_table = [had[name] for name in had if name not in folders]
            wanted = parse_target_columns(config.targets)
            pairs["--targets"] = (_describe_targets(of_table), _describe_targets(wanted))
        of_folders = " ".join(name for name in folders if name in had)
        pairs["--target-folders"] = (of_folders, " ".join(folders))
    differences = list_differences(pairs)
    if differences:
        raise InputError(
            f"{config.out}: cannot be resumed with other options: {differences}; repeat the first "
            "ones, or choose a new folder"
        )


def _report_finished(config: ConvertConfig, manifest: Manifest) -> ConversionReport:
    _check_same_options(config, manifest)
    building = config.out / BUILDING_NAME
    if building.is_dir():  # stopped between the manifest and the tidying up
        load_plan(building)  # refuses what is no rest of this conversion
        with lock_building(building):
            remove_building(building)
    return replace(report_dataset(manifest), was_finished=True)


def _remove_leftovers(building: Path) -> None:
    """Remove what workers were at when they were stopped."""
    for pattern in ("*.tmp", "slice-*.tar"):
        for path in building.glob(pattern):
            path.unlink(missing_ok=True)


# --- The steps ------------------------------------------------------------------------------------


def _get_plan(config: ConvertConfig, source: Source, building: Path) -> ConversionPlan:
    if source.kind in ("folder", "voc", "rendered") and isinstance(config.source, Path):
        inner, outer = config.out.resolve(), config.source.resolve()
        if inner.is_relative_to(outer):
            raise InputError(
                f"{config.out}: lies inside the source {config.source}; choose a folder outside"
            )
    plan = load_plan(building)
    if plan is None:
        plan = make_plan(
            config.source,
            source,
            config.encoding,
            config.shuffle_seed,
            config.samples_per_shard,
            config.limits,
            config.max_seconds,
            building,
            config.drop,
            config.entry_points,
        )
        if (what := source.describe_labels()) is not None:
            warnings.warn(what, stacklevel=2)
        return plan
    _check_same_options(config, plan, source)
    check_same_listing(plan, source)
    return plan


def _join_cluster(config: ConvertConfig) -> contextlib.AbstractContextManager[RayJobs | None]:
    """Join Ray's machines, if wanted: before the listing, which takes its time."""
    if not config.ray:
        return contextlib.nullcontext()
    return contextlib.closing(RayJobs(config.ray, config.workers, "a conversion on Ray"))


def _convert_slices(
    config: ConvertConfig, plan: ConversionPlan, cluster: RayJobs | None, on_progress: Progress
) -> list[SliceRecord]:
    records: dict[int, SliceRecord] = {}
    for number in range(plan.num_slices):
        record = load_record(config.out, number)
        if record is not None:
            records[number] = record
    waiting = [number for number in range(plan.num_slices) if number not in records]
    sizes = [stop - start for start, stop in map(plan.slice_bounds, range(plan.num_slices))]
    done = sum(sizes) - sum(sizes[number] for number in waiting)
    on_progress(done, plan.num_entries)

    def advance(count: int) -> None:
        on_progress(count, plan.num_entries)

    if cluster is not None:
        made = convert_on_ray(config.out, plan, waiting, cluster, advance)
    else:
        convert_one = functools.partial(convert_slice, out=config.out, plan=plan)
        num_workers = config.workers or available_cpus()
        made = list(run_jobs(convert_one, waiting, num_workers, advance, shard_name))
    records.update(zip(waiting, made, strict=True))
    for number, size in enumerate(sizes):
        _check_account(config.out, number, records[number], size)
    return [records[number] for number in range(plan.num_slices)]


def _check_account(out: Path, number: int, record: SliceRecord, size: int) -> None:
    """See that every entry of a slice was written or left out."""
    if record.samples + len(record.skipped) != size:
        raise RunFailed(
            f"{out / shard_name(number)}: {spell_number(size, 'entry', 'entries')} read, "
            f"{record.samples:,} written and {len(record.skipped):,} left out; remove {out} and "
            "convert again"
        )


# --- The main path --------------------------------------------------------------------------------


def _convert_locked(
    config: ConvertConfig,
    source: Source,
    building: Path,
    cluster: RayJobs | None,
    on_progress: Progress,
) -> tuple[Manifest, list[SliceRecord]]:
    """Convert; return the manifest, and what became of the slices."""
    try:
        _remove_leftovers(building)
        plan = _get_plan(config, source, building)
        records = _convert_slices(config, plan, cluster, on_progress)
        return finish(config.source, config.out, plan, records), records
    finally:
        if building.is_dir():
            _remove_leftovers(building)
            if load_plan(building) is None:  # nothing to go on with
                remove_building(building)


def convert(config: ConvertConfig, on_progress: Progress = say_nothing) -> ConversionReport:
    """Convert a source into a dataset.

    Args:
        config: what, where to and how.
        on_progress: told of entries; the first time of those that an earlier call had done.

    Returns:
        What was done.

    Raises:
        InputError: if the source, the target or an option is wrong.
        StoppedBySignal: on SIGTERM or SIGINT; ``resume`` goes on.
        OSError: if the target cannot be written; ``resume`` goes on when it can be.
    """
    begin = time.monotonic()
    if (finished := _check_target(config)) is not None:
        return _report_finished(config, finished)
    config = replace(config, entry_points=settle_entry_points(config.entry_points))
    source = config.open_source()  # a wrong source must not leave an empty target behind
    building = config.out / BUILDING_NAME
    is_new = not config.out.exists()
    message = f"finished shards are kept in {config.out}, go on by the same command with --resume"
    with (
        stopping_on_signals(message),
        naming_file(config.out),
        _join_cluster(config) as cluster,
    ):
        try:
            make_folder(building, "OUT", config.out)
            with lock_building(building):
                manifest, records = _convert_locked(config, source, building, cluster, on_progress)
        except OSError as error:
            code, line = describe_failure(error)
            if code != EXIT_ELSE or line is None or not building.is_dir():
                raise
            raise RunFailed(f"{line.removeprefix('error: ')}; {message}") from error
        finally:
            if is_new and config.out.is_dir() and not any(config.out.iterdir()):
                shutil.rmtree(config.out)
    tiling = dict(sum((Counter(record.tiling) for record in records), Counter()))
    objects = dict(sum((Counter(record.objects) for record in records), Counter()))
    report = replace(report_dataset(manifest), tiling=tiling, objects=objects)
    return replace(report, seconds=round(time.monotonic() - begin, 3))
