"""Cab types: the columns a TLC file must hold, and their aliases."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from taxi_duration.data.month import Month
from taxi_duration.errors import DataError, InputError

EARLIEST, LATEST = (int(np.datetime64(f"{year}-01-01", "us").astype(int)) for year in (1900, 2200))
"""A time outside these, in microseconds, is none; the difference of two inside cannot overflow."""

MOST_MILES = 1e6
"""A distance beyond this is none; the sums of its squares would leave no room for other trips."""

TIME, MILES, ZONE = "time", "miles", "zone"
USUAL_TYPES = {
    TIME: ("timestamp[us]", "timestamp[ns]"),
    MILES: ("double",),
    ZONE: ("int64", "int32"),
}
"""Kind of column -> Arrow's names of the types that the TLC has used for it so far."""


@dataclass(frozen=True)
class Column:
    """A required column: the TLC's name of it, its kind, and names it has for other cab types."""

    name: str
    kind: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cab:
    """A cab type: its required columns, the others it has had, and its first month with zones.

    Args:
        required: our name -> the column.
        others: the TLC's names of the columns that no trip needs.
    """

    name: str
    required: Mapping[str, Column]
    others: tuple[str, ...]
    first_month: Month
    first_month_reason: str

    @property
    def columns(self) -> dict[str, str]:
        """Our name of each required column -> the TLC's name."""
        return {ours: column.name for ours, column in self.required.items()}

    @property
    def pickup_column(self) -> str:
        return self.columns["pickup"]


def _require(prefix: str) -> dict[str, Column]:
    return {
        # Files of for-hire vehicles have the times under their names without a prefix.
        "pickup": Column(f"{prefix}_pickup_datetime", TIME, ("pickup_datetime",)),
        "dropoff": Column(f"{prefix}_dropoff_datetime", TIME, ("dropoff_datetime",)),
        "pickup_zone": Column("PULocationID", ZONE),
        "dropoff_zone": Column("DOLocationID", ZONE),
        "distance_miles": Column("trip_distance", MILES),
    }


_OTHERS = (
    "VendorID", "RatecodeID", "store_and_fwd_flag", "passenger_count", "payment_type",
    "fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge",
    "total_amount", "congestion_surcharge", "cbd_congestion_fee",
)  # fmt: skip

CABS = {
    "green": Cab(
        name="green",
        required=_require("lpep"),
        others=(*_OTHERS, "ehail_fee", "trip_type"),
        first_month=Month(2013, 8),
        first_month_reason="green cabs began in August 2013",
    ),
    "yellow": Cab(
        name="yellow",
        required=_require("tpep"),
        others=(*_OTHERS, "airport_fee", "Airport_fee"),
        first_month=Month(2011, 1),
        first_month_reason="earlier yellow files hold coordinates instead of zones",
    ),
}
DEFAULT_CAB = "green"

UNUSABLE = {
    "fhv": "its files hold no distance",
    "fhvhv": "its columns are not in the data contract",
}
"""The TLC's other cab types, and why none of their files can be read."""

KINDS = {ours: column.kind for ours, column in CABS["green"].required.items()}
"""Our name of each required column -> its kind, the same for every cab type."""


def get_cab(name: str) -> Cab:
    """Return the cab type of that name.

    Raises:
        InputError: the name is not one of `CABS`; the message offers the nearest one.
    """
    if name in CABS:
        return CABS[name]
    known = " or ".join(CABS)
    if name in UNUSABLE:
        raise InputError(f"cab {name!r} cannot be used: {UNUSABLE[name]}", f"give {known}")
    close = difflib.get_close_matches(name.lower(), CABS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"give {known}"
    raise InputError(f"cab {name!r} is not a cab type", hint)


def check_month(cab: Cab, month: Month) -> None:
    """Refuse a month for which the TLC has no usable file of this cab type."""
    if month < cab.first_month:
        raise InputError(
            f"{cab.name} month {month} cannot be used: {cab.first_month_reason}",
            f"give {cab.first_month} or later",
        )


def match_columns(
    available: Sequence[str], wanted: Iterable[str], cab: Cab | None = None
) -> dict[str, str]:
    """Return the raw columns that hold the wanted ones, whatever their case.

    Args:
        available: column names as a file or frame has them.
        wanted: our names, keys of `Cab.required`.
        cab: the only cab type whose names count; any cab's when None.

    Returns:
        Raw name -> our name.

    Raises:
        DataError: a wanted column is missing, or there is more than one of it.
    """
    cabs = [cab] if cab else list(CABS.values())
    by_lower_case: dict[str, list[str]] = {}
    for name in available:
        by_lower_case.setdefault(name.lower(), []).append(name)
    matched: dict[str, str] = {}
    for ours in wanted:
        columns = [each.required[ours] for each in cabs]
        names = list(dict.fromkeys(column.name for column in columns))
        aliases = [alias for column in columns for alias in column.aliases]
        known = (name.lower() for name in [*names, *aliases])
        found = next((by_lower_case[name] for name in known if name in by_lower_case), [])
        if len(found) > 1:
            shown = ", ".join(map(shorten_name, found))
            raise DataError(f"columns {shown} are the same column", "keep one of them")
        if not found:
            shown = ", ".join(map(shorten_name, available[:MOST_NAMED])) or "none"
            more = ", ..." if len(available) > MOST_NAMED else ""
            raise DataError(
                f"column {' or '.join(names)} is missing", f"the columns are {shown}{more}"
            )
        matched[found[0]] = ours
    return matched


MOST_NAMED = 40
"""Columns that a message names; a file can have any number of them."""


def shorten_name(name: str) -> str:
    """Return a column's name, quoted and cut where it would spoil a message."""
    return name if name.isprintable() and len(name) <= 60 else f"{name[:60]!r}"


def describe_drift(types: Mapping[str, str], cab: Cab) -> tuple[str, ...]:
    """Return the harmless ways in which columns differ from all that the TLC has published.

    Args:
        types: name of each column -> Arrow's name of its type.

    Returns:
        Sentences, sorted, about columns that are new or go by another name, and required ones of
        another type; at most `MOST_NAMED` of them and one that counts the rest.
    """
    known = {*cab.columns.values(), *cab.others}
    by_lower_case = {name.lower(): name for name in sorted(known)}
    by_alias = {alias: each.name for each in cab.required.values() for alias in each.aliases}
    sentences = []
    for name in types.keys() - known:
        usual = by_lower_case.get(name.lower()) or by_alias.get(name.lower())
        said = f"is the new name of {usual}" if usual else "is new"
        sentences.append(f"column {shorten_name(name)} {said}.")
    for raw_name, ours in match_columns([*types], cab.required, cab).items():
        usual_types, found = USUAL_TYPES[KINDS[ours]], types[raw_name]
        if found not in usual_types:
            so_far = " or ".join(usual_types)
            sentences.append(f"column {shorten_name(raw_name)} holds {found}, so far {so_far}.")
    sentences.sort()
    if len(sentences) > MOST_NAMED:
        sentences[MOST_NAMED:] = [f"{len(sentences) - MOST_NAMED:,} more columns differ."]
    return tuple(sentences)
