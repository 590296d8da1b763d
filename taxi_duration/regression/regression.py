"""Linear regression from additive sums, solved exactly with a large one-hot block eliminated.

A linear model needs no rows, only their sums: how many, their y, y squared, X'y and X'X. Sums of
two sets of rows add up to the sums of both, so rows can be taken in any chunks and any order,
and kept instead of the rows.

A categorical with up to 70,225 levels (the zone pair) has a diagonal block in X'X. It is
eliminated (a Schur complement; in regression terms the fixed effect is absorbed, after Frisch,
Waugh and Lovell), which leaves a dense system of the other columns, for any penalty.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from taxi_duration.errors import InputError

Floats = npt.NDArray[np.float64]

RANK_TOLERANCE = 1e-11
"""Eigenvalues below this count as zero: columns had unit length before the one-hot block was
eliminated, so what elimination leaves of one is its share outside the levels."""

SMALLEST_PIVOT = 1e-13
"""A pivot of the scaled system below this is rounding: a larger penalty would have shown."""

DENSE_SHARE = 0.05
"""Columns that meet more than this share of the levels are cheaper to eliminate as dense."""

BLOCK_LEVELS = 4096
"""Levels eliminated at a time, so that their dense part stays in the processor's cache."""


def check_alpha(alpha: float) -> float:
    """Return a penalty as a float.

    Raises:
        InputError: it is negative, infinite or not a number.
    """
    is_number = isinstance(alpha, Real) and not isinstance(alpha, bool)
    if not is_number or not np.isfinite(alpha) or alpha < 0:
        raise InputError(f"alpha {alpha} is not a penalty: give a finite number of at least 0.")
    return float(alpha)


@dataclass(frozen=True)
class Coefficients:
    """A linear model: its intercept, and the coefficient of each level and each other column."""

    intercept: float
    levels: Floats
    others: Floats

    @property
    def columns(self) -> Floats:
        """The intercept and the others: what `Sums.gram` and `Sums.cross` are multiplied with."""
        return np.concatenate([[self.intercept], self.others])


@dataclass(frozen=True)
class Sums:
    """Sums over weighted rows of L "levels", a column of ones with q others, and a target.

    A row is zero in all levels but one at most. `a + b` is the sums of the rows of both.

    Args:
        target_squares: of the squared target.
        targets: (1 + q,) of each column times the target; column 0 is the ones.
        gram: (1 + q, 1 + q) of the products of columns.
        levels: (L,) of each level, squared: of a one-hot level, its rows.
        level_targets: (L,) of each level times the target.
        cross: (L, 1 + q) of each level times each column, as blocks of columns side by side.
    """

    target_squares: float
    targets: Floats
    gram: Floats
    levels: Floats
    level_targets: Floats
    cross: tuple[sparse.csr_matrix, ...]

    @classmethod
    def of_rows(
        cls,
        matrix: sparse.csr_matrix | Floats,
        target: Floats,
        is_level: npt.NDArray[np.bool_],
        weights: Floats | None = None,
    ) -> Sums:
        """Sum rows up.

        Args:
            matrix: rows x columns without the ones, sparse or dense.
            target: one a row.
            is_level: True for the columns that are levels.
            weights: one a row, each at least 0; 1 when None.
        """
        weight = np.ones(len(target)) if weights is None else weights
        levels: Any = sparse.csc_matrix(matrix[:, np.flatnonzero(is_level)])
        others: Any = matrix[:, np.flatnonzero(~is_level)]
        ones: Any = np.ones((len(target), 1))
        if sparse.issparse(others):
            blocks: Any = [sparse.csc_matrix(ones), others]
            others = sparse.hstack(blocks, "csc")
            weighted = sparse.diags_array(weight) @ others
            gram = (others.T @ weighted).toarray()
        else:
            others = np.hstack([ones, others])
            weighted = others * weight[:, None]
            gram = others.T @ weighted
        return cls(
            target_squares=float(weight @ target**2),
            targets=others.T @ (weight * target),
            gram=gram,
            levels=levels.power(2).T @ weight,
            level_targets=levels.T @ (weight * target),
            cross=(sparse.csr_matrix(levels.T @ weighted),),
        )

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.target_squares + other.target_squares,
            self.targets + other.targets,
            self.gram + other.gram,
            self.levels + other.levels,
            self.level_targets + other.level_targets,
            tuple(a + b for a, b in zip(self.cross, other.cross, strict=True)),
        )

    @property
    def weight(self) -> float:
        """Of all rows: their number, if each weighs 1."""
        return float(self.gram[0, 0])

    def spread(self, columns: Floats) -> Floats:
        """`cross` times a vector of the columns, or a matrix of such: one row a level."""
        widths = np.cumsum([block.shape[1] for block in self.cross])[:-1]
        spread = np.zeros((len(self.levels), *columns.shape[1:]))
        for block, part in zip(self.cross, np.split(columns, widths), strict=True):
            spread += block @ part
        return spread

    def gather(self, levels: Floats) -> Floats:
        """`cross` transposed, times a vector of the levels: one row a column."""
        return np.concatenate([block.T @ levels for block in self.cross])

    def measure_rss(self, fit: Coefficients) -> float:
        """The residual sum of squares of any coefficients over the rows of these sums.

        Exact to the rounding of its largest term, such as the squares of the target.
        """
        columns, levels = fit.columns, fit.levels
        explained = columns @ (self.gram @ columns) + levels**2 @ self.levels
        mixed = levels @ self.spread(columns)
        products = columns @ self.targets + levels @ self.level_targets
        # Rounding may leave a perfect fit slightly below zero.
        return max(0.0, float(self.target_squares + explained + 2 * (mixed - products)))


class NormalEquations:
    """The equations (X'X + penalty) b = X'y of some sums, to be solved for any penalty.

    alpha = 0 gives ordinary least squares in its minimum-norm solution (the intercept is not
    part of the norm), which is what scikit-learn's `LinearRegression` tends to when its solver
    is run to convergence. alpha > 0 adds alpha times the sum of squared coefficients, the
    intercept free, as scikit-learn's `Ridge` does. A level or column that is zero gets 0.
    """

    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        self._levels = np.flatnonzero(sums.levels)
        self._kept = np.flatnonzero(sums.gram.diagonal())
        widths = [block.shape[1] for block in sums.cross]
        starts = np.cumsum([0, *widths]).tolist()
        self._columns = [slice(a, b) for a, b in itertools.pairwise(starts)]
        self._is_dense = [
            block.nnz > DENSE_SHARE * len(self._levels) * block.shape[1] for block in sums.cross
        ]

    def solve(self, alpha: float) -> Coefficients:
        """Solve for one penalty of at least 0; it is added to the rows of each one-hot column."""
        sums, kept = self._sums, self._kept
        penalties = alpha * (np.arange(len(sums.targets)) > 0)
        diagonal = sums.levels + alpha
        inverse = np.zeros(len(diagonal))
        inverse[self._levels] = 1 / diagonal[self._levels]
        system = sums.gram - self._eliminate(inverse)
        system[np.diag_indices_from(system)] += penalties
        scale = np.sqrt(sums.gram.diagonal()[kept])
        solver = _Factorised(system[np.ix_(kept, kept)], scale, is_penalised=alpha > 0)
        del system

        def solve_for(of_levels: Floats, of_columns: Floats) -> tuple[Floats, Floats]:
            columns = np.zeros(len(of_columns))
            right = of_columns - sums.gather(of_levels * inverse)
            columns[kept] = solver.solve(right[kept])
            return (of_levels - sums.spread(columns)) * inverse, columns

        levels, columns = solve_for(sums.level_targets, sums.targets)
        # One round of refinement takes away what the factorisation rounded.
        step_levels, step_columns = solve_for(
            sums.level_targets - diagonal * levels - sums.spread(columns),
            sums.targets - penalties * columns - sums.gram @ columns - sums.gather(levels),
        )
        levels, columns = levels + step_levels, columns + step_columns
        if solver.null.shape[1]:
            moves = np.zeros((len(columns), solver.null.shape[1]))
            moves[kept] = solver.null
            levels, columns = self._shorten(levels, columns, moves, inverse)
        return Coefficients(float(columns[0]), levels, columns[1:])

    def _eliminate(self, inverse: Floats) -> Floats:
        """C' diag(inverse) C, with C the cross sums of levels and columns."""
        eliminated = np.zeros_like(self._sums.gram)
        blocks = list(zip(self._columns, self._sums.cross, self._is_dense, strict=True))
        dense = [each for each in blocks if each[2]]
        nested: list[tuple[slice, Any, bool]] = [each for each in blocks if not each[2]]
        for place, (rows, left, _) in enumerate(nested):
            weighted = sparse.diags_array(inverse) @ left
            for columns, right, _ in nested[place:]:
                product = (weighted.T @ right).toarray()
                eliminated[rows, columns], eliminated[columns, rows] = product, product.T
        if not dense:
            return eliminated
        places = np.concatenate([np.arange(each.start, each.stop) for each, *_ in dense])
        both = np.zeros((len(places), len(places)))
        mixed = [np.zeros((block.shape[1], len(places))) for _, block, _ in nested]
        for start in range(0, len(self._levels), BLOCK_LEVELS):
            levels = self._levels[start : start + BLOCK_LEVELS]
            roots = np.sqrt(inverse[levels])[:, None]
            half = np.hstack([block[levels].toarray() for _, block, _ in dense]) * roots
            both += half.T @ half
            half *= roots
            for total, (_, block, _) in zip(mixed, nested, strict=True):
                total += block[levels].T @ half
        eliminated[np.ix_(places, places)] = both
        for total, (rows, *_) in zip(mixed, nested, strict=True):
            eliminated[rows, places], eliminated[places, rows] = total, total.T
        return eliminated

    def _shorten(
        self, levels: Floats, columns: Floats, moves: Floats, inverse: Floats
    ) -> tuple[Floats, Floats]:
        """Among the solutions with these fitted values, the one with the shortest coefficients.

        Moving the columns by a null vector moves the levels along and no fitted value; the best
        move is a small least-squares problem of its own.
        """
        moved = -self._sums.spread(moves) * inverse[:, None]
        lengths = np.vstack([moved[self._levels], moves[1:]])
        steps, *_ = linalg.lstsq(
            lengths, -np.concatenate([levels[self._levels], columns[1:]]), check_finite=False
        )
        return levels + moved @ steps, columns + moves @ steps


class _Factorised:
    """The system that is left of the columns, factorised.

    Columns are scaled to unit length, so that miles and one-hot columns weigh alike in the rank
    decision and in rounding. `null` holds what the system does not determine, a column each.
    """

    def __init__(self, system: Floats, scale: Floats, *, is_penalised: bool) -> None:
        self._scale = scale
        self._factor: Any = None
        self.null = np.empty((len(system), 0))
        system /= scale[:, None]
        system /= scale
        if is_penalised:
            with suppress(linalg.LinAlgError):
                self._factor = linalg.cho_factor(system, lower=True, check_finite=False)
                if self._factor[0].diagonal().min() ** 2 > SMALLEST_PIVOT:
                    return
            # A penalty too small to tell from rounding: its limit is the minimum-norm solution.
            self._factor = None
        values, vectors = linalg.eigh(system, check_finite=False)
        kept = values > RANK_TOLERANCE
        self._inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
        self.null = vectors[:, ~kept] / scale[:, None]

    def solve(self, right: Floats) -> Floats:
        scaled = right / self._scale
        solved = (
            self._inverse @ scaled
            if self._factor is None
            else linalg.cho_solve(self._factor, scaled, check_finite=False)
        )
        return np.asarray(solved / self._scale)
