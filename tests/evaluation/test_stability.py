from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_duration import InputError
from taxi_duration.data.clean import Trips, clean_trips
from taxi_duration.data.parquet import read_trips
from taxi_duration.evaluation.stability import (
    Shift,
    compare_months,
    compare_profiles,
    measure_psi,
    warn_of_shifts,
)
from taxi_duration.model.features import ZONES
from taxi_duration.model.month_sums import DURATION_BINS, HALF_MILES, Profile
from taxi_duration.settings import StabilityLimits, read_settings
from tests.support.strategies import clean_trips as trips_of
from tests.support.strategies import deal

LIMITS = StabilityLimits()
ALIKE: Shift = {"distance": 0.0, "hour": 0.0, "duration": 0.0, "unseen_pairs": 0.0}


@st.composite
def counts(draw: st.DrawFn, sets: int = 2) -> list[np.ndarray]:
    """Counts of some sets of trips by the same bins, each set of at least one trip."""
    bins = draw(st.integers(1, 8))
    of_bin = st.lists(st.integers(0, 1_000_000), min_size=bins, max_size=bins).filter(any)
    return [np.array(draw(of_bin)) for _ in range(sets)]


def make_trips(minutes: float = 10.0, miles: float = 1.0, pickup: str = "2023-01-10") -> Trips:
    """A single trip from zone 74 to 75."""
    return {
        "pickup": np.array([pickup], dtype="datetime64[us]"),
        "pickup_zone": np.array([74]),
        "dropoff_zone": np.array([75]),
        "distance_miles": np.array([miles]),
        "minutes": np.array([minutes]),
    }


@given(counts(), st.integers(1, 1000))
def test_the_index_depends_on_shares_alone_and_is_symmetric(
    pair: list[np.ndarray], times: int
) -> None:
    ours, theirs = pair
    index = measure_psi(ours, theirs)
    assert index >= 0
    assert index == pytest.approx(measure_psi(theirs, ours), rel=1e-12)
    assert measure_psi(ours * times, theirs) == index
    assert (index == 0) == bool((ours * theirs.sum() == theirs * ours.sum()).all())


def test_the_index_is_the_formulas() -> None:
    ours, theirs = np.array([60, 30, 10]), np.array([200, 500, 300])
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.5, 0.3])
    assert measure_psi(ours, theirs) == pytest.approx(((p - q) * np.log(p / q)).sum(), rel=2e-3)


def test_the_index_of_sets_that_share_no_bin_is_finite() -> None:
    index = measure_psi(np.array([5, 0]), np.array([0, 3]))
    assert index == pytest.approx(2 * np.log(10_001) / 1.0002)


@settings(max_examples=30)
@given(trips_of(max_size=60), st.integers(0, 2**32), st.integers(1, 5))
def test_profiles_of_parts_add_up_to_that_of_the_whole(trips: Trips, seed: int, parts: int) -> None:
    whole = Profile.of(trips)
    chunks = deal(trips, np.random.default_rng(seed), parts)
    added = sum((Profile.of(chunk) for chunk in chunks), Profile())
    without = whole - Profile.of(chunks[0])
    rest = sum((Profile.of(chunk) for chunk in chunks[1:]), Profile())
    for name, expected in whole.counts.items():
        assert expected.sum() == len(trips["minutes"])
        np.testing.assert_array_equal(added.counts[name], expected)
        np.testing.assert_array_equal(without.counts[name], rest.counts[name])


@settings(max_examples=30)
@given(trips_of(max_size=60))
def test_a_profile_counts_what_it_says(trips: Trips) -> None:
    profile, table = Profile.of(trips), pd.DataFrame(trips)
    by_hour = table["pickup"].dt.hour.value_counts()
    assert dict(enumerate(profile.hour.tolist())) == {
        hour: by_hour.get(hour, 0) for hour in range(24)
    }
    by_pair = table.groupby(["pickup_zone", "dropoff_zone"]).size()
    assert {divmod(code, ZONES): profile.pairs[code] for code in np.flatnonzero(profile.pairs)} == (
        by_pair.to_dict()
    )


MILES = {
    0.01: 0, 0.49: 0, 0.5: 1, 9.99: HALF_MILES - 1, 10: HALF_MILES, 50: HALF_MILES,
    0: HALF_MILES + 1, -3: HALF_MILES + 1, 50.01: HALF_MILES + 1, 1e6: HALF_MILES + 1,
}  # fmt: skip
MINUTES = {1: 0, 2.99: 0, 3: 1, 57: DURATION_BINS - 1, 60: DURATION_BINS - 1}
HOURS = {"2023-01-10T00:00": 0, "2023-01-10T23:59:59.999999": 23, "1969-12-31T23:00": 23}


@pytest.mark.parametrize(
    ("quantity", "name", "places"),
    [("distance", "miles", MILES), ("duration", "minutes", MINUTES), ("hour", "pickup", HOURS)],
)
def test_trips_count_in_the_bin_they_are_in(
    quantity: str, name: str, places: dict[Any, int]
) -> None:
    """Half miles up to 10, beyond and unmetered apart; three minutes; hours of the day."""
    found = {
        value: np.flatnonzero(Profile.of(make_trips(**{name: value})).counts[quantity]).tolist()
        for value in places
    }
    assert found == {value: [place] for value, place in places.items()}


@settings(max_examples=30)
@given(trips_of(max_size=40), trips_of(max_size=40))
def test_unseen_pairs_are_those_the_others_do_not_have(trips: Trips, others: Trips) -> None:
    def list_pairs(some: Trips) -> list[tuple[int, int]]:
        return list(zip(some["pickup_zone"].tolist(), some["dropoff_zone"].tolist(), strict=True))

    unseen = [pair for pair in list_pairs(trips) if pair not in list_pairs(others)]
    shift = compare_profiles(Profile.of(trips), Profile.of(others))
    assert shift["unseen_pairs"] == len(unseen) / len(trips["minutes"])


def test_a_month_alone_is_compared_with_the_validation_month_only() -> None:
    january, february = Profile.of(make_trips(minutes=10)), Profile.of(make_trips(minutes=20))
    assert compare_months({"2023-01": january}, "2023-02", february) == {
        "2023-02": compare_profiles(february, january)
    }


def test_each_month_of_a_window_is_compared_with_the_others() -> None:
    first, second, third, validation = (
        Profile.of(make_trips(minutes=minutes)) for minutes in (10, 20, 30, 40)
    )
    months = {"2023-01": first, "2023-02": second, "2023-03": third}
    assert compare_months(months, "2023-04", validation) == {
        "2023-01": compare_profiles(first, second + third),
        "2023-02": compare_profiles(second, first + third),
        "2023-03": compare_profiles(third, first + second),
        "2023-04": compare_profiles(validation, first + second + third),
    }


def test_a_shift_at_its_limit_is_within() -> None:
    at_limits = {
        "distance": LIMITS.most_index,
        "hour": LIMITS.most_index,
        "duration": LIMITS.most_index,
        "unseen_pairs": LIMITS.most_unseen_pairs,
    }
    assert warn_of_shifts({"2023-01": at_limits, "2023-02": at_limits}, LIMITS) == []


def test_warnings_name_what_is_beyond_its_limit_and_what_to_do() -> None:
    shifts = {
        "2023-01": {**ALIKE, "hour": 0.2, "unseen_pairs": 0.9},
        "2023-02": ALIKE,
        "2023-03": {**ALIKE, "distance": 0.25, "duration": 1.5, "unseen_pairs": 0.3},
    }
    assert warn_of_shifts(shifts, LIMITS) == [
        "2023-01: its trips are not like those of the window's other months, by a population "
        "stability index of hour 0.2000; TAXI_DURATION_STABILITY_MOST_INDEX allows 0.1. Look at "
        "its file first; if its trips are so, a window without it, or without the others, may fit "
        "the months to come better.",
        "2023-03: its trips are not like the training window's, by a population stability index of "
        "distance 0.2500, duration 1.5000; TAXI_DURATION_STABILITY_MOST_INDEX allows 0.1. Look at "
        "its file first; if its trips are so, what was learned may not hold for them: train on "
        "months that are more like it.",
        "2023-03: 30.00% of its trips are of zone pairs that the training window does not have; "
        "TAXI_DURATION_STABILITY_MOST_UNSEEN_PAIRS allows 25%. The model has no coefficient for "
        "such a pair: train on more months.",
    ]


@pytest.mark.parametrize("value", ["-0.1", "nan", "inf", "ten"])
def test_a_limit_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_DURATION_STABILITY_MOST_INDEX", value)
    with pytest.raises(InputError, match=f"TAXI_DURATION_STABILITY_MOST_INDEX is '{value}': "):
        read_settings(StabilityLimits)


def read_profile(directory: Path, month: str) -> Profile:
    trips, _ = clean_trips(read_trips(directory / f"green_tripdata_{month}.parquet"))
    return Profile.of(trips)


FOLLOWING = [
    ("2021-01", "2021-02"),
    ("2023-01", "2023-02"),
    ("2023-02", "2023-03"),
    ("2025-01", "2025-02"),
]


@pytest.mark.parametrize(("month", "following"), FOLLOWING)
def test_a_real_month_is_like_the_one_before(month: str, following: str, real_data: Path) -> None:
    before, after = (read_profile(real_data, each) for each in (month, following))
    shifts = compare_months({month: before}, following, after)
    # Nor by a hair, or the next ordinary month would warn.
    halved = {
        f"most_{name}": getattr(LIMITS, f"most_{name}") / 2 for name in ("index", "unseen_pairs")
    }
    assert warn_of_shifts(shifts, LIMITS.model_copy(update=halved)) == []


def test_the_pandemic_is_not_like_what_followed(real_data: Path) -> None:
    before, after = (read_profile(real_data, month) for month in ("2021-01", "2023-01"))
    shift = compare_profiles(after, before)
    assert {name: round(figure, 2) for name, figure in shift.items()} == {
        "distance": 0.24,
        "hour": 0.15,
        "duration": 0.12,
        "unseen_pairs": 0.05,
    }
    assert len(warn_of_shifts({"2023-01": shift}, LIMITS)) == 1
