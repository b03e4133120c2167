"""Pretrain a trunk; a run found in the directory goes on by itself.

``[torchrun --nproc-per-node N] -m fastssl train RECIPE --data.path DATASET --output-dir RUN``
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import itertools
import logging
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from ..config import RunConfig
from ..errors import (
    InputError,
    StoppedBySignal,
    is_left_to_another_rank,
    leave_to_first_of_machine,
)
from ..studies import build_recipe, fit_recipe, is_fitted, list_smaller, recipe_names, task_names
from .frame import parse_arguments, program_name, show_log

_USAGE = """usage: {program} RECIPE --data.path DATASET --output-dir RUN [options]

recipes: {recipes}

  quickstart          a first run on your photographs, few or many, that ends on a laptop
  --list              what suits your photographs and this machine, then every recipe
                      (--images N or --data DATASET says how many there are)
  --list WORD ...     cells of the studies with steps, costs and published figures
                      (--list goyal19 table1, --list rotation, --published, --json FILE)
  RECIPE --help       all options of a recipe, with their defaults"""


def read_command_line(arguments: Sequence[str], default: RunConfig | None = None) -> RunConfig:
    """Return the config of a recipe, changed by the options behind its name.

    Args:
        arguments: the recipe's name and the options.
        default: what they change, where it is not the recipe as it stands.

    Raises:
        InputError: for what is wrong with them.
    """
    default = default or build_recipe(arguments[0])
    _check_form(arguments[1:], default)
    return parse_arguments(
        RunConfig[type(default.task)],  # type: ignore[misc]  # known only now
        arguments[1:],
        default=default,
        program=f"{program_name()} {arguments[0]}",
    )


def _check_form(options: Sequence[str], default: RunConfig) -> None:
    """Refuse a dataset or a task that is given as other programs want them."""
    if options and not options[0].startswith("-"):
        raise InputError(
            f"'{options[0]}' stands behind the recipe without the name of an option; wanted "
            "--data.path DATASET --output-dir RUN"
        )
    for word, following in itertools.pairwise([*options, ""]):
        name, has_value, value = word.partition("=")
        if name == "--task":
            given = value if has_value else following
            close = difflib.get_close_matches(given, task_names(), n=1) or ["TASK"]
            raise InputError(
                f"--task ('{given}') is no option: the recipe sets the task, here "
                f"{default.task.name}; recipes of another: fastssl train --list {close[0]}"
            )


def choose_run(arguments: Sequence[str]) -> RunConfig:
    """Return the run that a command line asks for, ready to be trained.

    A folder of photographs is made into a dataset, and what the recipe leaves to data and device is
    chosen.

    Args:
        arguments: the recipe's name and the options.

    Raises:
        InputError: for what is wrong with them, or missing.
        StoppedBySignal: on a signal while a dataset is made; the same again goes on.
    """
    config = read_command_line(arguments)
    check_required(config)
    # Behind the parser, so that help and wrong options answer without loading what makes datasets.
    from .photographs import find_dataset

    path = find_dataset(config.data.path)
    if is_fitted(config.recipe):
        config = read_command_line(arguments, _fit(config, build_recipe(arguments[0]), path))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=path))


def check_required(config: RunConfig) -> None:
    """Refuse a run of which something is missing, all of it at once.

    Args:
        config: of the run.

    Raises:
        InputError: names what is missing, and a trunk that there is none of.
    """
    import torch

    from ..models import build_trunk

    wrong = []
    try:
        with torch.device("meta"):  # without memory for its weights
            build_trunk(config.trunk, config.width)
    except InputError as error:
        wrong.append(str(error))
    if config.data.path == Path() and not Path("manifest.json").exists():
        wrong.append("--data.path (none given) must name a dataset or a folder of photographs")
    if config.output_dir == Path():
        wrong.append("--output-dir (none given) must name the run directory")
    if wrong:
        raise InputError("; ".join(wrong))


def _fit(config: RunConfig, default: RunConfig, path: str | Path) -> RunConfig:
    """Choose what a recipe leaves to the data and the device.

    Args:
        config: what the command line says so far.
        default: the recipe.
        path: of the dataset.
    """
    import torch

    from ..loaders import count_samples
    from ..shards import open_dataset

    with contextlib.closing(open_dataset(path)) as dataset:
        num_samples = count_samples(config.data, dataset.num_samples)
    data = dataclasses.replace(default.data, global_batch_size=config.data.global_batch_size)
    is_gpu = config.device != "cpu" and torch.cuda.is_available()
    return fit_recipe(dataclasses.replace(default, data=data), num_samples, is_gpu)


def main(arguments: Sequence[str]) -> None:
    """Read the command line and train."""
    is_zero = os.environ.get("RANK", "0") == "0"
    show_log(logging.INFO if is_zero else logging.ERROR)
    if "--list" in arguments:
        from .recipe_list import print_list

        print_list([word for word in arguments if word != "--list"])
        return
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE.format(program=program_name(), recipes=", ".join(recipe_names(False))))
        raise SystemExit(0 if arguments else 2)
    if arguments[0].startswith("-"):
        raise InputError(
            f"the recipe ('{arguments[0]}') must come first: {program_name()} RECIPE --data.path "
            "...; quickstart is a first run, --list names all"
        )
    # Behind the parser, so that help, lists and wrong options answer without loading the trainer.
    try:
        config = choose_run(arguments)
    except (InputError, StoppedBySignal) as error:
        leave_to_first_of_machine(error)
        if isinstance(error, InputError) and not is_left_to_another_rank(error):
            if not is_zero:  # on another machine than rank 0
                raise InputError(f"{platform.node()}: {error}") from None
            from ..runs.endings import record_refusal

            record_refusal(arguments, error)
        raise
    from ..evaluation.probe import open_probe
    from ..training import train

    smaller = list_smaller(config.recipe)
    train(config, owns_process=True, smaller_recipes=smaller, open_probe=open_probe)
