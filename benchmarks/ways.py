"""The ways from files on disk to a validation RMSE in minutes: ours, and those it is held against.

Each takes the training months' files and the validation month's. Libraries are imported where
they run: a process that measures one way must not hold another's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa
    from scipy import sparse

    Floats = npt.NDArray[np.float64]

Way = Callable[[Sequence[Path], Path], float]

COURSE_COLUMNS = ["PU_DO", "trip_distance"]
CONVERGED_TOLERANCE = 1e-12
"""As it comes, at 1e-6, scikit-learn stops its iterations before the least-squares answer."""

COURSE_XGBOOST = {
    "learning_rate": 0.09585355369315604,
    "max_depth": 30,
    "min_child_weight": 1.060597638182165,
    "objective": "reg:squarederror",
    "reg_alpha": 0.018060244040060163,
    "reg_lambda": 0.011658731377413597,
    "seed": 42,
}
COURSE_XGBOOST_ROUNDS, BOOSTING_ROUNDS = 100, 300
HURRY_VARIABLE, HURRIED_ROUNDS = "TAXI_DURATION_BENCHMARKS_HURRY", 3
"""Set where figures mean nothing; boosting, most of whose time is its rounds, then makes so few."""
MOST_CATEGORIES = 255
"""What scikit-learn's histogram boosting takes of one column; the rarest zones share the last."""


def run_ours(train: Sequence[Path], validate: Path, *, features: str) -> float:
    """Our package, as its library is called."""
    from taxi_duration import train_model

    return train_model(train, features=features).evaluate(validate).rmse


def run_course(train: Sequence[Path], validate: Path, **options: float) -> float:
    """The course's pipeline: every column, a Python call a row, a dictionary a trip.

    Args:
        options: for `LinearRegression`.
    """
    from sklearn.linear_model import LinearRegression

    matrix, minutes, validation_matrix, validation_minutes = vectorise_as_course(train, validate)
    regression = LinearRegression(**options).fit(matrix, minutes)
    return compute_rmse(regression.predict(validation_matrix), validation_minutes)


def run_course_xgboost(train: Sequence[Path], validate: Path) -> float:
    """The course's tuned XGBoost on the matrices of its linear regression, not clipped."""
    import xgboost

    matrix, minutes, validation_matrix, validation_minutes = vectorise_as_course(train, validate)
    booster = xgboost.train(
        COURSE_XGBOOST, xgboost.DMatrix(matrix, label=minutes), count_rounds(COURSE_XGBOOST_ROUNDS)
    )
    return compute_rmse(booster.predict(xgboost.DMatrix(validation_matrix)), validation_minutes)


def vectorise_as_course(
    train: Sequence[Path], validate: Path
) -> tuple[sparse.csr_matrix, Floats, sparse.csr_matrix, Floats]:
    """Training matrix and minutes, validation matrix and minutes, by `DictVectorizer`."""
    import pandas as pd
    from sklearn.feature_extraction import DictVectorizer

    months = [read_course_trips(path) for path in train]
    trips = pd.concat(months) if len(months) > 1 else months[0]
    validation = read_course_trips(validate)
    vectorizer = DictVectorizer()
    matrix = vectorizer.fit_transform(trips[COURSE_COLUMNS].to_dict("records"))
    validation_matrix = vectorizer.transform(validation[COURSE_COLUMNS].to_dict("records"))
    return (
        matrix,
        trips["duration"].to_numpy(),
        validation_matrix,
        validation["duration"].to_numpy(),
    )


def read_course_trips(path: Path) -> pd.DataFrame:
    """One row a trip of 1 to 60 minutes, with every raw column, `duration` and `PU_DO`."""
    import pandas as pd

    trips = pd.read_parquet(path)
    cab = "lpep" if "lpep_pickup_datetime" in trips else "tpep"
    elapsed = trips[f"{cab}_dropoff_datetime"] - trips[f"{cab}_pickup_datetime"]
    trips["duration"] = elapsed.apply(lambda td: td.total_seconds() / 60)
    trips = trips[(trips["duration"] >= 1) & (trips["duration"] <= 60)].copy()
    zones = trips[["PULocationID", "DOLocationID"]].astype(int).astype(str)
    trips["PU_DO"] = zones["PULocationID"] + "_" + zones["DOLocationID"]
    return trips


def run_vectorised(train: Sequence[Path], validate: Path, **options: float) -> float:
    """What a careful user writes with scikit-learn alone, without a Python call a row.

    Args:
        options: for `LinearRegression`.
    """
    import numpy as np
    from scipy import sparse
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import OneHotEncoder

    encoder = OneHotEncoder(handle_unknown="ignore")

    def build(trips: pd.DataFrame, encode: Callable[[Floats], sparse.csr_matrix]) -> Any:
        pair = trips["pickup_zone"].to_numpy(np.int32) * 1000
        pair += trips["dropoff_zone"].to_numpy(np.int32)
        distance = sparse.csr_matrix(trips[["distance_miles"]].to_numpy())
        return sparse.hstack([encode(pair[:, None]), distance], format="csr")

    trips, validation = read_kept_trips(train), read_kept_trips([validate])
    regression = LinearRegression(**options).fit(
        build(trips, encoder.fit_transform), trips["minutes"]
    )
    predicted = regression.predict(build(validation, encoder.transform))
    return compute_rmse(predicted, validation["minutes"].to_numpy())


def run_histogram_boosting(
    train: Sequence[Path], validate: Path, *, zones_are_categories: bool
) -> float:
    """scikit-learn's HistGradientBoosting on zones, distance, hour and weekday, not clipped.

    Args:
        zones_are_categories: whether a split may take any subset of zones, or cuts at a number.
    """
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.preprocessing import OrdinalEncoder

    trips, validation = read_kept_trips(train), read_kept_trips([validate])
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        max_categories=MOST_CATEGORIES,
        dtype=np.float64,
    ).fit(trips[["pickup_zone", "dropoff_zone"]])

    def build(trips: pd.DataFrame) -> Floats:
        zones = trips[["pickup_zone", "dropoff_zone"]]
        pickup = trips["pickup"].dt
        return np.column_stack(
            [
                encoder.transform(zones) if zones_are_categories else zones,
                trips["distance_miles"],
                pickup.hour,
                pickup.day_of_week,
            ]
        ).astype(np.float64)

    boosting = HistGradientBoostingRegressor(
        max_iter=count_rounds(BOOSTING_ROUNDS),
        max_leaf_nodes=127,
        early_stopping=False,
        categorical_features=[0, 1] if zones_are_categories else None,
        random_state=42,
    ).fit(build(trips), trips["minutes"])
    return compute_rmse(boosting.predict(build(validation)), validation["minutes"].to_numpy())


def count_rounds(full: int) -> int:
    """How many rounds of boosting to make."""
    return HURRIED_ROUNDS if HURRY_VARIABLE in os.environ else full


def read_kept_trips(paths: Sequence[Path]) -> pd.DataFrame:
    """One row a trip of 1 to 60 minutes, under names of our own, without a Python call a row."""
    import pandas as pd

    names = ["pickup", "dropoff", "pickup_zone", "dropoff_zone", "distance_miles"]
    months = [read_five_columns(path).rename_columns(names).to_pandas() for path in paths]
    trips = pd.concat(months, ignore_index=True) if len(months) > 1 else months[0]
    trips["minutes"] = (trips.pop("dropoff") - trips["pickup"]).dt.total_seconds() / 60
    return trips[trips["minutes"].between(1, 60)]


def read_floor(train: Sequence[Path], validate: Path) -> float:
    """Nothing but pyarrow reading the columns that any way needs: no way can be faster."""
    for path in (*train, validate):
        read_five_columns(path)
    return math.nan


def read_five_columns(path: Path) -> pa.Table:
    """Pick-up and drop-off time and zone, and distance, as the file has them."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as parquet:
        cab = "lpep" if "lpep_pickup_datetime" in parquet.schema_arrow.names else "tpep"
        times = [f"{cab}_pickup_datetime", f"{cab}_dropoff_datetime"]
        columns = [*times, "PULocationID", "DOLocationID", "trip_distance"]
        return parquet.read(columns).select(columns)


def compute_rmse(predicted: Floats, minutes: Floats) -> float:
    """Root mean squared error."""
    import numpy as np

    return float(np.sqrt(np.mean((predicted - minutes) ** 2)))


OURS, OURS_EXTENDED = "ours, `course`", "ours, `extended`"
COURSE, CONVERGED = "the course's way", "the course's way, converged"
VECTORISED, FLOOR = "vectorised scikit-learn", "floor: reading five columns"
VECTORISED_CONVERGED = "vectorised scikit-learn, converged"
XGBOOST = "the course's XGBoost"
BOOSTING, BOOSTING_CATEGORIES = "HistGradientBoosting", "HistGradientBoosting, zones as categories"

WAYS: dict[str, Way] = {
    OURS: partial(run_ours, features="course"),
    OURS_EXTENDED: partial(run_ours, features="extended"),
    COURSE: run_course,
    CONVERGED: partial(run_course, tol=CONVERGED_TOLERANCE),
    VECTORISED: run_vectorised,
    VECTORISED_CONVERGED: partial(run_vectorised, tol=CONVERGED_TOLERANCE),
    FLOOR: read_floor,
    XGBOOST: run_course_xgboost,
    BOOSTING: partial(run_histogram_boosting, zones_are_categories=False),
    BOOSTING_CATEGORIES: partial(run_histogram_boosting, zones_are_categories=True),
}
