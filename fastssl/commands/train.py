"""Pretrain a trunk; a run found in the directory goes on by itself.

``[torchrun --nproc-per-node N] -m fastssl train RECIPE --data.path DATASET --output-dir RUN``
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from ..config import RunConfig
from ..errors import InputError, leave_to_another_rank
from ..studies import build_recipe, describe_recipes, recipe_names
from .frame import parse_arguments, program_name

_USAGE = """usage: {program} RECIPE --data.path DATASET --output-dir RUN [options]

recipes: {recipes}

  --list [WORD ...]   what each recipe is, with every cell of the studies and its cost; words choose
                      (--list goyal19 resnet50 yfcc100m)
  RECIPE --help       all options of a recipe, with their defaults"""


def read_command_line(arguments: Sequence[str]) -> RunConfig:
    """Return the config of a recipe, changed by the options behind its name."""
    default = build_recipe(arguments[0])
    return parse_arguments(
        RunConfig[type(default.task)],  # type: ignore[misc]  # known only now
        arguments[1:],
        default=default,
        program=f"{program_name()} {arguments[0]}",
    )


def main(arguments: Sequence[str]) -> None:
    """Read the command line and train."""
    is_zero = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if is_zero else logging.ERROR, format="%(message)s", stream=sys.stderr
    )
    if "--list" in arguments:
        print(describe_recipes([word for word in arguments if word != "--list"]))
        return
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE.format(program=program_name(), recipes=", ".join(recipe_names(False))))
        raise SystemExit(0 if arguments else 2)
    # Behind the parser, so that help, lists and wrong options answer without loading the trainer.
    try:
        config = read_command_line(arguments)
    except InputError as error:
        if not is_zero:  # every rank reads the same command line; one says what is wrong with it
            leave_to_another_rank(error)
            raise
        from ..runs.endings import record_refusal

        record_refusal(arguments, error)
        raise
    from ..training import train

    train(config)
