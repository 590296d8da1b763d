"""Measure this package beside the MLOps Zoomcamp course's pipeline, on the same two months.

Each way goes from two parquet files on disk to a validation RMSE, both with the course's features
(zone pair and distance, nothing bounded):

- ours: `train_model([train], features="course")`, then `evaluate(validate)`;
- course: every column read, a Python call a row for the duration, a dictionary a trip for
  `DictVectorizer`, and `LinearRegression` as it comes;
- course, converged: the same with `LinearRegression(tol=1e-12)`, whose RMSE must equal ours. As it
  comes, scikit-learn stops its iterations before it reaches the least-squares answer.

Every measurement has a fresh process, one at a time, the ways taking turns. In it the way first
runs on a thousand rows, so that imports, also those libraries put off to their first call, are
over when the clock starts. Time is wall time. Memory is the peak of the whole process, most of it
Python and its libraries: the peak from before the clock is beside it. No Prefect, no MLflow.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

# Libraries are imported where they run: a child's peak memory starts at the parent's, and the
# course's must not contain this package.
if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
REAL = tuple(ROOT.parent / f"shared/data/green_tripdata_2021-0{month}.parquet" for month in (1, 2))
SAMPLE = tuple(
    ROOT / f"data/sample/synthetic_green_tripdata_2025-0{month}.parquet" for month in (1, 2)
)
MIB_PER_MAXRSS = 1 / 2**20 if sys.platform == "darwin" else 1 / 2**10
AGREEMENT = 1e-6
"""Minutes by which the RMSE of ours and of the converged course may differ."""


def run_ours(train: Path, validate: Path) -> float:
    """Validation RMSE by this package."""
    from taxi_duration import train_model

    return train_model([train], features="course").evaluate(validate).rmse


def run_course(train: Path, validate: Path, **options: float) -> float:
    """Validation RMSE by the course's pipeline; `options` go to `LinearRegression`."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import root_mean_squared_error

    columns = ["PU_DO", "trip_distance"]
    train_trips, validation_trips = read_course_trips(train), read_course_trips(validate)
    vectorizer = DictVectorizer()
    train_matrix = vectorizer.fit_transform(train_trips[columns].to_dict("records"))
    validation_matrix = vectorizer.transform(validation_trips[columns].to_dict("records"))
    regression = LinearRegression(**options).fit(train_matrix, train_trips["duration"])
    predicted = regression.predict(validation_matrix)
    return float(root_mean_squared_error(validation_trips["duration"], predicted))


def read_course_trips(path: Path) -> pd.DataFrame:
    """One row a trip of 1 to 60 minutes, with every raw column, `duration` and `PU_DO`."""
    import pandas as pd

    trips = pd.read_parquet(path)
    cab = "lpep" if "lpep_pickup_datetime" in trips else "tpep"
    elapsed = trips[f"{cab}_dropoff_datetime"] - trips[f"{cab}_pickup_datetime"]
    trips["duration"] = elapsed.apply(lambda td: td.total_seconds() / 60)
    trips = trips[(trips["duration"] >= 1) & (trips["duration"] <= 60)].copy()
    zones = trips[["PULocationID", "DOLocationID"]].astype(int).astype(str)
    trips["PU_DO"] = zones["PULocationID"] + "_" + zones["DOLocationID"]
    return trips


OURS, COURSE, CONVERGED = "ours", "course", "course, converged"
WAYS: dict[str, Callable[[Path, Path], float]] = {
    OURS: run_ours,
    COURSE: run_course,
    CONVERGED: partial(run_course, tol=1e-12),
}


class Measurement(NamedTuple):
    """One run of one way: minutes of RMSE, seconds, and MiB at its peak and before the clock."""

    rmse: float
    seconds: float
    peak_mib: float
    idle_mib: float


def measure(way: str, train: Path, validate: Path) -> Measurement:
    """Run a way in this process, which should have done nothing else."""
    run = WAYS[way]
    warm_up(run)
    idle = read_peak_mib()
    start = time.perf_counter()
    rmse = run(train, validate)
    return Measurement(rmse, time.perf_counter() - start, read_peak_mib(), idle)


def warm_up(run: Callable[[Path, Path], float]) -> None:
    """Have a way import all it needs, by running it on a few trips."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as scratch:
        few = Path(scratch, "few.parquet")
        batch = next(pq.ParquetFile(SAMPLE[0]).iter_batches(1000))
        pq.write_table(pa.Table.from_batches([batch]), few)
        run(few, few)


def read_peak_mib() -> float:
    """The most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MIB_PER_MAXRSS


def measure_apart(way: str, train: Path, validate: Path) -> Measurement:
    """Run a way in a fresh process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, way, train, validate).result()


def make_report(measured: dict[str, list[Measurement]], given: argparse.Namespace) -> str:
    """The table in markdown, with what it was measured on; files by their names alone."""
    train, validate = given.train.name, given.validate.name
    months = ["--train", train, "--validate", validate, "--rounds", str(given.rounds)]
    options = ["--smoke"] if given.smoke else months
    command = shlex.join(["python", "-m", "benchmarks.course", *options])
    medians = {
        way: Measurement(*map(statistics.median, zip(*runs, strict=True)))
        for way, runs in measured.items()
    }
    ours, rows = medians[OURS], []
    for way, median in medians.items():
        times = [run.seconds for run in measured[way]]
        rows.append(
            f"| {way} | {median.rmse:.6f} "
            f"| {median.seconds:.3f} ({min(times):.3f} to {max(times):.3f}) "
            f"| {median.seconds / ours.seconds:.1f}x "
            f"| {median.peak_mib:.0f} ({median.idle_mib:.0f}) "
            f"| {median.peak_mib / ours.peak_mib:.1f}x |"
        )
    table = "\n".join(rows)
    libraries = ("numpy", "pandas", "pyarrow", "scikit-learn", "scipy")
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return f"""# Ours beside the course's way

Trained on `{train}`, validated on `{validate}`. Medians of {given.rounds} \
round{"s" if given.rounds > 1 else ""}; x is times ours. How it is measured: the docstring of \
`benchmarks/course.py`.

| way | validation RMSE, minutes | seconds (range) | time | peak MiB (before the clock) | memory |
|---|---|---|---|---|---|
{table}

RMSE of ours and of the converged course differ by {difference(measured):.1e} minutes.

{os.cpu_count()} cores, {platform.system()} {platform.machine()}, \
Python {platform.python_version()}, {versions}. Made by `{command}`.
"""


def difference(measured: dict[str, list[Measurement]]) -> float:
    """Minutes between the RMSE of ours and of the converged course."""
    return abs(measured[OURS][0].rmse - measured[CONVERGED][0].rmse)


class OneLineParser(argparse.ArgumentParser):
    """Refuses bad arguments in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line and choose the months."""
    parser = OneLineParser(
        prog="python -m benchmarks.course",
        description="Measure ours beside the course's way and print times, memory and ratios.",
        allow_abbrev=False,
    )
    parser.add_argument("--train", type=Path, metavar="FILE", help="month to train on")
    parser.add_argument("--validate", type=Path, metavar="FILE", help="month to validate on")
    parser.add_argument("--rounds", type=int, metavar="N", help="runs of each way (default: 3)")
    parser.add_argument("--smoke", action="store_true", help="one round on the synthetic sample")
    given = parser.parse_args(arguments)
    if given.smoke and [given.train, given.validate, given.rounds] != [None] * 3:
        parser.error("--smoke takes no other option: leave out the others, or --smoke.")
    if (given.train is None) != (given.validate is None):
        parser.error("--train and --validate belong together: give both, or neither.")
    given.rounds = (1 if given.smoke else 3) if given.rounds is None else given.rounds
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds} is too few: give at least 1.")
    if given.train is None:
        has_real = not given.smoke and all(month.is_file() for month in REAL)
        given.train, given.validate = REAL if has_real else SAMPLE
    for month in (given.train, given.validate):
        if not month.is_file():
            parser.error(f"{month} is not a file: give a month's parquet file.")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the report; return the exit code."""
    given = parse_arguments(arguments)
    measured: dict[str, list[Measurement]] = {way: [] for way in WAYS}
    try:
        for _ in range(given.rounds):
            for way, runs in measured.items():
                runs.append(measure_apart(way, given.train, given.validate))
    except Exception as error:
        from taxi_duration import TaxiDurationError

        if not isinstance(error, TaxiDurationError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    report = make_report(measured, given)
    print(report, end="")
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) if given.smoke else RESULTS
        directory.mkdir(exist_ok=True)
        (directory / "course.md").write_text(report, "utf-8")
    apart = difference(measured)
    if not apart <= AGREEMENT:
        print(f"error: RMSE of {OURS!r} and {CONVERGED!r} differ by {apart:.1e}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
