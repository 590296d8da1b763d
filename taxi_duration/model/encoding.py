"""What a trip is made of, in numbers: the codes of its zones and its hour, functions of its miles.

A level is a categorical, a number a quantity; features.py puts them together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.holiday import USFederalHolidayCalendar

from taxi_duration.data.clean import Trips
from taxi_duration.data.schema import LAST_ZONE

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]

ZONES = LAST_ZONE + 1
"""Zone codes: a zone's own number, and 0 for one that is not 1 to 265."""

PAIRS = ZONES * ZONES
DAY_KINDS = 2
"""A working day, and a day off: a Saturday, a Sunday or a federal holiday."""

HOURS = DAY_KINDS * 24
"""Hour codes: the hours of a working day, and then of a day off."""

CITY_MILES = 30.0
"""Where the bounded distance stops: no trip inside the city limits is longer by road."""

FARTHEST_MILES = 50.0
"""A longer distance, as one of zero, was not measured: the trip counts as unmetered."""

NEAR_MILES = 5.0
"""How fast `near` levels off; between 4 and 6 it makes no difference on green months."""

UNMETERED = 3.0
"""The value of an unmetered trip's columns, which makes their penalty a ninth of the others'."""

MICROSECONDS_IN_HOUR = 3_600_000_000


def count_trips(trips: Trips) -> int:
    """How many trips the columns hold."""
    return len(next(iter(trips.values())))


def encode_pickup_zone(trips: Trips) -> Codes:
    """The zone code of each pick-up."""
    return _encode_zone(trips["pickup_zone"])


def encode_dropoff_zone(trips: Trips) -> Codes:
    """The zone code of each drop-off."""
    return _encode_zone(trips["dropoff_zone"])


def encode_pair(trips: Trips) -> Codes:
    """`ZONES` times the code of the pick-up zone, plus that of the drop-off zone."""
    return encode_pickup_zone(trips) * np.int32(ZONES) + encode_dropoff_zone(trips)


def encode_hour(trips: Trips) -> Codes:
    """The hour code of each pick-up, in New York time, as the TLC records it."""
    hours = (trips["pickup"].view(np.int64) // MICROSECONDS_IN_HOUR).astype(np.int32)
    days = hours // 24
    # The epoch, 1970-01-01, was a Thursday.
    weekdays = (days + 3) - (days + 3) // 7 * np.int32(7)
    is_off = (weekdays >= SATURDAY) | _list_holidays()[days.clip(-1, DAYS) + 1]
    codes: Codes = is_off * np.int32(24) + (hours - days * np.int32(24))
    return codes


SATURDAY = 5
DAYS = 36_525
"""Holidays are looked up for a century from the epoch."""


@cache
def _list_holidays() -> npt.NDArray[np.bool_]:
    """Whether each day of the century is a federal holiday, with one before and one after it."""
    days = pd.DatetimeIndex(np.arange(DAYS).astype("datetime64[D]").astype("datetime64[us]"))
    holidays = USFederalHolidayCalendar().holidays(days[0], days[-1])
    return np.pad(days.isin(holidays), 1)


def _encode_zone(zones: npt.NDArray[Any]) -> Codes:
    is_zone = (zones >= 1) & (zones <= LAST_ZONE)
    return zones.astype(np.int32) if is_zone.all() else np.where(is_zone, zones, 0).astype(np.int32)


@dataclass(frozen=True)
class Level:
    """A categorical: `size` codes, the code of each trip, and the text of each code.

    `side` is what a code is a function of, a "pair" of zones, the zone of "pickup" or "dropoff"
    or the "hour" code; `codes` holds it for each pair, zone or hour.
    """

    needs: tuple[str, ...]
    side: str
    size: int
    codes: Codes
    encode: Callable[[Trips], Codes]
    label: Callable[[int], str]
    parse: Callable[[str], int]

    def spread_over_pairs(self) -> Codes:
        """The code of each zone pair, of a level that is a function of it."""
        pairs = np.arange(PAIRS)
        of_pairs = {"pair": pairs, "pickup": pairs // ZONES, "dropoff": pairs % ZONES}
        return self.codes[of_pairs[self.side]]


@dataclass(frozen=True)
class Number:
    """A quantity per trip."""

    needs: tuple[str, ...]
    measure: Callable[[Trips], Floats]


def _label_pair(code: int) -> str:
    pickup, dropoff = divmod(code, ZONES)
    return f"{pickup}_{dropoff}"


def _parse_pair(label: str) -> int:
    pickup, dropoff = label.split("_")
    return int(pickup) * ZONES + int(dropoff)


def is_metered(trips: Trips) -> npt.NDArray[np.bool_]:
    """Which trips have a distance that was measured and can be one."""
    miles = trips["distance_miles"]
    return (miles > 0) & (miles <= FARTHEST_MILES)


def _metered_miles(trips: Trips) -> Floats:
    return np.where(is_metered(trips), trips["distance_miles"], 0.0)


def _near(trips: Trips) -> Floats:
    near: Floats = 1.0 - np.exp(_metered_miles(trips) / -NEAR_MILES)
    return near


_ZONE_CODES = np.arange(ZONES, dtype=np.int32)
LEVELS = {
    "PU_DO": Level(
        ("pickup_zone", "dropoff_zone"), "pair", PAIRS, np.arange(PAIRS, dtype=np.int32),
        encode_pair, _label_pair, _parse_pair,
    ),
    "PU": Level(("pickup_zone",), "pickup", ZONES, _ZONE_CODES, encode_pickup_zone, str, int),
    "DO": Level(("dropoff_zone",), "dropoff", ZONES, _ZONE_CODES, encode_dropoff_zone, str, int),
    "day_hour": Level(
        ("pickup",), "hour", HOURS, np.arange(HOURS, dtype=np.int32), encode_hour, str, int
    ),
}  # fmt: skip
"""Day_hour is the hour of the day, plus 24 on a day off."""

NUMBERS = {
    "trip_distance": Number(("distance_miles",), lambda trips: trips["distance_miles"]),
    "miles": Number(
        ("distance_miles",), lambda trips: np.minimum(_metered_miles(trips), CITY_MILES)
    ),
    "near": Number(("distance_miles",), _near),
    "metered": Number(("distance_miles",), lambda trips: is_metered(trips).astype(np.float64)),
    "unmetered": Number(
        ("distance_miles",), lambda trips: np.where(is_metered(trips), 0.0, UNMETERED)
    ),
}
"""Miles as they are; miles, bounded, and their saturating transform, both 0 when unmetered."""
