"""doctor says that a healthy set-up is ok, and of each fault what is broken and the fix."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import prefect
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    BlockDocumentUpdate,
    DeploymentScheduleCreate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from taxi_duration.cli import doctor
from taxi_duration.cli.app import main
from taxi_duration.data.bucket import create_blocks
from taxi_duration.data.month import newest_published
from taxi_duration.operations.doctor import (
    Check,
    CheckError,
    Finding,
    Setup,
    check_versions,
    examine,
    make_checks,
)
from taxi_duration.registry import store as mlflow_store
from taxi_duration.registry.store import hold_store
from tests.conftest import connected_to
from tests.support.buckets import BUCKET, KEY, SECRET, S3Server
from tests.support.months import write_month
from tests.support.servers import find_free_port, make_environment, wait_until
from tests.support.web import Tlc, answer_status, serve_tlc

POOL, LEFT_POOL, IDLE_POOL = "doctor-pool", "doctor-left-pool", "doctor-idle-pool"
BLOCK = "doctor-bucket"
NEWEST = newest_published(date.today())
FILES = [month.file_name("green") for month in (NEWEST.shift(-1), NEWEST)]
CHECKS = [
    "server", "versions", "work pool", "worker", "block", "bucket", "mlflow", "disk",
    "newest month", "schedule",
]  # fmt: skip
NEEDING_SERVER = ["work pool", "worker", "block", "bucket", "schedule"]
WAIT_SECONDS = 60.0
SAVE_BLOCK = (
    "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... TAXI_DURATION_S3_BUCKET=..., and then: "
    "python -m taxi_duration create-s3-blocks --name "
)
TURN_ON = "sed -i.off 's/active: false/active: true/' "


@dataclass(frozen=True)
class Patient:
    """A healthy set-up and what it stands on."""

    server: str
    setup: Setup
    store: Path
    tlc: Tlc

    def examine(self, **changes: object) -> dict[str, Finding]:
        """Make all checks with some of the setup's fields changed."""
        setup = self.setup.model_copy(update=changes)
        return {each.name: each for each in examine(make_checks(setup), WAIT_SECONDS)}

    def check(self, name: str, **changes: object) -> Finding:
        """Make one check alone."""
        setup = self.setup.model_copy(update=changes)
        (check,) = (each for each in make_checks(setup) if each.name == name)
        (finding,) = examine([check], WAIT_SECONDS)
        assert SECRET not in str(finding)
        return finding


@pytest.fixture(scope="module")
def healthy(
    prefect_server: str, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Patient]:
    """Everything a deployed pipeline stands on, on names of its own on the shared servers."""
    directory = tmp_path_factory.mktemp("doctor")
    write_month(s3_server.bucket / "doctor" / FILES[1], month=NEWEST)
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
    with (
        pytest.MonkeyPatch.context() as patched,
        serve_tlc(directory) as tlc,
        connected_to(prefect_server),
    ):
        # So that fixes name the programs shortly, as in an activated environment.
        patched.setenv("PATH", make_environment()["PATH"])
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
        for name, value in tlc.environment.items():
            patched.setenv(name, value)
        tlc.files[FILES[1]] = bytes(1_300_000)
        create_blocks(s3_server.environment, BLOCK)
        with get_client(sync_client=True) as client:
            deploy(client)
            # As workers do; the second never again.
            client.send_worker_heartbeat(POOL, "alive", heartbeat_interval_seconds=600)
            client.send_worker_heartbeat(LEFT_POOL, "gone", heartbeat_interval_seconds=1)
        try:
            yield Patient(prefect_server, setup, store, tlc)
        finally:
            undeploy()


def deploy(client: SyncPrefectClient) -> None:
    for pool in (POOL, LEFT_POOL, IDLE_POOL):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    monthly = CronSchedule(cron="0 6 5 * *", timezone="America/New_York")
    for pool, flow in product((POOL, IDLE_POOL), ("main-flow", "main-flow-s3")):
        is_active = (pool, flow) == (POOL, "main-flow")
        deployment = client.create_deployment(
            client.create_flow_from_name(flow),
            flow if pool == POOL else f"{flow}_production",
            work_pool_name=pool,
            schedules=[DeploymentScheduleCreate(schedule=monthly, active=is_active)],
        )
        if is_active:  # as the server's scheduler does within a minute
            client.create_flow_run_from_deployment(
                deployment,
                state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=9)),
                tags=["auto-scheduled"],
            )


def undeploy() -> None:
    """Leave the server to other tests as it was: an active schedule would plan runs."""
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            if (deployment.work_pool_name or "").startswith("doctor-"):
                client.delete_deployment(deployment.id)
        for pool in client.read_work_pools():
            if pool.name.startswith("doctor-"):
                client.delete_work_pool(pool.name)


@pytest.fixture
def client(healthy: Patient) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def read(finding: Finding) -> tuple[str, str]:
    assert not finding.ok
    return finding.found, finding.fix


# The whole


def test_a_healthy_setup_is_all_ok(healthy: Patient) -> None:
    findings = healthy.examine()
    assert [(name, each.ok, each.fix) for name, each in findings.items()] == [
        (name, True, "") for name in CHECKS
    ]
    found = {name: finding.found for name, finding in findings.items()}
    assert found["server"] == f"{healthy.server}, Prefect {prefect.__version__}"
    assert found["work pool"] == f"{POOL}, of type process"
    assert found["worker"].startswith("1 alive: alive was heard of ")
    assert found["block"].startswith(f"S3Bucket block {BLOCK}, bucket taxi at http://127.0.0.1:")
    assert found["bucket"] == f"s3://taxi/doctor, 1 green months, the newest {NEWEST}"
    assert found["mlflow"] == f"sqlite:///{healthy.store}"
    assert found["newest month"].startswith(f"green {NEWEST} is published (1.3 MB) and not here")
    assert found["schedule"].startswith("2 deployments; next run ")
    assert found["schedule"].endswith(" UTC, main-flow/main-flow")
    assert KEY not in str(found)


def test_the_command_prints_a_line_a_check_or_json(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", partial(examine, seconds=WAIT_SECONDS))
    options = [
        *("doctor", "--block", BLOCK, "--prefix", "doctor"),
        *("--data-dir", str(healthy.setup.data_dir), "--models-dir", str(healthy.setup.models_dir)),
    ]
    assert main([*options, "--pool", POOL]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [(line[:8], line[8:20].strip()) for line in lines] == [
        ("ok      ", name) for name in CHECKS
    ]
    assert last == "all 10 ok"

    assert main([*options, "--pool", "nowhere"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == (
        "not ok  work pool     work pool nowhere does not exist; fix: prefect work-pool create "
        "--type process nowhere"
    )
    assert lines[-2:] == [
        "not ok  schedule      not checked: needs work pool; fix: that of work pool first",
        "3 of 10 not ok",
    ]

    assert main([*options, "--pool", POOL, "--json", "--without-s3", "--least-free-gb", "1e9"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in findings] == [
        name for name in CHECKS if name not in ("block", "bucket")
    ]
    assert {tuple(each) for each in findings} == {("name", "ok", "found", "fix")}
    assert [each["name"] for each in findings if not each["ok"]] == ["disk"]


@pytest.mark.parametrize(
    "option",
    [
        ("--cab", "bus"),
        ("--pool", "a/b"),
        ("--block", ""),
        ("--prefix", "../up"),
        ("--least-free-gb", "nan"),
        ("--least-free-gb", "-1"),
    ],
)
def test_a_wrong_option_is_refused(
    option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *option]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("error: ")
    assert option[1] in errors


def test_a_check_that_hangs_or_fails_stops_no_other() -> None:
    released = threading.Event()

    def fail() -> str:
        raise ZeroDivisionError("https://user:pa55word@host\nand more")

    def hang() -> str:
        released.wait()
        return "late"

    def find() -> str:
        raise CheckError("of http://user:pa55word@host", "mend")

    checks = [
        Check("failing", fail),
        Check("faulty", find),
        Check("hanging", hang, ("other",)),
        Check("needing", fail, ("hanging",)),
        Check("last", lambda: "well"),
    ]
    findings = [(each.ok, each.found, each.fix) for each in examine(checks, seconds=0.05)]
    released.set()
    assert findings == [
        (False, "the check itself failed (ZeroDivisionError: https://host)", "report this"),
        (False, "of http://host", "mend"),
        (
            False,
            "no answer within 0.05 s",
            "look for a network or network disk that hangs, and run doctor again",
        ),
        (False, "not checked: needs hanging", "that of hanging first"),
        (True, "well", ""),
    ]


# The server


def test_no_server(healthy: Patient) -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        found, fix = read(healthy.check("server"))
    assert found.startswith("PREFECT_API_URL is not set")
    assert fix == (
        "prefect server start, and in other terminals: "
        "export PREFECT_API_URL=http://127.0.0.1:4200/api"
    )


def test_a_server_that_is_down(healthy: Patient) -> None:
    port = find_free_port()
    with temporary_settings({PREFECT_API_URL: f"http://user:pa55word@127.0.0.1:{port}/api"}):
        findings = healthy.examine()
    assert [name for name, each in findings.items() if not each.ok] == ["server", *NEEDING_SERVER]
    assert all(findings[name].found == "not checked: needs server" for name in NEEDING_SERVER)
    found, fix = read(findings["server"])
    assert found.startswith(f"Prefect server http://127.0.0.1:{port}/api failed (")
    assert fix == f"prefect server start --host 127.0.0.1 --port {port}"
    assert "pa55word" not in str(findings)


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
        (200, b'"3.0.0"', "runs Prefect 3.0.0, ", "-m pip install prefect=="),
        (401, b"{}", "answered 401", "export PREFECT_API_AUTH_STRING=user:password"),
        (200, b"<html>", "is not a Prefect API", "correct PREFECT_API_URL"),
        (404, b"", "answered 404", "correct PREFECT_API_URL"),
        (500, b"", "answered 500", "read the server's log"),
    ],
)
def test_a_server_that_will_not_do(
    healthy: Patient, status: int, body: bytes, found: str, fix: str
) -> None:
    with serve(status, body) as url, temporary_settings({PREFECT_API_URL: url}):
        finding = healthy.check("server")
    assert not finding.ok
    assert finding.found.startswith(f"{url} {found}")
    assert fix in finding.fix


@pytest.mark.parametrize("url", ["127.0.0.1:4200/api", "http://127.0.0.1:port/api"])
def test_an_address_that_is_none(healthy: Patient, url: str) -> None:
    with temporary_settings({PREFECT_API_URL: url}):
        found, fix = read(healthy.check("server"))
    assert found.startswith(f"Prefect server {url} failed (")
    assert fix == "export PREFECT_API_URL=http://127.0.0.1:4200/api"


# Versions


def write_pyproject(directory: Path, *dependencies: str, python: str = ">=3.11") -> Path:
    directory.joinpath("pyproject.toml").write_text(
        f'[project]\nname = "nyc-taxi-duration"\nrequires-python = "{python}"\n'
        f"dependencies = {json.dumps(dependencies)}\n"
        '[project.optional-dependencies]\nextra = ["not-there>=1", "httpx>=0.1"]\n'
    )
    return directory


def test_wrong_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", make_environment()["PATH"])
    assert check_versions(write_pyproject(tmp_path)).endswith("pyproject.toml requires")
    with pytest.raises(CheckError) as caught:
        check_versions(
            write_pyproject(
                tmp_path, "httpx<1", "fastapi>=0.155,<0.200", "gone;python_version<'3'", "not-here"
            )
        )
    assert caught.value.problem == (
        f"fastapi {version('fastapi')} is installed, where <0.200,>=0.155 is required, "
        "not-here is not installed"
    )
    assert caught.value.remedy == "python -m pip install 'fastapi<0.200,>=0.155' not-here"
    with pytest.raises(CheckError) as caught:
        check_versions(write_pyproject(tmp_path, python=">=3.11,<3.11.1"))
    assert caught.value.remedy == "rm -rf .venv && make setup PYTHON=python3.11"


# Work pool and worker


def test_a_work_pool_that_hands_out_nothing(healthy: Patient, client: SyncPrefectClient) -> None:
    queue = client.read_work_pool(POOL).default_queue_id
    client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    paused = healthy.check("work pool")
    client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False, concurrency_limit=0))
    limited = healthy.check("work pool")
    client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=None))
    client.update_work_queue(queue, is_paused=True)
    queued = healthy.check("work pool")
    client.update_work_queue(queue, is_paused=False)
    assert [read(each) for each in (paused, limited, queued)] == [
        (f"work pool {POOL} is paused", f"prefect work-pool resume {POOL}"),
        (f"work pool {POOL} has a limit of 0", f"prefect work-pool clear-concurrency-limit {POOL}"),
        (
            f"work pool {POOL} has a paused queue",
            f"prefect work-queue resume default --pool {POOL}",
        ),
    ]


def test_a_pool_without_a_worker_that_is_alive(healthy: Patient) -> None:
    assert read(healthy.check("worker", pool=IDLE_POOL)) == (
        f"no worker of {IDLE_POOL} was ever heard of",
        f"prefect worker start -p {IDLE_POOL}",
    )
    wait_until(lambda: not healthy.check("worker", pool=LEFT_POOL).ok, "the worker to be dead")
    found, fix = read(healthy.check("worker", pool=LEFT_POOL))
    assert found.startswith(f"no worker of {LEFT_POOL} is alive: gone was heard of ")
    assert fix == f"prefect worker start -p {LEFT_POOL}"


# Block and bucket


@contextmanager
def changed(client: SyncPrefectClient, **data: object) -> Iterator[None]:
    """Change fields of the credentials block, and back."""
    name, kind = f"{BLOCK}-credentials", "aws-credentials"
    saved = client.read_block_document_by_name(name, kind, include_secrets=True)
    client.update_block_document(saved.id, BlockDocumentUpdate(data=data))
    try:
        yield
    finally:
        client.update_block_document(saved.id, BlockDocumentUpdate(data=saved.data))


def test_a_missing_block(healthy: Patient) -> None:
    assert read(healthy.check("block", block="not-saved")) == (
        "S3Bucket block not-saved is not saved",
        f"{SAVE_BLOCK}not-saved",
    )


@pytest.mark.parametrize("fault", ["key", "secret", "address", "right", "bucket"])
def test_a_bucket_that_cannot_be_listed(
    fault: str, healthy: Patient, client: SyncPrefectClient
) -> None:
    denied = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    gone = b"<Error><Code>NoSuchBucket</Code><Message>no</Message></Error>"
    with serve(403, denied) as denying, serve(404, gone) as empty:
        nowhere = f"http://127.0.0.1:{find_free_port()}"
        fields: dict[str, Any] = {
            "key": {"aws_access_key_id": "wr0ng"},
            "secret": {"aws_secret_access_key": "wr0ng"},
            "address": {"aws_client_parameters": {"endpoint_url": nowhere}},
            "right": {"aws_client_parameters": {"endpoint_url": denying}},
            "bucket": {"aws_client_parameters": {"endpoint_url": empty}},
        }
        with changed(client, **fields[fault]):
            block, bucket = healthy.check("block"), healthy.check("bucket")
    assert block.ok
    found, fix = read(bucket)
    assert found.startswith(f"listing s3://{BUCKET}/doctor at http://127.0.0.1:")
    assert {"address": nowhere, "right": "AccessDenied", "bucket": "NoSuchBucket"}.get(
        fault, "An error occurred"
    ) in found
    assert fix == f"allow the block's user s3:ListBucket on {BUCKET}, or {SAVE_BLOCK}{BLOCK}"
    assert "wr0ng" not in found


def test_a_bucket_without_months(healthy: Patient) -> None:
    assert read(healthy.check("bucket", prefix="elsewhere")) == (
        f"s3://{BUCKET}/elsewhere holds no green month",
        f"upload {FILES[1]} and others to s3://{BUCKET}/elsewhere/",
    )


# MLflow and the disk


def test_a_missing_store_is_not_made(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new.db")
    assert healthy.check("mlflow").found == (
        f"sqlite:///{tmp_path}/new.db does not exist yet: the first run makes it"
    )
    assert [*tmp_path.iterdir()] == []


def test_a_locked_store(healthy: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_store, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(healthy.store, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        finding = healthy.check("mlflow")
    assert not finding.ok
    assert "database is locked" in finding.found


def test_a_store_of_another_version(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "old.db"
    database.write_bytes(healthy.store.read_bytes())
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    found, fix = read(healthy.check("mlflow"))
    assert "out-of-date database schema" in found
    assert fix == f"cp {database} {database}.before && mlflow db upgrade sqlite:///{database}"


@pytest.mark.parametrize("store", ["a database of something else", "no answer", "no known kind"])
def test_a_store_that_cannot_be_used(
    healthy: Patient, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, port = tmp_path / "other.db", find_free_port()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    uri, found = {
        "a database of something else": (f"sqlite:///{database}", "it is a database of something"),
        "no answer": (f"http://user:pa55word@127.0.0.1:{port}", f"http://127.0.0.1:{port} failed"),
        "no known kind": ("./mlruns", "'./mlruns' cannot be used"),
    }[store]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    finding = healthy.check("mlflow")
    assert not finding.ok
    assert found in finding.found
    assert "db upgrade" not in finding.fix
    assert "pa55word" not in str(finding)


def test_a_disk_that_takes_no_model(healthy: Patient, tmp_path: Path) -> None:
    found, fix = read(healthy.check("disk", least_free_gb=1e9))
    assert found.endswith("GB free, of 1e+09 GB that a run may need")
    assert fix.startswith("remove what is not needed")
    (tmp_path / "models").touch()
    found, _ = read(healthy.check("disk", models_dir=tmp_path / "models"))
    assert found.startswith(f"models directory {tmp_path}/models is a file")


# The newest month


def test_an_unpublished_month(healthy: Patient) -> None:
    healthy.tlc.answers.append(answer_status(403))
    found, fix = read(healthy.check("newest month"))
    assert f"{FILES[1]} answered 403 Forbidden" in found
    earlier = NEWEST.shift(-2)
    assert fix == (
        f"place {FILES[0]} and {FILES[1]} in {healthy.setup.data_dir} and run with --offline, or "
        f"train on an earlier month: --year {earlier.year} --month {earlier.month}"
    )


def test_a_tlc_out_of_reach(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_DURATION_TLC_URL", f"https://127.0.0.1:{find_free_port()}/trip-data")
    found, _ = read(healthy.check("newest month", data_dir=tmp_path))
    assert found.endswith(f"green {NEWEST} is not here yet in {tmp_path}")
    for name in FILES:
        (tmp_path / name).touch()
    found, fix = read(healthy.check("newest month", data_dir=tmp_path))
    assert found.endswith(f"green {NEWEST} is here in {tmp_path}")
    assert fix.startswith("run with --offline, or train on an earlier month: ")


def test_offline_the_tlc_is_not_asked(healthy: Patient, tmp_path: Path) -> None:
    before = len(healthy.tlc.requests)
    _, fix = read(healthy.check("newest month", data_dir=tmp_path, offline=True))
    assert fix == f"place {FILES[0]} and {FILES[1]} in {tmp_path}"
    for name in FILES:
        (tmp_path / name).touch()
    assert healthy.check("newest month", data_dir=tmp_path, offline=True).ok
    assert len(healthy.tlc.requests) == before


def test_a_wrong_setting(healthy: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_DURATION_TLC_URL", "http://example.org")
    found, _ = read(healthy.check("newest month"))
    assert found.startswith("TAXI_DURATION_TLC_URL is 'http://example.org'")


# Schedules


def test_schedules_that_are_off_are_turned_on_in_their_file(
    healthy: Patient, client: SyncPrefectClient
) -> None:
    assert read(healthy.check("schedule", pool=IDLE_POOL)) == (
        "no schedule of 2 deployments is active",
        f"{TURN_ON}deployment.yaml && "
        "prefect --no-prompt deploy --prefect-file deployment.yaml --all",
    )
    deployment = client.read_deployment_by_name("main-flow/main-flow")
    (schedule,) = deployment.schedules
    client.update_deployment_schedule(deployment.id, schedule.id, active=False)
    finding = healthy.check("schedule")
    client.update_deployment_schedule(deployment.id, schedule.id, active=True)
    assert finding.fix == f"{TURN_ON}prefect.yaml && prefect deploy --all"
    # The server plans its runs within a minute.
    finding = healthy.check("schedule")
    assert finding.ok or finding.found == (
        "main-flow/main-flow has an active schedule and no run planned"
    )


def test_a_paused_deployment_is_resumed_by_the_fix(
    healthy: Patient, client: SyncPrefectClient
) -> None:
    deployment = client.read_deployment_by_name("main-flow/main-flow")
    client.pause_deployment(deployment.id)
    found, fix = read(healthy.check("schedule"))
    assert found == (
        "deployment main-flow/main-flow is paused, and no other has an active schedule"
    )
    command, path = fix.rsplit(" ", 1)
    assert command == "prefect api POST"
    client._client.post(path).raise_for_status()
    assert not client.read_deployment(deployment.id).paused


def test_a_flow_that_is_not_deployed(healthy: Patient) -> None:
    assert read(healthy.check("schedule", pool=LEFT_POOL)) == (
        f"main-flow and main-flow-s3 not deployed to {LEFT_POOL}",
        "prefect deploy --all",
    )
