"""Counting cleaned trips into tables, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from taxi_duration.data.clean import Trips
from taxi_duration.model.encoding import (
    DAYS,
    HOURS,
    LEVELS,
    MICROSECONDS_IN_HOUR,
    NUMBERS,
    PAIRS,
    UNMETERED,
    ZONES,
    Codes,
    Floats,
    encode_hour,
    encode_pair,
    is_metered,
)
from taxi_duration.model.features import FeatureSet
from taxi_duration.model.tables import Layout, Tables, count_codes

FIRST_LATE_DAY = 25
"""The last week of most months, counted apart, so that alpha can be chosen on it."""

BUFFER_BITS = 18
BUFFER_TRIPS = 1 << BUFFER_BITS

_DAYS = np.arange(DAYS).astype("datetime64[D]")
_IS_LATE_DAY = (_DAYS - _DAYS.astype("datetime64[M]")).astype(np.int64) >= FIRST_LATE_DAY - 1


def is_late(trips: Trips) -> npt.NDArray[np.bool_]:
    """Which trips were picked up on day `FIRST_LATE_DAY` of a month or later."""
    day = trips["pickup"].view(np.int64) // (24 * MICROSECONDS_IN_HOUR)
    late: npt.NDArray[np.bool_] = _IS_LATE_DAY[day.clip(0, DAYS - 1)]
    return late


def tabulate(trips: Iterable[Trips], features: FeatureSet) -> list[Tables]:
    """Reduce cleaned trips, given in chunks, to tables.

    Returns:
        One table, or two when the feature set leaves alpha to be chosen: of the trips picked up
        before day `FIRST_LATE_DAY` of a month, and of those from it on.
    """
    layout = Layout(features)
    counters = [_Counter(layout) for _ in range(layout.parts)]
    for chunk in trips:
        late = is_late(chunk) if layout.parts > 1 else np.zeros(1, dtype=bool)
        if late.all() or not late.any():
            counters[int(late.any())].add(chunk)
        else:
            for counter, rows in zip(counters, (~late, late), strict=True):
                counter.add({name: column[rows] for name, column in chunk.items()})
    return [counter.read() for counter in counters]


class _Counter:
    """Tables while trips are counted.

    Trips are gathered in buffers, and counted when these are full: a table is larger than the
    cache, and not to be gone through for every few trips.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        n, h = len(layout.numbers), len(layout.hour_numbers)
        self._squares = 0.0
        self._pairs = np.zeros((n, PAIRS, n + 1))
        self._pickup_hours = np.zeros((h, ZONES * HOURS, n + 1))
        self._dropoff_hours = np.zeros_like(self._pickup_hours)
        self._crossed: list[Any] = [
            sparse.csr_matrix((layout.levels, count_codes(term))) for term in layout.hour_terms
        ]
        self._gathered = 0
        self._level_codes = np.empty(BUFFER_TRIPS, dtype=np.int32)
        self._hour_codes = np.empty(BUFFER_TRIPS, dtype=np.int32)
        self._numbers = np.empty((n, BUFFER_TRIPS))
        self._products = np.empty((BUFFER_TRIPS, n + 1))

    def add(self, trips: Trips) -> None:
        count = len(trips["minutes"])
        if count > BUFFER_TRIPS:
            for start in range(0, count, BUFFER_TRIPS):
                some = slice(start, start + BUFFER_TRIPS)
                self.add({name: column[some] for name, column in trips.items()})
            return
        if self._gathered + count > BUFFER_TRIPS:
            self._count()
        rows = slice(self._gathered, self._gathered + count)
        self._gathered += count
        levels = self._level_codes[rows]
        levels[:] = encode_pair(trips)
        if self._layout.is_split:
            levels += ~is_metered(trips) * np.int32(PAIRS)
        for position, name in enumerate(self._layout.numbers):
            self._numbers[position, rows] = NUMBERS[name].measure(trips) if name else 1.0
            self._products[rows, position] = self._numbers[position, rows]
        self._products[rows, -1] = trips["minutes"]
        if self._layout.hour_terms:
            self._hour_codes[rows] = encode_hour(trips)

    def _count(self) -> None:
        """Move what was gathered into the tables."""
        rows = slice(0, self._gathered)
        self._gathered = 0
        levels, hours = self._level_codes[rows], self._hour_codes[rows]
        products = self._products[rows]
        numbers = dict(zip(self._layout.numbers, self._numbers[:, rows], strict=True))
        pairs: Codes = np.where(levels < PAIRS, levels, levels - np.int32(PAIRS))
        self._squares += float(np.square(products[:, -1]).sum())
        for table, number in zip(self._pairs, numbers.values(), strict=True):
            _add_by(table, pairs, number, products)
        if not self._layout.hour_terms:
            return
        pickups: Codes = pairs // np.int32(ZONES)
        dropoffs = pairs - pickups * np.int32(ZONES)
        for tables, zones in ((self._pickup_hours, pickups), (self._dropoff_hours, dropoffs)):
            cells = zones * np.int32(HOURS) + hours
            for table, name in zip(tables, self._layout.hour_numbers, strict=True):
                _add_by(table, cells, numbers[name], products)
        if self._layout.absorbed:
            self._cross(levels, hours, numbers)

    def _cross(self, levels: Codes, hours: Codes, numbers: dict[str | None, Floats]) -> None:
        for name in dict.fromkeys(term.level_name for term in self._layout.hour_terms):
            level = LEVELS[str(name)]
            # Sorted with the trip's number in the low bits, which is faster than an argsort; and
            # sorted at all, since most of the table would be empty.
            cells = levels.astype(np.int64) * level.size + level.codes[hours]
            packed = np.sort((cells << BUFFER_BITS) + np.arange(len(cells)))
            cells, order = packed >> BUFFER_BITS, packed & (BUFFER_TRIPS - 1)
            firsts = np.flatnonzero(np.diff(cells, prepend=-1))
            rows, columns = np.divmod(cells[firsts], level.size)
            starts = np.bincount(rows + 1, minlength=self._layout.levels + 1).cumsum()
            for position, term in enumerate(self._layout.hour_terms):
                if term.level_name != name:
                    continue
                if term.number_name is None:
                    sums = np.diff(firsts, append=len(cells)).astype(np.float64)
                else:
                    sums = np.add.reduceat(numbers[term.number_name][order], firsts)
                crossed = sparse.csr_matrix(
                    (sums, columns.astype(np.int32), starts.astype(np.int32)),
                    self._crossed[position].shape,
                )
                crossed.eliminate_zeros()
                self._crossed[position] += crossed

    def read(self) -> Tables:
        if self._gathered:
            self._count()
        # What the absorbed columns hold, in the order of the levels.
        values: Any = sparse.diags_array(
            np.repeat([1.0, UNMETERED][: len(self._layout.absorbed)], PAIRS)
        )
        return Tables(
            self._layout,
            self._squares,
            self._pairs,
            self._pickup_hours,
            self._dropoff_hours,
            tuple(values @ crossed for crossed in self._crossed),
        )


def _add_by(table: Floats, codes: Codes, weights: Floats, values: Floats) -> None:
    """Add weighted rows of `values` to the table's rows of their codes."""
    if np.count_nonzero(weights) < len(weights) / 2:
        some = np.flatnonzero(weights)
        codes, weights, values = codes[some], weights[some], values[some]
    starts = np.arange(len(codes) + 1, dtype=np.int32)
    indicator: Any = sparse.csr_matrix((weights, codes, starts), (len(codes), len(table)))
    table += indicator.T @ values
