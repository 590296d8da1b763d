"""Scoring a file: every row has its prediction, whatever the rows lack and however they come."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taxi_duration import DataError, FeatureSet, InputError, load_model, train_model
from taxi_duration.data.schema import CABS
from taxi_duration.flows.predict import Scored, load_named_model
from taxi_duration.model.training import Training
from taxi_duration.predict.score import NamedModel, Tally, find_seen, map_in_order, score_trips
from taxi_duration.registry.runs import CHAMPION, REGISTERED_MODEL, log_training
from taxi_duration.registry.store import hold_store
from tests.support.downloads import FILE
from tests.support.months import JANUARY, SAMPLE
from tests.support.runs import call_taxi_duration
from tests.support.trained import make_report, save_training, train_on
from tests.support.web import Tlc

PICKUP, DROPOFF, MILES = "lpep_pickup_datetime", "lpep_dropoff_datetime", "trip_distance"
FROM, TO = "PULocationID", "DOLocationID"
COLUMNS = (PICKUP, DROPOFF, FROM, TO, MILES)
START = pd.Timestamp("2025-02-03 08:00:00")


@pytest.fixture(scope="module")
def trainings() -> dict[str, Training]:
    """On January, by feature set."""
    return {name: train_on(JANUARY, name) for name in ("course", "extended")}


@pytest.fixture(scope="module")
def models(trainings: dict[str, Training]) -> dict[str, NamedModel]:
    """By feature set, as a version 3 that is `green/<its features>`."""
    return {
        name: NamedModel(training.model, f"green/{name}", "3")
        for name, training in trainings.items()
    }


@pytest.fixture(scope="module")
def extended(models: dict[str, NamedModel]) -> NamedModel:
    return models["extended"]


def make_trips(rows: int = 6, **columns: Any) -> pd.DataFrame:
    """Trips of ten minutes, of which some columns may be others."""
    pickup = pd.Series([START + pd.Timedelta(hours=hour) for hour in range(rows)])
    made = {
        PICKUP: pickup,
        DROPOFF: pickup + pd.Timedelta(minutes=10),
        FROM: ([74, 75, 42] * rows)[:rows],
        TO: ([75, 42, 74] * rows)[:rows],
        MILES: ([1.5, 0.0, 3.25, 12.0] * rows)[:rows],
    }
    return pd.DataFrame({**made, **columns})


def write(path: Path, trips: pd.DataFrame, **options: Any) -> Path:
    if path.suffix == ".csv":
        trips.to_csv(path, index=False)
    else:
        trips.to_parquet(path, **options)
    return path


def read(path: Path) -> pd.DataFrame:
    """An output, in which text is text and a missing prediction is NaN."""
    if path.suffix == ".csv":
        texts = {"model_version": str, "id": str}
        return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
    return pq.read_table(path).to_pandas()


def score(
    named: NamedModel, trips: pd.DataFrame, output: Path, **options: Any
) -> tuple[pd.DataFrame, Tally]:
    with tempfile.TemporaryDirectory() as directory:
        tally = score_trips(
            named, write(Path(directory, "trips.parquet"), trips), output, **options
        )
    return read(output), tally


MISSING = st.none()
TIMES = st.integers(0, 40 * 86_400).map(lambda seconds: START + pd.Timedelta(seconds=seconds))
NO_TIMES = st.sampled_from([pd.Timestamp("1850-01-01"), pd.Timestamp("2250-01-01")])
ZONES = st.integers(1, 265).map(float)
NO_ZONES = st.sampled_from([0.0, -1.0, 266.0, 74.5, 1e300, float("inf")])
MILE = st.floats(0, 300_000, width=32)
NO_MILE = st.sampled_from([float("inf"), float("-inf"), 1e9])
VALUES = {
    PICKUP: st.one_of(TIMES, MISSING, NO_TIMES),
    DROPOFF: st.one_of(TIMES, MISSING, NO_TIMES),
    FROM: st.one_of(ZONES, MISSING, NO_ZONES),
    TO: st.one_of(ZONES, MISSING, NO_ZONES),
    MILES: st.one_of(MILE, MISSING, NO_MILE),
}


@st.composite
def any_trips(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.lists(st.fixed_dictionaries(VALUES), max_size=12))
    trips = pd.DataFrame(rows, columns=[*COLUMNS])
    times = dict.fromkeys((PICKUP, DROPOFF), "datetime64[us]")
    return trips.astype({**dict.fromkeys((FROM, TO, MILES), float), **times})


def predict_by_hand(named: NamedModel, trips: pd.DataFrame) -> Any:
    """What the library says of the rows that it takes, where unknown zones are none; else NaN."""
    filled = trips.copy()
    for zone in (FROM, TO):
        is_zone = filled[zone].between(1, 265) & (filled[zone] % 1 == 0)
        filled[zone] = filled[zone].where(is_zone, 0).astype(int)
    usable = filled[MILES].abs() <= 1e6
    if "pickup" in named.model.features.needs:
        usable &= filled[PICKUP].between(pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01"))
    predicted = np.full(len(trips), np.nan)
    if usable.any():
        predicted[usable] = named.model.predict(filled[usable])
    return predicted


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    trips=any_trips(),
    features=st.sampled_from(["course", "extended"]),
    chunk=st.integers(1, 13),
    row_group=st.integers(1, 13),
)
def test_every_row_has_its_prediction(
    trips: pd.DataFrame,
    features: str,
    chunk: int,
    row_group: int,
    models: dict[str, NamedModel],
    tmp_path: Path,
) -> None:
    named = models[features]
    expected = predict_by_hand(named, trips)
    source = write(tmp_path / "trips.parquet", trips, row_group_size=row_group)
    text = write(tmp_path / "trips.csv", trips)
    with (
        mock.patch("taxi_duration.data.parquet.CHUNK_ROWS", chunk),
        mock.patch("taxi_duration.predict.writer.ROWS_A_GROUP", row_group),
    ):
        tally = score_trips(named, source, tmp_path / "out.parquet")
        from_text = score_trips(named, text, tmp_path / "out.csv")
    predicted = pq.read_table(tmp_path / "out.parquet")
    assert predicted["id"].to_pylist() == list(range(len(trips)))
    minutes = predicted["predicted_minutes"]
    assert minutes.null_count == np.isnan(expected).sum() == tally.unpredicted
    np.testing.assert_allclose(minutes.to_pandas().astype(float), expected, rtol=1e-12)
    assert not np.isnan(minutes.drop_null().to_numpy()).any()
    assert tally.rows == len(trips)
    written = read(tmp_path / "out.csv")
    np.testing.assert_array_equal(written["predicted_minutes"].astype(float), minutes.to_pandas())
    assert written["id"].astype(int).tolist() == list(range(len(trips)))
    assert (from_text.rows, from_text.unknown_zones) == (tally.rows, tally.unknown_zones)
    assert from_text.unseen_pairs == tally.unseen_pairs
    assert from_text.errors.rows == tally.errors.rows
    assert from_text.errors.squares == pytest.approx(tally.errors.squares, rel=1e-12)


def test_what_rows_lack_is_counted(extended: NamedModel, tmp_path: Path) -> None:
    seen = find_seen(extended.model)
    # A pair that training did not see, of zones that it did; and a zone in which no trip began.
    pickups, dropoffs = np.flatnonzero(seen.pickups), np.flatnonzero(seen.dropoffs)
    pairs = [(i, j) for i in pickups[1:] for j in dropoffs[1:]]
    start, end = next((i, j) for i, j in pairs if not seen.pairs[i * 266 + j])
    usual, there = next((i, j) for i, j in pairs if seen.pairs[i * 266 + j])
    nowhere = int(np.flatnonzero(~seen.pickups)[0])
    trips = make_trips(8)
    trips[FROM] = [usual, None, usual, start, nowhere, usual, usual, 266]
    trips[TO] = [there, there, 12.5, end, there, there, there, None]
    trips.loc[5, MILES] = None
    trips.loc[6, PICKUP] = None
    predicted, tally = score(extended, trips, tmp_path / "out.parquet")
    assert predicted["predicted_minutes"].isna().tolist() == [False] * 5 + [True] * 2 + [False]
    assert (tally.rows, tally.unknown_zones, tally.unseen_zones) == (8, 3, 1)
    assert (tally.unseen_pairs, tally.unpredicted) == (2, 2)
    assert tally.errors.rows == 3
    zone_zero = trips[1:2].assign(**{FROM: 0})
    assert predicted["predicted_minutes"][1] == extended.model.predict(zone_zero)[0]


def test_training_saw_the_zones_and_pairs_of_its_trips(models: dict[str, NamedModel]) -> None:
    trips = pd.read_parquet(JANUARY)
    minutes = (trips[DROPOFF] - trips[PICKUP]).dt.total_seconds() / 60
    kept = trips[minutes.between(1, 60) & trips[[FROM, TO]].ge(1).all(axis=1)]
    for named in models.values():
        seen = find_seen(named.model)
        assert np.flatnonzero(seen.pickups).tolist() == [0, *sorted(kept[FROM].unique())]
        assert np.flatnonzero(seen.dropoffs).tolist() == [0, *sorted(kept[TO].unique())]
        pairs = {divmod(int(code), 266) for code in np.flatnonzero(seen.pairs)}
        assert {pair for pair in pairs if all(pair)} == {*zip(kept[FROM], kept[TO], strict=True)}


def test_a_model_without_zones_counts_none_as_unseen(tmp_path: Path) -> None:
    for terms in (("trip_distance",), ("trip_distance", "PU"), ("DO", "day_hour")):
        model = train_model([JANUARY], FeatureSet("few", terms))
        seen = find_seen(model)
        assert (seen.pickups.all(), seen.dropoffs.all(), seen.pairs.all()) == (
            "PU" not in terms, "DO" not in terms, True,
        )  # fmt: skip
        named = NamedModel(model, "green/few", "1")
        predicted, tally = score(named, make_trips(**{FROM: None, TO: 266}), tmp_path / "out.csv")
        assert predicted["predicted_minutes"].notna().all()
        assert tally.unknown_zones == 6 * (terms != ("trip_distance",))
        assert (tally.unseen_zones, tally.unseen_pairs) == (0, 0)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_without_a_value_is_one_of_missing_values(
    column: str, extended: NamedModel, tmp_path: Path
) -> None:
    predicted, tally = score(extended, make_trips(**{column: None}), tmp_path / "out.parquet")
    has_none = column in (PICKUP, MILES)
    assert predicted["predicted_minutes"].isna().all() == has_none
    assert tally.unpredicted == 6 * has_none
    assert tally.unknown_zones == 6 * (column in (FROM, TO))
    assert tally.evaluation is None


def test_without_the_drop_off_only_predictions_are_made(
    models: dict[str, NamedModel], tmp_path: Path
) -> None:
    for named, absent in ((models["extended"], [DROPOFF]), (models["course"], [DROPOFF, PICKUP])):
        whole, tally = score(named, make_trips(), tmp_path / "whole.parquet")
        assert tally.errors.rows == 6
        few, tally = score(named, make_trips().drop(columns=absent), tmp_path / "few.parquet")
        assert tally.evaluation is None
        pd.testing.assert_frame_equal(few, whole)


def test_a_months_realised_errors_are_those_of_its_validation(
    real_data: Path, tmp_path: Path
) -> None:
    model = train_model([real_data / "green_tripdata_2023-01.parquet"], "course")
    path = real_data / "green_tripdata_2023-02.parquet"
    tally = score_trips(NamedModel(model, "green/x", "1"), path, tmp_path / "out.parquet")
    validated = model.evaluate(path)
    assert tally.evaluation is not None
    assert tally.evaluation.rmse == pytest.approx(validated.rmse, rel=0, abs=1e-9)
    assert tally.evaluation.mae == pytest.approx(validated.mae, rel=0, abs=1e-9)
    assert (tally.rows, tally.evaluation.rows) == (64_809, 62_574)
    assert round(tally.evaluation.rmse, 6) == 6.033847


IDS: dict[str, pa.Array] = {
    "text": pa.array(["NA", "", None, 'a "b", c', "x\ny", "6"]),
    "integers": pa.array([3, 1, None, -2, 2**40, 0]),
    "times": pa.array([START.to_pydatetime()] * 6),
    "categories": pa.array(["b", "a", None, "b", "c", "a"]).dictionary_encode(),
}


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_an_id_column_is_passed_through(
    ids: pa.Array, extended: NamedModel, tmp_path: Path
) -> None:
    trips = pa.Table.from_pandas(make_trips()).append_column("trip id", ids)
    pq.write_table(trips, tmp_path / "trips.parquet")
    with mock.patch("taxi_duration.data.parquet.CHUNK_ROWS", 4):
        for name in ("out.parquet", "out.csv"):
            output = tmp_path / name
            score_trips(extended, tmp_path / "trips.parquet", output, id_column="trip id")
    found = pq.read_table(tmp_path / "out.parquet")["id"]
    assert found.type == ids.type
    assert found.to_pylist() == ids.to_pylist()
    shown = pa_csv.read_csv(
        tmp_path / "out.csv",
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={"id": ids.type}, null_values=[""], quoted_strings_can_be_null=False,
            strings_can_be_null=True,
        ),
    )["id"]  # fmt: skip
    assert shown.to_pylist() == ids.to_pylist()


def test_the_ids_of_a_csv_file_are_its_text(extended: NamedModel, tmp_path: Path) -> None:
    ids = ["007", "NA", "", "1e3", "x\ny", "é"]
    source = write(tmp_path / "trips.CSV".lower(), make_trips(**{"id of trip": ids}))
    score_trips(extended, source, tmp_path / "out.parquet", id_column="id of trip")
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == ids


def test_a_needed_column_may_be_the_id(extended: NamedModel, tmp_path: Path) -> None:
    predicted, tally = score(extended, make_trips(), tmp_path / "out.parquet", id_column=FROM)
    assert predicted["id"].tolist() == make_trips()[FROM].tolist()
    assert tally.unpredicted == 0


def test_a_line_end_in_a_csv_value_may_lie_anywhere(
    extended: NamedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "trips.csv", make_trips(note="\n".join("abcdefgh")))
    for block_bytes in range(120, 200, 2):
        monkeypatch.setattr("taxi_duration.predict.reader.BLOCK_BYTES", block_bytes)
        assert score_trips(extended, source, tmp_path / "out.csv").errors.rows == 6


def test_a_csv_value_that_is_none_costs_its_row_alone(extended: NamedModel, tmp_path: Path) -> None:
    header = f"vendor,{PICKUP},{FROM},{TO},{MILES}\n"
    rows = [
        "2,2025-02-03 08:00:00,74,75,1.5",
        "2,2025-02-03T08:00:00.25,74.0,75,1.50",
        '"a\nb",2025-02-03 08:00:00Z,74,75,1.5',
        "2,02/03/2025 08:00,74,75,1.5",
        "2,2025-02-30 08:00:00,74,75,1.5",
        "2,2025-02-03 08:00:00,Queens,75,1.5",
        "2,2025-02-03 08:00:00,74,75,far",
    ]
    (tmp_path / "trips.csv").write_text(header + "\r\n".join(rows), "utf-8-sig")
    tally = score_trips(extended, tmp_path / "trips.csv", tmp_path / "out.parquet")
    minutes = pq.read_table(tmp_path / "out.parquet")["predicted_minutes"].to_pylist()
    assert (tally.rows, tally.unknown_zones, tally.unpredicted) == (7, 1, 4)
    assert [each is None for each in minutes] == [False] * 2 + [True] * 3 + [False, True]
    assert minutes[0] == minutes[1]


SAID = "write numbers as 1234.5"
TIMED = "write times as 2023-01-31 08:30:00, without a zone"


@pytest.mark.parametrize(
    ("column", "text", "kind", "remedy"),
    [
        (PICKUP, "03/01/2023 12:25:10 AM", "time", TIMED),
        (PICKUP, "2023-03-01T00:25:10Z", "time", TIMED),
        (MILES, "1,5", "number", SAID),
        (FROM, "x", "number", SAID),
    ],
)
def test_a_csv_column_of_which_nothing_can_be_read_is_named(
    column: str, text: str, kind: str, remedy: str, extended: NamedModel, tmp_path: Path
) -> None:
    source = write(tmp_path / "trips.csv", make_trips(**{column: [text, None, "NA"] * 2}))
    with pytest.raises(DataError) as raised:
        score_trips(extended, source, tmp_path / "out" / "out.csv")
    assert str(raised.value) == (
        f"{source}: column {column} holds values such as {text!r}, and none that can be read as a "
        f"{kind}: {remedy}."
    )
    assert [*(tmp_path / "out").iterdir()] == []


NO_ROW = "no row has a duration that the cleaning rules keep"
WITHOUT = [
    ("out.parquet", {DROPOFF: None}, NO_ROW),
    ("out.parquet", {DROPOFF: "x"}, f"column {DROPOFF} holds large_string, which cannot be read "),
    ("out.csv", {DROPOFF: "x"}, f"column {DROPOFF} holds values such as 'x', and none that can "),
    ("out.csv", {DROPOFF: "NA"}, NO_ROW),
    ("out.csv", {MILES: 2e6}, NO_ROW),
]


@pytest.mark.parametrize(("name", "columns", "why"), WITHOUT)
def test_why_there_are_no_realised_errors_is_said(
    name: str, columns: dict[str, Any], why: str, extended: NamedModel, tmp_path: Path
) -> None:
    source = write(tmp_path / f"trips{Path(name).suffix}", make_trips(**columns))
    tally = score_trips(extended, source, tmp_path / name)
    figures = dict(Scored(source, tmp_path / name, "m", "1", tally, 1.0).list_figures())
    assert figures["realised errors"].startswith(f"none: {why}")


def test_that_a_drop_off_is_absent_is_said(models: dict[str, NamedModel], tmp_path: Path) -> None:
    both = f"column {PICKUP} or tpep_pickup_datetime is missing; "
    for name, absent, before in (("extended", [DROPOFF], ""), ("course", [DROPOFF, PICKUP], both)):
        for suffix in (".parquet", ".csv"):
            source = write(tmp_path / f"trips{suffix}", make_trips(1).drop(columns=absent))
            tally = score_trips(models[name], source, tmp_path / "out.csv")
            figures = dict(Scored(source, source, "m", "1", tally, 1.0).list_figures())
            missing = f"{before}column {DROPOFF} or tpep_dropoff_datetime is missing"
            assert figures["realised errors"] == f"none: {missing}"


def test_one_row_is_a_row(extended: NamedModel, tmp_path: Path) -> None:
    source = write(tmp_path / "trips.parquet", make_trips(1, **{FROM: None, MILES: None}))
    tally = score_trips(extended, source, tmp_path / "out.csv")
    figures = dict(Scored(source, source, "m", "1", tally, 1.0).list_figures())
    assert figures["unknown zones"] == "in 1 row"
    assert figures["pairs unseen in training"] == "in 0 rows"
    assert figures["no prediction"] == "for 1 row, which lacks a distance or a time"


def test_the_same_trips_and_model_give_the_same_bytes(extended: NamedModel, tmp_path: Path) -> None:
    for name in ("out.parquet", "out.csv"):
        outputs = [tmp_path / directory / name for directory in ("first", "second")]
        for output in (*outputs, outputs[1]):  # the last time over the one that is there
            score_trips(extended, JANUARY, output)
        assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert {path.name for path in (tmp_path / "second").iterdir()} == {"out.parquet", "out.csv"}


def test_the_output_says_what_it_is_made_of(extended: NamedModel, tmp_path: Path) -> None:
    score_trips(extended, JANUARY, tmp_path / "out.parquet", sha256="ab")
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "id": "int64",
        "predicted_minutes": "double",
        "model_version": "dictionary<values=string, indices=int32, ordered=0>",
    }
    assert schema.metadata == {
        b"model_id": b"green/extended",
        b"model_version": b"3",
        b"input": JANUARY.name.encode(),
        b"sha256": b"ab",
    }
    assert {*read(tmp_path / "out.parquet")["model_version"]} == {"3"}


def test_row_groups_have_one_size_however_the_rows_come(
    extended: NamedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_duration.data.parquet.CHUNK_ROWS", 700)
    monkeypatch.setattr("taxi_duration.predict.writer.ROWS_A_GROUP", 5000)
    tally = score_trips(extended, JANUARY, tmp_path / "out.parquet")
    metadata = pq.read_metadata(tmp_path / "out.parquet")
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert rows == [5000, 5000, 5000, tally.rows - 15_000]


def test_no_more_is_taken_ahead_than_is_allowed() -> None:
    taken = []

    def list_numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(3) as threads:
        results = map_in_order(threads, lambda number: -number, list_numbers(), ahead=5)
        for place, result in enumerate(results):
            assert result == -place
            assert len(taken) <= place + 6
    assert len(taken) == 100


MEMORY_SCRIPT = """
import sys, resource
from pathlib import Path
from taxi_duration.__main__ import main
code = main()
status = Path("/proc/self/status")
if status.exists():  # there ru_maxrss begins at what the parent held
    peak = next(int(line.split()[1]) for line in status.open() if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("peak bytes", peak * 1024)
sys.exit(code)
"""
MANY_ROWS = 6_000_000


def write_many_trips(path: Path) -> Path:
    """A month's trips again and again, all in one row group, as no TLC file is."""
    month = pq.read_table(JANUARY, columns=[*COLUMNS])
    columns = {}
    for name in COLUMNS:
        values = month[name].to_numpy()
        values = values.astype(np.int16) if name in (FROM, TO) else values
        columns[name] = pa.array(np.resize(values, MANY_ROWS))
    options: Any = {"row_group_size": MANY_ROWS, "compression": "none", "use_dictionary": False}
    pq.write_table(pa.table(columns), path, **options)
    assert pq.read_metadata(path).num_row_groups == 1
    return path


def test_memory_does_not_grow_with_the_rows(saved: Path, tmp_path: Path) -> None:
    source = write_many_trips(tmp_path / "trips.parquet")
    completed = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, "predict", "--model", saved, "--input", source,
         "--output", tmp_path / "out.parquet"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    assert f"  rows                      {MANY_ROWS:,}\n" in completed.stdout
    peak = int(completed.stdout.split("peak bytes ")[1])
    # What is imported takes 430 MB, and the rows alone would take 170 more.
    assert peak < 550_000_000
    output = pq.ParquetFile(tmp_path / "out.parquet")
    assert output.metadata.num_rows == MANY_ROWS
    once = pq.read_metadata(JANUARY).num_rows
    first = next(output.iter_batches(2 * once)).to_pandas()
    assert first["id"].tolist() == list(range(2 * once))
    minutes = first["predicted_minutes"].to_numpy()
    np.testing.assert_array_equal(minutes[:once], minutes[once:], strict=True)
    source.unlink()


KILLED_SCRIPT = """
import os, signal, sys
from pathlib import Path
from taxi_duration import load_model
from taxi_duration.predict.score import NamedModel
from taxi_duration.predict.score import score_trips
model, source, output = map(Path, sys.argv[1:])
def die(rows, total):
    os.kill(os.getpid(), signal.SIGKILL)
score_trips(NamedModel(load_model(model), "green/x", "1"), source, output, report=die)
"""


def test_a_scoring_that_is_killed_leaves_what_was_there(
    extended: NamedModel, saved: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "predictions.parquet"
    score_trips(extended, JANUARY, output)
    before = output.read_bytes()
    command = [sys.executable, "-c", KILLED_SCRIPT, saved, JANUARY, output]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert output.read_bytes() == before
    assert len([*output.parent.iterdir()]) == 2
    score_trips(extended, JANUARY, output)
    assert [*output.parent.iterdir()] == [output]
    assert output.read_bytes() == before


def test_a_damaged_file_is_named_and_nothing_is_written(
    extended: NamedModel, tmp_path: Path
) -> None:
    source = tmp_path / "damaged.parquet"
    pq.write_table(pq.read_table(JANUARY), source, row_group_size=5000, use_dictionary=False)
    column = pq.read_schema(source).names.index(MILES)
    start = pq.read_metadata(source).row_group(2).column(column).data_page_offset
    content = bytearray(source.read_bytes())
    content[start : start + 16] = b"\xff" * 16
    source.write_bytes(content)
    with pytest.raises(DataError) as raised:
        score_trips(extended, source, tmp_path / "out" / "out.parquet")
    assert str(raised.value).startswith(f"{source} is damaged: ")
    assert str(raised.value).endswith(": check where it came from, and make it again.")
    assert [*(tmp_path / "out").iterdir()] == []
    (tmp_path / "torn.csv").write_text(f"{PICKUP},{FROM},{TO},{MILES}\n2025-02-03 08:00:00,74\n")
    with pytest.raises(DataError, match=r"torn.csv cannot be read as CSV: .*Expected 4 columns"):
        score_trips(extended, tmp_path / "torn.csv", tmp_path / "out" / "out.csv")
    assert [*(tmp_path / "out").iterdir()] == []


def test_the_input_is_never_replaced(extended: NamedModel, tmp_path: Path) -> None:
    source = write(tmp_path / "trips.parquet", make_trips())
    (tmp_path / "linked.parquet").symlink_to(source)
    (tmp_path / "hard.parquet").hardlink_to(source)
    before = source.read_bytes()
    for name in ("trips.parquet", "linked.parquet", "hard.parquet"):
        output = tmp_path / name
        with pytest.raises(InputError) as raised:
            score_trips(extended, source, output)
        assert str(raised.value) == f"output {output} is the input itself: name another file."
    assert source.read_bytes() == before


def test_a_link_stays_and_what_it_leads_to_is_written(extended: NamedModel, tmp_path: Path) -> None:
    (tmp_path / "latest.csv").symlink_to("second.csv")
    (tmp_path / "second.csv").symlink_to(tmp_path / "far" / "out.csv")
    for _ in range(2):  # the first time what it leads to is not there
        score_trips(extended, JANUARY, tmp_path / "latest.csv")
        assert (tmp_path / "latest.csv").is_symlink()
        assert (tmp_path / "second.csv").is_symlink()
        assert [*(tmp_path / "far").iterdir()] == [tmp_path / "far" / "out.csv"]
    assert len(read(tmp_path / "latest.csv")) == 19_600


def test_files_larger_than_a_month_are_read(
    extended: NamedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_duration.data.parquet.MAX_ROWS", 1)
    monkeypatch.setattr("taxi_duration.data.parquet.MAX_ROW_GROUPS", 0)
    assert score_trips(extended, JANUARY, tmp_path / "out.parquet").rows == 19_600


@pytest.fixture(scope="module")
def saved(trainings: dict[str, Training], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a model of January, which a store beside it has as version 1."""
    directory = tmp_path_factory.mktemp("store")
    training = trainings["extended"]
    report = make_report(training)
    model = save_training(directory / "models", training.model, report)
    with pytest.MonkeyPatch.context() as patched:
        uri = f"sqlite:///{directory / 'mlflow.db'}"
        patched.setenv("MLFLOW_TRACKING_URI", uri)
        with hold_store(uri):
            pass
        with pytest.raises(InputError, match=r"^model '1' is neither a directory nor"):
            load_named_model("1", CABS["green"])
        log_training(CABS["green"], training.model, model, report)
    return model


@pytest.fixture
def store(saved: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    uri = f"sqlite:///{saved.parents[2] / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return mlflow.MlflowClient(uri)


def test_a_model_goes_by_its_alias_its_version_or_its_directory(
    store: mlflow.MlflowClient, saved: Path
) -> None:
    green, model_id = CABS["green"], f"green/{saved.name}"
    with pytest.raises(InputError, match=r"^green has no champion in sqlite:"):
        load_named_model("champion", green)
    store.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, "1")
    trips = make_trips()
    expected = load_model(saved).predict(trips)
    for name, version in (("champion", "1"), ("1", "1"), (str(saved), model_id)):
        named = load_named_model(name, green)
        assert (named.model_id, named.version) == (model_id, version)
        np.testing.assert_array_equal(named.model.predict(trips), expected)
    for name in ("2", "99"):
        absent = rf"^model '{name}' is neither a directory nor, in MLflow store sqlite:"
        with pytest.raises(InputError, match=absent):
            load_named_model(name, green)
    with pytest.raises(
        InputError, match=r"^version 1 of .* is of another cab type, green, than yellow"
    ):
        load_named_model("1", CABS["yellow"])
    with pytest.raises(InputError, match=r"^model .* is of another cab type, green, than yellow: "):
        load_named_model(str(saved), CABS["yellow"])


def test_a_model_directory_may_be_anywhere(saved: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(saved, tmp_path / "a copy")
    named = load_named_model(str(moved), CABS["green"])
    assert named.model_id == named.version == f"green/{saved.name}"


def test_without_a_store_there_is_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(InputError, match=r"^model '1' was not found, .* sqlite:\S+none\.db"):
        load_named_model("1", CABS["green"])
    assert [*tmp_path.iterdir()] == []


def test_the_command_scores_a_month_that_it_downloads(
    saved: Path,
    tlc: Tlc,
    month: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    text = FILE.removesuffix(".parquet")[-7:]
    output = Path("predictions", "out.csv")
    arguments = ["--input", text, "--output", str(output), "--model", str(saved)]
    assert call_taxi_duration("predict", *arguments) == 0
    assert Path("data", FILE).read_bytes() == month
    printed = capsys.readouterr()
    assert printed.err == ""
    for line in (
        f"data/{FILE}", f"  predictions               {output}",
        "  rows                      12", f"  model                     green/{saved.name}",
        "  unknown zones             in 0 rows", "  realised errors           RMSE ",
        "over the 12 rows that the cleaning rules keep", "  rows a second ",
    ):  # fmt: skip
        assert line in printed.out
    predicted = read(output)
    expected = load_model(saved).predict(pd.read_parquet(Path("data", FILE)))
    np.testing.assert_array_equal(predicted["predicted_minutes"], expected)
    assert {*predicted["model_version"]} == {f"green/{saved.name}"}


REFUSED = [
    ("--input trips.parquet --output out", "output out has no suffix: give a file that ends in "),
    ("--input trips.parquet --output out.xlsx", "output out.xlsx has suffix .xlsx: give a file"),
    ("--input trips.json --output out.csv", "input trips.json has suffix .json: give a file"),
    ("--input none.csv --output out.csv", "input none.csv does not exist: give a file of trips"),
    (f"--input {'x' * 300}.csv --output out.csv", f"{'x' * 300}.csv cannot be looked at (File na"),
    ("--input dir.csv --output out.csv", "input dir.csv is no file: give a file of trips"),
    ("--input trips.parquet --output dir.csv", "output dir.csv is a directory: name a file in it"),
    ("--input trips.parquet --output pipe.csv", "output pipe.csv is a pipe or a device: name a f"),
    ("--input trips.parquet --output loop.csv", "output loop.csv is a link that leads back to it"),
    ("--input trips.parquet --output o\0.csv", "path 'o\\x00.csv' has a null character: leave it"),
    ("--input t\0.csv --output out.csv", "path 't\\x00.csv' has a null character: leave it"),
    (
        "--input 2023-02 --output out.csv --data-dir \0",
        "path '\\x00' has a null character: leave it",
    ),
    ("--input trips.csv --output out.csv --model m\0", "model 'm\\x00' was not found, and MLflow"),
    (
        "--input trips.parquet --output trips.parquet --model no",
        "output trips.parquet is the input itself",
    ),
    ("--input trips.parquet --output trips.csv/out.csv", "directory of the output trips.csv is "),
    ("--input page.parquet --output out.csv", "page.parquet is not a parquet file: "),
    ("--input empty.csv --output out.csv", "empty.csv cannot be read as CSV: Empty CSV file: "),
    ("--input latin.csv --output out.csv", "latin.csv cannot be read as CSV: "),
    ("--input few.csv --output out.csv", "few.csv: column DOLocationID is missing: the columns"),
    (
        "--input zoned.parquet --output out.csv",
        "zoned.parquet: column trip_distance holds large_st",
    ),
    (
        "--input trips.csv --output out.csv --id-column no",
        "id column 'no' is not in trips.csv: its",
    ),
    ("--input trips.parquet --output out.csv --id-column list", "the id column holds list<"),
    ("--input trips.csv --output out.csv --model no", "model 'no' was not found, and MLflow "),
    ("--input trips.csv --output out.csv --model dir.csv", "dir.csv is not a model directory ("),
    ("--input trips.csv --output out.csv --model 7", "model '7' was not found"),
    ("--input trips.csv --output out.csv --cab fhv", "cab 'fhv' cannot be used: its files hold no"),
    (
        "--input trips.csv --output out.csv --cab yellow",
        "trips.csv: column tpep_pickup_datetime is",
    ),
    ("--input 2023-13 --output out.csv", "month 13 is not a month"),
    ("--input 2009-01 --output out.csv", "green month 2009-01 cannot be used"),
    (
        "--input 2023-02 --output out.csv --offline",
        "data/green_tripdata_2023-02.parquet is missing",
    ),
    ("--input 2999-01 --output out.csv", "green month 2999-01 is not published yet: expect it by "),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_a_users_mistake_is_told_in_one_line_before_any_work(
    arguments: str,
    message: str,
    models: dict[str, NamedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    trips = make_trips()
    write(Path("trips.csv"), trips)
    write(Path("few.csv"), trips.drop(columns=TO))
    write(Path("trips.parquet"), trips.assign(list=[[1]] * len(trips)))
    write(Path("zoned.parquet"), trips.assign(**{MILES: "far"}))
    for name in ("page.parquet", "trips.json"):
        Path(name).write_text("<html>")
    Path("latin.csv").write_bytes("größe\n1\n".encode("latin-1"))
    Path("empty.csv").touch()
    Path("dir.csv").mkdir()
    os.mkfifo("pipe.csv")
    Path("loop.csv").symlink_to("loop.csv")
    before = sorted(tmp_path.rglob("*"))
    named = {} if "--model" in arguments else {"champion": models["extended"]}
    load = "taxi_duration.cli.predict.load_named_model"
    with mock.patch(load, lambda name, cab: named.get(name) or load_named_model(name, cab)):
        assert call_taxi_duration("predict", *arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_the_sample_is_found_as_a_month(saved: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    arguments = ["--input", "2025-02", "--data-dir", str(SAMPLE), "--offline"]
    assert (
        call_taxi_duration("predict", *arguments, "--output", str(output), "--model", str(saved))
        == 0
    )
    metadata = pq.read_schema(output).metadata
    assert metadata[b"input"] == b"synthetic_green_tripdata_2025-02.parquet"
    assert len(metadata[b"sha256"]) == 64
