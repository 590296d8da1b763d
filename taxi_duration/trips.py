"""The data contract: what a TLC file must hold, and which of its trips are kept."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from taxi_duration.errors import DataError, InputError
from taxi_duration.month import Month

SHORTEST_MINUTES, LONGEST_MINUTES = 1.0, 60.0
"""Trips from one minute to one hour are kept, both ends included (the course's rule)."""

LARGEST_ZONE = 2**31 - 1
"""What the TLC's int32 columns can hold; its zones are 1 to 265."""

LONG_DISTANCE_MILES = 100.0
OUTSIDE_CITY_ZONES = (264, 265)
"""Zone 264 is "Unknown", 265 "Outside of NYC" (TLC taxi zone lookup table)."""


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


def select_columns(raw: pd.DataFrame, wanted: Iterable[str]) -> pd.DataFrame:
    """Take the wanted columns out of raw trips, renamed and with one type each.

    Returns:
        A frame of `wanted`, same index: times as datetime64[us], zones and miles as float64
        (a missing zone is NaN until `clean_trips` drops its row).

    Raises:
        DataError: a column is absent or does not hold times or numbers.
    """
    matched = match_columns([str(name) for name in raw.columns], wanted)
    columns: dict[str, pd.Series] = {}
    for raw_name, ours in matched.items():
        column = raw[raw_name]
        is_time = ours in ("pickup", "dropoff")
        try:
            if is_time and pd.api.types.is_numeric_dtype(column):
                raise TypeError("numbers are not times")
            columns[ours] = column.astype("datetime64[us]" if is_time else "float64")
        except (TypeError, ValueError) as error:
            raise DataError(
                f"column {raw_name} holds {column.dtype}, which cannot be read as "
                f"{'times' if is_time else 'numbers'}: {error}."
            ) from error
    return pd.DataFrame(columns)


def find_unusable(trips: pd.DataFrame) -> pd.DataFrame:
    """Mark the values that say nothing: missing, infinite, or a zone that is no whole number."""
    unusable = trips.isna()
    for column in trips.columns:
        if column in ("pickup_zone", "dropoff_zone"):
            is_whole = trips[column] % 1 == 0
            unusable[column] |= ~(is_whole & trips[column].between(0, LARGEST_ZONE))
        elif column == "distance_miles":
            unusable[column] |= ~np.isfinite(trips[column])
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


def clean_trips(raw: pd.DataFrame, month: Month | None = None) -> tuple[pd.DataFrame, RowFunnel]:
    """Turn one month of raw trips into the trips a model may learn from.

    Args:
        raw: one row a trip, with the columns of `Cab.columns` under the TLC's names.
        month: the month the file claims; pick-ups outside it are counted (all kept when None).

    Returns:
        The kept trips, one row each, with columns pickup (datetime64[us]), pickup_zone and
        dropoff_zone (int64), distance_miles and minutes (float64); and the row funnel.

    Raises:
        DataError: a column is missing or of the wrong type, or no trip is left.
    """
    trips = select_columns(raw, next(iter(CABS.values())).columns)
    minutes = (trips["dropoff"] - trips["pickup"]).dt.total_seconds() / 60
    rules = {
        "required value missing": find_unusable(trips).any(axis=1),
        "drop-off not after pick-up": minutes <= 0,
        "shorter than 1 minute": minutes < SHORTEST_MINUTES,
        "longer than 60 minutes": minutes > LONGEST_MINUTES,
    }
    remaining = np.ones(len(trips), dtype=bool)
    dropped: dict[str, int] = {}
    for rule, broken in rules.items():
        dropped[rule] = int((remaining & broken).sum())
        remaining &= ~broken.to_numpy()
    if not remaining.any():
        counts = ", ".join(f"{count:,} {rule}" for rule, count in dropped.items() if count)
        raise DataError(f"no trip is left of {len(trips):,}: {counts or 'the file has no rows'}.")
    kept = trips[remaining].drop(columns="dropoff").reset_index(drop=True)
    kept[["pickup_zone", "dropoff_zone"]] = kept[["pickup_zone", "dropoff_zone"]].astype("int64")
    kept["minutes"] = minutes[remaining].to_numpy()
    return kept, RowFunnel(len(trips), dropped, len(kept), _note_defects(kept, month))


def _note_defects(trips: pd.DataFrame, month: Month | None) -> dict[str, int]:
    defects = {
        "zero distance": trips["distance_miles"] == 0,
        "over 100 miles": trips["distance_miles"] > LONG_DISTANCE_MILES,
        "zone 264 or 265": trips[["pickup_zone", "dropoff_zone"]]
        .isin(OUTSIDE_CITY_ZONES)
        .any(axis=1),
    }
    noted = {defect: int(rows.sum()) for defect, rows in defects.items()}
    if month is not None:
        start, end = pd.Timestamp(month.first_day), pd.Timestamp(month.next.first_day)
        inside = (trips["pickup"] >= start) & (trips["pickup"] < end)
        noted["picked up outside the month"] = int((~inside).sum())
    return noted
