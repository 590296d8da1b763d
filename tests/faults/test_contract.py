"""Months that break the data contract, or nearly: they fail with counts, and nothing is kept."""

import sqlite3
import statistics
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_duration import DataError, InputError, train_model
from taxi_duration.data.clean import LIMITS, RowFunnel, check_row_count
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import (
    check_footer,
    check_rows_against_earlier,
    find_drift,
    reduce_trips,
)
from taxi_duration.data.schema import CABS, describe_drift
from taxi_duration.model.features import FEATURE_SETS
from taxi_duration.model.month_sums import recall_month, reduce_month
from taxi_duration.settings import Thresholds, read_settings
from tests.support.months import FEBRUARY, JANUARY, MARCH, write_month, write_months
from tests.support.runs import read_logs, read_report_artifact, run_local

GREEN = CABS["green"]
COURSE = FEATURE_SETS["course"]
MONTH = Month(2023, 1)
RUN = ("--year", "2023", "--month", "1", "--data-dir", "data", "--offline")


def write_rows(path: Path, rows: int, month: Month = MONTH, **columns: Any) -> Path:
    """A green month of so many trips of ten minutes, but for the columns given."""
    pickup = pd.Timestamp(f"{month}-10 08:00:00")
    trips = {
        "lpep_pickup_datetime": pickup,
        "lpep_dropoff_datetime": pickup + pd.Timedelta(minutes=10),
        "PULocationID": 74,
        "DOLocationID": 75,
        "trip_distance": 1.5,
        **columns,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(trips, index=range(rows)).to_parquet(path, index=False)
    return path


def first(rows: int, special: Any, count: int, usual: Any) -> list[Any]:
    """A column of so many rows whose first `count` values are special."""
    return [special] * count + [usual] * (rows - count)


START = pd.Timestamp("2023-01-10 08:00:00")
BREAKING: dict[str, Callable[[int], dict[str, Any]]] = {
    "picked up outside the month": lambda count: {
        "lpep_pickup_datetime": first(1000, START + pd.Timedelta(days=31), count, START),
        "lpep_dropoff_datetime": first(
            1000, START + pd.Timedelta(days=31, minutes=9), count, START + pd.Timedelta(minutes=9)
        ),
    },
    "drop-off not after pick-up": lambda count: {
        "lpep_dropoff_datetime": first(1000, START, count, START + pd.Timedelta(minutes=9))
    },
    "not within 1 to 60 minutes": lambda count: {
        "lpep_dropoff_datetime": first(
            1000, START + pd.Timedelta(minutes=61), count, START + pd.Timedelta(minutes=9)
        )
    },
    "zone missing": lambda count: {"DOLocationID": first(1000, None, count, 75)},
    "zone not 1 to 265": lambda count: {"PULocationID": first(1000, 266, count, 265)},
}
"""Columns of a thousand rows, of which so many break the rule."""

ALLOWED = dict(zip(LIMITS, (50, 50, 150, 10, 1), strict=True))
"""Of a thousand rows."""


@pytest.mark.parametrize("rule", LIMITS)
def test_as_many_rows_as_the_limit_may_break_a_rule_and_not_one_more(
    tmp_path: Path, rule: str
) -> None:
    limit = ALLOWED[rule]
    path = write_rows(tmp_path / "month.parquet", 1000, **BREAKING[rule](limit))
    sums = reduce_month(path, COURSE, GREEN, MONTH, thresholds=Thresholds())
    assert {name: n for name, n in sums.funnel.broken.items() if n and name in rule} == {
        rule: limit
    }
    write_rows(path, 1000, **BREAKING[rule](limit + 1))
    with pytest.raises(DataError) as raised:
        recall_month(tmp_path / "sums", path, COURSE, GREEN, MONTH, thresholds=Thresholds())
    assert str(raised.value) == (
        f"{path}: the data contract is broken, {rule}: {limit + 1} of 1,000 rows "
        f"({(limit + 1) / 10:.2f}%, where TAXI_DURATION_CONTRACT_{LIMITS[rule].upper()} allows "
        f"{limit / 10:g}%): choose another month, or fetch it again; if "
        "trips were like this, change the limit."
    )
    assert not (tmp_path / "sums").exists()


@pytest.mark.parametrize("fewest", [0.9, 0.7, 0.55])
def test_the_boundary_is_exact_whatever_the_limit(fewest: float) -> None:
    rows = round(100 * (1 - fewest))
    limits = Thresholds(fewest_within_hour=fewest)
    for broken, passes in ((rows, True), (rows + 1, False)):
        funnel = RowFunnel(100, {}, 50, {}, {"not within 1 to 60 minutes": broken})
        if passes:
            funnel.check(limits)
        else:
            with pytest.raises(DataError, match=f"{broken} of 100 rows"):
                funnel.check(limits)


def test_every_broken_rule_is_named(tmp_path: Path) -> None:
    columns = {
        "PULocationID": [None, 0, *[74] * 8],
        "lpep_dropoff_datetime": [START] * 3 + [START + pd.Timedelta(minutes=5)] * 7,
    }
    path = write_rows(tmp_path / "month.parquet", 10, **columns)
    with pytest.raises(DataError) as raised:
        reduce_month(path, COURSE, GREEN, MONTH.next, thresholds=Thresholds())
    for rule, count in zip(LIMITS, (10, 3, 3, 1, 1), strict=True):
        assert f"{rule}: {count} of 10 rows" in str(raised.value)


def test_the_limits_are_read_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "month.parquet", 1000, **BREAKING["zone missing"](20))
    with pytest.raises(DataError, match=r"zone missing: 20 of 1,000 rows \(2\.00%, where TAXI_"):
        train_model([path], "course")
    monkeypatch.setenv("TAXI_DURATION_CONTRACT_MOST_NULL_ZONES", "0.02")
    assert train_model([path], "course").evaluate(path).rows == 980
    monkeypatch.setenv("TAXI_DURATION_CONTRACT_MOST_NULL_ZONES", "2 %")
    with pytest.raises(InputError, match=r"TAXI_DURATION_CONTRACT_MOST_NULL_ZONES is '2 %': "):
        train_model([path], "course")


def test_months_that_were_kept_are_held_to_todays_limits(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "month.parquet", 1000, **BREAKING["zone missing"](20))
    sums = tmp_path / "sums"
    lax = Thresholds(most_null_zones=0.02)
    kept = recall_month(sums, path, COURSE, GREEN, MONTH, thresholds=lax)
    with pytest.raises(DataError, match=r"month.parquet: the data contract is broken, zone miss"):
        recall_month(sums, path, COURSE, GREEN, MONTH, thresholds=Thresholds())
    assert recall_month(sums, path, COURSE, GREEN, MONTH, thresholds=lax).was_there
    assert [*sums.iterdir()] == [kept.path]


def test_a_model_may_be_evaluated_on_any_month_with_trips(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "month.parquet", 10, PULocationID=first(10, None, 9, 74))
    assert train_model([JANUARY], "course").evaluate(path).rows == 1


# What is in the file, seen by the flow.


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("wrong", ["training", "validation"])
def test_a_month_that_is_another_costs_the_run_nothing(tmp_path: Path, wrong: str) -> None:
    data = tmp_path / "data"
    write_months(data, MONTH)
    month = MONTH if wrong == "training" else MONTH.next
    path = write_month(data / month.file_name("green"), month=month.shift(5))
    run = run_local(tmp_path, *RUN)
    assert run.exit_code == 2
    assert (
        f"data/{path.name}: the data contract is broken, picked up outside the month: 12 of 12 "
        "rows (100.00%, where TAXI_DURATION_CONTRACT_MOST_OUTSIDE_MONTH allows 5%): choose "
        "another month, or fetch it again; if trips were like this, change the limit."
    ) in " ".join(run.output.split())
    assert "Traceback" not in run.output
    assert run.flow_run.state_name == "Failed"
    assert not [*tmp_path.glob("models/green*")]
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        assert store.execute("SELECT COUNT(*) FROM runs").fetchone() == (0,)
    kept = [each.name[:7] for each in tmp_path.glob("models/sums/*")]
    assert kept == ([] if wrong == "training" else ["2023-01"])


@pytest.mark.usefixtures("prefect_api")
def test_drift_is_logged_and_recorded_and_stops_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_months(data, MONTH)
    path = data / MONTH.file_name("green")
    table = pq.read_table(path)
    names = [{"PULocationID": "pulocationid"}.get(name, name) for name in table.column_names]
    table = table.rename_columns(names).append_column("tip|jar", pa.array([1] * 12))
    pq.write_table(table, path)
    run = run_local(tmp_path, *RUN)
    sentences = ["column pulocationid is the new name of PULocationID.", "column tip|jar is new."]
    assert run.exit_code == 0
    assert run.report["drift"] == {path.name: sentences}
    assert run.report["thresholds"] == Thresholds().model_dump()
    assert run.report["train"]["broken"] == dict.fromkeys(LIMITS, 0)
    warnings = {
        log.message: log.level
        for log in read_logs(run.flow_run.id, awaited="report published")
        if "column" in log.message
    }
    assert {f"{path.name}: {sentence}": 30 for sentence in sentences}.items() <= warnings.items()
    shown = str(read_report_artifact(run.flow_run.id).data)
    assert f"- `{path.name}`: {sentences[1]}" in shown.splitlines()
    assert "| picked up outside the month | 0 | 0 | 5 % |" in shown.splitlines()


# Drift of columns.


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    write_month(path)
    pq.write_table(change(pq.read_table(path)), path)
    return path


def cast(column: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(column)
        return table.set_column(place, column, table[column].cast(kind, safe=False))

    return change


def rename(**names: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.rename_columns([names.get(n, n) for n in table.column_names])


HARMLESS = {
    "case": (rename(trip_distance="Trip_Distance"), "column Trip_Distance is the new name of tri"),
    "alias": (
        rename(lpep_pickup_datetime="Pickup_datetime"),
        "column Pickup_datetime is the new name of lpep_pickup_datetime.",
    ),
    "float32": (cast("trip_distance", pa.float32()), "trip_distance holds float, so far double."),
    "decimal": (cast("trip_distance", pa.decimal128(9, 2)), "holds decimal128(9, 2), so far dou"),
    "int16": (cast("DOLocationID", pa.int16()), "holds int16, so far int64 or int32."),
    "uint64": (cast("DOLocationID", pa.uint64()), "holds uint64, so far int64 or int32."),
    "double": (cast("PULocationID", pa.float64()), "holds double, so far int64 or int32."),
    "milliseconds": (
        cast("lpep_pickup_datetime", pa.timestamp("ms")),
        "column lpep_pickup_datetime holds timestamp[ms], so far timestamp[us] or timestamp[ns].",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HARMLESS)
def test_drift_that_does_no_harm_is_described_and_changes_nothing(
    tmp_path: Path, kind: str
) -> None:
    change, sentence = HARMLESS[kind]
    path = rewrite(tmp_path / "changed.parquet", change)
    (said,) = find_drift(path, GREEN)
    assert sentence in said
    usual = write_month(tmp_path / "usual.parquet")
    assert find_drift(usual, GREEN) == ()
    assert reduce_trips(path, list, GREEN, MONTH)[1] == reduce_trips(usual, list, GREEN, MONTH)[1]
    (ours, _), (theirs, _) = (reduce_trips(each, list, GREEN)[0] for each in (path, usual))
    for name, column in theirs[0].items():
        assert ours[0][name].dtype == column.dtype
        np.testing.assert_array_equal(ours[0][name], column)


def test_files_the_tlc_has_published_do_not_drift(real_data: Path) -> None:
    for path in [*real_data.glob("*.parquet"), JANUARY, FEBRUARY, MARCH]:
        assert find_drift(path, CABS["yellow" if "yellow" in path.name else "green"]) == ()


def test_any_number_of_new_columns_is_told_in_few_words() -> None:
    usual = {field.name: str(field.type) for field in pq.read_schema(JANUARY)}
    many = usual | {f"column\n{n:05}" + "x" * 999: "string" for n in range(5000)}
    said = describe_drift(many, GREEN)
    assert len(said) == 41
    assert said[-1] == "4,960 more columns differ."
    assert all(len(sentence) < 200 and "\n" not in sentence for sentence in said)
    del many["trip_distance"]
    with pytest.raises(
        DataError, match=r"column trip_distance is missing: .*, \.\.\.\.$"
    ) as raised:
        describe_drift(many, GREEN)
    assert len(str(raised.value)) < 5000


HARMFUL = {
    "words": pa.array(["8"] * 12),
    "bytes": pa.array([b"8"] * 12),
    "yes or no": pa.array([True] * 12),
    "days": pa.array([date(2023, 1, 1)] * 12),
    "durations": pa.array([1] * 12, pa.duration("us")),
    "nothing": pa.nulls(12),
    "lists": pa.array([[1]] * 12),
    "structs": pa.array([{"a": 1}] * 12),
    "a dictionary": pa.array(["8"] * 12).dictionary_encode(),
}


@pytest.mark.parametrize("column", ["lpep_pickup_datetime", "PULocationID", "trip_distance"])
@pytest.mark.parametrize("kind", HARMFUL)
def test_a_column_that_cannot_be_read_fails_by_its_footer(
    tmp_path: Path, kind: str, column: str
) -> None:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index(column), column, HARMFUL[kind])

    path = rewrite(tmp_path / "month.parquet", change)
    wanted = "times" if column.startswith("lpep") else "numbers"
    with pytest.raises(DataError) as raised:
        check_footer(path, GREEN)
    found = pq.read_schema(path).field(column).type
    assert str(raised.value) == (
        f"{path}: column {column} holds {found}, which cannot be read as {wanted}: choose another "
        "month, or fetch it again."
    )


def test_times_that_no_microseconds_hold_are_named(tmp_path: Path) -> None:
    path = rewrite(tmp_path / "month.parquet", lambda table: table.set_column(
        0, "lpep_pickup_datetime", pa.array([2**62] * 12, pa.timestamp("ms"))
    ))  # fmt: skip
    with pytest.raises(DataError, match=r"is damaged: .* out of bounds timestamp: 46.* again\."):
        reduce_trips(path, list, GREEN)


# Row counts.


def write_earlier(directory: Path, *rows: int, prefix: str = "") -> None:
    for back, count in enumerate(rows, start=1):
        month = MONTH.shift(-back)
        write_rows(directory / f"{prefix}{month.file_name('green')}", count, month)


@pytest.mark.parametrize(
    ("rows", "word"), [(49, "under 0.5"), (50, ""), (200, ""), (201, "over 2")]
)
def test_half_to_double_the_median_of_earlier_months_is_a_month(
    tmp_path: Path, rows: int, word: str
) -> None:
    write_earlier(tmp_path, 100, 5, 5000)
    path = write_rows(tmp_path / MONTH.file_name("green"), rows)
    if not word:
        check_rows_against_earlier(path, GREEN, MONTH, Thresholds())
        return
    with pytest.raises(DataError) as raised:
        check_rows_against_earlier(path, GREEN, MONTH, Thresholds())
    variable = "FEWEST_ROWS" if rows < 100 else "MOST_ROWS"
    assert str(raised.value) == (
        f"{path}: {rows} rows are {word} times 100, the median of the 3 earlier months that are "
        "here: fetch it again; if there were so many trips, "
        f"change TAXI_DURATION_CONTRACT_{variable}."
    )


def test_only_the_year_before_and_files_of_the_same_kind_count(tmp_path: Path) -> None:
    path = write_rows(tmp_path / MONTH.file_name("green"), 10)
    others = [
        f"yellow_tripdata_{MONTH.shift(-1)}.parquet",
        f"synthetic_green_tripdata_{MONTH.shift(-1)}.parquet",
        MONTH.shift(-13).file_name("green"),
        MONTH.next.file_name("green"),
    ]
    for name in others:
        write_rows(tmp_path / name, 1000)
    (tmp_path / MONTH.shift(-2).file_name("green")).write_bytes(b"PAR1 no month PAR1")
    check_rows_against_earlier(path, GREEN, MONTH, Thresholds())
    synthetic = write_rows(tmp_path / f"synthetic_{path.name}", 10)
    with pytest.raises(DataError, match=r"10 rows are under 0.5 times 1,000, the median of the 1"):
        check_rows_against_earlier(synthetic, GREEN, MONTH, Thresholds())
    write_rows(tmp_path / MONTH.shift(-12).file_name("green"), 1000)
    with pytest.raises(DataError, match=r"10 rows are under 0.5 times 1,000, the median of the 1"):
        check_rows_against_earlier(path, GREEN, MONTH, Thresholds())


@given(st.lists(st.integers(0, 10**7), max_size=12), st.integers(0, 10**7))
@settings(max_examples=50, deadline=None)
def test_row_counts_are_compared_with_their_median(earlier: list[int], rows: int) -> None:
    usual = statistics.median(earlier) if earlier else rows
    if usual / 2 <= rows <= usual * 2:
        check_row_count(rows, earlier, Thresholds())
    else:
        with pytest.raises(DataError):
            check_row_count(rows, earlier, Thresholds())


def test_the_months_of_the_sample_keep_the_contract() -> None:
    limits = read_settings(Thresholds)
    for path, month in ((JANUARY, Month(2025, 1)), (FEBRUARY, Month(2025, 2))):
        reduce_trips(path, list, GREEN, month, limits)
        check_rows_against_earlier(path, GREEN, month, limits)
