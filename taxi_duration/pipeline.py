"""The training run that both flows share: which tasks, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from logging import INFO, WARNING
from pathlib import Path
from uuid import UUID

from prefect import get_run_logger
from prefect.runtime import flow_run

from taxi_duration import dead_runs, tracking
from taxi_duration.card import Remarks
from taxi_duration.contract import Cab
from taxi_duration.disk import check_writable
from taxi_duration.errors import ModelError, SourceError, hide_credentials
from taxi_duration.evaluation import Challenge
from taxi_duration.month_file import check_rows_against_earlier
from taxi_duration.plan import Plan
from taxi_duration.report import Report, build_report
from taxi_duration.runners import open_runner
from taxi_duration.scale_out import Reducing, reduce_months
from taxi_duration.settings import AlertSettings, StabilityLimits, Thresholds, read_settings
from taxi_duration.stability import compare_months, warn_of_shifts
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
from taxi_duration.tracking import Champion, TrackedRun
from taxi_duration.tracking_uri import check_tracking_uri
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
    thresholds, limits = read_settings(Thresholds), read_settings(StabilityLimits)
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
    champion = find_champion(plan.cab)
    validation = validate(
        training.model, window.baselines, validation_file, plan.cab, thresholds, champion
    )
    report = describe_run(plan, months, training, validation, thresholds)
    directory = save_artifacts(models_directory, training.model, report)
    location = upload_artifacts(upload, directory) if upload else str(directory)
    report = load_report(directory)  # as the run that was first to save this model has it
    notices = [notice for month in months for notice in month.file.notices]
    notices += validation.file.notices
    challenge = face_champion(champion, validation, limits) if champion else None
    remarks = Remarks(notices, warn_of_shifts(report["stability"], limits), challenge)
    warn_of_drift(remarks)
    try:
        tracked = log_to_mlflow(plan.cab, training.model, directory, report, remarks.sentences)
    except Exception as error:
        publish_report(report, f"none. {hide_credentials(str(error))}", location, remarks)
        raise
    artifact_id = publish_report(report, tracked.describe(), location, remarks)
    return TrainedRun(report, directory, location, tracked, artifact_id)


def check_settings(models_directory: Path) -> None:
    """Refuse settings, or a models directory, that would stop any training.

    Raises:
        InputError: naming the first.
    """
    for kind in (Thresholds, StabilityLimits, AlertSettings):
        read_settings(kind)
    check_tracking_uri()
    check_writable(models_directory, "models directory")


def describe_run(
    plan: Plan,
    months: Sequence[CleanMonth],
    training: Training,
    validation: Validation,
    thresholds: Thresholds,
) -> Report:
    """The report of a training on months, oldest first, and of its validation."""
    errors = dict(validation.errors)
    errors.pop("champion", None)  # which is no part of what the run was given
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
        stability=compare_months(
            {str(month.file.month): month.profile for month in months},
            str(plan.validation),
            validation.profile,
        ),
    )


def find_champion(cab: Cab) -> Champion | None:
    """Load the champion to compare a model with; say so if there is one that cannot be had."""
    try:
        return tracking.load_champion(cab)
    except (SourceError, ModelError) as error:
        get_run_logger().warning("this model is not compared with the champion: %s", error)
        return None


def face_champion(champion: Champion, validation: Validation, limits: StabilityLimits) -> Challenge:
    """Compare a model with the champion, which was scored on the same trips."""
    month = str(validation.file.month)
    return Challenge(
        champion.version,
        month,
        validation.errors["champion"].rmse,
        validation.errors["model"].rmse,
        is_seen=month in champion.months,
        most_over=limits.most_over_champion,
    )


def warn_of_drift(remarks: Remarks) -> None:
    """Say what is beyond the limits, and how the model does beside the champion."""
    log = get_run_logger()
    for warning in remarks.warnings:
        log.warning("%s", warning)
    if remarks.challenge:
        log.log(WARNING if remarks.challenge.is_lost else INFO, "%s", remarks.challenge)


def read_flow_day() -> date:
    """The day the flow run was scheduled for, so that a late run picks the months it was due."""
    scheduled: datetime | None = flow_run.scheduled_start_time
    return (scheduled or datetime.now(UTC)).date()
