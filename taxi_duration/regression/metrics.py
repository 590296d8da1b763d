"""RMSE and MAE of predictions, from sums of errors that add up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taxi_duration.regression.sums import Floats


@dataclass(frozen=True)
class Evaluation:
    """Errors over `rows` trips: root mean squared and mean absolute, both in minutes."""

    rmse: float
    mae: float
    rows: int


@dataclass(frozen=True)
class Errors:
    """Sums of squared and absolute errors over `rows` trips; those of two sets of trips add up."""

    squares: float = 0.0
    absolutes: float = 0.0
    rows: int = 0

    @classmethod
    def of(cls, minutes: Floats, predicted: Floats) -> Errors:
        """Of actual and predicted minutes."""
        errors = minutes - predicted
        return cls(float(np.square(errors).sum()), float(np.abs(errors).sum()), len(errors))

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.squares + other.squares,
            self.absolutes + other.absolutes,
            self.rows + other.rows,
        )

    @property
    def evaluation(self) -> Evaluation:
        return Evaluation(
            rmse=float(np.sqrt(self.squares / self.rows)),
            mae=self.absolutes / self.rows,
            rows=self.rows,
        )


def score(minutes: Floats, predicted: Floats) -> Evaluation:
    """Compare predicted with actual minutes.

    >>> score(np.array([10.0, 20.0]), np.array([13.0, 16.0]))
    Evaluation(rmse=3.5355339059327378, mae=3.5, rows=2)
    """
    return Errors.of(minutes, predicted).evaluation


@dataclass(frozen=True, eq=False)
class GroupErrors:
    """Sums of errors over trips by the group they are in; those of two sets of trips add up.

    Args:
        rows: (groups,) trips of each.
        squares, absolutes: of the residuals, which are actual less predicted minutes.
        residuals: their sums.
    """

    rows: Floats
    squares: Floats
    absolutes: Floats
    residuals: Floats

    @classmethod
    def of(cls, groups: npt.NDArray[np.int32], size: int, residuals: Floats) -> GroupErrors:
        """Of trips, each in one of `size` groups."""

        def add_up(values: Floats | None = None) -> Floats:
            sums: Floats = np.bincount(groups, values, size).astype(np.float64)
            return sums

        return cls(add_up(), add_up(residuals**2), add_up(np.abs(residuals)), add_up(residuals))

    def __add__(self, other: GroupErrors) -> GroupErrors:
        return GroupErrors(
            self.rows + other.rows,
            self.squares + other.squares,
            self.absolutes + other.absolutes,
            self.residuals + other.residuals,
        )

    @property
    def rmse(self) -> Floats:
        """Of each group, in minutes; NaN of one without trips."""
        return self._mean(self.squares) ** 0.5

    @property
    def mae(self) -> Floats:
        return self._mean(self.absolutes)

    @property
    def mean_residual(self) -> Floats:
        return self._mean(self.residuals)

    def _mean(self, sums: Floats) -> Floats:
        rows = np.where(self.rows, self.rows, np.nan)
        means: Floats = sums / rows
        return means
