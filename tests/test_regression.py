import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, sparse
from sklearn.linear_model import Ridge

from taxi_duration.features import FEATURE_SETS, build_matrix, columns_of, fit_vectorizer
from taxi_duration.regression import fit_regression
from tests.strategies import clean_trips


def solve_densely(matrix: np.ndarray, minutes: np.ndarray) -> tuple[np.ndarray, float]:
    """Minimum-norm least squares with a free intercept, by the centred matrix's singular values."""
    means = matrix.mean(axis=0)
    coefficients = linalg.pinv(matrix - means, rtol=1e-11) @ (minutes - minutes.mean())
    return coefficients, minutes.mean() - means @ coefficients


def make_system(
    trips: pd.DataFrame, features: str
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    feature_set = FEATURE_SETS[features]
    vectorizer = fit_vectorizer(trips, feature_set)
    matrix = build_matrix(trips, feature_set, vectorizer)
    return matrix, trips["minutes"].to_numpy(), columns_of("PU_DO", vectorizer)


def bounded(trips: pd.DataFrame) -> pd.DataFrame:
    """Distances as meters give them, in hundredths of a mile, and as drivers drive them.

    The dense reference is itself lost on 300,000 miles, or on a trillionth of one.
    """
    return trips.assign(distance_miles=(trips["distance_miles"] % 20.0).round(2))


@given(clean_trips().map(bounded))
def test_alpha_zero_is_the_minimum_norm_least_squares_solution(trips: pd.DataFrame) -> None:
    matrix, minutes, one_hot = make_system(trips, "course")
    fitted = fit_regression(matrix, minutes, 0.0, one_hot)
    coefficients, intercept = solve_densely(matrix.toarray(), minutes)
    np.testing.assert_allclose(fitted.coef_, coefficients, atol=1e-6)
    assert fitted.intercept_ == pytest.approx(intercept, abs=1e-6)


@pytest.mark.parametrize("features", ["course", "extended"])
def test_the_solution_is_the_shortest_so_that_unseen_pairs_are_determined(features: str) -> None:
    generator = np.random.default_rng(5)
    trips = pd.DataFrame(
        {
            "pickup": pd.Timestamp("2023-01-02")
            + pd.to_timedelta(generator.integers(0, 7 * 24, 400), unit="h"),
            "pickup_zone": generator.integers(1, 9, 400),
            "dropoff_zone": generator.integers(1, 9, 400),
            "distance_miles": generator.gamma(2, 2, 400),
            "minutes": generator.uniform(1, 60, 400),
        }
    )
    matrix, minutes, one_hot = make_system(trips, features)
    fitted = fit_regression(matrix, minutes, 0.0, one_hot)
    coefficients, intercept = solve_densely(matrix.toarray(), minutes)
    np.testing.assert_allclose(fitted.coef_, coefficients, atol=1e-7)
    assert fitted.intercept_ == pytest.approx(intercept, abs=1e-7)


@given(clean_trips(), st.sampled_from(["course", "extended"]), st.floats(0.01, 1000))
def test_alpha_above_zero_is_scikit_learns_ridge(
    trips: pd.DataFrame, features: str, alpha: float
) -> None:
    trips = bounded(trips)
    matrix, minutes, one_hot = make_system(trips, features)
    fitted = fit_regression(matrix, minutes, alpha, one_hot)
    reference = Ridge(alpha=alpha, solver="cholesky").fit(matrix.toarray(), minutes)
    np.testing.assert_allclose(fitted.coef_, reference.coef_, atol=1e-7)
    assert fitted.intercept_ == pytest.approx(reference.intercept_, abs=1e-7)


@given(clean_trips(min_size=2))
def test_the_order_of_trips_does_not_matter(trips: pd.DataFrame) -> None:
    matrix, minutes, one_hot = make_system(trips, "extended")
    forwards = fit_regression(matrix, minutes, 1.0, one_hot)
    backwards = fit_regression(matrix[::-1], minutes[::-1], 1.0, one_hot)
    np.testing.assert_allclose(forwards.coef_, backwards.coef_, atol=1e-9)


@given(clean_trips())
def test_a_heavier_penalty_never_fits_better(trips: pd.DataFrame) -> None:
    matrix, minutes, one_hot = make_system(trips, "extended")
    errors = [
        np.sum((minutes - fit_regression(matrix, minutes, alpha, one_hot).predict(matrix)) ** 2)
        for alpha in (0.1, 1.0, 10.0, 100.0)
    ]
    assert all(lighter <= heavier + 1e-9 for lighter, heavier in itertools.pairwise(errors))


def test_one_trip_is_predicted_as_itself() -> None:
    matrix = sparse.csr_matrix(np.array([[1.0, 2.5]]))
    fitted = fit_regression(matrix, np.array([12.0]), 0.0, np.array([True, False]))
    np.testing.assert_allclose(fitted.predict(matrix), [12.0])
    np.testing.assert_allclose(fitted.coef_, [0.0, 0.0], atol=1e-12)


def test_a_column_of_zeros_gets_no_coefficient() -> None:
    matrix = sparse.csr_matrix(np.array([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]]))
    minutes = np.array([10.0, 20.0, 14.0])
    fitted = fit_regression(matrix, minutes, 0.0, np.array([True, True, False]))
    np.testing.assert_allclose(fitted.predict(matrix), [12.0, 20.0, 12.0])
    assert fitted.coef_[2] == 0.0


def test_without_a_one_hot_term_it_is_plain_regression() -> None:
    matrix = sparse.csr_matrix(np.array([[1.0], [2.0], [4.0]]))
    fitted = fit_regression(matrix, np.array([5.0, 8.0, 14.0]), 0.0, np.array([False]))
    np.testing.assert_allclose([fitted.coef_[0], fitted.intercept_], [3.0, 2.0])


@given(clean_trips().map(bounded), st.sampled_from([1e-300, 1e-20, 1e-13]))
def test_a_penalty_lost_in_rounding_is_none(trips: pd.DataFrame, alpha: float) -> None:
    matrix, minutes, one_hot = make_system(trips, "course")
    tiny = fit_regression(matrix, minutes, alpha, one_hot)
    none = fit_regression(matrix, minutes, 0.0, one_hot)
    np.testing.assert_allclose(tiny.predict(matrix), none.predict(matrix), atol=1e-5)
