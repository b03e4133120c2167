"""The long form of the corpus: ``python -m tests.hostile [MODULE ...] [--only PART]``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .case import Case, Outcome, run_case

_TRIES = 3


def find_cases(wanted: list[str]) -> list[tuple[str, Case]]:
    """Return the cases of all modules, or of those that are wanted, each with its module."""
    found = []
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.startswith(("_", "test_")) or (wanted and module.name not in wanted):
            continue
        cases = getattr(importlib.import_module(f"{__package__}.{module.name}"), "list_cases", None)
        found += [(module.name, case) for case in (cases() if cases else [])]
    return found


def _remove(folder: Path) -> None:
    # Folders nested by the thousand are more than shutil.rmtree takes.
    subprocess.run(["rm", "-rf", folder], check=True)


def _try_case(case: Case, place: Path) -> Outcome:
    """Run a case; again where nothing but the clock spoke against it, for others use the machine.

    What a command needs is the least of its times; one that hangs does so every time.
    """
    for _ in range(_TRIES):
        place.mkdir()
        outcome = run_case(case, place)
        _remove(place)
        if not outcome.is_merely_slow(case):
            break
    return outcome


def main() -> int:
    """Run the cases one after the other; return the exit code."""
    parser = argparse.ArgumentParser(prog="make hostile", description=__doc__)
    parser.add_argument("modules", nargs="*", help="modules of the corpus; none: all")
    parser.add_argument("--only", default="", help="a part of the cases' names")
    options = parser.parse_args()
    cases = [pair for pair in find_cases(options.modules) if options.only in pair[1].name]
    num_failed = 0
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        for number, (module, case) in enumerate(cases):
            outcome = _try_case(case, folder / str(number))
            faults = outcome.list_faults(case)
            num_failed += bool(faults)
            said = (outcome.output.strip().splitlines() or [""])[-1]
            print(
                f"{'FAILED' if faults else 'held  '} {module}: {case.name}: exit code "
                f"{outcome.code}, {outcome.seconds:.1f} s, {outcome.peak_mb:,.0f} MB: {said[:200]}",
                *(f"       {fault}" for fault in faults),
                sep="\n",
                flush=True,
            )
    finally:
        _remove(folder)
    print(f"{len(cases)} cases, {num_failed} failed")
    return 1 if num_failed or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
