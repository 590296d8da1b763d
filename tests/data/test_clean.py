from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from taxi_duration.data.clean import Trips, clean_trips, select_columns
from taxi_duration.data.month import Month
from taxi_duration.data.schema import CABS, EARLIEST, LATEST, check_month, get_cab
from taxi_duration.errors import DataError, InputError

START = pd.Timestamp("2023-01-10 08:00:00")


def raw_trips(seconds: list[float], **columns: object) -> pd.DataFrame:
    """Raw green trips that last so many seconds, alike but for the columns given."""
    return pd.DataFrame(
        {
            "lpep_pickup_datetime": START,
            "lpep_dropoff_datetime": [START + pd.Timedelta(seconds=s) for s in seconds],
            "PULocationID": 74,
            "DOLocationID": 75,
            "trip_distance": 1.5,
            **columns,
        }
    )


def assert_same(ours: Trips, theirs: Trips) -> None:
    assert list(ours) == list(theirs)
    for name, column in ours.items():
        assert column.dtype == theirs[name].dtype
        np.testing.assert_array_equal(column, theirs[name])


def test_both_ends_of_one_to_sixty_minutes_are_kept() -> None:
    trips, funnel = clean_trips(raw_trips([59, 60, 61, 3599, 3600, 3601]))
    assert trips["minutes"].tolist() == [1.0, 61 / 60, 3599 / 60, 60.0]
    assert (funnel.rows_read, funnel.rows_kept) == (6, 4)


def test_each_dropped_row_counts_under_the_first_rule_it_breaks() -> None:
    raw = raw_trips([-5, 0, 30, 600, 4000, -5, 30, -5])
    raw.loc[5, "trip_distance"] = np.inf
    raw.loc[[5, 6], "PULocationID"] = 266
    raw.loc[[6, 7], "DOLocationID"] = None
    _, funnel = clean_trips(raw)
    assert funnel.dropped == {
        "zone missing": 2,
        "time or distance missing": 1,
        "zone not 1 to 265": 0,
        "drop-off not after pick-up": 2,
        "shorter than 1 minute": 1,
        "longer than 60 minutes": 1,
    }
    assert funnel.rows_read == funnel.rows_kept + sum(funnel.dropped.values())


def test_a_row_counts_under_every_rule_of_the_contract_it_breaks() -> None:
    raw = raw_trips([-5, 0, 30, 600, 4000, 600, 600])
    raw["PULocationID"] = [266, 74, 74, 0, None, 74.5, 265]
    raw["DOLocationID"] = [None, 74, 74, 75, 75, 75, None]
    raw.loc[[3, 4], "lpep_pickup_datetime"] = pd.Timestamp("2023-02-01")
    raw.loc[4, "lpep_dropoff_datetime"] = None
    _, funnel = clean_trips(raw, Month(2023, 1))
    assert funnel.broken == {
        "drop-off not after pick-up": 3,
        "not within 1 to 60 minutes": 5,
        "zone missing": 3,
        "zone not 1 to 265": 3,
        "picked up outside the month": 2,
    }
    _, funnel = clean_trips(raw)
    assert "picked up outside the month" not in funnel.broken


def test_the_funnel_says_what_became_of_the_rows() -> None:
    assert str(clean_trips(raw_trips([30, 600], trip_distance=0.0))[1]) == (
        "kept 1 of 2 trips; 0 zone missing, 0 time or distance missing, 0 zone not 1 to 265, "
        "0 drop-off not after pick-up, 1 shorter than 1 minute, 0 longer than 60 minutes, "
        "1 zero distance (kept), 0 over 100 miles (kept), 0 zone 264 or 265 (kept)"
    )


@pytest.mark.parametrize("time", [-(2**63) + 1, EARLIEST - 1, LATEST + 1, 2**63 - 1])
@pytest.mark.parametrize("shifted", ["lpep_pickup_datetime", "lpep_dropoff_datetime"])
def test_a_time_of_another_age_is_none(shifted: str, time: int) -> None:
    raw = raw_trips([600, 600])
    times = raw[shifted].astype("datetime64[us]").to_numpy().copy()
    times[0] = np.datetime64(time, "us")
    raw[shifted] = times
    trips, funnel = clean_trips(raw)
    assert len(trips["minutes"]) == funnel.dropped["time or distance missing"] == 1
    assert funnel.broken["drop-off not after pick-up"] == 0
    assert funnel.broken["not within 1 to 60 minutes"] == 1


@pytest.mark.parametrize("miles", [np.inf, -np.inf, 1.1e6, -1.1e6, 1e308])
def test_a_distance_beyond_belief_is_none(miles: float) -> None:
    trips, funnel = clean_trips(raw_trips([600] * 3, trip_distance=[miles, 1e6, -1e6]))
    assert trips["distance_miles"].tolist() == [1e6, -1e6]
    assert funnel.dropped["time or distance missing"] == 1


@pytest.mark.parametrize(
    "column", ["lpep_pickup_datetime", "lpep_dropoff_datetime", "PULocationID", "trip_distance"]
)
def test_a_missing_required_value_drops_the_row(column: str) -> None:
    raw = raw_trips([600, 600]).astype({"PULocationID": "float64"})
    raw.loc[0, column] = None
    trips, funnel = clean_trips(raw)
    assert len(trips["minutes"]) == 1
    rule = "zone missing" if column == "PULocationID" else "time or distance missing"
    assert funnel.dropped[rule] == 1
    assert trips["pickup_zone"].dtype == np.int64


def test_known_defects_are_kept_and_noted() -> None:
    raw = raw_trips([600] * 4, trip_distance=[0.0, 100.0, 100.1, 1.0])
    raw["DOLocationID"] = [75, 265, 75, 75]
    raw.loc[3, "lpep_pickup_datetime"] = pd.Timestamp("2008-12-31 23:00:00")
    raw.loc[3, "lpep_dropoff_datetime"] = pd.Timestamp("2008-12-31 23:10:00")
    trips, funnel = clean_trips(raw, Month(2023, 1))
    assert len(trips["minutes"]) == 4
    assert funnel.noted == {
        "zero distance": 1,
        "over 100 miles": 1,
        "zone 264 or 265": 1,
        "picked up outside the month": 1,
    }


@pytest.mark.parametrize(
    ("pickup", "outside"),
    [("2022-12-31 23:59:59", 1), ("2023-01-01 00:00:00", 0), ("2023-01-31 23:59:59", 0),
     ("2023-02-01 00:00:00", 1)],
)  # fmt: skip
def test_a_month_is_half_open(pickup: str, outside: int) -> None:
    raw = raw_trips([600])
    raw["lpep_pickup_datetime"] = pd.Timestamp(pickup)
    raw["lpep_dropoff_datetime"] = pd.Timestamp(pickup) + pd.Timedelta(minutes=5)
    _, funnel = clean_trips(raw, Month(2023, 1))
    assert funnel.noted["picked up outside the month"] == outside


def test_no_trip_left_is_an_error_with_counts() -> None:
    trips, funnel = clean_trips(raw_trips([-1, 9999]))
    assert len(trips["minutes"]) == 0
    with pytest.raises(
        DataError, match=r"no trip is left of 2: 1 drop-off not after pick-up, 1 longer than 60 min"
    ):
        funnel.check()
    _, funnel = clean_trips(raw_trips([600]).iloc[:0])
    with pytest.raises(DataError, match=r"no trip is left of 0: the file has no rows"):
        funnel.check()


def test_the_funnels_of_parts_add_up_to_that_of_the_whole() -> None:
    raw = raw_trips([-5, 0, 30, 600, 4000, 600], trip_distance=[1, 0, 3, 0, 200, 200])
    raw.loc[4, "DOLocationID"] = 0
    (_, whole), (_, first), (_, second) = (
        clean_trips(part, Month(2023, 1)) for part in (raw, raw[:2], raw[2:])
    )
    assert first + second == whole
    assert whole.rows_read == whole.rows_kept + sum(whole.dropped.values()) == 6
    whole.check()
    with pytest.raises(
        DataError, match=r"no trip is left of 2: 2 drop-off not after pick-up: choose"
    ):
        first.check()


def test_arrays_are_cleaned_as_a_frame_is() -> None:
    raw = raw_trips([600, 5, 700], trip_distance=[0.5, 1.0, np.nan])
    arrays: Mapping[str, object] = {name: raw[name].to_numpy() for name in raw}
    (ours, our_funnel), (theirs, their_funnel) = clean_trips(arrays), clean_trips(raw)
    assert_same(ours, theirs)
    assert our_funnel == their_funnel


def test_every_column_has_one_type_whatever_the_files() -> None:
    raw = raw_trips([600]).astype({"PULocationID": "int32", "trip_distance": "float32"})
    raw["lpep_pickup_datetime"] = raw["lpep_pickup_datetime"].astype("datetime64[ns]")
    trips, _ = clean_trips(raw)
    assert {name: str(column.dtype) for name, column in trips.items()} == {
        "pickup": "datetime64[us]",
        "pickup_zone": "int64",
        "dropoff_zone": "int64",
        "distance_miles": "float64",
        "minutes": "float64",
    }
    assert trips["minutes"].tolist() == [10.0]


def test_column_names_match_in_any_case_and_either_cab_type() -> None:
    raw = raw_trips([600]).rename(columns={"PULocationID": "pulocationid"})
    yellow = raw.rename(columns=lambda name: name.replace("lpep", "TPEP"))
    assert_same(clean_trips(raw)[0], clean_trips(yellow)[0])


def test_new_columns_are_tolerated() -> None:
    plain, _ = clean_trips(raw_trips([600]))
    more, _ = clean_trips(raw_trips([600], cbd_congestion_fee=0.75))
    assert_same(plain, more)


def test_a_missing_column_is_named_with_those_present() -> None:
    raw = raw_trips([600]).drop(columns="trip_distance")
    with pytest.raises(DataError, match=r"column trip_distance is missing: the columns are lpep_"):
        clean_trips(raw)


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [("trip_distance", "far", "numbers"), ("lpep_pickup_datetime", 17, "times"),
     ("PULocationID", "Astoria", "numbers")],
)  # fmt: skip
def test_a_column_of_the_wrong_type_is_named(column: str, value: object, kind: str) -> None:
    with pytest.raises(DataError, match=rf"column {column} holds .* cannot be read as {kind}"):
        clean_trips(raw_trips([600], **{column: value}))


def test_cleaning_leaves_the_raw_trips_alone() -> None:
    raw = raw_trips([600, 5])
    before = raw.copy()
    clean_trips(raw)
    pd.testing.assert_frame_equal(raw, before)


def test_selecting_takes_only_what_is_asked() -> None:
    trips = select_columns(
        pd.DataFrame({"DOLocationID": [1], "PULocationID": [2]}), ["pickup_zone"]
    )
    assert list(trips) == ["pickup_zone"]
    assert trips["pickup_zone"].tolist() == [2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gren", "cab 'gren' is not a cab type: did you mean 'green'?"),
        ("YELLOW", "did you mean 'yellow'?"),
        ("tram", "cab 'tram' is not a cab type: give green or yellow."),
        ("fhv", "cab 'fhv' cannot be used: its files hold no distance: give green or yellow."),
        ("fhvhv", "cab 'fhvhv' cannot be used: its columns are not in the data contract: give "),
    ],
)
def test_an_unknown_cab_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        get_cab(name)
    assert message in str(raised.value)


def test_cabs_have_a_first_month() -> None:
    check_month(CABS["green"], Month(2013, 8))
    with pytest.raises(
        InputError, match=r"green month 2013-07 .* began in August 2013: give 2013-08"
    ):
        check_month(CABS["green"], Month(2013, 7))
    with pytest.raises(InputError, match=r"yellow month 2010-12 .* coordinates instead of zones"):
        check_month(CABS["yellow"], Month(2010, 12))


@pytest.mark.parametrize(
    ("zone", "rule"),
    [
        (np.nan, "zone missing"),
        (np.inf, "zone not 1 to 265"),
        (74.5, "zone not 1 to 265"),
        (-1.0, "zone not 1 to 265"),
        (1e300, "zone not 1 to 265"),
        (266.0, "zone not 1 to 265"),
        (0.0, "zone not 1 to 265"),
    ],
)
@pytest.mark.parametrize("column", ["PULocationID", "DOLocationID"])
def test_a_zone_that_cannot_be_one_drops_the_row(column: str, zone: float, rule: str) -> None:
    trips, funnel = clean_trips(raw_trips([600] * 4, **{column: [1.0, 74.0, zone, 265.0]}))
    ours = {"PULocationID": "pickup_zone", "DOLocationID": "dropoff_zone"}[column]
    assert trips[ours].tolist() == [1, 74, 265]
    assert {name: count for name, count in funnel.dropped.items() if count} == {rule: 1}


def test_a_column_that_is_there_twice_is_refused() -> None:
    raw = raw_trips([600], pulocationid=9)
    with pytest.raises(DataError, match=r"columns PULocationID, pulocationid are the same column"):
        clean_trips(raw)
