import contextlib
import importlib
import inspect
import os
import pty
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flows import load_flow_from_entrypoint

from tests.buckets import S3Server
from tests.conftest import REPOSITORY, connected_to
from tests.runs import read_logs, read_report_artifact
from tests.servers import PROGRAMS, answers, make_environment, run_server

FILES = {
    "prefect.yaml": {"taxi_local_data", "taxi_s3_data"},
    "deployment.yaml": {"taxi_local_data_production", "taxi_s3_data_production"},
}
TOP_KEYS = {
    "name", "prefect-version", "build", "push", "pull", "definitions", "deployments",
}  # fmt: skip
DEPLOYMENT_KEYS = {
    "name", "description", "entrypoint", "tags", "parameters", "schedules", "work_pool",
    "concurrency_limit",
}  # fmt: skip
SCHEDULE_KEYS = {"cron", "timezone", "active", "slug", "parameters"}
STEP_KEYS = {"id", "requires"}


@pytest.fixture(params=FILES)
def content(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the file says, anchors resolved; that prefect.yaml and deployment.yaml are of a kind."""
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / request.param).read_text("utf-8"))
    return {**loaded, "file": request.param}


def test_file_says_nothing_that_prefect_would_ignore(content: dict[str, Any]) -> None:
    assert content.keys() - {"file"} == TOP_KEYS
    for deployment in content["deployments"]:
        assert deployment.keys() <= DEPLOYMENT_KEYS
        assert {"name", "entrypoint", "work_pool", "parameters", "schedules"} <= deployment.keys()
        for schedule in deployment["schedules"]:
            assert schedule.keys() <= SCHEDULE_KEYS


def test_deployments_are_named_and_on_the_pool(content: dict[str, Any]) -> None:
    deployments = content["deployments"]
    assert {deployment["name"] for deployment in deployments} == FILES[content["file"]]
    assert [deployment["work_pool"] for deployment in deployments] == [{"name": "zoompool"}] * 2


def test_entrypoints_are_the_flows(content: dict[str, Any]) -> None:
    flows = {
        deployment["name"].removesuffix("_production"): load_flow_from_entrypoint(
            deployment["entrypoint"]
        ).name
        for deployment in content["deployments"]
    }
    assert flows == {"taxi_local_data": "main-flow", "taxi_s3_data": "main-flow-s3"}


def test_parameters_are_those_of_the_flow(content: dict[str, Any]) -> None:
    for deployment in content["deployments"]:
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        known = inspect.signature(flow.fn).parameters.keys()
        for given in (deployment, *deployment["schedules"]):
            parameters = given.get("parameters", {})
            assert parameters.keys() <= known
            flow.validate_parameters(parameters)


def test_steps_exist_and_take_their_arguments(content: dict[str, Any]) -> None:
    for phase in ("build", "push", "pull"):
        for step in content[phase] or []:
            ((path, arguments),) = step.items()
            module, _, name = path.rpartition(".")
            signature = inspect.signature(getattr(importlib.import_module(module), name))
            signature.bind(**{key: arguments[key] for key in arguments.keys() - STEP_KEYS})


# The rest runs what prefect.yaml declares, with a real worker, from a checkout of its own.


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as it is, committed, in a directory of its own."""
    directory = tmp_path_factory.mktemp("checkout") / "nyc taxi duration"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, directory / name)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (
        ["init", "--quiet"],
        ["remote", "add", "origin", "https://example.invalid/nyc-taxi-duration.git"],
        ["add", "--all"],
        [*identity, "-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--message", "Checkout"],
    ):
        subprocess.run(["git", *command], cwd=directory, check=True)
    return directory


@pytest.fixture(scope="module")
def environment(prefect_server: str) -> dict[str, str]:
    return make_environment(
        PREFECT_API_URL=prefect_server,
        PREFECT_WORKER_QUERY_SECONDS="1",
        COLUMNS="250",
        TERM="dumb",
    )


@pytest.fixture(scope="module")
def worker(
    prefect_server: str, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A worker started somewhere else than in the checkout; it makes the work pool."""
    directory = tmp_path_factory.mktemp("worker")
    command = [PROGRAMS / "prefect", "worker", "start", "-p", "zoompool"]
    pool = f"{prefect_server}/work_pools/zoompool"
    with run_server(command, environment, directory / "log", lambda: answers(pool), directory):
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
    patience = threading.Timer(90, process.kill)
    patience.start()
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(ours, 4096):
            shown += part
    patience.cancel()
    os.close(ours)
    return process.wait(), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace"))


@pytest.fixture(scope="module")
def deployed(checkout: Path, environment: dict[str, str], worker: None) -> str:
    """What `prefect deploy --all` showed on a terminal."""
    exit_code, shown = run_in_terminal(
        [PROGRAMS / "prefect", "deploy", "--all"], checkout, environment
    )
    assert exit_code == 0, shown
    return shown


def test_deploying_asks_nothing(deployed: str) -> None:
    for name in ("main-flow/taxi_local_data", "main-flow-s3/taxi_s3_data"):
        assert f"Deployment '{name}' successfully created" in deployed
    assert not re.search(r"^\W*\? ", deployed, re.MULTILINE)
    assert "[y/n]" not in deployed.lower()


@pytest.fixture(scope="module")
def runs(
    deployed: str,
    prefect_server: str,
    checkout: Path,
    environment: dict[str, str],
    real_data: Path,
    months_in_s3: S3Server,
    s3_block: str,
) -> dict[str, FlowRun]:
    """Both deployments, run at the same time and watched to the end."""
    given = {
        "main-flow/taxi_local_data": [f"data_dir={real_data}"],
        # Not where the other saves its model: that one would be found and kept.
        "main-flow-s3/taxi_s3_data": ["models_dir=models-s3"],
    }
    common = ["year=2023", "month=2", "features=course"]
    watched = []
    for name, parameters in given.items():
        options = [option for each in (*common, *parameters) for option in ("-p", each)]
        command = [PROGRAMS / "prefect", "deployment", "run", name, *options, "--watch"]
        watched.append(subprocess.Popen(command, cwd=checkout.parent, env=environment))
    assert [process.wait() for process in watched] == [0, 0]
    with connected_to(prefect_server):
        return {name: read_only_run(name) for name in given}


def read_only_run(name: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(name)
        filtered = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]))
        (flow_run,) = client.read_flow_runs(flow_run_filter=filtered)
    return flow_run


def test_both_deployments_complete(runs: dict[str, FlowRun]) -> None:
    assert [flow_run.state_name for flow_run in runs.values()] == ["Completed"] * 2


def test_both_deployments_give_the_same_report(
    runs: dict[str, FlowRun], checkout: Path, train_on_real_months: Any
) -> None:
    (local,) = checkout.glob("models/green/2023-02-*/report.json")
    (from_s3,) = checkout.glob("models-s3/green/2023-02-*/report.json")
    assert local.parent.name == from_s3.parent.name
    assert local.read_bytes() == from_s3.read_bytes()
    same = train_on_real_months("--year", "2023", "--month", "2", "--features", "course")
    assert local.read_bytes() == same.report_bytes
    assert round(same.report["validation"]["rmse"], 6) == 6.160602


@pytest.mark.usefixtures("prefect_api")
def test_both_deployments_log_and_publish(runs: dict[str, FlowRun]) -> None:
    for flow_run in runs.values():
        read_logs(flow_run.id, awaited="2023-02: kept 62,574 of 64,809 trips")
        assert "| 6.1606 |" in str(read_report_artifact(flow_run.id).data)


def test_runs_leave_the_checkout_clean(runs: dict[str, FlowRun], checkout: Path) -> None:
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert status.stdout == "?? models-s3/\n"


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
