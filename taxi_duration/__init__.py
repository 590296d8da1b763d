"""Exact linear regression of NYC taxi trip durations: train, evaluate, save and load a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxi_duration.errors import (
    DataError,
    InputError,
    ModelError,
    RunnerError,
    SourceError,
    StorageError,
    TaxiDurationError,
    TransientSourceError,
)
from taxi_duration.model.directory import load_model
from taxi_duration.model.features import FEATURE_SETS, FeatureSet
from taxi_duration.model.model import DurationModel
from taxi_duration.model.training import train_model
from taxi_duration.regression.metrics import Evaluation

if TYPE_CHECKING:
    from taxi_duration.regression.estimator import ExactRegression

__all__ = [
    "FEATURE_SETS",
    "DataError",
    "DurationModel",
    "Evaluation",
    "ExactRegression",
    "FeatureSet",
    "InputError",
    "ModelError",
    "RunnerError",
    "SourceError",
    "StorageError",
    "TaxiDurationError",
    "TransientSourceError",
    "load_model",
    "train_model",
]


def __getattr__(name: str) -> type[ExactRegression]:
    if name != "ExactRegression":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Only when it is asked for: scikit-learn takes a second to import.
    from taxi_duration.regression.estimator import ExactRegression

    return ExactRegression
