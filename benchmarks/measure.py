"""One measurement, in a process of its own, and rounds of them in turn.

Each measurement has a fresh process, one at a time, the ways taking turns. In it the way first runs
on two thousand rows, so that imports, also those libraries put off to their first call, are over
when the clock starts. Time is wall time. Memory is the peak of the whole process, some of it
Python and its libraries: the peak from before the clock is beside it.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.ways import HURRY_VARIABLE, WAYS

# This module and all that the command's own process imports stay light: on Linux a child's peak
# memory starts at its parent's.

Value = TypeVar("Value")

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
WARM_UP_ROWS = 2000
_context: BaseContext = get_context("spawn")
MIB_PER_MAXRSS = 1 / 2**20 if sys.platform == "darwin" else 1 / 2**10


class Measurement(NamedTuple):
    """A run: minutes of RMSE, seconds, and MiB at its peak and before the clock."""

    rmse: float
    seconds: float
    peak_mib: float
    idle_mib: float


def run_apart(function: Callable[..., Value], *arguments: Any) -> Value:
    """Call a function in a fresh process of its own."""
    with ProcessPoolExecutor(1, mp_context=_context) as process:
        return process.submit(function, *arguments).result()


def hurry() -> None:
    """Let processes start with the libraries loaded, and boosting be short: no figure counts."""
    global _context
    os.environ[HURRY_VARIABLE] = "yes"
    _context = get_context("forkserver")
    _context.set_forkserver_preload(["benchmarks.__main__", "taxi_duration", "xgboost"])


def measure_way(way: str, train: Sequence[Path], validate: Path) -> Measurement:
    """Run a way in this process, which should have done nothing else."""
    return measure(partial(WAYS[way], train, validate), partial(warm_up, way))


def measure(run: Callable[[], float], prepare: Callable[[], object]) -> Measurement:
    """Time a run in this process, after what prepares it."""
    prepare()
    idle_mib = read_peak_mib()
    start = time.perf_counter()
    rmse = run()
    return Measurement(rmse, time.perf_counter() - start, read_peak_mib(), idle_mib)


def warm_up(way: str) -> None:
    """Have a way import all it needs, by running it on a few trips."""
    with tempfile.TemporaryDirectory() as scratch:
        few = write_few_trips(Path(scratch))
        WAYS[way]([few], few)


def write_few_trips(directory: Path) -> Path:
    """Some of the sample's trips, from all over its month."""
    import pyarrow.parquet as pq

    name = "synthetic_green_tripdata_2025-01.parquet"
    trips = pq.read_table(SAMPLE / name)
    step = len(trips) // WARM_UP_ROWS
    pq.write_table(trips.take(list(range(0, len(trips), step))), directory / name)
    return directory / name


def read_peak_mib() -> float:
    """The most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MIB_PER_MAXRSS


def take_turns(
    runs: Mapping[str, Callable[[], Measurement]], rounds: int
) -> dict[str, list[Measurement]]:
    """Make every run once a round, in turn; a run measures itself apart."""
    measured: dict[str, list[Measurement]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            measured[name].append(run())
            note(f"{name}: {measured[name][-1].seconds:.2f} s")
    return measured


def find_median(measurements: Sequence[Measurement]) -> Measurement:
    """The median of each figure."""
    return Measurement(*map(statistics.median, zip(*measurements, strict=True)))


def note(text: str) -> None:
    """Say on standard error how far the benchmark is."""
    print(f"  {text}", file=sys.stderr, flush=True)
