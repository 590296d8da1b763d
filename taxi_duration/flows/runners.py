"""Months reduced at the same time, on the run's own threads or on a Dask cluster.

A month is fetched, verified and reduced where its task runs. Only its sums come back, so a machine
of a cluster needs a place for months on its own disk, and nothing of it is shared.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from prefect import get_run_logger, task
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task

from taxi_duration.data.month import Month
from taxi_duration.data.parquet import MonthFile, check_rows_against_earlier
from taxi_duration.data.schema import Cab
from taxi_duration.data.transfer import Progress
from taxi_duration.errors import DataError, InputError, RunnerError, hide_credentials
from taxi_duration.evaluation.evaluate import evaluate_predictors
from taxi_duration.evaluation.residuals import CHAMPION
from taxi_duration.files import flush_to_disk, stage
from taxi_duration.flows.server import is_temporary
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
from taxi_duration.model.features import FeatureSet
from taxi_duration.model.model import DurationModel
from taxi_duration.model.training import TRAINING_CODE
from taxi_duration.settings import LOOPBACK, Thresholds
from taxi_duration.version import identify_code

Result = TypeVar("Result")

DASK_REQUIREMENT = "prefect-dask>=0.3.7,<1"

CONNECT_SECONDS = 10
"""How long a Dask scheduler may take to answer."""

AHEAD = 16
"""How many months are being reduced, or are done and wait for their turn. Enough for the workers of
a small cluster, and few enough that those waiting take little memory."""

DASK_LOG_LEVELS = {
    "distributed": logging.WARNING,  # its default tells of each connection
    "distributed.client": logging.CRITICAL,  # what it says is raised as well
    "distributed.nanny": logging.ERROR,  # it warns of each worker that is slow to end
}

stopped = Event()
"""Set in a run that was asked to stop, for its threads, which nothing can end from outside."""


def check_runner(runner: str | None, dask_address: str | None) -> None:
    """Check that a Dask address comes with the dask runner, and that Dask is installed for it.

    Raises:
        InputError: one of them is not so.
    """
    if dask_address and runner != "dask":
        raise InputError(f"dask_address {dask_address} is given", "give runner dask with it")
    if runner == "dask" and find_spec("prefect_dask") is None:
        raise InputError(
            "runner dask needs prefect-dask, which is not installed",
            f"pip install {DASK_REQUIREMENT!r}, on the workers too, or give another runner",
        )


@contextmanager
def open_runner(name: str, dask_address: str | None) -> Iterator[TaskRunner[Any]]:
    """Start a task runner with `count_workers()` workers and yield it.

    Args:
        name: threads or dask.
        dask_address: the scheduler of an existing cluster; None starts one on loopback.

    Raises:
        InputError: the cluster's workers could not reach this run's Prefect server.
        RunnerError: the scheduler does not answer, or its workers died or cannot import a task.
    """
    if name == "dask":
        with _open_dask(dask_address) as runner:
            yield runner
        return
    stopped.clear()
    threads: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=count_workers())
    with threads:
        try:
            yield threads
        except Exception:
            raise
        except BaseException:
            stopped.set()  # before the pool waits for its tasks
            raise


@contextmanager
def _open_dask(address: str | None) -> Iterator[TaskRunner[Any]]:
    if address:
        check_reachable(address, None if is_temporary() else PREFECT_API_URL.value())
    from distributed import KilledWorker
    from prefect_dask.task_runners import DaskTaskRunner

    for logger, level in DASK_LOG_LEVELS.items():
        logging.getLogger(logger).setLevel(level)
    started_here = {
        "n_workers": count_workers(),
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        # Without one it takes port 8787 all the same, or warns that somebody else has.
        "dashboard_address": "127.0.0.1:0",
    }
    runner = DaskTaskRunner(
        address=address,
        cluster_kwargs=None if address else started_here,
        client_kwargs={"timeout": CONNECT_SECONDS},
    )
    scheduler = f"Dask scheduler {address or 'of this run'}"
    again = "and run again; what is done is kept"
    try:
        with runner:
            try:
                client = runner.client  # connects
            except OSError as error:
                raise RunnerError(
                    f"{scheduler} does not answer within {CONNECT_SECONDS} s",
                    "start it (dask scheduler), or check dask_address",
                ) from error
            if not client.scheduler_info()["workers"]:
                get_run_logger().warning(
                    "%s has no worker: the run waits for one (dask worker %s)", scheduler, address
                )
            yield runner
    except KilledWorker as error:
        raise RunnerError(
            f"Dask gave a task up, whose workers died one after the other ({error})",
            f"look at their logs and memory, {again}",
        ) from error
    except CancelledError as error:
        raise RunnerError(
            f"{scheduler} ended, or lost a task ({error})", f"look at its log, start it, {again}"
        ) from error
    except (ImportError, RuntimeError) as error:
        # Dask raises a RuntimeError for a task that it cannot read.
        reason = error.__cause__ if isinstance(error, RuntimeError) else error
        if not isinstance(reason, ImportError):
            raise
        raise RunnerError(
            f"the runner cannot import what a task needs ({reason})",
            "start the Dask scheduler and its workers in the checkout, by python -m dask, with the "
            "same requirements.lock",
        ) from error


def check_reachable(dask_address: str, prefect_server: str | None) -> None:
    """Check that the tasks of a cluster on another machine would find the Prefect server.

    Raises:
        InputError: the server is on this machine only.
    """
    if urlsplit(dask_address).hostname in LOOPBACK:
        return
    if prefect_server is None or urlsplit(prefect_server).hostname in LOOPBACK:
        server = "not set" if prefect_server is None else hide_credentials(prefect_server)
        raise InputError(
            f"dask_address {dask_address} is on another machine, and PREFECT_API_URL is {server}",
            "set it to an address of a Prefect server that its workers reach",
        )


def count_workers() -> int:
    """Return the cores that this process may use, or the machine's where the system cannot say.

    Two if there is one, so that a month is fetched while another is reduced.
    """
    if hasattr(os, "sched_getaffinity"):
        return max(2, len(os.sched_getaffinity(0)))
    return max(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class Reducing:
    """What reducing a month takes, wherever that is done.

    Args:
        kept: directory of months' sums; a relative one is below where the task runs.
        fresh: whether to use no sums that are there already.
        is_elsewhere: whether tasks may run on a machine with another disk.
    """

    locate: Locate
    cab: Cab
    features: FeatureSet
    kept: Path
    thresholds: Thresholds
    fresh: bool
    is_elsewhere: bool

    def fetch(self, month: Month) -> MonthFile:
        """Return the month's file where the task runs; give up once the run is stopped."""

        def locate(month: Month, report: Progress | None) -> MonthFile:
            def tell(received: int, total: int | None) -> None:
                if stopped.is_set():
                    raise RunnerError(f"{month} was not fetched", "the run was stopped")
                if report:
                    report(received, total)

            return self.locate(month, tell)

        return download_month.fn(locate, month)


@dataclass(frozen=True)
class ReducedMonth:
    """A month's sums where they were computed, and their bytes if that may be another machine."""

    month: CleanMonth
    sums: bytes | None


def submit(
    runner: TaskRunner[Any], run: Task[..., Result], reducing: Reducing, **parameters: object
) -> PrefectFuture[Result]:
    """Have a runner run one of the tasks below, if its workers have this process's code."""
    given = {"code": identify_code(TRAINING_CODE), "reducing": reducing, **parameters}
    return cast("PrefectFuture[Result]", runner.submit(run, given))


def reduce_months(
    runner: TaskRunner[Any], reducing: Reducing, months: Sequence[Month]
) -> Iterator[CleanMonth]:
    """Have a runner reduce months, `AHEAD` at a time, and yield each in order as it is done.

    Their sums are then in this machine's `reducing.kept`.

    Raises:
        DataError, SourceError, StorageError: as `download_month` and `clean_month`.
        RunnerError: the workers died or run other code.
    """
    begun: deque[PrefectFuture[ReducedMonth]] = deque()
    for month in months:
        begun.append(submit(runner, reduce_month, reducing, month=month))
        if len(begun) == AHEAD:
            yield _receive(begun.popleft().result(), reducing.kept)
    while begun:
        yield _receive(begun.popleft().result(), reducing.kept)


def _receive(reduced: ReducedMonth, kept: Path) -> CleanMonth:
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


@task(name="reduce-month", task_run_name="reduce-{month}", **IN_MEMORY, **RETRIES)
def reduce_month(code: str, reducing: Reducing, month: Month) -> ReducedMonth:
    """Download, clean and sum a month, as the tasks of those names do.

    Args:
        code: `identify_code(TRAINING_CODE)` of the process that asks.
    """
    check_code(code)
    file = reducing.fetch(month)
    check_rows_against_earlier(file.path, reducing.cab, month, reducing.thresholds)
    clean = clean_month.fn(
        file,
        reducing.cab,
        reducing.features,
        reducing.kept,
        reducing.thresholds,
        fresh=reducing.fresh,
    )
    return ReducedMonth(clean, clean.sums.read_bytes() if reducing.is_elsewhere else None)


@task(name="validate-month", task_run_name="validate-{file.month}", **IN_MEMORY, **RETRIES)
def validate_month(
    code: str, reducing: Reducing, file: MonthFile, model: DurationModel, baselines: Baselines
) -> Validation:
    """Evaluate a model on a month where the task runs, as `validate` does.

    Args:
        file: as `reduce_months` found it, perhaps on another machine.

    Raises:
        DataError: the month has other bytes here.
    """
    check_code(code)
    here = _find_again(reducing, file)
    validation = validate.fn(model, baselines, here, reducing.cab, reducing.thresholds)
    return replace(validation, file=file)


@task(name="score-champion", task_run_name="champion-{file.month}", **IN_MEMORY, **RETRIES)
def evaluate_champion(
    code: str, reducing: Reducing, file: MonthFile, champion: DurationModel
) -> float:
    """Return the champion's RMSE (minutes) on a month's trips, where the task runs.

    Args and Raises as `validate_month`.
    """
    check_code(code)
    here = _find_again(reducing, file)
    predictors = {CHAMPION: champion.predict_clean}
    scores = evaluate_predictors(predictors, here.path, reducing.cab, here.month)
    return scores.errors[CHAMPION].rmse


def _find_again(reducing: Reducing, file: MonthFile) -> MonthFile:
    """Return the file, on this machine's disk, of a month that was reduced elsewhere."""
    if not reducing.is_elsewhere:
        return file
    here = reducing.fetch(file.month)
    if here.sha256 != file.sha256:
        raise DataError(
            f"{file.month} has sha256 {here.sha256} here and had {file.sha256} a moment ago, as "
            "it was published anew or workers hold files of their own that differ",
            "run again, or delete those files",
        )
    return here


def check_code(code: str) -> None:
    """Check that this process has the code of the process that asks.

    Raises:
        RunnerError: it has other code, whose figures would differ.
    """
    if code != identify_code(TRAINING_CODE):
        raise RunnerError(
            "this worker's taxi_duration, or a library it computes with, is not of the version "
            "that asks",
            "bring every worker to the same checkout and requirements.lock, and restart it",
        )
