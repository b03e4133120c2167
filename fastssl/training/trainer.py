"""The main path: from a config to a trained trunk. Read it from top to bottom.

Shape legend: B global batch, W ranks, A micro-batches a step on each rank.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from ..batch import Batch
from ..config import RunConfig, check_batch_size, flatten, list_defaults
from ..errors import InputError, StoppedBySignal
from ..loaders import build_loader, check_count, count_ids, count_samples, resolve_loader
from ..models import Trunk, build_trunk
from ..randomness import step_seed
from ..runs.directory import (
    CHECKPOINTS_NAME,
    check_entries,
    check_identity,
    compare_identities,
    read_chosen_loader,
    write_config,
)
from ..runs.endings import clear_endings, clear_failures
from ..runs.identity import identity
from ..shards import open_dataset
from ..system.signals import StopSignals, WaitedTooLong
from ..tasks import build_task
from ..world import World, check_device
from .capsule import keep_capsule
from .checkpoint import CheckpointStore
from .continuing import Origin, check_length, check_origin, find_origin
from .exporting import export_trunk
from .hangs import locate_samples
from .journal import Journal
from .machine import describe_rank, set_determinism, warn_of_other_machine
from .measures import OpenProbe, open_measures, refuse_probe, take_measures
from .meeting import check_ranks
from .memory import check_memory, outline_task, read_capacity
from .nonfinite import fail_on_nonfinite
from .optim import UpdateGuard, build_optimizer, set_lr
from .pace import Pace
from .parallel import Buckets, join_networks
from .passes import Passes
from .replay import Replay, leaving_nothing
from .rollback import LeftOut, LossLeapt
from .schedule import build_schedule
from .spikes import MAX_CAPSULES, SpikeDetector
from .start import read_start
from .stored_state import check_fit, check_like, take_part
from .tables import load_tables, save_tables
from .validation import open_validation
from .watchdog import Watchdog

_log = logging.getLogger(__name__)

_DATA_PATIENCE_S = 5.0  # after a signal


class Trainer:
    """One life of a run: from its newest checkpoint to its end or the next stop."""

    def __init__(
        self,
        config: RunConfig,
        world: World,
        signals: StopSignals,
        smaller_recipes: Sequence[str] = (),
        open_probe: OpenProbe = refuse_probe,
        trunk: Trunk | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        """Remember what to do; ``set_up`` does the rest.

        Args:
            config: the run.
            world: the ranks.
            signals: what asks for a stop.
            smaller_recipes: names to offer where this run will take long.
            open_probe: opens what probes the trunk.
            trunk: in the place of what the config builds.
            watchdog: looks for hangs; without one nobody does.
        """
        self.pace = Pace(config, world, smaller_recipes)
        self.config = config
        self.world = world
        self.signals = signals
        self.watchdog = watchdog or Watchdog(0, config.output_dir, world)
        self._open_probe = open_probe
        self._given_trunk = trunk
        self.folder = config.output_dir
        self.step = 0
        self.rolls_back = config.spike.skip_steps > 0
        """Whether it goes back where the loss leaps."""
        self._open_files = contextlib.ExitStack()

    # ------------------------------------------------------------------ set-up

    def set_up(self) -> None:
        """Open the data, build the network, and go back to the newest checkpoint."""
        self.world.on_zero(lambda: check_entries(self.folder))
        self.world.on_zero(lambda: clear_failures(self.folder))
        self._earlier_loader = self.world.on_zero(lambda: read_chosen_loader(self.folder))
        self.world.together(self._open_loader)
        self.origin = self.world.on_zero(lambda: find_origin(self.config))
        self.identity = identity(
            self.config,
            self.loader.dataset.digest,
            self.start_digest,
            None if self.origin is None else self.origin.name,
        )
        check_ranks(self.world, self.folder, self.identity | {"data.loader": self.loader_choice[0]})
        self.defaults = list_defaults(self.config)
        self.world.on_zero(lambda: check_identity(self.folder, self.identity, self.defaults))
        self.world.together(self._build_modules)
        # A collective call: nothing that may fail alone is in it.
        self.network = join_networks(self.task, self.config, self.world)
        self.buckets = Buckets(self.network)
        self.passes = Passes(
            self.config, self.task, self.network, self.scaler, self.world, self.watchdog
        )
        self.world.together(self._open_outputs)
        self._form = self._state()
        self._go_back(self.world.on_zero(self.store.find_newest))
        # Only now: a checkpoint of another run has been refused.
        self.world.on_zero(lambda: clear_endings(self.folder))
        settings = flatten(self.config)
        self.world.on_zero(
            lambda: write_config(self.folder, self.identity, settings, self.loader_choice)
        )
        if self.origin is not None or self.rolls_back:
            self._save()  # what it began with is its own from here on

    def _open_loader(self) -> None:
        config, world = self.config, self.world
        check_device(config.device, world)
        if config.data.path == Path() and not Path("manifest.json").exists():
            raise InputError("--data.path (none given) must name a dataset; set it")
        dataset = open_dataset(config.data.path, config.data.cache)
        self._open_files.callback(dataset.close)
        num_samples = count_samples(config.data, dataset.num_samples)
        check_count(config.data, num_samples, world.size * config.accumulation)
        size = check_batch_size(config.data.global_batch_size, world.size, config.accumulation)
        num_classes = len(dataset.class_names)
        self._outline = outline = outline_task(config, num_classes, self._given_trunk)
        outline.check_batch(size)
        num_ids = count_ids(config.data, dataset.num_samples)
        check_memory(outline, config, size, world.size, read_capacity(world), num_ids)
        start = read_start(config, outline, self._given_trunk)
        self.start_digest = None if start is None else start.digest
        # The order of weights' draws is the order of building: trunk, then head.
        torch.manual_seed(step_seed(config.seed, 0, 0))
        self.trunk = self._given_trunk or build_trunk(config.trunk, config.width)
        if start is not None:
            self.trunk.load_state_dict(start.trunk.state_dict())
        self.task = build_task(config.task, self.trunk, num_classes)
        self.task.class_names = dataset.class_names
        self.trunk.freeze(config.frozen_stages)
        device = str(world.device)
        self.loader_choice = resolve_loader(config.data, dataset, device, self._earlier_loader)
        targets = tuple(dict.fromkeys((*config.data.targets, *self.task.targets)))
        data = dataclasses.replace(
            config.data, seed=config.seed, loader=self.loader_choice[0], targets=targets
        )
        self.loader = build_loader(
            data, self.task.views, world.rank, world.size, device, dataset=dataset
        )
        self._open_files.callback(self.loader.close)
        self.watchdog.locate = partial(locate_samples, self.loader)
        self.task.read_samples = self.loader.read
        self.task.check_data(dataset, self.loader.num_ids)
        self.measures = open_measures(
            self._open_files,
            lambda: open_validation(config, world, self.task, len(self.loader)),
            lambda: self._open_probe(config, world, self.task),
        )
        self.schedule = build_schedule(
            config.schedule, config.optim, self.loader.num_samples, data.global_batch_size
        )

    def _open_outputs(self) -> None:
        config = self.config
        self.store = CheckpointStore(
            self.folder / CHECKPOINTS_NAME, config.checkpoint.keep, config.spike.reach
        )
        self._open_files.callback(self.store.close)
        self.keep_capsule = partial(keep_capsule, self.folder, self.loader, self.store, self.world)
        self.journal = Journal(config, self.world, self.task, self.loader)
        self._open_files.callback(self.journal.close)

    # ------------------------------------------------------------------ model

    def _build_modules(self) -> None:
        config, device = self.config, self.world.device
        if config.sync_bn and device.type != "cuda":
            raise InputError("sync_bn (true) needs GPUs, got cpu; set --sync-bn false")
        if config.gradient_compression != "none" and self.world.size == 1:
            _log.warning("gradient_compression is ignored: one rank sends no gradients")
        set_determinism(config.deterministic)
        self.task.to(device)
        self.tables = self.task.open_tables(self.loader.num_ids, self.world)
        if config.channels_last:
            self.task.to(memory_format=torch.channels_last)
        if config.sync_bn and self.world.size > 1:
            # The parts of a task are exchanged in place; a task itself is no normalisation.
            nn.SyncBatchNorm.convert_sync_batchnorm(self.task)
        if config.compile:
            self.task.compile()
        self.optimizer = build_optimizer(config.optim, self.task)
        self.guard = UpdateGuard(self.optimizer, self.task, device)
        self.spikes = SpikeDetector(config.spike)
        self.left_out = LeftOut(config.spike)
        self.replay = Replay(config.checks.replay_every, self.task, self.world)
        self.scaler = torch.amp.GradScaler(
            device.type, init_scale=config.loss_scale, enabled=config.precision == "fp16"
        )

    # ------------------------------------------------------------------ checkpoint

    def _go_back(self, step: int | None) -> None:
        """Go back to a checkpoint, if there is one, and cut the logs to it."""
        origin = self.origin
        if step is not None:
            self.world.together(lambda: self._load(step))
        elif origin is not None:
            self.world.together(lambda: self._begin_with(origin))
        self.journal.begin(self.step, has_checkpoint=step is not None, origin=origin)

    def _load(self, step: int) -> None:
        self._take_over(self.store, step, partial(compare_identities, self.folder))

    def _begin_with(self, origin: Origin) -> None:
        check_length(origin, self.config.schedule.epochs, self.schedule.total_steps)
        self._take_over(origin.store, origin.step, partial(check_origin, origin))

    def _take_over(self, store: CheckpointStore, step: int, compare: Callable[..., None]) -> None:
        """Become what a checkpoint holds.

        Args:
            store: where it stands.
            step: of the checkpoint.
            compare: takes its identity, this run's and the defaults; refuses what does not fit.
        """
        path, found = store.path_of(step), store.load(step)
        identity_then = take_part(found, "identity", path)
        check_like(identity_then, {}, "identity", path)
        compare(identity_then, self.identity, self.defaults)
        self.step = step
        own = {**self._form, "loader": self._loader_state()}
        state = check_fit(found, own, self.optimizer, path)
        self.task.load_state_dict(state["task"])
        load_tables(self.tables, *store.read_files(step))
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.guard.load_state_dict(state["guard"])
        self.spikes.load_state_dict(state["spikes"])
        self.left_out.load_state_dict(state["left_out"])
        self.journal.load_state_dict(state)
        self.loader.load_state_dict(state["loader"])
        warn_of_other_machine(state["machine"], self.world)

    def _save(self) -> None:
        """Keep what the next life needs: each rank writes its tables, rank 0 all else."""
        self.watchdog.enter("checkpoint", self.step)
        _, tripped_at = self._look_back()
        if tripped_at:
            self._stop_on_nonfinite(tripped_at)
        self.journal.sync()
        parts = save_tables(self.tables, self.store, self.step, self.world)
        if parts is None or not self.world.is_zero:
            return
        self.store.save(self.step, self._state(), parts)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "task": dict(self.task.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "guard": self.guard.state_dict(),
            "spikes": self.spikes.state_dict(),
            "left_out": self.left_out.state_dict(),
            **self.journal.state_dict(),
            "loader": self._loader_state(),
            "identity": self.identity,
            "machine": describe_rank(self.world),
        }

    def _loader_state(self) -> dict[str, Any]:
        return {**self.loader.state_dict(), "position": self._position(self.step)}

    def _position(self, step: int) -> int:
        return step * self.config.data.global_batch_size

    # ------------------------------------------------------------------ loop

    def run(self) -> None:
        """Train to the end of the schedule, to ``max_steps``, or to a signal; then save."""
        config = self.config
        last_step = self.schedule.total_steps
        if config.max_steps is not None:
            last_step = min(last_step, config.max_steps)
        self.pace.announce(self.loader, self.loader_choice, self._outline, self.step, last_step)
        with self.journal.show_progress(self.step, last_step):
            while True:
                try:
                    self._train_to(last_step)
                    break
                except LossLeapt as leap:
                    self._roll_back(leap)
        self._finish()

    def _train_to(self, last_step: int) -> None:
        """Take every step that is not left out; then save."""
        while self.step < last_step:
            end = self.left_out.find_end(self.step + 1)
            if end is not None:
                self._leave_out(min(end, last_step), last_step)
                continue
            stop = self.left_out.find_stop(self.step + 1, last_step)
            with contextlib.closing(iter(self.loader)) as batches:
                while self.step < stop:
                    self._go_on(batches, last_step)
        self._save()

    def _go_on(self, batches: Iterator[Batch], last_step: int) -> None:
        """Take the next step and write down what came of it."""
        batch = self._next_batch(batches)
        is_stopping, num_bad = self._agree(batch)
        if batch is None or is_stopping:
            self._save_and_stop()
        with self.pace.timing(last_step - self.step - 1):
            self._take_step(batch)
        if num_bad:
            self.journal.add_bad_samples(batch.substitutions, self.step)
        self._write_logs(batch, is_last=self.step == last_step)
        if self.step % self.config.checkpoint.every_steps == 0:
            self._save()

    def _next_batch(self, batches: Iterator[Batch]) -> Batch | None:
        """Wait for a batch; None where a signal asks for a stop and none comes."""
        self.watchdog.enter("data", self.step + 1)
        try:
            with self.journal.waiting(), self.signals.impatient(_DATA_PATIENCE_S):
                return next(batches)
        except WaitedTooLong:
            return None

    def _agree(self, batch: Batch | None) -> tuple[int, int]:
        """Return over all ranks the signals and the bad samples before a step.

        Nobody begins a step for which a rank has no batch: all could only wait for that one, and
        would not hear of a signal.
        """
        self.watchdog.enter("collective", self.step + 1)
        num_bad = 0 if batch is None else len(batch.substitutions)
        num_stopping, num_bad = self.world.sum(self.signals.received is not None, num_bad)()
        return num_stopping, num_bad

    def _save_and_stop(self) -> NoReturn:
        self._save()
        self.store.wait()
        self.watchdog.enter("end", self.step)
        raise StoppedBySignal(f"saved at step {self.step}; start the same command again to go on")

    def _take_step(self, batch: Batch) -> None:
        """Use one global batch: forward, backward, and one update."""
        samples = self._position(self.step)
        self.step += 1
        self.buckets.settle(
            lambda: self.passes.run_first(batch, self.step),
            leaving_nothing(self.task, self.optimizer),
        )
        set_lr(self.optimizer, self.schedule.lr_at(samples))
        self.optimizer.zero_grad(set_to_none=True)
        self.guard.remember()
        if self.replay.is_due(self.step):
            again = self.world.together(lambda: self.loader.read_step(samples))
            forgetting = leaving_nothing(self.task, self.optimizer)
            run = partial(self.passes.run, step=self.step)
            totals = self.replay.take_twice(self.step, (again, batch), run, forgetting)
        else:
            totals = self.passes.run(batch, self.step)
        self.watchdog.enter("collective", self.step)
        values = torch.stack([*totals.values()]).float() / self.config.accumulation
        means = dict(zip(totals, self.world.average(values).unbind(), strict=True))
        gradients = [p.grad for p in self.task.parameters() if p.grad is not None]
        self.spikes.observe(self.step, means["loss"])
        is_finite = self.guard.observe(
            means["loss"], self.step, () if self.scaler.is_enabled() else gradients
        )
        self.watchdog.enter("optimiser", self.step)
        self.guard.take_step(self.optimizer, self.scaler)
        self.task.end_step(~self.guard.is_masked())
        self.scaler.update()
        self.journal.add(means, is_finite, batch.fallback_decodes)

    # ------------------------------------------------------------------ back and on

    def _roll_back(self, leap: LossLeapt) -> None:
        """Go back to before the steps around one whose loss leapt; they will be left out."""
        self.watchdog.enter("checkpoint", self.step)
        first, last = self.left_out.add(leap.step)
        before = self.world.on_zero(lambda: self.store.go_back(first))
        self.world.together(lambda: self._load(before))
        self.journal.go_back(before, leap, first, last)

    def _leave_out(self, end: int, last_step: int) -> None:
        """Pass over the steps up to one: they keep their numbers and their samples."""
        self.journal.leave_out(self.step + 1, end)
        self.step = end
        self.loader.load_state_dict(self._loader_state())
        if end == last_step:
            self._write_metrics(is_last=True)
        self._save()

    # ------------------------------------------------------------------ after a step

    def _write_logs(self, batch: Batch, is_last: bool) -> None:
        self.journal.write_step(batch, self.step)
        if self.step % self.config.log.every_steps == 0 or is_last:
            self._write_metrics(is_last)
        if self.journal.has_pictures(self.step, is_last):
            self.watchdog.enter("pictures", self.step)
            self.journal.write_pictures(batch, self.step)

    def _write_metrics(self, is_last: bool) -> None:
        self.watchdog.enter("logs", self.step)
        skipped, tripped_at = self._look_back()
        lr = self.schedule.lr_at(self._position(self.step - 1))
        test = partial(
            take_measures, self.measures, self.step, is_last, self.signals, self.watchdog
        )
        counts = {"skipped": skipped, "spikes": self._count_spikes()}
        self.journal.write_metrics(self.step, lr, counts, test)
        if tripped_at:
            self._stop_on_nonfinite(tripped_at)

    def _look_back(self) -> tuple[int, int]:
        """Look at the losses since the last look.

        Returns:
            Updates skipped so far, and the step that tripped the guard, or 0.

        Raises:
            LossLeapt: at the first bad step of a run that goes back then.
        """
        skipped, tripped_at = self.guard.read()
        found = self.spikes.look()
        for number, spike in enumerate(found, self._count_spikes() - len(found) + 1):
            if self.rolls_back and 0 < tripped_at < spike.step:
                break
            self.journal.add_spike(spike)
            if number <= MAX_CAPSULES:
                self.keep_capsule("spike", spike.step, spike.loss)
            if self.rolls_back:
                raise LossLeapt(spike.step, spike.loss)
        if self.rolls_back and tripped_at:
            self.keep_capsule("nonfinite", tripped_at, None)
            raise LossLeapt(tripped_at, None)
        return skipped, tripped_at

    def _count_spikes(self) -> int:
        return self.spikes.count + len(self.left_out)

    def _stop_on_nonfinite(self, tripped_at: int) -> None:
        batch = self.keep_capsule("nonfinite", tripped_at, None)
        with leaving_nothing(self.task, self.optimizer):
            loss = self.passes.run(batch, tripped_at)["loss"]
        fail_on_nonfinite(self.folder, tripped_at, batch, loss, self.task, self.world)

    def _finish(self) -> None:
        """Export the trunk; then say whether data held the run up."""
        config = self.config
        self.store.wait()
        self.watchdog.enter("end", self.step)
        if self.world.is_zero:
            if self.task.learns_trunk:
                _log.info("trunk: %s", export_trunk(config, self.identity, self.task, self.step))
            if result := self.journal.describe_result():
                _log.info(result)
        self.journal.judge_data()

    def close(self) -> None:
        """Stop workers and close files; what is open may be half of it."""
        self._open_files.close()
