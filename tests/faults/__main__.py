"""The long form of the faults: ``python -m tests.faults [MODULE ...] [--only PART]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import presses, saving, soak, training
from tests.faults.case import run_case

MODULES = {"saving": saving, "training": training, "presses": presses, "soak": soak}


def main() -> int:
    """Run the cases one after the other; return the exit code."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)}; none: all")
    parser.add_argument("--only", default="", help="a part of the cases' names")
    parser.add_argument("--times", type=int, help="tries of a case; without it its own number")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long the soak kills")
    options = parser.parse_args()
    soak.MINUTES = options.minutes
    unknown = sorted(set(options.modules) - set(MODULES))
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(MODULES)}")
    num_lost = num_cases = 0
    for module in options.modules or MODULES:
        for case in MODULES[module].list_cases():
            if options.only not in case.name:
                continue
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="faults-") as folder:
                tally = run_case(case, Path(folder), options.times)
            num_cases += 1
            num_lost += len(tally.lost)
            print(
                f"{'LOST' if tally.lost else 'held'} {module}: {case.name}: {tally.tried} tried, "
                f"{len(tally.lost)} lost, {time.monotonic() - began:.0f} s",
                *(f"     {reason}" for reason in tally.lost),
                sep="\n",
                flush=True,
            )
    print(f"{num_cases} cases, {num_lost} lost")
    return 1 if num_lost or not num_cases else 0


if __name__ == "__main__":
    sys.exit(main())
