"""The backfill flow: train and validate month by month over a span, as far as not done before.

What is finished is found by its model directory, whose name follows from the months' bytes, the
parameters and the code. So a backfill that was killed goes on where it was, and one over a month
that was published anew does that month again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.task_runners import TaskRunner

from taxi_duration.data.schema import Cab
from taxi_duration.data.tlc import LocalMonths, check_months
from taxi_duration.errors import ModelError, SourceError, TaxiDurationError, hide_credentials
from taxi_duration.evaluation.stability import warn_of_shifts
from taxi_duration.flows import dead_runs
from taxi_duration.flows.backfill_report import ARTIFACT_KEY, Backfill, render_markdown
from taxi_duration.flows.options import (
    Alpha,
    BackfillRunnerName,
    CabName,
    DaskAddress,
    DataDirectory,
    Features,
    ModelsDirectory,
    NoCache,
    Offline,
    TrainMonths,
)
from taxi_duration.flows.pipeline import (
    SUMS_DIRECTORY,
    check_settings,
    describe_run,
    outline_run,
    read_flow_day,
    warn_of_drift,
)
from taxi_duration.flows.plan import Plan
from taxi_duration.flows.progress import BackfillProgress
from taxi_duration.flows.runners import count_workers, open_runner
from taxi_duration.flows.scale_out import (
    Reducing,
    reduce_months,
    submit_champion,
    submit_validation,
)
from taxi_duration.flows.tasks import (
    IN_MEMORY,
    RETRIES,
    CleanMonth,
    build_features,
    log_to_mlflow,
    save_artifacts,
    train_regression,
)
from taxi_duration.flows.turns import take_turn
from taxi_duration.flows.walk_forward import (
    BackfillOptions,
    BackfillPlan,
    FromMonth,
    Step,
    ToMonth,
    list_series,
    plan_backfill,
)
from taxi_duration.model.directory import is_whole, load_model, load_report, locate_model
from taxi_duration.model.model import DurationModel
from taxi_duration.operations.hooks import tell
from taxi_duration.registry import tracking
from taxi_duration.registry.backfill_run import log_backfill
from taxi_duration.registry.registry import Champion, load_champion, settle
from taxi_duration.reports.plots import plot_rmse_by_month
from taxi_duration.reports.render import Remarks
from taxi_duration.settings import StabilityLimits, Thresholds, read_settings


@flow(name="backfill", on_failure=[tell], on_crashed=[tell])
def backfill(
    from_month: FromMonth,
    to_month: ToMonth,
    train_months: TrainMonths = 1,
    cab: CabName = "green",
    data_dir: DataDirectory = Path("data"),
    models_dir: ModelsDirectory = Path("models"),
    features: Features = "extended",
    alpha: Alpha = None,
    offline: Offline = False,
    no_cache: NoCache = False,
    runner: BackfillRunnerName = "threads",
    dask_address: DaskAddress = None,
) -> Backfill:
    """Train on each window of a span of months and validate on the month after it."""
    options = BackfillOptions(
        from_month=from_month,
        to_month=to_month,
        train_months=train_months,
        cab=cab,
        data_dir=data_dir,
        models_dir=models_dir,
        features=features,
        alpha=alpha,
        offline=offline,
        no_cache=no_cache,
        runner=runner,
        dask_address=dask_address,
    )
    plan = prepare(options, read_flow_day())
    months = LocalMonths(plan.common.cab, options.data_dir, options.offline, options.no_cache)
    reducing = Reducing(
        months, plan.common, options.models_dir / SUMS_DIRECTORY, read_settings(Thresholds)
    )
    with take_turn(plan.common.cab):
        return walk_forward(plan, options.models_dir, reducing)


def prepare(options: BackfillOptions, today: date) -> BackfillPlan:
    """Plan a backfill, and refuse one whose months, directories or settings will stop it."""
    plan = plan_backfill(options, today)
    check_settings(options.models_dir)
    if options.dask_address is None:  # else the months are where the workers are
        check_months(plan.common.cab, plan.months, options.data_dir, options.offline, today)
    return plan


def walk_forward(plan: BackfillPlan, models_directory: Path, reducing: Reducing) -> Backfill:
    """Run the tasks of a backfill.

    A runner reduces all months at the same time, and scores the models; the fits, of which each
    takes a solve, are made here one after another, as soon as their months are there.

    Raises:
        TaxiDurationError: a month, or a model's way to the disk or to MLflow, failed; the steps
            before are finished.
    """
    dead_runs.close_dead_runs()
    tracking.close_dead_runs()
    common = plan.common
    champion = find_champion(common.cab)
    progress = BackfillProgress(plan)
    steps: list[Step] = []
    window: deque[CleanMonth] = deque(maxlen=len(common.months))
    pending: deque[Callable[[], Step]] = deque()
    failure: TaxiDurationError | None = None

    def finish_first() -> None:
        steps.append(pending.popleft()())
        progress.count_step(steps[-1])

    with open_runner(common.runner or "threads", common.dask_address) as runner:
        reduced = reduce_months(runner, reducing, plan.months)
        for each in plan.steps:
            try:
                while not window or window[-1].file.month < each.validation:
                    window.append(next(reduced))
                    progress.count_month(window[-1].file.month)
                done = _begin(each, runner, window, models_directory, reducing)
            except TaxiDurationError as error:
                failure = error
                break
            if champion:
                done = _begin_champion(champion, runner, window[-1], reducing, done)
            pending.append(done)
            if len(pending) > count_workers():
                finish_first()
        while pending:
            finish_first()
        if failure:
            raise failure
    plot = plot_rmse_by_month([step.validation for step in steps], list_series(steps))
    try:
        page = log_backfill_to_mlflow(plan, steps, plot)
    except Exception as error:
        publish_backfill(plan, steps, plot, f"none. {hide_credentials(str(error))}")
        raise
    artifact_id = publish_backfill(plan, steps, plot, f"[{page}]({page})")
    return Backfill(plan, tuple(steps), models_directory, page, artifact_id)


def _begin(
    plan: Plan,
    runner: TaskRunner[Any],
    months: Iterable[CleanMonth],
    models_directory: Path,
    reducing: Reducing,
) -> Callable[[], Step]:
    """Fit one training and have it validated, unless its model is there; what is left to do."""
    *train, validated = months
    files = [month.file for month in (*train, validated)]
    outline = outline_run(plan, files, reducing.thresholds)
    notices = [notice for file in files for notice in file.notices]
    directory = locate_model(models_directory, outline, plan.features)
    if not plan.no_cache and is_whole(directory):
        get_run_logger().info(
            "%s: reused, its model was finished before: %s", plan.validation, directory
        )
        return partial(_log, plan, load_model(directory), directory, notices)
    window = build_features(train, plan.features)
    training = train_regression(window.sums, plan.alpha)
    validating = submit_validation(
        runner, reducing, validated.file, training.model, window.baselines
    )

    def finish() -> Step:
        validation = validating.result()
        report = describe_run(plan, train, training, validation, reducing.thresholds)
        directory = save_artifacts(models_directory, training.model, report)
        return _log(plan, training.model, directory, notices)

    return finish


def find_champion(cab: Cab) -> Champion | None:
    """Load the champion to compare models with; say so if there is one that cannot be had."""
    try:
        settle(cab)
        return load_champion(cab)
    except (SourceError, ModelError) as error:
        get_run_logger().warning("models are not compared with the champion: %s", error)
        return None


def _begin_champion(
    champion: Champion,
    runner: TaskRunner[Any],
    validated: CleanMonth,
    reducing: Reducing,
    finish: Callable[[], Step],
) -> Callable[[], Step]:
    """Have the champion scored on a step's validation month; what is left to do of the step."""
    scoring = submit_champion(runner, reducing, validated.file, champion.model)
    is_seen = str(validated.file.month) in champion.months

    def finish_both() -> Step:
        step, version = finish(), champion.version
        rmse = scoring.result()
        return replace(step, champion=rmse, champion_version=version, champion_is_seen=is_seen)

    return finish_both


def _log(plan: Plan, model: DurationModel, directory: Path, notices: Sequence[str]) -> Step:
    report = load_report(directory)
    limits = read_settings(StabilityLimits)
    remarks = Remarks(notices, warn_of_shifts(report["stability"], limits))
    warn_of_drift(remarks)
    # Not a candidate: a backfill ends in the past.
    log_to_mlflow(plan.cab, model, directory, report, remarks.sentences, is_candidate=False)
    baselines = report["baselines"]
    return Step(
        validation=report["validation"]["month"],
        train=tuple(report["train"]["months"]),
        trips=report["validation"]["rows_kept"],
        model=report["validation"]["rmse"],
        zone_pair_median=baselines["zone_pair_median"]["rmse"],
        mean=baselines["mean"]["rmse"],
        champion=None,
        model_id=f"{directory.parent.name}/{directory.name}",
        warnings=tuple(remarks.warnings),
    )


@task(name="log-backfill", **IN_MEMORY, **RETRIES)
def log_backfill_to_mlflow(plan: BackfillPlan, steps: Sequence[Step], plot: bytes) -> str:
    """Log the backfill as one MLflow run; trying again finds what was done."""
    page = log_backfill(plan, steps, plot)
    get_run_logger().info("backfill of %s months is MLflow run %s", len(steps), page)
    return page


@task(name="publish-backfill", **IN_MEMORY)
def publish_backfill(
    plan: BackfillPlan, steps: Sequence[Step], plot: bytes, mlflow_run: str
) -> UUID:
    """Publish the table and the plot as a markdown artifact."""
    best = min(steps, key=lambda step: step.model)
    artifact_id = create_markdown_artifact(
        render_markdown(plan, steps, plot, mlflow_run),
        key=ARTIFACT_KEY,
        description=f"{plan.common.cab.name} {plan.span}: best validation RMSE {best.model:.4f} "
        f"minutes, {best.validation}",
    )
    get_run_logger().info("backfill published as artifact %s", ARTIFACT_KEY)
    return cast(UUID, artifact_id)  # Prefect types it as if it were awaited
