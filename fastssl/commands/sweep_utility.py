"""Say how many labels a pretrained trunk saves on labelled images of your own.

``fastssl sweep utility --data.path LABELLED --checkpoint RUN --output-dir FOLDER``: the trunk and
fresh ones of its network learn from more and more labels, several seeds of each; the same command
goes on with what was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..counts import spell_number
from ..errors import InputError, RunFailed, nearest
from ..evaluation.downstream import DownstreamTraining, plan_downstream
from ..evaluation.downstream_course import name_metric
from ..evaluation.downstream_options import DOWNSTREAM
from ..evaluation.label_curves import Network, group_results, make_curve
from ..evaluation.label_savings import (
    Savings,
    find_baseline,
    find_limit,
    measure_savings,
    tell_savings,
)
from ..evaluation.report import ResultsReport, prepare, write_results
from ..evaluation.setting import EvaluationData
from ..fields import Checked, Count, CountOrZero, Item, Range, walk
from ..models.input_spec import SCALE_NAMES, InputSpec
from ..models.trunks import MAX_WIDTH
from ..randomness import Seed
from ..runs.directory import write_json
from ..runs.result import DEGREES, RESULTS_NAME, Result, read_result
from ..runs.sweep import Trial, result_file, run_trials
from .frame import check_json_path, parse_arguments, program_name, show_log
from .report import read_entries
from .trials import check_options, describe_trials

STUDY_COUNTS = (100, 250, 1000, 4000, 20_000, 50_000, 100_000, 200_000)
"""Label counts of Newell and Deng 2020."""
JSON_NAME, PAGE_NAME = "utility.json", "report.html"
_NEAR = 0.8
"""A count of the study above this share of all labels says little that these do not."""
_LEAST_COUNTS = 3
_MAX_COUNTS = 100
# Of a trial as of this command, by the same name.
_HANDED_ON = (
    *("protocol", "view_size", "split_seed", "frozen_stages", "head", "epochs", "max_steps"),
    *("global_batch_size", "lr", "precision", "device"),
)


@dataclass(frozen=True)
class UtilityConfig(Checked):
    """How many labels a pretrained trunk saves, by curves over label counts."""

    checkpoint: Annotated[Path, tyro.conf.arg(metavar="RUN|FILE")] = Path()
    """The trunk: a run that has ended, a file that it exported, or a file of weights."""
    trunk: str = ""
    """What network the weights are of, where the file does not say."""
    width: Annotated[int, Range(0, MAX_WIDTH)] = 0
    """Width of that network; 0 is the file's own, or 4."""
    scale: str = ""
    """How pixels are scaled; nothing takes what the file says."""
    data: EvaluationData = field(default_factory=EvaluationData)
    """Labelled images."""
    task: str = "finetune"
    """What is learnt: finetune, by label; or a task with targets of its own, such as pose."""
    label_counts: str = ""
    """Label counts, with commas between them, or "all": 100,250,1000,all. Without it those of
    Newell and Deng 2020 that the set has, and all."""
    seeds: Count = 3
    """Trainings at each count, from scratch and pretrained, by seeds 0, 1, ..."""
    split_seed: Seed = 0
    """Seed of the choice of labels, and of the split where there is no test path."""
    protocol: str = ""
    """Whose views and course: own, random crops of photographs at what the trunk takes, or
    newell20, those of Newell and Deng 2020; nothing takes the task's usual one."""
    view_size: Annotated[int, Range(0, 65535)] = 0
    """Side of what the trunk is shown, in pixels; 0 is the protocol's."""
    frozen_stages: Annotated[int, Range(0, 1000)] = 0
    """Stages of the pretrained trunk that do not learn; from scratch all do."""
    head: Literal["linear", "mlp"] = "linear"
    """One Linear layer, or a hidden one before it."""
    epochs: Annotated[float, Range(0, 1_000_000)] = 0.0
    """Length of each training in passes over its labels; 0 is the protocol's."""
    max_steps: CountOrZero = 0
    """Length in steps instead; 0 is by epochs."""
    global_batch_size: Annotated[int, Range(0, 1_000_000)] = 0
    """Images a step; 0 is the protocol's."""
    lr: Annotated[float, Range(0, 1e30)] = 0.0
    """Peak of the learning rate; 0 is the protocol's."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the trainings."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where they run."""
    output_dir: Path = Path()
    """Folder of the sweep: its runs, results, "utility.json" and "report.html"."""
    json: Path | None = None
    """Write the answer to this file too."""
    at_once: CountOrZero = 1
    """Trainings at a time, which share the usable cores; 0 takes one a GPU, without one 1."""
    dry_run: bool = False
    """List the trainings, and end."""

    def check(self) -> None:
        """Refuse a sweep without a folder."""
        if self.output_dir == Path() and not self.dry_run:
            raise InputError("--output-dir (none given) must name the folder of the sweep")


def main(arguments: Sequence[str]) -> None:
    """Read the command line, train, and say what is saved."""
    config = parse_arguments(UtilityConfig, arguments, program=f"{program_name()} utility")
    show_log(logging.INFO)
    check_json_path(config.json)
    plan = plan_sweep(config)
    if config.dry_run:
        print(describe_trials(plan.trials, config.output_dir))
        return
    check_options(plan.trials, config.output_dir)
    plan.check_results(config.output_dir)
    failure: RunFailed | None = None
    try:
        run_trials(plan.trials, config.output_dir, config.at_once)
    except RunFailed as error:
        failure = error  # what the others found is said first
    savings = find_savings(plan.read_results(config.output_dir), failure)
    _tell(config, savings)
    if failure is not None:
        raise failure


# --- The plan -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Trainings that fit, before the first one starts."""

    trials: tuple[Trial, ...]
    """From scratch and pretrained, by count and seed."""
    pretrained: DownstreamTraining
    """One of those that begin with the trunk."""

    def read_results(self, folder: Path) -> list[Result]:
        """Return the results that are there.

        Args:
            folder: of the sweep.
        """
        done = [trial for trial in self.trials if trial.is_done(folder)]
        return [read_result(result_file(folder, trial.name)) for trial in done]

    def check_results(self, folder: Path) -> None:
        """Refuse a folder with results of another trunk, or of other data, behind the same paths.

        Args:
            folder: of the sweep.

        Raises:
            InputError: names what has changed.
        """
        wanted = {
            "data.path": ("train_digest", self.pretrained.digests[0]),
            "data.test_path": ("test_digest", self.pretrained.digests[1]),
            "checkpoint": ("trunk_digest", self.pretrained.subject.digest),
        }
        for result in self.read_results(folder):
            for option, (name, digest) in wanted.items():
                is_scratch = result.settings.get("start") == "scratch"
                if getattr(result, name) != digest and not (is_scratch and name == "trunk_digest"):
                    raise InputError(
                        f"--output-dir ({folder}) has results of another --{option} than the one "
                        f"there now (digest {getattr(result, name)[:8]}, now {digest[:8]}); choose "
                        "another folder"
                    )


def plan_sweep(config: UtilityConfig) -> Plan:
    """See that all trainings fit, and list them.

    Args:
        config: the options.

    Raises:
        InputError: for whatever does not fit.
    """
    if config.task not in DOWNSTREAM:
        hint = nearest(config.task, DOWNSTREAM, lists_all=True)
        raise InputError(f"--task ('{config.task}') is no downstream task{hint}")
    metric = name_metric(config.task)
    if metric in DEGREES:
        raise InputError(
            f"--task ('{config.task}') is measured by {metric}, labels saved by a share of what is "
            "found, such as finetune's; compare its results by fastssl report"
        )
    read = DOWNSTREAM[config.task]
    begun = plan_downstream(config.task, _read_words(read, _spell_start(config, None)))
    counts = choose_counts(config.label_counts, len(begun.divided.train_rows))
    fresh = _spell_start(config, begun)
    plan_downstream(config.task, _read_words(read, fresh))
    starts = {"scratch": fresh, "pretrained": _spell_start(config, None)}
    trials = tuple(
        Trial(
            f"{start}-n{count}-s{seed}",
            (
                *("evaluate", config.task, *words),
                *("--num-labels", str(count), "--seed", str(seed), "--output-dir", "{run}"),
            ),
        )
        for count in counts
        for seed in range(config.seeds)
        for start, words in starts.items()
    )
    return Plan(trials, begun)


def choose_counts(given: str, num_labels: int) -> list[int]:
    """Return the label counts of a sweep.

    Args:
        given: with commas between them, ``all`` for all; "" chooses: those of the study up to four
            fifths of the set, and all; of a small set halves of halves.
        num_labels: that there are to learn from.

    Raises:
        InputError: if one is no number, or above the set.
    """
    if not given:
        counts = [count for count in STUDY_COUNTS if count <= _NEAR * num_labels] + [num_labels]
        if len(counts) < _LEAST_COUNTS:
            counts = [max(1, num_labels >> halvings) for halvings in (3, 2, 1, 0)]
        return sorted({*counts})
    found = set()
    for word in given.split(","):
        word = word.strip()
        if word != "all" and (not word.isdecimal() or len(word) > 15 or not int(word)):
            raise InputError(
                f"--label-counts ('{given[:80]}') must be whole numbers from 1 on, or all, with "
                "commas between them, such as 100,250,all"
            )
        found.add(num_labels if word == "all" else int(word))
    if max(found) > num_labels:
        raise InputError(
            f"--label-counts ({max(found):,}) must not exceed the "
            f"{spell_number(num_labels, 'labelled image')} that there are to learn from; leave it "
            "out, or write all"
        )
    if not 2 <= len(found) <= _MAX_COUNTS:
        raise InputError(
            f"--label-counts ({given[:80]}) make {spell_number(len(found), 'count')}; a curve "
            f"needs 2 .. {_MAX_COUNTS}, such as 100,250,all"
        )
    return sorted(found)


def _spell_start(config: UtilityConfig, begun: DownstreamTraining | None) -> list[str]:
    """Return the words of a training that begins with the trunk, or from scratch.

    Args:
        config: the options.
        begun: a training with the trunk, which one from scratch is to be like.
    """
    not_said = ("frozen_stages",) if begun is not None else ()
    words = [
        word
        for item in walk(config)
        if item.name.startswith("data.") or item.name in {*_HANDED_ON} - {*not_said}
        for word in _spell_option(item)
    ]
    trunk = ["--checkpoint", str(config.checkpoint.resolve())]
    for name in ("trunk", "width", "scale"):
        if value := getattr(config, name):
            trunk += [f"--{name}", str(value)]
    if config.checkpoint == Path():
        trunk = []
    if begun is None:
        return [*trunk, *words]
    network = Network(begun.subject.trunk.name, begun.subject.trunk.width)
    if network.whole != network:  # of CMC's half networks utility is measured against the whole
        whole = network.whole
        trunk = ["--trunk", whole.trunk, "--width", str(whole.width)]
        trunk += ["--scale", name_scale(begun)]
    return ["--from-scratch", "true", *trunk, *words]


def name_scale(begun: DownstreamTraining) -> str:
    """Return the name of how a trunk's pixels are scaled.

    Args:
        begun: a training with it.

    Raises:
        InputError: if it has none.
    """
    spec = begun.subject.spec
    for name in SCALE_NAMES:
        if InputSpec.named(name) == spec:
            return name
    raise InputError(
        f"how the trunk's pixels are scaled ({spec.to_text()}) has no name that a trunk from "
        "scratch could be given; set --scale"
    )


def _spell_option(item: Item) -> Iterator[str]:
    """Yield an option and its value, unless it is as nobody set it."""
    value = item.value
    if value != item.field.default:
        yield f"--{item.name.replace('_', '-')}"
        yield str(value.resolve() if isinstance(value, Path) else value)


def _read_words(read: Any, words: Sequence[str]) -> Any:
    return parse_arguments(read, words, default=read())


# --- The answer -----------------------------------------------------------------------------------


def find_savings(results: Sequence[Result], failure: RunFailed | None) -> Savings:
    """Return what the trunk saves, by the results of the sweep.

    Args:
        results: of its trainings.
        failure: of some of them.

    Raises:
        RunFailed: if what failed leaves no pair of curves.
    """
    try:
        curves = [make_curve(group) for group in group_results(results)]
        (curve,) = (one for one in curves if one.key.beginning.is_pretrained)
        return measure_savings(curve, find_baseline(curve, curves))
    except ValueError:
        if failure is not None:
            raise failure from None
        raise


def _tell(config: UtilityConfig, savings: Savings) -> None:
    said = tell_savings(savings)
    answer = {
        "answer": said,
        "saves_nothing_above": find_limit(savings),
        "task": config.task,
        "recipe": savings.curve.key.beginning.recipe,
        "trunk_digest": savings.curve.trunk_digests[0],
        "metric": savings.curve.key.ground.metric,
        "split": savings.curve.key.ground.split,
        **savings.to_json(),
    }
    for path in filter(None, (config.output_dir / JSON_NAME, config.json)):
        write_json(path, answer)
    page = config.output_dir / PAGE_NAME
    write_page(page, config, said)
    print("\n".join([f"{said[0]}.", *said[1:]]))
    print(f"curves: {config.output_dir / JSON_NAME}, page: {page}")


def write_page(path: Path, config: UtilityConfig, said: Sequence[str]) -> None:
    """Write the page of the sweep's results.

    Args:
        path: the HTML file.
        config: the options.
        said: the answer in words.
    """
    entries = [*read_entries(config.output_dir / RESULTS_NAME, None)]
    names: dict[str, str] = {}
    for path_of, name in (
        (config.data.path_to_test, "test_digest"),
        (config.data.path, "train_digest"),
    ):
        names |= {getattr(entry.result, name): Path(str(path_of)).name for entry in entries}
    report = ResultsReport(said[0], prepare(entries, names), lead=" ".join(said[1:]))
    write_results(path, report)
