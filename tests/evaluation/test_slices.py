import numpy as np
from hypothesis import given

from taxi_duration.data.clean import Trips
from taxi_duration.data.schema import BOROUGH_OF_ZONE, BOROUGHS
from taxi_duration.evaluation.residuals import SLICES, find_slices
from tests.support.strategies import clean_trips


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
