"""What the Prefect server says of itself, the work pool, its workers and the schedules."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import prefect
from packaging.version import Version
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType, Worker, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from taxi_duration.cli.cli import find_program
from taxi_duration.operations.examination import CheckError
from taxi_duration.settings import LOOPBACK

REQUEST_SECONDS = 5
MISSED_HEARTBEATS = 3
"""After as many of its own intervals without a word a worker is dead, to Prefect's server too."""
HEARTBEAT_SECONDS = 30
"""Prefect's default, for workers that do not say theirs."""


def check_server() -> str:
    """That the configured Prefect server answers, takes our password, and is as new as we are."""
    url = PREFECT_API_URL.value()
    if not url:
        raise CheckError(
            "PREFECT_API_URL is not set, so there is no server that a worker or schedule could use",
            f"{find_program('prefect')} server start, and in other terminals: "
            "export PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    with _ask() as client:
        try:
            server, ours = Version(client.api_version()), Version(prefect.__version__)
        except (ValueError, TypeError):
            raise _not_prefect(url) from None
    if server.major != ours.major or server < ours:
        raise CheckError(
            f"{url} runs Prefect {server}, which is not made for the {ours} installed here",
            f"where it runs: python -m pip install prefect=={ours}, and start it again",
        )
    return f"{url}, Prefect {server}"


def check_work_pool(pool: str) -> str:
    """That the work pool exists and hands out work."""
    name = shlex.quote(pool)
    with _ask() as client:
        try:
            found = client.read_work_pool(pool)
        except ObjectNotFound:
            raise CheckError(
                f"work pool {pool} does not exist",
                f"{find_program('prefect')} work-pool create --type process {name}",
            ) from None
        queue = client.read_work_queue(found.default_queue_id)
    if found.is_paused:
        raise CheckError(
            f"work pool {pool} is paused", f"{find_program('prefect')} work-pool resume {name}"
        )
    if found.concurrency_limit == 0:
        raise CheckError(
            f"work pool {pool} has a concurrency limit of 0",
            f"{find_program('prefect')} work-pool clear-concurrency-limit {name}",
        )
    if queue.is_paused:
        raise CheckError(
            f"work queue {queue.name} of {pool} is paused",
            f"{find_program('prefect')} work-queue resume {queue.name} --pool {name}",
        )
    return f"{pool}, of type {found.type}"


def check_worker(pool: str) -> str:
    """That a worker of the pool has been heard of lately, by the server's clock."""
    with _ask() as client:
        workers = client.read_workers_for_work_pool(pool)
        now = _read_clock(client)
    fix = f"{find_program('prefect')} worker start -p {shlex.quote(pool)}"
    heard = {
        worker.name: max(0.0, (now - worker.last_heartbeat_time).total_seconds())
        for worker in sorted(workers, key=_heard_at)
        if worker.last_heartbeat_time
    }
    if not heard:
        raise CheckError(f"no worker of {pool} was ever heard of", fix)
    name, seconds = [*heard.items()][-1]
    said = f"{name} was heard of {seconds:.0f} s ago"
    alive = [worker.name for worker in workers if _is_alive(worker, heard)]
    if not alive:
        raise CheckError(f"no worker of {pool} is alive: {said}", fix)
    return f"{len(alive)} alive: {said}"


def check_schedule(pool: str, flows: Sequence[str]) -> str:
    """That every flow is deployed to the pool, and a schedule of one of them has a next run."""
    with _ask() as client:
        names = {
            flow.id: flow.name
            for flow in client.read_flows(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[*flows]))
            )
        }
        deployments = client.read_deployments(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[*flows])),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        )
        deployed = {f"{names[each.flow_id]}/{each.name}": each for each in deployments}
        absent = [
            flow for flow in flows if not any(name.startswith(f"{flow}/") for name in deployed)
        ]
        if absent:
            raise CheckError(
                f"{' and '.join(absent)} not deployed to {pool}",
                f"{find_program('prefect')} deploy --all",
            )
        active = {
            each.id: name
            for name, each in deployed.items()
            if not each.paused and any(schedule.active for schedule in each.schedules)
        }
        if not active:
            raise _none_active(deployed)
        planned = _read_next_run(client, [*active])
    if planned is None:
        raise CheckError(
            f"{', '.join(active.values())} has an active schedule and no run planned",
            "wait a minute and run doctor again; if it stays, start the server with its services: "
            f"{find_program('prefect')} server start",
        )
    deployment, due = planned
    return f"{len(deployed)} deployments; next run {due:%Y-%m-%d %H:%M} UTC, {active[deployment]}"


def _none_active(deployed: dict[str, DeploymentResponse]) -> CheckError:
    program = find_program("prefect")
    names = sorted(deployed, key=lambda name: name.split("/"))
    # Neither the deployment's own pause nor what ends it is among the commands for schedules.
    paused = [name for name in names if any(each.active for each in deployed[name].schedules)]
    if paused:
        return CheckError(
            f"deployment {paused[0]} is paused, and no other has an active schedule",
            f"{program} api POST /deployments/{deployed[paused[0]].id}/resume_deployment",
        )
    scheduled = [name for name in names if deployed[name].schedules]
    if scheduled:
        schedule = deployed[scheduled[0]].schedules[0]
        return CheckError(
            f"no schedule of {len(deployed)} deployments is active",
            # Resumed, a schedule loses its parameters (Prefect 3.8.8).
            _turn_on(scheduled[0])
            if schedule.parameters
            else f"{program} deployment schedule resume {scheduled[0]} {schedule.id}",
        )
    return CheckError(
        f"none of {len(deployed)} deployments has a schedule",
        f"{program} deployment schedule create {names[0]} --cron '0 6 5 * *' "
        "--timezone America/New_York",
    )


def _turn_on(deployment: str) -> str:
    program = find_program("prefect")
    file, deploy = "prefect.yaml", f"{program} deploy --all"
    if deployment.endswith("_production"):
        file = "deployment.yaml"
        deploy = f"{program} --no-prompt deploy --prefect-file {file} --all"
    return f"sed -i.off 's/active: false/active: true/' {file} && {deploy}"


def _read_next_run(
    client: SyncPrefectClient, deployments: list[UUID]
) -> tuple[UUID, datetime] | None:
    planned = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=deployments)),
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=["auto-scheduled"]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=1,
    )
    for run in planned:
        if run.deployment_id and run.expected_start_time:
            return run.deployment_id, run.expected_start_time.astimezone(UTC)
    return None


def _heard_at(worker: Worker) -> datetime:
    return worker.last_heartbeat_time or datetime.min.replace(tzinfo=UTC)


def _is_alive(worker: Worker, heard: dict[str, float]) -> bool:
    patience = MISSED_HEARTBEATS * (worker.heartbeat_interval_seconds or HEARTBEAT_SECONDS)
    return worker.status == WorkerStatus.ONLINE and heard.get(worker.name, patience) < patience


def _read_clock(client: SyncPrefectClient) -> datetime:
    """The server's time, to the second: it dates heartbeats, and may be another machine's."""
    date = client.hello().headers.get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


@contextmanager
def _ask() -> Iterator[SyncPrefectClient]:
    with name_server_faults(), get_client(sync_client=True) as client:
        yield client


@contextmanager
def name_server_faults() -> Iterator[None]:
    """Have Prefect's clients lose patience soon, and name what their server does wrong.

    Raises:
        CheckError: the server does not answer, or refuses.
    """
    url = PREFECT_API_URL.value() or ""
    limits = {PREFECT_API_REQUEST_TIMEOUT: REQUEST_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}
    try:
        with temporary_settings(limits):
            yield
    except (httpx.TransportError, httpx.InvalidURL, PrefectHTTPStatusError, RuntimeError) as error:
        # At its first request Prefect may wrap it in a RuntimeError.
        reason = error.__cause__ if isinstance(error, RuntimeError) else error
        raise _name_fault(url, reason or error) from error


def _name_fault(url: str, reason: BaseException) -> CheckError:
    if isinstance(reason, PrefectHTTPStatusError):
        status = reason.response.status_code
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return CheckError(
                f"{url} wants another password ({status})",
                "export PREFECT_API_AUTH_STRING=user:password, as the server has it in "
                "PREFECT_SERVER_API_AUTH_STRING",
            )
        if status == httpx.codes.NOT_FOUND:
            return _not_prefect(url)
        return CheckError(f"{url} answered {status}", "read the server's log, and start it again")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 4200
    except ValueError:
        host = None
    if not host or isinstance(reason, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return CheckError(
            f"PREFECT_API_URL {url} is no address",
            "export PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    found = f"{url} does not answer ({type(reason).__name__})"
    start = f"{find_program('prefect')} server start --host {host} --port {port}"
    if host in LOOPBACK:
        return CheckError(found, start)
    return CheckError(found, f"start the Prefect server on {host}, or correct PREFECT_API_URL")


def _not_prefect(url: str) -> CheckError:
    parts = urlsplit(url)
    return CheckError(
        f"{url} is no Prefect API",
        f"export PREFECT_API_URL={parts.scheme}://{parts.netloc}/api, or the address of another "
        "server",
    )
