#!/usr/bin/env python
"""Pretrain a trunk; a run found in the directory goes on by itself.

``[torchrun --nproc-per-node N] tools/train.py RECIPE --data.path DATASET --output-dir RUN``
"""

from __future__ import annotations

import logging
import os
import sys

from fastssl.command import parse_arguments, run_command
from fastssl.config import RunConfig
from fastssl.recipes import build_recipe, describe_recipes, recipe_names

_USAGE = f"""usage: train.py RECIPE --data.path DATASET --output-dir RUN [options]

recipes: {", ".join(recipe_names())}

  --list          what each recipe is
  RECIPE --help   all options of a recipe, with their defaults"""


def main() -> None:
    """Read the command line and train."""
    is_zero = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if is_zero else logging.ERROR, format="%(message)s", stream=sys.stderr
    )
    arguments = sys.argv[1:]
    if "--list" in arguments:
        print(describe_recipes())
        return
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        raise SystemExit(0 if arguments else 2)
    default = build_recipe(arguments[0])
    config = parse_arguments(
        RunConfig[type(default.task)],
        arguments[1:],
        default=default,
        program=f"train.py {arguments[0]}",
    )
    # Here, so that help, lists and wrong options answer without loading the trainer.
    from fastssl.training import train

    train(config)


if __name__ == "__main__":
    run_command(main)
