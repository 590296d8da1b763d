"""`python -m benchmarks`: measure, print, and write `benchmarks/results/`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from benchmarks.accuracy import measure_accuracy
from benchmarks.data import SMOKE, Data, Plan, find_absent
from benchmarks.growth import PLOT, measure_growth
from benchmarks.measure import ROOT, hurry
from benchmarks.month_cost import PAGE, measure_month_cost
from benchmarks.overhead import CommandError, measure_overhead
from benchmarks.scoring import measure_scoring
from benchmarks.speed import measure_speed
from benchmarks.tables import Part

RESULTS = ROOT / "benchmarks" / "results"
REAL_DATA_VARIABLE = "TAXI_DURATION_REAL_DATA"
PARTS: dict[str, Callable[[Data, Plan, Path], Part]] = {
    "overhead": lambda data, plan, _: measure_overhead(data, plan),
    "speed": lambda data, plan, _: measure_speed(data, plan),
    "growth": lambda data, plan, results: measure_growth(data, plan, results / PLOT),
    "month-cost": lambda data, plan, results: measure_month_cost(
        data, plan, results.parents[1] / PAGE
    ),
    "scoring": lambda data, plan, _: measure_scoring(data, plan),
    "accuracy": lambda data, _plan, _: measure_accuracy(data),
}


class OneLineParser(argparse.ArgumentParser):
    """Refuses bad arguments in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line and check it before anything is measured."""
    parser = OneLineParser(
        prog="python -m benchmarks",
        description="Measure this package beside the course's pipeline, scikit-learn and boosting.",
        allow_abbrev=False,
    )
    parser.add_argument("--only", choices=PARTS, help="measure this part alone")
    parser.add_argument("--rounds", type=int, metavar="N", help="runs of each way (default: 3)")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="keep generated months here (default: a temporary directory; they take 2 GB)",
    )
    parser.add_argument(
        "--real-data",
        type=Path,
        metavar="DIR",
        help=f"real green months (default: {REAL_DATA_VARIABLE}, or ../shared/data)",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a minute of tiny months and the synthetic sample; write nothing",
    )
    given = parser.parse_args(arguments)
    if given.smoke and (given.rounds, given.data, given.real_data) != (None, None, None):
        parser.error("--smoke takes no option but --only: leave out the others, or --smoke.")
    if given.rounds is not None and given.rounds < 1:
        parser.error(f"--rounds {given.rounds} is too few: give at least 1.")
    if given.data is not None and given.data.exists() and not given.data.is_dir():
        parser.error(f"--data {given.data} is a file: give a directory.")
    named = given.real_data or os.environ.get(REAL_DATA_VARIABLE)
    given.real_data = None if given.smoke else Path(named or ROOT.parent / "shared" / "data")
    needs_real = not given.smoke and given.only not in ("growth", "scoring")
    if needs_real and (absent := find_absent(given.real_data)):
        parser.error(
            f"{absent[0]} is not in {given.real_data}: put the TLC's green files of 2021-01, "
            f"2021-02 and 2023-01 to 2023-06 in a directory and name it with --real-data."
        )
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the reports; return the exit code."""
    given = parse_arguments(arguments)
    plan = SMOKE if given.smoke else Plan()
    if given.smoke:
        # Its seconds mean nothing, so that its parts may run side by side; threads that wait for
        # their share of a core, spinning, would make that slow.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        hurry()
    if given.rounds is not None:
        plan = replace(plan, rounds=given.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        data = Data(given.data or Path(scratch, "months"), given.real_data)
        results = Path(scratch, "results") if given.smoke else RESULTS
        results.mkdir(exist_ok=True)
        names = [given.only] if given.only else list(PARTS)
        command = describe_command(given)
        try:
            with ThreadPoolExecutor(2 if given.smoke else 1) as at_once:
                parts = list(
                    at_once.map(
                        lambda name: measure_part(name, data, plan, results, command), names
                    )
                )
        except BrokenProcessPool:
            print("error: a measuring process was killed; is there memory enough?", file=sys.stderr)
            return 1
        except CommandError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except Exception as error:
            # Not at the top: the children's memory starts at this process's.
            from taxi_duration import TaxiDurationError

            if not isinstance(error, TaxiDurationError):
                raise
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
    differences = [difference for part in parts for difference in part.differences]
    for difference in differences:
        print(f"error: {difference}", file=sys.stderr)
    return 1 if differences else 0


def measure_part(name: str, data: Data, plan: Plan, results: Path, command: str) -> Part:
    """Measure one part; print and write its report at once, whatever the next one does."""
    part = PARTS[name](data, plan, results)
    report = part.render(command)
    print(report, flush=True)
    (results / f"{part.name}.md").write_text(report, "utf-8")
    return part


def describe_command(given: argparse.Namespace) -> str:
    """The command without this machine's directories."""
    options = [] if given.only is None else ["--only", given.only]
    options += [] if given.rounds is None else ["--rounds", str(given.rounds)]
    options += ["--smoke"] if given.smoke else []
    return shlex.join(["python", "-m", "benchmarks", *options])


if __name__ == "__main__":
    sys.exit(main())
