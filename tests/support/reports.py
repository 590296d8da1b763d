"""Reports of the synthetic sample with all that a card shows, and variations of them."""

from functools import cache
from typing import Any

from taxi_duration.data.clean import clean_trips
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import SYNTHETIC_PREFIX, read_trips
from taxi_duration.evaluation.gate import Finding, Opponent, conclude, judge
from taxi_duration.evaluation.report import Report
from taxi_duration.evaluation.residuals import CHAMPION, MODEL, ErrorAnalysis
from taxi_duration.model.baselines import Baselines, find_medians, make_keys
from taxi_duration.model.features import get_feature_set
from taxi_duration.model.month_sums import reduce_month
from taxi_duration.model.training import Training, fit_window, sum_window
from taxi_duration.regression.metrics import Evaluation, score
from taxi_duration.settings import GateSettings
from tests.support.months import FEBRUARY, JANUARY
from tests.support.trained import alter, make_report, train_on

OPPONENT = Opponent("1", "green/2024-12-0f1e2d3c", ("2024-12",), is_synthetic=True)
PAST = [
    {"month": month, "rmse": rmse, "version": version, "model_id": f"green/{month}-0a1b2c3d"}
    for month, rmse, version in (
        ("2024-10", 6.125, "1"), ("2024-11", 5.75, "2"), ("2024-12", 5.5, "3"),
    )
]  # fmt: skip

MANY_MONTHS: list[dict[str, Any]] = [
    {"month": f"{year}-{month:02}", "rmse": 5.0, "version": "1", "model_id": "green/x"}
    for year in range(2014, 2024) for month in range(1, 13)
]  # fmt: skip
NO_RESIDUAL = dict.fromkeys(("5", "25", "50", "75", "95"), 0.0)
DEGENERATE: dict[str, dict[str, Any]] = {
    "one trip": {
        "density": {"step_minutes": 2, "counts": [[0] * 30, [1] + [0] * 29, *[[0] * 30] * 28]},
        "residuals": {
            "mean": 0.0,
            "quantiles": NO_RESIDUAL,
            "by_predicted": [{"from": 2, "to": 4, "trips": 1} | NO_RESIDUAL],
        },
    },
    "no pair with trips enough": {
        "coefficients": {
            "minutes_per_mile": {"working day": [3.0] * 24, "day off": [3.0] * 24},
            "slowest_pairs": [],
        }
    },
    "many months before": {"past": MANY_MONTHS},
    "two models of one month": {"past": MANY_MONTHS[:1] * 2},
}


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
    changes = {
        "validation": _describe(errors[MODEL]),
        "baselines": {name: _describe(errors[name]) for name in baselines.predictors},
    }
    inputs = {path.name: "0123456789abcdef" * 4 for path in (JANUARY, FEBRUARY)}
    alone, judged = (
        alter(make_report(training, verdict=each), changes, inputs=inputs)
        for each in (None, verdict)
    )
    return alone, alter(judged, slices=[each.model_dump() for each in analysis.measure_slices()])


def _fit_badly() -> Training:
    """A model of January that holds its coefficients back too much."""
    features = get_feature_set("extended")
    sums = sum_window(features, [lambda: reduce_month(JANUARY, features).tables])
    return fit_window(sums, 300.0)


def _describe(errors: Evaluation) -> dict[str, float]:
    return {"rmse": errors.rmse, "mae": errors.mae}


def make_backfill_report() -> Report:
    """A report of a model that nobody judged."""
    return _train_on_sample()[0]


def make_judged_report(**gate: Any) -> Report:
    """A report of a candidate that the gate promoted over a champion, with changes of the gate."""
    return alter(_train_on_sample()[1], {"gate": gate, "past": PAST})


def pass_for_real(report: Report) -> Report:
    """The report as if its files held no made-up trips."""
    inputs = {name.removeprefix(SYNTHETIC_PREFIX): each for name, each in report.inputs.items()}
    return alter(report, inputs=inputs)


def make_first_report(*findings: Finding) -> Report:
    """A report of a candidate that faced no champion."""
    verdict = conclude(findings, GateSettings())
    return alter(make_backfill_report(), gate=verdict.model_dump())


def refuse(*findings: Finding, **champion: Any) -> Report:
    """A report of a candidate that a champion withstood, with changes of what is said of that."""
    refused = conclude(findings, GateSettings()).model_dump(include={"reasons", "findings"})
    return make_judged_report(is_promoted=False, **refused, champion=champion)
