"""Say what a trunk is worth: one task, one trunk, one figure that can be trusted.

``[torchrun --nproc-per-node N] -m fastssl evaluate TASK --checkpoint RUN|FILE --data.path TRAIN``
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..counts import spell_number
from ..errors import InputError, StoppedBySignal, leave_to_first_of_machine, nearest
from .frame import (
    check_json_path,
    name_command,
    parse_arguments,
    program_name,
    progress_bar,
    show_log,
)

if TYPE_CHECKING:
    from ..runs.result import Result

_USAGE = """usage: {program} TASK --checkpoint RUN|FILE --data.path TRAIN [--data.test-path TEST]

tasks:
{tasks}

  TASK --help         all options of a task, with their defaults"""


def list_tasks() -> dict[str, Any]:
    """Return every task's name and the class of its options."""
    from ..evaluation.detect_options import DetectEvaluation
    from ..evaluation.downstream_options import DOWNSTREAM
    from ..evaluation.measures import MEASURES
    from ..evaluation.trained import TRAINED

    by_features = {name: config for name, (config, _) in MEASURES.items()}
    return {**by_features, **TRAINED, **DOWNSTREAM, "detect": DetectEvaluation}


def read_command_line(arguments: Sequence[str]) -> tuple[str, Any]:
    """Return a task's name and its options.

    Args:
        arguments: the task and what stands behind it.

    Raises:
        InputError: for what is wrong with them.
    """
    tasks = list_tasks()
    task = arguments[0].replace("-", "_")
    if task not in tasks:
        raise InputError(
            f"the task ('{arguments[0]}') comes first and must be one of them"
            f"{nearest(task, tasks, lists_all=True)}"
        )
    config = parse_arguments(
        tasks[task],
        arguments[1:],
        default=tasks[task](),
        program=f"{program_name()} {task}",
    )
    return task, config


def main(arguments: Sequence[str]) -> None:
    """Read the command line, evaluate, print and write the result."""
    is_zero = os.environ.get("RANK", "0") == "0"
    show_log(logging.INFO if is_zero else logging.ERROR)
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [
            f"  {name:<18}  {(config.__doc__ or '').splitlines()[0]}"
            for name, config in list_tasks().items()
        ]
        print(_USAGE.format(program=program_name(), tasks="\n".join(lines)))
        raise SystemExit(0 if arguments else 2)
    task, config = read_command_line(arguments)
    check_json_path(config.json)
    config = _take_photographs(config)
    command = name_command("evaluate", *arguments)
    from ..evaluation.measures import MEASURES

    if task in MEASURES:
        _evaluate(task, config, command)
    else:
        _train(task, config, command, is_zero)


def _take_photographs(config: Any) -> Any:
    """Have datasets in the place of folders of photographs, made beside them once."""
    from .photographs import find_dataset

    data = config.data
    try:
        paths = {name: find_dataset(getattr(data, name)) for name in ("path", "test_path")}
    except (InputError, StoppedBySignal) as error:
        leave_to_first_of_machine(error)
        raise
    return dataclasses.replace(config, data=dataclasses.replace(data, **paths))


def _evaluate(task: str, config: Any, command: str) -> None:
    from ..evaluation.evaluate import Evaluation, keep_result
    from ..world import join_world

    world = join_world(config.device)
    try:
        evaluation = world.together(lambda: Evaluation(task, config, world))
        with contextlib.closing(evaluation):
            evaluation.make_features(progress_bar)
            result = world.on_zero(lambda: _sign(evaluation.run(), config.data, command))
            if world.is_zero:
                subject = evaluation.subject
                _tell(result, keep_result(result, subject, config.json))
                if subject.run is not None and subject.step:
                    print(_name_twin(subject.recipe, subject.run))
    finally:
        world.leave()


def _name_twin(recipe: str, run: Path) -> str:
    """Say how to find what the training itself was worth."""
    twin = shlex.quote(f"{run}-untrained")
    return (
        f"to compare with the untrained trunk: fastssl train {recipe} --max-steps 0 --output-dir "
        f"{twin} and the run's other options, then this command with --checkpoint {twin}"
    )


def _train(task: str, config: Any, command: str, is_zero: bool) -> None:
    from ..evaluation.detect import keep_detections, plan_detect, run_detect
    from ..evaluation.downstream import plan_downstream, run_downstream
    from ..evaluation.downstream_options import DOWNSTREAM
    from ..evaluation.evaluate import keep_result
    from ..evaluation.trained import plan_training, run_training

    training: Any
    run: Callable[[Any], Result]
    try:
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        if task == "detect":
            training, run = plan_detect(config, world_size), run_detect
        elif task in DOWNSTREAM:
            training, run = plan_downstream(task, config, world_size), run_downstream
        else:
            training, run = plan_training(task, config, world_size), run_training
    except InputError as error:
        leave_to_first_of_machine(error)
        raise
    result = _sign(run(training), config.data, command)
    if is_zero:
        places = keep_result(result, training.subject, config.json)
        _tell(result, places)
        if task == "detect":
            print(f"detections: {keep_detections(training)}")


def _sign(result: Result, data: Any, command: str) -> Result:
    """Return a result with the command that found it and the names of its datasets."""

    def name(place: str | Path) -> str:
        # Behind a question mark may stand a key.
        last = PurePath(str(place).partition("?")[0]).name
        return last if last.isprintable() else ""

    return dataclasses.replace(
        result,
        command=command,
        train_data=name(data.path),
        test_data=name(data.path_to_test),
    )


def _tell(result: Result, places: Sequence[Path]) -> None:
    from ..evaluation.report.entries import spell_settings
    from ..runs.result import DEGREES

    for part in result.flatten():
        scale, unit = (1, "degrees") if part.metric in DEGREES else (100, "%")
        told = spell_settings(part.settings)
        value = f"{part.metric} {scale * part.value:.2f} {unit}"
        if "num_test" in part.details:
            value += f" of {spell_number(part.details['num_test'], 'image')}"
        if "chance" in part.details:
            value += f" (chance {scale * part.details['chance']:.1f} {unit})"
        print(f"{result.task} {part.layer} {told}: {value}")
    for place in places:
        print(f"result: {place}")
