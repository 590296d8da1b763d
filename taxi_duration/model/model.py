"""The duration model: a feature set and its coefficients, predicting minutes from raw trips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from taxi_duration.data.clean import Trips, find_unusable, select_columns
from taxi_duration.data.parquet import reduce_trips
from taxi_duration.errors import ModelError
from taxi_duration.model.features import (
    NUMBERS,
    FeatureSet,
    Floats,
    count_trips,
    encode_hour,
    encode_pair,
    fit_vectorizer,
    parse_term,
)
from taxi_duration.regression.metrics import Errors, Evaluation

if TYPE_CHECKING:
    from sklearn.linear_model import LinearRegression, Ridge
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True, eq=False)
class DurationModel:
    """A fitted model of a trip's minutes.

    Args:
        features: its columns and bounds.
        alpha: the penalty it was fitted with.
        intercept: minutes.
        coefficients: by term, an array by code of its level, NaN for codes that training did not
            see; a number without a level has one code.
    """

    features: FeatureSet
    alpha: float
    intercept: float
    coefficients: dict[str, Floats]

    def __getstate__(self) -> dict[str, Any]:
        """The state without what follows from it."""
        names = ("features", "alpha", "intercept", "coefficients")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @classmethod
    def from_pipeline(cls, features: FeatureSet, alpha: float, pipeline: Pipeline) -> DurationModel:
        """The model of which `pipeline` was made."""
        regression = pipeline.named_steps["regression"]
        coefficients = {
            term.name: np.full(term.level.size, np.nan) if term.level else np.zeros(1)
            for term in features.parsed
        }
        names = pipeline.named_steps["vectorizer"].feature_names_
        for name, coefficient in zip(names, regression.coef_, strict=True):
            term_name, _, label = name.partition("=")
            level = parse_term(term_name).level
            coefficients[term_name][level.parse(label) if level else 0] = coefficient
        return cls(features, alpha, float(regression.intercept_), coefficients)

    @cached_property
    def pipeline(self) -> Pipeline:
        """Plain scikit-learn, a `DictVectorizer` and a linear regression.

        It predicts (unclipped), without this package, from records such as `make_records` makes.
        """
        from sklearn.pipeline import Pipeline

        from taxi_duration.regression.estimator import assemble_regression

        by_name: dict[str, float] = {}
        for term in self.features.parsed:
            coefficients = self.coefficients[term.name]
            codes = np.flatnonzero(~np.isnan(coefficients))
            names = term.name_columns(codes.tolist())
            by_name.update(zip(names, coefficients[codes].tolist(), strict=True))
        vectorizer = fit_vectorizer(by_name)
        sorted_coefficients = np.array([by_name[name] for name in vectorizer.feature_names_])
        regression = assemble_regression(sorted_coefficients, self.intercept, self.alpha)
        return Pipeline([("vectorizer", vectorizer), ("regression", regression)])

    @property
    def regression(self) -> LinearRegression | Ridge:
        return self.pipeline.named_steps["regression"]

    @property
    def columns(self) -> int:
        """How many coefficients there are beside the intercept."""
        return sum(int(np.count_nonzero(~np.isnan(c))) for c in self.coefficients.values())

    def predict(self, raw: pd.DataFrame) -> Floats:
        """Predict minutes from raw trips.

        Args:
            raw: one row a trip with the TLC's columns: PULocationID, DOLocationID,
                trip_distance (miles) and, where the feature set needs it, lpep_pickup_datetime
                or tpep_pickup_datetime. Other columns are ignored, the drop-off among them.

        Returns:
            Minutes, one a row, clipped to the feature set's bounds.

        Raises:
            DataError: a column is missing or of the wrong type.
            ModelError: a needed value is missing or cannot be one.
        """
        trips = select_columns(raw, self.features.needs)
        for column, unusable in find_unusable(trips).items():
            if unusable.any():
                raise ModelError(
                    f"{np.count_nonzero(unusable):,} of {len(unusable):,} trips have no usable "
                    f"{column}",
                    "drop or fill them before predicting",
                )
        return self.predict_clean(trips)

    def predict_clean(self, trips: Trips) -> Floats:
        """Predict minutes from trips that `clean_trips` returned."""
        minutes = np.full(count_trips(trips), self.intercept)
        zones = {"pickup_zone", "dropoff_zone"} & {*self.features.needs}
        # A zone that no term needs may be absent; any will do for it.
        unneeded = dict.fromkeys({"pickup_zone", "dropoff_zone"} - zones, np.zeros(len(minutes)))
        pairs = encode_pair(trips | unneeded) if zones else None
        hours = encode_hour(trips) if "pickup" in self.features.needs else None
        for name, of_pair, of_hour, constant in self._rates:
            rates: Any = constant
            for table, codes in ((of_pair, pairs), (of_hour, hours)):
                if table is not None:
                    rates = rates + table[codes]
            minutes += rates * NUMBERS[name].measure(trips) if name else rates
        return minutes.clip(*self.features.bounds) if self.features.bounds else minutes

    @cached_property
    def _rates(self) -> list[tuple[str | None, Floats | None, Floats | None, float]]:
        """Of each number, its coefficients added up by zone pair and by hour; None where none.

        A trip's minutes are looked up in these faster than term by term.
        """
        rates: dict[str | None, tuple[Floats | None, Floats | None, float]] = {}
        for term in self.features.parsed:
            of_pair, of_hour, constant = rates.get(term.number_name, (None, None, 0.0))
            coefficients = np.nan_to_num(self.coefficients[term.name])
            if term.level is None:
                constant = constant + float(coefficients[0])
            elif term.level.side == "hour":
                of_hour = coefficients[term.level.codes] + (0.0 if of_hour is None else of_hour)
            else:
                codes = term.level.spread_over_pairs()
                of_pair = coefficients[codes] + (0.0 if of_pair is None else of_pair)
            rates[term.number_name] = of_pair, of_hour, constant
        return [(name, *each) for name, each in rates.items()]

    def evaluate(self, path: str | Path) -> Evaluation:
        """Return the errors of predictions for a month's file, cleaned as for training.

        Raises:
            DataError: as `reduce_trips`.
        """

        def add_errors(chunks: Iterator[Trips]) -> Errors:
            each = (Errors.of(trips["minutes"], self.predict_clean(trips)) for trips in chunks)
            return sum(each, Errors())

        lanes, _ = reduce_trips(path, add_errors)
        return sum(lanes, Errors()).evaluation
