"""Showing how far something is: a bar on a terminal, an artifact in a deployment."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.runtime import deployment
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

from taxi_duration.data.month import Month
from taxi_duration.data.transfer import Progress
from taxi_duration.flows.walk_forward import BackfillPlan, Step, count_months

DOWNLOAD_KEY, BACKFILL_KEY = "download-progress", "backfill-progress"
SCORING_KEY = "scoring-progress"
COLUMNS: dict[str, tuple[type[ProgressColumn], ...]] = {
    DOWNLOAD_KEY: (DownloadColumn, TransferSpeedColumn),
    SCORING_KEY: (MofNCompleteColumn, TimeRemainingColumn),
}
"""By the artifact's key, what the bar on a terminal shows beside it: bytes, or rows."""

ARTIFACT_SECONDS = 2.0
"""Between updates of the artifact, each of which is a request."""


@contextmanager
def show_progress(what: str, key: str = DOWNLOAD_KEY) -> Iterator[Progress | None]:
    """Lend what a transfer reports its bytes to, or a scoring its rows; None where nobody looks.

    A terminal shows one bar at a time, so downloads in several threads show none.
    """
    if deployment.id:
        yield _update_artifact(what, key)
    elif sys.stderr.isatty() and _is_alone():
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


def _is_alone() -> bool:
    """Whether this is the run's own process, and its main thread."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and multiprocessing.parent_process() is None


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
    """An artifact in Prefect that shows a percentage and a text, made at the first update.

    What is only shown must not end a run: once it fails, a warning is logged and nothing more.
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


class BackfillProgress:
    """An artifact that shows how many of a backfill's months are reduced and its models scored."""

    def __init__(self, plan: BackfillPlan) -> None:
        self._artifact = ProgressArtifact(BACKFILL_KEY)
        self._parts, self._done = len(plan.months) + len(plan.steps), 0
        self._artifact.update(0.0, f"reducing {count_months(len(plan.months))}")

    def count_month(self, month: Month) -> None:
        self._count(f"{month} is reduced")

    def count_step(self, step: Step) -> None:
        self._count(f"{step.validation}: RMSE {step.model:.4f} minutes")

    def _count(self, text: str) -> None:
        self._done += 1
        self._artifact.update(100.0 * self._done / self._parts, text)
