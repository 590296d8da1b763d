"""A model's residuals on a month's trips: their distribution, slices and the largest errors.

A residual is actual minus predicted minutes: positive where the trip took longer. Everything here
is counted chunk by chunk and adds up, so that memory does not grow with the number of trips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from taxi_duration.data.clean import LONGEST_MINUTES, Trips
from taxi_duration.data.zones import BOROUGH_OF_ZONE, BOROUGHS
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


class Part(BaseModel):
    """A part of a report: read-only, and dumped under the names that report.json has."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True)


class Trip(Part):
    """One trip and what was predicted for it."""

    pickup: str = Field(description="pick-up, New York time, such as 2023-01-31T08:15:00")
    pickup_zone: int = Field(description="TLC zone, 1 to 265")
    dropoff_zone: int = Field(description="TLC zone, 1 to 265")
    distance_miles: float = Field(description="miles, by the taximeter")
    minutes: float = Field(description="actual minutes")
    predicted: float = Field(description="predicted minutes")


class Quantiles(Part):
    """Quantiles of the residuals, minutes."""

    p5: float = Field(alias="5", description="minutes that 5 % of the residuals are below")
    p25: float = Field(alias="25", description="minutes that 25 % of the residuals are below")
    p50: float = Field(alias="50", description="the median, minutes")
    p75: float = Field(alias="75", description="minutes that 75 % of the residuals are below")
    p95: float = Field(alias="95", description="minutes that 95 % of the residuals are below")


class Span(Part):
    """A band of predicted minutes."""

    start: int = Field(alias="from", description="predicted minutes, from")
    end: int = Field(alias="to", description="predicted minutes, below")
    trips: int = Field(description="trips in the band")


class Band(Quantiles, Span):
    """Residuals of the trips that were predicted to take so many minutes."""


class ResidualSummary(Part):
    """The distribution of actual minus predicted minutes."""

    mean: float = Field(description="mean residual, minutes")
    quantiles: Quantiles = Field(description="of all residuals")
    by_predicted: list[Band] = Field(description="by band of predicted minutes, without empty ones")


class Density(Part):
    """Trips by actual and predicted minutes."""

    step_minutes: int = Field(description="minutes of a band")
    counts: list[list[int]] = Field(
        description="trips: a row for each band of actual minutes, a column for each of predicted"
    )


class PairPace(Part):
    """A zone pair whose metered trips are slow."""

    pickup_zone: int = Field(description="TLC zone, 1 to 265")
    dropoff_zone: int = Field(description="TLC zone, 1 to 265")
    trips: int = Field(description="metered trips")
    miles: float = Field(description="mean distance, miles")
    minutes_per_mile: float = Field(description="predicted minutes a mile")


class SliceErrors(Part):
    """Errors on a slice, which is a group of trips."""

    kind: str = Field(description="what trips differ in, such as hour")
    name: str = Field(description="the slice, such as night, 0 to 5")
    trips: int = Field(description="trips of the slice")
    rmse: float = Field(description="root mean squared error, minutes")
    mae: float = Field(description="mean absolute error, minutes")
    mean_residual: float = Field(description="mean of actual minus predicted minutes")
    champion_rmse: float | None = Field(description="the champion's RMSE, minutes, if there is one")


@dataclass(frozen=True, eq=False)
class Residuals:
    """Counts of residuals that add up; those of no trips by default.

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
        """Count the residuals of cleaned trips and the minutes predicted for them."""
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

    def summarise(self) -> ResidualSummary:
        """Return the mean and the quantiles of all residuals and of each predicted band."""
        return ResidualSummary(
            mean=self.total / int(self.fan.sum()),
            quantiles=Quantiles.model_validate(_find_quantiles(self.fan.sum(axis=0))),
            by_predicted=[
                Band.model_validate(
                    {
                        "from": band * STEP_MINUTES,
                        "to": (band + 1) * STEP_MINUTES,
                        "trips": int(counts.sum()),
                        **_find_quantiles(counts),
                    }
                )
                for band, counts in enumerate(self.fan)
                if counts.any()
            ],
        )

    def find_slowest_pairs(self) -> list[PairPace]:
        """Return the zone pairs whose metered trips have the most predicted minutes a mile."""
        known = (self.pair_trips >= FEWEST_PAIR_TRIPS) & (
            self.pair_miles >= SHORTEST_PAIR_MILES * self.pair_trips
        )
        pairs = np.flatnonzero(known)
        paces = self.pair_minutes[pairs] / self.pair_miles[pairs]
        slowest = np.argsort(-paces, kind="stable")[:LARGEST]
        return [
            PairPace(
                pickup_zone=int(pair) // ZONES,
                dropoff_zone=int(pair) % ZONES,
                trips=int(self.pair_trips[pair]),
                miles=float(self.pair_miles[pair] / self.pair_trips[pair]),
                minutes_per_mile=float(pace),
            )
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
    """Return the quantiles of counted residuals, minutes, each bin's spread evenly over it."""
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
        Trip(
            pickup=str(trips["pickup"][row].astype("datetime64[s]")),
            pickup_zone=int(trips["pickup_zone"][row]),
            dropoff_zone=int(trips["dropoff_zone"][row]),
            distance_miles=float(trips["distance_miles"][row]),
            minutes=float(trips["minutes"][row]),
            predicted=float(predicted[row]),
        )
        for row in rows.tolist()
    ]


def _take_largest(trips: list[Trip]) -> tuple[Trip, ...]:
    return tuple(sorted(trips, key=_order)[:LARGEST])


def _order(trip: Trip) -> tuple[Any, ...]:
    return -abs(trip.minutes - trip.predicted), *trip.model_dump().values()


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
    """A group of trips; the slices of one kind make up all trips."""

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
    """Return the place in `SLICES` of each trip's slice: an array of (trips,) for each kind."""
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
"""Names of the two among a month's predictors."""

BLOCKS = 1 << 14
"""Trips are dealt into so many blocks; what is drawn again and again is blocks, not trips."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2 to the 64th over the golden ratio: multiplying by it spreads keys over the high bits (Knuth,
The Art of Computer Programming, volume 3, section 6.4)."""


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """Errors of the model and the champion that add up; those of no trips by default.

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
        """Analyse cleaned trips and what `MODEL` and perhaps `CHAMPION` predict for them.

        Other predictors are ignored.
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

    def measure_slices(self) -> list[SliceErrors]:
        """Return the errors of each slice that has trips."""
        ours, theirs = self.slices[MODEL], self.slices.get(CHAMPION)
        return [
            SliceErrors(
                kind=each.kind,
                name=each.name,
                trips=int(ours.rows[place]),
                rmse=float(ours.rmse[place]),
                mae=float(ours.mae[place]),
                mean_residual=float(ours.mean_residual[place]),
                champion_rmse=float(theirs.rmse[place]) if theirs else None,
            )
            for place, each in enumerate(SLICES)
            if ours.rows[place]
        ]

    def __add__(self, other: ErrorAnalysis) -> ErrorAnalysis:
        return ErrorAnalysis(
            _add_groups(self.slices, other.slices),
            _add_groups(self.blocks, other.blocks),
            self.residuals + other.residuals,
        )


def deal_into_blocks(trips: Trips) -> Codes:
    """Return a block for each trip, found by its own values: the order of trips does not matter."""
    keys = make_keys(trips) ^ (trips["pickup"].view(np.int64) << np.int64(16))
    mixed = keys.view(np.uint64) * _MIX
    mixed ^= mixed >> np.uint64(32)
    mixed *= _MIX
    blocks: Codes = (mixed >> np.uint64(64 - (BLOCKS.bit_length() - 1))).astype(np.int32)
    return blocks


def _add_groups(
    ours: Mapping[str, GroupErrors], theirs: Mapping[str, GroupErrors]
) -> dict[str, GroupErrors]:
    both = {name: ours[name] + theirs[name] for name in ours.keys() & theirs.keys()}
    return {**ours, **theirs, **both}
