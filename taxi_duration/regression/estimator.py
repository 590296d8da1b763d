"""The regression from sums as a scikit-learn estimator, and as scikit-learn's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from taxi_duration.errors import InputError
from taxi_duration.regression.solve import NormalEquations, check_alpha
from taxi_duration.regression.sums import Coefficients, Floats, Sums


@dataclass
class _Fitted:
    """Sums and their solution, which is found when it is first asked for."""

    sums: Sums
    one_hot: npt.NDArray[np.bool_]
    origin: Floats
    alpha: float

    @cached_property
    def solution(self) -> Coefficients:
        return NormalEquations(self.sums).solve(self.alpha)

    @cached_property
    def coefficients(self) -> Floats:
        coefficients = np.empty(len(self.one_hot))
        coefficients[self.one_hot] = self.solution.levels
        coefficients[~self.one_hot] = self.solution.others
        return coefficients


class ExactRegression(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Least squares or ridge as a scikit-learn estimator that can be fitted in parts.

    Unlike `LinearRegression` and `Ridge` it stops at no tolerance, keeps sums instead of rows,
    and takes more rows later: `partial_fit` in any split and order gives what `fit` on all rows
    gives. It holds a square matrix of the columns that are not in `one_hot`.

    Sums of squares have half the digits of their columns: what the columns of a dense matrix have
    in common, the first rows' means, is taken off before; the columns of a sparse one should not
    lie far from zero.

    Args:
        alpha: the L2 penalty, at least 0, the intercept free; 0 is ordinary least squares in its
            minimum-norm solution.
        one_hot: indices of columns that are one categorical of many levels: a row has at most one
            of them that is not zero. None when there is none.

    >>> regression = ExactRegression().partial_fit([[1.0], [2.0]], [5.0, 8.0])
    >>> regression.partial_fit([[4.0]], [14.0]).predict([[10.0]])
    array([32.])
    """

    def __init__(self, alpha: float = 0.0, one_hot: npt.ArrayLike | None = None) -> None:
        self.alpha = alpha
        self.one_hot = one_hot

    fitted_: _Fitted

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fit to these rows alone."""
        return self._add(X, y, sample_weight, is_first=True)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fit to these rows and all that were given since the last `fit`."""
        return self._add(X, y, sample_weight, is_first=not hasattr(self, "fitted_"))

    def _add(self, rows: Any, y: Any, sample_weight: Any, *, is_first: bool) -> Self:
        alpha = check_alpha(self.alpha)
        checked: Any = validate_data(
            self, rows, y, reset=is_first, accept_sparse="csr", dtype=np.float64, y_numeric=True
        )
        matrix: Any = checked[0]
        is_sparse = sparse.issparse(matrix)
        target = np.asarray(checked[1], dtype=np.float64)
        weights = _check_sample_weight(
            sample_weight, matrix, dtype=np.float64, ensure_non_negative=True
        )
        one_hot = _mark_one_hot(matrix, self.one_hot)
        if is_first:
            means = 0.0 if is_sparse else np.average(matrix, axis=0, weights=_none_if_zero(weights))
            origin = np.where(one_hot, 0.0, means)
        else:
            origin = self.fitted_.origin
            if not np.array_equal(one_hot, self.fitted_.one_hot):
                raise InputError("one_hot is not what it was at the first rows", "call fit instead")
            if is_sparse and origin.any():
                matrix, is_sparse = matrix.toarray(), False
        moved = matrix if is_sparse else matrix - origin
        sums = Sums.of_rows(moved, target, one_hot, weights)
        total = sums if is_first else self.fitted_.sums + sums
        self.fitted_ = _Fitted(total, one_hot, origin, alpha)
        return self

    @property
    def intercept_(self) -> float:
        check_is_fitted(self, "fitted_")
        fitted = self.fitted_
        return fitted.solution.intercept - float(fitted.origin @ fitted.coefficients)

    @property
    def coef_(self) -> Floats:
        """(columns,) in the order of X."""
        check_is_fitted(self, "fitted_")
        return self.fitted_.coefficients

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """The target of each row."""
        check_is_fitted(self, "fitted_")
        matrix = validate_data(self, X, reset=False, accept_sparse="csr", dtype=np.float64)
        predicted: Floats = matrix @ self.coef_ + self.intercept_
        return predicted

    def to_scikit_learn(self) -> LinearRegression | Ridge:
        """A plain fitted estimator with the same coefficients."""
        return assemble_regression(self.coef_, self.intercept_, self.fitted_.alpha)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _mark_one_hot(matrix: Any, columns: npt.ArrayLike | None) -> npt.NDArray[np.bool_]:
    one_hot = np.zeros(matrix.shape[1], dtype=bool)
    if columns is None:
        return one_hot
    indices = np.asarray(columns)
    if not np.isin(indices, np.arange(len(one_hot))).all():
        raise InputError(
            f"one_hot {indices} are no columns of {len(one_hot)}", "give their indices"
        )
    one_hot[indices.astype(np.intp)] = True
    values = sparse.csr_matrix(matrix[:, np.flatnonzero(one_hot)])
    values.eliminate_zeros()
    counts = np.diff(values.indptr)
    if counts.size and counts.max() > 1:
        row = int(counts.argmax())
        raise InputError(
            f"one_hot names columns that are not one categorical: row {row} is not zero in "
            f"{counts[row]} of them",
            "leave some out",
        )
    return one_hot


def _none_if_zero(weights: Floats) -> Floats | None:
    return weights if weights.any() else None


def assemble_regression(
    coefficients: Floats, intercept: float, alpha: float
) -> LinearRegression | Ridge:
    """A scikit-learn estimator as if it had been fitted to these coefficients."""
    regression = Ridge(alpha=alpha) if alpha else LinearRegression()
    regression.coef_ = coefficients
    regression.intercept_ = intercept
    regression.n_features_in_ = len(coefficients)
    return regression
