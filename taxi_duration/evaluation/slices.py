"""Slices: the kinds of trips that a model may do better or worse on, by zone, hour and distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from taxi_duration.data.clean import Trips
from taxi_duration.data.schema import BOROUGH_OF_ZONE, BOROUGHS
from taxi_duration.model.encoding import MICROSECONDS_IN_HOUR, Codes, encode_pickup_zone, is_metered

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
