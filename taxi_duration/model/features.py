"""Feature sets: which columns the regression sees, as data; as records and as the same matrix.

A level is a categorical, a number a quantity. A feature set is a list of terms: one-hot (a level
per trip, such as the zone pair), a number (miles), or a slope (a number counted only for its level,
such as miles by pick-up zone; where the number is zero, the trip has no such feature).
`make_records` gives what `DictVectorizer` takes; `build_matrix` gives the same matrix bit for bit
without making a dictionary per trip, and tables.py the sums of its columns without the matrix.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.holiday import USFederalHolidayCalendar
from scipy import sparse

from taxi_duration.data.clean import Trips
from taxi_duration.data.zones import LAST_ZONE
from taxi_duration.errors import InputError
from taxi_duration.regression.solve import check_alpha

if TYPE_CHECKING:
    from sklearn.feature_extraction import DictVectorizer


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


ABSORBED_LEVEL = "PU_DO"
"""Its levels are too many for a square matrix; the regression eliminates them."""

SPLIT_PAIR = ("metered*PU_DO", "unmetered*PU_DO")
"""The one way to split the pair: of the two numbers, one is always zero."""


@dataclass(frozen=True)
class Term:
    """One entry of a feature set: a level (one-hot), a number, or both (a slope per level)."""

    name: str
    number_name: str | None
    level_name: str | None

    @property
    def number(self) -> Number | None:
        return NUMBERS[self.number_name] if self.number_name else None

    @property
    def level(self) -> Level | None:
        return LEVELS[self.level_name] if self.level_name else None

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(column for part in (self.number, self.level) if part for column in part.needs)

    def name_columns(self, codes: Iterable[int]) -> list[str]:
        """The names `DictVectorizer` gives the columns of these codes."""
        if self.level is None:
            return [self.name for _ in codes]
        return [f"{self.name}={self.level.label(code)}" for code in codes]


def parse_term(name: str) -> Term:
    """Read a key of `LEVELS` or `NUMBERS`, or `number*level`.

    Raises:
        InputError: a part of the name is unknown, or it is a slope for each zone pair.
    """
    number_name, star, level_name = name.partition("*")
    if not star and name in LEVELS:
        return Term(name, None, name)
    if number_name in NUMBERS and level_name == ABSORBED_LEVEL and name not in SPLIT_PAIR:
        raise InputError(
            f"term {name!r} is a slope for each zone pair, which are too many",
            f"use {number_name}*PU or {number_name}*DO",
        )
    if number_name in NUMBERS and (not star or level_name in LEVELS):
        return Term(name, number_name, level_name or None)
    raise InputError(
        f"term {name!r} is unknown", f"use {', '.join([*LEVELS, *NUMBERS])}, or number*level"
    )


@dataclass(frozen=True)
class FeatureSet:
    """A named list of terms, the penalties it may be fitted with, and its bounds.

    Args:
        name: what the user calls it.
        terms: keys of `LEVELS` or `NUMBERS`, or `number*level` for a slope per level.
        alphas: L2 penalties on the coefficients, 0 for ordinary least squares; training chooses
            among several.
        bounds: minutes between which predictions are clipped; None leaves them alone.

    Raises:
        InputError: a term is unknown or there twice, or an alpha or a bound cannot be one.
    """

    name: str
    terms: tuple[str, ...]
    alphas: tuple[float, ...] = (0.0,)
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for field in ("terms", "alphas"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for name in self.terms:
            parse_term(name)
            if self.terms.count(name) > 1:
                raise InputError(f"term {name!r} is there twice", "leave one out")
        absorbed = [name for name in self.terms if parse_term(name).level_name == ABSORBED_LEVEL]
        if absorbed not in ([], ["PU_DO"], list(SPLIT_PAIR)):
            raise InputError(
                f"terms {', '.join(absorbed)} do not go together",
                f"use PU_DO alone, or {' and '.join(SPLIT_PAIR)} in this order",
            )
        if not self.terms or not self.alphas:
            raise InputError(f"feature set {self.name!r} lacks a term or an alpha", "give one")
        for alpha in self.alphas:
            check_alpha(alpha)
        if self.bounds and not self.bounds[0] < self.bounds[1]:
            raise InputError(f"bounds {self.bounds} are none", "give the lower one first")

    @property
    def parsed(self) -> list[Term]:
        return [parse_term(name) for name in self.terms]

    @property
    def needs(self) -> list[str]:
        """The trip columns the terms are made from."""
        return list(dict.fromkeys(column for term in self.parsed for column in term.needs))


FEATURE_SETS = {
    "course": FeatureSet("course", ("PU_DO", "trip_distance")),
    "extended": FeatureSet(
        "extended",
        (
            *SPLIT_PAIR, "DO", "near*PU", "near*DO", "miles", "near", "unmetered",
            "near*day_hour", "unmetered*day_hour",
        ),
        alphas=(1.0, 3.0, 10.0),
        bounds=(1.0, 60.0),
    ),
}  # fmt: skip


def get_feature_set(name: str) -> FeatureSet:
    """Look a feature set up by name.

    Raises:
        InputError: the name is not one of `FEATURE_SETS`; the message offers the nearest one.
    """
    if name in FEATURE_SETS:
        return FEATURE_SETS[name]
    close = difflib.get_close_matches(str(name).lower(), FEATURE_SETS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"give {' or '.join(FEATURE_SETS)}"
    raise InputError(f"feature set {name!r} is unknown", hint)


def make_records(trips: Trips, features: FeatureSet) -> list[dict[str, Any]]:
    """One dictionary a trip, as `DictVectorizer` takes them.

    This is the definition the matrix and the sums are held to; it is slow, and the pipeline never
    calls it.
    """
    records: list[dict[str, Any]] = [{} for _ in range(count_trips(trips))]
    for term in features.parsed:
        values = term.number.measure(trips).tolist() if term.number else None
        labels = (
            [term.level.label(code) for code in term.level.encode(trips).tolist()]
            if term.level
            else None
        )
        for row, record in enumerate(records):
            if values is None and labels:
                record[term.name] = labels[row]
            elif values is not None and labels is None:
                record[term.name] = values[row]
            elif values is not None and labels and values[row]:
                record[f"{term.name}={labels[row]}"] = values[row]
    return records


def fit_vectorizer(names: Iterable[str]) -> DictVectorizer:
    """A `DictVectorizer` that knows these column names, in its usual sorted order."""
    # Here, and not above: scikit-learn takes a second to import, and sums do not need it.
    from sklearn.feature_extraction import DictVectorizer

    return DictVectorizer().fit([dict.fromkeys(names, 0.0)])


def build_matrix(
    trips: Trips, features: FeatureSet, vectorizer: DictVectorizer
) -> sparse.csr_matrix:
    """The matrix `vectorizer.transform(make_records(trips, features))`, without the records.

    Returns:
        CSR, one row a trip and one column a name of the vectorizer, float64, sorted indices,
        zeros of numbers stored, names the vectorizer never saw left out. Indices are int32
        where `DictVectorizer` gives int64, because some scikit-learn solvers refuse int64.
    """
    rows = count_trips(trips)
    columns = np.full((rows, len(features.terms)), -1, dtype=np.int32)
    values = np.ones((rows, len(features.terms)))
    vocabulary: dict[str, int] = vectorizer.vocabulary_
    for position, term in enumerate(features.parsed):
        if term.number:
            values[:, position] = term.number.measure(trips)
        if term.level:
            codes, inverse = np.unique(term.level.encode(trips), return_inverse=True)
            names = term.name_columns(codes.tolist())
            known = np.array([vocabulary.get(name, -1) for name in names], dtype=np.int32)
            columns[:, position] = np.where(values[:, position], known[inverse], -1)
        else:
            columns[:, position] = vocabulary.get(term.name, -1)
    seen = columns >= 0
    starts = np.concatenate([[0], np.cumsum(seen.sum(axis=1))]).astype(np.int32)
    shape = (rows, len(vocabulary))
    matrix = sparse.csr_matrix((values[seen], columns[seen], starts), shape=shape)
    matrix.sort_indices()
    return matrix
