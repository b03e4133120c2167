"""What a run writes while it trains: metrics, curves, pictures, ledger, bad samples, the bar."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from tqdm import tqdm

from ..batch import Batch, Substitution
from ..config import RunConfig
from ..counts import spell_number
from ..errors import InputError, RunFailed
from ..loaders import Loader
from ..loaders.telemetry import describe_data, merge_reports
from ..runs.directory import (
    BAD_SAMPLES_NAME,
    METRICS_NAME,
    PICTURES_NAME,
    TENSORBOARD_NAME,
    cut_logs,
    ledger_name,
)
from ..runs.lines import JsonLines
from ..runs.metrics import check_names, list_metrics, order_line
from ..tasks import Metric, Task
from ..world import World
from .bad_samples import BadSampleAccount
from .continuing import Origin
from .meter import Meter
from .rollback import LossLeapt
from .shown import NUM_PICTURES, is_due, keep_shown
from .spikes import Spike

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_log = logging.getLogger(__name__)


class Journal:
    """All that a run writes while it trains; every rank has one, rank 0 writes most of it."""

    def __init__(self, config: RunConfig, world: World, task: Task, loader: Loader) -> None:
        """Open the files; ``begin`` says where they go on.

        Args:
            config: of the run.
            world: the ranks.
            task: draws the pictures.
            loader: measures its stages.
        """
        self._config = config
        self._world = world
        self._task = task
        self._loader = loader
        self._folder = config.output_dir
        self._account = BadSampleAccount(loader.num_samples, config.data.max_bad_share)
        self._meter = Meter(world, config.data.global_batch_size)
        self._table = list_metrics(task)
        self._chance = task.chance()
        self._shown: Batch | None = None
        self._last_line: dict[str, Any] = {}
        self._board: SummaryWriter | None = None
        self._bar: tqdm | None = None
        self._ledger: JsonLines | None = None
        self._lines: list[JsonLines] = []
        with contextlib.ExitStack() as files:
            self._files = files
            if config.data.ledger:
                self._ledger = self._open_lines(ledger_name(world.rank))
            if world.is_zero:  # the one rank that writes them
                self._metrics = self._open_lines(METRICS_NAME)
                self._bad_samples = self._open_lines(BAD_SAMPLES_NAME)
            self._files = files.pop_all()

    def _open_lines(self, name: str) -> JsonLines:
        lines = JsonLines(self._folder / name)
        self._files.callback(lines.close)
        self._lines.append(lines)
        return lines

    # ------------------------------------------------------------------ start and stop

    def begin(self, step: int, has_checkpoint: bool, origin: Origin | None = None) -> None:
        """Cut the files of all ranks to a step and go on there; a collective call.

        Args:
            step: steps done.
            has_checkpoint: whether they are those of a checkpoint.
            origin: what the run begins with where it has no checkpoint of its own.
        """
        self._world.on_zero(lambda: self._begin(step, has_checkpoint, origin))

    def _begin(self, step: int, has_checkpoint: bool, origin: Origin | None) -> None:
        has_begun = (self._folder / METRICS_NAME).stat().st_size > 0
        cut_logs(self._folder, step)
        if origin is not None and not has_checkpoint:
            origin.copy_pictures(self._folder)
            self._metrics.write({"event": "continue", "step": step, "from": str(origin.folder)})
            _log.info("training on after step %d of %s", step, origin.folder)
        elif has_begun or has_checkpoint:
            self._metrics.write({"event": "resume", "step": step})
            _log.info("going on after step %d", step)
        if self._config.log.tensorboard:
            # Imported by the rank that draws curves: it brings half a second of other packages.
            from torch.utils.tensorboard import SummaryWriter

            folder = self._folder / TENSORBOARD_NAME
            # Event files are read in the order of their names, which begin with the second of their
            # start: one for two lives would leave it to chance which of them is the later.
            while [*folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")]:
                time.sleep(0.02)
            # What a resumed run does again is purged: it is of a life that was lost.
            self._board = SummaryWriter(str(folder), purge_step=step + 1)
            self._files.callback(self._board.close)

    def go_back(self, step: int, leap: LossLeapt, first: int, last: int) -> None:
        """Cut the files of all ranks to the step of a rollback; a collective call.

        Args:
            step: that the run goes on behind.
            leap: why.
            first: of the steps that are left out for it.
            last: of them.
        """

        def cut() -> None:
            cut_logs(self._folder, step)
            event = {"event": "rollback", "step": step, "leapt": leap.step, "loss": leap.loss}
            self._metrics.write({**event, "first": first, "last": last})
            _log.warning("going back to step %d, and on without steps %d to %d", step, first, last)
            if self._board is not None:
                from tensorboard.compat.proto.event_pb2 import Event, SessionLog

                # As for a resumed run: what stands behind the step is purged.
                begins = Event(session_log=SessionLog(status=SessionLog.START))
                self._board._get_file_writer().add_event(begins, step + 1)

        self._world.on_zero(cut)
        if self._bar is not None:
            self._bar.n = step
            self._bar.refresh()

    def leave_out(self, first: int, last: int) -> None:
        """Write down the steps that a run passes over, and the samples that were theirs.

        Args:
            first: of the steps.
            last: of them.
        """
        if self._bar is not None:
            self._bar.update(last + 1 - first)
        if self._world.is_zero:
            self._metrics.write({"event": "left_out", "step": last, "first": first})
        for step in range(first, last + 1) if self._ledger is not None else ():
            plan = self._loader.plan_step(self._count_samples(step - 1))
            pairs = zip(plan.epochs.tolist(), plan.sample_ids.tolist(), strict=True)
            self._write_ledger(step, left_out=[*pairs])

    @contextlib.contextmanager
    def show_progress(self, step: int, last_step: int) -> Iterator[None]:
        """Show the bar while the block runs.

        Args:
            step: steps done.
            last_step: where this life ends.
        """
        is_shown = self._world.is_zero and self._config.log.progress and step < last_step
        with tqdm(total=last_step, initial=step, unit="step", disable=not is_shown) as self._bar:
            yield

    def sync(self) -> None:
        """Make the lines durable: no checkpoint is newer than its ledger, whatever fails."""
        for lines in self._lines:
            lines.sync()

    def close(self) -> None:
        """Write everything out and close the files."""
        self._files.close()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"bad_samples": self._account.state_dict(), "meter": self._meter.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what a checkpoint kept; other keys are not looked at.

        Raises:
            InputError: if it counts what this run does not.
        """
        unknown = [name for name in state["meter"]["names"] if name not in self._table]
        if unknown:
            raise InputError(
                f"the checkpoint counts {str(unknown[0])[:80]!r}, which this run does not know; "
                "choose another --output-dir"
            )
        self._account.load_state_dict(state["bad_samples"])
        self._meter.load_state_dict(state["meter"])

    # ------------------------------------------------------------------ a step

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as spent waiting for a batch."""
        began = time.perf_counter()
        yield
        self._meter.waited(time.perf_counter() - began)

    def begin_interval(self) -> None:
        """Leave the steps since the last line out of the next one."""
        self._meter.reset()

    def add(self, means: dict[str, Tensor], is_finite: Tensor, fallback_decodes: int) -> None:
        """Add a step's scalars to those of the interval; see ``Meter.add``."""
        check_names(means, self._table)
        self._meter.add(means, is_finite, fallback_decodes)

    def add_bad_samples(self, bad: Sequence[Substitution], step: int) -> None:
        """Write down the bad samples of all ranks and judge; a collective call.

        Args:
            bad: of this rank.
            step: that used them.

        Raises:
            RunFailed: on every rank, if an epoch has too many.
        """
        everywhere = [sample for part in self._world.gather(bad) for sample in part]
        if self._world.is_zero:
            for sample in everywhere:
                named = dataclasses.asdict(sample)
                del named["row"]
                self._bad_samples.write({"step": step, **named})
            _log.warning(
                "%s at step %d, the first: %d (%s); sample %d takes its place; all stand in "
                "bad_samples.jsonl",
                spell_number(len(everywhere), "bad sample"),
                step,
                everywhere[0].planned,
                everywhere[0].reason,
                everywhere[0].used,
            )
        self._account.add(everywhere, self._count_samples(step))

    def add_spike(self, spike: Spike) -> None:
        """Write down a step whose loss leapt."""
        if self._world.is_zero:
            self._metrics.write({"event": "spike", **dataclasses.asdict(spike)})
            _log.warning(
                "the loss leapt to %.4g at step %d, %.1f standard deviations of its logarithm",
                spike.loss,
                spike.step,
                spike.deviations,
            )

    def write_step(self, batch: Batch, step: int) -> None:
        """Write the ledger's line and move the bar on.

        Args:
            batch: that the step used.
            step: steps done.
        """
        if self._bar is not None:
            self._bar.update()
        if self._ledger is not None:
            self._write_ledger(
                step,
                epochs=batch.epochs.tolist(),
                sample_ids=batch.sample_ids.tolist(),
                substituted=[[s.planned, s.used] for s in batch.substitutions],
            )

    def _write_ledger(self, step: int, **used: list[Any]) -> None:
        assert self._ledger is not None
        self._ledger.write({"step": step, "epochs": [], "sample_ids": [], "substituted": []} | used)

    def write_metrics(
        self,
        step: int,
        lr: float,
        counts: dict[str, int],
        tested: Callable[[], dict[str, float | None]] = dict,
    ) -> None:
        """Write a line of metrics.jsonl, its points of curves, and the bar; a collective call.

        Args:
            step: steps done.
            lr: learning rate of the step just done.
            counts: of steps skipped, and of those whose loss leapt, so far.
            tested: tests what was learnt, by the names of the numbers; its time is no step's.
        """
        measured = self._meter.collect(self._loader.telemetry.take())
        with self._meter.pausing():
            measured |= tested()
        samples = self._count_samples(step)
        values = {
            "step": step,
            "epoch": samples / self._loader.num_samples,
            "samples": samples,
            "loss": None,
            "lr": lr,
            **counts,
            "substituted": self._account.total,
            **measured,
            **{f"{name}_of_chance": value for name, value in self._chance.items()},
        }
        line = self._last_line = order_line(values, self._table)
        if self._world.is_zero:
            self._metrics.write(line)
            self._show_on_bar(line)
        if self._board is not None:
            for name, value in line.items():
                if self._table[name].group and value is not None:
                    self._board.add_scalar(self._table[name].tag, value, step)

    def has_pictures(self, step: int, is_last: bool) -> bool:
        """Tell whether this rank draws pictures after a step.

        Args:
            step: steps done.
            is_last: whether this life ends with it.
        """
        every = self._config.log.pictures_every_steps
        return self._board is not None and every > 0 and (is_last or is_due(step, every))

    def write_pictures(self, batch: Batch, step: int) -> None:
        """Draw what was asked and answered, where pictures are due.

        They show the samples that the run's first pictures showed, so that they compare.

        Args:
            batch: that the step used.
            step: steps done.
        """
        assert self._board is not None
        if self._shown is None:
            self._shown = keep_shown(self._folder / PICTURES_NAME, batch, self._task)
        seed, device = self._config.seed, self._world.device
        shown = dataclasses.replace(self._shown, images=self._shown.images.to(device))
        pictures = self._task.draw_pictures(shown, seed, NUM_PICTURES)
        for number, picture in enumerate(pictures):
            tag = f"{self._config.task.name}/{number}"
            self._board.add_image(tag, picture.captioned(), step, dataformats="HWC")
        self._board.flush()

    def describe_result(self) -> str:
        """Say what this life has come to and where it is seen; empty if it did no step."""
        line = self._last_line
        said = [
            f"{name} {line[name]:.1%} (chance {chance:.1%})"
            for name, chance in self._chance.items()
            if line.get(name) is not None
        ]
        tested = self._task.tested
        if line.get(tested) is not None:
            said.append(f"{tested.replace('_', ' ')} {self._spell_tested(line[tested])}")
        if line.get("probe_knn_accuracy") is not None:
            chance = line["probe_knn_accuracy_of_chance"]
            said.append(f"probe: kNN {line['probe_knn_accuracy']:.1%} (chance {chance:.1%})")
        if line and self._config.log.tensorboard:
            where = shlex.quote(str(self._folder))
            said.append(f"curves and pictures: tensorboard --logdir {where}")
        return "; ".join(said)

    def judge_data(self) -> None:
        """Say in one sentence whether data held this life of the run up; a collective call.

        Raises:
            RunFailed: if it waited longer than the user allows; everything is saved by then.
        """
        share = self._meter.data_wait_share()
        report = merge_reports(self._world.gather(self._loader.telemetry.total()))
        if not report.batches:  # a run that was at its end already
            return
        sentence = describe_data(self._loader.name, share, report)
        if self._world.is_zero:
            _log.info("data: %s", sentence)
        allowed = self._config.log.max_data_wait_share
        if share > allowed:
            raise RunFailed(f"log.max_data_wait_share ({allowed}) was exceeded: {sentence}")

    # ------------------------------------------------------------------ pieces

    def _count_samples(self, step: int) -> int:
        return step * self._config.data.global_batch_size

    def _spell_tested(self, value: float) -> str:
        """Return what was reached in a test; what is no metric of the task alone is a share."""
        usual = Metric(self._task.tested, "share", "")
        return next((m for m in self._task.metrics if m.name == usual.name), usual).spell(value)

    def _show_on_bar(self, line: dict[str, Any]) -> None:
        if self._bar is not None and line["loss"] is not None:
            shown = {"loss": f"{line['loss']:.4f}"}
            for name, chance in self._chance.items():
                shown[name] = f"{line[name]:.1%} (chance {chance:.1%})"
            if line.get(self._task.tested) is not None:
                shown["validation"] = self._spell_tested(line[self._task.tested])
            shown["img_per_s"] = f"{line['images_per_s']:.0f}"
            shown["wait"] = f"{line['data_wait_share']:.0%}"
            self._bar.set_postfix(shown, refresh=False)
