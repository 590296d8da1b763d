import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.utils.extmath import safe_sparse_dot

from taxi_duration import train_model
from taxi_duration.data.clean import Trips
from taxi_duration.data.clean import clean_trips as clean
from taxi_duration.data.parquet import read_trips
from taxi_duration.model.features import (
    FEATURE_SETS,
    FeatureSet,
    build_matrix,
    fit_vectorizer,
    make_records,
)
from taxi_duration.model.tables import tabulate
from taxi_duration.regression.solve import NormalEquations
from taxi_duration.regression.sums import Coefficients, Sums
from tests.support.strategies import Floats, clean_trips, deal, make_trips, solve_densely

Rows = tuple[sparse.csr_matrix, Floats, np.ndarray]


def make_rows(trips: Trips, name: str) -> Rows:
    """The matrix of a feature set, the minutes, and which columns are of the zone pair."""
    features = FEATURE_SETS[name]
    vectorizer = DictVectorizer().fit(make_records(trips, features))
    is_level = np.array(["PU_DO=" in name for name in vectorizer.feature_names_])
    return build_matrix(trips, features, vectorizer), trips["minutes"], is_level


def fit(rows: Rows, alpha: float = 0.0) -> tuple[Floats, float]:
    """Coefficients in the order of the matrix, and the intercept."""
    _, _, is_level = rows
    return join(NormalEquations(Sums.of_rows(*rows)).solve(alpha), is_level)


def join(fitted: Coefficients, is_level: np.ndarray) -> tuple[Floats, float]:
    coefficients = np.empty(len(is_level))
    coefficients[is_level], coefficients[~is_level] = fitted.levels, fitted.others
    return coefficients, fitted.intercept


@given(clean_trips(is_bounded=True))
def test_alpha_zero_is_the_minimum_norm_least_squares_solution(trips: Trips) -> None:
    rows = make_rows(trips, "course")
    coefficients, intercept = fit(rows)
    expected, expected_intercept = solve_densely(rows[0].toarray(), rows[1])
    np.testing.assert_allclose(coefficients, expected, rtol=1e-8, atol=1e-7)
    assert intercept == pytest.approx(expected_intercept, rel=1e-8, abs=1e-7)


@pytest.mark.parametrize("name", ["course", "extended"])
@pytest.mark.parametrize("seed", range(3))
def test_the_solution_is_the_shortest_so_that_unseen_pairs_are_determined(
    name: str, seed: int
) -> None:
    rows = make_rows(make_trips(np.random.default_rng(seed), 600), name)
    coefficients, intercept = fit(rows)
    expected, expected_intercept = solve_densely(rows[0].toarray(), rows[1])
    largest = np.abs(expected).max()
    np.testing.assert_allclose(coefficients, expected, rtol=1e-8, atol=1e-8 * largest)
    assert intercept == pytest.approx(expected_intercept, rel=1e-8)


@given(clean_trips(is_bounded=True), st.sampled_from(list(FEATURE_SETS)), st.floats(0.01, 1000))
def test_alpha_above_zero_is_scikit_learns_ridge(trips: Trips, name: str, alpha: float) -> None:
    rows = make_rows(trips, name)
    coefficients, intercept = fit(rows, alpha)
    reference = Ridge(alpha=alpha, solver="svd").fit(rows[0].toarray(), rows[1])
    np.testing.assert_allclose(coefficients, reference.coef_, rtol=1e-8, atol=1e-8)
    assert intercept == pytest.approx(reference.intercept_, rel=1e-8)


@given(clean_trips(min_size=2), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 30.0]))
def test_the_order_of_trips_does_not_matter(trips: Trips, seed: int, alpha: float) -> None:
    matrix, minutes, is_level = make_rows(trips, "extended")
    order = np.random.default_rng(seed).permutation(len(minutes))
    forwards, _ = fit((matrix, minutes, is_level), alpha)
    shuffled, _ = fit((matrix[order], minutes[order], is_level), alpha)
    np.testing.assert_allclose(forwards, shuffled, rtol=1e-9, atol=1e-9)


@given(clean_trips())
def test_a_heavier_penalty_never_fits_better(trips: Trips) -> None:
    rows = make_rows(trips, "extended")
    sums = Sums.of_rows(*rows)
    equations = NormalEquations(sums)
    errors = [sums.measure_rss(equations.solve(alpha)) for alpha in (0.0, 0.1, 1.0, 10.0, 100.0)]
    slack = 1e-9 * sums.target_squares
    assert all(lighter <= heavier + slack for lighter, heavier in itertools.pairwise(errors))


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.booleans())
def test_the_residual_sum_of_squares_is_that_of_the_rows_for_any_coefficients(
    seed: int, is_weighted: bool, is_sparse: bool, has_levels: bool
) -> None:
    generator = np.random.default_rng(seed)
    count, levels, others = generator.integers(1, 30), 5 * has_levels, generator.integers(0, 4)
    matrix = np.hstack(
        [
            np.eye(6)[generator.integers(0, 6, count), :levels]
            * generator.normal(2, 1, (count, 1)),
            generator.normal(3, 2, (count, others)),
        ]
    )
    is_level = np.arange(matrix.shape[1]) < levels
    target = generator.normal(15, 9, count)
    weights = generator.integers(0, 4, count) * 0.7 if is_weighted else None
    rows = sparse.csr_matrix(matrix) if is_sparse else matrix
    sums = Sums.of_rows(rows, target, is_level, weights)
    any_fit = Coefficients(3.0, generator.normal(0, 5, levels), generator.normal(0, 5, others))
    residuals = target - 3.0 - matrix @ np.concatenate([any_fit.levels, any_fit.others])
    weight = np.ones(count) if weights is None else weights
    expected = float(weight @ residuals**2)
    assert sums.measure_rss(any_fit) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert sums.weight == pytest.approx(weight.sum())


def test_a_perfect_fit_leaves_no_negative_residual() -> None:
    generator = np.random.default_rng(4)
    matrix = generator.normal(100, 30, (50, 3))
    sums = Sums.of_rows(matrix, matrix @ [3.0, -1.0, 0.5] + 7, np.zeros(3, dtype=bool))
    assert 0 <= sums.measure_rss(NormalEquations(sums).solve(0.0)) < 1e-6
    exact = Coefficients(7.0, np.empty(0), np.array([3.0, -1.0, 0.5]))
    assert 0 <= sums.measure_rss(exact) < 1e-6


def test_one_trip_is_predicted_as_itself() -> None:
    rows = sparse.csr_matrix(np.array([[1.0, 2.5]])), np.array([12.0]), np.array([True, False])
    coefficients, intercept = fit(rows)
    np.testing.assert_allclose(rows[0] @ coefficients + intercept, [12.0])
    np.testing.assert_allclose(coefficients, [0.0, 0.0], atol=1e-12)


def test_a_column_of_zeros_gets_no_coefficient() -> None:
    matrix = sparse.csr_matrix(np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [1.0, 0, 0, 0]]))
    rows = matrix, np.array([10.0, 20.0, 14.0]), np.array([True, True, False, True])
    for alpha in (0.0, 1.0):
        coefficients, intercept = fit(rows, alpha)
        assert coefficients[2:].tolist() == [0.0, 0.0]
        if not alpha:
            np.testing.assert_allclose(matrix @ coefficients + intercept, [12.0, 20.0, 12.0])


def test_without_a_one_hot_term_it_is_plain_regression() -> None:
    matrix = sparse.csr_matrix(np.array([[1.0], [2.0], [4.0]]))
    coefficients, intercept = fit((matrix, np.array([5.0, 8.0, 14.0]), np.array([False])))
    np.testing.assert_allclose([coefficients[0], intercept], [3.0, 2.0])


@given(clean_trips(is_bounded=True), st.sampled_from([1e-300, 1e-20, 1e-13]))
def test_a_penalty_lost_in_rounding_is_none(trips: Trips, alpha: float) -> None:
    rows = make_rows(trips, "course")
    predictions = [safe_sparse_dot(rows[0], c) + i for c, i in (fit(rows, alpha), fit(rows))]
    np.testing.assert_allclose(*predictions, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_one_distance_of_a_drive_around_the_earth_spoils_no_other_coefficient(
    seed: int, is_alone: bool
) -> None:
    trips = make_trips(np.random.default_rng(seed), 3000)
    trips["distance_miles"][0] = 278_990.0
    if is_alone:
        trips["pickup_zone"][0] = 265
    (tables,) = tabulate([trips], FEATURE_SETS["course"])
    fitted = NormalEquations(tables.sum_columns()).solve(0.0)
    matrix, minutes, _ = make_rows(trips, "course")
    *pairs, slope = (expected := solve_densely(matrix.toarray(), minutes))[0]
    assert fitted.others[0] == pytest.approx(slope, rel=1e-8)
    assert fitted.intercept == pytest.approx(expected[1], rel=1e-8)
    seen = np.sort(fitted.levels[fitted.levels != 0])
    np.testing.assert_allclose(seen, np.sort(pairs), rtol=1e-8, atol=1e-8 * np.abs(pairs).max())


MONTHS = [("2021-01", "2021-02"), ("2023-01", "2023-02")]


def converge(matrix: sparse.csr_matrix, minutes: Floats, miles: int) -> tuple[Floats, float]:
    """scikit-learn's own, run until it no longer moves, with miles in thousands.

    The unit changes no other coefficient, since no zone pair follows from the miles.
    """
    scale = np.ones(matrix.shape[1])
    scale[miles] = 1000.0
    scaled = matrix @ sparse.diags_array(1 / scale)
    converged = LinearRegression(tol=1e-15).fit(sparse.csr_matrix(scaled), minutes)
    return converged.coef_ / scale, float(converged.intercept_)


@pytest.mark.parametrize(("train", "validate"), MONTHS)
def test_course_is_scikit_learns_regression_run_to_convergence(
    real_data: Path, train: str, validate: str
) -> None:
    path, other = (real_data / f"green_tripdata_{month}.parquet" for month in (train, validate))
    model = train_model([path], "course")
    (trips, _), (others, _) = clean(read_trips(path)), clean(read_trips(other))
    names = [f"{p}_{d}" for p, d in zip(trips["pickup_zone"], trips["dropoff_zone"], strict=True)]
    vectorizer = fit_vectorizer(["trip_distance", *(f"PU_DO={name}" for name in names)])
    assert model.pipeline.named_steps["vectorizer"].feature_names_ == vectorizer.feature_names_
    miles = vectorizer.vocabulary_["trip_distance"]
    matrix = build_matrix(trips, model.features, vectorizer)
    coefficients, intercept = converge(matrix, trips["minutes"], miles)
    largest = np.abs(coefficients).max()
    ours = model.regression.coef_
    np.testing.assert_allclose(ours, coefficients, rtol=1e-8, atol=1e-8 * largest)
    assert ours[miles] == pytest.approx(coefficients[miles], rel=1e-8)
    assert model.intercept == pytest.approx(intercept, rel=1e-8)
    unseen_and_seen = build_matrix(others, model.features, vectorizer)
    assert (unseen_and_seen.getnnz(axis=1) == 1).any()
    expected = unseen_and_seen @ coefficients + intercept
    np.testing.assert_allclose(model.predict_clean(others), expected, rtol=1e-8)


@pytest.mark.parametrize("name", list(FEATURE_SETS))
@pytest.mark.parametrize("month", ["2021-01", "2025-01"])
def test_the_normal_equations_hold_on_a_real_month(real_data: Path, month: str, name: str) -> None:
    path = real_data / f"green_tripdata_{month}.parquet"
    trips, _ = clean(read_trips(path))
    features = FeatureSet("unpenalised", FEATURE_SETS[name].terms)
    model = train_model([path], features)
    matrix = build_matrix(trips, features, model.pipeline.named_steps["vectorizer"])
    minutes = trips["minutes"]
    residuals = minutes - matrix @ model.regression.coef_ - model.intercept
    lengths = np.sqrt(np.asarray(matrix.power(2).sum(axis=0)).ravel())
    cosines = (matrix.T @ residuals) / lengths / np.linalg.norm(minutes)
    # Without the round of refinement it is 3e-13 in 2021, and 1e-7 with a tolerance of 1e-7.
    assert np.abs(cosines).max() < (1e-14 if name == "course" else 5e-14)
    assert abs(residuals.mean()) < 1e-12


@pytest.mark.parametrize("month", ["2021-01", "2023-01"])
def test_course_is_the_closed_form_of_one_slope_within_groups(real_data: Path, month: str) -> None:
    """In extended precision: the slope of what is left of minutes and miles beside pair means."""
    trips, _ = clean(read_trips(real_data / f"green_tripdata_{month}.parquet"))
    pairs = trips["pickup_zone"] * 1000 + trips["dropoff_zone"]
    _, group = np.unique(pairs, return_inverse=True)
    counts = np.bincount(group)

    def mean(values: Floats) -> np.ndarray:
        sums = np.zeros(len(counts), dtype=np.longdouble)
        np.add.at(sums, group, values.astype(np.longdouble))
        return sums / counts

    miles, minutes = mean(trips["distance_miles"]), mean(trips["minutes"])
    within = trips["distance_miles"] - miles[group]
    slope = (within @ (trips["minutes"] - minutes[group])) / (within @ within)
    of_pairs = minutes - slope * miles
    model = train_model([real_data / f"green_tripdata_{month}.parquet"], "course")
    assert model.coefficients["trip_distance"][0] == pytest.approx(float(slope), rel=1e-8)
    assert model.intercept == pytest.approx(float(of_pairs.mean()), rel=1e-8)
    ours = model.intercept + model.coefficients["PU_DO"]
    ours = ours[~np.isnan(ours)]
    np.testing.assert_allclose(ours, of_pairs.astype(np.float64), rtol=1e-8)


@pytest.mark.parametrize("name", list(FEATURE_SETS))
@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_sums_of_parts_in_any_order_give_the_same_model(name: str, alpha: float) -> None:
    generator = np.random.default_rng(8)
    trips = make_trips(generator, 800)
    matrix, minutes, is_level = make_rows(trips, name)
    vectorizer = DictVectorizer().fit(make_records(trips, FEATURE_SETS[name]))
    whole, whole_intercept = fit((matrix, minutes, is_level), alpha)
    parts = [
        Sums.of_rows(build_matrix(part, FEATURE_SETS[name], vectorizer), part["minutes"], is_level)
        for part in deal(trips, generator, 9)
    ]
    total, *others = parts
    for part in others:
        total = part + total
    coefficients, intercept = join(NormalEquations(total).solve(alpha), is_level)
    np.testing.assert_allclose(coefficients, whole, rtol=1e-9, atol=1e-9 * np.abs(whole).max())
    assert intercept == pytest.approx(whole_intercept, rel=1e-9)
