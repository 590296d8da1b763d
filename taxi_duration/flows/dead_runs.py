"""Prefect's flow runs that SIGKILL left running: told by their process, closed by the next run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run as this_run
from prefect.states import Cancelled, Crashed

from taxi_duration.flows.processes import describe_process, is_dead

LOCAL_FLOW, S3_FLOW = "main-flow", "main-flow-s3"
FLOWS = [LOCAL_FLOW, S3_FLOW, "backfill", "predict"]

PROCESS = "taxi-duration.process"
ATTEMPT = "taxi-duration.attempt"
"""Labels of a flow run. Not Prefect's `infrastructure_pid`, by which workers end what they began;
not tags, each of which costs every task a request."""

STOPPED_IN = {StateType.RUNNING: Crashed, StateType.CANCELLING: Cancelled}
"""The states a process can die in, and what they become. A run that is pending again, because
somebody retries it, still bears its dead process's label, and waits for another."""


def close_dead_runs() -> None:
    """Note whose process the running flow run is, and close those whose process is gone.

    Runs of other hosts, and those that note no process, are left as they are. What the server
    refuses is logged, and stops nothing.
    """
    run_id = this_run.get_id()
    if run_id is None:
        return
    labels: dict[str, bool | int | float | str] = {
        PROCESS: describe_process(),
        ATTEMPT: this_run.get_run_count(),
    }
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(UUID(run_id), labels)
            for flow_run in _read_unfinished(client):
                if is_dead(str(flow_run.labels.get(PROCESS))):
                    with suppress(ObjectNotFound):  # somebody deleted it meanwhile
                        _close(client, flow_run.id)
    except httpx.HTTPError as error:
        get_run_logger().warning("runs of dead processes could not be closed: %s", error)


def _read_unfinished(client: SyncPrefectClient) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=FLOWS)),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(STOPPED_IN)))
        ),
    )


def _read_unfinished_tasks(client: SyncPrefectClient, run_id: UUID) -> list[TaskRun]:
    return client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING]))
        ),
    )


def _close(client: SyncPrefectClient, run_id: UUID) -> None:
    # Read again, now that its process can change it no more: it may have ended well meanwhile.
    flow_run = client.read_flow_run(run_id)
    process, attempt = flow_run.labels.get(PROCESS), flow_run.labels.get(ATTEMPT)
    if flow_run.state_type not in STOPPED_IN or attempt != flow_run.run_count:
        return
    place, pid, _ = str(process).rsplit(":", 2)
    host = place.split("/")[0]
    message = f"Its process {pid} on {host} ended without a word: killed, or the machine stopped."
    state: State[Any] = STOPPED_IN[flow_run.state_type](message=message)
    answer = client.set_flow_run_state(run_id, state)
    if answer.status != SetStateStatus.ACCEPT:
        reason = getattr(answer.details, "reason", None) or answer.status.value
        get_run_logger().warning("flow run %s could not be closed: %s", flow_run.name, reason)
        return
    for task_run in _read_unfinished_tasks(client, run_id):
        client.set_task_run_state(task_run.id, Crashed(message=message), force=True)
    get_run_logger().warning("flow run %s is now %s: %s", flow_run.name, state.name, message)
