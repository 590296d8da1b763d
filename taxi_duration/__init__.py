"""Exact linear regression of NYC taxi trip durations: train, evaluate, save and load a model."""

from taxi_duration.errors import (
    DataError,
    InputError,
    ModelError,
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

__all__ = [
    "FEATURE_SETS",
    "DataError",
    "DurationModel",
    "Evaluation",
    "FeatureSet",
    "InputError",
    "ModelError",
    "SourceError",
    "StorageError",
    "TaxiDurationError",
    "TransientSourceError",
    "load_model",
    "train_model",
]
