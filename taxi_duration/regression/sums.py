"""Additive sums of a linear regression, with a large one-hot block kept apart.

A least-squares fit needs only y'y, X'y and X'X. They add up over rows, chunks and months, so a
month is read once, and no row again. The one-hot block of X'X is diagonal and is kept as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float64]


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
