"""Showing how far a download is: a bar on a terminal, an artifact in a deployment."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.runtime import deployment
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from taxi_duration.transfer import Progress

ARTIFACT_KEY = "download-progress"
ARTIFACT_SECONDS = 2.0
"""Between updates of the artifact, each of which is a request."""


@contextmanager
def show_progress(what: str) -> Iterator[Progress | None]:
    """Lend what a transfer reports its bytes to; None where nobody would see them."""
    if deployment.id:
        yield _update_artifact(what)
    elif sys.stderr.isatty():
        columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
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


def _update_artifact(what: str) -> Progress:
    artifact: UUID | None = None
    updated = 0.0
    is_failing = False

    def report(received: int, total: int | None) -> None:
        nonlocal artifact, updated, is_failing
        now = time.monotonic()
        is_due = now - updated >= ARTIFACT_SECONDS or received == total
        if not total or not is_due or is_failing:
            return
        updated = now
        percent = 100.0 * received / total
        try:
            if artifact is None:
                # Prefect types both calls as if they were awaited.
                made = create_progress_artifact(percent, key=ARTIFACT_KEY, description=what)
                artifact = cast(UUID, made)
            else:
                update_progress_artifact(artifact, percent, description=what)
        except Exception as error:  # what is only shown must not end a download
            is_failing = True
            get_run_logger().warning("progress is not shown: %s", error)

    return report
