"""A training run: its plan of months, and the tasks that both flows run in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.runtime import flow_run

from taxi_duration.data.month import Month, newest_published
from taxi_duration.data.parquet import MonthFile, check_rows_against_earlier, is_synthetic
from taxi_duration.data.schema import Cab, check_month, get_cab
from taxi_duration.errors import InputError, ModelError, SourceError, hide_credentials
from taxi_duration.evaluation.gate import Verdict
from taxi_duration.evaluation.report import Report, build_report, load_report, read_versions
from taxi_duration.evaluation.residuals import CHAMPION, MODEL
from taxi_duration.evaluation.stability import compare_months, warn_of_shifts
from taxi_duration.files import check_writable
from taxi_duration.flows.options import ModelOptions, TrainingOptions
from taxi_duration.flows.runners import Reducing, check_runner, open_runner, reduce_months
from taxi_duration.flows.tasks import (
    CleanMonth,
    Locate,
    Validation,
    build_features,
    clean_month,
    download_month,
    find_challenge,
    judge_candidate,
    log_to_mlflow,
    promote_champion,
    publish_report,
    save_artifacts,
    train_regression,
    upload_artifacts,
    validate,
)
from taxi_duration.model.features import FeatureSet, get_feature_set
from taxi_duration.model.training import Training, identify_training
from taxi_duration.registry.champion import Promotion, read_past
from taxi_duration.registry.runs import TrackedRun
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
class Plan:
    """The months and the model that a run's options come to on a given day."""

    cab: Cab
    train: tuple[Month, ...]
    validation: Month
    features: FeatureSet
    alpha: float | None
    no_cache: bool = False
    runner: str | None = None
    dask_address: str | None = None

    @classmethod
    def of(cls, options: ModelOptions, last: Month) -> Plan:
        """Return the plan of a run whose last training month is `last`."""
        return cls(
            get_cab(options.cab),
            last.window(options.train_months),
            last.next,
            get_feature_set(options.features),
            options.alpha,
            options.no_cache,
            options.runner,
            options.dask_address,
        )

    @property
    def alphas(self) -> tuple[float, ...]:
        """Penalties that are tried, or the one that was given."""
        return self.features.alphas if self.alpha is None else (self.alpha,)

    @property
    def months(self) -> tuple[Month, ...]:
        return (*self.train, self.validation)

    def reducing(self, locate: Locate, kept: Path, thresholds: Thresholds) -> Reducing:
        """Return what reducing one of its months takes."""
        is_elsewhere = self.runner == "dask"
        return Reducing(
            locate, self.cab, self.features, kept, thresholds, self.no_cache, is_elsewhere
        )


def make_plan(options: TrainingOptions, today: date) -> Plan:
    """Return the months a run trains and validates on, and its model.

    Without year and month, the last training month is the newest whose next month is published
    on `today`.

    Raises:
        InputError: only one of year and month is given, or the cab type has no file of a month.
    """
    if (options.year is None) != (options.month is None):
        given, absent = ("year", "month") if options.month is None else ("month", "year")
        raise InputError(f"{given} is given without {absent}", "give both, or neither")
    if options.year is None or options.month is None:
        last = newest_published(today).shift(-1)
    else:
        last = Month(options.year, options.month)
    cab = get_cab(options.cab)
    # Against the cab's first month before the window is laid out, which may reach before 2009.
    check_month(cab, last)
    if last.since(cab.first_month) < options.train_months - 1:
        raise InputError(
            f"train_months {options.train_months} reaches before {cab.name} month "
            f"{cab.first_month} ({cab.first_month_reason})",
            "give fewer",
        )
    if last.next > Month.of(today):
        raise InputError(
            f"month {last} cannot be trained on, as its validation month {last.next} has not begun",
            f"give {newest_published(today).shift(-1)} or earlier",
        )
    check_runner(options.runner, options.dask_address)
    return Plan.of(options, last)


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
    thresholds, gate = read_settings(Thresholds), read_settings(GateSettings)
    kept = models_directory / SUMS_DIRECTORY
    if plan.runner:
        with open_runner(plan.runner, plan.dask_address) as runner:
            months = list(
                reduce_months(runner, plan.reducing(locate, kept, thresholds), plan.train)
            )
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
    model_id = identify_run(plan, [month.file for month in months])
    challenge = find_challenge(plan.cab, model_id)
    validation = validate(
        training.model, window.baselines, validation_file, plan.cab, thresholds, challenge.champion
    )
    verdict = None
    if not challenge.is_champion:
        verdict = judge_candidate(plan.months, validation, challenge, gate)
    past = find_past(plan, is_made_up=is_synthetic(validation_file.path.name))
    report = describe_run(plan, model_id, months, training, validation, thresholds, verdict, past)
    if challenge.is_champion:  # it faces nobody, and what the gate said of it stays
        report = keep_verdict(report, models_directory / model_id)
    directory = save_artifacts(models_directory, training.model, report)
    location = upload_artifacts(upload, directory) if upload else str(directory)
    remarks = remark([*(month.file for month in months), validation.file], report)
    try:
        tracked = log_to_mlflow(
            plan.cab,
            training.model,
            directory,
            report,
            remarks.sentences,
            is_candidate=not challenge.is_champion,
        )
    except Exception as error:
        publish_report(report, f"none. {hide_credentials(str(error))}", location, remarks)
        raise
    try:
        is_promoted = challenge.is_champion or (verdict is not None and verdict.is_promoted)
        promotion = promote_champion(plan.cab, tracked, report) if is_promoted else None
    except Exception as error:
        failed = replace(remarks, promotion=f"Not promoted yet. {hide_credentials(str(error))}")
        publish_report(report, tracked.describe(), location, failed)
        raise
    remarks = replace(remarks, promotion=str(promotion) if promotion else None)
    artifact_id = publish_report(report, tracked.describe(), location, remarks)
    return TrainedRun(report, directory, location, tracked, artifact_id, promotion)


def check_settings(models_directory: Path) -> None:
    """Check the settings, and that the models directory can be written.

    Raises:
        InputError: one of them would stop any training; the message names the first.
    """
    for kind in (Thresholds, StabilityLimits, GateSettings, AlertSettings):
        read_settings(kind)
    check_tracking_uri()
    check_writable(models_directory, "models directory")


def identify_run(plan: Plan, files: Sequence[MonthFile]) -> str:
    """Return the identity of a run's training; `files` are the training months'."""
    inputs = {file.month: file.sha256 for file in files}
    return identify_training(plan.cab.name, plan.features, plan.alphas, inputs, read_versions())


def keep_verdict(report: Report, directory: Path) -> Report:
    """Return a report of a model that was not judged now, with what the gate said of it before.

    If the validation is the same, too, that is the report in the model's directory, which compares
    slices with the champion's of then.
    """
    try:
        saved = load_report(directory)
    except ModelError:
        return report
    if saved.gate and (saved.inputs, saved.thresholds) == (report.inputs, report.thresholds):
        return saved
    return report.model_copy(update={"gate": saved.gate})


def describe_run(
    plan: Plan,
    model_id: str,
    months: Sequence[CleanMonth],
    training: Training,
    validation: Validation,
    thresholds: Thresholds,
    verdict: Verdict | None = None,
    past: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """Return the report of a training on months, oldest first, and of its validation.

    Args:
        model_id, verdict, past: as in `build_report`.
    """
    errors = dict(validation.errors)
    errors.pop(CHAMPION, None)  # which is in the verdict
    files = [*(month.file for month in months), validation.file]
    return build_report(
        model_id=model_id,
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


def find_past(plan: Plan, *, is_made_up: bool) -> list[dict[str, Any]]:
    """Return the RMSE of earlier models on earlier months; nothing if the store fails."""
    try:
        return read_past(plan.cab, plan.validation, is_synthetic=is_made_up)
    except SourceError as error:
        get_run_logger().warning("the RMSE of past months is not shown: %s", error)
        return []


def remark(files: Iterable[MonthFile], report: Report) -> Remarks:
    """Return what is said of a run's files and of drift, and log what is beyond its limits."""
    notices = [notice for file in files for notice in file.notices]
    remarks = Remarks(notices, warn_of_shifts(report.stability, read_settings(StabilityLimits)))
    for warning in remarks.warnings:
        get_run_logger().warning("%s", warning)
    return remarks


def read_flow_day() -> date:
    """Return the day the flow run was scheduled for: a late run takes the months due then."""
    scheduled: datetime | None = flow_run.scheduled_start_time
    return (scheduled or datetime.now(UTC)).date()
