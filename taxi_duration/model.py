"""The duration model: a feature set, a fitted pipeline and bounds, predicting from raw trips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import Pipeline

from taxi_duration.errors import InputError, ModelError
from taxi_duration.evaluation import Evaluation, score
from taxi_duration.features import (
    FeatureSet,
    build_matrix,
    columns_of,
    fit_vectorizer,
    get_feature_set,
)
from taxi_duration.month_file import read_clean_trips
from taxi_duration.regression import assemble_regression, fit_regression
from taxi_duration.trips import find_unusable, select_columns

Floats = npt.NDArray[np.float64]

ABSORBED_TERM = "PU_DO"


@dataclass(frozen=True)
class DurationModel:
    """A fitted model of a trip's minutes.

    `pipeline` is plain scikit-learn, a `DictVectorizer` and a linear regression: it predicts
    (unclipped) from `features.make_records` without this package.
    """

    features: FeatureSet
    alpha: float
    pipeline: Pipeline

    def __getstate__(self) -> dict[str, Any]:
        """The state as arrays: skops writes a kilobyte of JSON for each string of a list."""
        return {
            "features": self.features,
            "alpha": self.alpha,
            "names": np.array(self.vectorizer.feature_names_),
            "coefficients": self.regression.coef_,
            "intercept": float(self.regression.intercept_),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vectorizer = DictVectorizer()
        vectorizer.feature_names_ = state["names"].tolist()
        vectorizer.vocabulary_ = {name: i for i, name in enumerate(vectorizer.feature_names_)}
        regression = assemble_regression(state["coefficients"], state["intercept"], state["alpha"])
        pipeline = assemble_pipeline(vectorizer, regression)
        self.__dict__.update(features=state["features"], alpha=state["alpha"], pipeline=pipeline)

    @property
    def vectorizer(self) -> DictVectorizer:
        return self.pipeline.named_steps["vectorizer"]

    @property
    def regression(self) -> LinearRegression | Ridge:
        return self.pipeline.named_steps["regression"]

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
        for column, count in find_unusable(trips).sum().items():
            if count:
                raise ModelError(
                    f"{count:,} of {len(trips):,} trips have no usable {column}: "
                    "drop or fill them before predicting."
                )
        return self.predict_clean(trips)

    def predict_clean(self, trips: pd.DataFrame) -> Floats:
        """Predict minutes from trips that `clean_trips` returned."""
        return self.predict_matrix(build_matrix(trips, self.features, self.vectorizer))

    def predict_matrix(self, matrix: sparse.csr_matrix) -> Floats:
        """Predict minutes from a matrix that `build_matrix` made for this model's vectorizer."""
        # Not regression.predict, which refuses a matrix without rows.
        minutes: Floats = matrix @ self.regression.coef_ + self.regression.intercept_
        return minutes.clip(*self.features.bounds) if self.features.bounds else minutes

    def evaluate(self, path: str | Path) -> Evaluation:
        """Read and clean a month's file as for training, and score the model on it."""
        trips, _ = read_clean_trips(path)
        return score(trips["minutes"].to_numpy(), self.predict_clean(trips))


def train_model(
    paths: Sequence[str | Path],
    features: str | FeatureSet = "extended",
    alpha: float | None = None,
) -> DurationModel:
    """Train on the trips of one or more month files together.

    Args:
        paths: parquet files as the TLC publishes them.
        features: a feature set or the name of one.
        alpha: L2 penalty, 0 for ordinary least squares; the feature set's own when None.

    Raises:
        InputError: no path, an unknown feature set, or a negative or non-finite alpha.
        DataError: a file is missing, unreadable or leaves no trip.
    """
    if not paths:
        raise InputError("paths is empty: give at least one month's file.")
    if isinstance(paths, (str, Path)):
        raise InputError(f"paths is the single path {paths}: give a list of paths.")
    feature_set = get_feature_set(features) if isinstance(features, str) else features
    penalty = choose_alpha(feature_set, alpha)
    trips = pd.concat([read_clean_trips(path)[0] for path in paths], ignore_index=True)
    vectorizer = fit_vectorizer(trips, feature_set)
    return fit_model(
        trips, build_matrix(trips, feature_set, vectorizer), vectorizer, feature_set, penalty
    )


def choose_alpha(features: FeatureSet, alpha: float | None) -> float:
    """The penalty to fit with: the one given, or the feature set's own.

    Raises:
        InputError: alpha is negative, infinite or not a number.
    """
    penalty = features.alpha if alpha is None else alpha
    is_number = isinstance(penalty, Real) and not isinstance(penalty, bool)
    if not is_number or not np.isfinite(penalty) or penalty < 0:
        raise InputError(f"alpha {penalty} is not a penalty: give a finite number of at least 0.")
    return float(penalty)


def fit_model(
    trips: pd.DataFrame,
    matrix: sparse.csr_matrix,
    vectorizer: DictVectorizer,
    features: FeatureSet,
    alpha: float,
) -> DurationModel:
    """Fit the regression on a training matrix and join it to its vectorizer."""
    absorbed = columns_of(ABSORBED_TERM, vectorizer)
    regression = fit_regression(matrix, trips["minutes"].to_numpy(), alpha, absorbed)
    return DurationModel(features, alpha, assemble_pipeline(vectorizer, regression))


def assemble_pipeline(vectorizer: DictVectorizer, regression: LinearRegression | Ridge) -> Pipeline:
    """Join a fitted vectorizer and a fitted regression to a scikit-learn pipeline."""
    return Pipeline([("vectorizer", vectorizer), ("regression", regression)])
