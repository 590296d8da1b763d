import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from taxi_duration.data.clean import Trips
from taxi_duration.model.baselines import Baselines, ZonePairMedians, find_medians, make_keys
from taxi_duration.regression.metrics import Errors, score
from tests.support.strategies import Floats, clean_trips, take

minutes = st.lists(st.floats(1, 60), min_size=1, max_size=50)


@given(st.data(), minutes)
def test_errors_are_scikit_learns(data: st.DataObject, actual: list[float]) -> None:
    predicted = data.draw(
        st.lists(st.floats(-100, 100), min_size=len(actual), max_size=len(actual))
    )
    errors = score(np.array(actual), np.array(predicted))
    assert errors.rmse == pytest.approx(root_mean_squared_error(actual, predicted))
    assert errors.mae == pytest.approx(mean_absolute_error(actual, predicted))
    assert errors.rows == len(actual)


@given(minutes, st.integers(0, 50))
def test_the_errors_of_parts_add_up(actual: list[float], cut: int) -> None:
    of_all, predicted = np.array(actual), np.linspace(5, 25, len(actual))
    whole = Errors.of(of_all, predicted).evaluation
    parts = [Errors.of(of_all[rows], predicted[rows]) for rows in (slice(cut), slice(cut, None))]
    added = sum(parts, Errors()).evaluation
    assert added.rmse == pytest.approx(whole.rmse, rel=1e-12)
    assert added.mae == pytest.approx(whole.mae, rel=1e-12)
    assert added.rows == whole.rows


def make_trips(pickup: list[int], dropoff: list[int], minutes: list[float]) -> Trips:
    return {
        "pickup_zone": np.array(pickup),
        "dropoff_zone": np.array(dropoff),
        "minutes": np.array(minutes, dtype=np.float64),
    }


def fit_medians(trips: Trips) -> ZonePairMedians:
    return find_medians(make_keys(trips))


def test_the_mean_baseline_predicts_the_training_mean() -> None:
    validation = make_trips([9, 9], [9, 9], [12, 18])
    baselines = Baselines(15.0, fit_medians(make_trips([1], [2], [10])))
    errors = score(validation["minutes"], baselines.predictors["mean"](validation))
    assert (errors.rmse, errors.rows) == (3.0, 2)


def test_the_pair_median_falls_back_to_the_pickup_zone_and_then_to_all() -> None:
    medians = fit_medians(make_trips([1, 1, 1, 2], [2, 2, 3, 2], [10, 12, 30, 50]))
    # The medians: pair (1, 2) is 11, pick-up zone 1 is 12, all trips is 21.
    asked = make_trips([1, 1, 9, 265], [2, 9, 9, 2], [0, 0, 0, 0])
    assert medians.predict(asked).tolist() == [11.0, 12.0, 21.0, 21.0]


def test_the_pair_has_a_direction() -> None:
    medians = fit_medians(make_trips([1, 2], [2, 1], [10, 20]))
    assert medians.predict(make_trips([2, 1], [1, 2], [0, 0])).tolist() == [20.0, 10.0]


def test_the_first_and_the_last_zone_have_medians() -> None:
    medians = fit_medians(make_trips([1, 265, 1], [265, 1, 1], [1, 60, 7]))
    assert medians.predict(make_trips([1, 265, 1], [265, 1, 1], [0] * 3)).tolist() == [1, 60, 7]


def look_up(train: Trips, asked: Trips) -> Floats:
    """The same medians by pandas."""
    frame = pd.DataFrame({name: train[name] for name in ("pickup_zone", "dropoff_zone", "minutes")})
    of_pairs = frame.groupby(["pickup_zone", "dropoff_zone"])["minutes"].median()
    of_pickups = frame.groupby("pickup_zone")["minutes"].median()
    pairs = zip(asked["pickup_zone"].tolist(), asked["dropoff_zone"].tolist(), strict=True)
    overall = frame["minutes"].median()
    return np.array([of_pairs.get(pair, of_pickups.get(pair[0], overall)) for pair in pairs])


@given(clean_trips(), clean_trips())
def test_medians_are_those_of_pandas(train: Trips, asked: Trips) -> None:
    predicted = fit_medians(train).predict(asked)
    # Durations are whole microseconds, and the medians of two are in between.
    np.testing.assert_allclose(predicted, look_up(train, asked), atol=2e-8)


@given(clean_trips(min_size=2), st.integers(0, 2**32 - 1))
def test_medians_do_not_depend_on_the_order_of_the_trips(trips: Trips, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(trips["minutes"]))
    ours, theirs = fit_medians(trips), fit_medians(take(trips, order))
    np.testing.assert_array_equal(ours.minutes, theirs.minutes)
