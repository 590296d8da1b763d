"""Tables of trips, and the sums of a feature set's columns that follow from them.

Every column of a feature set is a number (or one) times a level, and every level is a function
of the two zones or of the hour. So all sums of products of columns follow from a few
tables, which are counted with no matrix of the trips ever made:

    pairs           by zone pair: products of (1, numbers) with (1, numbers, minutes)
    pickup_hours    by pick-up zone and hour, dropoff_hours likewise: the same products, with the
                    numbers that the terms of the hour have
    crossed         by absorbed level and level of each term of the hour: products of both numbers

Tables of two sets of trips add up to the tables of both, and their size depends on neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from taxi_duration.data.clean import Trips
from taxi_duration.model.features import (
    ABSORBED_LEVEL,
    DAYS,
    HOURS,
    LEVELS,
    MICROSECONDS_IN_HOUR,
    NUMBERS,
    PAIRS,
    UNMETERED,
    ZONES,
    Codes,
    FeatureSet,
    Floats,
    Term,
    encode_hour,
    encode_pair,
    is_metered,
)
from taxi_duration.regression.sums import Coefficients, Sums

ONES = Term("1", None, None)
MINUTES = Term("minutes", "minutes", None)

_CELL = np.arange(ZONES * HOURS)


@dataclass(frozen=True)
class Layout:
    """Which products a feature set's tables hold, and where."""

    features: FeatureSet

    @property
    def parts(self) -> int:
        """Tables kept apart: alpha is chosen by a fit to the first, scored on the second."""
        return 2 if len(self.features.alphas) > 1 else 1

    @cached_property
    def terms(self) -> list[Term]:
        """The terms that are not absorbed, in the order of the columns: ones first, hours last."""
        terms = [term for term in self.features.parsed if term.level_name != ABSORBED_LEVEL]
        return [ONES, *sorted(terms, key=is_of_hour)]

    @cached_property
    def absorbed(self) -> list[Term]:
        """The terms of the zone pair: none, the pair, or the pair metered and unmetered."""
        return [term for term in self.features.parsed if term.level_name == ABSORBED_LEVEL]

    @property
    def is_split(self) -> bool:
        return len(self.absorbed) > 1

    @property
    def levels(self) -> int:
        """The absorbed columns, those of pairs without trips included."""
        return len(self.absorbed) * PAIRS

    @cached_property
    def numbers(self) -> list[str | None]:
        """None, which stands for 1, and the numbers of the terms."""
        names = [term.number_name for term in self.terms] + ["unmetered"] * self.is_split
        return list(dict.fromkeys(names))

    @cached_property
    def positions(self) -> dict[str | None, int]:
        """Where a number is in the last axis of the tables; minutes come last."""
        return {name: i for i, name in enumerate([*self.numbers, "minutes"])}

    @cached_property
    def hour_terms(self) -> list[Term]:
        """The terms of the hour."""
        return [term for term in self.terms if is_of_hour(term)]

    @cached_property
    def hour_numbers(self) -> list[str | None]:
        """The numbers of the terms of the hour."""
        return list(dict.fromkeys(term.number_name for term in self.hour_terms))

    def split_coefficients(self, fit: Coefficients, sums: Sums) -> dict[str, Floats]:
        """The coefficients by term and code; NaN where `sums` have no such column.

        A number without a level has one code.
        """
        levels = np.where(sums.levels > 0, fit.levels, np.nan).reshape(-1, PAIRS)
        columns = np.where(sums.gram.diagonal() > 0, fit.columns, np.nan)
        by_term = {term.name: columns[self.slices[term.name]] for term in self.terms[1:]}
        for term in self.terms[1:]:
            if term.level is None:
                by_term[term.name] = np.nan_to_num(by_term[term.name])
        for term, coefficients in zip(self.absorbed, levels, strict=True):
            by_term[term.name] = coefficients
        return {term.name: by_term[term.name] for term in self.features.parsed}

    @cached_property
    def slices(self) -> dict[str, slice]:
        """The columns of each term, those of codes without trips included."""
        ends = np.cumsum([count_codes(term) for term in self.terms]).tolist()
        starts = [0, *ends[:-1]]
        names = [term.name for term in self.terms]
        return {n: slice(a, b) for n, a, b in zip(names, starts, ends, strict=True)}


@dataclass(frozen=True)
class Tables:
    """The tables of some trips.

    Args:
        layout: what they hold; n numbers with 1 among them, of which h belong to the hour.
        minutes_squares: sum of the squared minutes.
        pairs: (n, PAIRS, n + 1); the last of the last axis is minutes.
        pickup_hours: (h, ZONES * HOURS, n + 1), the hour running faster.
        dropoff_hours: the same for drop-off zones.
        crossed: a sparse matrix, absorbed levels x codes, for each term of the hour.
    """

    layout: Layout
    minutes_squares: float
    pairs: Floats
    pickup_hours: Floats
    dropoff_hours: Floats
    crossed: tuple[sparse.csr_matrix, ...]

    def __add__(self, other: Tables) -> Tables:
        return Tables(
            self.layout,
            self.minutes_squares + other.minutes_squares,
            self.pairs + other.pairs,
            self.pickup_hours + other.pickup_hours,
            self.dropoff_hours + other.dropoff_hours,
            tuple(a + b for a, b in zip(self.crossed, other.crossed, strict=True)),
        )

    @property
    def trips(self) -> int:
        return int(self.pairs[0, :, 0].sum())

    def sum_columns(self) -> Sums:
        """The sums of the feature set's columns, as the layout has them.

        Columns of codes without trips are there, and zero.
        """
        layout = self.layout
        width = layout.slices[layout.terms[-1].name].stop
        targets, gram = np.zeros(width), np.zeros((width, width))
        for position, term in enumerate(layout.terms):
            rows = layout.slices[term.name]
            targets[rows] = self._cross_tabulate(term, MINUTES)[:, 0]
            for other in layout.terms[position:]:
                columns = layout.slices[other.name]
                block = self._cross_tabulate(term, other)
                gram[rows, columns], gram[columns, rows] = block, block.T
        parts = self._split_pairs()
        return Sums(
            target_squares=self.minutes_squares,
            targets=targets,
            gram=gram,
            levels=np.concatenate([np.empty(0), *(squares for squares, _ in parts)]),
            level_targets=np.concatenate([np.empty(0), *(sums[:, -1] for _, sums in parts)]),
            cross=self._cross_levels([sums for _, sums in parts]),
        )

    def _split_pairs(self) -> list[tuple[Floats, Floats]]:
        """Of each absorbed term: its squares (PAIRS,), and its products (PAIRS, n + 1)."""
        whole = self.pairs[0]
        if not self.layout.is_split:
            return [(whole[:, 0], whole) for _ in self.layout.absorbed]
        position = self.layout.positions["unmetered"]
        unmetered = self.pairs[position]
        metered = whole - unmetered / UNMETERED
        return [(metered[:, 0], metered), (unmetered[:, position], unmetered)]

    def _cross_tabulate(self, row: Term, column: Term) -> Floats:
        """Sums of products of two terms' columns."""
        at_row, at_column = (self.layout.positions[term.number_name] for term in (row, column))
        if not is_of_hour(row) and not is_of_hour(column):
            values = self.pairs[at_row, :, at_column]
            codes = _codes_of_pairs(row), _codes_of_pairs(column)
        elif not is_of_hour(row):
            return self._cross_tabulate(column, row).T
        else:
            is_of_dropoff = column.level is not None and column.level.side == "dropoff"
            table = self.dropoff_hours if is_of_dropoff else self.pickup_hours
            values = table[self.layout.hour_numbers.index(row.number_name), :, at_column]
            codes = _codes_in_cells(row), _codes_in_cells(column)
        height, width = count_codes(row), count_codes(column)
        cells = codes[0] * width + codes[1]
        sums: Floats = np.bincount(cells, values, height * width).astype(np.float64, copy=False)
        return sums.reshape(height, width)

    def _cross_levels(self, products: list[Floats]) -> tuple[sparse.csr_matrix, ...]:
        """Products of the absorbed terms with the columns."""
        terms = [term for term in self.layout.terms if not is_of_hour(term)]
        width = self.layout.slices[terms[-1].name].stop
        if not products:
            hours = self.layout.slices[self.layout.terms[-1].name].stop - width
            return sparse.csr_matrix((0, width)), sparse.csr_matrix((0, hours))
        of_numbers = np.concatenate(products)
        observed = np.flatnonzero(of_numbers[:, 0])
        columns = np.empty((len(observed), len(terms)), dtype=np.int32)
        sums = np.empty(columns.shape)
        for place, term in enumerate(terms):
            start = self.layout.slices[term.name].start
            columns[:, place] = start + _codes_of_pairs(term)[observed % PAIRS]
            sums[:, place] = of_numbers[observed, self.layout.positions[term.number_name]]
        starts = np.zeros(len(of_numbers) + 1, dtype=np.int32)
        starts[observed + 1] = len(terms)
        shape = (len(of_numbers), width)
        zones = sparse.csr_matrix((sums.ravel(), columns.ravel(), starts.cumsum()), shape)
        return zones, *self.crossed


def is_of_hour(term: Term) -> bool:
    """Whether a term has a level that is a function of the hour."""
    return term.level is not None and term.level.side == "hour"


def count_codes(term: Term) -> int:
    """How many columns a term has, those of codes without trips included."""
    return term.level.size if term.level else 1


@lru_cache
def _codes_of_pairs(term: Term) -> npt.NDArray[np.intp]:
    if term.level is None:
        return np.zeros(PAIRS, dtype=np.intp)
    return term.level.spread_over_pairs().astype(np.intp)


@lru_cache
def _codes_in_cells(term: Term) -> npt.NDArray[np.intp]:
    """Of the cells of the table by zone and hour."""
    if term.level is None:
        return np.zeros(ZONES * HOURS, dtype=np.intp)
    of_cell = _CELL % HOURS if term.level.side == "hour" else _CELL // HOURS
    return term.level.codes[of_cell].astype(np.intp)


FIRST_LATE_DAY = 25
"""The last week of most months, counted apart, so that alpha can be chosen on it."""

BUFFER_BITS = 18
BUFFER_TRIPS = 1 << BUFFER_BITS

_EACH_DAY = np.arange(DAYS).astype("datetime64[D]")
_IS_LATE_DAY = (_EACH_DAY - _EACH_DAY.astype("datetime64[M]")).astype(
    np.int64
) >= FIRST_LATE_DAY - 1


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
