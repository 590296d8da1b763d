"""Training as the flows do it, without a flow."""

from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from prefect.logging import disable_run_logger

from taxi_duration.data.clean import RowFunnel, clean_trips
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import read_trips
from taxi_duration.evaluation.evaluate import evaluate_predictors
from taxi_duration.evaluation.gate import Verdict
from taxi_duration.evaluation.report import Report, build_report, read_versions
from taxi_duration.evaluation.residuals import MODEL, ErrorAnalysis
from taxi_duration.evaluation.stability import UNSEEN_PAIRS
from taxi_duration.files import hash_file
from taxi_duration.flows.tasks import save_artifacts
from taxi_duration.model.features import FeatureSet, get_feature_set
from taxi_duration.model.model import DurationModel
from taxi_duration.model.month_sums import QUANTITIES, Profile, reduce_month
from taxi_duration.model.training import Training, fit_window, identify_training, sum_window
from taxi_duration.regression.metrics import Evaluation
from taxi_duration.settings import Thresholds
from tests.support.months import FEBRUARY, JANUARY


def train_on(path: Path, features: str) -> Training:
    """Train on one month with a feature set's own alphas."""
    feature_set = get_feature_set(features)
    return fit_window(sum_window(feature_set, [lambda: reduce_month(path, feature_set).tables]))


def make_report(training: Training, verdict: Verdict | None = None) -> Report:
    """A report of made-up errors, as if it had been trained on a file with the sha256 `ab`.

    What is said of slices, residuals and coefficients is true of the synthetic February.
    """
    trips, funnel = clean_trips(read_trips(FEBRUARY), Month(2025, 2))
    errors = Evaluation(rmse=5.5, mae=4.0, rows=funnel.rows_kept)
    model = training.model
    report = build_report(
        model_id="",
        cab="green",
        training=training,
        alphas=(1.0, 3.0, 10.0),
        train_funnels={Month(2025, 1): funnel},
        validation_month=Month(2025, 2),
        validation_funnel=funnel,
        validation=errors,
        baselines={"mean": errors, "zone_pair_median": errors},
        inputs={"green_tripdata_2025-01.parquet": "ab"},
        thresholds=Thresholds(),
        drift={},
        stability={"2025-02": dict.fromkeys((*QUANTITIES, UNSEEN_PAIRS), 0.0)},
        profile=Profile.of(trips),
        analysis=ErrorAnalysis.of(trips, {MODEL: model.predict_clean(trips)}),
        verdict=verdict,
    )
    return report.model_copy(update={"model_id": identify_report(report, model.features)})


def identify_report(report: Report, features: FeatureSet) -> str:
    """The identity of the training that a report is of."""
    months = {Month.parse(month) for month in report.train.months}
    named = {Month.parse(_read_month(Path(name))): name for name in report.inputs}
    inputs = {month: report.inputs[named[month]] for month in months}
    return identify_training(report.cab, features, report.alphas, inputs, read_versions())


def save_training(models_directory: Path, model: DurationModel, report: Report) -> Path:
    """Save a model and its report as a run does."""
    with disable_run_logger():
        directory: Path = save_artifacts.fn(models_directory, model, report)
    return directory


def save_sample_training(
    models_directory: Path,
    features: str,
    alpha: float | None = None,
    paths: Sequence[Path] = (JANUARY, FEBRUARY),
) -> Path:
    """Train on months of the sample, validate on the last, and save what a run would.

    What in the report is not made up is all that a training can be reproduced by.
    """
    *train, validation = paths
    feature_set = get_feature_set(features)
    months = [reduce_month(path, feature_set) for path in train]
    window = sum_window(feature_set, [partial(attrgetter("tables"), month) for month in months])
    training = fit_window(window, alpha)
    scores = evaluate_predictors({"model": training.model.predict_clean}, validation)
    errors = scores.errors["model"]
    first, *others = [month.funnel for month in months]
    report = make_report(training)
    month = _read_month(validation)
    report = alter(
        report,
        {
            "alphas": list(feature_set.alphas) if alpha is None else [alpha],
            "train": {
                "months": [_read_month(path) for path in train],
                "rmse": training.rmse,
                **_count_rows(sum(others, first)),
            },
            "validation": {
                "month": month,
                "rmse": errors.rmse,
                "mae": errors.mae,
                **_count_rows(scores.funnel),
            },
        },
        inputs={path.name: hash_file(path) for path in paths},
        stability={month: report.stability["2025-02"]},
    )
    report = alter(report, model_id=identify_report(report, feature_set))
    return save_training(models_directory, training.model, report)


def alter(report: Report, changes: Mapping[str, Any] | None = None, **replaced: Any) -> Report:
    """Change parts of a report: `changes` go into what is there, `replaced` take its place."""

    def merge(content: Any, changes: Any) -> Any:
        if not isinstance(content, dict) or not isinstance(changes, Mapping):
            return changes
        changed = {name: merge(content.get(name), each) for name, each in changes.items()}
        return content | changed

    return Report.model_validate(merge(report.model_dump(), changes or {}) | replaced)


def _read_month(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def _count_rows(funnel: RowFunnel) -> dict[str, int]:
    return {"rows_read": funnel.rows_read, "rows_kept": funnel.rows_kept}
