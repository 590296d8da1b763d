"""How far predictions are from the truth, for a model and for what it must beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taxi_duration.data.clean import MICROSECONDS_A_MINUTE, Trips
from taxi_duration.model.encoding import PAIRS, ZONES, Codes, Floats, encode_pair

Keys = npt.NDArray[np.int64]


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


THE_SAME = "the same"


def compare_rmse(ours: float, theirs: float) -> str:
    """How much lower or higher one error is than another, in words, to a tenth of a per cent.

    >>> compare_rmse(4.5, 5.0), compare_rmse(4.999, 5.0)
    ('10.0% lower', 'the same')
    """
    if not theirs:
        return "higher" if ours else THE_SAME
    change = f"{abs(ours / theirs - 1):.1%}"
    if change == "0.0%":
        return THE_SAME
    return f"{change} {'lower' if ours < theirs else 'higher'}"


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
    def of(cls, groups: Codes, size: int, residuals: Floats) -> GroupErrors:
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


Predict = Callable[[Trips], Floats]
"""What takes cleaned trips and says their minutes."""


@dataclass(frozen=True)
class ZonePairMedians:
    """The baseline that looks up the median minutes of the trip's zone pair.

    A pair that was never seen gets the median of its pick-up zone, and a pick-up zone that was
    never seen the median of all trips.

    Args:
        minutes: (PAIRS,) what each pair is predicted to take.
    """

    minutes: Floats

    def predict(self, trips: Trips) -> Floats:
        """Look the minutes of each trip up."""
        found: Floats = self.minutes[encode_pair(trips)]
        return found


@dataclass(frozen=True)
class Baselines:
    """What a model must beat: the training mean (minutes), and a look-up of zone pairs' medians."""

    mean_minutes: float
    medians: ZonePairMedians

    @property
    def predictors(self) -> dict[str, Predict]:
        """By the names they have in a report."""
        return {"mean": self._predict_mean, "zone_pair_median": self.medians.predict}

    def _predict_mean(self, trips: Trips) -> Floats:
        return np.full(len(trips["minutes"]), self.mean_minutes)


DURATION_BITS = 32
"""An hour's microseconds fit; the pair is above them."""


def make_keys(trips: Trips) -> Keys:
    """A trip's pair and duration in one integer each, which sorts by pair and then by duration."""
    durations = np.rint(trips["minutes"] * MICROSECONDS_A_MINUTE).astype(np.int64)
    keys: Keys = (encode_pair(trips).astype(np.int64) << DURATION_BITS) + durations
    return keys


def find_medians(keys: Keys) -> ZonePairMedians:
    """The medians of trips given as `make_keys` returns them, at least one."""
    pairs, durations = np.divmod(np.sort(keys), 1 << DURATION_BITS)
    of_pairs = _find_group_medians(pairs, durations, PAIRS)
    by_pickup = np.sort((pairs // ZONES << DURATION_BITS) + durations)
    of_pickups = _find_group_medians(*np.divmod(by_pickup, 1 << DURATION_BITS), ZONES)
    medians = np.where(np.isnan(of_pairs), np.repeat(of_pickups, ZONES), of_pairs)
    return ZonePairMedians(np.where(np.isnan(medians), _to_minutes(np.median(durations)), medians))


def _find_group_medians(groups: Keys, durations: Keys, size: int) -> Floats:
    """The median of each group's sorted durations; NaN for a group without any."""
    counts = np.bincount(groups, minlength=size)
    starts = np.cumsum(counts) - counts
    seen = np.flatnonzero(counts)
    lower = durations[starts[seen] + (counts[seen] - 1) // 2]
    upper = durations[starts[seen] + counts[seen] // 2]
    medians = np.full(size, np.nan)
    medians[seen] = _to_minutes((lower + upper) / 2)
    return medians


def _to_minutes(microseconds: Floats) -> Floats:
    return microseconds / MICROSECONDS_A_MINUTE
