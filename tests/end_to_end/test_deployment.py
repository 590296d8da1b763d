"""What prefect.yaml declares, run by a real worker, from a checkout and in a home of its own."""

import contextlib
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Scheduled

from taxi_duration.data.month import Month
from taxi_duration.evaluation.report import Report
from tests.conftest import connected_to
from tests.support.buckets import S3Server
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
from tests.support.runs import read_artifact, read_logs, read_report_artifact, read_task_runs
from tests.support.servers import PROGRAMS, wait_until

DEPLOYMENTS = {
    "main-flow/taxi_local_data",
    "main-flow-s3/taxi_s3_data",
    "main-flow/taxi_local_data_yellow",
    "main-flow-s3/taxi_s3_data_yellow",
    "backfill/taxi_backfill",
    "predict/taxi_predict",
}
UNSCHEDULED = {"backfill/taxi_backfill": "backfill", "predict/taxi_predict": "predict"}
WITHIN_MLFLOW_RUN = "taxi_duration.registry.runs:collect_metrics"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("checkout") / "nyc taxi duration")


@pytest.fixture(scope="module")
def environment(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_machine(tmp_path_factory.mktemp("homes") / "you", PREFECT_API_URL=prefect_server)


@pytest.fixture(scope="module")
def worker(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker started somewhere else than in the checkout."""
    with work(environment, tmp_path_factory.mktemp("worker")):
        yield


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


@pytest.fixture(scope="module")
def deployed(checkout: Path, environment: dict[str, str], worker: None) -> str:
    """What `prefect deploy --all` showed on a terminal."""
    exit_code, shown = run_in_terminal(
        [PROGRAMS / "prefect", "deploy", "--all"], checkout, environment
    )
    assert exit_code == 0, shown
    return shown


def test_deploying_asks_nothing(deployed: str) -> None:
    for name in DEPLOYMENTS:
        assert f"Deployment '{name}' successfully created" in deployed
    assert not re.search(r"^\W*\? ", deployed, re.MULTILINE)
    assert "[y/n]" not in deployed.lower()


@pytest.mark.usefixtures("prefect_api", "deployed")
@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_server_has_what_the_file_says(name: str) -> None:
    cab = "yellow" if name.endswith("_yellow") else "green"
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(name)
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


RUNS = {"from the disk": "main-flow/taxi_local_data", "from S3": "main-flow-s3/taxi_s3_data"}


@pytest.fixture(scope="module")
def runs(
    deployed: str,
    prefect_server: str,
    environment: dict[str, str],
    real_data: Path,
    months_in_s3: S3Server,
    s3_block: str,
) -> dict[str, FlowRun]:
    """Both deployments, run at the same time and watched to the end."""
    common: dict[str, object] = {"year": 2023, "month": 2, "features": "course"}
    given: dict[str, dict[str, object]] = {
        "from the disk": {**common, "data_dir": real_data},
        # Not where the other saves its model: that one would be found and kept.
        "from S3": {**common, "models_dir": "models-s3"},
    }
    watched = [
        start_run(RUNS[name], name, parameters, environment, "--watch")
        for name, parameters in given.items()
    ]
    end_well(*watched)
    with connected_to(prefect_server):
        return {name: read_run(name) for name in given}


def test_both_deployments_complete_with_what_they_were_given(
    runs: dict[str, FlowRun], real_data: Path
) -> None:
    given = {"cab": "green", "year": 2023, "month": 2, "features": "course"}
    for name, own in (
        ("from the disk", {"data_dir": str(real_data)}),
        ("from S3", {"models_dir": "models-s3"}),
    ):
        assert runs[name].state_name == "Completed"
        assert runs[name].parameters == {**given, **own}
        assert not runs[name].auto_scheduled


@pytest.mark.usefixtures("prefect_api")
def test_runs_of_one_cab_type_take_turns(runs: dict[str, FlowRun]) -> None:
    spans = []
    for name, expected in (("from the disk", 12), ("from S3", 13)):
        task_runs = read_task_runs(runs[name].id, expected).values()
        spans.append(
            (
                min(each.start_time for each in task_runs if each.start_time),
                max(each.end_time for each in task_runs if each.end_time),
            )
        )
    (_, first_end), (second_start, _) = sorted(spans)
    assert first_end <= second_start


def drop_registry(content: bytes) -> Report:
    """A report without what follows from who is champion, and who was.

    And without the last digits, which differ between processes whose memory is laid out otherwise.
    """
    report = json.loads(content, parse_float=lambda text: round(float(text), 9))
    alone = [{**each, "champion_rmse": None} for each in report["slices"]]
    return {**report, "slices": alone, "gate": None, "past": None, "model_id": None}


def test_both_deployments_give_the_same_report(
    runs: dict[str, FlowRun], checkout: Path, train_on_real_months: Any
) -> None:
    (local,) = checkout.glob("models/green/2023-02-*/report.json")
    (from_s3,) = checkout.glob("models-s3/green/2023-02-*/report.json")
    assert local.parent.name == from_s3.parent.name
    assert local.read_bytes() == from_s3.read_bytes()
    same = train_on_real_months("--year", "2023", "--month", "2", "--features", "course")
    assert drop_registry(local.read_bytes()) == drop_registry(same.report_bytes)
    assert round(same.report["validation"]["rmse"], 6) == 6.160602


@pytest.mark.usefixtures("prefect_api")
def test_both_deployments_log_and_publish(runs: dict[str, FlowRun]) -> None:
    for flow_run in runs.values():
        read_logs(flow_run.id, awaited="2023-02: kept 62,574 of 64,809 trips")
        assert "| 6.1606 |" in str(read_report_artifact(flow_run.id).data)


def test_predict_scores_a_month_by_a_model_as_deployed(
    runs: dict[str, FlowRun],
    checkout: Path,
    prefect_server: str,
    environment: dict[str, str],
    real_data: Path,
) -> None:
    (report,) = checkout.glob("models/green/2023-02-*/report.json")
    validation = json.loads(report.read_text("utf-8"))["validation"]
    parameters: dict[str, object] = {
        "input": "2023-03",
        "output": "predictions/2023-03.parquet",
        "model": report.parent.relative_to(checkout),
        "data_dir": real_data,
    }
    end_well(start_run("predict/taxi_predict", "predict", parameters, environment, "--watch"))
    written = pq.read_table(checkout / "predictions" / "2023-03.parquet")
    assert len(written) == validation["rows_read"]
    with connected_to(prefect_server):
        shown = str(read_artifact(read_run("predict").id, "predictions").data)
    assert f"RMSE {validation['rmse']:.6f} minutes" in shown


def test_runs_leave_the_checkout_clean(runs: dict[str, FlowRun], checkout: Path) -> None:
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert status.stdout == "?? models-s3/\n"


def deploy_again(checkout: Path, environment: dict[str, str]) -> DeploymentResponse:
    command = [PROGRAMS / "prefect", "--no-prompt", "deploy", "--name", "taxi_local_data"]
    subprocess.run(command, cwd=checkout, env=environment, capture_output=True, check=True)
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name("main-flow/taxi_local_data")


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
def due(deployed: str, prefect_server: str, checkout: Path, environment: dict[str, str]) -> Due:
    """The schedule turned on in the file, and due at once; the months it needs are there."""
    for month in Month.of(datetime.now(UTC).date()).shift(-2).window(5):  # a month may begin now
        write_month(checkout / "data" / month.file_name("green"), month=month)
    file = checkout / "prefect.yaml"
    written = file.read_text("utf-8")
    turned_on = written.replace("active: false", "active: true")
    often = turned_on.replace('cron: "0 6 15 * *"', "interval: 30")
    assert written != turned_on != often

    def read_first(client: SyncPrefectClient) -> FlowRun | None:
        begun = [run for run in client.read_flow_runs() if run.auto_scheduled and run.start_time]
        return min(begun, key=lambda run: str(run.start_time), default=None)

    with connected_to(prefect_server), get_client(sync_client=True) as client:
        file.write_text(often, "utf-8")
        deploy_again(checkout, environment)
        flow_run = wait_until(lambda: read_first(client), "the schedule to start a run")
        file.write_text(written, "utf-8")
        return Due(wait_for_state(flow_run.name, "Completed"), deploy_again(checkout, environment))


def test_schedule_starts_its_run_with_the_parameters_of_both(due: Due) -> None:
    assert due.flow_run.auto_scheduled
    assert due.flow_run.created_by is not None
    assert due.flow_run.created_by.display_value == "monthly"
    assert due.flow_run.parameters == {"cab": "green", "train_months": 3}


@pytest.mark.usefixtures("prefect_api")
def test_scheduled_run_trains_on_the_newest_months_of_its_day(due: Due, checkout: Path) -> None:
    *train, validation = map(str, due.months)
    (path,) = checkout.glob(f"models/green/{train[-1]}-*/report.json")
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


@pytest.mark.usefixtures("deployed", "prefect_api")
def test_backfill_runs_as_deployed(environment: dict[str, str], tmp_path: Path) -> None:
    for month in Month(2023, 1).window(3):
        write_month(tmp_path / "data" / month.file_name("green"), month=month)
    parameters: dict[str, object] = {
        "from_month": "2022-11",
        "to_month": "2023-01",
        "data_dir": tmp_path / "data",
        "models_dir": tmp_path / "models",
        "features": "course",
    }
    end_well(start_run("backfill/taxi_backfill", "backfill", parameters, environment, "--watch"))
    assert read_run("backfill").state_name == "Completed"
    models = sorted(path.name[:7] for path in tmp_path.glob("models/green/*"))
    assert models == ["2022-11", "2022-12"]


@dataclass(frozen=True)
class Queue:
    """A run cancelled within its MLflow run, and one of the same deployment that waited for it."""

    cancelled: FlowRun
    waited: FlowRun
    waited_in: list[str]
    directory: Path

    def read_mlflow_statuses(self) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.directory / "mlflow.db")) as connection:
            return sorted(status for (status,) in connection.execute("SELECT status FROM runs"))


@pytest.fixture(scope="module")
def queue(
    deployed: str,
    prefect_server: str,
    checkout: Path,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Queue:
    directory = tmp_path_factory.mktemp("queue")
    write_months(directory / "data", Month(2023, 1))
    parameters: dict[str, object] = {
        "data_dir": directory / "data",
        "models_dir": directory / "models",
        "features": "course",
    }
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{directory / 'mlflow.db'}"}
    halt = {"HALT_AT": WITHIN_MLFLOW_RUN, "HALT_IN": str(directory)}
    flow_file = checkout / "orchestrate.py"
    written = flow_file.read_text("utf-8")
    # What halts a run where it is told to, and does nothing to one that is not.
    flow_file.write_text(f"{written}\nimport tests.support.halted\n", "utf-8")
    end_well(
        start_run(
            "main-flow/taxi_local_data",
            "to be cancelled",
            {**parameters, "year": 2023, "month": 1},
            environment,
            "--job-variable",
            f"env={json.dumps({**store, **halt})}",
        )
    )
    with connected_to(prefect_server), get_client(sync_client=True) as client:
        wait_until((directory / HALTED).exists, "the run to halt")
        flow_file.write_text(written, "utf-8")
        deployment = client.read_deployment_by_name("main-flow/taxi_local_data")
        client.create_flow_run_from_deployment(
            deployment.id,
            name="waiting",
            parameters={name: str(value) for name, value in parameters.items()},
            state=Scheduled(scheduled_time=datetime(2023, 5, 15, 10, tzinfo=UTC)),
            job_variables={"env": store},
        )
        wait_for_state("waiting", "AwaitingConcurrencySlot")
        first = read_run("to be cancelled")
        assert first.state_name == "Running"
        cancel = [PROGRAMS / "prefect", "flow-run", "cancel", str(first.id)]
        subprocess.run(cancel, env=environment, capture_output=True, check=True)
        cancelled = wait_for_state("to be cancelled", "Cancelled")
        waited = wait_for_state("waiting", "Completed")
        states = client.read_flow_run_states(waited.id)
    return Queue(cancelled, waited, [state.name for state in states], directory)


def test_second_run_of_a_deployment_waits_for_the_first(queue: Queue) -> None:
    assert "AwaitingConcurrencySlot" in queue.waited_in
    assert queue.waited.start_time is not None
    assert queue.cancelled.end_time is not None
    assert queue.waited.start_time >= queue.cancelled.end_time


@pytest.mark.usefixtures("prefect_api")
def test_run_that_waited_trains_on_the_months_of_the_day_it_was_scheduled_for(
    queue: Queue,
) -> None:
    read_logs(queue.waited.id, awaited="2023-01: kept 12 of 12 trips")
    assert "2023-02" in str(read_report_artifact(queue.waited.id).data)


@pytest.mark.usefixtures("prefect_api")
def test_cancelled_run_leaves_nothing_half_done(queue: Queue) -> None:
    assert queue.read_mlflow_statuses() == ["FINISHED", "KILLED"]
    assert [*queue.directory.rglob("*.partial")] == []
    (model,) = queue.directory.glob("models/green/*")
    assert {path.name for path in model.iterdir()} == {
        "README.md", "manifest.json", "model.skops", "report.html", "report.json",
    }  # fmt: skip
    only_cancelled = FlowRunFilter(id=FlowRunFilterId(any_=[queue.cancelled.id]))
    with get_client(sync_client=True) as client:
        states = [run.state_name for run in client.read_task_runs(flow_run_filter=only_cancelled)]
    assert states
    assert "Running" not in states


@pytest.mark.usefixtures("prefect_api", "deployed")
@pytest.mark.parametrize("name", ["main-flow/taxi_local_data", "main-flow-s3/taxi_s3_data"])
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
def test_server_refuses_bad_parameters(name: str, parameters: dict[str, Any], text: str) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(name)
        with pytest.raises(PrefectHTTPStatusError) as caught:
            client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    assert text in caught.value.response.text


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    ("month", "text"),
    [("13", "13 is greater than the maximum of 12"), ("true", "True is not valid under any")],
)
def test_command_line_passes_the_refusal_on(
    month: str, text: str, environment: dict[str, str], tmp_path: Path
) -> None:
    refused = subprocess.run(
        [PROGRAMS / "prefect", "deployment", "run", "main-flow/taxi_local_data",
         "-p", "year=2023", "-p", f"month={month}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert text in refused.stdout + refused.stderr
