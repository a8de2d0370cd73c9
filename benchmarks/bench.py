"""The benchmarks: this project beside a bare loop and other tools, in one run, on one machine.

    make bench                                 # about three minutes
    .venv/bin/python benchmarks/bench.py --full    # the sizes of the design: a million rows, ten for DuckDB
    .venv/bin/python benchmarks/bench.py latency single-32

Absolute numbers are the machine's; the ratios are what to look at. Report, results and (with matplotlib) a
picture are left in `.bench/`.
"""

from __future__ import annotations

import argparse
import sys

from cases import CASES, FULL, SMALL, Outcome
from data import postgres
from environments import FOLDER
from report import machine, write


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", help=f"which; all by default: {', '.join(CASES)}")
    parser.add_argument("--full", action="store_true", help="at full size: takes most of an hour")
    given = parser.parse_args()
    if unknown := sorted(set(given.cases) - set(CASES)):
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    where = machine()
    outcomes: list[Outcome] = []
    with postgres() as warehouse:
        for name in given.cases or CASES:
            print(f"{name} …", file=sys.stderr, flush=True)
            outcomes.append(CASES[name](warehouse, FULL if given.full else SMALL))
            report = write(outcomes, FOLDER, where)  # each time: what was measured survives a later case that fails
    print(report)


if __name__ == "__main__":
    main()
