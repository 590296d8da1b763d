"""The benchmark runs and its figures agree; how long anything takes is never a test."""

import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmarks import __main__ as command
from benchmarks import accuracy, months, overhead, speed
from benchmarks.data import SMOKE, Data, list_months
from benchmarks.measure import Measurement
from benchmarks.tables import Part, Target, render_measurements, render_targets
from benchmarks.ways import (
    CONVERGED,
    COURSE,
    FLOOR,
    HURRY_VARIABLE,
    OURS,
    OURS_EXTENDED,
    VECTORISED,
    WAYS,
)
from taxi_duration import DataError

ROOT = Path(command.__file__).parents[1]
ROWS = 60_000
SMOKE_VARIABLE = "TAXI_DURATION_SMOKE"


@pytest.fixture(autouse=True)
def kept_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets for its processes does not outlive a test that runs it in this one."""
    for name in ("OMP_NUM_THREADS", HURRY_VARIABLE):
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("months") / "synthetic_yellow_tripdata_2023-02.parquet"
    months.write_month(path, "2023-02", ROWS)
    return path


@pytest.fixture(scope="module")
def trips(month: Path) -> pd.DataFrame:
    return pq.read_table(month).to_pandas()


@pytest.fixture(scope="module")
def minutes(trips: pd.DataFrame) -> pd.Series:
    elapsed = trips["tpep_dropoff_datetime"] - trips["tpep_pickup_datetime"]
    return elapsed.dt.total_seconds() / 60


def test_a_generated_month_has_the_tlcs_yellow_schema(month: Path) -> None:
    schema = pq.read_schema(month)
    assert {field.name: str(field.type) for field in schema} == {
        "VendorID": "int32",
        "tpep_pickup_datetime": "timestamp[us]",
        "tpep_dropoff_datetime": "timestamp[us]",
        "passenger_count": "int64",
        "trip_distance": "double",
        "RatecodeID": "int64",
        "store_and_fwd_flag": "large_string",
        "PULocationID": "int32",
        "DOLocationID": "int32",
        "payment_type": "int64",
        "fare_amount": "double",
        "extra": "double",
        "mta_tax": "double",
        "tip_amount": "double",
        "tolls_amount": "double",
        "improvement_surcharge": "double",
        "total_amount": "double",
        "congestion_surcharge": "double",
        "Airport_fee": "double",
    }
    assert b"no TLC row" in schema.metadata[b"description"]
    assert pq.ParquetFile(month).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_generated_month_has_the_defects_of_real_ones(
    trips: pd.DataFrame, minutes: pd.Series
) -> None:
    pickup, miles = trips["tpep_pickup_datetime"], trips["trip_distance"]
    assert len(trips) == ROWS
    assert 2 <= (pickup.dt.strftime("%Y-%m") != "2023-02").sum() < 100
    assert 0.0006 < (minutes <= 0).mean() < 0.007
    assert 0.03 < (~minutes.between(1, 60)).mean() < 0.066
    assert 0.03 < (miles == 0).mean() < 0.06
    assert (miles > 100).sum() >= 3
    assert miles.max() == 278_990
    assert (trips[["PULocationID", "DOLocationID"]].isin([264, 265]).mean() > 0).all()
    assert trips["passenger_count"].isna().any()
    assert not trips.drop(columns=list(months.METER)).isna().any(axis=None)


def test_generated_trips_are_plausible(trips: pd.DataFrame, minutes: pd.Series) -> None:
    zones = trips[["PULocationID", "DOLocationID"]]
    trips_of_pair = zones.value_counts()
    assert zones.min().min() >= 1
    assert zones.max().max() <= 265
    assert len(trips_of_pair) > 5000
    assert trips_of_pair.head(len(trips_of_pair) // 10).sum() > len(trips) / 2  # heavy-tailed
    kept = minutes.between(1, 60) & (trips["trip_distance"] < 100)
    assert 10 < minutes[kept].median() < 20
    assert minutes[kept].corr(trips.loc[kept, "trip_distance"]) > 0.5
    seconds = minutes * 60
    np.testing.assert_allclose(seconds, seconds.round(), rtol=1e-9, atol=1e-6)
    hundredths = trips["trip_distance"] * 100
    np.testing.assert_allclose(hundredths, hundredths.round(), rtol=1e-9, atol=1e-6)


def test_every_zone_pair_can_occur() -> None:
    drawn = months.draw_pairs(
        months.make_city(months.SEED), "2023-01", 2_000_000, np.random.default_rng(1)
    )
    assert drawn.min() >= 0
    assert drawn.max() < 265**2
    assert len(np.unique(drawn)) > 30_000


def test_a_month_is_the_same_again_and_unlike_any_other(month: Path, tmp_path: Path) -> None:
    months.write_month(tmp_path / "again", "2023-02", ROWS)
    assert pq.read_table(tmp_path / "again").equals(pq.read_table(month))
    others = [
        months.make_trips("2023-02", 100, seed=1),
        months.make_trips("2023-03", 100),
        months.make_trips("2023-02", 100, (0.5, 1.0)),
    ]
    distances = [tuple(other["trip_distance"].to_pylist()) for other in others]
    assert (
        len({*distances, tuple(months.make_trips("2023-02", 100)["trip_distance"].to_pylist())})
        == 4
    )


def test_a_month_is_written_a_row_group_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(months, "ROWS_A_GROUP", 400)
    months.write_month(tmp_path / "month", "2023-01", 1001)
    groups = pq.ParquetFile(tmp_path / "month").metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [333, 334, 334]


def test_generated_months_are_made_once(tmp_path: Path) -> None:
    data = Data(tmp_path, None)
    (made,) = data.make_yellow([("2023-01", 500)])
    before = made.stat().st_mtime_ns
    paths = data.make_yellow([("2023-01", 500), ("2023-01", 600)])
    assert paths[0] == made
    assert made.stat().st_mtime_ns == before
    assert [pq.ParquetFile(path).metadata.num_rows for path in paths] == [500, 600]
    assert list_months(13)[11:] == ["2023-12", "2024-01"]


@dataclass(frozen=True)
class Smoke:
    """What the smoke mode printed, and the directory that it had for its scratch."""

    report: str
    errors: str
    scratch: Path
    is_whole: bool


@pytest.fixture
def smoke(tmp_path: Path) -> Smoke:
    """The run that `.ci/run` has just made, or one part of it alone, which takes a sixth."""
    made = os.environ.get(SMOKE_VARIABLE)
    if made:
        listed = ["git", "status", "--porcelain", str(command.RESULTS)]
        changed = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
        assert changed.stdout == ""
        texts = [Path(made, name).read_text("utf-8") for name in ("report.md", "errors")]
        return Smoke(*texts, scratch=Path(made, "scratch"), is_whole=True)
    before = {path: path.read_bytes() for path in command.RESULTS.glob("*")}
    completed = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--smoke", "--only", "speed"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    assert {path: path.read_bytes() for path in command.RESULTS.glob("*")} == before
    return Smoke(completed.stdout, completed.stderr, tmp_path, is_whole=False)


def test_smoke_measures_and_keeps_nothing(smoke: Smoke) -> None:
    report = smoke.report
    parts = command.PARTS if smoke.is_whole else ["speed"]
    assert len(re.findall(r"^# ", report, re.MULTILINE)) == len(parts)
    assert "error" not in smoke.errors
    # A difference of two times may come out below nothing.
    target = r"^\| .* \| [≤≥] \S+ \| -?[\d.]+ \| (?:yes|\*\*no\*\*) \|$"
    targets = re.findall(target, report, re.MULTILINE)
    assert targets
    assert str(ROOT) not in report
    assert str(smoke.scratch) not in report
    assert not list(smoke.scratch.iterdir())
    if smoke.is_whole:
        assert len(targets) == 16
        assert re.search(r"runs as many tasks, \d+,", report)
        for way in WAYS:
            assert f"| {way} |" in report or f"| {way}: s, MiB |" in report
        scored = re.findall(r"^\| ([^|]+) \| (\d+\.\d{6}) ", report, re.MULTILINE)
        converged = [float(rmse) for way, rmse in scored if way == CONVERGED]
        ours = {float(rmse) for way, rmse in scored if way == OURS}
        assert len(converged) == 2
        assert all(min(abs(rmse - each) for each in ours) < 2e-6 for rmse in converged)


def measured(seconds: float, rmse: float = 7.0, peak_mib: float = 100.0) -> Measurement:
    return Measurement(rmse, seconds, peak_mib, idle_mib=50.0)


@pytest.mark.parametrize(("apart", "differs"), [(0.9e-6, False), (1.1e-6, True), (math.nan, True)])
def test_answers_that_differ_fail(
    apart: float, differs: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretended = {OURS: [measured(1.0)], CONVERGED: [measured(1.0, 7.0 + apart)]}
    differences = speed.check_exactness("these months", pretended)
    part = Part("speed", "Speed", "text", differences=differences)
    monkeypatch.setitem(command.PARTS, "speed", lambda *_: part)
    assert command.main(["--smoke", "--only", "speed"]) == int(differs)
    assert ("error: these months: RMSE of" in capsys.readouterr().err) == differs


def test_a_target_that_is_missed_does_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    missed = Part("speed", "Speed", "text", [Target("as fast as light", 1.0, 2.0)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(command.PARTS, "speed", lambda *_: missed)
        assert command.main(["--smoke", "--only", "speed"]) == 0
    assert "| as fast as light | ≤ 1 | 2.00 | **no** |" in capsys.readouterr().out


def test_tables_hold_medians_ranges_and_ratios() -> None:
    table = render_measurements(
        {
            OURS: [measured(2.0), measured(90.0, peak_mib=9000), measured(2.0)],
            COURSE: [measured(5.0, peak_mib=250)] * 3,
            FLOOR: [measured(1.0, math.nan)] * 3,
        },
        OURS,
    )
    row = "7.000000 | 2.000 (2.000 to 90.000) | 1.00x | 100 (50) | 1.00x |"
    assert f"| {OURS} | {row}" in table
    assert f"| {COURSE} | 7.000000 | 5.000 (5.000 to 5.000) | 2.50x | 250 (50) | 2.50x |" in table
    assert f"| {FLOOR} | - | 1.000" in table


def test_targets_are_ratios_of_medians() -> None:
    seconds = {OURS: 1.0, OURS_EXTENDED: 4.0, COURSE: 80.0, VECTORISED: 7.0, FLOOR: 0.5}
    runs = {way: [measured(each, peak_mib=each * 100)] for way, each in seconds.items()}
    targets = speed.make_targets(runs)
    assert [target.measured for target in targets] == [80, 0.0125, 7, 2, 8]
    assert [target.is_met for target in targets] == [True, True, False, True, True]
    assert "times the seconds of ours | ≥ 60 | 80.00 | yes |" in render_targets(targets)


def test_steps_walk_forward_and_score_the_next_month() -> None:
    real = Data(Path(), Path()).steps
    steps = {n: [s.title for line in real for s in accuracy.list_steps(line, n)] for n in (1, 3)}
    assert steps[1][:2] == ["2021-01 → 2021-02", "2023-01 → 2023-02"]
    assert len(steps[1]) == 6
    assert steps[3] == [
        "2023-01 to 2023-03 → 2023-04",
        "2023-02 to 2023-04 → 2023-05",
        "2023-03 to 2023-05 → 2023-06",
    ]
    assert accuracy.show_lead(4.5, 5.0) == "10.0% lower"
    assert accuracy.show_lead(5.0, 4.0) == "25.0% higher"


def test_measured_flows_reach_no_server_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    environment = overhead.Stores(Path("scratch")).environment
    assert not {"PREFECT_API_URL", "MLFLOW_TRACKING_URI"} & environment.keys()
    assert environment["PREFECT_HOME"].startswith("scratch")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds 0 is too few: give at least 1."),
        (["--rounds", "x"], "argument --rounds: invalid int value: 'x'"),
        (["--only", "price"], "argument --only: invalid choice: 'price'"),
        (["--data", __file__], f"--data {__file__} is a file: give a directory."),
        (["--smoke", "--rounds", "2"], "--smoke takes no option but --only"),
        (["--real-data", "absent"], "green_tripdata_2021-01.parquet is not in absent"),
        (["--month", "1"], "unrecognized arguments: --month 1"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_a_month_that_is_none_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*_: object) -> Part:
        raise DataError("month.parquet is not a parquet file.")

    monkeypatch.setitem(command.PARTS, "speed", measure)
    assert command.main(["--smoke", "--only", "speed"]) == 2
    printed = capsys.readouterr()
    assert (printed.err, printed.out) == ("error: month.parquet is not a parquet file.\n", "")


def test_the_reports_command_has_no_path_of_this_machine() -> None:
    given = command.parse_arguments(["--smoke", "--only", "growth"])
    assert command.describe_command(given) == "python -m benchmarks --only growth --smoke"
    given.data, given.smoke, given.rounds = Path("/a/place"), False, 5
    assert command.describe_command(given) == "python -m benchmarks --only growth --rounds 5"
    assert SMOKE.rounds == 1
