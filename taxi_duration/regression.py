"""Linear regression on a sparse matrix, solved exactly with its one-hot block eliminated.

The zone pair alone has up to 70,225 levels. Its block of X'X is diagonal, so it is eliminated
(a Schur complement; in regression terms the fixed effect is absorbed, after Frisch, Waugh and
Lovell), which leaves a dense system of the few hundred other columns.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from sklearn.linear_model import LinearRegression, Ridge

Floats = npt.NDArray[np.float64]

RANK_TOLERANCE = 1e-11
"""Eigenvalues below this count as zero: columns had unit length before the one-hot block was
eliminated, so what elimination leaves of one is its share outside the levels."""

REFINEMENTS = 2
"""Rounds of iterative refinement: the second already moves only the last digits."""


def fit_regression(
    matrix: sparse.csr_matrix,
    minutes: Floats,
    alpha: float,
    one_hot: npt.NDArray[np.bool_],
) -> LinearRegression | Ridge:
    """Fit intercept and coefficients by exact least squares or ridge.

    alpha = 0 gives ordinary least squares in its minimum-norm solution (the intercept is not
    part of the norm), which is what scikit-learn's `LinearRegression` tends to when its solver
    is run to convergence. alpha > 0 adds alpha times the sum of squared coefficients, the
    intercept free, as scikit-learn's `Ridge` does.

    Args:
        matrix: trips x columns.
        minutes: the target, one a trip.
        alpha: the penalty, at least 0, in trips (it is added to the count of each level).
        one_hot: True for the columns of one categorical, of which a row holds at most one,
            with value 1.

    Returns:
        A fitted scikit-learn estimator, which predicts without this package.
    """
    system = _NormalEquations(matrix, alpha, one_hot)
    coefficients, intercept = np.zeros(matrix.shape[1]), 0.0
    for _ in range(1 + REFINEMENTS):
        residual = minutes - matrix @ coefficients - intercept
        gradient = matrix.T @ residual - alpha * coefficients
        change, shift = system.solve(gradient, float(residual.sum()))
        coefficients, intercept = coefficients + change, intercept + shift
    return assemble_regression(coefficients, intercept, alpha)


def assemble_regression(
    coefficients: Floats, intercept: float, alpha: float
) -> LinearRegression | Ridge:
    """A scikit-learn estimator as if it had been fitted to these coefficients."""
    regression = Ridge(alpha=alpha) if alpha else LinearRegression()
    regression.coef_ = coefficients
    regression.intercept_ = intercept
    regression.n_features_in_ = len(coefficients)
    return regression


class _NormalEquations:
    """(X'X + penalty) of one matrix, factorised once and solved for several right-hand sides.

    "Levels" are the eliminated one-hot columns; "others" are the intercept and what remains,
    scaled to unit length (the penalty counted in) so that miles and one-hot columns weigh alike
    in the rank decision and in rounding.
    """

    def __init__(
        self, matrix: sparse.csr_matrix, alpha: float, one_hot: npt.NDArray[np.bool_]
    ) -> None:
        self._one_hot = one_hot
        levels = matrix[:, np.flatnonzero(one_hot)]
        intercept = sparse.csr_matrix(np.ones((matrix.shape[0], 1)))
        others: Any = sparse.hstack([intercept, matrix[:, np.flatnonzero(~one_hot)]], "csr")
        self._is_penalised = np.arange(others.shape[1]) > 0
        lengths = np.sqrt(others.power(2).sum(axis=0).A1 + alpha * self._is_penalised)
        self._scale = np.where(lengths > 0, lengths, 1.0)
        others = others @ sparse.diags_array(1 / self._scale)
        self._diagonal = np.asarray(levels.sum(axis=0)).ravel() + alpha
        self._cross: Any = sparse.csr_matrix(levels.T @ others)
        eliminated = self._cross.T @ self._cross.multiply(1 / self._diagonal[:, None])
        system = (others.T @ others - eliminated).toarray()
        system[np.diag_indices_from(system)] += alpha * self._is_penalised / self._scale**2
        if alpha:
            with suppress(linalg.LinAlgError, linalg.LinAlgWarning), warnings.catch_warnings():
                warnings.simplefilter("error", linalg.LinAlgWarning)
                self._inverse = linalg.inv(system, assume_a="pos")
                self._null = np.empty((len(system), 0))
                return
            # A penalty too small to tell from rounding: its limit is the minimum-norm solution.
        values, vectors = linalg.eigh(system)
        kept = values > RANK_TOLERANCE
        self._inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
        self._null = vectors[:, ~kept]

    def solve(self, gradient: Floats, gradient_of_intercept: float) -> tuple[Floats, float]:
        of_levels = gradient[self._one_hot]
        of_others = np.append(gradient_of_intercept, gradient[~self._one_hot]) / self._scale
        others = self._inverse @ (of_others - self._cross.T @ (of_levels / self._diagonal))
        others = self._shorten(of_levels, others)
        coefficients = np.empty(len(gradient))
        coefficients[self._one_hot] = (of_levels - self._cross @ others) / self._diagonal
        coefficients[~self._one_hot] = (others / self._scale)[1:]
        return coefficients, float(others[0] / self._scale[0])

    def _shorten(self, of_levels: Floats, others: Floats) -> Floats:
        """Among the solutions with these fitted values, the one with the shortest coefficients.

        Moving `others` by a null vector moves the levels along and no fitted value; the best
        move is a small least-squares problem of its own.
        """
        if not self._null.shape[1]:
            return others
        levels = (of_levels - self._cross @ others) / self._diagonal
        moved_levels = -(self._cross @ self._null) / self._diagonal[:, None]
        weight = self._is_penalised / self._scale
        moves = np.vstack([moved_levels, weight[:, None] * self._null])
        step, *_ = linalg.lstsq(moves, -np.concatenate([levels, weight * others]))
        shortened: Floats = others + self._null @ step
        return shortened
