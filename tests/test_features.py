import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction import DictVectorizer

from taxi_duration.errors import InputError
from taxi_duration.features import (
    FEATURE_SETS,
    FeatureSet,
    build_matrix,
    columns_of,
    fit_vectorizer,
    get_feature_set,
    make_records,
)
from tests.strategies import clean_trips

feature_sets = st.sampled_from(list(FEATURE_SETS.values()))


def assert_bit_equal(ours: object, theirs: object) -> None:
    assert ours.shape == theirs.shape
    assert ours.data.dtype == theirs.data.dtype == np.float64
    assert ours.data.tobytes() == theirs.data.tobytes()
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_array_equal(ours.indptr, theirs.indptr)


@given(clean_trips(), clean_trips(), feature_sets)
def test_the_matrix_is_the_vectorizers_bit_for_bit(
    train: pd.DataFrame, other: pd.DataFrame, features: FeatureSet
) -> None:
    vectorizer = fit_vectorizer(train, features)
    for trips in (train, other):
        theirs = vectorizer.transform(make_records(trips, features))
        assert_bit_equal(build_matrix(trips, features, vectorizer), theirs)


@given(clean_trips(), feature_sets)
def test_the_vectorizer_is_what_fitting_every_record_gives(
    trips: pd.DataFrame, features: FeatureSet
) -> None:
    ours, theirs = fit_vectorizer(trips, features), DictVectorizer()
    theirs.fit(make_records(trips, features))
    assert ours.feature_names_ == theirs.feature_names_
    assert ours.vocabulary_ == theirs.vocabulary_


def test_the_course_records_are_the_courses() -> None:
    trips = pd.DataFrame(
        {"pickup_zone": [43, 166], "dropoff_zone": [151, 239], "distance_miles": [1.01, 2.53]}
    )
    assert make_records(trips, FEATURE_SETS["course"]) == [
        {"PU_DO": "43_151", "trip_distance": 1.01},
        {"PU_DO": "166_239", "trip_distance": 2.53},
    ]


def test_hours_of_the_week_begin_on_monday() -> None:
    pickups = ["2023-01-02 00:59:59", "2023-01-02 01:00:00", "2023-01-08 23:00:00"]
    trips = pd.DataFrame({"pickup": pd.to_datetime(pickups)})
    records = make_records(trips, FeatureSet("hours", ("hour_of_week",)))
    assert [record["hour_of_week"] for record in records] == ["0", "1", "167"]


@given(clean_trips(), feature_sets)
def test_rows_sum_to_one_over_the_absorbed_term(trips: pd.DataFrame, features: FeatureSet) -> None:
    vectorizer = fit_vectorizer(trips, features)
    matrix = build_matrix(trips, features, vectorizer)
    pairs = matrix[:, np.flatnonzero(columns_of("PU_DO", vectorizer))]
    np.testing.assert_array_equal(np.asarray(pairs.sum(axis=1)).ravel(), np.ones(len(trips)))


def test_indices_are_int32_for_solvers_that_refuse_more() -> None:
    trips = pd.DataFrame({"pickup_zone": [1], "dropoff_zone": [2], "distance_miles": [0.5]})
    features = FEATURE_SETS["course"]
    matrix = build_matrix(trips, features, fit_vectorizer(trips, features))
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32


@pytest.mark.parametrize("term", ["PU-DO", "miles*", "*PU", "PU*miles", "miles*PU*DO", ""])
def test_an_unknown_term_is_named(term: str) -> None:
    with pytest.raises(InputError, match=r"term '.*' is unknown: use PU_DO, PU, DO"):
        FeatureSet("mine", (term,))


def test_an_unknown_feature_set_offers_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"feature set 'courze' is unknown; did you mean 'course'\?"
    ):
        get_feature_set("courze")
    with pytest.raises(InputError, match=r"feature set 'zzz' is unknown; give course or extended"):
        get_feature_set("zzz")
