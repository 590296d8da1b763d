"""The data contract: what a TLC file must hold, and which of its trips are kept."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxi_duration.errors import DataError, InputError
from taxi_duration.month import Month

SHORTEST_MINUTES, LONGEST_MINUTES = 1.0, 60.0
"""Trips from one minute to one hour are kept, both ends included (the course's rule)."""

LAST_ZONE = 265
"""Zones are numbered from 1 (TLC taxi zone lookup table)."""

MICROSECONDS = 60_000_000
"""In a minute; the unit of the times."""

LONG_DISTANCE_MILES = 100.0
OUTSIDE_CITY_ZONES = (264, 265)
"""Zone 264 is "Unknown", 265 "Outside of NYC" (TLC taxi zone lookup table)."""

Raw = pd.DataFrame | Mapping[str, npt.NDArray[Any]]
Trips = dict[str, npt.NDArray[Any]]
"""Columns by our names, one value a trip: lighter than a frame where trips come in chunks."""


@dataclass(frozen=True)
class Cab:
    """A cab type: the names of its raw columns and the first month whose file has zones."""

    name: str
    pickup_column: str
    dropoff_column: str
    first_month: Month
    first_month_reason: str

    @property
    def columns(self) -> dict[str, str]:
        """Our name of each required column -> the TLC's name."""
        return {
            "pickup": self.pickup_column,
            "dropoff": self.dropoff_column,
            "pickup_zone": "PULocationID",
            "dropoff_zone": "DOLocationID",
            "distance_miles": "trip_distance",
        }


CABS = {
    "green": Cab(
        name="green",
        pickup_column="lpep_pickup_datetime",
        dropoff_column="lpep_dropoff_datetime",
        first_month=Month(2013, 8),
        first_month_reason="green cabs began in August 2013",
    ),
    "yellow": Cab(
        name="yellow",
        pickup_column="tpep_pickup_datetime",
        dropoff_column="tpep_dropoff_datetime",
        first_month=Month(2011, 1),
        first_month_reason="earlier yellow files hold coordinates instead of zones",
    ),
}


def get_cab(name: str) -> Cab:
    """Look a cab type up by name.

    Raises:
        InputError: the name is not one of `CABS`; the message offers the nearest one.
    """
    if name in CABS:
        return CABS[name]
    known = " or ".join(CABS)
    if name in ("fhv", "fhvhv"):
        raise InputError(f"cab {name!r} cannot be used: its files hold no distance; give {known}.")
    close = difflib.get_close_matches(name.lower(), CABS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"give {known}."
    raise InputError(f"cab {name!r} is not a cab type; {hint}")


def check_month(cab: Cab, month: Month) -> None:
    """Refuse a month for which the TLC has no usable file of this cab type."""
    if month < cab.first_month:
        raise InputError(
            f"{cab.name} month {month} cannot be used: {cab.first_month_reason}; "
            f"give {cab.first_month} or later."
        )


def match_columns(
    available: Sequence[str], wanted: Iterable[str], cab: Cab | None = None
) -> dict[str, str]:
    """Find the raw columns that hold the wanted ones, whatever their case.

    Args:
        available: column names as a file or frame has them.
        wanted: our names, keys of `Cab.columns`.
        cab: the only cab type whose names count; any cab's when None.

    Returns:
        Raw name -> our name.

    Raises:
        DataError: a wanted column is absent, or there more than once.
    """
    cabs = [cab] if cab else list(CABS.values())
    by_lower_case: dict[str, list[str]] = {}
    for name in available:
        by_lower_case.setdefault(name.lower(), []).append(name)
    matched: dict[str, str] = {}
    for ours in wanted:
        names = list(dict.fromkeys(each.columns[ours] for each in cabs))
        found = next((by_lower_case[n.lower()] for n in names if n.lower() in by_lower_case), [])
        if len(found) > 1:
            raise DataError(f"columns {', '.join(found)} are the same column: keep one of them.")
        if not found:
            raise DataError(
                f"column {' or '.join(names)} is missing; "
                f"the columns are {', '.join(map(str, available)) or 'none'}."
            )
        matched[found[0]] = ours
    return matched


def select_columns(raw: Raw, wanted: Iterable[str]) -> Trips:
    """Take the wanted columns out of raw trips, renamed and with one type each.

    Args:
        raw: a frame, or a plain mapping of column names to arrays of one length.
        wanted: our names, keys of `Cab.columns`.

    Returns:
        An array for each of `wanted`: times as datetime64[us], miles as float64, zones as
        integers, or as float64 where a value is missing. The arrays may be those of `raw`.

    Raises:
        DataError: a column is absent or does not hold times or numbers.
    """
    matched = match_columns([str(name) for name in raw], wanted)
    columns: Trips = {}
    for raw_name, ours in matched.items():
        column = raw[raw_name]
        is_time = ours in ("pickup", "dropoff")
        try:
            columns[ours] = _read_times(column) if is_time else _read_numbers(column, ours)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"column {raw_name} holds {column.dtype}, which cannot be read as "
                f"{'times' if is_time else 'numbers'}: {error}."
            ) from error
    return columns


def _read_times(column: Any) -> npt.NDArray[np.datetime64]:
    if column.dtype == "datetime64[us]":
        return np.asarray(column)
    if pd.api.types.is_numeric_dtype(column.dtype):
        raise TypeError("numbers are not times")
    return pd.Series(column, copy=False).astype("datetime64[us]").to_numpy()


def _read_numbers(column: Any, ours: str) -> npt.NDArray[Any]:
    is_plain = isinstance(column.dtype, np.dtype)
    if is_plain and ours != "distance_miles" and np.issubdtype(column.dtype, np.integer):
        return np.asarray(column)
    if is_plain and column.dtype == np.float64:
        return np.asarray(column)
    return pd.Series(column, copy=False).astype("float64").to_numpy()


def find_unusable(trips: Trips) -> dict[str, npt.NDArray[np.bool_]]:
    """Mark the values that say nothing: missing, infinite, or a zone that is no whole number."""
    return {name: _is_unusable(name, values) for name, values in trips.items()}


def _is_unusable(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if np.issubdtype(values.dtype, np.datetime64):
        missing: npt.NDArray[np.bool_] = np.isnat(values)
        return missing
    if np.issubdtype(values.dtype, np.integer):
        negative: npt.NDArray[np.bool_] = values < 0
        return negative
    unusable: npt.NDArray[np.bool_] = ~np.isfinite(values)
    if name != "distance_miles":
        unusable |= (values < 0) | (np.floor(values) != values)
    return unusable


@dataclass(frozen=True)
class RowFunnel:
    """What became of a month's rows: read, dropped by each rule in order, kept.

    `noted` counts kept rows with a known defect; they are kept because the figures this task
    is known by keep them.
    """

    rows_read: int
    dropped: dict[str, int]
    rows_kept: int
    noted: dict[str, int]

    def __add__(self, other: RowFunnel) -> RowFunnel:
        return RowFunnel(
            self.rows_read + other.rows_read,
            {rule: count + other.dropped[rule] for rule, count in self.dropped.items()},
            self.rows_kept + other.rows_kept,
            {defect: count + other.noted[defect] for defect, count in self.noted.items()},
        )

    def check(self) -> None:
        """Refuse a month of which nothing is left.

        Raises:
            DataError: no row was kept; the message counts what was dropped, and why.
        """
        if not self.rows_kept:
            reasons = ", ".join(f"{n:,} {rule}" for rule, n in self.dropped.items() if n)
            raise DataError(
                f"no trip is left of {self.rows_read:,}: {reasons or 'the file has no rows'}."
            )


def clean_trips(raw: Raw, month: Month | None = None) -> tuple[Trips, RowFunnel]:
    """Turn one month of raw trips, or a part of one, into the trips a model may learn from.

    Args:
        raw: one row a trip, with the columns of `Cab.columns` under the TLC's names; a frame, or
            a plain mapping of column names to arrays.
        month: the month the file claims; pick-ups outside it are counted (all kept when None).

    Returns:
        The kept trips as arrays of one value a trip: pickup (datetime64[us]), pickup_zone and
        dropoff_zone (integers from 1 to 265), distance_miles and minutes (float64); and the row
        funnel, which `RowFunnel.check` refuses when nothing is left.

    Raises:
        DataError: a column is missing or of the wrong type.
    """
    trips = select_columns(raw, CABS["green"].columns)
    elapsed = trips["dropoff"].view(np.int64) - trips["pickup"].view(np.int64)
    remaining = np.ones(len(elapsed), dtype=bool)
    dropped: dict[str, int] = {}

    def drop(rule: str, *broken: npt.NDArray[np.bool_]) -> None:
        before = np.count_nonzero(remaining)
        for rows in broken:
            np.logical_and(remaining, ~rows, out=remaining)
        dropped[rule] = int(before - np.count_nonzero(remaining))

    drop("required value missing", *find_unusable(trips).values())
    zones = trips["pickup_zone"], trips["dropoff_zone"]
    drop("zone not 1 to 265", *[(zone < 1) | (zone > LAST_ZONE) for zone in zones])
    drop("drop-off not after pick-up", elapsed <= 0)
    drop("shorter than 1 minute", elapsed < SHORTEST_MINUTES * MICROSECONDS)
    drop("longer than 60 minutes", elapsed > LONGEST_MINUTES * MICROSECONDS)
    rows = np.flatnonzero(remaining)
    kept = {name: column[rows] for name, column in trips.items() if name != "dropoff"}
    for zone in ("pickup_zone", "dropoff_zone"):
        kept[zone] = kept[zone].astype(np.int64, copy=False)
    kept["minutes"] = elapsed[rows] / MICROSECONDS
    return kept, RowFunnel(len(elapsed), dropped, len(rows), _note_defects(kept, month))


def _note_defects(trips: Trips, month: Month | None) -> dict[str, int]:
    miles = trips["distance_miles"]
    farthest_zone = np.maximum(trips["pickup_zone"], trips["dropoff_zone"])
    noted = {
        "zero distance": miles == 0,
        "over 100 miles": miles > LONG_DISTANCE_MILES,
        "zone 264 or 265": farthest_zone >= min(OUTSIDE_CITY_ZONES),
    }
    if month is not None:
        start, end = (np.datetime64(day, "us") for day in (month.first_day, month.next.first_day))
        outside = (trips["pickup"] < start) | (trips["pickup"] >= end)
        noted["picked up outside the month"] = outside
    return {defect: int(np.count_nonzero(rows)) for defect, rows in noted.items()}
