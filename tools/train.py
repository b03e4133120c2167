#!/usr/bin/env python
"""Pretrain a trunk; a run found in the directory goes on by itself.

``[torchrun --nproc-per-node N] tools/train.py RECIPE --data.path DATASET --output-dir RUN``
"""

from __future__ import annotations

from fastssl.lifeline import die_with_launcher, stop_at_once_on_signals

# Before the slow imports: torchrun may be killed meanwhile, and signals come at any time.
die_with_launcher()
stop_at_once_on_signals(75)

import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

from fastssl.command import parse_arguments, run_command  # noqa: E402
from fastssl.config import RunConfig  # noqa: E402
from fastssl.errors import InputError, leave_to_another_rank  # noqa: E402
from fastssl.recipes import build_recipe, describe_recipes, recipe_names  # noqa: E402

_USAGE = f"""usage: train.py RECIPE --data.path DATASET --output-dir RUN [options]

recipes: {", ".join(recipe_names(has_cells=False))}

  --list [WORD ...]   what each recipe is, with every cell of the studies and its cost; words choose
                      (--list goyal19 resnet50 yfcc100m)
  RECIPE --help       all options of a recipe, with their defaults"""


def read_command_line(arguments: list[str]) -> RunConfig:
    """Return the config of a recipe, changed by the options behind its name."""
    default = build_recipe(arguments[0])
    return parse_arguments(
        RunConfig[type(default.task)],
        arguments[1:],
        default=default,
        program=f"train.py {arguments[0]}",
    )


def main() -> None:
    """Read the command line and train."""
    is_zero = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if is_zero else logging.ERROR, format="%(message)s", stream=sys.stderr
    )
    arguments = sys.argv[1:]
    if "--list" in arguments:
        print(describe_recipes([word for word in arguments if word != "--list"]))
        return
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        raise SystemExit(0 if arguments else 2)
    # Behind the parser, so that help, lists and wrong options answer without loading the trainer.
    try:
        config = read_command_line(arguments)
    except InputError as error:
        if not is_zero:  # every rank reads the same command line; one says what is wrong with it
            leave_to_another_rank(error)
            raise
        from fastssl.training.endings import record_refusal

        record_refusal(arguments, error)
        raise
    from fastssl.training import train

    train(config)


if __name__ == "__main__":
    run_command(main)
