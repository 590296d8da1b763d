"""What is left of trips' minutes when a model has predicted them: counts, slices, largest errors.

A residual is actual less predicted minutes: positive where the trip took longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from taxi_duration.data.clean import LONGEST_MINUTES, Trips
from taxi_duration.data.schema import BOROUGH_OF_ZONE, BOROUGHS
from taxi_duration.model.baselines import make_keys
from taxi_duration.model.features import (
    MICROSECONDS_IN_HOUR,
    PAIRS,
    ZONES,
    Codes,
    Floats,
    encode_pair,
    encode_pickup_zone,
    is_metered,
)
from taxi_duration.regression.metrics import GroupErrors

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


HOUR_BANDS = {
    "night, 0 to 5": range(6),
    "morning, 6 to 9": range(6, 10),
    "midday, 10 to 15": range(10, 16),
    "evening, 16 to 19": range(16, 20),
    "late, 20 to 23": range(20, 24),
}
"""Hours of the day in New York time, the last one included."""

UNMETERED_BAND = "unmetered"
DISTANCE_BANDS = {
    "up to 1 mile": 1.0,
    "1 to 2 miles": 2.0,
    "2 to 5 miles": 5.0,
    "5 to 10 miles": 10.0,
    "over 10 miles": np.inf,
    UNMETERED_BAND: None,
}
"""The farthest of each, itself included; a trip without a plausible distance is unmetered."""

_BAND_OF_HOUR = np.array(
    [band for band, hours in enumerate(HOUR_BANDS.values()) for _ in hours], dtype=np.int32
)
_FARTHEST = np.array([miles for miles in DISTANCE_BANDS.values() if miles is not None])


@dataclass(frozen=True)
class Slice:
    """A part of all trips, by one kind of difference; the slices of a kind make up all trips."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


SLICES = (
    *(Slice("pick-up borough", name) for name in BOROUGHS),
    *(Slice("hour", name) for name in HOUR_BANDS),
    *(Slice("distance", name) for name in DISTANCE_BANDS),
)


def find_slices(trips: Trips) -> list[Codes]:
    """The place in `SLICES` of each trip's slice, for each kind."""
    hours = trips["pickup"].view(np.int64) // MICROSECONDS_IN_HOUR % 24
    distances = np.searchsorted(_FARTHEST, trips["distance_miles"]).astype(np.int32)
    distances[~is_metered(trips)] = len(_FARTHEST)
    boroughs = BOROUGH_OF_ZONE[encode_pickup_zone(trips)]
    return [
        boroughs,
        _BAND_OF_HOUR[hours] + np.int32(len(BOROUGHS)),
        distances + np.int32(len(BOROUGHS) + len(HOUR_BANDS)),
    ]


MODEL, CHAMPION = "model", "champion"
"""What the two are called among a month's predictors."""

BLOCKS = 1 << 14
"""Trips are dealt into so many blocks; what is drawn again and again is blocks, not trips."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2 to the 64th over the golden ratio: multiplying by it spreads keys over the high bits (Knuth,
The Art of Computer Programming, volume 3, section 6.4)."""


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """Of no trips by default.

    Args:
        slices: errors by slice, of the model and of the champion if there is one.
        blocks: of both by block of trips, only if there is a champion.
        residuals: the model's.
    """

    slices: Mapping[str, GroupErrors] = field(default_factory=dict)
    blocks: Mapping[str, GroupErrors] = field(default_factory=dict)
    residuals: Residuals = field(default_factory=Residuals)

    @classmethod
    def of(cls, trips: Trips, predicted: Mapping[str, Floats]) -> ErrorAnalysis:
        """Of cleaned trips, and the minutes that `MODEL` and perhaps `CHAMPION` predict for them.

        Other predictors are passed over.
        """
        minutes = trips["minutes"]
        residuals = {
            name: minutes - predicted[name] for name in (MODEL, CHAMPION) if name in predicted
        }
        kinds = find_slices(trips)
        slices = {}
        for name, each in residuals.items():
            first, *others = [GroupErrors.of(codes, len(SLICES), each) for codes in kinds]
            slices[name] = sum(others, first)
        blocks = {}
        if CHAMPION in residuals:
            dealt = deal_into_blocks(trips)
            blocks = {name: GroupErrors.of(dealt, BLOCKS, each) for name, each in residuals.items()}
        return cls(slices, blocks, Residuals.of(trips, predicted[MODEL]))

    def __add__(self, other: ErrorAnalysis) -> ErrorAnalysis:
        return ErrorAnalysis(
            _add_groups(self.slices, other.slices),
            _add_groups(self.blocks, other.blocks),
            self.residuals + other.residuals,
        )


def deal_into_blocks(trips: Trips) -> Codes:
    """A block for each trip, by what the trip is, so that the order of trips changes nothing."""
    keys = make_keys(trips) ^ (trips["pickup"].view(np.int64) << np.int64(16))
    mixed = keys.view(np.uint64) * _MIX
    mixed ^= mixed >> np.uint64(32)
    mixed *= _MIX
    blocks: Codes = (mixed >> np.uint64(64 - (BLOCKS.bit_length() - 1))).astype(np.int32)
    return blocks


def _add_groups(
    ours: Mapping[str, GroupErrors], theirs: Mapping[str, GroupErrors]
) -> dict[str, GroupErrors]:
    return {
        name: ours[name] + theirs[name]
        if name in ours and name in theirs
        else {**ours, **theirs}[name]
        for name in {**ours, **theirs}
    }
