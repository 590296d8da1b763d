"""What a month costs: bytes on disk, seconds, memory, and bytes of sums."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.data import Data, Plan
from benchmarks.measure import measure, note, run_apart, write_few_trips
from benchmarks.tables import Part, count, render_table

if TYPE_CHECKING:
    from taxi_duration.data.month import Month
    from taxi_duration.data.schema import Cab
    from taxi_duration.model.training import Training, Window

FEATURES = "extended"
REDUCED, AGAIN, SOLVED, VALIDATED = (
    "read and reduced to sums",
    "again, its sums kept",
    "sums of {} added up and solved",
    "validated with the model and two baselines",
)


PAGE = Path("docs", "scaling.md")
BEGIN, END = "<!-- measured -->", "<!-- end of what is measured -->"

LAST_MONTH = "2026-09"
DOWNLOAD_MB_A_SECOND = 10
DOLLARS_A_CORE_HOUR = 0.0408
PRICE_SOURCE = "m7g.large, 2 cores, 8 GiB, us-east-1, on demand, $0.0816 an hour, June 2026"


class Cost(NamedTuple):
    """One stage of a month: wall seconds, CPU seconds of all threads, MiB at the peak."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


class MonthCost(NamedTuple):
    """A month's cost by stage, and the bytes of its file and of its sums."""

    title: str
    cab: str
    rows: int
    file_bytes: int
    sums_bytes: int
    stages: dict[str, Cost]


def measure_month_cost(data: Data, plan: Plan, page: Path) -> Part:
    """Measure a usual and a very large yellow month, both generated, and a green month.

    Args:
        page: shows the same tables, between `BEGIN` and `END`, if it is there.
    """
    months = [("2023-01", plan.yellow_rows[0]), ("2023-02", plan.largest_rows)]
    usual, largest = data.make_yellow(months)
    green, _ = data.green_pair
    costs = [
        measure_one("yellow, generated", "yellow", "2023-01", usual, plan),
        measure_one("yellow, generated", "yellow", "2023-02", largest, plan),
        measure_one(f"{data.green_title}: `{green.name}`", "green", green.stem[-7:], green, plan),
    ]
    figures = f"""
## What a month costs

What a run does with a month, `{FEATURES}` features, each stage in a process of its own, imports
excluded; medians of {count(plan.cost_rounds, "round")}. CPU seconds are those of all threads.

{render_costs(costs)}

## What all years come to

A backfill with a window of {count(plan.cost_window, "month")}. Months up to {LAST_MONTH}, each
taken to cost what one above did: no line is a forecast, and the last is meant as a bound. CPU
minutes: to read and validate each month, which workers do at the same time; and to add up and solve
each window, which the run's own process does, one after another. Download: at
{DOWNLOAD_MB_A_SECOND} MB/s, which is assumed, not measured. Dollars: all CPU minutes at
{DOLLARS_A_CORE_HOUR} a core and hour ({PRICE_SOURCE}).

{render_plan(costs, plan.cost_window)}
""".strip()
    if page.exists():
        before, rest = page.read_text("utf-8").split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{rest.split(END)[1]}", "utf-8")
    how = "How it is measured: `benchmarks/measure.py`; `docs/scaling.md` plans with these figures."
    return Part("month_cost", "The cost of a month, and of all", f"{how}\n\n{figures}")


def measure_one(title: str, cab: str, month: str, path: Path, plan: Plan) -> MonthCost:
    """Measure every stage of one month."""
    stages: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as scratch:
        sums = Path(scratch, "sums")
        sums_bytes = rows = 0
        for name in (REDUCED, AGAIN, SOLVED, VALIDATED):
            shown, measured = name.format(count(plan.cost_window, "month")), []
            for number in range(plan.cost_rounds):
                kept = Path(scratch, f"fresh-{number}") if name == REDUCED else sums
                made = run_apart(measure_stage, name, cab, month, path, kept, plan.cost_window)
                measured.append(made)
                note(f"{title}, {shown}: {made.seconds:.2f} s")
            stages[shown] = Cost(*map(statistics.median, zip(*measured, strict=True)))
            if name == REDUCED:
                Path(scratch, "fresh-0").rename(sums)
                (kept_file,) = sums.glob("*.npz")
                sums_bytes = kept_file.stat().st_size
                rows = run_apart(count_rows, path)
    return MonthCost(title, cab, rows, path.stat().st_size, sums_bytes, stages)


def count_rows(path: Path) -> int:
    """A file's rows, from its footer."""
    import pyarrow.parquet as pq

    rows: int = pq.read_metadata(path).num_rows
    return rows


def measure_stage(
    name: str, cab: str, month: str, path: Path, sums: Path, window_months: int
) -> Cost:
    """Run a stage in this process, which should have done nothing else."""
    cpu_seconds = math.nan

    def run() -> float:
        nonlocal cpu_seconds
        begun = time.process_time()
        act()
        cpu_seconds = time.process_time() - begun
        return math.nan

    def prepare() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            few = write_few_trips(Path(scratch))
            make_stage(name, "green", "2025-01", few, Path(scratch, "sums"), 1)()

    prepare()
    act = make_stage(name, cab, month, path, sums, window_months)
    measured = measure(run, lambda: None)
    return Cost(measured.seconds, cpu_seconds, measured.peak_mib)


def make_stage(
    name: str, cab_name: str, month_text: str, path: Path, sums: Path, window_months: int
) -> Callable[[], object]:
    """What a stage does, with all that comes before it done."""
    from taxi_duration.data.month import Month
    from taxi_duration.data.schema import get_cab

    cab, month = get_cab(cab_name), Month.parse(month_text)
    if name in (REDUCED, AGAIN):
        return partial(reduce, path, sums, cab, month)
    if name == SOLVED:
        if not sums.exists():
            reduce(path, sums, cab, month)
        (kept,) = sums.glob("*.npz")
        return partial(solve, [kept] * window_months)
    return prepare_validation(path, cab, month)


def reduce(path: Path, sums: Path, cab: Cab, month: Month) -> None:
    """Reduce a month as `clean-trips` does, or find its sums."""
    from taxi_duration.model.features import get_feature_set
    from taxi_duration.model.month_sums import recall_month

    recall_month(sums, path, get_feature_set(FEATURES), cab, month, with_medians=True)


def solve(kept: list[Path]) -> Training:
    """Add kept sums up and fit the window, as `build-features` and `train-regression` do."""
    from taxi_duration.model.training import fit_window

    return fit_window(add_up(kept))


def add_up(kept: list[Path]) -> Window:
    """A window of kept sums."""
    from taxi_duration.model.features import get_feature_set
    from taxi_duration.model.month_sums import load_sums
    from taxi_duration.model.training import sum_window

    features = get_feature_set(FEATURES)
    return sum_window(
        features, [lambda kept=each: load_sums(kept, features).tables for each in kept]
    )


def prepare_validation(path: Path, cab: Cab, month: Month) -> Callable[[], object]:
    """Score a model and the baselines on a month, as `validate` does.

    The model is fitted to a few trips: another would take as long, and leave a higher peak.
    """
    from taxi_duration.evaluation.evaluate import evaluate_predictors
    from taxi_duration.model.baselines import Baselines
    from taxi_duration.model.features import get_feature_set
    from taxi_duration.model.month_sums import reduce_month
    from taxi_duration.model.training import fit_window, sum_window

    with tempfile.TemporaryDirectory() as scratch:
        few = write_few_trips(Path(scratch))
        sums = reduce_month(few, get_feature_set(FEATURES), with_medians=True)
    window = sum_window(get_feature_set(FEATURES), [lambda: sums.tables])
    model = fit_window(window).model
    if sums.medians is None:
        raise AssertionError("a month was reduced without the medians it was asked for")
    baselines = Baselines(window.mean_minutes, sums.medians)
    predictors = {"model": model.predict_clean, **baselines.predictors}
    return partial(evaluate_predictors, predictors, path, cab, month, in_detail=True)


def render_costs(costs: list[MonthCost]) -> str:
    """A table a month: its bytes, and a row a stage."""
    parts = []
    for cost in costs:
        rows = [
            [name, f"{each.seconds:.3f}", f"{each.cpu_seconds:.3f}", f"{each.peak_mib:.0f}"]
            for name, each in cost.stages.items()
        ]
        table = render_table(["stage", "seconds", "CPU seconds", "peak MiB"], rows)
        parts.append(
            f"### {cost.title}, {cost.rows:,} rows\n\n"
            f"File: {cost.file_bytes / 1e6:.1f} MB. Sums in `models/sums`: "
            f"{cost.sums_bytes / 1e6:.1f} MB.\n\n{table}"
        )
    return "\n\n".join(parts)


def render_plan(costs: list[MonthCost], window_months: int) -> str:
    """What all months of a cab type come to, if each is as one that was measured."""
    from taxi_duration.data.month import Month
    from taxi_duration.data.schema import CABS

    usual, largest, green = costs
    shown = [(green, "green"), (usual, "green"), (usual, "yellow"), (largest, "yellow")]
    rows = []
    for each, cab in shown:
        first = CABS[cab].first_month
        months = Month.parse(LAST_MONTH).since(first) + 1
        reduced, _, solved, validated = each.stages.values()
        spread = months * (reduced.cpu_seconds + validated.cpu_seconds) / 60
        alone = (months - window_months) * solved.cpu_seconds / 60
        rows.append(
            [
                f"{cab} since {first}, each of {each.rows:,} rows",
                f"{months}",
                f"{months * each.file_bytes / 1e9:.1f}",
                f"{months * each.sums_bytes / 1e9:.1f}",
                f"{months * each.file_bytes / 1e6 / DOWNLOAD_MB_A_SECOND / 60:.0f}",
                f"{spread:.1f}",
                f"{alone:.1f}",
                f"{(spread + alone) / 60 * DOLLARS_A_CORE_HOUR:.2f}",
            ]
        )
    heads = ["files, GB", "sums, GB", "minutes of download", "CPU minutes on workers"]
    return render_table(["cab type", "months", *heads, "... in the run", "dollars"], rows)
