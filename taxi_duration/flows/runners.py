"""Task runners: a run's own threads, processes of its own, or a Dask cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

from prefect import get_run_logger
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from taxi_duration.errors import InputError, RunnerError, hide_credentials
from taxi_duration.flows.server import lend_embedded_server
from taxi_duration.settings import LOOPBACK

CONNECT_SECONDS = 10
"""How long a Dask scheduler may take to answer."""

DASK_LOG_LEVELS = {
    "distributed": logging.WARNING,  # its default tells of each connection
    "distributed.client": logging.CRITICAL,  # what it says is raised as well
    "distributed.nanny": logging.ERROR,  # it warns of each worker that is slow to end
}

stopped = Event()
"""Set in a run that was asked to stop, for its threads, which nothing can end from outside."""


@contextmanager
def open_runner(name: str, dask_address: str | None) -> Iterator[TaskRunner[Any]]:
    """Lend a started task runner with `count_workers()` workers.

    Args:
        name: threads, processes or dask.
        dask_address: the scheduler of a cluster that is there; None starts one on loopback.

    Raises:
        RunnerError: the scheduler does not answer, or workers died until none would do the task.
    """
    if name == "threads":
        stopped.clear()
        threads: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=count_workers())
        with threads, _when_stopped(stopped.set):
            yield threads
        return
    # Their processes report to the server themselves, and would each start one.
    with lend_embedded_server():
        if name == "dask":
            with _open_dask(dask_address) as runner:
                yield runner
        else:
            try:
                with (
                    ProcessPoolTaskRunner(
                        max_workers=count_workers(), initializer=_end_with_parent
                    ) as runner,
                    _when_stopped(_end_processes),
                ):
                    yield runner
            except BrokenProcessPool as error:
                raise RunnerError(
                    "a process of the runner died, perhaps for want of memory: run again, what is "
                    "done is kept; or give runner threads."
                ) from error


@contextmanager
def _when_stopped(act: Callable[[], None]) -> Iterator[None]:
    """Act when the run is asked to stop, before a pool waits for the tasks that it began."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        act()
        raise


def _end_with_parent() -> None:
    """Have a process of the pool end when the run's does, which SIGKILL tells it nothing of.

    Ctrl-C in a terminal goes to all of them; the run's process hears it, and ends the others before
    they print a traceback each.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()


def _end_processes() -> None:
    for process in multiprocessing.active_children():
        process.terminate()


@contextmanager
def _open_dask(address: str | None) -> Iterator[TaskRunner[Any]]:
    if address:
        check_reachable(address, PREFECT_API_URL.value())
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
    try:
        with runner:
            try:
                client = runner.client  # connects
            except OSError as error:
                raise RunnerError(
                    f"{scheduler} does not answer within {CONNECT_SECONDS} s: start it (dask "
                    "scheduler), or check dask_address."
                ) from error
            if not client.scheduler_info()["workers"]:
                get_run_logger().warning(
                    "%s has no worker: the run waits for one (dask worker %s)", scheduler, address
                )
            yield runner
    except KilledWorker as error:
        raise RunnerError(
            f"Dask gave a task up, whose workers died one after the other ({error}): look at "
            "their logs and memory, and run again; what is done is kept."
        ) from error
    except CancelledError as error:
        raise RunnerError(
            f"{scheduler} ended, or lost a task ({error}): look at its log, start it, and run "
            "again; what is done is kept."
        ) from error


def check_reachable(dask_address: str, prefect_server: str | None) -> None:
    """Refuse a cluster elsewhere whose tasks would look for a Prefect server beside them.

    Raises:
        InputError: as said.
    """
    if urlsplit(dask_address).hostname in LOOPBACK:
        return
    if prefect_server is None or urlsplit(prefect_server).hostname in LOOPBACK:
        server = "not set" if prefect_server is None else hide_credentials(prefect_server)
        raise InputError(
            f"dask_address {dask_address} is on another machine, and PREFECT_API_URL is {server}: "
            "set it to an address of a Prefect server that its workers reach."
        )


@contextmanager
def name_import_errors() -> Iterator[None]:
    """Turn what Dask says of a scheduler or worker without this package into an error of ours.

    Raises:
        RunnerError: that error.
    """
    try:
        yield
    except (ImportError, RuntimeError) as error:
        # It raises a RuntimeError for a task that it cannot read.
        reason = error.__cause__ if isinstance(error, RuntimeError) else error
        if not isinstance(reason, ImportError):
            raise
        raise RunnerError(
            f"the runner cannot import what a task needs ({reason}): start the Dask scheduler and "
            "its workers in the checkout, by python -m dask, with the same requirements.lock."
        ) from error


def count_workers() -> int:
    """The cores that this process may use, or the machine's where the system cannot say.

    Two if there is one, so that a month is fetched while another is reduced.
    """
    if hasattr(os, "sched_getaffinity"):
        return max(2, len(os.sched_getaffinity(0)))
    return max(2, os.cpu_count() or 1)
