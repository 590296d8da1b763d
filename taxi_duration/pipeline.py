"""The tasks, and the training run that both flows share.

Each task is a function of another module plus one line to Prefect's log. Frames and matrices
pass between tasks in memory: every task is IN_MEMORY, since the default cache policy would hash its
inputs, and a server may be set to persist results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff
from scipy.sparse import csr_matrix
from sklearn.feature_extraction import DictVectorizer

from taxi_duration.errors import TransientSourceError
from taxi_duration.evaluation import Evaluation, score, score_mean, score_zone_pair_median
from taxi_duration.features import FeatureSet, build_matrix, fit_vectorizer
from taxi_duration.model import DurationModel, fit_model
from taxi_duration.month import Month
from taxi_duration.month_file import MonthFile, read_clean_trips
from taxi_duration.options import Plan
from taxi_duration.report import Report, build_report, render_markdown
from taxi_duration.store import save_model
from taxi_duration.tracking import TrackedRun, log_training
from taxi_duration.trips import Cab, RowFunnel

ARTIFACT_KEY = "duration-model-report"


@dataclass(frozen=True)
class CleanMonth:
    """A month's kept trips, one row each, and what became of the others."""

    trips: pd.DataFrame
    funnel: RowFunnel


@dataclass(frozen=True)
class TrainedRun:
    """What a training run leaves behind, and where."""

    report: Report
    model_directory: Path
    model_location: str
    tracked: TrackedRun
    artifact_id: UUID


def train(
    plan: Plan,
    models_directory: Path,
    locate: Callable[[Month], MonthFile],
    upload: Callable[[Path], str] | None = None,
) -> TrainedRun:
    """Run the tasks of one training, from the months' files to the published report.

    Args:
        locate: brings a month to the local disk; the one thing in which the flows differ.
        upload: copies the finished model directory elsewhere and says where.
    """
    files = [download_month(locate, month) for month in plan.months]
    *train_months, validation = [clean_month(file, plan.cab) for file in files]
    training = join_months(train_months)
    vectorizer, matrix = build_features(training.trips, plan.features)
    model = train_regression(training.trips, matrix, vectorizer, plan.features, plan.alpha)
    train_errors = score(training.trips["minutes"].to_numpy(), model.predict_matrix(matrix))
    validation_errors, baselines = validate(model, training.trips, validation.trips)
    report = build_report(
        cab=plan.cab.name,
        model=model,
        train_months=plan.train,
        train_funnel=training.funnel,
        train=train_errors,
        validation_month=plan.validation,
        validation_funnel=validation.funnel,
        validation=validation_errors,
        baselines=baselines,
        inputs={file.path.name: file.sha256 for file in files},
    )
    directory = save_artifacts(models_directory, model, report)
    location = upload_artifacts(upload, directory) if upload else str(directory)
    tracked = log_to_mlflow(plan.cab, model, directory, report)
    artifact_id = publish_report(report, tracked, location)
    return TrainedRun(report, directory, location, tracked, artifact_id)


def read_flow_day() -> date:
    """The day the flow run was scheduled for, so that a late run picks the months it was due."""
    scheduled: datetime | None = flow_run.scheduled_start_time
    return (scheduled or datetime.now(UTC)).date()


def join_months(months: list[CleanMonth]) -> CleanMonth:
    """The trips of several months one after another, and the sum of their funnels."""
    first, *others = months
    funnel = sum((month.funnel for month in others), first.funnel)
    return CleanMonth(pd.concat([month.trips for month in months], ignore_index=True), funnel)


def is_transient(_task: Any, _task_run: Any, state: State[Any]) -> bool:
    """Whether a failed download is worth another try."""
    return isinstance(state.result(raise_on_failure=False), TransientSourceError)


IN_MEMORY: Any = {"cache_policy": NO_CACHE, "persist_result": False}
RETRIES: Any = {
    "retries": 4,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 1,
    "retry_condition_fn": is_transient,
}
"""About 2, 4, 8 and 16 seconds, each up to doubled by jitter."""


@task(name="download-month", task_run_name="download-{month}", **IN_MEMORY, **RETRIES)
def download_month(locate: Callable[[Month], MonthFile], month: Month) -> MonthFile:
    """Have a month on the local disk, its bytes verified."""
    file = locate(month)
    get_run_logger().info("%s is %s, sha256 %s", month, file.path, file.sha256)
    return file


@task(name="clean-trips", task_run_name="clean-{file.month}", **IN_MEMORY)
def clean_month(file: MonthFile, cab: Cab) -> CleanMonth:
    """Read a month and keep the trips a model may learn from."""
    trips, funnel = read_clean_trips(file.path, cab, file.month)
    counts = {**funnel.dropped, **{f"{defect} (kept)": n for defect, n in funnel.noted.items()}}
    get_run_logger().info(
        "%s: kept %s of %s trips; %s",
        file.month,
        f"{funnel.rows_kept:,}",
        f"{funnel.rows_read:,}",
        ", ".join(f"{count:,} {name}" for name, count in counts.items()),
    )
    return CleanMonth(trips, funnel)


@task(name="build-features", **IN_MEMORY)
def build_features(trips: pd.DataFrame, features: FeatureSet) -> tuple[DictVectorizer, csr_matrix]:
    """Fit the vectorizer on the observed names and make the training matrix."""
    vectorizer = fit_vectorizer(trips, features)
    matrix = build_matrix(trips, features, vectorizer)
    get_run_logger().info("%s features: %s trips x %s columns", features.name, *matrix.shape)
    return vectorizer, matrix


@task(name="train-regression", **IN_MEMORY)
def train_regression(
    trips: pd.DataFrame,
    matrix: csr_matrix,
    vectorizer: DictVectorizer,
    features: FeatureSet,
    alpha: float,
) -> DurationModel:
    """Solve the regression."""
    model = fit_model(trips, matrix, vectorizer, features, alpha)
    get_run_logger().info(
        "fitted %s with alpha %g on %s trips", type(model.regression).__name__, alpha, len(trips)
    )
    return model


@task(name="validate", **IN_MEMORY)
def validate(
    model: DurationModel, train_trips: pd.DataFrame, trips: pd.DataFrame
) -> tuple[Evaluation, Mapping[str, Evaluation]]:
    """Score the model and its baselines on the validation month."""
    errors = score(trips["minutes"].to_numpy(), model.predict_clean(trips))
    baselines = {
        "mean": score_mean(train_trips, trips),
        "zone_pair_median": score_zone_pair_median(train_trips, trips),
    }
    get_run_logger().info(
        "validation RMSE %.6f minutes on %s trips (zone-pair median %.4f, mean %.4f)",
        errors.rmse,
        f"{errors.rows:,}",
        baselines["zone_pair_median"].rmse,
        baselines["mean"].rmse,
    )
    return errors, baselines


@task(name="save-artifacts", **IN_MEMORY)
def save_artifacts(models_directory: Path, model: DurationModel, report: Report) -> Path:
    """Write the model directory, whole."""
    directory = save_model(models_directory, model, report)
    get_run_logger().info("model and report are in %s", directory)
    return directory


@task(name="upload-artifacts", **IN_MEMORY, **RETRIES)
def upload_artifacts(upload: Callable[[Path], str], directory: Path) -> str:
    """Copy the model directory to where the flow keeps models."""
    location = upload(directory)
    get_run_logger().info("uploaded %s to %s", directory, location)
    return location


@task(name="log-to-mlflow", **IN_MEMORY)
def log_to_mlflow(cab: Cab, model: DurationModel, directory: Path, report: Report) -> TrackedRun:
    """Log the run to MLflow."""
    tracked = log_training(cab, model, directory, report)
    get_run_logger().info("MLflow run %s in %s", tracked.run_id, tracked.tracking_uri)
    return tracked


@task(name="publish-report", **IN_MEMORY)
def publish_report(report: Report, tracked: TrackedRun, model_location: str) -> UUID:
    """Publish the report as a markdown artifact, the same for both flows."""
    link = f"[{tracked.run_id}]({tracked.url}) in `{tracked.tracking_uri}`"
    artifact_id = create_markdown_artifact(
        render_markdown(report, link, model_location),
        key=ARTIFACT_KEY,
        description=f"{report['cab']} {report['train']['months'][-1]}: validation RMSE "
        f"{report['validation']['rmse']:.4f} minutes",
    )
    get_run_logger().info("report published as artifact %s", ARTIFACT_KEY)
    return cast(UUID, artifact_id)  # Prefect types it as if it were awaited
