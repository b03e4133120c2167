"""Say what a trunk is worth: one task, one trunk, one figure that can be trusted.

``[torchrun --nproc-per-node N] -m fastssl evaluate TASK --checkpoint RUN|FILE --data.path TRAIN``
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from ..errors import InputError, nearest
from .frame import check_json_path, parse_arguments, program_name, progress_bar

_USAGE = """usage: {program} TASK --checkpoint RUN|FILE --data.path TRAIN [--data.test-path TEST]

tasks:
{tasks}

  TASK --help         all options of a task, with their defaults"""


def main(arguments: Sequence[str]) -> None:
    """Read the command line, evaluate, print and write the result."""
    is_zero = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if is_zero else logging.ERROR, format="%(message)s", stream=sys.stderr
    )
    from ..evaluation.measures import MEASURES

    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [
            f"  {name:<18}  {(config.__doc__ or '').splitlines()[0]}"
            for name, (config, _) in MEASURES.items()
        ]
        print(_USAGE.format(program=program_name(), tasks="\n".join(lines)))
        raise SystemExit(0 if arguments else 2)
    task = arguments[0].replace("-", "_")
    if task not in MEASURES:
        raise InputError(
            f"the task ('{arguments[0]}') comes first and must be one of them"
            f"{nearest(task, MEASURES, lists_all=True)}"
        )
    config = parse_arguments(
        MEASURES[task][0],
        arguments[1:],
        default=MEASURES[task][0](),
        program=f"{program_name()} {task}",
    )
    check_json_path(config.json)
    _evaluate(task, config, shlex.join(["fastssl", "evaluate", *arguments]))


def _evaluate(task: str, config: Any, command: str) -> None:
    from ..evaluation.evaluate import Evaluation, keep_result
    from ..world import join_world

    world = join_world(config.device)
    try:
        evaluation = world.together(lambda: Evaluation(task, config, world))
        with contextlib.closing(evaluation):
            evaluation.make_features(progress_bar)
            result = world.on_zero(lambda: dataclasses.replace(evaluation.run(), command=command))
            if world.is_zero:
                places = keep_result(result, evaluation.subject, config.json)
                for part in result.flatten():
                    told = " ".join(f"{key} {value}" for key, value in part.settings.items())
                    print(f"{task} {part.layer} {told}: {part.metric} {100 * part.value:.2f} %")
                for place in places:
                    print(f"result: {place}")
    finally:
        world.leave()
