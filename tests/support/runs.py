"""Running the flows as their command lines do, and reading back what Prefect kept of a run."""

import contextlib
import io
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun, Log, TaskRun

import orchestrate
import orchestrate_s3
from taxi_duration.cli.app import main
from taxi_duration.cli.train import run_from_command_line
from tests.support.servers import make_once

Value = TypeVar("Value")

OF_NO_DEPLOYMENT = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(is_null_=True))
"""Runs that were started by a process, and none that the server plans or a worker starts."""


@dataclass(frozen=True)
class Run:
    """A finished command line: what it printed, where it ran and which flow run it was."""

    exit_code: int
    output: str
    directory: Path
    flow_run: FlowRun

    @property
    def model_directory(self) -> Path:
        (manifest,) = self.directory.glob("models/*/*/manifest.json")
        return manifest.parent

    @property
    def report_bytes(self) -> bytes:
        return (self.model_directory / "report.json").read_bytes()

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.report_bytes)
        return report


def run_local(directory: Path, *arguments: str) -> Run:
    """`python orchestrate.py ...` in a directory, on the server this process is connected to."""
    return _run(directory, lambda: start_local(*arguments))


def run_s3(directory: Path, *arguments: str) -> Run:
    """`python orchestrate_s3.py ...` likewise."""
    return _run(directory, lambda: start_s3(*arguments))


def run_backfill(directory: Path, *arguments: str) -> Run:
    """`python -m taxi_duration backfill ...` likewise."""
    return _run(directory, lambda: call_taxi_duration("backfill", *arguments))


def call_taxi_duration(*arguments: str) -> int:
    """`python -m taxi_duration ...` in this process."""
    return main(arguments)


def start_local(*arguments: str) -> int:
    """The same, wherever this process is, with what it prints left to it."""
    options, prepare = orchestrate.LocalOptions, orchestrate.prepare
    return run_from_command_line(orchestrate.main_flow, options, prepare, arguments)


def start_s3(*arguments: str) -> int:
    options, prepare = orchestrate_s3.S3Options, orchestrate_s3.prepare
    return run_from_command_line(orchestrate_s3.main_flow_s3, options, prepare, arguments)


def make_store(directory: Path) -> str:
    """Put an empty MLflow store in a directory; return its URI."""
    empty = make_once("mlflow.db", lambda path: MlflowClient(f"sqlite:///{path}"))
    shutil.copy(empty, directory / "mlflow.db")
    return f"sqlite:///{directory / 'mlflow.db'}"


def read_mlflow_statuses(database: Path) -> list[str]:
    """The statuses of the runs in a sqlite store, sorted."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT status FROM runs WHERE lifecycle_stage = 'active'")
        return sorted(status for (status,) in found)


def _run(directory: Path, start: Callable[[], int]) -> Run:
    if not (directory / "mlflow.db").exists():
        make_store(directory)
    before = _read_flow_runs().keys()
    printed = io.StringIO()
    with (
        contextlib.chdir(directory),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        exit_code = start()
    after = _read_flow_runs()
    (made,) = after.keys() - before
    return Run(exit_code, printed.getvalue(), directory, after[made])


def _read_flow_runs() -> dict[UUID, FlowRun]:
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=OF_NO_DEPLOYMENT)
    return {flow_run.id: flow_run for flow_run in found}


def read_task_runs(flow_run_id: UUID, expected: int) -> dict[str, TaskRun]:
    """The task runs by name, without the random suffix of those that have no name of their own.

    The server learns of them from events, so the last may come a moment after the flow ended.
    """

    def read(client: SyncPrefectClient) -> list[TaskRun]:
        return client.read_task_runs(flow_run_filter=_only(flow_run_id))

    def is_complete(found: list[TaskRun]) -> bool:
        return len(found) == expected and all(
            task_run.state and task_run.state.is_final() for task_run in found
        )

    found = _eventually(read, is_complete)
    return {re.sub(r"-[0-9a-f]{3}$", "", task_run.name): task_run for task_run in found}


def read_logs(flow_run_id: UUID, awaited: str) -> list[Log]:
    """The flow run's log lines, its tasks' among them, once the awaited text is there."""
    filtered = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))

    def is_complete(found: list[Log]) -> bool:
        return any(awaited in log.message for log in found)

    return _eventually(lambda client: client.read_logs(filtered, limit=200), is_complete)


def read_report_artifact(flow_run_id: UUID) -> Artifact:
    return read_artifact(flow_run_id, "duration-model-report")


def read_artifact(flow_run_id: UUID, key: str) -> Artifact:
    filtered = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(artifact_filter=filtered)
    (artifact,) = (each for each in artifacts if each.key == key)
    return artifact


def _only(flow_run_id: UUID) -> FlowRunFilter:
    return FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))


def _eventually(
    read: Callable[[SyncPrefectClient], Value], is_complete: Callable[[Value], bool]
) -> Value:
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while not is_complete(found := read(client)) and time.monotonic() < deadline:
            time.sleep(0.2)
    assert is_complete(found), found
    return found
