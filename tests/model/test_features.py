import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.tseries.holiday import USFederalHolidayCalendar
from sklearn.feature_extraction import DictVectorizer

from taxi_duration.data.clean import Trips
from taxi_duration.errors import InputError
from taxi_duration.model.features import (
    FEATURE_SETS,
    NUMBERS,
    UNMETERED,
    FeatureSet,
    build_matrix,
    encode_dropoff_zone,
    encode_hour,
    encode_pair,
    encode_pickup_zone,
    fit_vectorizer,
    get_feature_set,
    make_records,
)
from tests.support.strategies import clean_trips, feature_sets

any_features = st.one_of(st.sampled_from(list(FEATURE_SETS.values())), feature_sets())


def assert_bit_equal(ours: object, theirs: object) -> None:
    assert ours.shape == theirs.shape
    assert ours.data.dtype == theirs.data.dtype == np.float64
    assert ours.data.tobytes() == theirs.data.tobytes()
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_array_equal(ours.indptr, theirs.indptr)


def one_trip(**columns: object) -> Trips:
    """A metered trip on a Tuesday at eight, but for the columns given."""
    trip = {
        "pickup": np.datetime64("2023-01-10T08:00", "us"),
        "pickup_zone": 74,
        "dropoff_zone": 75,
        "distance_miles": 2.0,
        "minutes": 10.0,
        **columns,
    }
    return {name: np.array([value]) for name, value in trip.items()}


@given(clean_trips(), clean_trips(), any_features)
def test_the_matrix_is_the_vectorizers_bit_for_bit(
    train: Trips, other: Trips, features: FeatureSet
) -> None:
    vectorizer = DictVectorizer().fit(make_records(train, features))
    for trips in (train, other):
        theirs = vectorizer.transform(make_records(trips, features))
        assert_bit_equal(build_matrix(trips, features, vectorizer), theirs)


@given(clean_trips(), any_features)
def test_a_vectorizer_of_names_is_one_fitted_to_records(trips: Trips, features: FeatureSet) -> None:
    theirs = DictVectorizer().fit(make_records(trips, features))
    ours = fit_vectorizer(reversed(theirs.feature_names_))
    assert ours.feature_names_ == theirs.feature_names_
    assert ours.vocabulary_ == theirs.vocabulary_
    assert_bit_equal(ours.transform([{}]), theirs.transform([{}]))


def test_the_course_records_are_the_courses() -> None:
    trips = {
        "pickup_zone": np.array([43, 166]),
        "dropoff_zone": np.array([151, 239]),
        "distance_miles": np.array([1.01, 2.53]),
    }
    assert make_records(trips, FEATURE_SETS["course"]) == [
        {"PU_DO": "43_151", "trip_distance": 1.01},
        {"PU_DO": "166_239", "trip_distance": 2.53},
    ]


def test_a_slope_of_zero_is_no_feature_and_a_number_of_zero_is() -> None:
    features = FeatureSet("mine", ("miles", "miles*PU", "metered*PU_DO", "unmetered*PU_DO"))
    assert make_records(one_trip(), features) == [
        {"miles": 2.0, "miles*PU=74": 2.0, "metered*PU_DO=74_75": 1.0}
    ]
    assert make_records(one_trip(distance_miles=0.0), features) == [
        {"miles": 0.0, "unmetered*PU_DO=74_75": UNMETERED}
    ]


@pytest.mark.parametrize(
    ("miles", "metered"), [(0.0, 0), (0.01, 1), (50.0, 1), (50.01, 0), (278_990.0, 0)]
)
def test_a_distance_counts_as_measured_above_zero_up_to_fifty_miles(
    miles: float, metered: int
) -> None:
    trip = one_trip(distance_miles=miles)
    measured = {name: number.measure(trip)[0] for name, number in NUMBERS.items()}
    bounded = min(miles, 30.0) if metered else 0.0
    near = 1 - np.exp(-miles / 5) if metered else 0.0
    assert measured == pytest.approx(
        {
            "trip_distance": miles,
            "miles": bounded,
            "near": near,
            "metered": metered,
            "unmetered": UNMETERED * (1 - metered),
        }
    )


@pytest.mark.parametrize(
    ("pickup", "code"),
    [
        ("2023-01-03 00:59:59", 0),  # a Tuesday
        ("2023-01-06 23:00:00", 23),  # a Friday
        ("2023-01-07 00:00:00", 24),  # a Saturday
        ("2023-01-08 23:59:59", 47),  # a Sunday
        ("2023-01-09 00:00:00", 0),  # a Monday
        ("2023-01-02 08:00:00", 32),  # New Year, which fell on a Sunday, observed on Monday
        ("2021-12-24 08:00:00", 32),  # Christmas, which fell on a Saturday, observed on Friday
        ("2023-07-04 08:00:00", 32),  # Independence Day, a Tuesday
        ("2023-07-05 08:00:00", 8),
        ("2026-11-26 00:00:00", 24),  # Thanksgiving
        ("2008-12-31 23:00:00", 23),  # where wrong clocks begin
    ],
)
def test_hours_are_of_a_working_day_or_of_a_day_off(pickup: str, code: int) -> None:
    trip = one_trip(pickup=np.datetime64(pickup, "us"))
    assert make_records(trip, FeatureSet("hours", ("day_hour",))) == [{"day_hour": str(code)}]


def test_every_hour_of_twenty_years_is_as_pandas_has_it() -> None:
    hours = pd.date_range("2009-01-01", "2029-01-01", freq="h", inclusive="left", unit="us")
    holidays = USFederalHolidayCalendar().holidays(hours[0], hours[-1])
    is_off = hours.normalize().isin(holidays) | (hours.day_of_week >= 5)
    codes = encode_hour({"pickup": hours.to_numpy()})
    np.testing.assert_array_equal(codes, is_off * 24 + hours.hour)


@pytest.mark.parametrize("pickup", ["1901-05-05 07:00", "1969-12-31 07:00", "2399-01-01 07:00"])
def test_a_clock_outside_the_calendar_still_has_an_hour(pickup: str) -> None:
    (code,) = encode_hour(one_trip(pickup=np.datetime64(pickup, "us")))
    assert code in (7, 31)


def test_a_zone_has_its_own_code_and_what_is_none_has_zero() -> None:
    zones = np.array([-1, 0, 1, 264, 265, 266, 999])
    codes = np.array([0, 0, 1, 264, 265, 0, 0])
    trips = {"pickup_zone": zones, "dropoff_zone": zones[::-1]}
    assert encode_pickup_zone(trips).tolist() == codes.tolist()
    assert encode_dropoff_zone(trips).tolist() == codes[::-1].tolist()
    assert encode_pair(trips).tolist() == (codes * 266 + codes[::-1]).tolist()


@given(clean_trips(), st.sampled_from(["course", "extended"]))
def test_a_trip_has_one_zone_pair(trips: Trips, name: str) -> None:
    features = FEATURE_SETS[name]
    vectorizer = DictVectorizer().fit(make_records(trips, features))
    matrix = build_matrix(trips, features, vectorizer)
    pairs = [i for i, name in enumerate(vectorizer.feature_names_) if "PU_DO=" in name]
    np.testing.assert_array_equal((matrix[:, pairs] != 0).sum(axis=1), 1)


def test_indices_are_int32_for_solvers_that_refuse_more() -> None:
    features = FEATURE_SETS["course"]
    matrix = build_matrix(one_trip(), features, fit_vectorizer(["PU_DO=74_75", "trip_distance"]))
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32


@pytest.mark.parametrize("term", ["PU-DO", "miles*", "*PU", "PU*miles", "miles*PU*DO", ""])
def test_an_unknown_term_is_named(term: str) -> None:
    with pytest.raises(InputError) as raised:
        FeatureSet("mine", (term,))
    assert str(raised.value) == (
        f"term {term!r} is unknown: use PU_DO, PU, DO, day_hour, trip_distance, miles, near, "
        "metered, unmetered, or number*level."
    )


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (("miles", "PU", "miles"), "term 'miles' is there twice: leave one out."),
        (
            ("miles*PU_DO",),
            "term 'miles*PU_DO' is a slope for each zone pair, which are too many: use miles*PU "
            "or miles*DO.",
        ),
        (
            ("metered*PU_DO", "miles"),
            "terms metered*PU_DO do not go together: use PU_DO alone, or metered*PU_DO and "
            "unmetered*PU_DO in this order.",
        ),
        (("unmetered*PU_DO",), "terms unmetered*PU_DO do not go together"),
        (("unmetered*PU_DO", "metered*PU_DO"), "in this order."),
        (("PU_DO", "metered*PU_DO", "unmetered*PU_DO"), "terms PU_DO, metered*PU_DO, unmetered"),
        ((), "feature set 'mine' lacks a term or an alpha: give one."),
    ],
)
def test_terms_that_do_not_go_together_are_refused(terms: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as raised:
        FeatureSet("mine", terms)
    assert message in str(raised.value)


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf"), True, "1"])
def test_every_penalty_of_a_feature_set_is_finite_and_not_negative(alpha: float) -> None:
    with pytest.raises(InputError) as raised:
        FeatureSet("mine", ("miles",), alphas=(1.0, alpha))
    assert str(raised.value) == (
        f"alpha {alpha} is not a penalty: give a finite number of at least 0."
    )


def test_a_feature_set_has_a_penalty_if_only_zero() -> None:
    assert FeatureSet("mine", ("miles",)).alphas == (0.0,)
    with pytest.raises(InputError, match=r"'mine' lacks a term or an alpha: give one"):
        FeatureSet("mine", ("miles",), alphas=())


@pytest.mark.parametrize("bounds", [(60.0, 1.0), (1.0, 1.0), (1.0, float("nan"))])
def test_bounds_are_a_lower_and_a_higher_one(bounds: tuple[float, float]) -> None:
    with pytest.raises(InputError) as raised:
        FeatureSet("mine", ("miles",), bounds=bounds)
    assert str(raised.value) == f"bounds {bounds} are none: give the lower one first."


def test_an_unknown_feature_set_offers_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"feature set 'courze' is unknown: did you mean 'course'\?"
    ):
        get_feature_set("courze")
    with pytest.raises(InputError, match=r"feature set 'zzz' is unknown: give course or extended"):
        get_feature_set("zzz")
