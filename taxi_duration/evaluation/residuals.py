"""What is left of trips' minutes when a model has predicted them, in counts that add up.

A residual is actual less predicted minutes: positive where the trip took longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from taxi_duration.data.clean import LONGEST_MINUTES, Trips
from taxi_duration.model.encoding import PAIRS, ZONES, Codes, Floats, encode_pair, is_metered

Counts = npt.NDArray[np.int64]

STEP_MINUTES = 2
BANDS = int(LONGEST_MINUTES) // STEP_MINUTES
"""Of actual and of predicted minutes; what is beyond an end counts in the last band there."""

BINS_A_MINUTE = 10
FARTHEST_RESIDUAL = int(LONGEST_MINUTES)
BINS = 2 * FARTHEST_RESIDUAL * BINS_A_MINUTE

QUANTILES = (5, 25, 50, 75, 95)
"""Per cent of the trips that have a smaller residual."""

LARGEST = 10
FEWEST_PAIR_TRIPS = 20
SHORTEST_PAIR_MILES = 0.5
"""A pair with fewer trips, or shorter ones on average, is not among the slowest."""

Trip = dict[str, Any]
"""One trip, JSON-ready: pickup, zones, miles, minutes and what was predicted."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """Of no trips by default.

    Args:
        density: (BANDS, BANDS) trips by band of actual and of predicted minutes.
        fan: (BANDS, BINS) trips by band of predicted minutes and bin of the residual.
        total: sum of the residuals, minutes.
        pair_trips, pair_miles, pair_minutes: (PAIRS,) metered trips by zone pair, their miles and
            the minutes predicted for them.
        largest: the trips with the largest residuals, that one first.
    """

    density: Counts = field(default_factory=lambda: np.zeros((BANDS, BANDS), np.int64))
    fan: Counts = field(default_factory=lambda: np.zeros((BANDS, BINS), np.int64))
    total: float = 0.0
    pair_trips: Floats = field(default_factory=lambda: np.zeros(PAIRS))
    pair_miles: Floats = field(default_factory=lambda: np.zeros(PAIRS))
    pair_minutes: Floats = field(default_factory=lambda: np.zeros(PAIRS))
    largest: tuple[Trip, ...] = ()

    @classmethod
    def of(cls, trips: Trips, predicted: Floats) -> Residuals:
        """Of cleaned trips and the minutes predicted for them."""
        residuals = trips["minutes"] - predicted
        actual_bands, predicted_bands = _find_bands(trips["minutes"]), _find_bands(predicted)
        bins = (residuals + FARTHEST_RESIDUAL) * BINS_A_MINUTE
        in_fan = predicted_bands * BINS + bins.clip(0, BINS - 1).astype(np.int64)
        metered = is_metered(trips)
        pairs = encode_pair(trips)[metered]
        return cls(
            _count(actual_bands * BANDS + predicted_bands, (BANDS, BANDS)),
            _count(in_fan, (BANDS, BINS)),
            float(residuals.sum()),
            _add_up(pairs, np.ones(len(pairs))),
            _add_up(pairs, trips["distance_miles"][metered]),
            _add_up(pairs, predicted[metered]),
            _take_largest(_list_largest(trips, predicted, residuals)),
        )

    def __add__(self, other: Residuals) -> Residuals:
        return Residuals(
            self.density + other.density,
            self.fan + other.fan,
            self.total + other.total,
            self.pair_trips + other.pair_trips,
            self.pair_miles + other.pair_miles,
            self.pair_minutes + other.pair_minutes,
            _take_largest([*self.largest, *other.largest]),
        )

    def describe(self) -> dict[str, Any]:
        """The mean and the quantiles of all residuals, and of each band of predicted minutes."""
        trips = int(self.fan.sum())
        return {
            "mean": self.total / trips,
            "quantiles": _find_quantiles(self.fan.sum(axis=0)),
            "by_predicted": [
                {
                    "from": band * STEP_MINUTES,
                    "to": (band + 1) * STEP_MINUTES,
                    "trips": int(counts.sum()),
                    **_find_quantiles(counts),
                }
                for band, counts in enumerate(self.fan)
                if counts.any()
            ],
        }

    def describe_density(self) -> dict[str, Any]:
        """The density as JSON has it: rows by actual, columns by predicted minutes."""
        return {"step_minutes": STEP_MINUTES, "counts": self.density.tolist()}

    def list_slowest_pairs(self) -> list[dict[str, Any]]:
        """The zone pairs whose metered trips have the most predicted minutes a mile."""
        known = (self.pair_trips >= FEWEST_PAIR_TRIPS) & (
            self.pair_miles >= SHORTEST_PAIR_MILES * self.pair_trips
        )
        pairs = np.flatnonzero(known)
        paces = self.pair_minutes[pairs] / self.pair_miles[pairs]
        slowest = np.argsort(-paces, kind="stable")[:LARGEST]
        return [
            {
                "pickup_zone": int(pair) // ZONES,
                "dropoff_zone": int(pair) % ZONES,
                "trips": int(self.pair_trips[pair]),
                "miles": float(self.pair_miles[pair] / self.pair_trips[pair]),
                "minutes_per_mile": float(pace),
            }
            for pair, pace in zip(pairs[slowest], paces[slowest], strict=True)
        ]


def _find_bands(minutes: Floats) -> Counts:
    bands: Counts = (minutes // STEP_MINUTES).clip(0, BANDS - 1).astype(np.int64)
    return bands


def _count(codes: Counts, shape: tuple[int, int]) -> Counts:
    return np.bincount(codes, minlength=shape[0] * shape[1]).reshape(shape)


def _add_up(pairs: Codes, values: Floats) -> Floats:
    # Without trips, NumPy counts in whole numbers.
    return np.bincount(pairs, values, PAIRS).astype(np.float64)


def _find_quantiles(counts: Counts) -> dict[str, float]:
    """Quantiles of counted residuals, minutes, as if those of a bin were spread evenly over it."""
    below = np.concatenate([[0], np.cumsum(counts)])
    edges = np.arange(BINS + 1) / BINS_A_MINUTE - FARTHEST_RESIDUAL
    # Where bins are empty, several edges have the same count: only the ends of such a run matter.
    used = np.concatenate([[True], np.diff(below) > 0]) | np.concatenate(
        [np.diff(below) > 0, [False]]
    )
    wanted = [below[-1] * share / 100 for share in QUANTILES]
    values = np.interp(wanted, below[used], edges[used])
    return {str(share): float(value) for share, value in zip(QUANTILES, values, strict=True)}


def _list_largest(trips: Trips, predicted: Floats, residuals: Floats) -> list[Trip]:
    sizes = np.abs(residuals)
    if len(sizes) > LARGEST:
        # All that are as large as the last one: which of them comes in is decided by the trip.
        rows = np.flatnonzero(sizes >= np.partition(sizes, -LARGEST)[-LARGEST])
    else:
        rows = np.arange(len(sizes))
    return [
        {
            "pickup": str(trips["pickup"][row].astype("datetime64[s]")),
            "pickup_zone": int(trips["pickup_zone"][row]),
            "dropoff_zone": int(trips["dropoff_zone"][row]),
            "distance_miles": float(trips["distance_miles"][row]),
            "minutes": float(trips["minutes"][row]),
            "predicted": float(predicted[row]),
        }
        for row in rows.tolist()
    ]


def _take_largest(trips: list[Trip]) -> tuple[Trip, ...]:
    return tuple(sorted(trips, key=_order)[:LARGEST])


def _order(trip: Mapping[str, Any]) -> tuple[Any, ...]:
    return -abs(trip["minutes"] - trip["predicted"]), *trip.values()
