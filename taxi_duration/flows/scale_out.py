"""Months reduced at the same time: in threads, in processes, or on a Dask cluster.

A month is fetched, verified and reduced where its task runs. Only its sums come back, so a machine
of a cluster needs a place for months on its own disk, and nothing of it is shared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import task
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner
from prefect.tasks import Task

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile, check_rows_against_earlier
from taxi_duration.data.transfer import Progress
from taxi_duration.errors import DataError, RunnerError
from taxi_duration.evaluation.evaluate import evaluate_predictors
from taxi_duration.files import flush_to_disk, stage
from taxi_duration.flows.plan import Plan
from taxi_duration.flows.runners import name_import_errors, stopped
from taxi_duration.flows.tasks import (
    IN_MEMORY,
    RETRIES,
    CleanMonth,
    Locate,
    Validation,
    clean_month,
    download_month,
    validate,
)
from taxi_duration.model.baselines import Baselines
from taxi_duration.model.directory import TRAINING_CODE
from taxi_duration.model.model import DurationModel
from taxi_duration.settings import Thresholds
from taxi_duration.version import identify_code

Result = TypeVar("Result")

AHEAD = 16
"""How many months are being reduced, or are done and wait for their turn. Enough for the workers of
a small cluster, and few enough that those waiting take little memory."""


@dataclass(frozen=True)
class Reducing:
    """What reducing a month takes, wherever that is done.

    Args:
        kept: directory of months' sums; a relative one is below where the task runs.
    """

    locate: Locate
    plan: Plan
    kept: Path
    thresholds: Thresholds


@dataclass(frozen=True)
class ReducedMonth:
    """A month's sums where they were computed, and their bytes if that may be another machine."""

    month: CleanMonth
    sums: bytes | None


def reduce_months(
    runner: TaskRunner[Any], reducing: Reducing, months: Sequence[Month]
) -> Iterator[CleanMonth]:
    """Have months reduced by a runner, some `AHEAD`, and lend each in order as it is done.

    Their sums are then in this machine's `reducing.kept`.

    Raises:
        DataError, SourceError, StorageError: as `download_month` and `clean_month`.
        RunnerError: the workers died or run other code.
    """
    begun: deque[PrefectFuture[ReducedMonth]] = deque()
    for month in months:
        begun.append(_submit(runner, reduce_month, reducing=reducing, month=month))
        if len(begun) == AHEAD:
            yield _receive_first(begun, reducing.kept)
    while begun:
        yield _receive_first(begun, reducing.kept)


def _receive_first(begun: deque[PrefectFuture[ReducedMonth]], kept: Path) -> CleanMonth:
    with name_import_errors():
        reduced = begun.popleft().result()
    return receive_month(reduced, kept)


@dataclass(frozen=True)
class Stoppable:
    """Brings a month as `locate` does, and gives up at the next bytes once the run is stopped."""

    locate: Locate

    def __call__(self, month: Month, report: Progress | None = None) -> MonthFile:
        def tell(received: int, total: int | None) -> None:
            if stopped.is_set():
                raise RunnerError(f"{month} was not fetched: the run was stopped.")
            if report:
                report(received, total)

        return self.locate(month, tell)


@task(name="reduce-month", task_run_name="reduce-{month}", **IN_MEMORY, **RETRIES)
def reduce_month(reducing: Reducing, month: Month, code: str) -> ReducedMonth:
    """Download, clean and sum a month, as the tasks of those names do.

    Args:
        code: `identify_code(TRAINING_CODE)` of the process that asks.
    """
    check_code(code)
    plan = reducing.plan
    file = download_month.fn(Stoppable(reducing.locate), month)
    check_rows_against_earlier(file.path, plan.cab, month, reducing.thresholds)
    clean = clean_month.fn(
        file, plan.cab, plan.features, reducing.kept, reducing.thresholds, fresh=plan.no_cache
    )
    return ReducedMonth(clean, clean.sums.read_bytes() if plan.runner == "dask" else None)


@task(name="validate-month", task_run_name="validate-{file.month}", **IN_MEMORY, **RETRIES)
def validate_month(
    reducing: Reducing, file: MonthFile, model: DurationModel, baselines: Baselines, code: str
) -> Validation:
    """Score a model on a month where the task runs, as `validate` does.

    Args:
        file: as `reduce_months` found it, perhaps on another machine.

    Raises:
        DataError: the month has other bytes here.
    """
    check_code(code)
    here = _find_again(reducing, file)
    validation = validate.fn(model, baselines, here, reducing.plan.cab, reducing.thresholds)
    return replace(validation, file=file)


@task(name="score-champion", task_run_name="champion-{file.month}", **IN_MEMORY, **RETRIES)
def score_champion(
    reducing: Reducing, file: MonthFile, champion: DurationModel, code: str
) -> float:
    """The champion's RMSE (minutes) on a month's trips, where the task runs.

    Args and Raises as `validate_month`.
    """
    check_code(code)
    here = _find_again(reducing, file)
    scores = evaluate_predictors(
        {"champion": champion.predict_clean}, here.path, reducing.plan.cab, here.month
    )
    return scores.errors["champion"].rmse


def _find_again(reducing: Reducing, file: MonthFile) -> MonthFile:
    """A month that was reduced, perhaps on another machine, on this one's disk."""
    if reducing.plan.runner != "dask":
        return file
    here = download_month.fn(Stoppable(reducing.locate), file.month)
    if here.sha256 != file.sha256:
        raise DataError(
            f"{file.month} has sha256 {here.sha256} here and had {file.sha256} a moment ago: it "
            "was published anew, or workers hold files of their own that differ. Run again, or "
            "delete those files."
        )
    return here


def submit_validation(
    runner: TaskRunner[Any],
    reducing: Reducing,
    file: MonthFile,
    model: DurationModel,
    baselines: Baselines,
) -> PrefectFuture[Validation]:
    """Have a runner score a model on a month that `reduce_months` found."""
    return _submit(
        runner, validate_month, reducing=reducing, file=file, model=model, baselines=baselines
    )


def submit_champion(
    runner: TaskRunner[Any], reducing: Reducing, file: MonthFile, champion: DurationModel
) -> PrefectFuture[float]:
    """Have a runner score the champion on a month that `reduce_months` found."""
    return _submit(runner, score_champion, reducing=reducing, file=file, champion=champion)


def _submit(
    runner: TaskRunner[Any], run: Task[..., Result], **parameters: object
) -> PrefectFuture[Result]:
    """Have a runner run a task, if its workers have this process's code."""
    submitted = runner.submit(run, {**parameters, "code": identify_code(TRAINING_CODE)})
    return cast("PrefectFuture[Result]", submitted)


def receive_month(reduced: ReducedMonth, kept: Path) -> CleanMonth:
    """Keep sums that came from elsewhere as if they had been computed here."""
    if reduced.sums is None:
        return reduced.month
    path = kept / reduced.month.sums.name
    with stage(kept, path.name) as scratch:
        written = scratch / path.name
        written.write_bytes(reduced.sums)
        flush_to_disk(written)
        written.replace(path)
    return replace(reduced.month, sums=path)


def check_code(code: str) -> None:
    """Refuse to compute for a process that runs other code, whose figures would differ.

    Raises:
        RunnerError: as said.
    """
    if code != identify_code(TRAINING_CODE):
        raise RunnerError(
            "this worker's taxi_duration, or a library it computes with, is not of the version "
            "that asks: bring every worker to the same checkout and requirements.lock, and "
            "restart it."
        )
