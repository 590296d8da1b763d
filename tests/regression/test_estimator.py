import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.utils.estimator_checks import check_estimator

from taxi_duration.errors import InputError
from taxi_duration.regression.estimator import ExactRegression
from tests.support.strategies import Floats, solve_densely

seeds = st.integers(0, 2**32 - 1)


def make_rows(
    seed: int, rows: int, *, is_huge: bool = False, is_weighted: bool = True
) -> tuple[Floats, Floats, Floats | None, list[int]]:
    """A matrix with every trouble, its target and weights, and which columns are one-hot.

    Columns 0 to 4 are a categorical, of which 4 is empty and 0 and 1 make another column twice;
    then columns of zeros, of ones, one that is the sum of two, and distances in hundredths.
    """
    generator = np.random.default_rng(seed)
    levels = np.eye(6)[generator.integers(0, 4, rows), :5]
    few = generator.integers(0, 4, (rows, 2)).astype(np.float64)
    miles = generator.integers(0, 2000, rows) / 100
    if is_huge:
        miles[generator.integers(rows)] = 278_990.0
    others = [few[:, 0], np.zeros(rows), np.ones(rows), few[:, 1], few.sum(axis=1), miles]
    matrix = np.column_stack([levels, levels[:, 0] + levels[:, 1], *others])
    target = 2 * miles.clip(0, 30) + few[:, 0] + generator.normal(10, 5, rows)
    weights = np.append(generator.integers(0, 4, rows - 1), 2) / 2.0
    return matrix, target, weights if is_weighted else None, [0, 1, 2, 3, 4]


@settings(deadline=None)
@given(seeds, st.integers(1, 60), st.booleans(), st.booleans(), st.booleans(), st.booleans())
@pytest.mark.parametrize("alpha", [0.0, 0.5, 20.0])
def test_coefficients_are_those_of_a_dense_solver_of_the_rows(
    alpha: float, seed: int, rows: int, has_one_hot: bool, is_sparse: bool, is_huge: bool, w: bool
) -> None:
    # A distance around the earth determines its slope beside the others only if they are many.
    rows = rows + 100 if is_huge else rows
    matrix, target, weights, one_hot = make_rows(seed, rows, is_huge=is_huge, is_weighted=w)
    given_rows: Any = sparse.csr_matrix(matrix) if is_sparse else matrix
    regression = ExactRegression(alpha, one_hot if has_one_hot else None)
    regression.fit(given_rows, target, weights)
    expected, intercept = solve_densely(matrix, target, weights, alpha)
    largest = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(regression.coef_, expected, rtol=1e-8, atol=1e-8 * largest)
    assert regression.intercept_ == pytest.approx(intercept, rel=1e-8, abs=1e-8 * largest)
    predicted = matrix @ expected + intercept
    scale = np.abs(matrix) @ np.abs(expected) + abs(intercept)
    assert (np.abs(regression.predict(given_rows) - predicted) <= 1e-8 * scale).all()


@settings(deadline=None)
@given(seeds, st.integers(2, 6), st.booleans(), st.booleans())
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_parts_in_any_order_and_split_give_what_all_rows_give(
    alpha: float, seed: int, parts: int, has_one_hot: bool, is_weighted: bool
) -> None:
    matrix, target, weights, one_hot = make_rows(seed, 80, is_weighted=is_weighted)
    chosen = one_hot if has_one_hot else None
    whole = ExactRegression(alpha, chosen).fit(matrix, target, weights)
    order = np.random.default_rng(seed).permutation(len(target))
    part_by_part = ExactRegression(alpha, chosen)
    for some in np.array_split(order, parts):
        part_by_part.partial_fit(
            matrix[some], target[some], None if weights is None else weights[some]
        )
    np.testing.assert_allclose(part_by_part.coef_, whole.coef_, rtol=1e-9, atol=1e-9)
    assert part_by_part.intercept_ == pytest.approx(whole.intercept_, rel=1e-9)
    np.testing.assert_allclose(part_by_part.predict(matrix), whole.predict(matrix), rtol=1e-9)


def test_a_weight_counts_a_row_so_often() -> None:
    matrix, target, _, one_hot = make_rows(5, 40)
    times = np.random.default_rng(5).integers(0, 4, 40)
    weighted = ExactRegression(1.0, one_hot).fit(matrix, target, times.astype(np.float64))
    repeated = ExactRegression(1.0, one_hot).fit(matrix.repeat(times, 0), target.repeat(times))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-9, atol=1e-12)


def test_fit_forgets_and_partial_fit_does_not() -> None:
    first, second = make_rows(1, 50)[:2], make_rows(2, 50)[:2]
    regression = ExactRegression().fit(*first).fit(*second)
    np.testing.assert_array_equal(regression.coef_, ExactRegression().fit(*second).coef_)
    regression.partial_fit(*first)
    rows = [np.concatenate(each) for each in zip(first, second, strict=True)]
    both = ExactRegression().fit(*rows)
    np.testing.assert_allclose(regression.coef_, both.coef_, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match=r"X has 3 features, but ExactRegression is expecting 12"):
        regression.partial_fit(first[0][:, :3], first[1])


def test_an_estimate_asked_for_early_is_not_kept() -> None:
    matrix, target, *_ = make_rows(3, 60)
    regression = ExactRegression().partial_fit(matrix[:30], target[:30])
    early = regression.coef_
    regression.partial_fit(matrix[30:], target[30:])
    assert np.abs(regression.coef_ - early).max() > 0.01


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_scikit_learns_own_checks_pass(alpha: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checks = check_estimator(ExactRegression(alpha=alpha), on_fail=None, on_skip=None)
    assert len(checks) > 40
    failed = {c["check_name"]: c["exception"] for c in checks if c["status"] in ("failed", "xfail")}
    assert failed == {}
    skipped = {check["check_name"] for check in checks if check["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}


@pytest.mark.parametrize(("alpha", "plain"), [(0.0, LinearRegression), (2.0, Ridge)])
def test_it_becomes_plain_scikit_learn(alpha: float, plain: type) -> None:
    matrix, target, _, one_hot = make_rows(9, 70)
    regression = ExactRegression(alpha, one_hot).fit(matrix, target)
    theirs = regression.to_scikit_learn()
    assert type(theirs) is plain
    assert theirs.get_params().get("alpha", 0.0) == alpha
    np.testing.assert_array_equal(theirs.predict(matrix), regression.predict(matrix))
    assert theirs.score(matrix, target) == pytest.approx(regression.score(matrix, target))
    with pytest.raises(ValueError, match=r"X has 3 features"):
        theirs.predict(matrix[:, :3])


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf"), "1", None])
def test_a_penalty_is_finite_and_not_negative(alpha: Any) -> None:
    with pytest.raises(InputError) as raised:
        ExactRegression(alpha).fit([[1.0], [2.0]], [1.0, 2.0])
    assert str(raised.value) == (
        f"alpha {alpha} is not a penalty: give a finite number of at least 0."
    )


@pytest.mark.parametrize("as_sparse", [False, True])
def test_a_row_that_is_in_two_levels_is_refused(as_sparse: bool) -> None:
    rows: Any = np.array([[1.0, 0.0, 4.0], [1.0, 1.0, 4.0]])
    rows = sparse.csr_matrix(rows) if as_sparse else rows
    with pytest.raises(InputError) as raised:
        ExactRegression(one_hot=[0, 1]).fit(rows, [1.0, 2.0])
    assert str(raised.value) == (
        "one_hot names columns that are not one categorical: row 1 is not zero in 2 of them: "
        "leave some out."
    )


def test_a_zero_that_is_stored_is_no_second_level() -> None:
    rows = sparse.csr_matrix((np.array([1.0, 0.0, 0.0, 1.0]), [0, 1, 0, 1], [0, 2, 4]), (2, 2))
    regression = ExactRegression(one_hot=[0, 1]).fit(rows, [1.0, 3.0])
    np.testing.assert_allclose(regression.predict(np.eye(2)), [1.0, 3.0])


def test_levels_need_not_be_ones() -> None:
    generator = np.random.default_rng(6)
    matrix = np.eye(4)[generator.integers(0, 4, 60)] * [1.0, 3.0, -2.0, 0.5]
    matrix = np.column_stack([matrix, generator.gamma(2, 2, 60)])
    target = generator.normal(10, 3, 60)
    for alpha in (0.0, 1.5):
        regression = ExactRegression(alpha, [0, 1, 2, 3]).fit(matrix, target)
        expected, intercept = solve_densely(matrix, target, None, alpha)
        np.testing.assert_allclose(regression.coef_, expected, rtol=1e-8, atol=1e-8)
        assert regression.intercept_ == pytest.approx(intercept, rel=1e-8)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Negative values in data passed to `sample_weight`"):
        ExactRegression().fit([[1.0], [2.0]], [1.0, 2.0], sample_weight=[1.0, -1.0])


def test_it_says_when_it_was_not_fitted_and_clones_unfitted() -> None:
    fitted = ExactRegression(2.0, [0]).fit([[1.0, 3.0], [0.0, 4.0]], [1.0, 2.0])
    for regression in (ExactRegression(), clone(fitted)):
        for ask in (lambda r: r.coef_, lambda r: r.intercept_, lambda r: r.predict([[1.0]])):
            with pytest.raises(NotFittedError, match=r"is not fitted yet"):
                ask(regression)
    assert clone(fitted).get_params() == {"alpha": 2.0, "one_hot": [0]}


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e9])
def test_columns_far_from_zero_are_fitted_as_well(offset: float) -> None:
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(400, 2)) + offset
    target = (rows - offset) @ [3.0, -1.0] + generator.normal(size=400)
    reference = LinearRegression().fit(rows - offset, target)
    fitted = ExactRegression().partial_fit(rows[:150], target[:150])
    fitted.partial_fit(rows[150:], target[150:])
    np.testing.assert_allclose(fitted.coef_, reference.coef_, rtol=1e-6)
    np.testing.assert_allclose(fitted.predict(rows), reference.predict(rows - offset), atol=1e-5)


def test_what_was_fitted_stays_what_it_was() -> None:
    rows, target = np.eye(4), np.arange(4.0)
    fitted = ExactRegression(one_hot=[0, 1]).fit(rows, target)
    fitted.set_params(alpha=5.0)
    assert type(fitted.to_scikit_learn()) is LinearRegression
    fitted.set_params(one_hot=[2])
    with pytest.raises(InputError, match=r"one_hot is not what it was at the first rows: call fit"):
        fitted.partial_fit(rows, target)


@pytest.mark.parametrize("columns", [[4], [-1], [0.5]])
def test_a_level_that_is_no_column_is_named(columns: list[float]) -> None:
    with pytest.raises(InputError, match=r"one_hot \[.*\] are no columns of 4: give their indices"):
        ExactRegression(one_hot=columns).fit(np.eye(4), np.arange(4.0))
