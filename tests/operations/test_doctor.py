"""doctor says that a healthy set-up is well, and of each broken one what is broken and the fix."""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import httpx
import prefect
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    BlockDocumentUpdate,
    DeploymentScheduleCreate,
    DeploymentUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from taxi_duration.__main__ import main
from taxi_duration.data.bucket import create_blocks
from taxi_duration.data.month import newest_published
from taxi_duration.errors import InputError
from taxi_duration.operations import doctor
from taxi_duration.operations.doctor import Setup, make_checks
from taxi_duration.operations.examination import Check, CheckError, Finding, examine
from taxi_duration.operations.local_checks import check_disk
from taxi_duration.operations.requirements import find_misfits, read_requirements
from taxi_duration.registry import store as mlflow_store
from taxi_duration.registry.store import hold_store
from tests.conftest import REPOSITORY, connected_to
from tests.faults.test_mlflow import unprivileged
from tests.support.buckets import BUCKET, KEY, SECRET, S3Server
from tests.support.months import write_month
from tests.support.servers import PROGRAMS, find_free_port, make_environment, run_server, wait_until
from tests.support.web import Tlc, answer_status, serve_tlc

POOL_PREFIX = "doctor-"
POOL = "doctor-pool"
LEFT_POOL, IDLE_POOL, PAUSED_POOL = "doctor-left-pool", "doctor-idle-pool", "doctor-paused-pool"
PRODUCTION_POOL = "production"
"""Deployments to it are named after it, as those of deployment.yaml are."""
BLOCK = "doctor-bucket"
NEWEST = newest_published(date.today())
LOCAL, FROM_S3 = "main-flow/doctor_local", "main-flow-s3/doctor_s3"
CHECKS = [
    "server", "versions", "work pool", "worker", "block", "bucket", "mlflow", "disk",
    "newest month", "schedule",
]  # fmt: skip
WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Patient:
    """A healthy set-up and what it stands on."""

    server: str
    setup: Setup
    store: Path
    tlc: Tlc

    def examine(self, **changes: object) -> dict[str, Finding]:
        """Examine it with some of the setup's fields changed."""
        setup = replace(self.setup, **changes)  # type: ignore[arg-type]
        return {each.name: each for each in examine(make_checks(setup), WAIT_SECONDS)}

    def check(self, name: str, **changes: object) -> Finding:
        """Make one check alone."""
        setup = replace(self.setup, **changes)  # type: ignore[arg-type]
        (check,) = (each for each in make_checks(setup) if each.name == name)
        (finding,) = examine([check], WAIT_SECONDS)
        return finding

    def wait_for(self, name: str, *, ok: bool, **changes: object) -> None:
        """Wait until a check comes out so: the server's services and heartbeats take their time."""
        wait_until(
            lambda: self.check(name, **changes).ok is ok,
            f"{name} to be {'ok' if ok else 'not ok'}",
        )

    def have_broken(self, *names: str, **changes: object) -> Finding:
        """Examine it: just these are not ok, and the first is the cause of the others."""
        findings = self.examine(**changes)
        assert [name for name, finding in findings.items() if not finding.ok] == [*names]
        cause, *others = names
        for name in others:
            assert findings[name].found.startswith("not checked: needs ")
            assert findings[name].fix.startswith("that of ")
        assert SECRET not in str(findings)
        return findings[cause]

    @property
    def options(self) -> list[str]:
        return [
            "--pool", POOL, "--block", BLOCK, "--data-dir", str(self.setup.data_dir),
            "--models-dir", str(self.setup.models_dir),
        ]  # fmt: skip


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patched:
        # So that fixes name the programs shortly, as in an activated environment.
        patched.setenv("PATH", make_environment()["PATH"])
        yield patched


@pytest.fixture(scope="module")
def healthy(
    prefect_server: str,
    s3_server: S3Server,
    variables: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Patient]:
    """Everything a deployed pipeline stands on, on names of its own on the shared servers."""
    directory = tmp_path_factory.mktemp("doctor")
    write_month(s3_server.bucket / "doctor" / NEWEST.file_name("green"), month=NEWEST)
    store = directory / "mlflow.db"
    with hold_store(f"sqlite:///{store}"):
        pass
    setup = Setup(
        pool=POOL,
        block=BLOCK,
        prefix="doctor",
        data_dir=directory / "data",
        models_dir=directory / "models",
    )
    with ExitStack() as stack:
        tlc = stack.enter_context(serve_tlc(directory))
        tlc.files[NEWEST.file_name("green")] = bytes(1_300_000)
        for name, value in tlc.environment.items():
            variables.setenv(name, value)
        variables.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
        stack.enter_context(connected_to(prefect_server))
        create_blocks(s3_server.environment, BLOCK)
        with get_client(sync_client=True) as client:
            deploy(client)
            # As a worker does, and then never again.
            client.send_worker_heartbeat(LEFT_POOL, "gone", heartbeat_interval_seconds=1)
        command = [PROGRAMS / "prefect", "worker", "start", "-p", POOL]
        environment = make_environment(PREFECT_API_URL=prefect_server)
        log, polled = directory / "worker.log", f"{prefect_server}/work_pools/{POOL}/workers/filter"
        stack.enter_context(
            run_server(
                command, environment, log, lambda: httpx.post(polled).json() != [], directory
            )
        )
        stack.callback(undeploy)
        patient = Patient(prefect_server, setup, store, tlc)
        patient.wait_for("schedule", ok=True)
        yield patient


def deploy(client: SyncPrefectClient) -> None:
    for pool in (POOL, LEFT_POOL, IDLE_POOL, PAUSED_POOL, PRODUCTION_POOL):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        for name in (LOCAL, FROM_S3):
            flow, _, deployment = name.partition("/")
            monthly = DeploymentScheduleCreate(
                schedule=CronSchedule(cron="0 6 5 * *", timezone="America/New_York"),
                active=name == LOCAL and pool not in (PAUSED_POOL, PRODUCTION_POOL),
                parameters={"train_months": 3} if pool == PRODUCTION_POOL else {},
            )
            client.create_deployment(
                client.create_flow_from_name(flow),
                deployment if pool == POOL else f"{deployment}_{pool}",
                work_pool_name=pool,
                schedules=[monthly] if pool != IDLE_POOL else None,
            )


def undeploy() -> None:
    """Leave the server to other tests as it was: an active schedule would plan runs."""
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            if (deployment.work_pool_name or "").startswith(POOL_PREFIX):
                client.delete_deployment(deployment.id)
        for pool in client.read_work_pools():
            if pool.name.startswith(POOL_PREFIX):
                client.delete_work_pool(pool.name)


@pytest.fixture
def client(healthy: Patient) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def run_fix(fix: str, server: str) -> None:
    """Type a fix as it is printed."""
    environment = make_environment(PREFECT_API_URL=server, TERM="dumb")
    typed = subprocess.run(
        ["/bin/sh", "-c", fix],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert typed.returncode == 0, typed.stdout + typed.stderr


def run_doctor(
    arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["taxi_duration", "doctor", *arguments])
    monkeypatch.setattr(doctor, "examine", partial(examine, seconds=WAIT_SECONDS))
    exit_code = main()
    return exit_code, capsys.readouterr().out


# Healthy


def test_a_healthy_setup_is_all_ok(healthy: Patient) -> None:
    findings = healthy.examine()
    assert [*findings] == CHECKS
    assert {name: finding.ok for name, finding in findings.items()} == dict.fromkeys(CHECKS, True)
    assert {finding.fix for finding in findings.values()} == {""}
    found = {name: finding.found for name, finding in findings.items()}
    assert found["server"] == f"{healthy.server}, Prefect {prefect.__version__}"
    assert found["work pool"] == f"{POOL}, of type process"
    assert found["worker"].startswith("1 alive: ProcessWorker ")
    assert found["block"].startswith(f"S3Bucket block {BLOCK}, bucket taxi at http://127.0.0.1:")
    assert found["bucket"] == f"s3://taxi/doctor, 1 green months, the newest {NEWEST}"
    assert found["mlflow"] == f"sqlite:///{healthy.store}"
    assert found["newest month"].startswith(f"green {NEWEST} is published (1.3 MB) and not here")
    assert found["schedule"].startswith("2 deployments; next run ")
    assert found["schedule"].endswith(f" UTC, {LOCAL}")


def test_it_is_told_in_lines_and_by_the_exit_code(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prefix", "doctor", *healthy.options]
    exit_code, told = run_doctor(options, monkeypatch, capsys)
    assert exit_code == 0, told
    *lines, last = told.splitlines()
    assert [line[:8] for line in lines] == ["ok      "] * len(CHECKS)
    assert [line[8:20].strip() for line in lines] == CHECKS
    assert last == "all 10 ok"


def test_what_is_not_ok_is_told_with_its_fix(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prefix", "doctor", *healthy.options, "--pool", "nowhere"]
    exit_code, told = run_doctor(options, monkeypatch, capsys)
    assert exit_code == 1
    *_, schedule, last = lines = told.splitlines()
    assert lines[2] == (
        "not ok  work pool     work pool nowhere does not exist; fix: prefect work-pool create "
        "--type process nowhere"
    )
    assert (
        schedule
        == "not ok  schedule      not checked: needs work pool; fix: that of work pool first"
    )
    assert last == "3 of 10 not ok"


def test_json_holds_the_same(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--json", "--without-s3", *healthy.options, "--least-free-gb", "1e9"]
    exit_code, told = run_doctor(options, monkeypatch, capsys)
    assert exit_code == 1
    findings = json.loads(told)
    assert [each["name"] for each in findings] == [
        name for name in CHECKS if name not in ("block", "bucket")
    ]
    assert {tuple(each) for each in findings} == {("name", "ok", "found", "fix")}
    assert [each["name"] for each in findings if not each["ok"]] == ["disk"]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (["--cab", "fhv"], "invalid choice: 'fhv'"),
        (["--pool", "a/b"], "'a/b' is no name: leave out"),
        (["--block", ""], "'' is no name: leave out"),
        (["--least-free-gb", "nan"], "'nan' is no number of gigabytes"),
        (["--least-free-gb", "-1"], "'-1' is no number of gigabytes"),
        (["--least-free"], "unrecognized arguments"),
    ],
)
def test_a_wrong_option_is_refused(
    option: list[str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_doctor(option, monkeypatch, capsys)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_a_wrong_prefix_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"prefix '\.\./up' is not a key prefix"):
        make_checks(Setup(prefix="../up"))
    assert run_doctor(["--prefix", "../up"], monkeypatch, capsys) == (2, "")


# The server

NEEDING_SERVER = ("work pool", "worker", "block", "bucket", "schedule")


def test_no_server_is_named(healthy: Patient) -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        fault = healthy.check("server")
    assert fault.found.startswith("PREFECT_API_URL is not set")
    assert fault.fix == (
        "prefect server start, and in other terminals: "
        "export PREFECT_API_URL=http://127.0.0.1:4200/api"
    )


def test_a_server_that_is_down_is_named(healthy: Patient) -> None:
    port = find_free_port()
    with temporary_settings({PREFECT_API_URL: f"http://user:pa55word@127.0.0.1:{port}/api"}):
        fault = healthy.have_broken("server", *NEEDING_SERVER)
    assert fault.found == f"http://127.0.0.1:{port}/api does not answer (ConnectError)"
    assert fault.fix == f"prefect server start --host 127.0.0.1 --port {port}"


@contextmanager
def serve(status: int, body: bytes) -> Iterator[str]:
    """A server that gives the same answer to all."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "found", "fix"),
    [
        (
            200,
            b'"3.0.0"',
            "runs Prefect 3.0.0, which is not made for the",
            "-m pip install prefect==",
        ),
        (
            401,
            b"{}",
            "wants another password (401)",
            "export PREFECT_API_AUTH_STRING=user:password",
        ),
        (200, b"<html>", "is no Prefect API", "export PREFECT_API_URL={url}/api, or"),
        (404, b"", "is no Prefect API", "export PREFECT_API_URL={url}/api, or"),
        (500, b"", "answered 500", "read the server's log"),
    ],
)
def test_a_server_that_will_not_do_is_named(
    healthy: Patient, status: int, body: bytes, found: str, fix: str
) -> None:
    with serve(status, body) as url, temporary_settings({PREFECT_API_URL: url}):
        fault = healthy.check("server")
    assert fault.found.startswith(f"{url} {found}")
    assert fix.format(url=url) in fault.fix


def test_the_pages_of_a_server_are_not_its_api(healthy: Patient) -> None:
    with temporary_settings({PREFECT_API_URL: healthy.server.removesuffix("/api")}):
        fault = healthy.check("server")
    assert fault.fix.startswith(f"export PREFECT_API_URL={healthy.server}, or")


@pytest.mark.parametrize("url", ["127.0.0.1:4200/api", "http://127.0.0.1:port/api"])
def test_an_address_that_is_none_is_named(healthy: Patient, url: str) -> None:
    with temporary_settings({PREFECT_API_URL: url}):
        fault = healthy.check("server")
    assert fault.found == f"PREFECT_API_URL {url} is no address"


# Versions


def write_pyproject(directory: Path, *dependencies: str, python: str = ">=3.11") -> Path:
    directory.joinpath("pyproject.toml").write_text(
        f'[project]\nname = "nyc-taxi-duration"\nrequires-python = "{python}"\n'
        f"dependencies = {json.dumps(dependencies)}\n"
        '[project.optional-dependencies]\nextra = ["not-there>=1", "httpx>=0.1"]\n'
    )
    return directory


def test_a_wrong_version_is_named(healthy: Patient, tmp_path: Path) -> None:
    checkout = write_pyproject(tmp_path, "httpx<1", "fastapi>=0.155,<0.200", "not-there-either")
    fault = healthy.have_broken("versions", checkout=checkout)
    installed = version("fastapi")
    assert fault.found == (
        f"fastapi {installed} is installed, where <0.200,>=0.155 is required, "
        "not-there-either is not installed"
    )
    assert fault.fix == "python -m pip install 'fastapi<0.200,>=0.155' not-there-either"


def test_a_wrong_python_is_named(healthy: Patient, tmp_path: Path) -> None:
    checkout = write_pyproject(tmp_path, python=">=3.11,<3.11.1")
    fault = healthy.check("versions", checkout=checkout)
    assert fault.found.startswith("Python 3.")
    assert fault.fix == "rm -rf .venv && make setup PYTHON=python3.11"


def test_an_extra_must_fit_if_it_is_there(tmp_path: Path) -> None:
    requirements = read_requirements(write_pyproject(tmp_path))
    assert requirements is not None
    assert [*find_misfits(requirements)] == []
    assert [str(each) for each in requirements.optional] == ["not-there>=1", "httpx>=0.1"]


def test_elsewhere_nothing_says_which_versions(healthy: Patient, tmp_path: Path) -> None:
    fault = healthy.check("versions", checkout=tmp_path)
    assert fault.found.startswith(f"{tmp_path} is no checkout of nyc-taxi-duration")
    assert fault.fix == "run doctor in the checkout"


# Work pool and worker


def test_a_missing_work_pool_is_made_by_the_fix(
    healthy: Patient, client: SyncPrefectClient
) -> None:
    fault = healthy.have_broken("work pool", "worker", "schedule", pool="doctor-new-pool")
    assert fault.found == "work pool doctor-new-pool does not exist"
    run_fix(fault.fix, healthy.server)
    assert healthy.check("work pool", pool="doctor-new-pool").ok
    client.delete_work_pool("doctor-new-pool")


def test_a_paused_work_pool_is_named(healthy: Patient, client: SyncPrefectClient) -> None:
    client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    fault = healthy.have_broken("work pool", "worker", "schedule")
    assert fault.found == f"work pool {POOL} is paused"
    assert fault.fix == f"prefect work-pool resume {POOL}"
    client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False, concurrency_limit=0))
    fault = healthy.check("work pool")
    assert fault.fix == f"prefect work-pool clear-concurrency-limit {POOL}"
    client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=None))
    queue = client.read_work_pool(POOL).default_queue_id
    client.update_work_queue(queue, is_paused=True)
    fault = healthy.check("work pool")
    assert fault.fix == f"prefect work-queue resume default --pool {POOL}"
    client.update_work_queue(queue, is_paused=False)
    assert healthy.check("work pool").ok


def test_a_pool_without_a_worker_is_named(healthy: Patient) -> None:
    fault = healthy.check("worker", pool=IDLE_POOL)
    assert fault.found == f"no worker of {IDLE_POOL} was ever heard of"
    assert fault.fix == f"prefect worker start -p {IDLE_POOL}"


def test_a_dead_worker_is_named(healthy: Patient) -> None:
    healthy.wait_for("worker", ok=False, pool=LEFT_POOL)
    fault = healthy.have_broken("worker", pool=LEFT_POOL)
    assert fault.found.startswith(f"no worker of {LEFT_POOL} is alive: gone was heard of ")
    assert fault.found.endswith(" s ago")
    assert fault.fix == f"prefect worker start -p {LEFT_POOL}"


# Block and bucket


Change = Callable[..., None]


def refer(client: SyncPrefectClient) -> dict[str, object]:
    """What the bucket's block has for its credentials, which an update drops unless it is given."""
    found = client.read_block_document_by_name(f"{BLOCK}-credentials", "aws-credentials")
    return {"$ref": {"block_document_id": str(found.id)}}


@pytest.fixture
def change_block(client: SyncPrefectClient) -> Iterator[Change]:
    """`change_block("aws-credentials", field=...)`: of the healthy block, for as long as a test."""
    names = {"s3-bucket": BLOCK, "aws-credentials": f"{BLOCK}-credentials"}
    saved = {
        kind: client.read_block_document_by_name(name, kind, include_secrets=True)
        for kind, name in names.items()
    }

    def update(kind: str, **data: object) -> None:
        client.update_block_document(saved[kind].id, BlockDocumentUpdate(data=data))

    yield update
    update("aws-credentials", **saved["aws-credentials"].data)
    update("s3-bucket", bucket_name=BUCKET, credentials=refer(client))


def test_a_missing_block_is_named(healthy: Patient) -> None:
    fault = healthy.have_broken("block", "bucket", block="not-saved")
    assert fault.found == "S3Bucket block not-saved is not saved"
    assert fault.fix == (
        "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... TAXI_DURATION_S3_BUCKET=..., and "
        "then: python -m taxi_duration create-s3-blocks --name not-saved"
    )


@pytest.mark.parametrize("field", ["aws_access_key_id", "aws_secret_access_key"])
def test_a_wrong_secret_is_named(
    healthy: Patient, change_block: Change, s3_server: S3Server, field: str
) -> None:
    change_block("aws-credentials", **{field: "wr0ng"})
    fault = healthy.have_broken("block", "bucket")
    assert fault.found.startswith(
        f"S3Bucket block {BLOCK}: {s3_server.endpoint} refuses its key and secret ("
    )
    assert fault.fix == (
        "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=..., and then: "
        f"python -m taxi_duration create-s3-blocks --name {BLOCK}"
    )
    assert "wr0ng" not in str(fault)


def test_a_block_without_a_key_is_named(
    healthy: Patient, change_block: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(variable, os.devnull)  # where boto3 would look for another
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    change_block("s3-bucket", bucket_name=BUCKET)
    fault = healthy.check("block")
    assert fault.found == f"S3Bucket block {BLOCK} has no key and secret"


def test_a_missing_bucket_is_named(
    healthy: Patient, change_block: Change, client: SyncPrefectClient, s3_server: S3Server
) -> None:
    change_block("s3-bucket", bucket_name="not-there", credentials=refer(client))
    fault = healthy.have_broken("bucket")
    assert fault.found == f"{s3_server.endpoint} has no bucket not-there"
    assert "export TAXI_DURATION_S3_BUCKET=..." in fault.fix


def test_a_bucket_out_of_reach_is_named(healthy: Patient, change_block: Change) -> None:
    endpoint = f"http://127.0.0.1:{find_free_port()}"
    change_block("aws-credentials", aws_client_parameters={"endpoint_url": endpoint})
    fault = healthy.have_broken("bucket")
    assert fault.found == f"{endpoint} could not be reached (EndpointConnectionError)"
    assert fault.fix.startswith("start the S3 server, or export AWS_ENDPOINT_URL=..., and then: ")
    assert healthy.check("block").found.endswith(", which could not be tried")


def test_a_bucket_that_may_not_be_listed_is_named(healthy: Patient, change_block: Change) -> None:
    denied = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    with serve(403, denied) as endpoint:
        change_block("aws-credentials", aws_client_parameters={"endpoint_url": endpoint})
        fault = healthy.check("bucket")
    assert fault.found == f"bucket {BUCKET} may not be listed (AccessDenied)"
    assert fault.fix == f"allow the block's user s3:ListBucket on arn:aws:s3:::{BUCKET}"


def test_a_bucket_without_months_is_named(healthy: Patient) -> None:
    fault = healthy.have_broken("bucket", prefix="elsewhere")
    assert fault.found == f"s3://{BUCKET}/elsewhere holds no green month"
    assert fault.fix.startswith(f"upload green_tripdata_{NEWEST}.parquet and others to s3://")


# MLflow


def test_a_store_that_is_not_there_is_not_made(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new.db")
    assert healthy.check("mlflow").found == (
        f"sqlite:///{tmp_path}/new.db is not there yet: the first run makes it"
    )
    assert [*tmp_path.iterdir()] == []


def test_a_locked_store_is_named(healthy: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_store, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(healthy.store, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        fault = healthy.have_broken("mlflow")
    assert fault.found == f"MLflow store sqlite:///{healthy.store} failed (database is locked)"
    assert fault.fix == (
        f"end the process that holds it, which this names: fuser -v {healthy.store}"
    )


def test_a_database_of_something_else_is_named(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "other.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    fault = healthy.check("mlflow")
    assert fault.found.endswith("it is a database of something else, without MLflow's tables")
    assert fault.fix == f"mv {database} {database}.aside"


def test_a_store_of_another_version_is_named(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "old.db"
    database.write_bytes(healthy.store.read_bytes())
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    fault = healthy.check("mlflow")
    assert "out-of-date database schema" in fault.found
    assert fault.fix == (
        f"cp {database} {database}.before && mlflow db upgrade sqlite:///{database}"
    )


def test_a_store_that_does_not_answer_is_named(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = find_free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:pa55word@127.0.0.1:{port}")
    fault = healthy.check("mlflow")
    assert fault.found.startswith(f"MLflow store http://127.0.0.1:{port} failed (")
    assert fault.fix == (
        f"mlflow server --host 127.0.0.1 --port {port} --backend-store-uri sqlite:///mlflow.db"
    )
    assert "pa55word" not in str(fault)


def test_a_store_that_refuses_is_named(healthy: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(401, b"") as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        fault = healthy.check("mlflow")
    assert fault.found.endswith("/search failed with error code 401 != 200")
    assert fault.fix == "export MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=..."


def test_a_store_of_no_known_kind_is_named(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    fault = healthy.check("mlflow")
    assert fault.found.startswith("MLflow store './mlruns' cannot be used: it is neither")
    assert fault.fix.endswith("MLFLOW_TRACKING_URI, such as sqlite:///mlflow.db or https://host")


# The disk


def test_a_directory_that_is_a_file_is_named(healthy: Patient, tmp_path: Path) -> None:
    (tmp_path / "models").touch()
    fault = healthy.check("disk", models_dir=tmp_path / "models")
    assert fault.found == f"models directory {tmp_path}/models is a file"
    assert fault.fix == f"mv {tmp_path}/models {tmp_path}/models.aside"


def test_a_directory_that_is_closed_is_named() -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own are closed to others
        directory = Path(made)
        directory.chmod(0o555)
        with unprivileged(), pytest.raises(CheckError) as caught:
            check_disk({"data directory": directory / "data"}, 1)
    assert caught.value.found == (
        f"data directory {directory}/data is not writable (Permission denied)"
    )
    assert caught.value.fix.endswith(f" {directory} && chmod u+rwx {directory}")


def test_a_full_disk_is_named(healthy: Patient) -> None:
    fault = healthy.have_broken("disk", least_free_gigabytes=1e9)
    assert fault.found.endswith("GB free, of 1e+09 GB that a run may need")
    assert fault.fix.startswith("remove what is not needed")


# The newest month


def test_an_unpublished_month_is_named(healthy: Patient) -> None:
    healthy.tlc.answers.append(answer_status(403))
    fault = healthy.have_broken("newest month")
    assert f"{NEWEST.file_name('green')} answered 403 Forbidden: {NEWEST} is not" in fault.found
    earlier = NEWEST.shift(-2)
    assert fault.fix == (
        f"python orchestrate.py --data-dir {healthy.setup.data_dir} --year {earlier.year} "
        f"--month {earlier.month}"
    )


def test_a_tlc_out_of_reach_is_named(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DURATION_TLC_URL", f"https://127.0.0.1:{find_free_port()}/trip-data")
    names = [month.file_name("green") for month in (NEWEST.shift(-1), NEWEST)]
    fault = healthy.have_broken("newest month", data_dir=tmp_path)
    assert fault.found.endswith(f"green {NEWEST} is not here yet in {tmp_path}")
    assert fault.fix == (
        f"check the network, or place {names[0]} and {names[1]} in {tmp_path} and run offline: "
        f"python orchestrate.py --data-dir {tmp_path} --offline"
    )
    for name in names:
        (tmp_path / name).touch()
    fault = healthy.check("newest month", data_dir=tmp_path)
    assert fault.found.endswith(f"green {NEWEST} is here in {tmp_path}")
    assert fault.fix == (
        f"check the network, or: python orchestrate.py --data-dir {tmp_path} --offline"
    )


def test_offline_the_tlc_is_not_asked(healthy: Patient, tmp_path: Path) -> None:
    before = len(healthy.tlc.requests)
    fault = healthy.check("newest month", data_dir=tmp_path, offline=True)
    names = [month.file_name("green") for month in (NEWEST.shift(-1), NEWEST)]
    assert fault.fix == f"place {names[0]} and {names[1]} in {tmp_path}"
    for name in names:
        (tmp_path / name).touch()
    assert healthy.check("newest month", data_dir=tmp_path, offline=True).ok
    assert len(healthy.tlc.requests) == before


def test_a_wrong_setting_is_named(healthy: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_DURATION_TLC_URL", "http://example.org")
    fault = healthy.check("newest month")
    assert fault.found == "TAXI_DURATION_TLC_URL is 'http://example.org': it is no https address"
    assert fault.fix == "correct or unset it"


# Schedules


def test_a_paused_schedule_is_named(healthy: Patient, client: SyncPrefectClient) -> None:
    deployment = client.read_deployment_by_name(LOCAL)
    (schedule,) = deployment.schedules
    client.update_deployment_schedule(deployment.id, schedule.id, active=False)
    fault = healthy.have_broken("schedule")
    assert fault.found == "no schedule of 2 deployments is active"
    assert fault.fix == f"prefect deployment schedule resume {LOCAL} {schedule.id}"
    client.update_deployment_schedule(deployment.id, schedule.id, parameters={"train_months": 3})
    # Which resuming would lose.
    assert healthy.check("schedule").fix == (
        "sed -i.off 's/active: false/active: true/' prefect.yaml && prefect deploy --all"
    )
    client.update_deployment_schedule(deployment.id, schedule.id, active=True)
    # Of deployments that were not changed the server thinks once a minute.
    client.update_deployment(deployment.id, DeploymentUpdate(description="resumed"))
    healthy.wait_for("schedule", ok=True)


def test_a_schedule_of_production_is_turned_on_in_its_own_file(healthy: Patient) -> None:
    assert healthy.check("schedule", pool=PRODUCTION_POOL).fix == (
        "sed -i.off 's/active: false/active: true/' deployment.yaml && "
        "prefect --no-prompt deploy --prefect-file deployment.yaml --all"
    )


def test_a_paused_schedule_is_resumed_by_the_fix(healthy: Patient) -> None:
    run_fix(healthy.check("schedule", pool=PAUSED_POOL).fix, healthy.server)
    finding = healthy.check("schedule", pool=PAUSED_POOL)
    # The server plans its runs within a minute.
    assert finding.ok or finding.found.endswith("has an active schedule and no run planned")
    assert finding.ok or finding.fix.startswith("wait a minute and run doctor again")


def test_a_paused_deployment_is_resumed_by_the_fix(
    healthy: Patient, client: SyncPrefectClient
) -> None:
    deployment = client.read_deployment_by_name(LOCAL)
    client.pause_deployment(deployment.id)
    fault = healthy.check("schedule")
    assert fault.found == f"deployment {LOCAL} is paused, and no other has an active schedule"
    run_fix(fault.fix, healthy.server)
    healthy.wait_for("schedule", ok=True)


def test_deployments_without_a_schedule_are_named(healthy: Patient) -> None:
    fault = healthy.check("schedule", pool=IDLE_POOL)
    assert fault.found == "none of 2 deployments has a schedule"
    assert fault.fix == (
        f"prefect deployment schedule create {LOCAL}_{IDLE_POOL} --cron '0 6 5 * *' "
        "--timezone America/New_York"
    )


def test_a_flow_that_is_not_deployed_is_named(healthy: Patient, client: SyncPrefectClient) -> None:
    client.create_work_pool(WorkPoolCreate(name="doctor-bare-pool", type="process"))
    fault = healthy.check("schedule", pool="doctor-bare-pool")
    assert fault.found == "main-flow and main-flow-s3 not deployed to doctor-bare-pool"
    assert fault.fix == "prefect deploy --all"


# Checks of any kind


def test_a_check_that_hangs_or_fails_stops_no_other() -> None:
    def fail() -> str:
        raise ZeroDivisionError("https://user:pa55word@host\nand more")

    released = threading.Event()

    def hang() -> str:
        released.wait()
        return "late"

    checks = [
        Check("failing", fail),
        Check("hanging", hang, ("other",)),
        Check("needing", fail, ("hanging",)),
        Check("last", lambda: "well"),
    ]
    findings = [*examine(checks, seconds=0.05)]
    released.set()
    assert findings == [
        Finding(
            "failing",
            ok=False,
            found="the check itself failed (ZeroDivisionError: https://host)",
            fix="report this line",
        ),
        Finding(
            "hanging",
            ok=False,
            found="no answer within 0.05 s",
            fix="look for a network, name server or network disk that hangs, and run doctor again",
        ),
        Finding(
            "needing",
            ok=False,
            found="not checked: needs hanging",
            fix="that of hanging first",
        ),
        Finding("last", ok=True, found="well", fix=""),
    ]


def test_the_key_is_not_shown_either(healthy: Patient) -> None:
    assert KEY not in str(healthy.examine())
