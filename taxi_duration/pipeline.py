"""The training run that both flows share: which tasks, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

from prefect.runtime import flow_run

from taxi_duration import dead_runs, tracking
from taxi_duration.errors import hide_credentials
from taxi_duration.month_file import check_rows_against_earlier
from taxi_duration.plan import Plan
from taxi_duration.report import Report, build_report
from taxi_duration.scale_out import Reducing, open_runner, reduce_months
from taxi_duration.settings import Thresholds, read_settings
from taxi_duration.store import load_report
from taxi_duration.tasks import (
    CleanMonth,
    Locate,
    Validation,
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
from taxi_duration.training import Training

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
    kept = models_directory / SUMS_DIRECTORY
    if plan.runner:
        with open_runner(plan.runner, plan.dask_address) as runner:
            reducing = Reducing(locate, plan, kept, thresholds)
            months = list(reduce_months(runner, reducing, plan.train))
        files = [download_month(locate, plan.validation)]
    else:
        months = []
        files = [download_month(locate, month) for month in plan.months]
    for file in files:
        check_rows_against_earlier(file.path, plan.cab, file.month, thresholds)
    *train_files, validation_file = files
    months += [
        clean_month(file, plan.cab, plan.features, kept, thresholds, fresh=plan.no_cache)
        for file in train_files
    ]
    window = build_features(months, plan.features)
    training = train_regression(window.sums, plan.alpha)
    validation = validate(training.model, window.baselines, validation_file, plan.cab, thresholds)
    report = describe_run(plan, months, training, validation, thresholds)
    directory = save_artifacts(models_directory, training.model, report)
    location = upload_artifacts(upload, directory) if upload else str(directory)
    report = load_report(directory)  # as the run that was first to save this model has it
    notices = [notice for month in months for notice in month.file.notices]
    notices += validation.file.notices
    try:
        tracked = log_to_mlflow(plan.cab, training.model, directory, report, notices)
    except Exception as error:
        publish_report(report, f"none. {hide_credentials(str(error))}", location, notices)
        raise
    artifact_id = publish_report(report, tracked.describe(), location, notices)
    return TrainedRun(report, directory, location, tracked, artifact_id)


def describe_run(
    plan: Plan,
    months: Sequence[CleanMonth],
    training: Training,
    validation: Validation,
    thresholds: Thresholds,
) -> Report:
    """The report of a training on months, oldest first, and of its validation."""
    errors = dict(validation.errors)
    files = [*(month.file for month in months), validation.file]
    return build_report(
        cab=plan.cab.name,
        training=training,
        alphas=plan.alphas,
        train_funnels={month.file.month: month.funnel for month in months},
        validation_month=plan.validation,
        validation_funnel=validation.funnel,
        validation=errors.pop("model"),
        baselines=errors,
        inputs={file.path.name: file.sha256 for file in files},
        thresholds=thresholds,
        drift={
            **{month.file.path.name: month.drift for month in months},
            validation.file.path.name: validation.drift,
        },
    )


def read_flow_day() -> date:
    """The day the flow run was scheduled for, so that a late run picks the months it was due."""
    scheduled: datetime | None = flow_run.scheduled_start_time
    return (scheduled or datetime.now(UTC)).date()
