"""The backfill flow: train and validate month by month over a span, as far as not done before.

What is finished is found by its model directory, whose name follows from the training months'
bytes, the parameters and the code. So a backfill that was killed goes on where it was, and one over
a month that was published anew does that month again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.task_runners import TaskRunner

from taxi_duration.data.month import Month, newest_published
from taxi_duration.data.parquet import MonthFile
from taxi_duration.data.schema import Cab, check_month, get_cab
from taxi_duration.data.tlc import LocalMonths, check_months
from taxi_duration.errors import (
    InputError,
    ModelError,
    SourceError,
    TaxiDurationError,
    hide_credentials,
)
from taxi_duration.evaluation.report import Report, load_report
from taxi_duration.evaluation.walk_forward import Step, list_rows, list_series
from taxi_duration.flows.options import BACKFILL_FLOW, BackfillOptions, takes
from taxi_duration.flows.runners import (
    Reducing,
    check_runner,
    count_workers,
    evaluate_champion,
    open_runner,
    reduce_months,
    submit,
    validate_month,
)
from taxi_duration.flows.tasks import (
    IN_MEMORY,
    RETRIES,
    CleanMonth,
    ProgressArtifact,
    build_features,
    log_to_mlflow,
    save_artifacts,
    train_regression,
)
from taxi_duration.flows.train import (
    SUMS_DIRECTORY,
    Plan,
    check_settings,
    describe_run,
    identify_run,
    keep_verdict,
    read_flow_day,
    remark,
)
from taxi_duration.model.directory import is_whole, load_model
from taxi_duration.model.model import DurationModel
from taxi_duration.operations.alerts import tell
from taxi_duration.registry.resolve import FoundModel, load_champion
from taxi_duration.registry.runs import log_backfill
from taxi_duration.reports.plots import plot_rmse_by_month
from taxi_duration.reports.render import make_table, render_backfill_markdown
from taxi_duration.settings import Thresholds, read_settings

ARTIFACT_KEY, PROGRESS_KEY = "backfill-report", "backfill-progress"
FLAGS = {"from_month": "from", "to_month": "to"}
"""On a command line; in Python, `from` is no name."""

MOST_MONTHS = 240


@dataclass(frozen=True)
class BackfillPlan:
    """The trainings of a backfill, by validation month, and every month they need."""

    steps: tuple[Plan, ...]

    @property
    def common(self) -> Plan:
        """A plan with what is the same in all: cab type, features, runner."""
        return self.steps[0]

    @property
    def months(self) -> tuple[Month, ...]:
        first, last = self.steps[0].train[0], self.steps[-1].validation
        return last.window(last.since(first) + 1)

    @property
    def span(self) -> str:
        return f"{self.months[0]} to {self.months[-1]}"

    @property
    def before(self) -> str:
        """The window before each validation month, for a reader."""
        number = len(self.common.train)
        return count_months(number) if number > 1 else "month"

    @property
    def title(self) -> str:
        return f"{self.common.cab.name} backfill {self.span}"


def plan_backfill(options: BackfillOptions, today: date) -> BackfillPlan:
    """Return the trainings of a span; no month outside it is read.

    Raises:
        InputError: no month of the span has enough months before it, or the span is too long,
            reaches before the cab type's first month or beyond the month of `today`.
    """
    first, last = Month.parse(options.from_month), Month.parse(options.to_month)
    cab = get_cab(options.cab)
    check_month(cab, first)
    check_runner(options.runner, options.dask_address)
    if last.since(first) < options.train_months:
        raise InputError(
            f"from {first} to {last} leaves no month to validate a model trained on "
            f"{count_months(options.train_months)}",
            f"give a last month of {first.shift(options.train_months)} or later",
        )
    if last.since(first) >= MOST_MONTHS:
        raise InputError(
            f"from {first} to {last} is {count_months(last.since(first) + 1)}",
            f"give at most {MOST_MONTHS}",
        )
    if last > Month.of(today):
        raise InputError(
            f"last month {last} has not begun",
            f"give one that is published, such as {newest_published(today)}",
        )
    validations = last.window(last.since(first) + 1 - options.train_months)
    return BackfillPlan(tuple(Plan.of(options, validation.shift(-1)) for validation in validations))


def count_months(number: int) -> str:
    """Return the number and the noun, in the plural if it is not one."""
    return f"{number} month{'s' if number > 1 else ''}"


@dataclass(frozen=True)
class Backfill:
    """What a backfill comes to, and where it can be seen."""

    plan: BackfillPlan
    steps: tuple[Step, ...]
    models_directory: Path
    mlflow_page: str
    artifact_id: UUID


@flow(name=BACKFILL_FLOW, on_failure=[tell], on_crashed=[tell])
@takes(BackfillOptions)
def backfill(options: BackfillOptions) -> Backfill:
    """Train on each window of a span of months and validate on the month after it."""
    plan = prepare(options, read_flow_day())
    months = LocalMonths(plan.common.cab, options.data_dir, options.offline, options.no_cache)
    kept = options.models_dir / SUMS_DIRECTORY
    reducing = plan.common.reducing(months, kept, read_settings(Thresholds))
    return walk_forward(plan, options.models_dir, reducing)


def prepare(options: BackfillOptions, today: date) -> BackfillPlan:
    """Plan a backfill, and check its months, directories and settings."""
    plan = plan_backfill(options, today)
    check_settings(options.models_dir)
    if options.dask_address is None:  # else the months are where the workers are
        check_months(plan.common.cab, plan.months, options.data_dir, options.offline, today)
    return plan


class _Progress:
    """An artifact that shows how many of a backfill's months are reduced and its models scored."""

    def __init__(self, plan: BackfillPlan) -> None:
        self._artifact = ProgressArtifact(PROGRESS_KEY)
        self._parts, self._done = len(plan.months) + len(plan.steps), 0
        self._artifact.update(0.0, f"reducing {count_months(len(plan.months))}")

    def count_month(self, month: Month) -> None:
        self._count(f"{month} is reduced")

    def count_step(self, step: Step) -> None:
        self._count(f"{step.validation}: RMSE {step.model:.4f} minutes")

    def _count(self, text: str) -> None:
        self._done += 1
        self._artifact.update(100.0 * self._done / self._parts, text)


def walk_forward(plan: BackfillPlan, models_directory: Path, reducing: Reducing) -> Backfill:
    """Run the tasks of a backfill.

    A runner reduces all months at the same time, and scores the models; the fits, of which each
    takes a solve, are made here one after another, as soon as their months are there.

    Raises:
        TaxiDurationError: a month, or a model's way to the disk or to MLflow, failed; the steps
            before are finished.
    """
    common = plan.common
    champion = find_champion(common.cab)
    progress = _Progress(plan)
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
    """Fit one training and have it validated, unless its model exists; return the rest."""
    *train, validated = months
    files = [month.file for month in (*train, validated)]
    model_id = identify_run(plan, files[:-1])
    directory = models_directory / model_id
    if not plan.no_cache and is_whole(directory):
        report = load_report(directory)
        # A month that was published anew, or another contract, validates the same model anew.
        if report.inputs == {file.path.name: file.sha256 for file in files} and (
            report.thresholds == reducing.thresholds.model_dump()
        ):
            get_run_logger().info(
                "%s: reused, its model was finished before: %s", plan.validation, directory
            )
            return partial(_log, plan, load_model(directory), directory, report, files)
    window = build_features(train, plan.features)
    training = train_regression(window.sums, plan.alpha)
    validating = submit(
        runner,
        validate_month,
        reducing,
        file=validated.file,
        model=training.model,
        baselines=window.baselines,
    )

    def finish() -> Step:
        validation = validating.result()
        report = describe_run(plan, model_id, train, training, validation, reducing.thresholds)
        report = keep_verdict(report, directory)
        save_artifacts(models_directory, training.model, report)
        return _log(plan, training.model, directory, report, files)

    return finish


def find_champion(cab: Cab) -> FoundModel | None:
    """Return the champion to compare models with; log why it cannot be loaded."""
    try:
        return load_champion(cab)
    except (SourceError, ModelError) as error:
        get_run_logger().warning("models are not compared with the champion: %s", error)
        return None


def _begin_champion(
    champion: FoundModel,
    runner: TaskRunner[Any],
    validated: CleanMonth,
    reducing: Reducing,
    finish: Callable[[], Step],
) -> Callable[[], Step]:
    """Have the champion evaluated on a step's month; return what is left to do of the step."""
    scoring = submit(
        runner, evaluate_champion, reducing, file=validated.file, champion=champion.model
    )
    is_seen = str(validated.file.month) in champion.months

    def finish_both() -> Step:
        step, version = finish(), champion.version
        rmse = scoring.result()
        return replace(step, champion=rmse, champion_version=version, champion_is_seen=is_seen)

    return finish_both


def _log(
    plan: Plan,
    model: DurationModel,
    directory: Path,
    report: Report,
    files: Sequence[MonthFile],
) -> Step:
    remarks = remark(files, report)
    # Not a candidate: a backfill ends in the past.
    log_to_mlflow(plan.cab, model, directory, report, remarks.sentences, is_candidate=False)
    baselines = report.baselines
    return Step(
        validation=report.validation.month,
        train=tuple(report.train.months),
        trips=report.validation.rows_kept,
        model=report.validation.rmse,
        zone_pair_median=baselines["zone_pair_median"].rmse,
        mean=baselines["mean"].rmse,
        champion=None,
        model_id=f"{directory.parent.name}/{directory.name}",
        warnings=tuple(remarks.warnings),
    )


@task(name="log-backfill", **IN_MEMORY, **RETRIES)
def log_backfill_to_mlflow(plan: BackfillPlan, steps: Sequence[Step], plot: bytes) -> str:
    """Log the backfill as one MLflow run; trying again finds what was done."""
    common, months = plan.common, plan.months
    page = log_backfill(
        plan.title,
        {
            "cab": common.cab.name,
            "features": common.features.name,
            "alphas": ",".join(f"{alpha:g}" for alpha in common.alphas),
            "from": str(months[0]),
            "to": str(months[-1]),
            "train_months": str(len(common.train)),
        },
        [asdict(step) for step in steps],
        list_series(steps),
        make_table(*list_rows(steps)),
        plot,
    )
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


def render_markdown(plan: BackfillPlan, steps: Sequence[Step], plot: bytes, mlflow_run: str) -> str:
    """Return the markdown shown in Prefect: the plot, which it holds itself, and the table."""
    common = plan.common
    header, rows = list_rows(steps)
    return render_backfill_markdown(
        title=f"{common.cab.name}, {plan.span}",
        trained=f"with {common.features.name} features, trained on the {plan.before} before it",
        plot=plot,
        header=header,
        rows=rows,
        warnings=[warning for step in steps for warning in step.warnings],
        mlflow_run=mlflow_run,
    )
