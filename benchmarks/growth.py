"""How seconds and peak memory grow with the rows of a month and with the months of a window."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.data import Data, Plan, list_months
from benchmarks.growth_plot import Curve, draw_growth
from benchmarks.measure import (
    Measurement,
    find_median,
    measure,
    measure_way,
    run_apart,
    take_turns,
    write_few_trips,
)
from benchmarks.tables import Part, Target, count, render_measurements, render_table
from benchmarks.ways import COURSE, FLOOR, OURS, OURS_EXTENDED, VECTORISED, read_five_columns

PLOT = "growth.png"
SLOW_WAYS = (COURSE, VECTORISED)
WINDOW_FEATURES = {OURS: "course", OURS_EXTENDED: "extended", FLOOR: None}
ONE_MONTH, WHOLE_WINDOW = "one month, nothing cached", "the window, nothing cached"
MOVED, AGAIN = "the window moved by one month", "the same window again"

Grown = dict[str, dict[int, Measurement]]
"""Way -> rows or months -> median."""


def measure_growth(data: Data, plan: Plan, plot: Path) -> Part:
    """Measure growth with rows and with months, and what a window costs when it moves."""
    by_rows = measure_rows(data, plan)
    windows = data.make_yellow(
        [(month, plan.window_rows) for month in list_months(plan.window_months[-1] + 1)]
    )
    by_months = measure_months(windows, plan)
    moved = measure_moved_window(windows, plan.rounds)
    draw_plot(by_rows, by_months, plot)
    text = f"""
Medians of {count(plan.rounds, "round")} ({" and ".join(SLOW_WAYS)}: 1); generated yellow months,
imports excluded. How it is measured: `benchmarks/measure.py`.

![Seconds and peak memory by rows and by months]({PLOT})

## Rows of the training month, validated on {min(plan.growth_rows):,}

{render_grown(by_rows, "million rows", 1e6)}

## Months of the training window, each of {plan.window_rows:,} rows; training alone

{render_grown(by_months, "months", 1)}

## A window of {count(plan.window_months[-1], "month")} with its months' sums kept, `extended`; \
training alone

{render_measurements(moved, ONE_MONTH, scored=False)}

## Targets
"""
    return Part("growth", "Growth with rows and with months", text, make_targets(by_months, moved))


def measure_rows(data: Data, plan: Plan) -> Grown:
    """Training months of growing size; the validation month stays small."""
    sizes = plan.growth_rows
    validate, *trains = data.make_yellow(
        [("2023-02", min(sizes)), *(("2023-01", rows) for rows in sizes)]
    )
    grown: Grown = {way: {} for way in (FLOOR, OURS, OURS_EXTENDED, VECTORISED, COURSE)}
    for rows, train in zip(sizes, trains, strict=True):
        ways = [way for way in grown if way not in SLOW_WAYS or rows <= plan.most_rows_course]
        runs = {way: partial(run_apart, measure_way, way, [train], validate) for way in ways}
        measured = take_turns({way: runs[way] for way in ways if way not in SLOW_WAYS}, plan.rounds)
        measured |= take_turns({way: runs[way] for way in ways if way in SLOW_WAYS}, 1)
        for way in ways:
            grown[way][rows] = find_median(measured[way])
    return grown


def measure_months(windows: Sequence[Path], plan: Plan) -> Grown:
    """Windows of growing length, all starting with the first month."""
    grown: Grown = {way: {} for way in WINDOW_FEATURES}
    for months in plan.window_months:
        runs = {
            way: partial(run_apart, measure_window, way, windows[:months])
            for way in WINDOW_FEATURES
        }
        for way, measured in take_turns(runs, plan.rounds).items():
            grown[way][months] = find_median(measured)
    return grown


def measure_moved_window(windows: Sequence[Path], rounds: int) -> dict[str, list[Measurement]]:
    """A window of all months but the last, then of all but the first, which finds the others."""

    def train_with(paths: Sequence[Path], sums: Path) -> Measurement:
        return run_apart(measure_window, OURS_EXTENDED, paths, sums)

    measured: dict[str, list[Measurement]] = {
        name: [] for name in (ONE_MONTH, WHOLE_WINDOW, MOVED, AGAIN)
    }
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as scratch:
            alone, window = Path(scratch, "alone"), Path(scratch, "window")
            runs = {
                ONE_MONTH: partial(train_with, windows[-1:], alone),
                WHOLE_WINDOW: partial(train_with, windows[:-1], window),
                MOVED: partial(train_with, windows[1:], window),
                AGAIN: partial(train_with, windows[1:], window),
            }
            for name, (measurement,) in take_turns(runs, 1).items():
                measured[name].append(measurement)
    return measured


def measure_window(way: str, paths: Sequence[Path], sums: Path | None = None) -> Measurement:
    """Train on a window in this process, which should have done nothing else."""

    def prepare() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            few = write_few_trips(Path(scratch))
            train_window(way, [few], sums and Path(scratch, "sums"))

    return measure(partial(train_window, way, paths, sums), prepare)


def train_window(way: str, paths: Sequence[Path], sums: Path | None) -> float:
    """Train, and answer no RMSE; the floor reads what training needs."""
    features = WINDOW_FEATURES[way]
    if features is None:
        for path in paths:
            read_five_columns(path)
        return math.nan

    from taxi_duration import train_model

    if sums is None:
        train_model(paths, features=features)
    else:
        train_model(paths, features=features, sums_directory=sums)
    return math.nan


def make_targets(by_months: Grown, moved: dict[str, list[Measurement]]) -> list[Target]:
    """Hold the longest window against one month."""
    targets = []
    for way in (OURS, OURS_EXTENDED):
        (few, one), *_, (many, window) = by_months[way].items()
        months = count(many, "month")
        targets += [
            Target(
                f"{way}: peak memory of {months}, times that of {few}",
                1.25,
                window.peak_mib / one.peak_mib,
            ),
            Target(
                f"{way}: seconds a month in {months}, times those in {few}",
                1.1,
                window.seconds / many / (one.seconds / few),
            ),
        ]
    seconds = {name: find_median(runs).seconds for name, runs in moved.items()}
    moving = seconds[MOVED] - seconds[AGAIN]
    return [
        *targets,
        Target(
            "seconds of a window moved by one month, kept sums read and all, times one month's",
            1.25,
            seconds[MOVED] / seconds[ONE_MONTH],
        ),
        Target(
            "of them, seconds beyond those of the same window again, times one month's",
            1.25,
            moving / seconds[ONE_MONTH],
        ),
    ]


def render_grown(grown: Grown, unit: str, scale: float) -> str:
    """A row a size; a way's cell is its seconds and its peak memory."""
    sizes = list(dict.fromkeys(size for medians in grown.values() for size in medians))
    rows = [
        [f"{size / scale:g}", *(show_cell(medians.get(size)) for medians in grown.values())]
        for size in sizes
    ]
    return render_table([unit, *(f"{way}: s, MiB" for way in grown)], rows)


def show_cell(median: Measurement | None) -> str:
    """Seconds and peak MiB, or a dash for what was not measured."""
    return "-" if median is None else f"{median.seconds:.2f}, {median.peak_mib:.0f}"


def draw_plot(by_rows: Grown, by_months: Grown, plot: Path) -> None:
    """Draw apart, so that the drawing's memory is in no later measurement."""

    def make_curves(grown: Grown, scale: float) -> list[Curve]:
        return [
            Curve(
                way,
                [size / scale for size in medians],
                [median.seconds for median in medians.values()],
                [median.peak_mib for median in medians.values()],
            )
            for way, medians in grown.items()
        ]

    run_apart(draw_growth, make_curves(by_rows, 1e6), make_curves(by_months, 1), plot)
