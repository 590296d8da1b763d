from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.data.clean import Trips
from taxi_duration.data.zones import BOROUGH_OF_ZONE, BOROUGHS
from taxi_duration.evaluation.residuals import LARGEST, SLICES, Residuals, find_slices
from tests.support.strategies import Floats, clean_trips, deal, make_trips, take


def predict(trips: Trips) -> Floats:
    """Some minutes, a few of them far off."""
    return trips["distance_miles"].clip(0, 500) * 3 - 20


def describe_all(residuals: Residuals) -> list[Any]:
    return [
        residuals.summarise().quantiles,
        residuals.summarise().by_predicted,
        residuals.density.tolist(),
        residuals.find_slowest_pairs(),
        residuals.largest,
    ]


def make_many(seed: int, rows: int = 5000) -> Trips:
    return make_trips(np.random.default_rng(seed), rows)


def test_quantiles_are_numpys_to_a_bin() -> None:
    trips = make_many(1)
    predicted = trips["minutes"] - np.random.default_rng(2).normal(1, 6, len(trips["minutes"]))
    described = Residuals.of(trips, predicted).summarise()
    residuals = trips["minutes"] - predicted
    assert described.mean == pytest.approx(residuals.mean())
    for share, found in described.quantiles.model_dump().items():
        assert found == pytest.approx(np.percentile(residuals, int(share)), abs=0.1)
    in_band = (predicted >= 10) & (predicted < 12)
    (band,) = [each for each in described.by_predicted if each.start == 10]
    assert (band.end, band.trips) == (12, np.count_nonzero(in_band))
    assert band.p50 == pytest.approx(np.median(residuals[in_band]), abs=0.1)


def test_the_density_counts_every_trip_once() -> None:
    trips = take(make_many(3, 4), slice(None))
    trips["minutes"] = np.array([1.0, 59.99, 60.0, 30.0])
    counts = Residuals.of(trips, np.array([-5.0, 61.0, 1e5, 31.9])).density
    assert counts.shape == (30, 30)
    assert np.argwhere(counts).tolist() == [[0, 0], [15, 15], [29, 29]]
    assert counts[29, 29] == 2


def test_the_largest_errors_come_first_whichever_way_they_go() -> None:
    trips = make_many(4, 50)
    predicted = trips["minutes"] + np.linspace(-25, 24, 50)
    largest = Residuals.of(trips, predicted).largest
    sizes = [abs(each.minutes - each.predicted) for each in largest]
    assert len(largest) == LARGEST
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(25.0)
    assert largest[0].pickup == str(trips["pickup"][0].astype("datetime64[s]"))
    assert largest[0].pickup_zone == trips["pickup_zone"][0]


def test_the_slowest_pairs_have_trips_and_miles_enough() -> None:
    rows = 20 + 19 + 20 + 20
    pairs = np.repeat([1, 2, 3, 4], [20, 19, 20, 20])
    trips = {
        "pickup": np.full(rows, np.datetime64("2023-01-09", "us")),
        "pickup_zone": pairs,
        "dropoff_zone": np.full(rows, 9),
        "distance_miles": np.select([pairs == 3, pairs == 4], [0.4, 2.0], 1.0),
        "minutes": np.full(rows, 10.0),
    }
    slowest = Residuals.of(trips, np.full(rows, 12.0)).find_slowest_pairs()
    assert [
        (each.pickup_zone, each.dropoff_zone, each.trips, each.minutes_per_mile) for each in slowest
    ] == [(1, 9, 20, 12.0), (4, 9, 20, 6.0)]


def test_nothing_is_slow_where_no_trip_is_metered() -> None:
    trips = make_many(5, 100)
    trips["distance_miles"] = np.zeros(100)
    assert Residuals.of(trips, trips["minutes"]).find_slowest_pairs() == []


@given(clean_trips(), st.integers(0, 2**32 - 1))
def test_residuals_of_parts_add_up_in_any_order(trips: Trips, seed: int) -> None:
    whole = Residuals.of(trips, predict(trips))
    parts = deal(trips, np.random.default_rng(seed), 4)
    added = sum((Residuals.of(part, predict(part)) for part in parts), Residuals())
    assert describe_all(added)[:3] == describe_all(whole)[:3]
    assert added.largest == whole.largest
    assert added.total == pytest.approx(whole.total)


def name_slices(hour: int, miles: float, zone: int = 132) -> list[str]:
    trips = {
        "pickup": np.array([f"2023-01-09T{hour:02d}:59:59"], "datetime64[us]"),
        "pickup_zone": np.array([zone]),
        "distance_miles": np.array([miles]),
    }
    return [str(SLICES[codes[0]]) for codes in find_slices(trips)]


def test_boroughs_have_as_many_zones_as_the_tlc_gives_them() -> None:
    counts = {name: int((place == BOROUGH_OF_ZONE).sum()) for place, name in enumerate(BOROUGHS)}
    # Code 0, which is no zone, is elsewhere, beside zones 1, 264 and 265.
    assert counts == {
        "Manhattan": 69, "Brooklyn": 61, "Queens": 69, "Bronx": 43, "Staten Island": 20,
        "elsewhere": 4,
    }  # fmt: skip


def test_known_places_are_in_their_boroughs() -> None:
    # JFK, Times Square, Brooklyn Heights, Bronx Park, Arden Heights, Newark.
    zones = {132: "Queens", 230: "Manhattan", 33: "Brooklyn", 31: "Bronx", 5: "Staten Island"}
    for zone, borough in {**zones, 1: "elsewhere", 0: "elsewhere", 265: "elsewhere"}.items():
        assert name_slices(8, 1.0, zone)[0] == f"pick-up borough {borough}"


def test_hours_are_in_their_bands() -> None:
    names = [name_slices(hour, 1.0)[1].split(",")[0].removeprefix("hour ") for hour in range(24)]
    bands = {"night": 6, "morning": 4, "midday": 6, "evening": 4, "late": 4}
    assert names == [name for name, hours in bands.items() for _ in range(hours)]


def test_a_distance_is_in_the_band_that_ends_at_it() -> None:
    asked = {
        0.0: "unmetered", 0.01: "up to 1 mile", 1.0: "up to 1 mile", 1.01: "1 to 2 miles",
        2.0: "1 to 2 miles", 5.0: "2 to 5 miles", 10.0: "5 to 10 miles", 10.1: "over 10 miles",
        50.0: "over 10 miles", 50.1: "unmetered", 278_990.0: "unmetered", -1.0: "unmetered",
    }  # fmt: skip
    assert {miles: name_slices(8, miles)[2].removeprefix("distance ") for miles in asked} == asked


@given(clean_trips())
def test_the_slices_of_a_kind_make_up_all_trips(trips: Trips) -> None:
    kinds = find_slices(trips)
    assert len(kinds) == 3
    for codes in kinds:
        assert len(codes) == len(trips["minutes"])
        assert len({SLICES[code].kind for code in codes}) == 1
