"""Scoring a very large file, beside what it takes to read it and throw it away."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.data import Data, Plan
from benchmarks.measure import (
    Measurement,
    find_median,
    measure,
    run_apart,
    take_turns,
    write_few_trips,
)
from benchmarks.tables import Part, Target, count, render_table

READ_ALL, READ_NEEDED, STREAM_NEEDED, OURS, OURS_ONE_GROUP, OURS_CSV = (
    "read all columns (`read_table`)",
    "read the five that are needed (`read_table`)",
    "the five batch by batch, kept by nobody",
    "ours, to parquet",
    "ours, to parquet, the file in one row group",
    "ours, to CSV",
)
NEEDED = [
    "tpep_pickup_datetime", "tpep_dropoff_datetime", "PULocationID", "DOLocationID",
    "trip_distance",
]  # fmt: skip
FEATURES = "extended"
MB_A_MIB = 2**20 / 1e6


def measure_scoring(data: Data, plan: Plan) -> Part:
    """Read and score a generated yellow file, a process each, in turn."""
    (path,) = data.make_yellow([("2023-01", plan.scored_rows)])
    with tempfile.TemporaryDirectory() as scratch:
        one_group = Path(scratch, "one_group.parquet")
        run_apart(write_one_group, path, one_group)
        ways = dict.fromkeys((READ_ALL, READ_NEEDED, STREAM_NEEDED, OURS, OURS_CSV), path)
        ways[OURS_ONE_GROUP] = one_group
        measured = take_turns(
            {
                way: partial(run_apart, measure_way, way, source, Path(scratch))
                for way, source in ways.items()
            },
            plan.rounds,
        )
        found = run_apart(count_rows, Path(scratch, "predictions.parquet"))
    differences = []
    if found != plan.scored_rows:
        differences.append(f"{plan.scored_rows:,} rows were scored, and {found:,} came out.")
    text = f"""
A generated yellow file of {plan.scored_rows:,} rows with all of the TLC's columns,
{path.stat().st_size / 1e6:.0f} MB. An `{FEATURES}` model, fitted to a few trips, predicts it and is
held against the durations. Medians of {count(plan.rounds, "round")}, imports excluded. How it is
measured: `benchmarks/measure.py`.

{render_ways(measured, plan.scored_rows)}

## Targets
"""
    return Part("scoring", "Scoring a very large file", text, make_targets(measured), differences)


def write_one_group(path: Path, target: Path) -> None:
    """The needed columns of a file, all rows in one group."""
    import pyarrow.parquet as pq

    trips = pq.read_table(path, columns=NEEDED)
    pq.write_table(trips, target, row_group_size=len(trips), compression="zstd")


def count_rows(path: Path) -> int:
    """A file's rows, from its footer."""
    import pyarrow.parquet as pq

    rows: int = pq.read_metadata(path).num_rows
    return rows


def measure_way(way: str, path: Path, scratch: Path) -> Measurement:
    """Run a way in this process, which should have done nothing else."""
    with tempfile.TemporaryDirectory() as own:
        few = write_few_trips(Path(own))
        act = make_way(way, few, scratch)

        def prepare() -> None:
            if way.startswith("ours"):
                act(few)

        def run() -> float:
            act(path)
            return math.nan

        return measure(run, prepare)


def make_way(way: str, few: Path, scratch: Path) -> Callable[[Path], object]:
    """What a way does with a file, with all that comes before it done."""
    import pyarrow.parquet as pq

    if way == READ_ALL:
        return pq.read_table
    if way == READ_NEEDED:
        return partial(pq.read_table, columns=NEEDED)
    if way == STREAM_NEEDED:
        return read_batches

    from taxi_duration import train_model
    from taxi_duration.predict.score import NamedModel, score_trips

    named = NamedModel(train_model([few], FEATURES), "green/few-trips", "1")
    suffix = "csv" if way == OURS_CSV else "parquet"
    return lambda path: score_trips(named, path, scratch / f"predictions.{suffix}")


def read_batches(path: Path) -> None:
    """Read the needed columns a batch at a time, and keep none."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as parquet:
        for _ in parquet.iter_batches(1 << 16, columns=NEEDED):
            pass


def render_ways(measured: Mapping[str, Sequence[Measurement]], rows: int) -> str:
    """A row a way: seconds, rows a second, and peak memory."""
    lines = []
    for way, runs in measured.items():
        median, times = find_median(runs), [run.seconds for run in runs]
        lines.append(
            [
                way,
                f"{median.seconds:.3f} ({min(times):.3f} to {max(times):.3f})",
                f"{rows / median.seconds / 1e6:.2f}",
                f"{median.peak_mib:.0f} ({median.idle_mib:.0f})",
            ]
        )
    heads = ["way", "seconds (range)", "million rows a second", "peak MiB (before the clock)"]
    return render_table(heads, lines)


def make_targets(measured: Mapping[str, Sequence[Measurement]]) -> list[Target]:
    """Hold the medians against what was to be reached."""
    median = {way: find_median(runs) for way, runs in measured.items()}
    ours = median[OURS]
    speeds = {
        READ_ALL: "reading all columns",
        READ_NEEDED: "reading the needed columns",
        STREAM_NEEDED: "reading the needed columns batch by batch",
    }
    return [
        *(
            Target(
                f"rows a second of ours, times those of {text}",
                0.1,
                median[way].seconds / ours.seconds,
                at_least=True,
            )
            for way, text in speeds.items()
        ),
        Target(
            "peak memory of ours, the highest, MB",
            1000,
            MB_A_MIB * max(median[way].peak_mib for way in (OURS, OURS_ONE_GROUP, OURS_CSV)),
        ),
    ]
