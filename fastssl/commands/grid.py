"""A grid, in YAML or Python: stages of runs and evaluations, each the product of its axes.

A stage is a command, its options and its axes; ``from`` names options whose value is the run of a
stage above. The trials of a stage are the product of its axes and of the trials that it comes from;
an axis of the same name takes the same value in both.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import runpy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, nearest, nearest_beside
from ..runs.search import SPACES, Space, check_space
from ..runs.sweep import MAX_TRIAL_NAME, MAX_TRIALS, Trial, check_trials
from ..system.files import read_regular, refusing_unreadable

POSITIONAL = {"train": "recipe", "evaluate": "task"}
"""By command: the option that stands right behind it, without a name."""
GIVEN = ("output-dir", "json")
"""Options that the sweep gives itself."""

Words = tuple[str, ...]
Axis = dict[str, dict[str, Words]]
"""By label: the options that it stands for."""

_FIELDS = ("command", "options", "axes", "from")
_MAX_BYTES = 1 << 20
_REMEDY = "give a grid in YAML or Python, as docs/sweeps.md describes"


@dataclass(frozen=True)
class Point:
    """A trial of a stage, and where it stands in the grid."""

    trial: Trial
    """The trial."""
    labels: dict[str, str]
    """By axis, of its own stage and of those that it comes from."""


@dataclass
class _Stage:
    name: str
    command: str
    options: dict[str, Words]
    axes: dict[str, Axis] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """What a grid's file asks for."""

    trials: list[Trial]
    """Its trials."""
    space: Space | None = None
    """Options of its one trial that are searched for."""


def read_grid(path: Path) -> Grid:
    """Read a grid.

    Args:
        path: of a YAML file with ``stages``; or of a Python file that sets ``GRID`` to the same
            mapping, or ``TRIALS`` to a list of ``Trial``.

    Raises:
        InputError: if something in it is not known, or does not fit.
    """
    content = _run_python(path) if path.suffix == ".py" else _parse_yaml(path)
    if path.suffix == ".py" and isinstance(content, list):
        grid = Grid(content)
    else:
        trials = expand_grid(content, str(path))
        grid = Grid(trials, _read_space(content.get("search"), f"{path}: search"))
    check_trials(grid.trials)
    if grid.space is not None and len(grid.trials) > 1:
        raise InputError(
            f"{path}: a search is of one trial, and the grid has {len(grid.trials)}; leave its "
            "axes and other stages to grids of their own"
        )
    return grid


def _read_space(content: Any, where: str) -> Space | None:
    """Return the options that are searched for, each by how it is drawn."""
    if content is None:
        return None
    if isinstance(content, str):
        if content not in SPACES:
            raise InputError(f"{where}: '{content}' is not known{nearest(content, SPACES)}")
        return SPACES[content]
    if not isinstance(content, Mapping) or not content:
        raise InputError(
            f"{where} is {_tell(content)}, wanted a study's name ({', '.join(SPACES)}) or a "
            "mapping of options to log LOW HIGH, uniform LOW HIGH or a list of values"
        )
    space: dict[str, Words] = {}
    for option, value in content.items():
        words = _spell(value, f"{where}: {option}")
        is_list = isinstance(value, list | tuple)
        _add(space, option, ("choice", *words) if is_list else tuple(words[0].split()), where)
    check_space(space)
    return space


def _read_file(path: Path) -> bytes:
    try:
        with refusing_unreadable(path, _REMEDY):
            return read_regular(path, _MAX_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{nearest_beside(path)}; {_REMEDY}") from None


def _parse_yaml(path: Path) -> Any:
    """Return what stands in a YAML file, every scalar as it is written: 1e-3, 0011, true."""
    import yaml

    class Loader(yaml.BaseLoader):
        """Refuses a key that comes twice, where the last would win."""

    def build(loader: yaml.BaseLoader, node: yaml.MappingNode) -> dict[str, Any]:
        pairs = [loader.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in pairs if pairs.count(key) > 1), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise InputError(f"{path}: '{twice}' stands twice in the mapping at line {line}")
        return {
            str(key): loader.construct_object(value, deep=True)
            for key, (_, value) in zip(pairs, node.value, strict=True)
        }

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, build)
    content = _read_file(path)
    try:
        return yaml.load(content, Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no YAML ({' '.join(str(error).split())}); {_REMEDY}") from None


def _run_python(path: Path) -> Any:
    """Return the list of trials that a Python file sets, or its grid."""
    _read_file(path)
    try:
        names = runpy.run_path(str(path))
    except InputError:
        raise
    except Exception as error:
        places = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = getattr(error, "lineno", None) or (places[-1].lineno if places else "?")
        raise InputError(f"{path}, line {line}: {type(error).__name__}: {error}") from None
    if isinstance(names.get("TRIALS"), Sequence):
        trials = list(names["TRIALS"])
        wrong = next((one for one in trials if not isinstance(one, Trial)), None)
        if wrong is not None:
            raise InputError(f"{path}: TRIALS holds {wrong!r}, wanted fastssl.runs.sweep.Trial")
        return trials
    if "GRID" not in names:
        raise InputError(f"{path} sets neither GRID nor TRIALS; {_REMEDY}")
    return names["GRID"]


def expand_grid(grid: Any, origin: str = "grid") -> list[Trial]:
    """Return the trials of a grid, stage by stage.

    Args:
        grid: a mapping with ``stages``.
        origin: where it is from, for messages.

    Raises:
        InputError: if something in it is not known, or does not fit.
    """
    return [point.trial for points in expand_stages(grid, origin).values() for point in points]


def expand_stages(grid: Any, origin: str = "grid") -> dict[str, list[Point]]:
    """Return the trials of each stage of a grid; see ``expand_grid``."""
    _check_fields(grid, ("stages", "search"), origin)
    stages = grid.get("stages")
    if not isinstance(stages, Mapping) or not stages:
        raise InputError(f"{origin}: stages must name one stage or more; {_REMEDY}")
    made: dict[str, list[Point]] = {}
    for name, content in stages.items():
        stage = _read_stage(str(name), content, f"{origin}: stage {name}")
        for option, source in stage.sources.items():
            if source not in made:
                raise InputError(
                    f"{origin}: stage {name}: from {option}: '{source}' is no stage above it"
                    f"{nearest(source, made) if made else ''}"
                )
        made[stage.name] = _expand_stage(stage, made, origin)
    return made


def _check_fields(content: Any, known: Sequence[str], where: str) -> None:
    if not isinstance(content, Mapping):
        raise InputError(f"{where} is {_tell(content)}, wanted fields: {', '.join(known)}")
    for name in content:
        if name not in known:
            raise InputError(f"{where}: field '{name}' is not known{nearest(str(name), known)}")


def _read_stage(name: str, content: Any, where: str) -> _Stage:
    _check_fields(content, _FIELDS, where)
    words = str(content.get("command", "")).split()
    if not words or words[0] not in POSITIONAL or len(words) > 2:
        given = content.get("command", "")
        raise InputError(
            f"{where}: command ('{given}') must be train or evaluate, with a recipe or task "
            f"behind it or among options or axes{nearest(words[0] if words else '', POSITIONAL)}"
        )
    positional = POSITIONAL[words[0]]
    options: dict[str, Words] = {}
    if words[1:]:
        _add(options, positional, (words[1],), where)
    for option, value in _read_mapping(content, "options", where).items():
        _add(options, option, _spell(value, f"{where}: options: {option}"), where)
    taken = dict(options)
    axes = {
        str(axis): _read_axis(str(axis), values, f"{where}: axis {axis}")
        for axis, values in _read_mapping(content, "axes", where).items()
    }
    for axis, labels in axes.items():
        for option in dict.fromkeys(option for bundle in labels.values() for option in bundle):
            _add(taken, option, (), f"{where}: axis {axis}")
    sources: dict[str, str] = {}
    for option, source in _read_mapping(content, "from", where).items():
        if not isinstance(source, str):
            raise InputError(f"{where}: from {option} is {_tell(source)}, wanted a stage's name")
        _add(taken, option, (), f"{where}: from")
        sources[_spell_option(option)] = source
    if positional not in taken:
        raise InputError(f"{where}: which {positional}? Name it in command, options or axes")
    return _Stage(name, words[0], options, axes, sources)


def _read_mapping(content: Mapping[str, Any], name: str, where: str) -> Mapping[Any, Any]:
    found = content.get(name) or {}
    if not isinstance(found, Mapping):
        raise InputError(f"{where}: {name} is {_tell(found)}, wanted a mapping")
    return found


def _spell_option(option: Any) -> str:
    return str(option).replace("_", "-")


def _add(options: dict[str, Words], option: Any, words: Words, where: str) -> None:
    """Add an option to those that are there, none of which it may be."""
    option = _spell_option(option)
    if option in GIVEN:
        raise InputError(f"{where}: {option} is given by the sweep; leave it out")
    if option in options:
        raise InputError(f"{where}: {option} is given twice; give it in one place")
    if option in POSITIONAL.values() and len(words) > 1:
        raise InputError(f"{where}: {option} is {' '.join(words)}, wanted one word")
    options[option] = words


def _read_axis(axis: str, values: Any, where: str) -> Axis:
    """Return the labels of an axis, and the options that each stands for."""
    found: Axis = {}
    if isinstance(values, Mapping):
        for label, bundle in values.items():
            if not isinstance(bundle, Mapping):
                raise InputError(
                    f"{where}: {label} is {_tell(bundle)}, wanted options and their values; an "
                    "axis of one option is a list"
                )
            options: dict[str, Words] = {}
            for option, value in bundle.items():
                _add(options, option, _spell(value, f"{where}: {label}: {option}"), where)
            found[str(label)] = options
    elif isinstance(values, list | tuple | range):
        for value in values:
            words = _spell(value, where)
            label = " ".join(words)
            if label in found:
                raise InputError(f"{where}: {label} stands there twice")
            found[label] = {_spell_option(axis): words}
    if not found:
        raise InputError(
            f"{where} is {_tell(values)}, wanted a list of values, or a mapping of names to options"
        )
    return found


def _spell(value: Any, where: str) -> Words:
    """Return the words that stand behind an option."""
    words = []
    for one in value if isinstance(value, list | tuple) else (value,):
        if not isinstance(one, str | int | float | Path | None):
            raise InputError(f"{where} is {_tell(one)}, wanted a value or a list of values")
        words.append(str(one).lower() if isinstance(one, bool) else str(one))
    return tuple(words)


def _tell(value: Any) -> str:
    """Name what stands in a wrong place; not its content, which may be as large as it likes."""
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"{value!r:.60}"


def _expand_stage(stage: _Stage, made: Mapping[str, list[Point]], origin: str) -> list[Point]:
    where = f"{origin}: stage {stage.name}"
    places: list[tuple[dict[str, str], dict[str, str]]] = [({}, {})]
    for option, source in stage.sources.items():
        places = [
            ({**labels, **point.labels}, {**runs, option: point.trial.name})
            for labels, runs in places
            for point in made[source]
            if all(labels.get(axis, label) == label for axis, label in point.labels.items())
        ]
    for axis, values in stage.axes.items():
        above = {labels[axis] for labels, _ in places if axis in labels}
        missing = [label for label in values if above and label not in above]
        if missing:
            raise InputError(
                f"{where}: axis {axis} has '{missing[0]}', which the stage that it comes from has "
                f"not ({', '.join(sorted(above))}): an axis of one name takes the same value in "
                "both; give it there too, or call this one otherwise"
            )
        places = [
            ({**labels, axis: label}, runs)
            for labels, runs in places
            for label in ([labels[axis]] if axis in labels else values)
            if label in values
        ]
        if len(places) > MAX_TRIALS:
            raise InputError(f"{where}: more than {MAX_TRIALS:,} trials; shorten its axes")
    return list(_make_points(stage, places))


def _make_points(
    stage: _Stage, places: Sequence[tuple[dict[str, str], dict[str, str]]]
) -> Iterator[Point]:
    names = [_name(stage, labels) for labels, _ in places]
    for (labels, runs), name in zip(places, names, strict=True):
        options = dict(stage.options)
        for axis, values in stage.axes.items():
            options |= values[labels[axis]]
        options |= {option: (f"{{run:{run}}}",) for option, run in runs.items()}
        (first,) = options.pop(POSITIONAL[stage.command])
        words = itertools.chain(*((f"--{option}", *value) for option, value in options.items()))
        if names.count(name) > 1:  # labels that differ in what no name can have
            digest = hashlib.sha256(repr(sorted(labels.items())).encode()).hexdigest()
            name = f"{name[: MAX_TRIAL_NAME - 7]}-{digest[:6]}"
        yield Point(Trial(name, (stage.command, first, *words)), labels)


def _name(stage: _Stage, labels: Mapping[str, str]) -> str:
    """Return a trial's name: its stage, and its place on every axis."""
    parts = [stage.name]
    for axis, label in labels.items():
        is_word = re.match(r"[A-Za-z]", label) is not None
        # Of a path what is told apart by is its end.
        short = label.rstrip("/").rpartition("/")[2]
        parts.append(short if is_word or "/" in label else f"{axis.rpartition('.')[2]}={short}")
    return re.sub(r"[^A-Za-z0-9_.=+-]+", "_", "-".join(parts))[:MAX_TRIAL_NAME]
