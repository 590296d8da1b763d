"""Reports of the synthetic sample with all that a card shows, and variations of them."""

from copy import deepcopy
from functools import cache
from typing import Any

from taxi_duration.data.clean import clean_trips
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import SYNTHETIC_PREFIX, read_trips
from taxi_duration.evaluation.gate import Opponent, Verdict, describe_slices, judge
from taxi_duration.evaluation.report import Report
from taxi_duration.evaluation.residuals import CHAMPION, MODEL, ErrorAnalysis
from taxi_duration.model.baselines import Baselines, find_medians, make_keys
from taxi_duration.model.features import get_feature_set
from taxi_duration.model.month_sums import reduce_month
from taxi_duration.model.training import Training, fit_window, sum_window
from taxi_duration.regression.metrics import Evaluation, score
from taxi_duration.settings import GateSettings
from tests.support.months import FEBRUARY, JANUARY
from tests.support.trained import make_report, train_on

OPPONENT = Opponent("1", "green/2024-12-0f1e2d3c", ("2024-12",), is_synthetic=True)
PAST = [
    {"month": month, "rmse": rmse, "version": version, "model_id": f"green/{month}-0a1b2c3d"}
    for month, rmse, version in (
        ("2024-10", 6.125, "1"), ("2024-11", 5.75, "2"), ("2024-12", 5.5, "3"),
    )
]  # fmt: skip


@cache
def _train_on_sample() -> tuple[Report, Report]:
    """January's model on February: as a backfill reports it, and judged against another."""
    training, champion = train_on(JANUARY, "extended"), _fit_badly()
    january, _ = clean_trips(read_trips(JANUARY), Month(2025, 1))
    trips, _ = clean_trips(read_trips(FEBRUARY), Month(2025, 2))
    baselines = Baselines(float(january["minutes"].mean()), find_medians(make_keys(january)))
    predicted = {
        name: predict(trips)
        for name, predict in {
            MODEL: training.model.predict_clean,
            CHAMPION: champion.model.predict_clean,
            **baselines.predictors,
        }.items()
    }
    errors = {name: score(trips["minutes"], each) for name, each in predicted.items()}
    analysis = ErrorAnalysis.of(trips, predicted)
    months = ("2025-01", "2025-02")
    verdict = judge(errors, analysis, months, GateSettings(), OPPONENT, is_synthetic=True)
    alone, judged = (make_report(training, verdict=each) for each in (None, verdict))
    judged["slices"] = describe_slices(analysis)
    for report in (alone, judged):
        report["validation"] |= _describe(errors[MODEL])
        report["baselines"] = {name: _describe(errors[name]) for name in baselines.predictors}
        report["inputs"] = {path.name: "0123456789abcdef" * 4 for path in (JANUARY, FEBRUARY)}
    return alone, judged


def _fit_badly() -> Training:
    """A model of January that holds its coefficients back too much."""
    features = get_feature_set("extended")
    sums = sum_window(features, [lambda: reduce_month(JANUARY, features).tables])
    return fit_window(sums, 300.0)


def _describe(errors: Evaluation) -> dict[str, float]:
    return {"rmse": errors.rmse, "mae": errors.mae}


def make_backfill_report() -> Report:
    """Of a model that nobody judged."""
    return deepcopy(_train_on_sample()[0])


def make_judged_report(**gate: Any) -> Report:
    """Of a candidate that the gate promoted over a champion, with changes of what it said."""
    report = deepcopy(_train_on_sample()[1])
    return {**report, "past": deepcopy(PAST), "gate": report["gate"] | gate}


def pass_for_real(report: Report) -> Report:
    """The report as if its files held no made-up trips."""
    names = {name: name.removeprefix(SYNTHETIC_PREFIX) for name in report["inputs"]}
    return report | {"inputs": {names[name]: each for name, each in report["inputs"].items()}}


def make_first_report(*reasons: str) -> Report:
    """Of a candidate that faced no champion."""
    verdict = Verdict(reasons, GateSettings())
    return {**make_backfill_report(), "gate": verdict.describe()}


def refuse(*reasons: str, **champion: Any) -> Report:
    """The report of a candidate that a champion withstood, with changes of what is said of that."""
    report = make_judged_report(is_promoted=False, reasons=[*reasons])
    report["gate"]["champion"] |= champion
    return report
