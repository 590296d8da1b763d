"""The tasks, and the training run that both flows share.

Each task is a function of another module plus one line to Prefect's log. What passes between tasks
is small: paths, sums, a model. Every task is IN_MEMORY, since the default cache policy would hash
its inputs, and a server may be set to persist results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run, task_run
from prefect.tasks import exponential_backoff

from taxi_duration.errors import TransientSourceError
from taxi_duration.evaluation import Evaluation, ZonePairMedians, predict_mean
from taxi_duration.features import FeatureSet
from taxi_duration.model import DurationModel, score_predictors
from taxi_duration.month import Month
from taxi_duration.month_file import MonthFile
from taxi_duration.options import Plan
from taxi_duration.progress import show_progress
from taxi_duration.reduction import load_sums, recall_month
from taxi_duration.report import Report, build_report, render_markdown
from taxi_duration.store import save_model
from taxi_duration.tables import Tables
from taxi_duration.tracking import TrackedRun, log_training
from taxi_duration.training import Training, Window, fit_window, sum_window
from taxi_duration.transfer import Progress
from taxi_duration.trips import Cab, RowFunnel

Locate = Callable[[Month, Progress | None], MonthFile]
"""Brings a month to the local disk, and reports the bytes that arrive if it is told to whom."""

ARTIFACT_KEY = "duration-model-report"


SUMS_DIRECTORY = "sums"
"""Of the models directory: where months' sums are kept for the next run."""


@dataclass(frozen=True)
class CleanMonth:
    """What is left of a training month: its sums on the disk, its row funnel and its medians."""

    sums: Path
    funnel: RowFunnel
    medians: ZonePairMedians


@dataclass(frozen=True)
class TrainingWindow:
    """The training months' sums, and what the baselines know: their mean, the last one's medians.

    Medians do not add up; those of the whole window would need its trips again.
    """

    sums: Window
    funnel: RowFunnel
    medians: ZonePairMedians


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
    locate: Locate,
    upload: Callable[[Path], str] | None = None,
) -> TrainedRun:
    """Run the tasks of one training, from the months' files to the published report.

    Args:
        locate: brings a month to the local disk; the one thing in which the flows differ.
        upload: copies the finished model directory elsewhere and says where.
    """
    files = [download_month(locate, month) for month in plan.months]
    *train_files, validation_file = files
    kept = models_directory / SUMS_DIRECTORY
    months = [clean_month(file, plan.cab, plan.features, kept) for file in train_files]
    window = build_features(months, plan.features)
    training = train_regression(window.sums, plan.alpha)
    errors, validation_funnel = validate(training.model, window, validation_file, plan.cab)
    report = build_report(
        cab=plan.cab.name,
        training=training,
        train_months=plan.train,
        train_funnel=window.funnel,
        validation_month=plan.validation,
        validation_funnel=validation_funnel,
        validation=errors["model"],
        baselines={name: each for name, each in errors.items() if name != "model"},
        inputs={file.path.name: file.sha256 for file in files},
    )
    model = training.model
    directory = save_artifacts(models_directory, model, report)
    location = upload_artifacts(upload, directory) if upload else str(directory)
    tracked = log_to_mlflow(plan.cab, model, directory, report)
    artifact_id = publish_report(report, tracked, location)
    return TrainedRun(report, directory, location, tracked, artifact_id)


def read_flow_day() -> date:
    """The day the flow run was scheduled for, so that a late run picks the months it was due."""
    scheduled: datetime | None = flow_run.scheduled_start_time
    return (scheduled or datetime.now(UTC)).date()


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
def download_month(locate: Locate, month: Month) -> MonthFile:
    """Have a month on the local disk, its bytes verified."""
    log = get_run_logger()
    try:
        with show_progress(f"download {month}") as report:
            file = locate(month, report)
    except TransientSourceError as error:
        if error.wait_seconds and task_run.run_count <= RETRIES["retries"]:
            log.warning("waiting %.0f s, as the server asks", error.wait_seconds)
            time.sleep(error.wait_seconds)
        raise
    log.info("%s is %s, sha256 %s", month, file.path, file.sha256)
    for notice in file.notices:
        log.warning("%s", notice)
    return file


@task(name="clean-trips", task_run_name="clean-{file.month}", **IN_MEMORY)
def clean_month(file: MonthFile, cab: Cab, features: FeatureSet, kept: Path) -> CleanMonth:
    """Read a month, keep the trips a model may learn from, and keep their sums."""
    month = recall_month(
        kept, file.path, features, cab, file.month, sha256=file.sha256, with_medians=True
    )
    if month.was_there:
        get_run_logger().info("%s: sums of the same bytes reused from %s", file.month, month.path)
    log_funnel(file.month, month.sums.funnel)
    return CleanMonth(month.path, month.sums.funnel, cast(ZonePairMedians, month.sums.medians))


def log_funnel(month: Month, funnel: RowFunnel) -> None:
    """Say what became of a month's trips."""
    counts = {**funnel.dropped, **{f"{defect} (kept)": n for defect, n in funnel.noted.items()}}
    get_run_logger().info(
        "%s: kept %s of %s trips; %s",
        month,
        f"{funnel.rows_kept:,}",
        f"{funnel.rows_read:,}",
        ", ".join(f"{count:,} {name}" for name, count in counts.items()),
    )


@task(name="build-features", **IN_MEMORY)
def build_features(months: Sequence[CleanMonth], features: FeatureSet) -> TrainingWindow:
    """Add the months' sums up to those of the features' columns."""

    def load(month: CleanMonth) -> list[Tables]:
        return load_sums(month.sums, features).tables

    sums = sum_window(features, [partial(load, month) for month in months])
    first, *others = [month.funnel for month in months]
    funnel = sum(others, first)
    get_run_logger().info(
        "%s features: %s trips x %s columns", features.name, f"{funnel.rows_kept:,}", sums.columns
    )
    return TrainingWindow(sums, funnel, months[-1].medians)


@task(name="train-regression", **IN_MEMORY)
def train_regression(window: Window, alpha: float | None) -> Training:
    """Choose alpha, unless it is given, and solve the regression."""
    training = fit_window(window, alpha)
    for trial in training.trials:
        get_run_logger().info(
            "alpha %g: RMSE %.4f minutes on the window's last days", trial.alpha, trial.rmse
        )
    get_run_logger().info(
        "fitted alpha %g on %s trips, RMSE %.6f minutes",
        training.model.alpha,
        f"{training.trips:,}",
        training.rmse,
    )
    return training


@task(name="validate", **IN_MEMORY)
def validate(
    model: DurationModel, window: TrainingWindow, file: MonthFile, cab: Cab
) -> tuple[Mapping[str, Evaluation], RowFunnel]:
    """Score the model and its baselines on the validation month."""
    errors, funnel = score_predictors(
        {
            "model": model.predict_clean,
            "mean": predict_mean(window.sums.mean_minutes),
            "zone_pair_median": window.medians.predict,
        },
        file.path,
        cab,
        file.month,
    )
    log_funnel(file.month, funnel)
    get_run_logger().info(
        "validation RMSE %.6f minutes on %s trips (zone-pair median %.4f, mean %.4f)",
        errors["model"].rmse,
        f"{errors['model'].rows:,}",
        errors["zone_pair_median"].rmse,
        errors["mean"].rmse,
    )
    return errors, funnel


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
