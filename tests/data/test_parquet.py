from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_duration import DataError, train_model
from taxi_duration.data.clean import Trips, clean_trips
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import LANES, check_footer, read_trips, reduce_trips
from taxi_duration.data.schema import CABS
from tests.support.months import JANUARY, write_month


def write_groups(path: Path, rows: int) -> Path:
    """January in row groups of so many rows, its pages as they are, without a checksum."""
    pq.write_table(
        pq.read_table(JANUARY), path, row_group_size=rows, compression="NONE", use_dictionary=False
    )
    return path


def collect(path: Path) -> tuple[list[list[Trips]], object]:
    return reduce_trips(path, lambda chunks: list(chunks))


@pytest.fixture(params=[1500, 19_600], ids=["many row groups", "one row group"])
def january(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_groups(tmp_path / "january.parquet", request.param)


def test_every_trip_reaches_one_lane_once(january: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxi_duration.data.parquet.CHUNK_ROWS", 1000)
    lanes, funnel = collect(january)
    expected, expected_funnel = clean_trips(read_trips(JANUARY))
    assert funnel == expected_funnel
    assert len(lanes) == LANES
    assert all(lanes)
    # Chunks are dealt in turn, so taking them in turn brings the order back.
    longest = max(len(lane) for lane in lanes)
    chunks = [lane[i] for i in range(longest) for lane in lanes if i < len(lane)]
    for name, column in expected.items():
        np.testing.assert_array_equal(np.concatenate([c[name] for c in chunks]), column)


def test_the_lane_of_a_chunk_depends_on_the_file_alone(
    january: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxi_duration.data.parquet.CHUNK_ROWS", 500)
    first, second = (
        [[chunk["pickup"][0] for chunk in lane] for lane in collect(january)[0]] for _ in range(2)
    )
    assert first == second


def test_row_groups_make_no_difference_to_the_model(january: Path) -> None:
    for name in ("course", "extended"):
        ours, theirs = train_model([january], name), train_model([JANUARY], name)
        trips, _ = clean_trips(read_trips(JANUARY))
        np.testing.assert_allclose(
            ours.predict_clean(trips), theirs.predict_clean(trips), rtol=1e-9
        )


def test_the_month_and_the_cab_are_asked_of_every_chunk(january: Path) -> None:
    _, funnel = reduce_trips(january, lambda chunks: list(chunks), CABS["green"], Month(2025, 1))
    _, expected = clean_trips(read_trips(JANUARY), Month(2025, 1))
    assert funnel == expected
    with pytest.raises(DataError, match=r"january.parquet: column tpep_pickup_datetime is missing"):
        reduce_trips(january, lambda chunks: list(chunks), CABS["yellow"])


def test_a_file_without_rows_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(JANUARY).slice(0, 0), path)
    with pytest.raises(DataError) as raised:
        train_model([path])
    assert str(raised.value) == (
        f"{path}: no trip is left of 0: the file has no rows: "
        "choose another month, or fetch it again."
    )


def test_a_file_of_which_no_trip_is_left_says_why(tmp_path: Path) -> None:
    path = write_month(tmp_path / "long.parquet", minutes=61)
    with pytest.raises(DataError) as raised:
        train_model([path])
    assert str(raised.value) == (
        f"{path}: no trip is left of 12: 12 longer than 60 minutes: "
        "choose another month, or fetch it again."
    )


def test_a_damaged_page_in_a_later_row_group_is_named(tmp_path: Path) -> None:
    path = write_groups(tmp_path / "damaged.parquet", 5000)
    metadata = pq.ParquetFile(path).metadata
    column = pq.ParquetFile(path).schema_arrow.names.index("trip_distance")
    start = metadata.row_group(1).column(column).data_page_offset
    damaged = bytearray(path.read_bytes())
    damaged[start : start + 16] = b"\xff" * 16
    path.write_bytes(damaged)
    check_footer(path)
    for read in (collect, read_trips, lambda p: train_model([p])):
        with pytest.raises(DataError) as raised:
            read(path)
        assert str(raised.value).startswith(f"{path} is damaged: ")
        assert str(raised.value).endswith(": delete it and fetch it again.")


def test_what_reducing_raises_is_not_hidden(january: Path) -> None:
    def refuse(chunks: Iterator[Trips]) -> None:
        next(chunks)
        raise ZeroDivisionError("reduced wrongly")

    with pytest.raises(ZeroDivisionError, match="reduced wrongly"):
        reduce_trips(january, refuse)


def test_a_column_of_the_wrong_type_is_named_with_the_file(tmp_path: Path) -> None:
    path = write_month(tmp_path / "month.parquet")
    pd.read_parquet(path).assign(trip_distance="far").to_parquet(path)
    with pytest.raises(DataError, match=r"month.parquet: column trip_distance holds .* as numbers"):
        train_model([path])


def test_a_null_in_one_chunk_only_drops_its_row(tmp_path: Path) -> None:
    trips = pd.concat([pd.read_parquet(write_month(tmp_path / "month.parquet"))] * 3)
    zones = pa.array([*trips["PULocationID"][:-1], None], pa.int32())
    table = pa.Table.from_pandas(trips, preserve_index=False)
    place = table.schema.get_field_index("PULocationID")
    path = tmp_path / "null.parquet"
    pq.write_table(table.set_column(place, "PULocationID", zones), path, row_group_size=12)
    _, funnel = collect(path)
    assert funnel.dropped["zone missing"] == 1
    assert funnel.rows_kept == 35


def test_a_file_that_claims_too_many_rows_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxi_duration.data.parquet.MAX_ROWS", 19_600)
    assert train_model([JANUARY], "course").columns > 0
    monkeypatch.setattr("taxi_duration.data.parquet.MAX_ROWS", 19_599)
    with pytest.raises(DataError, match=r"claims 19,600 rows; a month has at most 19,599: delete"):
        train_model([JANUARY])


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "page.parquet"
    path.write_text("<html>not yet</html>")
    with pytest.raises(DataError, match=r"page.parquet is not a parquet file: .* fetch it again"):
        train_model([path])


def test_times_with_a_zone_are_refused(tmp_path: Path) -> None:
    path = write_month(tmp_path / "zoned.parquet")
    raw = pd.read_parquet(path)
    column = "lpep_pickup_datetime"
    raw[column] = raw[column].dt.tz_localize("America/New_York")
    raw.to_parquet(path)
    with pytest.raises(DataError, match=r"lpep_pickup_datetime holds timestamp\[.*tz=America"):
        train_model([path], "course")
