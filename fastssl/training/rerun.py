"""A bad step run again from its capsule: whether batch and loss come out as they did."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from pathlib import Path

from ..config import LogConfig, ProbeConfig, RunConfig
from ..counts import spell_number
from ..errors import InputError, RunFailed
from ..runs.read import read_lines
from ..system.signals import noting_signals
from ..world import join_world
from .capsule import Capsule, copy_run, hash_batch
from .trainer import Trainer


def run_again(place: Path, capsule: Capsule, config: RunConfig) -> str:
    """Train from a capsule's checkpoint to its step, in a folder that goes again.

    Args:
        place: the capsule's folder.
        capsule: what stands there.
        config: of the run.

    Returns:
        What came out, in one line: the same.

    Raises:
        InputError: if the world has another size, or the run does not fit the capsule.
        RunFailed: if batch or loss came out differently.
    """
    world = join_world(config.device)
    if world.size != capsule.num_ranks:
        raise InputError(
            f"CAPSULE ({place}) is of {spell_number(capsule.num_ranks, 'rank')}, here are "
            f"{world.size}, which sum otherwise; start it by torchrun --nproc-per-node "
            f"{capsule.num_ranks}"
        )
    folder = world.on_zero(lambda: Path(tempfile.mkdtemp(prefix="fastssl-replay-")))
    with contextlib.ExitStack() as held:
        if world.is_zero:
            held.callback(shutil.rmtree, folder, ignore_errors=True)
        world.on_zero(lambda: copy_run(place, folder, capsule))
        signals = held.enter_context(noting_signals())
        trainer = Trainer(_set_up(config, folder, capsule), world, signals)
        held.callback(trainer.close)
        trainer.set_up()
        trainer.rolls_back = False  # what leaps is wanted here
        trainer.journal.begin_interval()  # each line is of one step
        position = (capsule.step - 1) * config.data.global_batch_size
        batch = world.together(lambda: trainer.loader.read_step(position))
        hashes = world.gather(hash_batch(batch))
        ids = world.gather(batch.sample_ids.tolist())
        failure = ""
        try:
            trainer.run()
        except RunFailed as error:
            failure = str(error)
        loss = world.on_zero(lambda: _read_loss(folder, capsule.step))
    return _compare(capsule, ids, hashes, loss, failure)


def _set_up(config: RunConfig, folder: Path, capsule: Capsule) -> RunConfig:
    """Return the run up to the step, with a line for each and nothing beside."""
    log = LogConfig(every_steps=1, pictures_every_steps=0, tensorboard=False)
    return dataclasses.replace(
        config,
        output_dir=folder,
        max_steps=capsule.step,
        log=log,
        probe=ProbeConfig(),
        data=dataclasses.replace(config.data, ledger=False),
    )


def _read_loss(folder: Path, step: int) -> float | None:
    losses = {line.get("step"): line.get("loss") for line in read_lines(folder)}
    return losses.get(step)


def _compare(
    capsule: Capsule,
    ids: list[list[int]],
    hashes: list[str],
    loss: float | None,
    failure: str,
) -> str:
    step, num = capsule.step, sum(map(len, ids))
    if ids != capsule.sample_ids or hashes != capsule.batch_sha256:
        what = "samples" if ids != capsule.sample_ids else "pixels or boxes"
        raise RunFailed(f"step {step} has other {what} than the capsule says")
    is_same_failure = capsule.kind == "nonfinite" and f"at step {step} " in failure
    if failure and not is_same_failure:
        raise RunFailed(f"step {step} came out differently: {failure}")
    if loss != capsule.loss:
        raise RunFailed(
            f"step {step} came out differently: loss {loss!r}, and {capsule.loss!r} in the capsule"
        )
    spelled = "not finite" if loss is None else f"{loss!r}"
    samples = spell_number(num, "sample")
    return f"step {step} came out the same: {samples}, their pixels, and loss {spelled}"
