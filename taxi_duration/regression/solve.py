"""The normal equations of additive sums, solved exactly with a one-hot block eliminated.

With D the diagonal block of the levels, C the products of levels and columns and G those of the
columns, the levels are b = D^-1 (X'y - C c) and the columns c solve the Schur complement
(G - C' D^-1 C) c = ...: the levels are absorbed (Frisch-Waugh-Lovell). A penalty is added to D and
to the diagonal of G, but for the intercept.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from numbers import Real
from typing import Any

import numpy as np
from scipy import linalg, sparse

from taxi_duration.errors import InputError
from taxi_duration.regression.sums import Coefficients, Floats, Sums

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
        raise InputError(f"alpha {alpha} is not a penalty", "give a finite number of at least 0")
    return float(alpha)


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
