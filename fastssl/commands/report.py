"""A page of what trunks are worth: results of evaluations as tables and the studies' pictures.

    fastssl report runs/jigsaw runs/rotation --output report.html
    fastssl report runs/ --output report.html --data-names 1a2b3c=VOC07

Published figures of the studies stand beside the results of their recipes.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..counts import spell_number
from ..errors import InputError, nearest_beside
from ..evaluation.evaluate import FEATURES_NAME
from ..evaluation.report import Entry, ResultsReport, prepare, write_results
from ..evaluation.trained import HEADS_NAME
from ..fields import Checked
from ..runs.directory import CONFIG_NAME, EXIT_NAME, METRICS_NAME, REFUSED_NAME
from ..runs.facts import RANDOM, Facts, describe_changes, read_run_facts
from ..runs.read import Run, read_run
from ..runs.result import RESULTS_NAME, read_results
from ..runs.sweep import SWEEP_NAME
from ..shards.making.rendered import RECORD_NAME
from ..shards.manifest import MANIFEST_NAME
from ..studies.grids import list_grids
from ..studies.published import FINDINGS, find_facts, list_published
from ..system.files import check_file_place
from .frame import parse_arguments, refuse_repeated

MAX_DEPTH = 4
"""Folders below a given one in which runs and results are looked for."""
# What an evaluation keeps beside a trunk that is a file of its own.
_ASIDE = (FEATURES_NAME, HEADS_NAME)
# What else this package writes: how runs ended, records of sweeps, demos and datasets.
_OTHERS = (EXIT_NAME, REFUSED_NAME, SWEEP_NAME, RECORD_NAME, MANIFEST_NAME, "demo.json")
_NEEDED = "give run directories, result files, or folders of them"


@dataclass(frozen=True)
class MakeReport(Checked):
    """Write a page of results, beside published figures, that opens from disk."""

    places: tuple[Path, ...]
    """Run directories, result files that evaluate wrote, and folders of them."""
    output: Path = dataclasses.field(default=Path(), metadata={"required": True})
    """The HTML file to write; one found there is replaced."""
    title: str = "What the trunks are worth"
    """Headline of the page."""
    data_names: tuple[str, ...] = ()
    """Names of data sets, DIGEST=NAME each, by the beginning of a digest: 1a2b3c=VOC07. Known
    without are VOC07, ImageNet-1k and Places205 where results name their classes. Published
    figures are drawn beside results on data of the same name."""

    def check(self) -> None:
        """Check the values.

        Raises:
            InputError: if there is nothing to read or nowhere to write.
        """
        if not self.places:
            raise InputError(f"fastssl report has nothing to read; {_NEEDED}")
        if self.output == Path():
            raise InputError("--output is missing; name the HTML file to write")
        check_file_place(self.output, "--output")
        for name in self.data_names:
            if not all(name.partition("=")):
                raise InputError(f"--data-names ({name}) must be DIGEST=NAME, such as 1a2b3c=VOC07")


def main(arguments: Sequence[str]) -> None:
    """Read, and write the page."""
    refuse_repeated(arguments, "--data-names")
    command = parse_arguments(MakeReport, arguments)
    found = list(find_places(command.places))
    runs = read_runs([place for place in found if is_run(place)])
    ours = [entry for place in found for entry in read_entries(place, runs.get(place))]
    published = [Entry(result, find_facts(result.recipe)) for result in list_published()]
    names = {start: name for start, _, name in (n.partition("=") for n in command.data_names)}
    places = [(run.dataset_digest, str(run.settings.get("data.path", ""))) for run in runs.values()]
    entries = prepare([*ours, *published], names, places)
    recipes = {entry.result.recipe for entry in ours}
    findings = {
        name: said
        for study, known in FINDINGS.items()
        if any(recipe.startswith(study) for recipe in recipes)
        for name, said in known.items()
    }
    report = ResultsReport(command.title, entries, [*runs.values()], list_grids(), findings)
    write_results(command.output, report)
    counts = (spell_number(len(ours), "result"), spell_number(len(runs), "run"))
    print(f"{' and '.join(counts)}: {command.output.resolve()}")


def is_run(place: Path) -> bool:
    """Return whether a path is a run directory."""
    return (place / METRICS_NAME).is_file() or (place / CONFIG_NAME).is_file()


def find_places(places: Sequence[Path]) -> Iterator[Path]:
    """Yield the run directories, folders of results and result files that are meant, each once.

    Args:
        places: as given.

    Raises:
        InputError: if one is not there or holds nothing of the kind.
    """
    seen = set()
    for place in places:
        if not place.exists():
            raise InputError(f"{place} does not exist{nearest_beside(place)}; {_NEEDED}")
        found = list(_walk(place, MAX_DEPTH, set()))
        if not found:
            raise InputError(f"{place} holds neither a run nor a result; {_NEEDED}")
        for path in found:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _walk(place: Path, depth: int, entered: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the runs, folders of results and result files below a place; no folder twice."""
    if place.is_file() or is_run(place):
        yield place
        return
    if not place.is_dir():  # a pipe, or a broken link
        return
    status = place.stat()
    if (status.st_dev, status.st_ino) in entered:  # links form loops
        return
    entered.add((status.st_dev, status.st_ino))
    if (place / RESULTS_NAME).is_dir():
        yield place / RESULTS_NAME
        return
    children = sorted(place.iterdir())
    inside = [
        path
        for child in children
        if depth and child.is_dir() and child.name[0] != "." and child.name not in _ASIDE
        for path in _walk(child, depth - 1, entered)
    ]
    yield from inside
    for child in children:
        if child.suffix != ".json" or child.name in _OTHERS or not child.is_file():
            continue
        try:
            read_results([child])
        except InputError as error:
            if not inside and depth == MAX_DEPTH:
                raise
            # What else lies beside runs is nobody's mistake.
            warnings.warn(f"{error}; left out", UserWarning, stacklevel=2)
        else:
            yield child


def read_runs(places: Sequence[Path]) -> dict[Path, Run]:
    """Read runs, each under a name that no other has.

    Args:
        places: run directories.
    """
    names = _name_apart([place.resolve() for place in places])
    return {
        place: read_run(place, name)
        for place, name in zip(places, names, strict=True)
        if (place / METRICS_NAME).is_file()
    }


def _name_apart(places: Sequence[Path]) -> list[str]:
    """Return the ends of paths, each as short as tells it from the others."""
    names = []
    for place in places:
        ends = range(1, len(place.parts) + 1)
        others = [other.parts for other in places if other != place]
        longest = len(place.parts)
        num = next((n for n in ends if all(o[-n:] != place.parts[-n:] for o in others)), longest)
        names.append(str(Path(*place.parts[-num:])))
    return names


def read_entries(place: Path, run: Run | None) -> Iterator[Entry]:
    """Yield the results of a place, with what is known of their trunks.

    Args:
        place: from ``find_places``.
        run: that is there, if one is.
    """
    if is_run(place) and not (place / RESULTS_NAME).is_dir():
        return
    for result in read_results([place]):
        known = _find_facts(result.recipe)
        facts = known if run is None else read_run_facts(run, known, result.step)
        if run is None and known is not None and not result.step:
            facts = dataclasses.replace(known, pretext=RANDOM, difficulty=0)
        marks: tuple[str, ...] = ()
        if run is not None and known is not None and facts is not None:
            changes = describe_changes(facts, known)
            marks = (f"recipe changed: {'; '.join(changes)}",) if changes else ()
        yield Entry(result, facts, run="" if run is None else run.name, marks=marks)


@functools.cache
def _find_facts(recipe: str) -> Facts | None:
    return find_facts(recipe)
