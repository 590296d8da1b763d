"""The committed sample is synthetic and says so, has the planted defects, and can be made again."""

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).parents[1] / "data" / "make_sample.py"
SAMPLE = SCRIPT.parent / "sample"
MONTHS = ("2025-01", "2025-02", "2025-03")
REQUIRED = (
    "lpep_pickup_datetime",
    "lpep_dropoff_datetime",
    "PULocationID",
    "DOLocationID",
    "trip_distance",
)
SCHEMA = """
VendorID int32
lpep_pickup_datetime timestamp[us]
lpep_dropoff_datetime timestamp[us]
store_and_fwd_flag large_string
RatecodeID int64
PULocationID int32
DOLocationID int32
passenger_count int64
trip_distance double
fare_amount double
extra double
mta_tax double
tip_amount double
tolls_amount double
ehail_fee double
improvement_surcharge double
total_amount double
payment_type int64
trip_type int64
congestion_surcharge double
cbd_congestion_fee double
"""
# Of a month's rows: the range seen in real months. The first and the last are counts of rows.
SEEN = {
    "pickup outside the file's month": (2, 43),
    "drop-off not after pickup": (0.0006, 0.007),
    "outside 1 to 60 minutes, in all": (0.033, 0.066),
    "zero miles": (0.03, 0.06),
    "over 100 miles": (9, 80),
}


def path_of(month: str, directory: Path = SAMPLE) -> Path:
    return directory / f"synthetic_green_tripdata_{month}.parquet"


def column(trips: pa.Table, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = trips[name].to_numpy()
    return values


def minutes_of(trips: pa.Table) -> npt.NDArray[Any]:
    taken = column(trips, "lpep_dropoff_datetime") - column(trips, "lpep_pickup_datetime")
    minutes: npt.NDArray[Any] = taken / np.timedelta64(1, "m")
    return minutes


def count_defects(trips: pa.Table, month: str) -> dict[str, int]:
    minutes, miles = minutes_of(trips), column(trips, "trip_distance")
    zones = np.stack([column(trips, "PULocationID"), column(trips, "DOLocationID")])
    pickup_month = column(trips, "lpep_pickup_datetime").astype("M8[M]")
    rows_with = {
        "pickup outside the file's month": pickup_month != np.datetime64(month, "M"),
        "drop-off not after pickup": minutes <= 0,
        "outside 1 to 60 minutes, in all": (minutes < 1) | (minutes > 60),
        "zero miles": miles == 0,
        "over 100 miles": miles > 100,
        "zone 264 at an end": (zones == 264).any(axis=0),
        "zone 265 at an end": (zones == 265).any(axis=0),
        "no meter: null `passenger_count` and others": trips["passenger_count"].is_null(),
    }
    return {"rows": trips.num_rows} | {
        name: int(np.count_nonzero(rows)) for name, rows in rows_with.items()
    }


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=MONTHS)
def month(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trips(month: str) -> pa.Table:
    return pq.read_table(path_of(month))


def test_the_schema_is_the_current_one_of_the_tlc(trips: pa.Table) -> None:
    assert [f"{field.name} {field.type}" for field in trips.schema] == SCHEMA.split("\n")[1:-1]


def test_columns_are_compressed_as_the_tlc_does(month: str) -> None:
    group = pq.ParquetFile(path_of(month)).metadata.row_group(0)
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}


def test_every_file_says_that_it_is_synthetic(trips: pa.Table) -> None:
    mark = trips.schema.metadata
    assert mark[b"synthetic"] == b"true"
    assert re.search(
        rb"made by data/make_sample.py with seed \d+; no TLC row", mark[b"description"]
    )


def test_the_directory_holds_the_three_months_in_under_2_mb() -> None:
    files = sorted(p for p in SAMPLE.iterdir() if p.name != "README.md")
    assert files == [path_of(m) for m in MONTHS]
    assert sum(p.stat().st_size for p in files) < 2_000_000


@pytest.mark.parametrize("defect", SEEN)
def test_a_defect_is_as_frequent_as_in_real_months(
    trips: pa.Table, month: str, defect: str
) -> None:
    count = count_defects(trips, month)[defect]
    low, high = SEEN[defect]
    assert low <= (count if high >= 1 else count / trips.num_rows) <= high


def test_wrong_clocks_and_distances_go_as_far_as_in_real_months(trips: pa.Table) -> None:
    years = column(trips, "lpep_pickup_datetime").astype("M8[Y]").astype(int) + 1970
    assert (years.min(), years.max()) == (2008, 2041)
    assert 200_000 < column(trips, "trip_distance").max() <= 250_000


def test_zones_are_real_numbers_and_both_odd_ones_occur(trips: pa.Table) -> None:
    zones = np.unique([column(trips, "PULocationID"), column(trips, "DOLocationID")])
    assert (zones.min(), zones.max()) == (1, 265)
    assert {264, 265} <= set(zones.tolist())


def test_nulls_are_only_where_no_trip_needs_a_value(trips: pa.Table) -> None:
    assert [trips[name].null_count for name in REQUIRED] == [0] * len(REQUIRED)
    assert trips["ehail_fee"].null_count == trips.num_rows
    unmetered = trips["passenger_count"].is_null()
    assert 0 < pc.sum(unmetered).as_py() < trips.num_rows / 10
    for name in ("RatecodeID", "store_and_fwd_flag", "payment_type", "congestion_surcharge"):
        assert trips[name].is_null().equals(unmetered)


def test_no_row_is_there_twice(trips: pa.Table) -> None:
    assert trips.group_by(list(REQUIRED)).aggregate([]).num_rows == trips.num_rows


def test_the_readme_counts_what_the_files_hold() -> None:
    readme = (SAMPLE / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [line.strip("| ").split("|") for line in readme if line.startswith("|")]
    told = {name.strip(): [int(n.replace(",", "")) for n in ns] for name, *ns in cells[2:]}
    counts = [count_defects(pq.read_table(path_of(m)), m) for m in MONTHS]
    assert told == {name: [c[name] for c in counts] for name in counts[0]}


def test_the_zone_pair_tells_something_about_the_next_month() -> None:
    def kept(month: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        trips = pq.read_table(path_of(month))
        minutes = minutes_of(trips)
        pair = column(trips, "PULocationID") * 266 + column(trips, "DOLocationID")
        usable = (minutes >= 1) & (minutes <= 60)
        return pair[usable], minutes[usable]

    (pair, minutes), (next_pair, next_minutes) = kept("2025-01"), kept("2025-02")
    trips_of_pair = np.bincount(pair, minlength=266**2)
    total = np.bincount(pair, weights=minutes, minlength=266**2)
    mean = minutes.mean()
    of_pair = np.where(trips_of_pair > 0, total / np.maximum(trips_of_pair, 1), mean)[next_pair]
    assert len(np.unique(pair)) > 3000
    assert np.square(next_minutes - of_pair).mean() < 0.75 * np.square(next_minutes - mean).mean()


@pytest.fixture(scope="module")
def made(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the script filled; it is copied, never written."""
    directory = tmp_path_factory.mktemp("made")
    assert script.main(["--output", str(directory)]) == 0
    return directory


def test_the_script_makes_the_committed_tables(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (script.main(["--check"]), capsys.readouterr().err) == (0, "")


def test_making_it_twice_gives_the_same_bytes_and_leaves_nothing_else(
    script: ModuleType, made: Path, tmp_path: Path
) -> None:
    assert script.main(["--output", str(tmp_path)]) == 0
    first, second = ({p.name: p.read_bytes() for p in d.iterdir()} for d in (made, tmp_path))
    assert first == second
    assert sorted(first) == [path_of(m).name for m in MONTHS]


def test_another_seed_gives_other_trips(script: ModuleType) -> None:
    trips = script.make_trips("2025-01", 500, 1)
    assert trips.num_rows == 500
    assert trips.equals(script.make_trips("2025-01", 500, 1), check_metadata=True)
    assert (
        trips["lpep_pickup_datetime"]
        != script.make_trips("2025-01", 500, 2)["lpep_pickup_datetime"]
    )


def one_mile_more(trips: pa.Table) -> pa.Table:
    miles = column(trips, "trip_distance").copy()
    miles[-1] += 1
    index = trips.schema.get_field_index("trip_distance")
    return trips.set_column(index, trips.schema.field(index), pa.array(miles))


@pytest.mark.parametrize(
    "spoil", [one_mile_more, lambda t: t.replace_schema_metadata(), lambda t: t.slice(1), None]
)
def test_check_names_the_file_that_was_changed_or_is_missing(
    script: ModuleType,
    made: Path,
    spoil: Callable[[pa.Table], pa.Table] | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    changed = path_of("2025-02", copy)
    if spoil is None:
        changed.unlink()
    else:
        pq.write_table(spoil(pq.read_table(changed)), changed)
    assert script.main(["--check", "--output", str(copy)]) == 1
    assert capsys.readouterr().err == f"{changed}: not what this script makes; run it again\n"
