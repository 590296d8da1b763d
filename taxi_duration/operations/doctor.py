"""Check what a deployed pipeline stands on: each check returns what it found, or raises the fault.

A fault is an error of ours: its problem is what was found, its remedy the fix, which is a command
as it is typed where there is one.
"""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import sqlite3
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import prefect
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    FlowFilter,
    FlowRunFilter,
    WorkPoolFilter,
)
from prefect.client.schemas.objects import WorkerStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from taxi_duration.data.bucket import (
    BUCKET_VARIABLE,
    DEFAULT_BLOCK,
    check_key_prefix,
    load_bucket,
    make_key,
)
from taxi_duration.data.cache import find_month
from taxi_duration.data.month import newest_published
from taxi_duration.data.schema import CABS, DEFAULT_CAB, Cab, get_cab
from taxi_duration.data.tlc import Tlc
from taxi_duration.errors import (
    InputError,
    SourceError,
    TaxiDurationError,
    TransientSourceError,
    hide_credentials,
    translated,
)
from taxi_duration.files import check_writable
from taxi_duration.flows.options import LOCAL_FLOW, S3_FLOW, LocalOptions, S3Options
from taxi_duration.registry.store import find_database, is_store_there, reach_store
from taxi_duration.reports.terminal import find_program
from taxi_duration.settings import (
    LOOPBACK,
    TlcSettings,
    TransferSettings,
    read_settings,
    resolve_tracking_uri,
)
from taxi_duration.version import CHECKOUT

if TYPE_CHECKING:
    from prefect_aws import S3Bucket

PROJECT = "nyc-taxi-duration"

DEADLINE_SECONDS = 10.0
"""A check's own timeouts end it before; this one is for what has none, such as a name server."""

REQUEST_SECONDS = 5
IMPATIENT_S3 = {"connect_timeout": 4, "read_timeout": 4, "retries": {"total_max_attempts": 1}}
IMPATIENT_TLC = {"connect_seconds": 4.0, "read_seconds": 4.0, "deadline_seconds": 8.0}


class CheckError(TaxiDurationError):
    """A check found a fault."""


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[^/%&><?#\s][^/%&><?#]*", name):  # it is part of an address
        raise InputError(f"{name!r} is not a name", "leave out / % & < > ? and #")
    return name


Name = Annotated[str, AfterValidator(_check_name)]


class Setup(BaseModel):
    """What is checked: the names and places that the deployments use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pool: Name = Field("zoompool", description="work pool")
    block: Name = Field(DEFAULT_BLOCK, description="S3Bucket block")
    prefix: Annotated[str, AfterValidator(check_key_prefix)] = Field(
        S3Options().prefix, description="key prefix of the months in the bucket"
    )
    without_s3: bool = Field(default=False, description="leave out block, bucket and the S3 flow")
    cab: Annotated[str, AfterValidator(lambda name: get_cab(name).name)] = Field(
        DEFAULT_CAB, description=f"cab type: {' or '.join(CABS)}"
    )
    data_dir: Path = Field(LocalOptions().data_dir, description="directory of the months")
    models_dir: Path = Field(LocalOptions().models_dir, description="directory of the models")
    offline: bool = Field(
        default=False, description="do not ask the TLC: the newest month must be in the directory"
    )
    least_free_gb: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="disk space a run may need, in GB"
    )


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Args:
        run: returns what it found, or raises the fault.
        needs: names of the earlier checks without which this one cannot be made.
    """

    name: str
    run: Callable[[], str]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """The outcome of a check; `fix` is empty if it is ok."""

    name: str
    ok: bool
    found: str
    fix: str


def make_checks(setup: Setup) -> list[Check]:
    """Return the checks, in the order in which faults are best mended."""
    cab, pool = get_cab(setup.cab), setup.pool
    flows = [LOCAL_FLOW] if setup.without_s3 else [LOCAL_FLOW, S3_FLOW]
    directories = {"models directory": setup.models_dir, "data directory": setup.data_dir}
    check_months = partial(check_bucket, setup.block, setup.prefix, cab)
    checks = [
        Check("server", check_server),
        Check("versions", check_versions),
        Check("work pool", partial(check_work_pool, pool), ("server",)),
        Check("worker", partial(check_worker, pool), ("server", "work pool")),
        Check("block", partial(check_block, setup.block), ("server",)),
        Check("bucket", check_months, ("server", "block")),
        Check("mlflow", check_mlflow),
        Check("disk", partial(check_disk, directories, setup.least_free_gb)),
        Check("newest month", partial(check_newest_month, cab, setup.data_dir, setup.offline)),
        Check("schedule", partial(check_schedule, pool, flows), ("server", "work pool")),
    ]
    return [each for each in checks if not (setup.without_s3 and each.name in ("block", "bucket"))]


def examine(checks: Sequence[Check], seconds: float = DEADLINE_SECONDS) -> Iterator[Finding]:
    """Make the checks in their order, and yield each one's finding as soon as it is known.

    No check stops the next ones; one that needs a failed one is not made, and is not ok.

    Args:
        seconds: the most that one check may take.
    """
    failed: set[str] = set()
    for check in checks:
        needed = next((name for name in check.needs if name in failed), None)
        if needed is None:
            finding = _make(check, seconds)
        else:
            reason, fix = f"not checked: needs {needed}", f"that of {needed} first"
            finding = Finding(check.name, ok=False, found=reason, fix=fix)
        if not finding.ok:
            failed.add(check.name)
        yield finding


def _make(check: Check, seconds: float) -> Finding:
    outcome: list[str | Exception] = []

    def run() -> None:
        try:
            outcome.append(check.run())
        except Exception as error:  # whatever it is, the other checks are made
            outcome.append(error)

    # A daemon: what hangs is left behind, and does not hold up the end of the process.
    thread = Thread(target=copy_context().run, args=(run,), daemon=True)
    thread.start()
    thread.join(seconds)
    match outcome:
        case []:
            found = f"no answer within {seconds:g} s"
            fix = "look for a network or network disk that hangs, and run doctor again"
        case [str(found)]:
            return Finding(check.name, ok=True, found=_clean(found), fix="")
        case [TaxiDurationError() as error]:
            found, fix = error.problem, error.remedy or "correct that"
        case [error]:
            said = next(iter(str(error).splitlines()), "")
            found, fix = f"the check itself failed ({type(error).__name__}: {said})", "report this"
    return Finding(check.name, ok=False, found=_clean(found), fix=_clean(fix))


def _clean(text: str) -> str:
    return " ".join(hide_credentials(text).split())


def check_server() -> str:
    """Check that the configured server answers, takes our password, and is as new as we are."""
    url = PREFECT_API_URL.value()
    if not url:
        raise CheckError(
            "PREFECT_API_URL is not set, so there is no server that a worker or schedule could use",
            f"{find_program('prefect')} server start, and in other terminals: "
            "export PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    with _ask_prefect() as client:
        try:
            server, ours = Version(client.api_version()), Version(prefect.__version__)
        except (ValueError, TypeError):
            raise CheckError(f"{url} is not a Prefect API", NO_API) from None
    if server.major != ours.major or server < ours:
        raise CheckError(
            f"{url} runs Prefect {server}, which is older than or not made for the {ours} here",
            f"where it runs: python -m pip install prefect=={ours}, and start it again",
        )
    return f"{url}, Prefect {server}"


NO_API = "correct PREFECT_API_URL, which ends in /api"
NO_LOGIN = (
    "export PREFECT_API_AUTH_STRING=user:password, as the server has it in "
    "PREFECT_SERVER_API_AUTH_STRING"
)


@contextmanager
def _ask_prefect() -> Iterator[SyncPrefectClient]:
    """Lend a client that soon loses patience, and name what its server does wrong."""
    url = PREFECT_API_URL.value() or ""
    limits = {PREFECT_API_REQUEST_TIMEOUT: REQUEST_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}
    with translated(f"Prefect server {url}", _fix_server(url)), temporary_settings(limits):
        try:
            with get_client(sync_client=True) as client:
                yield client
        except (PrefectHTTPStatusError, RuntimeError) as error:
            # At its first request Prefect may wrap it in a RuntimeError.
            reason = error.__cause__ if isinstance(error, RuntimeError) else error
            if not isinstance(reason, PrefectHTTPStatusError):
                raise reason or error from None
            status = reason.response.status_code
            fix = NO_LOGIN if status in (401, 403) else NO_API
            if status >= 500:
                fix = "read the server's log, and start it again"
            raise CheckError(f"{url} answered {status}", fix) from None


def _fix_server(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 4200
    except ValueError:
        host = None
    if host in LOOPBACK:
        return f"{find_program('prefect')} server start --host {host} --port {port}"
    if host is None:
        return "export PREFECT_API_URL=http://127.0.0.1:4200/api"
    return f"start the Prefect server on {host}, or correct PREFECT_API_URL"


def check_versions(checkout: Path = CHECKOUT) -> str:
    """Check that Python and every distribution installed here are those the project runs with."""
    source, python, declared = _read_requirements(checkout)
    version = platform.python_version()
    if not SpecifierSet(python).contains(version, prereleases=True):
        raise CheckError(
            f"Python {version} runs here, and {python} is required",
            "rm -rf .venv && make setup PYTHON=python3.11",
        )
    misfits: dict[Requirement, str] = {}
    for each in declared:
        there = _find_version(each.name)
        if there and not each.specifier.contains(there, prereleases=True):
            misfits[each] = f"{there} is installed, where {each.specifier} is required"
        # Nothing has to be installed of an extra.
        elif not there and (each.marker is None or each.marker.evaluate()):
            misfits[each] = "is not installed"
    if misfits:
        wanted = " ".join(shlex.quote(f"{each.name}{each.specifier}") for each in misfits)
        raise CheckError(
            ", ".join(f"{each.name} {reason}" for each, reason in misfits.items()),
            f"{find_program('python')} -m pip install {wanted}",
        )
    return f"Python {version} and {len(declared)} distributions as {source} requires"


def _read_requirements(checkout: Path) -> tuple[str, str, list[Requirement]]:
    """Return where they are declared, the Pythons and the requirements, those of extras marked."""
    path = checkout / "pyproject.toml"
    if not path.is_file():
        required = [*map(Requirement, metadata.requires(PROJECT) or [])]
        return f"the metadata of {PROJECT}", metadata.metadata(PROJECT)["Requires-Python"], required
    project = tomllib.loads(path.read_text("utf-8"))["project"]
    extras = project.get("optional-dependencies", {}).values()
    texts = [
        *project["dependencies"],
        *(f"{one}; extra == 'any'" for each in extras for one in each),
    ]
    return str(path), project["requires-python"], [*map(Requirement, texts)]


def _find_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_work_pool(pool: str) -> str:
    """Check that the work pool exists and hands out work."""
    name, program = shlex.quote(pool), find_program("prefect")
    with _ask_prefect() as client:
        try:
            found = client.read_work_pool(pool)
        except ObjectNotFound:
            raise CheckError(
                f"work pool {pool} does not exist",
                f"{program} work-pool create --type process {name}",
            ) from None
        queue = client.read_work_queue(found.default_queue_id)
    for is_so, fault, command in (
        (found.is_paused, "is paused", f"work-pool resume {name}"),
        (
            found.concurrency_limit == 0,
            "has a limit of 0",
            f"work-pool clear-concurrency-limit {name}",
        ),
        (queue.is_paused, "has a paused queue", f"work-queue resume {queue.name} --pool {name}"),
    ):
        if is_so:
            raise CheckError(f"work pool {pool} {fault}", f"{program} {command}")
    return f"{pool}, of type {found.type}"


def check_worker(pool: str) -> str:
    """Check that a worker of the pool is alive, which the server judges by their heartbeats."""
    with _ask_prefect() as client:
        found = client.read_workers_for_work_pool(pool)
    fix = f"{find_program('prefect')} worker start -p {shlex.quote(pool)}"
    workers = {each.last_heartbeat_time: each for each in found if each.last_heartbeat_time}
    if not workers:
        raise CheckError(f"no worker of {pool} was ever heard of", fix)
    ago = max(0.0, (datetime.now(UTC) - max(workers)).total_seconds())
    said = f"{workers[max(workers)].name} was heard of {ago:.0f} s ago"
    alive = sum(each.status == WorkerStatus.ONLINE for each in found)
    if not alive:
        raise CheckError(f"no worker of {pool} is alive: {said}", fix)
    return f"{alive} alive: {said}"


def check_block(name: str) -> str:
    """Check that the block is saved; whether its key and secret are right the bucket tells."""
    bucket, endpoint = _load_block(name)
    return f"S3Bucket block {name}, bucket {bucket.bucket_name} at {endpoint}"


def check_bucket(name: str, prefix: str, cab: Cab) -> str:
    """Check that the bucket takes the block's key, may be listed, and holds months."""
    bucket, endpoint = _load_block(name)
    place = f"s3://{bucket.bucket_name}/{make_key(bucket, prefix)}"
    fix = f"allow the block's user s3:ListBucket on {bucket.bucket_name}, or {_save(name)}"
    with translated(f"listing {place} at {endpoint}", fix):
        client: Any = bucket.credentials.get_s3_client()
        start = make_key(bucket, prefix, f"{cab.name}_tripdata_")
        # The first thousand keys, by their names.
        listed = client.list_objects_v2(Bucket=bucket.bucket_name, Prefix=start)
    keys = " ".join(str(each["Key"]) for each in listed.get("Contents", []))
    months = sorted(re.findall(rf"{cab.name}_tripdata_(\d{{4}}-\d{{2}})\.parquet", keys))
    if not months:
        example = newest_published(date.today()).file_name(cab.name)
        raise CheckError(
            f"{place} holds no {cab.name} month", f"upload {example} and others to {place}/"
        )
    return f"{place}, {len(months)} {cab.name} months, the newest {months[-1]}"


def _load_block(name: str) -> tuple[S3Bucket, str]:
    """Return the block, whose client soon loses patience, and its endpoint."""
    with _ask_prefect():
        try:
            bucket = load_bucket(name)
        except InputError:
            raise CheckError(f"S3Bucket block {name} is not saved", _save(name)) from None
    parameters = bucket.credentials.aws_client_parameters
    parameters.config = {**(parameters.config or {}), **IMPATIENT_S3}
    return bucket, parameters.endpoint_url or "AWS"


def _save(name: str) -> str:
    return (
        f"export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... {BUCKET_VARIABLE}=..., and then: "
        f"{find_program('python')} -m taxi_duration create-s3-blocks --name {shlex.quote(name)}"
    )


def check_mlflow() -> str:
    """Check that runs can be logged to the MLflow store; a missing one is not made."""
    uri = resolve_tracking_uri()
    shown = hide_credentials(uri)
    database = find_database(uri)
    if database is not None and not is_store_there(uri):
        check_writable(database.parent, "the MLflow store's directory")
        return f"{shown} does not exist yet: the first run makes it"
    try:
        with reach_store(uri) as client:
            client.search_experiments(max_results=1)
    except TransientSourceError:
        raise
    except SourceError as error:
        if database is None or isinstance(error.__cause__, sqlite3.Error):
            raise
        # MLflow opens the database of another version of itself no more.
        path = shlex.quote(str(database))
        upgrade = f"{find_program('mlflow')} db upgrade sqlite:///{path}"
        raise CheckError(error.problem, f"cp {path} {path}.before && {upgrade}") from None
    return shown


def check_disk(directories: dict[str, Path], least_free_gb: float) -> str:
    """Check that every directory takes files, and its disk has room for a run.

    Args:
        directories: by what the user calls them.
        least_free_gb: in GB of 1e9 bytes.
    """
    found = []
    for what, directory in directories.items():
        free = shutil.disk_usage(check_writable(directory, what)).free / 1e9
        if free < least_free_gb:
            raise CheckError(
                f"{what} {directory} has {free:.1f} GB free, of {least_free_gb:g} GB that a run "
                "may need",
                "remove what is not needed (models/sums is made again), or name another disk's "
                "directory",
            )
        found.append(f"{what} {directory} takes files, {free:.1f} GB free")
    return "; ".join(found)


def check_newest_month(cab: Cab, directory: Path, offline: bool) -> str:
    """Check that the newest month the calendar expects is published; offline, that it is here."""
    newest = newest_published(date.today())
    missing = [each for each in newest.window(2) if find_month(directory, cab, each) is None]
    here = "not here yet" if newest in missing else "here"
    where = f"{cab.name} {newest} is {here} in {directory}"
    files = " and ".join(month.file_name(cab.name) for month in missing)
    place = f"place {files} in {directory}"
    if offline:
        if missing:
            raise CheckError(where, place)
        return where
    settings, limits = read_settings(TlcSettings), read_settings(TransferSettings)
    try:
        size = Tlc(cab, newest, settings, limits.model_copy(update=IMPATIENT_TLC)).ask_size()
    except SourceError as error:
        earlier = newest.shift(-2)
        raise CheckError(
            f"{error.problem}; {where}",
            f"{place + ' and ' if missing else ''}run with --offline, or train on an earlier "
            f"month: --year {earlier.year} --month {earlier.month}",
        ) from None
    shown = "" if size is None else f" ({size / 1e6:.1f} MB)"
    return f"{cab.name} {newest} is published{shown} and {here} in {directory}"


def check_schedule(pool: str, flows: Sequence[str]) -> str:
    """Check that every flow is deployed to the pool, and one of them has a next run."""
    program = find_program("prefect")
    with _ask_prefect() as client:
        of_flows = FlowFilter.model_validate({"name": {"any_": [*flows]}})
        of_pool = WorkPoolFilter.model_validate({"name": {"any_": [pool]}})
        flow_names = {flow.id: flow.name for flow in client.read_flows(flow_filter=of_flows)}
        deployments = client.read_deployments(flow_filter=of_flows, work_pool_filter=of_pool)
        absent = {*flows} - {flow_names[each.flow_id] for each in deployments}
        if absent:
            raise CheckError(
                f"{' and '.join(sorted(absent))} not deployed to {pool}", f"{program} deploy --all"
            )
        names = {each.id: f"{flow_names[each.flow_id]}/{each.name}" for each in deployments}
        scheduled = [each for each in deployments if any(one.active for one in each.schedules)]
        active = {each.id: names[each.id] for each in scheduled if not each.paused}
        if scheduled and not active:
            raise CheckError(
                f"deployment {names[scheduled[0].id]} is paused, and no other has an active "
                "schedule",
                # Not among Prefect's commands for schedules.
                f"{program} api POST /deployments/{scheduled[0].id}/resume_deployment",
            )
        if not active:
            # In the file: a schedule resumed otherwise loses its parameters (Prefect 3.8.8).
            file, deploy = "prefect.yaml", f"{program} deploy --all"
            if deployments[0].name.endswith("_production"):
                file = "deployment.yaml"
                deploy = f"{program} --no-prompt deploy --prefect-file {file} --all"
            raise CheckError(
                f"no schedule of {len(deployments)} deployments is active",
                f"sed -i.off 's/active: false/active: true/' {file} && {deploy}",
            )
        of_active = {"id": {"any_": [*active]}}
        is_planned = {
            "tags": {"all_": ["auto-scheduled"]},
            "state": {"type": {"any_": ["SCHEDULED"]}},
        }
        planned = client.read_flow_runs(
            deployment_filter=DeploymentFilter.model_validate(of_active),
            flow_run_filter=FlowRunFilter.model_validate(is_planned),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=1,
        )
    for run in planned:
        if run.deployment_id and run.expected_start_time:
            due = f"{run.expected_start_time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            return f"{len(deployments)} deployments; next run {due}, {active[run.deployment_id]}"
    raise CheckError(
        f"{', '.join(active.values())} has an active schedule and no run planned",
        "wait a minute and run doctor again; if it stays, start the server with its services: "
        f"{program} server start",
    )
