"""The frozen dataclasses of a run. A task's own config stands in the task's file.

The docstring below a field is the command line's help text, its type says what it may be.
``free()`` marks what may change between stops of one run; everything else is the run's identity.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro

from .address import CachePlace, hide_credentials, parse_place
from .errors import InputError
from .fields import Checked, Count, CountOrZero, NumThreads, Range, Share, free, walk
from .randomness import Seed
from .sampling import MAX_SAMPLES, ChunkLayout, ChunkSize, NumLanes, WindowChunks
from .system.files import sha256_of

TaskConfig = TypeVar("TaskConfig")

LoaderName = Literal["auto", "webdataset", "native", "dali", "ffcv", "fixed"]
Dct = Literal["exact", "scaled"]
"""How much of a picture's detail is decoded, all of it or what the views can show."""
Precision = Literal["fp32", "bf16", "fp16"]
OptimizerName = Literal["sgd", "lars", "adam", "adamw", "apex_fused_sgd", "apex_fused_lamb"]
MAX_WIDTH = 64
"""Greatest width factor of a trunk."""

_Million = Range(0, 1_000_000)
_Factor = Range(0, 1000)
_Decay = Annotated[float, Range(0, 1, without=1)]


@dataclass(frozen=True)
class LoaderConfig(Checked, prefix="data."):
    """Where samples come from, in which order, and by which back end."""

    path: Annotated[str | Path, tyro.conf.arg(metavar="FOLDER|ADDRESS")] = free(
        Path(), is_required=True
    )
    """Dataset: the folder that make-shards wrote, or its address in an object store
    (s3://bucket/folder, https://host/folder)."""
    loader: LoaderName = free("auto")
    """Back end: auto chooses and says why."""
    beton: Path = free(Path())
    """Loader ffcv: the file that make-beton wrote; without it dataset.beton in the dataset's
    folder."""
    global_batch_size: Annotated[int, Range(1, 1_000_000)] = 256
    """Images a step over all ranks; must divide by world size x accumulation."""
    dct: Dct = "exact"
    """Loader native: exact decodes the reference picture; scaled reduces a JPEG by 2, 4 or 8 while
    it is decoded, as far as no view of it is larger: faster for large photographs, and where it
    reduces 1.1 to 1.5 of 255 away from the reference picture. Other loaders ignore it."""
    num_threads: NumThreads = free(0)
    """Loader threads or processes a rank; 0 takes this rank's share of the usable cores."""
    seed: Annotated[Seed, tyro.conf.Suppress] = 0
    """Seed of the order and of everything drawn for a sample; in a run, the run's own."""
    order: Literal["global", "chunked"] = "global"
    """global: any sample may follow any; chunked: ranks read long runs of a few shards, as disks
    and object stores need."""
    chunk_size: ChunkSize = ChunkLayout.chunk_size
    """Chunked order: consecutive samples in a chunk."""
    num_lanes: NumLanes = ChunkLayout.num_lanes
    """Chunked order: lanes; use a multiple of the world size."""
    window_chunks: WindowChunks = ChunkLayout.window_chunks
    """Chunked order: chunks whose samples are mixed inside a lane."""
    max_samples: Annotated[int, Range(0, MAX_SAMPLES)] = 0
    """Use the samples with ids below this; 0 uses all."""
    hold_out: Annotated[int, Range(0, MAX_SAMPLES)] = 0
    """Samples that are held out, chosen by hold_out_seed among those with ids below max_samples; 0
    holds out none. The same ones for every run and probe on a dataset."""
    hold_out_seed: Seed = 0
    """Seed of what is held out."""
    part: Literal["remaining", "held_out"] = "remaining"
    """Which samples are used: those that remain, or exactly those held out."""
    ids_file: Annotated[Path, tyro.conf.Suppress] = free(Path())
    """Use exactly the samples whose ids stand in this file (.npy, int64, ascending): the training
    side of a split, or a share of the labels."""
    ids_sha256: Annotated[str, tyro.conf.Suppress] = ""
    """SHA-256 of that file; filled in, so that a run keeps to its samples."""
    targets: Annotated[tuple[str, ...], tyro.conf.Suppress] = free(())
    """Targets of the dataset that batches carry (docs/shards.md); none costs nothing."""
    target_files: Annotated[tuple[Path, ...], tyro.conf.Suppress] = free(())
    """Targets from outside the dataset that batches carry, as proposals.npy: row = sample id, with
    proposals.json beside it, by the file's name."""
    target_sha256: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """SHA-256 of what stands beside each of these; filled in, so that a run keeps to its rows."""
    nominal_samples: Annotated[int, Range(0, MAX_SAMPLES)] = free(0)
    """Samples that the recipe is meant for: a tenth more or less is a warning; 0 is any number."""
    max_bad_share: Share = 0.01
    """Stop when more than this share of an epoch's samples so far, and at least 10, are bad."""
    allow_repeat_in_batch: bool = False
    """Allow a batch larger than the dataset, in which samples repeat."""
    ledger: bool = free(False)
    """Write every sample id used to ledger.rank<r>.jsonl."""
    prefetch_batches: Annotated[int, Range(1, 1000)] = free(2)
    """Batches that each loader worker keeps ready."""
    cache_dir: Path = free(Path())
    """Folder on this machine's own disk in which a dataset of an object store is kept as it is
    read, so that later epochs are read from there; all ranks and jobs of the machine may share it.
    Without it nothing of it is kept but its index."""
    cache_gb: Annotated[float, Range(0, 1_000_000, without=0)] = free(100.0)
    """GB (1e9 bytes) that a dataset may take in cache_dir; it may be less than the dataset."""

    def __post_init__(self) -> None:
        """Tell folders and addresses apart, and samples that a file names by its content."""
        object.__setattr__(self, "path", parse_place(self.path))
        if self.target_files and not self.target_sha256:
            object.__setattr__(self, "target_sha256", tuple(map(_hash_beside, self.target_files)))
        if self.ids_file != Path() and not self.ids_sha256:
            object.__setattr__(self, "ids_sha256", sha256_of(self.ids_file))
        super().__post_init__()

    def check(self) -> None:
        """Refuse a part of nothing, two ways to choose samples, and targets of one name."""
        names = [*self.targets, *(path.stem for path in self.target_files)]
        if len(set(names)) < len(names):
            doubled = next(name for name in names if names.count(name) > 1)
            raise InputError(
                f"data.target_files: {doubled!r} comes twice among the targets ({', '.join(names)})"
                "; give one of the files, and what stands beside it, another name"
            )
        if self.ids_file != Path() and (self.hold_out or self.max_samples):
            raise InputError(
                f"data.ids_file ({self.ids_file}) says which samples are used, and so do "
                f"data.hold_out ({self.hold_out}) and data.max_samples ({self.max_samples}); "
                "leave them at 0"
            )
        if self.part == "held_out" and not self.hold_out:
            raise InputError(
                "data.part (held_out) needs data.hold_out (0); set --data.hold-out as the training "
                "run has it"
            )

    @property
    def layout(self) -> ChunkLayout:
        """The shape of the chunked order."""
        return ChunkLayout(self.chunk_size, self.num_lanes, self.window_chunks)

    @property
    def cache(self) -> CachePlace | None:
        """Where a dataset of an object store is kept, if anywhere."""
        return CachePlace.of(self.cache_dir, self.cache_gb)


def _hash_beside(path: Path) -> str:
    """Return what stands for a target from outside: the SHA-256 of its JSON."""
    try:
        return sha256_of(path.with_suffix(".json"))
    except FileNotFoundError:
        raise InputError(
            f"data.target_files: {path.with_suffix('.json')}, which says what {path.name} is of, "
            "is missing; restore it, or make both again"
        ) from None


@dataclass(frozen=True)
class OptimConfig(Checked, prefix="optim."):
    """The optimiser."""

    name: OptimizerName = "sgd"
    """Optimiser; those of NVIDIA apex need it installed and a GPU."""
    lr: Annotated[float, Range(0, 1e30)] = 0.1
    """Learning rate for a batch of lr_batch_size images."""
    lr_batch_size: Annotated[int, _Million] = 256
    """The rate grows linearly with the global batch over this one; 0 takes lr as it is."""
    momentum: _Decay = 0.9
    """Momentum of sgd, lars and apex_fused_sgd."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    beta1: _Decay = 0.9
    """Decay of Adam's and LAMB's first moment; 0.8 in Newell and Deng 2020."""
    beta2: _Decay = 0.999
    """Decay of Adam's and LAMB's second moment."""
    eps: Share = 1e-8
    """Added to the root of Adam's and LAMB's second moment."""
    trust_coefficient: Annotated[float, _Factor] = 0.001
    """LARS: length of an update over the length of its weights, before the learning rate."""
    weight_decay: Annotated[float, _Factor] = 1e-4
    """Weight decay: L2 in the gradient, decoupled for adamw and LAMB."""
    head_weight_decay: Annotated[float | None, _Factor] = None
    """Weight decay of the task's head alone, without the embedding of Kolesnikov's patch head; None
    takes weight_decay."""
    decay_norm: bool = False
    """Decay the scales and shifts of normalisation layers too."""
    norm_weight_decay: Annotated[float | None, _Factor] = None
    """Weight decay of those scales and shifts alone; None leaves it to decay_norm."""
    decay_bias: bool = True
    """Decay biases too."""
    decay_root: bool = True
    """Decay the kernels of the trunk's first stage too; those of RevNet's root do not in Kolesnikov
    et al. 2019."""
    bias_lr_factor: Annotated[float, _Factor] = 1.0
    """Rate of biases, but of normalisation layers, over that of weights; 2 in Caffe's AlexNets."""
    head_lr_factor: Annotated[float, _Factor] = 1.0
    """Rate of the task's head over that of the trunk, which the schedule gives."""

    def check(self) -> None:
        """Refuse Nesterov's form of no momentum."""
        if self.nesterov and not self.momentum:
            raise InputError("optim.nesterov (true) needs momentum; set --optim.momentum above 0")


@dataclass(frozen=True)
class ScheduleConfig(Checked, prefix="schedule."):
    """The learning rate over the run: a function of the samples seen, whatever the batch."""

    epochs: Annotated[float, Range(0, 1_000_000, without=0)] = 105.0
    """Length of the run in epochs."""
    epoch_samples: Annotated[int, Range(0, MAX_SAMPLES)] = 0
    """Samples that an epoch of this schedule counts, whatever the dataset's size: the same number
    gives datasets of every size as many steps; 0 takes the dataset's own."""
    kind: Literal["step", "cosine", "linear"] = "step"
    """step: times gamma at each milestone; cosine, linear: down to final_share at the end."""
    milestones: Annotated[tuple[float, ...], _Million] = (30.0, 60.0, 90.0, 100.0)
    """Step schedule: epochs at which the rate falls."""
    gamma: Share = 0.1
    """Step schedule: factor at each milestone."""
    final_share: Share = 0.0
    """Cosine and linear schedule: share of the rate at the end."""
    exponent: Annotated[float, Range(-1, 100)] = 0.0
    """Cosine and linear schedule: the rate is multiplied by this power of the share of the course
    that is left; 0 leaves it."""
    warmup_epochs: Annotated[float, _Million] = 5.0
    """Epochs of linear warm-up; 0 for none."""
    warmup_start: Share = 0.25
    """Share of the rate at which the warm-up begins."""

    def check(self) -> None:
        """Refuse milestones out of order."""
        if list(self.milestones) != sorted(self.milestones):
            raise InputError(f"schedule.milestones {self.milestones} must rise")


@dataclass(frozen=True)
class CheckpointConfig(Checked, prefix="checkpoint."):
    """When the state of the run is saved, and how many states are kept."""

    every_steps: Count = 1000
    """Steps between checkpoints."""
    keep: Annotated[int, Range(2, 1_000_000)] = 2
    """Newest checkpoints to keep, at least 2: the newest may be damaged."""


@dataclass(frozen=True)
class LogConfig(Checked, prefix="log."):
    """What is written while the run goes on."""

    every_steps: Count = free(50)
    """Steps between lines of metrics.jsonl and points in TensorBoard."""
    pictures_every_steps: CountOrZero = free(1000)
    """Steps between pictures in TensorBoard, which come at steps 1, 10, 100 ... and at the last one
    too; 0 for none."""
    tensorboard: bool = free(True)
    """Write TensorBoard events."""
    progress: bool = free(True)
    """Show a progress bar."""
    max_data_wait_share: Share = free(1.0)
    """Fail a run, once it is saved, that spent more than this share of its time waiting for data;
    1 never does."""


@dataclass(frozen=True)
class CheckConfig(Checked, prefix="check."):
    """Whether the machine computes the same from the same."""

    replay_every: CountOrZero = free(0)
    """Steps between replays: the step's batch is decoded again and its passes are run again on the
    same weights, and what differs by a bit ends the run before the update; 0 for none."""


@dataclass(frozen=True)
class SpikeConfig(Checked, prefix="spike."):
    """When a loss is said to have leapt."""

    threshold: Annotated[float, Range(0, 1000)] = free(6.0)
    """Standard deviations that the logarithm of a step's loss lies above the mean of the steps
    before; such a step is recorded, with a capsule to run it again; 0 looks for none."""
    window: Annotated[int, Range(10, 100_000)] = free(200)
    """Steps before that count; until there are half as many, nothing is said."""
    skip_steps: Annotated[int, Range(0, 100_000)] = 0
    """Steps to leave out around one whose loss leaps or stays non-finite, half of them before it:
    the run goes back to its checkpoint before them, and on behind them; 0 leaves nothing out."""
    max_rollbacks: Annotated[int, Range(1, 10_000)] = free(10)
    """Times that a run may go back; then it stops."""

    @property
    def reach(self) -> int:
        """Steps that are left out before the one that leaps."""
        return self.skip_steps // 2


@dataclass(frozen=True)
class WatchdogConfig(Checked, prefix="watchdog."):
    """When a run that does not get on is ended."""

    timeout_s: Annotated[float, Range(0, 1_000_000)] = free(120.0)
    """Seconds after which a rank that hangs is named with what it does and its stacks, and all
    ranks end; ten times what the same has taken before, if that is more; 0 waits for ever."""

    def check(self) -> None:
        """Refuse a limit that nothing keeps to."""
        if 0 < self.timeout_s < 1:
            raise InputError(
                f"watchdog.timeout_s ({self.timeout_s}) must be 0, which waits for ever, or 1 "
                "second at least; set --watchdog.timeout-s 120"
            )


@dataclass(frozen=True)
class ValidationConfig(Checked, prefix="validation."):
    """What a supervised run is tested on while it trains."""

    path: Annotated[str | Path, tyro.conf.arg(metavar="FOLDER|ADDRESS")] = free(Path())
    """Labelled dataset whose images a supervised run classifies while it trains; without it those
    that --data.hold-out holds out, if any."""
    every_steps: CountOrZero = free(0)
    """Steps between tests, whose results stand in the next line of metrics.jsonl; 0 is once an
    epoch; there is one at the last step too."""

    def __post_init__(self) -> None:
        """Tell folders and addresses apart."""
        object.__setattr__(self, "path", parse_place(self.path))
        super().__post_init__()


@dataclass(frozen=True)
class ProbeConfig(Checked, prefix="probe."):
    """What a trunk is worth on labelled data while it trains: k nearest neighbours and rank."""

    data_path: Annotated[str | Path, tyro.conf.arg(metavar="FOLDER|ADDRESS")] = free(Path())
    """Labelled dataset that the trunk's features are probed on; without it there is no probe."""
    every_steps: CountOrZero = free(1000)
    """Steps between probes, whose results stand in the next line of metrics.jsonl; there is one at
    the last step too; 0 is no probe."""
    max_samples: Annotated[int, Range(2, MAX_SAMPLES)] = free(4000)
    """Images at most, drawn from the whole dataset by the seed; a fifth of each class is classified
    by its neighbours among the rest."""
    k: Annotated[int, Range(1, 100_000)] = free(20)
    """Neighbours that vote."""
    seed: Seed = free(0)
    """Seed of the images and of which are classified: the same ones for every run."""

    def __post_init__(self) -> None:
        """Tell folders and addresses apart."""
        object.__setattr__(self, "data_path", parse_place(self.data_path))
        super().__post_init__()

    @property
    def is_on(self) -> bool:
        """Whether there is one."""
        return self.data_path != Path() and self.every_steps > 0


@dataclass(frozen=True)
class RunConfig(Checked, Generic[TaskConfig]):
    """One pretraining run. A recipe gives one; the command line changes fields of it."""

    recipe: Annotated[str, tyro.conf.Suppress]
    """Name of the recipe that this run began from."""
    task: TaskConfig
    """The pretext task's own config."""
    output_dir: Path = free(Path(), is_required=True)
    """Run directory; a run found there goes on."""
    trunk: str = "resnet50"
    """Trunk."""
    width: Annotated[int, Range(1, MAX_WIDTH)] = 4
    """Width factor of the trunk; 4 is the standard ResNet."""
    seed: Seed = 0
    """Seed of everything."""
    trunk_from: Annotated[Path | None, tyro.conf.arg(metavar="RUN|FILE")] = None
    """Start with the weights of a trunk that a run has exported: the run, or its trunk.safetensors.
    A run keeps to its start's weights, not to their place."""
    continue_from: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Train another run on: begin with its newest checkpoint's whole state and its place in the
    order of samples, under this run's own schedule, which counts from the other's beginning. The
    other run is not changed, and needed no more once this one has begun."""
    frozen_stages: Annotated[int, Range(0, 1000)] = 0
    """Stages of the trunk that do not learn, from the first; docs/trunks.md names them."""
    max_steps: Annotated[int | None, Range(0, 1_000_000_000)] = free(None)
    """Stop after this many steps in all, counted from the run's beginning; 0 exports the untrained
    trunk; None is the whole schedule."""
    accumulation: Annotated[int, Range(1, 1_000_000)] = 1
    """Micro-batches a step on each rank."""
    precision: Precision = "fp32"
    """Number format of the forward and backward pass; fp16 scales the loss."""
    loss_scale: Annotated[float, Range(0, 2.0**127, without=0)] = 2.0**16
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
    checks: Annotated[CheckConfig, tyro.conf.arg(name="check")] = field(default_factory=CheckConfig)
    """Checks of the machine."""
    spike: SpikeConfig = field(default_factory=SpikeConfig)
    """Leaps of the loss."""
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    """Hangs."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Tests of a supervised run."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """A probe of the trunk while it trains."""

    def check(self) -> None:
        """Refuse two states to begin with, and settings of a probe without data."""
        if self.probe != ProbeConfig() and self.probe.data_path == Path():
            raise InputError("probe.data_path (none given) must name a labelled dataset; set it")
        if self.checks.replay_every and not self.deterministic:
            raise InputError(
                f"check.replay_every ({self.checks.replay_every}) needs deterministic kernels, or "
                "healthy machines differ too; set --deterministic true"
            )
        if self.trunk_from is not None and self.continue_from is not None:
            raise InputError(
                f"trunk_from ({self.trunk_from}) and continue_from ({self.continue_from}) both "
                "give the first weights; leave one out"
            )


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


def flatten(config: Any) -> dict[str, Any]:
    """Return every field of a config as dotted name -> plain value, in order."""
    # A run has one seed, its own.
    return {item.name: _plain(item.value) for item in walk(config) if item.name != "data.seed"}


def list_defaults(config: Any) -> dict[str, Any]:
    """Return what every field of a config is where nobody sets it, by the names of ``flatten``.

    A run that began before a field existed ran as this field's default says: a new field's default
    is what was done before.
    """
    defaults = {item.name: item.field.default for item in walk(config)}
    return {
        name: _plain(given) for name, given in defaults.items() if given is not dataclasses.MISSING
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    # What is written down lasts: an address leaves its password behind.
    return hide_credentials(str(value)) if isinstance(value, Path | str) else value
