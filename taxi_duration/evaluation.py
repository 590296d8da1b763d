"""How far predictions are from the truth, for a model and for what it must beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taxi_duration.encoding import PAIRS, ZONES, Floats, encode_pair
from taxi_duration.settings import StabilityLimits, name_variable
from taxi_duration.trips import MICROSECONDS_A_MINUTE, Trips

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


def compare_rmse(ours: float, theirs: float) -> str:
    """How much lower or higher one error is than another, in words; nothing when they are equal.

    >>> compare_rmse(4.5, 5.0)
    '10.0% lower'
    """
    if ours == theirs or not theirs:
        return ""
    change = ours / theirs - 1
    return f"{abs(change):.1%} {'lower' if change <= 0 else 'higher'}"


@dataclass(frozen=True)
class Challenge:
    """A model beside the champion: their RMSE on the same month's trips, in minutes.

    Args:
        version: the champion's, of the registered model.
        is_seen: whether the champion was trained on that month, and has the advantage.
        most_over: the limit, as a share of the champion's RMSE.
    """

    version: str
    month: str
    champion_rmse: float
    rmse: float
    is_seen: bool
    most_over: float

    @property
    def champion(self) -> str:
        """What the champion is called beside other predictors."""
        seen = f", trained on {self.month} too" if self.is_seen else ""
        return f"champion, version {self.version}{seen}"

    @property
    def is_lost(self) -> bool:
        """Whether the model is worse than the champion by more than the limit."""
        return not self.is_seen and self.rmse > self.champion_rmse * (1 + self.most_over)

    def __str__(self) -> str:
        change = compare_rmse(self.rmse, self.champion_rmse)
        said = (
            f"{self.champion}: RMSE {self.champion_rmse:.4f} minutes on {self.month}; this "
            f"model's is {self.rmse:.4f}{change and f', {change}'}"
        )
        if not self.is_lost:
            return f"{said}."
        variable = name_variable(StabilityLimits, "most_over_champion")
        return (
            f"{said}; {variable} allows {100 * self.most_over:.4g}%. Keep the champion, and "
            "find out what differs: the features, the months trained on, or the trips."
        )


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
