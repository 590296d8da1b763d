"""Feature sets: which columns the regression sees, as data; as records and as the same matrix.

A feature set is a list of terms. A term is one-hot (a level per trip, such as the zone pair), a
number (miles), or a slope (a number counted only for its level, such as miles by pick-up zone).
`make_records` gives what `DictVectorizer` takes; `build_matrix` gives the same matrix bit for bit
without making a dictionary per trip. Prediction and training both go through here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction import DictVectorizer

from taxi_duration.errors import InputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

FAR_MILES = 30.0
"""Where the bounded distance stops: no trip inside the city limits is longer by road."""


@dataclass(frozen=True)
class Level:
    """A categorical: an integer code per trip and the text of each code."""

    needs: tuple[str, ...]
    encode: Callable[[pd.DataFrame], Integers]
    label: Callable[[int], str]


@dataclass(frozen=True)
class Number:
    """A quantity per trip."""

    needs: tuple[str, ...]
    measure: Callable[[pd.DataFrame], Floats]


def _zone(column: str) -> Level:
    return Level((column,), lambda trips: trips[column].to_numpy(np.int64), str)


def _encode_pair(trips: pd.DataFrame) -> Integers:
    pickup = trips["pickup_zone"].to_numpy(np.int64)
    codes: Integers = (pickup << 32) + trips["dropoff_zone"].to_numpy(np.int64)
    return codes


def _label_pair(code: int) -> str:
    pickup, dropoff = divmod(code, 1 << 32)
    return f"{pickup}_{dropoff}"


def _encode_hour_of_week(trips: pd.DataFrame) -> Integers:
    pickup = trips["pickup"].dt
    hours: Integers = (pickup.day_of_week * 24 + pickup.hour).to_numpy(np.int64)
    return hours


def _bounded_miles(trips: pd.DataFrame) -> Floats:
    return trips["distance_miles"].to_numpy(np.float64).clip(0.0, FAR_MILES)


LEVELS = {
    "PU_DO": Level(("pickup_zone", "dropoff_zone"), _encode_pair, _label_pair),
    "PU": _zone("pickup_zone"),
    "DO": _zone("dropoff_zone"),
    "hour_of_week": Level(("pickup",), _encode_hour_of_week, str),
}
"""Hour 0 of the week is Monday midnight to one, New York time, as the TLC records it."""

NUMBERS = {
    "trip_distance": Number(
        ("distance_miles",), lambda trips: trips["distance_miles"].to_numpy(np.float64)
    ),
    "miles": Number(("distance_miles",), _bounded_miles),
    "root_miles": Number(("distance_miles",), lambda trips: np.sqrt(_bounded_miles(trips))),
    "log_miles": Number(("distance_miles",), lambda trips: np.log1p(_bounded_miles(trips))),
    "is_unmetered": Number(
        ("distance_miles",),
        lambda trips: (trips["distance_miles"].to_numpy(np.float64) <= 0.0).astype(np.float64),
    ),
}
"""Miles, and bounded miles under their transforms; `is_unmetered` is 1 where miles are 0."""


@dataclass(frozen=True)
class Term:
    """One entry of a feature set: a level (one-hot), a number, or both (a slope per level)."""

    name: str
    number: Number | None
    level: Level | None

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(column for part in (self.number, self.level) if part for column in part.needs)


def parse_term(name: str) -> Term:
    """Read a key of `LEVELS` or `NUMBERS`, or `number*level`.

    Raises:
        InputError: a part of the name is unknown.
    """
    number_name, star, level_name = name.partition("*")
    if not star and name in LEVELS:
        return Term(name, None, LEVELS[name])
    if number_name in NUMBERS and (not star or level_name in LEVELS):
        return Term(name, NUMBERS[number_name], LEVELS[level_name] if star else None)
    raise InputError(
        f"term {name!r} is unknown: use {', '.join([*LEVELS, *NUMBERS])}, or number*level."
    )


@dataclass(frozen=True)
class FeatureSet:
    """A named list of terms, the penalty it is fitted with by default, and its bounds.

    Args:
        name: what the user calls it.
        terms: keys of `LEVELS` or `NUMBERS`, or `number*level` for a slope per level.
        alpha: default L2 penalty on the coefficients; 0 is ordinary least squares.
        bounds: minutes between which predictions are clipped; None leaves them alone.

    Raises:
        InputError: a term is unknown.
    """

    name: str
    terms: tuple[str, ...]
    alpha: float = 0.0
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in self.terms:
            parse_term(name)

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
            "PU_DO", "PU", "DO", "hour_of_week", "miles", "root_miles", "log_miles",
            "is_unmetered", "miles*PU", "miles*DO", "log_miles*PU", "log_miles*DO",
        ),
        alpha=3.0,
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
    hint = f"did you mean {close[0]!r}?" if close else f"give {' or '.join(FEATURE_SETS)}."
    raise InputError(f"feature set {name!r} is unknown; {hint}")


def make_records(trips: pd.DataFrame, features: FeatureSet) -> list[dict[str, Any]]:
    """One dictionary a trip, as `DictVectorizer` takes them.

    This is the definition the matrix is held to; it is slow, and the pipeline never calls it.
    """
    records: list[dict[str, Any]] = [{} for _ in range(len(trips))]
    for term in features.parsed:
        values = term.number.measure(trips).tolist() if term.number else None
        labels = (
            [term.level.label(code) for code in term.level.encode(trips).tolist()]
            if (term.level)
            else None
        )
        for row, record in enumerate(records):
            if values is None and labels is not None:
                record[term.name] = labels[row]
            elif values is not None:
                key = term.name if labels is None else f"{term.name}={labels[row]}"
                record[key] = values[row]
    return records


def fit_vectorizer(trips: pd.DataFrame, features: FeatureSet) -> DictVectorizer:
    """A `DictVectorizer` that knows the names observed in `trips`, in its usual sorted order."""
    observed: list[dict[str, Any]] = []
    for term in features.parsed:
        if term.level is None:
            observed.append({term.name: 0.0})
            continue
        labels = [term.level.label(code) for code in np.unique(term.level.encode(trips)).tolist()]
        observed += [
            {f"{term.name}={label}": 0.0} if term.number else {term.name: label} for label in labels
        ]
    return DictVectorizer().fit(observed)


def build_matrix(
    trips: pd.DataFrame, features: FeatureSet, vectorizer: DictVectorizer
) -> sparse.csr_matrix:
    """The matrix `vectorizer.transform(make_records(trips, features))`, without the records.

    Returns:
        CSR, one row a trip and one column a name of the vectorizer, float64, sorted indices,
        zeros of numbers stored, names the vectorizer never saw left out. Indices are int32
        where `DictVectorizer` gives int64, because some scikit-learn solvers refuse int64.
    """
    rows = len(trips)
    columns = np.full((rows, len(features.terms)), -1, dtype=np.int32)
    values = np.ones((rows, len(features.terms)))
    vocabulary: dict[str, int] = vectorizer.vocabulary_
    for position, term in enumerate(features.parsed):
        if term.number:
            values[:, position] = term.number.measure(trips)
        if term.level:
            codes, inverse = np.unique(term.level.encode(trips), return_inverse=True)
            names = (f"{term.name}={term.level.label(code)}" for code in codes.tolist())
            known = np.array([vocabulary.get(name, -1) for name in names], dtype=np.int32)
            columns[:, position] = known[inverse]
        else:
            columns[:, position] = vocabulary.get(term.name, -1)
    seen = columns >= 0
    starts = np.concatenate([[0], np.cumsum(seen.sum(axis=1))]).astype(np.int32)
    shape = (rows, len(vocabulary))
    matrix = sparse.csr_matrix((values[seen], columns[seen], starts), shape=shape)
    matrix.sort_indices()
    return matrix


def columns_of(term: str, vectorizer: DictVectorizer) -> npt.NDArray[np.bool_]:
    """Which columns of the matrix hold the levels of a one-hot term."""
    return np.array([name.startswith(f"{term}=") for name in vectorizer.feature_names_], bool)
