"""What a model must beat: the training mean, and the median minutes of the zone pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taxi_duration.data.clean import MICROSECONDS_A_MINUTE, Trips
from taxi_duration.model.features import PAIRS, ZONES, Floats, encode_pair

Keys = npt.NDArray[np.int64]


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
