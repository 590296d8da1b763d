"""Both deployment files, run by a worker that shares the server's address and nothing else.

Here is a server with a password. Elsewhere prefect.yaml is deployed from a checkout that stays, and
deployment.yaml from one that is gone before its code is run. All months are made on the spot.
"""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Scheduled

from taxi_duration.data.month import Month
from tests.conftest import REPOSITORY, connected_to
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
from tests.support.halted import HALTED, WITHIN_MLFLOW_RUN
from tests.support.months import write_month, write_months
from tests.support.runs import (
    call_taxi_duration,
    make_store,
    read_artifact,
    read_logs,
    read_mlflow_statuses,
    read_report_artifact,
    run_local,
)
from tests.support.servers import (
    PROGRAMS,
    find_free_port,
    make_environment,
    serve_prefect,
    wait_until,
)

AUTH = "taxi:the-secret-of-the-server"
JANUARY = Month(2023, 1)
KEPT = "2023-01: kept 12 of 12 trips"
RUNS = {
    "local": "main-flow/taxi_local_data",
    "s3": "main-flow-s3/taxi_s3_data",
    "local production": "main-flow/taxi_local_data_production",
    "s3 production": "main-flow-s3/taxi_s3_data_production",
}
COMPARED = ("s3", "local production", "s3 production")
"""Runs that train on the same months, one of them by the day it was scheduled for. The schedule
starts one of the first deployment."""
UNSCHEDULED = {"backfill/taxi_backfill": "backfill", "predict/taxi_predict": "predict"}
DEPLOYMENTS = {
    RUNS["local"],
    RUNS["s3"],
    "main-flow/taxi_local_data_yellow",
    "main-flow-s3/taxi_s3_data_yellow",
    *UNSCHEDULED,
}
MODEL_FILES = {"README.md", "manifest.json", "model.skops", "report.html", "report.json"}


@dataclass(frozen=True)
class Elsewhere:
    """The other machine: its environment and what is on its disk."""

    environment: dict[str, str]
    checkout: Path
    production: Path
    """Where production runs keep months, models and MLflow's store."""
    worker_directory: Path

    def prefect(
        self, *arguments: str, directory: Path | None = None, **changed: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAMS / "prefect", "--no-prompt", *arguments],
            cwd=directory or self.checkout, env={**self.environment, **changed},
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """In the place of the suite's: a server that asks for a password."""
    environment = make_machine(
        tmp_path_factory.mktemp("here") / "home",
        PREFECT_SERVER_API_AUTH_STRING=AUTH,
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS="1",
    )
    log = Path(environment["HOME"]) / "server.log"
    with serve_prefect(environment, log, find_free_port()) as url:
        yield url


@pytest.fixture
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with connected_to(prefect_server, AUTH), get_client(sync_client=True) as opened:
        yield opened


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
        environment, make_checkout(root / "nyc taxi duration"), root / "production", root / "worker"
    )
    for directory in (machine.checkout / "data", machine.production / "data"):
        write_months(directory, JANUARY)
    with work(environment, machine.worker_directory):
        with pytest.MonkeyPatch.context() as patched, connected_to(prefect_server, AUTH):
            for variable, value in bucket.environment.items():
                patched.setenv(variable, value)
            assert call_taxi_duration("create-s3-blocks") == 0
        yield machine


# prefect.yaml


def run_in_terminal(
    command: list[str | Path], directory: Path, environment: dict[str, str]
) -> tuple[int, str]:
    """Run a command that believes a person sits before it, who says nothing."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=directory,
        env={**environment, "TERM": "xterm"},  # in a dumb one nothing is asked
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    patience = threading.Timer(PATIENCE_SECONDS, process.kill)
    patience.start()
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(ours, 4096):
            shown += part
    patience.cancel()
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace"))
    exit_code = process.wait()
    assert exit_code != -signal.SIGKILL, f"killed after {PATIENCE_SECONDS:.0f} s: {text}"
    return exit_code, text


def set_schedules(checkout: Path, text: str, changed: str) -> None:
    """Write other schedules into prefect.yaml."""
    file = checkout / "prefect.yaml"
    written = file.read_text("utf-8")
    assert text in written
    file.write_text(written.replace(text, changed), "utf-8")


@pytest.fixture(scope="module")
def deployed(elsewhere: Elsewhere) -> str:
    """What `prefect deploy --all` showed on a terminal."""
    command: list[str | Path] = [PROGRAMS / "prefect", "deploy", "--all"]
    exit_code, shown = run_in_terminal(command, elsewhere.checkout, elsewhere.environment)
    assert exit_code == 0, shown
    return shown


def test_deploying_asks_nothing(deployed: str) -> None:
    for name in DEPLOYMENTS:
        assert f"Deployment '{name}' successfully created" in deployed
    assert not re.search(r"^\W*\? ", deployed, re.MULTILINE)
    assert "[y/n]" not in deployed.lower()


@pytest.mark.usefixtures("deployed")
def test_server_has_what_the_file_says(client: SyncPrefectClient) -> None:
    for name in DEPLOYMENTS:
        deployment = client.read_deployment_by_name(name)
        cab = "yellow" if name.endswith("_yellow") else "green"
        assert deployment.parameters == {"cab": cab}
        assert {*deployment.tags} == {"nyc-taxi-duration", UNSCHEDULED.get(name, cab)}
        assert deployment.job_variables == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
        assert deployment.global_concurrency_limit is not None
        assert deployment.global_concurrency_limit.limit == 1
        assert deployment.concurrency_options is not None
        assert deployment.concurrency_options.collision_strategy == "ENQUEUE"
        for schedule in deployment.schedules:
            assert (schedule.slug, schedule.active) == ("monthly", False)
            assert schedule.parameters == {"train_months": 3}
        assert len(deployment.schedules) == (name not in UNSCHEDULED)


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("name", [RUNS["local"], RUNS["s3"]])
@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"month": 13}, "13 is greater than the maximum of 12"),
        ({"month": 0}, "0 is less than the minimum of 1"),
        ({"month": True}, "True is not valid under any of the given schemas"),
        ({"month": 1.5}, "1.5 is not valid under any of the given schemas"),
        ({"year": 21}, "21 is less than the minimum of 2009"),
        ({"cab": "fhv"}, "'fhv' is not one of ['green', 'yellow']"),
        ({"features": "all"}, "'all' is not one of ['course', 'extended']"),
        ({"alpha": -1}, "-1 is less than the minimum of 0"),
        ({"train_months": 0}, "0 is less than the minimum of 1"),
    ],
    ids=str,
)
def test_server_refuses_bad_parameters(
    name: str, parameters: dict[str, Any], text: str, client: SyncPrefectClient
) -> None:
    deployment = client.read_deployment_by_name(name)
    with pytest.raises(PrefectHTTPStatusError) as caught:
        client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    assert text in caught.value.response.text


@pytest.mark.usefixtures("deployed")
def test_command_line_passes_the_refusal_on(elsewhere: Elsewhere) -> None:
    refused = elsewhere.prefect("deployment", "run", RUNS["local"], "-p", "month=13")
    assert refused.returncode == 1
    assert "13 is greater than the maximum of 12" in refused.stdout + refused.stderr


@dataclass(frozen=True)
class Due:
    """A run that only its schedule started, and the deployment, its schedule off again."""

    flow_run: FlowRun
    deployment: DeploymentResponse

    @property
    def months(self) -> tuple[Month, ...]:
        """Three to train on, and the newest that the TLC can have published on its day."""
        assert self.flow_run.expected_start_time is not None
        return Month.of(self.flow_run.expected_start_time.date()).shift(-3).window(4)


@pytest.fixture(scope="module")
def due(deployed: str, prefect_server: str, elsewhere: Elsewhere) -> Due:
    """The schedule turned on in the file, and due at once; the months it needs are there."""
    checkout = elsewhere.checkout
    for month in Month.of(datetime.now(UTC).date()).shift(-2).window(5):  # a month may begin now
        write_month(checkout / "data" / month.file_name("green"), month=month)
    off_monthly, on_often = (
        ("active: false", 'cron: "0 6 15 * *"'),
        ("active: true", "interval: 30"),
    )

    def read_first(client: SyncPrefectClient) -> FlowRun | None:
        begun = [run for run in client.read_flow_runs() if run.auto_scheduled and run.start_time]
        return min(begun, key=lambda run: str(run.start_time), default=None)

    def deploy_again(texts: tuple[str, ...], changed: tuple[str, ...]) -> DeploymentResponse:
        for each, other in zip(texts, changed, strict=True):
            set_schedules(checkout, each, other)
        done = elsewhere.prefect("deploy", "--name", "taxi_local_data")
        assert done.returncode == 0, done.stdout + done.stderr
        return client.read_deployment_by_name(RUNS["local"])

    with connected_to(prefect_server, AUTH), get_client(sync_client=True) as client:
        deploy_again(off_monthly, on_often)
        flow_run = wait_until(lambda: read_first(client), "the schedule to start a run")
        deployment = deploy_again(on_often, off_monthly)
        return Due(wait_for_state(flow_run.name, "Completed"), deployment)


def test_schedule_starts_its_run_with_the_parameters_of_both(due: Due) -> None:
    assert due.flow_run.auto_scheduled
    assert due.flow_run.created_by is not None
    assert due.flow_run.created_by.display_value == "monthly"
    assert due.flow_run.parameters == {"cab": "green", "train_months": 3}


@pytest.mark.usefixtures("client")
def test_scheduled_run_trains_on_the_newest_months_of_its_day(
    due: Due, elsewhere: Elsewhere
) -> None:
    *train, validation = map(str, due.months)
    (path,) = elsewhere.checkout.glob(f"models/green/{train[-1]}-*/report.json")
    report = json.loads(path.read_text("utf-8"))
    assert report["train"]["months"] == train
    assert report["validation"]["month"] == validation
    assert path.parent.name in str(read_report_artifact(due.flow_run.id).data)


def test_deploying_again_sets_the_schedule_to_what_the_file_says(due: Due) -> None:
    (schedule,) = due.deployment.schedules
    assert not schedule.active
    assert isinstance(schedule.schedule, CronSchedule)
    assert schedule.schedule.cron == "0 6 15 * *"
    assert schedule.parameters == {"train_months": 3}


# deployment.yaml

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
    """What deployment.yaml calls the code it deployed, its checkout gone."""
    checkout = make_checkout(elsewhere.checkout.with_name("gone"))
    for name, content in PRIVATE.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(content, "utf-8")
    # What halts a run where it is told to, and does nothing to one that is not.
    with (checkout / "orchestrate.py").open("a", encoding="utf-8") as flow_file:
        flow_file.write((checkout / "tests/support/halted.py").read_text("utf-8"))
    deployed = elsewhere.prefect(
        "deploy", "--prefect-file", "deployment.yaml", "--all",
        directory=checkout,
        TAXI_DURATION_S3_BUCKET=bucket.environment["TAXI_DURATION_S3_BUCKET"],
        TAXI_DURATION_DIRECTORY=str(elsewhere.production),
        MLFLOW_TRACKING_URI=f"sqlite:///{elsewhere.production / 'mlflow.db'}",
    )  # fmt: skip
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    name = name_commit(checkout)
    shutil.rmtree(checkout)
    return name


def test_only_what_a_run_needs_is_pushed(
    production: str, elsewhere: Elsewhere, bucket: S3Server
) -> None:
    code = bucket.bucket / "code" / "nyc-taxi-duration" / production
    pushed = {path.relative_to(code) for path in code.rglob("*") if path.is_file()}
    package = {
        path.relative_to(elsewhere.checkout)
        for path in elsewhere.checkout.glob("taxi_duration/**/*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert pushed == {Path("orchestrate.py"), Path("orchestrate_s3.py"), *package}


def test_production_is_deployed_with_its_schedule_and_no_secret(
    production: str, client: SyncPrefectClient
) -> None:
    for name in ("local production", "s3 production"):
        deployment = client.read_deployment_by_name(RUNS[name])
        said = deployment.model_dump_json()
        assert SECRET not in said
        assert "prefect.blocks.aws-credentials.s3-bucket-block-credentials" in said
        assert deployment.version == production
        (schedule,) = deployment.schedules
        assert not schedule.active
        assert schedule.parameters == {"train_months": 3}


@dataclass(frozen=True)
class Queue:
    """A production run cancelled within its MLflow run, and one that waited for it."""

    cancelled: FlowRun
    waited: FlowRun
    waited_in: list[str]
    directory: Path
    """Where the cancelled run kept all it had."""


@pytest.fixture(scope="module")
def queue(elsewhere: Elsewhere, production: str, prefect_server: str) -> Queue:
    name = "local production"
    directory = elsewhere.production / "cancelled"
    write_months(directory / "data", JANUARY)
    variables = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{directory / 'mlflow.db'}",
        "HALT_AT": WITHIN_MLFLOW_RUN,
        "HALT_IN": str(directory),
    }
    with connected_to(prefect_server, AUTH), get_client(sync_client=True) as client:
        end_well(
            start_run(
                RUNS[name],
                "to be cancelled",
                {
                    "data_dir": directory / "data",
                    "models_dir": directory / "models",
                    "features": "course",
                    "year": 2023,
                    "month": 1,
                },
                elsewhere.environment,
                "--job-variable",
                f"env={json.dumps(variables)}",
            )
        )
        wait_until((directory / HALTED).exists, "the run to halt")
        deployment = client.read_deployment_by_name(RUNS[name])
        client.create_flow_run_from_deployment(
            deployment.id,
            name=name,
            state=Scheduled(scheduled_time=datetime(2023, 5, 15, 10, tzinfo=UTC)),
            job_variables={"env": make_own_store(elsewhere, name)},
        )
        wait_for_state(name, "AwaitingConcurrencySlot")
        first = read_run("to be cancelled")
        assert first.state_name == "Running"
        asked = elsewhere.prefect("flow-run", "cancel", str(first.id))
        assert asked.returncode == 0, asked.stdout + asked.stderr
        cancelled = wait_for_state("to be cancelled", "Cancelled")
        waited = wait_for_state(name, "Completed")
        states = client.read_flow_run_states(waited.id)
    return Queue(cancelled, waited, [state.name for state in states], directory)


@pytest.fixture(scope="module")
def runs(elsewhere: Elsewhere, due: Due, queue: Queue, prefect_server: str) -> dict[str, FlowRun]:
    """Runs of both files on the same two months, the models of each compared with no champion."""
    parameters: dict[str, object] = {"year": 2023, "month": 1}
    # Not where the other saves its model: that one would be found and kept.
    apart = {"s3 production": {"models_dir": elsewhere.production / "models-s3"}}
    end_well(
        *(
            start_run(
                RUNS[name],
                name,
                {**parameters, **apart.get(name, {})},
                elsewhere.environment,
                "--watch",
                "--job-variable",
                f"env={json.dumps(make_own_store(elsewhere, name))}",
            )
            for name in ("s3", "s3 production")
        )
    )
    with connected_to(prefect_server, AUTH):
        return {name: read_run(name) for name in COMPARED}


def make_own_store(elsewhere: Elsewhere, name: str) -> dict[str, str]:
    """The variable that has a run log to an MLflow store of its own."""
    store = find_store(elsewhere, name)
    store.mkdir()
    return {"MLFLOW_TRACKING_URI": make_store(store)}


def find_store(elsewhere: Elsewhere, name: str) -> Path:
    return elsewhere.production / f"store of {name}"


@pytest.mark.usefixtures("client")
def test_runs_complete_with_what_they_were_given_log_and_publish(
    runs: dict[str, FlowRun], elsewhere: Elsewhere
) -> None:
    assert runs["local production"].parameters == {
        "cab": "green",
        "data_dir": f"{elsewhere.production}/data",
        "models_dir": f"{elsewhere.production}/models",
    }
    assert runs["s3"].parameters == {"cab": "green", "year": 2023, "month": 1}
    for run in runs.values():
        assert run.state_name == "Completed"
        assert not run.auto_scheduled
        read_logs(run.id, awaited=KEPT)
        assert "2023-02" in str(read_report_artifact(run.id).data)


@pytest.mark.usefixtures("client")
def test_all_ways_to_run_give_the_same_model_and_report_which_outlive_the_pulled_code(
    runs: dict[str, FlowRun], elsewhere: Elsewhere, bucket: S3Server, tmp_path: Path
) -> None:
    data = elsewhere.checkout / "data"
    here = run_local(
        tmp_path, "--year", "2023", "--month", "1", "--data-dir", str(data), "--offline"
    )
    assert here.exit_code == 0, here.output
    reports = [
        *elsewhere.checkout.glob("models/green/2023-01-*/report.json"),
        *elsewhere.production.glob("models*/green/2023-01-*/report.json"),
        *bucket.bucket.glob("models/green/2023-01-*/report.json"),
    ]
    assert len(reports) == len(runs) + 1
    assert {report.parent.name for report in reports} == {here.model_directory.name}
    for name in ("report.json", "model.skops"):
        expected = (here.model_directory / name).read_bytes()
        assert [report.with_name(name).read_bytes() == expected for report in reports] == [
            True for _ in reports
        ]
    fetched = elsewhere.production / "data" / "s3" / JANUARY.file_name("green")
    assert fetched.with_name(f"{fetched.name}.json").exists()
    for name in COMPARED:
        assert read_mlflow_statuses(find_store(elsewhere, name) / "mlflow.db") == ["FINISHED"]


@pytest.fixture(scope="module")
def report(runs: dict[str, FlowRun], elsewhere: Elsewhere) -> Path:
    (report,) = elsewhere.checkout.glob("models/green/2023-01-*/report.json")
    return report


@pytest.mark.usefixtures("client")
def test_predict_scores_a_month_by_a_model_as_deployed(report: Path, elsewhere: Elsewhere) -> None:
    validation = json.loads(report.read_text("utf-8"))["validation"]
    parameters: dict[str, object] = {
        "input": "2023-02",
        "output": "predictions/2023-02.parquet",
        "model": report.parent.relative_to(elsewhere.checkout),
    }
    command = ("predict/taxi_predict", "predict", parameters, elsewhere.environment, "--watch")
    end_well(start_run(*command))
    written = pq.read_table(elsewhere.checkout / "predictions" / "2023-02.parquet")
    assert len(written) == validation["rows_read"]
    shown = str(read_artifact(read_run("predict").id, "predictions").data)
    assert f"RMSE {validation['rmse']:.6f} minutes" in shown


@pytest.mark.usefixtures("deployed", "client")
def test_backfill_runs_as_deployed(elsewhere: Elsewhere, tmp_path: Path) -> None:
    for month in JANUARY.window(3):
        write_month(tmp_path / "data" / month.file_name("green"), month=month)
    parameters: dict[str, object] = {
        "from_month": "2022-11",
        "to_month": "2023-01",
        "data_dir": tmp_path / "data",
        "models_dir": tmp_path / "models",
        "features": "course",
    }
    command = ("backfill/taxi_backfill", "backfill", parameters, elsewhere.environment, "--watch")
    end_well(start_run(*command))
    assert read_run("backfill").state_name == "Completed"
    models = sorted(path.name[:7] for path in tmp_path.glob("models/green/*"))
    assert models == ["2022-11", "2022-12"]


def test_runs_leave_the_checkout_clean(report: Path, elsewhere: Elsewhere) -> None:
    status = subprocess.run(
        ["git", "status", "--porcelain"],
        cwd=elsewhere.checkout, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert status.stdout == ""


def test_second_run_of_a_deployment_waits_for_the_first(queue: Queue) -> None:
    assert "AwaitingConcurrencySlot" in queue.waited_in
    assert queue.waited.start_time is not None
    assert queue.cancelled.end_time is not None
    assert queue.waited.start_time >= queue.cancelled.end_time


def test_cancelled_run_leaves_nothing_half_done(queue: Queue, client: SyncPrefectClient) -> None:
    assert read_mlflow_statuses(queue.directory / "mlflow.db") == ["KILLED"]
    assert [*queue.directory.rglob("*.partial")] == []
    (model,) = queue.directory.glob("models/green/*")
    assert {path.name for path in model.iterdir()} == MODEL_FILES
    only_cancelled = FlowRunFilter(id=FlowRunFilterId(any_=[queue.cancelled.id]))
    states = [run.state_name for run in client.read_task_runs(flow_run_filter=only_cancelled)]
    assert states
    assert "Running" not in states


def test_nothing_else_is_left_on_the_other_machine(queue: Queue, elsewhere: Elsewhere) -> None:
    def is_tidy() -> bool:
        temporary = Path(elsewhere.environment["TMPDIR"])
        pulled = [*temporary.glob("*prefect"), *temporary.glob("prefect-workspace-attempt-*")]
        return not [*pulled, *elsewhere.worker_directory.iterdir()]

    # The worker tidies up after it has said how a run ended.
    wait_until(is_tidy, "the worker to tidy up")


# What is refused

VARIABLES = {
    "TAXI_DURATION_S3_BUCKET": "taxi",
    "TAXI_DURATION_DIRECTORY": "/srv/taxi",
    "MLFLOW_TRACKING_URI": "https://mlflow.invalid",
}


def test_production_is_not_deployed_with_a_variable_missing(
    elsewhere: Elsewhere, bucket: S3Server
) -> None:
    before = {*bucket.bucket.glob("code/*/*")}
    variables = {**VARIABLES, "TAXI_DURATION_DIRECTORY": "models"}
    refused = elsewhere.prefect("deploy", "--prefect-file", "deployment.yaml", "--all", **variables)
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


# In a process: Prefect leaves a connection open in one whose run was refused.
def test_a_run_says_in_one_line_that_the_server_refuses_the_password(
    prefect_server: str, tmp_path: Path
) -> None:
    write_months(tmp_path / "data", JANUARY)
    refused = subprocess.run(
        [sys.executable, REPOSITORY / "orchestrate.py", "--year", "2023", "--month", "1"],
        cwd=tmp_path,
        env=make_environment(
            PREFECT_API_URL=prefect_server, PREFECT_API_AUTH_STRING="taxi:a-wrong-one"
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert re.fullmatch(
        rf"error: Prefect server {re.escape(prefect_server)} failed \(.*401 Unauthorized.*\): "
        r"check PREFECT_API_URL and PREFECT_API_AUTH_STRING, .+\n",
        refused.stderr,
    )
    assert "a-wrong-one" not in refused.stderr
