"""The training run that both flows share: which tasks, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.runtime import flow_run

from taxi_duration.data.parquet import MonthFile, check_rows_against_earlier, is_synthetic
from taxi_duration.errors import SourceError, hide_credentials
from taxi_duration.evaluation.gate import Verdict
from taxi_duration.evaluation.report import Report, build_report, outline_report
from taxi_duration.evaluation.residuals import CHAMPION, MODEL
from taxi_duration.evaluation.stability import compare_months, warn_of_shifts
from taxi_duration.files import check_writable
from taxi_duration.flows import dead_runs
from taxi_duration.flows.challenge import find_challenge, judge_candidate, promote_champion
from taxi_duration.flows.plan import Plan
from taxi_duration.flows.runners import open_runner
from taxi_duration.flows.scale_out import Reducing, reduce_months
from taxi_duration.flows.tasks import (
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
from taxi_duration.model.directory import identify_model, load_report
from taxi_duration.model.training import Training
from taxi_duration.registry import tracking
from taxi_duration.registry.registry import Promotion, read_past
from taxi_duration.registry.tracking import TrackedRun
from taxi_duration.reports.render import Remarks
from taxi_duration.settings import (
    AlertSettings,
    GateSettings,
    StabilityLimits,
    Thresholds,
    check_tracking_uri,
    read_settings,
)

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
    promotion: Promotion | None
    """What came of the gate's verdict, if that was to promote."""


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
    known = [*(month.file for month in months), validation_file]
    outline = outline_run(plan, known, thresholds)
    challenge = find_challenge(plan.cab, outline, plan.features, read_settings(GateSettings))
    validation = validate(
        training.model, window.baselines, validation_file, plan.cab, thresholds, challenge.champion
    )
    verdict = judge_candidate(plan, validation, challenge)
    past = find_past(plan, is_made_up=is_synthetic(validation_file.path.name))
    report = describe_run(plan, months, training, validation, thresholds, verdict, past)
    directory = save_artifacts(models_directory, training.model, report)
    location = upload_artifacts(upload, directory) if upload else str(directory)
    report = load_report(directory)  # as the run that was first to save this model has it
    notices = [notice for month in months for notice in month.file.notices]
    notices += validation.file.notices
    remarks = Remarks(notices, warn_of_shifts(report["stability"], limits))
    warn_of_drift(remarks)
    try:
        tracked = log_to_mlflow(plan.cab, training.model, directory, report, remarks.sentences)
    except Exception as error:
        publish_report(report, f"none. {hide_credentials(str(error))}", location, remarks)
        raise
    try:
        promoted = report["gate"]["is_promoted"]
        promotion = promote_champion(plan.cab, tracked, report) if promoted else None
    except Exception as error:
        failed = replace(remarks, promotion=f"Not promoted yet. {hide_credentials(str(error))}")
        publish_report(report, tracked.describe(), location, failed)
        raise
    remarks = replace(remarks, promotion=str(promotion) if promotion else None)
    artifact_id = publish_report(report, tracked.describe(), location, remarks)
    return TrainedRun(report, directory, location, tracked, artifact_id, promotion)


def check_settings(models_directory: Path) -> None:
    """Refuse settings, or a models directory, that would stop any training.

    Raises:
        InputError: naming the first.
    """
    for kind in (Thresholds, StabilityLimits, GateSettings, AlertSettings):
        read_settings(kind)
    check_tracking_uri()
    check_writable(models_directory, "models directory")


def outline_run(plan: Plan, files: Sequence[MonthFile], thresholds: Thresholds) -> dict[str, Any]:
    """What is known of a run's report before it is trained; `files` are all of its months'."""
    return outline_report(
        cab=plan.cab.name,
        alphas=plan.alphas,
        train=plan.train,
        validation=plan.validation,
        inputs={file.path.name: file.sha256 for file in files},
        thresholds=thresholds,
    )


def describe_run(
    plan: Plan,
    months: Sequence[CleanMonth],
    training: Training,
    validation: Validation,
    thresholds: Thresholds,
    verdict: Verdict | None = None,
    past: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """The report of a training on months, oldest first, and of its validation.

    Args:
        verdict, past: as in `build_report`.
    """
    errors = dict(validation.errors)
    errors.pop(CHAMPION, None)  # which is in the verdict
    files = [*(month.file for month in months), validation.file]
    report = build_report(
        cab=plan.cab.name,
        training=training,
        alphas=plan.alphas,
        train_funnels={month.file.month: month.funnel for month in months},
        validation_month=plan.validation,
        validation_funnel=validation.funnel,
        validation=errors.pop(MODEL),
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
        profile=validation.profile,
        analysis=validation.analysis,
        verdict=verdict,
        past=past,
    )
    return report.model_copy(update={"model_id": identify_model(report, plan.features)})


def find_past(plan: Plan, *, is_made_up: bool) -> list[dict[str, Any]]:
    """What earlier models came to on earlier months; nothing if the store cannot be asked."""
    try:
        return read_past(plan.cab, plan.validation, is_synthetic=is_made_up)
    except SourceError as error:
        get_run_logger().warning("the RMSE of past months is not shown: %s", error)
        return []


def warn_of_drift(remarks: Remarks) -> None:
    """Say what is beyond the limits of drift."""
    for warning in remarks.warnings:
        get_run_logger().warning("%s", warning)


def read_flow_day() -> date:
    """The day the flow run was scheduled for, so that a late run picks the months it was due."""
    scheduled: datetime | None = flow_run.scheduled_start_time
    return (scheduled or datetime.now(UTC)).date()
