"""The tasks a training run is made of.

Each is a function of another module plus one line to Prefect's log. What passes between tasks
is small: paths, sums, a model. Every task is IN_MEMORY, since the default cache policy would hash
its inputs, and a server may be set to persist results.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, task_run
from prefect.tasks import exponential_backoff
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar

from taxi_duration.data.clean import RowFunnel
from taxi_duration.data.month import Month
from taxi_duration.data.parquet import (
    MonthFile,
    check_funnel,
    check_unchanged,
    find_drift,
    is_synthetic,
)
from taxi_duration.data.schema import Cab
from taxi_duration.data.transfer import Progress
from taxi_duration.errors import ModelError, SourceError, TransientSourceError
from taxi_duration.evaluation.evaluate import evaluate_predictors
from taxi_duration.evaluation.gate import Opponent, Verdict, judge
from taxi_duration.evaluation.report import Report, check_finite, dump_report
from taxi_duration.evaluation.residuals import CHAMPION, MODEL, ErrorAnalysis
from taxi_duration.model.baselines import Baselines, ZonePairMedians
from taxi_duration.model.directory import (
    CARD_FILE,
    PAGE_FILE,
    REPORT_FILE,
    save_model,
)
from taxi_duration.model.features import FeatureSet
from taxi_duration.model.model import DurationModel
from taxi_duration.model.month_sums import Profile, load_sums, recall_month
from taxi_duration.model.tables import Tables
from taxi_duration.model.training import Training, Window, fit_window, sum_window
from taxi_duration.registry.champion import Promotion, promote_candidate
from taxi_duration.registry.resolve import FoundModel, load_champion
from taxi_duration.registry.runs import REGISTERED_MODEL, TrackedRun, log_training
from taxi_duration.regression.metrics import Evaluation
from taxi_duration.reports.render import (
    Remarks,
    explain_promotion,
    render_html,
    render_markdown,
    render_model_card,
)
from taxi_duration.settings import GateSettings, Thresholds

Locate = Callable[[Month, Progress | None], MonthFile]
"""Brings a month to the local disk; the second argument is told of the bytes that arrive."""

ARTIFACT_KEY = "duration-model-report"


@dataclass(frozen=True)
class CleanMonth:
    """What is left of a training month: its sums on this disk, and what is small.

    `drift` says what is new about its columns. The file may lie on another machine.
    """

    file: MonthFile
    sums: Path
    funnel: RowFunnel
    medians: ZonePairMedians
    profile: Profile
    drift: tuple[str, ...]


@dataclass(frozen=True)
class TrainingWindow:
    """The training months' sums, and what the baselines know: their mean, the last one's medians.

    Medians do not add up; those of the whole window would need its trips again.
    """

    sums: Window
    baselines: Baselines


@dataclass(frozen=True)
class Validation:
    """Errors by predictor, `model` among them, on the trips of a month that its row funnel kept.

    The champion is among them too, if there is one.
    """

    file: MonthFile
    errors: Mapping[str, Evaluation]
    funnel: RowFunnel
    profile: Profile
    analysis: ErrorAnalysis
    drift: tuple[str, ...]


def is_transient(_task: Any, _task_run: Any, state: State[Any]) -> bool:
    """Return whether a failed task is worth another try."""
    return isinstance(state.result(raise_on_failure=False), TransientSourceError)


IN_MEMORY: Any = {"cache_policy": NO_CACHE, "persist_result": False}
RETRIES: Any = {
    "retries": 4,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 1,
    "retry_condition_fn": is_transient,
}
"""About 2, 4, 8 and 16 seconds, each up to doubled by jitter."""


DOWNLOAD_KEY, SCORING_KEY = "download-progress", "scoring-progress"
COLUMNS: dict[str, tuple[type[ProgressColumn], ...]] = {
    DOWNLOAD_KEY: (DownloadColumn, TransferSpeedColumn),
    SCORING_KEY: (MofNCompleteColumn, TimeRemainingColumn),
}
"""By the artifact's key, what the bar on a terminal shows beside it: bytes, or rows."""

ARTIFACT_SECONDS = 2.0
"""Between updates of the artifact, each of which is a request."""


@contextmanager
def show_progress(what: str, key: str = DOWNLOAD_KEY) -> Iterator[Progress | None]:
    """Yield what a transfer reports its bytes to, or a prediction its rows; None if nobody looks.

    A deployment shows an artifact, a terminal a bar. Downloads in several threads show no bar.
    """
    if deployment.id:
        yield _update_artifact(what, key)
    elif sys.stderr.isatty() and threading.current_thread() is threading.main_thread():
        columns = (TextColumn(what), BarColumn(), *(column() for column in COLUMNS[key]))
        bar = Bar(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(what, total=None)

        def report(received: int, total: int | None) -> None:
            bar.start()  # not before: often nothing has to come, and a bar would only flash
            bar.update(task, completed=received, total=total)

        try:
            yield report
        finally:
            bar.stop()
    else:
        yield None


def _update_artifact(what: str, key: str) -> Progress:
    shown = ProgressArtifact(key)
    updated = 0.0

    def report(received: int, total: int | None) -> None:
        nonlocal updated
        now = time.monotonic()
        is_due = now - updated >= ARTIFACT_SECONDS or received == total
        if total and is_due:
            updated = now
            shown.update(100.0 * received / total, what)

    return report


class ProgressArtifact:
    """An artifact in Prefect that shows a percentage and a text, created at the first update.

    It must not end a run: once an update fails, a warning is logged and nothing more is shown.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._artifact: UUID | None = None
        self._is_failing = False

    def update(self, percent: float, text: str) -> None:
        if self._is_failing:
            return
        try:
            if self._artifact is None:
                # Prefect types both calls as if they were awaited.
                made = create_progress_artifact(percent, key=self._key, description=text)
                self._artifact = cast(UUID, made)
            else:
                update_progress_artifact(self._artifact, percent, description=text)
        except Exception as error:
            self._is_failing = True
            get_run_logger().warning("progress is not shown: %s", error)


@task(name="download-month", task_run_name="download-{month}", **IN_MEMORY, **RETRIES)
def download_month(locate: Locate, month: Month) -> MonthFile:
    """Return the month's file on the local disk, fetched or verified."""
    log = get_run_logger()
    try:
        with show_progress(f"download {month}") as report:
            file = locate(month, report)
    except TransientSourceError as error:
        if error.wait_seconds and task_run.run_count <= RETRIES["retries"]:
            log.warning("waiting %.0f s, as the server asks", error.wait_seconds)
            time.sleep(error.wait_seconds)
        raise
    log.info(
        "%s is %s, %s, sha256 %s",
        month,
        file.path,
        "reused as it is here" if file.was_there else "fetched",
        file.sha256,
    )
    for notice in file.notices:
        log.warning("%s", notice)
    return file


@task(name="clean-trips", task_run_name="clean-{file.month}", **IN_MEMORY)
def clean_month(
    file: MonthFile,
    cab: Cab,
    features: FeatureSet,
    kept: Path,
    thresholds: Thresholds,
    *,
    fresh: bool = False,
) -> CleanMonth:
    """Read a month, keep the trips a model may learn from, and keep their sums.

    Args:
        kept: directory of months' sums; with `fresh` none that are there already are used.
    """
    month = recall_month(
        kept,
        file.path,
        features,
        cab,
        file.month,
        sha256=file.sha256,
        with_medians=True,
        thresholds=thresholds,
        fresh=fresh,
    )
    if month.was_there:
        get_run_logger().info("%s: sums of the same bytes reused from %s", file.month, month.path)
    drift = log_drift(file, cab)
    get_run_logger().info("%s: %s", file.month, month.sums.funnel)
    medians = cast(ZonePairMedians, month.sums.medians)
    profile = cast(Profile, month.sums.profile)
    return CleanMonth(file, month.path, month.sums.funnel, medians, profile, drift)


def log_drift(file: MonthFile, cab: Cab) -> tuple[str, ...]:
    """Log what is new about a month's columns, and return it."""
    drift = find_drift(file.path, cab)
    for sentence in drift:
        get_run_logger().warning("%s: %s", file.path.name, sentence)
    return drift


@task(name="build-features", **IN_MEMORY)
def build_features(months: Sequence[CleanMonth], features: FeatureSet) -> TrainingWindow:
    """Add the months' sums."""

    def load(month: CleanMonth) -> list[Tables]:
        return load_sums(month.sums, features).tables

    sums = sum_window(features, [partial(load, month) for month in months])
    trips = sum(month.funnel.rows_kept for month in months)
    get_run_logger().info(
        "%s features: %s trips x %s columns", features.name, f"{trips:,}", sums.columns
    )
    return TrainingWindow(sums, Baselines(sums.mean_minutes, months[-1].medians))


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
    model: DurationModel,
    baselines: Baselines,
    file: MonthFile,
    cab: Cab,
    thresholds: Thresholds,
    champion: FoundModel | None = None,
) -> Validation:
    """Score the model, its baselines and the champion on the validation month."""
    predictors = {MODEL: model.predict_clean, **baselines.predictors}
    if champion:
        predictors[CHAMPION] = champion.model.predict_clean
    scores = evaluate_predictors(predictors, file.path, cab, file.month, in_detail=True)
    errors, funnel = scores.errors, scores.funnel
    check_unchanged(file.path, file.sha256)
    check_funnel(file.path, funnel, thresholds)
    drift = log_drift(file, cab)
    get_run_logger().info("%s: %s", file.month, funnel)
    get_run_logger().info(
        "validation RMSE %.6f minutes on %s trips (zone-pair median %.4f, mean %.4f)",
        errors[MODEL].rmse,
        f"{errors[MODEL].rows:,}",
        errors["zone_pair_median"].rmse,
        errors["mean"].rmse,
    )
    return Validation(file, errors, funnel, scores.profile, scores.analysis, drift)


@dataclass(frozen=True)
class Challenge:
    """A candidate's champion to beat.

    Args:
        champion: None if there is none.
        unavailable: why it could not be had, if that is why there is none.
        is_champion: whether this training is the champion already, and faces nobody.
    """

    champion: FoundModel | None = None
    unavailable: str | None = None
    is_champion: bool = False

    @property
    def opponent(self) -> Opponent | None:
        """The champion without its model."""
        champion = self.champion
        if champion is None or champion.version is None:
            return None
        return Opponent(champion.version, champion.model_id, champion.months, champion.is_synthetic)


@task(name="find-champion", **IN_MEMORY, **RETRIES)
def find_challenge(cab: Cab, model_id: str) -> Challenge:
    """Find out whom a training faces; one that is champion already faces nobody.

    Args:
        model_id: the training's identity.

    Raises:
        TransientSourceError: the store is locked or does not answer.
    """
    try:
        champion = load_champion(cab)
    except TransientSourceError:
        raise
    except (SourceError, ModelError) as error:
        get_run_logger().warning("no champion to compare with: %s", error)
        return Challenge(unavailable=str(error))
    if champion and champion.model_id == model_id:
        get_run_logger().info("this training is champion already, version %s", champion.version)
        return Challenge(is_champion=True)
    return Challenge(champion)


@task(name="judge-candidate", **IN_MEMORY)
def judge_candidate(
    months: Sequence[Month], validation: Validation, challenge: Challenge, settings: GateSettings
) -> Verdict:
    """Have the gate say whether the model becomes champion."""
    verdict = judge(
        validation.errors,
        validation.analysis,
        [str(month) for month in months],
        settings,
        challenge.opponent,
        challenge.unavailable,
        is_synthetic=is_synthetic(validation.file.path.name),
    )
    bootstrap = verdict.bootstrap
    if bootstrap and bootstrap.lowest is not None:
        get_run_logger().info(
            "RMSE is %.2f%% below the champion's, at least %.2f%% with a confidence of %g%%",
            100 * bootstrap.improvement,
            100 * bootstrap.lowest,
            100 * settings.confidence,
        )
    get_run_logger().info("gate: %s", verdict)
    return verdict


@task(name="promote-champion", **IN_MEMORY, **RETRIES)
def promote_champion(cab: Cab, tracked: TrackedRun, report: Report) -> Promotion:
    """Make a model champion that the gate found better; trying again finds what was done."""
    champion = report.champion
    promotion = promote_candidate(
        cab,
        version=tracked.version,
        model_id=report.model_id,
        against=champion.model_id if champion else None,
        reason=explain_promotion(report) if report.gate else "",
    )
    get_run_logger().info("%s", promotion)
    return promotion


@task(name="save-artifacts", **IN_MEMORY)
def save_artifacts(models_directory: Path, model: DurationModel, report: Report) -> Path:
    """Write the model directory, whole; a model that is there of the same training stays."""
    check_finite(report)
    files = {
        REPORT_FILE: dump_report(report),
        PAGE_FILE: render_html(report).encode(),
        CARD_FILE: render_model_card(report).encode(),
    }
    directory = save_model(models_directory, report.model_id, model, files)
    get_run_logger().info("model and report are in %s", directory)
    return directory


@task(name="upload-artifacts", **IN_MEMORY, **RETRIES)
def upload_artifacts(upload: Callable[[Path], str], directory: Path) -> str:
    """Copy the model directory to where the flow keeps models."""
    location = upload(directory)
    get_run_logger().info("uploaded %s to %s", directory, location)
    return location


@task(name="log-to-mlflow", **IN_MEMORY, **RETRIES)
def log_to_mlflow(
    cab: Cab,
    model: DurationModel,
    directory: Path,
    report: Report,
    notices: Sequence[str],
    *,
    is_candidate: bool = True,
) -> TrackedRun:
    """Log the run to MLflow; trying again finds what was done."""
    tracked = log_training(cab, model, directory, report, notices, is_candidate=is_candidate)
    get_run_logger().info(
        "MLflow run %s in %s is version %s of %s",
        tracked.run_id,
        tracked.tracking_uri,
        tracked.version,
        REGISTERED_MODEL,
    )
    return tracked


@task(name="publish-report", **IN_MEMORY)
def publish_report(report: Report, mlflow_run: str, model_location: str, remarks: Remarks) -> UUID:
    """Publish the report as a markdown artifact, the same for both flows.

    Args:
        mlflow_run: a link to it, or why there is none.
    """
    artifact_id = create_markdown_artifact(
        render_markdown(report, mlflow_run, model_location, remarks),
        key=ARTIFACT_KEY,
        description=f"{report.cab} {report.train.months[-1]}: validation RMSE "
        f"{report.validation.rmse:.4f} minutes",
    )
    get_run_logger().info("report published as artifact %s", ARTIFACT_KEY)
    return cast(UUID, artifact_id)  # Prefect types it as if it were awaited
