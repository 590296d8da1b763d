"""The training run that both flows share: which tasks, in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

from prefect.runtime import flow_run

from taxi_duration import dead_runs, tracking
from taxi_duration.errors import hide_credentials
from taxi_duration.month_file import (
    check_rows_against_earlier,
    find_drift,
)
from taxi_duration.options import Plan
from taxi_duration.report import Report, build_report
from taxi_duration.settings import Thresholds, read_settings
from taxi_duration.store import load_report
from taxi_duration.tasks import (
    Locate,
    build_features,
    clean_month,
    download_month,
    log_to_mlflow,
    publish_report,
    save_artifacts,
    train_regression,
    upload_artifacts,
    validate,
)
from taxi_duration.tracking import TrackedRun

SUMS_DIRECTORY = "sums"
"""Of the models directory: where months' sums are kept for the next run."""


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
    thresholds = read_settings(Thresholds)
    dead_runs.close_dead_runs()
    tracking.close_dead_runs()
    files = [download_month(locate, month) for month in plan.months]
    for file in files:
        check_rows_against_earlier(file.path, plan.cab, file.month, thresholds)
    notices = [notice for file in files for notice in file.notices]
    *train_files, validation_file = files
    kept = models_directory / SUMS_DIRECTORY
    months = [clean_month(file, plan.cab, plan.features, kept, thresholds) for file in train_files]
    window = build_features(months, plan.features)
    training = train_regression(window.sums, plan.alpha)
    errors, validation_funnel = validate(
        training.model, window, validation_file, plan.cab, thresholds
    )
    report = build_report(
        cab=plan.cab.name,
        training=training,
        train_funnels={
            file.month: month.funnel for file, month in zip(train_files, months, strict=True)
        },
        validation_month=plan.validation,
        validation_funnel=validation_funnel,
        validation=errors["model"],
        baselines={name: each for name, each in errors.items() if name != "model"},
        inputs={file.path.name: file.sha256 for file in files},
        thresholds=thresholds,
        drift={file.path.name: find_drift(file.path, plan.cab) for file in files},
    )
    model = training.model
    directory = save_artifacts(models_directory, model, report)
    location = upload_artifacts(upload, directory) if upload else str(directory)
    report = load_report(directory)  # as the run that was first to save this model has it
    try:
        tracked = log_to_mlflow(plan.cab, model, directory, report, notices)
    except Exception as error:
        publish_report(report, f"none. {hide_credentials(str(error))}", location, notices)
        raise
    artifact_id = publish_report(report, tracked.describe(), location, notices)
    return TrainedRun(report, directory, location, tracked, artifact_id)


def read_flow_day() -> date:
    """The day the flow run was scheduled for, so that a late run picks the months it was due."""
    scheduled: datetime | None = flow_run.scheduled_start_time
    return (scheduled or datetime.now(UTC)).date()
