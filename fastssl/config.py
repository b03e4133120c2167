"""The frozen dataclasses of a run. A task's own config stands in the task's file.

The docstring below a field is the command line's help text. ``free()`` marks what may change
between stops of one run; everything else is the run's identity.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

import tyro

from .address import parse_place
from .errors import InputError, nearest
from .randomness import MAX_SEED
from .sampling import ChunkLayout

TaskConfig = TypeVar("TaskConfig")

LoaderName = Literal["auto", "webdataset", "native", "dali", "ffcv", "fixed"]
LOADERS: tuple[str, ...] = get_args(LoaderName)
Dct = Literal["exact", "scaled"]
"""How much of a picture's detail is decoded: all of it, or what the views can show."""
Precision = Literal["fp32", "bf16", "fp16"]
OptimizerName = Literal["sgd", "lars", "adam", "adamw", "apex_fused_sgd", "apex_fused_lamb"]
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)


def free(default: Any) -> Any:
    """Declare a field that may change between stops of a run."""
    return field(default=default, metadata={"free": True})


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _require_finite(prefix: str, config: Any) -> None:
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if isinstance(value, float):
            _require(
                math.isfinite(value), f"{prefix}.{item.name} ({value}) must be a finite number"
            )


def _require_known(name: str, given: str, known: tuple[str, ...]) -> None:
    _require(given in known, f"{name} ('{given}') is not known{nearest(given, known)}")


@dataclass(frozen=True)
class LoaderConfig:
    """Where samples come from, in which order, and by which back end."""

    path: Annotated[str | Path, tyro.conf.arg(metavar="FOLDER|ADDRESS")] = Path()
    """Dataset: the folder that make_shards wrote, or its address in an object store
    (s3://bucket/folder, https://host/folder)."""
    loader: LoaderName = free("auto")
    """Back end: auto chooses and says why."""
    beton: Path = free(Path())
    """Loader ffcv: the file that make_beton wrote; without it dataset.beton in the dataset's
    folder."""
    global_batch_size: int = 256
    """Images a step over all ranks; must divide by world size x accumulation."""
    dct: Dct = "exact"
    """Loader native: exact decodes the reference picture; scaled reduces a JPEG by 2, 4 or 8 while
    it is decoded, as far as no view of it is larger: faster for large photographs, and where it
    reduces 1.1 to 1.5 of 255 away from the reference picture. Other loaders ignore it."""
    num_threads: int = free(0)
    """Loader threads or processes a rank; 0 takes this rank's share of the usable cores."""
    seed: Annotated[int, tyro.conf.Suppress] = 0
    """Seed of the order and of everything drawn for a sample; in a run, the run's own."""
    order: Literal["global", "chunked"] = "global"
    """global: any sample may follow any; chunked: ranks read long runs of a few shards, as disks
    and object stores need."""
    chunk_size: int = ChunkLayout.chunk_size
    """Chunked order: consecutive samples in a chunk."""
    num_lanes: int = ChunkLayout.num_lanes
    """Chunked order: lanes; use a multiple of the world size."""
    window_chunks: int = ChunkLayout.window_chunks
    """Chunked order: chunks whose samples are mixed inside a lane."""
    max_samples: int = 0
    """Use the samples with ids below this; 0 uses all."""
    nominal_samples: int = free(0)
    """Samples that the recipe is meant for: a tenth more or less is a warning; 0 is any number."""
    max_bad_share: float = 0.01
    """Stop when more than this share of an epoch's samples so far, and at least 10, are bad."""
    allow_repeat_in_batch: bool = False
    """Allow a batch larger than the dataset, in which samples repeat."""
    ledger: bool = free(False)
    """Write every sample id used to ledger.rank<r>.jsonl."""
    prefetch_batches: int = free(2)
    """Batches that each loader worker keeps ready."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        object.__setattr__(self, "path", parse_place(self.path))
        _require_known("data.loader", self.loader, LOADERS)
        _require_known("data.order", self.order, ("global", "chunked"))
        _require_known("data.dct", self.dct, get_args(Dct))
        _require(
            self.global_batch_size >= 1,
            f"data.global_batch_size ({self.global_batch_size}) must be at least 1",
        )
        _require(0 <= self.seed <= MAX_SEED, f"seed ({self.seed}) must lie in 0 .. 2**64 - 1")
        for name in ("num_threads", "max_samples", "nominal_samples"):
            value = getattr(self, name)
            _require(value >= 0, f"data.{name} ({value}) must not be negative; 0 is automatic")
        _require(
            self.prefetch_batches >= 1,
            f"data.prefetch_batches ({self.prefetch_batches}) must be at least 1",
        )
        _require(
            0 <= self.max_bad_share <= 1,
            f"data.max_bad_share ({self.max_bad_share}) must lie in 0 .. 1",
        )
        self.layout  # noqa: B018 - validates the chunk fields

    @property
    def layout(self) -> ChunkLayout:
        """The shape of the chunked order."""
        return ChunkLayout(self.chunk_size, self.num_lanes, self.window_chunks)


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser."""

    name: OptimizerName = "sgd"
    """Optimiser; those of NVIDIA apex need it installed and a GPU."""
    lr: float = 0.1
    """Learning rate for a batch of lr_batch_size images."""
    lr_batch_size: int = 256
    """The rate grows linearly with the global batch over this one; 0 takes lr as it is."""
    momentum: float = 0.9
    """Momentum of sgd, lars and apex_fused_sgd."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    beta1: float = 0.9
    """Decay of Adam's and LAMB's first moment; 0.8 in Newell and Deng 2020."""
    beta2: float = 0.999
    """Decay of Adam's and LAMB's second moment."""
    eps: float = 1e-8
    """Added to the root of Adam's and LAMB's second moment."""
    trust_coefficient: float = 0.001
    """LARS: length of an update over the length of its weights, before the learning rate."""
    weight_decay: float = 1e-4
    """Weight decay: L2 in the gradient, decoupled for adamw and LAMB."""
    head_weight_decay: float | None = None
    """Weight decay of the task's head alone, without the embedding of Kolesnikov's patch head; None
    takes weight_decay."""
    decay_norm: bool = False
    """Decay the scales and shifts of normalisation layers too."""
    decay_bias: bool = True
    """Decay biases too."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _require_known("optim.name", self.name, OPTIMIZERS)
        _require_finite("optim", self)
        not_negative = ("lr", "lr_batch_size", "weight_decay", "head_weight_decay", "eps")
        for name in (*not_negative, "trust_coefficient"):
            value = getattr(self, name)
            _require(value is None or value >= 0, f"optim.{name} ({value}) must not be negative")
        for name in ("momentum", "beta1", "beta2"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"optim.{name} ({value}) must lie in 0 .. 1, 1 excluded")
        _require(
            not self.nesterov or self.momentum > 0,
            "optim.nesterov (true) needs momentum; set --optim.momentum above 0",
        )


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run: a function of the samples seen, whatever the batch."""

    epochs: float = 105.0
    """Length of the run in epochs."""
    kind: Literal["step", "cosine", "linear"] = "step"
    """step: times gamma at each milestone; cosine, linear: down to final_share at the end."""
    milestones: tuple[float, ...] = (30.0, 60.0, 90.0, 100.0)
    """Step schedule: epochs at which the rate falls."""
    gamma: float = 0.1
    """Step schedule: factor at each milestone."""
    final_share: float = 0.0
    """Cosine and linear schedule: share of the rate at the end."""
    warmup_epochs: float = 5.0
    """Epochs of linear warm-up; 0 for none."""
    warmup_start: float = 0.25
    """Share of the rate at which the warm-up begins."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _require_finite("schedule", self)
        _require(self.epochs > 0, f"schedule.epochs ({self.epochs}) must be above 0")
        _require(
            self.warmup_epochs >= 0,
            f"schedule.warmup_epochs ({self.warmup_epochs}) must not be negative",
        )
        _require_known("schedule.kind", self.kind, ("step", "cosine", "linear"))
        for name in ("warmup_start", "final_share"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"schedule.{name} ({value}) must lie in 0 .. 1")
        _require(
            list(self.milestones) == sorted(self.milestones),
            f"schedule.milestones {self.milestones} must rise",
        )


@dataclass(frozen=True)
class CheckpointConfig:
    """When the state of the run is saved, and how many states are kept."""

    every_steps: int = 1000
    """Steps between checkpoints."""
    keep: int = 2
    """Newest checkpoints to keep, at least 2: the newest may be damaged."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _require(
            self.every_steps >= 1,
            f"checkpoint.every_steps ({self.every_steps}) must be at least 1",
        )
        _require(
            self.keep >= 2,
            f"checkpoint.keep ({self.keep}) must be at least 2; the newest may be damaged",
        )


@dataclass(frozen=True)
class LogConfig:
    """What is written while the run goes on."""

    every_steps: int = free(50)
    """Steps between lines of metrics.jsonl and points in TensorBoard."""
    pictures_every_steps: int = free(1000)
    """Steps between pictures in TensorBoard; 0 for none."""
    tensorboard: bool = free(True)
    """Write TensorBoard events."""
    progress: bool = free(True)
    """Show a progress bar."""
    max_data_wait_share: float = free(1.0)
    """Fail a run, once it is saved, that spent more than this share of its time waiting for data;
    1 never does."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _require(self.every_steps >= 1, f"log.every_steps ({self.every_steps}) must be at least 1")
        _require(
            self.pictures_every_steps >= 0,
            f"log.pictures_every_steps ({self.pictures_every_steps}) must not be negative",
        )
        _require(
            0 <= self.max_data_wait_share <= 1,
            f"log.max_data_wait_share ({self.max_data_wait_share}) must lie in 0 .. 1",
        )


@dataclass(frozen=True)
class RunConfig(Generic[TaskConfig]):
    """One pretraining run. A recipe gives one; the command line changes fields of it."""

    recipe: Annotated[str, tyro.conf.Suppress]
    """Name of the recipe that this run began from."""
    task: TaskConfig
    """The pretext task's own config."""
    output_dir: Path = Path()
    """Run directory; a run found there goes on."""
    trunk: str = "resnet50"
    """Trunk."""
    width: int = 4
    """Width factor of the trunk; 4 is the standard ResNet."""
    seed: int = 0
    """Seed of everything."""
    max_steps: int = free(0)
    """Stop after this many steps in all, counted from the run's beginning; 0 for the schedule."""
    accumulation: int = 1
    """Micro-batches a step on each rank."""
    precision: Precision = "fp32"
    """Number format of the forward and backward pass; fp16 scales the loss."""
    loss_scale: float = 2.0**16
    """First scale of the loss in fp16; it then halves after an overflow and doubles in time."""
    channels_last: bool = True
    """Keep activations in channels_last memory order."""
    compile: bool = False
    """Compile the network with torch.compile."""
    sync_bn: bool = False
    """Batch normalisation over all ranks (GPU only)."""
    gradient_compression: Literal["none", "bf16", "fp16"] = "none"
    """Number format in which gradients travel between ranks; halves the traffic."""
    deterministic: bool = True
    """Bit-equal resume: deterministic kernels where there is a choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Training device."""
    data: LoaderConfig = field(default_factory=LoaderConfig)
    """The data."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate's course."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logs."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _require(self.accumulation >= 1, f"accumulation ({self.accumulation}) must be at least 1")
        _require(self.max_steps >= 0, f"max_steps ({self.max_steps}) must not be negative")
        _require_known("precision", self.precision, get_args(Precision))
        _require_known("device", self.device, ("auto", "cpu", "cuda"))
        _require_known("gradient_compression", self.gradient_compression, ("none", "bf16", "fp16"))
        _require(self.loss_scale > 0, f"loss_scale ({self.loss_scale}) must be above 0")
        _require(0 <= self.seed <= MAX_SEED, f"seed ({self.seed}) must lie in 0 .. 2**64 - 1")


def check_batch_size(global_batch_size: int, world_size: int, accumulation: int) -> int:
    """Return the images of one micro-batch on one rank.

    Raises:
        InputError: if the global batch does not divide; offers the nearest sizes that do.
    """
    parts = world_size * accumulation
    if global_batch_size % parts:
        lower = global_batch_size // parts * parts
        sizes = [size for size in (lower, lower + parts) if size]
        raise InputError(
            f"global_batch_size ({global_batch_size}) must be a multiple of world_size x "
            f"accumulation ({world_size} x {accumulation} = {parts}); set "
            f"--data.global-batch-size to {' or '.join(map(str, sizes))}"
        )
    return global_batch_size // parts


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return every field as dotted name -> plain value, in order.

    Args:
        config: a config dataclass.
        prefix: put before each name.
    """
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        name = f"{prefix}{item.name}"
        if name == "data.seed":
            continue  # a run has one seed, its own
        if dataclasses.is_dataclass(value):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = str(value) if isinstance(value, Path) else _plain(value)
    return flat


def identity(config: RunConfig, dataset_digest: str) -> dict[str, Any]:
    """Return what makes the run itself: every field that is not free, and the dataset's digest.

    The place of the data and of the run may change; their content may not.
    """
    free_names = {"output_dir", "data.path"} | _free_names(config)
    flat = {name: value for name, value in flatten(config).items() if name not in free_names}
    return {**flat, "dataset_digest": dataset_digest}


def list_defaults(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return what every field is where nobody sets it, by the names of ``flatten``.

    A run that began before a field existed ran as this field's default says: a new field's default
    is what was done before.

    Args:
        config: a config dataclass.
        prefix: put before each name.
    """
    defaults: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        name = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            defaults.update(list_defaults(value, f"{name}."))
        elif item.default is not dataclasses.MISSING:
            given = item.default
            defaults[name] = str(given) if isinstance(given, Path) else _plain(given)
    return defaults


def _free_names(config: Any, prefix: str = "") -> set[str]:
    names: set[str] = set()
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata.get("free"):
            names.add(f"{prefix}{item.name}")
        elif dataclasses.is_dataclass(value):
            names |= _free_names(value, f"{prefix}{item.name}.")
    return names


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
