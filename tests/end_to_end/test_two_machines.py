"""A server with a password here; elsewhere a worker, which shares its address and nothing else.

Elsewhere both files are deployed: prefect.yaml from a checkout that stays, deployment.yaml from one
that is gone before its code is run.
"""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from taxi_duration.data.month import Month
from tests.conftest import REPOSITORY
from tests.support.buckets import SECRET, S3Server, serve_s3
from tests.support.deployments import (
    PATIENCE_SECONDS,
    end_well,
    make_checkout,
    make_machine,
    read_run,
    start_run,
    wait_for_state,
    work,
)
from tests.support.halted import HALTED
from tests.support.months import write_month, write_months
from tests.support.runs import read_logs, read_report_artifact
from tests.support.servers import PROGRAMS, answers, find_free_port, run_server

AUTH = "taxi:the-secret-of-the-server"
JANUARY = Month(2023, 1)
RUNS = {
    "local": "main-flow/taxi_local_data",
    "s3": "main-flow-s3/taxi_s3_data",
    "local production": "main-flow/taxi_local_data_production",
    "s3 production": "main-flow-s3/taxi_s3_data_production",
}
WITHIN_MLFLOW_RUN = "taxi_duration.registry.mlflow_run:collect_metrics"


@dataclass(frozen=True)
class Elsewhere:
    """The other machine: its environment and what is on its disk."""

    environment: dict[str, str]
    checkout: Path
    production: Path
    """Where production runs keep months, models and MLflow's store."""
    worker_directory: Path

    def run(self, *command: str | Path, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.checkout, env={**self.environment, **changed},
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """In the place of the suite's: a server that asks who is there."""
    port = find_free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = make_machine(
        tmp_path_factory.mktemp("here") / "home",
        PREFECT_SERVER_API_HOST="127.0.0.1",
        PREFECT_SERVER_API_PORT=str(port),
        PREFECT_SERVER_API_AUTH_STRING=AUTH,
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
    )
    command = [PROGRAMS / "prefect", "server", "start"]
    log = Path(environment["HOME"]) / "server.log"
    with run_server(command, environment, log, lambda: answers(f"{url}/health")):
        yield url


@pytest.fixture
def client_here(prefect_server: str) -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: prefect_server, PREFECT_API_AUTH_STRING: AUTH}):
        yield


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server with two months."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as served:
        write_months(served.bucket / "trip-data", JANUARY)
        yield served


@pytest.fixture(scope="module")
def elsewhere(
    prefect_server: str, bucket: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Elsewhere]:
    """The other machine, its worker started where there is no checkout, and the blocks saved."""
    root = tmp_path_factory.mktemp("elsewhere")
    environment = make_machine(
        root / "home", PREFECT_API_URL=prefect_server, PREFECT_API_AUTH_STRING=AUTH
    )
    machine = Elsewhere(
        environment, make_checkout(root / "checkout"), root / "production", root / "worker"
    )
    write_months(machine.checkout / "data", JANUARY)
    write_months(machine.production / "data", JANUARY)
    with work(environment, machine.worker_directory):
        saved = machine.run(
            sys.executable, "-m", "taxi_duration", "create-s3-blocks", **bucket.environment
        )
        assert saved.returncode == 0, saved.stderr
        yield machine


PRIVATE = {
    ".env": "AWS_SECRET_ACCESS_KEY=a-secret",
    "notes.ipynb": "{}",
    "taxi_duration/credentials.json": "{}",
    "data/green_tripdata_2023-03.parquet": "trips",
    "models/green/2023-01-0123abcd/model.skops": "a model",
    "mlflow.db": "runs",
}


def name_commit(checkout: Path) -> str:
    """What the build step of deployment.yaml calls a checkout."""
    content = yaml.safe_load((checkout / "deployment.yaml").read_text("utf-8"))
    (step,) = content["build"][1].values()
    (line,) = step["script"].splitlines()
    named = subprocess.run(
        ["sh", "-c", line], cwd=checkout, capture_output=True, text=True, check=True
    )
    return named.stdout.strip()


def test_each_state_of_a_checkout_has_its_name(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    committed = name_commit(checkout)
    assert re.fullmatch("[0-9a-f]{40}", committed)
    changed = []
    for line in ("# One change.\n", "# Another.\n"):
        (checkout / "orchestrate.py").write_text(line, "utf-8")
        changed.append(name_commit(checkout))
        assert changed[-1] == name_commit(checkout)
        assert re.fullmatch(f"{committed}-dirty-[0-9a-f]{{8}}", changed[-1])
    assert len({*changed}) == 2


@pytest.fixture(scope="module")
def production(elsewhere: Elsewhere, bucket: S3Server) -> str:
    """What deployment.yaml calls the code it deployed, its checkout gone.

    A schedule was turned on in the file, and is due every half a minute.
    """
    checkout = make_checkout(elsewhere.checkout.with_name("gone"))
    for name, content in PRIVATE.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(content, "utf-8")
    file = checkout / "deployment.yaml"
    written = file.read_text("utf-8")
    turned_on = written.replace("active: false", "active: true", 1)
    often = turned_on.replace("interval: 2419200", "interval: 30")
    assert written != turned_on != often
    file.write_text(often, "utf-8")
    # What halts a run where it is told to, and does nothing to one that is not.
    with (checkout / "orchestrate.py").open("a", encoding="utf-8") as flow_file:
        flow_file.write((checkout / "tests/support/halted.py").read_text("utf-8"))
    for month in Month.of(datetime.now(UTC).date()).shift(-2).window(5):  # a month may begin now
        write_month(elsewhere.production / "data" / month.file_name("green"), month=month)
    deployed = subprocess.run(
        [PROGRAMS / "prefect", "--no-prompt", "deploy", "--prefect-file", "deployment.yaml",
         "--all"],
        cwd=checkout,
        env={
            **elsewhere.environment,
            "TAXI_DURATION_S3_BUCKET": bucket.environment["TAXI_DURATION_S3_BUCKET"],
            "TAXI_DURATION_DIRECTORY": str(elsewhere.production),
            "MLFLOW_TRACKING_URI": f"sqlite:///{elsewhere.production / 'mlflow.db'}",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    name = name_commit(checkout)
    shutil.rmtree(checkout)
    return name


@pytest.fixture(scope="module")
def due(production: str, prefect_server: str) -> FlowRun:
    """A run that only the schedule in deployment.yaml started; the schedule is off again."""
    with (
        temporary_settings({PREFECT_API_URL: prefect_server, PREFECT_API_AUTH_STRING: AUTH}),
        get_client(sync_client=True) as client,
    ):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (begun := [run for run in client.read_flow_runs() if run.start_time]):
            assert time.monotonic() < deadline, "its schedule started no run"
            time.sleep(0.2)
        deployment = client.read_deployment_by_name(RUNS["local production"])
        (schedule,) = deployment.schedules
        client.update_deployment_schedule(deployment.id, schedule.id, active=False)
        return wait_for_state(begun[0].name, "Completed")


@pytest.mark.usefixtures("client_here")
def test_schedule_of_production_starts_its_run(due: FlowRun, elsewhere: Elsewhere) -> None:
    assert due.auto_scheduled
    assert due.created_by is not None
    assert due.created_by.display_value == "every-four-weeks"
    assert due.parameters == {
        "cab": "green",
        "data_dir": f"{elsewhere.production}/data",
        "models_dir": f"{elsewhere.production}/models",
        "train_months": 3,
    }
    assert due.expected_start_time is not None
    *train, validation = Month.of(due.expected_start_time.date()).shift(-3).window(4)
    (path,) = elsewhere.production.glob(f"models/green/{train[-1]}-*/report.json")
    report = json.loads(path.read_text("utf-8"))
    assert report["train"]["months"] == [str(month) for month in train]
    assert report["validation"]["month"] == str(validation)
    assert path.parent.name in str(read_report_artifact(due.id).data)


def test_only_what_a_run_needs_is_pushed(
    production: str, elsewhere: Elsewhere, bucket: S3Server
) -> None:
    code = bucket.bucket / "code"
    pushed = {str(path.relative_to(code)) for path in code.rglob("*") if path.is_file()}
    package = {f"taxi_duration/{path.name}" for path in elsewhere.checkout.glob("taxi_duration/*")}
    needed = {"orchestrate.py", "orchestrate_s3.py", *package} - {"taxi_duration/__pycache__"}
    assert pushed == {f"nyc-taxi-duration/{production}/{name}" for name in needed}


@pytest.mark.usefixtures("client_here")
def test_no_secret_is_in_a_deployment(production: str) -> None:
    with get_client(sync_client=True) as client:
        for name in RUNS.values():
            if name.endswith("_production"):
                deployment = client.read_deployment_by_name(name)
                said = deployment.model_dump_json()
                assert SECRET not in said
                assert "prefect.blocks.aws-credentials.s3-bucket-block-credentials" in said
                assert deployment.version == production


@pytest.fixture(scope="module")
def runs(elsewhere: Elsewhere, due: FlowRun, prefect_server: str) -> dict[str, FlowRun]:
    """Both deployments of both files, on the same two months."""
    deployed = elsewhere.run(PROGRAMS / "prefect", "--no-prompt", "deploy", "--all")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    common: dict[str, object] = {"year": 2023, "month": 1}
    # Not where the other saves its model: that one would be found and kept.
    apart = {
        "s3": {"models_dir": "models-s3"},
        "s3 production": {"models_dir": elsewhere.production / "models-s3"},
    }
    watched = [
        start_run(
            deployment, name, {**common, **apart.get(name, {})}, elsewhere.environment, "--watch"
        )
        for name, deployment in RUNS.items()
    ]
    end_well(*watched)
    with temporary_settings({PREFECT_API_URL: prefect_server, PREFECT_API_AUTH_STRING: AUTH}):
        return {name: read_run(name) for name in RUNS}


def test_all_runs_complete(runs: dict[str, FlowRun], elsewhere: Elsewhere) -> None:
    assert {run.state_name for run in runs.values()} == {"Completed"}
    assert runs["local production"].parameters == {
        "cab": "green",
        "data_dir": f"{elsewhere.production}/data",
        "models_dir": f"{elsewhere.production}/models",
        "year": 2023,
        "month": 1,
    }


@pytest.mark.usefixtures("client_here")
def test_server_has_logs_and_artifacts_of_runs_elsewhere(runs: dict[str, FlowRun]) -> None:
    for run in runs.values():
        read_logs(run.id, awaited="2023-01: kept 12 of 12 trips")
        assert "2023-02" in str(read_report_artifact(run.id).data)


def test_models_and_months_outlive_the_pulled_code(
    runs: dict[str, FlowRun], elsewhere: Elsewhere, bucket: S3Server
) -> None:
    reports = [
        *elsewhere.checkout.glob("models*/green/2023-01-*/report.json"),
        *elsewhere.production.glob("models*/green/2023-01-*/report.json"),
        *bucket.bucket.glob("models/green/2023-01-*/report.json"),
    ]
    assert len(reports) == 5
    assert len({report.read_bytes() for report in reports}) == 1
    fetched = elsewhere.production / "data" / "s3" / JANUARY.file_name("green")
    assert fetched.with_name(f"{fetched.name}.json").exists()
    for store in (elsewhere.checkout / "mlflow.db", elsewhere.production / "mlflow.db"):
        with closing(sqlite3.connect(store)) as connection:
            statuses = connection.execute("SELECT DISTINCT status FROM runs").fetchall()
        assert statuses == [("FINISHED",)]


@pytest.fixture(scope="module")
def cancelled(elsewhere: Elsewhere, due: FlowRun, prefect_server: str) -> FlowRun:
    """A production run cancelled within its MLflow run, in directories of its own."""
    directory = elsewhere.production / "cancelled"
    directory.mkdir()
    variables = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{directory / 'mlflow.db'}",
        "HALT_AT": WITHIN_MLFLOW_RUN,
        "HALT_IN": str(directory),
    }
    parameters: dict[str, object] = {"year": 2023, "month": 1, "models_dir": directory / "models"}
    with temporary_settings({PREFECT_API_URL: prefect_server, PREFECT_API_AUTH_STRING: AUTH}):
        end_well(
            start_run(
                RUNS["local production"], "cancelled", parameters, elsewhere.environment,
                "--job-variable", f"env={json.dumps(variables)}",
            )
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (directory / HALTED).exists():
            assert time.monotonic() < deadline, read_run("cancelled").state
            time.sleep(0.1)
        started = read_run("cancelled")
        assert started.state_name == "Running"
        asked = elsewhere.run(PROGRAMS / "prefect", "flow-run", "cancel", str(started.id))
        assert asked.returncode == 0, asked.stdout + asked.stderr
        return wait_for_state("cancelled", "Cancelled")


def test_cancelled_production_run_leaves_nothing_half_done(
    cancelled: FlowRun, elsewhere: Elsewhere
) -> None:
    directory = elsewhere.production / "cancelled"
    with closing(sqlite3.connect(directory / "mlflow.db")) as connection:
        assert connection.execute("SELECT status FROM runs").fetchall() == [("KILLED",)]
    assert [*elsewhere.production.rglob("*.partial")] == []
    (model,) = directory.glob("models/green/*")  # saved before the MLflow run begins
    assert {path.name for path in model.iterdir()} == {
        "README.md", "manifest.json", "model.skops", "report.html", "report.json",
    }  # fmt: skip


def test_nothing_else_is_left_on_the_other_machine(
    runs: dict[str, FlowRun], cancelled: FlowRun, elsewhere: Elsewhere
) -> None:
    def find_left() -> list[Path]:
        temporary = Path(elsewhere.environment["TMPDIR"])
        pulled = [*temporary.glob("*prefect"), *temporary.glob("prefect-workspace-attempt-*")]
        return [*pulled, *elsewhere.worker_directory.iterdir()]

    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := find_left():  # the worker tidies up after it has said how a run ended
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


VARIABLES = {
    "TAXI_DURATION_S3_BUCKET": "taxi",
    "TAXI_DURATION_DIRECTORY": "/srv/taxi",
    "MLFLOW_TRACKING_URI": "https://mlflow.invalid",
}


def test_production_is_not_deployed_with_a_variable_missing(
    elsewhere: Elsewhere, bucket: S3Server
) -> None:
    before = {*bucket.bucket.glob("code/*/*")}
    refused = elsewhere.run(
        PROGRAMS / "prefect", "--no-prompt", "deploy", "--prefect-file", "deployment.yaml", "--all",
        **{**VARIABLES, "TAXI_DURATION_DIRECTORY": "models"},
    )  # fmt: skip
    assert refused.returncode == 1
    shown = refused.stdout + refused.stderr
    assert "TAXI_DURATION_DIRECTORY 'models' is not an absolute path: name a directory" in shown
    assert {*bucket.bucket.glob("code/*/*")} == before


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TAXI_DURATION_S3_BUCKET", "", "TAXI_DURATION_S3_BUCKET: is not set: name the bucket"),
        ("TAXI_DURATION_DIRECTORY", "", "TAXI_DURATION_DIRECTORY '' is not an absolute path"),
        ("MLFLOW_TRACKING_URI", "", "MLFLOW_TRACKING_URI is not set, or relative: name a server"),
        ("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db", "MLFLOW_TRACKING_URI is not set, or rel"),
        ("MLFLOW_TRACKING_URI", "sqlite:////srv/mlflow.db", ""),
        ("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/mlflow", ""),
    ],
)
def test_what_is_wrong_with_a_variable_is_said(variable: str, value: str, said: str) -> None:
    content = yaml.safe_load((REPOSITORY / "deployment.yaml").read_text("utf-8"))
    (step,) = content["build"][0].values()
    errors = ""
    for line in step["script"].splitlines():  # as Prefect runs them
        checked = subprocess.run(
            ["sh", "-c", line], env={**VARIABLES, variable: value},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (checked.returncode != 0) == bool(checked.stderr)
        errors += checked.stderr
    assert (said in errors) if said else not errors


def test_without_the_password_nothing_is_read(prefect_server: str) -> None:
    assert httpx.post(f"{prefect_server}/deployments/filter", json={}).status_code == 401


@pytest.mark.parametrize(
    ("command", "password"),
    [
        (["orchestrate.py", "--year", "2023", "--month", "1"], "taxi:a-wrong-one"),
        (["-m", "taxi_duration", "create-s3-blocks"], ""),
    ],
)
def test_our_commands_say_in_one_line_that_the_server_asks_for_a_password(
    command: list[str], password: str, elsewhere: Elsewhere, bucket: S3Server, prefect_server: str
) -> None:
    refused = elsewhere.run(
        sys.executable, *command, PREFECT_API_AUTH_STRING=password, **bucket.environment
    )
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"error: Prefect server {prefect_server} failed (")
    assert "401 Unauthorized" in line
    assert "check PREFECT_API_URL and PREFECT_API_AUTH_STRING" in line
