"""Tables of trips, and the sums of a feature set's columns that follow from them.

Every column of a feature set is a number (or one) times a level, and every level is a function
of the two zones or of the hour. So all sums of products of columns follow from a few
tables, which tabulation.py counts with no matrix of the trips ever made:

    pairs           by zone pair: products of (1, numbers) with (1, numbers, minutes)
    pickup_hours    by pick-up zone and hour, dropoff_hours likewise: the same products, with the
                    numbers that the terms of the hour have
    crossed         by absorbed level and level of each term of the hour: products of both numbers

Tables of two sets of trips add up to the tables of both, and their size depends on neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from scipy import sparse

from taxi_duration.model.encoding import HOURS, PAIRS, UNMETERED, ZONES, Floats
from taxi_duration.model.features import ABSORBED_LEVEL, FeatureSet, Term
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
