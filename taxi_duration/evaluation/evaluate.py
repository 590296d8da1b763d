"""Evaluate several predictors on a month's trips, which are read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from taxi_duration.data.clean import RowFunnel, Trips
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import reduce_trips
from taxi_duration.data.schema import Cab
from taxi_duration.evaluation.residuals import ErrorAnalysis
from taxi_duration.model.baselines import Predict
from taxi_duration.model.month_sums import Profile
from taxi_duration.regression.metrics import Errors, Evaluation


@dataclass(frozen=True)
class Scores:
    """What an evaluation on a month comes to.

    Args:
        errors: predictor -> its errors.
        profile, analysis: empty unless asked for.
    """

    errors: dict[str, Evaluation]
    funnel: RowFunnel
    profile: Profile
    analysis: ErrorAnalysis


def evaluate_predictors(
    predictors: Mapping[str, Predict],
    path: str | Path,
    cab: Cab | None = None,
    month: Month | None = None,
    *,
    in_detail: bool = False,
) -> Scores:
    """Read and clean a month's file once, and evaluate each predictor on its trips.

    Args:
        in_detail: also compute the trips' profile and the error analysis.

    Raises:
        DataError: as `reduce_trips`.
    """

    def add_errors(
        chunks: Iterator[Trips],
    ) -> tuple[dict[str, Errors], Profile, ErrorAnalysis]:
        errors, profile = dict.fromkeys(predictors, Errors()), Profile()
        analysis = ErrorAnalysis()
        for trips in chunks:
            predicted = {name: predict(trips) for name, predict in predictors.items()}
            for name, minutes in predicted.items():
                errors[name] += Errors.of(trips["minutes"], minutes)
            if in_detail:
                profile += Profile.of(trips)
                analysis += ErrorAnalysis.of(trips, predicted)
        return errors, profile, analysis

    lanes, funnel = reduce_trips(path, add_errors, cab, month)
    errors = {
        name: sum((of_lane[name] for of_lane, *_ in lanes), Errors()).evaluation
        for name in predictors
    }
    profile = sum((of_lane for _, of_lane, _ in lanes), Profile())
    analysis = sum((of_lane for *_, of_lane in lanes), ErrorAnalysis())
    return Scores(errors, funnel, profile, analysis)
