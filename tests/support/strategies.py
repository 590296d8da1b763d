"""Hypothesis strategies for trips and feature sets, and dense regressions to compare ours with."""

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from scipy import linalg

from taxi_duration.data.clean import Trips
from taxi_duration.model.features import ABSORBED_LEVEL, NUMBERS, SPLIT_PAIR, FeatureSet

Floats = npt.NDArray[np.float64]

START = np.datetime64("2023-01-02T00:00:00", "us")
"""A Monday that is the observed New Year; the four weeks after it reach into the late days."""


@st.composite
def clean_trips(
    draw: st.DrawFn, min_size: int = 1, max_size: int = 30, *, is_bounded: bool = False
) -> Trips:
    """Trips as `clean_trips` returns them, with few zones so that pairs repeat.

    Args:
        is_bounded: distances as meters give them and drivers drive them, in hundredths of a mile.
    """
    rows = draw(st.integers(min_size, max_size))

    def column(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    zones = st.sampled_from([1, 2, 3, 41, 264, 265])
    seconds = np.array(column(st.integers(0, 4 * 7 * 86_400)), dtype="timedelta64[s]")
    metered = st.integers(0, 2000).map(lambda hundredths: hundredths / 100)
    any_miles = st.one_of(st.just(0.0), metered, st.floats(0, 300_000, width=32))
    return {
        "pickup": START + seconds.astype("timedelta64[us]"),
        "pickup_zone": np.array(column(zones), dtype=np.int64),
        "dropoff_zone": np.array(column(zones), dtype=np.int64),
        "distance_miles": np.array(column(metered if is_bounded else any_miles), dtype=np.float64),
        "minutes": np.array(column(st.integers(60, 3600)), dtype=np.float64) / 60,
    }


@st.composite
def feature_sets(draw: st.DrawFn, alphas: tuple[float, ...] = (0.0,)) -> FeatureSet:
    """Any few terms that go together, in any order."""
    levels = ["PU", "DO", "day_hour"]
    free = [*NUMBERS, *levels, *(f"{number}*{level}" for number in NUMBERS for level in levels)]
    absorbed = draw(st.sampled_from([(), ("PU_DO",), SPLIT_PAIR]))
    terms = draw(st.lists(st.sampled_from(free), min_size=not absorbed, max_size=5, unique=True))
    shuffled = draw(st.permutations([*terms, *[ABSORBED_LEVEL] * len(absorbed)]))
    in_order = iter(absorbed)
    named = [next(in_order) if term == ABSORBED_LEVEL else term for term in shuffled]
    return FeatureSet("drawn", tuple(named), alphas)


def make_trips(generator: np.random.Generator, rows: int, zones: int = 8) -> Trips:
    """Trips of four weeks with some signal in every column, and some without a distance."""
    miles = generator.gamma(2, 2, rows).round(2) * (generator.random(rows) > 0.1)
    pickup, dropoff = generator.integers(1, zones + 1, (2, rows))
    return {
        "pickup": START + generator.integers(0, 4 * 7 * 86_400, rows).astype("timedelta64[s]"),
        "pickup_zone": pickup,
        "dropoff_zone": dropoff,
        "distance_miles": miles,
        "minutes": np.clip(3 * miles + pickup + generator.normal(8, 3, rows), 1, 60),
    }


def take(trips: Trips, rows: Any) -> Trips:
    """Some trips, by index, mask or slice."""
    return {name: column[rows] for name, column in trips.items()}


def deal(trips: Trips, generator: np.random.Generator, chunks: int) -> list[Trips]:
    """The same trips shuffled, in chunks of any size, some perhaps empty."""
    order = generator.permutation(len(trips["minutes"]))
    cuts = np.sort(generator.integers(0, len(order) + 1, chunks - 1))
    return [take(trips, rows) for rows in np.split(order, cuts)]


def solve_densely(
    matrix: Floats, target: Floats, weights: Floats | None = None, alpha: float = 0.0
) -> tuple[Floats, float]:
    """Weighted least squares or ridge by the rows' singular values, the intercept free.

    Columns are scaled to one length before ranks are decided; among solutions with the same fit,
    the coefficients are the shortest.
    """
    weight = np.ones(len(target)) if weights is None else weights
    center, mean = (weight @ matrix) / weight.sum(), (weight @ target) / weight.sum()
    roots = np.sqrt(weight)
    rows, right = (matrix - center) * roots[:, None], (target - mean) * roots
    if alpha:
        rows = np.vstack([rows, np.sqrt(alpha) * np.eye(matrix.shape[1])])
        coefficients, *_ = linalg.lstsq(rows, np.append(right, np.zeros(matrix.shape[1])))
        return coefficients, float(mean - center @ coefficients)
    scale = np.sqrt(np.square(rows).sum(axis=0))
    # What centring leaves of a column that is constant is rounding.
    is_constant = scale <= 1e-12 * np.sqrt(weight @ np.square(matrix))
    scale[is_constant] = np.inf
    # All right vectors are needed, of which the shorter form has too few when rows are few.
    is_wide = rows.shape[0] < rows.shape[1]
    left, values, vectors = linalg.svd(rows / scale, full_matrices=is_wide)
    rank = np.count_nonzero(values > 1e-9)
    coefficients = vectors[:rank].T @ ((left.T @ right)[:rank] / values[:rank]) / scale
    null = (vectors[rank:] / np.where(is_constant, 1.0, scale)).T
    if null.size:
        shift, *_ = linalg.lstsq(null, coefficients)
        coefficients = coefficients - null @ shift
    return coefficients, float(mean - center @ coefficients)
