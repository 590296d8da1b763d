"""Cleaning rules: which trips are kept, and how many rows each rule drops or may break."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxi_duration.data.month import Month
from taxi_duration.data.schema import (
    EARLIEST,
    KINDS,
    LATEST,
    MOST_MILES,
    TIME,
    ZONE,
    match_columns,
)
from taxi_duration.data.zones import FIRST_ZONE, LAST_ZONE
from taxi_duration.errors import DataError
from taxi_duration.settings import Thresholds, name_variable

OUTSIDE_MONTH = "picked up outside the month"
ENDS_TOO_SOON = "drop-off not after pick-up"
OUTSIDE_HOUR = "not within 1 to 60 minutes"
ZONE_MISSING = "zone missing"
NO_SUCH_ZONE = "zone not 1 to 265"

ANOTHER_MONTH = "choose another month, or fetch it again"

LIMITS = {
    OUTSIDE_MONTH: "most_outside_month",
    ENDS_TOO_SOON: "most_negative_durations",
    OUTSIDE_HOUR: "fewest_within_hour",
    ZONE_MISSING: "most_null_zones",
    NO_SUCH_ZONE: "most_zones_out_of_range",
}
"""Rule of the data contract -> the threshold that says how many rows may break it."""


def find_limit(rule: str, thresholds: Thresholds) -> float:
    """The share of a month's rows that may break a rule.

    >>> find_limit("not within 1 to 60 minutes", Thresholds())
    0.15
    """
    share: float = getattr(thresholds, LIMITS[rule])
    # Rounded, or 1 - 0.9 would be less than 10 of 100 rows.
    return round(1 - share, 12) if LIMITS[rule].startswith("fewest") else share


@dataclass(frozen=True)
class RowFunnel:
    """What became of a month's rows: read, dropped by each rule in order, kept.

    `noted` counts kept rows with a known defect; they are kept because the figures this task
    is known by keep them. `broken` counts all rows that break a rule of the data contract, each
    rule by itself, so a row may count under several.
    """

    rows_read: int
    dropped: dict[str, int]
    rows_kept: int
    noted: dict[str, int]
    broken: dict[str, int]

    def __add__(self, other: RowFunnel) -> RowFunnel:
        return RowFunnel(
            self.rows_read + other.rows_read,
            _add_counts(self.dropped, other.dropped),
            self.rows_kept + other.rows_kept,
            _add_counts(self.noted, other.noted),
            _add_counts(self.broken, other.broken),
        )

    def __str__(self) -> str:
        counts = {**self.dropped, **{f"{defect} (kept)": n for defect, n in self.noted.items()}}
        return f"kept {self.rows_kept:,} of {self.rows_read:,} trips; " + ", ".join(
            f"{count:,} {name}" for name, count in counts.items()
        )

    def check(self, thresholds: Thresholds | None = None) -> None:
        """Refuse a month of which nothing is left, or too much breaks the data contract.

        Args:
            thresholds: the contract's; None refuses only a month of which nothing is left.

        Raises:
            DataError: the message counts what was dropped, and why; or names every rule that
                too many rows break.
        """
        if not self.rows_kept:
            reasons = ", ".join(f"{n:,} {rule}" for rule, n in self.dropped.items() if n)
            raise DataError(
                f"no trip is left of {self.rows_read:,}: {reasons or 'the file has no rows'}",
                ANOTHER_MONTH,
            )
        if thresholds is None:
            return
        too_many = []
        for rule, count in self.broken.items():
            share, limit = count / self.rows_read, find_limit(rule, thresholds)
            variable = name_variable(Thresholds, LIMITS[rule])
            if share > limit:
                too_many.append(
                    f"{rule}: {count:,} of {self.rows_read:,} rows ({share:.2%}, where {variable} "
                    f"allows {100 * limit:.4g}%)"
                )
        if too_many:
            raise DataError(
                f"the data contract is broken, {'; '.join(too_many)}",
                f"{ANOTHER_MONTH}; if trips were like this, change the limit",
            )


def _add_counts(ours: Mapping[str, int], theirs: Mapping[str, int]) -> dict[str, int]:
    return {name: count + theirs[name] for name, count in ours.items()}


def check_row_count(rows: int, earlier_rows: Sequence[int], thresholds: Thresholds) -> None:
    """Refuse a month with far fewer or more rows than the earlier months that are known.

    Raises:
        DataError: its rows are too few or too many beside the median of theirs.
    """
    if not earlier_rows:
        return
    usual = median(earlier_rows)
    for field, is_broken, limit, word in (
        ("fewest_rows", rows < thresholds.fewest_rows * usual, thresholds.fewest_rows, "under"),
        ("most_rows", rows > thresholds.most_rows * usual, thresholds.most_rows, "over"),
    ):
        if is_broken:
            raise DataError(
                f"{rows:,} rows are {word} {limit:g} times {usual:,.0f}, the median of the "
                f"{len(earlier_rows)} earlier months that are here",
                "fetch it again; if there were so many trips, change "
                f"{name_variable(Thresholds, field)}",
            )


SHORTEST_MINUTES, LONGEST_MINUTES = 1.0, 60.0
"""Trips from one minute to one hour are kept, both ends included (the course's rule)."""

MICROSECONDS_A_MINUTE = 60_000_000
"""A microsecond is the unit of the times."""

NO_DURATION = np.iinfo(np.int64).max
"""Of a trip that lacks a time: not within any limit."""

LONG_DISTANCE_MILES = 100.0
OUTSIDE_CITY_ZONES = (264, 265)
"""Zone 264 is "Unknown", 265 "Outside of NYC" (TLC taxi zone lookup table)."""

Raw = pd.DataFrame | Mapping[str, npt.NDArray[Any]]
Rows = npt.NDArray[np.bool_]
Trips = dict[str, npt.NDArray[Any]]
"""Columns by our names, one value a trip: lighter than a frame where trips come in chunks."""


def select_columns(raw: Raw, wanted: Iterable[str]) -> Trips:
    """Take the wanted columns out of raw trips, renamed and with one type each.

    Args:
        raw: a frame, or a plain mapping of column names to arrays of one length.
        wanted: our names, keys of `Cab.required`.

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
        is_time = KINDS[ours] == TIME
        try:
            columns[ours] = _read_times(column) if is_time else _read_numbers(column, ours)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"column {raw_name} holds {column.dtype}, which cannot be read as "
                f"{'times' if is_time else 'numbers'}: {str(error).rstrip('.')}",
                f"give {'times' if is_time else 'numbers'}",
            ) from error
    return columns


def _read_times(column: Any) -> npt.NDArray[np.datetime64]:
    if column.dtype == "datetime64[us]":
        return np.asarray(column)
    # Among objects too, which pandas would take for nanoseconds or microseconds.
    has_number = column.dtype == object and any(
        isinstance(each, Real) and each == each for each in column
    )
    if has_number or pd.api.types.is_numeric_dtype(column.dtype):
        raise TypeError("numbers are not times")
    times = pd.Series(column, copy=False)
    try:
        return times.astype("datetime64[us]").to_numpy()
    except (TypeError, ValueError) as error:
        try:
            times.astype("datetime64[us, UTC]")
        except (TypeError, ValueError):
            raise error from None
        raise TypeError(
            "the TLC's have no time zone; convert them to New York's time and drop the zone"
        ) from error


def _read_numbers(column: Any, ours: str) -> npt.NDArray[Any]:
    has_boolean = column.dtype == object and any(
        isinstance(each, bool | np.bool_) for each in column
    )
    if has_boolean or pd.api.types.is_bool_dtype(column.dtype):
        raise TypeError("booleans are not numbers")
    is_plain = isinstance(column.dtype, np.dtype)
    if is_plain and KINDS[ours] == ZONE and np.issubdtype(column.dtype, np.integer):
        return np.asarray(column)
    if is_plain and column.dtype == np.float64:
        return np.asarray(column)
    return pd.Series(column, copy=False).astype("float64").to_numpy()


def find_unusable(trips: Trips) -> dict[str, Rows]:
    """Mark the values that say nothing: missing, too large, or a zone that is no whole number."""
    return {name: _is_unusable(name, values) for name, values in trips.items()}


def _is_unusable(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if np.issubdtype(values.dtype, np.datetime64):
        missing: npt.NDArray[np.bool_] = np.isnat(values)
        return missing
    if np.issubdtype(values.dtype, np.integer):
        negative: npt.NDArray[np.bool_] = values < 0
        return negative
    if name == "distance_miles":
        too_far: npt.NDArray[np.bool_] = ~(np.abs(values) <= MOST_MILES)
        return too_far
    unusable: npt.NDArray[np.bool_] = ~np.isfinite(values)
    unusable |= (values < 0) | (np.floor(values) != values)
    return unusable


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
    trips = select_columns(raw, KINDS)
    pickup, dropoff = trips["pickup"].view(np.int64), trips["dropoff"].view(np.int64)
    zone_missing, no_such_zone = _find_bad_zones(trips["pickup_zone"], trips["dropoff_zone"])
    no_time = (np.minimum(pickup, dropoff) < EARLIEST) | (np.maximum(pickup, dropoff) > LATEST)
    elapsed = dropoff - pickup
    elapsed[no_time] = NO_DURATION
    rules = {
        ZONE_MISSING: zone_missing,
        "time or distance missing": no_time | ~(np.abs(trips["distance_miles"]) <= MOST_MILES),
        NO_SUCH_ZONE: no_such_zone,
        ENDS_TOO_SOON: elapsed <= 0,
        "shorter than 1 minute": elapsed < int(SHORTEST_MINUTES * MICROSECONDS_A_MINUTE),
        "longer than 60 minutes": elapsed > int(LONGEST_MINUTES * MICROSECONDS_A_MINUTE),
    }
    remaining, left = np.ones(len(elapsed), dtype=bool), len(elapsed)
    dropped: dict[str, int] = {}
    for rule, rows in rules.items():
        remaining &= ~rows
        before, left = left, int(np.count_nonzero(remaining))
        dropped[rule] = before - left
    breaking = {rule: rules[rule] for rule in (ENDS_TOO_SOON, ZONE_MISSING, NO_SUCH_ZONE)}
    breaking[OUTSIDE_HOUR] = rules["shorter than 1 minute"] | rules["longer than 60 minutes"]
    if month is not None:
        start, end = (np.datetime64(day, "us") for day in (month.first_day, month.next.first_day))
        breaking[OUTSIDE_MONTH] = (trips["pickup"] < start) | (trips["pickup"] >= end)
    kept_rows = np.flatnonzero(remaining)
    kept = {name: column[kept_rows] for name, column in trips.items() if name != "dropoff"}
    for zone in ("pickup_zone", "dropoff_zone"):
        kept[zone] = kept[zone].astype(np.int64, copy=False)
    kept["minutes"] = elapsed[kept_rows] / MICROSECONDS_A_MINUTE
    noted = _note_defects(kept)
    if month is not None:
        noted[OUTSIDE_MONTH] = breaking[OUTSIDE_MONTH][kept_rows]
    return kept, RowFunnel(
        len(elapsed), dropped, len(kept_rows), _count_rows(noted), _count_rows(breaking)
    )


def _find_bad_zones(*columns: npt.NDArray[Any]) -> tuple[Rows, Rows]:
    """Which rows lack a zone, and which have one that is none."""
    missing = np.zeros(len(columns[0]), dtype=bool)
    wrong = missing
    for zones in columns:
        good = (zones >= FIRST_ZONE) & (zones <= LAST_ZONE)
        if np.issubdtype(zones.dtype, np.floating):
            is_null = np.isnan(zones)
            missing = missing | is_null
            good &= np.floor(zones) == zones
            good |= is_null
        wrong = wrong | ~good
    return missing, wrong


def _note_defects(trips: Trips) -> dict[str, Rows]:
    miles = trips["distance_miles"]
    farthest_zone = np.maximum(trips["pickup_zone"], trips["dropoff_zone"])
    return {
        "zero distance": miles == 0,
        "over 100 miles": miles > LONG_DISTANCE_MILES,
        "zone 264 or 265": farthest_zone >= min(OUTSIDE_CITY_ZONES),
    }


def _count_rows(rows: Mapping[str, Rows]) -> dict[str, int]:
    return {name: int(np.count_nonzero(each)) for name, each in rows.items()}
