import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from taxi_duration.evaluation import score, score_mean, score_zone_pair_median

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


def trips(pickup: list[int], dropoff: list[int], minutes: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"pickup_zone": pickup, "dropoff_zone": dropoff, "minutes": minutes})


def test_the_mean_baseline_predicts_the_training_mean() -> None:
    errors = score_mean(trips([1, 1], [2, 2], [10, 20]), trips([9, 9], [9, 9], [12, 18]))
    assert (errors.rmse, errors.rows) == (3.0, 2)


def test_the_pair_median_falls_back_to_the_pickup_zone_and_then_to_all() -> None:
    train = trips([1, 1, 1, 2], [2, 2, 3, 2], [10, 12, 30, 50])
    validation = trips([1, 1, 9], [2, 9, 9], [11, 12, 21])
    # The medians: pair (1, 2) is 11, pick-up zone 1 is 12, all trips is 21.
    assert score_zone_pair_median(train, validation).rmse == 0.0


def test_the_pair_has_a_direction() -> None:
    train = trips([1, 2], [2, 1], [10, 20])
    assert score_zone_pair_median(train, trips([2], [1], [20])).rmse == 0.0
