"""How far predictions are from the truth, for a model and for the baselines it must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Errors over `rows` trips: root mean squared and mean absolute, both in minutes."""

    rmse: float
    mae: float
    rows: int


def score(minutes: Floats, predicted: Floats) -> Evaluation:
    """Compare predicted with actual minutes.

    >>> score(np.array([10.0, 20.0]), np.array([13.0, 16.0]))
    Evaluation(rmse=3.5355339059327378, mae=3.5, rows=2)
    """
    errors = minutes - predicted
    return Evaluation(
        rmse=float(np.sqrt(np.mean(errors**2))),
        mae=float(np.mean(np.abs(errors))),
        rows=len(errors),
    )


def score_mean(train: pd.DataFrame, validation: pd.DataFrame) -> Evaluation:
    """Score the predictor that says the training mean for every trip."""
    predicted = np.full(len(validation), train["minutes"].mean(), dtype=np.float64)
    return score(validation["minutes"].to_numpy(), predicted)


def score_zone_pair_median(train: pd.DataFrame, validation: pd.DataFrame) -> Evaluation:
    """Score the predictor that looks up the training median of the trip's zone pair.

    A pair that training never saw gets the median of its pick-up zone, and a pick-up zone that
    it never saw the median of all training trips.
    """
    medians = {
        zones: train.groupby(list(zones))["minutes"].median().rename("median")
        for zones in (("pickup_zone", "dropoff_zone"), ("pickup_zone",))
    }
    found = pd.Series(np.nan, index=validation.index)
    for zones, by_zones in medians.items():
        found = found.fillna(validation[list(zones)].join(by_zones, on=list(zones))["median"])
    predicted = found.fillna(train["minutes"].median())
    return score(validation["minutes"].to_numpy(), np.asarray(predicted, dtype=np.float64))
