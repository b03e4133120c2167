"""One life of a run: its lock, its signals, its watchdog and its ending, around a trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from ..config import RunConfig
from ..errors import InputError, RunFailed, StoppedBySignal, leave_to_another_rank
from ..models import Trunk
from ..runs.directory import locked_run
from ..runs.endings import recorded_exit, stoppable
from ..system.lifelines import has_launcher
from ..world import join_world
from .measures import OpenProbe, refuse_probe
from .trainer import Trainer
from .watchdog import Watchdog, record_flights


def train(
    config: RunConfig,
    *,
    owns_process: bool = False,
    smaller_recipes: Sequence[str] = (),
    open_probe: OpenProbe = refuse_probe,
    trunk: Trunk | None = None,
) -> None:
    """Run a config to its end, or to the next stop; a run found in the directory goes on.

    Args:
        config: the run.
        owns_process: end the process where a second Ctrl-C comes in the middle of a long step;
            without it Python raises KeyboardInterrupt when the step's pass has ended.
        smaller_recipes: names to offer where this one will take long.
        open_probe: opens what probes the trunk where the config asks for that.
        trunk: with its weights, in the place of what the config builds; the run makes it its own.

    Raises:
        InputError: for anything the user can cause, before the first step.
        StoppedBySignal: after a signal, with everything saved.
        RunFailed: when the loss stays non-finite or too many samples are bad.
    """
    if config.output_dir == Path():
        raise InputError("--output-dir (none given) must name the run directory; set it")
    record_flights(config.output_dir)
    world = join_world(config.device, 20 * config.watchdog.timeout_s)
    watchdog = Watchdog(config.watchdog.timeout_s, config.output_dir, world)
    try:
        with contextlib.ExitStack() as held:
            world.on_zero(lambda: held.enter_context(locked_run(config.output_dir)))
            signals = held.enter_context(
                stoppable(config.output_dir, world, lambda: trainer.step, owns_process)
            )
            held.enter_context(watchdog.watching(signals, owns_process or has_launcher()))
            trainer = Trainer(config, world, signals, smaller_recipes, open_probe, trunk, watchdog)
            with recorded_exit(config.output_dir, world, lambda: trainer.step):
                with contextlib.closing(trainer):
                    trainer.set_up()
                    trainer.run()
    except (RunFailed, StoppedBySignal) as outcome:
        # All ranks come to it together; one says it.
        if not world.is_zero:
            leave_to_another_rank(outcome)
        raise
    # Only here: taking a group down waits for ranks that may have failed.
    world.leave()
